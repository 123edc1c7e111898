"""What a bundle says of itself: manifest, report and model card, from the records of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml import (
    bundle,
    deploying,
    descriptions,
    evaluation,
    exporting,
    handover,
    nameplates,
    pipeline,
    recipe_file,
    selection,
)
from edgeml import report as pages
from edgeml.assembly import Assembled, Field, Graph
from edgeml.devices import profile
from edgeml.ensemble import Choice
from edgeml.errors import ParityError
from edgeml.exporting import Artifact
from edgeml.kinds import kind_of
from edgeml.latency_budget import Standing
from edgeml.parity import Parity, own_rounding
from edgeml.precisions import is_calibrated
from edgeml.quantization import digest
from edgeml.recipe import Search, Verify
from edgeml.records import to_json
from edgeml.run_folder import Arrays, RunFolder
from edgeml.runtimes import Arrays as Inputs
from edgeml.runtimes import Loaded, open_model
from edgeml.runtimes.keras import Reference
from edgeml.search import pareto
from edgeml.search.candidates import Candidate
from edgeml.timing import Latency

Json = dict[str, Any]
STEADY = (
    0.05  # of the limit of a golden output, that one rounding of the input may move it by; files are within four times
)


def report(
    run: RunFolder,
    candidates: Sequence[Candidate],
    assembled: Assembled,
    artifacts: Sequence[Artifact],
    arrays: Mapping[str, Arrays],
    said: Mapping[str, NDArray[np.float64]],
    parity: Sequence[Parity],
    latency: Sequence[Latency],
    standings: Sequence[Standing],
    command: str,
) -> Json:
    """Look at the test labels, once, and return everything that the report is drawn from.

    ``said``: each finalist's probabilities of the test split (N, K) by id.

    Raises:
        GateError: a quantized file loses more accuracy than allowed.
    """
    field, choice, graph = assembled.field, assembled.choice, assembled.graph
    x, y = (np.asarray(values) for values in arrays["test"])
    x = x.astype("float32")
    by_file, rows = evaluation.judged(
        artifacts, {kind_of(x.shape[1:]).sample: x}, y, run.recipe.verify, graph.folding.model,
        balanced=pipeline.is_skewed(run),
    )  # fmt: skip
    dataset = run.dataset()
    labels = dataset["labels"]
    chosen = selection.Selection(field, choice, tuple(said[one.id] for one in field.finalists))
    shown = artifacts[0].path.name
    return {
        "schema_version": 1,
        "manifest": _manifest(run, choice, field, graph, rows, parity, latency, standings)
        | {"selection": selection.shipped(run, chosen, arrays, len(candidates))},
        "recipe": recipe_file.to_dict(run.recipe),
        "command": command,
        **trials_json(candidates, {pipeline.trial_of(f.id) for f in field.finalists}, run.recipe.search),
        "refused": (run.ledger.of("refused") or [{"counts": {}}])[-1]["counts"],
        "devices": devices_json(run),
        "finalists": (finalists := _finalists(run, chosen, arrays)),
        "seeds": selection.seeds(finalists) if run.recipe.train.seeds > 1 else [],
        "ensemble": selection.ensemble_rows(chosen, run.recipe.ensemble.weights),
        "baselines": evaluation.baselines(arrays["train"], (x, y), len(labels)),
        "splits": _splits(run),
        "data_notes": dataset["notes"],
        "confusion": evaluation.confusion(by_file[shown], y, labels, shown),
        "worst": evaluation.worst(by_file[shown], (x, y), labels, dataset["value_range"]),
        "layers": [
            {"name": o.name, "kind": o.kind, "output_shape": list(o.output_shape), "params": o.params, "macs": o.macs}
            for o in graph.operators
        ],
        "gates": to_json(run.recipe.verify),
    }


def write(
    folder: Path,
    report: Json,
    graph: Graph,
    artifacts: Sequence[Artifact],
    samples: Inputs,
    calibration: Inputs | None,
    split: str,
    programs: Sequence[tuple[str, str]] = (),
    on_event: exporting.OnEvent = lambda event: None,
) -> None:
    """Put all but the model files into a staged bundle: golden tensors, programs, scripts, pages, manifest, sums.

    Args:
        folder: the staged bundle.
        report: what the pages are drawn from; its manifest is completed here.
        graph: what ships.
        artifacts: the exported files.
        samples: real inputs by name, (N, …) each, of which some become golden.
        calibration: what integer ranges were taken from.
        split: where the calibration samples come from.
        programs: target and precision of what is made of the files.
        on_event: called before each of them.
    """
    manifest = report["manifest"]
    golden = write_golden(folder, Reference(graph.folding.model), samples, artifacts, manifest)
    gates = Verify(**manifest["gates"])
    made = deploying.deploy(folder, programs, artifacts, golden, samples, gates, graph.cost.macs, on_event)
    manifest["deployments"] = to_json(made)
    if manifest["task"]["labels"]:
        (folder / "labels.txt").write_text(nameplates.label_lines(manifest["task"]["labels"]), "utf-8")
    bundle.copy_scripts(folder)
    drawn = [{"split": split, "samples": len(x), "sha256": digest(x)} for x in (calibration or {}).values()]
    roles = file_roles(artifacts, drawn[0] if drawn else {}, samples)
    roles |= {name: {"role": "deployment", "target": one.target} for one in made for name in one.files}
    manifest["files"] = model_entries(folder, roles)  # the pages show the model files; sums come when all lie there
    manifest["programs"] = handover.write(folder, to_json(manifest))
    roles |= {name: {"role": "program"} for one in manifest["programs"] for name in one["files"]}
    write_pages(folder, report)
    bundle.write_sums(folder, manifest, roles)


def write_pages(folder: Path, report: Json) -> None:
    """Write report.json, report.html and the model card."""
    (folder / "report.json").write_text(json.dumps(to_json(report), indent=1) + "\n", "utf-8")
    (folder / "report.html").write_text(pages.html(to_json(report)), "utf-8")
    (folder / "README.md").write_text(pages.model_card(to_json(report)), "utf-8")


def write_golden(
    folder: Path, reference: Loaded, samples: Inputs, artifacts: Sequence[Artifact], manifest: Json
) -> Inputs:
    """Write the golden tensors, and the limits that ``verify.py`` holds each file to; return the inputs.

    An extreme input gives way to a real one where the Keras model itself, moved by one rounding, moves by more than a
    part of the limit: what it makes of it is the rounding of a processor.

    Raises:
        ParityError: a float32 file is not within its limits here.
    """
    inputs = {
        one["name"]: bundle.golden_inputs(samples[one["name"]], one["range"]).astype(one["dtype"])
        for one in manifest["inputs"]
    }
    outputs = reference.predict(inputs)
    moved = own_rounding(reference, inputs, outputs)
    limits = {name: bundle.limits_of_output("float32", values)["max_abs_limit"] for name, values in outputs.items()}
    steady = np.all([moved[name] <= STEADY * limit for name, limit in limits.items()], axis=0)
    if not steady.all():
        for name, x in inputs.items():
            x[~steady] = np.resize(samples[name], x.shape)[~steady]
        outputs = reference.predict(inputs)
    tensors = {**bundle.golden_arrays("inputs", inputs), **bundle.golden_arrays("outputs", outputs)}
    for a in artifacts:
        expected = open_model(a.path).predict(inputs)
        tensors |= bundle.golden_arrays(f"expected/{a.path.name}", expected)
        for name, limit in limits.items() if a.precision == "float32" else ():
            if not (off := np.abs(expected[name] - outputs[name]).max()) <= limit:
                raise ParityError(
                    f"{a.path.name}: on extreme inputs (flat, noisy, nearly empty ones) output '{name}' differs by"
                    f" {off:.1e}; {limit:.0e} is allowed. Nothing was written to the output folder."
                )
    arrays: Json = dict(tensors)
    np.savez_compressed(folder / "golden.npz", **arrays)
    manifest["golden"] = {
        a.path.name: {"path": a.path.name, **bundle.golden_limits(a.precision, outputs)} for a in artifacts
    }
    return inputs


def file_roles(artifacts: Sequence[Artifact], calibration: Json, samples: Inputs) -> dict[str, Json]:
    """Return what is known of each file beside its name, sum and size; ``samples``: on which rows are compared."""
    roles: dict[str, Json] = {
        "model.keras": {"role": "reference", "target": "keras", "precision": "float32"},
        "golden.npz": {"role": "golden"},
        "labels.txt": {"role": "labels"},
    }
    for a in artifacts:
        roles[a.path.name] = {"role": "model", "target": a.target, "precision": a.precision, "batch": a.signature.batch,
                                "nameplate": a.has_nameplate}  # fmt: skip
        if a.layers:
            roles[a.path.name]["layers"] = to_json(a.layers)
        if a.quantization:
            roles[a.path.name]["quantization"] = {
                **exporting.quantization_json(a), "calibration": calibration if is_calibrated([a.precision]) else {},
                **exporting.same_rows(a, artifacts, samples),
            }  # fmt: skip
    return roles


def model_entries(folder: Path, roles: Mapping[str, Json]) -> list[Json]:
    """Return the manifest's entries of the model files alone."""
    named = [name for name, about in roles.items() if about["role"] in ("model", "reference")]
    return [
        {"path": n, **roles[n], "sha256": bundle.sha256(folder / n), "bytes": (folder / n).stat().st_size}
        for n in sorted(named)
    ]


