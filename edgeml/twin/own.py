"""Two tf_keras layers for Keras 3 operations of an ensemble's graph: the logarithm, and a part of the channels.

A bare TensorFlow operation in a tf_keras graph cannot be quantized by tfmot 0.8.1; a layer can.
"""

from __future__ import annotations

from typing import Any

import tf_keras


@tf_keras.utils.register_keras_serializable("edgeml")
class Log(tf_keras.layers.Layer):  # type: ignore[misc]
    """The natural logarithm."""

    def call(self, inputs: Any) -> Any:
        """Return it."""
        return tf_keras.backend.log(inputs)


@tf_keras.utils.register_keras_serializable("edgeml")
class Channels(tf_keras.layers.Layer):  # type: ignore[misc]
    """The values ``start`` to ``stop`` of the last axis."""

    def __init__(self, start: int, stop: int, **options: Any) -> None:
        super().__init__(**options)
        self.start, self.stop = start, stop

    def call(self, inputs: Any) -> Any:
        """Return them."""
        return inputs[..., self.start : self.stop]

    def get_config(self) -> dict[str, Any]:
        """Return what ``from_config`` takes."""
        return {**super().get_config(), "start": self.start, "stop": self.stop}
