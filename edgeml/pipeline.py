"""From a recipe to finalists: data, search, training to the end. ``delivery`` takes over from there.

recipe ─► data ─► splits ─► search ─► candidates ─► finalists
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np

from edgeml import data, exporting, latency_budget, shortlist, splits, tensorboards
from edgeml.errors import TrialsError
from edgeml.ledger import Entry
from edgeml.records import Event
from edgeml.run_folder import Arrays, RunFolder
from edgeml.search import deployable, runner, space
from edgeml.search.candidates import ATTEMPTS, Candidate, last_epochs
from edgeml.search.engine import Engine, Job, Outcome
from edgeml.search.processes import Processes

OnEvent = Callable[[Event], None]
Seconds = dict[str, float]
FORWARD_SHARE = 3  # a training step takes about as long as so many forward passes
GENEROUS = 1.25  # a finalist is cut only past so many of its shares of the time: a cosine schedule wants to be finished
SKEWED = 3.0  # the largest class of train has more than so many times the samples of the smallest


@contextmanager
def timed(seconds: Seconds, stage: str) -> Iterator[None]:
    """Add the time that a block takes to ``seconds[stage]``."""
    start = time.monotonic()
    try:
        yield
    finally:
        seconds[stage] = seconds.get(stage, 0.0) + time.monotonic() - start


def prepare(run: RunFolder, on_event: OnEvent) -> dict[str, Arrays]:
    """Load and split the data once per run; later sessions read what the first one wrote."""
    latency_budget.check(run.recipe)
    exporting.check_tools(run.recipe.export.targets)
    if not run.has_data():
        recipe = run.recipe
        on_event(Event("data", f"loading {recipe.data.path or recipe.data.name or recipe.data.source}"))
        dataset = data.load(recipe.data, recipe.export.precision)
        partition = splits.split(dataset, recipe.data.splits, recipe.search.seed)
        arrays = partition.arrays(dataset)
        record = {
            "labels": list(dataset.labels), "value_range": list(dataset.value_range), "meaning": dataset.meaning,
            "divided_by": list(dataset.divided_by),
            "notes": [*dataset.notes, *partition.notes],
        }  # fmt: skip
        run.save_data(arrays, partition.to_json(), record)
    for note in run.dataset()["notes"]:
        on_event(Event("data", note))
    if is_skewed(run) and _ignores_skew(run):
        text = f"classes differ by {_skew(run):.1f}:1; train.class_weight: balanced makes rare ones count alike, and"
        on_event(Event("data", f"{text} search.objective: val_balanced_accuracy judges by the mean recall"))
    return run.splits()


def is_skewed(run: RunFolder) -> bool:
    """Tell whether classes of train differ so much that plain accuracy hides the small ones."""
    return _skew(run) > SKEWED


def _skew(run: RunFolder) -> float:
    counts = list(run.partition()["splits"]["train"]["per_class"].values())
    return float(max(counts) / max(min(counts), 1))


def _ignores_skew(run: RunFolder) -> bool:
    return run.recipe.train.class_weight == "none" and run.recipe.search.objective == "val_accuracy"


def engine_of(run: RunFolder, callbacks: Sequence[Any] = ()) -> Engine:
    """Return the engine that trains the networks of this run, with Keras ``callbacks`` of the user."""
    config = run.recipe.search
    return Processes(run.root, workers=config.workers, memory_limit_mb=config.memory_limit_mb, callbacks=callbacks)


def search(run: RunFolder, arrays: Mapping[str, Arrays], engine: Engine, on_event: OnEvent) -> list[Candidate]:
    """Search, or go on with a search."""
    networks = space.of_run(run, arrays)
    deployable.check(run.recipe, networks)
    profiles = latency_budget.profiles_of(run, networks, on_event)
    return runner.search(run, networks, space.feasibility_of(run.recipe, networks, profiles), engine, on_event)


def train_finalists(
    run: RunFolder, engine: Engine, candidates: Sequence[Candidate], on_event: OnEvent
) -> list[Candidate]:
    """Train the best candidates to the end, from every seed.

    The further seeds of ``t0007`` are ``t0007-s2``, … One that fails is left out.

    Raises:
        TrialsError: all of them failed.
    """
    picked = shortlist.pick(run, candidates, run.recipe.train.finalists)
    finalists = [seeded(c, number) for c in picked for number in range(1, run.recipe.train.seeds + 1)]
    trained = train_to_the_end(run, engine, finalists, on_event)
    if not trained:
        failed = failed_finalists(run)
        name, entry = next((c.id, failed[c.id]) for c in finalists)
        reason = (entry["error"] or entry["status"]).splitlines()[0]
        raise TrialsError(
            f"train: none of {len(finalists)} finalists could be trained to the end; one must. {name}"
            f" {entry['status']}: {reason}. Search again with --overwrite."
        )
    return trained


def train_to_the_end(
    run: RunFolder,
    engine: Engine,
    finalists: Sequence[Candidate],
    on_event: OnEvent,
    sharing: int | None = None,
    lessons: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Candidate]:
    """Train networks to the end; return those that were; what is on disk is not trained again by a resumed run.

    ``sharing``: how many share ``train.time_limit_minutes``, if not they alone. ``lessons``: by id, ``teacher``,
    ``temperature`` and ``hard_labels`` of a job that is to be distilled.
    """
    known = {entry["trial"] for entry in run.ledger.of("finalist_trained")}
    sharing, lessons = sharing or len(finalists), lessons or {}
    about: dict[str, dict[str, Any]] = {
        c.id: {
            "id": c.id, "number": n, "of": len(finalists), "epochs": affordable_epochs(run, c, sharing),
            "objective": run.recipe.search.objective,
        }
        for n, c in enumerate(finalists, 1)
    }  # fmt: skip
    waiting = [c for c in finalists if c.id not in known]
    attempts, epochs = Counter[str](), Counter[str]()

    def on_epoch(job: Job, number: int, metrics: dict[str, float]) -> None:
        epochs[job.id] = number + 1
        on_event(Event("train", "epoch", {"id": job.id, "epoch": number, "metrics": metrics}))

    running = 0
    while waiting or running:
        while waiting and running < engine.workers:
            candidate = waiting.pop(0)
            attempts[candidate.id] += 1
            on_event(Event("train", "finalist", {**about[candidate.id], "cost": candidate.cost}))
            job = _job(candidate, about[candidate.id]["epochs"], _seconds_at_most(run, sharing))
            engine.submit(replace(job, **lessons.get(candidate.id, {})))
            running += 1
        job, outcome = engine.wait(on_epoch)
        running -= 1
        told = {**about[job.id], "metrics": outcome.metrics}
        if outcome.status == "completed":
            run.ledger.append(
                "finalist_trained", job.id, metrics=outcome.metrics, epochs=epochs[job.id], planned_epochs=job.epochs,
                seconds=outcome.seconds, status=outcome.status,
                over_seeds=_over_seeds(run, job, outcome.metrics["val_accuracy"]),
            )  # fmt: skip
            on_event(Event("train", "finalist trained", told))
        elif outcome.status == "crashed" and attempts[job.id] < ATTEMPTS:
            waiting.insert(0, next(c for c in finalists if c.id == job.id))
        else:
            _failed(run, job, outcome)
            on_event(Event("train", "finalist failed", {**told, "status": outcome.status, "error": outcome.error}))
    failed = failed_finalists(run)
    return [candidate for candidate in finalists if candidate.id not in failed]


def _failed(run: RunFolder, job: Job, outcome: Outcome) -> None:
    entry = {"status": outcome.status, "error": outcome.error, "seconds": outcome.seconds}
    run.ledger.append("finalist_trained", job.id, **entry)
    if outcome.is_lost:
        tensorboards.end_lost(tensorboards.folder_of(run.root, job.id, is_finalist=True))


def seeded(candidate: Candidate, number: int) -> Candidate:
    """Return a trial as it is trained from its seed ``number``, from 1."""
    return candidate if number == 1 else replace(candidate, id=f"{candidate.id}-s{number}")


def trial_of(name: str) -> str:
    """Return the trial of a finalist: t0007 of t0007-s2 and of t0007-d1."""
    return name.partition("-")[0]


def is_distilled(name: str) -> bool:
    """Tell whether a finalist learned from the ensemble: t0007-d1."""
    return name.partition("-")[2].startswith("d")


def _over_seeds(run: RunFolder, job: Job, accuracy: float) -> dict[str, Any]:
    """Return mean and standard deviation of a finalist's validation accuracy over the seeds trained so far."""
    trained = (e for e in run.ledger.of("finalist_trained") if e["trial"] not in failed_finalists(run))
    kin = [e for e in trained if trial_of(e["trial"]) == trial_of(job.id)]
    before = [e for e in kin if is_distilled(e["trial"]) == bool(job.teacher)]
    return spread([*(e["metrics"]["val_accuracy"] for e in before), accuracy])


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Return how many values there are, their mean and their sample standard deviation (None: of one)."""
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"seeds": len(values), "mean": float(np.mean(values)), "standard_deviation": deviation}


def _job(candidate: Candidate, epochs: int, seconds: float | None) -> Job:
    number = int(candidate.id.partition("-s")[2] or 1)
    return Job(
        candidate.id, "finalist", candidate.space, candidate.hyperparameters, candidate.cost, epochs=epochs,
        seed_number=number, stop_after_seconds=seconds,
    )  # fmt: skip


def failed_finalists(run: RunFolder) -> dict[str, Entry]:
    """Return what the ledger says of each finalist that could not be trained to the end: ``status``, ``error``."""
    entries = run.ledger.of("finalist_trained")
    return {entry["trial"]: entry for entry in entries if entry.get("status", "completed") != "completed"}


def affordable_epochs(run: RunFolder, candidate: Candidate, finalists: int) -> int:
    """Return how many epochs fit into the time limit, judged by what an epoch of this network took in the search."""
    config = run.recipe.train
    seconds = _seconds_each(run, finalists)
    if seconds is None:
        return config.epochs
    return max(1, min(config.epochs, int(seconds / max(_seconds_an_epoch(run, candidate), 1e-3))))


def _seconds_each(run: RunFolder, finalists: int) -> float | None:
    """Return each finalist's share of the time limit, None without one: half of it where workers need two rounds."""
    limit = run.recipe.train.time_limit_minutes
    rounds = math.ceil(finalists / run.recipe.search.workers)  # workers share the cores, in the search as here
    return None if limit is None else 60 * limit / rounds


