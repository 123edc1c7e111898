"""ONNX files in onnxruntime's CPU provider."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml.errors import DataError
from edgeml.runtimes import Arrays, Signature, Tensor, first_batch, in_batches

SUFFIX = ".onnx"
QUANTIZATION_KEY = "edgeml.quantization"  # metadata: {"tensor name": [scale, zero point]} of quantized inputs, outputs
_DTYPES = {"tensor(float)": "float32", "tensor(uint8)": "uint8", "tensor(int8)": "int8", "tensor(int64)": "int64",
           "tensor(int32)": "int32", "tensor(double)": "float64", "tensor(float16)": "float16"}  # fmt: skip


def version() -> str:
    """Return name and version."""
    import onnxruntime

    return f"onnxruntime {onnxruntime.__version__}"


def open_model(path: Path, threads: int = 1, optimization: str = "all") -> Session:
    """Open a file; ``optimization``: off, basic or all.

    Raises:
        DataError: the file is not a valid ONNX model.
    """
    return Session(path, threads, optimization)


class Session:
    """An onnxruntime session behind the ``Loaded`` protocol."""

    def __init__(self, path: Path, threads: int, optimization: str) -> None:
        import onnxruntime as ort
        from onnxruntime.capi import onnxruntime_pybind11_state as state

        levels = ort.GraphOptimizationLevel
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        options.graph_optimization_level = {
            "off": levels.ORT_DISABLE_ALL, "basic": levels.ORT_ENABLE_BASIC, "all": levels.ORT_ENABLE_ALL,
        }[optimization]  # fmt: skip
        errors = (state.Fail, state.InvalidGraph, state.InvalidProtobuf, state.NotImplemented, state.InvalidArgument,
                  state.NoSuchFile, state.RuntimeException)  # fmt: skip
        try:
            self.session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except errors as error:
            raise DataError(f"{path}: onnxruntime cannot open it: {str(error).splitlines()[0]}.") from error
        self.runtime = version()
        metadata = self.session.get_modelmeta().custom_metadata_map
        scales = json.loads(metadata.get(QUANTIZATION_KEY, "{}"))
        self.signature = Signature(
            tuple(_tensor(node, scales) for node in self.session.get_inputs()),
            tuple(_tensor(node, scales) for node in self.session.get_outputs()),
        )
        self._names = [tensor.name for tensor in self.signature.outputs]

    def predict(self, inputs: Arrays) -> dict[str, NDArray[np.float32]]:
        """Run all rows."""
        return in_batches(self.signature, inputs, self._run)

    def _run(self, batch: Arrays) -> Arrays:
        return dict(zip(self._names, self.session.run(self._names, dict(batch)), strict=True))

    def single(self, inputs: Arrays) -> Callable[[], None]:
        """Prepare one inference on the first batch."""
        fed = {name: np.ascontiguousarray(values) for name, values in first_batch(self.signature, inputs).items()}
        names, run = self._names, self.session.run

        def call() -> None:
            run(names, fed)

        return call


def _tensor(node: Any, scales: dict[str, tuple[float, int]]) -> Tensor:
    shape = tuple(size if isinstance(size, int) else None for size in node.shape)
    scale, zero_point = scales.get(node.name, (None, 0))
    return Tensor(node.name, shape, _DTYPES.get(node.type, node.type), scale, zero_point)
