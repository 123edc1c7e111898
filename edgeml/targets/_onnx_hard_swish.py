"""Hard-swish of quantized ONNX graphs, with the integers that LiteRT computes.

LiteRT computes it in 16-bit fixed point, onnxruntime in real numbers: one or two of 256 integers differ by a step, and
a dozen such layers moved a quarter of the results. So numbers are found that round to LiteRT's: with n = q - z,

    DQ(s, z) ─ HardSwish ─ Q(t, u)   →   DQ(1, z) ─ HardSigmoid(α, β) ─ · n [─ Add δ] ─ Q(τ, u)

where α, β, τ (and δ if need be) leave each of the 256 results as far from the edge of its integer as a linear program
gets it. Where there are none, the integers are read from a table (Cast ─ Gather), which takes about four times as long.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import helper

from edgeml.targets._onnx_graph import Graph

Integers = NDArray[np.int64]
Real = NDArray[np.float64]
LEVELS = 256
MARGIN = 5e-4  # of a step; onnxruntime's float32 errs by less than a tenth of it
KNEE = 3.0  # hard-swish is 0 below -3 and x above 3


def exact_hard_swish(graph: Graph) -> None:
    """Replace every HardSwish between two integers by one that gives LiteRT's."""
    for node in list(graph.nodes):
        before, after = graph.producer(node.input[0]), graph.only_reader(node.output[0])
        if node.op_type != "HardSwish" or before is None or after is None:
            continue
        if (before.op_type, after.op_type) != ("DequantizeLinear", "QuantizeLinear"):
            continue
        (scale, zero), (out_scale, out_zero) = ([graph.constants[x] for x in one.input[1:3]] for one in (before, after))
        if zero.dtype != np.uint8 or out_zero.dtype != np.uint8 or scale.size > 1 or out_scale.size > 1:
            continue
        n = np.arange(LEVELS) - int(zero.flat[0])
        codes = litert_codes(n, float(scale.flat[0]), float(out_scale.flat[0]), int(out_zero.flat[0]))
        found = _fitted(n, codes - int(out_zero.flat[0]), codes, float(scale.flat[0]), float(out_scale.flat[0]))
        if found is None:
            _look_up(graph, node, before, after, codes)
        else:
            _compute(graph, node, before, after, found)


def litert_codes(n: Integers, scale: float, out_scale: float, out_zero: int) -> Integers:
    """Return the uint8 that LiteRT's kernel gives for integers ``n``, their zero point taken off.

    Source: tensorflow/lite/kernels/internal/reference/hard_swish.h.
    """
    hires = np.float32(scale) * np.float32(1 / 128)
    out_by, out_shift = _multiplier(float(hires / np.float32(out_scale)))
    gate_by, gate_shift = _multiplier(float(hires / np.float32(KNEE / 32768)))
    x = n.astype(np.int64) * 128
    gate = _saturated(x << (gate_shift - 1)) if gate_shift > 0 else x
    gate = _high_product(gate, gate_by, rounding=True)
    gate = _saturated(gate << 1) if gate_shift > 0 else _shifted(gate, -gate_shift)
    gate = (gate + 32768) >> 1
    out = _high_product(gate, _high_product(x, out_by, rounding=True), rounding=False)
    out = _shifted(out, -out_shift) if out_shift <= 0 else out << out_shift
    return np.clip(out + out_zero, 0, LEVELS - 1)


def _multiplier(real: float) -> tuple[int, int]:
    """Return a factor as 15 bits and a shift."""
    mantissa, shift = math.frexp(real)
    fixed = round(mantissa * 2**31)
    if fixed == 2**31:
        fixed, shift = fixed // 2, shift + 1
    return (2**15 - 1 if fixed >= 2**31 - 2**15 else (fixed + 2**15) >> 16), shift


def _saturated(x: Integers) -> Integers:
    return np.clip(x, -(2**15), 2**15 - 1)


