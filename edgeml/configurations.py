"""In which configurations a file is proven: runtimes, kernels or optimization, threads, rows at once. One table.

The first of a suffix is the default one, in which a file is run on everything that there is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml import plugins
from edgeml.runtimes import Arrays, Loaded, open_model

BATCH = 64  # rows at once, where a file takes any number
SOME = 512  # real inputs, where not all are due
MOST_MACS = 2**31  # on them, in a configuration that is not the default one (2 s of reference kernels)


@dataclass(frozen=True)
class Configuration:
    """How a file is run: the runtime and what it is told, threads, and rows at once where the file takes any number."""

    runtime: str
    words: str
    options: Mapping[str, Any] = field(default_factory=dict)
    threads: int = 1
    batch: int = BATCH
    is_default: bool = False

    def open(self, path: Path) -> Loaded:
        """Open a file so."""
        if not self.runtime:
            return open_model(path, self.threads)
        loaded: Loaded = plugins.get("runtimes", self.runtime).open_model(path, self.threads, **self.options)
        return loaded

    def told(self, opened: Loaded) -> str:
        """Say it, with the version of the runtime and the batch of the file."""
        rows, threads = opened.signature.batch or self.batch, f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        return ", ".join(part for part in (opened.runtime, self.words, threads, f"batch {rows}") if part)


LITERT_REFERENCE = Configuration("litert", "reference kernels", {"reference_kernels": True})  # these know no threads
CONFIGURATIONS: Mapping[str, Sequence[Configuration]] = {
    ".tflite": (
        Configuration("litert", "XNNPACK", is_default=True),
        Configuration("litert", "XNNPACK", threads=2),
        LITERT_REFERENCE,
    ),
    ".onnx": tuple(
        Configuration(
            "onnxruntime", f"optimization {level}", {"optimization": level}, threads, batch,
            is_default=(level, threads, batch) == ("all", 1, BATCH),
        )
        for level, threads, batch in product(("all", "basic", "off"), (1, 2), (BATCH, 1))
    ),
}  # fmt: skip
OTHERS = (Configuration("", "", is_default=True),)  # files of somebody else's target, in its own runtime
MICRO = Configuration("tflm", "")
MICRO_FILES = (("tflite", "int8"),)


def of(path: Path) -> Sequence[Configuration]:
    """Return the configurations of a file, the default one first; those of one batch size where it is fixed.

    Without the reference kernels where they may end the process, see ``overrun``.
    """
    found = CONFIGURATIONS.get(path.suffix, OTHERS)
    opened = found[0].open(path)
    able = [one for one in found if one is not LITERT_REFERENCE or not getattr(opened, "overrun", 0)]
    return able if opened.signature.batch is None else [one for one in able if one.batch == BATCH]


def overrun(path: Path) -> int:
    """Return how many classes the int8 softmax of a TFLite file has, where that is more than reference kernels take."""
    classes: int = getattr(CONFIGURATIONS.get(path.suffix, OTHERS)[0].open(path), "overrun", 0)
    return classes


def runs_on_micro(target: str, precision: str) -> bool:
    """Tell whether a file is also to be run by TensorFlow Lite Micro: if it is installed."""
    return (target, precision) in MICRO_FILES and find_spec("tflite_micro") is not None


class InBatches:
    """A model that is given so many rows at once, where it takes any number."""

    def __init__(self, model: Loaded, rows: int) -> None:
        self.signature, self.runtime = model.signature, model.runtime
        self.single, self.layers = model.single, model.layers
        self._predict: Callable[[Arrays], dict[str, NDArray[np.float32]]] = model.predict
        self._rows = None if self.signature.batch else rows

    def predict(self, inputs: Arrays) -> dict[str, NDArray[np.float32]]:
        """Return the outputs for all rows of ``inputs``."""
        count = len(next(iter(inputs.values())))
        if self._rows is None or count <= self._rows:
            return self._predict(inputs)
        parts = [
            self._predict({name: values[i : i + self._rows] for name, values in inputs.items()})
            for i in range(0, count, self._rows)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


class Remembering:
    """A model that is asked for the same outputs again and again, and computes them once."""

    def __init__(self, model: Loaded) -> None:
        self.signature, self.runtime = model.signature, model.runtime
        self.single, self.layers = model.single, model.layers
        self._model = model
        self._known: list[tuple[Arrays, dict[str, NDArray[np.float32]]]] = []

    def predict(self, inputs: Arrays) -> dict[str, NDArray[np.float32]]:
        """Return the outputs for all rows of ``inputs``."""
        known = next((outputs for asked, outputs in self._known if asked is inputs), None)
        if known is None:
            known = self._model.predict(inputs)
            self._known.append((inputs, known))
        return known


def some_of(samples: Arrays, macs: int) -> Arrays:
    """Return the real inputs of a configuration that is not the default one, spread over all; ``macs`` of one."""
    count = len(next(iter(samples.values())))
    some = min(count, SOME, max(1, MOST_MACS // max(macs, 1)))
    if some == count:
        return samples
    places = np.linspace(0, count - 1, some).astype(int)
    return {name: values[places] for name, values in samples.items()}
