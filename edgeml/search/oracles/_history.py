"""What an oracle learns from: its completed trials, and which of them where there are too many to learn from all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np


def completed(oracle: Any) -> list[Any]:
    """Return the trials that gave a number, in the order in which they ended."""
    ended = (oracle.trials[trial_id] for trial_id in oracle.end_order)
    return [t for t in ended if t.status == "COMPLETED" and t.score is not None and math.isfinite(t.score)]


def losses(oracle: Any, trials: Sequence[Any]) -> np.ndarray:
    """Return the scores of ``trials``, smaller is better."""
    sign = -1.0 if oracle.objective.direction == "max" else 1.0
    return np.array([sign * trial.score for trial in trials])


def subset(oracle: Any, trials: Sequence[Any], *, best: int, others: int) -> list[Any]:
    """Return the ``best`` trials and ``others`` of the rest, drawn by the oracle's seed, in the order of ``trials``.

    The draw gives each place of ``trials`` a fixed rank, so that one trial more changes the choice by one at most.
    """
    if len(trials) <= best + others:
        return list(trials)
    order = np.argsort(losses(oracle, trials), kind="stable")
    ranks = np.random.default_rng(oracle.seed).random(len(trials))
    rest = sorted(order[best:], key=lambda place: ranks[place])[:others]
    return [trials[place] for place in sorted([*order[:best], *rest])]
