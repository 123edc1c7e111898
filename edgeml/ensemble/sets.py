"""Sets of candidates within budget, the most promising first, whatever each is worth by itself.

    p  probability of the true class, as a set says it;  q  the same of a candidate
    p ← (1 - v) p + v q                      v: the best of STEPS, for every candidate that still fits

A set of k grows from one of k - 1 by every candidate: one that errs often, but where the others do not, joins with a
small v. The BREADTH best sets of a size grow on, their weights settled by expectation-maximisation (Dempster et al.
1977: w ← w · mean(q / p), which only ever lowers the log-loss). A set within budget has only subsets within it,
so growth misses none for its cost.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgeml.ensemble.means import EPSILON, Float

Members = tuple[int, ...]
BREADTH = 40
STEPS = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95)
SETTLING = 30  # rounds of expectation-maximisation
VALUES, ROWS = 500_000, (300, 4096)  # so many values of all candidates rank sets; all rows fit weights afterwards


@dataclass(frozen=True)
class Grown:
    """Sets by size, each size's best first, as indices in rising order, with their ``losses``.

    ``seen``: how many sets within budget were looked at.
    """

    by_size: dict[int, list[Members]]
    losses: dict[Members, float]
    seen: int


def grow(true: Float, fits: Callable[[Members], bool], most: int) -> Grown:
    """Grow sets of up to ``most`` candidates, whose probabilities of the true class are ``true`` (M, N)."""
    rows = int(np.clip(VALUES // max(len(true), 1), *ROWS))
    true = np.maximum(true[:, :: -(-true.shape[1] // rows)], EPSILON)
    sets: dict[Members, Float] = {(i,): true[i] for i in range(len(true)) if fits((i,))}
    by_size, losses, seen = dict[int, list[Members]](), dict[Members, float](), len(sets)
    for size in range(1, most + 1):
        if not sets:
            break
        losses |= {members: _loss(p) for members, p in sets.items()}
        by_size[size] = sorted(sets, key=lambda one: losses[one])
        best = {members: sets[members] for members in by_size[size][:BREADTH]}
        larger = _larger(true, best, fits) if size < most else []
        seen += len(larger)
        sets = {members: _settled(true[list(members)]) for members in larger[:BREADTH]}
    return Grown(by_size, losses, seen)


def _larger(true: Float, sets: dict[Members, Float], fits: Callable[[Members], bool]) -> list[Members]:
    """Return every set of one member more, by its loss with the best step."""
    best: dict[Members, float] = {}
    for members, p in sets.items():
        added = [i for i in range(len(true)) if i not in members and fits(tuple(sorted((*members, i))))]
        if not added:
            continue
        losses = np.min([-np.log((1 - v) * p + v * true[added]).mean(axis=1) for v in STEPS], axis=0)
        for i, loss in zip(added, losses.tolist(), strict=True):
            larger = tuple(sorted((*members, i)))
            best[larger] = min(loss, best.get(larger, np.inf))
    return sorted(best, key=lambda one: best[one])


def _settled(true: Float) -> Float:
    """Return the mixture (N,) of members (M, N) with weights near the best."""
    weights = np.full(len(true), 1 / len(true))
    for _ in range(SETTLING):
        weights = weights * (true / (weights @ true)).mean(axis=1)
    return np.asarray(weights @ true)


def _loss(p: Float) -> float:
    return float(-np.log(p).mean())
