"""The ladder on real files: a network whose channels were spread apart falls, and climbs back to what float gives."""

import keras
import numpy as np
import pytest
from networks import L, pictures, randomise
from sklearn.datasets import load_digits
from spread_channels import spread

import edgeml
from edgeml import assembly, exporting, recipe, recipe_file
from edgeml.errors import DataError, TargetError, UsageError
from edgeml.folding import fold_batch_norm
from edgeml.folding.equalization import Equalized
from edgeml.folding.kernels import DENSE, DEPTHWISE
from edgeml.quantization import bias_correction, ladder
from edgeml.targets import tflite

CLASSES = 10


@pytest.fixture(scope="module")
def digits():
    """Train and blend, in [0, 16], (N, 8, 8, 1)."""
    bunch = load_digits()
    x, y = bunch.images[..., None].astype("float32"), bunch.target
    rows = np.random.default_rng(0).permutation(len(x))
    return (x[rows[:1200]], y[rows[:1200]]), (x[rows[1200:]], y[rows[1200:]])


@pytest.fixture(scope="module")
def trained(digits):
    """A small depthwise-separable network with relu, trained, folded."""
    keras.utils.set_random_seed(1)
    x = inputs = keras.Input((8, 8, 1), name="image")
    x = L.Rescaling(1 / 16)(x)
    x = _norm(L.Conv2D(16, 3, padding="same", use_bias=False, name="stem")(x))
    for number, width in enumerate((24, 32), 1):
        x = _norm(L.DepthwiseConv2D(3, padding="same", use_bias=False, name=f"depthwise_{number}")(x))
        x = _norm(L.Conv2D(width, 1, use_bias=False, name=f"pointwise_{number}")(x))
        x = L.MaxPooling2D(2)(x)
    x = L.Dense(CLASSES, name="logits")(L.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, L.Softmax(name="probabilities")(x))
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(*digits[0], epochs=12, batch_size=32, verbose=0)
    return fold_batch_norm(model).model


def _norm(x):
    return L.ReLU()(L.BatchNormalization(momentum=0.9)(x))


def climb(model, digits, steps=ladder.ORDER, limit=0.005):
    train, blend = digits
    held = ladder.exam(model, {"image": blend[0]}, blend[1])
    calibration = {"image": train[0][:256]}
    config = recipe.Quantize(max_accuracy_drop=limit, steps=steps)
    return held, ladder.climb(model, "int8", calibration, held, config, recipe.Verify())


def test_what_is_even_needs_no_step(trained, digits):
    held, found = climb(trained, digits)
    assert held.accuracy > 0.95
    assert [rung.name for rung in found.rungs] == ["ptq"]
    assert found.is_within
    assert found.model is trained


@pytest.mark.parametrize(("decades", "most"), [(1.5, 0.9), (2, 0.5)])
def test_a_spread_network_falls_and_equalization_brings_it_back(trained, digits, decades, most):
    held, found = climb(spread(trained, decades), digits)
    assert held.accuracy > 0.95
    ptq = found.rungs[0]
    assert ptq.accuracy < most, ptq
    assert not ptq.is_within
    assert found.quantization.method == "ptq + equalization"
    assert found.is_within
    assert abs(found.rungs[-1].accuracy - held.accuracy) <= 0.005


def test_a_network_within_another_is_spread_too_and_computes_the_same(trained, digits):
    outer = keras.Model(inputs := keras.Input((8, 8, 1), name="image"), trained(inputs))
    case = spread(outer, 2)
    before, after = (model.layers[1].get_layer("depthwise_1").kernel for model in (outer, case))
    assert np.abs(np.array(after)).max() > 10 * np.abs(np.array(before)).max()
    x = digits[1][0][:64]
    np.testing.assert_allclose(case.predict(x, verbose=0), outer.predict(x, verbose=0), atol=1e-5)


