"""What a Keras layer is to folding: an affine map, a carrier of kernels, or something a map can pass through.

A layer counts as a ``Conv2D`` only if it computes as one: an instance whose ``call`` (and kernel, and convolution) is
that of ``Conv2D`` itself. A subclass that changes only its constructor folds, one that overrides ``call`` does not.
Weights are read by attribute, never by index: their order changes with ``scale``, ``center`` and ``use_bias``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers as kl

from edgeml.folding.affine import Affine, Array, Refusal, Shape, array, compress
from edgeml.folding.kernels import DENSE, DEPTHWISE, TRANSPOSED, Form, Stack
from edgeml.layers import BatchRenormalization

_COMPUTES = ("call", "__call__", "convolution_op", "kernel", "_merge_function")
_FLOATS = ("float32", "float64")
_HOMOGENEOUS = (keras.activations.relu, keras.activations.leaky_relu)

BATCH_NORMS = (kl.BatchNormalization, BatchRenormalization)
AFFINE = (*BATCH_NORMS, kl.Normalization, kl.Rescaling)

CARRIERS: tuple[tuple[tuple[type, ...], tuple[tuple[str, Form], ...]], ...] = (
    ((kl.Conv1D, kl.Conv2D, kl.Conv3D, kl.Dense), (("kernel", DENSE),)),
    ((kl.Conv1DTranspose, kl.Conv2DTranspose, kl.Conv3DTranspose), (("kernel", TRANSPOSED),)),
    ((kl.DepthwiseConv1D, kl.DepthwiseConv2D), (("kernel", DEPTHWISE),)),
    ((kl.SeparableConv1D, kl.SeparableConv2D), (("depthwise_kernel", DEPTHWISE), ("pointwise_kernel", DENSE))),
)

RANDOM = (kl.RandomFlip, kl.RandomRotation, kl.RandomTranslation, kl.RandomZoom)  # training=True is their default

KINDS: dict[str, tuple[type, ...]] = {
    "carrier": tuple(c for classes, _ in CARRIERS for c in classes),
    "affine": AFFINE,
    "same": (
        *(kl.Dropout, kl.SpatialDropout1D, kl.SpatialDropout2D, kl.SpatialDropout3D, kl.AlphaDropout),
        *(kl.GaussianDropout, kl.GaussianNoise, kl.Identity, kl.ActivityRegularization),
        *RANDOM,
    ),
    "activation": (kl.Activation, kl.ReLU, kl.LeakyReLU),
    "reshape": (kl.Reshape, kl.Flatten),
    "permute": (kl.Permute,),
    # each output of these is a weighted mean of inputs of its channel, so an affine map per channel commutes
    "mean": (
        *(kl.AveragePooling1D, kl.AveragePooling2D, kl.AveragePooling3D),
        *(kl.GlobalAveragePooling1D, kl.GlobalAveragePooling2D, kl.GlobalAveragePooling3D),
        *(kl.AdaptiveAveragePooling1D, kl.AdaptiveAveragePooling2D, kl.AdaptiveAveragePooling3D),
        *(kl.Cropping1D, kl.Cropping2D, kl.Cropping3D, kl.RepeatVector),
        *(kl.UpSampling1D, kl.UpSampling2D, kl.UpSampling3D),
    ),
    "max": (
        *(kl.MaxPooling1D, kl.MaxPooling2D, kl.MaxPooling3D),
        *(kl.GlobalMaxPooling1D, kl.GlobalMaxPooling2D, kl.GlobalMaxPooling3D),
        *(kl.AdaptiveMaxPooling1D, kl.AdaptiveMaxPooling2D, kl.AdaptiveMaxPooling3D),
    ),
    "pad": (kl.ZeroPadding1D, kl.ZeroPadding2D, kl.ZeroPadding3D),
    "add": (kl.Add,),
    "subtract": (kl.Subtract,),
    "average": (kl.Average,),
    "concatenate": (kl.Concatenate,),
}


def as_class(layer: Any, classes: tuple[type, ...]) -> type | None:
    """Return the one of ``classes`` that ``layer`` computes as, else None."""
    for cls in classes:
        if isinstance(layer, cls) and all(_same(type(layer), cls, name) for name in _COMPUTES):
            return cls
    return None


def _same(one: type, other: type, name: str) -> bool:
    return getattr(one, name, None) is getattr(other, name, None)


def kind_of(layer: Any) -> str | None:
    """Return the key of ``KINDS`` that ``layer`` belongs to."""
    return next((kind for kind, classes in KINDS.items() if as_class(layer, classes)), None)


def is_affine(layer: Any) -> bool:
    """Tell whether a layer is named in the report: it is, or derives from, one of ``AFFINE``."""
    return isinstance(layer, AFFINE)


def is_linear(layer: Any) -> bool:
    """Tell whether the layer's own activation leaves its input as it is."""
    return getattr(layer, "activation", layer) in (None, keras.activations.linear)


