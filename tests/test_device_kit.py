"""A kit, timed on this machine as if it were far away, becomes a device; a sheet that is not in order is named."""

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from edgeml import calibration, calibration_draw, device_kit, recipe_file, scaling
from edgeml.devices import catalogue
from edgeml.errors import DataError, GateError, UsageError
from edgeml.operators import Operator
from edgeml.search.space import Space
from edgeml.verbs import devices

ROOT = Path(__file__).parents[1]
ONLY = ["activation=relu", "*_kernel=3", "stages=2"]
SPACE = Space(("ds_cnn",), (24, 24, 1), 10, scaling.rescale((0, 255)), ONLY)
RECIPE = """
schema_version: 1
name: far
data: {source: npz, path: %s}
search: {space: ds_cnn, only: [activation=relu, "*_kernel=3", stages=2]}
budget: {params: 20_000, latency: [{device: my-board, runtime: litert, precision: float32, max_ms: 5}]}
"""
ROUNDS, RUNS = 12, 20


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A kit as the verb makes it, for a recipe that names the device which it is to become; and what the verb says."""
    folder = tmp_path_factory.mktemp("kit")
    x = np.random.default_rng(0).integers(0, 256, (200, 24, 24, 1)).astype("uint8")
    np.savez(folder / "data.npz", x=x, y=np.arange(200) % 10)
    recipe = recipe_file.parse(RECIPE % (folder / "data.npz"), "far.yaml")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(calibration_draw, "DRAWS", 10)  # enough for a kit of 45, in a quarter of the time
        return devices.kit(recipe, "litert", "float32", 45, folder / "out" / "kit", lambda event: None)


@pytest.fixture(scope="module")
def kit(made):
    return Path(made[1]["folder"])


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
    assert len(files) >= 45
    assert all((kit / file).stat().st_size > 1000 for file in files)
    assert {row["ms"] for row in rows(kit)} == {""}
    assert "edgeml devices fit results.csv --name my-board" in (kit / "README.txt").read_text()
    about = json.loads((kit / "kit.json").read_text())
    assert set(about["networks"]) == set(files)
    assert about["key"] == {
        "space": ["ds_cnn"], "only": sorted(ONLY), "input_shape": [24, 24, 1], "classes": 10,
        "within": {"params": 20_000, "most_macs": 4**14},
    }  # fmt: skip


def test_the_verb_names_the_files_and_the_command_that_comes_after(made, kit):
    text, document = made
    assert document == {
        "folder": str(kit), "files": [row["file"] for row in rows(kit)], "sheet": str(kit / "results.csv"),
    }  # fmt: skip
    assert f"edgeml devices fit {kit / 'results.csv'} --name my-board" in text
    assert [path.name for path in kit.parent.iterdir()] == ["kit"]  # nothing staged is left


@pytest.mark.parametrize(
    ("runtime", "words"),
    [("litert", ("--num_threads=1", "min / 1000")), ("onnxruntime", ("-x 1 -y 1", "-o 99", "1000 times the least"))],
)
def test_the_note_turns_what_the_tool_prints_into_milliseconds(kit, runtime, words):
    note = device_kit._note(runtime)
    assert all(word in note for word in words)


def test_a_file_of_another_precision_has_another_name(tmp_path):
    """The networks are the same: a sheet that was timed with the other kit would fit perfectly."""
    network = SPACE.operators(SPACE.drawn(1, 0)[0])
    (file,) = device_kit.write([network], "litert", "int8", tmp_path, lambda event: None, key={})
    assert file.name == "network_000_int8.tflite"


def test_a_network_that_cannot_be_exported_is_left_out(tmp_path):
    network = SPACE.operators(SPACE.drawn(1, 0)[0])
    refused = (*network, Operator("up", "resize", (network[-1].name,), network[-1].output_shape))
    files = device_kit.write([refused, network], "litert", "float32", tmp_path, lambda event: None, key={})
    assert [file.name for file in files] == ["network_001.tflite"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "README.txt", "kit.json", "network_001.tflite", "results.csv",
    ]  # fmt: skip
    assert device_kit._kit(tmp_path / device_kit.KIT)["networks"] == {"network_001.tflite": network}


def test_a_kit_with_too_few_files_is_not_left_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(calibration_draw, "DRAWS", 10)
    monkeypatch.setattr(device_kit, "LEAST_ROWS", 99)
    np.savez(tmp_path / "data.npz", x=np.arange(200 * 64).reshape(200, 8, 8, 1) % 251, y=np.arange(200) % 10)
    recipe = recipe_file.parse(RECIPE % (tmp_path / "data.npz"), "far.yaml")
    with pytest.raises(
        GateError, match=r"(\d+) of \1 networks became files .* at least 99 are needed.*more --networks"
    ):
        devices.kit(recipe, "litert", "float32", 3, tmp_path / "kit", lambda event: None)
    assert [path.name for path in tmp_path.iterdir()] == ["data.npz"]


def test_what_was_timed_far_away_is_predicted_here(kit, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr(calibration, "WORST_P90", 0.5)  # other tests run beside this one
    files = [row["file"] for row in rows(kit)]
    sheet = filled(kit, dict(zip(files, timed(kit, files), strict=True)), tmp_path_of(tmp_path))
    made = device_kit.fitted(sheet, "far-away", "this machine, as if it were far away", "2.3.0")
    assert device_kit.keep(made) == (catalogue.own_folder() / "far-away.toml", False)
    assert device_kit.keep(made)[1]
    found = catalogue.get("far-away")
    assert found == made or found.coefficients == made.coefficients
    assert (found.judge, found.runtime, found.precision) == ("none", "litert", "float32")
    assert found.held_out["p50"] < 0.2
    assert found.held_out_predicted_ms == pytest.approx(found.held_out_measured_ms, rel=1.0)
    assert found.key["threads"] == 1
    assert found.key["input_shape"] == [24, 24, 1]
    assert found.networks == len(files) - 10
    operators = SPACE.operators(SPACE.drawn(1, 7)[0])
    assert found.predict(operators).safe_ms >= found.predict(operators).ms > 0


def planted(kit, **changes):
    """Latencies that are linear in features, so that a fit is all but exact; then ``changes``, by file's stem."""
    networks = device_kit._kit(kit / device_kit.KIT)["networks"]
    ms = {file: sum(0.1 * o.macs / 1e6 + 0.002 for o in operators) for file, operators in networks.items()}
    return {**ms, **{f"{stem}.tflite": value * ms[f"{stem}.tflite"] for stem, value in changes.items()}}


