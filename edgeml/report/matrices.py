"""Tables of shaded cells: which class is taken for which, who errs with whom, what was compared where."""

from __future__ import annotations

import math

from edgeml.report.formats import figure
from edgeml.report.limits import Row

MAX_MATRIX_CLASSES, MAX_CONFUSIONS = 30, 12


def parity(rows: list[Row]) -> list[Row]:
    """Return one block per file: a line per configuration, a cell per kind of input: the worst figure, and the verdict.

    ``share``: how much of the limit is used up; what is judged by decibels has to be above its limit.
    """
    inputs = list(dict.fromkeys(_inputs(row) for row in rows))
    found = []
    for file in dict.fromkeys(row.get("file") for row in rows):
        own = [row for row in rows if row.get("file") == file]
        lines = dict.fromkeys(_line(row) for row in own)
        found.append(
            {
                "file": file,
                "passed": all(row.get("passed", True) for row in own),
                "judged": list(dict.fromkeys(_judged(row) for row in own if is_judged(row))),
                "inputs": inputs,
                "lines": [{"label": line, "cells": [
                    _cell([row for row in own if (_line(row), _inputs(row)) == (line, one)]) for one in inputs
                ]} for line in lines],
            }
        )  # fmt: skip
    return found


def is_judged(row: Row) -> bool:
    """Tell whether a comparison has a limit; others state figures only."""
    return row.get("gate") != "none" and row.get("limit") is not None


def _inputs(row: Row) -> str:
    """Return on what was compared, without how many: ``test (359)`` → ``test``."""
    return str(row.get("inputs", "")).partition(" (")[0]


def _line(row: Row) -> str:
    return str(row.get("configuration") or row.get("what") or row.get("reference", ""))


def _is_least(row: Row) -> bool:
    """Tell whether a figure has to lie above its limit; what is measured says so."""
    return str(row.get("measure", "")).endswith("at least") or "SQNR" in str(row.get("gate", ""))


def _judged(row: Row) -> str:
    name = str(row.get("measure", row.get("gate", ""))).removesuffix(", at least")
    return f"{name}, at {'least' if _is_least(row) else 'most'} {figure(row['limit'])}"


def _cell(rows: list[Row]) -> Row:
    """Return the worst of the comparisons of one cell; nothing where there was none."""
    row = worst(rows)
    if not row:
        return {}
    return {
        "text": figure(row.get("error", row.get("max_abs"))),
        "passed": row.get("passed"),
        "share": min(1.0, _used(row)),
        "samples": row.get("samples"),
    }


def worst(rows: list[Row]) -> Row:
    """Return a failed comparison before all, else the one nearest to its limit; an empty one if there is none."""
    return max(rows, key=lambda row: (not row.get("passed", True), _used(row)), default={})


def _used(row: Row) -> float:
    """Return the share of the limit that a comparison uses up, 0 where either figure is not known."""
    error, limit = row.get("error"), row.get("limit")
    above, below = (limit, error) if _is_least(row) else (error, limit)
    return float(above / below) if is_judged(row) and above is not None and below else 0.0


def gates(limits: Row, judged: list[str]) -> Row:
    """Return the gates as a table, a line for each of what was ``judged``, precisions of files above all.

    ``int8_min_cosine`` is one of int8.
    """
    lines: dict[str, Row] = {}
    for key, limit in limits.items():
        name, _, gate = key.partition("_")
        if name in judged:
            lines.setdefault(name, {})[gate] = limit
    columns = list(dict.fromkeys(gate for line in lines.values() for gate in line))
    return {
        "columns": [column.replace("_", " ") for column in columns],
        "rows": [{"name": name, "cells": [line.get(one) for one in columns]} for name, line in lines.items()],
    }


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