def test_layers_kept_in_float_are_named_and_help_where_nothing_else_may(trained, digits):
    _, found = climb(spread(trained, 2, names=("depthwise_1",)), digits, steps=("float_layers",))
    assert found.float_layers
    assert set(found.float_layers) <= {layer.name for layer in trained.layers}
    assert found.rungs[-1].what == ", ".join(found.float_layers)
    assert found.rungs[0].accuracy < 0.9
    assert found.is_within


@pytest.mark.parametrize("layer", ["stem", "depthwise", "pointwise", "dense", "values"])
def test_layers_kept_in_float_are_float_in_onnx_too(layer, tmp_path):
    """Onnxruntime quantizes float weights between integers as it opens a file: 46 % of a network's rows were equal."""
    x = inputs = keras.Input((8, 8, 2), name="image")
    x = L.Conv2D(8, 3, activation="relu", name="stem")(x)
    x = L.DepthwiseConv2D(3, activation="relu", name="depthwise")(x)
    x = L.Flatten()(L.Conv2D(12, 1, activation="relu", name="pointwise")(x))
    x = L.Dense(9, activation="relu", name="dense")(x)
    model = randomise(keras.Model(inputs, L.Dense(4, name="values")(x)))
    samples = {"image": pictures(128, (8, 8, 2))}
    content = tflite.with_float_layers(tflite.prepare(model, samples, None), model, (layer,))
    climbed = ladder.Climb(model, (layer,), (), {}, content, tflite.METHODS["int8"])
    files = exporting.write(model, tmp_path, ("tflite", "onnx"), ("int8",), samples, lambda event: None,
                            climbs={"int8": climbed})  # fmt: skip
    assert exporting.same_rows(files[1], files, samples)["equal"] == 128


def test_layers_are_not_kept_in_float_for_less_noise_alone(trained, digits):
    train, blend = digits
    held = ladder.exam(trained, {"image": blend[0]}, None)
    config, out_of_reach = recipe.Quantize(steps=("float_layers",)), recipe.Verify(int8_min_sqnr_db=90)
    found = ladder.climb(trained, "int8", {"image": train[0][:256]}, held, config, out_of_reach)
    ptq, tried = found.rungs
    assert tried.sqnr_db > ptq.sqnr_db
    assert not tried.is_kept
    assert found.float_layers == ()


@pytest.mark.parametrize(("drop", "says"), [(0.0056, "0.56 points below"), (-0.0056, "0.56 points above")])
def test_a_step_says_on_which_side_of_float_it_is(drop, says):
    rung = ladder.Rung("ptq", "", 0.9888, drop, 28.41, 0.999, 90, is_within=True, is_kept=True, seconds=1.0)
    assert ladder.line("int8", rung) == f"int8 ptq: 98.88% of 90, {says} float, 28.4 dB"


def test_a_step_that_makes_it_worse_is_not_kept(trained, digits, monkeypatch):
    def broken(model):
        return Equalized(randomise(keras.models.clone_model(model)), (("a", "b"),))

    monkeypatch.setattr("edgeml.folding.equalization.equalize", broken)
    model = spread(trained, 2)
    _, found = climb(model, digits, steps=("equalization",))
    assert [rung.is_kept for rung in found.rungs] == [True, False]
    assert found.model is model
    assert found.quantization.method == "ptq"
    assert not found.is_within


def uneven():
    """A network whose sums are small though one input is large: XNNPACK takes no factor above 256 between scales."""
    x = inputs = keras.Input((2,), name="vector")
    x = L.Dense(4, activation="relu", name="first")(x)
    model = keras.Model(inputs, L.Dense(2, name="last")(x))
    kernel = np.array([[0, 0, 0, 0], [100, 50, 70, 90]], "float32")
    model.set_weights([kernel, np.zeros(4, "float32"), np.ones((4, 2), "float32"), np.zeros(2, "float32")])
    return model, np.random.default_rng(0).uniform(0, (4000, 1e-3), (64, 2)).astype("float32")


