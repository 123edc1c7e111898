"""Export targets, one file each: a Keras graph in, a file out.

A target is a module with

    RUNTIME, SUFFIX     who opens the file, and its ending
    PRECISIONS          number formats that it can write, as ``edgeml.precisions`` says
    NEEDS               {precision: ((target, precision), ...)}: files of other targets that it starts from
    export(model, precision, path, sources, calibration, batch, io) -> Written | None

``sources`` maps each need to its file; ``calibration`` maps input names to training samples (for integer activations);
``batch`` is a fixed batch size, None for the target's own: 1 or any; ``io`` is what enters and leaves an integer file:
``native`` or ``float32``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Quantization:
    """How a file was quantized: the method, in a word, and where its ranges came from."""

    method: str
    ranges: str


@dataclass(frozen=True)
class Written:
    """What is known of a file: how it was quantized, and the Keras layers of each node where names do not say them."""

    quantization: Quantization | None = None
    layers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
