"""Inputs that no data set holds: flat, striped, noisy, nearly empty ones, within a range of values."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Range = tuple[float | NDArray[Any], float | NDArray[Any]]  # the least and the largest value; or those of each column
COLUMNS = (2, 3)  # axes of vectors (N, F) and windows (N, T, C): their last one has a range for each of its elements


def range_of(x: NDArray[Any]) -> Range:
    """Return the range of inputs (N, …): of vectors and windows that of each column, of images that of all values."""
    if x.ndim not in COLUMNS:
        return float(x.min()), float(x.max())
    axes = tuple(range(x.ndim - 1))
    return x.min(axis=axes), x.max(axis=axes)


def drawn(shape: tuple[int, ...], value_range: Range, count: int) -> NDArray[np.float32]:
    """Return ``count`` inputs (count, …), at least 8, the same ones each time.

    In this order: zero, the least, the largest and the middle value; both ends by turns; then uniform noise, normal
    noise (cut to the range) and single elements at the upper end, as many of each.
    """
    low, high = (np.broadcast_to(end, shape).astype(float) for end in value_range)
    middle, rng = (low + high) / 2, np.random.default_rng(0)
    flat = [np.zeros(shape), low, high, middle]
    striped = np.where(np.arange(np.prod(shape)).reshape(shape) % 2, low, high)
    rest = count - len(flat) - 1
    uniform, normal, dots = (rest // 3, (rest + 1) // 3, (rest + 2) // 3)
    noise = rng.uniform(low, high, (uniform, *shape))
    bell = np.clip(rng.normal(middle, (high - low) / 4, (normal, *shape)), low, high)
    single = np.broadcast_to(low, (dots, *shape)).copy()
    for one in single.reshape(dots, -1):
        place = rng.integers(one.size)
        one[place] = high.flat[place]
    return np.concatenate([np.stack([*flat, striped]), noise, bell, single]).astype("float32")
