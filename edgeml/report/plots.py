"""The plots of the report. Each returns an SVG element, or nothing where there is nothing to draw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from edgeml.report.agreement import agreement
from edgeml.report.svg import ACCENT, INK, MUTED, PAPER, WARN, compact, draw, name_points, short
from edgeml.report.views import Row

COSTS = {"params": "parameters", "macs": "multiply-accumulates"}
LOG_FROM = 12  # an axis that spans more than this ratio is logarithmic
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
    asked = view["manifest"].get("budget", {}).get("asked", {})
    drawn = {f"pareto_{key}": pareto(view, key, asked.get(key)) for key in COSTS}
    drawn |= {"history": history(view), "balance": balance(view["balance"])}
    drawn["finalists"] = intervals(
        "finalists", "Accuracy of the finalists per split", finalist_rows(view), "accuracy, %"
    )
    drawn["baselines"] = intervals(
        "baselines", "Test accuracy against baselines", baseline_rows(view), "test accuracy, %"
    )
    here = [one for one in asked.get("latency", []) if one.get("device", "host") == "host"]  # as the files were timed
    limits = [one["max_ms"] for one in here if "max_ms" in one]
    drawn["latency"] = intervals(
        "latency", "Quiet latency per file", latency_rows(view["manifest"]), "quiet latency, ms", limits=limits
    )
    drawn["agreement"] = agreement(view["agreement"])
    return {name: plot for name, plot in drawn.items() if plot is not None}


def pareto(view: Row, key: str, budget: float | None) -> Markup | None:
    """Every completed trial by cost and validation accuracy; finalists named, the search's Pareto front as diamonds."""
    finalists = {str(one.get("id")).partition("-s")[0] for one in view.get("finalists", [])}  # t0007-s2 is t0007
    points = [
        (trial["cost"][key], 100 * trial["metrics"][view["objective"]], trial.get("id"))
        for trial in view.get("trials", [])
        if key in trial.get("cost", {}) and view["objective"] in trial.get("metrics", {})
    ]
    if not points:
        return None

    def paint(axes: Any) -> None:
        named = [one for one in points if one[2] in finalists]
        costs = [cost for cost, _, _ in points] + ([budget] if budget else [])
        scale(axes, costs)
        front = pareto_front(points)
        axes.step([c for c, _ in front], [a for _, a in front], where="post", color=ACCENT, lw=1, alpha=0.5)
        axes.plot([c for c, _, _ in points], [a for _, a, _ in points], "o", ms=4, color=MUTED, alpha=0.7, mew=0)
        ends = [one for one in points if str(one[2]) in view["front"]]
        axes.plot([c for c, _, _ in ends], [a for _, a, _ in ends], "D", ms=8, color=INK, mfc="none", mew=0.9)
        axes.plot([c for c, _, _ in named], [a for _, a, _ in named], "o", ms=6.5, color=ACCENT, mec=PAPER, mew=1)
        if budget:
            axes.axvline(budget, color=WARN, lw=1.2, ls=(0, (4, 3)))
            place = {"xycoords": axes.get_xaxis_transform(), "textcoords": "offset points", "color": WARN}
            axes.annotate(f"budget {compact(budget)}", (budget, 0.02), (-4, 0), ha="right", **place)
        name_points(axes, named)
        axes.set(xlabel=COSTS[key], ylabel=f"{view['objective_name']}, %")

    return draw(f"pareto-{key}", f"{view['objective_name'].capitalize()} over {COSTS[key]}", paint)


def scale(axes: Any, values: Sequence[float]) -> None:
    """Choose a linear or logarithmic x axis, with short ticks."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    low, high = min(values), max(values)
    if low > 0 and high / low > LOG_FROM:
        axes.set_xscale("log")
        axes.set_xlim(low / 1.3, high * 1.3)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_xlim(0, high * 1.06 or 1)
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=(1, 2, 5, 10)))
    axes.xaxis.set_major_formatter(FuncFormatter(compact))


def pareto_front(points: Sequence[tuple[float, float, Any]]) -> list[tuple[float, float]]:
    """Return the points that no cheaper one equals, cheapest first."""
    front: list[tuple[float, float]] = []
    for cost, accuracy, _ in sorted(points, key=lambda one: (one[0], -one[1])):
        if not front or accuracy > front[-1][1]:
            front.append((cost, accuracy))
    return front


def history(view: Row) -> Markup | None:
    """What the search looked at, of each trial in order, and the best so far."""
    trials, objective = view.get("trials", []), view["objective"]
    scored = [
        (i, 100 * trial["metrics"][objective])
        for i, trial in enumerate(trials, 1)
        if objective in trial.get("metrics", {})
    ]
    if not scored:
        return None
    failed = [i for i, trial in enumerate(trials, 1) if trial.get("status") != "completed"]
    best: list[float] = []
    for _, accuracy in scored:
        best.append(max([accuracy, *best[-1:]]))

    def paint(axes: Any) -> None:
        from matplotlib.ticker import MaxNLocator

        where = [i for i, _ in scored]
        axes.plot(where, [accuracy for _, accuracy in scored], "o", ms=4, color=MUTED, alpha=0.7, mew=0, label="trial")
        axes.step(where, best, where="post", color=ACCENT, lw=1.8, label="best so far")
        if failed:
            bottom = axes.get_xaxis_transform()
            axes.plot(failed, [0.03] * len(failed), "x", ms=5, color=WARN, transform=bottom, label="failed")
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.set(xlabel="trial", ylabel=f"{view['objective_name']}, %")
        axes.legend(loc="lower right", fontsize=8)

    return draw("history", f"{view['objective_name'].capitalize()} over the trials", paint)


def intervals(name: str, title: str, rows: Sequence[Row], unit: str, *, limits: Sequence[float] = ()) -> Markup | None:
    """Points with their 95 % intervals, one line of the plot per row, several series beside each other.

    A row is ``{"label", "points": [(series, value, interval or None)]}``.
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
        for limit in limits:
            axes.axvline(limit, color=WARN, lw=1.2, ls=(0, (4, 3)))
        axes.set(xlabel=unit, ylim=(len(rows) - 0.45, -0.55))
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
    axes.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=len(series), fontsize=8)


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


def latency_rows(manifest: Row) -> list[Row]:
    """Return each file with its quiet latency."""
    return [
        {"label": row.get("file"), "points": [("file", row["quiet_ms"], row.get("interval_95"))]}
        for row in manifest.get("latency", [])
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
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=4, fontsize=8)

    return draw("balance", "Samples per class and split", paint, height=0.9 + 0.2 * len(shown["labels"]))
