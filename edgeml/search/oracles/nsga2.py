"""``nsga2``: a genetic search for several objectives at once, as Optuna implements it; the result is a Pareto front.

Source: Deb et al. 2002, doi 10.1109/4235.996017. Of the generations before, a proposal needs the parents alone: the
best ``population`` of the last generation and of its parents. Hyper-parameters that are idle in a parent are drawn for
it, so that a child may inherit any entry from either parent whatever their conditions.

What a trial costs is an objective that needs no training: ``needs`` tells it for hyper-parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from edgeml.errors import UsageError
from edgeml.plugins import did_you_mean
from edgeml.recipe import MINIMISED
from edgeml.search.feasibility import Needs
from edgeml.search.objectives import minimised_value
from edgeml.search.oracles import _history, _sampled
from edgeml.search.oracles._refusing import Redraw

Refusing = Redraw
LARGEST = 50  # networks in a generation; Optuna's own figure, for searches of about a thousand trials and more
SMALLEST = 6


def oracle_class() -> Any:
    """Return the oracle, for KerasTuner's tuners."""
    return NSGA2Oracle


def options(
    *, needs: Callable[[Mapping[str, Any]], Needs] | None, objectives: Sequence[str], **_: Any
) -> dict[str, Any]:
    """The objectives that are costs, and who tells them."""
    return {"needs": needs, "minimised": [name for name in objectives if name in MINIMISED]}


class NSGA2Oracle(_sampled.SampledOracle):
    """Breed from the parents of the generation; the first generation is random."""

    def __init__(
        self,
        *args: Any,
        needs: Callable[[Mapping[str, Any]], Needs] | None = None,
        minimised: Sequence[str] = ("macs",),
        **kwargs: Any,
    ) -> None:
        """Take KerasTuner's arguments, and: ``needs`` of hyper-parameters, in which all of ``minimised`` are counted.

        Raises:
            UsageError: ``minimised`` names something that is not counted.
        """
        super().__init__(*args, **kwargs)
        for name in minimised:
            if name not in MINIMISED:
                allowed = ", ".join(MINIMISED)
                raise UsageError(
                    f"minimised: got {name!r}; {allowed} are allowed.{did_you_mean(name, list(MINIMISED))}"
                )
        self.needs = needs
        self.minimised = tuple(minimised)
        self._parents: list[list[Any]] = [[]]  # per generation

    @property
    def population(self) -> int:
        """Return the size of a generation: so that a search has about as many generations as networks in each."""
        if self.max_trials is None:
            return LARGEST
        return min(LARGEST, max(SMALLEST, round(math.sqrt(self.max_trials))))

    def _study(self) -> Any:
        told = _history.completed(self)
        generation = len(told) // self.population
        while len(self._parents) <= generation:
            self._parents.append(self._selected(told, len(self._parents) - 1))
        return self._study_of(self._parents[generation])[0]

    def _selected(self, told: Sequence[Any], generation: int) -> list[Any]:
        """Return who of a generation and its parents breeds the next."""
        size = self.population
        trials = [*self._parents[generation], *told[generation * size : (generation + 1) * size]]
        study, sampler = self._study_of(trials)
        return [trials[chosen.number] for chosen in sampler.get_parent_population(study, 1)]

    def _study_of(self, trials: Sequence[Any]) -> tuple[Any, Any]:
        """Return a study whose generation 0 are ``trials``, and its sampler."""
        from edgeml.search.oracles import _optuna_study

        sampler = _optuna_study.nsga2(seed=self._proposal_seed(), population_size=self.population)
        members = [self._as_told(trial) for trial in trials]
        for member in members:
            member.system_attrs = {sampler._get_generation_key(): 0}
        return _optuna_study.study(sampler, members, objectives=self._count()), sampler

    def _count(self) -> int:
        return len(self._objectives()) + (len(self.minimised) if self.needs else 0)

    def _objectives(self) -> list[Any]:
        return list(getattr(self.objective, "objectives", [self.objective]))

    def _losses(self, trial: Any) -> list[float]:
        """Return what a trial gave in each objective, smaller is better."""
        measured = [
            (-1.0 if objective.direction == "max" else 1.0) * trial.metrics.get_best_value(objective.name)
            for objective in self._objectives()
        ]
        needs = self.needs(trial.hyperparameters.values) if self.needs else None
        if needs is None:
            return measured
        predicted_ms = [prediction.ms for prediction in needs.predicted.values()]
        return [*measured, *(minimised_value(name, needs.cost, predicted_ms) for name in self.minimised)]

    def _genome(self, trial: Any) -> dict[int, Any]:
        """Fill what is idle in a trial with a draw that depends on the trial alone."""
        genes = super()._genome(trial)
        for place, entry in enumerate(self.hyperparameters.space):
            if place not in genes:
                draw = np.random.SeedSequence([self.seed, int(trial.trial_id), place]).generate_state(1)[0]
                genes[place] = entry.random_sample(int(draw))
        return genes
