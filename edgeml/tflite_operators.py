"""The operators of a ``.tflite`` file, read from its flatbuffer: the file is counted as it is, nothing is run.

    CONV_2D  x (1, 8, 8, 3), w (4, 3, 3, 3), b (4,)  →  Operator("conv", weights 108, biases 4, MACs 8 * 8 * 108)

Constants that a DEQUANTIZE alone reads count as what it feeds. A bias of nothing but zeros is not counted: the
converter adds one to every convolution that has none. An operator that is not known keeps the file's name for it as
its kind, in lower case: ``operators.not_counted`` lists it.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edgeml.errors import DataError
from edgeml.operators import Operator, Shape, without_batch

FILE_IDENTIFIER = b"TFL3"  # bytes 4..8 of the flatbuffer
ACTIVATIONS = {0: "linear", 1: "relu", 2: "relu_n1_to_1", 3: "relu6", 4: "tanh"}  # ActivationFunctionType
BYTES = {0: 4, 1: 2, 2: 4, 3: 1, 4: 8, 6: 1, 7: 2, 9: 1, 10: 8}  # of TensorType: float32, float16, int32, …
FLOAT32 = 0
NUMBERS = {1: "<f2", 2: "<i4", 4: "<i8", 7: "<i2"}  # TensorType of biases; the rest are float32


class Wired(NamedTuple):
    """An operator as the format calls it (``CONV_2D``), the name of its first output, and its tensors by number."""

    kind: str
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def tflite_operators(path: Path) -> tuple[Operator, ...]:
    """List the operators of the file's main graph in the order in which they run.

    Raises:
        DataError: the file is not a TFLite model, or is damaged.
    """
    content = path.read_bytes()
    if content[4:8] != FILE_IDENTIFIER:
        raise DataError(f"{path}: not a TFLite file (its identifier is missing).")
    try:
        return tuple(_Reader(content).operators())
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError, struct.error) as error:
        raise DataError(f"{path}: not a whole TFLite file ({type(error).__name__}: {error}). Get it again.") from error


def builtin_operators(path: Path) -> list[tuple[str, str]]:
    """Return kind, as the format calls it (``CONV_2D``), and first output of every operator of the main graph."""
    reader = _Reader(path.read_bytes())
    return [
        (reader.kind(node), (reader.tensors[node.outputs[0]].name or b"").decode("utf-8", "replace"))
        for node in reader.graph.operators
    ]


def wired_operators(path: Path) -> list[Wired]:
    """Return every operator of the main graph with the tensors that it reads and makes, in the file's order."""
    reader = _Reader(path.read_bytes())
    return [
        Wired(kind, name, tuple(int(i) for i in node.inputs), tuple(int(i) for i in node.outputs))
        for (kind, name), node in zip(builtin_operators(path), reader.graph.operators, strict=True)
    ]


def edges(path: Path) -> list[tuple[str, Shape, int, tuple[float, ...], tuple[int, ...]]]:
    """Return name, shape, type, scales and zero points of what enters and leaves the main graph, in order."""
    reader = _Reader(path.read_bytes())
    found = []
    for index in (*reader.graph.inputs, *reader.graph.outputs):
        tensor = reader.tensors[index]
        scales = tensor.quantization
        numbers = ((), ()) if scales is None else (scales.scale, scales.zeroPoint)
        each = [() if one is None else tuple(one) for one in numbers]
        name = (tensor.name or b"").decode("utf-8", "replace")
        found.append((name, reader.full_shape(index), int(tensor.type), each[0], each[1]))
    return found


