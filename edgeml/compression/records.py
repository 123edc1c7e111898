"""What a compression was asked, and what it did: frozen records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml.records import Event

Arrays = tuple[NDArray[Any], NDArray[Any]]
OnEvent = Callable[[Event], None]


@dataclass(frozen=True, eq=False)
class Training:
    """What all fine-tuning steps have in common."""

    data: Arrays
    validation: Arrays | None
    epochs: int | None
    batch_size: int
    seed: int
    from_logits: bool
    on_event: OnEvent


@dataclass(frozen=True)
class LeftAlone:
    """A kernel that a step did not touch, and why; parts of a separable convolution are ``name/dw`` and ``name/pw``."""

    step: str
    layer: str
    reason: str


@dataclass(frozen=True)
class Step:
    """One step of a compression.

    ``losses`` are of the training samples, per epoch; ``val_accuracy`` is that of the Keras 3 model afterwards, in
    float32, None without validation data.
    """

    name: str
    schedule: str
    epochs: int
    learning_rate: float
    losses: tuple[float, ...]
    val_accuracy: float | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Kernel:
    """What is found in a kernel: the share of its values that are zero, and how many distinct values it has."""

    name: str
    shape: tuple[int, ...]
    sparsity: float
    distinct: int


@dataclass(frozen=True, eq=False)
class Compressed:
    """A compressed Keras 3 model, and how it came about; ``val_accuracy`` before and after, of validation data."""

    model: Any
    steps: tuple[Step, ...]
    kernels: tuple[Kernel, ...]
    left_alone: tuple[LeftAlone, ...]
    val_accuracy: tuple[float, float] | None
    seed: int
    seconds: float


def kernels_of(model: Any) -> tuple[Kernel, ...]:
    """Look at every kernel of a Keras 3 model."""
    found = []
    for layer in model._flatten_layers():
        for variable in getattr(layer, "weights", ()) if not hasattr(layer, "layers") else ():
            if variable.name.endswith("kernel"):
                values = np.asarray(variable)
                found.append(kernel_of(f"{layer.name}/{variable.name}", values))
    return tuple(found)


def kernel_of(name: str, values: NDArray[Any]) -> Kernel:
    """Look at one kernel."""
    sparsity = 1.0 - np.count_nonzero(values) / values.size
    return Kernel(name, tuple(values.shape), float(sparsity), len(np.unique(values)))
