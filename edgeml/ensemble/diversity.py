"""How different candidates are, pair by pair (Kuncheva & Whitaker 2003, doi 10.1023/A:1022859003006).

disagreement        share of rows that the two decide differently
error correlation   φ of "is wrong": 1 where both err on the same rows, 0 where independently of each other
double fault        share of rows on which both are wrong: no weighted mean of the two is likely to be right there
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeml.ensemble.means import Float


@dataclass(frozen=True, eq=False)
class Diversity:
    """Three matrices (M, M) over M candidates; a diagonal compares a candidate with itself."""

    disagreement: Float
    error_correlation: Float
    double_fault: Float


def pairwise(probs: Float, labels: NDArray[np.int64]) -> Diversity:
    """Compare candidates by their probabilities (M, N, K) on rows with these labels (N,)."""
    votes = probs.argmax(axis=2)
    wrong = (votes != labels).astype(np.float64)
    double_fault = wrong @ wrong.T / wrong.shape[1]
    rate = wrong.mean(axis=1)
    deviation = np.sqrt(rate * (1 - rate))
    scale = np.outer(deviation, deviation)
    covariance = double_fault - np.outer(rate, rate)
    same = np.eye(len(rate))  # also of one that never errs
    correlation = np.divide(covariance, scale, out=same, where=scale > 0)
    return Diversity(np.mean(votes[:, None] != votes[None], axis=2), correlation, double_fault)
