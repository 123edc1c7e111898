"""What an export puts around a model: scaling, layout, batch; several inputs and outputs; the sidecar file."""

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
from networks import export, pictures, separable
from sealing import resealed

import edgeml
from edgeml import bundle, framing, golden
from edgeml.errors import DataError, RecipeError, UsageError
from edgeml.runtimes import open_model

L = keras.layers
BOTH = ("float32", "int8")


def several(ids=True):
    """An image, a vector and perhaps word numbers in; probabilities, a number and an image out; all in dicts."""
    keras.utils.set_random_seed(0)
    image, vector = keras.Input((16, 12, 3), name="image"), keras.Input((5,), name="vector")
    inputs = {"image": image, "vector": vector}
    maps = L.ReLU()(L.BatchNormalization()(L.Conv2D(8, 3, padding="same", use_bias=False)(image)))
    parts = [L.GlobalAveragePooling2D()(maps), vector]
    if ids:
        inputs["ids"] = keras.Input((4,), dtype="int32", name="ids")
        parts.append(L.Flatten()(L.Embedding(7, 3, name="words")(inputs["ids"])))
    joined = L.Concatenate()(parts)
    outputs = {
        "mask": L.Conv2D(2, 1, name="mask")(maps), "age": L.Dense(1, name="age")(joined),
        "kind": L.Dense(4, activation="softmax", name="kind")(joined),
    }  # fmt: skip
    return keras.Model(inputs, outputs)


def inputs_of_several(count=70, ids=True):
    rng = np.random.default_rng(0)
    found = {"image": rng.uniform(0, 2, (count, 16, 12, 3)), "vector": rng.normal(size=(count, 5))}
    return found | ({"ids": rng.integers(0, 7, (count, 4))} if ids else {})


def verified(place):
    done = subprocess.run([sys.executable, "-I", place / "verify.py"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def nodes(path):
    return [node.op_type for node in onnx.load(path).graph.node]


# ---- several inputs and outputs


@pytest.fixture(scope="module")
def bundle_of_several(tmp_path_factory):
    place = tmp_path_factory.mktemp("several") / "net"
    return export(several(), place, samples=inputs_of_several(), labels=list("abcd"))


def test_several_inputs_and_outputs_keep_their_names_types_and_order(bundle_of_several):
    manifest = bundle.read(bundle_of_several)
    assert [(t["name"], t["shape"], t["dtype"], t["layout"]) for t in manifest["inputs"]] == [
        ("ids", [4], "int32", "NC"), ("image", [16, 12, 3], "float32", "NHWC"), ("vector", [5], "float32", "NC"),
    ]  # fmt: skip
    assert {t["name"]: t["shape"] for t in manifest["outputs"]} == {"age": [1], "kind": [4], "mask": [16, 12, 2]}
    assert (manifest["input"], manifest["output"]) == (manifest["inputs"][0], manifest["outputs"][0])
    assert manifest["task"] == {"kind": "classification", "labels": list("abcd"), "output": "kind"}
    assert manifest["cost"]["not_counted"] == ["words"]
    for name in ("model.onnx", "model.tflite"):
        signature = open_model(bundle_of_several / name).signature
        assert [t.name for t in signature.inputs] == ["ids", "image", "vector"]
        assert [t.name for t in signature.outputs] == [t["name"] for t in manifest["outputs"]]
    text = verified(bundle_of_several)
    assert text.count("ok ") == 2
    assert golden.keras_row(bundle_of_several)["passed"]
    assert len(edgeml.benchmark(bundle_of_several)[0]) == 2


def test_a_wrong_second_output_is_found(bundle_of_several, tmp_path):
    with np.load(bundle_of_several / "golden.npz") as archive:
        arrays = dict(archive)
    other = bundle.read(bundle_of_several)["outputs"][1]["name"]
    arrays[f"outputs/{other}"] = arrays[f"outputs/{other}"] + 0.5
    np.savez(tmp_path / "other.npz", **arrays)
    script = [sys.executable, "-I", bundle_of_several / "verify.py"]
    with resealed(bundle_of_several, "golden.npz", (tmp_path / "other.npz").read_bytes()):
        done = subprocess.run(script, capture_output=True, text=True, timeout=120)
    assert done.returncode == 6
    assert f"output '{other}': max difference 0.5" in done.stdout


def test_several_in_int8_and_batches(tmp_path):
    samples = inputs_of_several()
    place = export(
        several(), tmp_path / "net", precision=BOTH, samples=samples, calibration=samples, batch=3,
        gates=edgeml.recipe.Verify(int8_min_sqnr_db=10),
    )  # fmt: skip
    manifest = bundle.read(place)
    assert [entry["batch"] for entry in bundle.models(manifest)] == [3, 3, 3, 3]
    for entry in bundle.models(manifest):
        assert open_model(place / entry["path"]).signature.batch == 3
        if entry["precision"] == "int8":
            assert entry["quantization"]["inputs"].keys() == {"ids", "image", "vector"}
    assert verified(place).count("ok ") == 4
    done = subprocess.run(
        [sys.executable, "-I", place / "benchmark.py", "--rounds", "2"], capture_output=True, text=True
    )
    assert "3 samples a run" in done.stdout


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.pop("ids"), "samples: got image, vector; the model's inputs are ids, image, vector"),
        (lambda x: x.update(vector=x["vector"][:9]), "70 of 'ids', 70 of 'image', 9 of 'vector'; as many"),
        (lambda x: x.update(vector=x["vector"][:, :4]), r"samples for 'vector': shape \(70, 4\); \(N, 5\) is due"),
    ],
)
def test_samples_that_do_not_fit_several_inputs(change, message, tmp_path):
    samples = inputs_of_several()
    change(samples)
    with pytest.raises(DataError, match=message):
        export(several(), tmp_path / "net", samples=samples)


