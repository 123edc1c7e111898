"""A Keras model as a TensorFlow function that keeps the names of its inputs, and the order of inputs and outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def traced(model: Any, batch: int | None) -> Any:
    """Return a traced ``tf.function`` from inputs to the list of outputs (a dict would be sorted), of one signature."""
    import keras
    import tensorflow as tf

    signature = [tf.TensorSpec((batch, *t.shape[1:]), t.dtype, name=t.name) for t in model.inputs]

    def call(*tensors: Any) -> list[Any]:
        fed = keras.tree.pack_sequence_as(model.input, list(tensors))
        return list(keras.tree.flatten(model(fed, training=False)))

    function = tf.function(call, input_signature=signature)
    with _nothing_compiled(tf):
        function.get_concrete_function()  # it is kept, and found again by whoever asks next
    return function


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