class _Reader:
    """The graph of one file, with the operator that makes each tensor."""

    def __init__(self, content: bytes) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self.model = schema.ModelT.InitFromPackedBuf(content, 0)
        self.graph = self.model.subgraphs[0]
        self.tensors = self.graph.tensors
        self.names = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
        self.made_by: dict[int, str] = {}
        self.constants = {i: i for i, tensor in enumerate(self.tensors) if self._is_stored(tensor)}
        self.counted: set[int] = set()

    def operators(self) -> list[Operator]:
        found = [self._named(Operator("", "input", (), self.shape(i), bytes_per_element=self.bytes(i)), i)
                 for i in self.graph.inputs]  # fmt: skip
        for node in self.graph.operators:
            kind = self.kind(node)
            inputs = [int(i) for i in node.inputs]
            if kind == "DEQUANTIZE" and inputs[0] in self.constants:
                self.constants[int(node.outputs[0])] = self.constants[inputs[0]]
                continue
            sources = tuple(self.made_by[i] for i in inputs if i in self.made_by)
            described = _KINDS.get(kind, _other)(self, node, kind)
            for number, output in enumerate(node.outputs):
                keys = {"output_shape": self.shape(output), "bytes_per_element": self.bytes(output), **described}
                cost = keys if number == 0 else {**keys, "weights": 0, "biases": 0, "macs": 0}
                found.append(self._named(Operator(name="", inputs=sources, **cost), output))
        return found

    def _named(self, operator: Operator, tensor: int) -> Operator:
        name = (self.tensors[tensor].name or b"").decode("utf-8", "replace") or f"tensor_{tensor}"
        if name in self.made_by.values():
            name = f"{name}#{tensor}"
        self.made_by[int(tensor)] = name
        return operator._replace(name=name)

    def kind(self, node: Any) -> str:
        """Return what the format calls an operator."""
        code = self.model.operatorCodes[node.opcodeIndex]
        kind = self.names[max(code.builtinCode, code.deprecatedBuiltinCode)]
        return (code.customCode or b"custom").decode("utf-8", "replace") if kind == "CUSTOM" else kind

    def _is_stored(self, tensor: Any) -> bool:
        buffer = self.model.buffers[tensor.buffer]
        return (buffer.data is not None and len(buffer.data) > 0) or bool(buffer.offset > 1)

    def shape(self, tensor: int) -> Shape:
        """Return a tensor's shape without the batch."""
        return without_batch(self.full_shape(tensor))

    def full_shape(self, tensor: int) -> Shape:
        """Return a tensor's shape as the file has it."""
        shape = self.tensors[tensor].shape
        return () if shape is None else tuple(int(size) for size in shape)

    def bytes(self, tensor: int) -> int:
        """Return what one element of a tensor takes."""
        return BYTES[self.tensors[tensor].type]

    def scalars(self, tensor: int) -> int:
        """Return how many scalars of a constant this operator is the first to read; 0 for what is computed."""
        stored = self.constants.get(tensor)
        if stored is None or stored in self.counted:
            return 0
        self.counted.add(stored)
        return self.size(tensor)

    def size(self, tensor: int) -> int:
        """Return how many scalars a constant has; 0 for what is computed."""
        stored = self.constants.get(tensor)
        return 0 if stored is None else math.prod(self.full_shape(stored))

    def bias(self, node: Any, place: int) -> int:
        """Return how many scalars the bias at input ``place`` has; 0 where it is missing or nothing but zeros."""
        tensor = int(node.inputs[place]) if len(node.inputs) > place else -1
        if tensor not in self.constants:
            return 0
        stored = self.tensors[self.constants[tensor]]
        data = self.model.buffers[stored.buffer].data
        if data is not None and not np.frombuffer(data, NUMBERS.get(stored.type, "<f4")).any():
            return 0
        return self.scalars(tensor)


Described = dict[str, Any]


def _other(_reader: _Reader, _node: Any, kind: str) -> Described:
    return {"kind": kind.lower()}


def _plain(kind: str, counted: bool = False) -> Callable[[_Reader, Any, str], Described]:
    """Describe an operator without MACs; where ``counted``, its constant operands are weights.

    They are counted for each reader: files merge equal scalars, such as the weights of two members.
    """

    def describe(reader: _Reader, node: Any, _name: str) -> Described:
        weights = sum(reader.size(int(i)) for i in node.inputs) if counted else 0
        return {"kind": "affine" if weights and kind in ("add", "multiply") else kind, "weights": weights,
                "activation": _activation(node)}  # fmt: skip

    return describe


def _compare(reader: _Reader, node: Any, name: str) -> Described:
    """Describe a comparison; floats that are held against constants, as trees do, have no int8 form."""
    described = _plain("compare", counted=True)(reader, node, name)
    is_float = any(reader.tensors[i].type == FLOAT32 for i in node.inputs)
    return {**described, "float_only": is_float and described["weights"] > 0}


