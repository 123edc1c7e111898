"""Which candidates join: the best weighted mean among the sets whose whole graph is within budget.

All sets up to ``max_members`` are ranked by the loss of their plain mean; the best of them are weighted and ranked by
Akaike's criterion (each weight that was fitted costs 1/N of log-loss, Akaike 1974). Of sets alike to three decimals the
one with fewer members leads.

What that is worth is cross-fitted, choice and all: for each fifth of the blend split members, mean and weights are
chosen anew by the other four, and judged by the fifth; the best single network likewise. An ensemble has to beat the
single network there by more than noise (bootstrap), or the single one ships.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from edgeml import arena, recipe
from edgeml.costs import cost as cost_of
from edgeml.ensemble.weights import FOLDS, Float, blend, fit_weights, folds, log_loss, losses
from edgeml.errors import BudgetError
from edgeml.operators import Operator
from edgeml.records import Budget, Cost, Limit

SCORED_SETS = 30
LEAST_WEIGHT = 0.01  # a member that says less than this costs its whole network for nothing
BOOTSTRAP = 2000
LEAST_GAIN = 1e-6  # of log-loss: what rounding alone can give to copies of one network
Labels = NDArray[np.int64]
Members = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Choice:
    """Who ships, and why. ``members``: indices of candidates, ``single``: the best one alone.

    Cross-fitted on the blend split, the choice included: ``loss`` of what ships, ``single_loss``, ``plain_loss`` (the
    members unweighted), ``gain_95`` of the log-loss over the single network, ``predicted`` (N, K).
    ``compared``: sets of candidates within budget, single ones too, that the blend split decided between; ``scored``:
    sets among them whose weights were fitted.
    """

    members: Members
    weights: tuple[float, ...]
    mean: str
    loss: float
    single: int
    single_loss: float
    plain_loss: float
    gain_95: tuple[float, float]
    reason: str
    predicted: Float
    compared: int
    scored: int = 0


@dataclass(frozen=True, eq=False)
class _Blend:
    """Members, their mean and weights, as some rows of the blend split decided."""

    members: Members
    mean: str
    weights: Float

    def of(self, probs: Float) -> Float:
        """Average ``probs`` (M, N, K) of all candidates."""
        return blend(probs[list(self.members)], self.weights, self.mean)

    def plain(self) -> _Blend:
        """Return the same members, each as heavy as any other."""
        return replace(self, weights=np.full(len(self.members), 1 / len(self.members)))


def choose(
    probs: Float,
    labels: Labels,
    costs: Sequence[Cost],
    budget: Budget,
    config: recipe.Ensemble,
    *,
    latency_ms: Sequence[Mapping[Limit, float]] = (),
    input_elements: int = 0,
    refused: Collection[frozenset[int]] = (),
    seed: int = 0,
) -> Choice:
    """Choose members among candidates with ``probs`` (M, N, K) on the blend split.

    ``input_elements``: scalars of one sample, which stay alive until the last member has read them. ``refused``: sets
    whose graph was compiled and turned out to be over budget.

    Raises:
        BudgetError: no candidate fits the budget.
    """
    sets = [
        members
        for size in range(1, min(config.max_members, len(costs)) + 1)
        for members in combinations(range(len(costs)), size)
        if frozenset(members) not in refused
        and _fits(members, costs, latency_ms, budget, input_elements, probs.shape[2])
    ]
    singles = [members for members in sets if len(members) == 1]
    several = [members for members in sets if len(members) > 1]
    if not singles:
        raise BudgetError("ensemble: no trained network fits the budget. Raise the budget or search again.")
    single = _best_single(singles, probs, labels)
    alone = _cross_fitted(lambda rows, own: _best_single(singles, rows, own), probs, labels, seed)[0]
    single_losses = losses(alone, labels)
    loss = float(single_losses.mean())
    shipping = Choice(
        single.members, (1.0,), "arithmetic", loss, single.members[0], loss, loss, (0.0, 0.0),
        "no set of two or more networks fits the budget", alone, len(sets),
    )  # fmt: skip
    if not several:
        return shipping
    together, plain = _cross_fitted(lambda rows, own: _best_blend(several, rows, own, config), probs, labels, seed)
    blend_losses = losses(together, labels)
    low, high = _gain(single_losses - blend_losses, seed)
    shipping = replace(shipping, gain_95=(low, high), scored=min(len(several), SCORED_SETS))
    if config.keep == "when_better" and low <= LEAST_GAIN:
        text = f"the best ensemble does not beat the best single network beyond noise (gain {low:.4f} to {high:.4f})"
        return replace(shipping, reason=text)
    best = _best_blend(several, probs, labels, config)
    order = np.argsort(-best.weights, kind="stable")
    return replace(
        shipping, members=tuple(best.members[i] for i in order), weights=tuple(float(best.weights[i]) for i in order),
        mean=best.mean, loss=float(blend_losses.mean()), plain_loss=log_loss(plain, labels), predicted=together,
        reason=_reason(config.keep, float(blend_losses.mean()), loss),
    )  # fmt: skip


def _reason(keep: str, loss: float, single_loss: float) -> str:
    figures = f"cross-fitted blend log-loss {loss:.4f} against {single_loss:.4f}"
    if keep != "always":
        return f"it beats the best single network ({figures})"
    though = ", though the best single network is better" if loss > single_loss else ""
    return f"the recipe keeps the ensemble always{though} ({figures})"


def _cross_fitted(
    decide: Callable[[Float, Labels], _Blend], probs: Float, labels: Labels, seed: int
) -> tuple[Float, Float]:
    """Return each row (N, K) by what ``decide`` makes of the other folds, and by the same members unweighted."""
    fold = folds(labels, seed)
    weighted, plain = np.empty(probs.shape[1:]), np.empty(probs.shape[1:])
    for number in range(FOLDS):
        held, rest = fold == number, fold != number
        decided = decide(probs[:, rest], labels[rest])
        weighted[held], plain[held] = decided.of(probs[:, held]), decided.plain().of(probs[:, held])
    return weighted, plain


def _best_single(singles: Sequence[Members], probs: Float, labels: Labels) -> _Blend:
    return _Blend(min(singles, key=lambda members: log_loss(probs[members[0]], labels)), "arithmetic", np.ones(1))


def _best_blend(sets: Sequence[Members], probs: Float, labels: Labels, config: recipe.Ensemble) -> _Blend:
    """Return the best weighted mean of a set; one whose member says next to nothing only if there is no other."""
    means = ("arithmetic", "geometric") if config.mean == "auto" else (config.mean,)
    plain = {s: log_loss(blend(probs[list(s)], np.full(len(s), 1 / len(s))), labels) for s in sets}
    weighted = [
        _Blend(s, mean, fit_weights(probs[list(s)], labels, config.weights, mean=mean))
        for s in sorted(sets, key=lambda s: plain[s])[:SCORED_SETS]
        for mean in means
    ]

    def rank(one: _Blend) -> tuple[bool, float, int, float]:
        fitted = 0 if config.weights == "uniform" else len(one.members) - 1
        criterion = log_loss(one.of(probs), labels) + fitted / len(labels)
        return one.weights.min() < LEAST_WEIGHT, round(criterion, 3), len(one.members), criterion

    return min(weighted, key=rank)


def _fits(
    members: Members,
    costs: Sequence[Cost],
    latency_ms: Sequence[Mapping[Limit, float]],
    budget: Budget,
    input_elements: int,
    classes: int,
) -> bool:
    """Tell whether the graph of these members is within budget."""
    cost = total([costs[i] for i in members], input_elements, classes)
    return not budget.violations(cost, _summed([latency_ms[i] for i in members if latency_ms]))


def total(costs: Sequence[Cost], input_elements: int, classes: int) -> Cost:
    """Return the cost of networks side by side, with one weight each where there are several.

    Peak activations are an upper bound: while the largest member runs, the input waits for the others, and each of the
    others holds its output. So is the arena: of the members' activations, which are at least their peaks, the largest
    counts alone.
    """
    if len(costs) == 1:
        return costs[0]
    mixture = cost_of(_mixture(len(costs), classes))
    peaks = [cost.peak_activation_bytes for cost in costs]
    arenas = _added([*costs, mixture], "arena_bytes")
    shared = sum(peaks) - max(peaks) + len(costs) * arena.TAIL_FIXED_BYTES - arena.aligned(input_elements)
    return Cost(
        params=sum(cost.params for cost in costs) + mixture.params,
        macs=sum(cost.macs for cost in costs),
        weight_bytes=_added([*costs, mixture], "weight_bytes"),
        peak_activation_bytes=max(peaks) + input_elements + len(costs) * classes,
        arena_bytes={precision: size - shared for precision, size in arenas.items()},
        file_bytes={
            target: _sums(cost.file_bytes[target] for cost in [*costs, mixture]) for target in costs[0].file_bytes
        },
    )


def _mixture(members: int, classes: int) -> list[Operator]:
    """List what averages the members: a weight for each, and the sum."""
    outputs = [Operator(f"member_{i}", "input", (), (classes,)) for i in range(members)]
    weighted = [Operator(f"weight_{i}", "affine", (o.name,), (classes,), weights=1) for i, o in enumerate(outputs)]
    return [*outputs, *weighted, Operator("sum", "add", tuple(o.name for o in weighted), (classes,))]


def _added(costs: Sequence[Cost], key: str) -> dict[str, int]:
    return _sums(getattr(cost, key) for cost in costs)


def _sums(counted: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Add up by name what all have counted."""
    first, *others = counted
    return {name: value + sum(o[name] for o in others) for name, value in first.items()}


def _summed(latency_ms: Sequence[Mapping[Limit, float]]) -> dict[Limit, float]:
    """Add up latencies: members run one after the other on one thread."""
    return {limit: sum(ms[limit] for ms in latency_ms) for limit in latency_ms[0]} if latency_ms else {}


def _gain(differences: Float, seed: int) -> tuple[float, float]:
    rng = np.random.default_rng(seed)
    draws = rng.choice(differences, (BOOTSTRAP, len(differences))).mean(axis=1)
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)
