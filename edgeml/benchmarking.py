"""Latency of bundles, runs and single files, all in one interleaved run, and what they are compared with."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from edgeml import counterparts, timing
from edgeml.bundled.stopwatch import OPENINGS, ROUNDS
from edgeml.counterparts import MEMBERS, NAIVE, File
from edgeml.pipeline import OnEvent
from edgeml.records import Event
from edgeml.timing import PROFILED_RUNS, Case, Comparison, Latency, Profiled

Sources = str | Path | Sequence[str | Path]
Counts = int | Sequence[int]


def silent(event: Event) -> None:
    """Hear nothing."""


def benchmark(
    sources: Sources,
    against: str | Path | None = None,
    threads: Counts = 1,
    batch: Counts | None = None,
    on_event: OnEvent = silent,
) -> tuple[list[Latency], list[Comparison]]:
    """Time every model file of ``sources``, each in processes of its own.

    Args:
        sources: one or several bundles, folders of runs, ``.onnx`` and ``.tflite`` files, or ``.keras`` files, which
            are exported in float32 first.
        against: a file that all are compared with; "naive", float32 files as tf2onnx, ``keras.export`` and the TFLite
            converter write them by themselves; "members", those of a run's ensemble one after the other.
        threads: of each runtime, one or several numbers.
        batch: samples of a run, one or several numbers, where a file's batch is free; if None, its own or one.
        on_event: called as the work proceeds.

    Raises:
        DataError: a file that cannot be opened, or files whose inputs differ.
        UsageError: a source without what ``against`` needs.
    """
    with _files(sources, against, on_event) as (files, pairs):
        cases = [
            Case(file.name, file.paths, file.precision, count, rows)
            for file in files
            for count in _numbers(threads)
            for rows in ([None] if batch is None else _numbers(batch))
        ]
        on_event(Event("benchmark", f"{len(cases)} timings in {ROUNDS} rounds of {OPENINGS} processes each"))
        timed = timing.measured(cases)
    compared = [
        timing.compare(one, other)
        for own, rival in pairs
        for one in timed
        for other in timed
        if (one.latency.file, other.latency.file) == (own.name, rival.name) and _setting(one) == _setting(other)
    ]
    return [one.latency for one in timed], compared


def operators(
    sources: Sources, threads: Counts = 1, runs: int = PROFILED_RUNS, on_event: OnEvent = silent
) -> list[Profiled]:
    """Return the time of each operator of the files of ``sources``, by the profilers of their runtimes.

    Raises:
        UsageError: a runtime has no profiler. DataError: it cannot run a file.
    """
    with _files(sources, None, on_event) as (files, _):
        cases = [Case(f.name, f.paths, f.precision, count) for f in files for count in _numbers(threads)]
        on_event(Event("profile", f"{len(cases)} files, {runs:,} runs each"))
        return timing.profiled(cases, runs=runs)


def _setting(timed: timing.Timed) -> tuple[int, int]:
    return timed.latency.threads, timed.latency.batch


def _numbers(counts: Counts) -> list[int]:
    return [counts] if isinstance(counts, int) else list(dict.fromkeys(counts))


@contextmanager
def _files(
    sources: Sources, against: str | Path | None, on_event: OnEvent
) -> Iterator[tuple[list[File], list[tuple[File, File]]]]:
    """Give all files to time, and the pairs of them to compare."""
    given = [sources] if isinstance(sources, (str, Path)) else sources
    with tempfile.TemporaryDirectory(prefix="edgeml-benchmark-") as place:
        work = Path(place)
        found = [counterparts.opened(Path(source), work, on_event) for source in given]
        files = {file.name: file for source in found for file in source.files}
        pairs: list[tuple[File, File]] = []
        if against in (NAIVE, MEMBERS):
            pairs = [pair for source in found for pair in counterparts.pairs(source, str(against), work, on_event)]
        elif against is not None:
            other = File(str(against), (Path(against),))
            pairs = [(file, files.get(other.name, other)) for file in files.values() if file.name != other.name]
        files |= {file.name: file for pair in pairs for file in pair}
        if against is not None and against not in (NAIVE, MEMBERS):
            files.setdefault(str(against), File(str(against), (Path(against),)))
        yield list(files.values()), pairs
