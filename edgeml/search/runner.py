"""The runner: asks the oracle, trains, tells the oracle; every step in the ledger before the next begins.

A search is resumed by replaying: a fresh oracle of the same seed is asked and told again in the ledger's order, so it
ends in the state it was left in, random numbers included. Only a trial that was running is lost, and trained again.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from edgeml import costs, train
from edgeml.augmentation import Augmenter
from edgeml.errors import EdgemlError, IntegrityError, TrialsError
from edgeml.folding import fold_batch_norm
from edgeml.keras_operators import as_if_trained, keras_operators
from edgeml.records import Cost, Event
from edgeml.run_folder import Arrays, RunFolder
from edgeml.search import oracles
from edgeml.search.feasibility import Feasibility
from edgeml.search.space import Space

WORKER = "worker0"
FAILED_SHARE = 1 / 3  # a run with more failed trials than this has found something else than networks
OnEvent = Callable[[Event], None]


@dataclass(frozen=True)
class Candidate:
    """A trial that has ended."""

    id: str
    space: str
    share: Fraction
    hyperparameters: Mapping[str, Any]
    cost: Cost
    status: str
    built_cost: Cost | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    epochs: tuple[Mapping[str, float], ...] = ()
    seconds: float = 0.0
    error: str | None = None


def search(
    run: RunFolder, space: Space, feasibility: Feasibility, splits: Mapping[str, Arrays], on_event: OnEvent
) -> list[Candidate]:
    """Train networks until the oracle stops, ``max_trials`` or the time limit is reached; return them in order.

    Raises:
        BudgetError: no network of the space fits the budget.
        IntegrityError: a network built costs something else than its hyper-parameters said.
        TrialsError: more than a third of the trials failed.
    """
    config = run.recipe.search
    oracle = oracles.create(
        config.oracle, accepts=feasibility.accepts, hyperparameters=space.hyperparameters(),
        max_trials=config.max_trials, epochs=config.epochs, seed=config.seed, costs=feasibility.cost,
        objectives=config.objectives or oracles.OBJECTIVES,
    )  # fmt: skip
    oracle._set_project_dir(run.path("tuner"), "oracle")
    feasibility.keep_shares_for(space.hyperparameters().values)
    done = {entry["trial"]: entry for entry in run.ledger.of("trial_ended")}
    candidates: list[Candidate] = []
    while not _time_is_up(config.time_limit_minutes, sum(candidate.seconds for candidate in candidates)):
        trial = oracle.create_trial(WORKER)
        if trial.status != "RUNNING":
            break
        candidate = _one(run, space, feasibility, splits, trial, done, candidates, on_event)
        _tell(oracle, trial, candidate)
        candidates.append(candidate)
    if not candidates:
        raise feasibility.none_fits()
    if not run.ledger.of("refused"):
        run.ledger.append("refused", counts=dict(feasibility.refused))
    _check_failures(candidates)
    return candidates


def _share(trial: Any, feasibility: Feasibility, before: list[Candidate]) -> Fraction:
    """Return the share of the budget that a trial belongs to; a promoted one keeps its parent's."""
    parent = trial.hyperparameters.values.get("tuner/trial_id")
    return before[int(parent)].share if parent else feasibility.share(len(before))


def _standing(run: RunFolder, before: list[Candidate]) -> dict[str, Any]:
    """Return what a reader of a live line asks: how many trials at most, the best so far, the time that is left."""
    config = run.recipe.search
    limit = None if config.time_limit_minutes is None else 60 * config.time_limit_minutes
    best = max((c.metrics["val_accuracy"] for c in before if c.status == "completed"), default=None)
    seconds_left = None if limit is None else max(0.0, limit - sum(c.seconds for c in before))
    return {"of": config.max_trials, "best": best, "seconds_left": seconds_left}


def _time_is_up(limit_minutes: float | None, seconds: float) -> bool:
    return limit_minutes is not None and seconds >= 60 * limit_minutes


def _one(
    run: RunFolder,
    space: Space,
    feasibility: Feasibility,
    splits: Mapping[str, Arrays],
    trial: Any,
    done: Mapping[str, Any],
    before: list[Candidate],
    on_event: OnEvent,
) -> Candidate:
    values = dict(trial.hyperparameters.values)
    cost, share = feasibility.cost(values), _share(trial, feasibility, before)
    identity = {
        "id": f"t{int(trial.trial_id):04d}",
        "space": space.name_of(values),
        "share": share,
        "hyperparameters": values,
    }
    entry = done.get(str(identity["id"]))
    if entry:
        return _recorded(run, entry, identity, cost)
    run.ledger.append("trial_started", str(identity["id"]), hyperparameters=values, cost=cost, share=share)
    on_event(Event("search", "trial started", {**identity, "cost": cost, **_standing(run, before)}))
    start = time.monotonic()
    outcome = _trained(run, space, splits, identity, cost, on_event)
    candidate = Candidate(**identity, cost=cost, seconds=time.monotonic() - start, **outcome)  # type: ignore[arg-type]
    run.ledger.append(
        "trial_ended", candidate.id, status=candidate.status, metrics=candidate.metrics, seconds=candidate.seconds,
        error=candidate.error, built_cost=candidate.built_cost,
    )  # fmt: skip
    on_event(Event("search", "trial ended", {"candidate": candidate}))
    return candidate


