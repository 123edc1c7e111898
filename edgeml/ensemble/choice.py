"""Which candidates join: the best cross-fitted blend loss among the sets whose whole graph is within budget.

All sets up to ``max_members`` are ranked by the loss of their plain mean; the best of them are weighted and scored by
cross-fitting. Of sets alike to three decimals the one with fewer members leads. A set has to beat the best single
network by more than its noise (bootstrap), or the single one ships.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from edgeml import recipe
from edgeml.ensemble.weights import Float, blend, cross_fitted, fit_weights, log_loss
from edgeml.errors import BudgetError
from edgeml.records import Budget, Cost, Limit

SCORED_SETS = 30
LEAST_WEIGHT = 0.01  # a member that says less than this costs its whole network for nothing
BOOTSTRAP = 2000
LEAST_GAIN = 1e-6  # of log-loss: what rounding alone can give to copies of one network


@dataclass(frozen=True)
class Choice:
    """Who ships, and why. ``members``: indices of candidates; ``loss`` and ``single_loss``: cross-fitted blend loss.

    ``compared``: sets of candidates within budget, single ones too, that the blend split decided between; ``scored``:
    sets among them whose weights were cross-fitted.
    """

    members: tuple[int, ...]
    weights: tuple[float, ...]
    mean: str
    loss: float
    single: int
    single_loss: float
    gain_95: tuple[float, float]
    reason: str
    compared: int = 1
    scored: int = 0


def choose(
    probs: Float,
    labels: NDArray[np.int64],
    costs: Sequence[Cost],
    budget: Budget,
    config: recipe.Ensemble,
    *,
    measured_ms: Sequence[Mapping[Limit, float]] = (),
    input_elements: int = 0,
    seed: int = 0,
) -> Choice:
    """Choose members among candidates with ``probs`` (M, N, K) on the blend split.

    ``input_elements``: scalars of one sample, which stay alive until the last member has read them.

    Raises:
        BudgetError: no candidate fits the budget.
    """
    sets = [
        members
        for size in range(1, min(config.max_members, len(costs)) + 1)
        for members in combinations(range(len(costs)), size)
        if _fits(members, costs, measured_ms, budget, input_elements, probs.shape[2])
    ]
    singles = [members[0] for members in sets if len(members) == 1]
    if not singles:
        raise BudgetError("ensemble: no trained network fits the budget. Raise the budget or search again.")
    compared = len(sets)
    single = min(singles, key=lambda i: log_loss(probs[i], labels))
    single_losses = cross_fitted(probs[[single]], labels, "uniform")
    scored = _scored([members for members in sets if len(members) > 1], probs, labels, config, seed)
    if not scored:
        reason = "no set of two or more networks fits the budget"
        return replace(_alone(single, single_losses, reason), compared=compared)

    def weights_of(members: tuple[int, ...], mean: str) -> Float:
        return fit_weights(probs[list(members)], labels, config.weights, mean=mean, seed=seed)

    counted = {row[1] for row in scored}
    useful = (row for row in scored if weights_of(row[1], row[2]).min() >= LEAST_WEIGHT)
    best, members, mean = next(useful, scored[0])
    low, high = _gain(single_losses - best, seed)
    if config.keep == "when_better" and low <= LEAST_GAIN:
        text = f"the best ensemble does not beat the best single network beyond noise (gain {low:.4f} to {high:.4f})"
        return replace(_alone(single, single_losses, text, (low, high)), compared=compared, scored=len(counted))
    weights = weights_of(members, mean)
    losses = f"cross-fitted blend log-loss {best.mean():.4f} against {single_losses.mean():.4f}"
    if config.keep == "always":
        though = ", though the best single network is better" if best.mean() > single_losses.mean() else ""
        reason = f"the recipe keeps the ensemble always{though} ({losses})"
    else:
        reason = f"it beats the best single network ({losses})"
    order = np.argsort(-weights, kind="stable")
    return Choice(
        tuple(members[i] for i in order), tuple(float(weights[i]) for i in order), mean, float(best.mean()), single,
        float(single_losses.mean()), (low, high), reason, compared, len(counted),
    )  # fmt: skip


def _scored(
    sets: Sequence[tuple[int, ...]], probs: Float, labels: NDArray[np.int64], config: recipe.Ensemble, seed: int
) -> list[tuple[Float, tuple[int, ...], str]]:
    """Return cross-fitted losses, members and mean of the sets whose plain mean is best; the best first.

    Losses that agree to 0.001 count as equal: then fewer members are better.
    """
    means = ("arithmetic", "geometric") if config.mean == "auto" else (config.mean,)
    plain = [(log_loss(blend(probs[list(s)], np.full(len(s), 1 / len(s))), labels), s) for s in sets]
    scored = [
        (cross_fitted(probs[list(members)], labels, config.weights, mean=mean, seed=seed), members, mean)
        for _, members in sorted(plain)[:SCORED_SETS]
        for mean in means
    ]
    return sorted(scored, key=lambda row: (round(float(row[0].mean()), 3), len(row[1]), float(row[0].mean())))


def _fits(
    members: tuple[int, ...],
    costs: Sequence[Cost],
    measured_ms: Sequence[Mapping[Limit, float]],
    budget: Budget,
    input_elements: int,
    classes: int,
) -> bool:
    """Tell whether the graph of these members is within budget."""
    cost = total([costs[i] for i in members], input_elements, classes)
    return not budget.violations(cost, _summed([measured_ms[i] for i in members if measured_ms]))


def total(costs: Sequence[Cost], input_elements: int, classes: int) -> Cost:
    """Return the cost of networks side by side, with one weight each where there are several.

    Peak activations are an upper bound: while the largest member runs, the input waits for the others, and each of the
    others holds its output.
    """
    several = len(costs) > 1
    weights = len(costs) if several else 0
    held = input_elements + len(costs) * classes if several else 0
    return Cost(
        params=sum(cost.params for cost in costs) + weights,
        macs=sum(cost.macs for cost in costs),
        peak_activation_bytes=max(cost.peak_activation_bytes for cost in costs) + held,
    )


def _summed(measured: Sequence[Mapping[Limit, float]]) -> dict[Limit, float]:
    """Add up latencies: members run one after the other on one thread."""
    return {limit: sum(ms[limit] for ms in measured) for limit in measured[0]} if measured else {}


def _alone(single: int, single_losses: Float, reason: str, gain: tuple[float, float] = (0.0, 0.0)) -> Choice:
    loss = float(single_losses.mean())
    return Choice((single,), (1.0,), "arithmetic", loss, single, loss, gain, reason)


def _gain(differences: Float, seed: int) -> tuple[float, float]:
    rng = np.random.default_rng(seed)
    draws = rng.choice(differences, (BOOTSTRAP, len(differences))).mean(axis=1)
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)
