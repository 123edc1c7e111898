"""What a job does, in whatever process: build the network, count it again, train it, keep its weights.

trial      a few epochs, its best one counts; a Hyperband trial goes on from its parent's weights
finalist   all epochs by the recipe's schedule, then batch statistics of clean samples; what counts is measured after
           that; kept as ``finalists/<id>/model.keras``
"""

from __future__ import annotations

import copy
import math
import os
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from edgeml import batch_statistics, costs, distillation, memory, tensorboards, train
from edgeml.augmentation import Augmenter
from edgeml.errors import EdgemlError, IntegrityError
from edgeml.folding import fold_batch_norm
from edgeml.keras_operators import as_if_trained, keras_operators
from edgeml.recipe import PLATEAU_PATIENCE, Recipe
from edgeml.records import Cost
from edgeml.run_folder import Arrays, RunFiles
from edgeml.runtimes import keras as keras_runtime
from edgeml.search.engine import Job, Outcome
from edgeml.search.space import Space

Metrics = dict[str, float]
OnEpoch = Callable[[int, Metrics], None]
Splits = Mapping[str, Arrays]
STATISTICS_SAMPLES = 4096  # 1,000 to 10,000 are enough (see batch_statistics)
RECOUNTED = ("params", "macs", "peak_activation_bytes")  # arenas depend on the order in which operators are listed
SAID = "validation.npy"  # in a trial's folder: its probabilities (N, K) of the validation split
LEAST_BATCH = 128  # of them: smaller batches add noise to what the layers behind see


def carry_out(
    files: RunFiles, space: Space, splits: Splits, job: Job, on_epoch: OnEpoch, callbacks: Sequence[Any] = ()
) -> Outcome:
    """Train the network of a job; an exception in it is its outcome.

    Each network has copies of its own of the Keras ``callbacks``, as with KerasTuner.

    Raises:
        IntegrityError: the network costs something else than its hyper-parameters said.
    """
    board, outcome = _board(files, splits, job), None
    try:
        outcome = _outcome(files, space, splits, job, on_epoch, callbacks, board)
    finally:
        if board is not None:
            objective, scores = files.recipe.search.objective, None
            if outcome is not None and outcome.status == "completed":
                scores = {objective: outcome.metrics[objective]}
            board.end(scores, embedding=scores is not None and job.kind == "finalist")
    return outcome


def _outcome(
    files: RunFiles, space: Space, splits: Splits, job: Job, on_epoch: OnEpoch, callbacks: Sequence[Any],
    board: tensorboards.Board | None,
) -> Outcome:  # fmt: skip
    import keras

    keras.utils.clear_session(free_memory=False)
    start, history = time.monotonic(), list[Metrics]()
    built: Cost | None = None
    measured: Metrics = {}

    def follow(number: int, metrics: Metrics) -> None:
        history.append(metrics)
        on_epoch(number, metrics)

    def outcome(status: str, **more: Any) -> Outcome:
        return Outcome(status, seconds=time.monotonic() - start, **more)

    try:
        own = [*copy.deepcopy(list(callbacks)), *([board.begin()] if board else [])]
        with memory.forgetting_gradients():
            if job.kind == "finalist":
                measured = _train_to_the_end(files, space, splits, job, follow, own)
            else:
                built = _try(files, space, splits, job, follow, own)
    except EdgemlError:
        raise
    except Exception as error:  # noqa: BLE001  (whatever a trial dies of, the search goes on and says so)
        return outcome("failed", error=f"{error}\n{traceback.format_exc()}")
    last = {**(history[-1] if history else {}), **measured}
    if not math.isfinite(last.get("val_loss", math.nan)):
        return outcome("diverged", metrics=last, error="the loss is not finite")
    objective = files.recipe.search.objective
    best = last if job.kind == "finalist" else max(history, key=lambda metrics: metrics[objective])
    return outcome("completed", metrics=best, built_cost=built)


def _try(files: RunFiles, space: Space, splits: Splits, job: Job, on_epoch: OnEpoch, callbacks: Sequence[Any]) -> Cost:
    import keras

    config, values = files.recipe.search, job.hyperparameters
    seed = train.network_seed(config.seed, job.number)
    keras.utils.set_random_seed(seed)
    model = space.model(values)
    built = _recounted(model, job, files.recipe)
    first, epochs = int(values.get("tuner/initial_epoch", 0)), int(values.get("tuner/epochs", config.epochs))
    _compile(files, space, model, values)
    parent = values.get("tuner/trial_id")
    if parent:
        model.optimizer.build(model.trainable_variables)  # else Keras warns, and leaves the optimizer's state behind
        model.load_weights(files.path("trials", f"t{int(parent):04d}", "network.weights.h5"))
    stopping = _early_stopping(files, config.early_stopping, keep_best=False)
    x, y = splits["train"]  # in random order
    few = {**splits, "train": (x[: config.train_samples], y[: config.train_samples])}
    if job.stop_after_seconds is not None:
        stopping.append(train.stop_after(model, job.stop_after_seconds))
    _fit(files, model, few, seed, epochs - first, on_epoch, [*stopping, *callbacks])
    _keep_what_it_says(files, job.id, model, splits["validation"][0])
    if config.oracle == "hyperband":  # its promoted trials start from these weights
        model.save_weights(files.path("trials", job.id, "network.weights.h5"))
    return built


