"""What a file is proven against, how it is run for that, and what is said where it fails."""

import time
from dataclasses import replace

import keras
import numpy as np
import onnx
import pytest
from networks import export, first_rows, nudge, pictures, randomise, separable
from onnx import numpy_helper

from edgeml import configurations, exporting, plugins, probes, recipe, verification
from edgeml.configurations import CONFIGURATIONS, Configuration, InBatches, Remembering
from edgeml.ensemble import compile_ensemble, fold_ensemble
from edgeml.errors import DataError, ParityError, TargetError, UsageError
from edgeml.folding import fold_batch_norm
from edgeml.runtimes import open_model, tflm

GATES = recipe.Verify()
MANY = {"pixels": pictures(600, seed=3)}
SILENT = lambda event: None  # noqa: E731


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    model = separable()
    folded = fold_batch_norm(model).model
    folder, samples = tmp_path_factory.mktemp("verified"), {"pixels": pictures(64)}
    return model, folded, exporting.write(folded, folder, ["tflite", "onnx"], ["float32", "int8"], samples, SILENT)


@pytest.fixture(scope="module")
def rows(written):
    model, folded, artifacts = written
    return verification.prove(folded, model, artifacts, MANY, "test (600)", GATES)


def of(rows, file, inputs):
    return [row for row in rows if row.file == file and (row.inputs == "probes") is (inputs == "probes")]


def test_each_file_is_run_in_each_configuration(rows):
    """TensorFlow Lite Micro, where it is installed, is held against LiteRT and not against Keras."""
    levels = [f"optimization {level}, {threads}, batch {batch}" for level in ("all", "basic", "off")
              for threads in ("1 thread", "2 threads") for batch in (64, 1)]  # fmt: skip
    kernels = [
        f"{kernels}, batch 1" for kernels in ("XNNPACK, 1 thread", "XNNPACK, 2 threads", "reference kernels, 1 thread")
    ]
    for file, runtime, due in (("model.onnx", "onnxruntime", levels), ("model.tflite", "LiteRT", kernels)):
        for name in (file, file.replace("model", "model_int8")):
            for inputs in ("real", "probes"):
                held = [row for row in of(rows, name, inputs) if row.gate != "tflm"]
                is_fixed = name == "model_int8.onnx"  # as the TFLite file that it is made from
                fixed = [one.replace("batch 64", "batch 1") for one in due if one.endswith("batch 64")]
                assert [row.configuration.partition(", ")[2] for row in held] == (fixed if is_fixed else due)
                assert {row.configuration.split()[0] for row in held} == {runtime}
    assert all(row.passed and row.reference.startswith("keras") for row in rows if row.gate != "tflm")


def test_all_samples_in_the_default_configuration_and_some_in_the_others(rows):
    assert [(row.file, row.samples, row.inputs) for row in first_rows(rows) if row.gate != "tflm"] == [
        (name, 600, "test (600)")
        for name in ("model.keras", "model.tflite", "model_int8.tflite", "model.onnx", "model_int8.onnx")
    ]
    others = of(rows, "model.onnx", "real")[1:]
    assert {(row.samples, row.inputs) for row in others} == {(512, "512 of test (600)")}


def test_probes_are_judged_for_float_files_and_stated_for_integers(rows):
    for row in rows:
        if row.inputs == "probes":
            assert 32 < row.samples <= verification.PROBES
            assert row.gate == ("none" if "int8" in row.file else "float32")
    assert all(row.max_abs > 1e-4 for row in of(rows, "model_int8.tflite", "probes"))


def test_a_fixed_batch_is_the_only_one(written, tmp_path):
    folded = written[1]
    (file,) = exporting.write(folded, tmp_path, ["onnx"], ["float32"], None, SILENT, batch=4)
    found = verification.prove(folded, folded, [file], {"pixels": pictures(9)}, "test", GATES)
    said = [row.configuration for row in of(found, "model.onnx", "real")]
    assert len(said) == 6
    assert all(one.endswith("batch 4") for one in said)


def test_large_networks_are_run_on_fewer_inputs(written, monkeypatch):
    _, folded, artifacts = written
    monkeypatch.setattr(configurations, "MOST_MACS", 1_000_000)
    found = verification.prove(folded, folded, artifacts[:1], MANY, "test", GATES)
    default, *others = of(found, "model.tflite", "real")
    assert default.samples == 600
    assert {1 < row.samples < 100 for row in others} == {True}