def _recorded(run: RunFolder, entry: Mapping[str, Any], identity: dict[str, Any], cost: Cost) -> Candidate:
    """Return a trial of an earlier session; its proposal must be the one that the replayed oracle made."""
    started = [e for e in run.ledger.of("trial_started") if e["trial"] == identity["id"]][-1]
    if started["hyperparameters"] != identity["hyperparameters"]:
        raise IntegrityError(
            f"{run.ledger.path}: trial {identity['id']} is not what this search proposes; the ledger is of another"
            " version or seed. Start again with --overwrite."
        )
    own = [e for e in run.ledger.of("epoch") if e["trial"] == identity["id"]]
    epochs = tuple(e["metrics"] for e in own if e["seq"] > started["seq"])  # not those of an attempt that was cut off
    known = {name: entry[name] for name in ("status", "metrics", "seconds", "error")}
    built = Cost(**entry["built_cost"]) if entry.get("built_cost") else None
    return Candidate(**identity, cost=cost, built_cost=built, epochs=epochs, **known)


def _trained(
    run: RunFolder,
    space: Space,
    splits: Mapping[str, Arrays],
    identity: Mapping[str, Any],
    cost: Cost,
    on_event: OnEvent,
) -> dict[str, Any]:
    import keras

    keras.utils.clear_session(free_memory=False)
    history: list[dict[str, float]] = []

    def on_epoch(number: int, metrics: dict[str, float]) -> None:
        history.append(metrics)
        run.ledger.append("epoch", identity["id"], epoch=number, metrics=metrics)
        on_event(Event("search", "epoch", {"id": identity["id"], "epoch": number, "metrics": metrics}))

    try:
        built = _fit(run, space, splits, identity, cost, on_epoch)
    except EdgemlError:
        raise
    except Exception as error:  # noqa: BLE001  (whatever a trial dies of, the search goes on and says so)
        return {"status": "failed", "error": f"{error}\n{traceback.format_exc()}", "epochs": tuple(history)}
    last = history[-1] if history else {}
    if not last or not np.isfinite(last.get("val_loss", np.nan)):
        return {"status": "diverged", "metrics": last, "epochs": tuple(history), "error": "the loss is not finite"}
    best = max(history, key=lambda metrics: metrics["val_accuracy"])
    return {"status": "completed", "metrics": best, "epochs": tuple(history), "built_cost": built}


def _fit(
    run: RunFolder,
    space: Space,
    splits: Mapping[str, Arrays],
    identity: Mapping[str, Any],
    cost: Cost,
    on_epoch: Callable[[int, dict[str, float]], None],
) -> Cost:
    import keras

    config, values = run.recipe.search, identity["hyperparameters"]
    number = int(str(identity["id"])[1:])
    seed = train.network_seed(config.seed, number)
    keras.utils.set_random_seed(seed)
    model = space.model(values)
    with as_if_trained(model):
        built = costs.cost(keras_operators(fold_batch_norm(model).model))
    if built != cost:
        raise IntegrityError(
            f"search space {identity['space']}: it declares {cost} for trial {identity['id']}, the network that it"
            f" builds needs {built}. Repair the space's operators()."
        )
    first, epochs = int(values.get("tuner/initial_epoch", 0)), int(values.get("tuner/epochs", config.epochs))
    train.compile_for(model, space.option(values, "optimizer"), space.option(values, "learning_rate"))
    parent = values.get("tuner/trial_id")
    if parent:
        model.optimizer.build(model.trainable_variables)  # else Keras warns, and leaves the optimizer's state behind
        model.load_weights(run.path("trials", f"t{int(parent):04d}", "network.weights.h5"))
    augment = Augmenter(run.recipe.data.augment, seed)
    train.fit(
        model, splits["train"], splits["validation"], epochs=epochs - first, batch_size=config.batch_size, seed=seed,
        num_classes=model.output_shape[-1], augment=augment, on_epoch=on_epoch,
    )  # fmt: skip
    if config.oracle == "hyperband":  # its promoted trials start from these weights
        model.save_weights(run.path("trials", str(identity["id"]), "network.weights.h5"))
    return built


def _tell(oracle: Any, trial: Any, candidate: Candidate) -> None:
    """Report a trial; one that failed as accuracy 0: the Bayesian oracle learns from it, Hyperband counts it."""
    steps = candidate.epochs if candidate.status == "completed" else ({"val_accuracy": 0.0},)
    for step, metrics in enumerate(steps):
        oracle.update_trial(trial.trial_id, dict(metrics), step=step)
    trial.status = "COMPLETED"
    trial.message = candidate.error
    oracle.end_trial(trial)


def _check_failures(candidates: list[Candidate]) -> None:
    failed = [c for c in candidates if c.status != "completed"]
    if len(failed) > FAILED_SHARE * len(candidates):
        first = (failed[0].error or failed[0].status).splitlines()[0]
        raise TrialsError(
            f"search: {len(failed)} of {len(candidates)} trials failed; at most a third may."
            f" The first, {failed[0].id}: {first}. The ledger holds every traceback."
        )
