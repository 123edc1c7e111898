"""KerasTuner tuners of others, made budget-aware.

tuner = edgeml.budgeted(kt.BayesianOptimization, budget)(build, objective="val_accuracy", max_trials=40)
tuner.search(x, y, validation_data=...)
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from edgeml.errors import BudgetError, EdgemlError
from edgeml.records import Budget
from edgeml.search import oracles
from edgeml.search.feasibility import Feasibility, identity
from edgeml.search.oracles import write_json


def budgeted(tuner_class: type, budget: Budget) -> type:
    """Return a subclass of a KerasTuner tuner that never creates a trial over ``budget``.

    Works for any ``build`` function or ``HyperModel``: a network is built once per distinct set of hyper-parameters and
    counted after folding, before it may become a trial; one whose build raises is refused as well.
    ``tuner.feasibility`` holds counts of refusals. A search that ends early because the tuner's own oracle proposes
    nothing that fits warns of it, and ``tuner.oracle.stopped_because`` says why.

    Raises:
        BudgetError: from ``search``, if no network of the space fits.
    """

    class Budgeted(tuner_class):  # type: ignore[misc]
        """The given tuner, refusing what is over budget."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.feasibility = Feasibility(lambda values: operators_of(self, values), budget)
            self.oracle.__class__ = oracles.restricted(type(self.oracle), self._accepts)
            self.oracle.judges_dearly = True
            if hasattr(self.oracle, "costs"):
                self.oracle.costs = self.feasibility.cost
            self._unbuildable: dict[Any, Exception] = {}

        def _accepts(self, values: Mapping[str, Any], trial: int) -> bool:
            key = identity(values)
            try:
                if key not in self._unbuildable:
                    return self.feasibility.accepts(values, trial)
            except EdgemlError:
                raise
            except Exception as error:  # noqa: BLE001  (whatever a foreign build dies of, other networks may be built)
                self._unbuildable[key] = error
            self.feasibility.refused["build"] += 1
            return False

        def on_search_end(self) -> None:
            super().on_search_end()
            reason = getattr(self.oracle, "stopped_because", None)
            if not self.oracle.trials:
                cause = next(iter(self._unbuildable.values()), None)
                raise self.feasibility.none_fits() from cause or (BudgetError(reason) if reason else None)
            if reason:
                warnings.warn(reason, stacklevel=2)

        def save(self) -> None:
            """Save as KerasTuner does, but rename the file into place."""
            path = self._get_tuner_fname()
            if "://" in path:
                super().save()
            elif not self._is_worker():
                self.oracle.save()
                write_json(path, self.get_state())

    Budgeted.__name__ = Budgeted.__qualname__ = f"Budgeted{tuner_class.__name__}"
    return Budgeted


def operators_of(tuner: Any, values: Mapping[str, Any]) -> Any:
    """List the operators of the folded network that a tuner's hypermodel builds from ``values``."""
    from edgeml.folding import fold_batch_norm
    from edgeml.keras_operators import as_if_trained, keras_operators

    hp = tuner.oracle.get_space()
    hp.values = dict(values)
    model = tuner.hypermodel.build(hp)
    with as_if_trained(model):
        return keras_operators(fold_batch_norm(model).model)
