"""A KerasTuner oracle that asks one of Optuna's samplers (ask and tell).

A proposal is a function of the seed, the number of trials and what was told: a study is made for each, from the few
trials that its sampler needs. So a search that is replayed from a ledger or reloaded from KerasTuner's files goes on as
if it had not stopped, entries that a build function discovers late find their place, and no study grows.

An entry is suggested when the values suggested before it make it active. What is refused is asked again, and told as
pruned: TPE takes that for bad. Where 28 % of ds_cnn fit, it asked 5.3 times for a feasible network, not 11.7 times as
when refusals were kept from it; NSGA-II does not look at them.
"""

from __future__ import annotations

from typing import Any

import keras_tuner
import numpy as np

from edgeml.search.oracles import _history
from edgeml.search.oracles._refusing import active
from edgeml.search.oracles._saving import Atomic

ASKS = 30  # proposals of one study; then values are drawn at random, as the random oracle does
KNOWN = 1_000  # trials kept as Optuna wants them; a study takes a few hundred, mostly those of the one before
STARTUP = 10  # random trials before a model is made of them, or a third of a short search


class SampledOracle(Atomic, keras_tuner.Oracle):  # type: ignore[misc]
    """The part that is alike: which trials a study is made of, and with what sampler, the oracles say."""

    def __init__(self, *args: Any, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(*args, seed=seed, **kwargs)
        if seed == 0:  # KerasTuner has drawn one at random
            self.seed = self._seed_state = 0

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

        names = {id(entry): name for _, name, entry in _optuna_study.named(self.hyperparameters.space)}
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

    def _as_told(self, trial: Any) -> Any:
        """Return a trial as Optuna keeps it, made once; one that still runs has no losses."""
        from edgeml.search.oracles import _optuna_study

        space, running = self.hyperparameters.space, trial.status == "RUNNING"
        known: dict[tuple[str, int], Any] = self.__dict__.setdefault("_known", {})
        key = (trial.trial_id, -1 if running else len(space))
        if len(known) > KNOWN:
            known.clear()
        if key not in known or running:
            known[key] = _optuna_study.told(space, self._genome(trial), None if running else self._losses(trial))
        return known[key]

    def _losses(self, trial: Any) -> list[float]:
        return [float(loss) for loss in _history.losses(self, [trial])]

    def _genome(self, trial: Any) -> dict[int, Any]:
        """Return the trial's values by the place of their entry."""
        space, values = self.hyperparameters.space, trial.hyperparameters.values
        own = {id(entry) for entry in active(space, values)}
        return {place: values[e.name] for place, e in enumerate(space) if id(e) in own and e.name in values}