def test_the_verb_says_what_the_profile_is_and_what_it_replaced(kit, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    sheet = filled(kit, planted(kit), tmp_path)
    text, document = devices.fit(sheet, "my-board", "a board", "2.3.0")
    assert document["profile"] == str(tmp_path / "settings" / "edgeml" / "devices" / "my-board.toml")
    assert document["error"].keys() == {"p5", "p50", "p95"}
    assert document["held_out"]["networks"] == 10
    assert document["held_out"]["p90"] < 0.1
    assert not document["replaced"]
    assert "replaced" not in text
    assert "{device: my-board, runtime: litert, precision: float32" in text
    text, document = devices.fit(sheet, "my-board", "the same board", "2.3.0")
    assert document["replaced"]
    assert "replaced    the profile my-board that was there" in text
    assert catalogue.get("my-board").description == "the same board"


def test_the_order_of_the_sheet_changes_nothing(kit, tmp_path):
    """A sheet sorted by time would have its ten fastest networks judge the others."""
    ms = planted(kit)
    made = [
        device_kit.fitted(filled(kit, dict(order), tmp_path), "mine", "", "")
        for order in (ms.items(), sorted(ms.items(), key=lambda row: row[1]))
    ]
    assert made[0] == made[1]


@pytest.mark.parametrize("factor", [0.05, 20.0])
def test_a_fit_that_errs_too_much_names_the_figures_that_are_furthest_off(kit, tmp_path, factor):
    stems = ("network_003", "network_005", "network_020")
    sheet = filled(kit, planted(kit, **dict.fromkeys(stems, factor)), tmp_path)
    with pytest.raises(GateError, match=r"10 networks that it has not seen .* 10% are allowed.*measure again") as found:
        device_kit.fitted(sheet, "mine", "", "")
    named = [stem for stem in stems if f"{stem}.tflite (" in str(found.value)]
    assert len(named) >= 2


def test_networks_that_each_stand_alone_cannot_judge_each_other(kit):
    (one,) = [tuple(n) for n in list(device_kit._kit(kit / device_kit.KIT)["networks"].values())[:1]]
    with pytest.raises(GateError, match="none can judge"):
        calibration.fitted([one], np.ones(1), "here", runtime="litert", precision="float32")


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
        (lambda ms: ms.update({"network_000.tflite": "1_0"}), r":2: ms is '1_0'"),
        (
            lambda ms: ms.update({"network_000.tflite": '"0,5"'}),
            r":2: ms is '0,5'.*A decimal point is due, not a comma",
        ),
        (lambda ms: ms.update({"network_000_int8.tflite": "1"}), r"'network_000_int8\.tflite' is no network of this"),
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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"runtime": None}, "no kit .'runtime' is missing"),
        ({"key": None}, "no kit .'key' is missing"),
        ({"runtime": "liter"}, "no kit .of liter float32"),
        ({"networks": {}}, "no kit .no networks"),
        ({"networks": {"network_000.tflite": [{"name": "x"}]}}, "no kit .*missing"),
        ({"schema_version": 2}, "no kit .schema_version 2; 1 is known"),
    ],
)
def test_a_kit_that_was_changed_is_named(kit, tmp_path, change, message):
    sheet = filled(kit, {"network_000.tflite": 1}, tmp_path)
    about = {**json.loads((kit / device_kit.KIT).read_text()), **change}
    (tmp_path / device_kit.KIT).write_text(
        json.dumps({key: value for key, value in about.items() if value is not None})
    )
    with pytest.raises(DataError, match=rf"kit\.json: {message}.*Keep it beside the sheet"):
        device_kit.fitted(sheet, "mine", "", "")


