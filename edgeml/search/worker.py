"""A process that trains one network after the other: ``python -m edgeml.search.worker RUN PARENT EVENTS``.

On stdin comes a JSON line with the user's callbacks, pickled, then one for each job; events go as JSON lines to the
descriptor EVENTS, since libraries print to stdout:

    {"event": "begun"}   {"event": "epoch", "number": 0, "metrics": {…}}   {"event": "ended", "outcome": {…}}
    {"event": "refused", "kind": "IntegrityError", "message": "…"}

It ends with its parent, however that one ends: the kernel sends SIGKILL (Linux), and stdin comes to its end (anywhere).
"""

from __future__ import annotations

import base64
import ctypes
import gc
import json
import os
import pickle
import queue
import signal
import sys
import threading
from pathlib import Path
from typing import IO, Any

from edgeml.memory import keep_freed_memory

PR_SET_PDEATHSIG = 1  # prctl(2)


def main(root: Path, parent: int, events: int) -> None:
    """Carry out jobs until the parent is gone."""
    keep_freed_memory()
    _end_with(parent)
    os.set_inheritable(events, False)
    jobs: queue.Queue[str] = queue.Queue()
    lines = os.fdopen(os.dup(0), encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)  # what a network's code reads or starts must not take our jobs
    os.close(nowhere)
    threading.Thread(target=_receive, args=(lines, jobs), daemon=True).start()
    with os.fdopen(events, "w", buffering=1, encoding="utf-8") as out:
        _serve(root, jobs, out)


def _end_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was gone before we had asked
        _end()


def _end() -> None:
    """End at once, in whatever thread; a network half trained is of no use to anybody."""
    os.kill(os.getpid(), signal.SIGKILL)


def _receive(lines: IO[str], jobs: queue.Queue[str]) -> None:
    for line in lines:
        jobs.put(line)
    _end()


def _serve(root: Path, jobs: queue.Queue[str], out: IO[str]) -> None:
    from edgeml import run_folder

    files = run_folder.read(root)
    splits = files.splits()

    import keras  # noqa: F401  (takes ten seconds; a trial's time does not begin before)

    from edgeml.errors import EdgemlError
    from edgeml.records import to_json
    from edgeml.search import space, trial
    from edgeml.search.engine import Job

    def send(event: str, **more: Any) -> None:
        out.write(json.dumps({"event": event, **more}) + "\n")

    try:
        callbacks = pickle.loads(base64.b64decode(json.loads(jobs.get())["callbacks"]))  # noqa: S301  (our parent's)
    except Exception as error:  # noqa: BLE001  (an import in somebody's module may raise anything)
        send("refused", kind="UsageError", message=f"callbacks: {error} in the process that trains; its modules must"
             " be importable there. Move the callbacks to a module, or give in_process=True.")  # fmt: skip
        return
    networks = space.of_run(files, splits)
    gc.freeze()  # modules, half a million objects: the collector need not look at them each time
    while True:
        job = Job.from_json(json.loads(jobs.get()))
        send("begun")
        try:
            outcome = trial.carry_out(
                files, networks, splits, job,
                lambda number, metrics: send("epoch", number=number, metrics=to_json(metrics)), callbacks,
            )  # fmt: skip
        except EdgemlError as error:
            send("refused", kind=type(error).__name__, message=str(error))
        else:
            send("ended", outcome=to_json(outcome))
        gc.collect()  # networks are rings of objects: else up to 90 MB of them wait for the collector to come by


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
