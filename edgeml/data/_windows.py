"""Windows over consecutive rows: (n, C) and a label per row become (N, T, C) and a label per window.

rows    ────────────────────────────────────────────────────────────
windows [  T rows  ]                    one every S rows; all T rows of one label, else it is left out
              [          ]
blocks  |           4 T rows          | where S < T, windows share rows: none reaches over the end of a block, and a
                                        block goes to one split as a whole
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BLOCK_WINDOWS = 4  # lengths of a window in a block: about a quarter of overlapping windows is lost at the ends


@dataclass(frozen=True, eq=False)
class Cut:
    """Windows (N, T, C) with their labels, first rows and blocks, and how many were left out for which reason."""

    x: NDArray[np.float64]
    labels: tuple[str, ...]
    starts: tuple[int, ...]
    blocks: tuple[int, ...]
    two_labels: int
    over_blocks: int
    rows_left: int


def cut(values: NDArray[np.float64], labels: Sequence[str], window: int, stride: int) -> Cut:
    """Cut one recording, at least ``window`` rows of ``values`` (n, C), into windows."""
    block = BLOCK_WINDOWS * window if stride < window else len(values)
    starts = range(0, len(values) - window + 1, stride)
    whole = [start for start in starts if start // block == (start + window - 1) // block]
    kept = [start for start in whole if len(set(labels[start : start + window])) == 1]
    return Cut(
        x=np.stack([values[start : start + window] for start in kept]) if kept else _none(values, window),
        labels=tuple(labels[start] for start in kept),
        starts=tuple(kept),
        blocks=tuple(start // block for start in kept),
        two_labels=len(whole) - len(kept),
        over_blocks=len(starts) - len(whole),
        rows_left=len(values) - (starts[-1] + window),
    )


def _none(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    return np.empty((0, window, values.shape[1]))
