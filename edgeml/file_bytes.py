"""Bytes of the files that a network becomes, by format and precision, before any is written.

    TFLite float32   4 (weights + channels) + a sum over the operators
    TFLite int8          weights + channels · 28.9 + …     bias, scale and zero point of every output channel
    ONNX float32     4 (weights + biases) + …
    ONNX int8            weights + channels · 13.8 + …     made from the int8 TFLite file

What an operator adds was fitted on files of our own exporter (``tools/file_bytes``). Names of tensors, which the
formulas do not see, make the rest: ``Formula.error``. Small int8 files are mostly such records.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgeml.arena import as_converted
from edgeml.operators import Operator

FITTED_ON = "tensorflow 2.21.0, tf2onnx 1.17.0, onnx 1.23.2"
RELUS = ("relu", "relu6")
WITH_CHANNELS = ("conv", "depthwise", "dense")


@dataclass(frozen=True)
class Formula:
    """Bytes per weight, per bias and per output channel; in every file; per operator of a kind, ``other`` the rest.

    ``relu``: per fused activation. ``error``: the largest seen, as a share, on 24 networks that it was not fitted on.
    """

    weight: float
    bias: float
    channel: float
    fixed: float
    operators: Mapping[str, float]
    relu: float
    error: float


def _operators(conv: float, dense: float, add: float, activation: float, pool: float, end: float) -> dict[str, float]:
    return {
        "conv": conv, "depthwise": conv, "dense": dense, "add": add, "affine": add, "activation": activation,
        "max_pool": pool, "global_pool": end, "softmax": end, "other": 400.0,
    }  # fmt: skip


FORMULAS = {  # target, precision: fitted on 28 networks of all search spaces and 4 ensembles
    ("tflite", "float32"): Formula(4, 0, 4, 0, _operators(556, 800, 333, 175, 0, 741), 0, 0.054),
    ("tflite", "int8"): Formula(1, 0, 28.9, 0, _operators(645, 878, 292, 191, 0, 720), 0, 0.065),
    ("onnx", "float32"): Formula(4, 4, 0, 102, _operators(169, 49, 0, 99, 19, 225), 86.3, 0.009),
    ("onnx", "int8"): Formula(1, 0, 13.8, 0, _operators(696, 365, 96, 357, 64, 926), 40.2, 0.038),
}


def file_bytes(operators: Sequence[Operator]) -> dict[str, dict[str, int]]:
    """Return the bytes of a network's files, ``{target: {precision: bytes}}``."""
    converted = as_converted(operators)
    kinds = Counter(operator.kind for operator in converted if operator.kind != "input")
    weights = sum(operator.weights for operator in operators)
    biases = sum(operator.biases for operator in operators)
    channels = sum(o.output_shape[-1] for o in operators if o.kind in WITH_CHANNELS)
    relus = sum(operator.activation in RELUS for operator in operators)
    found: dict[str, dict[str, int]] = {}
    for (target, precision), formula in FORMULAS.items():
        other = formula.operators["other"]
        records = sum(formula.operators.get(kind, other) * count for kind, count in kinds.items())
        scalars = formula.weight * weights + formula.bias * biases + formula.channel * channels
        found.setdefault(target, {})[precision] = round(scalars + formula.fixed + records + formula.relu * relus)
    return found
