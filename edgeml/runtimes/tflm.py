"""Integer TFLite files in TensorFlow Lite Micro (tflite-micro), as microcontrollers compute them; an extra of its own.

Its kernels are the reference ones of LiteRT, compiled for the host; results agree but for a few roundings.
"""

from __future__ import annotations

import os
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
ARENA_BYTES = 16_000_000


def is_installed() -> bool:
    """Tell whether the extra is there."""
    return find_spec("tflite_micro") is not None


def version() -> str:
    """Return name and version."""
    return f"TFLM {package_version('tflite-micro')}"


def open_model(path: Path, threads: int = 1) -> Interpreter:
    """Open an integer TFLite file; ``threads`` is 1, there are no others.

    Raises:
        UsageError: tflite-micro is not installed.
        DataError: the file needs an operator that it lacks, or more than 16 MB of memory.
    """
    if not is_installed():
        raise UsageError("tflm: tflite-micro is not installed. pip install 'edgeml-export[micro]'.")
    return Interpreter(path)


class Interpreter:
    """An interpreter of TensorFlow Lite Micro behind the ``Loaded`` protocol; it knows tensors by place alone."""

    def __init__(self, path: Path) -> None:
        from tflite_micro import runtime

        with _silence():
            try:
                self._interpreter = runtime.Interpreter.from_file(str(path), arena_size=ARENA_BYTES)
            except (ValueError, RuntimeError) as error:
                raise DataError(f"{path}: TensorFlow Lite Micro cannot open it: {error}.") from error
        names = _names(path.read_bytes())
        self.runtime = version()
        ask = self._interpreter.get_input_details, self._interpreter.get_output_details
        self.signature = Signature(
            *(tuple(_tensor(name, details(place)) for place, name in enumerate(side))
              for side, details in zip(names, ask, strict=True))
        )  # fmt: skip

    def predict(self, inputs: Arrays) -> dict[str, NDArray[np.float32]]:
        """Run all rows."""
        return in_batches(self.signature, inputs, self._run)

    def _run(self, batch: Arrays) -> Arrays:
        for place, tensor in enumerate(self.signature.inputs):
            self._interpreter.set_input(np.ascontiguousarray(batch[tensor.name]), place)
        self._interpreter.invoke()
        outputs = enumerate(self.signature.outputs)
        return {tensor.name: np.array(self._interpreter.get_output(place)) for place, tensor in outputs}

    def single(self, inputs: Arrays) -> Callable[[], None]:
        """Prepare one inference on the first batch."""
        self._run(first_batch(self.signature, inputs))
        invoke: Callable[[], None] = self._interpreter.invoke
        return invoke

    def layers(self, inputs: Arrays) -> list[Made] | None:
        """Return None: tensors share memory, and are gone when a run has ended."""
        del inputs
        return None


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
def _silence() -> Iterator[None]:
    """Keep what its C++ code prints away from the terminal."""
    sys.stdout.flush()
    with tempfile.TemporaryFile() as said:
        kept = os.dup(1), os.dup(2)
        try:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
            yield
        finally:
            for place, descriptor in enumerate(kept, 1):
                os.dup2(descriptor, place)
                os.close(descriptor)
