"""Fine-tuning of a twin: cross-entropy, Adam, a rate that decays by a cosine to zero, and the seed set.

The same weights, data and seed give the same result on a CPU. A loss that is no number ends it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import tf_keras

from edgeml.compression import toolkit
from edgeml.compression.records import LeftAlone, Training
from edgeml.errors import UsageError
from edgeml.memory import keep_freed_memory
from edgeml.records import Event
from edgeml.twin import feed, twin

KERNELS = (tf_keras.layers.Conv2D, tf_keras.layers.Dense)


def steps_of(training: Training, epochs: int) -> int:
    """Return the number of training steps."""
    return math.ceil(len(training.data[0]) / training.batch_size) * epochs


def wrapped_twin(
    model: Any, step: str, wrap: Callable[[Any], Any], reason: Callable[[Any], str | None]
) -> tuple[Any, list[LeftAlone]]:
    """Return the twin with its dense layers and convolutions wrapped, and what was left alone.

    ``wrap`` takes such a layer and returns its wrapper; ``reason`` says why one is not to be touched, or None.
    """
    plain = twin(model, strip_scaling=True)
    why = {layer.name: words for layer in plain.layers if (words := _why_not(layer, reason))}

    def cloned(layer: Any) -> Any:
        return wrap(layer) if type(layer) in KERNELS and layer.name not in why else layer

    wrapped = tf_keras.models.clone_model(plain, clone_function=cloned)
    return wrapped, [LeftAlone(step, toolkit.ours(name), words) for name, words in why.items()]


def _why_not(layer: Any, reason: Callable[[Any], str | None]) -> str | None:
    if type(layer) in KERNELS:
        return reason(layer)
    learns = layer.trainable_weights and not isinstance(layer, tf_keras.layers.BatchNormalization)
    return f"{type(layer).__name__}: its few weights matter each" if learns else None


def fine_tune(
    wrapped: Any,
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
    wrapped.compile(tf_keras.optimizers.Adam(rate), loss=loss, jit_compile=False)
    losses: list[float] = []

    def stop_if_diverged(_batch: int, logs: dict[str, Any]) -> None:
        wrapped.stop_training = wrapped.stop_training or not math.isfinite(logs["loss"])

    def end(epoch: int, logs: dict[str, Any]) -> None:
        losses.append(float(logs["loss"]))
        training.on_event(Event("compress", f"{name}: epoch {epoch + 1} of {epochs}", {"loss": losses[-1]}))

    follow = tf_keras.callbacks.LambdaCallback(on_train_batch_end=stop_if_diverged, on_epoch_end=end)
    x, y = training.data
    wrapped.fit(
        feed(model, x), y, epochs=epochs, batch_size=training.batch_size, verbose=0, callbacks=[*callbacks, follow]
    )
    if not math.isfinite(losses[-1]):
        raise UsageError(
            f"compress: {name}: the loss is {losses[-1]} in epoch {len(losses)}; a finite one is due. Look for values"
            " in the training data that are far from those the model was trained on."
        )
    return tuple(losses)
