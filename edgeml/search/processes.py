"""The engine of ``edgeml search``: networks are trained in child processes, so that one that dies costs itself only.

One child is kept warm per worker (importing a framework takes ten seconds). It is started anew when it dies, when its
job is stopped (time, memory), and when it has grown. Children share the cores; the data are mapped from the run folder.
What they print goes where this process's stderr goes: with ``edgeml search``, into the run's log.
"""

from __future__ import annotations

import base64
import json
import os
import pickle
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from edgeml import errors
from edgeml.errors import EdgemlError, UsageError
from edgeml.memory import memory_mb
from edgeml.records import to_json
from edgeml.search.engine import Job, OnEpoch, Outcome

POLL_SECONDS = 0.1  # how often limits are looked at
GROWN_MB = (
    4_000.0  # a child that holds more after a job is started anew; TensorFlow and a small network hold 400 to 900
)
GROWN_SHARE = 0.75  # of the memory limit, where there is one: what is left must be enough to train in
START_ATTEMPTS = 3
STOP_SECONDS = 10.0
# Who reads how many threads to start: TensorFlow; the BLAS and OpenMP libraries of NumPy, SciPy and scikit-learn; XLA's
# pool on a CPU, under JAX. XLA_FLAGS=intra_op_parallelism_threads=1, often recommended, leaves that pool as it is
# (jaxlib 0.10.2: as many threads as cores), and xla_cpu_multi_thread_eigen does, too.
THREADS = (
    "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS",
    "NPROC",
)  # fmt: skip


class Processes:
    """Trains in up to ``workers`` child processes of this one; ``callbacks`` of Keras go there as pickles.

    Raises:
        UsageError: a callback cannot be pickled, or its class lies where no other process can import it from.
    """

    def __init__(
        self,
        root: Path,
        *,
        workers: int = 1,
        memory_limit_mb: float | None = None,
        grown_mb: float | None = None,
        callbacks: Sequence[Any] = (),
    ) -> None:
        self.workers, self._root, self._memory_limit_mb = workers, root.resolve(), memory_limit_mb
        self._grown_mb = grown_mb or (GROWN_SHARE * memory_limit_mb if memory_limit_mb else GROWN_MB)
        self._callbacks = base64.b64encode(_pickled(callbacks)).decode()
        self._idle: list[_Child] = []
        self._busy: list[_Child] = []

    def warm_up(self) -> None:
        """Start the children; they import the framework while this process does."""
        while len(self._idle) + len(self._busy) < self.workers:
            self._idle.append(self._child())

    def submit(self, job: Job) -> None:
        """Give a job to a child."""
        child = self._idle.pop(0) if self._idle else self._child()
        self._busy.append(child)
        child.give(job)

    def wait(self, on_epoch: OnEpoch) -> tuple[Job, Outcome]:
        """Return the next job that has ended, see ``Engine``.

        Raises:
            EdgemlError: a child refused a job, or cannot be started.
        """
        while True:
            speaking, _, _ = select.select([child.events for child in self._busy], [], [], POLL_SECONDS)
            for child in list(self._busy):
                ended = self._heard(child, on_epoch) if child.events in speaking else None
                ended = ended or self._judged(child)
                if ended is not None:
                    return ended

    def _child(self, attempt: int = 1) -> _Child:
        return _Child(self._root, self.workers, self._callbacks, attempt)

    def close(self) -> None:
        """Stop every child at once."""
        for child in (*self._busy, *self._idle):
            child.stop()
        self._busy, self._idle = [], []

    def _heard(self, child: _Child, on_epoch: OnEpoch) -> tuple[Job, Outcome] | None:
        for message in child.read():
            job = child.job
            if message["event"] == "begun":
                child.begun = time.monotonic()
            elif message["event"] == "epoch":
                on_epoch(job, message["number"], message["metrics"])
            else:
                self._rest(child)
                if message["event"] == "refused":
                    raise getattr(errors, message["kind"])(message["message"])
                return job, Outcome.from_json(message["outcome"])
        return None

    def _rest(self, child: _Child) -> None:
        """Keep a child for the next job, unless it has grown."""
        self._busy.remove(child)
        if memory_mb(child.pid) > self._grown_mb:
            child.stop()
        else:
            self._idle.append(child)

    def _judged(self, child: _Child) -> tuple[Job, Outcome] | None:
        """Return the end of a job whose child has died, or that has to be stopped."""
        job, seconds = child.job, 0.0 if child.begun is None else time.monotonic() - child.begun
        code = child.ended()
        if code is not None:
            if child.begun is None:
                self._replace(child, code)
                return None
            return self._lost(child, Outcome("crashed", error=_death(code), seconds=seconds))
        if child.begun is None:
            return None
        limit = job.time_limit_seconds
        if limit is not None and seconds > limit:
            text = f"stopped after {seconds:.0f} seconds; its time limit is {limit:g} (search.trial_time_limit_minutes)"
            return self._lost(child, Outcome("timed_out", error=text, seconds=seconds))
        if self._memory_limit_mb is not None and (held := memory_mb(child.pid)) > self._memory_limit_mb:
            text = f"stopped at {held:,.0f} MiB; the limit is {self._memory_limit_mb:,.0f} (search.memory_limit_mb)"
            return self._lost(child, Outcome("crashed", error=text, seconds=seconds))
        return None

    def _lost(self, child: _Child, outcome: Outcome) -> tuple[Job, Outcome]:
        self._busy.remove(child)
        child.stop()
        return child.job, outcome

    def _replace(self, child: _Child, code: int) -> None:
        """Start a child anew that has died before it took its job: that was not the job's doing."""
        self._busy.remove(child)
        child.stop()
        if child.attempt >= START_ATTEMPTS:
            raise EdgemlError(
                f"worker: {_death(code)} {START_ATTEMPTS} times before it could train; a worker must start as edgeml"
                f" does. {self._root / 'log.txt'} or --debug shows why."
            )
        fresh = self._child(child.attempt + 1)
        self._busy.append(fresh)
        fresh.give(child.job)


