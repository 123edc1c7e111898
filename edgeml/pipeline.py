"""From a recipe to finalists: data, search, training to the end. ``delivery`` takes over from there.

recipe ─► data ─► splits ─► search ─► candidates ─► finalists
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from edgeml import data, splits
from edgeml.errors import TrialsError
from edgeml.records import Event
from edgeml.run_folder import Arrays, RunFolder
from edgeml.search import runner, space
from edgeml.search.engine import Engine, Job, Outcome
from edgeml.search.feasibility import Feasibility
from edgeml.search.processes import Processes
from edgeml.search.runner import Candidate
from edgeml.search.space import Space

OnEvent = Callable[[Event], None]
Seconds = dict[str, float]


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
    if not run.has_data():
        recipe = run.recipe
        on_event(Event("data", f"loading {recipe.data.path or recipe.data.name or recipe.data.source}"))
        dataset = data.load(recipe.data)
        partition = splits.split(dataset, recipe.data.splits, recipe.search.seed)
        arrays = partition.arrays(dataset)
        record = {
            "labels": list(dataset.labels), "value_range": list(dataset.value_range), "meaning": dataset.meaning,
            "notes": [*dataset.notes, *partition.notes],
        }  # fmt: skip
        run.save_data(arrays, partition.to_json(), record)
    for note in run.dataset()["notes"]:
        on_event(Event("data", note))
    return run.splits()


def engine_of(run: RunFolder, callbacks: Sequence[Any] = ()) -> Engine:
    """Return the engine that trains the networks of this run, with Keras ``callbacks`` of the user."""
    config = run.recipe.search
    return Processes(run.root, workers=config.workers, memory_limit_mb=config.memory_limit_mb, callbacks=callbacks)


def feasibility_of(run: RunFolder, networks: Space) -> Feasibility:
    """Return the judge of this run's budget."""
    shares = (
        run.recipe.search.member_share if run.recipe.ensemble.max_members > 1 else run.recipe.search.member_share[:1]
    )
    return Feasibility(networks.operators, run.recipe.budget, shares, run.recipe.search.least_use)


def search(run: RunFolder, arrays: Mapping[str, Arrays], engine: Engine, on_event: OnEvent) -> list[Candidate]:
    """Search, or go on with a search."""
    networks = space.of_run(run, arrays)
    return runner.search(run, networks, feasibility_of(run, networks), engine, on_event)


def pick_finalists(candidates: Sequence[Candidate], count: int) -> list[Candidate]:
    """Take the best of each share of the budget in turn, the best of all first: members must fit together."""
    finished = [c for c in candidates if c.status == "completed"]
    ranked = sorted(finished, key=lambda c: (-c.metrics["val_accuracy"], c.metrics["val_loss"]))
    queues = {share: [c for c in ranked if c.share == share] for share in dict.fromkeys(c.share for c in ranked)}
    picked: list[Candidate] = []
    while len(picked) < count and any(queues.values()):
        for queue in queues.values():
            if queue and len(picked) < count:
                picked.append(queue.pop(0))
    return sorted(picked, key=ranked.index)


def train_finalists(
    run: RunFolder, engine: Engine, candidates: Sequence[Candidate], on_event: OnEvent
) -> list[Candidate]:
    """Train the best candidates to the end; each is kept on disk, so that a resumed run does not train it again.

    One that fails is left out.

    Raises:
        TrialsError: all of them failed.
    """
    finalists = pick_finalists(candidates, run.recipe.train.finalists)
    trained = {entry["trial"] for entry in run.ledger.of("finalist_trained")}
    about: dict[str, dict[str, Any]] = {
        c.id: {"id": c.id, "number": n, "of": len(finalists), "epochs": _affordable_epochs(run, c, len(finalists))}
        for n, c in enumerate(finalists, 1)
    }
    waiting = [c for c in finalists if c.id not in trained]
    attempts, failed, epochs = Counter[str](), dict[str, Outcome](), Counter[str]()

    def on_epoch(job: Job, number: int, metrics: dict[str, float]) -> None:
        epochs[job.id] = number + 1
        on_event(Event("train", "epoch", {"id": job.id, "epoch": number, "metrics": metrics}))

    running = 0
    while waiting or running:
        while waiting and running < engine.workers:
            candidate = waiting.pop(0)
            attempts[candidate.id] += 1
            on_event(Event("train", "finalist", {**about[candidate.id], "cost": candidate.cost}))
            engine.submit(_job(candidate, about[candidate.id]["epochs"]))
            running += 1
        job, outcome = engine.wait(on_epoch)
        running -= 1
        told = {**about[job.id], "metrics": outcome.metrics}
        if outcome.status == "completed":
            run.ledger.append(
                "finalist_trained", job.id, metrics=outcome.metrics, epochs=epochs[job.id], seconds=outcome.seconds
            )
            on_event(Event("train", "finalist trained", told))
        elif outcome.status == "crashed" and attempts[job.id] < runner.ATTEMPTS:
            waiting.insert(0, next(c for c in finalists if c.id == job.id))
        else:
            failed[job.id] = outcome
            on_event(Event("train", "finalist failed", {**told, "status": outcome.status, "error": outcome.error}))
    return _survivors(finalists, failed)


def _job(candidate: Candidate, epochs: int) -> Job:
    return Job(candidate.id, "finalist", candidate.space, candidate.hyperparameters, candidate.cost, epochs=epochs)


def _survivors(finalists: list[Candidate], failed: Mapping[str, Outcome]) -> list[Candidate]:
    left = [candidate for candidate in finalists if candidate.id not in failed]
    if not left:
        name, outcome = next(iter(failed.items()))
        reason = (outcome.error or outcome.status).splitlines()[0]
        raise TrialsError(
            f"train: none of {len(finalists)} finalists could be trained to the end; one must. {name}"
            f" {outcome.status}: {reason}. Search again with --overwrite."
        )
    return left


def _affordable_epochs(run: RunFolder, candidate: Candidate, finalists: int) -> int:
    """Return how many epochs fit into the time limit, judged by what an epoch of this network took in the search."""
    config = run.recipe.train
    if config.time_limit_minutes is None:
        return config.epochs
    rounds = math.ceil(finalists / run.recipe.search.workers)  # workers share the cores, in the search as here
    seconds = 60 * config.time_limit_minutes / rounds
    return max(1, min(config.epochs, int(seconds / max(_seconds_an_epoch(run, candidate), 1e-3))))


def _seconds_an_epoch(run: RunFolder, candidate: Candidate) -> float:
    """Return what an epoch took in the search; the first one, which holds the tracing, counts only if it is alone."""
    ends = [datetime.fromisoformat(e["time"]) for e in run.ledger.of("epoch") if e["trial"] == candidate.id]
    if len(ends) < 2:
        return candidate.seconds
    return (ends[-1] - ends[0]).total_seconds() / (len(ends) - 1)


def load_finalist(run: RunFolder, candidate: Candidate) -> Any:
    """Open a finalist that was trained to the end."""
    from edgeml.runtimes.keras import load

    return load(run.path("finalists", candidate.id, "model.keras"))