def _high_product(x: Integers, by: Integers | int, *, rounding: bool) -> Integers:
    product = x * by
    if rounding:
        product = product + np.where(product >= 0, 2**14, 1 - 2**14)
    return np.asarray(np.sign(product) * (np.abs(product) >> 15))


def _shifted(x: Integers, bits: int) -> Integers:
    rest, half = x & ((1 << bits) - 1), ((1 << bits) - 1) >> 1
    return (x >> bits) + (rest > half + (x < 0))


def _fitted(n: Integers, steps: Integers, codes: Integers, scale: float, out_scale: float) -> Real | None:
    """Return (a, b, c, d): a n² + b n + d, or c n + d above the knee, rounds to ``steps``; ``None`` if none do.

    What saturates is bounded on one side only.
    """
    from scipy.optimize import linprog

    x = n * scale
    middle, high = (x > -KNEE) & (x < KNEE), x >= KNEE
    terms = np.stack([np.where(middle, n * n, 0), np.where(middle, n, 0), np.where(high, n, 0), np.ones_like(n)], 1)
    above, below = codes < LEVELS - 1, codes > 0
    gap = np.ones((LEVELS, 1))
    rows = np.vstack([np.hstack([terms, gap])[above], np.hstack([-terms, gap])[below]])
    limits = np.concatenate([steps[above] + 0.5, 0.5 - steps[below]])
    nominal = scale / out_scale
    slope = (None, None) if high.any() else (nominal, nominal)
    for added in ((0.0, 0.0), (None, None)):
        bounds = [(None, None), (None, None), slope, added, (None, 0.5)]
        best = linprog([0, 0, 0, 0, -1], A_ub=rows, b_ub=limits, bounds=bounds, method="highs")
        if best.status == 0 and best.x[4] >= MARGIN and _gives(best.x[:4], n, steps, above, below):
            return np.asarray(best.x[:4])
    return None


def _gives(found: Real, n: Integers, steps: Integers, above: Any, below: Any) -> bool:
    """Tell whether the operators, in float32, stay half the margin within the edges of all integers."""
    a, b, c, d = found
    if not c > 0:
        return False
    real = np.float32(n)
    gate = np.clip(np.float32(a / c) * real + np.float32(b / c), np.float32(0), np.float32(1))
    off = (real * gate + np.float32(d / c)) / np.float32(1 / c) - steps
    most = 0.5 - MARGIN / 2
    return bool(np.all(off[above] <= most) and np.all(off[below] >= -most))


def _compute(graph: Graph, node: Any, before: Any, after: Any, found: Real) -> None:
    a, b, c, d = found
    value = node.output[0]
    one = graph.fresh("one", np.array(1, np.float32))
    integers, gate, product = f"{value}/integers", f"{value}/gate", f"{value}/product" if d else value
    made = [
        helper.make_node("DequantizeLinear", [before.input[0], one, before.input[2]], [integers]),
        helper.make_node("HardSigmoid", [integers], [gate], alpha=float(a / c), beta=float(b / c)),
        helper.make_node("Mul", [integers, gate], [product], name=node.name),
    ]
    if d:
        made.append(helper.make_node("Add", [product, graph.fresh("added", np.array(d / c, np.float32))], [value]))
    _replace(graph, node, made)
    after.input[1] = graph.fresh("scale", np.array(1 / c, np.float32))


def _look_up(graph: Graph, node: Any, before: Any, after: Any, codes: Integers) -> None:
    place, table = f"{node.output[0]}/place", graph.fresh("table", codes.astype(np.uint8))
    made = [
        helper.make_node("Cast", [before.input[0]], [place], to=6),  # int32
        helper.make_node("Gather", [table, place], [after.output[0]], name=node.name),
    ]
    graph.nodes.remove(after)
    _replace(graph, node, made)


def _replace(graph: Graph, node: Any, made: list[Any]) -> None:
    at = graph.nodes.index(node)
    graph.nodes[at : at + 1] = made
