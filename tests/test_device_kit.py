"""A kit, timed on this machine as if it were far away, becomes a device; a sheet that is not in order is named."""

import csv
import json
import time

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from edgeml import calibration, device_kit, scaling
from edgeml.devices import catalogue
from edgeml.errors import DataError, UsageError
from edgeml.records import Budget
from edgeml.search.space import Space

SPACE = Space(("ds_cnn",), (24, 24, 1), 10, scaling.rescale((0, 255)), ["activation=relu", "*_kernel=3", "stages=2"])
ROUNDS, RUNS = 12, 20


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kit")
    networks = (SPACE.operators(values) for values in SPACE.drawn(400, 0))
    drawn = calibration.draw(networks, Budget(params=20_000), 44, "litert", "float32")
    device_kit.write(drawn, "litert", "float32", folder, lambda event: None)
    return folder


def rows(folder):
    with (folder / device_kit.SHEET).open(newline="") as sheet:
        return list(csv.DictReader(sheet))


def filled(folder, ms, place=None):
    """Write a sheet beside a copy of kit.json; ``ms`` by file."""
    place = place or folder
    if place != folder:
        (place / device_kit.KIT).write_bytes((folder / device_kit.KIT).read_bytes())
    sheet = place / device_kit.SHEET
    sheet.write_text("\n".join(["file,ms", *(f"{file},{value}" for file, value in ms.items())]) + "\n")
    return sheet


def timed(folder, files):
    """Time as a device's own tool would: one interpreter each, the least of many runs, in rounds."""
    calls = []
    for file in files:
        interpreter = Interpreter(str(folder / file), num_threads=1)
        interpreter.allocate_tensors()
        calls.append(interpreter.invoke)
    found = np.full((len(files), ROUNDS), np.inf)
    for round_ in range(ROUNDS):
        for number, invoke in enumerate(calls):
            for _ in range(RUNS):
                start = time.perf_counter()
                invoke()
                found[number, round_] = min(found[number, round_], 1e3 * (time.perf_counter() - start))
    return found.min(axis=1)


def test_a_kit_holds_networks_a_sheet_to_fill_and_what_to_do(kit):
    files = [row["file"] for row in rows(kit)]
    assert len(files) >= 44
    assert all((kit / file).stat().st_size > 1000 for file in files)
    assert {row["ms"] for row in rows(kit)} == {""}
    assert "edgeml devices fit results.csv --name my-board" in (kit / "README.txt").read_text()
    assert set(json.loads((kit / "kit.json").read_text())["networks"]) == set(files)


def test_what_was_timed_far_away_is_predicted_here(kit, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr(calibration, "WORST_P90", 0.5)  # other tests run beside this one
    files = [row["file"] for row in rows(kit)]
    sheet = filled(kit, dict(zip(files, timed(kit, files), strict=True)), tmp_path_of(tmp_path))
    made = device_kit.fitted(sheet, "far-away", "this machine, as if it were far away", "2.3.0")
    device_kit.keep(made)
    found = catalogue.get("far-away")
    assert found == made or found.coefficients == made.coefficients
    assert (found.judge, found.runtime, found.precision) == ("none", "litert", "float32")
    assert found.held_out["p50"] < 0.2
    assert found.networks == len(files) - 10
    operators = SPACE.operators(SPACE.drawn(1, 7)[0])
    assert found.predict(operators).safe_ms >= found.predict(operators).ms > 0


def tmp_path_of(path):
    place = path / "sheet"
    place.mkdir()
    return place


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ms: ms.update({"network_003.tflite": "abc"}), r"results\.csv:5: ms is 'abc'; a number above 0"),
        (lambda ms: ms.update({"network_000.tflite": "-1"}), r":2: ms is '-1'"),
        (lambda ms: ms.update({"network_000.tflite": "0"}), r":2: ms is '0'"),
        (lambda ms: ms.update({"network_000.tflite": "nan"}), r":2: ms is 'nan'"),
        (
            lambda ms: ms.update({"network_001.tflite": "0,25"}),
            r":3: .*not a comma. Write 0\.25",
        ),
        (lambda ms: ms.update({"mine.tflite": "1"}), r"'mine\.tflite' is no network of this kit"),
        (lambda ms: ms.update(dict.fromkeys(list(ms)[:20], "")), r"lines are filled; 40 or more are needed"),
    ],
)
def test_a_sheet_that_is_not_in_order_is_named(kit, tmp_path, change, message):
    ms = dict.fromkeys((row["file"] for row in rows(kit)), "1.0")
    change(ms)
    with pytest.raises(DataError, match=message):
        device_kit.fitted(filled(kit, ms, tmp_path), "mine", "", "")


def test_a_line_given_twice_a_column_that_is_missing_and_a_kit_that_is_gone(kit, tmp_path):
    sheet = filled(kit, {"network_000.tflite": 1}, tmp_path)
    sheet.write_text(sheet.read_text() + "network_000.tflite,2\n")
    with pytest.raises(DataError, match=r":3: network_000\.tflite stands in the sheet twice"):
        device_kit.fitted(sheet, "mine", "", "")
    sheet.write_text("file;ms\n")
    with pytest.raises(DataError, match=r":1: got 'file;ms'; the columns are file,ms"):
        device_kit.fitted(sheet, "mine", "", "")
    (tmp_path / device_kit.KIT).unlink()
    with pytest.raises(DataError, match=r"kit\.json: no kit"):
        device_kit.fitted(sheet, "mine", "", "")


@pytest.mark.parametrize("name", ["host", "ethos-u55-128"])
def test_a_name_that_is_taken_is_refused(kit, name):
    with pytest.raises(UsageError, match=f"--name {name}: is a device already"):
        device_kit.fitted(kit / device_kit.SHEET, name, "", "")
