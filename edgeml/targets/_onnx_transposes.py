"""Moving Transpose nodes of an ONNX graph down to where they meet another and vanish.

    x ─ Transpose p ─ Q ─ DQ ─ HardSwish ─ Transpose p⁻¹ ─ y   →   x ─ Q ─ DQ ─ HardSwish ─ y

tf2onnx moves its own NHWC ↔ NCHW pairs through most operators, but (1.17) not through HardSwish.
"""

from __future__ import annotations

from typing import Any

from onnx import helper

from edgeml.targets._onnx_graph import Graph

ELEMENTWISE = ("QuantizeLinear", "DequantizeLinear", "HardSwish", "Relu", "Clip", "Sigmoid", "Tanh", "LeakyRelu")
JOINING = ("Add", "Mul", "Sub")


def move_transposes_down(graph: Graph) -> int:
    """Move, join or cancel one Transpose; return whether there was one."""
    for node in graph.nodes:
        if node.op_type != "Transpose":
            continue
        for reader in graph.readers(node.output[0]):
            move = _MOVES.get(reader.op_type)
            if move is not None and not graph.is_output(node.output[0]) and move(graph, node, reader):
                _drop_if_dead(graph, node)
                return 1
    return 0


def permutation(node: Any) -> tuple[int, ...]:
    """Return the order of axes of a Transpose."""
    return tuple(next(helper.get_attribute_value(a) for a in node.attribute if a.name == "perm"))


def _drop_if_dead(graph: Graph, node: Any) -> None:
    if not graph.readers(node.output[0]) and not graph.is_output(node.output[0]):
        graph.nodes.remove(node)


def _after(graph: Graph, reader: Any, perm: tuple[int, ...]) -> None:
    """Append a Transpose to ``reader``, which bears the name that others read."""
    value = reader.output[0]
    reader.output[0] = f"{value}/untransposed"
    made = helper.make_node("Transpose", [reader.output[0]], [value], perm=list(perm))
    graph.nodes.insert(graph.nodes.index(reader) + 1, made)


def _through_elementwise(graph: Graph, node: Any, reader: Any) -> bool:
    is_quantizer = reader.op_type in ("QuantizeLinear", "DequantizeLinear")
    if is_quantizer and any(graph.constants[name].size != 1 for name in reader.input[1:]):
        return False  # per-channel scales are bound to an axis
    reader.input[0] = node.input[0]
    _after(graph, reader, permutation(node))
    return True


def _through_joining(graph: Graph, node: Any, reader: Any) -> bool:
    perm = permutation(node)
    makers = [graph.producer(name) for name in reader.input]
    for name, maker in zip(reader.input, makers, strict=True):
        is_same = maker is not None and maker.op_type == "Transpose" and permutation(maker) == perm
        constant = graph.constant(name)
        is_scalar = constant is not None and constant.size == 1 and constant.ndim <= len(perm)
        if not (is_same or is_scalar):
            return False
    for i, maker in enumerate(makers):
        if maker is not None:
            reader.input[i] = maker.input[0]
    for maker in makers:
        if maker is not None and maker is not node and maker in graph.nodes:
            _drop_if_dead(graph, maker)
    _after(graph, reader, perm)
    return True


def _with_transpose(graph: Graph, node: Any, reader: Any) -> bool:
    first, second = permutation(node), permutation(reader)
    combined = tuple(first[axis] for axis in second)
    if combined != tuple(range(len(combined))):
        reader.input[0] = node.input[0]
        del reader.attribute[:]
        reader.attribute.append(helper.make_attribute("perm", list(combined)))
        return True
    is_border = graph.producer(node.input[0]) is None or graph.is_output(node.input[0])
    if graph.is_output(reader.output[0]) and is_border:
        return False
    graph.nodes.remove(reader)
    graph.replace_value(reader.output[0], node.input[0])
    return True


def _into_mean(graph: Graph, node: Any, reader: Any) -> bool:
    """Average over the axes that the transposed ones came from; only where they vanish."""
    attributes = {a.name: helper.get_attribute_value(a) for a in reader.attribute}
    axes = attributes.get("axes")
    if axes is None or attributes.get("keepdims", 1):
        return False
    perm = permutation(node)
    rest = [perm[axis] for axis in range(len(perm)) if axis not in {a % len(perm) for a in axes}]
    if rest != sorted(rest):
        return False
    reader.input[0] = node.input[0]
    del reader.attribute[:]
    moved = sorted(perm[axis % len(perm)] for axis in axes)
    reader.attribute.extend([helper.make_attribute("axes", moved), helper.make_attribute("keepdims", 0)])
    return True


_MOVES = {
    **dict.fromkeys(ELEMENTWISE, _through_elementwise),
    **dict.fromkeys(JOINING, _through_joining),
    "Transpose": _with_transpose,
    "ReduceMean": _into_mean,
}
