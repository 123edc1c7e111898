"""Latency of opened models: interleaved, warmed up, repeated, with an interval and a noise floor.

All models are visited round-robin in an order shuffled every round; a visit runs a few warm-ups, then a block, and
keeps every time of the block. Quiet latency is the 10th percentile of the block minima: the noise of a shared machine
is bimodal (its sibling thread idle or busy), so that a median flips between modes while this figure repeats within
0.1-0.4 %. p50, p90 and p99 of all runs stand beside it as "in this environment".

Every file is opened twice; how far the twins lie apart, or the first half of the rounds from the last, is the noise
floor below which no difference is claimed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from edgeml.runtimes import Arrays, open_model

ROUNDS = 25
WARM_UPS = 3
BLOCK_MS = 4.0  # a block lasts about this long, within 7 to 120 runs
BLOCK_RUNS = (7, 120)
QUIET_PERCENTILE = 10
OWN_PERCENTILE = 25  # of what the pace of the rounds leaves: noise is one-sided, but a round's pace is an estimate
BOOTSTRAP = 1000


@dataclass(frozen=True)
class Latency:
    """Latency of one file, of one sample or of its whole fixed ``batch``.

    ``noise_floor``: how far the same file lies from itself, relative.
    """

    file: str
    runtime: str
    precision: str
    device: str
    threads: int
    quiet_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    interval_95: tuple[float, float]
    noise_floor: float
    predicted_ms: float | None
    load_ms: float
    batch: int = 1


@dataclass(frozen=True)
class Comparison:
    """Ratio of two quiet latencies, claimed only outside interval and noise floor."""

    file: str
    against: str
    ratio: float
    interval_95: tuple[float, float]
    noise_floor: float
    claim: str


Blocks = list[NDArray[np.float64]]
Key = TypeVar("Key", bound=Hashable)


def measure(
    files: Mapping[str, Path], inputs: Arrays, *, precision: Mapping[str, str], threads: int = 1, rounds: int = ROUNDS
) -> tuple[list[Latency], dict[str, Blocks]]:
    """Time every file; return records in the order of ``files``, and the blocks of runs (ms) behind them."""
    calls: dict[tuple[str, int], Callable[[], None]] = {}
    runtimes: dict[str, str] = {}
    load_ms: dict[str, float] = {}
    batches: dict[str, int] = {}
    for name, path in files.items():
        for twin in (0, 1):
            start = time.perf_counter()
            loaded = open_model(path, threads)
            load_ms.setdefault(name, 1e3 * (time.perf_counter() - start))
            runtimes[name], batches[name] = loaded.runtime, loaded.signature.batch or 1
            calls[name, twin] = loaded.single(inputs)
    blocks = interleaved(calls, rounds)
    records = []
    for name in files:
        own, twin_blocks = blocks[name, 0], blocks[name, 1]
        everything = np.concatenate(own + twin_blocks)
        p50, p90, p99 = np.percentile(everything, [50, 90, 99])
        together = own + twin_blocks
        interval = _interval([together], lambda b: quiet_ms(b[0]))
        records.append(
            Latency(
                name, runtimes[name], precision[name], "host", threads, quiet_ms(together), float(p50), float(p90),
                float(p99), interval, _noise_floor(own, twin_blocks), None, load_ms[name], batches[name],
            )
        )  # fmt: skip
    return records, {name: blocks[name, 0] + blocks[name, 1] for name in files}


def compare(file: str, blocks: Blocks, against: str, other: Blocks, noise_floor: float) -> Comparison:
    """Compare two files timed in one run; lower is faster."""
    ratio = quiet_ms(blocks) / quiet_ms(other)
    low, high = _interval([blocks, other], lambda b: quiet_ms(b[0]) / quiet_ms(b[1]))
    claim = "faster" if high < 1 - noise_floor else "slower" if low > 1 + noise_floor else "no difference"
    return Comparison(file, against, ratio, (low, high), noise_floor, claim)


def _noise_floor(own: Blocks, twin: Blocks) -> float:
    """Return how far the same file lies from itself: opened twice, and in the first half of the rounds and the last."""
    half = len(own) // 2
    pairs = [(own, twin)]
    if half:
        pairs += [(own[:half] + twin[:half], own[half:] + twin[half:])]
    return max(abs(quiet_ms(a) / quiet_ms(b) - 1) for a, b in pairs)


def quiet_ms(blocks: Blocks) -> float:
    """Return the 10th percentile of block minima, in ms."""
    return float(np.percentile([block.min() for block in blocks], QUIET_PERCENTILE))


def quiet_together(blocks: Mapping[Key, Blocks]) -> dict[Key, float]:
    """Return the quiet latencies, in ms, of calls that were visited in the same rounds.

    A processor changes its clock for seconds at a time (17 % were seen), so that the quiet percentile of one call may
    come from fast rounds and that of another from slow ones. Here ``minimum = own x pace of the round x noise``: pace
    is the median over the calls, and a call's own time a low percentile of what is left, at a quiet round's pace.
    """
    minima = np.log([[block.min() for block in own] for own in blocks.values()])
    pace = np.median(minima - np.median(minima, axis=1, keepdims=True), axis=0)
    own = np.percentile(minima - pace, OWN_PERCENTILE, axis=1) + np.percentile(pace, QUIET_PERCENTILE)
    return dict(zip(blocks, np.exp(own).tolist(), strict=True))


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
    return int(np.clip(BLOCK_MS / max(shortest, 1e-6), *BLOCK_RUNS))


def _block(call: Callable[[], None], runs: int) -> NDArray[np.float64]:
    for _ in range(WARM_UPS):
        call()
    times = np.empty(runs)
    clock = time.perf_counter_ns
    for i in range(runs):
        start = clock()
        call()
        times[i] = clock() - start
    return times / 1e6


def _interval(samples: Sequence[Blocks], statistic: Callable[[list[Blocks]], float]) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of ``statistic``, blocks drawn with replacement."""
    rng = np.random.default_rng(1)
    minima = [[np.array([block.min()]) for block in blocks] for blocks in samples]
    draws = [
        statistic([[own[i] for i in rng.integers(len(own), size=len(own))] for own in minima]) for _ in range(BOOTSTRAP)
    ]
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)
