"""From a folded Keras graph to staged files, target by target: each is opened in its own runtime and proven.

A file that another one starts from (ONNX int8 from TFLite int8) is written first, and kept only if it was asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from edgeml import arena, plugins, precisions
from edgeml.errors import DataError, TargetError, UsageError
from edgeml.exportable import check_precision
from edgeml.precisions import NATIVE
from edgeml.quantization import Climb
from edgeml.records import Cost, Event, to_json
from edgeml.runtimes import Arrays, Signature, Tensor, open_model
from edgeml.targets import Quantization, Written
from edgeml.tflite_operators import tflite_operators

OnEvent = Callable[[Event], None]


@dataclass(frozen=True)
class Artifact:
    """One exported file: where it lies, what it is, how it was quantized, by which steps, and what goes in and out.

    ``layers``: the Keras layers of its nodes, where their names do not say them. ``has_nameplate``: see ``nameplates``.
    """

    path: Path
    target: str
    precision: str
    quantization: Quantization | None
    signature: Signature
    climb: Climb | None = None
    layers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    has_nameplate: bool = False


def words(given: str | Sequence[str]) -> tuple[str, ...]:
    """Return targets or precisions that were given one by one, or in one text: ``tflite,onnx``."""
    return tuple(word.strip() for word in given.split(",") if word.strip()) if isinstance(given, str) else tuple(given)


def file_name(target: str, precision: str) -> str:
    """Return the name that a file has in a bundle."""
    suffix = plugins.get("targets", target).SUFFIX
    return f"model{suffix}" if precision == "float32" else f"model_{precision}{suffix}"


def write(
    model: Any,
    folder: Path,
    targets: Sequence[str],
    precision: Sequence[str],
    calibration: Arrays | None,
    on_event: OnEvent,
    *,
    batch: int | None = None,
    io: str = NATIVE,
    climbs: Mapping[str, Climb] | None = None,
) -> list[Artifact]:
    """Write of every target the files of those precisions that it has into ``folder``.

    Args:
        model: a folded graph.
        folder: where the files go.
        targets: file formats.
        precision: number formats.
        calibration: samples by input that integer ranges are taken from.
        on_event: called before each file.
        batch: a fixed batch size; if None, each target's own.
        io: what enters and leaves files of integers, see ``edgeml.precisions``.
        climbs: by precision, what is written instead of ``model``.

    Raises:
        TargetError: a target cannot take this network, or nothing has one of the precisions.
        UsageError: integers are asked for without calibration samples, or nothing is asked for.
    """
    check_request(targets, precision, calibrated=calibration is not None, io=io)
    check_precision(model, precision)
    asked = [(file.target, file.precision) for file in precisions.files(targets, precision)]
    written: dict[tuple[str, str], Artifact] = {}
    for target, one in asked:
        _write_one(model, folder, target, one, calibration, written, on_event, batch, io, climbs or {})
    for key in written.keys() - set(asked):
        written[key].path.unlink()
    for target, one in precisions.programs(targets, precision):
        source = written[precisions.origin(target, one)]
        graph = source.climb.model if source.climb and source.climb.model else model
        with plugins.blamed("targets", target):
            plugins.get("targets", target).check(source.path, graph, source.layers)
    return [written[key] for key in asked]


def check_request(targets: Sequence[str], precision: Sequence[str], *, calibrated: bool, io: str = NATIVE) -> None:
    """Refuse what cannot be written, before anything is loaded.

    Raises:
        TargetError: no target has one of the precisions, or a target has none of them.
        UsageError: nothing asked for, an unknown target or ``io``, integers without calibration samples, a target's
            extra that is missing, or no TensorFlow, which every target needs.
    """
    if find_spec("tensorflow") is None:
        raise UsageError(
            "export: TensorFlow is not installed, and files are written with it. `pip install tensorflow`, then"
            " `edgeml export RUN` finishes a run that was searched without it."
        )
    for what, words in (("to", targets), ("precision", precision)):
        if not words:
            raise UsageError(f"{what}: got none; at least one is due.")
    check_tools(targets)
    reason = precisions.refusal(targets, precision)
    if reason:
        raise TargetError(reason)
    if io not in precisions.IO:
        raise UsageError(f"io: got '{io}'; {' or '.join(precisions.IO)} is allowed.")
    integers = [one for one in precision if precisions.is_calibrated([one])]
    if integers and not calibrated:
        raise UsageError(
            f"{integers[0]}: needs calibration samples; give --calibration DATA (npz or folder of class folders)."
        )


def check_tools(targets: Sequence[str]) -> None:
    """Refuse targets whose tools are missing, before a search; without TensorFlow another machine writes the files.

    Raises:
        UsageError: an unknown target, or one whose extra or compiler is not installed.
    """
    missing = []
    for target in targets:
        module = plugins.get("targets", target)  # says which there are
        if precisions.is_deployed(target) and find_spec("tensorflow") is not None:
            try:
                with plugins.blamed("targets", target):
                    module.check_installed()
            except UsageError as error:
                missing.append(str(error))
    if missing:
        raise UsageError(" ".join(missing))


def _write_one(
    model: Any,
    folder: Path,
    target: str,
    precision: str,
    calibration: Arrays | None,
    written: dict[tuple[str, str], Artifact],
    on_event: OnEvent,
    batch: int | None,
    io: str,
    climbs: Mapping[str, Climb],
) -> None:
    if (target, precision) in written:
        return
    module = plugins.get("targets", target)
    for needed_target, needed_precision in module.NEEDS.get(precision, ()):
        _write_one(model, folder, needed_target, needed_precision, calibration, written, on_event, batch, io, climbs)
    path = folder / file_name(target, precision)
    on_event(Event("export", path.name))
    sources = {key: artifact.path for key, artifact in written.items()}
    climb = climbs.get(precision)
    if climb and target == climb.target:
        path.write_bytes(climb.content)
        done = Written(climb.quantization)
    else:
        source = climb.model if climb else model
        with plugins.blamed("targets", target):
            done = module.export(source, precision, path, sources, calibration, batch, io) or Written()
    try:
        signature = open_model(path).signature
    except DataError as error:
        reason = str(error).removeprefix(f"{path}: ").rstrip(".")
        raise TargetError(f"{target} {precision}: what was written is refused: {reason}. Export float32.") from error
    written[target, precision] = Artifact(path, target, precision, done.quantization, signature, climb, done.layers)


def as_written(cost: Cost, artifacts: Sequence[Artifact]) -> Cost:
    """Return a predicted cost with what the files really take, and the arena of the int8 TFLite file's operators."""
    sizes: dict[str, dict[str, int]] = {}
    for artifact in artifacts:
        sizes.setdefault(artifact.target, {})[artifact.precision] = artifact.path.stat().st_size
    arenas = {a.precision: arena.file_arena_bytes(tflite_operators(a.path)) for a in artifacts
              if (a.target, a.precision) == ("tflite", "int8")}  # fmt: skip
    return replace(cost, file_bytes=sizes, arena_bytes=arenas or cost.arena_bytes)


