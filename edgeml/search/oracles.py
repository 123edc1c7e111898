"""KerasTuner's oracles, made to refuse: nothing that ``accepts(values, trial)`` denies ever becomes a trial.

KerasTuner has no "infeasible": a trial that fails still counts, three in a row abort a search, the Bayesian oracle
proposes the same point again, Hyperband stops promoting. So refusal happens where values are drawn:

    random, hyperband   draw again, up to ``TRIES`` times; then the default, which is the smallest network
    bayesian            the best acquisition among feasible, unseen points, instead of one optimum of all points
    grid                go on to the next combination, over ``LEAP`` refused ones at most
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np

Accepts = Callable[[Mapping[str, Any], int], bool]
TRIES = 3_000  # draws (about a millisecond each) before the space counts as dry
POOL = 300  # feasible points among which the Bayesian oracle picks the best acquisition
RANDOM_SHARE = 1 / 3  # of a Bayesian search's trials; KerasTuner's 3 per hyper-parameter would be all of most searches
LEAP = 30_000  # refused combinations in a row after which a grid ends: whole spaces have more than could be walked
UNLIMITED = 10**9  # KerasTuner aborts after so many failures in a row; the runner judges failures itself


def create(name: str, *, accepts: Accepts, hyperparameters: Any, max_trials: int, epochs: int, seed: int) -> Any:
    """Return a KerasTuner oracle that maximises validation accuracy over feasible networks.

    ``seed`` 0 counts like any other (KerasTuner takes it for "no seed").
    """
    import keras_tuner as kt

    options: dict[str, Any] = {
        "objective": kt.Objective("val_accuracy", "max"),
        "hyperparameters": hyperparameters,
        "seed": seed + 1,
        "max_consecutive_failed_trials": UNLIMITED,
    }
    if name == "hyperband":
        oracle = restricted(kt.oracles.HyperbandOracle, accepts)(max_epochs=epochs, hyperband_iterations=1, **options)
        oracle.max_trials = max_trials
    else:
        classes = {
            "random": kt.oracles.RandomSearchOracle,
            "bayesian": kt.oracles.BayesianOptimizationOracle,
            "grid": kt.oracles.GridSearchOracle,
        }
        if name == "bayesian":
            options["num_initial_points"] = max(3, round(max_trials * RANDOM_SHARE))
        oracle = restricted(classes[name], accepts)(max_trials=max_trials, **options)
    oracle.verbose = 0
    return oracle


def restricted(oracle_class: type, accepts: Accepts) -> type:
    """Return a subclass of a KerasTuner oracle that proposes only what ``accepts`` takes."""
    import keras_tuner as kt

    mixins: tuple[tuple[type, type], ...] = (
        (kt.oracles.BayesianOptimizationOracle, _Bayesian),
        (kt.oracles.GridSearchOracle, _Grid),
    )
    mixin = next((mixin for base, mixin in mixins if issubclass(oracle_class, base)), _Redraw)
    return type(f"Budgeted{oracle_class.__name__}", (mixin, oracle_class), {"accepts": staticmethod(accepts)})


class _Redraw:
    """Draw until a feasible, unseen point is found. The bases are KerasTuner's; only used in front of an oracle."""

    accepts: Accepts
    trials: dict[str, Any]
    hyperparameters: Any
    seed: int
    _seed_state: int

    def _random_values(self) -> dict[str, Any] | None:
        return next(self._feasible(), None)

    def _feasible(self) -> Iterator[dict[str, Any]]:
        """Yield what may be a trial among ``TRIES`` draws and the default."""
        for number in range(TRIES + 1):
            values = self._drawn() if number < TRIES else self._default()
            if not self._duplicate(values) and self.accepts(values, len(self.trials)):  # type: ignore[attr-defined]
                yield values

    def _default(self) -> dict[str, Any]:
        space = self.get_space()  # type: ignore[attr-defined]
        space.values = {}
        for entry in space.space:
            if space.is_active(entry):
                space.values[entry.name] = entry.default
        values: dict[str, Any] = space.values
        return values

    def _drawn(self) -> dict[str, Any]:
        import keras_tuner as kt

        drawn = kt.HyperParameters()
        for entry in self.hyperparameters.space:
            drawn.merge([entry])
            if drawn.is_active(entry):
                # KerasTuner 1.4.8 samples by seed + number of draws: the streams of near seeds run into each other.
                drawn.values[entry.name] = entry.random_sample((self.seed << 32) + self._seed_state)
                self._seed_state += 1
        values: dict[str, Any] = drawn.values
        return values


class _Bayesian(_Redraw):
    """Expected-improvement by lower confidence bound, over a pool of feasible, unseen points.

    Source of the bound: Srinivas et al. 2010, arXiv 0912.3995; KerasTuner's own kernel and beta are kept.
    """

    gpr: Any
    beta: float
    num_initial_points: int | None

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        finished = [trial for trial in self.trials.values() if trial.status == "COMPLETED"]
        first = self.num_initial_points or max(3 * len(self.hyperparameters.space), 3)
        pool = list(islice(self._feasible(), 1 if len(finished) < first else POOL))
        if not pool:
            return {"status": "STOPPED", "values": None}
        if len(pool) == 1:
            return {"status": "RUNNING", "values": pool[0]}
        x, y = self._vectorize_trials()  # type: ignore[attr-defined]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scikit-learn's remarks on the kernel's bounds: nobody can act on them
            self.gpr.fit(np.nan_to_num(x), np.nan_to_num(y))
        mean, deviation = self.gpr.predict(np.array([self._vector(values) for values in pool]), return_std=True)
        return {"status": "RUNNING", "values": pool[int(np.argmin(mean - self.beta * deviation))]}

    def _vector(self, values: dict[str, Any]) -> list[float]:
        return [h.value_to_prob(values.get(h.name, h.default)) for h in self._nonfixed_space()]  # type: ignore[attr-defined]


class _Grid:
    """Go through the grid in KerasTuner's order and pass over what is refused, without a trial."""

    accepts: Accepts
    trials: dict[str, Any]
    ongoing_trials: dict[str, Any]
    start_order: list[str]

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        latest = self.trials[self.start_order[-1]].hyperparameters.values if self.start_order else None
        values = self._next(latest) if latest else self._first()
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
        space = self.get_space()  # type: ignore[attr-defined]
        return {entry.name: entry.default for entry in space.space if space.is_active(entry)}

    def _next(self, values: dict[str, Any]) -> dict[str, Any] | None:
        following: dict[str, Any] | None = self._get_next_combination(values)  # type: ignore[attr-defined]
        return following
