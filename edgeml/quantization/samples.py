"""Samples that ranges are taken from, checked: their shape, their number, numbers at all, and their range."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml.errors import DataError, UsageError
from edgeml.samples import check_range

LEAST_SAMPLES = 32
LEAST_SCALED = 0.05  # of what a model's own scaling leaves, where 1 is meant: scaled twice


def drawn(x: NDArray[Any], count: int, seed: int) -> NDArray[Any]:
    """Return at most ``count`` samples of x (N, …), drawn with a seed, in their order."""
    rows = np.random.default_rng(seed).choice(len(x), min(count, len(x)), replace=False)
    return np.asarray(x[np.sort(rows)])


def digest(array: NDArray[Any]) -> str:
    """Return the SHA-256 of an array's bytes."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def check_calibration(
    values: Any, shape: Sequence[int | None], like: NDArray[Any] | None, like_what: str
) -> NDArray[np.float32]:
    """Return calibration samples as float32, (N, *shape).

    Raises:
        UsageError: none are given.
        DataError: another shape, NaN or infinite values, or as ``check_fed``.
    """
    if values is None:
        raise UsageError(
            f"calibration: none given; at least {LEAST_SAMPLES} raw inputs are due, that ranges are taken from and"
            " files are judged by."
        )
    x = _numbers(values, shape, "calibration")
    check_fed(x, like, like_what)
    return x


def check_fed(x: NDArray[Any], like: NDArray[Any] | None, like_what: str) -> None:
    """Hold calibration samples of the right shape against their least number, and their range against ``like``.

    Raises:
        DataError: fewer than 32, all values alike, or a range unlike that of ``like``.
    """
    if len(x) < LEAST_SAMPLES:
        raise DataError(
            f"calibration: {len(x)} samples; at least {LEAST_SAMPLES} are due, or ranges are those of chance. Give"
            " more."
        )
    if float(np.ptp(x)) == 0:
        raise DataError(f"calibration: every value is {x.flat[0]:g}; samples that differ are due. Give real inputs.")
    if like is not None:
        check_range(x, like, "calibration", like_what)


def check_scaling(x: NDArray[Any], model: Any) -> None:
    """Look whether calibration samples are scaled already, though the model scales its inputs itself.

    Raises:
        DataError: a Rescaling comes first, and leaves nothing of them: 0 to 1 where 0 to 255 is due.
    """
    for layer in getattr(model, "layers", ()):
        if type(layer).__name__ != "Rescaling" or layer.input is not model.inputs[0] or np.ndim(layer.scale):
            continue
        most = float(np.abs(x).max())
        if most * abs(layer.scale) < LEAST_SCALED:
            raise DataError(
                f"calibration: values from {x.min():g} to {x.max():g}, and layer '{layer.name}' multiplies them by"
                f" {layer.scale:.3g} first. Give raw inputs, up to about {1 / abs(layer.scale):.3g}."
            )


def check_evaluation(data: Any, model: Any) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return labelled samples as (x, y), y class indices of the model's output.

    Raises:
        DataError: shapes, numbers or labels that do not fit.
    """
    if not (isinstance(data, tuple | list) and len(data) == 2):
        raise DataError(f"evaluation: got {type(data).__name__}; a pair of samples (N, …) and labels (N,) is due.")
    x, labels = _numbers(data[0], model.inputs[0].shape[1:], "evaluation"), np.asarray(data[1])
    classes = int((1, *model.outputs[0].shape[1:])[-1])
    if labels.shape != (len(x),) or labels.dtype.kind not in "iu":
        raise DataError(f"evaluation: labels of shape {labels.shape}, {labels.dtype}; ({len(x)},) integers are due.")
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise DataError(f"evaluation: labels from {labels.min()} to {labels.max()}; 0 to {classes - 1} are due.")
    return x, labels.astype(np.int64)


def _numbers(values: Any, shape: Sequence[int | None], what: str) -> NDArray[np.float32]:
    wanted = ", ".join(map(str, shape))
    try:
        x = np.asarray(values)
    except ValueError as error:
        raise DataError(f"{what}: no array of numbers; (N, {wanted}) is due.") from error
    if x.shape[1:] != tuple(shape) or not len(x):
        raise DataError(f"{what}: shape {x.shape}; (N, {wanted}) is due.")
    if x.dtype.kind not in "biuf":
        raise DataError(f"{what}: type {x.dtype}; numbers are due.")
    if not np.all(np.isfinite(x)):
        raise DataError(f"{what}: holds NaN or infinite values; finite numbers are due.")
    return x.astype(np.float32)
