"""A search, rehearsed: what share of the space fits the budget, and how long the trials would take. Writes nothing."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edgeml import data, splits, train
from edgeml.recipe import Recipe
from edgeml.records import Event, to_json
from edgeml.search.feasibility import Feasibility
from edgeml.search.space import Space, of_data

DRAWS = 500
TIMED_STEPS = 8


def rehearse(recipe: Recipe, on_event: Callable[[Event], None]) -> dict[str, Any]:
    """Draw networks, judge them, time a few training steps of a typical feasible one.

    Raises:
        BudgetError: none of the networks drawn fits.
    """
    on_event(Event("data", "loading"))
    dataset = data.load(recipe.data)
    arrays = splits.split(dataset, recipe.data.splits, recipe.search.seed).arrays(dataset)
    networks = of_data(recipe, arrays["train"][0], dataset.value_range, len(dataset.labels))
    judge = Feasibility(networks.operators, recipe.budget)
    drawn = _drawn(networks, recipe.search.seed)
    default = judge.cost(networks.hyperparameters().values)
    costs = [judge.cost(values) for values in drawn]
    fitting = [(c, values) for c, values in zip(costs, drawn, strict=True) if not recipe.budget.violations(c)]
    share = len(fitting) / len(drawn)
    if not recipe.budget.violations(default):
        fitting.append((default, networks.hyperparameters().values))
    if not fitting:
        raise judge.none_fits()
    fitting.sort(key=lambda pair: pair[0].macs)
    on_event(Event("time", "a few steps of a typical network"))
    seconds = _trial_seconds(recipe, networks, fitting[len(fitting) // 2][1], arrays["train"])
    return {
        "space": {
            "size": _size(networks),
            "feasible_share": share,
            "samples": len(drawn),
            "hyperparameters": {entry.name: _values(entry) for entry in networks.hyperparameters().space},
        },
        "smallest": to_json(min([default, *costs], key=lambda c: c.params)),
        "largest": to_json(max(costs, key=lambda c: c.params)),
        "estimated_seconds": seconds * recipe.search.max_trials / recipe.search.workers,
    }


def _drawn(space: Space, seed: int) -> list[dict[str, Any]]:
    import keras_tuner

    entries, found = space.hyperparameters().space, []
    state = seed + 1
    for _ in range(DRAWS):
        hp = keras_tuner.HyperParameters()
        for entry in entries:
            hp.merge([entry])
            if hp.is_active(entry):
                hp.values[entry.name] = entry.random_sample(state)
                state += 1
        found.append(hp.values)
    return found


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


def _trial_seconds(recipe: Recipe, space: Space, values: Mapping[str, Any], samples: splits.Arrays) -> float:
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
    return tracing + step * train.steps(seen, recipe.search.batch_size, recipe.search.epochs)
