"""Samples and labels from files, for models that bring no data set of their own."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml.errors import DataError
from edgeml.recipe import Data

KEYS = ("samples", "x_test", "x", "x_train", "inputs")


def read_samples(path: Path, input_shape: Sequence[int | None]) -> NDArray[Any]:
    """Read raw inputs from an ``.npz`` file or a folder of class folders; images take the model's input size.

    Raises:
        DataError: nothing to read there, or no array of a known name.
    """
    if path.is_dir():
        from edgeml import data

        height, channels = input_shape[1], input_shape[-1]
        config = Data(
            source="image_folder", path=str(path), image_size=height, channels="gray" if channels == 1 else "rgb"
        )
        return data.load(config).x
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path}: not an .npz file or a folder of class folders. Check the path.")
    try:
        with np.load(path, allow_pickle=False) as archive:
            name = next((key for key in KEYS if key in archive.files), None)
            if name is None:
                raise DataError(f"{path}: holds {', '.join(archive.files)}; one of {', '.join(KEYS)} is due.")
            values: NDArray[Any] = archive[name]
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}). Write it again with numpy.savez.") from error
    return values


def read_labels(path: Path) -> list[str]:
    """Read class names, one a line.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        return [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as text ({error}). One class name a line is due.") from error
