"""What tfmot's wrappers round, as the TFLite converter will: configurations by layer, without tfmot's own layout.

    kernels      int8, symmetric, one scale per output channel (of depthwise kernels and dense ones, too)
    outputs      int8, asymmetric, one range; not between a layer and the activation that is fused into it
    behind a softmax, within a hard-swish, and through pooling and shapes: nothing

tfmot 0.8.1's own layout gives up the rounding of a kernel, and with it the keeping of zeros and clusters, wherever a
ReLU follows (``LayerReLUQuantize``); it scales depthwise kernels as a whole; one quantizer serves all layers, so that
the first kernel without a zero ends the keeping of zeros in all.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import tf_keras

from edgeml.compression import toolkit

toolkit.load()

from tensorflow_model_optimization.python.core.quantization.keras import (  # noqa: E402
    quantize_config,
    quantizers,
)
from tensorflow_model_optimization.python.core.quantization.keras.collab_opts.cluster_preserve import (  # noqa: E402
    cluster_preserve_quantize_registry as clusters,
)
from tensorflow_model_optimization.python.core.quantization.keras.collab_opts.prune_preserve import (  # noqa: E402
    prune_preserve_quantize_registry as zeros,
)
from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import (  # noqa: E402
    default_8bit_quantize_layout_transform as layout,
)
from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import (  # noqa: E402
    default_8bit_quantize_scheme as scheme,
)
from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import (  # noqa: E402
    default_8bit_quantizers,
    default_8bit_transforms,
)
from tensorflow_model_optimization.python.core.quantization.keras.graph_transformations import (  # noqa: E402
    model_transformer,
)

old = tf_keras.layers
SILENT = (  # layers that an int8 file runs on integers as they come
    *(
        old.InputLayer,
        old.MaxPooling2D,
        old.GlobalMaxPooling2D,
        old.Flatten,
        old.Reshape,
        old.Permute,
        old.RepeatVector,
    ),
    *(old.ZeroPadding2D, old.Cropping2D, old.UpSampling2D, old.Resizing),
    *(old.Dropout, old.AlphaDropout, old.GaussianDropout, old.GaussianNoise, old.SpatialDropout1D),
)
PARTS = ("__p3", "__r6", "__s6")  # of a hard-swish, which a file computes in one
KERNELS = {old.Conv2D: "kernel", old.Dense: "kernel", old.DepthwiseConv2D: "depthwise_kernel"}


class DepthwiseQuantizer(quantizers.LastValueQuantizer):  # type: ignore[misc]
    """One scale for each output channel of a depthwise kernel (H, W, C, M)."""

    def __init__(self) -> None:
        super().__init__(num_bits=8, per_axis=True, symmetric=True, narrow_range=True)

    def build(self, tensor_shape: Any, name: str, layer: Any) -> Any:
        """Make the variables of C·M ranges."""
        return self._add_range_weights(layer, name, True, (int(np.prod(tensor_shape[-2:])),))

    def __call__(self, inputs: Any, training: Any, weights: Any, **options: Any) -> Any:
        """Round, with the channels in one axis."""
        shape = tuple(inputs.shape)
        flat = tf_keras.backend.reshape(inputs, (*shape[:2], 1, shape[2] * shape[3]))
        return tf_keras.backend.reshape(super().__call__(flat, training, weights, **options), shape)


QUANTIZERS = {  # by what of a kernel is kept
    "": default_8bit_quantizers.Default8BitConvWeightsQuantizer,
    "zeros": zeros.PrunePreserveDefault8BitConvWeightsQuantizer,
    "clusters": lambda: clusters.ClusterPreserveDefault8BitConvWeightsQuantizer(False),
    "zeros, clusters": lambda: clusters.ClusterPreserveDefault8BitConvWeightsQuantizer(True),
    "depthwise": DepthwiseQuantizer,
}


class Rounding(quantize_config.QuantizeConfig):  # type: ignore[misc]
    """What is rounded of a layer: the weight named ``kernel``, keeping what ``keeps`` says, and its output."""

    def __init__(self, kernel: str = "", keeps: str = "", output: bool = False) -> None:
        self.kernel, self.keeps, self.output = kernel, keeps, output
        self.quantizer = QUANTIZERS[keeps]()

    def get_weights_and_quantizers(self, layer: Any) -> list[Any]:
        """Return the kernel and its quantizer."""
        return [(getattr(layer, self.kernel), self.quantizer)] if self.kernel else []

    def get_activations_and_quantizers(self, layer: Any) -> list[Any]:
        """Return nothing: activations of a twin are layers."""
        return []

    def set_quantize_weights(self, layer: Any, quantize_weights: Any) -> None:
        """Let the layer compute with its rounded kernel."""
        for weight in quantize_weights:
            setattr(layer, self.kernel, weight)

    def set_quantize_activations(self, layer: Any, quantize_activations: Any) -> None:
        """Do nothing: there are none."""
        del layer, quantize_activations  # AutoGraph (TensorFlow 2.21) cannot read a function that is a docstring alone

    def get_output_quantizers(self, layer: Any) -> list[Any]:
        """Return the quantizer of the output."""
        options = {"num_bits": 8, "per_axis": False, "symmetric": False, "narrow_range": False}
        return [quantizers.MovingAverageQuantizer(**options)] if self.output else []

    def get_config(self) -> dict[str, Any]:
        """Return what ``from_config`` takes."""
        return {"kernel": self.kernel, "keeps": self.keeps, "output": self.output}


class Scheme(scheme.Default8BitQuantizeScheme):  # type: ignore[misc]
    """tfmot's int8 scheme without its layout, but for the rounding of inputs."""

    def get_layout_transformer(self) -> Any:
        """Return what puts a quantizer behind every input."""
        return _InputsAlone()


