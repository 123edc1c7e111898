"""Where the time of each file of a bundle goes, operator by operator, with the Keras layers that operators are of.

Of a file ``timing.PROFILED_RUNS`` runs count, or as many as ``MOST_SECONDS`` allow. What a runtime's profiler cannot do
is said in the place of its figures: a bundle does not depend on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgeml import operator_layers
from edgeml.errors import EdgemlError
from edgeml.exporting import Artifact, OnEvent
from edgeml.records import Event
from edgeml.runtimes import Arrays, OperatorTime
from edgeml.runtimes.keras import leaves
from edgeml.timing import PROFILED_RUNS, Case, Latency, Profiled, profiled_or_not

MOST_SECONDS = 5.0
RUNS_MADE = 2  # for each that counts: the quieter half does
NOTE_MS = 0.012  # that onnxruntime takes to note a node of the file in a run, and we to read it: 0.01 to 0.02 were seen


@dataclass(frozen=True)
class Operator:
    """An operator of a file: mean time of it in a run, and the Keras layers that it is known to be of."""

    name: str
    kind: str
    ms: float
    layers: tuple[str, ...]


@dataclass(frozen=True)
class FileProfile:
    """What ``runtimes.Profile`` says of a file; if the profiler failed, ``problem`` alone."""

    file: str
    threads: int
    batch: int
    operators: tuple[Operator, ...] = ()
    run_ms: float | None = None
    runs: int | None = None
    profiler: str | None = None
    problem: str | None = None


def of_files(
    model: Any, artifacts: Sequence[Artifact], inputs: Arrays, latency: Sequence[Latency], on_event: OnEvent
) -> list[FileProfile]:
    """Profile all files of the folded graph ``model``, with as many threads as they were timed with (``latency``).

    ``inputs`` by name, (N, …) each.
    """
    on_event(Event("profile", "the operators of each file"))
    cases = [
        Case(a.path.name, (a.path,), a.precision, timed.threads) for a, timed in zip(artifacts, latency, strict=True)
    ]
    runs = [runs_of(timed.p50_ms + NOTE_MS * len(a.layers)) for a, timed in zip(artifacts, latency, strict=True)]
    found: Sequence[Profiled | EdgemlError]
    try:
        found = profiled_or_not(cases, runs, inputs)
    except EdgemlError as error:
        found = [error] * len(cases)
    order = {name: place for place, name in enumerate(leaves(model))}
    return [
        FileProfile(timed.file, timed.threads, timed.batch, problem=str(one))
        if isinstance(one, EdgemlError)
        else _with_layers(model, order, artifact, timed, one)
        for artifact, timed, one in zip(artifacts, latency, found, strict=True)
    ]


def runs_of(ms: float) -> int:
    """Return how many runs of a file that takes so long are to count."""
    affordable = int(1e3 * MOST_SECONDS / (RUNS_MADE * ms))
    return max(1, min(PROFILED_RUNS, affordable))


def _with_layers(
    model: Any, order: dict[str, int], artifact: Artifact, timed: Latency, profiled: Profiled
) -> FileProfile:
    profile = profiled.profile
    layers = _layers(model, artifact, profile.operators)
    operators = tuple(
        Operator(one.name, one.kind, one.ms, tuple(sorted(own, key=lambda name: order.get(name, len(order)))))
        for one, own in zip(profile.operators, layers, strict=True)
    )
    about = profile.run_ms, profile.runs, profile.profiler
    return FileProfile(timed.file, timed.threads, timed.batch, operators, *about)


def _layers(model: Any, artifact: Artifact, operators: Sequence[OperatorTime]) -> list[tuple[str, ...]]:
    if artifact.path.suffix == ".onnx":
        return operator_layers.of_onnx(artifact.path, artifact.layers, operators)
    return operator_layers.of_tflite(artifact.path, model, operators)
