"""Export of any Keras model, and of the best of any KerasTuner tuner: fold, write, prove, benchmark, bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml import (
    bundle,
    descriptions,
    ensemble,
    evaluation,
    exporting,
    framing,
    manifests,
    nameplates,
    precisions,
    profiling,
    quantization,
    recipe,
    timing,
)
from edgeml.assembly import Graph, fold
from edgeml.errors import UsageError
from edgeml.exportable import exportable
from edgeml.framing import Numbers
from edgeml.model_inputs import fitting, random_inputs, true_classes
from edgeml.operators import not_counted
from edgeml.parity import VALUES, Parity, output_kinds
from edgeml.records import Event, to_json
from edgeml.runtimes.keras import output_names
from edgeml.timing import Latency
from edgeml.verification import prove

Samples = NDArray[Any] | Mapping[str, NDArray[Any]]
BENCHMARK_ROUNDS = 7


def export(
    model: Any,
    out: str | Path,
    to: str | Sequence[str] = ("tflite", "onnx"),
    precision: str | Sequence[str] = ("float32",),
    *,
    samples: Samples | None = None,
    truth: Sequence[Any] | NDArray[Any] | None = None,
    calibration: Samples | None = None,
    labels: Sequence[str] | None = None,
    batch: int | None = None,
    layout: str | None = None,
    scale: Numbers | None = None,
    offset: Numbers | None = None,
    io: str = precisions.NATIVE,
    gates: recipe.Verify | None = None,
    profile: bool = True,
    on_event: Callable[[Event], None] = lambda event: None,
) -> Path:
    """Write a proven bundle of a Keras model to ``out`` and return its path.

    Args:
        model: Functional or Sequential.
        out: the bundle's folder.
        to: targets.
        precision: number formats, of which each target writes those that it has.
        samples: (N, …) raw inputs on which every file is compared with Keras, or a mapping from the model's inputs to
            them; those of ``calibration`` if missing, random ones without either. Their layout is the files'. Integer
            files that are not within ``gates`` are equalized, corrected, and hold float layers, as far as needed
            (``edgeml.quantize``).
        truth: the class of each of ``samples``, as an index or as one of ``labels``: the accuracy of every file on them
            stands in manifest and report as that of the given samples. It is looked at once, after all files are
            written; files of other precisions are held against float32, without such a file against the Keras graph.
        calibration: inputs that ranges of int8 and int16x8 are taken from, likewise.
        labels: class names in the order of the output that is a softmax, or of the first.
        batch: a fixed batch size; if None, 1 in TFLite files, any in ONNX files but int8, which have 1.
        layout: "nhwc" or "nchw", of images in the files; if None, the model's own.
        scale: the model was trained on scale · x + offset, and the files shall take x; one number, or one per channel.
        offset: see ``scale``.
        io: what enters and leaves int8 and int16x8 files: "native" (integers) or "float32".
        gates: limits of parity.
        profile: time the operators of each file as well, for the report.
        on_event: called as the work proceeds.

    Raises:
        UsageError: ``out`` is occupied, integers without calibration, labels or a frame that do not fit the model.
        TargetError: a target cannot take this network. DataError: samples that do not fit the model.
        ParityError: a file computes something else. GateError: it loses more accuracy than ``gates`` allow.
    """
    place, limits = Path(out), gates or recipe.Verify()
    bundle.check_place(place)
    to, precision = exporting.words(to), exporting.words(precision)
    exporting.check_request(to, precision, calibrated=calibration is not None, io=io)
    own = exportable(model, to, precision)
    batch = _batch(own, batch)
    model = framing.framed(own, scale, offset, layout)
    graph = fold(model, precisions.files(to, precision, io), strict=False)
    inputs, fed = _fed(model, samples, calibration, precision, framing.most(scale, offset))
    _check_labels(model, labels)
    classes = None if truth is None else true_classes(model, samples, truth, labels)
    given = "samples" if samples is not None else "random" if calibration is None else "calibration"
    what = f"{given} ({len(next(iter(inputs.values())))})"
    with bundle.staged(place) as folder:
        held = None if given == "random" else quantization.exam(graph.folding.model, inputs, None)
        form: Any = {"on_event": on_event, "batch": batch, "io": io}
        climbs = quantization.climbs(graph.folding.model, precision, fed, held, recipe.Quantize(), limits, **form)
        artifacts = exporting.write(graph.folding.model, folder, to, precision, fed, climbs=climbs, **form)
        about = descriptions.of_model(graph.folding.model, inputs, (layout or framing.layout_of(own)).upper(), labels)
        artifacts = nameplates.put_on(artifacts, about)
        graph = replace(graph, cost=exporting.as_written(graph.cost, artifacts))
        graph.folding.model.save(folder / "model.keras")
        on_event(Event("verify", f"parity on {what}"))
        parity = prove(graph.folding.model, model, artifacts, inputs, what, limits, on_event)
        latency, operators = _timed(graph.folding.model, artifacts, inputs, profile, on_event)
        manifest = _manifest(place.name, about, graph, parity, latency, limits)
        if classes is not None:
            manifest["metrics"] = _metrics(graph.folding.model, artifacts, inputs, classes, limits, on_event)
        manifests.write(folder, _report(manifest, graph, operators, given == "random"), graph, artifacts, inputs, fed,
                        "given", precisions.programs(to, precision), on_event)  # fmt: skip
    return place


def _timed(
    model: Any,
    artifacts: Sequence[exporting.Artifact],
    inputs: Mapping[str, NDArray[Any]],
    profile: bool,
    on_event: Callable[[Event], None],
) -> tuple[list[Latency], list[profiling.FileProfile]]:
    on_event(Event("benchmark", "interleaved rounds"))
    precision = {a.path.name: a.precision for a in artifacts}
    files = {a.path.name: a.path for a in artifacts}
    latency = timing.measure(files, inputs, precision=precision, rounds=BENCHMARK_ROUNDS)
    return latency, profiling.of_files(model, artifacts, inputs, latency, on_event) if profile else []


def _metrics(
    model: Any,
    artifacts: Sequence[exporting.Artifact],
    inputs: Mapping[str, NDArray[Any]],
    classes: NDArray[np.int64],
    gates: recipe.Verify,
    on_event: Callable[[Event], None],
) -> list[dict[str, Any]]:
    """Return the accuracy of every file; how far confidence is to be trusted where it says probabilities."""
    on_event(Event("evaluate", f"{len(classes)} samples, once"))
    name, _ = descriptions.classes(model)
    kind = output_kinds(model)[output_names(model).index(name)]
    asked: dict[str, Any] = {"output": name, "split": evaluation.GIVEN, "calibrated": kind != VALUES}
    return evaluation.judged(artifacts, inputs, classes, gates, model, **asked)[1]


def export_best(
    tuner: Any,
    out: str | Path,
    *,
    top_k: int = 1,
    blend: tuple[NDArray[Any], NDArray[Any]] | None = None,
    samples: Samples | None = None,
    calibration: Samples | None = None,
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
    if top_k < 1:
        raise UsageError(f"export_best: top_k is {top_k}; at least 1 is allowed.")
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
    graph = ensemble.side_by_side(models, [float(w) for w in weights])
    return export(graph, out, samples=samples, calibration=calibration, **options)


def _fed(
    model: Any, samples: Any, calibration: Any, precision: Sequence[str], most: float
) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]] | None]:
    """Return by input what files are compared on, and what ranges of integers are taken from."""
    fed = None if calibration is None else fitting(calibration, model, "calibration")
    inputs = fed if samples is None else fitting(samples, model, "samples")
    for name, x in (fed or {}).items() if precisions.is_calibrated(precision) else ():
        quantization.check_fed(x, None if samples is None or inputs is None else inputs[name], "the samples")
    if fed is not None and len(fed) == 1:
        quantization.check_scaling(next(iter(fed.values())), model)
    return inputs or random_inputs(model, most), fed


def _check_labels(model: Any, labels: Sequence[str] | None) -> None:
    name, count = descriptions.classes(model)
    if labels is None:
        return
    if not all(isinstance(label, str) for label in labels):
        raise UsageError(f"labels: got {list(labels)[:3]}; names are due, as text.")
    twice = [label for place, label in enumerate(labels) if not label or label in labels[:place]]
    if twice:
        raise UsageError(f"labels: got '{twice[0]}' again or an empty one; each class has a name of its own.")
    if len(labels) != count:
        raise UsageError(f"labels: got {len(labels)}; output '{name}' has {count} values. Give one each.")


def _batch(model: Any, batch: int | None) -> int | None:
    """Return the batch size of the files: what is asked, else the model's own where it is fixed."""
    if batch is not None and (isinstance(batch, bool) or not isinstance(batch, int) or batch < 1):
        raise UsageError(f"batch: got {batch!r}; a whole number of at least 1 is allowed.")
    own: int | None = model.inputs[0].shape[0]
    if own is not None and batch not in (None, own):
        raise UsageError(f"batch: got {batch}; the model was built for {own}. Leave it out, or build it for any.")
    return own if batch is None else batch


