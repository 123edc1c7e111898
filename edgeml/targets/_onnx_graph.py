"""ONNX graph surgery: an editable graph, passes that leave its function unchanged, and canonical bytes.

    x ─ Add 0 ─ Mul 1 ─ Identity ─ y      →  x ─ y
    x ─ MatMul W ─ Add b ─ y              →  x ─ Gemm W b ─ y
    x ─ Add 3 ─ Clip 0..6 ─ Mul 1/6 ─ · x →  x ─ HardSwish

tf2onnx numbers its values differently on every run; ``canonical`` orders and names everything by the graph alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper


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
        inferred = onnx.shape_inference.infer_shapes(model).graph
        self._ranks = {
            value.name: len(value.type.tensor_type.shape.dim)
            for value in [*inferred.input, *inferred.value_info, *inferred.output]
            if value.type.tensor_type.HasField("shape")
        }

    def producer(self, value: str) -> Any:
        """Return the node that makes ``value``, or ``None``."""
        return next((node for node in self.nodes if value in node.output), None)

    def readers(self, value: str) -> list[Any]:
        """Return the nodes that read ``value``."""
        return [node for node in self.nodes if value in node.input]

    def only_reader(self, value: str) -> Any:
        """Return the node that alone reads ``value``; ``None`` if there are several or ``value`` leaves the graph."""
        readers = self.readers(value)
        return readers[0] if len(readers) == 1 and not self.is_output(value) else None

    def rank(self, value: str) -> int | None:
        """Return how many axes ``value`` had when the graph was read, ``None`` if unknown."""
        return self._ranks.get(value)

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
            for i, name in enumerate(node.input):
                if name == old:
                    node.input[i] = new

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
    """Remove Identity, additions of 0 and multiplications by 1 (elementwise, shapes unchanged)."""
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
    new = {output.name: name for output, name in zip(graph.outputs, names, strict=True)}
    new = {**{name: f"{name}/inner" for name in names}, **new}
    for node in graph.nodes:
        node.input[:] = [new.get(value, value) for value in node.input]
        node.output[:] = [new.get(value, value) for value in node.output]
    for output, shape in zip(graph.outputs, shapes, strict=True):
        output.name = new[output.name]
        for dim, size in list(zip(output.type.tensor_type.shape.dim, shape, strict=True))[1:]:
            if size is not None:
                dim.dim_value = size


def canonical(graph: Graph, metadata: dict[str, str]) -> Any:
    """Return the model with nodes and values ordered and named by the graph alone."""
    ordered = _ordered(graph)
    names = {value.name: value.name for value in [*graph.inputs, *graph.outputs]}
    constants: dict[str, str] = {}
    for number, node in enumerate(ordered):
        node.name = f"{node.op_type}_{number}"
        _without_leftovers(node)
        for i, value in enumerate(node.input):
            if value in graph.constants:
                names[value] = constants.setdefault(_content_key(graph.constants[value]), f"constant_{len(constants)}")
            node.input[i] = names.get(value, value)
        for i, value in enumerate(node.output):
            names.setdefault(value, f"{node.name}/{i}" if i else node.name)
            node.output[i] = names[value]
    arrays = {names[name]: array for name, array in graph.constants.items() if name in names}
    initializers = [numpy_helper.from_array(arrays[name], name) for name in constants.values()]
    for value in [*graph.inputs, *graph.outputs]:
        _name_batch(value)
    made = helper.make_graph(ordered, "network", graph.inputs, graph.outputs, initializers)
    opsets = [opset for opset in graph.model.opset_import if opset.domain in ("", "ai.onnx")]
    model = helper.make_model(made, opset_imports=opsets, producer_name="edgeml", ir_version=graph.model.ir_version)
    helper.set_model_props(model, dict(sorted(metadata.items())))
    return model


def _ordered(graph: Graph) -> list[Any]:
    """Return nodes in depth-first order from the outputs: a function of the graph, not of its listing."""
    ordered: list[Any] = []
    seen: set[int] = set()
    producers = {value: node for node in graph.nodes for value in node.output}
    stack = [(producers[output.name], False) for output in reversed(graph.outputs)]
    while stack:
        node, sources_done = stack.pop()
        if sources_done:
            ordered.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((node, True))
            stack.extend((producers[value], False) for value in reversed(node.input) if value in producers)
    return ordered


def _without_leftovers(node: Any) -> None:
    """Clear what has no meaning but changes bytes: empty fields that are set, the order of attributes."""
    node.ClearField("doc_string")
    if not node.domain:
        node.ClearField("domain")
    attributes = sorted(node.attribute, key=lambda attribute: attribute.name)
    del node.attribute[:]
    node.attribute.extend(attributes)


def _content_key(array: NDArray[Any]) -> str:
    return f"{array.dtype}{array.shape}{array.tobytes().hex()}"


def _name_batch(value: Any) -> None:
    first = value.type.tensor_type.shape.dim[0]
    if not first.dim_value:
        first.dim_param = "batch"
