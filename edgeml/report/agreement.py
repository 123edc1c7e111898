"""The plot of predicted against measured latency, on logarithmic axes of one range.

on the diagonal   the profile was right          within the band   |predicted / measured - 1| <= 10 %
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from edgeml.report.limits import Row
from edgeml.report.svg import ACCENT, INK, MUTED, PAPER, WARN, compact, draw, name_points

BAND = 0.1  # what a calibration may err by on nine of ten networks (``calibration.WORST_P90``)
MARGIN, LEAST_SPAN = 1.35, 6  # of the axes, as ratios: a lone point gets ticks around it, too
BESIDE_DIAGONAL = ((8, -10), (-8, 4), (8, -21), (-8, 15), (8, -32), (-8, 26))  # of a name, in points from its dot
STYLES: dict[str, tuple[str, dict[str, Any]]] = {  # series: its name, its marker
    "held_out": ("held-out networks", {"marker": "o", "ms": 4, "color": MUTED, "alpha": 0.7, "mew": 0}),
    "finalists": ("finalists", {"marker": "o", "ms": 6.5, "color": ACCENT, "mec": PAPER, "mew": 1}),
    "shipped": ("the graph that ships", {"marker": "D", "ms": 9, "color": INK, "mfc": "none", "mew": 1.1}),
}


def agreement(shown: Row) -> Markup | None:
    """Draw what was predicted of held-out networks, finalists and the graph that ships, against what was measured."""
    if not shown:
        return None
    limit = shown["limit"]

    def paint(axes: Any) -> None:
        values = [value for series in STYLES for x, y, _ in shown[series] for value in (x, y)]
        ends = span([*values, *([limit["max_ms"]] if limit.get("max_ms") else [])])
        logarithmic(axes, ends)
        low, high = ([end / (1 + side * BAND) for end in ends] for side in (1, -1))
        axes.fill_between(ends, low, high, color=ACCENT, alpha=0.18, lw=0)
        axes.plot(ends, ends, color=MUTED, lw=0.9)
        if limit.get("max_ms"):
            draw_limit(axes, limit["max_ms"], ends)
        for series, (label, marker) in STYLES.items():
            if shown[series]:
                axes.plot(
                    [x for x, _, _ in shown[series]], [y for _, y, _ in shown[series]], ls="", label=label, **marker
                )
        axes.set(xlabel="predicted, ms", ylabel="measured, ms")
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, fontsize=8, handletextpad=0.2, columnspacing=1)
        name_points(axes, shown["finalists"], places=BESIDE_DIAGONAL, others=shown["shipped"])

    return draw("agreement", f"Predicted against measured latency, {limit['where']}", paint, height=3.9)


def span(values: Sequence[float]) -> tuple[float, float]:
    """Return the ends of an axis that holds all values with room around them."""
    low, high = min(values) / MARGIN, max(values) * MARGIN
    room = max(1.0, (LEAST_SPAN * low / high) ** 0.5)
    return low / room, high * room


def logarithmic(axes: Any, ends: tuple[float, float]) -> None:
    """Give both axes the same logarithmic range, with short ticks."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(compact))
        axis.set_minor_formatter(NullFormatter())


def draw_limit(axes: Any, max_ms: float, ends: tuple[float, float]) -> None:
    """Draw the limit across: what is measured above it is over. Its name stands on the side away from the diagonal."""
    axes.axhline(max_ms, color=WARN, lw=1.2, ls=(0, (4, 3)))
    place = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points", "color": WARN}
    left = max_ms**2 > ends[0] * ends[1]
    at, offset, side = (0.015, (0, 4), "left") if left else (0.985, (0, -11), "right")
    axes.annotate(f"limit {compact(max_ms)} ms", (at, max_ms), offset, ha=side, **place)
