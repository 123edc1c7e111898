"""Which networks a calibration measures, and which of them judge it.

random draws ─► within the budget's counts ─► evenly spaced by MACs + what is rare + what has the most of something
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np

from edgeml import costs
from edgeml.devices import profile
from edgeml.devices.features import BLOCKS, features
from edgeml.errors import BudgetError, NotMeasuredError
from edgeml.operators import Operator
from edgeml.records import Budget

NETWORKS, HELD_OUT = 50, 10
DRAWS = 40  # per network that is wanted; the feasible ones are thinned out evenly, by MACs
LOOKED_AT = 400  # networks, for features that are rare
SELDOM = 6  # networks that show each feature of the space, at least
FAR = 6  # networks that have the most of something, at most
MACS_PER_MS = 5e7  # more than one core does: what needs longer than the limit even so is not measured
Network = tuple[Operator, ...]


def draw(
    networks: Iterable[Network], budget: Budget, count: int, runtime: str, precision: str, seed: int = 0
) -> list[Network]:
    """Return about ``count`` networks within the budget's counts, in random order, evenly spaced by MACs.

    Those that show a feature which few have are added, and some that have the most of one: what was never measured
    cannot be predicted, and what is beyond that only badly.
    """
    ranked, chosen = evenly_spaced(networks, budget, count)
    few = ranked[:: max(1, len(ranked) // LOOKED_AT)]
    chosen += _showing_what_is_rare(few, chosen, runtime, precision)
    chosen += _reaching_far(few, chosen, runtime, precision)
    return [chosen[i] for i in np.random.default_rng(seed).permutation(len(chosen))]


def evenly_spaced(networks: Iterable[Network], budget: Budget, count: int) -> tuple[list[Network], list[Network]]:
    """Return the different networks within the budget's counts by MACs, and ``count`` of them, evenly spaced.

    Raises:
        BudgetError: there are not so many.
    """
    judge, most = replace(budget, latency=()), most_macs(budget)
    found: dict[Network, int] = {}
    for operators in networks:
        cost = costs.cost(operators, keys=judge.keys)
        if cost.macs <= most and not judge.violations(costs.charged(cost)):
            found[operators] = cost.macs
    if len(found) < count:
        raise BudgetError(
            f"search.space: {len(found)} different networks of those drawn are within the budget; {count} are"
            " needed. Raise the budget, or take a larger space."
        )
    ranked = sorted(found, key=lambda operators: found[operators])
    return ranked, [ranked[i] for i in np.linspace(0, len(ranked) - 1, count).round().astype(int)]


def most_macs(budget: Budget) -> float:
    """Return MACs above which no network meets the latency limits, however fast the machine is.

    A power of four, so that a limit that is changed a little finds the same profile.
    """
    most = min((limit.max_ms * MACS_PER_MS for limit in budget.latency), default=math.inf)
    return most if math.isinf(most) else 4.0 ** math.ceil(math.log(most, 4))


def _showing_what_is_rare(
    few: Sequence[Network], chosen: Sequence[Network], runtime: str, precision: str
) -> list[Network]:
    shown = {operators: _shown(operators, runtime, precision) for operators in {*few, *chosen}}
    counts = Counter(itertools.chain.from_iterable(shown[operators] for operators in chosen))
    taken, found = set(chosen), list[Network]()
    left = [operators for operators in few if operators not in taken]
    for name in sorted(set().union(*shown.values())):
        having = [operators for operators in left if name in shown[operators] and operators not in found]
        for operators in having[: max(0, SELDOM - counts[name])]:
            found.append(operators)
            counts.update(shown[operators])
    return found


def features_of(operators: Network, runtime: str, precision: str) -> dict[str, float]:
    """Return all features that a network may show, each at most as large as with the smallest block."""
    return {**dict.fromkeys(_shown(operators, runtime, precision), 0.0), **features(operators, runtime, precision, 1)}


def _reaching_far(few: Sequence[Network], chosen: Sequence[Network], runtime: str, precision: str) -> list[Network]:
    rows = {
        operators: features(operators, runtime, precision, BLOCKS[0])
        for operators in dict.fromkeys([*few, *chosen])  # in this order: a set's changes from process to process
        if _shown(operators, runtime, precision)
    }
    reach: Counter[str] = Counter()
    for operators in rows.keys() & set(chosen):
        reach |= Counter(rows[operators])
    found = list[Network]()
    while rows and len(found) < FAR:
        beyond = {o: sum(value > profile.BEYOND * reach[name] for name, value in rows[o].items()) for o in rows}
        farthest = max(beyond, key=beyond.__getitem__)
        if not beyond[farthest]:
            break
        found.append(farthest)
        reach |= Counter(rows[farthest])
    return found


@lru_cache(maxsize=1_000)
def _shown(operators: Network, runtime: str, precision: str) -> frozenset[str]:
    """Return the features of a network, whatever the block of channels will turn out to be."""
    try:
        return frozenset().union(*(features(operators, runtime, precision, block) for block in BLOCKS))
    except NotMeasuredError:
        return frozenset()


def held_out(rows: Sequence[Mapping[str, float]]) -> tuple[list[int], list[int]]:
    """Return the indices of ``HELD_OUT`` networks and of the others, by their features.

    The others show every feature of the former, too, and as much of it.
    """
    counts, held = Counter(itertools.chain.from_iterable(rows)), list[int]()
    left = dict(enumerate(rows))
    for index, row in enumerate(rows):
        if len(held) == HELD_OUT:
            break
        others = [other for place, other in left.items() if place != index]
        if all(
            counts[name] > 2 and value <= profile.BEYOND * max(other.get(name, 0.0) for other in others)
            for name, value in row.items()
        ):
            held.append(index)
            counts.subtract(list(row))
            del left[index]
    return held, list(left)
