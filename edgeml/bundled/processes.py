"""Timing in processes of their own: what ``edgeml benchmark`` and a bundle's ``benchmark.py`` have in common.

    parent ── a socket ──► server, one per runtime: imports it once ── fork ──► one process per opened file
       ▲                                                                              │
       └──────────────── one block at a time, asked for over that socket ─────────────┘

No two files share an allocator or a thread pool, and no two processes run at once: the parent asks one for a block,
waits, and asks the next. All are pinned to the same cores. Where ``fork`` is not to be had, or not safe (Windows,
macOS), files are timed in this process.
``bundle.copy_scripts`` puts these lines in the place of their import.
"""

from __future__ import annotations

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