class _InputsAlone(layout.Default8BitQuantizeLayoutTransform):  # type: ignore[misc]
    def apply(self, model: Any, layer_quantize_map: Any) -> Any:
        inputs = [default_8bit_transforms.InputLayerQuantize()]
        names = set(layer_quantize_map.keys())
        return model_transformer.ModelTransformer(model, inputs, names, layer_quantize_map).transform()


def roundings(twin: Any) -> dict[str, Rounding]:
    """Return what is rounded of every layer of a twin, by name."""
    found: dict[str, Rounding] = {}
    behind: set[str] = set()  # layers behind a softmax, itself among them
    for layer in twin.layers:
        sources = [node.layer.name for node in layer.inbound_nodes[0].parent_nodes] if layer.inbound_nodes else []
        if _is_softmax(layer) or behind.intersection(sources):
            behind.add(layer.name)
        kernel = KERNELS.get(type(layer), "")
        keeps = "depthwise" if kernel == "depthwise_kernel" else kept(getattr(layer, kernel).numpy()) if kernel else ""
        silent = layer.name in behind or isinstance(layer, SILENT) or layer.name.endswith(PARTS) or _is_fused(layer)
        found[layer.name] = Rounding(kernel, keeps, output=not silent)
    return found


def kept(kernel: Any) -> str:
    """Tell what a kernel holds that training would lose: exact zeros, and few distinct values beside them."""
    others = kernel[kernel != 0]
    words = ["zeros"] if others.size < kernel.size else []
    return ", ".join([*words, "clusters"] if 1 < len(np.unique(others)) <= others.size // 2 else words)


def _is_softmax(layer: Any) -> bool:
    return isinstance(layer, old.Softmax) or getattr(getattr(layer, "activation", None), "__name__", "") == "softmax"


def _is_fused(layer: Any) -> bool:
    """Tell a layer whose one reader is an activation that the converter fuses into it."""
    if not isinstance(layer, (old.Conv2D, old.Dense, old.DepthwiseConv2D, old.Add)) or len(layer.outbound_nodes) != 1:
        return False
    reader = layer.outbound_nodes[0].layer
    is_relu = isinstance(reader, old.ReLU) and not reader.name.endswith(PARTS)
    return is_relu or (isinstance(reader, old.Activation) and reader.activation.__name__ == "relu")


@contextmanager
def adapted(decay: float) -> Iterator[None]:
    """Let ranges of outputs follow at ``decay``, and a kernel have one set of centroids, while a model trains.

    tfmot 0.8.1 fixes the decay at 0.999, and ranges start at ±6: 300 steps leave two fifths of the codes unused. Of a
    kernel whose channels have about as many values each it makes a set of centroids per channel, filled up with ones.
    """
    ops = quantizers.quant_ops
    own = ops.MovingAvgQuantize

    def follow(*args: Any, **options: Any) -> Any:
        return own(*args, **{**options, "ema_decay": decay})

    def one_set(_layer: Any, weight: Any, _data_format: Any) -> tuple[Any, Any, Any, bool]:
        centroids, index = clusters.get_unique(weight)
        return centroids, centroids.shape[0], index, False

    with ExitStack() as stack:
        stack.enter_context(patch.object(ops, "MovingAvgQuantize", follow))
        stack.enter_context(patch.object(clusters, "get_centroids", one_set))
        yield
