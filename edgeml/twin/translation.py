"""From a Keras 3 graph to the graph of its twin: names, order of calls, shared layers, scaling at the inputs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count
from typing import Any

from keras import layers as kl

from edgeml.errors import UsageError
from edgeml.folding.affine import Affine
from edgeml.folding.graph import Node, Tensor, flat_graph, graph_of
from edgeml.folding.layers import affine_of, as_class
from edgeml.twin.weights import Link, copy_out

SCALINGS = (kl.Rescaling, kl.Normalization)


@dataclass(frozen=True, eq=False)
class Plan:
    """A Keras 3 model as one flat graph, the names of its layers in the twin, and where their weights go."""

    name: str
    inputs: Sequence[Tensor]
    input_names: Sequence[str]
    nodes: Sequence[Node]
    outputs: Sequence[Tensor]
    names: Sequence[str]  # of the nodes' layers; a layer with weights has one in all its places
    links: Sequence[Link]

    def scaling_nodes(self, tensor: Tensor) -> Iterator[Node]:
        """Follow an input through the scaling layers that alone read it."""
        while len(tensor.users) == 1:
            node = tensor.users[0].node
            if node.layer is None or not as_class(node.layer, SCALINGS):
                return
            yield node
            tensor = node.outputs[0]

    def scalings(self, tensor: Tensor) -> list[Affine]:
        """Return what these layers do to an input, in order."""
        return [affine_of(node.layer, len(node.inputs[0].shape)) for node in self.scaling_nodes(tensor)]


def plan_of(model: Any) -> Plan:
    """Flatten a model, name its layers, and find their weights.

    Raises:
        UsageError: as ``edgeml.twin.twin``.
    """
    if graph_of(model) is None:
        raise UsageError(
            f"model '{getattr(model, 'name', model)}': {type(model).__name__} has no layer graph; Functional and built"
            " Sequential models of Keras 3 have. Build it, or export it without compression."
        )
    from edgeml.twin.layers import links_of

    inputs, nodes, outputs = flat_graph(model)
    free = _Names().free
    input_names = [free(tensor.name) for tensor in model.inputs]
    weighted: dict[int, str] = {}
    names: list[str] = []
    links: list[Link] = []
    for node in nodes:
        names.append(weighted[id(node.layer)] if id(node.layer) in weighted else free(node.layer.name))
        if id(node.layer) not in weighted and (found := links_of(node.layer, names[-1])):
            weighted[id(node.layer)] = names[-1]
            links += found
    return Plan(model.name, inputs, input_names, nodes, outputs, names, links)


class _Names:
    """Names that TensorFlow takes, each given once: nested models may use one again."""

    def __init__(self) -> None:
        self.taken: set[str] = set()

    def free(self, name: str) -> str:
        """Return the first of ``name``, ``name_1``, … that is not taken, and take it."""
        clean = re.sub(r"[^A-Za-z0-9_.-]", "_", name)
        clean = clean if clean[0].isalnum() else f"layer{clean}"
        found = next(one for one in chain((clean,), (f"{clean}_{i}" for i in count(1))) if one not in self.taken)
        self.taken.add(found)
        return found


def translated(plan: Plan, *, strip_scaling: bool) -> Any:
    """Build the twin of a plan, weights included."""
    import tf_keras

    from edgeml.twin.layers import build

    made: dict[int, Any] = {}
    fed = []
    stripped: set[int] = set()
    for tensor, name in zip(plan.inputs, plan.input_names, strict=True):
        scaled = list(plan.scaling_nodes(tensor)) if strip_scaling else []
        stripped |= {id(node) for node in scaled}
        dtype = scaled[-1].outputs[0].dtype if scaled else tensor.dtype
        fed.append(tf_keras.Input(tensor.shape, name=name, dtype=dtype))
        made[id(tensor)] = fed[-1]
    calls: dict[str, Any] = {}  # by name: a layer with weights is built once
    for node, name in zip(plan.nodes, plan.names, strict=True):
        given = [made[id(tensor)] for tensor in node.inputs]
        if id(node) not in stripped and name not in calls:
            calls[name] = build(node, name)
        results = given if id(node) in stripped else calls[name](given)
        made.update((id(tensor), result) for tensor, result in zip(node.outputs, results, strict=True))
    ends = [made[id(tensor)] for tensor in plan.outputs]
    twin = tf_keras.Model(*(group if len(group) > 1 else group[0] for group in (fed, ends)), name=plan.name)
    copy_out(plan.links, twin)
    return twin
