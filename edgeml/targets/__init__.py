"""Export targets, one file each: a Keras graph in, a file out.

A target is a module with

    RUNTIME, SUFFIX     who opens the file, and its ending
    PRECISIONS          number formats that it can write, as ``edgeml.precisions`` says
    NEEDS               {precision: ((target, precision), ...)}: files of other targets that it starts from
    export(model, precision, path, sources, calibration, batch, io) -> Quantization | None

``sources`` maps each need to its file; ``calibration`` maps input names to training samples (for integer activations);
``batch`` is a fixed batch size, None for the target's own: 1 or any; ``io`` is what enters and leaves an integer file:
``native`` or ``float32``.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Quantization:
    """How a file was quantized: the method, in a word, and where its ranges came from."""

    method: str
    ranges: str
