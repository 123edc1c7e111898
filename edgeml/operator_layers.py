"""The Keras layers that the operators of a runtime's profile are of, as far as their names or their order tell them.

    onnxruntime   Relu_2_nchwc, a Conv       the node Relu_2 and, as it is run by a Conv, Conv_1 that it reads
    LiteRT        the third Fully Connected  the third of CONV_2D, FULLY_CONNECTED, … in the order in which they run

LiteRT names no tensors, and what XNNPACK runs is more or less than the file has: operators of a sort are matched where
there are as many. Those that XNNPACK leaves to others keep the file's name for them; LiteRT runs, turn by turn, all
that can be run by the one, then by the others. An operator that cannot be told has no layers.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeml.runtimes import OperatorTime
from edgeml.runtimes._onnx_tensors import Opened
from edgeml.targets._scopes import layers_of
from edgeml.tflite_operators import Wired, wired_operators

Layers = tuple[str, ...]
NODE = re.compile(r"[A-Za-z]+_\d+")  # as ``targets`` names them; onnxruntime puts words before and behind
SORTS = (  # what a TFLite file has, and how the names begin of what XNNPACK makes of it
    (
        ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"),
        ("Convolution", "Fully Connected", "Deconvolution"),
    ),
    (("MAX_POOL_2D", "AVERAGE_POOL_2D"), ("Max Pooling", "Average Pooling")),
    (("ADD",), ("Add (",)),
    (("MEAN",), ("Mean (",)),
    (("SOFTMAX",), ("Softmax",)),
)


def of_onnx(path: Path, layers: Mapping[str, Layers], operators: Sequence[OperatorTime]) -> list[Layers]:
    """Return the layers of each operator; ``layers``: those of each node of the file."""
    graph = Opened(path)
    nodes = {node.name: node for node in graph.computing}
    found = []
    for one in operators:
        name = next((name for name in NODE.findall(one.name) if name in layers), "")
        fused = [name]
        while fused[-1] in nodes and nodes[fused[-1]].op_type not in one.kind:
            fused.append(next(iter(graph.sources(nodes[fused[-1]])), ""))
        whole = fused if fused[-1] else [name]
        found.append(tuple(dict.fromkeys(layer for node in reversed(whole) for layer in layers.get(node, ()))))
    return found


def of_tflite(path: Path, model: Any, operators: Sequence[OperatorTime]) -> list[Layers]:
    """Return the layers of each operator; their names stand in those of the file's tensors."""
    nodes = wired_operators(path)
    counts, run = Counter(node.kind for node in nodes), Counter(one.kind for one in operators)
    others = counts.keys() & run.keys()
    found: list[Layers] = [()] * len(operators)
    if any(counts[kind] != run[kind] for kind in others):  # XNNPACK runs some of them
        return found
    nodes = _as_run(nodes, others)
    grouped = {kind for kinds, _ in SORTS for kind in kinds}
    for kinds, begins in (*SORTS, *(((kind,), (kind,)) for kind in others - grouped)):
        own = [node for node in nodes if node.kind in kinds]
        places = [i for i, one in enumerate(operators) if one.kind.startswith(begins) or one.kind in kinds]
        if len(own) == len(places):
            for place, node in zip(places, own, strict=True):
                found[place] = layers_of(model, node.name)
    return found


def _as_run(nodes: Sequence[Wired], others: set[str]) -> list[Wired]:
    """Order operators as LiteRT runs them, where XNNPACK leaves it those of the kinds ``others``."""
    found: list[Wired] = []
    waiting = list(nodes)
    while waiting:
        unmade = {tensor for node in waiting for tensor in node.outputs}
        turn, later = [], []
        for node in waiting:
            if (node.kind in others) == (waiting[0].kind in others) and not unmade & set(node.inputs):
                turn.append(node)
                unmade -= set(node.outputs)
            else:
                later.append(node)
        found, waiting = found + turn, later
    return found
