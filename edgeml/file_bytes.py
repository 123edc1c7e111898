"""Bytes of the files that a network becomes, by format and precision, before any is written.

    TFLite float32   4 (weights + channels) + a sum over the operators
    TFLite float16   2 (weights + channels) + …            each constant has an operator that makes it float32
    TFLite dynamic       weights + channels · 16.9 + …     4 bytes a weight in kernels of fewer than 1,024
    TFLite int8          weights + channels · 28.7 + …     bias, scale and zero point of every output channel
    TFLite int16x8       weights + channels · 40.8 + …     biases of 8 bytes
    ONNX float32     4 (weights + biases) + …
    ONNX float16     2 weights + 4 biases + …              each kernel has an operator that makes it float32
    ONNX int8            weights + channels · 14.1 + …     made from the int8 TFLite file

What an operator adds was fitted on files of our own exporter (``tools/file_bytes``). Names of tensors, which the
formulas do not see, make the rest: ``Formula.error``. Small int8 files are mostly such records.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from edgeml.arena import in_pairs, is_apart, with_views, written_apart
from edgeml.operators import Operator
from edgeml.precisions import FILES, PRECISIONS, REAL, File

FITTED_ON = "tensorflow 2.21.0, tf2onnx 1.17.0, onnx 1.23.2"
RELUS = ("relu", "relu6")
WITH_CHANNELS = ("conv", "depthwise", "dense")


@dataclass(frozen=True)
class Formula:
    """Bytes per weight, per bias and per output channel; in every file; per operator of a kind, ``other`` the rest.

    ``relu``: per fused activation. ``edge``: per input and output where real numbers enter and leave integers.
    ``scale``: per output channel of a kernel that is quantized by itself.
    ``error``: by which share a file may be larger, the most seen among 24 networks that
    were not fitted on.
    """

    weight: float
    bias: float
    channel: float
    fixed: float
    operators: Mapping[str, float]
    relu: float
    error: float
    edge: float = 0.0
    scale: float = 0.0


def _operators(
    conv: float, add: float, activation: float, pool: float, end: float, tree: float = 0.0, matmul: float = 0.0
) -> dict[str, float]:
    """Return bytes by kind; the last two, which only trees have, are upper bounds (``tests/test_trees``).

    How many views a file of trees has is not seen here: of 40 files, those below 10 kB were predicted up to 12 % large.
    """
    return {
        "conv": conv, "depthwise": conv, "dense": conv, "add": add, "affine": add, "activation": activation,
        "max_pool": pool, "global_pool": end, "softmax": end, "other": 400.0,
        "gather": tree, "compare": tree, "matmul": matmul,
    }  # fmt: skip


FORMULAS = {  # target, precision: fitted on 28 networks of all search spaces and 4 ensembles (tools/file_bytes --fit)
    ("tflite", "float32"): Formula(
        4, 0, 4, 0, _operators(414.9, 151.2, 499.4, 248.4, 740.8, 460.0, 1050.0), 288.3, 0.021
    ),
    ("tflite", "int8"): Formula(1, 0, 28.7, 0, _operators(500.8, 203.5, 489.7, 219.7, 792.5), 266.1, 0.024, edge=150),
    ("onnx", "float32"): Formula(4, 4, 0, 0, _operators(163.6, 31.6, 95.5, 0, 227.8, 108.0, 310.0), 73.5, 0.010),
    ("onnx", "int8"): Formula(1, 0, 14.1, 0, _operators(663.6, 192.6, 476.1, 45.9, 786.2), 16.0, 0.045, edge=34),
    ("tflite", "float16"): Formula(2, 0, 2, 0, _operators(681.4, 206.3, 646.0, 292.6, 879.6), 454.8, 0.036),
    ("tflite", "dynamic"): Formula(1, 0, 4, 0, _operators(404.0, 153.6, 490.6, 208.1, 782.1), 294.2, 0.025, scale=12.9),
    ("tflite", "int16x8"): Formula(
        1, 0, 40.8, 0, _operators(348.7, 55.4, 1517.2, 383.5, 1164.9), 443.2, 0.042, edge=120
    ),
    ("onnx", "float16"): Formula(2, 4, 0, 0, _operators(207.9, 38.2, 101.6, 32.0, 197.8), 80.8, 0.016),
}


@dataclass(frozen=True)
class Counts:
    """What the formulas multiply: biases, output channels, operators by kind, fused relus.

    ``kernels``: weights and output channels of each. ``edges``: inputs and outputs.
    """

    kernels: tuple[tuple[int, int], ...]
    biases: int
    channels: int
    kinds: Counter[str]
    relus: int
    edges: int


def counts(operators: Sequence[Operator]) -> Counts:
    """Count what makes up a network's files; an activation that TFLite lacks is an operator of its own."""
    kinds = Counter(operator.kind for operator in with_views(in_pairs(operators)) if operator.kind != "input")
    kinds.update(written.kind for operator in operators if is_apart(operator) for written in written_apart(operator))
    return Counts(
        kernels=tuple(
            (o.weights, o.output_shape[-1] if o.kind in WITH_CHANNELS else 0) for o in operators if o.weights
        ),
        biases=sum(operator.biases for operator in operators),
        channels=sum(o.output_shape[-1] for o in operators if o.kind in WITH_CHANNELS),
        kinds=kinds,
        relus=sum(operator.activation in RELUS for operator in operators),
        edges=_edges(operators),
    )


def file_bytes(operators: Sequence[Operator], files: Iterable[File] = FILES) -> dict[str, dict[str, int]]:
    """Return the bytes of those of a network's files that there is a formula for, ``{target: {precision: bytes}}``."""
    seen = counts(operators)
    found: dict[str, dict[str, int]] = {}
    for file in files:
        formula = FORMULAS.get((file.target, file.precision))
        if formula is not None:
            is_real = file.io == REAL and PRECISIONS[file.precision].is_integer
            edges = formula.edge * seen.edges if is_real else 0.0
            found.setdefault(file.target, {})[file.precision] = round(_bytes(seen, file.precision, formula) + edges)
    return found


def at_most(predicted: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
    """Return what files of these predicted bytes may take, by the errors of the formulas."""
    return {
        target: {p: math.ceil(size * (1 + FORMULAS[target, p].error)) for p, size in by_precision.items()}
        for target, by_precision in predicted.items()
    }


def _edges(operators: Sequence[Operator]) -> int:
    read = {name for operator in operators for name in operator.inputs}
    return sum((operator.kind == "input") + (operator.name not in read) for operator in operators)


def kernel_bytes(seen: Counts, precision: str, weight: float) -> float:
    """Return what the kernels take at ``weight`` bytes each weight; small ones stay float32 where the format says."""
    least = PRECISIONS[precision].least
    return sum(weights * (weight if weights >= least else 4) for weights, _ in seen.kernels)


def scaled_channels(seen: Counts, precision: str) -> int:
    """Return the output channels of the kernels that the format does not leave in float32."""
    least = PRECISIONS[precision].least
    return sum(channels for weights, channels in seen.kernels if weights >= least)


def _bytes(seen: Counts, precision: str, formula: Formula) -> float:
    other = formula.operators["other"]
    records = sum(formula.operators.get(kind, other) * count for kind, count in seen.kinds.items())
    scalars = kernel_bytes(seen, precision, formula.weight) + formula.bias * seen.biases
    channels = formula.channel * seen.channels + formula.scale * scaled_channels(seen, precision)
    return scalars + channels + formula.fixed + records + formula.relu * seen.relus
