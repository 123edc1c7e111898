"""``edgeml.export``: any Keras model in, a proven bundle out."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from networks import export, nudge, pictures, separable
from sealing import resealed

import edgeml
from edgeml import bundle, checking, divergence, exporting, foreign, golden, handover
from edgeml.errors import DataError, EdgemlError, IntegrityError, ParityError, TargetError, UsageError
from edgeml.precisions import FILES, IO, PRECISIONS
from edgeml.report.snippets import snippets
from edgeml.samples import Samples
from edgeml.verbs import examine, feed, make

L = keras.layers
BOTH = ("float32", "int8")
FOUR = ["model.onnx", "model.tflite", "model_int8.onnx", "model_int8.tflite"]
MANIFEST_KEYS = {
    "schema_version", "name", "edgeml", "created", "task", "input", "output", "files", "members", "cost", "budget",
    "folding", "metrics", "parity", "latency", "recipe_sha256", "data_sha256", "versions", "machine",
}  # fmt: skip
ROW_KEYS = {
    "parity": {"file", "reference", "inputs", "samples", "max_abs", "range_error", "top1_agreement", "gate", "passed"},
    "latency": {"file", "runtime", "device", "threads", "quiet_ms", "p50_ms", "p90_ms", "p99_ms", "interval_95",
                "noise_floor", "predicted_ms", "load_ms"},
}  # fmt: skip


def book_example():
    """Chollet, "Deep Learning with Python", as it stands there, not trained."""
    height = 64
    width = 64
    channels = 3
    num_classes = 10
    model = keras.Sequential()
    model.add(keras.Input((height, width, channels)))
    model.add(L.SeparableConv2D(32, 3, activation="relu"))
    model.add(L.SeparableConv2D(64, 3, activation="relu"))
    model.add(L.MaxPooling2D(2))
    model.add(L.SeparableConv2D(64, 3, activation="relu"))
    model.add(L.SeparableConv2D(128, 3, activation="relu"))
    model.add(L.MaxPooling2D(2))
    model.add(L.SeparableConv2D(64, 3, activation="relu"))
    model.add(L.SeparableConv2D(128, 3, activation="relu"))
    model.add(L.GlobalAveragePooling2D())
    model.add(L.Dense(32, activation="relu"))
    model.add(L.Dense(num_classes, activation="softmax"))
    return model


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    place = tmp_path_factory.mktemp("export") / "mine"
    labels = ["red", "green", "blue", "white", "black"]
    return edgeml.export(separable(), place, precision=BOTH, samples=pictures(80), calibration=pictures(64),
                         labels=labels)  # fmt: skip


def test_a_bundle_holds_what_the_contract_says(made):
    manifest = bundle.read(made)
    files = sorted(path.relative_to(made).as_posix() for path in made.rglob("*") if path.is_file())
    programs = [name for program in handover.PROGRAMS for name in program.files]
    assert files == sorted([*FOUR, "SHA256SUMS", "README.md", "benchmark.py", "golden.npz", "labels.txt",
                            "manifest.json", "model.keras", "report.html", "report.json", "verify.py",
                            *programs])  # fmt: skip
    assert manifest.keys() >= MANIFEST_KEYS
    for name, keys in ROW_KEYS.items():
        assert manifest[name]
        assert all(row.keys() >= keys for row in manifest[name])
    assert list(dict.fromkeys(row["file"] for row in manifest["parity"])) == [
        "model.keras", "model.tflite", "model_int8.tflite", "model.onnx", "model_int8.onnx"]  # fmt: skip
    assert all(row["configuration"] for row in manifest["parity"] if row["file"] != "model.keras")
    assert manifest["gates"]["float32_max_range_error"] == 2e-5
    assert sorted(e["path"] for e in manifest["files"]) == sorted(set(files) - {"manifest.json", "SHA256SUMS"})
    assert [e["path"] for e in bundle.models(manifest)] == FOUR
    assert manifest["task"]["labels"] == (made / "labels.txt").read_text().split()
    assert manifest["input"]["shape"] == [12, 12, 3]
    assert manifest["output"]["name"] == "scores"
    assert len(manifest["folding"]["folded"]) == 4
    assert json.loads((made / "report.json").read_text())["manifest"]["name"] == "mine"
    for entry in bundle.models(manifest):
        quantization = entry.get("quantization")
        assert (quantization is None) is (entry["precision"] == "float32")
        if quantization:
            assert quantization["calibration"]["samples"] == 64
            assert quantization["input"]["dtype"] in ("int8", "uint8")


def test_the_report_holds_the_time_of_every_operator_with_its_layers(made):
    profiles = json.loads((made / "report.json").read_text())["operators"]
    assert sorted(one["file"] for one in profiles) == FOUR
    assert {(one["runs"], one["threads"], one["batch"], one["problem"]) for one in profiles} == {(1_000, 1, 1, None)}
    names = {layer.name for layer in keras.saving.load_model(made / "model.keras").layers}
    weighted = {"stem", "depthwise", "middle", "separable", "hidden", "logits"}
    for one in profiles:
        told = {layer for operator in one["operators"] for layer in operator["layers"]}
        assert weighted <= told <= names, one["file"]
        assert 0 < sum(operator["ms"] for operator in one["operators"]) <= one["run_ms"]


@pytest.fixture(scope="module", params=IO)
def every(request, tmp_path_factory):
    """A bundle of all files that there are."""
    place = tmp_path_factory.mktemp("every") / request.param
    return request.param, export(separable("hard_swish"), place, precision=list(PRECISIONS), io=request.param,
                                        samples=pictures(80), calibration=pictures(64))  # fmt: skip


def test_a_bundle_of_every_precision_is_verified_and_timed_by_its_own_scripts(every):
    _, place = every
    ran = subprocess.run([sys.executable, "-I", place / "verify.py", "--json"], capture_output=True, text=True)
    found = json.loads(ran.stdout)
    assert (ran.returncode, len(found["parity"])) == (0, len(FILES)), ran.stdout + ran.stderr
    for row in found["parity"]:
        assert row["max_abs"] <= row["limit"] / 4, row  # on the machine that proved it
    script = [sys.executable, "-I", place / "benchmark.py", "--rounds", "2", "--json", place.parent / "times.json"]
    subprocess.run(script, check=True, capture_output=True)
    rows = json.loads((place.parent / "times.json").read_text())["results"]
    assert [row["file"] for row in rows] == [one["path"] for one in bundle.models(bundle.read(place))]


def test_the_manifest_says_what_enters_each_file(every):
    io, place = every
    manifest = bundle.read(place)
    native = {"model_int8.tflite": "int8", "model_int16x8.tflite": "int16", "model_int8.onnx": "uint8"}
    entries = {entry["path"]: entry for entry in bundle.models(manifest)}
    assert set(entries) == {exporting.file_name(target, precision) for target, precision, _ in FILES}
    for name, entry in entries.items():
        stated = entry.get("quantization", {})
        assert bool(stated) is (entry["precision"] != "float32")
        assert stated.get("input", {}).get("dtype") == (native.get(name) if io == "native" else None)
        assert bool(stated.get("calibration")) is PRECISIONS[entry["precision"]].is_integer
    gates = {row["file"]: row["gate"] for row in reversed(manifest["parity"]) if row["gate"] != "tflm"}
    assert gates == {"model.keras": "float32"} | {name: entry["precision"] for name, entry in entries.items()}


def test_manifest_and_report_say_how_many_rows_of_two_int8_files_are_equal(every):
    _, place = every
    stated = {one["path"]: one.get("quantization", {}) for one in bundle.models(bundle.read(place))}
    made = stated.pop("model_int8.onnx")
    assert {key: made[key] for key in ("same_as", "rows", "equal", "most_steps")} == {
        "same_as": "model_int8.tflite", "rows": 80, "equal": 80, "most_steps": made["most_steps"]}  # fmt: skip
    assert not made["most_steps"]  # 0, or no steps where real numbers leave
    assert not any("same_as" in one for one in stated.values())
    page = (place / "report.html").read_text("utf-8")
    assert "80 of 80 rows equal <code>model_int8.tflite</code> bit by bit" in page


def test_rows_of_files_that_differ_are_counted(tmp_path):
    model = separable("hard_swish")
    (tmp_path / "other").mkdir()
    x = {model.inputs[0].name: pictures(64)}
    files = exporting.write(model, tmp_path, ("tflite", "onnx"), ("int8",), x, lambda event: None)
    doubled = {name: 2 * values for name, values in x.items()}
    exporting.write(model, tmp_path / "other", ("tflite",), ("int8",), doubled, lambda event: None)
    other = replace(files[0], path=tmp_path / "other" / "model_int8.tflite")
    found = exporting.same_rows(files[1], [other, files[1]], x)
    assert (found["same_as"], found["rows"]) == ("model_int8.tflite", 64)
    assert found["equal"] < 64
    assert found["most_steps"] >= 1


def test_the_command_line_says_precision_and_io_and_reads_classes(tmp_path):
    model, x = keras.Sequential([keras.Input((12, 12, 3)), separable()], name="net"), pictures(40)
    model.save(tmp_path / "net.keras")
    classes = model.predict(x, verbose=0).argmax(axis=1)
    np.savez(tmp_path / "x.npz", x=x, y=(classes + (np.arange(40) < 4)) % 5)
    files = {"samples": tmp_path / "x.npz", "calibration": tmp_path / "x.npz", "labels": None}
    ask = tmp_path / "net.keras", "tflite,onnx", "dynamic,int8", "float32", tmp_path / "out", files, None, {}, ()
    text, document = make.export_model(*ask, lambda event: None, None)
    models = {entry["path"]: entry for entry in document["files"] if entry["role"] == "model"}
    assert sorted(models) == ["model_dynamic.tflite", "model_int8.onnx", "model_int8.tflite"]
    assert all(entry["quantization"]["input"] == {} for entry in models.values())
    metrics = bundle.read(tmp_path / "out")["metrics"]
    assert sorted(row["file"] for row in metrics) == sorted(models)
    assert {(row["split"], row["against"]) for row in metrics} == {("given", "model.keras")}
    assert all(row["accuracy"] == pytest.approx(0.9, abs=0.06) and row["samples"] == 40 for row in metrics)
    assert all(0 < row["calibration_error"] < 1 for row in metrics)
    assert "n=40" in text
    assert "test accuracy" not in text
    assert "interval on the given samples" in (tmp_path / "out" / "README.md").read_text()
    assert "the 40 samples that came with their classes" in (tmp_path / "out" / "report.html").read_text()
    with pytest.raises(UsageError, match=r"^io: got 'real'; native or float32 is allowed\."):
        make.export_model(*ask[:3], "real", *ask[4:], lambda event: None, None)


def sequential():
    """Ends in a distribution over three classes."""
    return keras.Sequential([keras.Input((4,)), L.Dense(3, activation="softmax")], name="net")


@pytest.mark.parametrize(
    ("y", "says"),
    [
        (np.arange(8), "'y': holds other values than 0, 1, … 2, such as 3"),
        (np.arange(7) % 3, r"'y': shape \(7,\)"),
        (np.array(list("abcdabcd")), "'y': class 'a' is none of the labels; no labels are given"),
        (np.arange(8).astype(object), "'y' holds Python objects"),
    ],
)
def test_what_cannot_be_the_classes_of_a_classifier_ends_its_export(tmp_path, y, says):
    place = tmp_path / "x.npz"
    np.savez(place, x=pictures(8, (4,)), y=y)
    with pytest.raises(DataError, match=rf"^{place}: {says}"):
        feed.truth_of(feed.read(place, sequential(), None, is_labelled=True), place, sequential(), None, print)


def heard_of(found, where, model):
    """Return the classes that are taken of samples, and the lines that say why there are none."""
    heard = []
    return feed.truth_of(found, where, model, None, heard.append), [event.message for event in heard]


def test_classes_are_of_no_use_to_a_model_that_tells_none_apart():
    x, where = keras.Input((4,)), Path("x.npz")
    found = Samples({"x": pictures(8, (4,))}, np.arange(8), "y")
    values = [keras.Model(x, L.Dense(units)(x)) for units in (1, 3)]
    for model in values:
        truth, lines = heard_of(found, where, model)
        assert truth is None
        assert lines == [
            "warning: x.npz: no accuracy: 'y' is of no use, the model is no classifier. Give labels if its values are"
            " of classes."
        ]
    named = replace(found, truth=np.arange(8) % 3)
    assert feed.truth_of(named, where, values[1], list("abc"), print).tolist() == [0, 1, 2] * 2 + [0, 1]
    assert heard_of(replace(found, truth=np.eye(3)[[1] * 8]), where, sequential())[0].tolist() == [1] * 8
    assert heard_of(replace(found, truth=None, truth_name=""), where, values[0]) == (None, [])
    unused = replace(found, truth=None, truth_name="", unused="'y_train' is of training samples")
    assert heard_of(unused, where, sequential())[1] == [
        "warning: x.npz: no accuracy: 'y_train' is of training samples."
    ]


def test_class_folders_need_no_labels_where_they_are_only_to_hold_images(tmp_path):
    found = Samples({"x": pictures(8, (4,))}, np.array(list("abababab")), "class folders")
    truth, (line,) = heard_of(found, tmp_path, sequential())
    assert truth is None
    assert "class 'a' is none of the labels; no labels are given" in line
    with pytest.raises(DataError, match="'class folders': class 'a' is none of the labels; the labels, x, y, z, are"):
        feed.truth_of(found, tmp_path, sequential(), list("xyz"), print)


def test_the_snippets_run_as_the_card_shows_them(every, monkeypatch):
    """Of each file, as if it were the only one."""
    _, place = every
    manifest = bundle.read(place)
    monkeypatch.chdir(place)
    for entry in bundle.models(manifest):
        (shown,) = snippets(manifest, [entry])
        said: list[str] = []
        exec(str(shown["code"]), {"print": lambda value, said=said: said.append(value)})
        assert 0 <= said[0] < 5, shown["code"]


def test_it_can_be_verified_from_python_and_alone(made):
    found = edgeml.verify(made)
    assert found["passed"]
    assert [row["file"] for row in found["parity"]] == FOUR
    assert all(row["samples"] == 64 for row in found["parity"])
    ran = subprocess.run([sys.executable, "-I", made / "verify.py"], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.splitlines()[-1] == "PASSED"


def test_its_keras_model_computes_the_golden_outputs(made):
    row = golden.keras_row(made)
    assert row["passed"]
    assert row.keys() == edgeml.verify(made)["parity"][0].keys()
    with np.load(made / "golden.npz") as archive:
        assert archive["outputs"].shape == (64, 5)


def test_it_can_be_benchmarked_as_it_is(made):
    records, comparisons = edgeml.benchmark(made, against=made / "model.onnx")
    assert [r.file for r in records] == [str(made / name) for name in FOUR]
    assert len(comparisons) == 3
    assert all(r.quiet_ms > 0 for r in records)


@pytest.mark.parametrize("name", [*FOUR, "golden.npz", "manifest.json", "labels.txt", "verify.py"])
def test_one_flipped_bit_is_found(made, name):
    path = made / name
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    try:
        with pytest.raises(IntegrityError, match=rf"{name}: changed"):
            edgeml.verify(made)
    finally:
        path.write_bytes(whole)


def test_a_file_that_computes_something_else_is_found(made):
    """Sums that fit, as whoever made them; only the golden tensors tell."""
    other = export(separable(seed=5), made.parent / "other", precision=("int8",), to=("onnx",),
                          samples=pictures(32), calibration=pictures(32))  # fmt: skip
    with (
        resealed(made, "model_int8.onnx", (other / "model_int8.onnx").read_bytes()),
        pytest.raises(ParityError, match=r"model_int8\.onnx: max difference 0\.\d+ > "),
    ):
        checking.verify(made)


def test_its_layers_are_shown_beside_those_of_keras(made):
    text, document, code = examine.verify(made, layers=True)
    assert (code, document["passed"], document["first_divergence"]) == (0, True, None)
    assert list(dict.fromkeys(row["file"] for row in document["layers"])) == FOUR
    for name in FOUR:
        own = [row for row in document["layers"] if row["file"] == name]
        assert {"stem", "middle", "logits"} <= {row["layer"] for row in own}
        assert {row["measure"] for row in own} == {divergence.DECIBELS if "int8" in name else divergence.SHARE}
    assert text.splitlines()[-1] == "PASSED"
    assert "model_int8.tflite: SQNR in dB, at least" in text


def test_a_changed_weight_with_sums_that_fit_is_found_in_its_layer(made, tmp_path):
    """The golden outputs, as another machine may compute them, could be within their limit: the layer is not."""
    nudged = Path(shutil.copy(made / "model.onnx", tmp_path))
    nudge(nudged)
    with resealed(made, "model.onnx", nudged.read_bytes()):
        text, document, code = examine.verify(made, layers=True)
    assert document["error"]["code"] == 6
    assert (code, document["passed"]) == (6, False)
    first = document["first_divergence"]
    assert (first["file"], first["layer"], first["operator"]) == ("model.onnx", "middle", "Conv")
    assert first["error"] > first["limit"] == 1e-4
    assert "model.onnx parts from Keras first in layer 'middle' (Conv)" in text
    assert text.splitlines()[-1] == "FAILED"


def test_a_folder_that_is_no_bundle(tmp_path):
    with pytest.raises(UsageError, match="not a bundle"):
        edgeml.verify(tmp_path)


# ---- models as people have them


def test_the_example_of_the_book(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 64, 64, 3)).astype("float32")
    place = export(book_example(), tmp_path / "book", precision=BOTH, samples=pixels, calibration=pixels)
    assert edgeml.verify(place)["passed"]
    manifest = bundle.read(place)
    assert manifest["folding"] == {"folded": [], "kept": []}
    assert manifest["cost"]["params"] == book_example().count_params()
    assert "<html" in (place / "report.html").read_text()


def test_without_samples_inputs_are_random_and_the_report_says_so(tmp_path):
    place = export(separable(), tmp_path / "net", to=("onnx",))
    report = json.loads((place / "report.json").read_text())
    assert any("random" in note for note in report["data_notes"])
    assert bundle.read(place)["parity"][0]["inputs"] == "random (64)"


@pytest.mark.parametrize(("head", "classes"), [("sigmoid", 1), ("sigmoid", 4), ("linear", 1), ("linear", 3)])
def test_outputs_that_are_no_probabilities(head, classes, tmp_path):
    model = separable(classes=classes, head=head)
    if head == "linear":
        model.get_layer("logits").kernel.assign(1000 * model.get_layer("logits").kernel)
    place = export(model, tmp_path / head, precision=BOTH, samples=pictures(60), calibration=pictures(60))
    assert edgeml.verify(place)["passed"]
    assert golden.keras_row(place)["passed"]
    assert (place / "report.html").stat().st_size > 1000


def test_a_subclassed_model_is_refused(tmp_path):
    class Own(keras.Model):
        def call(self, x):
            return x

    model = Own()
    model(np.zeros((1, 4, 4, 3), "float32"))
    with pytest.raises(EdgemlError, match="Own"):
        export(model, tmp_path / "own")
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_is_not_built_is_refused(tmp_path):
    with pytest.raises(EdgemlError, match="uild"):
        export(keras.Sequential([L.Dense(3)]), tmp_path / "unbuilt")
    assert list(tmp_path.iterdir()) == []


def test_layers_that_are_not_counted_are_exported_and_named(tmp_path):
    sequence = keras.Input((6, 4), name="sequence")
    model = keras.Model(sequence, L.Dense(3, activation="softmax")(L.SimpleRNN(5, unroll=True, name="recur")(sequence)))
    place = export(model, tmp_path / "net")
    assert bundle.read(place)["cost"]["not_counted"] == ["recur"]
    assert edgeml.verify(place)["passed"]


def test_a_free_input_size_cannot_be_exported(tmp_path):
    model = keras.Sequential([keras.Input((None, None, 3)), L.Conv2D(4, 3), L.GlobalAveragePooling2D()])
    for samples in (None, pictures(8)):
        with pytest.raises(TargetError, match="every size but the batch must be fixed"):
            export(model, tmp_path / "free", samples=samples)
    assert list(tmp_path.iterdir()) == []


# ---- bad input


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"labels": ["a", "b"]}, UsageError, r"labels: got 2; output '\w+' has 5 values"),
        ({"samples": pictures(8, (10, 12, 3))}, DataError, r"samples: shape \(8, 10, 12, 3\); \(N, 12, 12, 3\) is due"),
        ({"samples": pictures(1)[0]}, DataError, r"samples: shape \(12, 12, 3\)"),
        ({"samples": pictures(0)}, DataError, "samples: holds no sample; at least one"),
        ({"samples": np.full((2, 12, 12, 3), np.nan)}, DataError, "samples: holds NaN or infinite"),
        ({"calibration": np.full((2, 12, 12, 3), np.inf)}, DataError,
         "calibration: holds NaN or infinite"),
        ({"samples": np.full((2, 12, 12, 3), "a")}, DataError, "samples: "),
        ({"precision": ("int8",)}, UsageError, "int8: needs calibration samples"),
        ({"truth": [0, 1]}, UsageError, "truth: is of samples, and there are none"),
        ({"truth": [0, 1], "samples": pictures(8)}, DataError, r"truth: shape \(2,\); one class for each of 8 samples"),
        ({"to": ("coreml",)}, UsageError, "no 'coreml'"),
        ({"to": ()}, UsageError, "to: "),
        ({"precision": ()}, UsageError, "precision: "),
    ],
)  # fmt: skip
def test_bad_input_is_named_and_nothing_is_written(options, error, message, tmp_path):
    with pytest.raises(error, match=message) as raised:
        export(separable(), tmp_path / "deep" / "mine", **options)
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == [] or list((tmp_path / "deep").iterdir()) == []


def test_an_occupied_folder_is_refused_before_any_work(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(UsageError, match="holds something that is not a bundle"):
        export(None, tmp_path / "mine")


def test_a_gate_that_is_not_met_leaves_nothing(tmp_path):
    from edgeml.recipe import Verify

    with pytest.raises(ParityError, match=r"parity on samples \(30\): model\.keras .* > 1e-12 .* \| model\.tflite "):
        export(separable(), tmp_path / "mine", samples=pictures(30), gates=Verify(float32_max_range_error=1e-12))
    assert list(tmp_path.iterdir()) == []


# ---- model files


def test_a_public_model_of_mlperf_tiny(shared_data, tmp_path):
    path = shared_data / "models" / "mlcommons_tiny" / "image_classification" / "pretrainedResnet.h5"
    pixels = np.random.default_rng(0).integers(0, 256, (60, 32, 32, 3)).astype("float32")
    model = foreign.load(path)
    place = export(model, tmp_path / "resnet", precision=BOTH, samples=pixels, calibration=pixels)
    manifest = bundle.read(place)
    assert edgeml.verify(place)["passed"]
    norms = [layer.name for layer in model.layers if isinstance(layer, L.BatchNormalization)]
    assert sorted(manifest["folding"]["folded"]) == sorted(norms)
    assert all(row["passed"] for row in manifest["parity"])


def test_paths_may_be_text(tmp_path):
    place = export(separable(), str(tmp_path / "mine"), to=["onnx"])
    assert isinstance(place, Path)
    assert edgeml.verify(str(place))["passed"]
    assert len(edgeml.benchmark(str(place))[0]) == 1
