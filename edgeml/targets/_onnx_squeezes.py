"""Convolutions over one axis, which ONNX files from TensorFlow compute over two: Squeeze and Unsqueeze that cancel.

Conv ─ Squeeze ─ Relu ─ Pad ─ Unsqueeze ─ Conv      →      Conv ─ Relu ─ Pad ─ Conv      (and the Pad into the Conv)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml.targets._onnx_graph import Graph
from edgeml.targets._onnx_transposes import permutation

ELEMENTWISE = ("Relu", "Clip", "Sigmoid", "Tanh", "LeakyRelu", "HardSwish", "HardSigmoid", "Elu", "Softplus")


def move_squeezes_down(graph: Graph) -> int:
    """Move one Squeeze behind its only reader, or cancel it with an Unsqueeze; return whether there was one."""
    for node in graph.nodes:
        reader: Any = graph.only_reader(node.output[0]) if node.op_type == "Squeeze" else None
        axes = _axes(graph, node) if reader is not None else None
        if axes is None:
            continue
        if not graph.is_output(reader.output[0]) and _goes_back(graph, node, reader, axes):
            graph.nodes.remove(node)
            graph.nodes.remove(reader)
            graph.replace_value(reader.output[0], node.input[0])
            return 1
        is_followed = reader.op_type in ELEMENTWISE or (reader.op_type == "Pad" and _widen(graph, reader, axes))
        if is_followed or (reader.op_type in ("Add", "Mul") and _widen_constant(graph, node, reader, axes)):
            _swap(node, reader)
            return 1
    return 0


def _goes_back(graph: Graph, node: Any, reader: Any, axes: list[int]) -> bool:
    """Tell an Unsqueeze of the same axes, or a Reshape into the shape before the Squeeze; one size may be free."""
    if reader.op_type == "Unsqueeze":
        return _axes(graph, reader) == axes
    target = graph.constant(reader.input[1]) if reader.op_type == "Reshape" else None
    shape = graph.shape(node.input[0])
    if target is None or shape is None or len(target) != len(shape):
        return False
    return shape.count(None) <= 1 and target.tolist() == [-1 if size is None else size for size in shape]


def _widen_constant(graph: Graph, node: Any, reader: Any, axes: list[int]) -> bool:
    """Give the constant of an Add or Mul behind a Squeeze the axes that it took away; tell whether it can."""
    place = next((at for at, name in enumerate(reader.input) if name in graph.constants), None)
    rank = graph.rank(node.input[0])
    if place is None or rank is None:
        return False
    constant = graph.constants[reader.input[place]]
    if constant.size > 1:
        if constant.ndim + len(axes) != rank:
            return False
        reader.input[place] = graph.fresh("wide", np.expand_dims(constant, tuple(axes)))
    other = 1 - place
    reader.input[0], reader.input[1] = reader.input[other], reader.input[place]
    return True


def move_pads_down(graph: Graph) -> int:
    """Move one Pad over an Unsqueeze or a Transpose that stands between it and a convolution."""
    for node in graph.nodes:
        reader: Any = graph.only_reader(node.output[0]) if node.op_type == "Pad" else None
        pads = None if reader is None else graph.constant(node.input[1])
        if pads is None or len(node.input) > 3 or not _leads_to_convolution(graph, reader):
            continue
        if reader.op_type == "Transpose":
            ends = pads.reshape(2, -1)[:, list(permutation(reader))]
            node.input[1] = graph.fresh("pads", ends.reshape(-1))
        elif not _widen(graph, node, _axes(graph, reader) or []):
            continue
        _swap(node, reader)
        return 1
    return 0


def _leads_to_convolution(graph: Graph, node: Any) -> bool:
    if node.op_type not in ("Unsqueeze", "Transpose"):
        return False
    while node is not None and node.op_type in ("Unsqueeze", "Transpose"):
        node = graph.only_reader(node.output[0])
    return node is not None and node.op_type == "Conv"


def _swap(first: Any, second: Any) -> None:
    """Let ``first``, whose only reader is ``second``, come behind it."""
    value = second.output[0]
    second.input[0] = first.input[0]
    second.output[0] = f"{value}/first"
    first.input[0], first.output[0] = second.output[0], value


def _widen(graph: Graph, pad: Any, axes: list[int]) -> bool:
    """Let a Pad add nothing along new ``axes``; tell whether it can."""
    pads = graph.constant(pad.input[1])
    if pads is None or len(pad.input) > 3 or not axes:
        return False
    ends: NDArray[Any] = pads.reshape(2, -1)
    for axis in sorted(axes):
        ends = np.insert(ends, axis, 0, axis=1)
    pad.input[1] = graph.fresh("pads", ends.reshape(-1))
    return True


def _axes(graph: Graph, node: Any) -> list[int] | None:
    """Return the axes of a Squeeze or Unsqueeze, ``None`` if they are computed."""
    found = graph.constant(node.input[1]) if len(node.input) > 1 else None
    if found is None:
        return None
    rank = graph.rank(node.input[0])
    if (found < 0).any() and rank is None:
        return None
    whole = (rank or 0) + (found.size if node.op_type == "Unsqueeze" else 0)
    return sorted(axis + whole if axis < 0 else axis for axis in found.reshape(-1).tolist())
