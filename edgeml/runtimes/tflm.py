"""Integer TFLite files in TensorFlow Lite Micro (tflite-micro), as microcontrollers compute them; an extra of its own.

Its kernels are the reference ones of LiteRT, compiled for the host; results agree but for a few roundings.
"""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version as package_version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml.errors import DataError, UsageError
from edgeml.runtimes import Arrays, Made, Signature, Tensor, first_batch, in_batches

SUFFIX = ".tflite"
IS_DEFAULT = False
ARENA_BYTES, STEP_BYTES = 16_000_000, 16
SEARCH = """
import sys
from tflite_micro import runtime

path, (fails, works, step) = sys.argv[1], map(int, sys.argv[2:])
while works - fails > 1:
    tried = min((fails + works) // 2, 2 * max(fails, 1))
    print("tries", tried, flush=True)
    try:
        runtime.Interpreter.from_file(path, arena_size=tried * step).invoke()
        works = tried
        print("opens", tried, flush=True)
    except RuntimeError:
        fails = tried
        print("fails", tried, flush=True)
"""  # run by itself: the last line says what it died of


def is_installed() -> bool:
    """Tell whether the extra is there."""
    return find_spec("tflite_micro") is not None


def check_installed() -> None:
    """Raise if tflite-micro is missing.

    Raises:
        UsageError: it is.
    """
    if not is_installed():
        raise UsageError("tflm: tflite-micro is not installed. pip install 'edgeml-export[micro]'.")


def version() -> str:
    """Return name and version."""
    return f"TFLM {package_version('tflite-micro')}"


def open_model(path: Path, threads: int = 1, arena_bytes: int | None = None) -> Interpreter:
    """Open an integer TFLite file; ``threads`` is 1, there are no others; ``arena_bytes``: the memory that it may take.

    Raises:
        UsageError: tflite-micro is not installed.
        DataError: the file needs an operator that it lacks, or more memory than there is (16 MB).
    """
    check_installed()
    return Interpreter(path, arena_bytes or ARENA_BYTES)


class Interpreter:
    """An interpreter of TensorFlow Lite Micro behind the ``Loaded`` protocol; it knows tensors by place alone."""

    def __init__(self, path: Path, arena_bytes: int) -> None:
        from tflite_micro import runtime

        with _heard() as said:
            try:
                self.interpreter = runtime.Interpreter.from_file(str(path), arena_size=arena_bytes)
            except (ValueError, RuntimeError) as error:
                reason = "; ".join([str(error).rstrip("."), *said()])
                raise DataError(f"{path}: TensorFlow Lite Micro cannot open it: {reason}.") from error
        names = _names(path.read_bytes())
        self.runtime = version()
        ask = self.interpreter.get_input_details, self.interpreter.get_output_details
        self.signature = Signature(
            *(tuple(_tensor(name, details(place)) for place, name in enumerate(side))
              for side, details in zip(names, ask, strict=True))
        )  # fmt: skip

    def predict(self, inputs: Arrays) -> dict[str, NDArray[np.float32]]:
        """Run all rows."""
        return in_batches(self.signature, inputs, self._run)

    def _run(self, batch: Arrays) -> Arrays:
        for place, tensor in enumerate(self.signature.inputs):
            self.interpreter.set_input(np.ascontiguousarray(batch[tensor.name]), place)
        self.interpreter.invoke()
        outputs = enumerate(self.signature.outputs)
        return {tensor.name: np.array(self.interpreter.get_output(place)) for place, tensor in outputs}

    def single(self, inputs: Arrays, rows: int = 1) -> Callable[[], None]:
        """Prepare one inference on the first batch."""
        self._run(first_batch(self.signature, inputs, rows))
        invoke: Callable[[], None] = self.interpreter.invoke
        return invoke

    def layers(self, inputs: Arrays) -> list[Made] | None:
        """Return None: tensors share memory, and are gone when a run has ended."""
        del inputs
        return None


def allocations(path: Path) -> tuple[int, int]:
    """Return what the arena of a file takes by TensorFlow Lite Micro's own count: all of it, and its head.

    That is on this machine: the head is of activations, the rest of records, which are smaller where pointers are.
    """
    opened = open_model(path)
    with _heard() as said:
        opened.interpreter.print_allocations()
        text = "\n".join(said())
    total, head = (int(re.findall(rf"allocation {word} (\d+)", text)[0]) for word in ("total", "head"))
    return total, head


def smallest_arena_bytes(path: Path) -> int:
    """Return the smallest arena, in whole steps of 16 bytes, with which a file can be opened on this machine.

    It is somewhat more than ``allocations`` says: placing the activations takes memory that is given back. Tried in
    child processes: where memory is short, TensorFlow Lite Micro (0.dev20261023182759) may abort.
    """
    used = allocations(path)[0]
    fails, works = used // STEP_BYTES - 1, ARENA_BYTES // STEP_BYTES
    while works - fails > 1:
        arguments = (str(path), str(fails), str(works), str(STEP_BYTES))
        child = subprocess.run([sys.executable, "-c", SEARCH, *arguments], capture_output=True, text=True, check=False)  # noqa: S603  (this interpreter, and lines of ours)
        said = re.findall(r"^(tries|opens|fails) (\d+)$", child.stdout, re.MULTILINE)
        if not said:
            raise DataError(f"{path}: TensorFlow Lite Micro cannot be tried on it: {child.stderr[-200:].split()}.")
        works = min([works, *(int(steps) for what, steps in said if what == "opens")])
        fails = max([fails, *(int(steps) for what, steps in said if what == "fails")])
        if said[-1][0] == "tries":
            fails = max(fails, int(said[-1][1]))  # it died of this one
    return works * STEP_BYTES


def _names(content: bytes) -> tuple[list[str], list[str]]:
    from ai_edge_litert import schema_py_generated as schema

    graph = schema.ModelT.InitFromPackedBuf(content, 0).subgraphs[0]
    inputs, outputs = ([graph.tensors[i].name.decode() for i in side] for side in (graph.inputs, graph.outputs))
    return inputs, outputs


def _tensor(name: str, detail: dict[str, Any]) -> Tensor:
    shape = tuple(int(size) for size in detail["shape"])
    dtype, scales = np.dtype(detail["dtype"]).name, detail["quantization_parameters"]
    if not len(scales["scales"]):
        return Tensor(name, shape, dtype)
    return Tensor(name, shape, dtype, float(scales["scales"][0]), int(scales["zero_points"][0]))


@contextmanager
def _heard() -> Iterator[Callable[[], list[str]]]:
    """Keep what its C++ code prints away from the terminal; give the lines so far."""
    sys.stdout.flush()
    with tempfile.TemporaryFile() as said:

        def lines() -> list[str]:
            ctypes.CDLL(None).fflush(None)
            said.seek(0)
            return [line for line in said.read().decode("utf-8", "replace").splitlines() if line.strip()]

        kept = os.dup(1), os.dup(2)
        try:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
            yield lines
        finally:
            for place, descriptor in enumerate(kept, 1):
                os.dup2(descriptor, place)
                os.close(descriptor)
