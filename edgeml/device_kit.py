"""A device of one's own: networks to time there, and the profile that the filled result sheet becomes.

    recipe ─► kit (a folder: networks, results.csv, kit.json) ─► timed on the device ─► results.csv filled ─► NAME.toml

The networks are random ones of the recipe's space, with random weights. What is timed is one inference; ``results.csv``
has a line ``file,ms`` for each. Nobody can time a finalist there from here, so a search holds its limit against the
prediction, with the profile's own error on top. A file's name holds its precision: kits of one recipe hold the same
networks, and a sheet of one beside ``kit.json`` of the other would fit.
"""

from __future__ import annotations

import csv
import json
import math
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeml import calibration, calibration_draw
from edgeml.calibration_draw import Network
from edgeml.devices import catalogue, profile
from edgeml.devices.profile import Profile
from edgeml.errors import DataError, TargetError, UsageError
from edgeml.operators import Operator
from edgeml.recipe_rules import BUDGET_RULES
from edgeml.records import Event, Limit, to_json

SHEET, KIT, NOTE = "results.csv", "kit.json", "README.txt"
COLUMNS = ("file", "ms")
PRECISIONS = ("float32", "int8")
TODO = "Keep it beside the sheet, as `edgeml devices kit` wrote it."
SCHEMA_VERSION = 1
LEAST_ROWS = calibration.LEAST_NETWORKS + calibration_draw.HELD_OUT
OnEvent = Callable[[Event], None]
NAME = str(BUDGET_RULES[Limit]["device"]["pattern"])  # what a recipe may call a device
# TensorFlow's benchmark_model.cc counts in whole microseconds. onnxruntime's perftest writes seconds; left alone, older
# ones optimise at level 1 only, without the blocked layout that ``features`` counts on.
COMMANDS = {
    "litert": (
        "benchmark_model --graph=FILE --num_threads=1 --use_xnnpack=true",
        "The last line with 'min=' is in microseconds: write min / 1000. Below 20 microseconds write avg / 1000 of a\n"
        "quiet call: whole microseconds are too coarse there.",
    ),
    "onnxruntime": (
        "onnxruntime_perf_test -e cpu -I -o 99 -x 1 -y 1 -m times -r 1000 FILE",
        "'Min Latency' is in seconds: write 1000 times the least over a few calls.",
    ),
}


def write(
    networks: Sequence[Network],
    runtime: str,
    precision: str,
    folder: Path,
    on_event: OnEvent,
    *,
    key: Mapping[str, Any],
) -> list[Path]:
    """Export ``networks`` with random weights into ``folder``, with an empty result sheet; return their files.

    A network that the target or the runtime refuses is left out, as in a calibration.
    ``key``: what they were drawn from, which the profile will name.
    """
    made: dict[str, Network] = {}
    suffix = "" if precision == "float32" else f"_{precision}"  # as in a bundle
    for number, operators in enumerate(networks):
        if number % calibration.TELLING == 0:
            on_event(Event("kit", f"{runtime} {precision}: network {number + 1} of {len(networks)}"))
        with tempfile.TemporaryDirectory(dir=folder) as place:
            try:
                path = calibration.exported(operators, Path(place) / "exported", runtime, precision)
            except (DataError, TargetError):
                continue
            file = path.replace(folder / f"network_{number:03d}{suffix}{path.suffix}")
        made[file.name] = operators
    with (folder / SHEET).open("w", newline="", encoding="utf-8") as sheet:
        csv.writer(sheet).writerows([COLUMNS, *((file, "") for file in made)])
    about = {
        "schema_version": SCHEMA_VERSION, "runtime": runtime, "precision": precision, "key": to_json(key),
        "networks": {file: [operator._asdict() for operator in operators] for file, operators in made.items()},
    }  # fmt: skip
    (folder / KIT).write_text(json.dumps(about), "utf-8")
    (folder / NOTE).write_text(_note(runtime), "utf-8")
    return [folder / file for file in made]


