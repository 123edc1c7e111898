"""Figures of another machine, as a bundle's ``benchmark.py --json`` wrote them there, read back into the bundle.

benchmark.py on the target ─► FILE.json ─► rows of the manifest's ``latency`` that name the device
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeml import bundle
from edgeml.devices.catalogue import HOST
from edgeml.errors import DataError, UsageError

Json = dict[str, Any]
FIGURES = (
    "quiet_ms", "p50_ms", "p90_ms", "p99_ms", "interval_95", "noise_floor", "load_ms", "first_run_ms",
    "threads", "runtime",
)  # fmt: skip

NUMBERS = ("quiet_ms", "p50_ms", "p90_ms", "p99_ms", "noise_floor", "load_ms", "first_run_ms", "threads")


def read(path: Path, manifest: Mapping[str, Any], device: str | None = None) -> tuple[str, list[Json], Json]:
    """Return the device's name, its rows of latency, and its machine record.

    Args:
        path: what ``benchmark.py --json`` or ``edgeml benchmark --json`` wrote.
        manifest: of the bundle that was timed.
        device: a name for the machine; its processor's if None.

    Raises:
        DataError: no such document, one without figures of this bundle, or of files that were others.
        UsageError: the device is called as this machine is.
    """
    document = _document(path)
    name = device or str(document["machine"].get("cpu") or "unknown processor")
    if name == HOST:
        raise UsageError(f"--device {name}: is the machine that made the bundle. Give the other one a name of its own.")
    here = {entry["path"]: entry["sha256"] for entry in bundle.models(manifest)}
    rows = []
    for row in document["results"]:
        file = Path(str(row.get("file"))).name
        lacking = [key for key in FIGURES if key not in row]
        if file not in here or lacking:
            what = "is no file of this bundle" if file not in here else f"has no {', '.join(lacking)}"
            raise DataError(f"{path}: '{file}' {what}; rows of benchmark.py --json are due. Time this bundle with it.")
        if row.get("sha256") not in (None, here[file]):
            raise DataError(f"{path}: '{file}' was another file there (its SHA-256 differs). Time this bundle again.")
        _check_numbers(f"{path}: '{file}'", row)
        rows.append({**row, "file": file, "device": name, "predicted_ms": None})
    return name, rows, document["machine"]


def _check_numbers(where: str, row: Json) -> None:
    for key in NUMBERS:
        if not _is_positive(row[key]) and not (key == "noise_floor" and row[key] == 0):
            raise DataError(f"{where}: {key} is {row[key]!r}; a number above 0 is due. Time this bundle again.")
    ends = row["interval_95"]
    if not (isinstance(ends, list) and len(ends) == 2 and all(map(_is_positive, ends)) and ends[0] <= ends[1]):
        raise DataError(f"{where}: interval_95 is {ends!r}; two numbers in order are due. Time this bundle again.")


def _is_positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < math.inf


def added(manifest: Json, name: str, rows: list[Json], machine: Json) -> None:
    """Put a device's rows into a manifest, in the place of those that it had."""
    manifest["latency"] = [row for row in manifest["latency"] if row["device"] != name] + rows
    manifest["machines"] = {**manifest.get("machines", {}), name: machine}


def _document(path: Path) -> Json:
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file. Write it with `python benchmark.py --json FILE`.") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not JSON ({error}). Write it with `python benchmark.py --json FILE`.") from error
    is_one = (
        isinstance(found, dict) and isinstance(found.get("machine"), dict) and isinstance(found.get("results"), list)
    )
    if not is_one or not found["results"] or not all(isinstance(row, dict) for row in found["results"]):
        raise DataError(f"{path}: holds no figures; results and machine are due, as `benchmark.py --json` writes them.")
    document: Json = found
    return document
