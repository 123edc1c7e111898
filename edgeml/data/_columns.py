"""Columns (features of vectors, channels of windows) whose ranges differ, and one scale for all of them.

An int8 file has one scale for its whole input: with columns of ±4 and ±2,000 that is 16 a step, and the first is lost,
whatever the graph makes of it. Divided by powers of two, which is exact in floating point, all lie within -1..1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

APART = 32  # times that one column may reach further than another: 8 of an int8's 256 steps are left to it


def reach(x: NDArray[Any]) -> NDArray[np.float64]:
    """Return the largest absolute value of each column, the last axis of ``x``."""
    rows = x.reshape(-1, x.shape[-1])
    most: NDArray[np.float64] = np.maximum(rows.max(axis=0).astype(np.float64), -rows.min(axis=0).astype(np.float64))
    return most


def divisors(x: NDArray[Any]) -> tuple[float, ...]:
    """Return for each column the power of two that is just large enough; 1 for a column of zeros."""
    most = reach(x)
    return tuple(np.exp2(np.ceil(np.log2(np.where(most > 0, most, 1.0)))).tolist())


def divided(x: NDArray[Any], by: tuple[float, ...]) -> NDArray[np.float32]:
    """Return ``x`` as float32, each column divided by its divisor."""
    quotient: NDArray[np.float32] = (x / np.array(by)).astype(np.float32)
    return quotient


def notes(x: NDArray[Any]) -> list[str]:
    """Note columns of vectors and windows that an int8 file would lose."""
    if x.ndim == 4:
        return []
    most = reach(x)
    least, widest = int(np.where(most > 0, most, np.inf).argmin()), int(most.argmax())
    if most[widest] <= APART * most[least]:
        return []
    return [
        f"columns differ in range: the {widest + 1}. reaches {most[widest]:.4g}, the {least + 1}. {most[least]:.4g}; an"
        " int8 file has one scale for all and loses the small ones: write data.common_scale: true, or export float32"
        " only"
    ]
