"""``hyperband``: many short trials, the better ones promoted to more epochs. KerasTuner's.

Only the first round of a bracket draws; a promoted trial is its parent again. Trials of unlike shares of the budget do
not compete: small networks would lose every time. So each share is halved by itself, in turn.

Source: Li et al. 2018, arXiv 1603.06560.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from edgeml.search.oracles._refusing import Redraw

ShareOf = Callable[[Mapping[str, Any]], Any]
Rung = Sequence[Mapping[str, str]]


def oracle_class() -> Any:
    """Return KerasTuner's oracle."""
    import keras_tuner

    return keras_tuner.oracles.HyperbandOracle


def options(*, epochs: int, **_: Any) -> dict[str, Any]:
    """One pass over the brackets; the last rung trains for ``epochs``."""
    return {"max_epochs": epochs, "hyperband_iterations": 1}


class Refusing(Redraw):
    """Draw what is feasible; promote the best of each share, and none that failed."""

    share_of: ShareOf | None = None  # the share of the budget that values were judged by
    objective: Any
    _brackets: list[dict[str, Any]]

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Return KerasTuner's answer; where it promotes, the best of the share that was promoted least so far.

        Where only trials that failed are left to promote, one takes its place as it is and is not trained again.
        """
        while True:
            response: dict[str, Any] = super().populate_space(trial_id)  # type: ignore[misc]
            values = response.get("values") or {}
            if "tuner/trial_id" not in values:
                return response
            rounds = (pair for bracket in self._brackets for pair in pairwise(bracket["rounds"]))
            before, after = next((b, a) for b, a in rounds if a and a[-1]["id"] == trial_id)
            best = self._best_in_turn(before, after[:-1])
            after[-1]["past_id"] = best.trial_id
            if best.message is None:
                own = {name: value for name, value in values.items() if name.startswith("tuner/")}
                response["values"] = {**best.hyperparameters.values, **own, "tuner/trial_id": best.trial_id}
                return response
            after[-1]["id"] = best.trial_id

    def _best_in_turn(self, before: Rung, promoted: Rung) -> Any:
        """Return the best trial that waits, of the share that fewest were promoted of; one that failed last."""

        def share(trial: Any) -> Any:
            return None if self.share_of is None else self.share_of(trial.hyperparameters.values)

        gone = {entry["past_id"] for entry in promoted}
        counts = Counter(share(self.trials[name]) for name in gone)
        waiting = [self.trials[entry["id"]] for entry in before if entry["id"] not in gone]
        sign = 1 if self.objective.direction == "max" else -1
        return min(
            (trial for trial in waiting if trial.status == "COMPLETED"),
            key=lambda trial: (trial.message is not None, counts[share(trial)], -sign * trial.score),
        )
