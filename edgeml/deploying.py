"""From proven files to programs for devices, target by target: each is made, run in its own tool, and held to its file.

    model_int8.tflite ─► targets/tflm.deploy ─► tflm/ ─► TensorFlow Lite Micro   = LiteRT's reference kernels
    model.onnx        ─► targets/c.deploy    ─► c/    ─► gcc, the program        = onnxruntime

A program of an int8 TFLite file is judged by its decisions (rows that are equal to the bit are counted), any other by
the largest difference of an output, as a share of the outputs' range.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeml import configurations, parity, plugins, precisions, recipe, same_integers
from edgeml.errors import ParityError, TargetError
from edgeml.exporting import Artifact, OnEvent
from edgeml.interleaving import interleaved, quiet_ms
from edgeml.parity import Parity
from edgeml.records import Event
from edgeml.runtimes import Arrays, Loaded, open_model
from edgeml.targets import Deployed, Golden

TIMED_ROUNDS = 12


@dataclass(frozen=True)
class Deployment:
    """A program in a bundle: what it was made from, by which tool, its files with their bytes, figures and parity.

    ``parity`` is ``None`` where nothing here can run it; ``most_steps`` is the largest difference in steps of the
    output's scale, where it has one.
    """

    target: str
    precision: str
    source: str
    tool: str
    files: Mapping[str, int]
    figures: Mapping[str, float | int]
    parity: Parity | None
    most_steps: int | None
    notes: tuple[str, ...]


def deploy(
    folder: Path,
    asked: Sequence[tuple[str, str]],
    artifacts: Sequence[Artifact],
    golden: Arrays,
    samples: Arrays,
    gates: recipe.Verify,
    macs: int,
    on_event: OnEvent,
) -> list[Deployment]:
    """Make the programs that were ``asked`` for (``precisions.programs``) in folders of a staged bundle.

    Args:
        folder: the staged bundle, in which the files lie.
        asked: target and precision of each.
        artifacts: the files.
        golden: inputs by name, (64, …) each, which programs bring along.
        samples: real inputs by name, (N, …), of which up to 512 are compared.
        gates: limits.
        macs: multiply-accumulates of one inference.
        on_event: called before each program.

    Raises:
        TargetError: a target cannot take the network. UsageError: its tool is not installed.
        ParityError: a program computes something else than its file.
    """
    by_key = {(one.target, one.precision): one for one in artifacts}
    some, made = configurations.some_of(samples, macs), []
    for target, precision in asked:
        on_event(Event("deploy", f"{target}, {precision}"))
        source = by_key[precisions.origin(target, precision)]
        made.append(_deployed(folder, target, precision, source, golden, some, gates))
    broken = [f"{one.target} ({one.source}): {'; '.join(one.parity.failures)}" for one in made
              if one.parity and not one.parity.passed]  # fmt: skip
    if broken:
        raise ParityError(
            f"deploy: {' | '.join(broken)}. Nothing was written to the output folder; the"
            " gates are verify.program_max_range_error and tflm_min_top1."
        )
    return made


def _deployed(
    folder: Path, target: str, precision: str, source: Artifact, golden: Arrays, samples: Arrays, gates: recipe.Verify
) -> Deployment:
    place = folder / target
    place.mkdir(exist_ok=True)
    before = set(place.rglob("*"))
    outputs = open_model(source.path).predict(golden)
    with plugins.blamed("targets", target):
        done = plugins.get("targets", target).deploy(source.path, place, Golden(golden, outputs))
        _check(target, done)
        row = _compared(done.program, source, golden, samples, gates) if done.program is not None else None
    files = sorted(path for path in place.rglob("*") if path.is_file() and path not in before)
    return Deployment(
        target, precision, source.path.name, done.tool,
        {path.relative_to(folder).as_posix(): path.stat().st_size for path in files},
        {**done.figures, **_timed(target, done, golden)}, row, _steps(row, source), done.notes,
    )  # fmt: skip


def _check(target: str, done: Any) -> None:
    """Raise if a target returns what no report can show."""
    if not isinstance(done, Deployed):
        raise TargetError(f"{target}: deploy returned {type(done).__name__}; edgeml.targets.Deployed is due.")
    strange = [f"{name} {value!r}" for name, value in done.figures.items()
               if not isinstance(value, (int, float)) or not math.isfinite(value)]  # fmt: skip
    if strange:
        raise TargetError(f"{target}: figures that are no numbers: {', '.join(strange)}.")


def _compared(program: Loaded, source: Artifact, golden: Arrays, samples: Arrays, gates: recipe.Verify) -> Parity:
    """Hold a program against its file: of integers on real inputs, else on golden ones (extremes among them), too."""
    name = source.path.name
    if (source.target, source.precision) == ("tflite", "int8"):
        kernels, words = configurations.LITERT_REFERENCE.open(source.path), f"{_rows(samples)} real"
        return same_integers.compare_integers(kernels, program, samples, gates, file=name, inputs_name=words)
    inputs = {key: np.concatenate([samples[key], x]) for key, x in golden.items()}
    reference = open_model(source.path)
    return parity.compare_ranges(
        reference, program, inputs, gates, file=name, inputs_name=f"{_rows(samples)} real, {_rows(golden)} golden"
    )


def _rows(inputs: Arrays) -> int:
    return len(next(iter(inputs.values())))


def _steps(row: Parity | None, source: Artifact) -> int | None:
    scales = [tensor.scale for tensor in source.signature.outputs if tensor.scale]
    return None if row is None or not scales else round(row.max_abs / min(scales))


def _timed(target: str, done: Deployed, inputs: Arrays) -> dict[str, float]:
    """Time single inferences of a program that can be called, unless its tool has told the time itself."""
    if done.program is None or {"ms", "cycles"} & set(done.figures):
        return {}
    blocks = interleaved({target: done.program.single(inputs)}, TIMED_ROUNDS)
    return {"ms": quiet_ms(blocks[target])}
