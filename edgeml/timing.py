"""Latency of files, each in processes of its own: interleaved, warmed up, repeated, with an interval and a noise floor.

Every file is opened in several processes, pinned to the same cores, one thread each if not more are asked for. All are
visited round-robin in an order shuffled every round; a visit is a few warm-ups and a block, whose times are all kept.
A run is onnxruntime's ``session.run``, LiteRT's ``invoke()`` with the input in place, as a bundle's ``benchmark.py``.
Quiet latency is what ``bundled.stopwatch`` says; p50, p90 and p99 of all runs stand beside it as "in this environment".
No difference below the noise floor is claimed.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml import errors
from edgeml.bundled import processes, stopwatch
from edgeml.bundled.processes import Here, Local, Message, Refused, Server, Session
from edgeml.bundled.stopwatch import OPENINGS, ROUNDS
from edgeml.errors import DataError, EdgemlError
from edgeml.runtimes import Arrays, OperatorTime, Profile, runtime_of
from edgeml.timing_child import opened

PROFILED_RUNS = 1_000


@dataclass(frozen=True)
class Case:
    """What is timed: a file, or several run one after the other.

    ``rows``: that go into a run; if None, the file's own batch, one where it is free. A file with another fixed batch
    is not timed, see ``LeftOut``.
    """

    name: str
    paths: tuple[Path, ...]
    precision: str = "as in file"
    threads: int = 1
    rows: int | None = None


@dataclass(frozen=True)
class Latency:
    """Latency of one file, of one sample or of its whole ``batch``.

    ``noise_floor``: how far the processes that the file was opened in lie apart, relative. ``peak_memory_bytes``: by
    how much opening, warming up and running it made its process grow at most. ``cores``: what it was pinned to.
    """

    file: str
    runtime: str
    precision: str
    device: str
    threads: int
    quiet_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    interval_95: tuple[float, float]
    noise_floor: float
    predicted_ms: float | None
    load_ms: float
    batch: int = 1
    first_run_ms: float | None = None
    peak_memory_bytes: int | None = None
    file_bytes: int | None = None
    warm_up_runs: int | None = None
    warmed_up: bool | None = None
    cores: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Comparison:
    """Ratio of two quiet latencies, claimed only outside interval and noise floor."""

    file: str
    against: str
    ratio: float
    interval_95: tuple[float, float]
    noise_floor: float
    claim: str
    threads: int = 1
    batch: int = 1


@dataclass(frozen=True)
class LeftOut:
    """A file that was not timed with the batch that was ``asked``, for its own, ``batch``, is fixed."""

    file: str
    asked: int
    batch: int


Openings = list[list[NDArray[np.float64]]]  # blocks of each process that a file was opened in


@dataclass(frozen=True, eq=False)
class Timed:
    """What was measured of a case, and the block minima behind it, at the pace that all cases of the run have.

    ``paced``: (processes, rounds), see ``bundled.stopwatch``.
    """

    latency: Latency
    paced: NDArray[np.float64]


@dataclass(frozen=True)
class Profiled:
    """Where the time of a file goes, operator by operator."""

    file: str
    threads: int
    profile: Profile


def measure(
    files: Mapping[str, Path], inputs: Arrays, *, precision: Mapping[str, str], threads: int = 1, rounds: int = ROUNDS
) -> list[Latency]:
    """Time files, one sample at a time, in the order of ``files``; ``inputs`` by name, (N, …) each."""
    cases = [Case(name, (path,), precision[name], threads) for name, path in files.items()]
    return [timed.latency for timed in measured(cases, inputs, rounds=rounds)[0]]


def measured(
    cases: Sequence[Case], inputs: Arrays | None = None, *, rounds: int = ROUNDS, openings: int = OPENINGS
) -> tuple[list[Timed], list[LeftOut]]:
    """Time all cases in one interleaved run; tell, too, those that were not, for their batch is another.

    Args:
        cases: what to time.
        inputs: by name, (N, …) each; drawn at random where none are given.
        rounds: in which every process is visited once.
        openings: processes of each case.

    Raises:
        DataError: a file cannot be opened or run, its runtime died of it, or files whose inputs differ in shape.
    """
    asked = [case for case in cases for _ in range(openings)]
    with _opened(asked, inputs) as (kept, sessions, ready, place, left_out):
        ask = partial(_asked, "start", inputs=str(place))
        started = [ask(case, session, rows=case.rows or 1) for case, session in zip(kept, sessions, strict=True)]
        blocks = stopwatch.visited(sessions, [told["block_runs"] for told in started], rounds)
    told = [{**a, **b} for a, b in zip(ready, started, strict=True)]
    places = range(0, len(kept), openings)
    paced = stopwatch.at_one_pace(stopwatch.minima_of(blocks))
    ends = [slice(i, i + openings) for i in places]
    return [_timed(kept[end.start], told[end], blocks[end], paced[end]) for end in ends], left_out


def profiled(cases: Sequence[Case], inputs: Arrays | None = None, *, runs: int = PROFILED_RUNS) -> list[Profiled]:
    """Return the time of every operator of each case, by the profilers of their runtimes; see ``measured``.

    Raises:
        UsageError: a runtime has no profiler. DataError: it cannot run a file.
    """
    found = profiled_or_not(cases, [runs] * len(cases), inputs)
    failed = next((one for one in found if isinstance(one, EdgemlError)), None)
    if failed is not None:
        raise failed
    return [one for one in found if isinstance(one, Profiled)]


def profiled_or_not(
    cases: Sequence[Case], runs: Sequence[int], inputs: Arrays | None = None
) -> list[Profiled | EdgemlError]:
    """Do the same, each case so many times; where a profiler failed stands its error."""
    with _opened(cases, inputs) as (kept, sessions, _, place, _):
        found: list[Profiled | EdgemlError] = []
        for case, session, count in zip(kept, sessions, runs, strict=True):
            paths, about = [str(path.resolve()) for path in case.paths], {"threads": case.threads, "runs": count}
            try:
                told = _asked("profile", case, session, paths=paths, inputs=str(place), **about)
            except EdgemlError as error:
                found.append(error)
                continue
            operators = tuple(OperatorTime(**one) for one in told.pop("operators"))
            found.append(Profiled(case.name, case.threads, Profile(operators, **told)))
    return found


@contextmanager
def _opened(
    cases: Sequence[Case], inputs: Arrays | None
) -> Iterator[tuple[list[Case], list[Session | Here], list[Message], Path, list[LeftOut]]]:
    """Open each case in a process; leave out those whose file has another batch size; write what they are fed."""
    with _servers(cases) as servers, tempfile.TemporaryDirectory(prefix="edgeml-timing-") as folder:
        sessions = [servers[case.paths[0].suffix].session() for case in cases]
        try:
            ready = [
                _asked("open", case, session, paths=[str(path.resolve()) for path in case.paths],
                       threads=case.threads, cores=processes.cores(case.threads))
                for case, session in zip(cases, sessions, strict=True)
            ]  # fmt: skip
            left_out = {
                i: LeftOut(case.name, case.rows, told["batch"])
                for i, (case, told) in enumerate(zip(cases, ready, strict=True))
                if case.rows is not None and told["batch"] not in (None, case.rows)
            }
            kept = [i for i in range(len(cases)) if i not in left_out]
            if not kept:
                raise DataError(f"{cases[0].name}: its batch is {ready[0]['batch']}. Leave the batch size out.")
            cases, ready = [cases[i] for i in kept], [ready[i] for i in kept]
            fed = _drawn(cases, ready) if inputs is None else inputs
            most = max(told["batch"] or case.rows or 1 for case, told in zip(cases, ready, strict=True))
            given: dict[str, Any] = {name: np.asarray(values[:most]) for name, values in fed.items()}
            np.savez(place := Path(folder) / "inputs.npz", **given)
            yield cases, [sessions[i] for i in kept], ready, place, list(dict.fromkeys(left_out.values()))
        finally:
            for session in sessions:
                session.close()


def _timed(case: Case, told: Sequence[Message], openings: Openings, paced: NDArray[np.float64]) -> Timed:
    """Sum up a case; of load and first run the fastest counts, of memory the most."""
    found = stopwatch.figures(openings, paced)
    low, high = found["interval_95"]
    memory = [one["peak_memory_bytes"] for one in told if one["peak_memory_bytes"] is not None]
    cores = processes.cores(case.threads)
    record = Latency(
        case.name, told[0]["runtime"], case.precision, "host", case.threads, found["quiet_ms"], found["p50_ms"],
        found["p90_ms"], found["p99_ms"], (low, high), found["noise_floor"], None, min(one["load_ms"] for one in told),
        batch=told[0]["batch"] or case.rows or 1, first_run_ms=min(one["first_run_ms"] for one in told),
        peak_memory_bytes=max(memory, default=None), file_bytes=sum(path.stat().st_size for path in case.paths),
        warm_up_runs=max(one["warm_up_runs"] for one in told), warmed_up=all(one["warmed_up"] for one in told),
        cores=None if cores is None else tuple(cores),
    )  # fmt: skip
    return Timed(record, paced)


def compare(one: Timed, other: Timed) -> Comparison:
    """Compare two files timed in one run; lower is faster."""
    ratio, (low, high) = stopwatch.ratio(one.paced, other.paced)
    floor = max(one.latency.noise_floor, other.latency.noise_floor)
    claim = "faster" if high < 1 / (1 + floor) else "slower" if low > 1 + floor else "no difference"
    about = one.latency
    return Comparison(about.file, other.latency.file, ratio, (low, high), floor, claim, about.threads, about.batch)


@contextmanager
def _servers(cases: Sequence[Case]) -> Iterator[dict[str, Server | Local]]:
    """Start a server for each runtime that the cases need, by the suffix of its files."""
    found = {path.suffix: runtime_of(path) for case in cases for path in case.paths}
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(place or os.getcwd() for place in sys.path)}
    command = [sys.executable, "-P", "-m", "edgeml.timing_child"]
    started = {
        suffix: Server([*command, name], environment) if processes.can_fork() else Local(partial(opened, module))
        for suffix, (name, module) in found.items()
    }
    try:
        yield started
    finally:
        for server in started.values():
            server.close()


def _asked(do: str, case: Case, session: Session | Here, **what: Any) -> Message:
    try:
        return session.ask(do, **what)
    except Refused as refused:
        kind = getattr(errors, refused.kind, None)
        if isinstance(kind, type):
            raise kind(str(refused)) from refused
        raise DataError(f"{case.name}: {refused.kind}: {refused}; a file that its runtime runs is due.") from refused


def _drawn(cases: Sequence[Case], told: Sequence[Message]) -> dict[str, NDArray[Any]]:
    """Draw random inputs in 0 … 1 that all cases take; those of one name, or one place, are the same for all."""
    rng, found = np.random.default_rng(0), dict[str, NDArray[Any]]()
    for case, one in zip(cases, told, strict=True):
        rows, before = one["batch"] or case.rows or 1, list(found)
        for place, (name, shape) in enumerate(one["inputs"]):
            size = tuple(length or 1 for length in shape[1:])
            known = name if name in before else next(iter(before[place : place + 1]), None)
            if before and (known is None or found[known].shape[1:] != size):
                raise DataError(f"{case.name}: input '{name}' has shape {(1, *size)}; another file has another shape.")
            made = rng.uniform(0, 1, (rows, *size)).astype("float32")
            if known is None or len(found[known]) < rows:
                found[known or name] = made
    return found
