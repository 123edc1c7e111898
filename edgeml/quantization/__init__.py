"""Quantization: a ladder, climbed as far as accuracy needs, and ``edgeml.quantize``, which climbs it for one model.

folded model, calibration samples ─► ladder ─► one TFLite file, and what each step gave
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edgeml.compression import compress, request
from edgeml.errors import DataError, UsageError
from edgeml.exportable import exportable
from edgeml.folding import fold_batch_norm
from edgeml.precisions import NATIVE
from edgeml.quantization.ladder import ORDER, Climb, Exam, Rung, Tuned, climb, exam
from edgeml.quantization.samples import (
    check_calibration,
    check_evaluation,
    check_fed,
    check_scaling,
    digest,
    drawn,
)
from edgeml.recipe import Quantize, Verify
from edgeml.records import Event
from edgeml.runtimes import Arrays
from edgeml.samples import check_range

__all__ = [
    "ORDER",
    "Climb",
    "Exam",
    "Quantized",
    "Rung",
    "check_calibration",
    "check_fed",
    "check_scaling",
    "climb",
    "climbs",
    "digest",
    "drawn",
    "exam",
    "quantize",
    "tuner",
]

QUICK = ("equalization", "bias_correction")  # steps that train nothing and take seconds
LADDER = ("int8", "int16x8", "dynamic")


def climbs(
    model: Any,
    precisions: Sequence[str],
    calibration: Arrays | None,
    held: Exam | None,
    config: Quantize,
    gates: Verify,
    tune: Tuned | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
    *,
    batch: int | None = None,
    io: str = NATIVE,
) -> dict[str, Climb]:
    """Climb the ladder for each of the ``precisions`` that has one, if files can be judged; see ``ladder.climb``."""
    return {} if held is None else {
        one: climb(model, one, calibration or {}, held, config, gates, tune, on_event, batch=batch, io=io)
        for one in dict.fromkeys(precisions) if one in LADDER
    }  # fmt: skip


@dataclass(frozen=True)
class Quantized:
    """A quantized TFLite file, and how it came to be.

    ``rungs``: each step that was tried, on ``evaluation`` samples where they were given, else on the calibration
    samples, without accuracy. ``float_layers``: layers that stay in float32.
    ``is_within``: all limits. ``calibration_sha256``: of the samples.
    """

    precision: str
    content: bytes = field(repr=False)
    method: str
    rungs: tuple[Rung, ...]
    float_layers: tuple[str, ...]
    is_within: bool
    calibration_samples: int
    calibration_sha256: str

    @property
    def file_bytes(self) -> int:
        """Bytes of the file."""
        return len(self.content)

    def save(self, path: str | Path) -> Path:
        """Write the file."""
        place = Path(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(self.content)
        return place


def quantize(
    model: Any,
    precision: str = "int8",
    calibration: NDArray[Any] | None = None,
    *,
    evaluation: tuple[NDArray[Any], NDArray[Any]] | None = None,
    train_data: tuple[NDArray[Any], NDArray[Any]] | None = None,
    max_accuracy_drop: float = Quantize().max_accuracy_drop,
    steps: Sequence[str] = ORDER,
    gates: Verify | None = None,
    seed: int = 1,
    on_event: Callable[[Event], None] = lambda event: None,
) -> Quantized:
    """Quantize a Keras model with one input, by as many steps as its accuracy needs.

    Args:
        model: Functional or Sequential; batch normalizations are folded first. It is not changed.
        precision: ``int8`` (full integer), ``int16x8`` or ``dynamic``.
        calibration: (N, …) raw inputs that ranges are taken from, at least 32.
        evaluation: (x, y) of labelled samples, y class indices, that steps are judged by; without them a step is
            taken only where the gates of parity do not hold.
        train_data: (x, y) that ``qat`` trains on; without them that step is left out. Calibration samples are held
            against their range.
        max_accuracy_drop: the most that accuracy may fall below the float model's, a share.
        steps: which steps may be taken, of ``equalization``, ``bias_correction``, ``qat`` and ``float_layers``.
        gates: limits of parity.
        seed: of ``qat``: order and dropout.
        on_event: called after each step.

    Raises:
        UsageError: another precision or step, a model with several inputs. DataError: samples that do not fit, weights
            that are no numbers. TargetError: an operator has no integer kernel, a free input size.
    """
    _check_asked(model, precision, steps, max_accuracy_drop, gates)
    model = exportable(model, ("tflite",), (precision,))
    if len(model.inputs) != 1:
        raise UsageError(f"model '{model.name}': has {len(model.inputs)} inputs; one is allowed. Use edgeml.export.")
    (tensor,) = model.inputs
    if train_data is not None:
        train_data = _trainable(model, train_data)
    x = check_calibration(
        calibration, tensor.shape[1:], None if train_data is None else train_data[0], "the training samples"
    )
    check_scaling(x, model)
    folded = fold_batch_norm(model).model
    held = exam(folded, {tensor.name: x}, None) if evaluation is None else _exam_of(folded, evaluation, x)
    config = Quantize(max_accuracy_drop=max_accuracy_drop, steps=tuple(steps))
    tune = None if train_data is None else tuner(train_data, config.qat_epochs, seed, on_event)
    found = climb(folded, precision, {tensor.name: x}, held, config, gates or Verify(), tune, on_event)
    return Quantized(
        precision, found.content, found.quantization.method, found.rungs, found.float_layers, found.is_within,
        len(x), digest(x),
    )  # fmt: skip


def _exam_of(folded: Any, evaluation: tuple[NDArray[Any], NDArray[Any]], calibration: NDArray[Any]) -> Exam:
    x, labels = check_evaluation(evaluation, folded)
    check_range(calibration, x, "calibration", "the evaluation samples")
    return exam(folded, {folded.inputs[0].name: x}, labels)


def _trainable(model: Any, train_data: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return training data as arrays, if ``qat`` can train the model on them."""
    try:
        request.check_model(model)
        return request.check_data(model, train_data, "train_data")
    except (DataError, UsageError) as error:
        reason = str(error).removeprefix("compress: ").removeprefix("train_data: ")
        raise type(error)(f"train_data: {reason} Only the step 'qat' needs it; the others go without.") from error


