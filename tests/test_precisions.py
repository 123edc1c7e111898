"""Every file that there is, with integers or real numbers at its edges, on networks of several kinds."""

import keras
import networks
import numpy as np
import onnx
import pytest
from foreign import install
from networks import separable
from onnx import numpy_helper

from edgeml import arena, ensemble, exporting, file_bytes, parity, plugins, recipe, recipe_file, verification
from edgeml.errors import RecipeError, TargetError, UsageError
from edgeml.folding import fold_batch_norm
from edgeml.keras_operators import keras_operators
from edgeml.precisions import (
    FILES,
    IO,
    NATIVE,
    OWN,
    PRECISIONS,
    REAL,
    File,
    files,
    is_calibrated,
    is_deployed,
    refusal,
)
from edgeml.runtimes import open_model
from edgeml.runtimes.keras import Reference
from edgeml.targets import _scopes
from edgeml.tflite_operators import tflite_operators

L = keras.layers
CASES = [File(t, p, io) for t, p, _ in FILES for io in IO if io == NATIVE or PRECISIONS[p].is_integer]
SILENT = lambda event: None  # noqa: E731


def image():
    """With one kernel that is large enough for dynamic, and an activation without a 16-bit operator."""
    x = inputs = keras.Input((12, 12, 3), name="pixels")
    x = L.Activation("hard_silu")(L.BatchNormalization()(L.Conv2D(16, 3, strides=2, name="stem")(x)))
    x = L.ReLU(6)(L.BatchNormalization()(L.Conv2D(32, 3, use_bias=False, name="large")(x)))
    x = L.Dense(4, name="logits")(L.GlobalAveragePooling2D()(L.DepthwiseConv2D(3)(x)))
    return fold_batch_norm(networks.randomise(keras.Model(inputs, L.Softmax(name="scores")(x)))).model


def window():
    x = inputs = keras.Input((32, 3), name="window")
    x = L.ReLU()(L.BatchNormalization()(L.Conv1D(32, 5, strides=2, padding="same", use_bias=False)(x)))
    x = L.ReLU()(L.BatchNormalization()(L.SeparableConv1D(40, 3, padding="same")(L.MaxPooling1D(2)(x))))
    x = L.Dense(4)(L.GlobalAveragePooling1D()(x))
    return fold_batch_norm(networks.randomise(keras.Model(inputs, L.Softmax(name="scores")(x)))).model


def mixture(mean="arithmetic"):
    pair = [networks.separable("relu", seed=seed) for seed in (1, 2)]
    return ensemble.fold_ensemble(ensemble.compile_ensemble(pair, (0.6, 0.4), mean)).model


BUILT = {"image": image, "window": window, "mixture": mixture}


@pytest.fixture(scope="module", params=BUILT)
def network(request, tmp_path_factory):
    model = BUILT[request.param]()
    (tensor,) = model.inputs
    samples = {tensor.name: networks.pictures(120, tensor.shape[1:], seed=3)}
    found = {}
    for io in IO:
        precision = [p for p in PRECISIONS if io == NATIVE or PRECISIONS[p].is_integer]
        folder = tmp_path_factory.mktemp(f"{request.param}_{io}")
        for one in exporting.write(model, folder, [*OWN], precision, samples, SILENT, io=io):
            found[File(one.target, one.precision, io)] = one
    return request.param, model, samples, found


@pytest.mark.parametrize("file", CASES, ids="-".join)
def test_contract(network, file):
    _, model, samples, found = network
    artifact = found[file]
    rows = verification.prove(model, model, [artifact], samples, "test", recipe.Verify())
    assert all(row.passed for row in rows)
    row = networks.first_rows(rows)[1]
    assert row.passed
    assert (row.max_abs > 0) or file.precision == "dynamic"
    assert (artifact.quantization is None) is (file.precision == "float32")
    (given,), (said,) = artifact.signature.inputs, artifact.signature.outputs
    integer = {"int8": "int8", "int16x8": "int16"}.get(file.precision) if file.io == NATIVE else None
    if file.target == "onnx":
        assert (given.dtype, said.dtype) == ("uint8" if integer else "float32", "float32")
    else:
        assert given.dtype == said.dtype == (integer or "float32")
    assert (given.scale is None) is (integer is None)
    assert file.io == NATIVE or exporting.quantization_json(artifact)["input"] == {}


