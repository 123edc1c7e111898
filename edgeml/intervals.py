"""What a finite test split can tell: intervals, whether two models differ, how far confidence is to be trusted."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Z_95 = 1.959964
BOOTSTRAP = 2000
BINS = 15  # of confidence, as in Guo et al. 2017


def proportion(correct: int, samples: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of ``correct`` out of ``samples`` (Wilson 1927)."""
    if not samples:
        return 0.0, 1.0
    share, z2 = correct / samples, Z_95**2
    centre = (share + z2 / (2 * samples)) / (1 + z2 / samples)
    half = Z_95 * math.sqrt(share * (1 - share) / samples + z2 / (4 * samples**2)) / (1 + z2 / samples)
    return max(0.0, centre - half), min(1.0, centre + half)


def accuracy(predicted: NDArray[Any], labels: NDArray[np.int64]) -> dict[str, Any]:
    """Return accuracy, its 95 % interval and the number of samples, from class indices."""
    correct = int(np.sum(predicted == labels))
    low, high = proportion(correct, len(labels))
    return {"accuracy": correct / len(labels), "interval_95": [low, high], "samples": len(labels)}


def balanced_accuracy(predicted: NDArray[Any], labels: NDArray[np.int64]) -> dict[str, Any]:
    """Return the mean recall of the classes that occur, its 95 % interval and the number of samples.

    The interval recovers the variance of the mean from each recall's Wilson interval (MOVER: Zou & Donner 2008, doi
    10.1002/sim.3095):  lower end = mean - √Σ (r_c - l_c)² / k, the upper one alike.
    """
    right, counts = (
        np.bincount(values, minlength=int(labels.max()) + 1) for values in (labels[predicted == labels], labels)
    )
    occurring = np.flatnonzero(counts)
    recalls = right[occurring] / counts[occurring]
    ends = np.array([proportion(int(right[k]), int(counts[k])) for k in occurring])
    mean = float(recalls.mean())
    low, high = np.sqrt(((ends - recalls[:, None]) ** 2).sum(axis=0)) / len(occurring)
    return {"accuracy": mean, "interval_95": [max(0.0, mean - low), min(1.0, mean + high)], "samples": len(labels)}


def bootstrap(right: NDArray[np.bool_], seed: int = 0) -> tuple[float, float]:
    """Return the 95 % bootstrap interval (percentiles) of the share of rows that are right."""
    drawn = np.random.default_rng(seed).binomial(len(right), float(np.mean(right)), BOOTSTRAP) / len(right)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def paired_difference(only: int, only_other: int, samples: int) -> tuple[float, float]:
    """Return the 95 % interval of the difference of two models' accuracies on the same rows.

    ``only``: rows where the first alone is right, ``only_other``: the second alone. Half a row is added to each
    (Agresti & Min 2005, doi 10.1002/sim.1781): an interval of no width would claim too much.
    """
    first, second, rows = only + 0.5, only_other + 0.5, samples + 2
    difference = (first - second) / rows
    half = Z_95 * math.sqrt(first + second - (first - second) ** 2 / rows) / rows
    return max(-1.0, difference - half), min(1.0, difference + half)


def mcnemar(only: int, only_other: int) -> float:
    """Return the exact two-sided p of two models erring alike, by the rows where one alone is right (McNemar 1947)."""
    rows, fewer = only + only_other, min(only, only_other)
    return min(1.0, float(2 * sum(math.comb(rows, k) for k in range(fewer + 1)) / 2**rows))


def calibration_error(probabilities: NDArray[Any], labels: NDArray[np.int64]) -> float:
    """Return the expected calibration error of (N, K): |accuracy - confidence| by bins (Guo 2017, arXiv 1706.04599)."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = (np.bincount(place, values, BINS) for values in (right.astype(float), confidence))
    return float(np.abs(np.subtract(*gaps)).sum() / len(labels))


def tail(count: int, n: int, rate: float) -> float:
    """Return the probability of at least ``count`` events among ``n``, each of probability ``rate``."""
    return 1.0 - sum(math.comb(n, k) * rate**k * (1 - rate) ** (n - k) for k in range(count))