def _check_asked(model: Any, precision: str, steps: Any, max_accuracy_drop: Any, gates: Any) -> None:
    import keras

    if not isinstance(model, keras.Model):
        raise UsageError(f"model: got {type(model).__name__}; a Keras 3 model is due. Load it first.")
    if precision not in LADDER:
        raise UsageError(f"precision: got '{precision}'; {', '.join(LADDER)} are allowed. Others need no samples.")
    words = list(steps) if isinstance(steps, Sequence) and not isinstance(steps, str) else [steps]
    for step in words:
        if steps is step or step not in ORDER:
            raise UsageError(f"steps: got '{step}'; a list of {', '.join(ORDER)} is allowed.")
    if gates is not None and not isinstance(gates, Verify):
        raise UsageError(f"gates: got {type(gates).__name__}; edgeml.recipe.Verify is due.")
    is_number = isinstance(max_accuracy_drop, int | float) and not isinstance(max_accuracy_drop, bool)
    if not is_number or not 0 <= max_accuracy_drop <= 1:
        raise UsageError(f"max_accuracy_drop: got {max_accuracy_drop!r}; a share from 0 to 1 is allowed, 0.005 say.")


def tuner(
    train_data: tuple[NDArray[Any], NDArray[Any]], epochs: int, seed: int, on_event: Callable[[Event], None]
) -> Tuned:
    """Return what trains a folded model under quantization noise, as the ladder's ``qat`` calls it."""

    def tune(model: Any) -> tuple[Any, str]:
        made = compress(model, qat=True, train_data=train_data, epochs=epochs, seed=seed, on_event=on_event)
        return made.model, f"{epochs} epochs of {len(train_data[0]):,} samples"

    return tune
