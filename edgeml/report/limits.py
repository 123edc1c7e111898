"""Latency limits as the report shows them: what was asked, predicted and measured, and by whom it was judged.

Predicted and measured are two figures and stay two: a limit that was judged by a prediction or by a compiler has no
measured one. A bundle from before device profiles knows neither; there the files' own latencies speak.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Row = dict[str, Any]
WHERE = ("device", "runtime", "precision")


def rows(manifest: Row) -> list[Row]:
    """Return each latency limit that was asked, with how the graph that ships stands against it."""
    budget = manifest.get("budget", {})
    stands = {where(row): row for row in budget.get("latency", [])}
    return [
        {**(stands.get(where(limit)) or {"judged_ms": measured_ms(manifest, limit)}), **limit, "where": where(limit)}
        for limit in budget.get("asked", {}).get("latency", [])
    ]


def where(row: Row) -> str:
    """Return what a limit is about, in words: ``host onnxruntime int8``."""
    return " ".join(str(row[key]) for key in WHERE if key in row)


def measured_ms(manifest: Row, limit: Row) -> float | None:
    """Return the largest quiet latency of the files that a latency limit speaks about."""
    found = [
        row["quiet_ms"] for row in manifest.get("latency", []) if "quiet_ms" in row and is_about(limit, row, manifest)
    ]
    return max(found, default=None)


def of_file(manifest: Row, row: Row) -> float | None:
    """Return the tightest limit that speaks about a row of measured latency."""
    asked = manifest.get("budget", {}).get("asked", {}).get("latency", [])
    return min((one["max_ms"] for one in asked if "max_ms" in one and is_about(one, row, manifest)), default=None)


def is_about(limit: Row, row: Row, manifest: Row) -> bool:
    """Tell whether a limit speaks about a row of measured latency: its device, runtime and precision."""
    precisions = {file.get("path"): file.get("precision") for file in manifest.get("files", [])}
    return (
        str(row.get("runtime", "")).lower().startswith(limit.get("runtime", ""))
        and row.get("device", "host") == limit.get("device", "host")
        and row.get("precision", precisions.get(row.get("file"))) == limit.get("precision")
    )


def of_finalists(finalists: list[Row]) -> list[Row]:
    """Return how every finalist stands against every limit, limit by limit."""
    found = [
        {**row, "id": one.get("id"), "chosen": one.get("chosen"), "where": where(row)}
        for one in finalists
        for row in one.get("latency", [])
    ]
    order = list(dict.fromkeys(row["where"] for row in found))
    return sorted(found, key=lambda row: order.index(row["where"]))


def predicted_at(trials: list[Row]) -> list[str]:
    """Return what the latency of trials was predicted for, by the keys of ``predicted_ms``."""
    return list(dict.fromkeys(key for trial in trials for key in trial.get("predicted_ms", {})))


def agreement(report: Row) -> Row:
    """Return the points (predicted ms, measured ms, name) of the first limit that was measured on this machine.

    ``held_out``: networks of the calibration that the profile was not fitted on; ``finalists``; ``shipped``: the graph.
    Empty where nothing has both figures.
    """
    limit = next((row for row in rows(report.get("manifest", {})) if "measured_ms" in row), {})
    if not limit:
        return {}
    tested = [
        point
        for one in report.get("devices", [])
        if where({**one, "device": one.get("name")}) == limit["where"]
        for point in zip(one.get("held_out_predicted_ms", []), one.get("held_out_measured_ms", []), strict=False)
    ]
    own = [row for row in of_finalists(report.get("finalists", [])) if row["where"] == limit["where"]]
    found = {
        "held_out": list(both((predicted, measured, None) for predicted, measured in tested)),
        "finalists": list(both((row.get("predicted_ms"), row.get("ms"), row["id"]) for row in own)),
        "shipped": list(both([(limit.get("predicted_ms"), limit["measured_ms"], None)])),
    }
    return {**found, "limit": limit} if any(found.values()) else {}


def both(points: Any) -> Iterator[tuple[float, float, Any]]:
    """Keep the points that have both figures, and a logarithm of them."""
    return ((x, y, name) for x, y, name in points if x is not None and y is not None and x > 0 and y > 0)
