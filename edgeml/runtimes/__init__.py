"""Runtimes, one file each: ``open_model(path, threads=1) -> Loaded``, ``SUFFIX``, ``LIBRARY``, ``version()``.

One that can also has ``profile(path, inputs, threads, runs) -> Profile``. ``LIBRARY`` is what it opens files with.
Of several that open files of one suffix, the one that says ``IS_DEFAULT = False`` is asked for by name alone.

Parity and timing see every model through ``Loaded``: the Keras reference and each exported file are the same to them.
Values are real numbers (float32): a quantized file's scale and zero point are applied here, on the way in and out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeml.bundled.opening import whole_batches
from edgeml.errors import DataError

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Tensor:
    """One input or output. ``shape`` with batch, ``None`` where free; real value = (q - ``zero_point``) * ``scale``."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    scale: float | None = None
    zero_point: int = 0

    def quantized(self, values: NDArray[Any]) -> NDArray[Any]:
        """Turn real values into what the file is fed."""
        if self.scale is None:
            return np.asarray(values, self.dtype)
        limits = np.iinfo(self.dtype)
        steps = np.round(np.asarray(values, np.float32) / np.float32(self.scale)) + self.zero_point
        return np.asarray(np.clip(steps, limits.min, limits.max), self.dtype)

    def real(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Turn what the file returns into real values."""
        if self.scale is None:
            return np.asarray(values, np.float32)
        return (np.asarray(values, np.float32) - np.float32(self.zero_point)) * np.float32(self.scale)


@dataclass(frozen=True, eq=False)
class Made:
    """What one operator of a model makes of some inputs: an intermediate tensor, in real numbers, (N, …).

    ``name`` is that of the tensor in its file, or of a Keras layer; ``operator`` is the runtime's word for what is
    computed; ``input_range`` is the least and the largest number that enters it; ``reads`` names the tensors that do.
    """

    name: str
    operator: str
    input_range: tuple[float, float]
    values: NDArray[np.float32]
    reads: tuple[str, ...] = ()


@dataclass(frozen=True)
class Signature:
    """Names, shapes and types of what goes in and what comes out."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @property
    def batch(self) -> int | None:
        """The batch size that the model insists on, or ``None``."""
        return self.inputs[0].shape[0]


@dataclass(frozen=True)
class OperatorTime:
    """Mean time of one operator in a run; ``kind`` as the runtime calls it, after all its fusions."""

    name: str
    kind: str
    ms: float


@dataclass(frozen=True)
class Profile:
    """Where the time of a run goes: ``run_ms`` is the mean of the whole, all as ``profiler`` counts it.

    Means are of the quieter half of the runs that were made, ``runs`` of them.
    """

    operators: tuple[OperatorTime, ...]
    run_ms: float
    runs: int
    profiler: str

    @classmethod
    def of(
        cls, operators: Sequence[tuple[str, str]], us: NDArray[Any], whole_us: NDArray[Any], profiler: str
    ) -> Profile:
        """Sum up: ``operators`` are names and kinds, ``us`` their times (runs, operators), ``whole_us`` (runs,)."""
        kept = np.argsort(whole_us, kind="stable")[: len(whole_us) // 2]
        mean = us[kept].mean(axis=0) / 1e3
        times = tuple(OperatorTime(*one, float(ms)) for one, ms in zip(operators, mean, strict=True))
        return cls(times, float(whole_us[kept].mean()) / 1e3, len(kept), profiler)


class Loaded(Protocol):
    """An opened model."""

    signature: Signature
    runtime: str  # name and version

    def predict(self, inputs: Arrays) -> dict[str, NDArray[np.float32]]:
        """Run all rows, in batches that the model takes; real values in and out."""

    def single(self, inputs: Arrays, rows: int = 1) -> Callable[[], None]:
        """Prepare one inference on the first batch (``rows`` where it is free), return the call that runs just it."""

    def layers(self, inputs: Arrays) -> list[Made] | None:
        """Return every intermediate tensor for all rows, in the order of computation; None where they stay hidden."""


def range_of(arrays: Iterable[NDArray[Any]]) -> tuple[float, float]:
    """Return the least and the largest number of some arrays, (0, 0) if there is none."""
    found = [array for array in arrays if array.size]
    return (min(float(a.min()) for a in found), max(float(a.max()) for a in found)) if found else (0.0, 0.0)


def in_batches(signature: Signature, inputs: Arrays, run: Callable[[Arrays], Arrays]) -> dict[str, NDArray[np.float32]]:
    """Quantize ``inputs``, call ``run`` batch by batch, and return real outputs by name.

    Where the batch is fixed the last row fills up the last one.
    """
    rows = len(next(iter(inputs.values())))
    step = signature.batch or max(rows, 1)
    fed = {tensor.name: whole_batches(tensor.quantized(inputs[tensor.name]), step) for tensor in signature.inputs}
    parts = [run({name: values[i : i + step] for name, values in fed.items()}) for i in range(0, rows, step)]
    return {t.name: t.real(np.concatenate([part[t.name] for part in parts])[:rows]) for t in signature.outputs}


def first_batch(signature: Signature, inputs: Arrays, rows: int = 1) -> Arrays:
    """Return what one inference is fed: the first ``rows``, or as many as the batch has where that is fixed."""
    size = signature.batch or rows
    return {t.name: whole_batches(t.quantized(inputs[t.name][:size]), size) for t in signature.inputs}


def open_model(path: Path, threads: int = 1) -> Loaded:
    """Open a model file in the runtime that its suffix names.

    Raises:
        DataError: no runtime opens such files, or this one is not a model.
    """
    loaded: Loaded = runtime_of(path)[1].open_model(path, threads)
    return loaded


def runtime_of(path: Path) -> tuple[str, ModuleType]:
    """Return name and module of the runtime that opens a file, as its suffix says.

    Raises:
        DataError: none does, or there is no such file.
    """
    from edgeml import plugins

    modules, _ = plugins.working("runtimes")
    by_suffix = {one.SUFFIX: name for name, one in modules.items() if getattr(one, "IS_DEFAULT", True)}
    if path.suffix not in by_suffix:
        raise DataError(f"{path}: no runtime opens '{path.suffix}' files; {', '.join(sorted(by_suffix))} are known.")
    if not path.is_file():
        raise DataError(f"{path}: no such file.")
    name = by_suffix[path.suffix]
    return name, plugins.get("runtimes", name)
