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


@dataclass(frozen=True, eq=False)
class Samples:
    """Raw inputs by name, (N, …) each, if there are some, and their classes as they stand there, as ``truth_name``."""

    inputs: dict[str, NDArray[Any]] | None
    truth: NDArray[Any] | None = None
    truth_name: str = ""


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


def read_samples(path: Path, inputs: Mapping[str, Sequence[int]]) -> Samples:
    """Read raw inputs from an ``.npz`` file or a folder of class folders; images take the model's input size.

    Args:
        path: the file, whose arrays bear the names of the inputs (of one input also one of ``KEYS``) and of ``TRUTH``,
            or the folder.
        inputs: shapes behind the batch by name; of an image (H, W, C).

    Raises:
        DataError: nothing to read there, or no array of a known name.
    """
    if path.is_dir():
        return _images(path, inputs)
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path}: not an .npz file or a folder of class folders. Check the path.")
    try:
        with np.load(path, allow_pickle=False) as archive:
            name = next((name for name in TRUTH if name in archive.files and name not in inputs), "")
            truth = archive[name] if name else None
            if all(name in archive.files for name in inputs):
                return Samples({name: archive[name] for name in inputs}, truth, name)
            known = KEYS if len(inputs) == 1 else ()
            key = next((key for key in known if key in archive.files), None)
            if key is None:
                due = f"one of {', '.join([*inputs, *known])} is" if known else f"{', '.join(inputs)} are"
                raise DataError(f"{path}: holds {', '.join(archive.files)}; {due} due.")
            return Samples(dict.fromkeys(inputs, archive[key]), truth, name)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}). Write it again with numpy.savez.") from error


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


def class_indices(truth: Any, samples: int, classes: int, labels: Sequence[str] | None = None) -> NDArray[np.int64]:
    """Return the class of each sample, (N,) from 0 on, of indices, (N,) or (N, 1), or of names among ``labels``.

    Raises:
        DataError: something else, or not as many.
    """
    found = np.asarray(truth)
    found = found[:, 0] if found.ndim == 2 and found.shape[1] == 1 else found
    if found.shape != (samples,):
        raise DataError(f"truth: shape {found.shape}; one class for each of {samples} samples is due.")
    if found.dtype.kind == "U":
        strange = sorted(set(found.tolist()) - set(labels or ()))
        if strange:
            raise DataError(f"truth: class '{strange[0]}' is none of the labels. Give the labels in output order.")
        return np.array([list(labels or ()).index(name) for name in found.tolist()], np.int64)
    if found.dtype.kind not in "biuf" or not np.isin(found, np.arange(classes)).all():
        raise DataError(f"truth: holds other values than 0, 1, … {classes - 1}; the index of each class is due.")
    return found.astype(np.int64)


def read_labels(path: Path) -> list[str]:
    """Read class names, one a line.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        return [line.strip() for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as text ({error}). One class name a line is due.") from error
