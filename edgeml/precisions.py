"""The number formats of files: what each stores, and which format of file has it.

    precision   weights         activations   ranges from samples   TFLite   ONNX
    float32     float32         float32                                ●       ●
    float16     float16         float32                                ●       ●
    dynamic     int8 *          float32                                ●
    int8        int8            int8                   ●               ●       ●
    int16x8     int8            int16                  ●               ●

    * of kernels of at least 1,024 weights; smaller ones stay float32 (TensorFlow Lite's converter, 2.21)

Where activations are integers, ``io`` says what enters and leaves the file: integers (``native``), or real numbers
(``float32``), which are quantized at its edges.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from edgeml import plugins
from edgeml.errors import UsageError

NATIVE, REAL = "native", "float32"
IO = (NATIVE, REAL)


@dataclass(frozen=True)
class Precision:
    """Bytes of a weight and of a bias; kernels of fewer than ``least`` weights stay float32.

    ``is_integer``: activations are integers, whose ranges come from calibration samples.
    """

    weight: int
    bias: int
    is_integer: bool = False
    least: int = 0

    def kernel_bytes(self, weights: int) -> int:
        """Return what a kernel of so many weights takes."""
        return weights * (self.weight if weights >= self.least else 4)


PRECISIONS: Mapping[str, Precision] = {
    "float32": Precision(4, 4),
    "float16": Precision(2, 2),
    "dynamic": Precision(1, 4, least=1024),
    "int8": Precision(1, 4, is_integer=True),
    "int16x8": Precision(1, 8, is_integer=True),
}


class File(NamedTuple):
    """One file of a network: who writes it, in which number format, and what enters and leaves it."""

    target: str
    precision: str
    io: str = NATIVE


OWN = {"tflite": tuple(PRECISIONS), "onnx": ("float32", "float16", "int8")}  # by target; those of others ask theirs
DEFAULT = ("float32", "int8")  # what a recipe writes that does not say
FILES = tuple(File(target, precision) for target, precisions in OWN.items() for precision in precisions)
DEFAULT_FILES = tuple(file for file in FILES if file.precision in DEFAULT)


def written(target: str) -> tuple[str, ...]:
    """Return the precisions that a target writes, as its module says.

    Raises:
        UsageError: one of somebody else says what is no precision.
    """
    found = tuple(plugins.get("targets", target).PRECISIONS)
    if strange := [one for one in found if one not in PRECISIONS]:
        raise UsageError(f"plug-in {target}: precision '{strange[0]}'; {', '.join(PRECISIONS)} are allowed.")
    return found


def is_deployed(target: str) -> bool:
    """Tell whether a target makes a program of a file, rather than a file."""
    return hasattr(plugins.get("targets", target), "deploy")


def origin(target: str, precision: str) -> tuple[str, str]:
    """Return target and precision of the file that a program is made from; of a file, its own."""
    if not is_deployed(target):
        return target, precision
    (needed,) = plugins.get("targets", target).NEEDS[precision]
    return str(needed[0]), str(needed[1])


def _asked(targets: Sequence[str], precisions: Sequence[str]) -> list[tuple[str, str]]:
    return [(t, p) for t in dict.fromkeys(targets) for p in dict.fromkeys(precisions) if p in written(t)]


def files(targets: Sequence[str], precisions: Sequence[str], io: str = NATIVE) -> tuple[File, ...]:
    """Return the files of ``targets``: of each those of ``precisions`` that it writes, or is made from."""
    return tuple(dict.fromkeys(File(*origin(*one), io) for one in _asked(targets, precisions)))


def programs(targets: Sequence[str], precisions: Sequence[str]) -> list[tuple[str, str]]:
    """Return target and precision of what is made of files: of each target those of ``precisions`` that it has."""
    return [one for one in _asked(targets, precisions) if is_deployed(one[0])]


def refusal(targets: Sequence[str], precisions: Sequence[str]) -> str | None:
    """Say why something that was asked for would be missing: a precision, or all files of a target; None if nothing."""
    for precision in precisions:
        if not any(precision in written(target) for target in targets):
            many = "targets" if len(targets) > 1 else "target"
            writes = ", ".join(f"{t} writes {', '.join(written(t))}" for t in targets)
            return f"{many} {', '.join(targets)}: no precision '{precision}'; {writes}. Leave it out."
    for target in targets:
        if not files([target], precisions):
            return (
                f"target {target}: writes none of {', '.join(precisions)}; {', '.join(written(target))} are allowed."
                " Add one of them, or leave this target out."
            )
    return None


def is_calibrated(precisions: Sequence[str]) -> bool:
    """Tell whether one of ``precisions`` needs calibration samples."""
    return any(PRECISIONS[precision].is_integer for precision in precisions if precision in PRECISIONS)
