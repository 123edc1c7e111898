"""The whole chain in under a minute: the real command on real digits, then the bundle alone in an empty folder."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from edgeml import handover
from edgeml.verbs.inspection import inspect

ROOT = Path(__file__).parents[1]
EDGEML = Path(sys.executable).with_name("edgeml")
# Few trials and epochs: networks that have barely learned. Their int8 files may lose more than a point of accuracy, and
# fitted weights might leave nothing to the second one.
SMALL = {
    "search.max_trials": 2, "search.epochs": 1, "train.epochs": 1, "train.finalists": 2, "ensemble.max_members": 2,
    "verify.int8_max_accuracy_drop": 0.3, "export.calibration_samples": 64, "budget.weight_bytes": 20_000,
    "budget.file_bytes": 90_000, "budget.arena_bytes": 30_000, "ensemble.distill": "true",
    "ensemble.weights": "uniform",
}  # fmt: skip
FILES = {
    "model.keras", "model.tflite", "model_int8.tflite", "model.onnx", "model_int8.onnx", "labels.txt", "golden.npz",
    "recipe.yaml", "manifest.json", "SHA256SUMS", "report.html", "report.json", "README.md", "verify.py",
    "benchmark.py",
}  # fmt: skip
FOREIGN = re.compile(
    r"[WEI]\d{4} |WARNING|Warning|TensorFlow|tensorflow|onnxruntime:|absl|cuda|oneDNN|XNNPACK|delegate|Traceback", re.I
)


def of_others(text):
    """Leave out our own warnings, of rows that TensorFlow Lite Micro rounds otherwise."""
    return "\n".join(line for line in text.splitlines() if not line.startswith("verify    warning: "))


def command(folder, *words):
    sets = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("TF_", "EDGEML_"))}
    return subprocess.run(
        [EDGEML, "run", ROOT / "recipes" / "digits.yaml", *sets, *words], cwd=folder, capture_output=True, text=True,
        timeout=300, env=environment,
    )  # fmt: skip


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    return folder, command(folder, "--json")


def test_it_ends_well_and_says_nothing_of_others(ran):
    _, process = ran
    assert process.returncode == 0, process.stderr
    assert not FOREIGN.search(of_others(process.stderr)), process.stderr
    document = json.loads(process.stdout)
    assert document.keys() >= {"bundle", "manifest", "seconds"}
    assert sum("params" in line and "val" in line for line in process.stderr.splitlines()) == 2


def test_the_reference_bundle_says_what_bundles_say_today(ran):
    made, kept = (
        json.loads((place / "manifest.json").read_text("utf-8"))
        for place in (ran[0] / "exported" / "digits", ROOT / "exported" / "digits_targets")
    )
    assert made["schema_version"] == kept["schema_version"]
    assert made.keys() == kept.keys(), "make it again: tools/reference_bundle"
    for rows in ("parity", "metrics", "latency", "members"):
        assert {key for row in made[rows] for key in row} == {key for row in kept[rows] for key in row}, rows


def test_the_bundle_holds_what_it_should(ran):
    place = ran[0] / "exported" / "digits"
    found = {path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()}
    assert found == FILES | {name for program in handover.PROGRAMS for name in program.files}
    assert sorted(path.name for path in ran[0].iterdir()) == ["exported", "runs"]
    assert [path.name for path in place.parent.iterdir()] == ["digits"]
    manifest = json.loads((place / "manifest.json").read_text())
    assert manifest == json.loads(ran[1].stdout)["manifest"]
    cost, budget = manifest["cost"], manifest["budget"]["asked"]
    models = [file for file in manifest["files"] if file["role"] == "model"]
    assert {(f["target"], f["precision"]): f["bytes"] for f in models} == {
        (target, precision): size for target, sizes in cost["file_bytes"].items() for precision, size in sizes.items()
    }
    assert max(f["bytes"] for f in models) <= budget["file_bytes"]
    assert cost["arena_bytes"]["int8"] <= budget["arena_bytes"]
    assert cost["weight_bytes"]["int8"] <= budget["weight_bytes"]
    assert json.loads((place / "report.json").read_text())["manifest"]["name"] == "digits"
    assert manifest["cost"]["params"] <= 10_000
    assert len(manifest["members"]) == 2
    assert sum(member["weight"] for member in manifest["members"]) == pytest.approx(1)
    assert manifest["task"]["labels"] == [str(digit) for digit in range(10)]
    assert {row["file"] for row in manifest["metrics"]} == {f for f in FILES if re.match(r"model.*\.(onnx|tflite)", f)}
    assert all(row["samples"] == 359 and row["split"] == "test" for row in manifest["metrics"])
    assert all(row["passed"] for row in manifest["parity"])
    assert all(0 <= row["calibration_error"] <= 1 for row in [*manifest["metrics"], manifest["selection"]["test"]])
    page = (place / "report.html").read_text()
    sections = re.findall(r'<section id="(\w+)">', page)
    assert sections == [
        "files", "asked", "accuracy", "baselines", "search", "parity", "latency", "ensemble", "folding", "layers",
        "precisions", "mistakes", "data", "failures", "gates", "environment", "command",
    ]  # fmt: skip
    assert page.count("<svg") >= 8, "accuracy over MACs, params and bytes, history, intervals, balance"
    assert "edgeml run" in page


def test_the_bundle_and_its_files_say_what_they_are(ran):
    place = ran[0] / "exported" / "digits"
    text, document = inspect(place)
    assert text.startswith("digits: tells 10 classes apart: 0, 1, 2, 3, 4, 5, 6, 7, …\n")
    assert text.count(", n=359") == 4
    assert len(document["recipe_sha256"]) == 64
    assert f", recipe {document['recipe_sha256'][:12]}, data " in text
    with zipfile.ZipFile(place / "model_int8.tflite") as archive:
        assert archive.read("labels.txt") == (place / "labels.txt").read_bytes()
    assert document["recipe_sha256"].encode() in (place / "model.onnx").read_bytes()


def test_the_report_tells_what_else_could_have_been_shipped(ran):
    place = ran[0] / "exported" / "digits"
    told = json.loads((place / "report.json").read_text())["ensemble"]
    first, *others = told["proof"]["rows"]
    assert first["name"].startswith("the ensemble")
    assert first["ships"]
    assert {tuple(row["ids"]) for row in [first]} == {tuple(member["id"] for member in told["members"])}
    names = ", ".join(row["name"] for row in [first, *others])
    for due in (
        "best single",
        " params",
        " MACs",
        "2 seeds",
        "uniform weights",
        "greedy weights",
        "distilled",
    ):
        assert due in names
    assert all(0 <= row["mcnemar_p"] <= 1 for row in others)
    assert all(row["test_interval_95"][0] <= row["test_accuracy"] <= row["test_interval_95"][1] for row in others)
    for row in [first, *others]:
        assert min(row["bytes"], row["quiet_ms"], row["params"], row["test_log_loss"], row["calibration_error"]) > 0
    student = next(row for row in others if "distilled" in row["name"])
    assert [name[5:] for name in student["ids"]] == ["-d1"]
    assert student["blend_log_loss"] is None
    assert (ran[0] / "runs" / "digits" / "finalists" / student["ids"][0] / "model.keras").is_file()
    chosen = json.loads((ran[0] / "runs" / "digits" / "ensemble.json").read_text())
    assert chosen["members"] == first["ids"]
    assert chosen["weights"] == first["weights"]
    manifest = json.loads((place / "manifest.json").read_text())
    assert first["params"] == manifest["cost"]["params"]
    tflite = next(row for row in manifest["metrics"] if row["file"] == told["proof"]["file"])
    assert abs(first["test_accuracy"] - tflite["accuracy"]) < 0.003
    assert "Does it pay?" in (place / "report.html").read_text()


def test_the_bundle_passes_alone_in_an_empty_folder(ran, tmp_path):
    alone = shutil.copytree(ran[0] / "exported" / "digits", tmp_path / "somewhere" / "else")
    process = subprocess.run([sys.executable, "-I", "verify.py"], cwd=alone, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout + process.stderr
    assert process.stdout.splitlines()[-1] == "PASSED"
    assert sum(line.startswith("ok") for line in process.stdout.splitlines()) == 4


@pytest.mark.slow
def test_the_same_command_again_moves_the_finished_run_aside(ran):
    folder, _ = ran
    place = folder / "exported" / "digits"
    models = [f"model{precision}.{target}" for precision in ("", "_int8") for target in ("tflite", "onnx")]
    before = {name: (place / name).read_bytes() for name in models}
    process = command(folder)
    assert process.returncode == 0, process.stderr
    assert not FOREIGN.search(of_others(process.stdout + process.stderr)), process.stderr
    runs = sorted(path.name for path in (folder / "runs").iterdir())
    assert len(runs) == 2
    assert "digits" in runs
    assert [path.name for path in (folder / "exported").iterdir()] == ["digits"]
    after = {name: (place / name).read_bytes() for name in models}
    assert [name for name in models if after[name] != before[name]] == [], "the same seed, the same bytes"
    assert re.search(r"model_int8\.onnx .* ms onnxruntime", process.stdout)
    assert "report.html" in process.stdout