# ---- layout and scaling


def test_another_layout_costs_no_transposition_and_computes_the_same(tmp_path):
    samples, model = inputs_of_several(ids=False), several(ids=False)
    turned = samples | {"image": samples["image"].transpose(0, 3, 1, 2)}
    place = export(model, tmp_path / "net", samples=turned, layout="nchw")
    manifest = bundle.read(place)
    assert [(t["shape"], t["layout"]) for t in manifest["inputs"]] == [([3, 16, 12], "NCHW"), ([5], "NC")]
    assert "Transpose" not in nodes(place / "model.onnx")
    expected = model.predict(samples, verbose=0)
    for name in ("model.onnx", "model.tflite"):
        got = open_model(place / name).predict({k: v.astype("float32") for k, v in turned.items()})
        np.testing.assert_allclose(got["mask"], expected["mask"].transpose(0, 3, 1, 2), atol=1e-5)
        np.testing.assert_allclose(got["kind"], expected["kind"], atol=1e-6)
    assert verified(place).count("ok ") == 2


@pytest.mark.parametrize(("scale", "offset"), [(1 / 255, None), (Fraction(2, 255), -1), ([0.1, 0.2, 0.3], [1, 2, 3])])
def test_scaling_goes_into_the_first_layer(scale, offset, tmp_path):
    model, x = separable(), 255 * pictures(40)
    place = export(model, tmp_path / "net", samples=x, scale=scale, offset=offset)
    factor, shift = framing.numbers(scale, 1.0), framing.numbers(offset, 0.0)
    expected = model.predict((factor * x + shift).astype("float32"), verbose=0)
    for name in ("model.onnx", "model.tflite"):
        got = open_model(place / name).predict({model.inputs[0].name: x.astype("float32")})
        np.testing.assert_allclose(next(iter(got.values())), expected, atol=1e-5)
    if offset is None:
        found = nodes(place / "model.onnx")
        assert (found.count("Mul"), found.count("Add")) == (0, 1)  # the shortcut


def test_a_model_with_channels_first_is_turned_the_other_way():
    image = keras.Input((3, 6, 8))
    model = keras.Model(image, L.Conv2D(4, 3, data_format="channels_first", name="maps")(image))
    assert framing.layout_of(model) == "nchw"
    assert framing.framed(model, None, None, "nchw") is model
    turned = framing.framed(model, [1, 2, 3], None, "nhwc")
    assert (turned.input_shape, turned.output_shape) == ((None, 6, 8, 3), (None, 4, 6, 4))
    assert turned.output_names == ["maps"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "chw"}, "layout: got 'chw'; nhwc or nchw is allowed"),
        ({"scale": [1, 2]}, r"scale: got \[1.0, 2.0\]; 1 or 3 finite numbers are allowed"),
        ({"scale": np.inf}, "finite numbers are allowed"),
        ({"batch": 0}, "batch: got 0; a whole number of at least 1"),
    ],
)
def test_frames_that_do_not_fit(options, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        export(separable(), tmp_path / "net", **options)


def test_a_scale_for_several_inputs_is_refused(tmp_path):
    with pytest.raises(UsageError, match="the model has the inputs ids, image, vector; one is allowed"):
        export(several(), tmp_path / "net", scale=0.5)


# ---- the sidecar file and the flags


def test_a_sidecar_file_says_it_and_flags_win(tmp_path):
    source = tmp_path / "net.keras"
    assert framing.read(source, {}) == framing.Frame()
    framing.sidecar(source).write_text("labels: [cat, dog]\nscale: 1/255\noffset: [0, 0.5, 1]\nlayout: nchw\n")
    found = framing.read(source, {"layout": "nhwc", "scale": None, "offset": "-1"})
    assert (found.labels, found.layout) == (("cat", "dog"), "nhwc")
    assert (found.scale, found.offset) == ((Fraction(1, 255),), (Fraction(-1),))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("scales: 2", r"net.keras.yaml:1: scales: unknown key; did you mean 'scale'\? \(allowed: labels, "),
        ("labels: cat\nlayout: chw", r"net.keras.yaml:2: layout: got text 'chw'; nhwc or nchw is allowed"),
        ("- a", "got a list; keys are allowed"),
    ],
)
def test_a_mistake_in_a_sidecar_file_is_named(text, message, tmp_path):
    framing.sidecar(tmp_path / "net.keras").write_text(text)
    with pytest.raises(RecipeError, match=message):
        framing.read(tmp_path / "net.keras", {})


def test_the_command_takes_them(tmp_path):
    separable().save(tmp_path / "net.keras")
    np.savez(tmp_path / "few.npz", x_test=(255 * pictures(20)).transpose(0, 3, 1, 2))
    framing.sidecar(tmp_path / "net.keras").write_text("labels: [a, b, c, d, e]\n")
    ask = ["export", tmp_path / "net.keras", "--to", "onnx", "--samples", tmp_path / "few.npz", "--scale", "1/255",
           "--layout", "nchw", "--batch", "2", "--out", tmp_path / "out", "--json"]  # fmt: skip
    done = subprocess.run([Path(sys.executable).with_name("edgeml"), *ask], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    manifest = bundle.read(tmp_path / "out")
    assert manifest["task"]["labels"] == list("abcde")
    assert manifest["input"]["shape"] == [3, 12, 12]
    assert bundle.models(manifest)[0]["batch"] == 2
    assert nodes(tmp_path / "out" / "model.onnx")[0] == "Conv"
