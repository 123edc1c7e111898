"""Weighted means of what members say: a sum of one term per member, then divided by its sum over the classes.

arithmetic    p = Σ wᵢ pᵢ
geometric     p ∝ exp Σ wᵢ log pᵢ      the weighted mean of logits
exponential   p ∝ Σ wᵢ exp pᵢ          flatter than the arithmetic mean: no class is ever ruled out

A member that has all the weight is the mean, whatever its kind, as its graph is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
EPSILON = 1e-7  # as Keras clips probabilities before the logarithm
SUM_TOLERANCE = 1e-3  # of a row of probabilities: half precision rounds by as much


@dataclass(frozen=True)
class Mean:
    """``term``: what a member's probabilities become; ``finish``: what the weighted sum of terms becomes."""

    term: Callable[[Float], Float]
    finish: Callable[[Float], Float]


def _normalised(values: Float) -> Float:
    return np.asarray(values / values.sum(axis=-1, keepdims=True))


def _softmax(values: Float) -> Float:
    return _normalised(np.exp(values - values.max(axis=-1, keepdims=True)))


def _logarithm(p: Float) -> Float:
    """Return log p as the graph has it: of a network's softmax its logits, however low; of a forest's 0 a floor."""
    return np.asarray(np.log(np.where(p > 0, p, EPSILON)))


MEANS: Mapping[str, Mean] = {
    "arithmetic": Mean(np.asarray, np.asarray),
    "geometric": Mean(_logarithm, _softmax),
    "exponential": Mean(np.exp, _normalised),
}


def blend(probabilities: Float, weights: Float, mean: str = "arithmetic") -> Float:
    """Average ``probabilities`` (M, N, K) with ``weights`` (M,) into (N, K)."""
    alone = np.flatnonzero(weights)
    if len(alone) == 1:
        return np.asarray(probabilities[alone[0]], np.float64)
    return MEANS[mean].finish(np.tensordot(weights, MEANS[mean].term(probabilities), axes=1))


def losses(probabilities: Float, labels: NDArray[np.int64]) -> Float:
    """Return the log-loss of each row of (N, K)."""
    return np.asarray(-np.log(np.clip(probabilities[np.arange(len(labels)), labels], EPSILON, 1.0)))


def log_loss(probabilities: Float, labels: NDArray[np.int64]) -> float:
    """Return the mean log-loss of (N, K)."""
    return float(losses(probabilities, labels).mean())
