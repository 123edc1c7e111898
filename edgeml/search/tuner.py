"""KerasTuner tuners of others, made budget-aware.

tuner = edgeml.budgeted(kt.BayesianOptimization, budget)(build, objective="val_accuracy", max_trials=40)
tuner.search(x, y, validation_data=...)
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeml import calibration, train
from edgeml.calibration import silent
from edgeml.devices import catalogue, profile
from edgeml.devices.profile import Profile
from edgeml.errors import BudgetError, EdgemlError, TargetError, UsageError
from edgeml.operators import Operator
from edgeml.records import Budget, Limit
from edgeml.search import oracles
from edgeml.search.feasibility import Feasibility, identity
from edgeml.search.oracles import write_json

CALIBRATION_DRAWS = 180  # networks that are built for a calibration, a fifth of a second each or more
TELLING = 200  # networks refused in a row, a fifth of a second each or more, before the user hears of it


def budgeted(tuner_class: type, budget: Budget) -> type:
    """Return a subclass of a KerasTuner tuner that never creates a trial over ``budget``.

    Works for any ``build`` function or ``HyperModel``: a network is built once per distinct set of hyper-parameters and
    counted after folding, before it may become a trial; one whose build raises is refused as well. Where ``params``
    alone are limited and minimised, a network that cannot be read layer by layer (subclassed, or with a layer of
    unknown cost) is charged all its weights.

    Latency limits are judged by predictions: of a device that ``edgeml devices`` lists, or of this machine (``host``),
    which ``search`` calibrates first with networks of the hypermodel and random weights: a minute, and the time to
    build 180 networks. The profiles lie in ``devices/`` of the project's folder; a search that goes on finds them.

    ``tuner.feasibility`` holds counts of refusals. A search that ends early because the tuner's own oracle proposes
    nothing that fits warns of it, and ``tuner.oracle.stopped_because`` says why.

    Raises:
        UsageError: from the constructor, if there is no hypermodel whose networks could be counted.
        BudgetError: from ``search``, if no network of the space fits, or too few to calibrate with.
        GateError: from ``search``, if this machine cannot be calibrated to a tenth.
        TargetError: from ``search``, if a network has a layer whose cost is not known.
    """
    return type(f"Budgeted{tuner_class.__name__}", (_Budgeted, tuner_class), {"budget": budget})


class _Budgeted:
    """Goes in front of a tuner: it refuses what is over budget."""

    budget: Budget
    hypermodel: Any
    oracle: Any
    input_shape: tuple[int | None, ...] | None = None  # of a batch, as the data of ``search`` say
    first_target: Any = None  # (1, …), where the targets are an array

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.hypermodel is None:
            raise UsageError(
                f"{type(self).__name__}: got no hypermodel; a build function or HyperModel is required, since it is its"
                " networks that are counted. Give one."
            )
        if kwargs.get("seed") == 0:
            oracles.seed_with_zero(self.oracle)
        minimised = getattr(self.oracle, "minimised", ())
        params_alone = {*self.budget.keys, *self.budget.latency, *minimised} == {"params"}
        self.feasibility = Feasibility(
            lambda values: operators_of(self, values, may_be_whole=params_alone), self.budget, counted=minimised
        )
        self.oracle.__class__ = oracles.restricted(type(self.oracle), self._accepts)
        self.oracle.judges_dearly = True
        if hasattr(self.oracle, "needs"):
            self.oracle.needs = self.feasibility.needs
        self._unbuildable: dict[Any, Exception] = {}
        self._refused_in_a_row = 0

    def _accepts(self, values: Mapping[str, Any], trial: int) -> bool:
        accepted = self._judged(values, trial)
        self._refused_in_a_row = 0 if accepted else self._refused_in_a_row + 1
        smallest = self.feasibility.smallest()
        if self._refused_in_a_row == TELLING and smallest is not None:
            needs = f"{smallest[1].cost.params:,} params and {smallest[1].cost.macs:,} MACs"
            text = f"{TELLING} networks in a row were refused; the smallest that was built has {needs}. Looking on."
            warnings.warn(text, stacklevel=2)
        return accepted

    def _judged(self, values: Mapping[str, Any], trial: int) -> bool:
        import keras_tuner

        key = identity(values)
        try:
            if key not in self._unbuildable:
                return self.feasibility.accepts(values, trial)
        except (EdgemlError, keras_tuner.errors.FatalError):
            raise
        except Exception as error:  # noqa: BLE001  (whatever a foreign build dies of, other networks may be built)
            self._unbuildable[key] = error
        self.feasibility.refused["build"] += 1
        return False

    def search(self, *args: Any, **kwargs: Any) -> Any:
        """Search as KerasTuner does; a network without an input of its own is built for that of the data."""
        self.input_shape = _input_shape(args[0] if args else kwargs.get("x"))
        targets = args[1] if len(args) > 1 else kwargs.get("y")
        self.first_target = targets[:1] if isinstance(targets, np.ndarray) else None
        self.feasibility.profiles = {limit: self._profile(limit) for limit in self.budget.latency}
        return super().search(*args, **kwargs)  # type: ignore[misc]

    def _try_build(self, hp: Any) -> Any:
        """Build as KerasTuner does, and make at once the variables that would make the first step be traced twice."""
        model = super()._try_build(hp)  # type: ignore[misc]
        if self.first_target is not None and model.optimizer is not None and _has_one_output(model):
            train.make_variables(model, self.first_target, np.ones((1, *model.output_shape[1:]), "float32"))
        return model

    def _profile(self, limit: Limit) -> Profile:
        """Return the profile that judges a latency limit; this machine is measured once per project."""
        catalogue.check(limit)
        if limit.device != catalogue.HOST:
            return catalogue.get(limit.device)
        kept = Path(self.project_dir) / "devices" / f"{limit.runtime}_{limit.precision}.toml"  # type: ignore[attr-defined]
        here = calibration.of_machine(limit.runtime, threads=1)
        if not kept.exists():
            entries = self.oracle.get_space().space
            networks = filter(None, map(self._buildable, oracles.drawn(entries, CALIBRATION_DRAWS, 0)))
            made = calibration.calibrate(networks, self.budget, limit.runtime, limit.precision, silent, about=here)
            profile.write(made, kept)
        found = profile.read(kept)
        catalogue.check_is_here(found, here)
        return found

    def _buildable(self, values: Mapping[str, Any]) -> tuple[Operator, ...] | None:
        try:
            return tuple(operators_of(self, values))
        except Exception as error:  # noqa: BLE001  (as in ``_judged``)
            self._unbuildable[identity(values)] = error
            return None

    def on_search_end(self) -> None:
        """Say why there are no trials, or fewer than asked for."""
        super().on_search_end()  # type: ignore[misc]
        reason = getattr(self.oracle, "stopped_because", None)
        if not self.oracle.trials:
            cause = next(iter(self._unbuildable.values()), None)
            raise self.feasibility.none_fits() from cause or (BudgetError(reason) if reason else None)
        if reason:
            warnings.warn(reason, stacklevel=2)

    def save(self) -> None:
        """Save as KerasTuner does, but rename the file into place."""
        path = self._get_tuner_fname()  # type: ignore[attr-defined]
        if "://" in path:
            super().save()  # type: ignore[misc]
        elif not self._is_worker():  # type: ignore[attr-defined]
            self.oracle.save()
            write_json(path, self.get_state())  # type: ignore[attr-defined]


def operators_of(tuner: Any, values: Mapping[str, Any], *, may_be_whole: bool = False) -> Any:
    """List the operators of the folded network that a tuner's hypermodel builds from ``values``.

    ``may_be_whole``: one that cannot be read layer by layer is a single operator, of which only parameters are known.

    Raises:
        TargetError: the cost of a layer is not known.
    """
    import keras

    from edgeml.folding import fold_batch_norm
    from edgeml.keras_operators import as_if_trained, keras_operators

    hp = tuner.oracle.get_space()
    hp.values = dict(values)
    model = tuner.hypermodel.build(hp)
    shape = getattr(tuner, "input_shape", None)
    if not model.built and shape is not None:
        model(keras.Input(shape[1:]))
    try:
        with as_if_trained(model):
            return keras_operators(fold_batch_norm(model).model)
    except (TargetError, UsageError):
        if not (model.built and may_be_whole):
            raise
        return (Operator("network", "whole", (), (), weights=model.count_params()),)


def _has_one_output(model: Any) -> bool:
    return bool(model.built) and len(getattr(model, "outputs", None) or ()) == 1 and None not in model.output_shape[1:]


def _input_shape(x: Any) -> tuple[int | None, ...] | None:
    """Return the shape of a batch of ``x``: an array, or a ``tf.data.Dataset`` of (x, y); None of anything else."""
    found = getattr(x, "shape", None)
    if found is None and hasattr(x, "element_spec"):
        spec = x.element_spec[0] if isinstance(x.element_spec, tuple) else x.element_spec
        found = getattr(spec, "shape", None)
    return None if found is None else (None, *tuple(found)[1:])
