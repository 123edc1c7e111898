"""Fitting one network: optimizer by name, cosine schedule, label smoothing, augmentation, a seed; any Keras backend."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml.allocator import keep_freed_memory

Arrays = tuple[NDArray[Any], NDArray[np.int64]]
Metrics = dict[str, float]
WEIGHT_DECAY = 1e-4  # AdamW (Loshchilov & Hutter 2017, arXiv 1711.05101)
SGD_RATE_FACTOR = 10.0  # one learning-rate range serves all optimizers: plain momentum wants about ten times Adam's


def compile_for(
    model: Any, optimizer: str, learning_rate: float, *, label_smoothing: float = 0.0, cosine_steps: int | None = None
) -> None:
    """Compile ``model`` for one-hot targets; ``cosine_steps``: decay the rate to zero over so many steps.

    Source of the schedule: Loshchilov & Hutter 2016, arXiv 1608.03983, without restarts.
    """
    import keras

    rate: Any = learning_rate * (SGD_RATE_FACTOR if optimizer == "sgd" else 1.0)
    if cosine_steps:
        rate = keras.optimizers.schedules.CosineDecay(rate, cosine_steps)
    makers = {
        "adam": lambda: keras.optimizers.Adam(rate),
        "adamw": lambda: keras.optimizers.AdamW(rate, weight_decay=WEIGHT_DECAY),
        "rmsprop": lambda: keras.optimizers.RMSprop(rate),
        "sgd": lambda: keras.optimizers.SGD(rate, momentum=0.9, nesterov=True),
    }
    model.compile(
        makers[optimizer](),
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=label_smoothing),
        metrics=["accuracy"],
        jit_compile=keras.backend.backend() == "jax",  # on a CPU, XLA trains depthwise nets 8-20 times slower than TF
    )


def fit(
    model: Any,
    train: Arrays,
    validation: Arrays,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    num_classes: int,
    augment: Callable[[NDArray[Any]], NDArray[Any]] | None = None,
    on_epoch: Callable[[int, Metrics], None] | None = None,
    callbacks: Sequence[Any] = (),
) -> list[Metrics]:
    """Train a compiled model and return its metrics per epoch: loss, accuracy, val_loss, val_accuracy.

    ``callbacks``: Keras callbacks; what they add to the logs of an epoch is among its metrics.
    """
    import keras

    keep_freed_memory()
    keras.utils.set_random_seed(seed)
    batches = _batches(train, batch_size, seed, num_classes, augment)
    held_out = (validation[0], np.eye(num_classes, dtype="float32")[validation[1]])
    history: list[Metrics] = []

    def end(epoch: int, logs: Mapping[str, Any]) -> None:
        history.append({name: float(value) for name, value in logs.items()})
        if on_epoch:
            on_epoch(epoch, history[-1])

    def stop_if_diverged(_batch: int, logs: Mapping[str, Any]) -> None:
        if not math.isfinite(logs["loss"]):
            model.stop_training = True  # Keras' own TerminateOnNaN prints to stdout

    follow = keras.callbacks.LambdaCallback(on_epoch_end=end, on_train_batch_end=stop_if_diverged)
    model.fit(batches, validation_data=held_out, validation_batch_size=512, epochs=epochs, verbose=0,
              callbacks=[*callbacks, follow])  # fmt: skip
    return history


def network_seed(seed: int, trial: int, *, finalist: bool = False) -> int:
    """Return the seed of one network: of its own for each trial and finalist, and below 2³², as NumPy wants it."""
    return int(np.random.SeedSequence([seed, trial, finalist]).generate_state(1)[0])


def steps(samples: int, batch_size: int, epochs: int) -> int:
    """Return the number of training steps."""
    return math.ceil(samples / batch_size) * epochs


def _batches(
    data: Arrays,
    batch_size: int,
    seed: int,
    num_classes: int,
    augment: Callable[[NDArray[Any]], NDArray[Any]] | None,
) -> Any:
    import keras

    x, y = data
    targets = np.eye(num_classes, dtype="float32")[y]

    class Batches(keras.utils.PyDataset):  # type: ignore[misc]
        """Shuffled batches, a new order every epoch, augmented as they are drawn."""

        def __init__(self) -> None:
            super().__init__()
            self._rng = np.random.default_rng(seed)
            self._order = self._rng.permutation(len(x))

        def __len__(self) -> int:
            return math.ceil(len(x) / batch_size)

        def __getitem__(self, index: int) -> tuple[NDArray[Any], NDArray[Any]]:
            rows = self._order[index * batch_size : (index + 1) * batch_size]
            batch = x[rows]
            return (augment(batch) if augment else batch).astype("float32"), targets[rows]

        def on_epoch_end(self) -> None:
            self._order = self._rng.permutation(len(x))

    return Batches()
