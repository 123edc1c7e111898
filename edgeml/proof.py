"""Proof that an ensemble pays, or that it does not: the graph beside everything that could have been shipped instead.

    the ensemble · the best single network · the best of equal params, of equal MACs · one network from several seeds ·
    the same members with uniform and with greedy weights · one network that learned from the ensemble

Each is compiled, folded and written like what ships; all files are timed in one interleaved run. What test says is told
beside it, after everything was decided on blend.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml import ensemble, exporting, intervals, pipeline, timing
from edgeml.assembly import Assembled, Field, fold, probabilities_of
from edgeml.controls import EQUAL, Controls
from edgeml.ensemble import Choice
from edgeml.precisions import File
from edgeml.recipe import Recipe
from edgeml.records import Cost
from edgeml.run_folder import RunFolder
from edgeml.runtimes import Arrays as Inputs
from edgeml.search.candidates import Candidate
from edgeml.timing import Latency

Json = dict[str, Any]
Float = NDArray[np.float64]
PRECISION = "float32"
OTHER_WEIGHTS = ("uniform", "greedy")


@dataclass(frozen=True, eq=False)
class Rival:
    """A weighted mean of networks.

    ``blend_log_loss``: of the ensemble with members and weights, of others with weights chosen without the rows that
    they are judged by; None where the network learned from what blend had chosen.
    """

    names: tuple[str, ...]
    ids: tuple[str, ...]
    weights: tuple[float, ...]
    mean: str
    blend_log_loss: float | None
    ships: bool = False
    cost: Cost | None = None
    file_bytes: int | None = None
    latency: Latency | None = None


def rivals(run: RunFolder, assembled: Assembled, controls: Controls, models: Mapping[str, Any]) -> list[Rival]:
    """Return what is compared, the best ensemble first; rivals that turn out to be the same are one."""
    field, choice = assembled.field, assembled.choice
    best = choice.ensemble
    if best is None:
        return []
    ids = [field.finalists[i].id for i in best.members]
    found = [
        Rival(("the ensemble",), tuple(ids), tuple(best.weights.tolist()), best.mean, choice.ensemble_loss),
        _alone("best single network", field.finalists[choice.single].id, choice.single_loss),
    ]
    x, labels = run.splits()["blend"][0], field.labels
    for key, one in (("params", controls.equal_params), ("MACs", controls.equal_macs)):
        if one is not None:
            loss = ensemble.log_loss(probabilities_of(models[one.id], x), labels)
            share = getattr(one.cost, key.lower()) / getattr(controls.cost, key.lower())
            name = f"best of equal {key}" if share >= EQUAL else f"nearest in {key} ({share:.0%} of the ensemble's)"
            found.append(_alone(name, one.id, loss))
    if controls.copies:
        said = np.stack([probabilities_of(models[c.id], x) for c in controls.copies])
        name = f"one network from {len(said)} seeds"
        found.append(_weighted(name, [c.id for c in controls.copies], said, labels, run.recipe, best.mean, "uniform"))
    said = field.blend[list(best.members)]
    for method in OTHER_WEIGHTS:
        found.append(_weighted(f"{method} weights", ids, said, labels, run.recipe, best.mean, method))
    if controls.distilled:
        found.append(_distilled(controls.distilled, models, x, labels))
    return [replace(one, ships=_is(one, field, choice)) for one in _merged(found)]


def _weighted(
    name: str, ids: Sequence[str], said: Float, labels: NDArray[np.int64], recipe: Recipe, mean: str, method: str
) -> Rival:
    seed = recipe.search.seed
    weights = ensemble.fit_weights(said, labels, method, mean=mean, seed=seed)
    loss = ensemble.log_loss(ensemble.held_out(said, labels, method, mean=mean, seed=seed), labels)
    kept = [i for i, weight in enumerate(weights) if weight > 0]
    if len(kept) == 1:  # its own graph, whatever the mean
        return _alone(name, ids[kept[0]], ensemble.log_loss(said[kept[0]], labels))
    return Rival((name,), tuple(ids[i] for i in kept), tuple(weights[kept].tolist()), mean, loss)


def _alone(name: str, network: str, blend_log_loss: float | None) -> Rival:
    return Rival((name,), (network,), (1.0,), "arithmetic", blend_log_loss)


def _distilled(students: Sequence[Candidate], models: Mapping[str, Any], x: Any, labels: NDArray[np.int64]) -> Rival:
    """Return the best student; what it learned from has seen the blend split, so its loss there is no figure."""
    losses = {c.id: ensemble.log_loss(probabilities_of(models[c.id], x), labels) for c in students}
    best = min(losses, key=lambda name: losses[name])
    return _alone("distilled from the ensemble", best, None)


def _key(rival: Rival) -> tuple[Any, ...]:
    parts = [(name, round(w, 6)) for name, w in zip(rival.ids, rival.weights, strict=True) if w > 0]
    return (*sorted(parts), rival.mean if len(parts) > 1 else "")


def _merged(found: Sequence[Rival]) -> list[Rival]:
    by_key: dict[tuple[Any, ...], Rival] = {}
    for one in found:
        first = by_key.setdefault(_key(one), one)
        if first is not one:
            by_key[_key(one)] = replace(first, names=(*first.names, *one.names))
    return list(by_key.values())


def _is(rival: Rival, field: Field, choice: Choice) -> bool:
    ids = tuple(field.finalists[i].id for i in choice.members)
    return _key(rival) == _key(Rival((), ids, choice.weights, choice.mean, None))


def measured(
    rivals: Sequence[Rival], models: Mapping[str, Any], recipe: Recipe, folder: Path, samples: Inputs
) -> list[Rival]:
    """Write each rival as the target of the recipe's first file, in float32, count and time it."""
    target, paths, found = recipe.export.files[0].target, dict[str, Path](), list[Rival]()
    for number, rival in enumerate(rivals):
        graph = fold(
            ensemble.side_by_side([models[name] for name in rival.ids], rival.weights, rival.mean),
            (File(target, PRECISION),),
        )
        place = folder / str(number)
        place.mkdir(parents=True)
        (artifact,) = exporting.write(graph.folding.model, place, (target,), (PRECISION,), None, lambda event: None)
        paths[str(number)] = artifact.path
        found.append(replace(rival, cost=graph.cost, file_bytes=artifact.path.stat().st_size))
    threads = recipe.benchmark.threads
    latency = timing.measure(paths, samples, precision=dict.fromkeys(paths, PRECISION), threads=threads)
    return [replace(one, latency=row) for one, row in zip(found, latency, strict=True)]


