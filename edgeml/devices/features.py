"""What a runtime does with a network, as numbers that its time is linear in: features per kind of operator.

Runtimes work in blocks of channels, so a width of 20 costs what 32 does; onnxruntime moves float32 tensors to a blocked
layout and back where an operator cannot follow (its NCHWc transformer, simulated here). Which block a processor has is
found from data, by ``fit``.

    kind:1     operators of that kind          kind:mac   multiply-accumulates, channels padded (1e6)
    kind:w     padded weights (1e4)            kind:in, kind:out   elements read and written (1e5)
    kind:rows  inner loops (1e3)               reorder_*  changes of layout      graph:1   a run of the whole
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence

from edgeml.errors import TargetError
from edgeml.operators import Operator, Shape

Features = dict[str, float]
BLOCKS = (1, 4, 8, 16, 32)  # channels, from none to two vectors of AVX-512
ELEMENTS, WEIGHTS, MACS, ROWS = 1e5, 1e4, 1e6, 1e3
ALIGNMENT = 4  # onnxruntime's blocked operators take channels in fours


def features(operators: Sequence[Operator], runtime: str, precision: str, block: int) -> Features:
    """Return the features of a network's folded operators.

    Raises:
        TargetError: an operator whose time is not modelled.
    """
    unknown = [operator for operator in operators if operator.kind not in KINDS]
    if unknown:
        raise TargetError(f"operator '{unknown[0].name}' ({unknown[0].kind}): no latency model; {', '.join(KINDS)} have.")
    found: Counter[str] = Counter({"graph:1": 1.0})
    shapes = {operator.name: operator.output_shape for operator in operators}
    has_layouts = (runtime, precision) == ("onnxruntime", "float32")
    ends = _blocked_ends(operators, shapes, block, found) if has_layouts else {}
    for operator in operators:
        if operator.kind == "input":
            found["input:out"] += math.prod(operator.output_shape) / ELEMENTS
        else:
            _add(found, operator, [shapes[name] for name in operator.inputs], block, ends.get(operator.name))
    return dict(found)


def _add(found: Counter[str], operator: Operator, sources: list[Shape], block: int, layout: int | None) -> None:
    """Add one operator. ``layout``: None where the runtime has only one, else how many of its ends are blocked."""
    name = kind_of(operator, sources[0], block if layout is not None else 0)
    if layout == 0 and operator.kind in _CONVOLUTIONS:
        name += "_nchw"
    channels = operator.output_shape[-1]
    out_channels = channels if layout == 0 else _up(channels, block)
    in_channels = _up(sources[0][-1], block) if layout == 2 else sources[0][-1]
    places, reads = math.prod(operator.output_shape[:-1]), math.prod(sources[0][:-1]) * in_channels
    found[f"{name}:1"] += 1
    found[f"{name}:in"] += (reads + sum(map(math.prod, sources[1:]))) / ELEMENTS
    found[f"{name}:out"] += places * out_channels / ELEMENTS
    if operator.kind in _WEIGHTS:
        weights = _WEIGHTS[operator.kind](operator, in_channels, out_channels)
        found[f"{name}:w"] += weights / WEIGHTS
        found[f"{name}:mac"] += (weights if operator.kind == "dense" else places * weights) / MACS
    if operator.kind in _CONVOLUTIONS:
        found[f"{name}:rows"] += _rows(operator, in_channels, out_channels, block, layout) / ROWS
    if operator.activation not in ("linear", "relu"):
        found[f"{operator.activation}:1"] += 1
    if operator.activation != "linear":
        found[f"{operator.activation}:out"] += places * out_channels / ELEMENTS


def kind_of(operator: Operator, source: Shape, block: int) -> str:
    """Return the kind whose operators share coefficients: convolutions by kernel, those of few channels apart."""
    if operator.kind == "depthwise":
        return f"dw{operator.kernel[0]}"
    if operator.kind != "conv":
        return operator.kind
    name = "pw" if operator.kernel == (1, 1) else f"conv{operator.kernel[0]}"
    return f"{name}_few" if source[-1] < block else name


def _rows(operator: Operator, in_channels: int, out_channels: int, block: int, layout: int | None) -> float:
    places = math.prod(operator.output_shape[:-1])
    if layout is None:
        pointwise = operator.kernel == (1, 1)
        return places * (in_channels * out_channels / block if pointwise else operator.kernel[0])
    if operator.kind == "depthwise":
        return operator.output_shape[0] * out_channels / block
    return places


_CONVOLUTIONS = ("conv", "depthwise")
_WEIGHTS: dict[str, Callable[[Operator, int, int], int]] = {
    "conv": lambda operator, inputs, outputs: math.prod(operator.kernel) * inputs * outputs,
    "depthwise": lambda operator, inputs, outputs: math.prod(operator.kernel) * outputs,
    "dense": lambda operator, inputs, outputs: operator.weights,
}
KINDS = ("input", "conv", "depthwise", "dense", "affine", "add", "max_pool", "global_pool", "softmax")


def _up(channels: int, block: int) -> int:
    return -(-channels // block) * block


def _blocked_ends(
    operators: Sequence[Operator], shapes: dict[str, Shape], block: int, found: Counter[str]
) -> dict[str, int]:
    """Return how many ends of each operator are blocked (0, 1: the output, 2: both); count the reorderings."""
    ends: dict[str, int] = {}
    held: dict[str, set[bool]] = {}  # a tensor's layouts: is it blocked?
    for operator in operators:
        ends[operator.name] = count = _ends(operator, [shapes[name][-1] for name in operator.inputs], held, block)
        for name in operator.inputs:
            if (count == 2) not in held[name]:
                held[name].add(count == 2)
                reorder = "reorder_in" if count == 2 else "reorder_out"
                found[f"{reorder}:1"] += 1
                found[f"{reorder}:in"] += math.prod(shapes[name]) / ELEMENTS
        held[operator.name] = {count > 0}
    return ends


def _ends(operator: Operator, channels: list[int], held: dict[str, set[bool]], block: int) -> int:
    if operator.kind == "conv" and channels[0] < block:
        return 1
    if operator.kind in ("conv", "depthwise", "global_pool", "max_pool"):
        return 2 if channels[0] % ALIGNMENT == 0 else 0
    if operator.kind == "add":
        return 2 if all(True in held[name] for name in operator.inputs) else 0
    return 0
