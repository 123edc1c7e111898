"""ONNX files in onnxruntime's CPU provider."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml.bundled.opening import whole_batches
from edgeml.errors import DataError
from edgeml.runtimes import Arrays, Made, Profile, Signature, Tensor, first_batch, in_batches, range_of

SUFFIX = ".onnx"
LIBRARY = "onnxruntime"
PROFILE_WARM_UPS, PROFILED_AT_ONCE = 50, 250  # runs; a profile holds a million events, the rest is lost
KERNEL, EXECUTE = "_kernel_time", "SequentialExecutor::Execute"
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

    def __init__(self, path: Path, threads: int, optimization: str, profile_prefix: str | None = None) -> None:
        from onnxruntime.capi import onnxruntime_pybind11_state as state

        errors = (state.Fail, state.InvalidGraph, state.InvalidProtobuf, state.NotImplemented, state.InvalidArgument,
                  state.NoSuchFile, state.RuntimeException)  # fmt: skip
        try:
            self.session = _session(str(path), threads, optimization, profile_prefix)
        except errors as error:
            raise DataError(f"{path}: onnxruntime cannot open it: {str(error).splitlines()[0]}.") from error
        self.runtime = version()
        self._path = path
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

    def single(self, inputs: Arrays, rows: int = 1) -> Callable[[], None]:
        """Prepare one inference on the first batch."""
        fed = {name: np.ascontiguousarray(values) for name, values in first_batch(self.signature, inputs, rows).items()}
        names, run = self._names, self.session.run

        def call() -> None:
            run(names, fed)

        return call

    def layers(self, inputs: Arrays) -> list[Made]:
        """Return what the nodes make of all rows, without optimization, each rounded as the file rounds it next.

        Nodes that only turn numbers into integers and back are left out, and so is what is made of constants alone.
        """
        from edgeml.runtimes._onnx_tensors import Opened

        graph = Opened(self._path)
        model, names = graph.with_all_outputs()
        session = _session(model, 1, "off")
        size = self.signature.batch
        fed = {tensor.name: tensor.quantized(inputs[tensor.name]) for tensor in self.signature.inputs}
        rows = len(next(iter(fed.values())))
        step = size or rows
        whole = {name: whole_batches(values, step) for name, values in fed.items()}
        parts = [
            session.run(names, {name: values[i : i + step] for name, values in whole.items()})
            for i in range(0, rows, step)
        ]
        made = {
            name: np.concatenate(arrays)[:rows] if arrays[0].ndim else arrays[0]
            for name, *arrays in zip(names, *parts, strict=True)
        }
        tensors = {**fed, **made}
        found = []
        for node in graph.computing:
            values = graph.rounded(node.output[0], tensors) if node.output[0] in tensors else None
            if values is not None:
                entered = [graph.real(name, tensors) for name in node.input if name in tensors]
                inputs_range = range_of(array for array in entered if array is not None)
                found.append(Made(node.name, node.op_type, inputs_range, values, graph.sources(node)))
        return found


def _session(model: str | bytes, threads: int, optimization: str, profile_prefix: str | None = None) -> Any:
    import onnxruntime as ort

    levels = ort.GraphOptimizationLevel
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    if profile_prefix is not None:
        options.enable_profiling, options.profile_file_prefix = True, profile_prefix
    options.graph_optimization_level = {
        "off": levels.ORT_DISABLE_ALL, "basic": levels.ORT_ENABLE_BASIC, "all": levels.ORT_ENABLE_ALL,
    }[optimization]  # fmt: skip
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def profile(path: Path, inputs: Arrays, threads: int, runs: int) -> Profile:
    """Sum up onnxruntime's own profiler over the quieter ``runs`` of twice as many on the first batch of ``inputs``."""
    parts = []
    for begun in range(0, 2 * runs, PROFILED_AT_ONCE):
        count = min(2 * runs - begun, PROFILED_AT_ONCE)
        with tempfile.TemporaryDirectory(prefix="edgeml-profile-") as place:
            model = Session(path, threads, "all", str(Path(place) / "run"))
            call = model.single(inputs)
            for _ in range(min(PROFILE_WARM_UPS, runs) + count):
                call()
            events = json.loads(Path(model.session.end_profiling()).read_text("utf-8"))
        parts.append(_times(events, count))
    names = parts[0][0]
    us = np.concatenate([times for _, times, _ in parts])
    whole = np.concatenate([total for _, _, total in parts])
    return Profile.of(names, us, whole, f"{version()}, whole microseconds, rounded down")


def _times(events: list[dict[str, Any]], runs: int) -> tuple[list[tuple[str, str]], NDArray[Any], NDArray[Any]]:
    """Return name and kind of every node, their times (runs, nodes) and those of whole runs (runs,) in us."""
    names: dict[int, tuple[str, str]] = {}
    taken: dict[int, list[float]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(KERNEL):
            node = int(event["args"]["node_index"])
            names[node] = event["name"].removesuffix(KERNEL), event["args"]["op_name"]
            taken.setdefault(node, []).append(event["dur"])
    whole = [event["dur"] for event in events if event["name"] == EXECUTE]
    return list(names.values()), np.array([own[-runs:] for own in taken.values()]).T, np.array(whole[-runs:])


def _tensor(node: Any, scales: dict[str, tuple[float, int]]) -> Tensor:
    shape = tuple(size if isinstance(size, int) else None for size in node.shape)
    scale, zero_point = scales.get(node.name, (None, 0))
    return Tensor(node.name, shape, _DTYPES.get(node.type, node.type), scale, zero_point)
