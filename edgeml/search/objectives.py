"""What a search minimises beside its accuracy: numbers that are known of a network before it is trained."""

from __future__ import annotations

from edgeml.records import Cost, limited


def minimised_value(name: str, cost: Cost) -> float:
    """Return the objective ``name`` of a network of this cost, as the budget key of that name limits it.

    Raises:
        ValueError: the cost was counted without it.
    """
    value = limited(name, getattr(cost, name))
    if value is None:
        raise ValueError(f"search.objectives: {name} is not in the cost {cost}; count it")
    return value
