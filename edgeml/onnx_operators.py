"""The operators of an ``.onnx`` file, shapes by ONNX's own inference at batch 1, or at its own; nothing is run.

    W int8 ─ DequantizeLinear ┐
    x ─ QuantizeLinear ─ DequantizeLinear ─ Conv ─ y    →    input, quantize, dequantize, conv with the weights W

Constants that a chain of DequantizeLinear, Transpose, Reshape, Cast or Identity leads on count as what it feeds. A bias
of nothing but zeros is not counted. x · HardSigmoid(x) [+ a number], as int8 files have it, is one operator. One that
is not known keeps its ONNX name as its kind: ``operators.not_counted`` lists it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeml.errors import DataError
from edgeml.onnx_idioms import hard_swishes
from edgeml.operators import Operator, Shape, without_batch

LEADS_ON = ("DequantizeLinear", "Transpose", "Reshape", "Cast", "Identity", "Squeeze", "Unsqueeze", "Constant")
VIEWS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout")
UINT8 = 2  # in ONNX
POOLS = ("GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceSum", "ReduceMax")
Described = dict[str, Any]


def onnx_operators(path: Path) -> tuple[Operator, ...]:
    """List the operators of the file's graph in the order in which they stand.

    Raises:
        DataError: the file is not an ONNX model, is damaged, or a shape stays unknown.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_model_from_string(path.read_bytes())
        if not model.graph.node:
            raise DataError(f"{path}: not an ONNX file, or one without operators.")
        for value in model.graph.input:
            dims = value.type.tensor_type.shape.dim
            if dims and dims[0].dim_value == 0:
                dims[0].dim_value = 1
        for value in [*model.graph.output, *model.graph.value_info]:
            value.type.tensor_type.ClearField("shape")  # they may say another batch
        model = onnx.shape_inference.infer_shapes(model, strict_mode=False, data_prop=True)
        return tuple(_Reader(model, path).operators())
    except (DecodeError, onnx.shape_inference.InferenceError, IndexError, KeyError, TypeError, ValueError) as error:
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: not a whole ONNX file ({line}). Get it again.") from error


