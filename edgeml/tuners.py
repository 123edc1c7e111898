"""KerasTuner tuners over Optuna's samplers, for any build function or ``HyperModel``.

    tuner = edgeml.tuners.TPE(build, objective="val_accuracy", max_trials=40, seed=1)
    tuner = edgeml.budgeted(edgeml.tuners.NSGA2, budget)(build, objective="val_accuracy", max_trials=200)

``edgeml.tuners`` is imported when it is first used: this module imports KerasTuner, and with it Keras.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras_tuner

from edgeml.records import Budget
from edgeml.search.feasibility import Feasibility
from edgeml.search.oracles.nsga2 import NSGA2Oracle
from edgeml.search.oracles.tpe import TPEOracle
from edgeml.search.tuner import operators_of


class TPE(keras_tuner.Tuner):  # type: ignore[misc]
    """Tuning with the tree-structured Parzen estimator, which Hyperopt made known.

    Arguments as of ``keras_tuner.RandomSearch``; ``kwargs`` go to ``keras_tuner.Tuner``.
    """

    def __init__(
        self,
        hypermodel: Any = None,
        objective: Any = None,
        max_trials: int = 10,
        seed: int | None = None,
        hyperparameters: Any = None,
        tune_new_entries: bool = True,
        allow_new_entries: bool = True,
        max_retries_per_trial: int = 0,
        max_consecutive_failed_trials: int = 3,
        **kwargs: Any,
    ) -> None:
        oracle = TPEOracle(
            objective=objective, max_trials=max_trials, seed=seed, hyperparameters=hyperparameters,
            tune_new_entries=tune_new_entries, allow_new_entries=allow_new_entries,
            max_retries_per_trial=max_retries_per_trial, max_consecutive_failed_trials=max_consecutive_failed_trials,
        )  # fmt: skip
        super().__init__(oracle=oracle, hypermodel=hypermodel, **kwargs)


class NSGA2(keras_tuner.Tuner):  # type: ignore[misc]
    """Genetic tuning for several objectives: those measured, and costs of the network, which are minimised.

    Arguments as of ``keras_tuner.RandomSearch``, and ``minimised``, fields of ``edgeml.Cost`` as a budget limits them.
    The cost of a network is counted once per set of hyper-parameters, on the network built and folded. ``objective``
    may be a list.
    """

    def __init__(
        self,
        hypermodel: Any = None,
        objective: Any = None,
        max_trials: int = 10,
        seed: int | None = None,
        hyperparameters: Any = None,
        tune_new_entries: bool = True,
        allow_new_entries: bool = True,
        max_retries_per_trial: int = 0,
        max_consecutive_failed_trials: int = 3,
        minimised: Sequence[str] = ("macs",),
        **kwargs: Any,
    ) -> None:
        oracle = NSGA2Oracle(
            objective=objective, max_trials=max_trials, seed=seed, hyperparameters=hyperparameters,
            tune_new_entries=tune_new_entries, allow_new_entries=allow_new_entries,
            max_retries_per_trial=max_retries_per_trial, max_consecutive_failed_trials=max_consecutive_failed_trials,
            needs=Feasibility(lambda values: operators_of(self, values), Budget(), counted=minimised).needs,
            minimised=minimised,
        )  # fmt: skip
        super().__init__(oracle=oracle, hypermodel=hypermodel, **kwargs)