def _seconds_at_most(run: RunFolder, finalists: int) -> float | None:
    """Return after how long a finalist ends with the epoch that is running, though fewer epochs than planned."""
    seconds = _seconds_each(run, finalists)
    return None if seconds is None else GENEROUS * seconds


def epochs_of_finalists(run: RunFolder) -> dict[str, dict[str, int]]:
    """Return how many ``epochs`` each finalist was trained for, and the ``planned_epochs``; as far as is known."""
    names = ("epochs", "planned_epochs")
    entries = run.ledger.of("finalist_trained")
    return {entry["trial"]: {name: entry[name] for name in names if name in entry} for entry in entries}


def _seconds_an_epoch(run: RunFolder, candidate: Candidate) -> float:
    """Return what an epoch on all of train takes, judged by the search.

    The first epoch of a trial holds the tracing. Where it is the only one, other trials say what a MAC takes.
    """
    seconds = _seconds_seen(run, trial_of(candidate.id))
    if seconds is None:
        rates = [s / macs for name, macs in _macs_of_trials(run).items() if (s := _seconds_seen(run, name)) is not None]
        own = candidate.seconds
        seconds = min(own, float(np.median(rates)) * candidate.cost.macs) if rates else own
    if not run.recipe.search.train_samples:
        return seconds
    arrays = run.splits()
    samples, held_out = len(arrays["train"][0]), len(arrays["validation"][0]) / FORWARD_SHARE
    seen = min(samples, run.recipe.search.train_samples)
    return seconds * (samples + held_out) / (seen + held_out)


def _seconds_seen(run: RunFolder, trial: str) -> float | None:
    """Return what an epoch of a trial took after its first; None where there was no other."""
    ends = [datetime.fromisoformat(entry["time"]) for entry in last_epochs(run.ledger).get(trial, [])]
    return None if len(ends) < 2 else (ends[-1] - ends[0]).total_seconds() / (len(ends) - 1)


def _macs_of_trials(run: RunFolder) -> dict[str, int]:
    return {
        entry["trial"]: max(1, entry["cost"]["macs"]) for entry in run.ledger.of("trial_started") if "cost" in entry
    }


def load_finalist(run: RunFolder, candidate: Candidate) -> Any:
    """Open a finalist that was trained to the end."""
    from edgeml.runtimes.keras import load

    return load(run.path("finalists", candidate.id, "model.keras"))
