"""Cost of any Keras model: fold, list the operators, count."""

from __future__ import annotations

from typing import Any

from edgeml import costs
from edgeml.errors import UsageError
from edgeml.folding import fold_batch_norm
from edgeml.keras_operators import as_if_trained, keras_operators
from edgeml.records import Cost


def cost(model: Any) -> Cost:
    """Return what the folded graph of a Keras model needs at batch 1.

    Raises:
        TargetError: a layer whose cost is not known, or an input of no fixed size. UsageError: not a Keras model.
    """
    if not hasattr(model, "_flatten_layers"):
        raise UsageError(f"edgeml.cost: got {type(model).__name__}; a Keras model is due.")
    with as_if_trained(model):
        return costs.cost(keras_operators(fold_batch_norm(model).model))