def test_one_configuration_that_errs_is_named(written, monkeypatch):
    class Wrong:
        def __init__(self, model):
            self.signature, self.runtime, self.layers, self.single = model.signature, model.runtime, model.layers, None
            self.predict = lambda inputs: {name: y[::-1] for name, y in model.predict(inputs).items()}

    own = Configuration.open
    monkeypatch.setattr(Configuration, "open", lambda self, path: Wrong(own(self, path)) if self.threads == 2 else
                        own(self, path))  # fmt: skip
    model, folded, artifacts = written
    with pytest.raises(ParityError) as raised:
        verification.prove(folded, model, artifacts[:1], MANY, "test", GATES)
    said = str(raised.value)
    assert "XNNPACK, 2 threads, batch 1, 512 of test" in said
    assert "1 thread," not in said
    assert "\n" not in said


def test_weights_changed_before_verification_fail_and_name_the_layer(tmp_path, monkeypatch):
    own = exporting.write

    def spoilt(*args, **options):
        artifacts = own(*args, **options)
        nudge(artifacts[0].path)
        return artifacts

    monkeypatch.setattr(exporting, "write", spoilt)
    with pytest.raises(ParityError, match=r"model\.onnx .* > 2e-05 .* first diverging layer 'middle' \(Conv Conv_5\)"):
        export(separable(), tmp_path / "net", to="onnx", samples=pictures(40))
    assert list(tmp_path.iterdir()) == []


def test_a_bad_calibration_fails_by_figure(written, tmp_path):
    folded, dark = written[1], {"pixels": 0.02 * pictures(64)}
    files = exporting.write(folded, tmp_path, ["tflite"], ["int8"], dark, SILENT)
    with pytest.raises(
        ParityError, match=r"SQNR -?\d+\.\d dB < 15 dB; cosine 0\.\d+ < 0\.99.*layer 'stem' \(CONV_2D\): SQNR"
    ):
        verification.prove(folded, folded, files, MANY, "test", GATES)


def test_probes_that_float32_does_not_carry_are_left_out(tmp_path):
    x = keras.Input((4,), name="pixels")
    model = keras.Model(x, keras.layers.Dense(3, name="y")(keras.ops.sin(1e5 * x)))
    proof = verification._Proof(model, model, {"pixels": np.ones((3, 4), "float32")}, "test", GATES)
    assert len(proof.probes["pixels"]) < verification.PROBES / 2


def test_gates_are_overridden(written):
    model, folded, artifacts = written
    strict = replace(GATES, int8_min_sqnr_db=90.0)
    with pytest.raises(
        ParityError, match=r"model_int8\.onnx .* dB < 90 dB.* in 3 more comparisons; first diverging layer"
    ):
        verification.prove(folded, model, artifacts[3:], MANY, "test", strict)


@pytest.mark.parametrize("mean", ["arithmetic", "geometric"])
def test_the_graph_of_an_ensemble_is_held_against_its_members(mean):
    pair, weights = [separable(seed=1), separable(seed=2)], (0.7, 0.3)
    graph = compile_ensemble(pair, weights, mean)
    folded, x = fold_ensemble(graph).model, {graph.inputs[0].name: pictures(30)}
    members = verification.Members(pair, weights, mean)
    rows = verification.prove(folded, graph, [], x, "test", GATES, members=members)
    assert [row.what for row in rows] == ["members = ensemble", "trained = folded", "trained = folded"]
    assert all(row.passed for row in rows)
    other = verification.Members(pair, weights[::-1], mean)
    with pytest.raises(ParityError, match=r"^parity on test: model\.keras \(members = ensemble\): "):
        verification.prove(folded, graph, [], x, "test", GATES, members=other)


