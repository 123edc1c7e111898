"""A search, rehearsed: which networks fit the budget, how many trials there would be, how long they would take.

    seconds = (trials * tracing + epochs * seconds an epoch) / trials at once        at most search.time_limit_minutes

Steps are timed with the threads that a worker would have, since workers share the cores: they are only as many times
faster than one as there are cores for their threads. Writes nothing.
"""

from __future__ import annotations

import itertools
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from edgeml import data, splits, train
from edgeml.kinds import kind_of
from edgeml.recipe import Recipe, Search
from edgeml.records import Event, to_json
from edgeml.search import deployable, oracles, processes
from edgeml.search.feasibility import Feasibility, Needs, Profiles
from edgeml.search.space import Space, feasibility_of, of_data

DRAWS = 500
TIMED_STEPS = 8
Network = tuple[Needs, Mapping[str, Any]]
TIME_LIMIT, MAX_TRIALS = "search.time_limit_minutes", "search.max_trials"


@dataclass(frozen=True)
class _Pace:
    """How fast trials are: seconds before the first step, and per epoch; ``at_once`` of them run at full speed."""

    tracing_seconds: float
    epoch_seconds: float
    at_once: int

    def seconds(self, lengths: Sequence[int]) -> float:
        """Return the wall time of trials of so many epochs each."""
        return (len(lengths) * self.tracing_seconds + sum(lengths) * self.epoch_seconds) / self.at_once

    def within(self, lengths: Sequence[int], limit_seconds: float) -> list[int]:
        """Return the epochs of the trials that begin before the limit; they end with the epoch that runs then."""
        left, found = limit_seconds * self.at_once, list[int]()
        for length in lengths:
            if left <= 0:
                break
            found.append(max(1, min(length, math.ceil((left - self.tracing_seconds) / self.epoch_seconds))))
            left -= self.tracing_seconds + length * self.epoch_seconds
        return found


