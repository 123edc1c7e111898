"""Surgery on quantized ONNX graphs: the same integers, in the form that onnxruntime computes exactly and fast.

Q: QuantizeLinear, DQ: DequantizeLinear.

    Clip / Relu ─ Q that cannot exceed it →  Q
    Clip / Relu ─ Q                       →  Q ─ Clip of integers
    Q(int8, z) … DQ(int8, z)              →  Q(uint8, z + 128) … DQ(uint8, z + 128)
    DQ(int8 weights, z)                   →  DQ(uint8 weights + 128, z + 128)
    DQ(s, z) ─ Conv (float weights)       →  DQ(1, z) ─ Mul s ─ Conv
    DQ(s, z) ─ AveragePool ─ Q(s, z)      →  DQ(1, 128) ─ AveragePool ─ Q(1 - 2⁻¹⁴, 128)
    … ─ Q ─ output                        →  … ─ Q ─ DQ ─ output
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from edgeml.errors import TargetError
from edgeml.targets._onnx_graph import Graph

# More than onnxruntime's rounding of 128 + a mean; of up to 64 values, too little for any but a tie.
TIE = 2.0**-14
MOST_VALUES = 64
WEIGHED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
MOVING = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity")  # integers stay what they are


def drop_implied_clips(graph: Graph) -> int:
    """Remove a Clip or Relu whose result is quantized to a range that it cannot exceed anyway."""
    for node, quantize, low, high in _quantized_clips(graph):
        zero, scale = graph.constants[quantize.input[2]], float(graph.constants[quantize.input[1]].flat[0])
        limits = np.iinfo(zero.dtype)
        lowest, highest = ((q - int(zero.flat[0])) * scale for q in (limits.min, limits.max))
        if lowest < low - scale / 2 or highest > high + scale / 2:
            continue
        graph.nodes.remove(node)
        graph.replace_value(node.output[0], node.input[0])
        return 1
    return 0


def clip_integers(graph: Graph) -> int:
    """Quantize first, then clip: rounding keeps order, so the integers are the same.

    In front of the quantization a Clip keeps onnxruntime from an integer convolution: the operator runs in floats. It
    stands there where an activation has the scale of a sum that it goes into.
    """
    for node, quantize, low, high in _quantized_clips(graph):
        scale, zero = (graph.constants[name].reshape(()) for name in quantize.input[1:3])
        limits = np.iinfo(zero.dtype)
        with np.errstate(over="ignore"):
            bounds = [np.clip(np.rint(np.float32(x) / scale) + zero, limits.min, limits.max) for x in (low, high)]
        names = [graph.fresh("bound", np.asarray(bound, zero.dtype)) for bound in bounds]
        between, after = f"{quantize.output[0]}/unclipped", quantize.output[0]
        quantize.input[0], quantize.output[0] = node.input[0], between
        graph.nodes.remove(node)
        graph.nodes.append(helper.make_node("Clip", [between, *names], [after]))
        return 1
    return 0


def _quantized_clips(graph: Graph) -> Iterator[tuple[Any, Any, float, float]]:
    """Yield each Clip or Relu that one QuantizeLinear alone reads, that one, and the bounds."""
    for node in graph.nodes:
        quantize = graph.only_reader(node.output[0]) if node.op_type in ("Clip", "Relu") else None
        if quantize is None or quantize.op_type != "QuantizeLinear" or graph.constants[quantize.input[1]].size > 1:
            continue
        low = 0.0 if node.op_type == "Relu" else graph.scalar(node.input[1])
        high = np.inf if node.op_type == "Relu" else graph.scalar(node.input[2])
        if low is not None and high is not None:
            yield node, quantize, low, high


def check_biases(graph: Graph, biases: Sequence[NDArray[Any]]) -> None:
    """Hold the constants of a graph against the ``biases`` of the file that it was made from.

    Raises:
        TargetError: one of them is not there.
    """
    kept = {array.tobytes() for array in graph.constants.values() if array.dtype == np.int32}
    lost = [values for values in biases if values.tobytes() not in kept]
    if lost:
        raise TargetError(
            f"onnx int8: tf2onnx lost {len(lost)} of {len(biases)} biases of the int8 TFLite file, the first of"
            f" {len(lost[0])} values. Export float32, or TFLite alone."
        )


def activations_to_uint8(graph: Graph) -> None:
    """Shift every int8 activation by 128 to uint8: the form that onnxruntime's fast integer kernels take on x86."""
    for node in graph.nodes:
        table = graph.constant(node.input[0]) if node.op_type == "Gather" else None  # an embedding's rows
        if table is not None and table.dtype == np.int8:
            node.input[0] = graph.fresh("rows", (table.astype(np.int16) + 128).astype(np.uint8))
    for node in list(graph.nodes):
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        zero = graph.constants[node.input[2]]
        if zero.dtype == np.int8 and node.input[0] not in graph.constants:
            shifted = (zero.astype(np.int16) + 128).astype(np.uint8)
            node.input[2] = graph.fresh("zero_point", shifted)
    for value in [*graph.inputs, *graph.outputs]:
        if value.type.tensor_type.elem_type == onnx.TensorProto.INT8:
            value.type.tensor_type.elem_type = onnx.TensorProto.UINT8


