"""Samples from files, and their classes."""

import numpy as np
import pytest
from PIL import Image

from edgeml.errors import DataError
from edgeml.samples import class_indices, read_samples

SHAPE = {"image": (4, 4, 1)}
X = np.zeros((6, 4, 4, 1), "float32")
Y = np.arange(6) % 3


@pytest.mark.parametrize(
    ("arrays", "name"),
    [
        ({"x": X, "y": Y}, "y"),
        ({"x_train": X[:2], "y_train": Y[:2], "x_test": X, "y_test": Y, "labels": np.array(["a", "b", "c"])}, "y_test"),
        ({"image": X, "labels": Y}, "labels"),
    ],
)
def test_classes_lie_beside_samples(tmp_path, arrays, name):
    np.savez(tmp_path / "x.npz", **arrays)
    found = read_samples(tmp_path / "x.npz", SHAPE)
    assert len(found.inputs["image"]) == 6
    assert found.truth_name == name
    np.testing.assert_array_equal(found.truth, Y)


def test_an_input_is_not_taken_for_classes(tmp_path):
    np.savez(tmp_path / "x.npz", y=X, x=X)
    found = read_samples(tmp_path / "x.npz", {"y": (4, 4, 1), "x": (4, 4, 1)})
    assert (list(found.inputs), found.truth) == (["y", "x"], None)


def test_folders_name_the_classes_of_images(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(8):
            Image.new("L", (4, 4), 30 * i).save(tmp_path / name / f"{i}.png")
    found = read_samples(tmp_path, SHAPE)
    assert sorted(found.truth) == ["cat"] * 8 + ["dog"] * 8
    assert class_indices(found.truth, 16, 3, ["dog", "fox", "cat"]).tolist() == [
        {"cat": 2, "dog": 0}[name] for name in found.truth
    ]


@pytest.mark.parametrize("truth", [Y, Y[:, None], Y.astype("float32"), list("abcabc")])
def test_classes_become_indices(truth):
    found = class_indices(truth, 6, 3, "abc")
    assert found.tolist() == [0, 1, 2, 0, 1, 2]
    assert found.dtype == np.int64


@pytest.mark.parametrize(
    ("truth", "says"),
    [
        (Y[:5], r"shape \(5,\); one class for each of 6 samples is due"),
        (Y + 1, "holds other values than 0, 1, … 2"),
        (Y + 0.5, "holds other values"),
        (np.full(6, np.nan), "holds other values"),
        (list("abcdef"), "class 'd' is none of the labels"),
    ],
)
def test_what_is_no_class_is_named(truth, says):
    with pytest.raises(DataError, match=f"^truth: {says}"):
        class_indices(truth, 6, 3, "abc")
