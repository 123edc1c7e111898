"""How a layer is built in tf_keras: a builder takes a node of the Keras 3 graph and a name, and returns a call.

A call takes tensors and returns tensors. Options are named one by one: tf_keras 2.21 does not deserialize configs of
Keras 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from edgeml.errors import UsageError
from edgeml.folding.graph import Node

Call = Callable[[Sequence[Any]], Sequence[Any]]
Builder = Callable[[Node, str], Call]


def refuse(layer: Any, reason: str) -> NoReturn:
    """Say that a layer has no twin, and what still works."""
    raise UsageError(
        f"compression: layer '{layer.name}' ({type(layer).__name__}) {reason}. Change that layer, or leave compression"
        " out: export without it still works."
    )


def chain(*steps: Any) -> Call:
    """Run layers one after the other; the first takes all tensors, where they are several."""

    def call(tensors: Sequence[Any]) -> Sequence[Any]:
        value = tensors[0] if len(tensors) == 1 else list(tensors)
        for step in steps:
            value = step(value)
        return [value]

    return call


def of(node: Node, name: str) -> dict[str, Any]:
    """Return name and dtype, which every layer takes."""
    return {"name": name, "dtype": getattr(node.layer, "compute_dtype", node.inputs[0].dtype)}


def plain(cls: Any, *options: str, **renamed: str) -> Builder:
    """Return the builder of a layer that has the same options in both, some by another name (theirs = ours)."""
    names = {**{option: option for option in options}, **renamed}

    def builder(node: Node, name: str) -> Call:
        return chain(cls(**{theirs: getattr(node.layer, ours) for theirs, ours in names.items()}, **of(node, name)))

    return builder


def same(_node: Node, _name: str) -> Call:
    """Return what is given: the builder of layers that do nothing at inference."""
    return list
