"""ONNX graph surgery: an editable graph, and passes that leave its function unchanged.

x ─ Add 0 ─ Mul 1 ─ Identity ─ y      →  x ─ y
x ─ MatMul W ─ Add b ─ y              →  x ─ Gemm W b ─ y
x ─ Add 3 ─ Clip 0..6 ─ Mul 1/6 ─ · x →  x ─ HardSwish
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgeml.targets._onnx_subgraphs import reads, rename


class Graph:
    """Nodes and constants of a model, editable, with who makes and who reads each value."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.nodes: list[Any] = list(model.graph.node)
        self.constants: dict[str, NDArray[Any]] = {
            tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer
        }
        self.inputs = [value for value in model.graph.input if value.name not in self.constants]
        self.outputs = list(model.graph.output)
        self.origins: dict[str, tuple[str, ...]] = {}  # by node: names that were its before it got a canonical one
        inferred = onnx.shape_inference.infer_shapes(model).graph
        self._shapes = {
            value.name: tuple(dim.dim_value or None for dim in value.type.tensor_type.shape.dim)
            for value in [*inferred.input, *inferred.value_info, *inferred.output]
            if value.type.tensor_type.HasField("shape")
        }

    def producer(self, value: str) -> Any:
        """Return the node that makes ``value``, or ``None``."""
        return next((node for node in self.nodes if value in node.output), None)

    def readers(self, value: str) -> list[Any]:
        """Return the nodes that read ``value``."""
        return [node for node in self.nodes if value in reads(node)]

    def only_reader(self, value: str) -> Any:
        """Return the node that alone reads ``value``; ``None`` if there are several or ``value`` leaves the graph."""
        readers = self.readers(value)
        return readers[0] if len(readers) == 1 and not self.is_output(value) else None

    def rank(self, value: str) -> int | None:
        """Return how many axes ``value`` had when the graph was read, ``None`` if unknown."""
        shape = self._shapes.get(value)
        return None if shape is None else len(shape)

    def shape(self, value: str) -> tuple[int | None, ...] | None:
        """Return the sizes that ``value`` had when the graph was read, ``None`` for what is unknown."""
        return self._shapes.get(value)

    def constant(self, value: str) -> NDArray[Any] | None:
        """Return the constant called ``value``, or ``None``."""
        return self.constants.get(value)

    def scalar(self, value: str) -> float | None:
        """Return the constant called ``value`` if all its elements are one number."""
        array = self.constants.get(value)
        if array is None or array.size == 0 or not np.all(array == array.flat[0]):
            return None
        return float(array.flat[0])

    def replace_value(self, old: str, new: str) -> None:
        """Let every reader of ``old`` read ``new``; a graph output keeps its name."""
        if old in {output.name for output in self.outputs}:
            source = self.producer(new)
            source.output[list(source.output).index(new)] = old
            old, new = new, old
        for node in self.nodes:
            rename(node, {old: new})

    def is_output(self, value: str) -> bool:
        """Tell whether ``value`` leaves the graph."""
        return any(output.name == value for output in self.outputs)

    def fresh(self, stem: str, array: NDArray[Any]) -> str:
        """Add a constant and return its name."""
        name = f"{stem}_{len(self.constants)}"
        while name in self.constants:
            name += "_"
        self.constants[name] = array
        return name


Pass = Callable[[Graph], int]


def run_passes(graph: Graph, passes: tuple[Pass, ...]) -> None:
    """Apply all passes until none changes anything."""
    while sum(one(graph) for one in passes):
        pass


def drop_neutral(graph: Graph) -> int:
    """Remove Identity, additions of 0, multiplications by 1, reshapes into the same shape."""
    for node in graph.nodes:
        kept = _neutral(graph, node)
        at_border = kept is not None and (graph.producer(kept) is None or graph.is_output(kept))
        if kept is None or (graph.is_output(node.output[0]) and at_border):
            continue
        graph.nodes.remove(node)
        graph.replace_value(node.output[0], kept)
        return 1
    return 0