@pytest.mark.parametrize(("sharper", "least", "most"), [(1, 1e-6, 1e-6), (20, 1.5e-6, 1e-5)])
def test_probabilities_of_a_mean_are_held_to_what_float32_carries(sharper, least, most, tmp_path):
    """Steep logits turn a rounding into more than a millionth; a weight that is off is seen all the same."""
    members, x = [separable(seed=seed) for seed in (20, 21, 22)], pictures(300)
    for model in members:
        logits = model.get_layer("logits")
        logits.set_weights([sharper * weight for weight in logits.get_weights()])
    folded = fold_ensemble(compile_ensemble(members, (0.5, 0.3, 0.2))).model
    samples = {folded.inputs[0].name: x}
    files = exporting.write(folded, tmp_path, ["tflite", "onnx"], ["float32"], None, SILENT)
    heard = []
    rows = verification.prove(folded, folded, files, samples, "test", GATES, lambda event: heard.append(event.message))
    assert all(row.passed and least <= row.limit <= most for row in rows)
    assert any(row.inputs == "probes" and row.samples >= 8 for row in rows)
    assert [told for told in heard if "one rounding of the inputs moves" in told] == heard[: int(sharper > 1)]
    nudge(files[1].path)
    with pytest.raises(ParityError, match=r"model\.onnx \(file = folded\): largest difference"):
        verification.prove(folded, folded, files[1:], samples, "test", GATES)


def test_columns_of_unlike_range_do_not_widen_the_gate_of_a_mean(tmp_path):
    """The rounding of a column of 4,000 is none of one of 0.003; whatever float32 rounds, ten times the gate is all."""
    rng = np.random.default_rng(0)
    mean, spread = np.array([0.003, 4e3, 1e6, 0.5]), np.array([0.001, 9e2, 10.0, 0.1])
    x = rng.normal(mean, spread, (200, 4)).astype("float32")
    members = []
    for seed in range(2):
        inputs = keras.Input((4,), name="columns")
        scaled = keras.layers.Normalization(mean=mean, variance=spread**2)(inputs)
        hidden = keras.layers.Dense(16, "relu", name="hidden")(scaled)
        members.append(randomise(keras.Model(inputs, keras.layers.Dense(3, "softmax", name="out")(hidden)), seed))
    folded = fold_ensemble(compile_ensemble(members, (0.6, 0.4))).model
    (file,) = exporting.write(folded, tmp_path, ["onnx"], ["float32"], None, SILENT)
    samples = {folded.inputs[0].name: x}
    network = onnx.load(file.path)
    weight = max(network.graph.initializer, key=lambda one: numpy_helper.to_array(one).size)
    array = numpy_helper.to_array(weight).copy()
    array.flat[np.abs(array).argmax()] *= 1.01
    weight.CopyFrom(numpy_helper.from_array(array, weight.name))
    rows = verification.prove(folded, folded, [file], samples, "test", GATES)
    assert max(row.limit for row in rows) <= verification.MOST_CARRIED * GATES.float32_max_probability_error
    onnx.save(network, file.path)
    with pytest.raises(ParityError, match=r"model\.onnx \(file = folded\): largest difference"):
        verification.prove(folded, folded, [file], samples, "test", GATES)


@pytest.mark.parametrize(("classes", "is_run"), [(255, True), (300, False)])
def test_a_softmax_that_would_end_the_process_is_not_run_by_reference_kernels(classes, is_run, tmp_path):
    inputs = keras.Input((8,), name="x")
    keras.utils.set_random_seed(0)
    faint = keras.initializers.RandomNormal(stddev=0.01)  # all about equally likely
    hot = keras.layers.Dense(classes, kernel_initializer=faint, name="even")(inputs)
    model = keras.Model(inputs, keras.layers.Softmax(name="scores")(hot))
    samples = {"x": np.random.default_rng(0).normal(size=(40, 8)).astype("float32")}
    (file,) = exporting.write(model, tmp_path, ["tflite"], ["int8"], samples, SILENT)
    heard, loose = [], replace(GATES, int8_min_sqnr_db=0, int8_min_cosine=0)
    rows = verification.prove(model, model, [file], samples, "test", loose, lambda event: heard.append(event.message))
    assert any("reference kernels" in row.configuration for row in rows) == is_run
    assert any("not run by LiteRT's reference kernels" in told for told in heard) != is_run
    assert (open_model(file.path).layers(samples) is None) != is_run
    if not is_run:
        with pytest.raises(TargetError, match=r"softmax takes 255 classes.*end in logits"):
            plugins.get("targets", "tflm").check(file.path, model, {})


# ---- inputs, batches


def test_probes_are_the_same_each_time_and_within_their_range():
    drawn = probes.drawn((6, 6, 2), (-1.0, 3.0), 32)
    np.testing.assert_array_equal(drawn, probes.drawn((6, 6, 2), (-1.0, 3.0), 32))
    assert (drawn.shape, drawn.dtype) == ((32, 6, 6, 2), np.float32)
    assert [set(np.unique(one)) for one in drawn[:5]] == [{0}, {-1}, {3}, {1}, {-1, 3}]
    assert all(np.sum(one == 3) == 1 and np.sum(one == -1) == 71 for one in drawn[-9:])
    uniform, normal = drawn[5:14], drawn[14:23]
    assert uniform.std() > normal.std() > 0.5
    assert (drawn.min(), drawn.max()) == (-1, 3)


