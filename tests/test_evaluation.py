"""What the report shows of single samples, and the baselines, for every kind of data."""

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from edgeml import evaluation, exporting
from edgeml.errors import GateError
from edgeml.exporting import Artifact
from edgeml.precisions import PRECISIONS
from edgeml.recipe import Verify
from edgeml.runtimes import Signature

NAMES = ("a", "b")
SHAPES = {"vectors": (5,), "windows": (130, 8), "images": (9, 9, 1)}


def split(shape, samples, seed=0):
    """Return samples whose class shows in their level."""
    y = np.arange(samples) % 2
    noise = np.random.default_rng(seed).uniform(0, 100, (samples, *shape))
    return (noise + 90 * y.reshape(-1, *[1] * len(shape))).astype("float32"), y


@pytest.mark.parametrize("kind", SHAPES)
def test_the_worst_mistakes_come_first_and_are_shown_as_what_they_are(kind):
    x, y = split(SHAPES[kind], 20)
    p = np.tile([0.9, 0.1], (20, 1))  # all said to be a
    p[7] = 0.99, 0.01
    rows = evaluation.worst(p, (x, y), NAMES, (0, 200))
    assert len(rows) == 10
    assert (rows[0]["label"], rows[0]["predicted"], rows[0]["confidence"]) == ("b", "a", 0.99)
    shown = {"vectors": {"vector", "left_out"}, "windows": {"lines"}, "images": {"png_base64"}}[kind]
    assert set(rows[0]) - {"label", "predicted", "confidence"} == shown


def test_a_window_is_thinned_out_and_scaled_by_each_channels_range():
    x, y = split((130, 8), 4)
    x[..., 1] = 7
    (row, *_) = evaluation.worst(np.tile([0.9, 0.1], (4, 1)), (x, y), NAMES, (0, 200))
    assert np.shape(row["lines"]) == (evaluation.LINES, 44)
    assert np.min(row["lines"]) >= 0
    assert np.max(row["lines"]) <= 1
    assert set(row["lines"][1]) == {0}, "a constant channel"


def said_of(right, samples=200):
    """Return what says the class of all but the last samples, with 90 %, and the classes."""
    labels = np.arange(samples) % 2
    sure = np.stack([labels == 0, labels == 1], axis=1) * 0.8 + 0.1
    sure[right:] = sure[right:, ::-1]
    return sure, labels


def artifacts(**precisions):
    return [Artifact(Path(name), "tflite", one, None, Signature((), ())) for name, one in precisions.items()]


@pytest.mark.parametrize("precision", [p for p in PRECISIONS if p != "float32"])
@pytest.mark.parametrize("floats", ["a", evaluation.KERAS])
def test_every_precision_but_float32_has_a_gate_of_accuracy(precision, floats):
    (best, labels), (worse, _) = said_of(200), said_of(196)
    rows = evaluation.with_drops(evaluation.metrics({"b": worse}, labels), {"b": worse}, labels, {floats: best})
    says = rf"^b: test accuracy 98.00% \[.*\] is 2.00 \[-?\d.*\] points below float32 \({floats}\); .* Raise verify"
    with pytest.raises(GateError, match=rf"{says}.{precision}_max_accuracy_drop"):
        evaluation.check_drop(rows, artifacts(b=precision), Verify())
    evaluation.check_drop(rows, artifacts(b=precision), replace(Verify(), **{f"{precision}_max_accuracy_drop": 0.02}))


def test_each_file_states_calibration_and_what_it_falls_below_float32_with_an_interval():
    (sure, labels), (worse, _) = said_of(200), said_of(196)
    said = {"a": sure, "b": worse}
    first, second = evaluation.with_drops(evaluation.metrics(said, labels), said, labels, {"a": sure})
    assert first["calibration_error"] == pytest.approx(0.1)
    assert second["calibration_error"] == pytest.approx(0.08)
    assert "accuracy_drop" not in first
    assert (second["against"], second["accuracy_drop"]) == ("a", 0.02)
    low, high = second["accuracy_drop_interval_95"]
    assert -0.01 < low < 0.02 < high < 0.05
    evaluation.check_drop([first], artifacts(a="float32"), Verify())


def test_files_of_other_precisions_alone_are_held_against_the_keras_graph(tmp_path):
    x = keras.Input((4,), name="vector")
    model = keras.Model(x, keras.layers.Dense(3, activation="softmax", name="says")(x))
    fed = np.random.default_rng(0).normal(size=(60, 4)).astype("float32")
    labels = np.asarray(model(fed)).argmax(axis=1)
    files = exporting.write(model, tmp_path, ["tflite"], ["float16"], None, lambda event: None)
    asked = {"vector": fed}, labels, Verify(), model
    (row,) = evaluation.judged(files, *asked, split=evaluation.GIVEN)[1]
    assert (row["split"], row["against"], row["accuracy_drop"]) == ("given", "model.keras", 0.0)
    swapped = [weights[..., ::-1] for weights in model.get_weights()]
    model.set_weights(swapped)
    labels[:] = np.asarray(model(fed)).argmax(axis=1)
    with pytest.raises(GateError, match=r"^model_float16\.tflite: accuracy .* points below float32 \(model\.keras\)"):
        evaluation.judged(files, *asked, split=evaluation.GIVEN)
    with_float = exporting.write(model, tmp_path, ["tflite"], ["float32", "float16"], None, lambda event: None)
    assert [row.get("against") for row in evaluation.judged(with_float, *asked)[1]] == [None, "model.tflite"]


@pytest.mark.parametrize("shape", [*SHAPES.values(), (6000,), (5000, 2)], ids=str)
def test_baselines_take_every_shape(shape):
    majority, logistic = evaluation.baselines(split(shape, 60), split(shape, 40, seed=1), 2)
    assert majority["test_accuracy"] == 0.5
    assert logistic["test_accuracy"] > 0.9
