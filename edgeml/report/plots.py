"""The plots of the report. Each returns an SVG element, or nothing where there is nothing to draw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from edgeml.report import limits
from edgeml.report.agreement import agreement
from edgeml.report.search_plots import history, pareto
from edgeml.report.svg import ACCENT, INK, MUTED, PAPER, WARN, draw, scale, short
from edgeml.report.views import Row

SERIES = {  # colour, marker, face
    "validation": (MUTED, "o", PAPER),
    "blend": (INK, "D", PAPER),
    "test": (ACCENT, "o", ACCENT),
    "baseline": (MUTED, "o", MUTED),
    "network": (ACCENT, "o", ACCENT),
    "file": (ACCENT, "o", ACCENT),
}
SHADES = (0.9, 0.6, 0.38, 0.2)  # of the accent, by split


def every(view: Row) -> dict[str, Markup]:
    """Draw all plots that the data allows, by name."""
    drawn = {f"pareto_{axis['name']}": pareto(view, axis) for axis in view["axes"]}
    drawn |= {"history": history(view), "balance": balance(view["balance"])}
    drawn["finalists"] = intervals(
        "finalists", "Accuracy of the finalists per split", finalist_rows(view), "accuracy, %"
    )
    drawn["baselines"] = intervals(
        "baselines", "Test accuracy against baselines", baseline_rows(view), "test accuracy, %"
    )
    drawn["latency"] = intervals(
        "latency", "Quiet latency per file", latency_rows(view), "quiet latency, ms", wide=True
    )
    drawn["agreement"] = agreement(view["agreement"])
    return {name: plot for name, plot in drawn.items() if plot is not None}


def intervals(name: str, title: str, rows: Sequence[Row], unit: str, *, wide: bool = False) -> Markup | None:
    """Points with their 95 % intervals, one line of the plot per row, several series beside each other.

    A row is ``{"label", "points": [(series, value, interval or None)], "limit": what none of them may exceed}``.
    ``wide``: values that differ by more than a decade are drawn on a logarithmic axis, others from zero.
    """
    rows = [row for row in rows if row["points"]]
    if not rows:
        return None
    series = list(dict.fromkeys(point[0] for row in rows for point in row["points"]))
    beside = max(len(row["points"]) for row in rows)
    step = 0.62 / beside

    def paint(axes: Any) -> None:
        from matplotlib.ticker import MaxNLocator

        for line, row in enumerate(rows):
            for kind, value, interval in row["points"]:
                colour, marker, face = SERIES[kind]
                y = line + (series.index(kind) - (len(series) - 1) / 2) * step * (beside > 1)
                if interval:
                    axes.plot(interval, (y, y), color=colour, lw=2.4, alpha=0.45, solid_capstyle="round")
                axes.plot([value], [y], marker, ms=6, color=colour, mfc=face, mew=1.2)
            if row.get("limit"):
                axes.plot([row["limit"]] * 2, (line - 0.42, line + 0.42), color=WARN, lw=1.2, ls=(0, (4, 3)))
        axes.set(xlabel=unit, ylim=(len(rows) - 0.45, -0.55))
        if wide:
            most = [row["limit"] for row in rows if row.get("limit")]
            scale(axes, [value for row in rows for _, value, _ in row["points"]] + most)
        else:
            axes.xaxis.set_major_locator(MaxNLocator(6, steps=(1, 2, 5, 10)))
        axes.set_yticks(range(len(rows)), [short(row["label"]) for row in rows], color=INK)
        axes.grid(axis="y", visible=False)
        legend(axes, series)

    return draw(name, title, paint, height=0.85 + len(rows) * (0.28 + 0.14 * (beside - 1)))


def legend(axes: Any, series: Sequence[str]) -> None:
    """Explain the series above the plot, where there are several."""
    from matplotlib.lines import Line2D

    if len(series) < 2:
        return
    styles = [(kind, *SERIES[kind]) for kind in series]
    handles = [
        Line2D([], [], ls="", marker=marker, color=colour, mfc=face, ms=6, label=kind)
        for kind, colour, marker, face in styles
    ]
    axes.legend(handles=handles, loc="lower right", bbox_to_anchor=(1, 1), ncols=len(series), fontsize=8)


def finalist_rows(view: Row) -> list[Row]:
    """Return each finalist with its accuracy per split."""
    return [
        {
            "label": one.get("id", "") + (" ●" if one.get("chosen") else ""),
            "points": [
                (split, 100 * score["accuracy"], hundredfold(score.get("interval_95")))
                for split in ("validation", "blend", "test")
                if "accuracy" in (score := one.get(f"{split}_accuracy", {}))
            ],
        }
        for one in view.get("finalists", [])
    ]


def baseline_rows(view: Row) -> list[Row]:
    """Return the baselines, then the files."""
    if not view.get("baselines"):
        return []
    rows = [
        ("baseline", one.get("name"), one.get("test_accuracy"), one.get("interval_95")) for one in view["baselines"]
    ]
    rows += [("network", one.get("file"), one["accuracy"], one.get("interval_95")) for one in view["accuracies"]]
    return [
        {"label": label, "points": [(kind, 100 * value, hundredfold(interval))]}
        for kind, label, value, interval in rows
        if value is not None
    ]


def latency_rows(view: Row) -> list[Row]:
    """Return each file with its quiet latency, and the limit that speaks about it."""
    return [
        {
            "label": row.get("file"),
            "points": [("file", row["quiet_ms"], row.get("interval_95"))],
            "limit": limits.of_file(view["manifest"], row),
        }
        for row in view["here"]
        if "quiet_ms" in row
    ]


def hundredfold(interval: Sequence[float] | None) -> list[float] | None:
    """Turn shares into percent."""
    return None if interval is None else [100 * end for end in interval]


def balance(shown: Row) -> Markup | None:
    """Samples per class, stacked by split."""
    if not shown.get("drawn"):
        return None

    def paint(axes: Any) -> None:
        lines = range(len(shown["labels"]))
        left = [0] * len(lines)
        for i, split in enumerate(shown["splits"]):
            counts = split["per_class"]
            axes.barh(
                lines,
                counts,
                left=left,
                height=0.7,
                color=ACCENT,
                alpha=SHADES[i % len(SHADES)],
                label=short(split["name"], 12),
            )
            left = [left[k] + counts[k] for k in lines]
        axes.set(xlabel="samples", ylim=(len(lines) - 0.4, -0.6))
        axes.set_yticks(lines, [short(label) for label in shown["labels"]], color=INK)
        axes.grid(visible=False)
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=4, fontsize=8)

    return draw("balance", "Samples per class and split", paint, height=0.9 + 0.2 * len(shown["labels"]))