def rehearse(
    recipe: Recipe,
    on_event: Callable[[Event], None],
    profiles_of: Callable[[Space], Profiles] = lambda networks: {},
) -> dict[str, Any]:
    """Draw networks, judge them as the search would, time a few training steps of a typical one of each member share.

    ``profiles_of``: the device profiles that there are for latency limits; what has none is not judged, and said so.

    Raises:
        BudgetError: the search would not find a network that fits.
    """
    with _as_in_a_worker(recipe.search.workers) as (threads, cores):
        on_event(Event("data", "loading"))
        dataset = data.load(recipe.data, recipe.export.precision)
        arrays = splits.split(dataset, recipe.data.splits, recipe.search.seed).arrays(dataset)
        networks = of_data(recipe, arrays["train"][0], dataset.value_range, len(dataset.labels))
        deployable.check(recipe, networks)
        profiles = profiles_of(networks)
        judge = feasibility_of(recipe, networks, profiles)
        hp = networks.hyperparameters()
        defaults = [(judge.needs(values), values) for values in oracles.defaults(hp.space)]
        default = min(defaults, key=lambda network: network[0].cost.macs)
        drawn = [(judge.needs(values), values) for values in networks.drawn(DRAWS, recipe.search.seed)]
        asked = judge.shares
        judge.keep_shares_for(values for _, values in defaults)
        shares = {share: _fitting(judge, share, drawn, recipe.search.least_use) for share in asked}
        on_event(Event("time", "a few steps of a typical network of each member share"))
        typical = [_typical(*shares[share], default) for share in judge.shares]
        times = [_seconds(recipe, networks, values, arrays["train"]) for _, values in typical]
    tracing, epoch = (float(mean) for mean in np.mean(times, axis=0))
    pace = _Pace(tracing, epoch, min(recipe.search.workers, max(1, cores // threads)))
    costs, whole = [needs.cost for needs, _ in drawn], max(asked)
    return {
        "data": _data(dataset),
        "space": {
            "size": _size(networks),
            "feasible_share": sum(not judge.violations(whole, needs) for needs, _ in drawn) / len(drawn),
            "samples": len(drawn),
            "hyperparameters": {entry.name: _values(entry) for entry in hp.space},
        },
        "shares": [
            {"share": str(share), "fit": len(fit), "meet_least_use": len(use), "searched": share in judge.shares}
            for share, (fit, use) in shares.items()
        ],
        "smallest": to_json(min([default[0].cost, *costs], key=lambda c: c.params)),
        "largest": to_json(max(costs, key=lambda c: c.params)),
        "outside_profiles": _outside(drawn, judge, whole),
        "latency_not_judged": [limit.where for limit in recipe.budget.latency if limit not in profiles],
        **_forecast(recipe.search, _most_networks(networks), pace),
        "workers": {"count": recipe.search.workers, "at_once": pace.at_once, "threads_each": threads, "cores": cores},
    }  # fmt: skip


def _data(dataset: data.Dataset) -> dict[str, Any]:
    """Return how the data were understood; samples and classes are counted without a given test split."""
    counts = np.bincount(dataset.y, minlength=len(dataset.labels)).tolist()
    return {
        "samples": len(dataset.x),
        "test_samples": len(dataset.test[0]) if dataset.test else 0,
        "kind": kind_of(dataset.x.shape[1:]).name,
        "input_shape": list(dataset.x.shape[1:]),
        "columns": list(dataset.columns),
        "class_from": dataset.class_from,
        "classes": dict(zip(dataset.labels, counts, strict=True)),
        "notes": list(dataset.notes),
    }


def _outside(drawn: Sequence[Network], judge: Feasibility, share: Fraction) -> dict[str, int]:
    """Count, per latency limit, the networks within budget that are larger than what its profile was made of."""
    fitting = [needs for needs, _ in drawn if not judge.violations(share, needs)]
    return {
        limit.where: count
        for limit in judge.profiles
        if (count := sum(bool(needs.predicted[limit].outside) for needs in fitting if limit in needs.predicted))
    }


@contextmanager
def _as_in_a_worker(workers: int) -> Iterator[tuple[int, int]]:
    """Set the environment of a child that trains; yield its threads and the cores. Frameworks read it when they start.

    Where one has started before, its threads are what they are.
    """
    before = dict(os.environ)
    os.environ.update(processes.environment(workers))
    try:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        yield int(os.environ["TF_NUM_INTRAOP_THREADS"]) or cores, cores  # 0: all of them
    finally:
        os.environ.clear()
        os.environ.update(before)


def _fitting(
    judge: Feasibility, share: Fraction, drawn: Sequence[Network], least_use: float
) -> tuple[list[Network], list[Network]]:
    """Return the networks that fit a share of the budget, and those of them that use enough of it."""
    fit = [network for network in drawn if not judge.violations(share, network[0])]
    return fit, [network for network in fit if judge.use(share, network[0]) >= least_use]


def _typical(fit: Sequence[Network], use: Sequence[Network], default: Network) -> Network:
    """Return the network with the median MACs of those that would be tried."""
    ranked = sorted(use or fit or [default], key=lambda network: network[0].cost.macs)
    return ranked[len(ranked) // 2]


def _forecast(config: Search, most_networks: float, pace: _Pace) -> dict[str, Any]:
    """Return trials, the epochs that they sum to, the wall time, and what ends the search."""
    lengths = _lengths(config)
    ended_by = "hyperband" if config.oracle == "hyperband" else MAX_TRIALS
    most = config.max_trials
    if config.oracle == "hyperband":
        ended_by = "hyperband" if len(lengths) <= most else MAX_TRIALS
    elif most_networks < most:
        most, ended_by = int(most_networks), "space"
    lengths = lengths[:most]
    seconds = unlimited = pace.seconds(lengths)
    limit = math.inf if config.time_limit_minutes is None else 60 * config.time_limit_minutes
    if unlimited > limit:
        lengths, seconds, ended_by = pace.within(lengths, limit), limit, TIME_LIMIT
    return {
        "trials": len(lengths),
        "epochs": sum(lengths),
        "ended_by": ended_by,
        "estimated_seconds": seconds,
        "seconds_without_time_limit": unlimited,
    }


def _lengths(config: Search) -> list[int]:
    """Return the epochs of every trial in the order of a search with one worker, as if ``max_trials`` were no limit.

    A promoted trial of Hyperband trains only what its parent has not.
    """
    if config.oracle != "hyperband":
        return [config.epochs] * config.max_trials
    import keras_tuner

    oracle = oracles.create(
        "hyperband", accepts=lambda values, trial: True, hyperparameters=keras_tuner.HyperParameters(),
        max_trials=config.max_trials, epochs=config.epochs, seed=config.seed,
    )  # fmt: skip
    found = []
    for bracket in reversed(range(oracle._get_num_brackets())):
        before = 0
        for rung in range(oracle._get_num_rounds(bracket)):
            epochs = oracle._get_epochs(bracket, rung)
            found += [epochs - before] * oracle._get_size(bracket, rung)
            before = epochs
    return found


def _most_networks(space: Space) -> float:
    """Return how many different networks there can be, the budget aside."""
    is_continuous = any(type(entry).__name__ == "Float" for entry in space.hyperparameters().space)
    return math.inf if is_continuous else _size(space)


def _size(space: Space) -> float:
    """Count the networks of the space, conditions heeded; a continuous hyper-parameter counts as one value."""
    hp = space.hyperparameters()
    conditioning = {condition.name for entry in hp.space for condition in entry.conditions}
    parents = [entry for entry in hp.space if entry.name in conditioning]
    size = 0
    for values in itertools.product(*map(_values, parents)):
        hp.values = dict(zip((entry.name for entry in parents), values, strict=True))
        idle = [entry for entry in parents if not hp.is_active(entry)]
        if all(hp.values[entry.name] == entry.default for entry in idle):  # an idle parent counts once
            size += math.prod(_options(entry) for entry in hp.space if entry not in parents and hp.is_active(entry))
    return float(size)


def _options(entry: Any) -> int:
    return 1 if type(entry).__name__ == "Float" else len(_values(entry))


def _values(entry: Any) -> list[Any]:
    """Return the values of a hyper-parameter, of a continuous one the least and the most."""
    if type(entry).__name__ == "Float":
        return [entry.min_value, entry.max_value]
    return [entry.value] if type(entry).__name__ == "Fixed" else list(entry.values)


def _seconds(recipe: Recipe, space: Space, values: Mapping[str, Any], samples: splits.Arrays) -> tuple[float, float]:
    """Return what the first step takes longer than others, and what an epoch takes, in seconds."""
    x, y = samples
    model = space.model(values)
    train.compile_for(model, "adam", 1e-3)
    rows = np.arange(recipe.search.batch_size) % len(x)
    batch = x[rows].astype("float32"), np.eye(model.output_shape[-1])[y[rows]]
    start = time.monotonic()
    model.train_on_batch(*batch)
    tracing = time.monotonic() - start
    start = time.monotonic()
    for _ in range(TIMED_STEPS):
        model.train_on_batch(*batch)
    step = (time.monotonic() - start) / TIMED_STEPS
    seen = min(len(x), recipe.search.train_samples or len(x))
    return tracing, step * train.steps(seen, recipe.search.batch_size, 1)
