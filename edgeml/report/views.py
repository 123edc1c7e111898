"""What each section of the report shows: rows and totals worked out of ``report.json``, no formatting.

Missing keys are the normal case (a bundle of a single model has no trials): everything is read with ``get``, and what
is not known stays absent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from edgeml.recipe import TREES
from edgeml.records import COUNTS, limited
from edgeml.report import asked, layers, limits, matrices, operators, programs
from edgeml.report.formats import DASH, known

Row = dict[str, Any]
BUDGET_NAMES = {
    "params": "parameters",
    "macs": "MACs",
    "weight_bytes": "weight bytes",
    "peak_activation_bytes": "peak activation bytes",
    "arena_bytes": "arena bytes",
    "file_bytes": "file bytes",
    "latency": "latency",
    "least_use": "leaving too much unused",
    "not_measured": "holding an operator that the device profile has not measured",
}
OBJECTIVE_NAMES = {
    "val_accuracy": "validation accuracy",
    "val_balanced_accuracy": "balanced validation accuracy",
    **{key: BUDGET_NAMES[key] for key in COUNTS},
    "latency": "predicted latency",
}
AXIS_NAMES = {
    **BUDGET_NAMES,
    "macs": "multiply-accumulates",
    "weight_bytes": "bytes of weights, smallest precision",
    "file_bytes": "bytes of the largest file, predicted",
}
ALWAYS_DRAWN = ("params", "macs", "file_bytes", "weight_bytes")
MAX_BALANCE_CLASSES = 40


def page(report: Mapping[str, Any]) -> Row:
    """Return everything that the templates and the plots need."""
    data: Row = present(report)
    manifest = data.setdefault("manifest", {})
    latency = manifest.get("latency", [])
    here = [row for row in latency if row.get("device", "host") == "host"]
    files = file_rows(manifest, here)
    trials = data.get("trials", [])
    objective = objective_of(data)
    return {
        **data,
        "title": manifest.get("name", "model"),
        "inputs": tensors(manifest, "input"),
        "outputs": tensors(manifest, "output"),
        "files": files,
        "accuracies": accuracies(files),
        "told": told(manifest),
        "smallest": min((one for one in files if "bytes" in one), key=lambda one: one["bytes"], default={}),
        "fastest": min(here, key=lambda row: row.get("quiet_ms", float("inf")), default={}),
        "here": here,
        "elsewhere": [row for row in latency if row not in here],
        "budget": budget_rows(manifest),
        "budget_names": BUDGET_NAMES,
        "latency_limits": limits.rows(manifest),
        "latency_of_finalists": limits.of_finalists(data.get("finalists", [])),
        "predicted_at": limits.predicted_at(trials),
        "agreement": limits.agreement(data),
        "statuses": Counter(trial.get("status", "unknown") for trial in trials),
        "objective": objective,
        "objective_name": OBJECTIVE_NAMES.get(objective, objective),
        "best": best_of(trials, objective),
        "held": held(manifest.get("selection", {})),
        "front": [str(trial.get("id")) for trial in trials if trial.get("front")],
        "front_names": [OBJECTIVE_NAMES.get(name, name) for name in data.get("front_objectives", [])],
        "failures": failures(trials),
        "asked": asked.rows(data.get("recipe", {})),
        "axes": axes(trials, manifest),
        "programs": programs.rows(manifest),
        "parity_matrix": matrices.parity(manifest.get("parity", [])),
        "gate_table": matrices.gates(data.get("gates", {}), _judged(manifest, files)),
        "against_float32": against_float32(files),
        "confusions": matrices.confusions(data.get("confusion", {})),
        "has_trees": any(one.get("space") in TREES for one in manifest.get("members", [])),
        "diversity": matrices.diversity(data.get("ensemble", {}).get("diversity", {})),
        "balance": balance(manifest, data.get("splits", [])),
        "layer_costs": layers.costs(data.get("layers", [])),
        "profiles": operators.files(data.get("operators", [])),
    }


def best_of(trials: list[Row], objective: str) -> Row:
    """Return the trial with the largest objective; an empty one where none has it."""
    measured = (one for one in trials if objective in one.get("metrics", {}))
    return max(measured, key=lambda one: float(one["metrics"][objective]), default={})


def tensors(manifest: Row, side: str) -> list[Row]:
    """Return all inputs or all outputs (``side``: input, output); bundles of one each have no lists."""
    return manifest.get(f"{side}s") or [manifest.get(side, {})]


def objective_of(report: Row) -> str:
    """Return what the search looked at."""
    return str(report.get("recipe", {}).get("search", {}).get("objective", "val_accuracy"))


def failures(trials: list[Row]) -> list[Row]:
    """Return the trials that did not end well, those that ended alike together, most frequent first."""
    found: dict[tuple[str, str | None], list[str]] = {}
    for trial in trials:
        if trial.get("status") != "completed":
            end = trial.get("status", "unknown"), trial.get("error")
            found.setdefault(end, []).append(str(trial.get("id", DASH)))
    rows = [{"status": status, "error": error, "ids": ids} for (status, error), ids in found.items()]
    return sorted(rows, key=lambda row: -len(row["ids"]))


def axes(trials: list[Row], manifest: Row) -> list[Row]:
    """Return what accuracy is drawn over: each cost that trials are known by, its values by trial, and its limit.

    Multiply-accumulates, parameters and bytes always; other costs where the budget limits them; latency where a device
    profile predicted it.
    """
    budget = manifest.get("budget", {}).get("asked", {})
    costs = {str(trial.get("id")): trial.get("cost", {}) for trial in trials}
    size = "file_bytes" if any(cost.get("file_bytes") for cost in costs.values()) else "weight_bytes"
    keys = ["macs", "params", size, *(key for key in budget if key in COUNTS and key not in ALWAYS_DRAWN)]
    found = [
        {"name": key, "label": AXIS_NAMES[key], "limit": budget.get(key), "values": numbers(
            {name: limited(key, cost.get(key)) for name, cost in costs.items()})}
        for key in dict.fromkeys(keys)
    ]  # fmt: skip
    asked_ms = {limits.where(one): one.get("max_ms") for one in budget.get("latency", [])}
    for key in limits.predicted_at(trials):
        place = key.replace("/", " ")
        predicted = {str(trial.get("id")): trial.get("predicted_ms", {}).get(key) for trial in trials}
        found.append({"name": f"latency_{len(found)}", "label": f"predicted latency, {place}, ms",
                      "limit": asked_ms.get(place), "values": numbers(predicted)})  # fmt: skip
    return [one for one in found if one["values"]]


def numbers(values: Row) -> Row:
    """Keep what is known."""
    return {name: value for name, value in values.items() if value is not None}


def held(selection: Row) -> list[Row]:
    """Return the graph that ships on each split, with what was decided there."""
    decided = {"validation": "steered the search", "blend": "chose members and weights", "test": "read once"}
    return [{"split": name, "role": role, **selection[name]} for name, role in decided.items() if name in selection]


def present(value: Any) -> Any:
    """Drop the keys without a value (null, NaN) at any depth, so that absent and unknown are the same thing."""
    if isinstance(value, Mapping):
        return {key: present(one) for key, one in value.items() if known(one)}
    if isinstance(value, list | tuple):
        return [present(one) for one in value]
    return value


def file_rows(manifest: Row, latency: list[Row]) -> list[Row]:
    """Return the model files, each with its test metric, parity, latency here, and the cost of the graph."""
    return [
        {
            **{key: manifest.get("cost", {}).get(key) for key in ("params", "macs")},
            **file,
            "test": first(manifest.get("metrics", []), file=file.get("path")),
            "parity": judged(manifest.get("parity", []), file.get("path")),
            "latency": first(latency, file=file.get("path")),
        }
        for file in manifest.get("files", [])
        if file.get("role") == "model"
    ]


def first(rows: list[Row], **wanted: Any) -> Row:
    """Return the first row with these values, an empty one if there is none."""
    return next((row for row in rows if all(row.get(key) == value for key, value in wanted.items())), {})


def _judged(manifest: Row, files: list[Row]) -> list[str]:
    """Return what gates were applied to: precisions, and programs where there are some."""
    parts = [*manifest.get("parity", []), *(one.get("parity") or {} for one in manifest.get("deployments", []))]
    gates = {row.get("gate") for row in parts}
    return [*(one.get("precision", "") for one in files), *(name for name in ("tflm", "program") if name in gates)]


def judged(parity: list[Row], path: str | None) -> Row:
    """Return the comparison with Keras that speaks for a file, its worst, with the largest difference of them all."""
    rows = [row for row in parity if row.get("file") == path and matrices.is_judged(row) and row.get("gate") != "tflm"]
    largest = max((row["max_abs"] for row in rows if "max_abs" in row), default=None)
    found = matrices.worst(rows)
    return found if largest is None else {**found, "max_abs": largest}


def against_float32(files: list[Row]) -> list[Row]:
    """Return each file beside the float32 file of its target: share of its bytes, points of accuracy, share of time.

    Empty where there is nothing but float32.
    """
    plain = {one.get("target"): one for one in files if one.get("precision") == "float32"}
    if all(one.get("precision") == "float32" for one in files):
        return []
    return [
        {
            **file,
            "share_of_bytes": ratio(file.get("bytes"), base.get("bytes")),
            "share_of_time": ratio(file["latency"].get("quiet_ms"), base.get("latency", {}).get("quiet_ms")),
            "points": points(file["test"], base.get("test", {})),
        }
        for file in files
        for base in [{} if file.get("precision") == "float32" else plain.get(file.get("target"), {})]
    ]


def ratio(value: float | None, of: float | None) -> float | None:
    """Return ``value / of`` where both are known."""
    return value / of if value is not None and of else None


def points(test: Row, base: Row) -> Row:
    """Return by how many points accuracy differs, with the interval of the pairs where the manifest has one."""
    if "accuracy_drop" in test:
        ends = [-100 * end for end in reversed(test.get("accuracy_drop_interval_95", []))]
        return {"value": -100 * test["accuracy_drop"], "interval": ends or None}
    known_both = "accuracy" in test and "accuracy" in base
    return {"value": 100 * (test["accuracy"] - base["accuracy"])} if known_both else {}


def told(manifest: Row) -> Row:
    """Return what accuracy is called, and its samples: of a run a test split, of an exported model what was given."""
    is_test = any(row.get("split") == "test" for row in manifest.get("metrics", []))
    words = ("test accuracy", "test samples", "the test split", "test")
    given = ("accuracy", "given samples", "the given samples", "the given samples")
    return dict(zip(("accuracy", "samples", "split", "short"), words if is_test else given, strict=True))


def accuracies(files: list[Row]) -> list[Row]:
    """Return the accuracy of the first file of each precision."""
    found: dict[str, Row] = {}
    for file in files:
        if "accuracy" in file["test"]:
            found.setdefault(file.get("precision", ""), {**file["test"], "precision": file.get("precision")})
    return list(found.values())


def budget_rows(manifest: Row) -> list[Row]:
    """Hold each key of the budget against what the graph uses."""
    asked, cost = manifest.get("budget", {}).get("asked", {}), manifest.get("cost", {})
    rows = [
        used(BUDGET_NAMES.get(key, key), limited(key, cost.get(key)), limit)
        for key, limit in asked.items()
        if key != "latency"
    ]
    for limit in limits.rows(manifest):
        row = used(f"latency, {limit['where']}", limit.get("judged_ms"), limit.get("max_ms"))
        rows.append({**row, "unit": "ms", "judgement": limit})
    return rows


def used(name: str, value: Any, limit: Any) -> Row:
    """Return one line of the budget; ``share`` is missing where either side is not a number."""
    row = {"name": name, "value": value, "limit": limit}
    if isinstance(value, int | float) and isinstance(limit, int | float) and limit > 0:
        row["share"] = value / limit
    return row


def balance(manifest: Row, splits: list[Row]) -> Row:
    """Return the samples per class and split; only the range of them where the classes are too many to draw."""
    counted = [split for split in splits if split.get("per_class")]
    labels = manifest.get("task", {}).get("labels", [])
    if not counted or len(counted[0]["per_class"]) != len(labels):
        return {}
    return {"labels": labels, "splits": counted, "drawn": len(labels) <= MAX_BALANCE_CLASSES}
