"""``random``: every hyper-parameter drawn on its own. KerasTuner's; it learns nothing and never goes astray."""

from __future__ import annotations

from typing import Any

from edgeml.search.oracles._refusing import Redraw

Refusing = Redraw


def oracle_class() -> Any:
    """Return KerasTuner's oracle."""
    import keras_tuner

    return keras_tuner.oracles.RandomSearchOracle


def options(**_: Any) -> dict[str, Any]:
    """It has none."""
    return {}