def commutes(layer: Any, a: Affine) -> bool:
    """Tell whether a map passes through the layer's own activation f: f(s·x) = s·f(x), s > 0, for relus."""
    if is_linear(layer):
        return True
    if as_class(layer, (kl.ReLU,)):
        is_homogeneous = layer.max_value is None and layer.threshold == 0
    else:
        is_homogeneous = bool(as_class(layer, (kl.LeakyReLU,))) or getattr(layer, "activation", None) in _HOMOGENEOUS
    return is_homogeneous and not a.shifts and bool((a.scale > 0).all())


def channel_axis(layer: Any, rank: int) -> int:
    """Return the axis, without batch, that holds the channels of a tensor at this layer."""
    return 0 if getattr(layer, "data_format", None) == "channels_first" else rank - 1


def computes_in_float(layer: Any) -> None:
    """Refuse a layer that computes in half precision or in integers."""
    dtype = getattr(layer, "compute_dtype", None)
    if dtype not in _FLOATS:
        raise Refusal(f"'{layer.name}' computes in {dtype}")


# ---- affine layers


def affine_of(layer: Any, rank: int) -> Affine:
    """Read a BatchNormalization, Normalization or Rescaling as a map of a tensor of ``rank`` (without batch)."""
    cls = as_class(layer, AFFINE)
    if cls is None:
        raise Refusal(f"{type(layer).__name__} overrides what {type(layer).__mro__[1].__name__} computes")
    computes_in_float(layer)
    return _READERS[cls](layer, rank)


def numpy(values: Any) -> Array:
    """Read a variable or tensor of any backend as float64."""
    return np.asarray(keras.ops.convert_to_numpy(values), np.float64)


def _batch_normalization(layer: Any, rank: int) -> Affine:
    axis = layer.axis % (rank + 1)
    if axis == 0:
        raise Refusal("it normalises along the batch axis")
    scale = 1.0 / np.sqrt(numpy(layer.moving_variance) + layer.epsilon)
    if layer.gamma is not None:
        scale = scale * numpy(layer.gamma)
    shift = -numpy(layer.moving_mean) * scale
    if layer.beta is not None:
        shift = shift + numpy(layer.beta)
    return Affine.per_channel(scale, shift, rank, axis - 1)


def _normalization(layer: Any, rank: int) -> Affine:
    mean, deviation = numpy(layer.mean), np.maximum(np.sqrt(numpy(layer.variance)), keras.config.epsilon())
    if layer.invert:
        return _of_constants(deviation, mean, rank)
    return _of_constants(1.0 / deviation, -mean / deviation, rank)


def _rescaling(layer: Any, rank: int) -> Affine:
    # Keras casts a Python float through float32 even in a float64 model: read the constants as the layer does
    scale, shift = (numpy(layer.backend.cast(v, layer.compute_dtype)) for v in (layer.scale, layer.offset))
    if keras.config.image_data_format() == "channels_first" and scale.ndim:
        scale = scale.reshape(scale.shape + (1,) * (3 - scale.ndim))
    return _of_constants(scale, shift, rank)


def _of_constants(scale: Array, shift: Array, rank: int) -> Affine:
    return Affine(*(compress(_without_batch(array(values), rank)) for values in (scale, shift)))


def _without_batch(values: Array, rank: int) -> Array:
    if values.ndim > rank + 1 or (values.ndim == rank + 1 and values.shape[0] != 1):
        raise Refusal("its constants reach over the batch axis")
    return values.reshape((1,) * (rank - values.ndim) + values.shape) if values.ndim <= rank else values[0]


_READERS: dict[type, Callable[[Any, int], Affine]] = {
    **dict.fromkeys(BATCH_NORMS, _batch_normalization),
    kl.Normalization: _normalization,
    kl.Rescaling: _rescaling,
}


