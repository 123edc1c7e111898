"""What the verb benchmark does: latencies and what they are compared with, or the time of each operator."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeml.errors import UsageError
from edgeml.machine import conditions
from edgeml.records import Event, to_json
from edgeml.terminal import table

if TYPE_CHECKING:
    from edgeml.benchmarking import NotCompared
    from edgeml.timing import Comparison, Latency, LeftOut, Profiled

Document = dict[str, Any]
RUNTIMES = ("onnxruntime", "ai-edge-litert")
TOP = 10  # operators of a file that the text names
NOTE = "Both profilers count whole microseconds, rounded down: what they say of operators below 1 us means nothing."


def numbers(option: str, text: str) -> list[int]:
    """Read ``1,2,4``.

    Raises:
        UsageError: something else than whole numbers above 0.
    """
    words = text.split(",")
    if not all(word.strip().isdecimal() and int(word) > 0 for word in words):
        raise UsageError(f"{option} {text}: whole numbers from 1 on are allowed, as 1 or 1,2,4. See --help.")
    return [int(word) for word in words]


def benchmark(
    sources: Sequence[Path],
    against: str | None,
    threads: str,
    batch: str | None,
    on_event: Callable[[Event], None],
) -> tuple[str, Document]:
    """Measure latency of bundles, runs and files."""
    from edgeml import benchmarking
    from edgeml.bundled.stopwatch import OPENINGS, ROUNDS

    counts, rows = numbers("--threads", threads), None if batch is None else numbers("--batch", batch)
    state = conditions()
    found = benchmarking.measured(sources, against, counts, rows, on_event)
    document = {
        "results": to_json(found.latencies), "comparisons": to_json(found.comparisons),
        "left_out": to_json(found.left_out), "not_compared": to_json(found.not_compared), "machine": state,
        "versions": _versions(), "rounds": ROUNDS, "openings": OPENINGS,
    }  # fmt: skip
    text = [
        _latencies(found.latencies), *_left_out(found.left_out), *map(_compared, found.comparisons),
        *_not_compared(found.not_compared), _state(state),
    ]  # fmt: skip
    return "\n".join(text), document


def operators(
    sources: Sequence[Path], threads: str, runs: int, on_event: Callable[[Event], None]
) -> tuple[str, Document]:
    """Measure where the time of each file goes."""
    from edgeml import benchmarking

    state = conditions()
    found = benchmarking.operators(sources, numbers("--threads", threads), runs, on_event)
    text = "\n\n".join(map(_profile, found))
    document = {"operators": to_json(found), "note": NOTE, "machine": state, "versions": _versions()}
    return f"{text}\n\n{NOTE}\n{_state(state)}", document


def _latencies(records: Sequence[Latency]) -> str:
    """Draw a table of what was measured, each line below the file that it is of: it fits into 100 columns."""
    header = ["quiet ms [95 %]", "p50", "p90", "p99", "noise floor", "load ms", "first ms", "peak KiB"]
    rows = [
        [f"{_ms(r.quiet_ms)} [{_ms(r.interval_95[0])}, {_ms(r.interval_95[1])}]", _ms(r.p50_ms), _ms(r.p90_ms),
         _ms(r.p99_ms), f"{r.noise_floor:.1%}", f"{r.load_ms:.1f}", f"{r.first_run_ms:.3f}",
         "-" if r.peak_memory_bytes is None else f"{r.peak_memory_bytes // 1024:,}"]
        for r in records
    ]  # fmt: skip
    head, *lines = table(header, rows).splitlines()
    about = [f"{r.file}  {r.runtime}, {r.threads} thread(s), batch {r.batch}, {r.file_bytes:,} bytes" for r in records]
    return "\n".join([f"  {head}", *(f"{one}\n  {line}" for one, line in zip(about, lines, strict=True))])


def _ms(value: float) -> str:
    return f"{value:.4f}" if value < 10 else f"{value:.2f}"


def _left_out(files: Sequence[LeftOut]) -> list[str]:
    """Name the files that have another batch than was asked for, in a line for each."""
    by_batch: dict[tuple[int, int], list[str]] = defaultdict(list)
    for one in files:
        by_batch[one.asked, one.batch].append(one.file)
    return [
        f"not timed with batch {asked}: {', '.join(names)}; of a fixed batch, {batch}"
        for (asked, batch), names in by_batch.items()
    ]


def _not_compared(files: Sequence[NotCompared]) -> list[str]:
    """Name the files that were compared with nothing, in a line for each reason."""
    by_reason: dict[tuple[str, str], list[str]] = defaultdict(list)
    for one in files:
        by_reason[one.against, one.reason].append(one.file)
    return [f"not compared with {rival}: {', '.join(names)}; {why}" for (rival, why), names in by_reason.items()]


def _compared(c: Comparison) -> str:
    setting = "" if (c.threads, c.batch) == (1, 1) else f", {c.threads} threads, batch {c.batch}"
    low, high = c.interval_95
    return (
        f"{c.file} / {c.against}{setting}: {c.ratio:.3f} [{low:.3f}, {high:.3f}], noise floor {c.noise_floor:.1%}:"
        f" {c.claim}"
    )


def _profile(found: Profiled) -> str:
    """Draw the time by kind and of the longest operators; shares are of the whole run, profiler and all."""
    profile = found.profile
    by_kind: dict[str, list[float]] = defaultdict(list)
    for one in profile.operators:
        by_kind[one.kind].append(one.ms)
    kinds = sorted(by_kind.items(), key=lambda item: -sum(item[1]))
    longest = sorted(profile.operators, key=lambda one: -one.ms)[:TOP]
    rest = profile.run_ms - sum(one.ms for one in profile.operators)

    def share(ms: float) -> list[str]:
        return [f"{1e3 * ms:.2f}", f"{ms / profile.run_ms:.1%}"]

    return "\n".join([
        f"{found.file}: {1e3 * profile.run_ms:.1f} us a run, {found.threads} thread(s), mean of the quieter"
        f" {profile.runs:,} of {2 * profile.runs:,}; {profile.profiler}",
        table(["operator", "count", "us", "share"], [[k, str(len(ms)), *share(sum(ms))] for k, ms in kinds]
              + [["outside of operators, and rounding", "", *share(rest)]]),
        "",
        table(["node", "operator", "us", "share"], [[one.name, one.kind, *share(one.ms)] for one in longest]),
    ])  # fmt: skip


def _state(state: Document) -> str:
    load = "" if state["load_1min"] is None else f", load {state['load_1min']:.2f}"
    return f"{state['cpu']} {' '.join(state['flags'])}, governor {state['governor'] or 'unknown'}{load}"


def _versions() -> dict[str, str]:
    return {name: version(name) for name in RUNTIMES}
