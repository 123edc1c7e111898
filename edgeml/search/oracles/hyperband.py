"""``hyperband``: many short trials, the better ones promoted to more epochs. KerasTuner's.

Source: Li et al. 2018, arXiv 1603.06560. Only the first round of a bracket draws; a promoted trial is its parent again.
"""

from __future__ import annotations

from typing import Any

from edgeml.search.oracles._refusing import Redraw

Refusing = Redraw


def oracle_class() -> Any:
    """Return KerasTuner's oracle."""
    import keras_tuner

    return keras_tuner.oracles.HyperbandOracle


def options(*, epochs: int, **_: Any) -> dict[str, Any]:
    """One pass over the brackets; the last rung trains for ``epochs``."""
    return {"max_epochs": epochs, "hyperband_iterations": 1}
