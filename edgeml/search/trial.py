"""What a job does, in whatever process: build the network, count it again, train it, keep its weights.

trial      a few epochs, its best one counts; a Hyperband trial goes on from its parent's weights
finalist   all epochs with a cosine schedule, its last one counts; kept as ``finalists/<id>/model.keras``
"""

from __future__ import annotations

import copy
import math
import os
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edgeml import costs, tensorboards, train
from edgeml.augmentation import Augmenter
from edgeml.errors import EdgemlError, IntegrityError
from edgeml.folding import fold_batch_norm
from edgeml.keras_operators import as_if_trained, keras_operators
from edgeml.records import Cost
from edgeml.run_folder import Arrays, RunFiles
from edgeml.search.engine import Job, Outcome
from edgeml.search.space import Space

Metrics = dict[str, float]
OnEpoch = Callable[[int, Metrics], None]
Splits = Mapping[str, Arrays]


def carry_out(
    files: RunFiles, space: Space, splits: Splits, job: Job, on_epoch: OnEpoch, callbacks: Sequence[Any] = ()
) -> Outcome:
    """Train the network of a job; an exception in it is its outcome.

    Each network has copies of its own of the Keras ``callbacks``, as with KerasTuner.

    Raises:
        IntegrityError: the network costs something else than its hyper-parameters said.
    """
    import keras

    keras.utils.clear_session(free_memory=False)
    start, history = time.monotonic(), list[Metrics]()
    built: Cost | None = None

    def follow(number: int, metrics: Metrics) -> None:
        history.append(metrics)
        on_epoch(number, metrics)

    def outcome(status: str, **more: Any) -> Outcome:
        return Outcome(status, seconds=time.monotonic() - start, **more)

    try:
        own = [*copy.deepcopy(list(callbacks)), *_recorders(files, splits, job)]
        if job.kind == "finalist":
            _train_to_the_end(files, space, splits, job, follow, own)
        else:
            built = _try(files, space, splits, job, follow, own)
    except EdgemlError:
        raise
    except Exception as error:  # noqa: BLE001  (whatever a trial dies of, the search goes on and says so)
        return outcome("failed", error=f"{error}\n{traceback.format_exc()}")
    last = history[-1] if history else {}
    if not math.isfinite(last.get("val_loss", math.nan)):
        return outcome("diverged", metrics=last, error="the loss is not finite")
    best = last if job.kind == "finalist" else max(history, key=lambda metrics: metrics["val_accuracy"])
    return outcome("completed", metrics=best, built_cost=built)


def _try(files: RunFiles, space: Space, splits: Splits, job: Job, on_epoch: OnEpoch, callbacks: Sequence[Any]) -> Cost:
    import keras

    config, values = files.recipe.search, job.hyperparameters
    seed = train.network_seed(config.seed, int(job.id[1:]))
    keras.utils.set_random_seed(seed)
    model = space.model(values)
    built = _recounted(model, job)
    first, epochs = int(values.get("tuner/initial_epoch", 0)), int(values.get("tuner/epochs", config.epochs))
    train.compile_for(model, space.option(values, "optimizer"), space.option(values, "learning_rate"))
    parent = values.get("tuner/trial_id")
    if parent:
        model.optimizer.build(model.trainable_variables)  # else Keras warns, and leaves the optimizer's state behind
        model.load_weights(files.path("trials", f"t{int(parent):04d}", "network.weights.h5"))
    _fit(files, model, splits, seed, epochs - first, on_epoch, callbacks)
    if config.oracle == "hyperband":  # its promoted trials start from these weights
        model.save_weights(files.path("trials", job.id, "network.weights.h5"))
    return built


def _recorders(files: RunFiles, splits: Splits, job: Job) -> list[Any]:
    if not files.recipe.search.tensorboard:
        return []
    x, y = (array[: tensorboards.SAMPLES] for array in splits["validation"])
    about, is_finalist = files.dataset(), job.kind == "finalist"
    samples = tensorboards.Samples(x, [str(about["labels"][label]) for label in y], tuple(about["value_range"]))
    folder = files.path("tensorboard", f"finalist_{job.id}" if is_finalist else job.id)
    return [tensorboards.recorder(folder, job.hyperparameters, samples, is_finalist=is_finalist)]


def _recounted(model: Any, job: Job) -> Cost:
    with as_if_trained(model):
        built = costs.cost(keras_operators(fold_batch_norm(model).model))
    if built != job.cost:
        raise IntegrityError(
            f"search space {job.space}: it declares {job.cost} for trial {job.id}, the network that it builds needs"
            f" {built}. Repair the space's operators()."
        )
    return built


def _train_to_the_end(
    files: RunFiles, space: Space, splits: Splits, job: Job, on_epoch: OnEpoch, callbacks: Sequence[Any]
) -> None:
    import keras

    config, values = files.recipe, job.hyperparameters
    epochs = job.epochs or config.train.epochs
    seed = train.network_seed(config.search.seed, int(job.id[1:]), finalist=True)
    keras.utils.set_random_seed(seed)
    model = space.model(values)
    steps = train.steps(len(splits["train"][0]), config.search.batch_size, epochs)
    train.compile_for(
        model, space.option(values, "optimizer"), space.option(values, "learning_rate"),
        label_smoothing=config.train.label_smoothing, cosine_steps=steps,
    )  # fmt: skip
    _fit(files, model, splits, seed, epochs, on_epoch, callbacks)
    path = files.path("finalists", job.id, "model.keras")
    beside = path.with_name("partial.keras")
    model.save(beside)
    os.replace(beside, path)


def _fit(
    files: RunFiles,
    model: Any,
    splits: Splits,
    seed: int,
    epochs: int,
    on_epoch: OnEpoch,
    callbacks: Sequence[Any],
) -> None:
    train.fit(
        model, splits["train"], splits["validation"], epochs=epochs, batch_size=files.recipe.search.batch_size,
        seed=seed, num_classes=model.output_shape[-1], augment=Augmenter(files.recipe.data.augment, seed),
        on_epoch=on_epoch, callbacks=callbacks,
    )  # fmt: skip
