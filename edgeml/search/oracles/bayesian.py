"""``bayesian``: KerasTuner's Gaussian process and its lower confidence bound, over feasible, unseen points.

KerasTuner optimises the bound over the whole space and rounds the optimum, to a point that may be over budget or known.
Here ``POOL`` points are drawn and judged in the order of their bound, until one is accepted: the minimum over the
feasible ones of the pool, for the price of few judgements. Where larger networks are better the bound puts those over
budget first, hundreds of them: nothing where a judgement takes a millisecond. Where a network has to be built for it
(``judges_dearly``), points nearer to one refused just now than to any told trial wait until the others were judged.

A fit costs the cube of the trials told: it takes at most ``BEST`` + ``OTHERS`` of them, and the kernel's length scale
comes from the best and others of these, ``SCALED_ON`` in all.

Source of the bound: Srinivas et al. 2010, arXiv 0912.3995; KerasTuner's own kernel and beta are kept.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeml.search.oracles import _history
from edgeml.search.oracles._refusing import Redraw

POOL = 600  # points drawn, about 200 of them feasible where three in ten are
RANDOM_SHARE = 1 / 3  # of a search's trials; KerasTuner's 3 per hyper-parameter would be all of most searches
BEST, OTHERS = 250, 250  # told trials that the process is fitted on: the best, and a seeded draw from the others
SCALED_ON = 100  # of these, half best and half drawn, the length scale is found
RESTARTS = 3  # of that search, for one number; KerasTuner's 20 take 8 to 15 s at 500 trials


def oracle_class() -> Any:
    """Return KerasTuner's oracle."""
    import keras_tuner

    return keras_tuner.oracles.BayesianOptimizationOracle


def options(*, max_trials: int, **_: Any) -> dict[str, Any]:
    """A third of the trials is drawn at random, to have something to learn from."""
    return {"num_initial_points": max(3, round(max_trials * RANDOM_SHARE))}


class Refusing(Redraw):
    """Take the best bound among feasible, unseen points."""

    gpr: Any
    beta: float
    num_initial_points: int | None
    ongoing_trials: dict[str, Any]

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Return a random point at first, then the best of a pool; ``STOPPED`` where nothing new is feasible."""
        trials = _history.completed(self)
        first = self.num_initial_points or max(3 * len(self.hyperparameters.space), 3)
        values = self._best_of_pool(trials) if len(trials) >= first else None
        if values is None:
            values = self._random_values()
        return {"status": "STOPPED" if values is None else "RUNNING", "values": values}

    def _best_of_pool(self, trials: Sequence[Any]) -> dict[str, Any] | None:
        from threadpoolctl import threadpool_limits

        pool = [values for values in (self._drawn() for _ in range(POOL)) if not self._duplicate(values)]  # type: ignore[attr-defined]
        if not pool:
            return None
        vectors = self._vectors(pool)
        # Threads slow matrices of a hundred rows down: a hundredfold where others use the machine, too.
        with threadpool_limits(limits=1, user_api="blas"):
            self._fit(trials)
            mean, deviation = self.gpr.predict(vectors, return_std=True)
        order = np.argsort(mean - self.beta * deviation, kind="stable")
        if self.judges_dearly:
            return self._likely_first(pool, vectors, order, trials)
        return next((pool[place] for place in order if self._admits(pool[place])), None)

    def _likely_first(
        self, pool: Sequence[dict[str, Any]], vectors: np.ndarray, order: np.ndarray, fitting: Sequence[Any]
    ) -> dict[str, Any] | None:
        """Return the first of ``order`` that is accepted; those that are likely to be refused come last."""
        told = self._vectors([trial.hyperparameters.values for trial in fitting])
        to_fitting = np.min([_distances(vectors, vector) for vector in told], axis=0)
        to_refused = np.full(len(pool), np.inf)
        waiting: list[int] = order.tolist()
        while waiting:
            place = next((place for place in waiting if to_fitting[place] <= to_refused[place]), waiting[0])
            waiting.remove(place)
            if self._admits(pool[place]):
                return pool[place]
            to_refused = np.minimum(to_refused, _distances(vectors, vectors[place]))
        return None

    def _fit(self, trials: Sequence[Any]) -> None:
        told = _history.subset(self, trials, best=BEST, others=OTHERS)
        few = _history.subset(self, told, best=SCALED_ON // 2, others=SCALED_ON - SCALED_ON // 2)
        x, y = self._examples(told)
        process = self._make_gpr()  # type: ignore[attr-defined]
        process.n_restarts_optimizer = RESTARTS
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scikit-learn's remarks on the kernel's bounds: nobody can act on them
            process.fit(self._vectors([t.hyperparameters.values for t in few]), _history.losses(self, few))
            process.set_params(kernel=process.kernel_, optimizer=None)
            process.fit(x, y)
        self.gpr = process

    def _examples(self, told: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
        """Return the told trials, and those that still run with the loss that KerasTuner takes: one that deters."""
        x, y = self._vectors([trial.hyperparameters.values for trial in told]), _history.losses(self, told)
        if not self.ongoing_trials:
            return x, y
        running = self._vectors([trial.hyperparameters.values for trial in self.ongoing_trials.values()])
        mean, deviation = self.gpr.predict(running, return_std=True)
        return np.concatenate([x, running]), np.concatenate([y, mean + deviation])

    def _vectors(self, points: Sequence[dict[str, Any]]) -> np.ndarray:
        """Return points as KerasTuner's process sees them: each entry in [0, 1], idle ones at their default."""
        entries = self._nonfixed_space()  # type: ignore[attr-defined]
        return np.array([[h.value_to_prob(_value(h, values)) for h in entries] for values in points])


def _distances(vectors: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Return how far (N, D) points lie from one, as (N,)."""
    found: np.ndarray = np.linalg.norm(vectors - vector, axis=1)
    return found


def _value(entry: Any, values: dict[str, Any]) -> Any:
    known = entry.name in values and all(condition.is_active(values) for condition in entry.conditions)
    return values[entry.name] if known else entry.default
