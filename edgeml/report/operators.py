"""Where the time of each file goes, operator by operator, as the profiler of its runtime counts it."""

from __future__ import annotations

from edgeml.report.limits import Row

SEEN_MS = 1e-5  # a mean below says that the profiler, which counts whole microseconds, saw next to nothing


def files(profiles: list[Row]) -> list[Row]:
    """Return what was profiled: of each file its operators, dearest first, and what is left of the whole run.

    ``share``: of the whole run; ``bar``: of the dearest operator. Those that the profiler does not see are counted.
    """
    return [
        {**one, **_spent(one["operators"], one["run_ms"])} if {"operators", "run_ms"} <= one.keys() else one
        for one in profiles
    ]


def _spent(operators: list[Row], run_ms: float) -> Row:
    dearest = sorted((one for one in operators if one["ms"] >= SEEN_MS), key=lambda one: -float(one["ms"]))
    rows = [{**one, "share": one["ms"] / run_ms, "bar": one["ms"] / dearest[0]["ms"]} for one in dearest]
    rest = run_ms - sum(one["ms"] for one in dearest)
    return {"rows": rows, "unseen": len(operators) - len(rows), "rest_ms": rest, "rest_share": rest / run_ms}
