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
    from edgeml.timing import Comparison, Latency, Profiled

Document = dict[str, Any]
RUNTIMES = ("onnxruntime", "ai-edge-litert")
TOP = 10  # operators of a file that the text names


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
    records, comparisons = benchmarking.benchmark(sources, against, counts, rows, on_event)
    document = {
        "results": to_json(records), "comparisons": to_json(comparisons), "machine": state,
        "versions": _versions(), "rounds": ROUNDS, "openings": OPENINGS,
    }  # fmt: skip
    return "\n".join([_latencies(records), *map(_compared, comparisons), _state(state)]), document


def operators(
    sources: Sequence[Path], threads: str, runs: int, on_event: Callable[[Event], None]
) -> tuple[str, Document]:
    """Measure where the time of each file goes."""
    from edgeml import benchmarking

    state = conditions()
    found = benchmarking.operators(sources, numbers("--threads", threads), runs, on_event)
    text = "\n\n".join(map(_profile, found))
    return f"{text}\n\n{_state(state)}", {"operators": to_json(found), "machine": state, "versions": _versions()}


def _latencies(records: Sequence[Latency]) -> str:
    header = ["file", "runtime", "threads", "batch", "quiet ms [95 %]", "p50", "p90", "p99", "noise floor", "load ms",
              "first ms", "peak KiB", "bytes"]  # fmt: skip
    rows = [
        [r.file, r.runtime, str(r.threads), str(r.batch),
         f"{r.quiet_ms:.4f} [{r.interval_95[0]:.4f}, {r.interval_95[1]:.4f}]", f"{r.p50_ms:.4f}", f"{r.p90_ms:.4f}",
         f"{r.p99_ms:.4f}", f"{r.noise_floor:.1%}", f"{r.load_ms:.1f}", f"{r.first_run_ms:.3f}",
         "-" if r.peak_memory_bytes is None else f"{r.peak_memory_bytes // 1024:,}", f"{r.file_bytes:,}"]
        for r in records
    ]  # fmt: skip
    return table(header, rows)


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