def _neutral(graph: Graph, node: Any) -> str | None:
    if node.op_type == "Identity":
        return str(node.input[0])
    if node.op_type == "Reshape":
        return str(node.input[0]) if _keeps_shape(graph, node) else None
    unit = {"Add": 0.0, "Mul": 1.0}.get(node.op_type)
    if unit is None:
        return None
    for value, other in ((node.input[0], node.input[1]), (node.input[1], node.input[0])):
        array = graph.constant(other)
        if array is None or array.size != 1 or graph.scalar(other) != unit or graph.constant(value) is not None:
            continue
        if array.ndim <= (graph.rank(value) or 0):  # a longer shape would lengthen that of the result
            return str(value)
    return None


def _keeps_shape(graph: Graph, node: Any) -> bool:
    """Tell a Reshape into the shape that is there; one size may be free on both sides."""
    target, shape = graph.constant(node.input[1]), graph.shape(node.input[0])
    if target is None or shape is None or len(target) != len(shape) or shape.count(None) > 1:
        return False
    return all(size == (-1 if have is None else have) for size, have in zip(target.tolist(), shape, strict=True))


def spell_out(graph: Graph) -> int:
    """Write what TensorFlow has and ONNX has not by what it has: erfc(x) = 1 - erf(x), expm1(x) = exp(x) - 1."""
    for node in graph.nodes:
        if node.op_type not in ("Erfc", "Expm1"):
            continue
        one = graph.fresh("one", np.ones((), "float32"))
        inner = f"{node.output[0]}/inner"
        kind, *terms = ("Erf", one, inner) if node.op_type == "Erfc" else ("Exp", inner, one)
        place = graph.nodes.index(node)
        graph.nodes[place : place + 1] = [
            helper.make_node(kind, [node.input[0]], [inner]),
            helper.make_node("Sub", terms, [node.output[0]]),
        ]
        return 1
    return 0


def merge_bias(graph: Graph) -> int:
    """Let a convolution add the constant per channel that is added behind it."""
    for node in graph.nodes:
        added: Any = graph.only_reader(node.output[0]) if node.op_type == "Conv" and len(node.input) == 2 else None
        weights = graph.constant(node.input[1]) if added is not None and added.op_type == "Add" else None
        other = next((name for name in added.input if name in graph.constants), None) if weights is not None else None
        if weights is None or other is None:
            continue
        constant = graph.constants[other]
        channels = (*(1 for _ in weights.shape[2:]),)
        if constant.shape not in ((weights.shape[0], *channels), (1, weights.shape[0], *channels)):
            continue
        node.input.append(graph.fresh("bias", constant.reshape(-1)))
        graph.nodes.remove(added)
        node.output[0] = added.output[0]
        return 1
    return 0


def merge_gemm(graph: Graph) -> int:
    """Turn MatMul by a constant matrix plus a constant vector into one Gemm."""
    for node in graph.nodes:
        weights = graph.constant(node.input[1]) if node.op_type == "MatMul" else None
        added = graph.only_reader(node.output[0])
        if weights is None or graph.rank(node.input[0]) != 2 or added is None or added.op_type != "Add":
            continue
        bias = next((name for name in added.input if name in graph.constants), None)
        if bias is None or graph.constants[bias].shape != weights.shape[1:]:
            continue
        gemm = helper.make_node("Gemm", [node.input[0], node.input[1], bias], [added.output[0]])
        graph.nodes[graph.nodes.index(added)] = gemm
        graph.nodes.remove(node)
        return 1
    return 0


