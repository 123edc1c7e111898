"""A recipe for one's own data in one line: sensible settings from what the data set is and what is asked for.

``--quick`` is made for five minutes on two cores with 500 to 3,000 small photos: smaller images, a short search, and
training bounded by time, nothing trained for comparison alone.
"""

from __future__ import annotations

import re
from pathlib import Path

from edgeml.errors import DataError
from edgeml.recipe import Augment, Data, Ensemble, Recipe, Search, Splits, Train
from edgeml.recipe_defaults import with_defaults
from edgeml.records import Budget, Limit

DEFAULT_PARAMS = 30_000
QUICK_MACS = 2_500_000
FILES = {".npz": "npz", ".csv": "csv"}
AUGMENTS = {
    "image_folder": Augment(flip="horizontal", shift=0.08, crop=0.15), "npz": Augment(shift=0.08), "csv": Augment(),
}  # fmt: skip


def for_data(
    path: Path, *, max_params: int | None, max_macs: int | None, max_latency_ms: float | None, quick: bool
) -> Recipe:
    """Return the recipe for a folder of class folders, an ``.npz`` file of images, or a ``.csv`` table.

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
    is_table = source == "csv"
    data = Data(
        source=source, path=str(path), image_size=size, splits=splits, augment=AUGMENTS[source], common_scale=is_table
    )
    made = Recipe(
        schema_version=1, name=_name(path), data=data, budget=budget,
        search=_search_of_table(quick) if is_table else _search(quick), train=_train(quick),
        ensemble=Ensemble(max_members=2, controls="never") if quick else Ensemble(),
    )  # fmt: skip
    return with_defaults(made)


def _name(path: Path) -> str:
    stem = re.sub(r"[^A-Za-z0-9_-]+", "_", path.resolve().stem).strip("_-")
    return (stem or "data")[:64]


def _search(quick: bool) -> Search:
    if quick:
        return Search(space=("ds_cnn",), max_trials=12, epochs=4, time_limit_minutes=1.5)
    return Search(space=("ds_cnn", "separable_cnn"), max_trials=60, epochs=12, time_limit_minutes=30.0)


def _search_of_table(quick: bool) -> Search:
    spaces = ("wide_deep", "dense_selu")
    if quick:
        return Search(space=spaces, max_trials=16, epochs=10, time_limit_minutes=1.5)
    return Search(space=spaces, max_trials=60, epochs=30, time_limit_minutes=30.0)


def _train(quick: bool) -> Train:
    if quick:
        return Train(epochs=60, finalists=2, time_limit_minutes=2.25, label_smoothing=0.05)
    return Train(epochs=60, finalists=4, label_smoothing=0.05)
