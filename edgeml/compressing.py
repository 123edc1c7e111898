"""Compression of the graph that ships, as the recipe asks, and what it gave: its files beside those of before.

trained graph ─ prune ─► fold ─ cluster, qat ─► graph that ships ─► files │ bytes, gzip, accuracy, latency, kernels
              └────────► fold ───────────────────────────────────► files │ of the same
"""

from __future__ import annotations

import gzip
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgeml import compression, exporting, intervals, nameplates, timing
from edgeml.assembly import Assembled, Compression, fold, named
from edgeml.exporting import Artifact
from edgeml.pipeline import OnEvent
from edgeml.recipe import Recipe
from edgeml.records import Event, to_json
from edgeml.run_folder import Arrays, RunFolder
from edgeml.runtimes import Arrays as Inputs
from edgeml.runtimes import open_model
from edgeml.stored_kernels import stored_kernels

Json = dict[str, Any]
LEAST_GAIN = 0.02  # of packed bytes: less is that of other names in the file


def compressed(run: RunFolder, assembled: Assembled, arrays: Mapping[str, Arrays], on_event: OnEvent) -> Assembled:
    """Return what ships, compressed where the recipe asks for it; the graph as it was stays beside it.

    Raises:
        UsageError: a layer that cannot be compressed, or tfmot is not installed.
    """
    asked, graph = run.recipe.compress, assembled.graph
    if not asked.is_asked:
        return assembled
    compress = partial(
        compression.compress, train_data=arrays["train"], validation_data=arrays["validation"], epochs=asked.epochs,
        seed=run.recipe.search.seed, on_event=on_event,
    )  # fmt: skip
    made = list[compression.Compressed]()
    if asked.prune is not None:
        made.append(compress(graph.trained, prune=asked.prune))
        graph = fold(made[-1].model, run.recipe.export.files)
    if asked.cluster is not None or asked.qat:
        made.append(compress(graph.folding.model, cluster=asked.cluster, qat=asked.qat))
        model = made[-1].model
        graph = replace(graph, trained=model, folding=replace(graph.folding, model=model))
    for step in (step for one in made for step in one.steps):
        accuracy = "" if step.val_accuracy is None else f", {step.val_accuracy:.2%} of validation"
        on_event(Event("compress", f"{step.name}: {step.epochs} epochs{accuracy}"))
    return replace(assembled, graph=graph, compression=Compression(assembled.graph, tuple(made)))


def told(
    done: Compression,
    artifacts: Sequence[Artifact],
    recipe: Recipe,
    calibration: Inputs,
    blend: Arrays,
    about: Json,
) -> Json:
    """Return what the report says of a compression: what was done, what kernels hold, each file before and after.

    ``about``: what all files say of themselves.
    """
    with tempfile.TemporaryDirectory(prefix="edgeml-before-") as folder:
        old = exporting.write(
            done.before.folding.model, Path(folder), recipe.export.targets, recipe.export.precision, calibration,
            lambda event: None, io=recipe.export.io,
        )  # fmt: skip
        old = nameplates.put_on(old, about, recipe.budget.file_bytes)
        latency = _latency(old, artifacts, named(blend[0]), recipe.benchmark.threads)
        rows = [
            (after.path.name, _row(first, blend, latency), _row(after, blend, latency))
            for first, after in zip(old, artifacts, strict=True)
        ]
    gains = [name for name, first, after in rows if after["gzip_bytes"] < (1 - LEAST_GAIN) * first["gzip_bytes"]]
    kernels = [{"file": a.path.name, "kernels": to_json(stored_kernels(a.path))} for a in artifacts
               if a.target == "tflite"]  # fmt: skip
    return {
        "asked": to_json(recipe.compress), "steps": to_json([step for one in done.made for step in one.steps]),
        "left_alone": to_json([alone for one in done.made for alone in one.left_alone]),
        "files": [{"file": name, "before": first, "after": after} for name, first, after in rows],
        "kernels": kernels, "smaller": gains, "samples": len(blend[1]),
    }  # fmt: skip


def _latency(old: Sequence[Artifact], new: Sequence[Artifact], samples: Inputs, threads: int) -> dict[Path, Any]:
    """Time all files in one interleaved run."""
    both = {str(a.path): a for a in (*old, *new)}
    records = timing.measure(
        {name: a.path for name, a in both.items()}, samples, threads=threads,
        precision={name: a.precision for name, a in both.items()},
    )  # fmt: skip
    return {a.path: record for a, record in zip(both.values(), records, strict=True)}


def _row(artifact: Artifact, blend: Arrays, latency: Mapping[Path, Any]) -> Json:
    content, (x, labels) = artifact.path.read_bytes(), blend
    said = next(iter(open_model(artifact.path).predict(named(x)).values()))
    scored = intervals.accuracy(said.argmax(axis=1), np.asarray(labels, np.int64))
    timed = latency[artifact.path]
    return {
        "bytes": len(content), "gzip_bytes": len(gzip.compress(content, 9, mtime=0)),
        "accuracy": scored["accuracy"], "interval_95": list(scored["interval_95"]),
        "quiet_ms": timed.quiet_ms, "latency_interval_95": list(timed.interval_95),
    }  # fmt: skip
