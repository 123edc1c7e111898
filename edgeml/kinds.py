"""What one sample is, told by how many sizes it has: a vector, a window of a signal, or an image.

    (F,)       a vector     F features, in no order                        one row of a table
    (T, C)     a window     T steps of C channels                          consecutive rows of sensors
    (H, W, C)  an image     H x W pixels of C channels

Channels are last: what is said per channel (standardization) is said per feature of a vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """What data are: ``name`` as in a recipe, ``sample`` as the graph's input is called, ``layout`` with the batch."""

    name: str
    sample: str
    layout: str


KINDS = {
    1: Kind("vectors", "vector", "NF"),
    2: Kind("windows", "window", "NTC"),
    3: Kind("images", "image", "NHWC"),
}  # by the number of sizes
NAMES = tuple(kind.name for kind in KINDS.values())


def kind_of(sample_shape: Sequence[int]) -> Kind:
    """Return the kind of samples of a shape (without batch)."""
    return KINDS[len(sample_shape)]
