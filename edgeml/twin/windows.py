"""Convolutions, pooling, padding: along two axes as they are, along one as layers of height 1.

    (T, C) ─ reshape ─ (1, T, C) ─ window of (1, k) ─ (1, T', C') ─ reshape ─ (T', C')

tfmot 0.8.1 quantizes none of the one-dimensional layers. A causal convolution pads its past first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tf_keras

from edgeml.folding.graph import Node
from edgeml.twin.activations import activation
from edgeml.twin.calls import Builder, Call, chain, of, refuse

old = tf_keras.layers


def with_activation(node: Node, name: str, step: Call) -> Call:
    """Put a layer's own activation behind it: inside a layer, tfmot 0.8.1 leaves some of them in float."""
    then = activation(node, f"{name}__act")
    return lambda tensors: then(step(tensors))


def conv(node: Node, name: str) -> Call:
    """Build a convolution."""
    layer = node.layer
    options = {"use_bias": layer.use_bias, "groups": layer.groups, **of(node, name)}
    return _window(node, name, layer.filters, lambda window: [old.Conv2D(layer.filters, **window, **options)])


def depthwise(node: Node, name: str) -> Call:
    """Build a depthwise convolution."""
    multiplier = node.layer.depth_multiplier
    options = {"depth_multiplier": multiplier, "use_bias": node.layer.use_bias, **of(node, name)}
    outputs = multiplier * int(node.inputs[0].shape[-1] or 0)
    return _window(node, name, outputs, lambda window: [old.DepthwiseConv2D(**_square(window), **options)])


def separable(node: Node, name: str) -> Call:
    """Build a separable convolution in two parts: tfmot 0.8.1's own split fails on strided ones."""
    layer = node.layer
    first = {"depth_multiplier": layer.depth_multiplier, "use_bias": False, **of(node, f"{name}__dw")}
    second = {"use_bias": layer.use_bias, **of(node, f"{name}__pw")}

    def parts(window: dict[str, Any]) -> list[Any]:
        return [old.DepthwiseConv2D(**_square(window), **first), old.Conv2D(layer.filters, 1, **second)]

    return _window(node, name, layer.filters, parts)


def transposed(node: Node, name: str) -> Call:
    """Build a transposed convolution."""
    keys = ("filters", "kernel_size", "strides", "padding", "output_padding", "dilation_rate", "use_bias")
    step = old.Conv2DTranspose(**{key: getattr(node.layer, key) for key in keys}, **of(node, name))
    return with_activation(node, name, chain(step))


def _window(node: Node, name: str, outputs: int, make: Callable[[dict[str, Any]], list[Any]]) -> Call:
    layer = node.layer
    if len(layer.kernel_size) == 2:
        window = {key: getattr(layer, key) for key in ("kernel_size", "strides", "padding", "dilation_rate")}
        return with_activation(node, name, chain(*make(window)))
    (size,), (stride,), (step,), padding = layer.kernel_size, layer.strides, layer.dilation_rate, layer.padding
    before = []
    if padding == "causal":
        padding, past = "valid", (size - 1) * step
        before = [old.ZeroPadding2D(((0, 0), (past, 0)), **of(node, f"{name}__past"))]
    window = {"kernel_size": (1, size), "strides": (1, stride), "padding": padding, "dilation_rate": (1, step)}
    return with_activation(node, name, _tall(node, name, [*before, *make(window)], outputs))


def _square(window: dict[str, Any]) -> dict[str, Any]:
    """Let a stride along one axis be one along both: TensorFlow's depthwise kernels know no other, and height is 1."""
    height, width = window["strides"]
    flat = window["kernel_size"][0] == 1 and height == 1
    return {**window, "strides": (width, width) if flat else (height, width)}


def _tall(node: Node, name: str, steps: Sequence[Any], outputs: int) -> Call:
    up = old.Reshape((1, -1, node.inputs[0].shape[-1]), **of(node, f"{name}__tall"))
    down = old.Reshape((-1, outputs), **of(node, f"{name}__flat"))
    return chain(up, *steps, down)


def pool(cls: Any) -> Builder:
    """Return the builder of pooling by windows."""

    def builder(node: Node, name: str) -> Call:
        layer = node.layer
        if len(layer.pool_size) == 2:
            return chain(cls(layer.pool_size, layer.strides, layer.padding, **of(node, name)))
        size, stride = ((1, values[0]) for values in (layer.pool_size, layer.strides))
        step = cls(size, stride, layer.padding, **of(node, name))
        return _tall(node, name, [step], int(node.inputs[0].shape[-1] or 0))

    return builder


def global_pool(cls: Any) -> Builder:
    """Return the builder of pooling over everything."""

    def builder(node: Node, name: str) -> Call:
        *sides, channels = node.inputs[0].shape
        if len(sides) == 2:
            return chain(cls(keepdims=node.layer.keepdims, **of(node, name)))
        up = old.Reshape((1, -1, channels), **of(node, f"{name}__tall"))
        down = [old.Reshape((1, channels), **of(node, f"{name}__flat"))] if node.layer.keepdims else []
        return chain(up, cls(**of(node, name)), *down)

    return builder


def beside(cls: Any, attribute: str) -> Builder:
    """Return the builder of padding, cropping or repeating; along one axis it leaves the height alone."""

    def builder(node: Node, name: str) -> Call:
        amounts = getattr(node.layer, attribute)
        if len(node.inputs[0].shape) == 3:
            return chain(cls(amounts, **of(node, name)))
        wide = (1, amounts) if isinstance(amounts, int) else ((0, 0), tuple(amounts))
        return _tall(node, name, [cls(wide, **of(node, name))], int(node.inputs[0].shape[-1] or 0))

    return builder


def upsampling(node: Node, name: str) -> Call:
    """Build the repetition of rows and columns, or what lies between them."""
    if len(node.inputs[0].shape) == 2:
        return beside(old.UpSampling2D, "size")(node, name)
    return chain(old.UpSampling2D(node.layer.size, interpolation=node.layer.interpolation, **of(node, name)))


def resizing(node: Node, name: str) -> Call:
    """Build what puts in front of a member of an ensemble the size that it takes."""
    layer = node.layer
    plain = not (layer.pad_to_aspect_ratio or layer.crop_to_aspect_ratio or layer.antialias)
    if not plain or layer.interpolation not in ("bilinear", "nearest"):
        refuse(layer, "has options; bilinear or nearest, without antialias and aspect ratio, is due")
    return chain(old.Resizing(layer.height, layer.width, layer.interpolation, **of(node, name)))
