"""A network as a list of layers, before any framework: written once by a search space, read twice.

    net = Network((28, 28, 1))
    x = net.act(net.norm(net.conv(net.input, 16, kernel=3, stride=2)), "relu")
    net.softmax(net.dense(net.global_pool(x), 10))

    net.operators()   the folded graph's operators: cost in microseconds, no Keras
    net.keras()       the same network as a Keras model, to be trained

All convolutions and poolings pad with zeros to "same" size; a kernel is a side, or height and width: (9, 1) along time.
Normalisation folds into the operator before it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from edgeml.operators import Operator, Shape

Kernel = int | tuple[int, int]
BN_MOMENTUM = 0.9  # Keras' 0.99 leaves small data sets at chance level at inference


@dataclass(slots=True, eq=False)
class Layer:
    """One layer: its kind, the layers that feed it, its output shape without batch, and the options of its kind."""

    name: str
    kind: str
    inputs: tuple[Layer, ...]
    shape: Shape
    options: dict[str, Any] = field(default_factory=dict)


class Network:
    """Layers in topological order; every method appends one and returns it."""

    def __init__(self, input_shape: Shape) -> None:
        self.input = Layer("input", "input", (), tuple(input_shape))
        self.layers = [self.input]
        self._counts: Counter[str] = Counter()

    def conv(self, x: Layer, filters: int, *, kernel: Kernel = 1, stride: int = 1, bias: bool = False) -> Layer:
        """Convolve ``x`` with ``filters`` kernels."""
        options = {"filters": filters, "kernel": kernel, "stride": stride, "bias": bias}
        return self._append("conv", (x,), (*_strided(x.shape, stride), filters), **options)

    def depthwise(self, x: Layer, *, kernel: Kernel = 3, stride: int = 1, bias: bool = False) -> Layer:
        """Convolve each channel of ``x`` with its own kernel."""
        options = {"kernel": kernel, "stride": stride, "bias": bias}
        return self._append("depthwise", (x,), (*_strided(x.shape, stride), x.shape[-1]), **options)

    def separable(self, x: Layer, filters: int, *, kernel: Kernel = 3, stride: int = 1, bias: bool = False) -> Layer:
        """Keras' SeparableConv2D: depthwise, then pointwise, nothing between."""
        options = {"filters": filters, "kernel": kernel, "stride": stride, "bias": bias}
        return self._append("separable", (x,), (*_strided(x.shape, stride), filters), **options)

    def norm(self, x: Layer, norm: str = "batch") -> Layer:
        """Normalise ``x`` over the batch: ``batch`` or ``batch_renorm``; nothing where ``norm`` is ``none``."""
        return x if norm == "none" else self._append("norm", (x,), x.shape, norm=norm)

    def act(self, x: Layer, name: str) -> Layer:
        """Apply an activation: relu, relu6, hard_swish or selu."""
        return self._append("act", (x,), x.shape, name=name)

    def add(self, x: Layer, y: Layer) -> Layer:
        """Add two tensors of one shape."""
        return self._append("add", (x, y), x.shape)

    def max_pool(self, x: Layer) -> Layer:
        """Take the maximum over windows of 2 x 2."""
        return self._append("max_pool", (x,), (*_strided(x.shape, 2), x.shape[-1]))

    def global_pool(self, x: Layer) -> Layer:
        """Average over height and width."""
        return self._append("global_pool", (x,), (x.shape[-1],))

    def flatten(self, x: Layer) -> Layer:
        """Lay all values of ``x`` in one row."""
        return self._append("flatten", (x,), (math.prod(x.shape),))

    def reshape(self, x: Layer, shape: Shape) -> Layer:
        """Lay the values of ``x`` out in another shape."""
        return self._append("reshape", (x,), shape)

    def dropout(self, x: Layer, rate: float, kind: str = "dropout") -> Layer:
        """Drop values at random in training (``alpha_dropout``: keep mean and variance); nothing at rate 0."""
        return self._append(kind, (x,), x.shape, rate=rate) if rate else x

    def dense(self, x: Layer, units: int, start: str = "glorot_uniform") -> Layer:
        """Multiply by a matrix, drawn as ``start`` says, and add a bias."""
        return self._append("dense", (x,), (units,), units=units, start=start)

    def softmax(self, x: Layer) -> Layer:
        """Turn logits into probabilities."""
        return self._append("softmax", (x,), x.shape)

    def _append(self, kind: str, inputs: tuple[Layer, ...], shape: Shape, **options: Any) -> Layer:
        layer = Layer(f"{kind}_{self._counts[kind]}", kind, inputs, shape, options)
        self._counts[kind] += 1
        self.layers.append(layer)
        return layer

    def operators(self) -> tuple[Operator, ...]:
        """Return the operators of the folded graph, in topological order."""
        made: list[Operator] = []
        bearing: dict[str, int] = {}  # layer → the operator that bears its output
        for layer in self.layers:
            if layer.kind in _OPERATORS:
                made += _OPERATORS[layer.kind](layer, [made[bearing[source.name]] for source in layer.inputs])
                bearing[layer.name] = len(made) - 1
                continue
            bearing[layer.name] = index = bearing[layer.inputs[0].name]
            if layer.kind in _FUSED:
                made[index] = made[index]._replace(**_FUSED[layer.kind](layer))
        return tuple(made)

    def keras(self, name: str = "probabilities") -> Any:
        """Build the Keras model, untrained and not compiled."""
        import keras

        tensors: dict[str, Any] = {}
        for layer in self.layers:
            tensors[layer.name] = _KERAS[layer.kind](keras, layer, [tensors[source.name] for source in layer.inputs])
        return keras.Model(tensors["input"], tensors[self.layers[-1].name], name=name)


