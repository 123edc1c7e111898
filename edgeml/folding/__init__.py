"""Folding: BatchNormalization, Normalization and Rescaling computed into the weights beside them, exactly.

    x → Conv(K, c) → BatchNorm(γ, β, μ, σ²) → y        becomes        x → Conv(s·K, s·c + b) → y,   s = γ/√(σ²+ε)

Three parts that never mix: arithmetic in float64 (``affine``, ``kernels``), what a layer is (``layers``), and the graph
(``graph``: one flat graph out of nested models; ``walk``: where a map can go; ``rebuild``: the folded model). What
cannot be folded exactly stays and is named with its reason; nothing is approximated. Plain Keras 3, any backend.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgeml.errors import UsageError


@dataclass(frozen=True)
class Folding:
    """A folded model and what became of each of its affine layers."""

    model: Any
    folded: tuple[str, ...]
    kept: tuple[tuple[str, str], ...]


def fold_batch_norm(model: Any) -> Folding:
    """Fold every BatchNormalization, Normalization and Rescaling of a Keras model that can be folded exactly.

    Works on any Functional or Sequential model: nested, shared and siamese parts, several inputs and outputs, dicts.
    The given model is not changed. The folded one is for inference only: not compiled, not trainable; its inputs and
    outputs keep their names; checkpoints of the original do not load into it.

    Raises:
        UsageError: the model has no layer graph (subclassed, or not built yet), or a layer with weights has no config.
    """
    from edgeml.folding import fold
    from edgeml.folding.graph import graph_of
    from edgeml.folding.rebuild import rebuild

    if graph_of(model) is None:
        raise UsageError(
            f"model '{getattr(model, 'name', model)}': {type(model).__name__} has no layer graph; "
            "Functional and built Sequential models fold. Build it, or write it with the functional API."
        )
    plan = fold.plan(model)
    return Folding(rebuild(model, plan.gone, plan.walk), plan.folded, plan.kept)
