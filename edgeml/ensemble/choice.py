"""Which candidates join: the best weighted mean among the sets whose whole graph is within budget.

Sets of every size are grown (``sets``), the best of each size weighted and ranked by Akaike's criterion (each weight
that was fitted costs 1/N of log-loss, Akaike 1974). Of sets alike to three decimals the one leads whose members fail
together least.

What that is worth is cross-fitted, choice and all: for each fifth of the blend split members, mean and weights are
chosen anew by the other four, and judged by the fifth. Size by size: one member more has to lower that log-loss by more
than its noise (bootstrap), or it is left out. The second one has to beat the best single network as it is, which all of
the split chose: what it gains by that is on its side.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgeml import recipe
from edgeml.ensemble import sets
from edgeml.ensemble.charge import summed, total
from edgeml.ensemble.diversity import pairwise
from edgeml.ensemble.means import MEANS, Float, blend, log_loss, losses
from edgeml.ensemble.sets import Members
from edgeml.ensemble.weights import FOLDS, Labels, fit_weights, folds
from edgeml.errors import BudgetError
from edgeml.records import Budget, Cost, Limit

SCORED_SETS = 12  # of each size are weighted
MEANS_TRIED_ON = 3  # of them with every mean
LEAST_WEIGHT = 0.01  # a member that says less than this costs its whole network for nothing
TINY = 1e-12  # what is less is none: float32 would not see it
BOOTSTRAP = 2000
LEAST_GAIN = 1e-6  # of log-loss: what rounding alone can give to copies of one network


@dataclass(frozen=True, eq=False)
class Blend:
    """Members, their mean and weights, as some rows of the blend split decided."""

    members: Members
    mean: str
    weights: Float

    def of(self, probs: Float) -> Float:
        """Average ``probs`` (M, N, K) of all candidates."""
        return blend(probs[list(self.members)], self.weights, self.mean)

    def tidied(self) -> Blend:
        """Return the blend heaviest member first, beyond the second without those that say next to nothing.

        Of one member that says all no mean is taken.
        """
        ranked = np.argsort(-self.weights, kind="stable").tolist()
        order = [i for place, i in enumerate(ranked) if self.weights[i] >= (TINY if place < 2 else LEAST_WEIGHT)]
        weights = self.weights[order]
        mean = self.mean if len(order) > 1 else "arithmetic"
        return Blend(tuple(self.members[i] for i in order), mean, weights / weights.sum())


@dataclass(frozen=True)
class Step:
    """What a graph of ``size`` members is worth: its cross-fitted ``loss``, and the ``gain_95`` over ``against``."""

    size: int
    loss: float
    against: int
    gain_95: tuple[float, float]
    taken: bool


@dataclass(frozen=True, eq=False)
class Choice:
    """Who ships, and why. ``members``: indices of candidates, ``single``: the best one alone.

    Cross-fitted on the blend split, the choice included: ``loss`` of what ships, ``predicted`` (N, K), ``steps`` by
    size, ``gain_95`` over the single network, whose own log-loss is ``single_loss``. ``ensemble``: the best of several
    members, shipped or not, with its ``ensemble_loss``; None where none fits. ``compared``: sets of candidates within
    budget, single ones too, that the blend split decided between; ``scored``: those whose weights were fitted.
    """

    members: Members
    weights: tuple[float, ...]
    mean: str
    loss: float
    single: int
    single_loss: float
    gain_95: tuple[float, float]
    reason: str
    predicted: Float
    compared: int
    scored: int = 0
    ensemble: Blend | None = None
    ensemble_loss: float = float("nan")
    steps: tuple[Step, ...] = ()

    @property
    def shipping(self) -> Blend:
        """What ships, as a blend."""
        return Blend(self.members, self.mean, np.array(self.weights))


def choose(
    probs: Float,
    labels: Labels,
    costs: Sequence[Cost],
    budget: Budget,
    config: recipe.Ensemble,
    *,
    latency_ms: Sequence[Mapping[Limit, float]] = (),
    input_elements: int = 0,
    means: Collection[str] = tuple(MEANS),
    refused: Collection[frozenset[int]] = (),
    seed: int = 0,
) -> Choice:
    """Choose members among candidates with ``probs`` (M, N, K) on the blend split.

    ``input_elements``: scalars of one sample, which stay alive until the last member has read them. ``means``:
    those that the recipe's targets can take. ``refused``: sets whose graph was compiled and turned out to be over
    budget.

    Raises:
        BudgetError: no candidate fits the budget.
    """

    def fits(members: Members, mean: str) -> bool:
        if mean not in (*means, "auto"):
            return False
        cost = total([costs[i] for i in members], input_elements, probs.shape[2], mean)
        return not budget.violations(cost, summed([latency_ms[i] for i in members if latency_ms]))

    def decide(rows: Float, own: Labels) -> dict[int, Blend]:
        return _best_by_size(rows, own, fits, refused, config)[0]

    best, seen, scored = _best_by_size(probs, labels, fits, refused, config)
    if 1 not in best:
        raise BudgetError("ensemble: no trained network fits the budget. Raise the budget or search again.")
    predicted = _cross_fitted(decide, probs, labels, tuple(best), seed)
    by_size = {size: losses(rows, labels) for size, rows in predicted.items()}
    loss_of = {size: float(each.mean()) for size, each in by_size.items()}
    by_size[1] = losses(best[1].of(probs), labels)
    light = {size for size, one in best.items() if one.weights.min() < LEAST_WEIGHT}
    size, steps = _steps(by_size, light, config.keep, seed)
    several = min((s for s in best if s > 1), key=lambda s: (s != size, loss_of[s]), default=None)
    shipping, together = best[size].tidied(), best[several or 1].tidied()
    gain = _gain(by_size[1] - by_size[several or 1], seed)
    single_loss = float(by_size[1].mean())
    reason = _reason(config.keep, size, loss_of[size], single_loss, gain, several is None, len(probs))
    if config.max_members == 1:
        reason = "one network was asked for (ensemble.max_members)"
    if size > 1 and len(shipping.members) == 1:
        reason = "no second network is worth any weight"
        steps = tuple(replace(step, taken=False) for step in steps)
    return Choice(
        shipping.members, tuple(shipping.weights.tolist()), shipping.mean, loss_of[size], best[1].members[0],
        single_loss, gain, reason, predicted[size], seen, scored,
        together if len(together.members) > 1 else None, loss_of[several or 1], steps,
    )  # fmt: skip


def _reason(
    keep: str, size: int, loss: float, single_loss: float, gain: tuple[float, float], alone: bool, count: int
) -> str:
    if alone and count < 2:
        return "there is one candidate, and no ensemble of it"
    if alone:
        return "no set of two or more networks fits the budget"
    low, high = gain
    beyond = f"gain {low:.2g} to {high:.2g}"
    if size == 1:
        return f"the best ensemble does not beat the best single network beyond noise ({beyond})"
    figures = f"cross-fitted blend log-loss {loss:.4f} against {single_loss:.4f}, {beyond}"
    if low > LEAST_GAIN:
        return f"it beats the best single network ({figures})"
    verdict = "the best single network is better" if loss > single_loss else "that is no more than noise"
    return f"the recipe keeps the ensemble always, though {verdict} ({figures})"


def _steps(by_size: Mapping[int, Float], light: Collection[int], keep: str, seed: int) -> tuple[int, tuple[Step, ...]]:
    """Return the size that ships, and what each size was worth against the one taken before.

    ``light``: sizes whose best set has a member of next to no weight.
    """
    taken, steps = 1, []
    for size in sorted(by_size)[1:]:
        low, high = _gain(by_size[taken] - by_size[size], seed)
        is_taken = (low > LEAST_GAIN and size not in light) or (taken == 1 and keep == "always")
        steps.append(Step(size, float(by_size[size].mean()), taken, (low, high), is_taken))
        taken = size if is_taken else taken
    return taken, tuple(steps)


def _cross_fitted(
    decide: Callable[[Float, Labels], Mapping[int, Blend]],
    probs: Float,
    labels: Labels,
    sizes: Sequence[int],
    seed: int,
) -> dict[int, Float]:
    """Return by size each row (N, K) as the other folds would have it."""
    fold = folds(labels, seed)
    rows = {size: np.empty(probs.shape[1:]) for size in sizes}
    for number in range(FOLDS):
        held, rest = fold == number, fold != number
        decided = decide(probs[:, rest], labels[rest])
        for size in sizes:
            rows[size][held] = decided[size].of(probs[:, held])
    return rows


def _best_by_size(
    probs: Float,
    labels: Labels,
    fits: Callable[[Members, str], bool],
    refused: Collection[frozenset[int]],
    config: recipe.Ensemble,
) -> tuple[dict[int, Blend], int, int]:
    """Return the best blend of each size, how many sets were looked at, and how many weighted."""
    true, most = probs[:, np.arange(len(labels)), labels], min(config.max_members, len(probs))
    grown = sets.grow(true, lambda one: fits(one, config.mean), most)
    together = pairwise(probs, labels).double_fault
    best, scored = dict[int, Blend](), 0
    for size, members in grown.by_size.items():
        allowed = [one for one in members if frozenset(one) not in refused]
        if size == 1 and allowed:
            best[1] = Blend(min(allowed, key=lambda one: log_loss(probs[one[0]], labels)), "arithmetic", np.ones(1))
        elif allowed:
            best[size] = _best_blend(allowed[:SCORED_SETS], probs, labels, fits, config, together)
            scored += min(len(allowed), SCORED_SETS)
    return best, grown.seen, scored


def _best_blend(
    members: Sequence[Members],
    probs: Float,
    labels: Labels,
    fits: Callable[[Members, str], bool],
    config: recipe.Ensemble,
    together: Float,
) -> Blend:
    """Return the best weighted mean of a set; one whose member says next to nothing only if there is no other."""

    def weighted(one: Members, mean: str) -> Blend:
        return Blend(one, mean, fit_weights(probs[list(one)], labels, config.weights, mean=mean))

    def rank(one: Blend) -> tuple[bool, float, float, float]:
        fitted = 0 if config.weights == "uniform" else len(one.members) - 1
        criterion = log_loss(one.of(probs), labels) + fitted / len(labels)
        failing = together[np.ix_(one.members, one.members)].mean()
        return one.weights.min() < LEAST_WEIGHT, round(criterion, 3), float(failing), criterion

    first, *others = MEANS if config.mean == "auto" else (config.mean,)
    ranked = sorted((weighted(one, first) for one in members), key=rank)
    tried = ((one.members, mean) for one in ranked[:MEANS_TRIED_ON] for mean in others if fits(one.members, mean))
    return min([*ranked, *(weighted(*one) for one in tried)], key=rank)


def _gain(differences: Float, seed: int) -> tuple[float, float]:
    rng = np.random.default_rng(seed)
    draws = rng.choice(differences, (BOOTSTRAP, len(differences))).mean(axis=1)
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)
