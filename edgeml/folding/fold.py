"""The plan: which affine layers vanish, which stay and why, found by walking until nothing changes any more."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from edgeml.folding import layers
from edgeml.folding.affine import Refusal
from edgeml.folding.graph import Node, Use, count_calls, flatten, graph_of, inner_layers
from edgeml.folding.walk import Walk


@dataclass(frozen=True)
class Plan:
    """Names for the report; the ids of the layers to leave out, and the walk that holds the new weights."""

    folded: tuple[str, ...]
    kept: tuple[tuple[str, str], ...]
    gone: set[int]
    walk: Walk


def plan(model: Any) -> Plan:
    """Fold in float64, on copies of the weights, everything in ``model`` that can be folded."""
    nodes, walk = opened(model)
    leaves = _leaves(nodes)
    candidates = [node for node in nodes if layers.is_affine(node.layer)]
    pending, why = list(candidates), dict[int, dict[str, str]]()
    progress = True
    while progress:
        progress = False
        for direction in ("backward", "forward"):
            left = [node for node in pending if not _fold(walk, node, direction, why.setdefault(id(node.layer), {}))]
            progress |= len(left) < len(pending)
            pending = left
    remain = {id(node.layer): node.layer for node in pending}
    return Plan(
        folded=tuple(node.layer.name for node in candidates if id(node.layer) not in remain),
        kept=(*((layer.name, _sentence(why[key])) for key, layer in remain.items()), *_hidden(leaves)),
        gone={id(node.layer) for node in candidates} - remain.keys(),
        walk=walk,
    )


def opened(model: Any) -> tuple[list[Node], Walk]:
    """Return the nodes of a model's flat graphs, and the walk that changes them."""
    calls = count_calls(model)
    nodes = [node for graph in flatten(model, calls) for node in graph]
    return nodes, Walk(calls, _owners(_leaves(nodes)))


def _leaves(nodes: list[Node]) -> list[Any]:
    return list({id(node.layer): node.layer for node in nodes if graph_of(node.layer) is None}.values())


def _fold(walk: Walk, node: Node, direction: str, why: dict[str, str]) -> bool:
    """Fold one affine node in one direction; say in ``why`` what is in the way."""
    try:
        a = walk.affine(node)
    except Refusal as refusal:
        why[""] = str(refusal)
        return False
    try:
        backward = direction == "backward"
        edits = walk.backward(node.inputs[0], a) if backward else walk.forward(node.outputs[0], a)
    except Refusal as refusal:
        why[direction] = str(refusal)
        return False
    for edit in edits:
        edit()
    _bypass(node)
    return True


def _bypass(node: Node) -> None:
    """Hand the readers of the node's output over to its input."""
    for index, tensor in enumerate(node.inputs):
        tensor.users.remove(Use(node, index))
    for use in node.outputs[0].users:
        use.node.inputs[use.index] = node.inputs[0]
        node.inputs[0].users.append(use)


def _owners(leaves: list[Any]) -> Counter[int]:
    """Count the layers that hold each variable, by ``id``."""
    return Counter(id(variable) for layer in leaves for variable in getattr(layer, "variables", ()))


def _hidden(leaves: list[Any]) -> list[tuple[str, str]]:
    """Name the affine layers inside layers whose inside is no graph of its own."""
    return [
        (inner.name, f"it lies inside '{outer.name}' ({type(outer).__name__}), whose inside is not a graph")
        for outer in leaves
        if not layers.kind_of(outer)
        for inner in inner_layers(outer)
        if layers.is_affine(inner)
    ]


def _sentence(why: dict[str, str]) -> str:
    return "; ".join(f"{direction}: {reason}" if direction else reason for direction, reason in why.items())
