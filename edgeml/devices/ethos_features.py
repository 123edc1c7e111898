"""What an Ethos-U55 does with a network, as numbers that its time is linear in: of each operator its slowest part.

    conv, dw, max_pool = max(compute | output, flash, sram)  in 1e4 cycles, under the name of the part that it was
    compute   positions x channels / block x steps of the kernel, all padded to what is computed at once
    output    elements x 8 / block, but one cycle each where a table computes the activation (hard_swish)
              of these two the other adds what does not overlap: its last block
    flash     a byte a cycle: weights, some of their padding, bias and scale
    sram      8 bytes a cycle: elements read and written, channels in sixteens

``block``: results computed at once, 4, 8, 16, 32 for 32 to 256 MACs a cycle; a fit finds it. After the estimate of Vela
5.2.0 (ethosu/vela/npu_performance.py). On 384 networks of all spaces these features err by 0.8 % (median) and 4.5 %
(90th percentile), those of a CPU, which add up all parts, by 11 and 60 %: above all because constants per channel, of
standardised colours, are read from flash again at each pixel (``affine_channels``).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

from edgeml.operators import Operator, Shape

NAMES = {"conv": "conv", "depthwise": "dw", "max_pool": "max_pool"}
CYCLES, ELEMENTS = 1e4, 1e5
DEPTH, DEEP, STORED = 8, 32, 16  # channels: of a step with four taps, of a step with one tap, in memory
TAPS = 4
POOL_STEPS = 16  # of max pooling 2 x 2; a guess of four per tap, the coefficient came out as 1.0
UNFINISHED = 128  # blocks: what a unit's last part holds, by which fitted best (64 to 256 tried)
BIAS_BYTES = 10  # bias and scale of a channel, packed
PADDING = 1 / 3  # bytes of a weight that is only padding, compressed; read off 40 operators
SRAM_BYTES = 8  # a cycle


def features(operators: Sequence[Operator], block: int) -> dict[str, float]:
    """Return the features of a network's folded operators."""
    found: defaultdict[str, float] = defaultdict(float, {"graph:1": 1.0})
    shapes = {operator.name: operator.output_shape for operator in operators}
    for operator in operators:
        if operator.kind == "input":
            continue
        sources = [shapes[name] for name in operator.inputs]
        if operator.kind in NAMES:
            name = NAMES[operator.kind]
            parts = _parts(operator, sources[0], block)
            slowest = max(parts, key=parts.__getitem__)
            found[f"{name}:{slowest}"] += parts[slowest] / CYCLES
        elif operator.kind == "dense":  # each weight is used once: flash is the slowest
            name = operator.kind
            found["dense:flash"] += _flash(operator, _steps(operator, math.prod(sources[0])) * DEPTH) / CYCLES
        else:
            name = "affine_channels" if operator.kind == "affine" and operator.weights > 1 else operator.kind
            found[f"{name}:in"] += sum(map(_stored, sources)) / ELEMENTS
            if operator.activation == "hard_swish":
                found["hard_swish:in"] += math.prod(operator.output_shape) / ELEMENTS
        found[f"{name}:1"] += 1
    return dict(found)


def _parts(operator: Operator, source: Shape, block: int) -> dict[str, float]:
    """Return the cycles that each part takes by itself."""
    height, width, channels = operator.output_shape
    elements = math.prod(operator.output_shape)
    positions = _up(height, 2 if block >= 32 else 1) * _up(width, 2 if block >= 16 else 1)
    steps = _steps(operator, source[-1])
    compute = max(positions, block) * _up(channels, DEPTH) / block * steps
    table = 1.0 if operator.activation == "hard_swish" else 0.0
    output = elements * max(table, DEPTH / block)
    unfinished = min(compute, output) * min(1.0, UNFINISHED * block / elements)
    return {
        "compute" if compute >= output else "output": max(compute, output) + unfinished,
        "flash": _flash(operator, steps if operator.kind == "depthwise" else steps * DEPTH),
        "sram": (_stored(source) + _stored(operator.output_shape)) / SRAM_BYTES,
    }


def _steps(operator: Operator, channels: int) -> float:
    """Return the cycles that a block of results takes: kernels of 8 channels in fours of taps, or of 32 tap by tap."""
    taps = math.prod(operator.kernel)
    if operator.kind == "max_pool":
        return POOL_STEPS
    if operator.kind == "depthwise":
        return _up(taps, TAPS)
    return min(taps * _up(channels, DEEP), _up(taps, TAPS) * _up(channels, DEPTH)) / DEPTH


def _flash(operator: Operator, per_result: float) -> float:
    """Return the bytes of an operator's constants, compressed; a result takes ``per_result`` weights with padding."""
    if not operator.weights:
        return 0.0
    channels = operator.output_shape[-1]
    padding = max(0.0, _up(channels, DEPTH) * per_result - operator.weights)
    return operator.weights + PADDING * padding + BIAS_BYTES * channels


def _stored(shape: Shape) -> int:
    return math.prod(shape[:-1]) * _up(shape[-1], STORED)


def _up(count: int, step: int) -> int:
    return -(-count // step) * step
