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
