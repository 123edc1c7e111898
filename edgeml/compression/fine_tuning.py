"""Fine-tuning of a twin: cross-entropy, Adam, a rate that decays by a cosine to zero, and the seed set.

The same weights, data and seed give the same result on a CPU. A loss that is no number ends it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import tf_keras

from edgeml.compression.records import Training
from edgeml.errors import UsageError
from edgeml.memory import keep_freed_memory
from edgeml.records import Event
from edgeml.twin import feed


def steps_of(training: Training, epochs: int) -> int:
    """Return the number of training steps."""
    return math.ceil(len(training.data[0]) / training.batch_size) * epochs


def fine_tune(
    twin: Any,
    model: Any,
    training: Training,
    name: str,
    *,
    epochs: int,
    learning_rate: float,
    callbacks: Sequence[Any] = (),
) -> tuple[float, ...]:
    """Train a twin, wrapped as a step wraps it, on what ``model`` takes; return its loss per epoch.

    Raises:
        UsageError: the loss is no number any more.
    """
    keep_freed_memory()
    tf_keras.utils.set_random_seed(training.seed)
    rate = tf_keras.optimizers.schedules.CosineDecay(learning_rate, steps_of(training, epochs))
    loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=training.from_logits)
    twin.compile(tf_keras.optimizers.Adam(rate), loss=loss, jit_compile=False)
    losses: list[float] = []

    def stop_if_diverged(_batch: int, logs: dict[str, Any]) -> None:
        twin.stop_training = twin.stop_training or not math.isfinite(logs["loss"])

    def end(epoch: int, logs: dict[str, Any]) -> None:
        losses.append(float(logs["loss"]))
        training.on_event(Event("compress", f"{name}: epoch {epoch + 1} of {epochs}", {"loss": losses[-1]}))

    follow = tf_keras.callbacks.LambdaCallback(on_train_batch_end=stop_if_diverged, on_epoch_end=end)
    x, y = training.data
    twin.fit(
        feed(model, x), y, epochs=epochs, batch_size=training.batch_size, verbose=0, callbacks=[*callbacks, follow]
    )
    if not math.isfinite(losses[-1]):
        raise UsageError(
            f"compress: {name}: the loss is {losses[-1]} in epoch {len(losses)}; a finite one is due. Look for values"
            " in the training data that are far from those the model was trained on."
        )
    return tuple(losses)