def _keep_what_it_says(files: RunFiles, name: str, model: Any, x: Any) -> None:
    """Keep a trial's probabilities of the validation split: who is trained to the end depends on who errs where."""
    batches = range(0, len(x), train.EVALUATION_BATCH)  # called one by one: tracing a graph for them takes longer
    said = [np.asarray(model(x[i : i + train.EVALUATION_BATCH].astype("float32"), training=False)) for i in batches]
    path = files.path("trials", name, SAID)
    beside = path.with_name(f"partial_{SAID}")
    np.save(beside, np.concatenate(said))
    os.replace(beside, path)


def _board(files: RunFiles, splits: Splits, job: Job) -> tensorboards.Board | None:
    if not files.recipe.search.tensorboard:
        return None
    x, y = (array[: tensorboards.SAMPLES] for array in splits["validation"])
    about = files.dataset()
    samples = tensorboards.Samples(x, [str(about["labels"][label]) for label in y], tuple(about["value_range"]))
    folder = tensorboards.folder_of(files.root, job.id, is_finalist=job.kind == "finalist")
    return tensorboards.Board(folder, job.hyperparameters, samples)


def _recounted(model: Any, job: Job, recipe: Recipe) -> Cost:
    with as_if_trained(model):
        built = costs.cost(keras_operators(fold_batch_norm(model).model), recipe.export.files, recipe.counted)
    if any(getattr(built, key) != getattr(job.cost, key) for key in RECOUNTED):
        raise IntegrityError(
            f"search space {job.space}: it declares {job.cost} for trial {job.id}, the network that it builds needs"
            f" {built}. Repair the space's operators()."
        )
    return built


def _train_to_the_end(
    files: RunFiles, space: Space, splits: Splits, job: Job, on_epoch: OnEpoch, callbacks: Sequence[Any]
) -> Metrics:
    """Train and keep a finalist; return what the network that is kept reaches on validation."""
    import keras

    config, values = files.recipe, job.hyperparameters
    epochs = job.epochs or config.train.epochs
    seed = train.network_seed(config.search.seed, job.number, finalist=True, number=job.seed_number)
    keras.utils.set_random_seed(seed)
    model = space.model(values)
    steps = train.steps(len(splits["train"][0]), config.search.batch_size, epochs)
    targets, loss = None, None
    if job.teacher:
        targets = distillation.targets_of(keras_runtime.load(files.root / job.teacher))
        loss = distillation.loss_of(job.temperature, job.hard_labels)
    _compile(
        files, space, model, values, label_smoothing=config.train.label_smoothing, loss=loss,
        cosine_steps=steps if config.train.schedule == "cosine" else None,
    )  # fmt: skip
    own = _early_stopping(files, config.train.early_stopping, keep_best=True)
    if config.train.schedule == "plateau":
        own.append(train.plateau(PLATEAU_PATIENCE))
    if job.stop_after_seconds is not None:
        own.append(train.stop_after(model, job.stop_after_seconds))
    history = _fit(files, model, splits, seed, epochs, on_epoch, [*own, *callbacks], targets)
    if not math.isfinite(history[-1]["val_loss"]):
        return history[-1]
    batch_statistics.reestimate(model, _some(splits["train"][0], seed), max(LEAST_BATCH, config.search.batch_size))
    path = files.path("finalists", job.id, "model.keras")
    beside = path.with_name("partial.keras")
    keras.Model(model.inputs, model.outputs, name=model.name).save(beside)  # not how it was trained
    os.replace(beside, path)
    return train.evaluate(model, splits["validation"], model.output_shape[-1], targets)


def _some(x: Any, seed: int) -> Any:
    """Return as many rows as batch statistics need, drawn evenly."""
    count = min(len(x), STATISTICS_SAMPLES)
    return x[np.sort(np.random.default_rng(seed).choice(len(x), count, replace=False))]


def _compile(files: RunFiles, space: Space, model: Any, values: Mapping[str, Any], **options: Any) -> None:
    train.compile_for(
        model, space.option(values, "optimizer"), space.option(values, "learning_rate"),
        balanced=files.recipe.search.objective == "val_balanced_accuracy", **options,
    )  # fmt: skip


def _early_stopping(files: RunFiles, patience: int | None, *, keep_best: bool) -> list[Any]:
    if patience is None:
        return []
    return [train.early_stopping(files.recipe.search.objective, patience, keep_best=keep_best)]


def _fit(
    files: RunFiles, model: Any, splits: Splits, seed: int, epochs: int, on_epoch: OnEpoch, callbacks: Sequence[Any],
    targets: train.Targets | None = None,
) -> list[Metrics]:  # fmt: skip
    classes = model.output_shape[-1]
    is_balanced = files.recipe.train.class_weight == "balanced"
    return train.fit(
        model, splits["train"], splits["validation"], epochs=epochs, batch_size=files.recipe.search.batch_size,
        seed=seed, num_classes=classes, augment=Augmenter(files.recipe.data.augment, seed), on_epoch=on_epoch,
        class_weights=train.balanced_weights(splits["train"][1], classes) if is_balanced else None,
        targets=targets, callbacks=callbacks,
    )  # fmt: skip