def _manifest(
    run: RunFolder,
    choice: Choice,
    field: Field,
    graph: Graph,
    metrics: list[Json],
    parity: Sequence[Parity],
    latency: Sequence[Latency],
    standings: Sequence[Standing],
) -> Json:
    recipe = run.recipe
    members = [field.finalists[i] for i in choice.members]
    return {
        "schema_version": 1,
        "name": recipe.name,
        **descriptions.of_run(run, graph),
        "files": [],
        "members": [
            {"weight": w, **to_json({key: getattr(c, key) for key in ("id", "space", "hyperparameters", "cost")})}
            for c, w in zip(members, choice.weights, strict=True)
        ],
        "cost": to_json(graph.cost),
        "budget": {"asked": {k: v for k, v in to_json(recipe.budget).items() if v}, "violations": [],
                   "latency": [standing_json(one) for one in standings]},
        "folding": folding_json(graph),
        "metrics": metrics,
        "parity": [to_json(row) for row in parity],
        "gates": to_json(recipe.verify),
        "latency": [to_json(row) for row in latency],
    }  # fmt: skip


def devices_json(run: RunFolder) -> list[Json]:
    """Return the device profiles that the search was judged by, without their coefficients."""
    shown = ("name", "description", "runtime", "runtime_version", "precision", "source", "error", "networks",
             "held_out", "held_out_predicted_ms", "held_out_measured_ms", "judge")  # fmt: skip
    found = [profile.read(path) for path in sorted((run.root / "devices").glob("*.toml"))]
    return [{key: to_json(getattr(one, key)) for key in shown} for one in found]


