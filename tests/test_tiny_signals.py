"""The whole chain on what is not an image: windows out of CSV files, a table of vectors; then the bundle alone."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

EDGEML = Path(sys.executable).with_name("edgeml")
SMALL = """
search: {space: SPACE, max_trials: 2, epochs: 1, tensorboard: true}
train: {epochs: 3, finalists: 2}
ensemble: {max_members: 2, keep: always}
export: {calibration_samples: 64}
verify: {int8_max_accuracy_drop: 0.5, int8_min_sqnr_db: 3, int8_min_cosine: 0.6}
budget: {params: 4_000}
"""  # networks that have barely learned


def recipe(folder, data, space):
    path = folder / "r.yaml"
    path.write_text(f"schema_version: 1\nname: tiny\ndata: {data}\n" + SMALL.replace("SPACE", space))
    return path


def ran(path, verb="run", *words):
    return subprocess.run(
        [EDGEML, verb, path, *words, "--json"], cwd=path.parent, capture_output=True, text=True, timeout=300
    )


def assert_delivered(process, folder, **stated):
    assert process.returncode == 0, process.stderr
    manifest = json.loads(process.stdout)["manifest"]
    assert {key: manifest["input"][key] for key in stated} == stated
    report = (folder / "exported" / "tiny" / "report.html").read_text("utf-8")
    assert "data:image/png" not in report
    alone = subprocess.run(
        [sys.executable, "-I", "verify.py"], cwd=folder / "exported" / "tiny", capture_output=True, text=True
    )
    assert alone.returncode == 0, alone.stdout + alone.stderr
    assert sum(line.startswith("ok") for line in alone.stdout.splitlines()) == 4
    boards = [path for path in (folder / "runs" / "tiny" / "tensorboard").rglob("*") if path.is_file()]
    assert boards
    assert not [path for path in boards if path.name == "sprite.png"]


def waves(folder):
    """Three recordings of 40 windows: sines of their own frequency, in two channels of unlike range."""
    for turns, name in enumerate(("slow", "brisk", "fast"), 1):
        rows = [f"{math.sin(turns * n / 5):.4f},{90 * math.cos(turns * n / 5 + n / 999):.3f}" for n in range(40 * 32)]
        (folder / f"{name}.csv").write_text("\n".join(["x,y", *rows]))


@pytest.mark.slow
def test_windows_of_csv_files_become_a_proven_bundle(tmp_path):
    (tmp_path / "d").mkdir()
    waves(tmp_path / "d")
    path = recipe(tmp_path, "{source: csv, path: d, window: 32, common_scale: true}", "ds_cnn_1d")
    assert_delivered(
        ran(path), tmp_path, name="window", shape=[32, 2], layout="NTC", range=[-1, 1], divided_by=[1, 128]
    )


@pytest.mark.slow
def test_a_table_becomes_a_proven_bundle(tmp_path):
    path = recipe(tmp_path, "{source: sklearn_table, name: wine, common_scale: true}", "[wide_deep, dense_selu]")
    assert_delivered(ran(path), tmp_path, name="vector", shape=[13], layout="NF")


@pytest.mark.parametrize("words", [(), ("--dry-run",)], ids=["search", "dry run"])
def test_a_space_for_other_data_is_refused_before_anything_is_trained(words, tmp_path):
    process = ran(recipe(tmp_path, "{source: sklearn_table, name: iris}", "ds_cnn"), "search", *words)
    assert process.returncode == 3
    message = json.loads(process.stdout)["error"]["message"]
    assert message.startswith("search.space: ds_cnn takes images, the data are vectors (4,); spaces for vectors: ")
    assert not (tmp_path / "runs" / "tiny").exists()
