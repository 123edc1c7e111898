"""A Keras model as a TensorFlow function that keeps the names of its inputs, and the order of inputs and outputs."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from typing import Any

SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772  # λ and α of Klambauer et al. 2017, arXiv 1706.02515


def traced(model: Any, batch: int | None, *, plain: Container[str] = ()) -> Any:
    """Return a traced ``tf.function`` from inputs to the list of outputs (a dict would be sorted), of one signature.

    ``plain``: activations to write by others, for formats without them.

    - selu(x) = relu(λ x) + λ α / σ(relu(-x)) - 2 λ α. What TensorFlow's converter (2.21) makes of it by itself takes
      exp of positive numbers, too: int8 has no steps left for the others.
    - selu_by_exp(x) = relu(λ x) + λ α exp(-relu(-x)) - λ α: for int16, where there is exp, and no division.
    - hard_silu(x) = x (relu(x + 3) - relu(x - 3)) / 6. Of Keras' own form, x relu6(x + 3) / 6, the converter makes one
      HARD_SWISH, which it cannot quantize to int16.
    """
    import keras
    import tensorflow as tf

    signature = [tf.TensorSpec((batch, *t.shape[1:]), t.dtype, name=t.name) for t in model.inputs]

    def call(*tensors: Any) -> list[Any]:
        fed = keras.tree.pack_sequence_as(model.input, list(tensors))
        return list(keras.tree.flatten(model(fed, training=False)))

    function = tf.function(call, input_signature=signature)
    with _nothing_compiled(tf), _no_sum_a_bias(keras, tf), _written_plainly(tf, plain):
        function.get_concrete_function()  # it is kept, and found again by whoever asks next
    return function


@contextmanager
def _written_plainly(tf: Any, names: Container[str]) -> Iterator[None]:
    """Let Keras write the activations of these names by others."""
    from keras.src.backend import nn

    def selu(x: Any) -> Any:
        low = SELU_SCALE * SELU_ALPHA
        # relu(-x): for min(x, 0), x is given the scale of the minimum, and ends at 0. sigmoid: TensorFlow Lite Micro
        # has no exp of integers.
        return tf.nn.relu(SELU_SCALE * x) + low / tf.sigmoid(tf.nn.relu(-1.0 * x)) - 2.0 * low

    def selu_by_exp(x: Any) -> Any:
        low = SELU_SCALE * SELU_ALPHA
        return tf.nn.relu(SELU_SCALE * x) + low * tf.exp(-1.0 * tf.nn.relu(-1.0 * x)) - low

    def hard_silu(x: Any) -> Any:
        return x * ((tf.nn.relu(x + 3.0) - tf.nn.relu(x - 3.0)) / 6.0)

    own = tf.nn.selu, nn.hard_silu
    tf.nn.selu = selu if "selu" in names else selu_by_exp if "selu_by_exp" in names else own[0]
    nn.hard_silu = hard_silu if "hard_silu" in names else own[1]
    try:
        yield
    finally:
        tf.nn.selu, nn.hard_silu = own


@contextmanager
def _no_sum_a_bias(keras: Any, tf: Any) -> Iterator[None]:
    """Let Keras (3.15) add two tensors of one shape plainly.

    At batch 1 it takes the second one of (1, C) or (1, 1, 1, C) for a bias and squeezes it: an operator more in the
    file, and a tensor.
    """
    backend = keras.src.backend.numpy
    own = backend.add

    def plain(x: Any, y: Any) -> Any:
        is_sum = tf.is_tensor(x) and tf.is_tensor(y) and x.dtype == y.dtype and x.shape.as_list() == y.shape.as_list()
        return tf.add(x, y) if is_sum else own(x, y)

    backend.add = plain
    try:
        yield
    finally:
        backend.add = own


@contextmanager
def _nothing_compiled(tf: Any) -> Iterator[None]:
    """Let Keras (3.15) call grouped convolutions plainly.

    It compiles them with XLA, as a function of their own: tf2onnx leaves a call of it in the graph, which no runtime
    knows.
    """
    own = tf.function

    def plain(*args: Any, **options: Any) -> Callable[..., Any]:
        return (lambda f: f) if options.get("jit_compile") else own(*args, **options)

    tf.function = plain
    try:
        yield
    finally:
        tf.function = own
