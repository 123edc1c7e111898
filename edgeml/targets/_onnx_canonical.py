"""Canonical bytes of an ONNX graph: tf2onnx numbers its values differently on every run.

Nodes are ordered depth first from the outputs, values are named by the nodes that make them, equal constants are one.
"""

from __future__ import annotations

import hashlib
from typing import Any

from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgeml.targets._onnx_graph import Graph
from edgeml.targets._onnx_subgraphs import number, ordered, reads, rename, without_leftovers


def canonical(graph: Graph, metadata: dict[str, str]) -> Any:
    """Return the model with nodes and values ordered and named by the graph alone.

    ``graph.origins`` then says by the name of each node what it was known by before.
    """
    nodes = ordered(graph.nodes, [output.name for output in graph.outputs])
    names = {value.name: value.name for value in [*graph.inputs, *graph.outputs]}
    constants: dict[str, str] = {}
    for place, node in enumerate(nodes):
        origin = (*node.output[:1], node.name, *(value for value in reads(node) if value in graph.constants))
        node.name = f"{node.op_type}_{place}"
        graph.origins[node.name] = origin
        without_leftovers(node)
        for value in reads(node):
            if value in graph.constants:
                names[value] = constants.setdefault(_content_key(graph.constants[value]), f"constant_{len(constants)}")
        rename(node, names)
        number(node, node.name)
        for i, value in enumerate(node.output):
            if not value:  # an output that is left out
                continue
            names.setdefault(value, f"{node.name}/{i}" if i else node.name)
            node.output[i] = names[value]
    arrays = {names[name]: array for name, array in graph.constants.items() if name in names}
    initializers = [numpy_helper.from_array(arrays[name], name) for name in constants.values()]
    for value in [*graph.inputs, *graph.outputs]:
        _name_batch(value)
    made = helper.make_graph(nodes, "network", graph.inputs, graph.outputs, initializers)
    opsets = [opset for opset in graph.model.opset_import if opset.domain in ("", "ai.onnx")]
    model = helper.make_model(made, opset_imports=opsets, producer_name="edgeml", ir_version=graph.model.ir_version)
    helper.set_model_props(model, dict(sorted(metadata.items())))
    return model


def _content_key(array: NDArray[Any]) -> str:
    return f"{array.dtype}{array.shape}{hashlib.sha256(array.tobytes()).hexdigest()}"


def _name_batch(value: Any) -> None:
    first = value.type.tensor_type.shape.dim[0]
    if not first.dim_value:
        first.dim_param = "batch"
