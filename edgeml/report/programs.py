"""What is shown of programs for devices: figures that all may have in columns, the others and notes as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeml.report.formats import integer, percent

Row = dict[str, Any]
COLUMNS = ("flash_bytes", "ram_bytes", "ms", "cycles")


def rows(manifest: Mapping[str, Any]) -> list[Row]:
    """Return a row for every program that was made of a bundle's files."""
    found = []
    for one in manifest.get("deployments", []):
        figures = dict(one.get("figures", {}))
        columns = {key: figures.pop(key) for key in COLUMNS if key in figures}
        others = [f"{name.replace('_', ' ')} {_number(value)}" for name, value in figures.items()]
        agreement = _agreement(one.get("parity") or {}, one.get("most_steps"))
        found.append({**one, **columns, "agreement": agreement, "said": [*others, *one.get("notes", [])]})
    return found


def _agreement(parity: Row, steps: int | None) -> str:
    """Say how a program agrees with its file: in equal rows and steps, or as a share of the outputs' range."""
    if not parity:
        return "not run"
    if parity["gate"] == "tflm":
        off = "" if steps is None else f", at most {steps} steps off"
        return f"{percent(parity['error'])} of {integer(parity['samples'])} rows equal{off}"
    off = f"{parity['error']:.1e} of the range" if parity["error"] else "equal"
    return f"{off}, n={integer(parity['samples'])}"


def _number(value: float) -> str:
    return integer(value) if isinstance(value, int) else f"{value:.3g}"