def test_a_warning_is_told(network):
    _, model, samples, found = network
    artifacts = [found[File("tflite", precision)] for precision in ("dynamic", "int8")]
    told = []
    gates = recipe.Verify(int8_warn_sqnr_db=150)
    rows = verification.prove(model, model, artifacts, samples, "test", gates, told.append)
    assert [event.message.rpartition(" SQNR ")[0] for event in told] == ["warning: model_int8.tflite:"]
    assert all(row.passed for row in rows)


def test_no_real_number_is_between_the_edges(network):
    for precision, size in (("int8", 1), ("int16x8", 2)):
        first, *inner, last = tflite_operators(network[3][File("tflite", precision, REAL)].path)
        assert (first.kind, inner[0].kind, last.kind) == ("input", "quantize", "dequantize")
        assert (first.bytes_per_element, last.bytes_per_element) == (4, 4)
        assert {one.bytes_per_element for one in inner} == {size}


def test_real_edges_change_no_integer(network):
    """Rounded by the file or by us: the same integers, in both runtimes."""
    name, _, samples, found = network
    for target in OWN:
        native, real = (open_model(found[File(target, "int8", io)].path).predict(samples) for io in IO)
        for output, values in native.items():
            np.testing.assert_allclose(values, real[output], atol=1e-6, err_msg=target)
    first, second = (open_model(found[File(t, "int8", REAL)].path).predict(samples) for t in OWN)
    differ = np.mean([np.any(first[key] != second[key], axis=1) for key in first])
    assert differ == 0 or name == "image"  # HardSwish: 16-bit fixed point in LiteRT, float in onnxruntime


def test_weights_are_stored_as_said(network):
    name, model, _, found = network
    size = {(t, p): found[File(t, p)].path.stat().st_size for t, p, _ in FILES}
    scalars = sum(o.weights for o in keras_operators(model))
    large = sum(o.weights for o in keras_operators(model) if o.weights >= PRECISIONS["dynamic"].least)
    saved = size["tflite", "float32"] - size["tflite", "dynamic"]
    assert saved <= 3 * large
    assert saved >= 2 * large  # less the scales of channels
    assert (large > 0) is (name != "mixture")
    assert size["tflite", "float32"] - size["tflite", "float16"] <= 2 * scalars + 500
    halves = [numpy_helper.to_array(t) for t in onnx.load(found[File("onnx", "float16")].path).graph.initializer]
    assert 0.8 * scalars <= sum(array.size for array in halves if array.dtype == np.float16) <= scalars


def test_predicted_bytes_and_arena_hold_for_real_edges(network):
    _, model, _, found = network
    operators = keras_operators(model)
    for file in (case for case in CASES if case.io == REAL):
        both = {io: file_bytes.file_bytes(operators, [file._replace(io=io)]) for io in IO}
        added = both[REAL][file.target][file.precision] - both[NATIVE][file.target][file.precision]
        due = found[file].path.stat().st_size - found[file._replace(io=NATIVE)].path.stat().st_size
        assert added == pytest.approx(due, abs=64)  # the end of a file is padded
    native, real = (
        arena.file_arena_bytes(tflite_operators(found[File("tflite", "int8", io)].path)) for io in (NATIVE, REAL)
    )
    assert real > native
    assert arena.arena_bytes(operators, has_float_edges=True) - arena.arena_bytes(operators) == real - native