def quantization_json(artifact: Artifact) -> dict[str, Any]:
    """Return a file's quantization as the manifest states it."""

    def scales(tensor: Tensor) -> dict[str, Any]:
        if tensor.scale is None:
            return {}
        return {"dtype": tensor.dtype, "scale": tensor.scale, "zero_point": tensor.zero_point}

    sides = {"input": artifact.signature.inputs, "output": artifact.signature.outputs}
    done, climb = artifact.quantization, artifact.climb
    return {
        **({"method": done.method, "ranges": done.ranges} if done else {}),
        **({"float_layers": list(climb.float_layers), "steps": to_json(climb.rungs)} if climb else {}),
        **{side: scales(tensors[0]) for side, tensors in sides.items()},
        **{
            f"{side}s": {tensor.name: scales(tensor) or {"dtype": tensor.dtype} for tensor in tensors}
            for side, tensors in sides.items()
        },
    }


def same_rows(artifact: Artifact, artifacts: Sequence[Artifact], inputs: Arrays) -> dict[str, Any]:
    """Hold a file against the one that it was made from, if that was kept: which, and how many rows are bit-equal.

    ``most_steps`` is the largest difference in steps of the output's scale, ``None`` where outputs have none.
    """
    needed = plugins.get("targets", artifact.target).NEEDS.get(artifact.precision, ())
    source = next((one for one in artifacts if (one.target, one.precision) in needed), None)
    if source is None:
        return {}
    first, second = (open_model(one.path).predict(inputs) for one in (source, artifact))
    rows = len(next(iter(inputs.values())))
    apart = {name: np.abs(first[name] - second[name]).reshape(rows, -1).max(axis=1) for name in first}
    scales = {tensor.name: tensor.scale for tensor in source.signature.outputs}
    steps = [float(most.max()) / scale for name, most in apart.items() if (scale := scales[name])]
    equal = int((np.max([*apart.values()], axis=0) == 0).sum())
    return {"same_as": source.path.name, "rows": rows, "equal": equal, "most_steps": max(steps, default=None)}
