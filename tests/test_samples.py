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
        ({"x_train": X[:2], "y_train": Y[:2], "x": X, "labels": Y}, "labels"),
        ({"image": X, "labels": Y}, "labels"),
        ({"image": X, "y_test": Y}, "y_test"),
    ],
)
def test_classes_lie_beside_samples(tmp_path, arrays, name):
    np.savez(tmp_path / "x.npz", **arrays)
    found = read_samples(tmp_path / "x.npz", SHAPE)
    assert len(found.inputs["image"]) == 6
    assert (found.truth_name, found.unused) == (name, "")
    np.testing.assert_array_equal(found.truth, Y)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"x_train": X, "y_train": Y}, "'y_train' is of training samples, which say nothing of new data"),
        ({"x_train": X, "y": Y}, "'y' is of training samples"),
        ({"x_test": X, "y_train": Y}, "'y_train' is of training samples"),
        ({"image": X, "y_train": Y}, "'y_train' is of training samples"),
        ({"x_test": X, "labels": Y}, "'labels' is not of 'x_test', y_test would be. Call it so"),
        ({"x": X, "y_test": Y}, "'y_test' is not of 'x', y or labels would be. Call it so"),
    ],
)
def test_classes_of_other_samples_are_not_used(tmp_path, arrays, says):
    np.savez(tmp_path / "x.npz", **arrays)
    found = read_samples(tmp_path / "x.npz", SHAPE)
    assert len(found.inputs["image"]) == 6
    assert (found.truth, found.truth_name) == (None, "")
    assert found.unused.startswith(says)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        (
            {"x": X, "y": Y.astype(object)},
            r"'y' holds Python objects; .* Write names as y.astype\(str\), indices",
        ),
        ({"x": X.astype(object), "y": Y}, r"'x' holds Python objects; .* Write it as x.astype\('float32'\)\.$"),
    ],
)
def test_arrays_of_python_objects_are_refused_with_what_to_do(tmp_path, arrays, says):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(DataError, match=says):
        read_samples(tmp_path / "x.npz", SHAPE)


def test_classes_that_nobody_asks_for_are_not_read(tmp_path):
    np.savez(tmp_path / "x.npz", x=X, y=Y.astype(object))
    found = read_samples(tmp_path / "x.npz", SHAPE, is_labelled=False)
    assert (found.truth, found.truth_name, found.unused) == (None, "y", "")


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


@pytest.mark.parametrize(
    "truth", [Y, Y[:, None], Y.astype("float32"), list("abcabc"), np.eye(3)[Y], np.eye(3, dtype=bool)[Y]]
)
def test_classes_become_indices(truth):
    found = class_indices(truth, 6, 3, "abc")
    assert found.tolist() == [0, 1, 2, 0, 1, 2]
    assert found.dtype == np.int64


def test_two_classes_may_be_booleans():
    assert class_indices(Y == 1, 6, 2).tolist() == [0, 1, 0, 0, 1, 0]


@pytest.mark.parametrize(
    ("truth", "says"),
    [
        (Y[:5], r"shape \(5,\); one class for each of 6 samples is due"),
        (Y + 1, "holds other values than 0, 1, … 2, such as 3;"),
        (Y == 1, "holds booleans; of 3 classes the index of each is due"),
        (np.eye(4)[Y], r"shape \(6, 4\); one class for each of 6 samples is due, .*, or one-hot rows, \(6, 3\)"),
        (np.eye(3)[Y] * 2, r"shape \(6, 3\) with rows that are not a single 1 among 0"),
        (np.ones((6, 3)), r"shape \(6, 3\) with rows that are not a single 1 among 0"),
        (Y.astype(object), "holds Python objects; .* y.astype"),
        (Y.astype("S"), "holds other values"),
        (Y + 0.5, "holds other values"),
        (np.full(6, np.nan), "holds other values"),
        (list("abcdef"), "class 'd' is none of the labels; the labels, a, b, c, are given"),
    ],
)
def test_what_is_no_class_is_named(truth, says):
    with pytest.raises(DataError, match=f"^truth: {says}"):
        class_indices(truth, 6, 3, "abc")
