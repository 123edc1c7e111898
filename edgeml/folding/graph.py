"""One flat graph out of models within models: tensors that know their users, nodes that know their layer.

    Model(x → Sequential(conv, bn) → relu)      becomes      x → conv → bn → relu → (output)

A nested model that is called once is taken apart in its caller's place; one that is called several times (a siamese
tower) stays one opaque node there and is a graph of its own, so that a fold inside it serves every call and none
crosses its border. Calls are counted in the graphs of this model alone: ``layer._inbound_nodes`` also holds calls made
in other models (Keras 3.15). A layer inside an opaque layer (a wrapper, a cell) counts as called once more by it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import keras

from edgeml.folding.affine import Shape

_GRAPHS = ("keras.src.models.functional", "keras.src.models.sequential")


@dataclass(eq=False)
class Tensor:
    """A value on the way: its shape without batch, its source (None for an input) and everything that reads it."""

    shape: Shape
    dtype: str
    source: Node | None = None
    users: list[Use] = field(default_factory=list)


@dataclass(eq=False)
class Node:
    """One call of a layer, and Keras' own record of it; ``layer`` is None where the value leaves the graph."""

    layer: Any
    inputs: list[Tensor]
    outputs: list[Tensor] = field(default_factory=list)
    training: bool = False
    call: Any = None


@dataclass(frozen=True)
class Use:
    """A tensor is input ``index`` of ``node``."""

    node: Node
    index: int


def graph_of(layer: Any) -> Any | None:
    """Return the Functional graph of a model whose ``call`` is Keras' own, else None."""
    if type(layer).call.__module__ not in _GRAPHS:
        return None
    graph = getattr(layer, "_functional", layer)  # a Sequential keeps its graph here, None until it is built
    return graph if hasattr(graph, "_nodes_by_depth") else None


def calls_in(graph: Any) -> list[Any]:
    """List the Keras nodes of a graph in the order in which they are computed, without the inputs."""
    by_depth = graph._nodes_by_depth
    return [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth] if not node.is_input]


def count_calls(model: Any) -> Counter[int]:
    """Count, by ``id``, how often each layer is called within ``model``."""
    calls: Counter[int] = Counter()
    for graph in _graphs(model):
        for node in calls_in(graph):
            calls[id(node.operation)] += 1
            if graph_of(node.operation) is None:
                calls.update({id(layer) for layer in inner_layers(node.operation)})
    return calls


def inner_layers(layer: Any) -> list[Any]:
    """List the layers inside an opaque layer, at any depth."""
    return list(layer._flatten_layers(include_self=False)) if isinstance(layer, keras.Layer) else []


def _graphs(model: Any, seen: dict[int, Any] | None = None) -> list[Any]:
    """List every distinct graph in ``model``, itself first."""
    seen = {} if seen is None else seen
    graph = graph_of(model)
    if graph is not None and id(graph) not in seen:
        seen[id(graph)] = graph
        for node in calls_in(graph):
            _graphs(node.operation, seen)
    return list(seen.values())


def flatten(model: Any, calls: Counter[int]) -> list[list[Node]]:
    """Return the nodes of the model's own graph, then those of each nested graph that could not be taken apart."""
    flat = _Flattening(calls)
    found: dict[int, tuple[bool, list[Node]]] = {}
    flat.opaque.append((model, False))
    while flat.opaque:
        owner, training = flat.opaque.pop()
        if id(owner) not in found or (training and not found[id(owner)][0]):  # one caller that trains speaks for all
            found[id(owner)] = training, flat.root(graph_of(owner), training)
    return [nodes for _, nodes in found.values()]


def flat_graph(model: Any) -> tuple[list[Tensor], list[Node], list[Tensor]]:
    """Return inputs, nodes and outputs of the graph of a model; nested models that are called once are taken apart."""
    graph: Any = graph_of(model)
    flat = _Flattening(count_calls(model))
    nodes = flat.root(graph, False)
    inputs, outputs = ([flat.tensors[id(t)] for t in tensors] for tensors in (graph.inputs, graph.outputs))
    return inputs, nodes, outputs


class _Flattening:
    def __init__(self, calls: Counter[int]) -> None:
        self.calls = calls
        self.tensors: dict[int, Tensor] = {}  # by id of the Keras tensor; no two graphs share one
        self.opaque: list[tuple[Any, bool]] = []  # nested models left whole, and whether a caller trains in them

    def root(self, graph: Any, training: bool) -> list[Node]:
        for tensor in graph.inputs:
            self.tensors[id(tensor)] = Tensor(tuple(tensor.shape[1:]), tensor.dtype)
        nodes: list[Node] = []
        self._emit(graph, training, nodes)
        for tensor in graph.outputs:
            ours = self.tensors[id(tensor)]
            ours.users.append(Use(Node(None, [ours]), 0))
        return nodes

    def _emit(self, graph: Any, training: bool, nodes: list[Node]) -> None:
        for call in calls_in(graph):
            trains = training or call.arguments.kwargs.get("training") not in (None, False)
            inner = graph_of(call.operation)
            if inner is None:
                nodes.append(self._node(call, trains))
            elif self.calls[id(call.operation)] == 1 and self._fits(call, inner):
                self._alias(inner.inputs, call.input_tensors)
                self._emit(inner, trains, nodes)
                self._alias(call.outputs, inner.outputs)
            else:
                nodes.append(self._node(call, trains))
                self.opaque.append((call.operation, trains))

    def _node(self, call: Any, training: bool) -> Node:
        node = Node(call.operation, [self.tensors[id(t)] for t in call.input_tensors], training=training, call=call)
        for index, tensor in enumerate(node.inputs):
            tensor.users.append(Use(node, index))
        for tensor in call.outputs:
            self.tensors[id(tensor)] = Tensor(tuple(tensor.shape[1:]), tensor.dtype, node)
            node.outputs.append(self.tensors[id(tensor)])
        return node

    def _alias(self, names: list[Any], tensors: list[Any]) -> None:
        for name, tensor in zip(names, tensors, strict=True):
            self.tensors[id(name)] = self.tensors[id(tensor)]

    @staticmethod
    def _fits(call: Any, inner: Any) -> bool:
        """Tell whether the call's tensors stand for the inputs of the nested graph one by one."""
        given, wanted = call.input_tensors, inner.inputs
        if len(given) != len(wanted) or any(len(a.shape) != len(b.shape) for a, b in zip(given, wanted, strict=True)):
            return False
        return len(wanted) == 1 or _layout(call.arguments.args[:1]) == _layout((inner.input,))


def _layout(structure: Any) -> list[Any]:
    return [path for path, _ in keras.tree.flatten_with_path(structure)]
