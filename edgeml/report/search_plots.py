"""The plots of a search: every trial by accuracy and what it costs, and what was found in which order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from edgeml.report.limits import Row
from edgeml.report.svg import ACCENT, INK, MUTED, PAPER, WARN, compact, draw, name_points, scale


def pareto(view: Row, axis: Row) -> Markup | None:
    """Every completed trial by cost and validation accuracy; finalists named, the search's Pareto front as diamonds."""
    budget, cost_of = axis["limit"], axis["values"]
    finalists = {str(one.get("id")).partition("-s")[0] for one in view.get("finalists", [])}  # t0007-s2 is t0007
    points = [
        (cost_of[str(trial.get("id"))], 100 * trial["metrics"][view["objective"]], trial.get("id"))
        for trial in view.get("trials", [])
        if str(trial.get("id")) in cost_of and view["objective"] in trial.get("metrics", {})
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
        axes.set(xlabel=axis["label"], ylabel=f"{view['objective_name']}, %")
        axes.margins(y=0.1)
        name_points(axes, named, others=ends)

    return draw(f"pareto-{axis['name']}", f"{view['objective_name'].capitalize()} over {axis['label']}", paint)


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
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, fontsize=8)

    return draw("history", f"{view['objective_name'].capitalize()} over the trials", paint)
