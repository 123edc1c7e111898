"""From a graph to a proven bundle: export, prove, benchmark, judge, write.

    graph ─► files ─► parity ─► latency ─► test (once) ─► bundle + report

Everything is written into a staging folder; a gate that fails leaves the output folder as it was.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml import (
    bundle,
    compressing,
    descriptions,
    exporting,
    latency_budget,
    manifests,
    nameplates,
    profiling,
    proof,
    quantization,
    recipe_file,
    timing,
)
from edgeml.assembly import Assembled, Graph, named, probabilities_of
from edgeml.controls import Controls
from edgeml.devices.catalogue import HOST
from edgeml.errors import BudgetError, GateError
from edgeml.latency_budget import Standing
from edgeml.pipeline import OnEvent, Seconds, timed
from edgeml.quantization import Climb
from edgeml.recipe import Recipe
from edgeml.records import Event
from edgeml.run_folder import Arrays, RunFolder
from edgeml.runtimes import Arrays as Inputs
from edgeml.search.candidates import Candidate
from edgeml.verification import Members, prove


def deliver(
    run: RunFolder,
    candidates: Sequence[Candidate],
    assembled: Assembled,
    controls: Controls,
    arrays: Mapping[str, Arrays],
    place: Path,
    command: str,
    on_event: OnEvent,
    seconds: Seconds,
) -> dict[str, Any]:
    """Write the bundle of a run to ``place`` and return its manifest."""
    recipe, graph = run.recipe, assembled.graph
    with bundle.staged(place) as folder:
        calibration = _calibration(run, arrays)
        with timed(seconds, "quantize"):
            climbs = _climbs(run, graph, arrays, calibration, on_event)
        with timed(seconds, "export"):
            known = descriptions.of_run(run, graph)
            graph, artifacts = _written(recipe, graph, known, folder, calibration, climbs, on_event)
        with timed(seconds, "verify"):
            on_event(Event("verify", "parity on the test split"))
            samples = named(arrays["test"][0])
            asked = f"test ({len(arrays['test'][0])})", recipe.verify, on_event, _members(assembled)
            parity = prove(graph.folding.model, graph.trained, artifacts, samples, *asked)
        with timed(seconds, "benchmark"):
            latency, standings = _benchmark(run, graph, artifacts, samples, on_event)
            models = proof.opened(run, assembled.field, controls)
            rivals = _rivals(run, assembled, controls, models, samples, on_event)
        with timed(seconds, "evaluate"):
            on_event(Event("evaluate", "test split, once"))
            said = {name: probabilities_of(model, arrays["test"][0]) for name, model in models.items()}
            report = manifests.report(
                run, candidates, replace(assembled, graph=graph), artifacts, arrays, said, parity, latency, standings,
                command,
            )  # fmt: skip
            if assembled.compression:
                fed = calibration, arrays["blend"], report["manifest"]
                report["compression"] = compressing.told(assembled.compression, artifacts, recipe, *fed)
                report["manifest"]["compression"] = report["compression"]
            report["ensemble"]["proof"] = proof.table(rivals, said, np.asarray(arrays["test"][1]), recipe)
        with timed(seconds, "profile"):
            report["operators"] = profiling.of_files(graph.folding.model, artifacts, samples, latency, on_event)
        with timed(seconds, "bundle"):
            report["seconds"] = dict(seconds)
            (folder / "recipe.yaml").write_text(recipe_file.dump(recipe), "utf-8")
            programs = recipe.export.programs
            manifests.write(folder, report, graph, artifacts, samples, calibration, "train", programs, on_event)
    run.ledger.append("run_ended", finished=True, bundle=str(place), seconds=dict(seconds))
    manifest: dict[str, Any] = report["manifest"]
    return manifest


def _members(assembled: Assembled) -> Members | None:
    """Return what the graph of an ensemble was compiled from; None of a single network, or of a compressed graph."""
    choice = assembled.choice
    if len(choice.members) < 2 or assembled.compression:
        return None
    return Members([assembled.field.models[i] for i in choice.members], choice.weights, choice.mean)


def _rivals(
    run: RunFolder,
    assembled: Assembled,
    controls: Controls,
    models: Mapping[str, Any],
    samples: Inputs,
    on_event: OnEvent,
) -> list[proof.Rival]:
    found = proof.rivals(run, assembled, controls, models)
    if not found:
        return []
    on_event(Event("benchmark", f"the ensemble and {len(found) - 1} others to compare it with"))
    with tempfile.TemporaryDirectory(prefix="edgeml-proof-") as folder:
        return proof.measured(found, models, run.recipe, Path(folder), samples)


def _climbs(
    run: RunFolder, graph: Graph, arrays: Mapping[str, Arrays], calibration: Inputs, on_event: OnEvent
) -> dict[str, Climb]:
    """Find out on blend which steps each integer file needs."""
    x, labels = arrays["blend"]
    model, recipe = graph.folding.model, run.recipe
    held = quantization.exam(model, named(x), np.asarray(labels, np.int64))
    tune = quantization.tuner(arrays["train"], recipe.quantize.qat_epochs, recipe.search.seed, on_event)
    return quantization.climbs(
        model,
        recipe.export.precision,
        calibration,
        held,
        recipe.quantize,
        recipe.verify,
        tune,
        on_event,
        io=recipe.export.io,
    )


def _written(
    recipe: Recipe,
    graph: Graph,
    known: dict[str, Any],
    folder: Path,
    calibration: Inputs,
    climbs: Mapping[str, Climb],
    on_event: OnEvent,
) -> tuple[Graph, list[exporting.Artifact]]:
    """Write the files, with what is ``known`` of them inside; return the graph with what they really take.

    Raises:
        BudgetError: a file is over budget, though its prediction was not.
    """
    artifacts = exporting.write(
        graph.folding.model, folder, recipe.export.targets, recipe.export.precision, calibration, on_event,
        io=recipe.export.io, climbs=climbs,
    )  # fmt: skip
    artifacts = nameplates.put_on(artifacts, known, recipe.budget.file_bytes)
    graph.folding.model.save(folder / "model.keras")
    graph = replace(graph, cost=exporting.as_written(graph.cost, artifacts))
    broken = recipe.budget.violations(graph.cost)
    if broken:
        raise BudgetError(f"budget: what was exported is over it: {'; '.join(broken)}. Raise the budget a little.")
    return graph, artifacts


def _calibration(run: RunFolder, arrays: Mapping[str, Arrays]) -> dict[str, NDArray[Any]]:
    """Return calibration samples, drawn from train with the recipe's seed."""
    recipe = run.recipe
    return named(quantization.drawn(arrays["train"][0], recipe.export.calibration_samples, recipe.search.seed))