class _Child:
    """A process that trains, seen from its parent. ``begun``: when it took its job, None if it has not."""

    job: Job

    def __init__(self, root: Path, workers: int, callbacks: str, attempt: int) -> None:
        self.events, write = os.pipe()
        self._heard, self._drained = b"", False
        self.begun: float | None = None
        self.attempt = attempt
        command = [sys.executable, "-P", "-m", "edgeml.search.worker", str(root), str(os.getpid()), str(write)]
        try:
            self._process = subprocess.Popen(  # noqa: S603  (this interpreter, and a module of ours)
                command, stdin=subprocess.PIPE, stdout=2, pass_fds=[write], env=environment(workers),
                process_group=0,  # a network that kills its group kills itself
            )  # fmt: skip
        finally:
            os.close(write)
        self.pid = self._process.pid
        self._stdin: IO[bytes] = self._process.stdin  # type: ignore[assignment]  # a pipe was asked for
        self._send({"callbacks": callbacks})

    def give(self, job: Job) -> None:
        """Send a job."""
        self.job, self.begun = job, None
        self._send(to_json(job))

    def _send(self, message: Any) -> None:
        with suppress(BrokenPipeError):  # it has died; ``ended`` tells
            self._stdin.write(json.dumps(message).encode() + b"\n")
            self._stdin.flush()

    def read(self) -> list[dict[str, Any]]:
        """Return the messages that have come, without waiting for more than there is."""
        part = os.read(self.events, 1 << 20)
        self._drained = not part
        self._heard += part
        *lines, self._heard = self._heard.split(b"\n")
        return [json.loads(line) for line in lines]

    def ended(self) -> int | None:
        """Return the exit code if the process has ended and everything that it said was read; None otherwise."""
        code = self._process.poll()  # not the end of the pipe alone: a process that the network started may hold it
        unread = not self._drained and select.select([self.events], [], [], 0)[0]
        return None if unread else code

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait(STOP_SECONDS)
        with suppress(BrokenPipeError):  # a job that it never read
            self._stdin.close()
        os.close(self.events)


def environment(workers: int) -> dict[str, str]:
    """Return what a child starts with: this process's modules, and its share of the cores, if the user set no other."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = str(max(1, cores // workers))
    path = os.pathsep.join(place or os.getcwd() for place in sys.path)
    # oneDNN is off by default on processors without AVX-512, and trains depthwise networks a quarter faster there
    # (``tools/training_speed``). It brings an allocator of its own for tensors from 256 KiB on, which gives nothing
    # back (TensorFlow 2.21). With the system's a worker held 412 MB after 200 networks instead of 437; an epoch took
    # as long on images of 16x16, a third longer on 8x8. What else grows with oneDNN, 15 MB per 100 networks of unlike
    # shapes, is not found.
    onednn = {"TF_ENABLE_ONEDNN_OPTS": "1", "TF_ONEDNN_USE_SYSTEM_ALLOCATOR": "1"}
    shared = {**dict.fromkeys(THREADS, threads), **onednn}
    return {**shared, **os.environ, "PYTHONPATH": path}


def _pickled(callbacks: Sequence[Any]) -> bytes:
    todo = "Give callbacks of an importable module, or in_process=True."
    for callback in callbacks:
        kind = type(callback)
        if kind.__module__ == "__main__":
            raise UsageError(f"callbacks: {kind.__qualname__} is defined in __main__, which the processes that train"
                             f" cannot import; a module is required. {todo}")  # fmt: skip
        try:
            pickle.dumps(callback)
        except Exception as error:  # a class may raise anything there
            raise UsageError(f"callbacks: {kind.__qualname__} cannot be pickled ({error}); processes that train need"
                             f" that. {todo}") from error  # fmt: skip
    return pickle.dumps(list(callbacks))


def _death(code: int) -> str:
    if code >= 0:
        return f"its process ended with exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return f"its process was killed by {name}" + (" (the system does so when memory is short)" if code == -9 else "")
