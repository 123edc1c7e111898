"""A recipe for one's own data in one line: sensible settings from what the data set is and what is asked for.

``--quick`` is made for five minutes on two cores with 500 to 3,000 small photos: smaller images, a short search, and
training bounded by time, nothing trained for comparison alone.

    .npz of x (N, F)      vectors    wide_deep, dense_selu               no random changes, one scale for all columns
            x (N, A, B)   windows    ds_cnn_1d beside these              likewise; where B < 8 or A >= 4 B
                          images     ds_cnn (and separable_cnn)          else: grey ones
            x (N, H, W, C)

``--set data.kind=…`` has the last word on (N, A, B).
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgeml.errors import DataError
from edgeml.kinds import NAMES
from edgeml.recipe import Augment, Data, Ensemble, Recipe, Search, Splits, Train
from edgeml.recipe_defaults import with_defaults
from edgeml.records import Budget, Limit

DEFAULT_PARAMS = 30_000
QUICK_MACS = 2_500_000
FILES = {".npz": "npz", ".csv": "csv"}
AUGMENTS = {"image_folder": Augment(flip="horizontal", shift=0.08, crop=0.15), "npz": Augment(shift=0.08)}  # of images
SPACES = {"vectors": ("wide_deep", "dense_selu"), "windows": ("ds_cnn_1d", "wide_deep", "dense_selu")}
NARROWEST_IMAGE, TALLEST_IMAGE = 8, 4  # pixels of width; times as high as wide: beyond, (N, A, B) are windows


def for_data(
    path: Path, *, max_params: int | None, max_macs: int | None, max_latency_ms: float | None, quick: bool,
    settings: Sequence[str] = (),
) -> Recipe:  # fmt: skip
    """Return the recipe for a folder of class folders, an ``.npz`` file, or a ``.csv`` table.

    ``settings``: KEY=VALUE that will be laid over it; those that say what samples are decide what it has to suit.

    Raises:
        DataError: the path is none of these.
    """
    is_folder = path.is_dir()
    if not is_folder and path.suffix not in FILES:
        raise DataError(
            f"{path}: not a recipe (.yaml), a folder of class folders, or an .npz or .csv file. Check the path."
        )
    if max_params is None and max_macs is None and max_latency_ms is None:
        max_params = DEFAULT_PARAMS
    if quick and max_macs is None:
        max_macs = QUICK_MACS
    limits = () if max_latency_ms is None else (Limit("host", "onnxruntime", "float32", max_latency_ms),)
    budget = Budget(params=max_params, macs=max_macs, latency=limits)
    has_test = is_folder and (path / "test").is_dir() and (path / "train").is_dir()
    splits = Splits(validation=0.12, blend=0.12, test="given" if has_test else 0.16)
    source = "image_folder" if is_folder else FILES[path.suffix]
    size = (64 if quick else 96) if is_folder else None
    kind = _kind(source, path, settings)
    is_image = kind == "images"
    data = Data(
        source=source, path=str(path), image_size=size, splits=splits, common_scale=not is_image,
        augment=AUGMENTS.get(source, Augment()) if is_image else Augment(),
        kind="windows" if _is_told(source, kind) else "auto",
    )  # fmt: skip
    made = Recipe(
        schema_version=1, name=_name(path), data=data, budget=budget,
        search=_search(quick) if is_image else _search_of_columns(kind, quick), train=_train(quick),
        ensemble=Ensemble(max_members=2, controls="never") if quick else Ensemble(),
    )  # fmt: skip
    return with_defaults(made)


def _kind(source: str, path: Path, settings: Sequence[str]) -> str:
    """Return what samples are; images where a file cannot be read, which is reported when it is loaded."""
    asked = dict(setting.partition("=")[::2] for setting in settings)
    if asked.get("data.kind") in NAMES:
        return asked["data.kind"]
    if source == "csv":
        return "windows" if "data.window" in asked else "vectors"
    shape = _sample_shape(path) if source == "npz" else ()
    if len(shape) == 2:
        height, width = shape
        return "windows" if width < NARROWEST_IMAGE or height >= TALLEST_IMAGE * width else "images"
    return "vectors" if len(shape) == 1 else "images"


def _is_told(source: str, kind: str) -> bool:
    """Tell whether a recipe has to say that samples are windows: an ``.npz`` of (N, A, B) is read as grey images."""
    return source == "npz" and kind == "windows"


def _sample_shape(path: Path) -> tuple[int, ...]:
    """Return the shape of one sample from the header of x; () where there is none."""
    try:
        with zipfile.ZipFile(path) as file:
            name = next(name for name in ("x.npy", "x_train.npy") if name in file.namelist())
            with file.open(name) as stream:
                version = np.lib.format.read_magic(stream)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                return tuple(read(stream)[0][1:])
    except (OSError, StopIteration, ValueError, NotImplementedError, zipfile.BadZipFile):
        return ()


def _name(path: Path) -> str:
    stem = re.sub(r"[^A-Za-z0-9_-]+", "_", path.resolve().stem).strip("_-")
    return (stem or "data")[:64]


def _search(quick: bool) -> Search:
    if quick:
        return Search(space=("ds_cnn",), max_trials=12, epochs=4, time_limit_minutes=1.5)
    return Search(space=("ds_cnn", "separable_cnn"), max_trials=60, epochs=12, time_limit_minutes=30.0)


def _search_of_columns(kind: str, quick: bool) -> Search:
    if quick:
        return Search(space=SPACES[kind], max_trials=16, epochs=10, time_limit_minutes=1.5)
    return Search(space=SPACES[kind], max_trials=60, epochs=30, time_limit_minutes=30.0)


def _train(quick: bool) -> Train:
    if quick:
        return Train(epochs=60, finalists=2, time_limit_minutes=2.25, label_smoothing=0.05)
    return Train(epochs=60, finalists=4, label_smoothing=0.05)