def _activated(name: str) -> Callable[[_Reader, Any, str], Described]:
    def describe(reader: _Reader, node: Any, _name: str) -> Described:
        return {"kind": "activation", "activation": name, "weights": sum(reader.scalars(int(i)) for i in node.inputs)}

    return describe


def _matrix(kind: str, data: int = 0) -> Callable[[_Reader, Any, str], Described]:
    """Describe a product of input ``data`` with the weights behind it; they may be computed, and cost MACs anyway."""

    def describe(reader: _Reader, node: Any, name: str) -> Described:
        weights = math.prod(reader.full_shape(int(node.inputs[1])))
        output = reader.full_shape(int(node.outputs[0]))
        turned = reader.full_shape(int(node.inputs[data])) if name == "TRANSPOSE_CONV" else output
        options, kernel = node.builtinOptions, reader.full_shape(int(node.inputs[1]))[1:-1]
        strides = tuple(getattr(options, f"stride{side}", 1) for side in "HW") if kernel else ()
        return {
            "kind": kind, "weights": reader.scalars(int(node.inputs[1])), "biases": reader.bias(node, data + 2),
            "macs": math.prod(turned[:-1]) * weights, "kernel": kernel, "strides": strides,
            "activation": _activation(node),
        }  # fmt: skip

    return describe


def _transposed(reader: _Reader, node: Any, name: str) -> Described:
    return {**_matrix("conv", data=2)(reader, node, name), "biases": reader.bias(node, 3)}


def _batch_matmul(reader: _Reader, node: Any, _name: str) -> Described:
    left = reader.full_shape(int(node.inputs[0]))
    common = left[-2] if node.builtinOptions.adjX else left[-1]
    macs = math.prod(reader.full_shape(int(node.outputs[0]))) * common
    weights = sum(reader.scalars(int(i)) for i in node.inputs)
    return {"kind": "matmul" if weights else "dense", "weights": weights, "macs": macs}


def _activation(node: Any) -> str:
    return ACTIVATIONS.get(getattr(node.builtinOptions, "fusedActivationFunction", 0), "other")


_KINDS: dict[str, Callable[[_Reader, Any, str], Described]] = {
    "CONV_2D": _matrix("conv"),
    "CONV_3D": _other,
    "DEPTHWISE_CONV_2D": _matrix("depthwise"),
    "TRANSPOSE_CONV": _transposed,
    "FULLY_CONNECTED": _matrix("dense"),
    "BATCH_MATMUL": _batch_matmul,
    **dict.fromkeys(("ADD", "SUB", "MAXIMUM", "MINIMUM"), _plain("add", counted=True)),
    **dict.fromkeys(("MUL", "DIV"), _plain("multiply", counted=True)),
    "GATHER": _plain("gather", counted=True),
    **dict.fromkeys(("EQUAL", "NOT_EQUAL", "LESS", "LESS_EQUAL", "GREATER", "GREATER_EQUAL"), _compare),
    "CONCATENATION": _plain("concat", counted=True),
    **dict.fromkeys(("SPLIT", "SPLIT_V"), _plain("split")),
    "MAX_POOL_2D": _plain("max_pool"),
    "AVERAGE_POOL_2D": _plain("avg_pool"),
    **dict.fromkeys(("MEAN", "SUM", "REDUCE_MAX"), _plain("global_pool")),
    **dict.fromkeys(("PAD", "PADV2", "MIRROR_PAD", "SLICE", "STRIDED_SLICE"), _plain("pad")),
    **dict.fromkeys(("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"), _plain("resize")),
    **dict.fromkeys(("RESHAPE", "SQUEEZE", "EXPAND_DIMS"), _plain("view")),
    "TRANSPOSE": _plain("transpose"),
    "QUANTIZE": _plain("quantize"),
    **dict.fromkeys(("DEQUANTIZE", "CAST"), _plain("dequantize")),
    "SOFTMAX": _plain("softmax"),
    **{
        name.upper(): _activated(name)
        for name in ("relu", "relu6", "hard_swish", "tanh", "leaky_relu", "prelu", "elu", "gelu", "exp", "log")
    },
    "LOGISTIC": _activated("sigmoid"),
    "RELU_N1_TO_1": _activated("relu_n1_to_1"),
}
