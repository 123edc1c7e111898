"""Time every model file of this bundle on this machine.

    python benchmark.py [--threads N] [--rounds N] [--json FILE]

Needs numpy and a runtime (onnxruntime for .onnx; ai-edge-litert, tflite-runtime or tensorflow for .tflite), no more.
All sessions are visited in shuffled order, round after round; a visit is 3 warm-ups and a block of
n = clip(4 ms / t, 7, 120) runs of one sample. The quiet latency is the 10th percentile of the block minima: the noise
of a shared machine has two modes (busy or idle sibling core), and a median flips between them. Each file is opened
twice: what sets the twins apart is the noise floor, and no difference below it means anything.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import random
import time
from pathlib import Path
from typing import Any

import numpy as np

from edgeml.bundled.opening import INSTALL, OPENERS, as_input, golden_tensors, tensors, whole_batches

DONE, NOTHING_TIMED = 0, 2
WARM_UPS, BLOCK_NS, BLOCK_MIN, BLOCK_MAX = 3, 4_000_000, 7, 120
QUIET_PERCENTILE, RESAMPLES, SEED = 10, 2_000, 1


class Session:
    """One file, opened once: how to run it, and what its blocks took."""

    def __init__(
        self, folder: Path, entry: dict[str, Any], manifest: dict[str, Any], samples: list[Any], threads: int
    ) -> None:
        self.entry, self.batch = entry, entry.get("batch") or 1
        inputs, outputs = (tensors(manifest, entry, side) for side in ("input", "output"))
        names, given = ([one["name"] for one in side] for side in (inputs, outputs))
        start = time.perf_counter_ns()
        self.runtime, fed, self.run = OPENERS[Path(entry["path"]).suffix](folder / entry["path"], names, given, threads)
        self.load_ms = (time.perf_counter_ns() - start) / 1e6
        rows = [whole_batches(x, self.batch)[: self.batch] for x in samples]
        self.feed = {name: as_input(x, one) for name, x, one in zip(fed, rows, inputs)}
        self.blocks: list[list[int]] = []
        fastest = min(self.timed(BLOCK_MIN))
        self.runs = int(np.clip(BLOCK_NS / fastest, BLOCK_MIN, BLOCK_MAX))

    def timed(self, runs: int) -> list[int]:
        """Warm up, then time this many runs [ns]."""
        run, feed, clock, taken = self.run, self.feed, time.perf_counter_ns, []
        for _ in range(WARM_UPS):
            run(feed)
        for _ in range(runs):
            start = clock()
            run(feed)
            taken.append(clock() - start)
        return taken

    def visit(self) -> None:
        """Time one block."""
        self.blocks.append(self.timed(self.runs))

    def minima(self) -> Any:
        """Return the minimum of each block [ms]."""
        return np.array([min(block) for block in self.blocks]) / 1e6


def main(arguments: list[str] | None = None) -> int:
    """Time the bundle that this script lies in; return the exit code."""
    options = parsed(arguments)
    folder = Path(__file__).resolve().parent
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    names = [one["name"] for one in manifest.get("inputs") or [manifest["input"]]]
    with np.load(folder / "golden.npz", allow_pickle=False) as archive:
        samples = golden_tensors(archive, "inputs", names)
    twins, missing = opened(folder, manifest, samples, options.threads)
    visit_all([session for pair in twins for session in pair], options.rounds)
    rows = [summary(pair, options.threads) for pair in twins]
    machine = description()
    print("\n".join([*table(rows, machine), *missing]))
    if options.json:
        document = {"results": rows, "machine": machine, "rounds": options.rounds}
        Path(options.json).write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    return DONE if rows else NOTHING_TIMED


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Time every model file of this bundle.")
    parser.add_argument("--threads", type=int, default=1, choices=range(1, 257), metavar="N", help="default 1")
    parser.add_argument("--rounds", type=int, default=25, choices=range(2, 10_001), metavar="N", help="default 25")
    parser.add_argument("--json", metavar="FILE", help="write the rows to FILE as well")
    return parser.parse_args(arguments)


def opened(folder: Path, manifest: dict[str, Any], samples: list[Any], threads: int) -> tuple[list[Any], list[str]]:
    """Open each model file twice; files without a runtime are told."""
    twins, missing = [], []
    for entry in manifest["files"]:
        suffix = Path(entry["path"]).suffix
        if entry["role"] != "model" or suffix not in OPENERS:
            continue
        try:
            twins.append([Session(folder, entry, manifest, samples, threads) for _ in range(2)])
        except ImportError:
            missing.append(f"not timed  {entry['path']} (pip install {INSTALL[suffix]})")
    return twins, missing


def visit_all(sessions: list[Session], rounds: int) -> None:
    """Visit every session once a round, in an order that is shuffled each time, with the collector off."""
    order, shuffle = list(sessions), random.Random(SEED).shuffle
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            shuffle(order)
            for session in order:
                session.visit()
    finally:
        gc.enable()


def summary(pair: list[Session], threads: int) -> dict[str, Any]:
    """Sum up the twins of one file: both count, their difference is the noise floor (relative)."""
    first = pair[0]
    minima = np.concatenate([session.minima() for session in pair])
    samples = np.concatenate([np.array(block) for session in pair for block in session.blocks]) / 1e6
    quiet = [float(np.percentile(session.minima(), QUIET_PERCENTILE)) for session in pair]
    p50, p90, p99 = (float(value) for value in np.percentile(samples, (50, 90, 99)))
    return {
        "file": first.entry["path"],
        "precision": first.entry.get("precision"),
        "runtime": first.runtime,
        "device": "host",
        "threads": threads,
        "batch": first.batch,
        "quiet_ms": float(np.percentile(minima, QUIET_PERCENTILE)),
        "interval_95": bootstrap(minima),
        "p50_ms": p50,
        "p90_ms": p90,
        "p99_ms": p99,
        "noise_floor": abs(quiet[0] - quiet[1]) / min(quiet),
        "predicted_ms": None,
        "load_ms": min(session.load_ms for session in pair),
        "runs": len(samples),
    }


def bootstrap(minima: Any) -> list[float]:
    """Return the 95 % interval of the quiet latency: block minima drawn again with replacement."""
    drawn = np.random.default_rng(SEED).choice(minima, (RESAMPLES, len(minima)))
    return [float(value) for value in np.percentile(np.percentile(drawn, QUIET_PERCENTILE, axis=1), (2.5, 97.5))]


def description() -> dict[str, Any]:
    """Say on what machine, and how busy it was."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "load_1min": load,
        "system": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def cpu_name() -> str:
    """Name the processor as the kernel does, where it does."""
    info = Path("/proc/cpuinfo")
    text = info.read_text("utf-8", errors="replace") if info.is_file() else ""
    named = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith(("model name", "Model"))]
    return named[0] if named else platform.processor() or platform.machine()


