"""Confidence intervals of what is counted on a finite test split."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Z_95 = 1.959964


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
