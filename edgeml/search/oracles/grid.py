"""``grid``: every combination in order. KerasTuner's; passes over what is refused, without a trial."""

from __future__ import annotations

from typing import Any

from edgeml.search.oracles._refusing import Accepts, active

LEAP = 30_000  # refused combinations in a row after which a grid ends: whole spaces have more than could be walked


def oracle_class() -> Any:
    """Return KerasTuner's oracle."""
    import keras_tuner

    return keras_tuner.oracles.GridSearchOracle


def options(**_: Any) -> dict[str, Any]:
    """It has none."""
    return {}


class Refusing:
    """Go through the grid in KerasTuner's order and pass over what is refused."""

    accepts: Accepts
    trials: dict[str, Any]
    ongoing_trials: dict[str, Any]
    start_order: list[str]
    hyperparameters: Any

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Return the next combination that is accepted."""
        latest = self.trials[self.start_order[-1]].hyperparameters.values if self.start_order else None
        values = self._first() if latest is None else self._next(latest)
        for _ in range(LEAP):
            if values is None or self.accepts(values, len(self.trials)):
                break
            values = self._next(values)
        else:
            values = None
        if values is None:
            return {"status": "IDLE" if self.ongoing_trials else "STOPPED", "values": None}
        return {"status": "RUNNING", "values": dict(values)}

    def _first(self) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for entry in active(self.hyperparameters.space, values):
            values[entry.name] = entry.default
        return values

    def _next(self, values: dict[str, Any]) -> dict[str, Any] | None:
        following: dict[str, Any] | None = self._get_next_combination(values)  # type: ignore[attr-defined]
        return following
