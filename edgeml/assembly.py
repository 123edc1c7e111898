"""From finalists to the one graph that ships: measured, chosen on the blend split, compiled, folded, counted.

finalists ─► latency ─► ensemble ─► trained graph ─► folded graph ─► cost
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml import calibration, costs, ensemble, latency_budget, pipeline, quantization, run_folder
from edgeml.compression import Compressed
from edgeml.ensemble import Blend, Choice
from edgeml.errors import BudgetError
from edgeml.folding import Folding, fold_batch_norm
from edgeml.keras_operators import keras_operators
from edgeml.kinds import kind_of
from edgeml.latency_budget import Standing
from edgeml.operators import Operator
from edgeml.pipeline import OnEvent, Seconds, timed
from edgeml.precisions import FILES, File
from edgeml.recipe import Recipe
from edgeml.records import Cost, to_json
from edgeml.run_folder import Arrays, RunFolder
from edgeml.search import deployable
from edgeml.search.candidates import Candidate
from edgeml.search.feasibility import Profiles


@dataclass(frozen=True, eq=False)
class Field:
    """The finalists that may ship, with what they say about the blend split, (M, N, K), and its labels.

    ``input_elements``: scalars of one sample.
    """

    finalists: tuple[Candidate, ...]
    models: tuple[Any, ...]
    blend: NDArray[np.float64]
    labels: NDArray[np.int64]
    standings: tuple[tuple[Standing, ...], ...]
    input_elements: int

    @property
    def losses(self) -> list[float]:
        """The blend log-loss of each finalist."""
        return [ensemble.log_loss(one, self.labels) for one in self.blend]


@dataclass(frozen=True, eq=False)
class Graph:
    """What ships: the trained graph, the same folded, and what it costs."""

    trained: Any
    folding: Folding
    operators: tuple[Operator, ...]
    cost: Cost


@dataclass(frozen=True, eq=False)
class Compression:
    """The graph as it was, and what was done to it."""

    before: Graph
    made: tuple[Compressed, ...]


@dataclass(frozen=True, eq=False)
class Assembled:
    """Who could ship, who does, and the graph of it."""

    field: Field
    choice: Choice
    graph: Graph
    compression: Compression | None = None


def assemble(
    run: RunFolder, finalists: Sequence[Candidate], arrays: Mapping[str, Arrays], on_event: OnEvent, seconds: Seconds
) -> Assembled:
    """Choose the members on the blend split and compile the graph that ships.

    Raises:
        BudgetError: no finalist is within the latency budget, or the whole graph is over budget.
    """
    with timed(seconds, "ensemble"):
        models = [pipeline.load_finalist(run, candidate) for candidate in finalists]
        x, y = arrays["blend"]
        probabilities = np.stack([as_it_ships(run.recipe, model, arrays) for model in models])
        profiles = latency_budget.profiles_of_search(run)
        standings = [_standings(run, profiles, model, arrays, on_event) for model in models]
        elements = math.prod(x.shape[1:])
        field = Field(
            tuple(finalists), tuple(models), probabilities, np.asarray(y, np.int64), tuple(standings), elements
        )
        field = _within_latency(run, field)
        choice, graph = _within_budget(run.recipe, field)
    record = _record(field, choice, run.recipe.ensemble.weights)
    run_folder.write_json(run.path(run_folder.ENSEMBLE), record)
    run.ledger.append("ensemble_fitted", **{key: record[key] for key in ("members", "weights", "mean", "reason")})
    return Assembled(field, choice, graph)


def as_it_ships(recipe: Recipe, model: Any, arrays: Mapping[str, Arrays]) -> NDArray[np.float64]:
    """Return what a finalist says of the blend split, (N, K): where all files are int8, what its int8 file says."""
    x, labels = arrays["blend"]
    if set(recipe.export.precision) != {"int8"}:
        return probabilities_of(model, x)
    folded = fold_batch_norm(model).model
    held = quantization.exam(folded, named(x), np.asarray(labels, np.int64))
    config = replace(recipe.quantize, steps=tuple(s for s in recipe.quantize.steps if s in quantization.QUICK))
    drawn = quantization.drawn(arrays["train"][0], recipe.export.calibration_samples, recipe.search.seed)
    found = quantization.climb(folded, "int8", named(drawn), held, config, recipe.verify)
    return np.asarray(next(iter(found.outputs.values())), np.float64)


def _record(field: Field, choice: Choice, method: str) -> dict[str, Any]:
    """Return what was chosen, and the best of several members if they do not ship."""

    def told(blend: Blend) -> dict[str, Any]:
        members = [field.finalists[i].id for i in blend.members]
        return {"members": members, "weights": blend.weights.tolist(), "mean": blend.mean}

    return {
        **told(choice.shipping), "reason": choice.reason, "weights_method": method,
        "blend_log_loss": choice.loss, "single": field.finalists[choice.single].id,
        "single_blend_log_loss": choice.single_loss, "steps": to_json(choice.steps),
        "best_of_several": told(choice.ensemble) if choice.ensemble else None,
    }  # fmt: skip


def _within_budget(recipe: Recipe, field: Field) -> tuple[Choice, Graph]:
    """Choose, compile and judge; a set whose graph is over budget, though its sum was not, gives way to another.

    Raises:
        BudgetError: a network by itself is over budget, once it is compiled.
    """
    predicted, refused = [costs.charged(candidate.cost) for candidate in field.finalists], set[frozenset[int]]()
    while True:
        choice = ensemble.choose(
            field.blend, field.labels, predicted, recipe.budget, recipe.ensemble,
            latency_ms=[latency_budget.judged(one) for one in field.standings],
            input_elements=field.input_elements, means=deployable.means(recipe), refused=refused,
            seed=recipe.search.seed,
        )  # fmt: skip
        for merge in (True, False) if _is_integer(recipe.export.files) else (False,):
            graph = graph_of(field, choice.shipping, recipe.export.files, merge=merge)
            broken = recipe.budget.violations(costs.charged(graph.cost))
            if not broken:
                return choice, graph
        if len(choice.members) == 1:
            raise BudgetError(f"budget: the compiled graph is over it: {'; '.join(broken)}. Raise the budget a little.")
        refused.add(frozenset(choice.members))


def graph_of(field: Field, blend: Blend, files: Sequence[File], *, merge: bool = False) -> Graph:
    """Compile a weighted mean of finalists into one graph."""
    models = [field.models[i] for i in blend.members]
    return fold(ensemble.side_by_side(models, blend.weights.tolist(), blend.mean), files, merge=merge)


def _is_integer(files: Sequence[File]) -> bool:
    """Tell whether all files are int8: there merged convolutions are faster, in float32 they are slower."""
    return all(file.precision == "int8" for file in files)


def fold(trained: Any, files: Sequence[File] = FILES, *, strict: bool = True, merge: bool = False) -> Graph:
    """Fold a trained model and count what is left, and the ``files`` that it becomes.

    Members of an ensemble share what they do alike, with ``merge`` first convolutions too.

    Raises:
        TargetError: a layer whose cost is not known, where ``strict``.
    """
    is_ensemble = ensemble.is_side_by_side(trained)
    folding = ensemble.fold_ensemble(trained, merge=merge) if is_ensemble else fold_batch_norm(trained)
    operators = keras_operators(folding.model, strict=strict)
    return Graph(trained, folding, operators, costs.cost(operators, files))


def named(x: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Return samples (N, …) as the graph's input."""
    return {kind_of(x.shape[1:]).sample: np.asarray(x, "float32")}


