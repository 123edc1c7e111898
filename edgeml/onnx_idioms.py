"""What several ONNX nodes together are: one operator, where operators are counted.

x ─ HardSigmoid ─ · x [─ Add a number]   →   hard-swish, as int8 files have it
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


def hard_swishes(nodes: Sequence[Any], is_number: Callable[[str], bool]) -> tuple[set[str], set[str]]:
    """Return the values that lie within hard-swishes, and those that hard-swishes end in.

    ``is_number`` tells whether a value is a constant of one element.
    """
    readers: dict[str, list[Any]] = {}
    for node in nodes:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    inner, ends = set[str](), set[str]()
    for node in nodes:
        product = _only(readers.get(node.output[0], []), "Mul") if node.op_type == "HardSigmoid" else None
        if product is None or set(product.input) != {node.input[0], node.output[0]}:
            continue
        added = _only(readers.get(product.output[0], []), "Add")
        is_shifted = added is not None and any(map(is_number, added.input))
        inner |= {node.output[0], product.output[0]} if is_shifted else {node.output[0]}
        ends.add(added.output[0] if is_shifted else product.output[0])
    return inner, ends


def _only(nodes: list[Any], kind: str) -> Any:
    """Return the only one of ``nodes``, if it is of this kind."""
    return nodes[0] if len(nodes) == 1 and nodes[0].op_type == kind else None
