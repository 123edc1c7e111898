"""The other way to an int8 ONNX file, where tf2onnx cannot read the TFLite file: onnxruntime's static quantization.

    float32 ONNX ─► ranges from calibration samples (minimum and maximum) ─► QuantizeLinear / DequantizeLinear, uint8

Its integers are not those of the int8 TFLite file; real numbers enter and leave. Weights are uint8, one scale per
channel, like those of the first way.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeml.bundled.opening import whole_batches
from edgeml.runtimes import Arrays


def statically_quantized(model: Any, inputs: Sequence[Any], calibration: Arrays, batch: int | None) -> Any:
    """Return the int8 form of a float32 ``ModelProto``; ``inputs``: those of the Keras model, with name and dtype."""
    import onnx

    with tempfile.TemporaryDirectory(prefix="edgeml-static-") as folder:
        source, made = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, source)
        write(source, made, inputs, calibration, batch)
        return onnx.load(made)


def write(source: Path, made: Path, inputs: Sequence[Any], calibration: Arrays, batch: int | None = None) -> None:
    """Write the int8 form of a float32 file; see ``statically_quantized``."""
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    quiet = logging.getLogger()
    level = quiet.level
    quiet.setLevel(logging.ERROR)  # it asks for a preparation that has been made here
    try:
        quantize_static(
            source, made, _Reader(_fed(inputs, calibration, batch or 1)), quant_format=QuantFormat.QDQ,
            per_channel=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QUInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )  # fmt: skip
    finally:
        quiet.setLevel(level)


class _Reader:
    """What onnxruntime draws samples from."""

    def __init__(self, batches: Iterator[Mapping[str, Any]]) -> None:
        self._batches = batches

    def get_next(self) -> Mapping[str, Any] | None:
        """Return the next batch by input, or None at the end."""
        return next(self._batches, None)


def _fed(inputs: Sequence[Any], calibration: Arrays, batch: int) -> Iterator[Mapping[str, Any]]:
    values = {t.name: whole_batches(np.asarray(calibration[t.name]).astype(t.dtype), batch) for t in inputs}
    for row in range(0, len(next(iter(values.values()))), batch):
        yield {name: x[row : row + batch] for name, x in values.items()}
