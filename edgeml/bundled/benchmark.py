"""Time every model file of this bundle on this machine.

    python benchmark.py [--threads N] [--rounds N] [--json FILE]

Needs numpy and a runtime (onnxruntime for .onnx; ai-edge-litert, tflite-runtime or tensorflow for .tflite), no more.
Each file is opened in several processes, pinned to the same cores and warmed up until it is no longer getting faster.
They are visited one at a time in shuffled order, round after round; a visit is 3 warm-ups and a block of
n = clip(4 ms / t, 7, 120) runs of one sample or one batch: of onnxruntime ``session.run``, of TFLite files ``invoke()``
with the input in place. The quiet latency of a process is the 10th percentile of its block minima, that of a file the
median of its processes; how far these lie apart, at the pace that all have in a round, is the noise floor: no smaller
difference means anything. ``edgeml report BUNDLE --measured FILE`` reads what ``--json FILE`` wrote into the bundle's
report.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, Callable  # noqa: UP035  (at home on Python 3.9)

import numpy as np

from edgeml.bundled.opening import (
    INSTALL,
    LIBRARIES,
    OPENERS,
    as_input,
    golden_tensors,
    tensors,
    whole_batches,
)
from edgeml.bundled.processes import Call, Local, Message, Refused, Server, can_fork, cores, serve
from edgeml.bundled.stopwatch import OPENINGS, ROUNDS, at_one_pace, conditions, figures, minima_of, visited

DONE, NOTHING_TIMED = 0, 2
SERVE = "--serve"


def main(arguments: list[str] | None = None) -> int:
    """Time the bundle that this script lies in; return the exit code."""
    options = parsed(arguments)
    folder = Path(__file__).resolve().parent
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    entries = [one for one in manifest["files"] if one["role"] == "model" and Path(one["path"]).suffix in OPENERS]
    machine = conditions()
    rows, missing = measured(folder, manifest, entries, options)
    print("\n".join([*table(rows, machine), *missing]))
    if options.json:
        document = {"results": rows, "machine": machine, "rounds": options.rounds, "openings": OPENINGS}
        options.json.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    return DONE if rows else NOTHING_TIMED


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Time every model file of this bundle.")
    parser.add_argument("--threads", type=whole(1, 256), default=1, metavar="N", help="default 1")
    parser.add_argument("--rounds", type=whole(2, 10_000), default=ROUNDS, metavar="N", help=f"default {ROUNDS}")
    parser.add_argument("--json", type=writable, metavar="FILE", help="write the rows to FILE as well")
    return parser.parse_args(arguments)


def whole(least: int, most: int) -> Callable[[str], int]:
    """Return what reads a number of the command line."""

    def read(text: str) -> int:
        if not (text.isdecimal() and least <= int(text) <= most):
            raise argparse.ArgumentTypeError(f"{text}; {least} to {most} is allowed")
        return int(text)

    return read


def writable(text: str) -> Path:
    """Return a path of the command line, if a file may be written there: it is asked before minutes of timing."""
    path = Path(text)
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text}; a file in a folder that is there, and may be written, is needed")
    return path


def measured(
    folder: Path, manifest: dict[str, Any], entries: list[dict[str, Any]], options: argparse.Namespace
) -> tuple[list[dict[str, Any]], list[str]]:
    """Open each file in several processes, visit them in rounds, and sum up; files without a runtime are told."""
    servers = {suffix: server(suffix) for suffix in sorted({Path(entry["path"]).suffix for entry in entries})}
    sessions: list[Any] = []
    about: list[dict[str, Any]] = []
    timed: list[dict[str, Any]] = []
    missing: list[str] = []
    with tempfile.TemporaryDirectory() as place:
        try:
            for entry in entries:
                suffix = Path(entry["path"]).suffix
                fresh = [servers[suffix].session() for _ in range(OPENINGS)]
                sessions += fresh
                try:
                    about += [started(one, folder, manifest, entry, Path(place), options.threads) for one in fresh]
                except Refused as refused:
                    if refused.kind not in ("ImportError", "ModuleNotFoundError"):
                        raise SystemExit(f"{entry['path']}: {refused}") from refused
                    missing.append(f"not timed  {entry['path']} (pip install {INSTALL[suffix]})")
                    del sessions[-OPENINGS:]
                    continue
                timed.append(entry)
            blocks = visited(sessions, [one["block_runs"] for one in about], options.rounds)
        finally:
            for one in sessions:
                one.close()
            for each in servers.values():
                each.close()
    if not timed:
        return [], missing
    paced = at_one_pace(minima_of(blocks))
    places = [slice(i * OPENINGS, (i + 1) * OPENINGS) for i in range(len(timed))]
    rows = [
        {**summary(folder, entry, about[i], options.threads), **figures(blocks[i], paced[i])}
        for entry, i in zip(timed, places)
    ]
    return rows, missing


def server(suffix: str) -> Any:
    """Start the process that opens files of a suffix in others."""
    if not can_fork():
        return Local(opened)
    isolated = ["-I"] if sys.flags.isolated else []
    return Server([sys.executable, *isolated, str(Path(__file__).resolve()), SERVE, suffix], dict(os.environ))


def started(
    session: Any, folder: Path, manifest: dict[str, Any], entry: dict[str, Any], place: Path, threads: int
) -> dict[str, Any]:
    """Open a file in a process, feed it a golden input as it takes it, and let it warm up."""
    inputs, outputs = (tensors(manifest, entry, side) for side in ("input", "output"))
    names, given = ([one["name"] for one in side] for side in (inputs, outputs))
    told = session.ask(
        "open", path=str(folder / entry["path"]), names=names, given=given, threads=threads, cores=cores(threads)
    )
    with np.load(folder / "golden.npz", allow_pickle=False) as archive:
        samples = golden_tensors(archive, "inputs", names)
    batch = entry.get("batch") or 1
    rows: Any = {
        name: as_input(whole_batches(x, batch)[:batch], one) for name, x, one in zip(told["fed"], samples, inputs)
    }
    path = place / f"{entry['path']}.npz"
    np.savez(path, **rows)
    return {**told, **session.ask("start", inputs=str(path))}


def opened(message: Message) -> tuple[Message, Callable[[Message], Call]]:
    """Open a file, in its own process."""
    path = Path(message["path"])
    model = OPENERS[path.suffix](path, message["names"], message["given"], message["threads"])

    def prepare(message: Message) -> Call:
        with np.load(message["inputs"], allow_pickle=False) as archive:
            return model.single(dict(archive))

    return {"runtime": model.runtime, "fed": model.fed}, prepare


def summary(folder: Path, entry: dict[str, Any], about: list[dict[str, Any]], threads: int) -> dict[str, Any]:
    """Say what is known of a file beside its times; of load and first run the fastest counts, of memory the most."""
    path = folder / entry["path"]
    memory = [one["peak_memory_bytes"] for one in about if one["peak_memory_bytes"] is not None]
    return {
        "file": entry["path"],
        "precision": entry.get("precision"),
        "runtime": about[0]["runtime"],
        "device": "host",
        "threads": threads,
        "batch": entry.get("batch") or 1,
        "predicted_ms": None,
        "load_ms": min(one["load_ms"] for one in about),
        "first_run_ms": min(one["first_run_ms"] for one in about),
        "peak_memory_bytes": max(memory) if memory else None,
        "file_bytes": path.stat().st_size,
        "warm_up_runs": max(one["warm_up_runs"] for one in about),
        "warmed_up": all(one["warmed_up"] for one in about),
        "cores": cores(threads),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


def table(rows: list[dict[str, Any]], machine: dict[str, Any]) -> list[str]:
    """Draw the table."""
    width = max([len(row["file"]) for row in rows] + [4])
    load, governor = machine["load_1min"], machine["governor"]
    state = ("" if load is None else f", load {load:.2f}") + ("" if governor is None else f", governor {governor}")
    text = [f"{machine['cpu']}, {machine['cores']} cores{state}"]
    text.append(
        f"{'file':{width}}  quiet ms  [95 % interval]     p50       p90       p99       noise   first ms  load ms"
        "  peak KiB  runtime"
    )
    for row in rows:
        low, high = row["interval_95"]
        held = "-" if row["peak_memory_bytes"] is None else f"{row['peak_memory_bytes'] // 1024}"
        figures = f"{row['quiet_ms']:<8.4f}  [{low:.4f}, {high:.4f}]  "
        figures += "".join(f"{row[key]:<10.4f}" for key in ("p50_ms", "p90_ms", "p99_ms"))
        text.append(
            f"{row['file']:{width}}  {figures}{row['noise_floor']:<8.1%}{row['first_run_ms']:<10.3f}"
            f"{row['load_ms']:<9.1f}{held:<10}{row['runtime']}"
        )
    if rows:
        floor = max(row["noise_floor"] for row in rows)
        batches = sorted({row["batch"] for row in rows})
        size = "one sample" if batches == [1] else f"{', '.join(map(str, batches))} samples"
        pinned = rows[0]["cores"]
        text.append(
            f"{rows[0]['threads']} thread(s) {'not pinned' if pinned is None else f'on cores {pinned}'}, {size} a run,"
            f" {OPENINGS} processes a file; noise floor {floor:.1%}, smaller differences are noise"
        )
    return text


def child(suffix: str, descriptor: str) -> None:
    """Be the process that opens files of a suffix in others."""
    for library in LIBRARIES[suffix]:  # once, before it forks
        with suppress(ImportError):
            importlib.import_module(library)
            break
    serve(int(descriptor), opened)


if __name__ == "__main__":
    if sys.argv[1:2] == [SERVE]:
        child(*sys.argv[2:])
    else:
        raise SystemExit(main())
