"""What each Keras 3 layer is in tf_keras: tables of builders and of weights, and the refusal of all others."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate, pairwise
from typing import Any

import keras
import numpy as np
import tf_keras
from keras import layers as kl

from edgeml.folding.graph import Node
from edgeml.folding.layers import as_class
from edgeml.layers import BatchRenormalization
from edgeml.twin import activations, windows
from edgeml.twin.activations import activation
from edgeml.twin.calls import Builder, Call, chain, of, plain, refuse, same
from edgeml.twin.own import Channels, Log
from edgeml.twin.weights import Link

old = tf_keras.layers
FLOATS = ("float32", "float64")


def build(node: Node, name: str) -> Call:
    """Return the call that stands for a node's layer.

    Raises:
        UsageError: it has no twin; the message names the layer and the reason.
    """
    layer = node.layer
    builder = _builder(layer)
    if builder is None:
        refuse(
            layer, "has no twin in tf_keras; dense layers, convolutions, pooling, activations, sums and the like have"
        )
    if hasattr(layer, "activation") and activations.name_of(layer) not in activations.FUNCTIONS:
        refuse(layer, f"ends in an activation that has no twin; {', '.join(sorted(activations.FUNCTIONS))} have")
    if node.training and as_class(layer, _TRAINABLE):
        refuse(layer, "is called with training=True; a layer that inference runs as inference does is due")
    if getattr(layer, "data_format", "channels_last") == "channels_first":
        refuse(layer, "takes channels_first; channels_last is due")
    if getattr(layer, "compute_dtype", "float32") not in FLOATS or getattr(layer, "quantization_mode", None):
        refuse(layer, f"computes in {getattr(layer, 'quantization_mode', None) or layer.compute_dtype}; float32 is due")
    return builder(node, name)


def _builder(layer: Any) -> Builder | None:
    if not isinstance(layer, keras.Layer):
        return OPERATIONS.get(type(layer).__name__) if type(layer).__module__.startswith("keras.src.ops") else None
    cls = as_class(layer, tuple(BUILDERS))
    return BUILDERS[cls] if cls else None


def links_of(layer: Any, name: str) -> list[Link]:
    """Return where the variables of a layer go."""
    cls = as_class(layer, tuple(WEIGHTS)) if isinstance(layer, keras.Layer) else None
    places = WEIGHTS[cls] if cls else ()
    found = [(_variable(layer, attribute), (f"{name}{part}", weight)) for attribute, part, weight in places]
    return [Link(variable, place) for variable, place in found if variable is not None]


def _variable(layer: Any, attribute: str) -> Any:
    kept = getattr(layer, f"_{attribute}", None)  # Dense and Conv have theirs behind a property
    return getattr(layer, attribute, None) if kept is None else kept


# ---- dense and affine layers


def _dense(node: Node, name: str) -> Call:
    step = old.Dense(node.layer.units, use_bias=node.layer.use_bias, **of(node, name))
    return windows.with_activation(node, name, chain(step))


def _batch_normalization(node: Node, name: str) -> Call:
    """Let one that is frozen stay so; not fused: a fused one knows no epsilon below 1.001e-5."""
    keys = ("axis", "momentum", "epsilon", "center", "scale", "trainable")
    options = {key: getattr(node.layer, key) for key in keys}
    return chain(old.BatchNormalization(**options, fused=False, **of(node, name)))


def _rescaling(node: Node, name: str) -> Call:
    layer = node.layer  # its constants are read as it does itself, through float32 where they are Python's
    cast = [layer.backend.cast(value, layer.compute_dtype) for value in (layer.scale, layer.offset)]
    scale, offset = (np.asarray(keras.ops.convert_to_numpy(value)) for value in cast)
    return chain(old.Rescaling(scale, offset, **of(node, name)))


def _normalization(node: Node, name: str) -> Call:
    layer, shape = node.layer, node.layer._mean_and_var_shape
    mean, variance = (keras.ops.convert_to_numpy(value).reshape(shape) for value in (layer.mean, layer.variance))
    options = {"mean": mean, "variance": variance, "invert": layer.invert}
    return chain(old.Normalization(layer.axis or None, **options, **of(node, name)))


def _relu(node: Node, name: str) -> Call:
    layer = node.layer
    most = None if layer.max_value is None else float(layer.max_value)
    return chain(old.ReLU(most, float(layer.negative_slope), float(layer.threshold), **of(node, name)))


# ---- operations


def _parts(node: Node, name: str) -> Call:
    """Stand for ``keras.ops.split`` along the channels."""
    sizes = [int(tensor.shape[-1] or 0) for tensor in node.outputs]
    if node.layer.axis not in (-1, len(node.inputs[0].shape)):
        refuse(node.layer, "splits another axis than the channels, which alone has a twin")
    bounds = pairwise(accumulate([0, *sizes]))
    parts = [Channels(*bound, **of(node, f"{name}__{number}")) for number, bound in enumerate(bounds)]
    return lambda tensors: [part(tensors[0]) for part in parts]


def _merge(cls: Any) -> Builder:
    """Return the builder of a sum, difference or product that is written as such."""

    def builder(node: Node, name: str) -> Call:
        if len(node.inputs) != 2:
            refuse(node.layer, "takes a constant; two tensors are due")
        return chain(cls(**of(node, name)))

    return builder


# ---- tables

_CONVOLUTIONS = (kl.Conv1D, kl.Conv2D)
_DEPTHWISE = (kl.DepthwiseConv1D, kl.DepthwiseConv2D)
_SEPARABLE = (kl.SeparableConv1D, kl.SeparableConv2D)
_NORMS = (kl.BatchNormalization, BatchRenormalization)
_MERGES = (kl.Add, kl.Subtract, kl.Multiply, kl.Average, kl.Maximum, kl.Minimum)
_DROPOUTS = (kl.Dropout, kl.AlphaDropout, kl.GaussianDropout, kl.SpatialDropout1D, kl.SpatialDropout2D)
_TRAINABLE = (*_NORMS, *_DROPOUTS, kl.GaussianNoise)  # which compute something else in training

WEIGHTS: Mapping[type, tuple[tuple[str, str, str], ...]] = {  # attribute here; layer and weight in the twin
    **dict.fromkeys((kl.Dense, *_CONVOLUTIONS, kl.Conv2DTranspose), (("kernel", "", "kernel"), ("bias", "", "bias"))),
    **dict.fromkeys(_DEPTHWISE, (("kernel", "", "depthwise_kernel"), ("bias", "", "bias"))),
    **dict.fromkeys(
        _SEPARABLE,
        (
            ("depthwise_kernel", "__dw", "depthwise_kernel"),
            ("pointwise_kernel", "__pw", "kernel"),
            ("bias", "__pw", "bias"),
        ),
    ),
    **dict.fromkeys(_NORMS, tuple((w, "", w) for w in ("gamma", "beta", "moving_mean", "moving_variance"))),
    kl.PReLU: (("alpha", "", "alpha"),),
}

BUILDERS: Mapping[type, Builder] = {
    kl.Dense: _dense,
    **dict.fromkeys(_CONVOLUTIONS, windows.conv),
    kl.Conv2DTranspose: windows.transposed,
    **dict.fromkeys(_DEPTHWISE, windows.depthwise),
    **dict.fromkeys(_SEPARABLE, windows.separable),
    **dict.fromkeys(_NORMS, _batch_normalization),
    kl.Rescaling: _rescaling,
    kl.Normalization: _normalization,
    kl.Activation: activation,
    kl.ReLU: _relu,
    kl.LeakyReLU: plain(old.LeakyReLU, alpha="negative_slope"),
    kl.ELU: plain(old.ELU, "alpha"),
    kl.PReLU: plain(old.PReLU, "shared_axes"),
    kl.Softmax: plain(old.Softmax, "axis"),
    **dict.fromkeys((kl.MaxPooling1D, kl.MaxPooling2D), windows.pool(old.MaxPooling2D)),
    **dict.fromkeys((kl.AveragePooling1D, kl.AveragePooling2D), windows.pool(old.AveragePooling2D)),
    **dict.fromkeys((kl.GlobalMaxPooling1D, kl.GlobalMaxPooling2D), windows.global_pool(old.GlobalMaxPooling2D)),
    **dict.fromkeys(
        (kl.GlobalAveragePooling1D, kl.GlobalAveragePooling2D), windows.global_pool(old.GlobalAveragePooling2D)
    ),
    **dict.fromkeys((kl.ZeroPadding1D, kl.ZeroPadding2D), windows.beside(old.ZeroPadding2D, "padding")),
    **dict.fromkeys((kl.Cropping1D, kl.Cropping2D), windows.beside(old.Cropping2D, "cropping")),
    **dict.fromkeys((kl.UpSampling1D, kl.UpSampling2D), windows.upsampling),
    kl.Resizing: windows.resizing,
    **{cls: plain(getattr(old, cls.__name__)) for cls in (*_MERGES, kl.Flatten)},
    **{cls: plain(getattr(old, cls.__name__), "rate") for cls in _DROPOUTS},
    kl.GaussianNoise: plain(old.GaussianNoise, "stddev"),
    kl.Concatenate: plain(old.Concatenate, "axis"),
    kl.Permute: plain(old.Permute, "dims"),
    kl.Reshape: plain(old.Reshape, "target_shape"),
    kl.RepeatVector: plain(old.RepeatVector, "n"),
    **dict.fromkeys((kl.Identity, kl.ActivityRegularization), same),
}

OPERATIONS: Mapping[str, Builder] = {  # keras.ops, by the names of their classes
    "Log": plain(Log),
    "Split": _parts,
    **{cls.__name__: _merge(cls) for cls in (old.Add, old.Subtract, old.Multiply)},
}
