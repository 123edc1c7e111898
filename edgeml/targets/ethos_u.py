"""TFLite files for Arm's Ethos-U55, compiled by Vela from the int8 TFLite file, one per size of the NPU.

    ethos_u/model_int8_ethos-u55-128.tflite   one operator of the NPU, and what stays on the CPU

Cycles and SRAM are Vela's own, see ``devices.vela``. Nothing here runs such a file: what goes in and comes out is held
against the int8 file, shapes, types and scales; its results are not compared. Take it to Arm's simulator or the board.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeml.devices import vela
from edgeml.errors import DataError, TargetError
from edgeml.targets import Deployed, Golden
from edgeml.targets._refusals import refusal
from edgeml.targets._scopes import first_layer
from edgeml.tflite_operators import builtin_operators, edges

PRECISIONS = ("int8",)
NEEDS: dict[str, tuple[tuple[str, str], ...]] = {"int8": (("tflite", "int8"),)}
ACCELERATORS = ("ethos-u55-128", "ethos-u55-256")


def check_installed() -> None:
    """Raise if Vela is missing.

    Raises:
        UsageError: it is.
    """
    vela.version()


def check(source: Path, model: Any, layers: Mapping[str, Sequence[str]]) -> None:
    """Compile the file once.

    Raises:
        TargetError: Vela cannot compile it, or leaves all of it to the CPU.
    """
    del layers
    try:
        found = vela.compiled(source, ACCELERATORS[0])
    except DataError as error:
        raise TargetError(f"ethos_u int8: {str(error).removeprefix(f'{source}: ')}") from error
    if found.cycles == 0:
        kind, tensor = builtin_operators(source)[0]
        why = "the NPU computes none of the network: all of it stays on the CPU"
        raise refusal("ethos_u", "int8", kind, first_layer(model, [tensor]), why)


def deploy(source: Path, folder: Path, golden: Golden) -> Deployed:
    """Write a file per accelerator into ``folder``.

    Raises:
        TargetError: what enters or leaves a compiled file is not what the int8 file says.
    """
    del golden
    figures: dict[str, float | int] = {}
    notes = []
    for accelerator in ACCELERATORS:
        path = folder / f"{source.stem}_{accelerator}.tflite"
        found = vela.compiled(source, accelerator, keep=path)
        if edges(path) != edges(source):
            raise TargetError(
                f"ethos_u: {path.name} takes {edges(path)}; {edges(source)} are due. Leave this target out."
            )
        short = accelerator.rpartition("-")[2]
        if not figures:
            figures |= {"flash_bytes": found.flash_bytes, "ram_bytes": found.sram_bytes, "cycles": found.cycles}
        figures |= {
            f"u55_{short}_{name}": value
            for name, value in {
                "cycles": found.cycles, "ms": found.ms, "sram_bytes": found.sram_bytes,
                "flash_bytes": found.flash_bytes, "cpu_operators": len(found.cpu_operators),
            }.items()
        }  # fmt: skip
        notes.append(f"{accelerator}: {_on_cpu(path, found.cpu_operators)}")
    return Deployed(f"Vela {vela.version()}", None, figures, (*notes, "compiled, not run: no simulator is at hand"))


def _on_cpu(path: Path, names: Sequence[str]) -> str:
    kinds = sorted({kind for kind, tensor in builtin_operators(path) if kind != vela.NPU and tensor in names})
    return f"on the CPU stay {', '.join(kinds)} ({len(names)} operators)" if names else "all operators on the NPU"