def standing_json(standing: Standing) -> Json:
    """Return how a graph stands against a latency limit; ``max_ms`` and the rest of the limit beside it."""
    return {**to_json(standing.limit), **{key: value for key, value in to_json(standing).items() if key != "limit"}}


def folding_json(graph: Graph) -> Json:
    """Return the folding plan as the manifest states it."""
    kept = [{"layer": name, "reason": reason} for name, reason in graph.folding.kept]
    return {"folded": list(graph.folding.folded), "kept": kept}


def trials_json(candidates: Sequence[Candidate], finalists: set[str], search: Search) -> Json:
    """Return every trial, and what the Pareto front among them is about."""
    objectives = pareto.objectives_of(search)
    front = {candidate.id for candidate in pareto.pareto_front(candidates, objectives)}
    rows = [{**to_json(c), "finalist": c.id in finalists, "front": c.id in front} for c in candidates]
    return {"trials": rows, "front_objectives": list(objectives)}


def _finalists(run: RunFolder, chosen: selection.Selection, arrays: Mapping[str, Arrays]) -> list[Json]:
    epochs = pipeline.epochs_of_finalists(run)
    return [{**one, **epochs.get(one["id"], {})} for one in selection.finalists(run, chosen, arrays)]


def _splits(run: RunFolder) -> list[Json]:
    record = run.partition()["splits"]
    return [
        {"name": name, "samples": part["samples"], "per_class": list(part["per_class"].values()),
         "sha256": part["sha256"]["x"]}
        for name, part in record.items()
    ]  # fmt: skip