def probabilities_of(model: Any, x: NDArray[Any]) -> NDArray[np.float64]:
    """Return a model's probabilities, (N, K)."""
    return np.asarray(model.predict(np.asarray(x, "float32"), batch_size=512, verbose=0), np.float64)


def _standings(
    run: RunFolder, profiles: Profiles, model: Any, arrays: Mapping[str, Arrays], on_event: OnEvent
) -> tuple[Standing, ...]:
    """Hold one finalist against every latency limit."""
    if not run.recipe.budget.latency:
        return ()
    folded = fold_batch_norm(model).model
    samples = named(arrays["train"][0][: calibration.FINALIST_SAMPLES])
    return latency_budget.standings(run.recipe, profiles, folded, keras_operators(folded), samples, on_event)


def _within_latency(run: RunFolder, field: Field) -> Field:
    """Drop the finalists that are over a latency limit."""
    fits = [
        not run.recipe.budget.violations(costs.charged(candidate.cost), latency_budget.judged(standings))
        for candidate, standings in zip(field.finalists, field.standings, strict=True)
    ]
    if not any(fits):
        over = (one for standings in field.standings for one in standings if one.judged_ms > one.limit.max_ms)
        one = min(over, key=lambda one: one.judged_ms)
        raise BudgetError(
            f"budget.latency: every finalist is over it; the fastest needs {one.judged_ms:.3f} ms on"
            f" {one.limit.where} ({one.judged_by}), {one.limit.max_ms:g} are allowed. Raise max_ms or lower"
            " budget.macs."
        )
    kept = [i for i, is_within in enumerate(fits) if is_within]
    return replace(
        field, finalists=tuple(field.finalists[i] for i in kept), models=tuple(field.models[i] for i in kept),
        blend=field.blend[kept], standings=tuple(field.standings[i] for i in kept),
    )  # fmt: skip
