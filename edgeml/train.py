"""Fitting one network: optimizer by name, learning-rate schedule, label smoothing, class weights, augmentation, a seed.

Works under any Keras backend.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml.memory import keep_freed_memory

Arrays = tuple[NDArray[Any], NDArray[np.int64]]
Metrics = dict[str, float]
Targets = Callable[[NDArray[Any], NDArray[np.float32]], NDArray[np.float32]]
WEIGHT_DECAY = 1e-4  # AdamW (Loshchilov & Hutter 2017, arXiv 1711.05101)
SGD_RATE_FACTOR = 10.0  # one learning-rate range serves all optimizers: plain momentum wants about ten times Adam's
PLATEAU_FACTOR = 0.3  # the rate is multiplied by this where val_loss stands still
EVALUATION_BATCH = 512
RAMP_SHARE = 0.25  # of all steps, until batch renormalization has opened its limits


def compile_for(
    model: Any,
    optimizer: str,
    learning_rate: float,
    *,
    label_smoothing: float = 0.0,
    cosine_steps: int | None = None,
    balanced: bool = False,
    loss: Any = None,
) -> None:
    """Compile ``model`` for one-hot targets; ``cosine_steps``: decay the rate to zero over so many steps.

    ``balanced`` adds the metric ``balanced_accuracy``. ``loss``: another than cross-entropy with ``label_smoothing``;
    its targets may hold more than the one-hot labels, behind them. Source of the schedule: Loshchilov & Hutter 2016,
    arXiv 1608.03983, without restarts.
    """
    import keras

    rate: Any = learning_rate * (SGD_RATE_FACTOR if optimizer == "sgd" else 1.0)
    if cosine_steps:
        rate = keras.optimizers.schedules.CosineDecay(rate, cosine_steps)
    classes = model.output_shape[-1]
    makers = {
        "adam": lambda: keras.optimizers.Adam(rate),
        "adamw": lambda: keras.optimizers.AdamW(rate, weight_decay=WEIGHT_DECAY),
        "rmsprop": lambda: keras.optimizers.RMSprop(rate),
        "sgd": lambda: keras.optimizers.SGD(rate, momentum=0.9, nesterov=True),
    }
    model.compile(
        makers[optimizer](),
        loss=loss or keras.losses.CategoricalCrossentropy(label_smoothing=label_smoothing),
        metrics=[
            "accuracy" if loss is None else _accuracy(classes),
            *([_balanced_accuracy(classes)] if balanced else []),
        ],
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
    class_weights: NDArray[np.float64] | None = None,
    targets: Targets | None = None,
    callbacks: Sequence[Any] = (),
    on_epoch: Callable[[int, Metrics], None] | None = None,
) -> list[Metrics]:
    """Train a compiled model and return its metrics per epoch: loss, accuracy, val_loss, val_accuracy.

    ``class_weights`` (K,) multiply the loss of each class's training samples; ``targets`` makes what the loss is told
    of a batch and its one-hot labels, where these alone will not do; ``callbacks`` are Keras', and what they add to the
    logs of an epoch is among its metrics.
    """
    import keras

    keep_freed_memory()
    keras.utils.set_random_seed(seed)
    one = np.full((1, num_classes), 1.0 / num_classes, "float32")
    make_variables(model, targets(train[0][:1], one) if targets else one, one)
    for layer in model._flatten_layers():
        if hasattr(layer, "ramp_steps"):  # of batch renormalization
            layer.ramp_steps = max(1, round(RAMP_SHARE * steps(len(train[0]), batch_size, epochs)))
    batches = _batches(train, batch_size, seed, num_classes, augment, class_weights, targets)
    history: list[Metrics] = []

    def end(epoch: int, logs: Mapping[str, Any]) -> None:
        history.append({name: float(value) for name, value in logs.items()})
        if on_epoch:
            on_epoch(epoch, history[-1])

    def stop_if_diverged(_batch: int, logs: Mapping[str, Any]) -> None:
        if not math.isfinite(logs["loss"]):
            model.stop_training = True  # Keras' own TerminateOnNaN prints to stdout

    follow = keras.callbacks.LambdaCallback(on_epoch_end=end, on_train_batch_end=stop_if_diverged)
    model.fit(batches, validation_data=(validation[0], _told(validation, num_classes, targets)),
              validation_batch_size=EVALUATION_BATCH, epochs=epochs, verbose=0,
              callbacks=[*callbacks, follow])  # fmt: skip
    return history


def evaluate(model: Any, validation: Arrays, num_classes: int, targets: Targets | None = None) -> Metrics:
    """Return what ``fit`` calls val_loss, val_accuracy, …, of the weights as they are now."""
    told = _told(validation, num_classes, targets)
    found = model.evaluate(validation[0], told, batch_size=EVALUATION_BATCH, verbose=0, return_dict=True)
    return {f"val_{name}": float(value) for name, value in found.items()}


def early_stopping(objective: str, patience: int, *, keep_best: bool) -> Any:
    """Return the callback that ends training after ``patience`` epochs without a better ``objective``."""
    import keras

    return keras.callbacks.EarlyStopping(objective, patience=patience, mode="max", restore_best_weights=keep_best)


def stop_after(model: Any, seconds: float) -> Any:
    """Return the callback that ends training with the epoch that runs ``seconds`` from now."""
    import keras

    end = time.monotonic() + seconds

    def stop(_epoch: int, _logs: Any) -> None:
        if time.monotonic() >= end:
            model.stop_training = True

    return keras.callbacks.LambdaCallback(on_epoch_end=stop)


def plateau(patience: int) -> Any:
    """Return the callback that lowers the learning rate after ``patience`` epochs without a lower val_loss."""
    import keras

    return keras.callbacks.ReduceLROnPlateau("val_loss", factor=PLATEAU_FACTOR, patience=patience)


def balanced_weights(labels: NDArray[np.int64], num_classes: int) -> NDArray[np.float64]:
    """Return weights (K,) that make classes count alike, n / (k · n_c); 1 on average over the samples.

    Source: King & Zeng 2001, as scikit-learn's ``class_weight="balanced"``. A class without a sample has weight 0.
    """
    counts = np.bincount(labels, minlength=num_classes)
    each = len(labels) / np.count_nonzero(counts)
    return np.asarray(np.where(counts > 0, each / np.maximum(counts, 1), 0.0))


def network_seed(seed: int, trial: int, *, finalist: bool = False, number: int = 1) -> int:
    """Return the seed of one network: of its own for each trial and finalist, and below 2³², as NumPy wants it.

    ``number``: of a finalist that is trained from several seeds, which of them, from 1.
    """
    entropy = [seed, trial, finalist, *([number] if number > 1 else [])]
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])


def steps(samples: int, batch_size: int, epochs: int) -> int:
    """Return the number of training steps."""
    return math.ceil(samples / batch_size) * epochs


def make_variables(model: Any, targets: NDArray[Any], predictions: NDArray[Any]) -> None:
    """Make the variables of optimizer and metrics now, by a sample of what the model will be told and will say.

    Else TensorFlow (2.21, Keras 3.15) finds them in the first step, and traces the whole step a second time.
    """
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    model.compute_metrics(None, targets, predictions)
    model.reset_metrics()


def _one_hot(labels: NDArray[np.int64], num_classes: int) -> NDArray[np.float32]:
    return np.eye(num_classes, dtype="float32")[labels]


def _told(data: Arrays, num_classes: int, targets: Targets | None) -> NDArray[np.float32]:
    """Return the targets of all rows."""
    one_hot = _one_hot(data[1], num_classes)
    if targets is None:
        return one_hot
    starts = range(0, len(one_hot), EVALUATION_BATCH)
    return np.concatenate(
        [targets(data[0][i : i + EVALUATION_BATCH], one_hot[i : i + EVALUATION_BATCH]) for i in starts]
    )


def _accuracy(num_classes: int) -> Any:
    import keras

    def right(targets: Any, predicted: Any) -> Any:
        return keras.metrics.categorical_accuracy(targets[:, :num_classes], predicted)

    return keras.metrics.MeanMetricWrapper(right, name="accuracy")


def _balanced_accuracy(num_classes: int) -> Any:
    import keras

    class BalancedAccuracy(keras.metrics.Metric):  # type: ignore[misc]
        """The mean recall of the classes that occur, over all samples since the last reset."""

        def __init__(self) -> None:
            super().__init__(name="balanced_accuracy")
            self.right, self.all = (
                self.add_variable((num_classes,), initializer="zeros", name=name) for name in ("right", "all")
            )

        def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
            del sample_weight  # a recall needs none
            truth = keras.ops.cast(y_true[:, :num_classes], self.dtype)
            chosen = keras.ops.one_hot(keras.ops.argmax(y_pred, axis=-1), num_classes, dtype=self.dtype)
            self.right.assign(self.right + keras.ops.sum(truth * chosen, axis=0))
            self.all.assign(self.all + keras.ops.sum(truth, axis=0))

        def result(self) -> Any:
            recalls = self.right / keras.ops.maximum(self.all, 1.0)
            occurring = keras.ops.sum(keras.ops.cast(self.all > 0, self.dtype))
            return keras.ops.sum(recalls) / keras.ops.maximum(occurring, 1.0)

    return BalancedAccuracy()


def _batches(
    data: Arrays,
    batch_size: int,
    seed: int,
    num_classes: int,
    augment: Callable[[NDArray[Any]], NDArray[Any]] | None,
    class_weights: NDArray[np.float64] | None,
    targets: Targets | None,
) -> Any:
    import keras

    x, y = data
    one_hot = _one_hot(y, num_classes)
    weights = None if class_weights is None else class_weights.astype("float32")[y]

    class Batches(keras.utils.PyDataset):  # type: ignore[misc]
        """Shuffled batches, a new order every epoch, augmented as they are drawn."""

        def __init__(self) -> None:
            super().__init__()
            self._rng = np.random.default_rng(seed)
            self._order = self._rng.permutation(len(x))

        def __len__(self) -> int:
            return math.ceil(len(x) / batch_size)

        def __getitem__(self, index: int) -> tuple[NDArray[Any], ...]:
            rows = self._order[index * batch_size : (index + 1) * batch_size]
            batch = x[rows]
            changed = (augment(batch) if augment else batch).astype("float32")
            told = targets(changed, one_hot[rows]) if targets else one_hot[rows]
            return (changed, told, *(() if weights is None else (weights[rows],)))

        def on_epoch_end(self) -> None:
            self._order = self._rng.permutation(len(x))

    return Batches()
