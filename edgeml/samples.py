"""Samples and labels from files, for models that bring no data set of their own."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml.errors import DataError
from edgeml.recipe import Data

IMAGE_SIZES = 3  # height, width, channels
LIKE = 8.0  # times wider or narrower than what they are held against: scaled otherwise
LEAST_COMMON = 0.75  # of the narrower range, within the wider: else moved
KEYS = ("samples", "x_test", "x", "x_train", "inputs")
TRUTH = ("y_test", "y", "y_train", "labels")  # what the classes of samples are called
PLAIN = ("y", "labels")  # those of samples without a suffix
SUFFIXED: dict[str, tuple[str, ...]] = {"x_test": ("y_test",), "x_train": ()}  # none that say something of new data
NUMBERS = "biuf"  # kinds of types
AS_WRITTEN = "Write names as {0}.astype(str), indices as {0}.astype(int)."


@dataclass(frozen=True, eq=False)
class Samples:
    """Raw inputs by name, (N, …) each, if there are some, and their classes as they stand there, as ``truth_name``.

    ``unused`` says why classes that lie there are not those of these inputs.
    """

    inputs: dict[str, NDArray[Any]] | None
    truth: NDArray[Any] | None = None
    truth_name: str = ""
    unused: str = ""


def check_range(x: NDArray[Any], like: NDArray[Any], what: str, like_what: str) -> None:
    """Hold the range of samples, called ``what``, against that of others.

    Raises:
        DataError: it is eight times wider or narrower, or lies elsewhere: 0 to 1 where 0 to 255 is due.
    """
    own, other = (float(np.ptp(values)) for values in (x, like))
    common = float(min(x.max(), like.max())) - float(max(x.min(), like.min()))
    if own * LIKE < other or other * LIKE < own or common < LEAST_COMMON * min(own, other):
        raise DataError(
            f"{what}: values from {x.min():g} to {x.max():g}; those of {like_what} go from {like.min():g} to"
            f" {like.max():g}. Give raw inputs, scaled as the model takes them."
        )


def read_samples(path: Path, inputs: Mapping[str, Sequence[int]], *, is_labelled: bool = True) -> Samples:
    """Read raw inputs from an ``.npz`` file or a folder of class folders; images take the model's input size.

    Args:
        path: the file, whose arrays bear the names of the inputs (of one input also one of ``KEYS``) and of ``TRUTH``,
            or the folder. Only classes of the same suffix belong to inputs, and those of training samples are unused.
        inputs: shapes behind the batch by name; of an image (H, W, C).
        is_labelled: whether classes are read, and not only named.

    Raises:
        DataError: nothing to read there, no array of a known name, or one of Python objects.
    """
    if path.is_dir():
        return _images(path, inputs)
    if not path.exists():
        raise DataError(f"{path}: no such file. Check the path.")
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path}: not an .npz file or a folder of class folders. Check the path.")
    try:
        with np.load(path, allow_pickle=False) as archive:
            taken = _taken(path, archive.files, inputs)
            arrays = {array: _array(path, archive, array) for array in dict.fromkeys(taken.values())}
            others = [name for name in archive.files if name not in taken.values()]
            name, unused = _truth_name(next(iter(arrays)), [name for name in TRUTH if name in others])
            truth = _array(path, archive, name) if name and is_labelled else None
            return Samples({name: arrays[array] for name, array in taken.items()}, truth, name, unused)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}). Write it again with numpy.savez.") from error


def _taken(path: Path, arrays: Sequence[str], inputs: Mapping[str, Sequence[int]]) -> dict[str, str]:
    """Return the array of each input."""
    if all(name in arrays for name in inputs):
        return {name: name for name in inputs}
    known = KEYS if len(inputs) == 1 else ()
    key = next((key for key in known if key in arrays), None)
    if key is None:
        due = f"one of {', '.join([*inputs, *known])} is" if known else f"{', '.join(inputs)} are"
        raise DataError(f"{path}: holds {', '.join(arrays)}; {due} due.")
    return dict.fromkeys(inputs, key)


def _array(path: Path, archive: Mapping[str, NDArray[Any]], name: str) -> NDArray[Any]:
    try:
        return archive[name]
    except ValueError as error:
        if "Object arrays" not in str(error):
            raise
        how = AS_WRITTEN.format(name) if name in TRUTH else f"Write it as {name}.astype('float32')."
        raise DataError(f"{path}: '{name}' holds Python objects; numbers or text are allowed. {how}") from error


def _truth_name(array: str, found: Sequence[str]) -> tuple[str, str]:
    """Return which of the classes ``found`` are of ``array``, or why none are."""
    due = SUFFIXED.get(array, PLAIN if array in KEYS else (*PLAIN, "y_test"))
    name = next((name for name in due if name in found), "")
    if name or not found:
        return name, ""
    if not due or found == ["y_train"]:
        return "", f"'{found[0]}' is of training samples, which say nothing of new data. Give x_test and y_test"
    return "", f"'{found[0]}' is not of '{array}', {' or '.join(due)} would be. Call it so if it is of these samples"


def _images(path: Path, inputs: Mapping[str, Sequence[int]]) -> Samples:
    from edgeml import data

    (name, shape), *others = inputs.items()
    if others or len(shape) != IMAGE_SIZES:
        sizes = ", ".join(f"'{name}' {tuple(shape)}" for name, shape in inputs.items())
        raise DataError(f"{path}: a folder has images; the model takes {sizes}. Give an .npz file.")
    height, _, channels = shape
    config = Data(source="image_folder", path=str(path), image_size=height, channels="gray" if channels == 1 else "rgb")
    found = data.load(config)
    return Samples({name: found.x}, np.array(found.labels)[found.y], "class folders")


def class_indices(
    truth: Any, samples: int, classes: int, labels: Sequence[str] | None = None, what: str = "truth"
) -> NDArray[np.int64]:
    """Return the class of each sample, (N,) from 0 on, of what was given for it and is called ``what``.

    Indices, (N,) or (N, 1), for two classes booleans, too; rows of a one and zeros, (N, K); or names among ``labels``.

    Raises:
        DataError: something else, or not as many.
    """
    found = np.asarray(truth)
    kind = found.dtype.kind
    found = found[:, 0] if found.ndim == 2 and found.shape[1] == 1 else found
    if kind == "O":
        raise DataError(f"{what}: holds Python objects; indices or text are allowed. {AS_WRITTEN.format('y')}")
    if found.shape == (samples, classes) and kind in NUMBERS:
        return _of_one_hot(found, what)
    if found.shape != (samples,):
        raise DataError(
            f"{what}: shape {found.shape}; one class for each of {samples} samples is due, (N,), or one-hot rows,"
            f" ({samples}, {classes}). Give the classes of these samples."
        )
    if kind == "U":
        return _of_names(found, labels or (), what)
    if kind == "b" and classes != 2:
        raise DataError(
            f"{what}: holds booleans; of {classes} classes the index of each is due. Give 0 to {classes - 1}."
        )
    strange = found[~np.isin(found, np.arange(classes))] if kind in NUMBERS else found
    if len(strange):
        raise DataError(
            f"{what}: holds other values than 0, 1, … {classes - 1}, such as {strange[0]}; the index of each class,"
            " one-hot rows or names among the labels are due. Number the classes in output order, from 0 on."
        )
    return found.astype(np.int64)


def _of_one_hot(rows: NDArray[Any], what: str) -> NDArray[np.int64]:
    if not (np.isin(rows, (0, 1)).all() and (rows.sum(axis=1) == 1).all()):
        raise DataError(
            f"{what}: shape {rows.shape} with rows that are not a single 1 among 0; one class a sample is due. Give its"
            " index, or one-hot rows."
        )
    return np.asarray(rows.argmax(axis=1), np.int64)


def _of_names(names: NDArray[Any], labels: Sequence[str], what: str) -> NDArray[np.int64]:
    strange = sorted(set(names.tolist()) - set(labels))
    if strange:
        known = f"the labels, {', '.join(labels)}," if labels else "no labels"
        raise DataError(
            f"{what}: class '{strange[0]}' is none of the labels; {known} are given. Give all labels in output order."
        )
    places = {label: place for place, label in enumerate(labels)}
    return np.array([places[name] for name in names.tolist()], np.int64)


def read_labels(path: Path) -> list[str]:
    """Read class names, one a line.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        return [line.strip() for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as text ({error}). One class name a line is due.") from error
