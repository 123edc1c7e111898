"""What each section of the report shows: rows and totals worked out of ``report.json``, no formatting.

Missing keys are the normal case (a bundle of a single model has no trials): everything is read with ``get``, and what
is not known stays absent.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from edgeml.recipe import TREES
from edgeml.records import COUNTS, limited
from edgeml.report import limits
from edgeml.report.formats import known

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
MAX_MATRIX_CLASSES, MAX_CONFUSIONS, MAX_BALANCE_CLASSES = 30, 12, 40


def page(report: Mapping[str, Any]) -> Row:
    """Return everything that the templates and the plots need."""
    data: Row = present(report)
    manifest = data.setdefault("manifest", {})
    files = file_rows(manifest)
    trials = data.get("trials", [])
    objective = objective_of(data)
    return {
        **data,
        "title": manifest.get("name", "model"),
        "inputs": tensors(manifest, "input"),
        "outputs": tensors(manifest, "output"),
        "files": files,
        "accuracies": accuracies(files),
        "smallest": min((one for one in files if "bytes" in one), key=lambda one: one["bytes"], default={}),
        "fastest": min(manifest.get("latency", []), key=lambda row: row.get("quiet_ms", float("inf")), default={}),
        "budget": budget_rows(manifest),
        "budget_names": BUDGET_NAMES,
        "latency_limits": limits.rows(manifest),
        "latency_of_finalists": limits.of_finalists(data.get("finalists", [])),
        "predicted_at": limits.predicted_at(trials),
        "agreement": limits.agreement(data),
        "statuses": Counter(trial.get("status", "unknown") for trial in trials),
        "objective": objective,
        "objective_name": OBJECTIVE_NAMES.get(objective, objective),
        "best": max(
            (one for one in trials if objective in one.get("metrics", {})),
            key=lambda one: float(one["metrics"][objective]),
            default={},
        ),
        "held": held(manifest.get("selection", {})),
        "front": [str(trial.get("id")) for trial in trials if trial.get("front")],
        "front_names": [OBJECTIVE_NAMES.get(name, name) for name in data.get("front_objectives", [])],
        "failures": [trial for trial in trials if trial.get("status") != "completed"],
        "confusions": confusions(data.get("confusion", {})),
        "has_trees": any(one.get("space") in TREES for one in manifest.get("members", [])),
        "diversity": diversity(data.get("ensemble", {}).get("diversity", {})),
        "balance": balance(manifest, data.get("splits", [])),
        "totals": {key: total(data.get("layers", []), key) for key in ("params", "macs")},
    }


def tensors(manifest: Row, side: str) -> list[Row]:
    """Return all inputs or all outputs (``side``: input, output); bundles of one each have no lists."""
    return manifest.get(f"{side}s") or [manifest.get(side, {})]


def objective_of(report: Row) -> str:
    """Return what the search looked at."""
    return str(report.get("recipe", {}).get("search", {}).get("objective", "val_accuracy"))


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


def file_rows(manifest: Row) -> list[Row]:
    """Return the model files, each with its test metric, its parity, its latency and the cost of the graph."""
    return [
        {
            **{key: manifest.get("cost", {}).get(key) for key in ("params", "macs")},
            **file,
            "test": first(manifest.get("metrics", []), file=file.get("path"), split="test"),
            "parity": judged(manifest.get("parity", []), file.get("path")),
            "latency": first(manifest.get("latency", []), file=file.get("path")),
        }
        for file in manifest.get("files", [])
        if file.get("role") == "model"
    ]


def first(rows: list[Row], **wanted: Any) -> Row:
    """Return the first row with these values, an empty one if there is none."""
    return next((row for row in rows if all(row.get(key) == value for key, value in wanted.items())), {})


def judged(parity: list[Row], path: str | None) -> Row:
    """Return the row that speaks for a file: a failed one before all, else the one with the largest difference."""
    rows = [row for row in parity if row.get("file") == path and row.get("gate") != "none"]
    return max(rows, key=lambda row: (not row.get("passed", True), row.get("max_abs", 0.0)), default={})


def accuracies(files: list[Row]) -> list[Row]:
    """Return the test accuracy of the first file of each precision."""
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


def confusions(confusion: Row) -> Row:
    """Return the confusion matrix as rows (a root makes single mistakes visible), and the most frequent mistakes."""
    labels, matrix = confusion.get("labels", []), confusion.get("matrix", [])
    if not matrix:
        return {}
    sums = [sum(row) for row in matrix]
    rows = [
        {"label": labels[i], "cells": [(count, math.sqrt(count / max(sums[i], 1))) for count in matrix[i]]}
        for i in range(len(matrix))
    ]
    wrong = [
        {"label": labels[i], "predicted": labels[j], "count": count, "share": count / max(sums[i], 1)}
        for i, row in enumerate(matrix)
        for j, count in enumerate(row)
        if i != j and count
    ]
    wrong.sort(key=lambda one: -one["count"])
    right = sum(matrix[i][i] for i in range(len(matrix)))
    return {
        "rows": rows if len(matrix) <= MAX_MATRIX_CLASSES else [],
        "labels": labels,
        "wrong": wrong[:MAX_CONFUSIONS],
        "mistakes": sum(sums) - right,
        "samples": sum(sums),
    }


def diversity(shown: Row) -> list[Row]:
    """Return what any two finalists share, as heat tables: decisions, errors, samples that neither gets right."""
    titles = {
        "disagreement": "They decide differently, %",
        "double_fault": "Both are wrong, %",
        "error_correlation": "Their errors are correlated",
    }
    return [
        {"title": title, "rows": _heat(shown["ids"], shown[name], name)}
        for name, title in titles.items()
        if len(shown.get(name, [])) > 1
    ]


def _heat(ids: list[str], matrix: list[list[float]], name: str) -> list[Row]:
    most = max(abs(value) for row in matrix for value in row) or 1

    def cell(value: float) -> tuple[str, float]:
        text = f"{value:.2f}" if name == "error_correlation" else f"{100 * value:.1f}"
        return text if value else "", max(0.0, value / most)

    return [
        {"label": one, "hue": "warn", "cells": [cell(v) for v in row]} for one, row in zip(ids, matrix, strict=False)
    ]


def balance(manifest: Row, splits: list[Row]) -> Row:
    """Return the samples per class and split; only the range of them where the classes are too many to draw."""
    counted = [split for split in splits if split.get("per_class")]
    labels = manifest.get("task", {}).get("labels", [])
    if not counted or len(counted[0]["per_class"]) != len(labels):
        return {}
    return {"labels": labels, "splits": counted, "drawn": len(labels) <= MAX_BALANCE_CLASSES}


def total(rows: list[Row], key: str) -> int | None:
    """Sum a column, unless one of its values is unknown."""
    values = [row.get(key) for row in rows]
    return None if None in values else sum(value for value in values if value is not None)