class _Reader:
    """The graph of one file, with the operator that makes each value."""

    def __init__(self, model: Any, path: Path) -> None:
        self.path, self.graph = path, model.graph
        self.stored = {tensor.name: tensor for tensor in self.graph.initializer}
        self.constants = {name: name for name in self.stored}  # value → the initializer that it comes from
        self.shapes = {name: tuple(tensor.dims) for name, tensor in self.stored.items()}
        self.types = {}
        for value in [*self.graph.input, *self.graph.value_info, *self.graph.output]:
            tensor = value.type.tensor_type
            self.types[value.name] = tensor.elem_type
            if tensor.HasField("shape"):
                self.shapes[value.name] = tuple(dim.dim_value for dim in tensor.shape.dim)
        self.made_by: dict[str, str] = {}
        self.counted: set[str] = set()
        self.has_unknown = False
        self.inner, self.hard_swish = hard_swishes(self.graph.node, lambda value: self.size(value) == 1)
        self.whole = {node.output[0] for node in self.graph.node if node.op_type == "DequantizeLinear"}

    def operators(self) -> list[Operator]:
        found = []
        for value in self.graph.input:
            if value.name not in self.stored:
                found.append(Operator(value.name, "input", (), self.shape(value.name)))
                self.made_by[value.name] = value.name
        for node in self.graph.node:
            if self._is_constant(node):
                continue
            sources = tuple(dict.fromkeys(self.made_by[name] for name in node.input if name in self.made_by))
            if node.output[0] in self.inner:
                self.made_by[node.output[0]] = sources[0]
                continue
            described = self._described(node)
            for number, output in enumerate(name for name in node.output if name):
                operator = Operator(output, inputs=sources, output_shape=self._shape_of(node, output), **described)
                found.append(operator if number == 0 else operator._replace(weights=0, biases=0, macs=0))
                self.made_by[output] = output
        return found

    def _described(self, node: Any) -> Described:
        is_end = node.output[0] in self.hard_swish
        return _activated("hard_swish")(self, node) if is_end else _KINDS.get(node.op_type, _other)(self, node)

    def _is_constant(self, node: Any) -> bool:
        """Tell whether ``node`` only leads a constant on, and remember where to."""
        import onnx

        if node.op_type not in LEADS_ON or (node.input and node.input[0] not in self.constants):
            return False
        output, source = node.output[0], node.input[0] if node.input else ""
        if node.op_type == "Constant":
            value = next((a.t for a in node.attribute if a.name == "value"), onnx.TensorProto())
            self.stored[output], self.shapes[output], source = value, tuple(value.dims), output
            self.constants[output] = output
        self.constants[output] = self.constants[source]
        self.shapes.setdefault(output, self.shapes[source])
        return True

    def _shape_of(self, node: Any, output: str) -> Shape:
        """Return the shape of an output; one that an unknown operator hides is empty, as that is not counted either."""
        self.has_unknown |= node.op_type not in _KINDS
        shape = self.shapes.get(output)
        return () if self.has_unknown and (shape is None or 0 in shape) else self.shape(output)

    def full_shape(self, value: str) -> Shape:
        """Return a value's shape as inference found it."""
        shape = self.shapes.get(value)
        if shape is None or 0 in shape:
            raise DataError(
                f"{self.path}: the shape of '{value}' is not known: an input has free sizes, or it is computed as the"
                " graph runs. Export the model with fixed sizes, and --batch 1."
            )
        return shape

    def shape(self, value: str) -> Shape:
        """Return a value's shape without the batch."""
        return without_batch(self.full_shape(value))

    def scalars(self, value: str) -> int:
        """Return how many scalars of a constant this operator is the first to read; 0 for what is computed."""
        stored = self.constants.get(value)
        if stored is None or stored in self.counted:
            return 0
        self.counted.add(stored)
        return self.size(value)

    def size(self, value: str) -> int:
        """Return how many scalars a constant has; 0 for what is computed."""
        stored = self.constants.get(value)
        return 0 if stored is None else math.prod(self.stored[stored].dims)

    def bias(self, node: Any, place: int) -> int:
        """Return how many scalars the bias at input ``place`` has; 0 where it is missing or nothing but zeros."""
        from onnx import numpy_helper

        name = node.input[place] if len(node.input) > place else ""
        stored = self.constants.get(name)
        return self.scalars(name) if stored and numpy_helper.to_array(self.stored[stored]).any() else 0


def _attribute(node: Any, name: str, default: Any) -> Any:
    from onnx import helper

    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def _other(_reader: _Reader, node: Any) -> Described:
    return {"kind": str(node.op_type)}


def _plain(kind: str, counted: bool = False) -> Callable[[_Reader, Any], Described]:
    """Describe an operator without MACs; where ``counted``, its constant operands are weights.

    They are counted for each reader: files merge equal scalars, such as the weights of two members.
    """

    def describe(reader: _Reader, node: Any) -> Described:
        weights = sum(reader.size(name) for name in node.input) if counted else 0
        return {"kind": "affine" if weights and kind in ("add", "multiply") else kind, "weights": weights}

    return describe


def _product(reader: _Reader, node: Any) -> Described:
    """Describe a product; that of whole numbers and their scale is none."""
    is_scale = node.input[0] in reader.whole and node.input[1] in reader.stored
    return {"kind": "dequantize"} if is_scale else _plain("multiply", counted=True)(reader, node)


def _gather(reader: _Reader, node: Any) -> Described:
    """Describe a look-up; in a table of as many bytes as a byte has values, it is an activation and has no weights."""
    table = reader.stored.get(node.input[0])
    if table is not None and table.data_type == UINT8 and tuple(table.dims) == (256,):
        return {"kind": "activation", "activation": "table"}
    return _plain("gather", counted=True)(reader, node)


def _compare(reader: _Reader, node: Any) -> Described:
    """Describe a comparison; floats that are held against constants, as trees do, have no int8 form."""
    import onnx

    described = _plain("compare", counted=True)(reader, node)
    is_float = any(reader.types.get(name) == onnx.TensorProto.FLOAT for name in node.input)
    return {**described, "float_only": is_float and described["weights"] > 0}


def _activated(name: str) -> Callable[[_Reader, Any], Described]:
    def describe(reader: _Reader, node: Any) -> Described:
        slopes = sum(reader.scalars(value) for value in node.input) if name == "prelu" else 0
        return {"kind": "activation", "activation": name, "weights": slopes}

    return describe