@pytest.mark.parametrize("precision", ["int8", "int16x8"])
@pytest.mark.parametrize("activation", ["selu", "hard_silu", "hard_sigmoid", "relu6", "tanh", "sigmoid"])
def test_activations_by_integers(activation, precision, tmp_path):
    """Raw values, not probabilities: they hide nothing. Weights of 8 bits alone leave 36 to 42 dB."""
    x = inputs = keras.Input((8, 8, 3), name="pixels")
    x = L.Activation(activation)(L.Conv2D(8, 3)(x))
    model = networks.randomise(keras.Model(inputs, L.Dense(5, name="values")(L.Flatten()(x))))
    samples = {"pixels": networks.pictures(60, (8, 8, 3))}
    written = exporting.write(model, tmp_path, ["tflite"], [precision], samples, SILENT)
    gates = recipe.Verify(int16x8_min_sqnr_db=25)
    rows = verification.prove(model, model, written, samples, "test", gates)
    assert min(row.sqnr_db for row in rows if row.gate == precision) > 25  # what all rows share is no signal


def test_an_operator_that_tensorflow_has_not_is_found_in_its_layer(tmp_path):
    """PRELU is the converter's own: no operation of the graph is called so."""
    x = inputs = keras.Input((8, 8, 3), name="pixels")
    x = L.PReLU(shared_axes=[1, 2], name="bent")(L.Conv2D(8, 3)(x))
    model = networks.randomise(keras.Model(inputs, L.GlobalAveragePooling2D()(x)))
    with pytest.raises(TargetError, match=r"^tflite int16x8: layer 'bent': Quantization to 16x8-bit not yet supported"):
        exporting.write(model, tmp_path, ["tflite"], ["int16x8"], {"pixels": networks.pictures(8, (8, 8, 3))}, SILENT)


def test_a_geometric_mean_in_every_precision(tmp_path):
    model, samples = mixture("geometric"), {"pixels": networks.pictures(60)}
    written = exporting.write(model, tmp_path, [*OWN], ["float16", "dynamic", "int8"], samples, SILENT)
    assert all(row.passed for row in verification.prove(model, model, written, samples, "test", recipe.Verify()))


# ---- what is written, and what is refused


def test_the_table_is_what_targets_write():
    writers = [name for name in plugins.names("targets") if not is_deployed(name)]
    assert {name: plugins.get("targets", name).PRECISIONS for name in writers} == dict(OWN)


def test_each_target_writes_what_it_has():
    assert files(["tflite", "onnx"], ["float32", "dynamic"]) == (
        File("tflite", "float32"), File("tflite", "dynamic"), File("onnx", "float32"))  # fmt: skip
    assert refusal(["tflite", "onnx"], ["float32", "dynamic"]) is None
    assert recipe.Export(precision=("int16x8", "int8"), io=REAL).files == (
        File("tflite", "int16x8", REAL), File("tflite", "int8", REAL), File("onnx", "int8", REAL))  # fmt: skip


@pytest.mark.parametrize(
    ("targets", "precision", "said"),
    [
        (["onnx"], ["float32", "dynamic"], "target onnx: no precision 'dynamic'; onnx writes float32, float16, int8."),
        (["tflite", "onnx"], ["int4"], "targets tflite, onnx: no precision 'int4'; tflite writes float32, float16,"),
        (["tflite", "onnx"], ["dynamic", "int16x8"], "target onnx: writes none of dynamic, int16x8; float32, float16"),
    ],
)
def test_what_nobody_writes_is_refused(targets, precision, said, tmp_path):
    assert refusal(targets, precision).startswith(said)
    with pytest.raises(TargetError) as raised:
        exporting.write(image(), tmp_path, targets, precision, {"pixels": networks.pictures(4)}, SILENT)
    assert str(raised.value).startswith(said)
    assert list(tmp_path.iterdir()) == []


def test_requests_that_lack_something():
    with pytest.raises(UsageError, match=r"^int16x8: needs calibration samples"):
        exporting.check_request(["tflite"], ["float32", "int16x8"], calibrated=False)
    with pytest.raises(UsageError, match=r"^io: got 'uint8'; native or float32 is allowed\."):
        exporting.check_request(["tflite"], ["int8"], calibrated=True, io="uint8")
    exporting.check_request(["tflite"], ["float16", "dynamic"], calibrated=False)
    assert [p for p in PRECISIONS if is_calibrated([p])] == ["int8", "int16x8"]


