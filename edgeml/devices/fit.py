"""Coefficients from measurements: non-negative least squares of the relative error.

    latency [ms] = sum of coefficient x feature,    coefficients >= 0,    minimising sum of (predicted / measured - 1)^2

Lawson & Hanson 1974. The block of channels is the one that fits best. The error is that of leave-one-out: each network
is predicted by coefficients that never saw it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeml.devices.features import BLOCKS, Features, features
from edgeml.operators import Operator

Float = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Fit:
    """``ratios``: predicted / measured of each network (N,), left out of its own fit. ``range``: of each feature."""

    block: int
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
    for block in BLOCKS:
        names, x = _table([features(operators, runtime, precision, block) for operators in networks])
        errors[block] = float(np.abs(_left_out(x, ms) - 1).mean()), names, x
    block = min(BLOCKS, key=lambda block: errors[block][0])
    _, names, x = errors[block]
    coefficients = dict(zip(names, _solved(x, ms).tolist(), strict=True))
    measured = dict(zip(names, zip(x.min(axis=0).tolist(), x.max(axis=0).tolist(), strict=True), strict=True))
    return Fit(block, coefficients, measured, _left_out(x, ms))


def _table(rows: Sequence[Features]) -> tuple[list[str], Float]:
    names = sorted({name for row in rows for name in row})
    return names, np.array([[row.get(name, 0.0) for name in names] for row in rows])


def _solved(x: Float, ms: Float) -> Float:
    from scipy.optimize import nnls

    found: Float = nnls(x / ms[:, None], np.ones(len(ms)))[0]
    return found


def _left_out(x: Float, ms: Float) -> Float:
    rows = np.arange(len(ms))
    return np.array([x[i] @ _solved(x[rows != i], ms[rows != i]) / ms[i] for i in rows])
