"""What JSON can hold: it has no word for a number that is none."""

from __future__ import annotations

import math
from typing import Any


def written(value: Any) -> Any:
    """Turn numbers that JSON has not (NaN, infinity) into null."""
    if isinstance(value, dict):
        return {key: written(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [written(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
