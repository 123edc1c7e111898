"""A device of one's own: networks to time there, and the profile that the filled result sheet becomes.

    recipe ─► kit (a folder: networks, results.csv, kit.json) ─► timed on the device ─► results.csv filled ─► NAME.toml

The networks are random ones of the recipe's space, with random weights. What is timed is one inference; ``results.csv``
has a line ``file,ms`` for each. Nobody can time a finalist there from here, so a search holds its limit against the
prediction, with the profile's own error on top.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml import calibration
from edgeml.calibration import Network
from edgeml.devices import catalogue, profile
from edgeml.devices.profile import Profile
from edgeml.errors import DataError, UsageError
from edgeml.operators import Operator
from edgeml.records import Event, to_json

SHEET, KIT, NOTE = "results.csv", "kit.json", "README.txt"
COLUMNS = ("file", "ms")
SCHEMA_VERSION = 1
LEAST_ROWS = calibration.LEAST_NETWORKS + calibration.HELD_OUT
OnEvent = Callable[[Event], None]
COMMANDS = {
    "litert": "benchmark_model --graph=FILE --num_threads=1 --use_xnnpack=true   (the line 'Inference (avg)', or less)",
    "onnxruntime": "onnxruntime_perf_test -I -x 1 -y 1 -r 1000 FILE   (the least of 'Min Latency' over a few calls)",
}


def write(networks: Sequence[Network], runtime: str, precision: str, folder: Path, on_event: OnEvent) -> list[Path]:
    """Export ``networks`` with random weights into ``folder``, with an empty result sheet; return their files."""
    files: list[Path] = []
    for number, operators in enumerate(networks):
        if number % calibration.TELLING == 0:
            on_event(Event("kit", f"{runtime} {precision}: network {number + 1} of {len(networks)}"))
        inner = folder / "exported"
        made = calibration.exported(operators, inner, runtime, precision)
        files.append(made.replace(folder / f"network_{number:03d}{made.suffix}"))
        inner.rmdir()
    with (folder / SHEET).open("w", newline="", encoding="utf-8") as sheet:
        csv.writer(sheet).writerows([COLUMNS, *((file.name, "") for file in files)])
    about = {
        "schema_version": SCHEMA_VERSION, "runtime": runtime, "precision": precision,
        "networks": {file.name: to_json(operators) for file, operators in zip(files, networks, strict=True)},
    }  # fmt: skip
    (folder / KIT).write_text(json.dumps(about), "utf-8")
    (folder / NOTE).write_text(_note(runtime), "utf-8")
    return files


def _note(runtime: str) -> str:
    return (
        f"Time one inference of each network on your device, one thread, nothing else running, for instance with\n\n"
        f"    {COMMANDS[runtime]}\n\n"
        f"and write the milliseconds of the undisturbed case into the column 'ms' of {SHEET} (0.0123, not 0,0123).\n"
        f"At least {LEAST_ROWS} lines must be filled. Then, beside {KIT}:\n\n"
        f"    edgeml devices fit {SHEET} --name my-board\n"
    )


def fitted(sheet: Path, name: str, description: str, runtime_version: str) -> Profile:
    """Return the profile of the device that a filled sheet was made on.

    Raises:
        DataError: a sheet or kit that cannot be used, with file and line.
        GateError: the profile errs by more than a tenth on one in ten networks that it has not seen.
        UsageError: a name that is taken.
    """
    if name == catalogue.HOST or (Path(catalogue.__file__).parent / f"{name}.toml").exists():
        raise UsageError(f"--name {name}: is a device already; another name is required. Take e.g. my-{name}.")
    kit = _kit(sheet.parent / KIT)
    networks, ms = _measured(sheet, kit["networks"])
    about = {
        "name": name, "description": description, "runtime": kit["runtime"], "runtime_version": runtime_version,
        "precision": kit["precision"], "source": f"{len(ms)} networks of a kit, timed on the device", "key": {},
    }  # fmt: skip
    return replace(calibration.fitted(networks, ms, f"devices fit {sheet}", **about), judge="none")


def keep(made: Profile) -> Path:
    """Put a profile among the user's own; return its file."""
    path = catalogue.own_folder() / f"{made.name}.toml"
    profile.write(made, path)
    return path


def _kit(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
        found["networks"] = {file: tuple(map(_operator, rows)) for file, rows in found["networks"].items()}
        if found["schema_version"] != SCHEMA_VERSION:
            raise ValueError(f"schema_version {found['schema_version']}; {SCHEMA_VERSION} is known")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        todo = "Keep it beside the sheet, as `edgeml devices kit` wrote it."
        raise DataError(f"{path}: no kit ({error}). {todo}") from error
    return found


def _operator(keys: dict[str, Any]) -> Operator:
    known: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in keys.items()}
    return Operator(**known)


def _measured(sheet: Path, known: dict[str, Network]) -> tuple[list[Network], NDArray[np.float64]]:
    """Return the networks that the sheet has a figure for, and the figures in ms."""
    try:
        with sheet.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        todo = "Give the CSV file that `edgeml devices kit` wrote."
        raise DataError(f"{sheet}: cannot be read ({error}). {todo}") from error
    if not rows or tuple(cell.strip() for cell in rows[0]) != COLUMNS:
        got = ",".join(rows[0]) if rows else "nothing"
        raise DataError(f"{sheet}:1: got '{got}'; the columns are {','.join(COLUMNS)}. Keep the first line as it was.")
    found: dict[str, float] = {}
    for line, row in enumerate(rows[1:], 2):
        if row and (cells := _cells(row, f"{sheet}:{line}", known, found)):
            found[cells[0]] = cells[1]
    if len(found) < LEAST_ROWS:
        raise DataError(f"{sheet}: {len(found)} lines are filled; {LEAST_ROWS} or more are needed. Time more networks.")
    return [known[file] for file in found], np.array(list(found.values()))


def _cells(row: list[str], where: str, known: dict[str, Network], seen: dict[str, float]) -> tuple[str, float] | None:
    """Return file and ms of a line, None where ms is left empty."""
    if len(row) == len(COLUMNS) + 1 and row[1].strip().isdigit() and row[2].strip().isdigit():
        number = f"{row[1].strip()}.{row[2].strip()}"
        raise DataError(f"{where}: got '{','.join(row)}'; a decimal point is due, not a comma. Write {number}.")
    if len(row) != len(COLUMNS):
        raise DataError(f"{where}: {len(row)} cells; {len(COLUMNS)} are due ({','.join(COLUMNS)}). Mend the line.")
    file, text = (cell.strip() for cell in row)
    if file not in known:
        raise DataError(f"{where}: '{file}' is no network of this kit; {next(iter(known))} is, for one. Mend the name.")
    if file in seen:
        raise DataError(f"{where}: {file} stands in the sheet twice; once is allowed. Remove a line.")
    if not text:
        return None
    try:
        ms = float(text)
    except ValueError:
        ms = math.nan
    if not (math.isfinite(ms) and ms > 0):
        hint = " A decimal point is due, not a comma." if "," in text else ""
        raise DataError(f"{where}: ms is '{text}'; a number above 0 is due, in milliseconds.{hint} Time {file} again.")
    return file, ms
