"""Models as people write them: what is exported, and what is refused in one line, before a converter sees it."""

import contextlib

import keras
import numpy as np
import onnx
import pytest
from networks import export, pictures, separable

import edgeml
from edgeml import bundle, manifests
from edgeml.errors import DataError, ParityError, TargetError, UsageError
from edgeml.exportable import exportable
from edgeml.onnx_operators import onnx_operators
from edgeml.runtimes import open_model
from edgeml.runtimes.keras import output_names
from edgeml.tflite_operators import tflite_operators

L = keras.layers


def ending(layer, shape=(6, 4), head=True, **options):
    x = keras.Input(shape, name="x", **options)
    y = layer(x)
    return keras.Model(x, L.Dense(2, name="y")(L.Flatten()(y)) if head else y)


def nodes(place):
    return [node.op_type for node in onnx.load(place / "model.onnx").graph.node]


# ---- refused


@pytest.mark.parametrize(
    ("make", "precision", "message"),
    [
        (lambda: ending(L.LSTM(3, name="recur")), "int8", r"layer 'recur' \(LSTM\): is a loop, .* unroll=True"),
        (lambda: ending(L.Bidirectional(L.GRU(3))), "int8", "is a loop"),
        (lambda: ending(L.LSTM(3, stateful=True), batch_size=2), "float32", "keeps its state .* stateful=False"),
        (lambda: ending(L.Dense(3, dtype="mixed_float16", name="half")), "float32", "'half' .* computes in float16"),
        (lambda: ending(L.MelSpectrogram(name="mel"), (9000,)), "float32", "'mel' .* a Fourier transform"),
        (lambda: ending(L.Identity(name="same"), (3,), head=False), "float32", "'same' is the input 'x' as it is"),
        (lambda: ending(L.Dense(3, name="a name"), (3,)), "float32", "the name 'a name'; letters, digits"),
        (lambda: keras.Sequential([keras.Input((3,), name="my in"), L.Dense(2)]), "float32", "the name 'my in'"),
    ],
)  # fmt: skip
def test_what_no_file_can_hold_is_refused_by_name(make, precision, message):
    with pytest.raises(TargetError, match=message) as raised:
        exportable(make(), ("tflite", "onnx"), (precision,))
    assert "\n" not in str(raised.value)


def test_one_value_as_two_outputs_is_refused():
    x, dense = keras.Input((3,)), L.Dense(2, name="d")
    for outputs in ([dense(x), dense(x)], [y := dense(x), L.Dropout(0.5)(y)]):
        with pytest.raises(TargetError, match="is the output 'd' as it is; files hold a value once"):
            exportable(keras.Model(x, outputs), ("onnx",), ("float32",))


def test_a_spectrogram_goes_into_tflite_alone():
    model = ending(L.MelSpectrogram(fft_length=64), (500,))
    assert exportable(model, ("tflite",), ("float32",)) is model


