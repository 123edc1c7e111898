"""The data sources: one contract for all, what each reads, and how bad input is refused."""

from __future__ import annotations

import dataclasses
import gzip
import os
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeml import data, kinds, plugins
from edgeml.errors import DataError, RecipeError
from edgeml.recipe import Data, Splits

RNG = np.random.default_rng(0)
GIVEN = Splits(test="given")


def pictures(samples: int, shape: tuple[int, ...]) -> np.ndarray:
    return RNG.integers(0, 256, (samples, *shape)).astype(np.uint8)


def labels(samples: int, classes: int = 2) -> np.ndarray:
    return np.arange(samples) % classes


def npz(path: Path, **arrays: np.ndarray) -> Data:
    np.savez(path / "data.npz", **arrays)
    return Data(source="npz", path=str(path / "data.npz"))


def image_folder(root: Path) -> Data:
    for k in range(16):
        path = root / ("cat", "dog")[k % 2] / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pictures(1, (12, 10, 3))[0]).save(path)
    return Data(source="image_folder", path=str(root), image_size=8)


def table(path: Path) -> Data:
    rows = [f"{n},{n % 7},{'cat' if n % 2 else 'dog'}" for n in range(24)]
    path.write_text("\n".join(["a,b,animal", *rows]))
    return Data(source="csv", path=str(path))


def fashion_mnist() -> Data:
    """Put a small set in Keras' download folder, in the original file format."""
    home = Path(os.environ["KERAS_HOME"], "datasets", "fashion-mnist")
    home.mkdir(parents=True, exist_ok=True)
    for part, each in (("train", 20), ("t10k", 1)):
        y = np.arange(10 * each, dtype=np.uint8) % 10
        x = pictures(len(y), (28, 28))
        x[:, 0, 0] = y
        (home / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(bytes(8) + y.tobytes()))
        (home / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(bytes(16) + x.tobytes()))
    return Data(source="keras_dataset", name="fashion_mnist", splits=GIVEN)


# One small real input for every file of edgeml/data: a source without one fails the contract.
SAMPLES = {
    "digits": lambda tmp: Data(source="digits"),
    "keras_dataset": lambda tmp: fashion_mnist(),
    "npz": lambda tmp: npz(tmp, x=pictures(20, (6, 7, 3)), y=labels(20)),
    "image_folder": lambda tmp: image_folder(tmp / "images"),
    "csv": lambda tmp: table(tmp / "table.csv"),
    "sklearn_table": lambda tmp: Data(source="sklearn_table", name="iris"),
}


@pytest.mark.parametrize("source", plugins.names("data"))
def test_every_source_keeps_the_contract(source, tmp_path):
    module = plugins.get("data", source)
    assert len(module.__doc__.splitlines()[0]) > 20
    assert set(getattr(module, "REQUIRES", ())) <= {"name", "path"}

    config = SAMPLES[source](tmp_path)
    first, again = data.load(config), data.load(config)

    assert first.x.ndim - 1 in kinds.KINDS
    assert first.x.dtype in (np.uint8, np.float32)
    assert first.x.flags.c_contiguous
    assert first.y.dtype == np.int64
    assert set(first.y) == set(range(len(first.labels)))
    assert first.value_range[0] <= first.x.min() < first.x.max() <= first.value_range[1]
    assert len(first.ids) in (0, len(first.x))
    assert len(first.x) == len(first.y)
    assert first.labels == again.labels
    np.testing.assert_array_equal(first.x, again.x)
    np.testing.assert_array_equal(first.y, again.y)


@pytest.mark.parametrize(
    ("source", "key"), [(s, k) for s in plugins.names("data") for k in getattr(plugins.get("data", s), "REQUIRES", ())]
)
def test_a_missing_key_is_named(source, key):
    with pytest.raises(RecipeError, match=rf"^data\.{key}: missing; source {source} needs it\."):
        data.load(Data(source=source))


# ---------------------------------------------------------------------------------------------- what load itself checks


def test_digits_are_raw():
    digits = data.load(Data(source="digits"))
    assert digits.x.shape == (1797, 8, 8, 1)
    assert digits.x.dtype == np.float32
    assert (digits.x.min(), digits.x.max()) == (0, 16)
    assert digits.value_range == (0, 16)
    assert digits.labels == tuple("0123456789")
    assert digits.test is None


