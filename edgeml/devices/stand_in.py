"""A network with random weights, written straight from its operators: exported in a fraction of a second, no Keras.

It is what the network would be on a device before anybody has trained it: the same operators of the same shapes, the
same files from the same exporter. A stand-in shows to ``edgeml.targets`` what they ask of a Keras model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml.errors import TargetError
from edgeml.operators import Operator

INPUT = "image"
OUTPUT = "probabilities"


class StandIn:
    """A network to export: one input, one output, weights drawn from ``seed`` (He et al. 2015, arXiv 1502.01852)."""

    output_names = (OUTPUT,)

    def __init__(self, operators: Sequence[Operator], seed: int = 0) -> None:
        import tensorflow as tf

        self._operators = tuple(operators)
        shapes = {operator.name: operator.output_shape for operator in operators}
        rng = np.random.default_rng(seed)
        self._constants = {operator.name: _constants(operator, shapes, rng) for operator in operators}
        self.input = tf.TensorSpec((None, *operators[0].output_shape), tf.float32, INPUT)
        self.inputs = [self.input]
        self.outputs = [tf.TensorSpec((None, *operators[-1].output_shape), tf.float32, OUTPUT)]

    def __call__(self, x: Any, training: bool = False) -> Any:
        """Compute the output of a batch."""
        del training
        import tensorflow as tf

        made = {self._operators[0].name: x}
        for operator in self._operators[1:]:
            sources = [made[name] for name in operator.inputs]
            y = _COMPUTE[operator.kind](tf, operator, sources, *self._constants[operator.name])
            made[operator.name] = _ACTIVATIONS[operator.activation](tf, y)
        return tf.identity(made[self._operators[-1].name], OUTPUT)


def _constants(
    operator: Operator, shapes: dict[str, tuple[int, ...]], rng: np.random.Generator
) -> tuple[NDArray[np.float32], ...]:
    """Return weights and biases of an operator, in the layout of TensorFlow."""
    if operator.kind not in _COMPUTE and operator.kind != "input":
        raise TargetError(f"operator '{operator.name}' ({operator.kind}): no stand-in; {', '.join(_COMPUTE)} have one.")
    if not operator.weights:
        return ()
    source, channels = shapes[operator.inputs[0]], operator.output_shape[-1]
    layout: dict[str, tuple[int, ...]] = {
        "conv": (*operator.kernel, source[-1], channels),
        "depthwise": (*operator.kernel, source[-1], channels // source[-1]),
        "dense": (operator.weights // channels, channels),
        "affine": (operator.weights,),
    }
    shape = layout[operator.kind]
    fan_in = int(np.prod(operator.kernel)) if operator.kind == "depthwise" else operator.weights // channels
    weights = rng.normal(0.0, np.sqrt(2.0 / max(fan_in, 1)), shape)
    return weights.astype("float32"), rng.normal(0.0, 0.1, channels).astype("float32")


def _conv(tf: Any, operator: Operator, x: list[Any], weights: Any, biases: Any) -> Any:
    source = _as_image(tf, x[0])
    y = tf.nn.conv2d(source, weights, operator.strides, _padding(source, operator, operator.strides))
    return tf.nn.bias_add(y, biases) if operator.biases else y


def _depthwise(tf: Any, operator: Operator, x: list[Any], weights: Any, biases: Any) -> Any:
    source, strides = _as_image(tf, x[0]), (1, *operator.strides, 1)
    y = tf.nn.depthwise_conv2d(source, weights, strides, _padding(source, operator, operator.strides))
    return tf.nn.bias_add(y, biases) if operator.biases else y


def _as_image(tf: Any, x: Any) -> Any:
    """Give a window (N, T, C) its width of 1."""
    return tf.expand_dims(x, 2) if len(x.shape) == 3 else x


def _dense(tf: Any, operator: Operator, x: list[Any], weights: Any, biases: Any) -> Any:
    y = tf.matmul(tf.reshape(x[0], (-1, len(weights))), weights)
    return tf.nn.bias_add(y, biases) if operator.biases else y


def _max_pool(tf: Any, operator: Operator, x: list[Any]) -> Any:
    window = tuple(-(-size // after) for size, after in zip(x[0].shape[1:3], operator.output_shape[:2], strict=True))
    return tf.nn.max_pool2d(x[0], window, window, _padding(x[0], operator, window))


def _padding(x: Any, operator: Operator, strides: Sequence[int]) -> str:
    """Return the padding that gives the operator's output its size; other people's networks pad with nothing, too."""
    same = tuple(-(-size // stride) for size, stride in zip(x.shape[1:3], strides, strict=True))
    return "SAME" if same == operator.output_shape[:2] else "VALID"


_COMPUTE: dict[str, Callable[..., Any]] = {
    "conv": _conv,
    "depthwise": _depthwise,
    "dense": _dense,
    "affine": lambda tf, operator, x, weights, biases: x[0] * weights + biases,
    "add": lambda tf, operator, x: x[0] + x[1],
    "max_pool": _max_pool,
    "global_pool": lambda tf, operator, x: tf.reduce_mean(x[0], (1, 2)),
    "softmax": lambda tf, operator, x: tf.nn.softmax(x[0]),
}

_ACTIVATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "linear": lambda tf, x: x,
    "relu": lambda tf, x: tf.nn.relu(x),
    "relu6": lambda tf, x: tf.nn.relu6(x),
    "selu": lambda tf, x: tf.nn.selu(x),
    "hard_swish": lambda tf, x: x * (tf.nn.relu6(x + 3.0) / 6.0),  # as Keras writes it
}
