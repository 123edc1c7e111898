"""What files are compared with, where their time goes, and figures that come back from another machine."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from networks import export, pictures, separable
from sealing import resealed

import edgeml
from edgeml import benchmarking, bundle, run_folder
from edgeml.benchmarking import NotCompared
from edgeml.ensemble import compile_ensemble
from edgeml.errors import DataError, IntegrityError, UsageError
from edgeml.ledger import Ledger
from edgeml.onnx_operators import onnx_operators
from edgeml.runtimes import open_model
from edgeml.targets import _straight
from edgeml.verbs import examine, make, measuring, receiving


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("benchmarking")


@pytest.fixture(scope="module")
def members():
    return [separable(seed=seed) for seed in (1, 2)]


@pytest.fixture(scope="module")
def run(folder, members):
    """A run as it lies there when its bundle is written."""
    root = folder / "run"
    graph = compile_ensemble(members, [0.5, 0.5])
    made = export(graph, folder / "made", samples=pictures(8))
    for name, model in zip(("a", "b"), members, strict=True):
        (root / "finalists" / name).mkdir(parents=True)
        model.save(root / "finalists" / name / "model.keras")
    (root / run_folder.RECIPE).touch()
    record = {"members": ["a", "b"], "weights": [0.5, 0.5], "mean": "arithmetic"}
    (root / run_folder.ENSEMBLE).write_text(json.dumps(record))
    Ledger(root / run_folder.LEDGER).append("run_ended", finished=True, bundle=str(made))
    return root


@pytest.fixture(scope="module")
def place(run):
    return bundle.of_run(run)


def test_a_model_against_what_the_converters_write_of_it(folder, members):
    path = folder / "one.keras"
    members[0].save(path)
    records, compared = edgeml.benchmark(path, against="naive")
    assert [(Path(c.file).name, c.against) for c in compared] == [
        (f"one.keras: model.{suffix}", f"{path}: as trained, {converter}")
        for suffix, converter in (("onnx", "tf2onnx"), ("onnx", "keras.export"), ("tflite", "TFLiteConverter"))
    ]
    size = {record.file: record.file_bytes for record in records}
    assert all(size[c.file] < size[c.against] for c in compared if c.file.endswith("onnx"))  # normalization is folded
    assert {r.precision for r in records} == {"float32"}


def test_int8_files_of_a_bundle_against_int8_of_the_converters(folder, members):
    made = export(members[0], folder / "int8", precision="int8", samples=pictures(32), calibration=pictures(32))
    records, compared = edgeml.benchmark(made, against="naive")
    assert [(Path(c.file).name, c.against) for c in compared] == [
        ("model_int8.onnx", f"{made}: folded, quantize_static of tf2onnx"),
        ("model_int8.tflite", f"{made}: folded, TFLiteConverter int8"),
    ]
    assert {r.precision for r in records} == {"int8"}


def test_what_the_converters_quantize_by_themselves_computes_the_same(members, tmp_path):
    x = pictures(32)
    found = _straight.write(members[0], tmp_path, {"int8"}, {"pixels": x})
    assert [(one.precision, one.path.suffix) for one in found] == [("int8", ".onnx"), ("int8", ".tflite")]
    expected = members[0].predict(x, verbose=0)
    for one in found:
        loaded = open_model(one.path)
        (name,), (source,) = ([t.name for t in side] for side in (loaded.signature.outputs, loaded.signature.inputs))
        assert np.abs(loaded.predict({source: x})[name] - expected).max() < 0.1
    assert {t.dtype for t in (*loaded.signature.inputs, *loaded.signature.outputs)} == {"int8"}
    kinds = {one.kind for one in onnx_operators(found[0].path)}
    assert {"quantize", "dequantize"} <= kinds


def test_a_run_against_its_members_in_turn(run, place):
    events = []
    records, compared = edgeml.benchmark(run, against="members", on_event=events.append)
    assert [(c.file, c.against) for c in compared] == [
        (str(place / f"model.{suffix}"), f"{run}: its 2 members in turn, .{suffix}") for suffix in ("onnx", "tflite")
    ]
    size = {record.file: record.file_bytes for record in records}
    assert all(0.5 < size[c.file] / size[c.against] < 1.1 for c in compared)


@pytest.mark.slow
def test_a_run_and_its_bundle_against_the_converters(run, place):
    _, compared = edgeml.benchmark(run, against="naive")
    assert {c.against.split(": ")[1] for c in compared} == {
        f"as trained, {name}" for name in ("tf2onnx", "keras.export", "TFLiteConverter")
    }

    _, compared = edgeml.benchmark(place, against="naive")
    assert {c.against for c in compared} >= {f"{place}: folded, tf2onnx"}


def test_a_bundle_against_its_members_in_turn(place):
    records, compared = edgeml.benchmark(place, against="members")
    assert [(c.file, c.against) for c in compared] == [
        (str(place / f"model.{suffix}"), f"{place}: its 2 members in turn, .{suffix}") for suffix in ("onnx", "tflite")
    ]
    size = {record.file: record.file_bytes for record in records}
    assert all(0.5 < size[c.file] / size[c.against] < 1.1 for c in compared)


@pytest.fixture(scope="module")
def fours(folder, members):
    """A bundle of files that take four samples at once, of a precision that no converter writes, too."""
    graph = compile_ensemble(members, [0.5, 0.5])
    return export(graph, folder / "fours", precision="float32,float16", samples=pictures(8), batch=4)


@pytest.mark.parametrize("against", ["naive", "members"])
def test_counterparts_run_the_batch_of_the_files_that_they_are_compared_with(fours, against):
    found = benchmarking.measured(fours, against)
    compared = [Path(one.file).name for one in found.comparisons]
    assert sorted(set(compared)) == ["model.onnx", "model.tflite"]
    assert {one.batch for one in (*found.latencies, *found.comparisons)} == {4}
    assert {(Path(one.file).name, one.against) for one in found.not_compared} == {
        ("model_float16.onnx", against), ("model_float16.tflite", against),
    }  # fmt: skip
    assert {one.reason for one in found.not_compared} == {"it has float32 .onnx, float32 .tflite only"}


def test_files_that_were_compared_with_nothing_stand_in_one_line():
    same = [NotCompared(name, "naive", "it has float32 .onnx only") for name in ("a.onnx", "b.onnx")]
    said = measuring._not_compared([*same, NotCompared("a.tflite", "b.tflite", "it runs another batch")])
    assert said == [
        "not compared with naive: a.onnx, b.onnx; it has float32 .onnx only",
        "not compared with b.tflite: a.tflite; it runs another batch",
    ]


def test_a_rival_of_another_fixed_batch_is_told(fours, place):
    found = benchmarking.measured([fours / "model.tflite"], against=place / "model.tflite")
    assert found.comparisons == []
    assert [(one.against, one.reason) for one in found.not_compared] == [
        (str(place / "model.tflite"), "it runs another batch")
    ]


def test_the_terminal_names_the_batch_of_a_latency(fours):
    screen, document = receiving.inspect(fours)
    assert screen.count(", a batch of 4") == len(document["latency"]) == 4
    assert make._summary(bundle.read(fours), fours, None).count("LiteRT, a batch of 4") == 2


def test_of_a_bundle_with_a_changed_byte_nothing_is_timed(place, tmp_path):
    shutil.copytree(place, tmp_path / "changed")
    content = bytearray((tmp_path / "changed" / "model.onnx").read_bytes())
    content[-1] ^= 1
    (tmp_path / "changed" / "model.onnx").write_bytes(content)
    for measured in (edgeml.benchmark, benchmarking.operators):
        with pytest.raises(IntegrityError, match=r"changed: not as it was made \(model.onnx: changed\)"):
            measured(tmp_path / "changed")


def test_a_single_network_has_no_members(folder, members, place, tmp_path):
    shutil.copytree(place, tmp_path / "single")
    members[0].save(tmp_path / "model.keras")
    with (
        resealed(tmp_path / "single", "model.keras", (tmp_path / "model.keras").read_bytes()),
        pytest.raises(UsageError, match=r"single: its graph has no members. --against naive compares with"),
    ):
        edgeml.benchmark(tmp_path / "single", against="members")


def test_every_operator_of_both_runtimes_is_timed(place):
    found = {Path(one.file).name: one.profile for one in benchmarking.operators(place, runs=200)}
    kinds = {name: [one.kind for one in profile.operators] for name, profile in found.items()}
    assert kinds["model.onnx"].count("Conv") >= 4
    assert sum("Convolution" in kind for kind in kinds["model.tflite"]) >= 4
    for profile in found.values():
        assert profile.runs == 200
        assert 0 < sum(one.ms for one in profile.operators) <= profile.run_ms
    assert found["model.tflite"].profiler.startswith("LiteRT 2.3")


@pytest.fixture(scope="module")
def times(place, folder):
    """What the bundle's own script says."""
    path = folder / "times.json"
    script = [sys.executable, "-I", place / "benchmark.py", "--rounds", "2", "--json", path]
    subprocess.run(script, check=True, capture_output=True)
    return path