def test_a_file_that_litert_cannot_open_is_a_step_that_is_not_kept():
    model, x = uneven()
    found = edgeml.quantize(model, "int8", x, steps=("float_layers",), gates=recipe.Verify(int8_min_sqnr_db=0))
    ptq, last = found.rungs
    assert (ptq.is_kept, ptq.is_within, ptq.accuracy, ptq.sqnr_db) == (False, False, None, None)
    assert "LiteRT cannot open it" in ptq.what
    assert last.is_kept
    assert "first" in found.float_layers
    assert found.method == "ptq + float_layers"


def test_where_litert_opens_no_step_it_is_said():
    model, x = uneven()
    with pytest.raises(TargetError, match=r"^tflite int8: LiteRT cannot open it: .*XNNPACK.*\. Export float32"):
        edgeml.quantize(model, "int8", x, steps=())


def test_a_file_without_a_ladder_says_it_too(tmp_path):
    model, x = uneven()
    with pytest.raises(TargetError, match=r"^tflite int8: what was written is refused: LiteRT cannot open it: "):
        exporting.write(model, tmp_path, ("tflite",), ("int8",), {"vector": x}, lambda event: None)


@pytest.mark.parametrize("is_nested", [False, True])  # a network of a search space lies within scaling
def test_bias_correction_takes_the_mean_error_off(is_nested):
    """With kernels rounded to int8, each channel of the corrected layer is right on average; before it was off."""
    x = inputs = keras.Input((6, 6, 4), name="image")
    x = L.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise")(x)
    model = randomise(keras.Model(inputs, x))
    if is_nested:
        model = keras.Model(outer := keras.Input((6, 6, 4), name="image"), model(L.Rescaling(0.5)(outer)))
    samples = pictures(64, (6, 6, 4)) + 3.0
    corrected, names = bias_correction.correct_biases(model, {"image": samples})
    assert names == ("depthwise",)
    (layer,) = (one for one in corrected._flatten_layers() if one.name == "depthwise")
    exact = model.predict(samples, verbose=0).mean(axis=(0, 1, 2))
    kernel = np.array(layer.kernel)
    layer.kernel.assign(bias_correction.rounded(kernel, DEPTHWISE))
    off = np.abs(corrected.predict(samples, verbose=0).mean(axis=(0, 1, 2)) - exact)
    before = np.abs((corrected.predict(samples, verbose=0) - np.array(layer.bias)).mean(axis=(0, 1, 2)) - exact)
    assert off.max() < 1e-5 < before.max()


def test_biases_of_layers_that_run_twice_or_within_a_layer_stay():
    x = keras.Input((6, 6, 4))
    inner = randomise(keras.Model(x, L.Conv2D(4, 1, name="pointwise")(x)))
    inputs = keras.Input((2, 6, 6, 4), name="image")
    each = keras.Model(inputs, L.TimeDistributed(inner)(inputs))
    twice = keras.Model(x, inner(inner(x)))
    for model, shape in ((each, (2, 6, 6, 4)), (twice, (6, 6, 4))):
        samples = {model.inputs[0].name: pictures(4, shape)}
        assert bias_correction.correct_biases(model, samples)[1] == ()


def test_rounded_kernels_are_those_of_the_file(trained, digits, tmp_path):
    from ai_edge_litert.interpreter import Interpreter

    content = edgeml.quantize(trained, "int8", digits[0][0][:64]).content
    reader = Interpreter(model_content=content)
    ours = np.rint(_in_steps(np.array(trained.get_layer("pointwise_1").kernel)))  # (1, 1, in, out)
    stored = [reader.get_tensor(t["index"]) for t in reader.get_tensor_details() if tuple(t["shape"]) == (24, 1, 1, 16)]
    assert len(stored) == 1
    np.testing.assert_array_equal(stored[0], ours.transpose(3, 0, 1, 2).astype("int8"))
    assert np.all(bias_correction.rounded(np.array([[0.5], [-1.0]]), DENSE) == np.rint([[63.5], [-127]]) / 127)


def _in_steps(kernel):
    return kernel / (np.abs(kernel).max(axis=(0, 1, 2)) / 127)


# ---- edgeml.quantize