def check_merge(layer: Any, a: Affine) -> None:
    """Refuse a map that the layer, which stays, could not hold beside its own."""
    if as_class(layer, BATCH_NORMS):
        a.channels(layer.axis % (a.rank + 1) - 1, layer.moving_mean.shape[0])
    elif not rescalable(a):
        raise Refusal(f"'{layer.name}' cannot hold it: Rescaling moves the axes of its constants in channels_first")


def rescalable(a: Affine) -> bool:
    """Tell whether a Rescaling layer can hold the map: in channels_first it appends axes up to rank 3."""
    return a.rank >= 2 or keras.config.image_data_format() == "channels_last"


def write_batch_normalization(a: Affine, layer: Any) -> None:
    """Make a built BatchNormalization compute ``a``."""
    count = layer.moving_mean.shape[0]
    scale, shift = a.channels(layer.axis % (a.rank + 1) - 1, count)
    layer.gamma.assign(scale)
    layer.beta.assign(shift)
    layer.moving_mean.assign(np.zeros(count))
    layer.moving_variance.assign(np.full(count, 1.0 - layer.epsilon))


def exact_config(layer: Any) -> dict[str, Any]:
    """Return the config with the constants of a Normalization as they are: Keras' lists come back as float32."""
    config: dict[str, Any] = layer.get_config()
    if isinstance(layer, kl.Normalization):
        config |= {"mean": layer.input_mean, "variance": layer.input_variance}
    return config


def rescaling_of(a: Affine, config: dict[str, Any]) -> Any:
    """Return a Rescaling that computes ``a``.

    Its constants are arrays of full rank: a Python number would go through float32 in a float64 model, and tf2onnx 1.17
    turns the cached constants of a Normalization into required inputs of the graph.
    """
    return kl.Rescaling(a.scale[None], a.shift[None], **{key: config[key] for key in ("name", "dtype")})


# ---- carriers


def stack_of(layer: Any) -> Stack:
    """Read the kernels and the bias of a carrier in float64."""
    computes_in_float(layer)
    if getattr(layer, "quantization_mode", None) or getattr(layer, "lora_enabled", False):
        raise Refusal(f"'{layer.name}' is quantized or has LoRA weights")
    names, forms = zip(*_kernels(layer), strict=True)
    bias = None if layer.bias is None else numpy(layer.bias)
    return Stack(forms, [numpy(getattr(layer, name)) for name in names], bias, getattr(layer, "groups", 1))


def write_stack(stack: Stack, layer: Any) -> None:
    """Write kernels and bias into a built layer: the one place where float64 is cast down."""
    for (name, _), kernel in zip(_kernels(layer), stack.kernels, strict=True):
        variable = getattr(layer, f"_{name}", None)  # Dense and Conv keep theirs behind a property
        (getattr(layer, name) if variable is None else variable).assign(kernel)
    if stack.bias is not None:
        layer.bias.assign(stack.bias)


def _kernels(layer: Any) -> tuple[tuple[str, Form], ...]:
    return next(kernels for classes, kernels in CARRIERS if as_class(layer, classes))


def adds_bias_astray(layer: Any, shape: Shape) -> bool:
    """Tell whether the bias of a carrier whose output has ``shape`` (without batch) is added along the wrong axis.

    Keras 3.15.1 on TensorFlow takes a bias of as many values as there are columns for one of a channels_last tensor.
    """
    if channel_axis(layer, len(shape)) == len(shape) - 1 or keras.config.backend() != "tensorflow":
        return False
    return shape[-1] is None or shape[-1] == shape[0]


def pads_zeros(layer: Any, shape: Shape) -> bool:
    """Tell whether a carrier fed a tensor of ``shape`` (without batch) sees zeros that were padded in."""
    if not hasattr(layer, "padding") or layer.padding == "valid":
        return False
    axis = channel_axis(layer, len(shape))
    sizes = [size for at, size in enumerate(shape) if at != axis]
    if layer.padding == "causal":
        return bool(layer.kernel_size[0] > 1)
    steps = zip(sizes, layer.kernel_size, layer.strides, layer.dilation_rate, strict=True)
    return any(_pads(size, (kernel - 1) * dilation + 1, stride) for size, kernel, stride, dilation in steps)


def _pads(size: int | None, reach: int, stride: int) -> bool:
    """Tell whether ``padding='same'`` adds anything; unknown sizes do, unless one tap needs none."""
    if reach == 1:
        return False
    return size is None or (-(-size // stride) - 1) * stride + reach > size
