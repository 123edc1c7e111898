"""Compression: smaller kernels by pruning, clustering and quantization-aware training, as a Keras 3 model again.

    trained model ── prune ──► (with batch norm) ── fold ──► cluster ──► quantization-aware training ──► folded model

TensorFlow Model Optimization does the work, on the tf_keras twin (``edgeml.twin``). Only weights change: the result is
exported like any other model, int8 by calibration. Each step keeps what the one before it made: clusters keep zeros,
the last one keeps both (tfmot's collaborative schemes), and so does the int8 file: zero is always a code, and a channel
has no more codes than values.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edgeml.compression import request, toolkit
from edgeml.compression.records import Arrays, Compressed, Kernel, LeftAlone, OnEvent, Step, Training, kernels_of
from edgeml.samples import check_range

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Compressed", "Kernel", "LeftAlone", "Step", "compress"]


def compress(
    model: Any,
    *,
    prune: float | str | None = None,
    cluster: int | None = None,
    qat: bool = False,
    train_data: Arrays,
    validation_data: Arrays | None = None,
    epochs: int | None = None,
    seed: int = 1,
    batch_size: int = 64,
    on_event: OnEvent | None = None,
) -> Compressed:
    """Compress a trained classifier of Keras 3 by fine-tuning it; it is not changed itself.

    Give the model as it was trained, where there is one: pruning trains it with its batch normalization. Clustering and
    quantization-aware training fold it first: what they make of a kernel has to be what ships. A model that is folded
    already is pruned as it is. The result is folded wherever one of these two was asked for, and has the structure of
    ``model`` where pruning alone was.

    Args:
        model: Functional or Sequential, of one input and one output (N, K), probabilities or logits.
        prune: share of zeros in every kernel of a dense layer or convolution, or ``"2:4"``, or None.
        cluster: number of distinct values in every such kernel, or None.
        qat: train under fake quantization.
        train_data: samples (N, …) as the model takes them, and class numbers (N,).
        validation_data: the same, to tell the accuracy of each step.
        epochs: of each step; None: 10 for pruning (20 for more than 60 %; up to 100 where samples are few), 5 for
            clustering, 3 under fake quantization.
        seed: of order and dropout.
        batch_size: samples per training step.
        on_event: is told after every epoch.

    Raises:
        UsageError: a request that cannot be meant, no model of Keras 3, a layer that cannot be translated, a package
            that is missing, or a loss that is no number.
        DataError: samples or labels that do not fit.
    """
    request.check(prune, cluster, qat, epochs, batch_size)
    toolkit.load()
    request.check_model(model)
    data = request.check_data(model, train_data, "train_data")
    validation = None if validation_data is None else request.check_data(model, validation_data, "validation_data")
    if validation is not None:
        check_range(validation[0], data[0], "compress: validation_data", "train_data")
    logits = request.gives_logits(model, data)
    training = Training(data, validation, epochs, batch_size, seed, logits, on_event or (lambda event: None))
    started = time.monotonic()
    work, steps, left = _steps(model, prune, cluster, qat, training)
    accuracy = None if validation is None else (_accuracy(model, validation), _accuracy(work, validation))
    seconds = time.monotonic() - started
    return Compressed(work, tuple(steps), kernels_of(work), tuple(left), accuracy, seed, seconds)


def _steps(
    model: Any, prune: float | str | None, cluster: int | None, qat: bool, training: Training
) -> tuple[Any, list[Step], list[LeftAlone]]:
    from edgeml.compression import clustering, pruning, quantization_aware
    from edgeml.folding import fold_batch_norm
    from edgeml.folding.rebuild import copied

    work, steps, left = copied(model), list[Step](), list[LeftAlone]()

    def run(act: Callable[[Any], tuple[Step, list[LeftAlone]]]) -> None:
        started = time.monotonic()
        step, alone = act(work)
        accuracy = None if training.validation is None else _accuracy(work, training.validation)
        steps.append(replace(step, val_accuracy=accuracy, seconds=time.monotonic() - started))
        left.extend(alone)

    if prune is not None:
        run(lambda work: pruning.prune(work, prune, training))
    if cluster is not None or qat:
        work = fold_batch_norm(work).model
    if cluster is not None:
        run(lambda work: clustering.cluster(work, cluster, training))
    if qat:
        run(lambda work: quantization_aware.train_quantization_aware(work, training))
    return work, steps, left


def _accuracy(model: Any, data: Arrays) -> float:
    said = model.predict(data[0], batch_size=512, verbose=0)
    return float((said.argmax(axis=1) == data[1]).mean())