def _sides(kernel: Kernel) -> tuple[int, int]:
    return (kernel, kernel) if isinstance(kernel, int) else kernel


def _strided(shape: Shape, stride: int) -> Shape:
    return tuple(-(-size // stride) for size in shape[:2])


# --- reading 1: operators of the folded graph. A reader returns what the layer becomes; the last one bears its output.


def _conv_operator(layer: Layer, sources: list[Operator]) -> list[Operator]:
    k, channels = _sides(layer.options["kernel"]), layer.inputs[0].shape[-1]
    weights = math.prod(k) * channels * layer.options["filters"]
    return [_convolution(layer, layer.name, "conv", sources[0].name, weights, layer.shape, k, layer.options["stride"])]


def _depthwise_operator(layer: Layer, sources: list[Operator]) -> list[Operator]:
    k = _sides(layer.options["kernel"])
    weights = math.prod(k) * layer.shape[-1]
    return [
        _convolution(layer, layer.name, "depthwise", sources[0].name, weights, layer.shape, k, layer.options["stride"])
    ]


def _separable_operators(layer: Layer, sources: list[Operator]) -> list[Operator]:
    k, channels, filters = _sides(layer.options["kernel"]), layer.inputs[0].shape[-1], layer.options["filters"]
    between = (*layer.shape[:2], channels)
    first = _convolution(
        layer, f"{layer.name}/depthwise", "depthwise", sources[0].name, math.prod(k) * channels, between, k,
        layer.options["stride"], bias=False,
    )  # fmt: skip
    return [first, _convolution(layer, layer.name, "conv", first.name, channels * filters, layer.shape, (1, 1), 1)]


def _convolution(
    layer: Layer, name: str, kind: str, source: str, weights: int, shape: Shape, k: Shape, stride: int,
    bias: bool = True,
) -> Operator:  # fmt: skip
    macs = math.prod(shape[:2]) * weights
    biases = shape[-1] if bias and layer.options["bias"] else 0
    return Operator(name, kind, (source,), shape, weights, biases, macs, k, (stride, stride))


def _dense_operator(layer: Layer, sources: list[Operator]) -> list[Operator]:
    weights = math.prod(layer.inputs[0].shape) * layer.options["units"]
    return [Operator(layer.name, "dense", (sources[0].name,), layer.shape, weights, layer.shape[-1], weights)]


def _plain_operator(layer: Layer, sources: list[Operator]) -> list[Operator]:
    return [Operator(layer.name, layer.kind, tuple(source.name for source in sources), layer.shape)]


_OPERATORS: dict[str, Callable[[Layer, list[Operator]], list[Operator]]] = {  # other layers are views
    "input": _plain_operator,
    "conv": _conv_operator,
    "depthwise": _depthwise_operator,
    "separable": _separable_operators,
    "add": _plain_operator,
    "max_pool": _plain_operator,
    "global_pool": _plain_operator,
    "dense": _dense_operator,
    "softmax": _plain_operator,
}

_FUSED: dict[str, Callable[[Layer], dict[str, Any]]] = {  # layer → what it makes of the operator before it
    "norm": lambda layer: {"biases": layer.shape[-1]},
    "act": lambda layer: {"activation": layer.options["name"]},
}

# --- reading 2: Keras layers

_ACTIVATIONS = {"relu": "relu", "relu6": "relu6", "hard_swish": "hard_silu", "selu": "selu"}  # edgeml's word → Keras'


def _conv_keras(keras: Any, layer: Layer, inputs: list[Any]) -> Any:
    makers = {
        "conv": lambda **kw: keras.layers.Conv2D(layer.options["filters"], layer.options["kernel"], **kw),
        "depthwise": lambda **kw: keras.layers.DepthwiseConv2D(layer.options["kernel"], **kw),
        "separable": lambda **kw: keras.layers.SeparableConv2D(
            layer.options["filters"], layer.options["kernel"], **kw
        ),
    }  # fmt: skip
    options = {"strides": layer.options["stride"], "padding": "same", "use_bias": layer.options["bias"]}
    return makers[layer.kind](name=layer.name, **options)(inputs[0])


def _norm_keras(keras: Any, layer: Layer, inputs: list[Any]) -> Any:
    from edgeml.layers import BatchRenormalization

    maker = {"batch": keras.layers.BatchNormalization, "batch_renorm": BatchRenormalization}[layer.options["norm"]]
    return maker(momentum=BN_MOMENTUM, name=layer.name)(inputs[0])


_KERAS: dict[str, Callable[[Any, Layer, list[Any]], Any]] = {
    "input": lambda keras, layer, _: keras.Input(layer.shape, name="input"),
    "conv": _conv_keras,
    "depthwise": _conv_keras,
    "separable": _conv_keras,
    "norm": _norm_keras,
    "act": lambda keras, layer, x: keras.layers.Activation(_ACTIVATIONS[layer.options["name"]], name=layer.name)(x[0]),
    "add": lambda keras, layer, x: keras.layers.Add(name=layer.name)(x),
    "max_pool": lambda keras, layer, x: keras.layers.MaxPooling2D(2, padding="same", name=layer.name)(x[0]),
    "global_pool": lambda keras, layer, x: keras.layers.GlobalAveragePooling2D(name=layer.name)(x[0]),
    "flatten": lambda keras, layer, x: keras.layers.Flatten(name=layer.name)(x[0]),
    "dropout": lambda keras, layer, x: keras.layers.Dropout(layer.options["rate"], name=layer.name)(x[0]),
    "alpha_dropout": lambda keras, layer, x: keras.layers.AlphaDropout(layer.options["rate"], name=layer.name)(x[0]),
    "reshape": lambda keras, layer, x: keras.layers.Reshape(layer.shape, name=layer.name)(x[0]),
    "dense": lambda keras, layer, x: keras.layers.Dense(
        layer.options["units"], kernel_initializer=layer.options["start"], name=layer.name
    )(x[0]),
    "softmax": lambda keras, layer, x: keras.layers.Softmax(name=layer.name)(x[0]),
}
