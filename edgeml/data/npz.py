"""Arrays in one ``.npz`` file: ``x``, ``y``; or ``x_train``, ``y_train`` and, given,, ``x_test``, ``y_test``.

``x``: images (N, H, W, C), or (N, H, W) grey; with ``kind: windows``, (N, T, C); vectors (N, F). uint8 is taken as
0..255, of any other number type the range is that of the (training) values.
``y``: (N,) or (N, 1) class indices. ``labels`` (optional): class names in label order.
Nothing is unpickled: a file of a stranger cannot run code.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml.data import Dataset
from edgeml.errors import DataError
from edgeml.recipe import Data

REQUIRES = ("path",)

SPLIT, WHOLE, TEST = {"x_train", "y_train"}, {"x", "y"}, {"x_test", "y_test"}
LAYOUTS = (WHOLE, SPLIT, SPLIT | TEST)  # each may also hold `labels`
UNREADABLE = (OSError, ValueError, EOFError, KeyError, NotImplementedError, MemoryError, zipfile.BadZipFile, zlib.error)


def load(config: Data) -> Dataset:
    """Load the arrays of ``config.path``.

    Raises:
        DataError: not a readable ``.npz`` file, or not with these keys.
    """
    path = Path(config.path or "").expanduser()
    arrays = _read(path)
    found = set(arrays) - {"labels"}
    if found not in LAYOUTS:
        allowed = " or ".join(", ".join(sorted(keys)) for keys in LAYOUTS)
        raise DataError(
            f"npz {path}: holds {', '.join(sorted(arrays)) or 'nothing'}; {allowed} (and labels). Rename them."
        )
    train = "x" if "x" in arrays else "x_train"
    x = _samples(arrays[train], config.kind)
    return Dataset(
        x=x,
        y=_indices(arrays[train.replace("x", "y", 1)]),
        labels=tuple(str(name) for name in arrays.get("labels", np.array([])).ravel()),
        value_range=_value_range(x),
        meaning="values as in the data file",
        test=(_samples(arrays["x_test"], config.kind), _indices(arrays["y_test"])) if "x_test" in arrays else None,
        notes=() if x.dtype == np.uint8 else ("value range taken from the training values",),
    )


def _read(path: Path) -> dict[str, NDArray[Any]]:
    """Read every array of the file, without pickle."""
    try:
        with path.open("rb") as stream:  # NumPy 2.4 leaves a path that it opened itself open where the zip is broken
            file = np.load(stream, allow_pickle=False)
            if isinstance(file, np.lib.npyio.NpzFile):
                return {key: file[key] for key in file.files}
    except FileNotFoundError as error:
        raise DataError(f"npz {path}: no such file; an .npz file is needed. Check data.path.") from error
    except UNREADABLE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if "pickled" in reason:  # NumPy takes any other file for a pickle and advises to load it unsafely
            reason = "not an .npz file"
        raise DataError(
            f"npz {path}: not readable ({reason}); an .npz archive of numbers is needed. Write it with numpy.savez."
        ) from error
    raise DataError(f"npz {path}: a single array; an archive with x and y is needed. Write it with numpy.savez.")


def _samples(x: NDArray[Any], kind: str) -> NDArray[Any]:
    """Give grey images (N, H, W) their channel axis."""
    return x[..., None] if x.ndim == 3 and kind != "windows" else x


def _indices(y: NDArray[Any]) -> NDArray[Any]:
    """Turn labels (N, 1), as CIFAR's are, into (N,)."""
    return y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y


def _value_range(x: NDArray[Any]) -> tuple[float, float]:
    """Return 0..255 for uint8, else the least and greatest value as float32 stores them."""
    if x.dtype == np.uint8 or x.dtype.kind not in "buif" or not x.size:  # the last two are reported by the caller
        return 0.0, 255.0
    with np.errstate(over="ignore"):
        return float(np.float32(x.min())), float(np.float32(x.max()))
