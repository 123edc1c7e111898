"""The contract of a target: every file of edgeml/targets, every precision, opened in its own runtime and compared.

A new target is tested by lying in that folder. What only one of them promises stands below.
"""

import hashlib
import subprocess
import sys
from collections import Counter
from pathlib import Path

import keras
import keras_tuner
import networks
import numpy as np
import onnx
import pytest
from networks import ACTIVATIONS, pictures, separable

from edgeml import arena, exporting, parity, plugins, precisions, recipe, verification
from edgeml.errors import DataError, TargetError, UsageError
from edgeml.folding import fold_batch_norm
from edgeml.keras_operators import keras_operators
from edgeml.runtimes import keras as keras_runtime
from edgeml.runtimes import open_model
from edgeml.runtimes.keras import Reference
from edgeml.search.space import of_kind
from edgeml.targets import Quantization
from edgeml.tflite_operators import tflite_operators

L = keras.layers
TARGETS = [name for name in plugins.names("targets") if not precisions.is_deployed(name)]  # of files
FILES = [(target, precision) for target in TARGETS for precision in plugins.get("targets", target).PRECISIONS]
SAMPLES = {"pixels": pictures(64)}
SILENT = lambda event: None  # noqa: E731


def written(model, folder, files=FILES):
    targets, precisions = ([*dict.fromkeys(column)] for column in zip(*files, strict=True))
    return {(a.target, a.precision): a for a in exporting.write(model, folder, targets, precisions, SAMPLES, SILENT)}


@pytest.fixture(scope="module", params=ACTIVATIONS)
def network(request, tmp_path_factory):
    model = separable(request.param)
    folded = fold_batch_norm(model).model
    return request.param, model, folded, written(folded, tmp_path_factory.mktemp(request.param))


def ids(file):
    return "-".join(file)


@pytest.mark.parametrize("file", FILES, ids=ids)
def test_contract(network, file):
    _, _, folded, artifacts = network
    artifact = artifacts[file]
    reference, loaded = Reference(folded), open_model(artifact.path)
    assert parity.mismatches(reference.signature, loaded.signature) == []
    assert ([t.name for t in loaded.signature.inputs], [t.name for t in loaded.signature.outputs]) == (
        ["pixels"], ["scores"])  # fmt: skip
    assert loaded.runtime.split()[0].lower() == plugins.get("targets", file[0]).RUNTIME
    assert artifact.path.name == exporting.file_name(*file)
    assert (artifact.quantization is None) is (file[1] == "float32")
    for rows in (100, 1, 7):
        x = {"pixels": pictures(rows, seed=rows)}
        expected, got = reference.predict(x)["scores"], loaded.predict(x)["scores"]
        assert got.shape == expected.shape
        assert got.dtype == np.float32
        difference = parity.measure(expected.astype(float), got.astype(float), parity.SOFTMAX)
        if file[1] in parity.FLOATS:
            assert difference.range_error <= {"float32": 2e-5, "float16": 2e-3}[file[1]]
        elif rows == 100:
            assert difference.sqnr_db >= {"dynamic": 15, "int8": 15, "int16x8": 30}[file[1]]
        if file[1] != "float32" and rows == 100:
            assert difference.max_abs > (0 if file[1] != "dynamic" else -1), "vacuous: a file that is as in float32"


@pytest.mark.parametrize("file", FILES, ids=ids)
def test_a_file_takes_batches_or_says_that_it_does_not(network, file):
    loaded = open_model(network[3][file].path)
    assert loaded.signature.batch in (None, 1)
    assert loaded.signature.batch is None or file not in [("onnx", "float32"), ("onnx", "float16")]
    loaded.single({"pixels": pictures(3)})()


def test_bytes_are_the_same_again(network, tmp_path):
    _, _, folded, artifacts = network
    again = written(folded, tmp_path)
    assert [file for file in FILES if again[file].path.read_bytes() != artifacts[file].path.read_bytes()] == []


@pytest.mark.parametrize("network", ["hard_swish"], indirect=True, scope="module")
def test_bytes_are_the_same_in_another_process(network, tmp_path):
    _, _, _, artifacts = network
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\n"
        "import test_targets as t\n"
        "t.written(t.fold_batch_norm(t.separable('hard_swish')).model, Path(sys.argv[2]))\n"
    )
    environment = {"PYTHONHASHSEED": "7", "PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run(
        [sys.executable, "-c", script, str(Path(__file__).parent), str(tmp_path)], check=True, env=environment,
        capture_output=True, timeout=120, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    digest = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in tmp_path.glob("model*")}
    assert digest == {a.path.name: hashlib.sha256(a.path.read_bytes()).hexdigest() for a in artifacts.values()}