# ---- beyond the halves


@pytest.fixture(scope="module")
def overflowing():
    x = inputs = keras.Input((6, 6, 3), name="pixels")
    x = L.Conv2D(4, 3, name="first")(x)
    x = L.Conv2D(16, 3, name="huge")(x)
    model = networks.randomise(keras.Model(inputs, L.GlobalAveragePooling2D(name="mean")(x)))
    kernel = model.get_layer("huge").kernel
    kernel.assign(1e5 * kernel.numpy())
    return model


def test_weights_beyond_the_halves_are_refused_by_layer_in_tflite(overflowing, tmp_path):
    with pytest.raises(TargetError, match=r"^tflite float16: layer 'huge' has weights beyond 65,504; halves end there"):
        exporting.write(overflowing, tmp_path, ["tflite"], ["float16"], None, SILENT)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("factor", [1.0, 1e-13])
def test_weights_beyond_the_halves_stay_float32_in_onnx(factor, overflowing, tmp_path):
    kernel = overflowing.get_layer("huge").kernel
    own = kernel.numpy()
    kernel.assign(factor * own)
    try:
        (artifact,) = exporting.write(overflowing, tmp_path, ["onnx"], ["float16"], None, SILENT)
        x = {"pixels": networks.pictures(20, (6, 6, 3))}
        expected, got = Reference(overflowing).predict(x)["mean"], open_model(artifact.path).predict(x)["mean"]
    finally:
        kernel.assign(own)
    assert parity.measure(expected.astype(float), got.astype(float), parity.VALUES).range_error < 2e-3
    kinds = {t.dims[0]: t.data_type for t in onnx.load(artifact.path).graph.initializer if len(t.dims) == 4}
    assert kinds == {4: onnx.TensorProto.FLOAT16, 16: onnx.TensorProto.FLOAT}


# ---- names of layers


class Named:
    """A model of which only the names of layers are asked."""

    name = "net"

    def __init__(self, *names):
        self.names = names

    def _flatten_layers(self):
        return [type("Layer", (), {"name": name}) for name in (self.name, *self.names)]


@pytest.mark.parametrize(
    ("path", "layer"),
    [
        ("net_1/conv_1/Relu;net_1/dense_1/BiasAdd", "conv"),
        ("net_1/conv_1_1/Relu", "conv_1"),
        ("net_1/inner_1/dense_1/MatMul", "dense"),
        ("StatefulPartitionedCall/net_1/dense_2/MatMul", "dense"),
        ("net/conv_1/Relu", "conv"),
        ("net_1/Relu", None),
        ("tfl.dequantize", None),
    ],
)
def test_a_path_names_its_layer(path, layer):
    assert _scopes.layer_of(Named("conv", "conv_1", "dense", "inner"), path) == layer


# ---- targets of others

COPIED = """
RUNTIME, SUFFIX, PRECISIONS, NEEDS = "litert", "_copied.tflite", ("float32",), {"float32": (("tflite", "float32"),)}


def export(model, precision, path, sources, calibration, batch=None, io="native"):
    path.write_bytes(sources["tflite", "float32"].read_bytes())
"""


def test_a_target_of_others_says_itself_what_it_writes(monkeypatch, tmp_path):
    install(monkeypatch, tmp_path / "package", "targets", "copied", COPIED)
    text = "schema_version: 1\nname: x\ndata: {source: digits}\nexport: {targets: [copied, onnx]}\n"
    asked = recipe_file.parse(text, "r.yaml").export
    assert asked.files == (File("copied", "float32"), File("onnx", "float32"), File("onnx", "int8"))
    with pytest.raises(RecipeError, match=r"copied: no precision 'int8'|copied writes float32"):
        recipe_file.parse(text.replace("[copied, onnx]", "copied, precision: int8"), "r.yaml")
    (one,) = exporting.write(
        fold_batch_norm(separable()).model, tmp_path, ["copied"], ["float32"], None, lambda event: None
    )
    assert one.path.name == "model_copied.tflite"
    assert one.path.stat().st_size > 1000
