"""The process that a file is timed in: opens it with a runtime's plug-in, and answers ``edgeml.timing``.

``python -m edgeml.timing_child RUNTIME DESCRIPTOR`` imports the runtime once and forks one process per opened file.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from edgeml import plugins
from edgeml.bundled import processes
from edgeml.bundled.processes import Call, Message
from edgeml.errors import UsageError
from edgeml.records import to_json
from edgeml.runtimes import Arrays, Signature


def main(runtime: str, descriptor: str) -> None:
    """Serve until the parent is gone."""
    module = plugins.get("runtimes", runtime)
    with suppress(ImportError):  # opening a file says it better
        importlib.import_module(module.LIBRARY)
    module.version()
    processes.serve(int(descriptor), partial(opened, module), {"profile": partial(profiled, module)})


def opened(module: ModuleType, message: Message) -> tuple[Message, Callable[[Message], Call]]:
    """Open the files of a message; several are run one after the other."""
    models = [module.open_model(Path(path), message["threads"]) for path in message["paths"]]
    signature = models[0].signature
    told = {"runtime": models[0].runtime, "batch": signature.batch,
            "inputs": [[tensor.name, tensor.shape] for tensor in signature.inputs]}  # fmt: skip

    def prepare(message: Message) -> Call:
        with np.load(message["inputs"], allow_pickle=False) as archive:
            inputs = dict(archive)
        return in_turn([model.single(named(model.signature, inputs), message["rows"]) for model in models])

    return told, prepare


def profiled(module: ModuleType, message: Message) -> Message:
    """Profile one file, after it was opened."""
    (path,) = (Path(path) for path in message["paths"])
    if not hasattr(module, "profile"):
        raise UsageError(f"{path}: {module.version()} has no profiler. Leave --operators out, or this file.")
    with np.load(message["inputs"], allow_pickle=False) as archive:
        inputs = named(module.open_model(path, 1).signature, dict(archive))
    found: Message = to_json(module.profile(path, inputs, message["threads"], message["runs"]))
    return found


def named(signature: Signature, inputs: Arrays) -> Arrays:
    """Return inputs by the names that a file has for them, others by their places."""
    given = list(inputs)
    return {t.name: inputs[t.name if t.name in inputs else given[i]] for i, t in enumerate(signature.inputs)}


def in_turn(calls: Sequence[Callable[[], Any]]) -> Callable[[], Any]:
    """Return the call that makes all of ``calls``, one after the other."""
    if len(calls) == 1:
        return calls[0]

    def run() -> None:
        for call in calls:
            call()

    return run


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