def _benchmark(
    run: RunFolder,
    graph: Graph,
    artifacts: Sequence[exporting.Artifact],
    samples: Mapping[str, NDArray[Any]],
    on_event: OnEvent,
) -> tuple[list[timing.Latency], tuple[Standing, ...]]:
    """Time every file and hold the whole graph against the latency budget.

    Raises:
        GateError: it is over a limit.
    """
    on_event(Event("benchmark", "interleaved rounds"))
    records = timing.measure(
        {a.path.name: a.path for a in artifacts}, samples, precision={a.path.name: a.precision for a in artifacts},
        threads=run.recipe.benchmark.threads,
    )  # fmt: skip
    have = {(a.target, a.precision): a.path for a in artifacts}
    timed = {(a.target, a.precision): r.quiet_ms for a, r in zip(artifacts, records, strict=True)}
    profiles = latency_budget.profiles_of_search(run)
    standings = latency_budget.standings(
        run.recipe, profiles, graph.folding.model, graph.operators, samples, on_event, have=have, timed_ms=timed
    )
    broken = run.recipe.budget.violations(graph.cost, latency_budget.judged(standings))
    if broken:
        raise GateError(f"latency gate: {'; '.join(broken)}. Nothing was written; allow fewer members or more time.")
    predicted = {one.limit: one.predicted_ms for one in standings if one.limit.device == HOST}
    by_file = {(latency_budget.TARGETS[limit.runtime], limit.precision): ms for limit, ms in predicted.items()}
    return [
        replace(record, predicted_ms=by_file.get((a.target, a.precision)))
        for a, record in zip(artifacts, records, strict=True)
    ], standings
