"""Which layers stay in float: those whose quantization alone costs most.

Each layer by itself is quantized, all others left in float, the file is run, and its mean squared error against the
float model is noted: of two layers that spoil each other's input, both are found. In that order layers are left in
float, worst first, until the file is as accurate as it must be: at most half of them, else it is no integer file.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml.errors import DataError
from edgeml.runtimes import Arrays, open_model
from edgeml.targets import tflite
from edgeml.targets._tflite_floats import computed

SAMPLES = 256  # of those that files are held against: errors of single layers are compared, not accuracies

Outputs = Mapping[str, NDArray[np.float32]]


def choose(
    model: Any,
    calibration: Arrays,
    inputs: Arrays,
    expected: Outputs,
    is_enough: Callable[[Outputs], bool],
    batch: int | None = None,
) -> tuple[str, ...]:
    """Return the names of the layers of a folded model that stay float, fewest first tried; () if none has a kernel.

    Args:
        model: folded Keras model.
        calibration: samples (N, …) by input.
        inputs: samples that files are held against.
        expected: what the float model says of them.
        is_enough: judges a file's outputs for all ``inputs``.
        batch: that of the file, None for 1.
    """
    prepared = tflite.prepare(model, calibration, batch)
    few = {name: x[:SAMPLES] for name, x in inputs.items()}
    with tempfile.TemporaryDirectory(prefix="edgeml-floats-") as folder:
        path = Path(folder) / "model.tflite"

        def said(layers: tuple[str, ...], samples: Arrays) -> Outputs | None:
            path.write_bytes(tflite.with_float_layers(prepared, model, layers))
            try:
                return open_model(path).predict(samples)
            except DataError:  # LiteRT cannot open it
                return None

        names = tuple(computed(prepared, model))
        errors = {one: _error(said(tuple(n for n in names if n != one), few), expected) for one in names}
        order = sorted(errors, key=lambda name: -errors[name])
        chosen: tuple[str, ...] = ()
        for name in order[: (len(order) + 1) // 2]:
            chosen = (*chosen, name)
            outputs = said(chosen, inputs)
            if outputs is not None and is_enough(outputs):
                break
    return chosen


def _error(outputs: Outputs | None, expected: Outputs) -> float:
    if outputs is None:
        return np.inf
    return sum(float(np.mean((values - expected[name][: len(values)]) ** 2)) for name, values in outputs.items())
