"""Bodies of Loop, Scan and If: they read values of the graph around them, which no list of inputs names."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import onnx
from onnx import helper


def bodies(node: Any) -> list[Any]:
    """Return the graphs inside a node."""
    return [a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]


def reads(node: Any) -> list[str]:
    """Return what a node reads: its inputs but for those left out, and what its bodies take from around them."""
    return [value for value in [*node.input, *_captured(node)] if value]


def rename(node: Any, names: Mapping[str, str]) -> None:
    """Let a node read, and its bodies take from around them, what values are called now."""
    node.input[:] = [names.get(value, value) for value in node.input]
    for body in bodies(node):
        own = _own(body)
        outer = {old: new for old, new in names.items() if old not in own}
        for inner in body.node:
            rename(inner, outer)
        for output in body.output:
            output.name = outer.get(output.name, output.name)


def ordered(nodes: Sequence[Any], outputs: Sequence[str]) -> list[Any]:
    """Return nodes in depth-first order from the outputs: a function of the graph, not of its listing."""
    found: list[Any] = []
    seen: set[int] = set()
    producers = {value: node for node in nodes for value in node.output}
    stack = [(producers[name], False) for name in reversed(outputs) if name in producers]
    while stack:
        node, sources_done = stack.pop()
        if sources_done:
            found.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((node, True))
            stack.extend((producers[value], False) for value in reversed(reads(node)) if value in producers)
    return found


def number(node: Any, stem: str) -> None:
    """Order everything inside the bodies of a node, and name it by its place."""
    for place, body in enumerate(bodies(node)):
        body.name = f"{stem}/{place}"
        _each_output_its_own(body)
        inside = [copy.deepcopy(inner) for inner in ordered(body.node, [output.name for output in body.output])]
        stored = {tensor.name: tensor for tensor in body.initializer}
        used = dict.fromkeys(value for inner in inside for value in reads(inner) if value in stored)
        made = [*(value.name for value in body.input), *used, *(name for n in inside for name in n.output if name)]
        names = {value: f"{body.name}/{at}" for at, value in enumerate(made)}
        constants = [copy.deepcopy(stored[name]) for name in used]
        for value in [*body.input, *constants, *body.output]:
            value.name = names.get(value.name, value.name)
        for value in [*body.input, *body.output]:
            for dim in value.type.tensor_type.shape.dim:
                if dim.dim_param:  # a number that tf2onnx counted up
                    dim.ClearField("dim_param")
        for at, inner in enumerate(inside):
            inner.name = f"{body.name}/node_{at}"
            without_leftovers(inner)
            rename(inner, names)
            inner.output[:] = [names[value] if value else value for value in inner.output]
            number(inner, inner.name)
        for field, values in ((body.node, inside), (body.initializer, constants), (body.value_info, [])):
            del field[:]
            field.extend(values)


def _each_output_its_own(body: Any) -> None:
    """Drop every Identity, and give an output a copy where its value is another one's, or not made in the body."""
    stands_for = {inner.output[0]: inner.input[0] for inner in body.node if inner.op_type == "Identity"}
    names: dict[str, str] = {}
    for value in stands_for:
        names[value] = value
        while names[value] in stands_for:
            names[value] = stands_for[names[value]]
    inside = [copy.deepcopy(inner) for inner in body.node if inner.op_type != "Identity"]
    for inner in inside:
        rename(inner, names)
    taken = {value.name for value in [*body.input, *body.initializer]}
    made = {name for inner in inside for name in inner.output}
    for at, output in enumerate(body.output):
        value = names.get(output.name, output.name)
        output.name = value
        if value in taken or value not in made:
            output.name = f"{value}/copy_{at}"
            inside.append(helper.make_node("Identity", [value], [output.name]))
        taken.add(value)
    del body.node[:]
    body.node.extend(inside)


def without_leftovers(node: Any) -> None:
    """Clear what has no meaning but changes bytes: empty fields that are set, the order of attributes."""
    node.ClearField("doc_string")
    if not node.domain:
        node.ClearField("domain")
    attributes = sorted(node.attribute, key=lambda attribute: attribute.name)
    del node.attribute[:]
    node.attribute.extend(attributes)


def _own(body: Any) -> dict[str, None]:
    """Return what a body makes itself, in order."""
    made = [value.name for value in [*body.input, *body.initializer]]
    return dict.fromkeys([*made, *(name for inner in body.node for name in inner.output if name)])


def _captured(node: Any) -> list[str]:
    found: dict[str, None] = {}
    for body in bodies(node):
        own = _own(body)
        taken = [value for inner in body.node for value in reads(inner)] + [output.name for output in body.output]
        found.update(dict.fromkeys(value for value in taken if value not in own))
    return list(found)
