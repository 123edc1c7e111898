"""Kernels stored as halves; the graph computes in float32, as before.

    W float32 ─ Conv    →    W float16 ─ Cast ─ Conv

onnxruntime makes them float32 once, as it opens the file (constant folding). The other form, a graph that computes in
halves (``onnxruntime.transformers.float16``), was measured beside it in onnxruntime 1.32 on a CPU with AVX-512, which
has no kernels for halves and converts around every operator:

                        bytes               error, share of the range     time, of float32
                        stored    computed  stored    computed            stored    computed
    ds_cnn, 28x28x1     67,090    66,589    3.6e-05   2.5e-04             1.00      1.04
    ResNet-8, 32x32x3   159,269   159,273   7.2e-04   1.3e-03             1.00      1.02

A constant stays float32 where halves lose more than their rounding (beyond 65,504, or all of it tiny), and where a Cast
takes more bytes than it saves.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from edgeml.targets._onnx_graph import Graph

LEAST = 64  # elements; the record of a Cast takes about 80 bytes
ROUNDING = 2.0**-10  # of the largest element; halves carry 11 bits


def store_halves(graph: Graph) -> int:
    """Store the kernels of a graph as halves; return how many."""
    found = [name for name, array in graph.constants.items() if _fits(array)]
    for name in found:
        half = graph.fresh("half", graph.constants.pop(name).astype(np.float16))
        graph.nodes.append(helper.make_node("Cast", [half], [name], to=onnx.TensorProto.FLOAT))
    return len(found)


def _fits(array: NDArray[Any]) -> bool:
    if array.dtype != np.float32 or array.ndim < 2 or array.size < LEAST:
        return False
    with np.errstate(over="ignore"):
        lost = np.abs(array.astype(np.float16).astype(np.float32) - array).max()
    return bool(lost <= ROUNDING * np.abs(array).max())