@pytest.mark.parametrize(("key", "value"), [("quiet_ms", -5), ("p50_ms", "fast"), ("load_ms", float("nan")),
                                            ("interval_95", [9, 1]), ("threads", None)])  # fmt: skip
def test_figures_that_are_none_are_refused(place, times, tmp_path, key, value):
    document = json.loads(times.read_text())
    document["results"][0][key] = value
    (tmp_path / "times.json").write_text(json.dumps(document))
    before = (place / "manifest.json").read_bytes()
    with pytest.raises(DataError, match=rf"times.json: 'model.onnx': {key} is "):
        examine.report(place, tmp_path / "times.json", "my board")
    assert (place / "manifest.json").read_bytes() == before


def test_figures_of_another_machine_come_back_into_the_report(place, times):
    before = bundle.read(place)["latency"]
    for _ in range(2):  # read again, they are the same rows
        examine.report(place, times, "my board")
    manifest = bundle.read(place)
    theirs = [row for row in manifest["latency"] if row["device"] == "my board"]
    assert [row for row in manifest["latency"] if row["device"] == "host"] == before
    assert [row["file"] for row in theirs] == ["model.onnx", "model.tflite"]
    assert [row["quiet_ms"] for row in theirs] == [r["quiet_ms"] for r in json.loads(times.read_text())["results"]]
    assert manifest["machines"]["my board"]["cpu"]
    page = (place / "report.html").read_text()
    assert "On other machines" in page
    assert page.count(", my board</small>") == 2
    _, document, code = examine.verify(place, layers=False)
    assert (document["integrity"]["passed"], code) == (True, 0)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d["results"][0].update(sha256="0"), "'model.onnx' was another file there"),
        (lambda d: d["results"][0].update(file="other.onnx"), "'other.onnx' is no file of this bundle"),
        (lambda d: d["results"][0].pop("quiet_ms"), "'model.onnx' has no quiet_ms"),
        (lambda d: d.pop("machine"), "holds no figures"),
    ],
)
def test_figures_of_something_else_do_not(place, times, tmp_path, change, says):
    document = json.loads(times.read_text())
    change(document)
    (tmp_path / "x.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match=says):
        examine.report(place, tmp_path / "x.json")


def test_a_device_is_not_called_as_this_machine_is(place, times, tmp_path):
    with pytest.raises(UsageError, match="--device host"):
        examine.report(place, times, "host")
    with pytest.raises(DataError, match="no such file"):
        examine.report(place, tmp_path / "gone.json")
