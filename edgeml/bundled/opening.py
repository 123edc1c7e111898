"""Opening a model file with numpy and a runtime, no more: what ``verify.py`` and ``benchmark.py`` have in common.

``bundle.copy_scripts`` puts these lines in the place of their import, so that each script of a bundle runs alone.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import operator
from pathlib import Path
from typing import Any, Callable, NamedTuple  # noqa: UP035  (at home on Python 3.9)

import numpy as np

Run = Callable[[Any], Any]  # from inputs by name to a list of outputs
Single = Callable[[Any], Callable[[], Any]]  # puts inputs in place; what it returns makes one inference, no more
INSTALL = {".onnx": "onnxruntime", ".tflite": "ai-edge-litert"}
INTERPRETERS = (  # module, path of the class in it, distribution
    ("ai_edge_litert.interpreter", "Interpreter", "ai-edge-litert"),
    ("tflite_runtime.interpreter", "Interpreter", "tflite-runtime"),
    ("tensorflow", "lite.Interpreter", "tensorflow"),
)


class Opened(NamedTuple):
    """A file in its runtime (name and version), and what it calls its inputs; ``single`` is for timing."""

    runtime: str
    fed: list[str]
    run: Run
    single: Single


def open_onnx(path: Path, inputs: list[str], outputs: list[str], threads: int) -> Opened:
    """Open an ONNX file."""
    runtime = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    fed, wanted = (
        [names[place] for place in places(asked, names)]
        for asked, names in (
            (inputs, [one.name for one in session.get_inputs()]),
            (outputs, [one.name for one in session.get_outputs()]),
        )
    )

    def single(feed: dict[str, Any]) -> Callable[[], Any]:
        return lambda: session.run(wanted, feed)

    return Opened(f"onnxruntime {runtime.__version__}", fed, lambda feed: session.run(wanted, feed), single)


def open_tflite(path: Path, inputs: list[str], outputs: list[str], threads: int) -> Opened:
    """Open a TFLite file."""
    kind, runtime = interpreter_class()
    model = kind(model_path=str(path), num_threads=threads)
    model.allocate_tensors()
    sources, results = model.get_input_details(), model.get_output_details()
    chosen = [results[place]["index"] for place in places(outputs, [one["name"] for one in results])]
    index = {one["name"]: one["index"] for one in sources}
    names = list(index)

    def single(feed: dict[str, Any]) -> Callable[[], Any]:
        for name, x in feed.items():
            model.set_tensor(index[name], x)
        invoke: Callable[[], Any] = model.invoke
        return invoke

    def run(feed: dict[str, Any]) -> list[Any]:
        single(feed)()
        return [model.get_tensor(one) for one in chosen]

    return Opened(runtime, [names[place] for place in places(inputs, names)], run, single)


def places(asked: list[str], names: list[str]) -> list[int]:
    """Find tensors by their names, one that goes by another name in this file by its place."""
    return [names.index(name) if name in names else place for place, name in enumerate(asked)]


def tensors(manifest: dict[str, Any], entry: dict[str, Any], side: str) -> list[dict[str, Any]]:
    """List what a file takes (side "input") or gives: name, dtype, and scale and zero point where it is quantized."""
    listed = manifest.get(side + "s") or [manifest[side]]
    quantization = entry.get("quantization") or {}
    first = {listed[0]["name"]: quantization.get(side) or {}}
    quantized = quantization.get(side + "s") or first
    return [{"dtype": "float32", **one, **quantized.get(one["name"], {})} for one in listed]


def golden_tensors(golden: Any, key: str, names: list[str]) -> list[Any]:
    """Return the golden tensors of a kind: the first has the bare key, others their names behind it."""
    return [golden[key if place == 0 else f"{key}/{name}"] for place, name in enumerate(names)]


def interpreter_class() -> tuple[Any, str]:
    """Find a TFLite interpreter that is installed; an ImportError if there is none."""
    for module, attribute, distribution in INTERPRETERS:
        try:
            found = importlib.import_module(module)
        except ImportError:
            continue
        return operator.attrgetter(attribute)(found), f"{distribution} {version(distribution)}"
    raise ImportError("no TFLite interpreter is installed")


def version(distribution: str) -> str:
    """Tell the version of an installed distribution, an empty string if it goes by another name here (nightly, cpu)."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def as_input(x: Any, tensor: dict[str, Any]) -> Any:
    """Turn real values into what the file takes: round(x / scale) + zero_point, cut to the range of its dtype."""
    dtype = np.dtype(tensor["dtype"])
    if "scale" not in tensor:
        return np.asarray(x, dtype)
    steps = np.round(np.asarray(x, np.float64) / tensor["scale"]) + tensor["zero_point"]
    return np.clip(steps, np.iinfo(dtype).min, np.iinfo(dtype).max).astype(dtype)


def whole_batches(x: Any, batch: int) -> Any:
    """Repeat the last row until the rows are whole batches."""
    return np.concatenate([x, np.repeat(x[-1:], -len(x) % batch, axis=0)])


OPENERS = {".onnx": open_onnx, ".tflite": open_tflite}
LIBRARIES = {".onnx": ("onnxruntime",), ".tflite": tuple(module for module, _, _ in INTERPRETERS)}
