"""What a runtime does with a network, as numbers that its time is linear in: features per kind of operator.

Runtimes work in blocks of channels, so a width of 20 costs what 32 does; which block a processor has is found from data
(``fit``), and so is how many input channels a step takes. onnxruntime keeps float32 tensors in a blocked layout and
changes back where an operator cannot follow: its NCHWc transformer is simulated here. XNNPACK, LiteRT's kernels, was
timed convolution by convolution on AVX2: int8 takes 8 x 8 channels at once, whatever is left of them; float32 16, or 8
where there are no more, and one channel read costs there what 8 do.

    kind:1    operators of that kind               kind:mac   multiply-accumulates, channels padded (1e6)
    kind:w    padded weights (1e4)                 kind:in, kind:out   elements read and written (1e5)
    kind:tiles  outputs in blocks (1e3)            kind:rows, kind:taps  inner loops (1e3), addresses (1e4)
    activation:1, activation:out                   reorder_in, reorder_out   changes of layout
    graph:1   a run of the whole

Runtime ``vela`` has features of its own (``ethos_features``). ``cubeai`` has two, as what is published allows no more:
graph:mac, multiply-accumulates, and graph:out, elements that all operators of the .tflite file write (1e6 each).
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Sequence

from edgeml import arena
from edgeml.devices import ethos_features
from edgeml.errors import NotMeasuredError
from edgeml.operators import Operator, Shape, not_counted

Features = dict[str, float]
Counts = defaultdict[str, float]
BLOCKS = (1, 4, 8, 16, 32)  # channels: from none to two vectors of AVX-512
DEPTHS = {"litert": (1, 4, 8)}  # runtime → input channels of one step; 1 for the others
VERSION = 3  # goes up when features change their meaning: profiles of this machine are then measured again
KINDS = ("input", "conv", "depthwise", "dense", "affine", "add", "max_pool", "global_pool", "softmax")
CONVOLUTIONS = ("conv", "depthwise")
FEW = {"litert": 4}  # channels: of an image, that is
ONE_KERNEL = ("litert",)  # the same code for all windows larger than 1 x 1: ``convk``
HALVED = (("litert", "float32"),)  # kernels of half the block for as few channels, which read any number of them
DEPTHWISE_BLOCK = 16  # of those kernels, at most; matrix products take 32 channels at once on AVX-512
ALIGNMENT = 4  # onnxruntime's blocked operators take channels in fours
MACS, WEIGHTS, ELEMENTS, LOOPS, TAPS = 1e6, 1e4, 1e5, 1e3, 1e4
WHOLE = 1e6  # elements that a whole graph writes


def tiles(runtime: str) -> list[tuple[int, int]]:
    """Return the blocks of output channels and the input channels of a step that a runtime may turn out to have."""
    return list(itertools.product(BLOCKS, DEPTHS.get(runtime, (1,))))


def features(operators: Sequence[Operator], runtime: str, precision: str, block: int, depth: int = 1) -> Features:
    """Return the features of a network's folded operators, on a runtime with a tile of ``block`` by ``depth`` channels.

    Raises:
        NotMeasuredError: an operator whose time is not modelled.
    """
    if runtime == "cubeai":
        return _whole(operators)
    for operator in operators:
        if operator.kind not in KINDS:
            raise NotMeasuredError(
                f"operator '{operator.name}' ({operator.kind}): no latency model; {', '.join(KINDS)} have."
            )
    if runtime == "vela":
        return ethos_features.features(operators, block)
    found: Counts = defaultdict(float, {"graph:1": 1.0})
    shapes = {operator.name: operator.output_shape for operator in operators}
    has_layouts = (runtime, precision) == ("onnxruntime", "float32")
    ends = _blocked_ends(operators, shapes, block, found) if has_layouts else {}
    for operator in operators:
        sources = [shapes[name] for name in operator.inputs]
        if operator.kind == "input":
            found["input:out"] += math.prod(operator.output_shape) / ELEMENTS
        elif operator.kind in CONVOLUTIONS:
            end = ends.get(operator.name)
            tile = _tile(operator, block, depth, is_halved=(runtime, precision) in HALVED)
            few = block if has_layouts else FEW.get(runtime, 0)
            _convolution(found, _name(operator, sources[0], few, end, runtime), operator, sources[0], *tile, end)
        else:
            _other(found, operator, sources)
        if operator.activation != "linear":
            found[f"{operator.activation}:1"] += 1
            found[f"{operator.activation}:out"] += math.prod(operator.output_shape) / ELEMENTS
    return dict(found)


def _whole(operators: Sequence[Operator]) -> Features:
    """Return MACs and written elements; TFLite scales and shifts apart, and has most activations fused."""
    if unknown := [*not_counted(operators), *(operator for operator in operators if operator.float_only)]:
        raise NotMeasuredError(
            f"operator '{unknown[0].name}' ({unknown[0].kind}): not known; its time is in no figure."
        )
    written = [operator for operator in arena.as_converted(operators) if operator.kind not in ("input", "view")]
    elements = sum(math.prod(operator.output_shape) for operator in written)
    return {"graph:mac": sum(operator.macs for operator in operators) / MACS, "graph:out": elements / WHOLE}


def _tile(operator: Operator, block: int, depth: int, *, is_halved: bool) -> tuple[int, int]:
    if operator.kind == "depthwise":
        return min(block, DEPTHWISE_BLOCK) if is_halved else block, 1
    half, channels = block // 2, operator.output_shape[-1]
    if not (is_halved and half):
        return block, depth
    fits = _up(channels, half) < _up(channels, block) if math.prod(operator.kernel) == 1 else channels <= half
    return (half, 1) if fits else (block, depth)


def _convolution(
    found: Counts, name: str, operator: Operator, source: Shape, block: int, depth: int, ends: int | None
) -> None:
    """Add one convolution; ``ends``: how many of its ends are blocked, None where there is no such layout."""
    kernel, places, taps = operator.kernel[0], math.prod(operator.output_shape[:-1]), math.prod(operator.kernel)
    depthwise, channels = operator.kind == "depthwise", operator.output_shape[-1]
    inputs = _up(source[-1], block if ends == 2 else depth)
    outputs = channels if ends == 0 else _up(channels, block)
    written = outputs if ends is not None else channels
    weights = taps * outputs * (1 if depthwise else inputs)
    found[f"{name}:1"] += 1
    found[f"{name}:mac"] += places * weights / MACS
    found[f"{name}:w"] += weights / WEIGHTS
    found[f"{name}:in"] += math.prod(source[:-1]) * inputs / ELEMENTS
    found[f"{name}:out"] += places * written / ELEMENTS
    found[f"{name}:tiles"] += places * outputs / block / LOOPS
    found[f"{name}:rows"] += (operator.output_shape[0] * (outputs / block if ends is not None else 1) / LOOPS
                              if depthwise else places * kernel / LOOPS)  # fmt: skip
    if depthwise:
        found[f"{name}:taps"] += places * taps / TAPS


def _name(operator: Operator, source: Shape, few: int, ends: int | None, runtime: str) -> str:
    """Return the kind whose operators share coefficients: by kernel, by what the layout lets them do.

    Convolutions that read fewer than ``few`` channels are a kind of their own.
    """
    kernel = "k" if runtime in ONE_KERNEL and operator.kind == "conv" and operator.kernel[0] > 1 else operator.kernel[0]
    name = {"depthwise": "dw", "conv": "conv"}[operator.kind] + str(kernel)
    return name + ("_few" if operator.kind == "conv" and source[-1] < few else "") + ("_nchw" if ends == 0 else "")


def _other(found: Counts, operator: Operator, sources: Sequence[Shape]) -> None:
    found[f"{operator.kind}:1"] += 1
    if operator.kind == "dense":
        found["dense:w"] += operator.weights / WEIGHTS
        return
    found[f"{operator.kind}:in"] += sum(map(math.prod, sources)) / ELEMENTS
    found[f"{operator.kind}:out"] += math.prod(operator.output_shape) / ELEMENTS


def _up(channels: int, block: int) -> int:
    return -(-channels // block) * block


def _blocked_ends(operators: Sequence[Operator], shapes: dict[str, Shape], block: int, found: Counts) -> dict[str, int]:
    """Return how many ends of each operator are blocked (0, 1: the output, 2: both); count the changes of layout."""
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
