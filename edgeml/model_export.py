"""Export of any Keras classifier, and of the best of any KerasTuner tuner: fold, write, prove, benchmark, bundle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml import bundle, ensemble, exporting, manifests, recipe, timing
from edgeml.assembly import Graph, fold
from edgeml.errors import DataError, TargetError, UsageError
from edgeml.parity import Parity
from edgeml.records import Event, to_json
from edgeml.runtimes.keras import functional
from edgeml.timing import Latency

RANDOM_SAMPLES = 256
BENCHMARK_ROUNDS = 15


def export(
    model: Any,
    out: str | Path,
    to: Sequence[str] = ("tflite", "onnx"),
    precision: Sequence[str] = ("float32",),
    *,
    samples: NDArray[Any] | None = None,
    calibration: NDArray[Any] | None = None,
    labels: Sequence[str] | None = None,
    gates: recipe.Verify | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
) -> Path:
    """Write a proven bundle of a Keras model to ``out`` and return its path.

    Args:
        model: Functional or Sequential, one input (N, …), one output.
        out: the bundle's folder.
        to: targets.
        precision: number formats.
        samples: (N, …) raw inputs on which every file is compared with Keras; random ones if missing.
        calibration: (N, …) raw inputs that int8 ranges are taken from.
        labels: class names in output order.
        gates: limits of parity.
        on_event: called as the work proceeds.

    Raises:
        UsageError: ``out`` is occupied, int8 without calibration. TargetError: a target cannot take this network.
        DataError: samples that do not fit the model. ParityError: a file computes something else.
    """
    place, limits = Path(out), gates or recipe.Verify()
    bundle.check_place(place)
    model = _exportable(model)
    name = model.inputs[0].name
    graph = fold(model, tuple((target, one) for target in to for one in precision))
    inputs = np.asarray(_fitting(samples, model, "samples"), "float32") if samples is not None else _random(model)
    fed = (
        {name: np.asarray(_fitting(calibration, model, "calibration"), "float32")} if calibration is not None else None
    )
    if labels is not None and len(labels) != model.output_shape[-1]:
        raise UsageError(f"labels: got {len(labels)}; the model has {model.output_shape[-1]} outputs. Give one each.")
    what = f"samples ({len(inputs)})" if samples is not None else f"random ({len(inputs)})"
    with bundle.staged(place) as folder:
        artifacts = exporting.write(graph.folding.model, folder, to, precision, fed, on_event)
        graph = replace(graph, cost=exporting.as_written(graph.cost, artifacts))
        graph.folding.model.save(folder / "model.keras")
        on_event(Event("verify", f"parity on {what}"))
        parity = exporting.prove(graph.folding.model, model, artifacts, {name: inputs}, what, limits)
        on_event(Event("benchmark", "interleaved rounds"))
        paths = {a.path.name: a.path for a in artifacts}
        latency, _ = timing.measure(
            paths, {name: inputs}, precision={a.path.name: a.precision for a in artifacts}, rounds=BENCHMARK_ROUNDS
        )
        manifest = _manifest(place.name, model, graph, inputs, labels, parity, latency)
        report = _report(manifest, graph, samples is None)
        manifests.write(folder, report, graph, artifacts, inputs, fed, "given")
    return place


def export_best(
    tuner: Any,
    out: str | Path,
    *,
    top_k: int = 1,
    blend: tuple[NDArray[Any], NDArray[Any]] | None = None,
    samples: NDArray[Any] | None = None,
    calibration: NDArray[Any] | None = None,
    **options: Any,
) -> Path:
    """Export a tuner's best completed trials as one bundle; ``options`` go to ``edgeml.export``.

    Args:
        tuner: any KerasTuner tuner that has searched.
        out: the bundle's folder.
        top_k: how many networks are averaged; weights are fitted on ``blend``.
        blend: (x, y) that no trial has seen; y are class indices.
        samples: inputs on which every file is compared.
        calibration: inputs for int8 ranges.
        options: further arguments of ``edgeml.export``.

    Raises:
        UsageError: no trial completed, or several networks without ``blend``.
    """
    if top_k > 1 and blend is None:
        raise UsageError("export_best: top_k > 1 needs blend=(x, y): data that no network was trained on.")
    ranked = tuner.oracle.get_best_trials(len(tuner.oracle.trials))
    trials = [trial for trial in ranked if trial.status == "COMPLETED"][:top_k]
    if not trials:
        raise UsageError("export_best: no trial of this tuner completed. Call tuner.search(...) first.")
    models = [tuner.load_model(trial) for trial in trials]
    if blend is None or len(models) == 1:
        return export(models[0], out, samples=samples, calibration=calibration, **options)
    x, y = blend
    probabilities = np.stack([np.asarray(model.predict(x, verbose=0), np.float64) for model in models])
    weights = ensemble.fit_weights(probabilities, np.asarray(y))
    graph = ensemble.compile_ensemble(models, [float(w) for w in weights])
    return export(graph, out, samples=samples, calibration=calibration, **options)


def _exportable(model: Any) -> Any:
    """Return the model as a functional one; refuse what no bundle can hold."""
    inputs, outputs = getattr(model, "inputs", None), getattr(model, "outputs", None)
    if not inputs or not outputs:
        raise UsageError(
            f"model '{getattr(model, 'name', model)}': {type(model).__name__} has no layer graph; Functional and built"
            " Sequential models have one. Build it, or write it with the functional API."
        )
    if len(inputs) != 1 or len(outputs) != 1:
        raise TargetError(
            f"model '{model.name}': {len(inputs)} inputs and {len(outputs)} outputs; one of each can be bundled."
            " Cut the model, or join its outputs."
        )
    if None in model.input_shape[1:]:
        raise TargetError(
            f"model '{model.name}': input shape {model.input_shape}; every size but the batch must be fixed."
            " Build it for one size."
        )
    return functional(model)


def _fitting(values: Any, model: Any, what: str) -> NDArray[Any]:
    array = np.asarray(values)
    wanted = tuple(model.input_shape[1:])
    if array.ndim == len(wanted) and array.ndim == 3 and wanted[-1] == 1:
        array = array[..., None]
    fits = array.ndim == len(wanted) + 1 and all(
        want is None or have == want for want, have in zip(wanted, array.shape[1:], strict=False)
    )
    if not fits or not len(array):
        raise DataError(f"{what}: shape {array.shape}; (N, {', '.join(map(str, wanted))}) is due.")
    if array.dtype.kind not in "biuf":
        raise DataError(f"{what}: type {array.dtype}; numbers are due.")
    if not np.all(np.isfinite(array)):
        raise DataError(f"{what}: holds NaN or infinite values; finite numbers are due.")
    return array


def _random(model: Any) -> NDArray[np.float32]:
    shape = (RANDOM_SAMPLES, *model.input_shape[1:])
    return np.random.default_rng(0).uniform(0, 1, shape).astype("float32")


def _manifest(
    name: str,
    model: Any,
    graph: Graph,
    inputs: NDArray[np.float32],
    labels: Sequence[str] | None,
    parity: Sequence[Parity],
    latency: Sequence[Latency],
) -> dict[str, Any]:
    classes = list(labels) if labels is not None else [f"class {i}" for i in range(model.output_shape[-1])]
    return {
        "schema_version": 1, "name": name, **bundle.provenance(),
        "task": {"kind": "classification", "labels": classes},
        "input": {
            "name": model.inputs[0].name, "shape": list(model.input_shape[1:]), "dtype": "float32", "layout": "NHWC",
            "range": [float(inputs.min()), float(inputs.max())], "meaning": "raw values, as the Keras model takes them",
        },
        "output": {"name": model.output_names[0], "shape": list(model.output_shape[1:]), "meaning": "as in Keras"},
        "files": [], "members": [], "cost": to_json(graph.cost), "budget": {"asked": {}, "violations": []},
        "folding": manifests.folding_json(graph), "metrics": [], "parity": [to_json(row) for row in parity],
        "latency": [to_json(row) for row in latency], "recipe_sha256": None, "data_sha256": None,
    }  # fmt: skip


def _report(manifest: dict[str, Any], graph: Graph, random: bool) -> dict[str, Any]:
    note = "Parity was measured on random inputs: give real samples for figures that mean something."
    return {
        "schema_version": 1, "manifest": manifest, "recipe": {}, "command": "edgeml export", "trials": [],
        "refused": {}, "finalists": [], "ensemble": {}, "baselines": [], "splits": [],
        "data_notes": [note] if random else [], "confusion": {}, "worst": [],
        "layers": [
            {"name": o.name, "kind": o.kind, "output_shape": list(o.output_shape), "params": o.params, "macs": o.macs}
            for o in graph.operators
        ],
        "gates": {}, "seconds": {},
    }  # fmt: skip