def round_pools_away(graph: Graph) -> None:
    """Let the mean of a pool, when it lies between two integers, go where TFLite's goes: away from int8's zero.

    QuantizeLinear rounds it to the even one, and of four values every fourth mean lies there. Of pools in which scale
    and zero point stay, the mean of the integers themselves is quantized, by a scale that is short of 1.
    """
    for node in list(graph.nodes):
        before, after = graph.producer(node.input[0]), graph.only_reader(node.output[0])
        if node.op_type != "AveragePool" or before is None or after is None:
            continue
        window = next(np.prod(one.ints) for one in node.attribute if one.name == "kernel_shape")
        if (before.op_type, after.op_type) != ("DequantizeLinear", "QuantizeLinear") or window > MOST_VALUES:
            continue
        first, second = ([graph.constants[name] for name in one.input[1:3]] for one in (before, after))
        if any(a.dtype != b.dtype or not np.array_equal(a, b) for a, b in zip(first, second, strict=True)):
            continue
        one, zero = graph.fresh("one", np.array(1, np.float32)), graph.fresh("zero_point", np.array(128, np.uint8))
        read = f"{node.output[0]}/integers"
        graph.nodes.append(helper.make_node("DequantizeLinear", [before.input[0], one, zero], [read]))
        node.input[0] = read
        after.input[1:3] = [graph.fresh("tie", np.array(1 - TIE, np.float32)), zero]


def weights_to_uint8(graph: Graph) -> None:
    """Shift int8 weights by 128 to uint8, the products unchanged.

    On x86 without VNNI, onnxruntime multiplies uint8 activations by int8 weights with VPMADDUBSW, which cuts the sum of
    two products off at 32,767: a trained network lost up to 0.36 of a probability. Two uint8 are summed in full.
    """
    for node in list(graph.nodes):
        weights = graph.constant(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if weights is None or weights.dtype != np.int8:
            continue
        zero = graph.constants[node.input[2]].astype(np.int16)
        node.input[0] = graph.fresh("weights", (weights.astype(np.int16) + 128).astype(np.uint8))
        node.input[2] = graph.fresh("zero_point", (zero + 128).astype(np.uint8))


def keep_floats(graph: Graph) -> None:
    """Let layers that stay in float do so: weights between DQ and Q are quantized by onnxruntime (1.32) as it opens."""
    for node in list(graph.nodes):
        if node.op_type not in WEIGHED or graph.constant(node.input[1]) is None:
            continue
        moves, before = _source(graph, node.input[0])
        if before is None or before.op_type != "DequantizeLinear":
            continue
        one, (read, real) = graph.fresh("one", np.array(1, np.float32)), (f"{node.output[0]}/{x}" for x in ("n", "x"))
        graph.nodes.append(helper.make_node("DequantizeLinear", [before.input[0], one, before.input[2]], [read]))
        graph.nodes.append(helper.make_node("Mul", [read, before.input[1]], [real]))
        for move in reversed(moves):
            graph.nodes.append(copy.deepcopy(move))
            graph.nodes[-1].input[0], graph.nodes[-1].output[0] = real, (real := f"{real}/{move.op_type}")
        node.input[0] = real


def _source(graph: Graph, value: str) -> tuple[list[Any], Any]:
    """Return the nodes that only move the elements of ``value`` about, last first, and what makes them."""
    moves, node = list[Any](), graph.producer(value)
    while node is not None and node.op_type in MOVING:
        moves.append(node)
        node = graph.producer(node.input[0])
    return moves, node


def dequantize_outputs(graph: Graph) -> None:
    """Let the graph return real numbers: its last quantization stays, so the integers stay those of the source."""
    for output in graph.outputs:
        last, (_, source) = graph.producer(output.name), _source(graph, output.name)
        if source is not None and source.op_type == "QuantizeLinear":
            inner = f"{output.name}/quantized"
            last.output[0] = inner
            scale, zero_point = source.input[1], source.input[2]
            graph.nodes.append(helper.make_node("DequantizeLinear", [inner, scale, zero_point], [output.name]))
            output.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
