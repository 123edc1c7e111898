"""A KerasTuner oracle that asks one of Optuna's samplers (ask and tell).

A proposal is a pure function of the seed, the number of trials and what was told: a study is made for each, from the few
trials that its sampler needs. So a search that is replayed from a ledger or reloaded from KerasTuner's files goes on as
if it had not stopped, entries that a build function discovers late find their place, and no study grows.

An entry is suggested when the values suggested before it make it active. What is refused is asked again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras_tuner
import numpy as np

from edgeml.search.oracles._refusing import active
from edgeml.search.oracles._saving import Atomic

ASKS = 30  # proposals of one study; then values are drawn at random, as the random oracle does
KNOWN = 1_000  # trials kept as Optuna wants them; a study takes a few hundred, mostly those of the one before
STARTUP = 10  # random trials before a model is made of them, or a third of a short search


class SampledOracle(Atomic, keras_tuner.Oracle):  # type: ignore[misc]
    """The part that is alike: which trials a study is made of, and with what sampler, the oracles say."""

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Return the sampler's first proposal that is new and feasible, else a random one, else ``STOPPED``."""
        values = self._asked()
        if values is None:
            values = self._random_values()
        return {"status": "STOPPED" if values is None else "RUNNING", "values": values}

    def _study(self) -> Any:
        """Return the study to ask."""
        raise NotImplementedError

    def _asked(self) -> dict[str, Any] | None:
        from edgeml.search.oracles import _optuna_study

        study = self._study()
        for _ in range(ASKS):
            asked = study.ask()
            values = self._suggested(asked)
            if self._admits(values):
                return values
            _optuna_study.refuse(study, asked)
        return None

    def _suggested(self, asked: Any) -> dict[str, Any]:
        from edgeml.search.oracles import _optuna_study

        names = {id(entry): name for name, entry in _optuna_study.named(self.hyperparameters.space)}
        values: dict[str, Any] = {}
        for entry in active(self.hyperparameters.space, values):
            name = names.get(id(entry))
            values[entry.name] = entry.default if name is None else _optuna_study.suggest(asked, name, entry)
        return values

    def _admits(self, values: dict[str, Any]) -> bool:
        return not self._duplicate(values)

    def _startup(self) -> int:
        return STARTUP if self.max_trials is None else min(STARTUP, max(3, round(self.max_trials / 3)))

    def _proposal_seed(self) -> int:
        """Return a seed of this proposal's own, from the oracle's and the number of trials."""
        return int(np.random.SeedSequence([self.seed, len(self.trials)]).generate_state(1)[0])

    def _as_told(self, trial: Any, losses: Sequence[float] | None) -> Any:
        """Return a trial as Optuna keeps it, made once."""
        from edgeml.search.oracles import _optuna_study

        known: dict[str, tuple[int, Any]] = self.__dict__.setdefault("_known", {})
        if len(known) > KNOWN:
            known.clear()
        size = len(self.hyperparameters.space)
        if losses is None or known.get(trial.trial_id, (-1, None))[0] != size:
            values = self._genome(trial)
            known[trial.trial_id] = (
                -1 if losses is None else size,
                _optuna_study.told(self.hyperparameters.space, values, losses),
            )
        return known[trial.trial_id][1]

    def _genome(self, trial: Any) -> dict[str, Any]:
        values: dict[str, Any] = trial.hyperparameters.values
        return values
