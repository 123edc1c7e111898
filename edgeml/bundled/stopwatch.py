"""What blocks of runs say: figures of a file that was opened several times, ratios of two, and what they were made on.

The quiet latency of one process is the 10th percentile of its block minima: the noise of a shared machine has two modes
(a busy or an idle sibling core), and a median flips between them. How a process has its memory laid out sets it apart
from the next (8 % were seen for a network of 11 µs), so each file is opened in several, and their median counts.

What is compared was visited in the same rounds, so that the pace of a round (a clock that changes for seconds) is taken
out first: ``minimum = own x pace x noise``, pace the median over all processes. How far the processes of one file then
lie apart, an A/A control, is the noise floor.
"""

from __future__ import annotations

import os
import platform
import random
from pathlib import Path
from typing import Any

import numpy as np

OPENINGS, ROUNDS = 4, 12
QUIET_PERCENTILE, RESAMPLES, SEED = 10, 1_000, 1
OWN_PERCENTILE = 25  # at one pace: noise is one-sided, but a round's pace is an estimate
FLAGS = ("avx2", "avx512f", "avx512_vnni", "amx_int8", "asimd", "asimddp", "i8mm", "sve")
GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def visited(sessions: list[Any], runs: list[int], rounds: int) -> list[list[Any]]:
    """Ask each session for a block of its ``runs`` a round, in an order shuffled every round; return blocks [ms]."""
    blocks: list[list[Any]] = [[] for _ in sessions]
    order, shuffle = list(range(len(sessions))), random.Random(SEED).shuffle
    for _ in range(rounds):
        shuffle(order)
        for place in order:
            blocks[place].append(np.array(sessions[place].ask("block", runs=runs[place])["ns"]) / 1e6)
    return blocks


def figures(openings: list[list[Any]], paced: Any) -> dict[str, Any]:
    """Sum up a file: ``openings`` hold the blocks of each of its processes [ms], ``paced`` their minima at one pace."""
    minima = minima_of(openings)
    everything = np.concatenate([block for blocks in openings for block in blocks])
    p50, p90, p99 = (float(value) for value in np.percentile(everything, (50, 90, 99)))
    alone = np.percentile(paced, OWN_PERCENTILE, axis=1)
    return {
        "quiet_ms": float(middle(minima, QUIET_PERCENTILE)), "interval_95": interval(drawn(minima, QUIET_PERCENTILE)),
        "p50_ms": p50, "p90_ms": p90, "p99_ms": p99,
        "noise_floor": float(alone.max() / alone.min() - 1), "runs": len(everything),
    }  # fmt: skip


def ratio(paced: Any, others: Any) -> tuple[float, list[float]]:
    """Return how long one file takes by another, and the 95 % interval, of minima at one pace (openings, rounds)."""
    found = middle(paced, OWN_PERCENTILE) / middle(others, OWN_PERCENTILE)
    return float(found), interval(drawn(paced, OWN_PERCENTILE) / drawn(others, OWN_PERCENTILE, SEED + 1))


def minima_of(openings: list[list[Any]]) -> Any:
    """Return the minimum of each block, (openings, rounds) [ms]."""
    return np.array([[block.min() for block in blocks] for blocks in openings])


def at_one_pace(minima: Any) -> Any:
    """Return the block minima of all processes of a run (processes, rounds) without the pace of each round."""
    logs = np.log(minima)
    return np.exp(logs - np.median(logs - np.median(logs, axis=1, keepdims=True), axis=0))


def middle(minima: Any, percentile: float) -> Any:
    """Return the median over processes of a percentile over rounds, of minima (…, openings, rounds)."""
    return np.median(np.percentile(minima, percentile, axis=-1), axis=-1)


def drawn(minima: Any, percentile: float, seed: int = SEED) -> Any:
    """Return ``middle`` of processes drawn with replacement, of each of which rounds are drawn likewise."""
    rng, (openings, rounds) = np.random.default_rng(seed), minima.shape
    chosen = rng.integers(openings, size=(RESAMPLES, openings, 1))
    return middle(minima[chosen, rng.integers(rounds, size=(RESAMPLES, openings, rounds))], percentile)


def interval(draws: Any) -> list[float]:
    """Return the interval that holds 95 % of the draws."""
    return [float(value) for value in np.percentile(draws, (2.5, 97.5))]


def conditions() -> dict[str, Any]:
    """Say on what machine figures are made, and in what state it is."""
    return {
        **processor(),
        "governor": GOVERNOR.read_text("utf-8").strip() if GOVERNOR.is_file() else None,
        "load_1min": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def processor() -> dict[str, Any]:
    """Return the processor's name, its vector extensions and the number of cores."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8", "replace").splitlines() if info.is_file() else []
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    known = set((facts.get("flags") or facts.get("Features") or "").split())
    named = facts.get("model name") or facts.get("Model") or platform.processor() or platform.machine() or "unknown"
    return {"cpu": named, "flags": [flag for flag in FLAGS if flag in known], "cores": os.cpu_count()}
