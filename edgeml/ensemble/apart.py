"""A compiled ensemble taken apart: each member alone again, as it lies in the folded graph.

    x ─┬─ member 1 ─ · w₁ ─┐                   x ─ member 1 ─ p₁
       └─ member 2 ─ · w₂ ─┴─ + ─ y   becomes  x ─ member 2 ─ p₂

What members share in front (scaling, resizing) each has for itself. The weights of a geometric mean are in the members'
last layers, which give w·z: where they are known they are taken out again, else a member is softmax(w·z), which costs
the same and decides the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgeml.ensemble.graph import NAME

BEHIND = ("Rescaling", "Softmax", "Log")  # the sum of the members
WEIGHING = ("weight_", "power_")  # names of what lies between a member and the sum


def taken_apart(graph: Any, weights: Sequence[float] | None = None) -> list[Any]:
    """Return the members of what ``compile_ensemble`` made, each a Keras model of the graph's input.

    Raises:
        ValueError: it is no such graph, or two members have a convolution in common.
    """
    import keras

    tensor, passed = graph.outputs[0], list[str]()
    while (kind := type(_maker(tensor)).__name__) in BEHIND:
        passed.append(kind)
        tensor = _fed(tensor)[0]
    parts = [_member_end(part) for part in _fed(tensor)]
    if graph.name != NAME or kind != "Add" or len(parts) < 2:
        raise ValueError("its graph has no members")
    if passed == ["Softmax"]:
        shares = weights if weights is not None and len(weights) == len(parts) else [1.0] * len(parts)
        parts = [
            keras.layers.Softmax(name=f"alone_{i}")(keras.layers.Rescaling(1 / share, name=f"unweighted_{i}")(part))
            for i, (part, share) in enumerate(zip(parts, shares, strict=True))
        ]
    members = [keras.Model(graph.input, part, name=f"member_{i}") for i, part in enumerate(parts)]
    _check_apart(members)
    return members


def _maker(tensor: Any) -> Any:
    return tensor._keras_history.operation


def _fed(tensor: Any) -> list[Any]:
    """Return what goes into the operation that makes a tensor; nothing where that is the graph's input."""
    operation, node, _ = tensor._keras_history
    return list(operation._inbound_nodes[node].input_tensors)


def _member_end(tensor: Any) -> Any:
    while _maker(tensor).name.startswith(WEIGHING):
        tensor = _fed(tensor)[0]
    return tensor


def _check_apart(members: Sequence[Any]) -> None:
    seen: dict[int, str] = {}
    for member in members:
        own = {id(layer): layer.name for layer in member._flatten_layers() if hasattr(layer, "kernel")}
        common = next((name for key, name in own.items() if key in seen), None)
        if common is not None:
            raise ValueError(f"its members have '{common}' in common, so that none can be timed alone")
        seen |= own
