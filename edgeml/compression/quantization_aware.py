"""Quantization-aware training: a fine-tune in which kernels and activations are rounded as an int8 file rounds them.

    y = s · (clip(round(x / s) + z) - z)          in the forward pass; gradients go through as if nothing was rounded

Jacob et al. 2017, arXiv 1712.05877. What it yields is weights that bear rounding: they go back into the folded Keras 3
model, and the export calibrates its ranges anew, as it always does. Zeros and clusters that a kernel holds are kept by
tfmot's collaborative quantizers (PQAT, CQAT, PCQAT).
"""

from __future__ import annotations

from typing import Any

import tf_keras

from edgeml.compression import toolkit
from edgeml.compression.fine_tuning import fine_tune, steps_of
from edgeml.compression.records import LeftAlone, Step, Training
from edgeml.twin import back, twin

EPOCHS = 3
LEARNING_RATE = 3e-4
DECAY, LEAST_DECAY, TIME_CONSTANTS = 0.98, 0.5, 5  # of ranges; short fine-tunes see at least so many constants


def train_quantization_aware(model: Any, training: Training) -> tuple[Step, list[LeftAlone]]:
    """Train a folded model under fake quantization, in place."""
    toolkit.load()
    from edgeml.compression.fake_quantization import adapted

    epochs = training.epochs or EPOCHS
    decay = max(LEAST_DECAY, min(DECAY, 1.0 - TIME_CONSTANTS / steps_of(training, epochs)))
    with adapted(decay):
        quantized, left = quantized_twin(model)
        losses = fine_tune(quantized, model, training, "qat", epochs=epochs, learning_rate=LEARNING_RATE)
    back(quantized, model)
    return Step("qat", f"ranges follow at {decay:g}", epochs, LEARNING_RATE, losses), left


def quantized_twin(model: Any) -> tuple[Any, list[LeftAlone]]:
    """Return the twin of a folded model under fake quantization, and the layers whose kernels stay as they are."""
    tfmot = toolkit.load()
    from edgeml.compression import fake_quantization as fake
    from edgeml.twin.own import Channels, Log

    plain = twin(model, strip_scaling=True)
    found = fake.roundings(plain)
    annotate = tfmot.quantization.keras.quantize_annotate_layer
    known = {cls.__name__: cls for cls in (fake.Rounding, fake.Scheme, Channels, Log)}
    with tfmot.quantization.keras.quantize_scope(known):
        annotated = tf_keras.models.clone_model(
            plain, clone_function=lambda layer: annotate(layer, quantize_config=found[layer.name])
        )
        quantized = tfmot.quantization.keras.quantize_apply(annotated, scheme=fake.Scheme())
    left = [
        LeftAlone("qat", toolkit.ours(layer.name), f"{type(layer).__name__}: its weights are not rounded")
        for layer in plain.layers
        if layer.trainable_weights and not found[layer.name].kernel
    ]
    return quantized, left
