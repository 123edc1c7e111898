"""Pruning: the smallest weights of every kernel become zero and stay so while the others learn to do without them.

    share of zeros in step t of T:  s · (1 - (1 - t/T)³)      a polynomial, then constant to the end

Zhu & Gupta 2017, arXiv 1710.01878, section 3. ``2:4``: of every four weights along the input channels the two smallest,
all at once. What pruning costs is mostly the cost of too few steps: the default grows with the share, and where samples
are few.
"""

from __future__ import annotations

import math
from typing import Any

from edgeml import batch_statistics
from edgeml.compression import toolkit
from edgeml.compression.fine_tuning import fine_tune, steps_of, wrapped_twin
from edgeml.compression.records import LeftAlone, Step, Training
from edgeml.twin import back

Prune = float | str
TWO_OF_FOUR = "2:4"
EPOCHS, EPOCHS_OF_MANY, MANY = 10, 20, 0.6  # up to this share of zeros, and above
# A rate of 1e-3 and a ramp of 0.6 left 80 % pruned at 82.4 % of 1,000 Fashion-MNIST validation images;
# these leave it at 84.5 %, of 85.1 % before (7,802 params, 6,000 training images, seed 1).
LEARNING_RATE = 3e-3
RAMP_SHARE = 0.4  # of all steps, until the last weight goes; the rest recovers
LEAST_STEPS, LEAST_STEPS_OF_MANY = 1_500, 3_000  # of few samples, more epochs
MOST_EPOCHS = 100
UPDATES = 50  # of the masks on the way there
STATISTICS_ROWS = 10_000  # that batch normalization is estimated from afterwards


def prune(model: Any, amount: Prune, training: Training) -> tuple[Step, list[LeftAlone]]:
    """Prune the kernels of dense layers and convolutions, in place, by a fine-tune of ``model`` as it was trained.

    Batch normalization, where there is any, trains along, and its statistics are estimated again at the end.
    """
    tfmot = toolkit.load()
    epochs = training.epochs or default_epochs(amount, steps_of(training, 1))
    options, words = _schedule(tfmot, amount, steps_of(training, epochs))

    def wrap(layer: Any) -> Any:
        return tfmot.sparsity.keras.prune_low_magnitude(layer, **options)

    def reason(layer: Any) -> str | None:  # tfmot 0.8.1 passes over these in silence
        channels = layer.kernel.shape[-2]
        is_odd = amount == TWO_OF_FOUR and channels % 4
        return f"{channels} input channels, no multiple of 4" if is_odd else None

    pruned, left = wrapped_twin(model, "prune", wrap, reason)
    masks = [tfmot.sparsity.keras.UpdatePruningStep()]
    losses = fine_tune(pruned, model, training, "prune", epochs=epochs, learning_rate=LEARNING_RATE, callbacks=masks)
    back(tfmot.sparsity.keras.strip_pruning(pruned), model)
    batch_statistics.reestimate(model, training.data[0][:STATISTICS_ROWS], training.batch_size)
    return Step("prune", words, epochs, LEARNING_RATE, losses), left


def default_epochs(amount: Prune, steps: int) -> int:
    """Return for how many epochs, of so many steps each, a share of weights is pruned if nothing else is asked."""
    epochs, least = (EPOCHS_OF_MANY, LEAST_STEPS_OF_MANY) if amount != TWO_OF_FOUR and float(amount) > MANY else (
        EPOCHS, LEAST_STEPS)  # fmt: skip
    return max(epochs, min(math.ceil(least / steps), MOST_EPOCHS))


def _schedule(tfmot: Any, amount: Prune, steps: int) -> tuple[dict[str, Any], str]:
    if amount == TWO_OF_FOUR:
        at_once = tfmot.sparsity.keras.ConstantSparsity(0.5, begin_step=0)
        return {"pruning_schedule": at_once, "sparsity_m_by_n": (2, 4)}, "2 of 4 along the input channels, at once"
    ramp = max(1, round(RAMP_SHARE * steps))
    every = max(1, ramp // UPDATES)
    end = max(1, ramp // every) * every  # the masks are updated there once more, or the share is never reached
    decay = tfmot.sparsity.keras.PolynomialDecay(0.0, float(amount), begin_step=0, end_step=end, frequency=every)
    return {"pruning_schedule": decay}, f"to {amount:g} over {end} of {steps} steps by a cubic polynomial"
