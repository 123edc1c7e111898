"""Latency as it was predicted and as it was measured: a plot of the one against the other, and how limits stand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from edgeml.report.svg import ACCENT, INK, LINE, MUTED, PAPER, WARN, draw
from edgeml.report.views import Row

BAND = 0.1
KEYS = ("device", "runtime", "precision")
Pair = tuple[float, float]


def shown(view: Row) -> Row:
    """Return what the plot is drawn from: of the first latency limit that was measured on this machine."""
    for limit in view["manifest"].get("budget", {}).get("latency", []):
        if "measured_ms" in limit:
            return _of(view, limit)
    return {}


def _of(view: Row, limit: Row) -> Row:
    where = [limit.get(key) for key in ("device", "runtime", "precision")]
    devices = [one for one in view.get("devices", []) if [one.get(key) for key in ("name", *KEYS[1:])] == where]
    held = devices[0] if devices else {}
    calibrated = list(zip(held.get("held_out_predicted_ms", []), held.get("held_out_measured_ms", []), strict=False))
    finalists = [
        (row["predicted_ms"], row["ms"], str(one.get("id")))
        for one in view.get("finalists", [])
        for row in one.get("latency", [])
        if [row.get(key) for key in KEYS] == where and "ms" in row and "predicted_ms" in row
    ]
    graph = [(limit["predicted_ms"], limit["measured_ms"])] if "predicted_ms" in limit else []
    if not (finalists or graph):
        return {}
    name = " ".join(map(str, where))
    return {"name": name, "calibrated": calibrated, "finalists": finalists, "graph": graph, "limit": limit["max_ms"]}


def plot(found: Row, name_points: Any) -> Markup | None:
    """Draw predicted against measured milliseconds; ``name_points`` writes names beside points."""
    if not found:
        return None
    pairs: list[Pair] = [*found["calibrated"], *found["graph"], *((p, m) for p, m, _ in found["finalists"])]
    low, high = _span(pairs, found["limit"])

    def paint(axes: Any) -> None:
        axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
        axes.plot((low, high), (low, high), color=MUTED, lw=0.8)
        for factor in (1 - BAND, 1 + BAND):
            axes.plot((low, high), (low * factor, high * factor), color=LINE, lw=1)
        axes.plot(
            *_columns(found["calibrated"]), "o", ms=4, color=MUTED, alpha=0.6, mew=0, label="calibration, held out"
        )
        named = found["finalists"]
        axes.plot(
            [p for p, _, _ in named], [m for _, m, _ in named], "o", ms=6.5, color=ACCENT, mec=PAPER, label="finalist"
        )
        axes.plot(*_columns(found["graph"]), "D", ms=8, color=INK, mfc="none", mew=0.9, label="the graph that ships")
        axes.axhline(found["limit"], color=WARN, lw=1.2, ls=(0, (4, 3)))
        _plain_ticks(axes)
        name_points(axes, named)
        axes.set(xlabel="predicted, ms", ylabel="measured, ms")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, fontsize=8)

    return draw("predicted", f"Predicted against measured latency on {found['name']}", paint, height=3.6)


def _span(pairs: Sequence[Pair], limit: float) -> Pair:
    values = [value for pair in pairs for value in pair] + [limit]
    return min(values) / 1.25, max(values) * 1.25


def _columns(pairs: Sequence[Pair]) -> tuple[list[float], list[float]]:
    return [p for p, _ in pairs], [m for _, m in pairs]


def _plain_ticks(axes: Any) -> None:
    """Write 0.02, not 2 x 10^-2."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