def test_int8_files_hold_the_same_integers(network):
    _, _, _, artifacts = network
    x = {"pixels": pictures(500, seed=4)}
    first, second = (open_model(artifacts[target, "int8"].path).predict(x)["scores"] for target in ("tflite", "onnx"))
    np.testing.assert_array_equal(first, second)


def test_int8_average_pools_round_alike(tmp_path):
    """Every fourth mean of four lies between two integers; to the even one, 91 % of a network's rows differed."""
    shape = (16, 16, 3)
    x = inputs = keras.Input(shape, name="pixels")
    x = L.AveragePooling2D(2)(L.Conv2D(8, 3, padding="same", activation="relu", name="stem")(x))
    x = L.AveragePooling2D(3, 1, padding="same")(L.Conv2D(8, 1, name="middle")(x))
    x = L.Flatten()(L.AveragePooling2D(8)(x))  # 64 values, as in MLPerf Tiny's ResNet-8: 17 % of its rows differed
    model = networks.randomise(keras.Model(inputs, L.Dense(5, name="logits")(x)))
    artifacts = exporting.write(
        model, tmp_path, ["tflite", "onnx"], ["int8"], {"pixels": pictures(64, shape)}, lambda event: None
    )
    said = [open_model(a.path).predict({"pixels": pictures(300, shape, seed=4)})["logits"] for a in artifacts]
    np.testing.assert_array_equal(*said)


def test_a_file_that_tf2onnx_cannot_read_is_quantized_by_onnxruntime(tmp_path, monkeypatch):
    def resists(source):
        raise TargetError("onnx int8: tf2onnx cannot convert the int8 TFLite file: no reason.")

    monkeypatch.setattr("edgeml.targets.onnx._from_tflite", resists)
    folded = fold_batch_norm(separable("relu")).model
    (artifact,) = exporting.write(folded, tmp_path, ["onnx"], ["int8"], {"pixels": pictures(64)}, lambda event: None)
    assert artifact.quantization.method.startswith("static quantization by onnxruntime")
    assert "no reason" in artifact.quantization.method
    kinds = Counter(kind for kind, _ in operators(artifact.path))
    assert kinds["QuantizeLinear"] > 5
    rows = verification.prove(folded, folded, [artifact], {"pixels": pictures(200, seed=4)}, "random", recipe.Verify())
    row = networks.first_rows(rows)[1]
    assert row.passed
    assert row.max_abs > 0


def test_an_operator_that_tf2onnx_does_not_know_is_quantized_by_onnxruntime(tmp_path):
    inputs = keras.Input((12, 12, 3), name="pixels")
    x = L.Conv2D(8, 3, activation="gelu", name="stem")(inputs)
    model = networks.randomise(keras.Model(inputs, L.Dense(5, name="logits")(L.GlobalAveragePooling2D()(x))))
    (artifact,) = exporting.write(model, tmp_path, ["onnx"], ["int8"], {"pixels": pictures(64)}, SILENT)
    assert "'TFL_GELU' has no ONNX operator" in artifact.quantization.method
    loose = recipe.Verify(int8_min_sqnr_db=12, int8_min_cosine=0.97)  # its weights are random
    verification.prove(model, model, [artifact], {"pixels": pictures(200, seed=4)}, "random", loose)


def test_int8_takes_raw_integers(network):
    for target in ("tflite", "onnx"):
        tensor = open_model(network[3][target, "int8"].path).signature.inputs[0]
        assert tensor.dtype == {"tflite": "int8", "onnx": "uint8"}[target]
        assert tensor.scale == pytest.approx(1 / 255, rel=1e-3)
        assert tensor.zero_point == {"tflite": -128, "onnx": 0}[target]
    assert network[3]["tflite", "int8"].quantization == Quantization("ptq", "minimum and maximum")


# ---- what the ONNX graph looks like


def operators(path):
    graph = onnx.load(path).graph
    return [(n.op_type, [x for x in n.input if x not in {t.name for t in graph.initializer}]) for n in graph.node]


