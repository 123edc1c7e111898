"""``tpe``: the tree-structured Parzen estimator that Hyperopt made known, as Optuna implements it.

Source: Bergstra et al. 2011 (NIPS 24); the joint estimator per group of entries that are active together: Falkner et
al. 2018, arXiv 1807.01774. The good trials are Optuna's tenth of all, 25 at most. Past ``BEST`` + ``OTHERS`` told
trials the estimator of the others is made from a seeded draw of them: the good ones are the same as with all.
"""

from __future__ import annotations

from typing import Any

from edgeml.search.oracles import _history, _sampled
from edgeml.search.oracles._refusing import Redraw

Refusing = Redraw
BEST, OTHERS = 25, 225  # told trials that a proposal is made from; 25: Optuna calls no more than these good


def oracle_class() -> Any:
    """Return the oracle, for KerasTuner's tuners."""
    return TPEOracle


def options(**_: Any) -> dict[str, Any]:
    """It has none."""
    return {}


class TPEOracle(_sampled.SampledOracle):
    """Propose where good trials are dense and others are not; trials that still run count among the others."""

    def _study(self) -> Any:
        from edgeml.search.oracles import _optuna_study

        sampler = _optuna_study.tpe(
            seed=self._proposal_seed(), n_startup_trials=self._startup(), multivariate=True, group=True,
            constant_liar=bool(self.ongoing_trials),
        )  # fmt: skip
        chosen = _history.subset(self, _history.completed(self), best=BEST, others=OTHERS)
        trials = [self._as_told(trial) for trial in (*chosen, *self.ongoing_trials.values())]
        return _optuna_study.study(sampler, trials, objectives=1)
