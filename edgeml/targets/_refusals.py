"""What a target says of a layer that it cannot take: which, why, and which hyper-parameter to change."""

from __future__ import annotations

from edgeml.errors import TargetError

# Operators of TFLite and ONNX files that are activations: `activation` of every search space chooses them.
ACTIVATIONS = (
    "celu", "elu", "exp", "exponential", "gelu", "hardsigmoid", "hardswish", "leakyrelu", "log", "logistic", "mish",
    "prelu", "relu", "relu6", "selu", "sigmoid", "softplus", "softshrink", "softsign", "tanh",
)  # fmt: skip
POOLS = ("averagepool2d", "maxpool2d", "averagepool", "maxpool", "l2pool2d")
SIZES = ("resizebilinear", "resizenearestneighbor", "resize", "upsample")


def refusal(target: str, precision: str, kind: str, place: str | None, why: str) -> TargetError:
    """Return the error about an operator of ``kind`` in a file, of layer ``place`` if that is known."""
    where = f"layer '{place}' ({kind})" if place else f"operator {kind}"
    return TargetError(f"{target} {precision}: {where}: {why}. {_advice(kind)}")


def _advice(kind: str) -> str:
    name = kind.replace("_", "").lower()
    if name in ACTIVATIONS:
        return "Choose another `activation` (in a recipe, search.only: [activation=relu])."
    if name in SIZES:
        return "Make all members read inputs of one size, or change that layer."
    if name in POOLS:
        return "Change `stages` or `stem_stride`, which say how large a pool is, or that layer."
    if name == "softmax":
        return "Let the model end in logits, or leave this target out."
    return "Change that layer, or leave this target out."