def test_text_and_weights_that_are_no_numbers_are_refused():
    x = keras.Input((1,), dtype="string", name="words")
    with pytest.raises(TargetError, match="input 'words' is text"):
        exportable(keras.Model(x, L.Identity()(x)), ("onnx",), ("float32",))
    model = separable()
    model.get_layer("logits").bias.assign([np.nan] * 5)
    with pytest.raises(DataError, match=r"layer 'logits' \(Dense\): its 'bias' holds NaN"):
        exportable(model, ("onnx",), ("float32",))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": "1/255"}, "scale: got '1/255'; a number"),
        ({"offset": np.inf}, r"offset: got \[inf\]"),
        ({"batch": "3"}, "batch: got '3'; a whole number"),
        ({"labels": [1, 2, 3, 4, 5]}, r"labels: got \[1, 2, 3\]; names are due"),
        ({"labels": ["a", "b", "a", "c", "d"]}, "labels: got 'a' again"),
    ],
)
def test_wrong_values_from_python_are_named(options, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        export(separable(), tmp_path / "net", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_batch_other_than_the_models_own_is_refused(tmp_path):
    model = ending(L.Dense(3), (4,), batch_size=2)
    with pytest.raises(UsageError, match="batch: got 3; the model was built for 2"):
        export(model, tmp_path / "net", batch=3)
    place = export(model, tmp_path / "net")
    assert [entry["batch"] for entry in bundle.models(bundle.read(place))] == [2, 2]


def test_inputs_that_float32_does_not_carry_are_told_apart_from_a_wrong_file(tmp_path):
    """A network that turns roundings of its input into other outputs: no file could be equal to it."""
    keras.utils.set_random_seed(0)
    x = keras.Input((500,), name="x")
    model = keras.Model(x, keras.ops.sin(1e7 * L.Dense(8, name="d")(L.Dense(500)(x))))
    with pytest.raises(ParityError, match="One rounding of the inputs changes the model's own outputs by"):
        export(model, tmp_path / "net")
    assert list(tmp_path.iterdir()) == []


# ---- exported


@pytest.mark.parametrize("layer", [lambda: L.GRU(3), lambda: L.Bidirectional(L.LSTM(3, return_sequences=True))])
def test_loops_become_onnx_and_the_same_bytes_again(layer, tmp_path):
    keras.utils.set_random_seed(0)
    model = ending(layer())
    first, second = (export(model, tmp_path / name) for name in "ab")
    assert (first / "model.onnx").read_bytes() == (second / "model.onnx").read_bytes()
    assert bundle.read(first)["cost"]["not_counted"]
    assert edgeml.verify(first)["passed"]
    assert "is in no figure of multiply" in (first / "README.md").read_text()


def test_convolutions_over_one_axis_are_clean(tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((32, 4), name="x"), L.ZeroPadding1D((2, 0)), L.Conv1D(8, 3, activation="relu"),
            L.BatchNormalization(), L.Conv1D(8, 3, padding="causal"), L.ReLU(), L.SeparableConv1D(8, 3, padding="same"),
            L.MaxPooling1D(2), L.Conv1D(6, 3, strides=2, activation="relu"), L.GlobalAveragePooling1D(), L.Dense(3),
        ]
    )  # fmt: skip
    for layer in model.layers:
        if getattr(layer, "bias", None) is not None:
            layer.bias.assign(np.arange(layer.bias.shape[0]) / 10)
    found = nodes(export(model, tmp_path / "net", samples=np.random.default_rng(0).normal(size=(40, 32, 4))))
    # the input has one axis less than ONNX's Conv
    assert (found.count("Unsqueeze"), found.count("Pad"), found.count("Add")) == (1, 0, 0)
    assert found.count("Squeeze") <= 2


def test_an_embedding_in_int8(tmp_path):
    keras.utils.set_random_seed(0)
    ids = keras.Input((12,), dtype="int32", name="ids")
    layers = [
        L.Embedding(9, 4),
        L.Conv1D(8, 3, padding="causal", activation="relu"),
        L.GlobalMaxPooling1D(),
        L.Dense(3),
    ]
    model = keras.Sequential([ids, *layers])
    x = np.random.default_rng(0).integers(0, 9, (60, 12))
    place = export(model, tmp_path / "net", precision="float32,int8", samples=x, calibration=x)
    assert edgeml.verify(place)["passed"]
    assert "Pad" not in nodes(place)


def test_one_channel_needs_no_reshape(tmp_path):
    model = keras.Sequential(
        [keras.Input((8, 8, 1), name="x"), L.Conv2D(4, 3, padding="same"), L.ReLU(), L.Conv2D(1, 1)]
    )
    assert nodes(export(model, tmp_path / "net", layout="nchw", batch=3)) == ["Conv", "Relu", "Conv"]


def test_outputs_are_called_as_the_model_calls_them(tmp_path):
    x = keras.Input((3,), name="x")
    tower = L.Dense(2, name="tower")
    of_dict = keras.Model(x, {"two": L.Dense(2, name="d2")(x), "one": L.Dense(1, name="d1")(x)})
    assert output_names(of_dict) == ["one", "two"]
    twice = keras.Model(x, [tower(x), tower(L.ReLU()(x))])
    assert output_names(twice) == ["tower", "tower_1"]
    for name, model in (("dict", of_dict), ("twice", twice)):
        manifest = bundle.read(export(model, tmp_path / name))
        assert [one["name"] for one in manifest["outputs"]] == output_names(model)
        assert manifest["task"] == {"kind": "other", "labels": [], "output": output_names(model)[0]}
        assert "labels.txt" not in [entry["path"] for entry in manifest["files"]]


def test_an_output_of_one_number_a_sample(tmp_path):
    x = keras.Input((3,), name="x")
    place = export(keras.Model(x, L.Reshape(())(L.Dense(1)(x))), tmp_path / "net")
    assert bundle.read(place)["output"]["shape"] == []
    assert edgeml.verify(place)["passed"]


def test_layers_of_training_alone_are_no_obstacle():
    x = keras.Input((8, 8, 3))
    augmented = L.RandomZoom(0.1)(
        L.RandomRotation(0.1)(L.RandomTranslation(0.1, 0.1)(L.RandomFlip()(L.Rescaling(2.0)(x))))
    )
    model = keras.Model(x, L.Conv2D(4, 3)(augmented))
    folding = edgeml.fold_batch_norm(model)
    assert (len(folding.folded), folding.kept) == (1, ())
    samples = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype("float32")
    np.testing.assert_allclose(folding.model(samples, training=False), model(samples, training=False), atol=1e-5)


def test_the_lines_in_the_card_run_for_several_inputs_batches_and_integers(tmp_path):
    import re
    import subprocess
    import sys

    a, ids = keras.Input((8, 8, 3), name="a"), keras.Input((4,), dtype="int32", name="ids")
    joined = L.Concatenate()([L.GlobalAveragePooling2D()(L.Conv2D(4, 3)(a)), L.Flatten()(L.Embedding(5, 2)(ids))])
    model = keras.Model(
        [a, ids], [L.Dense(1, name="age")(joined), L.Dense(3, activation="softmax", name="kind")(joined)]
    )
    for options, prints in (({"batch": 3}, "0 1 2"), ({"layout": "nchw"}, "0 1 2")):
        place = export(model, tmp_path / next(iter(options)), **options)
        blocks = re.findall(r"```python\n(.*?)```", (place / "README.md").read_text(), re.DOTALL)
        assert len(blocks) == 2
        for block in blocks:
            done = subprocess.run([sys.executable, "-c", block], cwd=place, capture_output=True, text=True, timeout=60)
            assert done.stdout.strip() in prints.split(), done.stderr


@pytest.mark.parametrize("activation", ["gelu", "celu"])
def test_functions_that_onnx_lacks_are_written_by_those_it_has(activation, tmp_path):
    keras.utils.set_random_seed(0)
    layers = [L.Conv2D(4, 3), L.Activation(activation), L.GlobalAveragePooling2D(), L.Dense(2)]
    model = keras.Sequential([keras.Input((8, 8, 3), name="x"), *layers])
    place = export(model, tmp_path / "net", samples=np.random.default_rng(0).normal(0, 3, (50, 8, 8, 3)))
    assert {"gelu": "Erf", "celu": "Exp"}[activation] in nodes(place)


def test_an_operator_that_onnx_lacks_is_named(tmp_path):
    x = keras.Input((8,), name="x")
    model = keras.Model(x, L.Dense(2)(keras.ops.real(keras.ops.rfft(x)[0])))
    with pytest.raises(TargetError, match=r"onnx float32: '.*': '.*FFT.*' has no ONNX operator\. Change that"):
        export(model, tmp_path / "net", to="onnx")


@pytest.mark.parametrize("pooled", [L.AveragePooling2D(8), L.AveragePooling2D(4), L.GlobalAveragePooling2D()])
def test_int8_onnx_has_the_biases_of_int8_tflite(pooled, tmp_path):
    """tf2onnx dropped that of a Dense behind a Flatten, whose reshape TFLite leaves to that operator."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8, 8, 3), name="x"), L.Conv2D(4, 1), pooled, L.Flatten(), L.Dense(3)])
    model.layers[0].bias.assign([1, -2, 3, 4])
    model.layers[-1].bias.assign([5, -3, 2])
    x = np.random.default_rng(0).normal(size=(60, 8, 8, 3)).astype("float32")
    gates = edgeml.recipe.Verify(int8_min_sqnr_db=10, int8_min_cosine=0.9)  # means of noise vary little
    place = export(model, tmp_path / "net", precision="int8", samples=x, calibration=x, gates=gates)
    onnx_file, tflite_file = (open_model(place / f"model_int8.{kind}") for kind in ("onnx", "tflite"))
    (one,), (two,) = (file.predict({"x": x}).values() for file in (onnx_file, tflite_file))
    step = tflite_file.signature.outputs[0].scale
    assert np.abs(one - two).max() <= 2.01 * step  # rounding of a mean; without a bias of 5 it was 150
    counted = [sum(o.params for o in read(place / f"model_int8.{kind}"))
               for kind, read in (("onnx", onnx_operators), ("tflite", tflite_operators))]  # fmt: skip
    assert counted[0] == counted[1]


def test_a_lost_bias_is_found(monkeypatch, tmp_path):
    from edgeml.targets import onnx as target

    monkeypatch.setattr(target, "_biases_kept", contextlib.nullcontext)
    keras.utils.set_random_seed(0)
    layers = [L.Conv2D(4, 1), L.AveragePooling2D(8), L.Flatten(), L.Dense(3, bias_initializer="ones")]
    x = np.random.default_rng(0).normal(size=(40, 8, 8, 3)).astype("float32")
    place = export(keras.Sequential([keras.Input((8, 8, 3)), *layers]), tmp_path / "net", precision="int8",
                          samples=x, calibration=x)  # fmt: skip
    method = next(f["quantization"]["method"] for f in bundle.read(place)["files"] if f["path"] == "model_int8.onnx")
    assert method.startswith("static quantization by onnxruntime")
    assert "tf2onnx lost 1 of 1 biases of the int8 TFLite file, the first of 3 values" in method


def test_a_fixed_batch_is_counted_and_told_alike(tmp_path):
    place = export(separable(), tmp_path / "net", batch=4)
    macs = bundle.read(place)["cost"]["macs"]
    assert sum(o.macs for o in onnx_operators(place / "model.onnx")) == 4 * macs
    assert sum(o.macs for o in tflite_operators(place / "model.tflite")) == 4 * macs
    assert {row["batch"] for row in bundle.read(place)["latency"]} == {4}
    assert "for a batch of 4 (" in (place / "README.md").read_text()


def test_extremes_judge_a_file_unless_the_model_itself_is_all_rounding_there(monkeypatch, tmp_path):
    """Flat pictures make a network with tiny deviations amplify its own rounding; a file cannot be held to that."""
    model, x = separable(), pictures(60)
    place = export(model, tmp_path / "steady", to="onnx", samples=x)
    with np.load(place / "golden.npz") as archive:
        assert not archive["inputs"][48].any()  # the first extreme: zeros
    monkeypatch.setattr(manifests, "own_rounding", lambda reference, inputs, outputs: {"scores": np.eye(64)[48]})
    place = export(model, tmp_path / "unsteady", to="onnx", samples=x)
    with np.load(place / "golden.npz") as archive:
        assert archive["inputs"][48].any()
    assert edgeml.verify(place)["passed"]
    monkeypatch.setitem(bundle.OTHER_MACHINE_LIMITS, "float32", 1e-12)
    with pytest.raises(ParityError, match=r"model.onnx: on extreme inputs .* output 'scores' differs by"):
        export(model, tmp_path / "off", to="onnx", samples=x)
