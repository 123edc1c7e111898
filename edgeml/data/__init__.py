"""Data sources, one file each: ``load(config: edgeml.recipe.Data) -> Dataset``.

A source delivers raw values (what the deployed file will be fed); scaling is part of the graph. It may declare
``REQUIRES``, the recipe keys that must be set, and leaves what every source must hold to ``load`` here, the one door:
what a source returns is checked, brought to uint8 or float32, and named, in the source's own words.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml import plugins
from edgeml.data import _columns
from edgeml.errors import DataError, RecipeError
from edgeml.kinds import KINDS, kind_of
from edgeml.recipe import Augment, Data

SAMPLES_PER_SPLIT = 2  # of each class; with train, validation, blend and test drawn, a class needs 8 samples
SKEW = 3  # a class this many times larger than another is worth a note: accuracy then hides the small one


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled samples as a source delivers them.

    ``x``: vectors (N, F), windows (N, T, C) or images (N, H, W, C); uint8 or float32, raw values within
    ``value_range``. ``y``: (N,) int64, indices into ``labels``. ``test``: a held-out (x, y) given by the source, or
    ``None``. ``notes``: what a reader should know (files skipped, duplicates, skew). ``ids``: one name
    per sample of ``x`` (its file), where the source has them. ``groups``: one number per sample; samples of one group
    share measurements and go to the same split. ``divided_by``: what whoever feeds the deployed file
    divides each column by (``data.common_scale``). ``columns``: names of what the last axis holds, and ``class_from``:
    what the classes are read from, where the source knows.

    A source may leave ``labels`` empty (``load`` names the classes) and may return other number types (``load`` casts).
    """

    x: NDArray[Any]
    y: NDArray[np.int64]
    labels: tuple[str, ...]
    value_range: tuple[float, float]
    meaning: str = "raw pixel values"
    test: tuple[NDArray[Any], NDArray[np.int64]] | None = None
    notes: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    groups: tuple[int, ...] = ()
    divided_by: tuple[float, ...] = ()
    columns: tuple[str, ...] = ()
    class_from: str = ""


def load(config: Data, precisions: Sequence[str] = ("float32", "int8")) -> Dataset:
    """Load a data set with its source and check it, for files of these precisions.

    Raises:
        RecipeError: a key that the source needs is missing, or ``data.labels``, ``kind`` or ``augment`` does not fit.
        DataError: the source cannot be read, or its arrays cannot be learnt from.
    """
    source = plugins.get("data", config.source)
    for key in getattr(source, "REQUIRES", ()):
        if not getattr(config, key):
            raise RecipeError(
                f"data.{key}: missing; source {config.source} needs it. Add it, or --set data.{key}=VALUE."
            )
    where = " ".join(filter(None, (config.source, config.path or config.name)))
    return _checked(where, source.load(config), config, has_integers=set(precisions) != {"float32"})


def _checked(where: str, raw: Dataset, config: Data, *, has_integers: bool) -> Dataset:
    """Return ``raw`` with casts, names and notes; raise where it cannot be used."""
    x, y = _values(f"{where}, x", raw.x), _classes(f"{where}, y", raw.y, len(raw.x))
    _check_kind(where, x, config)
    _check_range(f"{where}, x", x, raw.value_range)
    test = None
    if raw.test is not None:
        test = _values(f"{where}, x_test", raw.test[0]), _classes(f"{where}, y_test", raw.test[1], len(raw.test[0]))
        if test[0].shape[1:] != x.shape[1:] or test[0].dtype != x.dtype:
            raise DataError(
                f"{where}, x_test: samples are {test[0].shape[1:]} {test[0].dtype}; {x.shape[1:]} {x.dtype}, as in x, "
                "is needed. Prepare both the same way."
            )
    every_label = y if test is None else np.concatenate([y, test[1]])
    labels = _names(where, every_label, raw.labels, config.labels)
    counts = np.bincount(y, minlength=len(labels))
    _check_counts(where, counts, labels, splits=("train", "validation", "blend") + (("test",) if test is None else ()))
    columns = _columns.notes(x) if has_integers and not config.common_scale else ()
    notes = (*raw.notes, *_shape_notes(x), *columns, *_class_notes(counts, labels, test and test[1]))
    found = dataclasses.replace(raw, x=x, y=y, labels=labels, test=test, notes=notes)
    return _on_common_scale(found) if config.common_scale else found


def _on_common_scale(dataset: Dataset) -> Dataset:
    """Divide each column by a power of two, which loses nothing."""
    by = _columns.divisors(dataset.x)
    test = dataset.test and (_columns.divided(dataset.test[0], by), dataset.test[1])
    return dataclasses.replace(
        dataset, x=_columns.divided(dataset.x, by), test=test, divided_by=by, value_range=(-1.0, 1.0),
        meaning=f"{dataset.meaning}, each column divided by its power of two (divided_by)",
    )  # fmt: skip


def _values(where: str, values: Any) -> NDArray[Any]:
    """Return finite samples (N, F), (N, T, C) or (N, H, W, C) as uint8, or else as float32."""
    x = np.asarray(values)
    if x.ndim - 1 not in KINDS or x.dtype.kind not in "buif":
        raise DataError(
            f"{where}: shape {x.shape}, {x.dtype}; numbers of shape (N, F), (N, T, C) or (N, H, W, C) are needed."
            " Reshape them."
        )
    if not x.size:
        raise DataError(f"{where}: shape {x.shape} holds no values; at least one sample is needed. Add data.")
    if x.dtype == np.uint8:
        return np.ascontiguousarray(x)
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite and is reported below
        x = np.ascontiguousarray(x, dtype=np.float32)
    bad = ~np.isfinite(x)
    if bad.any():
        first = tuple(int(i) for i in np.unravel_index(bad.argmax(), x.shape))
        raise DataError(
            f"{where}: {int(bad.sum())} values are NaN or infinite, the first at index {first}; "
            "float32 numbers are needed. Repair or remove these samples."
        )
    return x


