"""What blocks of runs say: figures of a file that was opened several times, ratios of two, and what they were made on.

The quiet latency of one process is the 10th percentile of its block minima: the noise of a shared machine has two modes
(a busy or an idle sibling core), and a median flips between them. How a process has its memory laid out sets it apart
from the next (8 % were seen for a network of 11 µs), so each file is opened in several; their median counts, and how
far they lie apart, an A/A control, is the noise floor. ``bundle.copy_scripts`` puts these lines in the place of their
import.
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


def figures(openings: list[list[Any]]) -> dict[str, Any]:
    """Sum up a file: ``openings`` hold the blocks of each process that it was opened in [ms]."""
    minima = minima_of(openings)
    alone = np.percentile(minima, QUIET_PERCENTILE, axis=1)
    everything = np.concatenate([block for blocks in openings for block in blocks])
    p50, p90, p99 = (float(value) for value in np.percentile(everything, (50, 90, 99)))
    return {
        "quiet_ms": float(np.median(alone)), "interval_95": interval(resampled(minima)),
        "p50_ms": p50, "p90_ms": p90, "p99_ms": p99,
        "noise_floor": float(alone.max() / alone.min() - 1), "runs": len(everything),
    }  # fmt: skip


def ratio(openings: list[list[Any]], others: list[list[Any]]) -> tuple[float, list[float]]:
    """Return the quiet latency of one file by that of another, and its 95 % interval."""
    one, two = minima_of(openings), minima_of(others)
    return float(quiet(one[None])[0] / quiet(two[None])[0]), interval(resampled(one) / resampled(two, SEED + 1))


def minima_of(openings: list[list[Any]]) -> Any:
    """Return the minimum of each block, (openings, rounds) [ms]."""
    return np.array([[block.min() for block in blocks] for blocks in openings])


def quiet(minima: Any) -> Any:
    """Return quiet latencies of block minima (…, openings, rounds)."""
    return np.median(np.percentile(minima, QUIET_PERCENTILE, axis=-1), axis=-1)


def resampled(minima: Any, seed: int = SEED) -> Any:
    """Return the quiet latency of processes drawn with replacement, of each of which blocks are drawn likewise."""
    rng, (openings, rounds) = np.random.default_rng(seed), minima.shape
    chosen = rng.integers(openings, size=(RESAMPLES, openings, 1))
    return quiet(minima[chosen, rng.integers(rounds, size=(RESAMPLES, openings, rounds))])


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
