"""How far predicted latencies lie from what was measured, one line each, and the baselines that they have to beat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls
from scipy.stats import kendalltau

from edgeml import costs
from edgeml.operators import Operator

Float = NDArray[np.float64]
HEADER = f"{'':28s} median    p90    max  within 10 %    tau"


def line(name: str, predicted: Float, ms: Float) -> str:
    """Return median, 90th percentile and maximum of the relative error, the share within 10 %, Kendall's tau."""
    off = np.abs(predicted / ms - 1)
    p50, p90 = np.percentile(off, [50, 90])
    tau = kendalltau(predicted, ms).statistic
    return f"{name:28s} {p50:6.1%} {p90:6.1%} {off.max():6.1%} {np.mean(off < 0.1):12.0%} {tau:6.3f}"


def baselines(networks: Sequence[Sequence[Operator]], ms: Float) -> list[str]:
    """Return the lines of "proportional to MACs" and "a + b MACs", fitted to the very networks they are judged on."""
    macs = np.array([float(costs.cost(network, keys=()).macs) for network in networks])
    tables = {"proportional to MACs": macs[:, None], "a + b MACs": np.stack([np.ones_like(macs), macs], 1)}
    return [line(name, x @ nnls(x / ms[:, None], np.ones(len(ms)))[0], ms) for name, x in tables.items()]
