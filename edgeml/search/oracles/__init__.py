"""The oracles, one file each, made to refuse: nothing that ``accepts(values, trial)`` denies ever becomes a trial.

KerasTuner has no "infeasible": a trial that fails still counts, three in a row abort a search, the Bayesian oracle
proposes the same point again, Hyperband stops promoting. So refusal happens where values are drawn:

    random, hyperband   draw again, up to ``TRIES`` times; then the default, which is the smallest of its space
    bayesian            the best acquisition among feasible, unseen points, instead of one optimum of all points
    grid                go on to the next combination, over ``LEAP`` refused ones at most
    tpe, nsga2          ask Optuna's sampler again, up to ``ASKS`` times; then draw as random does
    somebody else's     call its ``populate_space`` again, up to ``CALLS`` times; then stop and say why

A file of this folder holds ``oracle_class()``, the KerasTuner oracle; ``Refusing``, the mixin that goes in front of it;
``options(...)``, its constructor's arguments beyond those that all oracles share.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from edgeml.search.feasibility import Needs
from edgeml.search.oracles._refusing import Accepts, CallAgain, active, defaults, drawn
from edgeml.search.oracles._saving import Atomic, write_json

__all__ = [
    "NAMES",
    "OBJECTIVES",
    "Accepts",
    "active",
    "create",
    "defaults",
    "drawn",
    "restricted",
    "seed_with_zero",
    "write_json",
]
NAMES = ("random", "grid", "bayesian", "hyperband", "tpe", "nsga2")
OBJECTIVES = ("val_accuracy", "macs")  # where several are possible
UNLIMITED = 10**9  # KerasTuner aborts after so many failures in a row; the runner judges failures itself


def create(
    name: str,
    *,
    accepts: Accepts,
    hyperparameters: Any,
    max_trials: int,
    epochs: int,
    seed: int,
    needs: Callable[[Mapping[str, Any]], Needs] | None = None,
    share_of: Callable[[Mapping[str, Any]], Any] | None = None,
    objective: str = OBJECTIVES[0],
    objectives: Sequence[str] = OBJECTIVES,
) -> Any:
    """Return a KerasTuner oracle that maximises ``objective`` over feasible networks.

    ``seed`` 0 counts like any other (KerasTuner takes it for "no seed"). ``nsga2`` also minimises those of
    ``objectives`` that are fields of ``Cost``, as ``needs`` gives them for hyper-parameters (they must be counted
    there); without ``needs``, and for the others, ``objective`` is the only one.
    ``hyperband`` halves trials of unlike ``share_of`` apart from each other.
    """
    import keras_tuner as kt

    module = _module(name)
    oracle = restricted(module.oracle_class(), accepts)(
        objective=kt.Objective(objective, "max"),
        hyperparameters=hyperparameters,
        seed=seed + 1,
        max_consecutive_failed_trials=UNLIMITED,
        **module.options(max_trials=max_trials, epochs=epochs, needs=needs, objectives=objectives),
    )
    oracle.max_trials = max_trials
    oracle.verbose = 0
    oracle.seldom = True  # the ledger is the truth
    oracle.share_of = share_of
    return oracle


def seed_with_zero(oracle: Any) -> None:
    """Give an oracle the seed 0, for which KerasTuner drew one at random."""
    oracle.seed = oracle._seed_state = 0
    if hasattr(oracle, "_make_gpr"):  # its Gaussian process has drawn from the other seed
        oracle._random_state = np.random.RandomState(0)
        oracle.gpr = oracle._make_gpr()


def restricted(oracle_class: type, accepts: Accepts) -> type:
    """Return a subclass of a KerasTuner oracle that proposes only what ``accepts`` takes."""
    known = ((_module(name).oracle_class(), _module(name).Refusing) for name in NAMES)
    mixin = next((mixin for base, mixin in known if _draws_like(oracle_class, base)), CallAgain)
    bases = (mixin, oracle_class) if issubclass(oracle_class, Atomic) else (mixin, Atomic, oracle_class)
    return type(f"Budgeted{oracle_class.__name__}", bases, {"accepts": staticmethod(accepts)})


def _draws_like(oracle_class: Any, base: Any) -> bool:
    """Tell whether values are drawn by ``base``'s own methods, so that its mixin replaces nothing of the user's."""
    methods = ("populate_space", "_random_values")
    return issubclass(oracle_class, base) and all(getattr(oracle_class, m) is getattr(base, m) for m in methods)


def _module(name: str) -> Any:
    return importlib.import_module(f"{__name__}.{name}")
