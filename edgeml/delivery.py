"""From finalists to a proven bundle: assemble the graph, export, prove, benchmark, judge, write.

    finalists ─► graph ─► files ─► parity ─► latency ─► test (once) ─► bundle + report

Everything is written into a staging folder; a gate that fails leaves the output folder as it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml import bundle, exporting, manifests, recipe_file, timing
from edgeml.assembly import INPUT, assemble, target_of, target_of_file
from edgeml.errors import GateError
from edgeml.pipeline import OnEvent, Seconds, timed
from edgeml.records import Cost, Event
from edgeml.run_folder import Arrays, RunFolder
from edgeml.search.candidates import Candidate


def deliver(
    run: RunFolder,
    candidates: Sequence[Candidate],
    finalists: Sequence[Candidate],
    arrays: Mapping[str, Arrays],
    place: Path,
    command: str,
    on_event: OnEvent,
    seconds: Seconds,
) -> dict[str, Any]:
    """Write the bundle of a run to ``place`` and return its manifest."""
    bundle.check_place(place)
    field, choice, graph = assemble(run, finalists, arrays, on_event, seconds)
    recipe = run.recipe
    with bundle.staged(place) as folder:
        with timed(seconds, "export"):
            calibration = _calibration(run, arrays)
            artifacts = exporting.write(
                graph.folding.model, folder, recipe.export.targets, recipe.export.precision, calibration, on_event
            )
            graph.folding.model.save(folder / "model.keras")
        with timed(seconds, "verify"):
            on_event(Event("verify", "parity on the test split"))
            samples = {INPUT: np.asarray(arrays["test"][0], "float32")}
            parity = exporting.prove(
                graph.folding.model, graph.trained, artifacts, samples, f"test ({len(samples[INPUT])})", recipe.verify
            )
        with timed(seconds, "benchmark"):
            on_event(Event("benchmark", "interleaved rounds"))
            latency = _benchmark(run, artifacts, samples)
        with timed(seconds, "evaluate"):
            on_event(Event("evaluate", "test split, once"))
            report = manifests.report(
                run, candidates, field, choice, graph, artifacts, arrays, parity, latency, command
            )
        with timed(seconds, "bundle"):
            report["seconds"] = dict(seconds)
            (folder / "recipe.yaml").write_text(recipe_file.dump(recipe), "utf-8")
            manifests.write(folder, report, graph, artifacts, np.asarray(arrays["test"][0]), calibration, "train")
    run.ledger.append("run_ended", finished=True, bundle=str(place), seconds=dict(seconds))
    manifest: dict[str, Any] = report["manifest"]
    return manifest


def _calibration(run: RunFolder, arrays: Mapping[str, Arrays]) -> dict[str, NDArray[Any]]:
    """Return calibration samples, drawn from train with the recipe's seed."""
    x, _ = arrays["train"]
    count = min(run.recipe.export.calibration_samples, len(x))
    rows = np.sort(np.random.default_rng(run.recipe.search.seed).choice(len(x), count, replace=False))
    return {INPUT: np.asarray(x[rows], "float32")}


def _benchmark(
    run: RunFolder, artifacts: Sequence[exporting.Artifact], samples: Mapping[str, NDArray[Any]]
) -> list[timing.Latency]:
    """Time every file and hold it against the latency budget.

    Raises:
        GateError: the whole graph is over a latency limit.
    """
    records, _ = timing.measure(
        {a.path.name: a.path for a in artifacts}, samples, precision={a.path.name: a.precision for a in artifacts},
        threads=run.recipe.benchmark.threads,
    )  # fmt: skip
    measured = {
        limit: record.quiet_ms
        for limit in run.recipe.budget.latency
        for record in records
        if (target_of_file(record.file), record.precision) == (target_of(limit.runtime), limit.precision)
    }
    broken = run.recipe.budget.violations(Cost(0, 0), measured)
    if broken:
        raise GateError(f"latency gate: {'; '.join(broken)}. Nothing was written; allow fewer members or more time.")
    return records
