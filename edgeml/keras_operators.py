"""A folded Keras model as a list of operators: what a budget is finally judged on.

Nested models are laid flat, several beside each other under their names: ``member_0/conv``. Views (flatten, reshape,
dropout) vanish; an activation joins the operator before it where that operator has no other reader. A layer that is not
known here is an error, or has its class as its kind, which ``operators.not_counted`` lists: never a silent zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from edgeml.errors import TargetError
from edgeml.operators import Operator, Shape, with_activations_joined

VIEWS = {
    "Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "GaussianNoise", "GaussianDropout",
    "AlphaDropout", "Flatten", "Reshape", "Identity", "ActivityRegularization", "InputLayer", "RandomFlip",
    "RandomRotation", "RandomTranslation", "RandomZoom",
}  # fmt: skip
FUSED = {"Activation", "ReLU", "LeakyReLU", "ELU", "PReLU", "Log"}
PLAIN = {
    "Add": "add", "Subtract": "add", "Average": "add", "Multiply": "multiply", "Maximum": "add", "Minimum": "add",
    "Concatenate": "concat", "Softmax": "softmax", "Permute": "pad",
    "MaxPooling1D": "max_pool", "MaxPooling2D": "max_pool", "MaxPooling3D": "max_pool",
    "AveragePooling1D": "avg_pool", "AveragePooling2D": "avg_pool", "AveragePooling3D": "avg_pool",
    "GlobalAveragePooling1D": "global_pool", "GlobalAveragePooling2D": "global_pool",
    "GlobalMaxPooling1D": "global_pool", "GlobalMaxPooling2D": "global_pool",
    "ZeroPadding1D": "pad", "ZeroPadding2D": "pad", "ZeroPadding3D": "pad",
    "Cropping1D": "pad", "Cropping2D": "pad", "UpSampling1D": "resize", "UpSampling2D": "resize",
    "Resizing": "resize",
}  # fmt: skip


def keras_operators(model: Any, *, strict: bool = True) -> tuple[Operator, ...]:
    """List the operators of a Keras model, BatchNormalization that is left counted as a kept affine.

    Raises:
        TargetError: a layer whose cost is not known, where ``strict``; else only its weights are counted.
    """
    return tuple(_Reader(strict).read(model))


@contextmanager
def as_if_trained(model: Any) -> Iterator[None]:
    """Give every fresh BatchNormalization a mean for a while: it is 0 yet, so that its bias would fold away."""
    import numpy as np

    means = [layer.moving_mean for layer in model._flatten_layers() if getattr(layer, "moving_mean", None) is not None]
    means = [mean for mean in means if not np.any(np.array(mean))]
    before = [np.array(mean) for mean in means]
    for mean in means:
        mean.assign([1.0] * mean.shape[0])
    try:
        yield
    finally:
        for mean, values in zip(means, before, strict=True):
            mean.assign(values)


class _Reader:
    """Walks the graph; remembers which operator makes each tensor, and whose weights were counted."""

    def __init__(self, strict: bool) -> None:
        self.strict = strict
        self.scope = ""
        self.operators: dict[str, Operator] = {}
        self.made_by: dict[int, str] = {}
        self.counted: set[int] = set()

    def read(self, model: Any) -> list[Operator]:
        for tensor in model.inputs:
            if None in tensor.shape[1:]:
                raise TargetError(
                    f"input '{tensor.name}': shape {tuple(tensor.shape)}; every size but the batch must be fixed. Build"
                    " the model for one size."
                )
            self.made_by[id(tensor)] = self._put(Operator(tensor.name, "input", (), tuple(tensor.shape[1:])))
        self._walk(model)
        outputs = {self.made_by[id(tensor)] for tensor in model.outputs}
        return with_activations_joined(list(self.operators.values()), outputs)

    def _walk(self, model: Any) -> None:
        graph = getattr(model, "_functional", None) or model
        by_depth = [graph._nodes_by_depth[depth] for depth in sorted(graph._nodes_by_depth, reverse=True)]
        nodes = [node for at_depth in by_depth for node in at_depth if not node.is_input]
        has_siblings = len({id(node.operation) for node in nodes if _is_model(node.operation)}) > 1
        for node in nodes:
            self._node(node, has_siblings)

    def _node(self, node: Any, has_siblings: bool) -> None:
        layer, sources = node.operation, list(node.input_tensors)
        if _is_model(layer):
            inner = getattr(layer, "_functional", None) or layer
            for outer, own in zip(sources, inner._inputs, strict=True):
                self.made_by[id(own)] = self.made_by[id(outer)]
            outside = self.scope
            self.scope += f"{layer.name}/" * has_siblings
            self._walk(layer)
            self.scope = outside
            for outer, own in zip(node.outputs, inner._outputs, strict=True):
                self.made_by[id(outer)] = self.made_by[id(own)]
            return
        names = tuple(self.made_by[id(tensor)] for tensor in sources if id(tensor) in self.made_by)
        kind = type(layer).__name__
        if kind in VIEWS:
            self.made_by[id(node.outputs[0])] = names[0]
            return
        shape = tuple(int(size) for size in node.outputs[0].shape[1:])
        renamed: dict[str, str] = {}
        for operator in self._described(layer, kind, names, tuple(sources[0].shape[1:]), shape):
            inputs = tuple(renamed.get(name, name) for name in operator.inputs)
            stored = id(layer) not in self.counted  # a layer called again computes again, with the weights it has
            weights, biases = (operator.weights, operator.biases) if stored else (0, 0)
            renamed[operator.name] = made = self._put(operator._replace(inputs=inputs, weights=weights, biases=biases))
        self.counted.add(id(layer))
        self.made_by.update((id(tensor), made) for tensor in node.outputs)

    def _described(self, layer: Any, kind: str, names: tuple[str, ...], source: Shape, shape: Shape) -> list[Operator]:
        if kind in PLAIN:
            return [Operator(layer.name, PLAIN[kind], names, shape)]
        if kind in _READERS:
            return _READERS[kind](layer, names, source, shape)
        weights = sum(math.prod(weight.shape) for weight in getattr(layer, "weights", ()))
        if kind in FUSED:
            return [Operator(layer.name, "activation", names, shape, weights, activation=_activation(layer))]
        if self.strict:
            raise TargetError(
                f"layer '{layer.name}' ({kind}): its cost is not known; {', '.join(sorted([*_READERS, *PLAIN]))} are."
            )
        return [Operator(layer.name, kind, names, shape, weights)]

    def _put(self, operator: Operator) -> str:
        name = self.scope + operator.name
        while name in self.operators:
            name += "'"
        self.operators[name] = operator._replace(name=name)
        return name


def _is_model(operation: Any) -> bool:
    return hasattr(operation, "_nodes_by_depth") or hasattr(operation, "_functional")


def _activation(layer: Any) -> str:
    name = getattr(getattr(layer, "activation", None), "__name__", type(layer).__name__.lower())
    return {"hard_silu": "hard_swish", "exponential": "exp"}.get(name, str(name))


def _size(weight: Any) -> int:
    return 0 if weight is None else math.prod(weight.shape)


def _places(layer: Any, shape: Shape) -> int:
    """Count the positions of a feature map, channels last or first."""
    return math.prod(shape[1:] if getattr(layer, "data_format", "") == "channels_first" else shape[:-1])


def _biases(layer: Any) -> int:
    return _size(layer.bias) if layer.use_bias else 0


def _matrix(kind: str) -> Callable[..., list[Operator]]:
    def read(layer: Any, names: tuple[str, ...], source: Shape, shape: Shape) -> list[Operator]:
        weights = _size(layer.kernel)
        transposed = "Transpose" in type(layer).__name__
        macs = _places(layer, source if transposed else shape) * weights
        kernel, strides = tuple(getattr(layer, "kernel_size", ())), tuple(getattr(layer, "strides", ()))
        biases, activation = _biases(layer), _activation(layer)
        return [Operator(layer.name, kind, names, shape, weights, biases, macs, kernel, strides, activation)]

    return read


def _separable(layer: Any, names: tuple[str, ...], _source: Shape, shape: Shape) -> list[Operator]:
    depthwise, pointwise = _size(layer.depthwise_kernel), _size(layer.pointwise_kernel)
    channels, places = math.prod(layer.depthwise_kernel.shape[-2:]), _places(layer, shape)
    between = (channels, *shape[1:]) if layer.data_format == "channels_first" else (*shape[:-1], channels)
    first = Operator(
        f"{layer.name}/depthwise", "depthwise", names, between, depthwise, 0, places * depthwise,
        tuple(layer.kernel_size), tuple(layer.strides),
    )  # fmt: skip
    second = Operator(
        layer.name, "conv", (first.name,), shape, pointwise, _biases(layer), places * pointwise,
        (1,) * len(layer.kernel_size), (1,) * len(layer.kernel_size), _activation(layer),
    )  # fmt: skip
    return [first, second]


def _affine(layer: Any, names: tuple[str, ...], _source: Shape, shape: Shape) -> list[Operator]:
    import numpy as np

    if type(layer).__name__ == "Rescaling":
        scale, offset = np.asarray(layer.scale), np.asarray(layer.offset)
        return [Operator(layer.name, "affine", names, shape, scale.size, offset.size if offset.any() else 0)]
    channels = _size(layer.moving_mean if hasattr(layer, "moving_mean") else layer.mean)
    return [Operator(layer.name, "affine", names, shape, channels, channels)]


def _split(layer: Any, names: tuple[str, ...], source: Shape, _shape: Shape) -> list[Operator]:
    """Stand for all parts together: they are made at once, and wait for the last of their readers."""
    return [Operator(layer.name, "split", names, source)]


def _trees(layer: Any, names: tuple[str, ...], _source: Shape, _shape: Shape) -> list[Operator]:
    operators: list[Operator] = layer.shape.operators(layer.name, names[0], logarithm=layer.logarithm)
    return operators


_READERS: dict[str, Callable[..., list[Operator]]] = {
    **dict.fromkeys(("Conv1D", "Conv2D", "Conv3D"), _matrix("conv")),
    **dict.fromkeys(("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"), _matrix("conv")),
    **dict.fromkeys(("DepthwiseConv1D", "DepthwiseConv2D"), _matrix("depthwise")),
    **dict.fromkeys(("SeparableConv1D", "SeparableConv2D"), _separable),
    "Dense": _matrix("dense"),
    "Split": _split,
    **dict.fromkeys(("BatchNormalization", "Normalization", "Rescaling"), _affine),
    "TreeEnsemble": _trees,
}
