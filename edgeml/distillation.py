"""Distillation: one network learns what an ensemble says (Hinton, Vinyals & Dean 2015, arXiv 1503.02531).

    loss = h · CE(y, p) + (1 - h) · T² · CE(q^(1/T), p^(1/T))        powers normalised over the classes again

y is the label, q what the teacher says of the very image that the student sees, augmented as it is (Beyer et al. 2021,
arXiv 2106.05237), p what the student says. T² keeps the second term's gradient as large as the first one's. Targets are
y and q side by side, (N, 2K).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Targets = Callable[[NDArray[Any], NDArray[np.float32]], NDArray[np.float32]]


def targets_of(teacher: Any) -> Targets:
    """Return what makes targets of a batch (N, …) and its one-hot labels (N, K), by the Keras model ``teacher``."""

    def targets(batch: NDArray[Any], one_hot: NDArray[np.float32]) -> NDArray[np.float32]:
        said = np.asarray(teacher.predict_on_batch(np.asarray(batch, "float32")), "float32")
        return np.concatenate([one_hot, said], axis=1)

    return targets


def loss_of(temperature: float, hard_labels: float) -> Any:
    """Return the loss at T = ``temperature`` and h = ``hard_labels``, per sample, as Keras takes it."""
    from keras import losses, ops

    def softened(probabilities: Any) -> Any:
        return ops.softmax(ops.log(ops.maximum(probabilities, 1e-7)) / temperature, axis=-1)

    def loss(targets: Any, predicted: Any) -> Any:
        labels, said = ops.split(targets, 2, axis=-1)
        hard = losses.categorical_crossentropy(labels, predicted)
        soft = losses.categorical_crossentropy(softened(said), softened(predicted))
        return hard_labels * hard + (1.0 - hard_labels) * temperature**2 * soft

    return loss
