"""From a recipe to finalists: data, search, training to the end. ``delivery`` takes over from there.

recipe ─► data ─► splits ─► search ─► candidates ─► finalists
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from edgeml import data, scaling, splits, train
from edgeml.augmentation import Augmenter
from edgeml.records import Event
from edgeml.run_folder import Arrays, RunFolder
from edgeml.search import runner
from edgeml.search.feasibility import Feasibility
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


def space_of(run: RunFolder, arrays: Mapping[str, Arrays]) -> Space:
    """Return the search space for this data set, with the input scaling fitted on train."""
    x = arrays["train"][0]
    if run.recipe.data.input == "standardize":
        scaled = scaling.standardize(*splits.standardization(x))
    else:
        low, high = run.dataset()["value_range"]
        scaled = scaling.rescale((low, high))
    return Space(run.recipe.search.space, scaling.input_shape(x), len(run.dataset()["labels"]), scaled)


def feasibility_of(run: RunFolder, space: Space) -> Feasibility:
    """Return the judge of this run's budget."""
    shares = (
        run.recipe.search.member_share if run.recipe.ensemble.max_members > 1 else run.recipe.search.member_share[:1]
    )
    return Feasibility(space.operators, run.recipe.budget, shares, run.recipe.search.least_use)


def search(run: RunFolder, space: Space, arrays: Mapping[str, Arrays], on_event: OnEvent) -> list[Candidate]:
    """Search, or go on with a search."""
    return runner.search(run, space, feasibility_of(run, space), arrays, on_event)


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
    run: RunFolder, space: Space, arrays: Mapping[str, Arrays], candidates: Sequence[Candidate], on_event: OnEvent
) -> list[Candidate]:
    """Train the best candidates to the end; each is kept on disk, so that a resumed run does not train it again."""
    finalists = pick_finalists(candidates, run.recipe.train.finalists)
    trained = {entry["trial"] for entry in run.ledger.of("finalist_trained")}
    for number, candidate in enumerate(finalists):
        if candidate.id in trained:
            continue
        epochs = _affordable_epochs(run, candidate, len(finalists))
        about = {"id": candidate.id, "number": number + 1, "of": len(finalists), "epochs": epochs}
        on_event(Event("train", "finalist", {**about, "cost": candidate.cost}))
        start = time.monotonic()
        history = _train_one(run, space, arrays, candidate, epochs, on_event)
        run.ledger.append(
            "finalist_trained", candidate.id, metrics=history[-1], epochs=len(history),
            seconds=time.monotonic() - start,
        )  # fmt: skip
        on_event(Event("train", "finalist trained", {**about, "metrics": history[-1]}))
    return finalists


def _affordable_epochs(run: RunFolder, candidate: Candidate, finalists: int) -> int:
    """Return how many epochs fit into the time limit, judged by what an epoch of this network took in the search."""
    config = run.recipe.train
    if config.time_limit_minutes is None:
        return config.epochs
    seconds_an_epoch = _seconds_an_epoch(run, candidate)
    return max(1, min(config.epochs, int(60 * config.time_limit_minutes / finalists / max(seconds_an_epoch, 1e-3))))


def _seconds_an_epoch(run: RunFolder, candidate: Candidate) -> float:
    """Return what an epoch took in the search; the first one, which holds the tracing, counts only if it is alone."""
    ends = [datetime.fromisoformat(e["time"]) for e in run.ledger.of("epoch") if e["trial"] == candidate.id]
    if len(ends) < 2:
        return candidate.seconds
    return (ends[-1] - ends[0]).total_seconds() / (len(ends) - 1)


def _train_one(
    run: RunFolder, space: Space, arrays: Mapping[str, Arrays], candidate: Candidate, epochs: int, on_event: OnEvent
) -> list[dict[str, float]]:
    import keras

    config, values = run.recipe.train, candidate.hyperparameters
    seed = train.network_seed(run.recipe.search.seed, int(candidate.id[1:]), finalist=True)
    keras.utils.set_random_seed(seed)
    model = space.model(values)
    x, _ = arrays["train"]
    steps = train.steps(len(x), run.recipe.search.batch_size, epochs)
    train.compile_for(
        model, space.option(values, "optimizer"), space.option(values, "learning_rate"),
        label_smoothing=config.label_smoothing, cosine_steps=steps,
    )  # fmt: skip

    def on_epoch(epoch: int, metrics: dict[str, float]) -> None:
        on_event(Event("train", "epoch", {"id": candidate.id, "epoch": epoch, "metrics": metrics}))

    history = train.fit(
        model, arrays["train"], arrays["validation"], epochs=epochs, batch_size=run.recipe.search.batch_size,
        seed=seed, num_classes=model.output_shape[-1], augment=Augmenter(run.recipe.data.augment, seed),
        on_epoch=on_epoch,
    )  # fmt: skip
    path = run.path("finalists", candidate.id, "model.keras")
    beside = path.with_name("partial.keras")
    model.save(beside)
    os.replace(beside, path)
    return history


def load_finalist(run: RunFolder, candidate: Candidate) -> Any:
    """Open a finalist that was trained to the end."""
    from edgeml.runtimes.keras import load

    return load(run.path("finalists", candidate.id, "model.keras"))