def _check_kind(where: str, x: NDArray[Any], config: Data) -> None:
    """Raise unless the samples are of the kind that the recipe states, and one that its augmentation is made for."""
    found = kind_of(x.shape[1:])
    if config.kind not in ("auto", found.name):
        raise RecipeError(
            f"data.kind: {config.kind}, but {where} gives {found.name} of shape {x.shape[1:]}; {found.name} or auto is"
            " allowed. Correct it, or reshape the data."
        )
    if config.common_scale and found.name == "images":
        raise RecipeError(
            f"data.common_scale: is for columns of vectors and windows; {where} gives images. Remove data.common_scale."
        )
    if config.augment != Augment() and found.name != "images":
        raise RecipeError(
            f"data.augment: is for images; {where} gives {found.name} of shape {x.shape[1:]}. Remove data.augment."
        )


def _check_range(where: str, x: NDArray[Any], value_range: tuple[float, float]) -> None:
    """Raise unless all values lie in the stated range and are not all the same."""
    low, high = float(x.min()), float(x.max())
    if low == high:
        raise DataError(f"{where}: every value is {low:g}; samples must differ. Check how the data was written.")
    if low < value_range[0] or high > value_range[1]:
        raise DataError(
            f"{where}: values reach from {low:g} to {high:g}; the source states {value_range[0]:g} to "
            f"{value_range[1]:g}. Correct the range that it states."
        )


def _classes(where: str, values: Any, samples: int) -> NDArray[np.int64]:
    """Return class indices (N,) int64, each 0 or more."""
    y = np.asarray(values)
    if y.shape != (samples,):
        one_hot = " One-hot rows: store y.argmax(axis=1)." if y.ndim == 2 and y.shape[0] == samples else ""
        raise DataError(f"{where}: shape {y.shape}; one label for each of {samples} samples is needed.{one_hot}")
    if y.dtype.kind not in "bui":
        raise DataError(f"{where}: type {y.dtype}; whole numbers 0..K-1 are needed. Names of classes go into labels.")
    if y.min() < 0:
        raise DataError(f"{where}: label {y.min()} at index {y.argmin()}; labels count from 0. Renumber them.")
    return y.astype(np.int64)


def _names(where: str, y: NDArray[np.int64], own: tuple[str, ...], given: tuple[str, ...] | None) -> tuple[str, ...]:
    """Name the classes: as the source does, else as the recipe does, else by number."""
    if own and given and own != given:
        raise RecipeError(f"data.labels: given, but {where} names its own: {', '.join(own)}. Remove data.labels.")
    names, highest = own or given or (), int(y.max())
    if not names and highest >= len(y):
        raise DataError(f"{where}, y: label {highest} among {len(y)} samples; labels are 0..K-1. Renumber them.")
    if len(set(names)) != len(names):
        raise DataError(f"{where}: two classes share a name ({', '.join(names)}); each needs its own. Rename one.")
    if names and highest >= len(names):
        raise DataError(
            f"{where}, y: label {highest} at index {int(y.argmax())}; {len(names)} classes are named "
            f"({', '.join(names[:10])}{', …' * (len(names) > 10)}), so labels are 0..{len(names) - 1}. Correct either."
        )
    return names or tuple(str(k) for k in range(highest + 1))


def _check_counts(where: str, counts: NDArray[np.int64], labels: tuple[str, ...], splits: tuple[str, ...]) -> None:
    """Raise unless there are two classes and each has enough samples for every split."""
    present = np.flatnonzero(counts)
    if len(present) < 2:
        raise DataError(
            f"{where}: only class '{labels[present[0]]}' has samples; at least two classes are needed. Add another."
        )
    need = SAMPLES_PER_SPLIT * len(splits)
    short = np.flatnonzero(counts < need)
    if len(short):
        found = ", ".join(f"class '{labels[k]}' has {counts[k]} samples" for k in short[:3])
        raise DataError(
            f"{where}: {found}{f' (and {len(short) - 3} classes more)' if len(short) > 3 else ''}; each needs at least "
            f"{need}, {SAMPLES_PER_SPLIT} for each of {', '.join(splits)}. Add samples or remove the class."
        )


def _shape_notes(x: NDArray[Any]) -> list[str]:
    """Note samples that look channels-first: (N, 3, 32, 32) is read as 3 rows of 32 pixels with 32 channels."""
    if x.ndim != 4:
        return []
    rows, columns, channels = x.shape[1:]
    if rows in (1, 3) and columns == channels and channels > 4:
        return [f"samples {x.shape[1:]} look channels-first; they are read as (H, W, C)"]
    return []


def _class_notes(counts: NDArray[np.int64], labels: tuple[str, ...], y_test: NDArray[np.int64] | None) -> list[str]:
    """Note skewed classes, and classes that a given test split lacks."""
    notes, most, least = [], int(counts.argmax()), int(counts.argmin())
    if counts[most] > SKEW * counts[least]:
        notes.append(
            f"classes differ by {counts[most] / counts[least]:.1f} to 1 ('{labels[most]}' {counts[most]}, "
            f"'{labels[least]}' {counts[least]}): accuracy hides the small ones; read the figures per class, "
            f"and add samples of '{labels[least]}'"
        )
    if y_test is not None:
        missing = [name for k, name in enumerate(labels) if k not in set(y_test.tolist())]
        if missing:
            notes.append(f"the given test split has no sample of {', '.join(missing)}")
    return notes
