"""What a model is fed when it is exported: samples that fit its inputs, or random ones, and the classes of samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml import descriptions
from edgeml.errors import DataError, UsageError
from edgeml.runtimes.keras import output_names
from edgeml.samples import class_indices

RANDOM_SAMPLES = 64


def fitting(values: Any, model: Any, what: str) -> dict[str, NDArray[Any]]:
    """Return samples by the model's inputs, as many rows of each.

    Raises:
        DataError: they do not fit; ``what`` they are called.
    """
    names = [tensor.name for tensor in model.inputs]
    given = values if isinstance(values, Mapping) else {names[0]: values}
    if set(given) != set(names):
        raise DataError(f"{what}: got {', '.join(map(str, given))}; the model's inputs are {', '.join(names)}.")
    found = {tensor.name: _fitting_one(given[tensor.name], tensor, f"{what} for '{tensor.name}'" if len(names) > 1
                                       else what) for tensor in model.inputs}  # fmt: skip
    rows = {name: len(array) for name, array in found.items()}
    if len(set(rows.values())) > 1:
        counts = ", ".join(f"{count} of '{name}'" for name, count in rows.items())
        raise DataError(f"{what}: {counts}; as many of each are due.")
    return found


def random_inputs(model: Any, most: float) -> dict[str, NDArray[Any]]:
    """Return random inputs: real numbers from 0 to ``most``, integers 0 and 1."""
    rng, found = np.random.default_rng(0), dict[str, NDArray[Any]]()
    for tensor in model.inputs:
        shape = (RANDOM_SAMPLES, *tensor.shape[1:])
        drawn = rng.uniform(0, most, shape) if "float" in tensor.dtype else rng.integers(0, 2, shape)
        found[tensor.name] = drawn.astype(descriptions.stated(tensor))
    return found


def has_classes(model: Any) -> bool:
    """Tell whether the output that labels name has an accuracy: two values or more of each sample, (N, K)."""
    name, count = descriptions.classes(model)
    return len(model.outputs[output_names(model).index(name)].shape) == 2 and count > 1


def true_classes(
    model: Any, samples: Any, truth: Any, labels: Sequence[str] | None, what: str = "truth"
) -> NDArray[np.int64]:
    """Return the class of each sample, (N,), as the place among the values of the output that labels name.

    ``what``: what the classes are called.

    Raises:
        DataError: there is no such output, or these are not its classes. UsageError: there are no samples.
    """
    if samples is None:
        raise UsageError(f"{what}: is of samples, and there are none. Give samples as well.")
    name, count = descriptions.classes(model)
    if not has_classes(model):
        shape = model.outputs[output_names(model).index(name)].shape
        raise DataError(f"{what}: output '{name}' is {shape}; two classes or more, (N, K), have an accuracy.")
    rows = next(iter(samples.values())) if isinstance(samples, Mapping) else samples
    return class_indices(truth, len(rows), count, labels, what)


def _fitting_one(values: Any, tensor: Any, what: str) -> NDArray[Any]:
    array = np.asarray(values)
    wanted = tuple(tensor.shape[1:])
    if array.ndim == len(wanted) and array.ndim == 3 and wanted[-1] == 1:
        array = array[..., None]
    fits = array.ndim == len(wanted) + 1 and all(
        want is None or have == want for want, have in zip(wanted, array.shape[1:], strict=False)
    )
    if fits and not len(array):
        raise DataError(f"{what}: holds no sample; at least one is due.")
    if not fits:
        raise DataError(f"{what}: shape {array.shape}; (N, {', '.join(map(str, wanted))}) is due.")
    if array.dtype.kind not in "biuf":
        raise DataError(f"{what}: type {array.dtype}; numbers are due.")
    if not np.all(np.isfinite(array)):
        raise DataError(f"{what}: holds NaN or infinite values; finite numbers are due.")
    return array.astype(descriptions.stated(tensor))
