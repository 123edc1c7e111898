"""Optuna's side of an oracle: hyper-parameters as Optuna's distributions, and throw-away studies of told trials.

Only this file imports Optuna, and it is imported when the first study is asked.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import optuna

ALMOST_1 = 1 - 1e-9  # KerasTuner's shares lie in [0, 1): at 1 an Int would leave its range


class _Told(optuna.trial.FrozenTrial):  # type: ignore[misc]
    """A trial that a storage takes in as it is: Optuna 5.0 copies it deeply, a third of a millisecond each."""

    def __deepcopy__(self, _: dict[int, Any]) -> _Told:
        return copy.copy(self)


def told(space: Sequence[Any], genes: Mapping[int, Any], losses: Sequence[float] | None) -> Any:
    """Return a trial as Optuna keeps it.

    ``genes`` are values by the place of their entry in ``space``; ``losses`` None: a trial that still runs.
    """
    known = {name: (entry, genes[place]) for place, name, entry in named(space) if place in genes}
    state = optuna.trial.TrialState.RUNNING if losses is None else optuna.trial.TrialState.COMPLETE
    return _Told(
        number=-1, trial_id=-1, state=state, value=None, values=losses, datetime_start=None, datetime_complete=None,
        params={name: _index(entry, value) for name, (entry, value) in known.items()},
        distributions={name: _distribution(entry) for name, (entry, _) in known.items()},
        user_attrs={}, system_attrs={}, intermediate_values={},
    )  # fmt: skip


def study(sampler: Any, trials: Iterable[Any], objectives: int) -> Any:
    """Return a study that minimises ``objectives`` numbers, in memory, with ``trials`` in it."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # else each study says that it was made
    storage = optuna.storages.InMemoryStorage()
    made = optuna.create_study(storage=storage, sampler=sampler, directions=["minimize"] * objectives)
    number = storage.get_study_id_from_name(made.study_name)
    for trial in trials:
        storage.create_new_trial(number, template_trial=trial)
    return made


def tpe(**options: Any) -> Any:
    """Return Optuna's TPE sampler without its remarks on what is experimental."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(**options)


def nsga2(**options: Any) -> Any:
    """Return Optuna's NSGA-II sampler."""
    return optuna.samplers.NSGAIISampler(**options)


def refuse(asked_of: Any, asked: Any) -> None:
    """Tell a study that a proposal never became a trial; TPE counts it among those that are not good."""
    asked_of.tell(asked, state=optuna.trial.TrialState.PRUNED)


def suggest(asked: Any, name: str, entry: Any) -> Any:
    """Return the value of one entry that a study's proposal gives."""
    count = _count(entry)
    if count is None:
        return entry.prob_to_value(min(asked.suggest_float(name, 0.0, 1.0), ALMOST_1))
    if _unordered(entry):
        place = asked.suggest_categorical(name, tuple(range(count)))
    else:
        place = asked.suggest_int(name, 0, count - 1)
    return entry.prob_to_value((place + 0.5) / count)


def named(space: Sequence[Any]) -> list[tuple[int, str, Any]]:
    """List the entries that vary: place, a name for Optuna (KerasTuner's may be given twice), entry."""
    return [(place, f"{place}:{entry.name}", entry) for place, entry in enumerate(space) if varies(entry)]


def varies(entry: Any) -> bool:
    """Whether there is anything to suggest: not for ``Fixed``."""
    return type(entry).__name__ != "Fixed"


def _distribution(entry: Any) -> Any:
    count = _count(entry)
    if count is None:
        return optuna.distributions.FloatDistribution(0.0, 1.0)
    if _unordered(entry):
        return optuna.distributions.CategoricalDistribution(tuple(range(count)))
    return optuna.distributions.IntDistribution(0, count - 1)


def _index(entry: Any, value: Any) -> float | int:
    """Return the place of a value among its entry's values, or its share of the range where these are not counted."""
    share, count = entry.value_to_prob(value), _count(entry)
    return min(max(share, 0.0), 1.0) if count is None else min(int(share * count), count - 1)


def _count(entry: Any) -> int | None:
    kind = type(entry).__name__
    if kind in ("Boolean", "Choice"):
        return len(entry.values)
    return None if entry.step is None else int(entry._get_n_values())


def _unordered(entry: Any) -> bool:
    return type(entry).__name__ == "Boolean" or (type(entry).__name__ == "Choice" and not entry.ordered)
