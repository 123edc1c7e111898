"""Export targets, one file each: a Keras graph in, a file out; or such a file in, a program for a device out.

A target that writes a file is a module with

    RUNTIME, SUFFIX     who opens the file, and its ending
    PRECISIONS          number formats that it can write, as ``edgeml.precisions`` says
    NEEDS               {precision: ((target, precision), ...)}: files of other targets that it starts from
    export(model, precision, path, sources, calibration, batch, io) -> Written | None

``sources`` maps each need to its file; ``calibration`` maps input names to training samples (for integer activations);
``batch`` is a fixed batch size, None for the target's own: 1 or any; ``io`` is what enters and leaves an integer file:
``native`` or ``float32``.

One that makes a program of a file, in a folder of the bundle that bears the target's name, has

    PRECISIONS, NEEDS   likewise; the one file that each precision is made from
    check_installed()   raises UsageError, which says what to install
    check(source, model, layers)              raises TargetError: which layer it cannot take, why, what to change
    deploy(source, folder, golden) -> Deployed
    check_operators(operators)                may be there: as ``check``, of ``edgeml.operators``, before a search

``layers`` maps nodes of the file to layers of the model, where names do not. Without ``deploy`` a target is of the
first kind. Files of others join by an entry point of the group ``edgeml.targets``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgeml.runtimes import Arrays, Loaded


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


@dataclass(frozen=True, eq=False)
class Golden:
    """Inputs by name, (N, …) each, and what the file makes of them."""

    inputs: Arrays
    outputs: Arrays


@dataclass(frozen=True, eq=False)
class Deployed:
    """A program that lies in its folder: the tool that made or ran it, opened in it, and what was measured.

    ``program`` is ``None`` where nothing here can run it. ``figures`` bear their units in their names; those that every
    target may have are ``flash_bytes``, ``ram_bytes``, ``ms`` of one inference, and ``cycles``. ``notes`` are words.
    """

    tool: str
    program: Loaded | None
    figures: Mapping[str, float | int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
