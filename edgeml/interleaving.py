"""Interleaved timing of calls in this process, where many networks are timed at once: calibration, and tools.

All calls are visited round-robin in an order shuffled every round, as ``timing`` visits processes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from edgeml.bundled import stopwatch
from edgeml.bundled.processes import BLOCK_NS, BLOCK_RUNS, visit
from edgeml.bundled.stopwatch import OWN_PERCENTILE, QUIET_PERCENTILE

Blocks = list[NDArray[np.float64]]
Key = TypeVar("Key", bound=Hashable)


def quiet_ms(blocks: Blocks) -> float:
    """Return the 10th percentile of block minima, in ms."""
    return float(np.percentile([block.min() for block in blocks], QUIET_PERCENTILE))


def quiet_together(blocks: Mapping[Key, Blocks]) -> dict[Key, float]:
    """Return the quiet latencies, in ms, of calls that were visited in the same rounds.

    A processor changes its clock for seconds at a time (17 % were seen), so that the quiet percentile of one call may
    come from fast rounds and that of another from slow ones. Here a call's own time is a low percentile of its minima
    at one pace, times the pace of a quiet round.
    """
    minima = stopwatch.minima_of(list(blocks.values()))
    paced = stopwatch.at_one_pace(minima)
    own = np.percentile(paced, OWN_PERCENTILE, axis=1) * np.percentile(minima[0] / paced[0], QUIET_PERCENTILE)
    return dict(zip(blocks, own.tolist(), strict=True))


def interleaved(calls: Mapping[Key, Callable[[], None]], rounds: int) -> dict[Key, Blocks]:
    """Return the blocks of every call, visited round-robin in an order shuffled every round."""
    rng = np.random.default_rng(0)
    runs = {key: _block_runs(call) for key, call in calls.items()}
    blocks: dict[Key, Blocks] = {key: [] for key in calls}
    keys = list(calls)
    for _ in range(rounds):
        for index in rng.permutation(len(keys)):
            key = keys[index]
            blocks[key].append(_block(calls[key], runs[key]))
    return blocks


def _block_runs(call: Callable[[], None]) -> int:
    shortest = float(_block(call, BLOCK_RUNS[0]).min())
    return int(np.clip(BLOCK_NS / 1e6 / max(shortest, 1e-6), *BLOCK_RUNS))


def _block(call: Callable[[], None], runs: int) -> NDArray[np.float64]:
    return np.array(visit(call, runs)) / 1e6
