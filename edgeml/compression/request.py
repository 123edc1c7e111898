"""What ``compress`` is asked, checked before anything is loaded or trained."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from edgeml.compression.records import Arrays
from edgeml.errors import DataError, UsageError

MOST_CLUSTERS = 256  # an int8 file has no more values in a channel
LOOKED_AT = 256  # samples that tell probabilities from logits
SUM_ERROR = 1e-3


def check(prune: Any, cluster: Any, qat: Any, epochs: Any, batch_size: Any) -> None:
    """Refuse a request that cannot be meant.

    Raises:
        UsageError: says which value, and what is allowed.
    """
    share = isinstance(prune, float) and 0 < prune < 1
    if not (prune is None or prune == "2:4" or share):
        raise UsageError(f"compress: prune is {prune!r}; None, '2:4' or a share of zeros between 0 and 1 is due.")
    least = 2 if prune is None else 3  # one of them is zero
    if cluster is not None and not (_is_whole(cluster) and least <= cluster <= MOST_CLUSTERS):
        raise UsageError(f"compress: cluster is {cluster!r}; None or {least} to {MOST_CLUSTERS} values are due.")
    if not isinstance(qat, bool):
        raise UsageError(f"compress: qat is {qat!r}; True or False is due.")
    if prune is None and cluster is None and not qat:
        raise UsageError("compress: nothing is asked for; at least one of prune, cluster and qat is due.")
    for name, value in (("epochs", epochs), ("batch_size", batch_size)):
        if not (value is None and name == "epochs") and not (_is_whole(value) and value >= 1):
            raise UsageError(f"compress: {name} is {value!r}; a whole number of at least 1 is due.")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def check_model(model: Any) -> None:
    """Refuse a model that is not of Keras 3, or does not end in classes.

    Raises:
        UsageError: says what it is.
    """
    import keras

    if not isinstance(model, keras.Model):
        raise UsageError(f"compress: got {type(model).__module__}.{type(model).__name__}; a model of Keras 3 is due.")
    shapes = [tuple(tensor.shape) for tensor in model.outputs]
    if len(model.inputs) != 1 or len(shapes) != 1 or len(shapes[0]) != 2 or (shapes[0][1] or 0) < 2:
        raise UsageError(
            f"compress: model '{model.name}' has {len(model.inputs)} inputs and outputs of shapes {shapes}; one input"
            " and one output (N, K) for K classes are due, to be trained on labels."
        )


def check_data(model: Any, data: Any, name: str) -> Arrays:
    """Return samples and labels as arrays.

    Raises:
        DataError: they do not fit the model, or each other.
    """
    if not (isinstance(data, (tuple, list)) and len(data) == 2):
        raise DataError(f"compress: {name} is {type(data).__name__}; a pair of samples (N, …) and labels (N,) is due.")
    x, y = (np.asarray(part) for part in data)
    want, classes = tuple(model.inputs[0].shape[1:]), int(model.outputs[0].shape[-1])
    fits = len(x.shape) == len(want) + 1 and all(b in (None, a) for a, b in zip(x.shape[1:], want, strict=True))
    if not fits or not len(x):
        raise DataError(f"compress: {name}: samples of shape {x.shape}; {('N', *want)} is due.")
    if y.shape != (len(x),) or not np.issubdtype(y.dtype, np.integer):
        raise DataError(
            f"compress: {name}: labels of shape {y.shape} and type {y.dtype} for {len(x)} samples; class numbers of"
            f" shape ({len(x)},) are due."
        )
    if y.min() < 0 or y.max() >= classes:
        raise DataError(f"compress: {name}: labels from {y.min()} to {y.max()}; classes 0 to {classes - 1} are due.")
    if not np.issubdtype(x.dtype, np.integer) and not math.isfinite(float(x.sum(dtype=np.float64))):
        raise DataError(f"compress: {name}: samples hold NaN or infinity; finite values are due.")
    return x, y


def gives_logits(model: Any, data: Arrays) -> bool:
    """Tell whether the outputs are logits rather than probabilities, by what the model says of some samples.

    Raises:
        UsageError: they are neither: no numbers, or all within 0 and 1 and yet do not add up to 1.
    """
    said = np.asarray(model.predict(data[0][:LOOKED_AT], verbose=0), np.float64)
    if not np.isfinite(said).all():
        raise UsageError(f"compress: model '{model.name}': outputs hold NaN or infinity. Look for them in its weights.")
    if np.abs(said.sum(axis=1) - 1).max() <= SUM_ERROR and said.min() >= 0:
        return False
    if said.min() >= 0 and said.max() <= 1:
        raise UsageError(
            f"compress: model '{model.name}': outputs lie within 0 and 1 and do not add up to 1; probabilities of one"
            " class each, or logits, are due."
        )
    return True