def _note(runtime: str) -> str:
    command, unit = COMMANDS[runtime]
    return (
        f"Time one inference of each network on your device, one thread, nothing else running, for instance with\n\n"
        f"    {command}\n\n"
        f"and write the milliseconds of the undisturbed case into the column 'ms' of {SHEET} (0.0123, not 0,0123).\n"
        f"{unit}\n\n"
        f"At least {LEAST_ROWS} lines must be filled; what does not run there stays empty. Then, beside {KIT}:\n\n"
        f"    edgeml devices fit {SHEET} --name my-board\n"
    )


def fitted(sheet: Path, name: str, description: str, runtime_version: str) -> Profile:
    """Return the profile of the device that a filled sheet was made on.

    Raises:
        DataError: a sheet or kit that cannot be used, with file and line.
        GateError: the profile errs by more than a tenth on one in ten networks that it has not seen.
        UsageError: a name that is taken, or that no recipe could name.
    """
    if not re.fullmatch(NAME, name):
        raise UsageError(
            f"--name '{name}': up to 64 letters, digits, '_', '.' and '-' are allowed. Take e.g. my-board."
        )
    if name == catalogue.HOST or (Path(catalogue.__file__).parent / f"{name}.toml").exists():
        raise UsageError(f"--name {name}: is a device already; another name is required. Take e.g. my-{name}.")
    if not sheet.is_file():
        raise DataError(f"{sheet}: no such file. Give the CSV file that `edgeml devices kit` wrote, filled.")
    kit = _kit(sheet.parent / KIT)
    measured = _measured(sheet, kit["networks"])
    networks, ms = [kit["networks"][file] for file in measured], np.array(list(measured.values()))
    about = {
        "name": name, "description": description, "runtime": kit["runtime"], "runtime_version": runtime_version,
        "precision": kit["precision"],
        "source": f"{len(ms)} of {len(kit['networks'])} networks of a kit, timed on the device",
        "key": {"threads": 1, **kit["key"]},
    }  # fmt: skip
    made = calibration.fitted(networks, ms, f"devices fit {sheet}", labels=list(measured), **about)
    return replace(made, judge="none")


def keep(made: Profile) -> tuple[Path, bool]:
    """Put a profile among the user's own; return its file, and whether another one was there."""
    path = catalogue.own_folder() / f"{made.name}.toml"
    was_there = path.exists()
    profile.write(made, path)
    return path, was_there


def _kit(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
        found["networks"] = {file: tuple(map(_operator, rows)) for file, rows in found["networks"].items()}
        if found["schema_version"] != SCHEMA_VERSION:
            raise ValueError(f"schema_version {found['schema_version']}; {SCHEMA_VERSION} is known")
        if found["runtime"] not in COMMANDS or found["precision"] not in PRECISIONS:
            raise ValueError(f"of {found['runtime']} {found['precision']}")
        if not found["networks"] or not isinstance(found["key"], dict):
            raise ValueError("no networks, or no key")
    except KeyError as error:
        raise DataError(f"{path}: no kit ({error} is missing). {TODO}") from error
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: no kit ({error}). {TODO}") from error
    return found


def _operator(keys: dict[str, Any]) -> Operator:
    known: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in keys.items()}
    return Operator(**known)


def _measured(sheet: Path, known: dict[str, Network]) -> dict[str, float]:
    """Return the sheet's figures in ms, in the kit's random order: the first ten judge, however the sheet is sorted."""
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
    if len(set(found.values())) == 1:
        raise DataError(
            f"{sheet}: all {len(found)} figures are {next(iter(found.values())):g}; networks differ. Time them."
        )
    return {file: found[file] for file in known if file in found}


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
        ms = math.nan if "_" in text else float(text)  # Python reads 1_0 as 10
    except ValueError:
        ms = math.nan
    if not (math.isfinite(ms) and ms > 0):
        hint = " A decimal point is due, not a comma." if "," in text else ""
        raise DataError(f"{where}: ms is '{text}'; a number above 0 is due, in milliseconds.{hint} Time {file} again.")
    return file, ms
