"""The intermediate tensors of an ONNX file: a graph that gives them all, and what they stand for in real numbers.

x ─ Conv ─ y ─ QuantizeLinear ─ q ─ DequantizeLinear ─ z      what Conv makes is told as z: as it goes on
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

ROUNDING = ("QuantizeLinear", "DequantizeLinear", "Cast")  # turn numbers into integers, or halves, and back


class Opened:
    """The nodes of a file that compute something from its inputs."""

    def __init__(self, path: Path) -> None:
        self._model = onnx.load(path)
        graph = self._model.graph
        self._constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        live = {value.name for value in graph.input} - set(self._constants)
        self._live: list[Any] = []
        for node in graph.node:
            if live & set(node.input):
                live.update(node.output)
                self._live.append(node)
        self.computing = [node for node in self._live if node.op_type not in ROUNDING]

    def with_all_outputs(self) -> tuple[bytes, list[str]]:
        """Return the model with everything that is computed from its inputs as outputs, and their names."""
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        given = {value.name for value in model.graph.output}
        made = [name for node in self._live for name in node.output if name]
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in made if name not in given)
        return model.SerializeToString(), made

    def sources(self, node: Any) -> tuple[str, ...]:
        """Return the nodes whose results a node reads, those that only round left out."""
        found: list[str] = []
        for name in node.input:
            maker = self._maker(name)
            if maker is not None:
                found += self.sources(maker) if maker.op_type in ROUNDING else [maker.name]
        return tuple(found)

    def _maker(self, name: str) -> Any:
        return next((node for node in self._live if name in node.output), None)

    def real(self, name: str, tensors: Mapping[str, NDArray[Any]]) -> NDArray[np.float32] | None:
        """Return a tensor in real numbers: of integers, by the scale that they are made or read with."""
        values = tensors[name]
        if values.dtype.kind == "f":
            return values.astype(np.float32)
        made = self._maker(name)
        made = made if made is not None and made.op_type == "QuantizeLinear" else None
        read = next((node for node in self._live if name in node.input and node.op_type == "DequantizeLinear"), None)
        node: Any = made or read
        scale = self._constants.get(node.input[1]) if node is not None else None
        if scale is None or scale.ndim:
            return None
        zero = self._constants.get(node.input[2], np.zeros(())) if len(node.input) > 2 else np.zeros(())
        return (values.astype(np.float32) - np.float32(zero)) * np.float32(scale)

    def rounded(self, name: str, tensors: Mapping[str, NDArray[Any]]) -> NDArray[np.float32] | None:
        """Return what becomes of a tensor where all that reads it are the integers that it is rounded to."""
        readers = [node for node in self._live if name in node.input]
        if len(readers) == 1 and readers[0].op_type == "QuantizeLinear":
            name = readers[0].output[0]
        return self.real(name, tensors)