@pytest.mark.parametrize("space", of_kind("images"))
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_nothing_is_left_beside_a_convolution(space, activation, tmp_path):
    hp = keras_tuner.HyperParameters()
    module = plugins.get("search_spaces", space)
    for name, value in {"activation": activation, "residual": True, "stages": 2, "blocks": 4, "head_units": 16,
                        "stage_1_width": 8, "stage_1_depth": 2, "stage_1_stride": 1,
                        "stem_width": 8}.items():  # fmt: skip
        hp.Fixed(name, value)
    model = networks.randomise(module.build(hp, (16, 16, 3), 4))
    result = fold_batch_norm(model)
    assert result.kept == ()
    artifact = exporting.write(result.model, tmp_path, ["onnx"], ["float32"], None, SILENT)[0]
    found = operators(artifact.path)
    kinds = {"Conv", "Gemm", "Softmax", "GlobalAveragePool", "Squeeze", "MaxPool", "Transpose", "Reshape", "Add",
             {"relu": "Relu", "relu6": "Clip", "hard_swish": "HardSwish"}[activation], "Relu"}  # fmt: skip
    assert {kind for kind, _ in found} <= kinds
    shortcuts = [layer for layer in model.layers if isinstance(layer, L.Add)]
    assert [len(read) for kind, read in found if kind == "Add"] == [2] * len(shortcuts), "an Add that is no shortcut"
    assert len(shortcuts) > 0
    assert sum(kind == "Transpose" for kind, _ in found) == 1, "only the one from NHWC at the input"
    samples = {model.inputs[0].name: pictures(30, (16, 16, 3))}
    rows = verification.prove(result.model, model, [artifact], samples, "test", recipe.Verify())
    assert all(row.passed for row in rows)


def test_selu_is_native_in_onnx_and_exact_by_integers_in_tflite(tmp_path):
    x = np.random.default_rng(0).normal(size=(300, 24)).astype("float32")
    given = keras.Input((24,), name="vector")
    y = given
    for _ in range(2):
        y = L.Dense(32, activation="selu", kernel_initializer="lecun_normal")(y)
    model = networks.randomise(keras.Model(given, L.Softmax()(L.Dense(4)(y))))
    files = exporting.write(model, tmp_path, ["tflite", "onnx"], ["float32", "int8"], {"vector": x}, SILENT)
    rows = verification.prove(model, model, files, {"vector": x}, "test", recipe.Verify())
    assert all(row.passed for row in rows)
    assert "Selu" in {kind for kind, _ in operators(tmp_path / "model.onnx")}
    written = [o.kind for o in tflite_operators(tmp_path / "model_int8.tflite")]
    declared = [o.kind for o in arena.as_converted(keras_operators(model))]
    assert Counter(written) == Counter(declared)


@pytest.mark.parametrize("names", [("a1", "a2", "b"), ("b1", "b2", "a"), ("dense_2", "dense_3", "dense_10")])
@pytest.mark.parametrize("is_first", [True, False])
def test_branches_run_in_the_order_of_their_names_and_sums_are_plain(names, is_first, tmp_path):
    x = keras.Input((6,), name="x")
    long, short = L.Dense(4, name=names[1])(L.Dense(5, "relu", name=names[0])(x)), L.Dense(4, name=names[2])(x)
    total = L.Add(name="sum")([long, short] if is_first else [short, long])
    model = networks.randomise(keras.Model(x, L.Softmax(name="y")(total)))
    samples = {"x": np.random.default_rng(0).normal(size=(20, 6)).astype("float32")}
    exporting.write(model, tmp_path, ["tflite"], ["int8"], samples, SILENT)
    written = [(o.kind, o.output_shape) for o in tflite_operators(tmp_path / "model_int8.tflite")]
    assert written == [(o.kind, o.output_shape) for o in arena.as_converted(keras_operators(model))]


def test_a_bias_is_fused_where_a_map_is_one_pixel(tmp_path):
    x = keras.Input((1, 1, 3), name="x")
    y = L.Conv2D(4, 1, activation="relu", name="a")(x)
    model = networks.randomise(keras.Model(x, L.Dense(2)(L.Flatten()(L.Add()([y, L.Conv2D(4, 1, name="b")(y)])))))
    samples = {"x": np.random.default_rng(0).normal(size=(20, 1, 1, 3)).astype("float32")}
    exporting.write(model, tmp_path, ["tflite"], ["int8"], samples, SILENT)
    kinds = [o.kind for o in tflite_operators(tmp_path / "model_int8.tflite")]
    assert kinds == ["input", "conv", "conv", "add", "dense"]


