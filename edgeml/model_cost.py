"""Cost of any Keras model: fold, list the operators, count."""

from __future__ import annotations

from typing import Any

from edgeml import costs
from edgeml.folding import fold_batch_norm
from edgeml.keras_operators import keras_operators
from edgeml.records import Cost


def cost(model: Any) -> Cost:
    """Return what the folded graph of a Keras model needs at batch 1.

    Raises:
        TargetError: a layer whose cost is not known.
    """
    return costs.cost(keras_operators(fold_batch_norm(model).model))