def test_quantize_returns_a_file_and_what_it_cost(trained, digits, tmp_path):
    train, blend = digits
    made = edgeml.quantize(spread(trained, 2), "int8", train[0][:128], evaluation=blend)
    assert made.method == "ptq + equalization"
    assert made.is_within
    assert made.file_bytes == made.save(tmp_path / "m.tflite").stat().st_size
    assert made.calibration_samples == 128
    assert len(made.calibration_sha256) == 64
    assert [rung.samples for rung in made.rungs] == [len(blend[0])] * 2


@pytest.mark.parametrize(
    ("precision", "method"), [("int16x8", "ptq + equalization"), ("dynamic", "ptq")]
)  # kernels so small stay float in a dynamic file
def test_other_precisions_climb_too(trained, digits, precision, method):
    train, blend = digits
    made = edgeml.quantize(spread(trained, 2), precision, train[0][:128], evaluation=blend)
    assert made.is_within
    assert made.method == method


BAD = {
    "shape": (np.zeros((64, 8, 9, 1)), r"calibration: shape \(64, 8, 9, 1\); \(N, 8, 8, 1\) is due"),
    "too few": (np.ones((31, 8, 8, 1)), "calibration: 31 samples; at least 32 are due"),
    "nan": (np.full((64, 8, 8, 1), np.nan), "calibration: holds NaN"),
    "scaled": (np.random.default_rng(0).uniform(0, 1, (64, 8, 8, 1)), "calibration: values from .* go from 0 to 16"),
    "equal": (np.zeros((64, 8, 8, 1)), "calibration: every value is 0; samples that differ are due"),
    "text": (np.full((64, 8, 8, 1), "a"), "calibration: type <U1; numbers are due"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_calibration_data_is_said(trained, digits, case):
    values, message = BAD[case]
    with pytest.raises(DataError, match=message):
        edgeml.quantize(trained, "int8", values, train_data=digits[0])


def test_bad_arguments(trained, digits):
    with pytest.raises(UsageError, match="precision: got 'float16'; int8, int16x8, dynamic are allowed"):
        edgeml.quantize(trained, "float16", digits[0][0])
    with pytest.raises(UsageError, match="calibration: none given"):
        edgeml.quantize(trained)
    with pytest.raises(UsageError, match="steps: got 'qat'; a list of"):
        edgeml.quantize(trained, "int8", digits[0][0], steps="qat")
    for drop in (-1, 2, "0.5%", True):
        with pytest.raises(UsageError, match="max_accuracy_drop: got"):
            edgeml.quantize(trained, "int8", digits[0][0], max_accuracy_drop=drop)
    with pytest.raises(UsageError, match="model: got str"):
        edgeml.quantize("m.keras", "int8", digits[0][0])
    with pytest.raises(DataError, match="evaluation: got ndarray; a pair"):
        edgeml.quantize(trained, "int8", digits[0][0], evaluation=digits[1][0])
    with pytest.raises(DataError, match=r"calibration: values .* the evaluation samples go from 0 to 16"):
        edgeml.quantize(trained, "int8", digits[0][0] / 16, evaluation=digits[1])
    with pytest.raises(DataError, match="train_data: labels of shape"):
        edgeml.quantize(trained, "int8", digits[0][0], train_data=(digits[0][0], digits[0][1][:4]))
    with pytest.raises(UsageError, match="steps: got 'magic'"):
        edgeml.quantize(trained, "int8", digits[0][0], steps=["magic"])
    with pytest.raises(DataError, match="evaluation: labels from 1 to 10; 0 to 9 are due"):
        edgeml.quantize(trained, "int8", digits[0][0], evaluation=(digits[1][0], digits[1][1] + 1))


def sequential():
    layers = [L.Input((8, 8, 1)), L.Rescaling(1 / 255, name="scaling"), L.Conv2D(4, 3, activation="relu"), L.Flatten(),
              L.Dense(10, activation="softmax")]  # fmt: skip
    return keras.Sequential(layers)


def test_a_sequential_model_is_quantized():
    assert edgeml.quantize(sequential(), "int8", 255 * pictures(64, (8, 8, 1))).is_within


def test_calibration_samples_that_are_scaled_already_are_said():
    with pytest.raises(
        DataError, match=r"^calibration: values from .*, and layer 'scaling' multiplies them by 0.00392"
    ):
        edgeml.quantize(sequential(), "int8", pictures(64, (8, 8, 1)))


def test_calibration_samples_that_lie_elsewhere_are_said(trained, digits):
    with pytest.raises(
        DataError, match=r"^calibration: values from -8 to 8; those of the evaluation samples go from 0"
    ):
        edgeml.quantize(trained, "int8", digits[0][0][:64] - 8, evaluation=digits[1])


def test_a_constant_that_every_answer_holds_is_no_signal():
    """Of a regression to 300 ± 1 int8 gives three answers; its noise is a hundredth of 300, and all of the signal."""
    x = inputs = keras.Input((4,), name="vector")
    model = keras.Model(inputs, L.Rescaling(1, offset=300)(L.Dense(1, name="values")(x)))
    model.get_layer("values").set_weights([np.full((4, 1), 0.5, "float32"), np.zeros(1, "float32")])
    samples = np.random.default_rng(0).uniform(-1, 1, (64, 4)).astype("float32")
    made = edgeml.quantize(model, "int8", samples, steps=())
    assert not made.is_within
    assert made.rungs[0].sqnr_db < 15
    assert edgeml.quantize(model, "int16x8", samples, steps=()).is_within


@pytest.mark.parametrize(
    ("error", "message", "options"),
    [
        (DataError, "calibration: no array of numbers", {"calibration": (np.zeros((40, 8, 8, 1)), np.zeros(40))}),
        (UsageError, "steps: got 'None'", {"steps": None}),
        (UsageError, "gates: got dict; edgeml.recipe.Verify is due", {"gates": {}}),
        (DataError, "train_data: labels of shape .* Only the step 'qat' needs it", {"train_data": "floats"}),
    ],
)
def test_slips_are_told_in_one_line(trained, digits, error, message, options):
    x, y = digits[0]
    given = {"calibration": x[:64], **options}
    if given.get("train_data"):
        given["train_data"] = (x, y.astype("float32"))
    with pytest.raises(error, match=f"^{message}"):
        edgeml.quantize(trained, "int8", **given)


def test_a_layer_without_an_integer_kernel_is_named(digits):
    inputs = keras.Input((8, 8, 1), name="image")
    x = L.Activation(keras.ops.sin, name="wave")(inputs)
    model = keras.Model(inputs, L.Dense(3)(L.Flatten()(x)))
    with pytest.raises(TargetError, match="wave"):
        edgeml.quantize(model, "int8", digits[0][0])


# ---- what finalists are ranked by


def as_it_ships(model, digits, precision, **quantize):
    text = f"schema_version: 1\nname: x\ndata: {{source: digits}}\nexport: {{precision: {precision}}}\n"
    steps = "".join(f"quantize: {{{key}: {value}}}\n" for key, value in quantize.items())
    train, blend = digits
    asked = recipe_file.parse(text + steps, "r.yaml")
    return assembly.as_it_ships(asked, model, {"train": train, "blend": blend})


def test_where_all_files_are_int8_a_finalist_is_what_its_int8_file_says(trained, digits):
    broken, labels = spread(trained, 2), digits[1][1]
    plain = as_it_ships(broken, digits, "[float32, int8]")
    np.testing.assert_allclose(plain, as_it_ships(trained, digits, "[float32]"), atol=1e-5)
    fallen = as_it_ships(broken, digits, "int8", steps="[float_layers]")  # a step too slow for finalists: none is taken
    assert np.mean(fallen.argmax(axis=1) == labels) < 0.5 < np.mean(plain.argmax(axis=1) == labels)
    climbed = as_it_ships(broken, digits, "int8")
    assert np.mean(climbed.argmax(axis=1) == labels) > 0.95
    assert np.all(np.abs(climbed * 256 - np.rint(climbed * 256)) < 1e-3)  # integers: a softmax has the scale 1/256