def table(rivals: Sequence[Rival], said: Mapping[str, Float], labels: NDArray[np.int64], recipe: Recipe) -> Json:
    """Return what the report shows of the rivals: their rows, and of which file bytes and latency are."""
    return {"file": exporting.file_name(recipe.export.files[0].target, PRECISION), "rows": rows(rivals, said, labels)}


def rows(rivals: Sequence[Rival], said: Mapping[str, Float], labels: NDArray[np.int64]) -> list[Json]:
    """Return what test says of each rival, the first one's mistakes beside those of every other.

    ``said``: each network's probabilities of the test split (N, K) by id. ``right_alone``: rows where the first is
    right and this one not, and the other way round.
    """
    outputs = [
        ensemble.blend(np.stack([said[name] for name in one.ids]), np.array(one.weights), one.mean) for one in rivals
    ]
    right = [output.argmax(axis=1) == labels for output in outputs]
    alone = [(int(np.sum(right[0] & ~own)), int(np.sum(own & ~right[0]))) for own in right]
    return [
        {
            "name": ", ".join(one.names), "ids": list(one.ids), "weights": list(one.weights), "mean": one.mean,
            "ships": one.ships, "blend_log_loss": one.blend_log_loss, "samples": len(labels),
            "test_accuracy": float(np.mean(own)), "test_interval_95": list(intervals.bootstrap(own)),
            "right_alone": list(alone[place]), "mcnemar_p": None if place == 0 else intervals.mcnemar(*alone[place]),
            "test_log_loss": ensemble.log_loss(output, labels),
            "calibration_error": intervals.calibration_error(output, labels),
            "params": one.cost.params if one.cost else None, "macs": one.cost.macs if one.cost else None,
            "bytes": one.file_bytes,
            "quiet_ms": one.latency.quiet_ms if one.latency else None,
            "latency_interval_95": list(one.latency.interval_95) if one.latency else None,
        }
        for place, (one, output, own) in enumerate(zip(rivals, outputs, right, strict=True))
    ]  # fmt: skip


def opened(run: RunFolder, field: Field, controls: Controls) -> dict[str, Any]:
    """Return the Keras models of all finalists and controls by id."""
    known = {c.id: model for c, model in zip(field.finalists, field.models, strict=True)}
    also = (controls.equal_params, controls.equal_macs, *controls.copies, *controls.distilled)
    return known | {c.id: pipeline.load_finalist(run, c) for c in also if c is not None and c.id not in known}
