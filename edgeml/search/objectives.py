"""What a search minimises beside its accuracy: numbers that are known of a network before it is trained."""

from __future__ import annotations

from collections.abc import Sequence

from edgeml.recipe import LATENCY
from edgeml.records import Cost, limited


def minimised_value(name: str, cost: Cost, predicted_ms: Sequence[float] = ()) -> float:
    """Return the objective ``name`` of a network of this cost, as the budget key of that name limits it.

    ``latency`` is what was predicted for the first limit of the budget.

    Raises:
        ValueError: the cost was counted without it.
    """
    if name == LATENCY and predicted_ms:
        return predicted_ms[0]
    value = limited(name, getattr(cost, name, None))
    if value is None:
        raise ValueError(f"search.objectives: {name} is not in the cost {cost}; count it")
    return value