def merge_pad(graph: Graph) -> int:
    """Let a convolution pad with zeros by itself where a Pad did it for that one alone."""
    for node in graph.nodes:
        conv: Any = graph.only_reader(node.output[0]) if node.op_type == "Pad" else None
        around = None if conv is None or conv.op_type != "Conv" else _zeros_around(graph, node)
        if around is None or conv.input[0] != node.output[0]:
            continue
        known = {a.name: helper.get_attribute_value(a) for a in conv.attribute}
        if known.pop("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
            continue
        known["pads"] = [own + more for own, more in zip(known.get("pads", [0] * len(around)), around, strict=True)]
        merged = helper.make_node("Conv", [node.input[0], *conv.input[1:]], list(conv.output), **known)
        graph.nodes[graph.nodes.index(conv)] = merged
        graph.nodes.remove(node)
        return 1
    return 0


def _zeros_around(graph: Graph, node: Any) -> list[int] | None:
    """Return what a Pad adds to the axes behind the channels, as Conv says it; None if it does anything else."""
    pads, fill = graph.constant(node.input[1]), node.input[2] if len(node.input) > 2 else ""
    is_constant = all(a.s == b"constant" for a in node.attribute if a.name == "mode")
    if pads is None or not is_constant or len(node.input) > 3 or (fill and graph.scalar(fill) != 0):
        return None
    begin, end = pads.reshape(2, -1)
    if (pads < 0).any() or begin[:2].any() or end[:2].any():
        return None
    return [*begin[2:].tolist(), *end[2:].tolist()]


def merge_hard_swish(graph: Graph) -> int:
    """Turn x * clip(x + 3, 0, 6) / 6 into one HardSwish."""
    for node in graph.nodes:
        if node.op_type != "Mul" or any(name in graph.constants for name in node.input):
            continue
        for x, gate in ((node.input[0], node.input[1]), (node.input[1], node.input[0])):
            chain = _hard_sigmoid_chain(graph, gate, x)
            if chain and all(graph.only_reader(link.output[0]) is not None for link in chain):
                graph.nodes[graph.nodes.index(node)] = helper.make_node("HardSwish", [x], [node.output[0]])
                for link in chain:
                    graph.nodes.remove(link)
                return 1
    return 0


def _hard_sigmoid_chain(graph: Graph, gate: str, x: str) -> list[Any]:
    """Return the nodes [Mul 1/6, Clip 0..6, Add 3] that make ``gate`` from ``x``, or nothing."""
    scale: Any = graph.producer(gate)
    clip: Any = graph.producer(scale.input[0]) if scale is not None and scale.op_type == "Mul" else None
    added: Any = graph.producer(clip.input[0]) if clip is not None and clip.op_type == "Clip" else None
    if added is None or added.op_type != "Add" or x not in added.input or len(clip.input) != 3:
        return []
    sixth, low, high = (graph.scalar(name) for name in (scale.input[1], clip.input[1], clip.input[2]))
    three = [graph.scalar(name) for name in added.input if name != x]
    if sixth is None or abs(sixth - 1 / 6) > 1e-7 or (low, high) != (0.0, 6.0) or three != [3.0]:
        return []
    return [scale, clip, added]


def name_outputs(graph: Graph, names: list[str], shapes: list[tuple[int | None, ...]]) -> None:
    """Give the graph's outputs the model's own names and (behind the batch) shapes, in order."""
    _each_its_own(graph)
    new = {output.name: name for output, name in zip(graph.outputs, names, strict=True)}
    new = {**{name: f"{name}/inner" for name in names}, **new}
    for node in graph.nodes:
        rename(node, new)
        node.output[:] = [new.get(value, value) for value in node.output]
    for output, shape in zip(graph.outputs, shapes, strict=True):
        output.name = new[output.name]
        for dim, size in list(zip(output.type.tensor_type.shape.dim, shape, strict=True))[1:]:
            if size is not None:
                dim.dim_value = size


def _each_its_own(graph: Graph) -> None:
    """Give every output a value of its own: where it is an input, or another output, a copy."""
    taken = {value.name for value in graph.inputs}
    for output in graph.outputs:
        if output.name in taken:
            copy = f"{output.name}/copy_{len(taken)}"
            graph.nodes.append(helper.make_node("Identity", [output.name], [copy]))
            output.name = copy
        taken.add(output.name)
