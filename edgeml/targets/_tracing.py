"""A Keras model as a TensorFlow function that keeps the names of its inputs, and the order of inputs and outputs."""

from __future__ import annotations

from typing import Any


def traced(model: Any, batch: int | None) -> Any:
    """Return a ``tf.function`` from inputs to the list of outputs (a dict would be sorted), with a fixed signature."""
    import keras
    import tensorflow as tf

    signature = [tf.TensorSpec((batch, *t.shape[1:]), t.dtype, name=t.name) for t in model.inputs]

    def call(*tensors: Any) -> list[Any]:
        fed = keras.tree.pack_sequence_as(model.input, list(tensors))
        return list(keras.tree.flatten(model(fed, training=False)))

    return tf.function(call, input_signature=signature)