@pytest.mark.parametrize("name", ["../mine", "", "a b", ".mine", "x" * 65])
def test_a_name_that_no_recipe_could_name_is_refused(kit, name):
    with pytest.raises(UsageError, match="up to 64 letters"):
        device_kit.fitted(kit / device_kit.SHEET, name, "", "")


def test_an_occupied_folder_and_words_that_are_not_known_are_refused_on_the_command_line(tmp_path):
    (tmp_path / "kit").mkdir()
    (tmp_path / "kit" / "mine.txt").write_text("")
    recipe = str(ROOT / "recipes" / "digits.yaml")
    for words, code, message in (
        (("kit", recipe, "--out", str(tmp_path / "kit")), 2, "holds something already"),
        (("kit", recipe, "--runtime", "vela"), 2, "--runtime: got 'vela'"),
        (("kit", recipe, "--networks", "20"), 2, "--networks"),
        (("fit", str(tmp_path / "results.csv"), "--name", "mine", "--quiet"), 4, "results.csv: no such file"),
        (("fit", str(tmp_path / "results.csv"), "--name", "../mine"), 2, "up to 64 letters"),
    ):
        process = subprocess.run(
            [Path(sys.executable).with_name("edgeml"), "devices", *words], capture_output=True, text=True, cwd=tmp_path,
            env={**os.environ, "XDG_CONFIG_HOME": str(tmp_path / "settings")},
        )  # fmt: skip
        assert process.returncode == code, process.stderr
        assert process.stderr.count("\n") == 1
        assert message in process.stderr
    assert [path.name for path in (tmp_path / "kit").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("name", ["host", "ethos-u55-128"])
def test_a_name_that_is_taken_is_refused(kit, name):
    with pytest.raises(UsageError, match=f"--name {name}: is a device already"):
        device_kit.fitted(kit / device_kit.SHEET, name, "", "")
