"""TFLite files in LiteRT (ai-edge-litert) with XNNPACK, its default on phones and desktops."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml.bundled.opening import whole_batches
from edgeml.errors import DataError
from edgeml.runtimes import Arrays, Made, Profile, Signature, Tensor, first_batch, in_batches, range_of

SUFFIX = ".tflite"
LIBRARY = "ai_edge_litert.interpreter"
PROFILE_WARM_UPS = 50
# The int8 softmax of the reference kernels sums exponentials of at most 1, and ends the process where that reaches 256:
# of more classes that are about equally likely.
WIDEST_SOFTMAX = 255
FILE_IDENTIFIER = b"TFL3"  # bytes 4..8 of the flatbuffer; LiteRT may crash natively on other bytes


def version() -> str:
    """Return name and version."""
    return f"LiteRT {package_version('ai-edge-litert')}"


def open_model(path: Path, threads: int = 1, *, reference_kernels: bool = False) -> Interpreter:
    """Open a file, with XNNPACK or, if asked, with the reference kernels that microcontrollers run.

    Raises:
        DataError: the file is not a TFLite model, or needs operators that are not built in.
    """
    return Interpreter(path, threads, reference_kernels)


class Interpreter:
    """A LiteRT interpreter behind the ``Loaded`` protocol."""

    def __init__(self, path: Path, threads: int, reference_kernels: bool) -> None:
        self._content = path.read_bytes()
        if self._content[4:8] != FILE_IDENTIFIER:
            raise DataError(f"{path}: not a TFLite file (its identifier is missing).")
        try:
            self.interpreter = _interpreter(self._content, threads, reference_kernels=reference_kernels)
        except (ValueError, RuntimeError) as error:
            raise DataError(f"{path}: LiteRT cannot open it: {str(error).splitlines()[0]}.") from error
        self.runtime = version()
        self._index: dict[str, int] = {}
        details = self.interpreter.get_input_details(), self.interpreter.get_output_details()
        self.signature = Signature(*(tuple(self._tensor(d) for d in side) for side in details))

    def _tensor(self, detail: dict[str, Any]) -> Tensor:
        self._index[detail["name"]] = detail["index"]
        return _described(detail)

    def predict(self, inputs: Arrays) -> dict[str, NDArray[np.float32]]:
        """Run all rows."""
        return in_batches(self.signature, inputs, self._run)

    def _run(self, batch: Arrays) -> Arrays:
        self._feed(batch)
        self.interpreter.invoke()
        return {t.name: self.interpreter.get_tensor(self._index[t.name]) for t in self.signature.outputs}

    def _feed(self, batch: Arrays) -> None:
        for tensor in self.signature.inputs:
            values, index = batch[tensor.name], self._index[tensor.name]
            if tensor.shape[0] is None:
                self.interpreter.resize_tensor_input(index, values.shape)
        if any(tensor.shape[0] is None for tensor in self.signature.inputs):
            self.interpreter.allocate_tensors()
        for tensor in self.signature.inputs:
            self.interpreter.set_tensor(self._index[tensor.name], batch[tensor.name])

    @property
    def overrun(self) -> int:
        """Classes of an int8 softmax that ends the process in the reference kernels if they are about equally likely.

        0 where there is none of so many.
        """
        kinds = {int(i): one["op_name"] for one in self.interpreter._get_ops_details() for i in one["outputs"]}
        widths = [
            int(detail["shape"][-1])
            for detail in self.interpreter.get_tensor_details()
            if kinds.get(detail["index"]) == "SOFTMAX" and detail["dtype"] is np.int8
        ]
        return max((width for width in widths if width > WIDEST_SOFTMAX), default=0)

    def single(self, inputs: Arrays, rows: int = 1) -> Callable[[], None]:
        """Prepare one inference on the first batch."""
        self._feed(first_batch(self.signature, inputs, rows))
        invoke: Callable[[], None] = self.interpreter.invoke
        return invoke

    def layers(self, inputs: Arrays) -> list[Made] | None:
        """Return what the operators make for all rows, by the reference kernels.

        None where the batch is free, or where these kernels may end the process.
        """
        size = self.signature.batch
        if size is None or self.overrun:
            return None
        return _made_by_all(_interpreter(self._content, 1, reference_kernels=True, keep_all=True), self, inputs, size)


def profile(path: Path, inputs: Arrays, threads: int, runs: int) -> Profile:
    """Sum up LiteRT's own profiler over the quieter ``runs`` of twice as many on the first batch of ``inputs``.

    Raises:
        DataError: it cannot run this file.
    """
    from edgeml.runtimes import _litert_profiler as profiler

    signature = open_model(path, threads).signature
    fed = first_batch(signature, inputs)
    with profiler.unheard():
        model = profiler.Profiled(path, [fed[tensor.name] for tensor in signature.inputs], threads)
        for _ in range(min(PROFILE_WARM_UPS, runs)):
            model.run()
        seen = list(model.profile(2 * runs))
    places = [i for i, (_, kind, _) in enumerate(seen[0]) if kind & profiler.OPERATORS]
    whole = next(i for i, (tag, _, _) in enumerate(seen[0]) if tag == profiler.WHOLE)
    us = np.array([[event[2] for event in events] for events in seen])
    operators = [(str(number), seen[0][i][0].decode("utf-8", "replace")) for number, i in enumerate(places)]
    return Profile.of(operators, us[:, places], us[:, whole], f"{version()}, whole microseconds, rounded down")


def _interpreter(content: bytes, threads: int, *, reference_kernels: bool, keep_all: bool = False) -> Any:
    from ai_edge_litert.interpreter import Interpreter as LiteRT
    from ai_edge_litert.interpreter import OpResolverType

    made = LiteRT(
        model_content=content,
        num_threads=threads,
        experimental_op_resolver_type=OpResolverType.BUILTIN_REF if reference_kernels else OpResolverType.AUTO,
        experimental_preserve_all_tensors=keep_all,
    )
    made.allocate_tensors()
    return made


def _described(detail: dict[str, Any]) -> Tensor:
    shape = tuple(int(size) if size >= 0 else None for size in detail["shape_signature"])
    dtype = np.dtype(detail["dtype"]).name
    scale, zero_point = detail["quantization"]
    if not scale:
        return Tensor(detail["name"], shape, dtype)
    return Tensor(detail["name"], shape, dtype, float(scale), int(zero_point))


def _made_by_all(kept: Any, opened: Interpreter, inputs: Arrays, size: int) -> list[Made]:
    """Run ``kept``, an interpreter that keeps all tensors, batch by batch; return what its operators make."""
    details = {detail["index"]: detail for detail in kept.get_tensor_details()}
    live = {int(detail["index"]) for detail in kept.get_input_details()}
    operators = []
    for one in kept._get_ops_details():  # those that read constants alone are left out
        sources, made = ([int(i) for i in one[side] if int(i) in details] for side in ("inputs", "outputs"))
        if live & set(sources):
            live.update(made)
            operators.append((one["op_name"], sources, made))
    wanted = [index for index in sorted(live) if _is_real(details[index])]
    rows = len(next(iter(inputs.values())))
    fed = {t.name: whole_batches(t.quantized(inputs[t.name]), size) for t in opened.signature.inputs}
    parts: dict[int, list[NDArray[Any]]] = {index: [] for index in wanted}
    for row in range(0, rows, size):
        for name, values in fed.items():
            kept.set_tensor(opened._index[name], values[row : row + size])
        kept.invoke()
        for index in wanted:
            parts[index].append(kept.get_tensor(index))
    real = {i: _described(details[i]).real(np.concatenate(parts[i])[:rows]) for i in wanted if parts[i][0].ndim}
    return [
        Made(details[i]["name"], kind, range_of(real[k] for k in sources if k in real), real[i],
             tuple(details[k]["name"] for k in sources if k in real))
        for kind, sources, made in operators
        for i in made
        if i in real
    ]  # fmt: skip


def _is_real(detail: dict[str, Any]) -> bool:
    """Tell whether a tensor holds real numbers, as they are or by a scale."""
    return np.dtype(detail["dtype"]).kind == "f" or bool(detail["quantization"][0])