# ---- other shapes of models


def two_by_two():
    """Two inputs and two outputs, none in alphabetical order, the outputs of equal shape."""
    z, a = keras.Input((4,), name="z_in"), keras.Input((4,), name="a_in")
    return networks.randomise(
        keras.Model([z, a], [L.Dense(3, name="z_out")(z), L.Dense(3, name="a_out")(L.Concatenate()([z, a]))])
    )


def nested_by_name():
    z, a = keras.Input((4,), name="z_in"), keras.Input((4,), name="a_in")
    outputs = {"second": L.Dense(3, name="z_out")(z), "first": L.Dense(3, name="a_out")(L.Concatenate()([z, a]))}
    return networks.randomise(keras.Model({"z_in": z, "a_in": a}, outputs))


def in_lists():
    """One input and one output, each in a list, as functional models often have them."""
    x = keras.Input((4,), name="z_in")
    return networks.randomise(keras.Model([x], [L.Dense(3, name="only")(x)]))


def sequential():
    return networks.randomise(keras.Sequential([keras.Input((4,), name="z_in"), L.Dense(3)]))


@pytest.mark.parametrize("build", [in_lists, sequential])
def test_models_that_are_no_plain_functional_ones(build, tmp_path):
    built = build()
    model = keras_runtime.functional(built)
    x = {"z_in": np.random.default_rng(0).normal(size=(20, 4)).astype("float32")}
    files = exporting.write(model, tmp_path, TARGETS, ["float32"], x, SILENT)
    assert all(row.passed for row in verification.prove(model, built, files, x, "test", recipe.Verify()))


@pytest.mark.parametrize(("build", "names"), [(two_by_two, ("z_out", "a_out")), (nested_by_name, ("first", "second"))])
def test_several_inputs_and_outputs_keep_names_and_order(build, names, tmp_path):
    model = build()
    rng = np.random.default_rng(0)
    x = {name: rng.normal(size=(20, 4)).astype("float32") for name in ("z_in", "a_in")}
    files = exporting.write(model, tmp_path, TARGETS, ["float32", "int8"], x, SILENT)
    rows = verification.prove(model, model, files, x, "test", recipe.Verify())
    assert all(row.passed for row in rows)
    assert {tuple(t.name for t in f.signature.outputs) for f in files} == {names}


def test_dense_over_the_last_axis_of_an_image(tmp_path):
    x = inputs = keras.Input((4, 4, 3), name="pixels")
    x = L.Dense(3)(L.Dense(5, activation="relu")(x))
    model = networks.randomise(keras.Model(inputs, x))
    samples = {"pixels": pictures(20, (4, 4, 3))}
    files = exporting.write(model, tmp_path, TARGETS, ["float32", "int8"], samples, SILENT)
    assert all(row.passed for row in verification.prove(model, model, files, samples, "test", recipe.Verify()))


# ---- what cannot be exported


def with_operation(operation):
    x = inputs = keras.Input((6, 6, 3), name="pixels")
    x = L.Conv2D(4, 3)(x)
    return keras.Model(inputs, L.GlobalAveragePooling2D()(operation(x)))


class Elementwise(L.Layer):
    """A layer of somebody else: one operation of TensorFlow."""

    def __init__(self, operation, **options):
        super().__init__(**options)
        self.operation = operation

    def call(self, x):
        return self.operation(x)


def needs_flex():
    return with_operation(Elementwise(lambda x: keras.ops.erfinv(x * 0.01), name="strange"))


@pytest.mark.parametrize("file", FILES, ids=ids)
def test_an_operator_that_no_runtime_has_is_refused_in_one_line_that_names_its_layer(file, tmp_path):
    target, precision = file
    with pytest.raises(TargetError, match=rf"^(tflite|onnx) {precision}: layer 'strange': ") as raised:
        exporting.write(needs_flex(), tmp_path, [target], [precision], {"pixels": pictures(8, (6, 6, 3))}, SILENT)
    assert "\n" not in str(raised.value)
    assert "rfinv" in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_an_operation_that_is_no_layer_is_named_by_its_kind(tmp_path):
    inputs = keras.Input((8, 8, 1), name="x")
    x = keras.ops.erf(L.Conv2D(4, 3, name="stem")(inputs))
    model = keras.Model(inputs, L.Dense(3)(L.Flatten()(x)))
    with pytest.raises(TargetError, match=r"^tflite float32: operation 'erf\w*' \(Erf\) behind layer 'stem': 'tf.Erf'"):
        exporting.write(model, tmp_path, ["tflite"], ["float32"], None, SILENT)