def test_rows_go_in_batches_and_are_computed_once(written):
    opened = open_model(written[2][2].path)
    sizes = []
    own = opened.predict
    opened.predict = lambda inputs: sizes.append(len(inputs["pixels"])) or own(inputs)
    model = Remembering(InBatches(opened, 4))
    inputs = {"pixels": MANY["pixels"][:10]}
    np.testing.assert_allclose(model.predict(inputs)["scores"], own(inputs)["scores"], atol=1e-6)
    assert model.predict(inputs) is model.predict(inputs)
    assert sizes == [4, 4, 2]


def test_every_suffix_has_one_default_configuration():
    for table in (*CONFIGURATIONS.values(), configurations.OTHERS):
        assert [one.is_default for one in table] == [True] + [False] * (len(table) - 1)


# ---- TensorFlow Lite Micro


def test_the_runtime_of_microcontrollers_is_an_extra(written, monkeypatch):
    monkeypatch.setattr(tflm, "is_installed", lambda: False)
    with pytest.raises(UsageError, match=r"tflite-micro is not installed\. pip install 'edgeml-export\[micro\]'"):
        tflm.open_model(written[2][1].path)


def test_microcontrollers_compute_what_the_reference_kernels_do(written, rows):
    pytest.importorskip("tflite_micro")
    (row,) = [row for row in rows if row.gate == "tflm"]
    assert (row.file, row.samples, row.passed) == ("model_int8.tflite", 512, True)
    assert row.error >= 0.98
    assert row.top1_agreement >= 0.999
    assert row.configuration.startswith("TFLM ")
    opened = tflm.open_model(written[2][1].path)
    assert opened.signature == open_model(written[2][1].path).signature
    assert opened.layers(MANY) is None
    opened.single(MANY)()


def test_other_integers_on_a_microcontroller_fail(written, monkeypatch):
    pytest.importorskip("tflite_micro")
    monkeypatch.setattr(tflm.Interpreter, "_run", lambda self, batch: {"scores": np.zeros((1, 5), "int8")})
    model, folded, artifacts = written
    with pytest.raises(ParityError, match=r"same integers\): equal decisions 0"):
        verification.prove(folded, model, artifacts[1:2], MANY, "test", GATES)


def test_a_file_that_microcontrollers_cannot_run_is_told(written, monkeypatch, tmp_path):
    pytest.importorskip("tflite_micro")
    monkeypatch.setattr(tflm, "ARENA_BYTES", 1_000)
    model, folded, artifacts = written
    told = []
    verification.prove(folded, model, artifacts[1:2], MANY, "test", GATES, told.append)
    assert "TensorFlow Lite Micro cannot open it" in told[-1].message
    with pytest.raises(DataError, match="cannot open it"):
        tflm.open_model(artifacts[1].path)


@pytest.mark.slow
def test_ten_thousand_images_take_less_than_two_minutes(tmp_path):
    """A network of 30 thousand parameters, in four files and all configurations."""
    x = inputs = keras.Input((28, 28, 1), name="pixels")
    x = keras.layers.Conv2D(32, 3, strides=2, padding="same", activation="relu")(x)
    for width, stride in ((64, 1), (96, 2), (128, 1), (64, 1)):
        x = keras.layers.DepthwiseConv2D(3, strides=stride, padding="same", activation="relu")(x)
        x = keras.layers.Conv2D(width, 1, activation="relu")(x)
    x = keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(x))
    model = randomise(keras.Model(inputs, keras.layers.Softmax(name="p")(x)))
    assert 28_000 < model.count_params() < 34_000
    samples = {"pixels": pictures(10_000, (28, 28, 1))}
    some = {"pixels": samples["pixels"][:64]}
    files = exporting.write(model, tmp_path, ["tflite", "onnx"], ["float32", "int8"], some, SILENT)
    start = time.monotonic()
    rows = verification.prove(model, model, files, samples, "test", GATES)
    assert time.monotonic() - start < 120
    assert all(row.samples == 10_000 for row in first_rows(rows) if row.gate != "tflm")
