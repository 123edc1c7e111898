"""Coefficients from measurements: non-negative least squares of the relative error.

    latency [ms] = sum of coefficient x feature,    coefficients >= 0,    minimising sum of (predicted / measured - 1)^2

Lawson & Hanson 1974. The tile of channels is the one that fits best. The error is that of leave-one-out: each network
is predicted by coefficients that never saw it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeml.devices.features import Features, features, tiles
from edgeml.operators import Operator

Float = NDArray[np.float64]
KEPT, TRIMMINGS = 0.8, 10  # share of the figures, and how often it is chosen anew


@dataclass(frozen=True, eq=False)
class Fit:
    """``ratios``: predicted / measured of each network (N,), left out of its own fit. ``range``: of each feature."""

    block: int
    depth: int
    coefficients: Mapping[str, float]
    range: Mapping[str, tuple[float, float]]
    ratios: Float

    def percentiles(self) -> tuple[float, float, float]:
        """Return the 5th, 50th and 95th percentile of predicted / measured."""
        p5, p50, p95 = np.percentile(self.ratios, [5, 50, 95]).tolist()
        return p5, p50, p95


def fit(networks: Sequence[Sequence[Operator]], ms: Float, runtime: str, precision: str) -> Fit:
    """Fit a latency model to networks and their measured latencies (N,) in ms."""
    errors = {}
    for tile in tiles(runtime):
        names, x = _table([features(operators, runtime, precision, *tile) for operators in networks])
        errors[tile] = float(np.abs(_left_out(x, ms) - 1).mean()), names, x
    tile = min(errors, key=lambda tile: errors[tile][0])
    _, names, x = errors[tile]
    coefficients = dict(zip(names, _solved(x, ms).tolist(), strict=True))
    measured = dict(zip(names, zip(x.min(axis=0).tolist(), x.max(axis=0).tolist(), strict=True), strict=True))
    return Fit(*tile, coefficients, measured, _left_out(x, ms))


def trimmed_ratios(networks: Sequence[Sequence[Operator]], ms: Float, runtime: str, precision: str, like: Fit) -> Float:
    """Return predicted / measured of every network (N,), fitted without the fifth that fits worst.

    A figure that is far too small pulls a fit of relative errors towards itself and hides among the others, one that
    is far too large a fit of absolute errors. Least trimmed squares (Rousseeuw 1984), begun at both, lets them stand
    out.
    """
    _, x = _table([features(operators, runtime, precision, like.block, like.depth) for operators in networks])
    found = []
    for begun in (_solved(x, ms), _solved(x, ms, np.ones(len(ms)))):
        coefficients = begun
        for _ in range(TRIMMINGS):
            off = np.abs(np.log(np.maximum(x @ coefficients / ms, 1e-9)))
            kept = np.argsort(off)[: math.ceil(KEPT * len(ms))]
            coefficients = _solved(x[kept], ms[kept])
        found.append((float(off[kept].sum()), coefficients))
    return np.asarray(x @ min(found, key=lambda one: one[0])[1] / ms)


def _table(rows: Sequence[Features]) -> tuple[list[str], Float]:
    names = sorted({name for row in rows for name in row})
    return names, np.array([[row.get(name, 0.0) for name in names] for row in rows])


def _solved(x: Float, ms: Float, scale: Float | None = None) -> Float:
    """Return the coefficients with the least squared error over ``scale``, the measured times unless given."""
    from scipy.optimize import nnls

    scale = ms if scale is None else scale
    found: Float = nnls(x / scale[:, None], ms / scale)[0]
    return found


def _left_out(x: Float, ms: Float) -> Float:
    rows = np.arange(len(ms))
    return np.array([x[i] @ _solved(x[rows != i], ms[rows != i]) / ms[i] for i in rows])
