"""ExportBest: the folder holds the bundle of the best epoch, whole, whatever comes after."""

import keras
import numpy as np
import pytest

import edgeml
from edgeml import bundle
from edgeml.errors import UsageError
from edgeml.parity import measure
from edgeml.runtimes import open_model

L = keras.layers
X = np.random.default_rng(0).uniform(0, 1, (64, 6, 6, 1)).astype("float32")
Y = (X.mean(axis=(1, 2, 3)) > 0.5).astype("int64")


def model():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((6, 6, 1), name="image")
    x = L.ReLU()(L.BatchNormalization(name="norm")(L.Conv2D(4, 3)(inputs)))
    made = keras.Model(inputs, L.Dense(2, "softmax")(L.GlobalAveragePooling2D()(x)))
    made.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
    return made


def callback(tmp_path, given, **options):
    made = edgeml.callbacks.ExportBest(tmp_path / "best", to=("onnx",), samples=X, **options)
    made.set_model(given)
    return made


def test_the_bundle_is_that_of_the_best_epoch(tmp_path):
    given = model()
    keep = callback(tmp_path, given, monitor="val_accuracy")
    keep.on_epoch_end(0, {"val_accuracy": 0.5})
    given.layers[1].kernel.assign(2 * given.layers[1].kernel)
    keep.on_epoch_end(1, {"val_accuracy": 0.7})
    want = given.predict(X, verbose=0)
    given.layers[1].kernel.assign(3 * given.layers[1].kernel)
    for epoch, value in enumerate((0.6, 0.7, float("nan")), 2):
        keep.on_epoch_end(epoch, {"val_accuracy": value})
    assert (keep.best, keep.best_epoch) == (0.7, 1)
    assert edgeml.verify(tmp_path / "best")["passed"]
    have = open_model(tmp_path / "best" / "model.onnx").predict({"image": X})
    assert measure(want, next(iter(have.values())), "softmax").range_error < 1e-5
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


def test_it_works_within_fit(tmp_path):
    given = model()
    keep = edgeml.callbacks.ExportBest(tmp_path / "best", monitor="loss", from_epoch=1, to=("onnx",), samples=X)
    given.fit(X, Y, epochs=2, verbose=0, callbacks=[keep])
    assert keep.best_epoch == 1
    assert bundle.read(tmp_path / "best")["folding"]["folded"] == ["norm"]


@pytest.mark.parametrize(("monitor", "mode", "sign"), [
    ("val_loss", "auto", -1), ("val_balanced_accuracy", "auto", 1), ("auc_2", "auto", 1), ("mae", "auto", -1),
    ("mae", "max", 1), ("accuracy", "min", -1),
])  # fmt: skip
def test_better_is_what_the_metric_means(monitor, mode, sign, tmp_path):
    assert edgeml.callbacks.ExportBest(tmp_path, monitor, mode).sign == sign


def test_what_cannot_be_is_refused(tmp_path):
    with pytest.raises(UsageError, match="mode 'best'; auto, min and max are allowed"):
        edgeml.callbacks.ExportBest(tmp_path, mode="best")
    with pytest.raises(UsageError, match="no metric 'val_loss' after epoch 0; there are accuracy, loss"):
        callback(tmp_path, model()).on_epoch_end(0, {"loss": 1.0, "accuracy": 0.5})
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="not a bundle"):
        callback(tmp_path, model()).on_epoch_end(0, {"val_loss": 1.0})
    assert (tmp_path / "best" / "thesis.txt").read_text() == "mine"