@pytest.mark.parametrize("precision", ["int8", "int16x8"])
def test_an_operator_without_integer_kernel_is_refused(precision, tmp_path):
    inner = keras.Sequential([keras.Input((4, 4, 4)), Elementwise(keras.ops.cos, name="wave")], name="inner")
    model = with_operation(inner)
    samples = {"pixels": pictures(8, (6, 6, 3))}
    for io in precisions.IO:
        with pytest.raises(TargetError, match=rf"^tflite {precision}: layer 'wave'") as raised:
            exporting.write(model, tmp_path, ["tflite"], [precision], samples, SILENT, io=io)
        assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []
    assert len(exporting.write(model, tmp_path, TARGETS, ["float32"], None, SILENT)) == 2


def test_requests_are_checked_before_anything_is_written(tmp_path):
    model = separable()
    with pytest.raises(TargetError, match=r"target tflite: no precision 'int3'; tflite writes float32, float16, "):
        exporting.write(model, tmp_path, ["tflite"], ["float32", "int3"], SAMPLES, SILENT)
    with pytest.raises(UsageError, match=r"int8: needs calibration samples; give --calibration"):
        exporting.write(model, tmp_path, ["onnx"], ["float32", "int8"], None, SILENT)
    with pytest.raises(UsageError, match=r"targets: no 'onxx'.*Did you mean 'onnx'\?"):
        exporting.write(model, tmp_path, ["onxx"], ["float32"], None, SILENT)
    assert list(tmp_path.iterdir()) == []


def test_without_tensorflow_nothing_is_trained_in_vain(monkeypatch):
    monkeypatch.setattr(exporting, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"TensorFlow is not installed.*pip install tensorflow.*edgeml export RUN"):
        exporting.check_request(["onnx"], ["float32"], calibrated=True)


def test_a_needed_file_that_was_not_asked_for_does_not_stay(tmp_path):
    files = exporting.write(separable(), tmp_path, ["onnx"], ["int8"], SAMPLES, SILENT)
    assert [f.path.name for f in files] == ["model_int8.onnx"] == [p.name for p in tmp_path.iterdir()]


# ---- opening what is no model


@pytest.mark.parametrize("suffix", [".onnx", ".tflite", ".keras"])
@pytest.mark.parametrize("content", [b"", b"no model at all", b"\0\0\0\0TFL3" + b"\0" * 40])
def test_files_that_are_no_models(suffix, content, tmp_path):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"model\{suffix}") as raised:
        open_model(path)
    assert "\n" not in str(raised.value)


def test_files_that_no_runtime_opens(tmp_path):
    (tmp_path / "a.pt").write_bytes(b"x")
    with pytest.raises(DataError, match=r"no runtime opens '\.pt' files; \.keras, \.onnx, \.tflite are known"):
        open_model(tmp_path / "a.pt")
    with pytest.raises(DataError, match="no such file"):
        open_model(tmp_path / "a.onnx")


@pytest.mark.parametrize(("groups", "filters"), [(2, 8), (4, 4), (4, 8)])
def test_grouped_convolutions(groups, filters, tmp_path):
    keras.utils.set_random_seed(2)
    inputs = keras.Input((8, 8, 4), name="pixels")
    x = L.Conv2D(filters, 3, groups=groups, padding="same", strides=2)(inputs)
    model = keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling2D()(x)))
    x = np.random.default_rng(0).uniform(0, 1, (16, 8, 8, 4)).astype("float32")
    want = Reference(model).predict({"pixels": x})
    for artifact in exporting.write(model, tmp_path, TARGETS, ["float32"], None, SILENT):
        have = open_model(artifact.path).predict({"pixels": x})
        for name, values in want.items():
            assert parity.measure(values.astype(float), have[name].astype(float), parity.VALUES).range_error <= 1e-5
    convolutions = [n for n in onnx.load(tmp_path / "model.onnx").graph.node if n.op_type == "Conv"]
    assert [a.i for n in convolutions for a in n.attribute if a.name == "group"] == [groups]
