"""Inputs that no data set holds: flat, striped, noisy, nearly empty ones, within a range of values."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def drawn(shape: tuple[int, ...], value_range: tuple[float, float], count: int) -> NDArray[np.float32]:
    """Return ``count`` inputs (count, …), at least 8, the same ones each time.

    In this order: zero, the least, the largest and the middle value; both ends by turns; then uniform noise, normal
    noise (cut to the range) and single elements at the upper end, as many of each.
    """
    low, high = value_range
    middle, rng = (low + high) / 2, np.random.default_rng(0)
    flat = [np.full(shape, value, "float32") for value in (0.0, low, high, middle)]
    striped = np.where(np.arange(np.prod(shape)).reshape(shape) % 2, low, high).astype("float32")
    rest = count - len(flat) - 1
    uniform, normal, dots = (rest // 3, (rest + 1) // 3, (rest + 2) // 3)
    noise = rng.uniform(low, high, (uniform, *shape))
    bell = np.clip(rng.normal(middle, (high - low) / 4, (normal, *shape)), low, high)
    single = np.full((dots, *shape), low)
    for one in single.reshape(dots, -1):
        one[rng.integers(one.size)] = high
    return np.concatenate([np.stack([*flat, striped]), noise, bell, single]).astype("float32")
