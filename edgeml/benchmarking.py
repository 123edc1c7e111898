"""Latency of bundles and of single files, all in one interleaved run, compared with one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml import bundle, timing
from edgeml.errors import DataError
from edgeml.runtimes import open_model
from edgeml.timing import Comparison, Latency

SUFFIXES = (".onnx", ".tflite")


def benchmark(
    sources: str | Path | Sequence[str | Path], against: str | Path | None = None, threads: int = 1
) -> tuple[list[Latency], list[Comparison]]:
    """Time every model file of ``sources`` (one or several bundles or files), and compare each with ``against``.

    Raises:
        DataError: a file that cannot be opened, or files whose inputs differ.
    """
    given = [sources] if isinstance(sources, (str, Path)) else sources
    files = {str(path): path for source in given for path in _files(Path(source))}
    if against is not None:
        files[str(against)] = Path(against)
    inputs = _inputs(files)
    records, blocks = timing.measure(files, inputs, precision=dict.fromkeys(files, "as in file"), threads=threads)
    if against is None:
        return records, []
    floor = {record.file: record.noise_floor for record in records}
    other = str(against)
    compared = [
        timing.compare(name, blocks[name], other, blocks[other], max(floor[name], floor[other]))
        for name in files
        if name != other
    ]
    return records, compared


def _files(source: Path) -> list[Path]:
    if source.is_dir():
        return [source / entry["path"] for entry in bundle.models(bundle.read(source))]
    if source.suffix not in SUFFIXES:
        raise DataError(f"{source}: not a bundle or a {' / '.join(SUFFIXES)} file. Export the model first.")
    return [source]


def _inputs(files: Mapping[str, Path]) -> dict[str, NDArray[Any]]:
    """Make one random sample per input; files with equally named inputs share it."""
    rng = np.random.default_rng(0)
    made: dict[str, NDArray[Any]] = {}
    for name, path in files.items():
        for tensor in open_model(path).signature.inputs:
            shape = tuple(size or 1 for size in tensor.shape)
            if tensor.name in made and made[tensor.name].shape != (1, *shape[1:]):
                raise DataError(f"{name}: input '{tensor.name}' has shape {shape}; another file has another shape.")
            made.setdefault(tensor.name, rng.uniform(0, 1, (1, *shape[1:])).astype("float32"))
    return made