def _clip(reader: _Reader, node: Any) -> Described:
    from onnx import numpy_helper

    bounds = [stored for name in node.input[1:] if (stored := reader.constants.get(name))]
    values = [float(numpy_helper.to_array(reader.stored[name]).flat[0]) for name in bounds]
    return {"kind": "activation", "activation": "relu6" if values == [0.0, 6.0] else "clip"}


def _convolution(weights_at: int, bias_at: int | None) -> Callable[[_Reader, Any], Described]:
    """Describe a convolution whose kernel (O, I / groups, height, width) is an input, stored or computed."""

    def describe(reader: _Reader, node: Any) -> Described:
        shape = reader.full_shape(node.input[weights_at])
        is_transposed = node.op_type == "ConvTranspose"
        batch, _, *places = reader.full_shape(node.input[0] if is_transposed else node.output[0])
        is_depthwise = _attribute(node, "group", 1) > 1 and shape[1] == 1
        return {
            "kind": "depthwise" if is_depthwise else "conv", "weights": reader.scalars(node.input[weights_at]),
            "biases": 0 if bias_at is None else reader.bias(node, bias_at),
            "macs": batch * math.prod(places) * math.prod(shape), "kernel": shape[2:],
            "strides": tuple(_attribute(node, "strides", [1] * len(shape[2:]))),
        }  # fmt: skip

    return describe


def _matrix(weights_at: int, bias_at: int | None = None) -> Callable[[_Reader, Any], Described]:
    """Describe a matrix product of two inputs; either may be stored."""

    def describe(reader: _Reader, node: Any) -> Described:
        left = reader.full_shape(node.input[0])
        common = left[0] if _attribute(node, "transA", 0) else left[-1]
        macs = math.prod(reader.full_shape(node.output[0])) * common
        weights = reader.scalars(node.input[0]) + reader.scalars(node.input[weights_at])
        biases = 0 if bias_at is None else reader.bias(node, bias_at)
        return {"kind": "dense", "weights": weights, "biases": biases, "macs": macs}

    return describe


def _kept_normalisation(reader: _Reader, node: Any) -> Described:
    channels = [reader.scalars(name) for name in node.input[1:]]
    return {"kind": "affine", "weights": channels[0], "biases": channels[1]}


_KINDS: dict[str, Callable[[_Reader, Any], Described]] = {
    **dict.fromkeys(("Conv", "ConvTranspose"), _convolution(1, 2)),
    "ConvInteger": _convolution(1, None),
    "QLinearConv": _convolution(3, 8),
    "Gemm": _matrix(1, 2),
    **dict.fromkeys(("MatMul", "MatMulInteger"), _matrix(1)),
    "QLinearMatMul": _matrix(3),
    "BatchNormalization": _kept_normalisation,
    **dict.fromkeys(("Add", "Sub", "Max", "Min", "Sum"), _plain("add", counted=True)),
    "Mul": _product,
    "Div": _plain("multiply", counted=True),
    "Gather": _gather,
    **dict.fromkeys(("Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"), _compare),
    "Concat": _plain("concat", counted=True),
    "Split": _plain("split"),
    "MaxPool": _plain("max_pool"),
    "AveragePool": _plain("avg_pool"),
    **dict.fromkeys(POOLS, _plain("global_pool")),
    **dict.fromkeys(("Pad", "Slice"), _plain("pad")),
    **dict.fromkeys(("Resize", "Upsample"), _plain("resize")),
    **dict.fromkeys(VIEWS, _plain("view")),
    "Transpose": _plain("transpose"),
    "QuantizeLinear": _plain("quantize"),
    **dict.fromkeys(("DequantizeLinear", "Cast"), _plain("dequantize")),
    "Softmax": _plain("softmax"),
    "Clip": _clip,
    **{
        kind: _activated(name)
        for kind, name in {
            "Relu": "relu", "LeakyRelu": "leaky_relu", "PRelu": "prelu", "Elu": "elu", "Gelu": "gelu", "Tanh": "tanh",
            "Sigmoid": "sigmoid", "HardSigmoid": "hard_sigmoid", "HardSwish": "hard_swish", "Exp": "exp", "Log": "log",
        }.items()
    },
}  # fmt: skip
