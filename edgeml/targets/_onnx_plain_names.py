"""An ONNX file for those who copy its texts into a program: only names of nodes and tensors, and these harmless.

What a class, a layer or an input is called comes from others: ``*/ system("…"); /*`` ends a comment of C.
"""

from __future__ import annotations

import re
from typing import Any

ODD = re.compile(r"[^\w.:/-]", re.ASCII)
TEXTS = ("metadata_props", "doc_string", "producer_name", "producer_version", "domain")


def with_plain_names(model: Any) -> Any:
    """Rename nodes and tensors of an ``onnx.ModelProto`` where need be, and take all other texts out; return it."""
    for field in TEXTS:
        model.ClearField(field)
    _rename(model.graph, {"": ""})
    return model


def _rename(graph: Any, known: dict[str, str]) -> None:
    for one in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer, *graph.value_info):
        one.ClearField("doc_string")
        one.name = _plain(one.name, known)
    for node in graph.node:
        node.input[:] = [_plain(name, known) for name in node.input]
        node.output[:] = [_plain(name, known) for name in node.output]
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                _rename(inner, known)


def _plain(name: str, known: dict[str, str]) -> str:
    """Return the harmless name of a name: always the same one, and no other's."""
    if name not in known:
        found = ODD.sub("_", name)
        known[name] = f"{found}_{len(known)}" if found in known.values() else found
    return known[name]