def nan(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    x[3, 2, 1, 0], x[5, 0, 0, 0] = np.nan, np.inf
    return x


X, Y = pictures(20, (6, 6, 1)), labels(20)
REFUSED = {
    "nan": ({"x": nan(X), "y": Y}, "x: 2 values are NaN or infinite, the first at index (3, 2, 1, 0)"),
    "beyond float32": ({"x": X * 1e40, "y": Y}, "values are NaN or infinite"),
    "nan in test": ({"x_train": X * 1.0, "y_train": Y, "x_test": nan(X), "y_test": Y}, "x_test: 2 values are NaN"),
    "constant": ({"x": np.zeros_like(X), "y": Y}, "every value is 0"),
    "bare numbers": ({"x": X[:, 0, 0, 0], "y": Y}, "shape (20,), uint8; numbers of shape (N, F), (N, T, C) or (N, H,"),
    "text samples": ({"x": X.astype(str), "y": Y}, "(N, T, C) or (N, H, W, C) are needed"),
    "no samples": ({"x": X[:0], "y": Y[:0]}, "shape (0, 6, 6, 1) holds no values"),
    "too few labels": ({"x": X, "y": Y[:19]}, "shape (19,); one label for each of 20 samples"),
    "one-hot labels": ({"x": X, "y": np.eye(2)[Y]}, "One-hot rows: store y.argmax(axis=1)"),
    "float labels": ({"x": X, "y": Y * 1.0}, "y: type float64; whole numbers 0..K-1"),
    "text labels": (
        {"x": X, "y": np.array(["cat", "dog"])[Y]},
        "whole numbers 0..K-1 are needed. Names of classes go into",
    ),
    "negative label": ({"x": X, "y": Y - 1}, "label -1 at index 0; labels count from 0"),
    "label beyond names": (
        {"x": X, "y": Y + 1, "labels": np.array(["a", "b"])},
        "label 2 at index 1; 2 classes are named (a, b)",
    ),
    "test label beyond names": (
        {"x_train": X, "y_train": Y, "x_test": X, "y_test": Y + 7, "labels": np.array(["a", "b"])},
        "label 8 at index 21; 2 classes",
    ),
    "wild label": ({"x": X, "y": Y * 10**9}, "label 1000000000 among 20 samples"),
    "one class": ({"x": X, "y": Y * 0}, "only class '0' has samples; at least two"),
    "one class of two": ({"x": X, "y": Y * 0, "labels": np.array(["cat", "dog"])}, "only class 'cat' has samples"),
    "labels from 1": ({"x": X, "y": Y + 1}, "class '0' has 0 samples; each needs at least 8"),
    "same names": ({"x": X, "y": Y, "labels": np.array(["cat", "cat"])}, "two classes share a name (cat, cat)"),
    "small class": (
        {"x": X, "y": np.array([0] * 13 + [1] * 7), "labels": np.array(["cat", "dog"])},
        "class 'dog' has 7 samples; each needs at least 8, 2 for each of train, validation, blend, test. Add samples",
    ),
    "small class with test given": (
        {"x_train": X, "y_train": np.array([0] * 15 + [1] * 5), "x_test": X, "y_test": Y},
        "class '1' has 5 samples; each needs at least 6, 2 for each of train, validation, blend.",
    ),
    "four small classes": ({"x": X, "y": labels(20, 5)}, "(and 2 classes more)"),
    "test of another size": (
        {"x_train": X, "y_train": Y, "x_test": X[:, :5], "y_test": Y},
        "(5, 6, 1) uint8; (6, 6, 1) uint8, as in x",
    ),
    "test of another type": (
        {"x_train": X, "y_train": Y, "x_test": X * 1.0, "y_test": Y},
        "(6, 6, 1) float32; (6, 6, 1) uint8",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_unusable_arrays_are_refused(case, tmp_path):
    arrays, words = REFUSED[case]
    config = npz(tmp_path, **arrays)
    with pytest.raises(DataError) as refused:
        data.load(config)
    assert words in str(refused.value)
    assert str(refused.value).startswith(f"npz {config.path}")
    assert "\n" not in str(refused.value)


def test_a_source_that_leaves_its_stated_range_is_refused(tmp_path, monkeypatch):
    module = plugins.get("data", "npz")
    read = module.load
    monkeypatch.setattr(module, "load", lambda config: dataclasses.replace(read(config), value_range=(0.0, 1.0)))
    with pytest.raises(DataError, match=r"values reach from 0 to 255; the source states 0 to 1"):
        data.load(npz(tmp_path, x=X, y=Y))


def test_names_come_from_the_source_then_the_recipe_then_numbers(tmp_path):
    unnamed = npz(tmp_path, x=X, y=Y)
    assert data.load(unnamed).labels == ("0", "1")
    assert data.load(dataclasses.replace(unnamed, labels=("cat", "dog"))).labels == ("cat", "dog")
    named = npz(tmp_path, x=X, y=Y, labels=np.array(["left", "right"]))
    assert data.load(named).labels == ("left", "right")
    with pytest.raises(RecipeError, match=r"^data\.labels: given, but npz .* names its own: left, right"):
        data.load(dataclasses.replace(named, labels=("right", "left")))


def test_skew_missing_test_classes_and_channels_first_are_noted(tmp_path):
    y = np.array([0] * 32 + [1] * 8)
    loaded = data.load(
        npz(tmp_path, x_train=pictures(40, (3, 6, 6)), y_train=y, x_test=pictures(2, (3, 6, 6)), y_test=y[:2])
    )
    text = " | ".join(loaded.notes)
    assert "classes differ by 4.0 to 1 ('0' 32, '1' 8)" in text
    assert "no sample of 1" in text
    assert "look channels-first" in text
    assert data.load(npz(tmp_path, x=X[:, :, :, :1], y=np.array([0] * 12 + [1] * 8))).notes == ()


# ------------------------------------------------------------------------------------------------------------------ npz


def test_npz_reads_both_layouts_and_the_shapes_people_store(tmp_path):
    whole = data.load(npz(tmp_path, x=X[..., 0], y=Y[:, None].astype(np.uint8)))
    np.testing.assert_array_equal(whole.x, X)
    np.testing.assert_array_equal(whole.y, Y)
    assert whole.test is None
    assert whole.value_range == (0, 255)

    given = data.load(npz(tmp_path, x_train=X, y_train=Y, x_test=X[:4, :, :, 0], y_test=Y[:4, None]))
    np.testing.assert_array_equal(given.test[0], X[:4])
    np.testing.assert_array_equal(given.test[1], Y[:4])
    assert data.load(npz(tmp_path, x_train=X, y_train=Y)).test is None


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int32, np.uint16])
def test_npz_of_other_numbers_becomes_float32_with_its_own_range(dtype, tmp_path):
    loaded = data.load(npz(tmp_path, x=(X / 7).astype(dtype), y=Y))
    assert loaded.x.dtype == np.float32
    assert loaded.value_range == (float(loaded.x.min()), float(loaded.x.max()))
    assert loaded.notes == ("value range taken from the training values",)


def test_npz_that_cannot_be_read_is_named(tmp_path):
    path = tmp_path / "data.npz"
    config = Data(source="npz", path=str(path))
    with pytest.raises(DataError, match="no such file"):
        data.load(config)
    for content in (b"", b"not an archive", b"PK\x03\x04 half an archive"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"not readable \((?!.*pickle).+\); an \.npz archive of numbers"):
            data.load(config)
    with path.open("wb") as file:
        np.save(file, X)
    with pytest.raises(DataError, match="a single array"):
        data.load(config)
    np.savez(path, x=np.array([{"a": 1}], dtype=object), y=Y)
    with pytest.raises(DataError, match=r"not readable \(Object arrays cannot be loaded when allow_pickle=False"):
        data.load(config)


@pytest.mark.parametrize("keys", [("x",), ("x", "y", "z"), ("x_train", "y_train", "x_test"), ("images", "labels")])
def test_npz_with_other_keys_lists_what_it_found(keys, tmp_path):
    with pytest.raises(DataError, match=f"holds {', '.join(sorted(keys))}; x, y or x_train, y_train or x_test"):
        data.load(npz(tmp_path, **dict.fromkeys(keys, X)))


# -------------------------------------------------------------------------------------------------------- keras_dataset


def test_keras_dataset_brings_its_test_split():
    loaded = data.load(fashion_mnist())
    assert loaded.x.shape == (200, 28, 28, 1)
    np.testing.assert_array_equal(loaded.x[:, 0, 0, 0], loaded.y)
    assert loaded.test[0].shape == (10, 28, 28, 1)
    assert loaded.labels[9] == "ankle_boot"


def test_keras_dataset_without_internet_says_what_to_do(monkeypatch, capsys):
    for scheme in ("http", "https"):
        monkeypatch.setenv(f"{scheme}_proxy", "http://127.0.0.1:1")  # nothing listens there, so every download fails
    monkeypatch.setattr(urllib.request, "_opener", None)  # it keeps the proxies of the first download
    with pytest.raises(DataError) as refused:
        data.load(Data(source="keras_dataset", name="mnist"))
    message = str(refused.value)
    assert message.startswith("keras_dataset mnist: not downloaded (URL fetch failure on https://")
    assert message.endswith("--set data.source=npz --set data.path=FILE")
    assert "\n" not in message
    assert capsys.readouterr().out == ""


def test_keras_dataset_knows_its_names_and_labels():
    with pytest.raises(RecipeError, match=r"^data\.name: 'cifar_10'; .*Did you mean 'cifar10'\?"):
        data.load(Data(source="keras_dataset", name="cifar_10"))
    counts = {name: len(set(text.split())) for name, text in plugins.get("data", "keras_dataset").LABELS.items()}
    assert counts == {"mnist": 10, "fashion_mnist": 10, "cifar10": 10, "cifar100": 100}