def _manifest(
    name: str,
    about: Mapping[str, Any],
    graph: Graph,
    parity: Sequence[Parity],
    latency: Sequence[Latency],
    gates: recipe.Verify,
) -> dict[str, Any]:
    return {
        "schema_version": 1, "name": name, **about,
        "files": [], "members": [],
        "cost": {**to_json(graph.cost), "not_counted": [operator.name for operator in not_counted(graph.operators)]},
        "budget": {"asked": {}, "violations": []}, "folding": manifests.folding_json(graph), "metrics": [],
        "parity": to_json(parity), "gates": to_json(gates), "latency": to_json(latency),
    }  # fmt: skip


def _report(
    manifest: dict[str, Any], graph: Graph, operators: Sequence[profiling.FileProfile], random: bool
) -> dict[str, Any]:
    notes = (
        ["Parity was measured on random inputs: give real samples for figures that mean something."] if random else []
    )
    if manifest["metrics"]:
        notes.append(f"Accuracy is of the {manifest['metrics'][0]['samples']:,} samples that came with their classes.")
    notes += [f"Not counted: what layer '{o.name}' ({o.kind}) computes is in no figure of multiply-accumulates."
              for o in not_counted(graph.operators)]  # fmt: skip
    return {
        "schema_version": 1, "manifest": manifest, "trials": [],
        "refused": {}, "finalists": [], "ensemble": {}, "baselines": [], "splits": [],
        "data_notes": notes, "confusion": {}, "worst": [],
        "layers": [
            {"name": o.name, "kind": o.kind, "output_shape": list(o.output_shape), "params": o.params, "macs": o.macs}
            for o in graph.operators
        ],
        "operators": operators,
        "gates": manifest["gates"], "seconds": {},
    }  # fmt: skip
