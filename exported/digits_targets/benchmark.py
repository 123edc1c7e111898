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

import os
import sys

# What lies in this folder is what is checked: none of it is imported.
_here = os.path.realpath(os.path.dirname(__file__))
sys.path[:] = [place for place in sys.path if os.path.realpath(place or ".") != _here]

try:
    import numpy
except ModuleNotFoundError as error:
    print(f"{error}. Do: pip install numpy", file=sys.stderr)
    sys.exit(2)

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

import importlib
import importlib.metadata
import operator
from pathlib import Path
from typing import Any, Callable, NamedTuple  # noqa: UP035  (at home on Python 3.9)

import numpy as np

Run = Callable[[Any], Any]  # from inputs by name to a list of outputs
Single = Callable[[Any], Callable[[], Any]]  # puts inputs in place; what it returns makes one inference, no more
INSTALL = {".onnx": "onnxruntime", ".tflite": "ai-edge-litert"}
INTERPRETERS = (  # module, path of the class in it, distribution
    ("ai_edge_litert.interpreter", "Interpreter", "ai-edge-litert"),
    ("tflite_runtime.interpreter", "Interpreter", "tflite-runtime"),
    ("tensorflow", "lite.Interpreter", "tensorflow"),
)


class Opened(NamedTuple):
    """A file in its runtime (name and version), and what it calls its inputs; ``single`` is for timing."""

    runtime: str
    fed: list[str]
    run: Run
    single: Single


def open_onnx(path: Path, inputs: list[str], outputs: list[str], threads: int) -> Opened:
    """Open an ONNX file."""
    runtime = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    fed, wanted = (
        [names[place] for place in places(asked, names)]
        for asked, names in (
            (inputs, [one.name for one in session.get_inputs()]),
            (outputs, [one.name for one in session.get_outputs()]),
        )
    )

    def single(feed: dict[str, Any]) -> Callable[[], Any]:
        return lambda: session.run(wanted, feed)

    return Opened(f"onnxruntime {runtime.__version__}", fed, lambda feed: session.run(wanted, feed), single)


def open_tflite(path: Path, inputs: list[str], outputs: list[str], threads: int) -> Opened:
    """Open a TFLite file."""
    kind, runtime = interpreter_class()
    model = kind(model_path=str(path), num_threads=threads)
    model.allocate_tensors()
    sources, results = model.get_input_details(), model.get_output_details()
    chosen = [results[place]["index"] for place in places(outputs, [one["name"] for one in results])]
    index = {one["name"]: one["index"] for one in sources}
    names = list(index)

    def single(feed: dict[str, Any]) -> Callable[[], Any]:
        for name, x in feed.items():
            model.set_tensor(index[name], x)
        invoke: Callable[[], Any] = model.invoke
        return invoke

    def run(feed: dict[str, Any]) -> list[Any]:
        single(feed)()
        return [model.get_tensor(one) for one in chosen]

    return Opened(runtime, [names[place] for place in places(inputs, names)], run, single)


def places(asked: list[str], names: list[str]) -> list[int]:
    """Find tensors by their names, one that goes by another name in this file by its place."""
    return [names.index(name) if name in names else place for place, name in enumerate(asked)]


def tensors(manifest: dict[str, Any], entry: dict[str, Any], side: str) -> list[dict[str, Any]]:
    """List what a file takes (side "input") or gives: name, dtype, and scale and zero point where it is quantized."""
    listed = manifest.get(side + "s") or [manifest[side]]
    quantization = entry.get("quantization") or {}
    first = {listed[0]["name"]: quantization.get(side) or {}}
    quantized = quantization.get(side + "s") or first
    return [{"dtype": "float32", **one, **quantized.get(one["name"], {})} for one in listed]


def golden_tensors(golden: Any, key: str, names: list[str]) -> list[Any]:
    """Return the golden tensors of a kind: the first has the bare key, others their names behind it."""
    return [golden[key if place == 0 else f"{key}/{name}"] for place, name in enumerate(names)]


def interpreter_class() -> tuple[Any, str]:
    """Find a TFLite interpreter that is installed; an ImportError if there is none."""
    for module, attribute, distribution in INTERPRETERS:
        try:
            found = importlib.import_module(module)
        except ImportError:
            continue
        return operator.attrgetter(attribute)(found), f"{distribution} {version(distribution)}"
    raise ImportError("no TFLite interpreter is installed")