def table(rows: list[dict[str, Any]], machine: dict[str, Any]) -> list[str]:
    """Draw the table."""
    width = max([len(row["file"]) for row in rows] + [4])
    load = machine["load_1min"]
    busy = "" if load is None else f", load {load:.2f}"
    text = [f"{machine['cpu']}, {machine['cores']} cores{busy}"]
    text.append(
        f"{'file':{width}}  quiet ms  [95 % interval]     p50       p90       p99       A/A noise  load ms  runtime"
    )
    for row in rows:
        low, high = row["interval_95"]
        figures = f"{row['quiet_ms']:<8.4f}  [{low:.4f}, {high:.4f}]  "
        figures += "".join(f"{row[key]:<10.4f}" for key in ("p50_ms", "p90_ms", "p99_ms"))
        text.append(
            f"{row['file']:{width}}  {figures}{row['noise_floor']:<9.1%}  {row['load_ms']:<7.1f}  {row['runtime']}"
        )
    if rows:
        floor = max(row["noise_floor"] for row in rows)
        batches = sorted({row["batch"] for row in rows})
        size = "one sample" if batches == [1] else f"{', '.join(map(str, batches))} samples"
        text.append(
            f"{rows[0]['threads']} thread(s), {size} a run; noise floor {floor:.1%}, smaller differences are noise"
        )
    return text


if __name__ == "__main__":
    raise SystemExit(main())
