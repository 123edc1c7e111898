"""Latency of bundles, runs and single files, all in one interleaved run, and what they are compared with."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgeml import counterparts, timing
from edgeml.bundled.stopwatch import OPENINGS, ROUNDS
from edgeml.counterparts import MEMBERS, NAIVE, File
from edgeml.pipeline import OnEvent
from edgeml.records import Event
from edgeml.timing import PROFILED_RUNS, Case, Comparison, Latency, LeftOut, Profiled

Sources = str | Path | Sequence[str | Path]
Counts = int | Sequence[int]


@dataclass(frozen=True)
class NotCompared:
    """A file that was to be compared with others, and why it was not."""

    file: str
    against: str
    reason: str


@dataclass(frozen=True)
class Benchmark:
    """What was measured, how it compares, and the files of another batch than was asked for, or without counterpart."""

    latencies: list[Latency]
    comparisons: list[Comparison]
    left_out: list[LeftOut]
    not_compared: list[NotCompared]


def silent(event: Event) -> None:
    """Hear nothing."""


def benchmark(
    sources: Sources,
    against: str | Path | None = None,
    threads: Counts = 1,
    batch: Counts | None = None,
    on_event: OnEvent = silent,
) -> tuple[list[Latency], list[Comparison]]:
    """Time every model file of ``sources``, each in processes of its own; ``measured`` tells, too, what was left out.

    Args:
        sources: one or several bundles, folders of runs, ``.onnx`` and ``.tflite`` files, or ``.keras`` files, which
            are exported in float32 first.
        against: a file that all others are compared with, or the only one itself, timed twice; "naive", files as
            tf2onnx, ``keras.export`` and the TFLite converter write them by themselves, of a bundle in int8 as well,
            with its golden inputs as samples; "members", those of an
            ensemble one after the other.
        threads: of each runtime, one or several numbers.
        batch: samples of a run, one or several numbers; a file with another fixed batch is left out. If None, that of
            the file, one where it is free.
        on_event: called as the work proceeds.

    Raises:
        DataError: a file that cannot be opened, or files whose inputs differ.
        UsageError: ``against`` is nothing of that, or a source has not what it needs.
    """
    found = measured(sources, against, threads, batch, on_event)
    return found.latencies, found.comparisons


def measured(
    sources: Sources,
    against: str | Path | None = None,
    threads: Counts = 1,
    batch: Counts | None = None,
    on_event: OnEvent = silent,
) -> Benchmark:
    """Do what ``benchmark`` does, and name the files that were left out."""
    with _files(sources, against, on_event) as (files, pairs):
        cases = [
            Case(file.name, file.paths, file.precision, count, rows)
            for file in files
            for count in _numbers(threads)
            for rows in (_rows(file, pairs) if batch is None else _numbers(batch))
        ]
        on_event(Event("benchmark", f"{len(cases)} timings in {ROUNDS} rounds of {OPENINGS} processes each"))
        timed, left_out = timing.measured(cases)
    compared = [
        timing.compare(one, other)
        for own, rival in pairs
        for one in timed
        for other in timed
        if (one.latency.file, other.latency.file) == (own.name, rival.name) and _setting(one) == _setting(other)
    ]
    alone = [] if against is None else _alone(files, pairs, compared, str(against))
    return Benchmark([one.latency for one in timed], compared, left_out, alone)


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


def _rows(file: File, pairs: Sequence[tuple[File, File]]) -> Sequence[int | None]:
    """Return how many rows go into a run: those of the files that it is compared with, where its own are free."""
    if file.batch is not None:
        return [None]
    return list(dict.fromkeys(own.batch for own, rival in pairs if rival == file)) or [None]


def _alone(
    files: Sequence[File], pairs: Sequence[tuple[File, File]], compared: Sequence[Comparison], against: str
) -> list[NotCompared]:
    """Name the files that have no counterpart, and those whose counterpart runs another batch."""
    kinds = dict.fromkeys(f"{rival.precision} {rival.suffix}" for _, rival in pairs)
    paired = {file.name for pair in pairs for file in pair}
    none = f"it has {', '.join(kinds)} only"
    done = {(one.file, one.against) for one in compared}
    return [NotCompared(file.name, against, none) for file in files if file.name not in paired] + [
        NotCompared(own.name, rival.name, "it runs another batch")
        for own, rival in pairs
        if (own.name, rival.name) not in done
    ]


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
    rival = None if against in (None, NAIVE, MEMBERS) else counterparts.rival(str(against))
    with tempfile.TemporaryDirectory(prefix="edgeml-benchmark-") as place:
        work = Path(place)
        found = [counterparts.opened(Path(source), work, on_event) for source in given]
        files = {file.name: file for source in found for file in source.files}
        pairs: list[tuple[File, File]] = []
        if rival is not None:
            pairs = counterparts.against(list(files.values()), rival)
        elif against is not None:
            pairs = [pair for source in found for pair in counterparts.pairs(source, str(against), work, on_event)]
        files |= {file.name: file for pair in pairs for file in pair}
        yield list(files.values()), pairs