def version(distribution: str) -> str:
    """Tell the version of an installed distribution, an empty string if it goes by another name here (nightly, cpu)."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def as_input(x: Any, tensor: dict[str, Any]) -> Any:
    """Turn real values into what the file takes: round(x / scale) + zero_point, cut to the range of its dtype."""
    dtype = np.dtype(tensor["dtype"])
    if "scale" not in tensor:
        return np.asarray(x, dtype)
    steps = np.round(np.asarray(x, np.float64) / tensor["scale"]) + tensor["zero_point"]
    return np.clip(steps, np.iinfo(dtype).min, np.iinfo(dtype).max).astype(dtype)


def whole_batches(x: Any, batch: int) -> Any:
    """Repeat the last row until the rows are whole batches."""
    return np.concatenate([x, np.repeat(x[-1:], -len(x) % batch, axis=0)])


OPENERS = {".onnx": open_onnx, ".tflite": open_tflite}
LIBRARIES = {".onnx": ("onnxruntime",), ".tflite": tuple(module for module, _, _ in INTERPRETERS)}
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Callable  # noqa: UP035  (at home on Python 3.9)

Message = dict[str, Any]
Call = Callable[[], Any]
# From {"paths", "threads", …} to what is told of the model, and a function from {"inputs", …} to its one inference.
Opener = Callable[[Message], tuple[Message, Callable[[Message], Call]]]

VISIT_WARM_UPS = 3
BLOCK_NS, BLOCK_RUNS = 4_000_000, (7, 120)  # a block lasts about this long, within so many runs
STABLE_BLOCKS, STABLE_SHARE = 5, 0.01  # warmed up: so many blocks in a row, none faster than all before by this share
MOST_WARM_UP_NS = 2_000_000_000
MOST_SECONDS = 900.0  # that an answer may take


class Refused(Exception):  # noqa: N818  (it is what the other process said)
    """What went wrong in the process of a file; ``kind`` is the exception's class there."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Worker:
    """Opens a file, warms it up and times it, as it is told."""

    def __init__(self, opener: Opener, others: dict[str, Callable[[Message], Message]] | None = None) -> None:
        self._opener = opener
        self._does = {"open": self.open, "start": self.start, "block": self.block, **(others or {})}

    def answer(self, message: Message) -> Message:
        """Do what a message says."""
        return self._does[message["do"]](message)

    def open(self, message: Message) -> Message:
        """Open the file, on the cores that are named."""
        pin(message.get("cores"))
        gc.disable()
        self._before = memory()
        start = time.perf_counter_ns()
        told, self._prepare = self._opener(message)
        return {**told, "load_ms": (time.perf_counter_ns() - start) / 1e6}

    def start(self, message: Message) -> Message:
        """Run it for the first time, then until it is no longer getting faster."""
        self._call = self._prepare(message)
        first = timed(self._call, 1)[0]
        best, unchanged, runs, count = first, 0, 1, 1
        end = time.perf_counter_ns() + MOST_WARM_UP_NS
        while unchanged < STABLE_BLOCKS and time.perf_counter_ns() < end:
            count = max(1, min(BLOCK_NS // max(best, 1), BLOCK_RUNS[1]))
            fastest = min(timed(self._call, count))
            unchanged = unchanged + 1 if fastest >= best * (1 - STABLE_SHARE) else 0
            best, runs = min(best, fastest), runs + count
        return {
            "first_run_ms": first / 1e6, "warm_up_runs": runs, "warmed_up": unchanged >= STABLE_BLOCKS,
            "block_runs": max(BLOCK_RUNS[0], count), "peak_memory_bytes": growth(self._before, memory()),
        }  # fmt: skip

    def block(self, message: Message) -> Message:
        """Time a block [ns]."""
        return {"ns": visit(self._call, message["runs"])}


def visit(call: Call, runs: int) -> list[int]:
    """Warm up, then time so many runs [ns]."""
    for _ in range(VISIT_WARM_UPS):
        call()
    return timed(call, runs)


def timed(call: Call, runs: int) -> list[int]:
    """Time so many runs [ns]."""
    clock, taken = time.perf_counter_ns, []
    for _ in range(runs):
        start = clock()
        call()
        taken.append(clock() - start)
    return taken


class Session:
    """A process that holds one file, seen from its parent."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(MOST_SECONDS)
        self._connection, self._stream = connection, connection.makefile("rwb")

    def ask(self, do: str, **what: Any) -> Message:
        """Let it do something, and return its answer; Refused if it could not, or died."""
        line = b""
        with suppress(OSError):
            self._stream.write(json.dumps({"do": do, **what}).encode() + b"\n")
            self._stream.flush()
            line = self._stream.readline()
        if not line:
            raise Refused("Died", f"the process that was to {do} it died, or took over {MOST_SECONDS:.0f} s")
        answer: Message = json.loads(line)
        if "error" in answer:
            raise Refused(answer["error"]["kind"], answer["error"]["message"])
        return answer

    def close(self) -> None:
        """End the process."""
        with suppress(OSError):
            self._stream.close()
        self._connection.close()


class Here:
    """The same in this process."""

    def __init__(self, opener: Opener) -> None:
        self._worker = Worker(opener)

    def ask(self, do: str, **what: Any) -> Message:
        """Do it."""
        try:
            return {**self._worker.answer({"do": do, **what}), "peak_memory_bytes": None}
        except Exception as error:
            raise Refused(type(error).__name__, str(error)) from error

    def close(self) -> None:
        """Leave it to the collector."""
        gc.enable()


class Server:
    """A process that imports a runtime and forks one for each session; ``command`` is given a descriptor as its end."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self._control, theirs = socket.socketpair()
        self._process = subprocess.Popen(  # noqa: S603  (this interpreter, and a module or script of ours)
            [*command, str(theirs.fileno())], pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, env=environment, start_new_session=True,
        )  # fmt: skip
        theirs.close()

    def session(self) -> Session:
        """Return a new process."""
        mine, theirs = socket.socketpair()
        with theirs, suppress(OSError):  # a server that died: the session says so
            socket.send_fds(self._control, [b"."], [theirs.fileno()])
        return Session(mine)

    def close(self) -> None:
        """End the server; its sessions are closed on their own."""
        self._control.close()
        self._process.wait()


class Local:
    """What stands for a server where there is no ``fork``."""

    def __init__(self, opener: Opener) -> None:
        self._opener = opener

    def session(self) -> Here:
        """Return a session in this process."""
        return Here(self._opener)

    def close(self) -> None:
        """Nothing is left to end."""


def can_fork() -> bool:
    """Tell whether a process may be forked after it has imported a runtime."""
    return hasattr(os, "fork") and sys.platform != "darwin"


def serve(descriptor: int, opener: Opener, others: dict[str, Callable[[Message], Message]] | None = None) -> None:
    """Fork a worker, which can do ``others``, too, for each socket that comes, until the parent is gone."""
    control = socket.socket(fileno=descriptor)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        _, given, _, _ = socket.recv_fds(control, 1, 1)
        if not given:
            return
        if os.fork() == 0:
            control.close()
            try:
                attend(socket.socket(fileno=given[0]), Worker(opener, others))
            finally:
                os._exit(0)
        os.close(given[0])


def attend(connection: socket.socket, worker: Worker) -> None:
    """Answer until the parent hangs up."""
    stream = connection.makefile("rwb")
    for line in stream:
        try:
            answer = worker.answer(json.loads(line))
        except Exception as error:  # noqa: BLE001  (it is told)
            answer = {"error": {"kind": type(error).__name__, "message": str(error)}}
        stream.write(json.dumps(answer).encode() + b"\n")
        stream.flush()


def cores(count: int) -> list[int] | None:
    """Return the last ``count`` cores that this process may use: the first serve interrupts. None: not pinned."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[-count:] if count <= len(allowed) else None


def pin(chosen: list[int] | None) -> None:
    """Keep this process and the threads that it starts on some cores."""
    if chosen:
        os.sched_setaffinity(0, chosen)


def memory() -> dict[str, int] | None:
    """Return what this process holds and held at most [KiB], as Linux counts it."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    lines = (line.split() for line in status.read_text("utf-8").splitlines())
    found = {words[0].rstrip(":"): int(words[1]) for words in lines if words[0].startswith(("VmHWM", "VmRSS", "Rss"))}
    return found if {"VmHWM", "VmRSS", "RssFile"} <= set(found) else None


def growth(before: dict[str, int] | None, after: dict[str, int] | None) -> int | None:
    """Return by how many bytes the memory of a process grew at most, without the code of libraries that it maps."""
    if before is None or after is None:
        return None
    return 1024 * max(0, (after["VmHWM"] - after["RssFile"]) - (before["VmRSS"] - before["RssFile"]))
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
