"""Arm's Vela compiler as a judge: what an int8 TFLite file needs on an Ethos-U55, by Vela's own model of cycles.

    file.tflite ─► vela.main (in this process, 20 ms) ─► summary.csv:  cycles, seconds, KiB of SRAM and flash
                                                     └─► file_vela.tflite:  what is no `ethos-u` stays on the CPU

A model, not a measurement: 500 MHz, activations in SRAM of 3.7 GB/s, weights in flash of 0.5 GB/s (``SYSTEM``).
Weights are compressed, so their values count, and random ones are the safe stand-in: MLPerf Tiny's trained visual wake
words takes 76 KB of flash and 0.44 ms (ethos-u55-128), with random weights 237 KB and 0.73 ms.
"""

from __future__ import annotations

import contextlib
import csv
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeml.errors import DataError, UsageError
from edgeml.plugins import did_you_mean
from edgeml.tflite_operators import tflite_operators

ACCELERATORS = ("ethos-u55-32", "ethos-u55-64", "ethos-u55-128", "ethos-u55-256")  # MACs per cycle
SYSTEM = ("--config", "Arm/vela.ini", "--system-config", "Ethos_U55_High_End_Embedded", "--memory-mode", "Shared_Sram")
NPU = "ethos-u"  # the custom operator that the compiled file calls the NPU with
KIB = 1024


@dataclass(frozen=True)
class Compiled:
    """A file as compiled: ``ms`` and ``cycles`` of one inference, as far as the NPU computes it.

    ``sram_bytes``: activations. ``flash_bytes``: weights and commands, compressed. ``cpu_operators``: names of what the
    NPU does not take, which is in none of these figures.
    """

    accelerator: str
    version: str
    ms: float
    cycles: int
    sram_bytes: int
    flash_bytes: int
    cpu_operators: tuple[str, ...] = ()


def compiled(path: Path, accelerator: str, keep: Path | None = None) -> Compiled:
    """Compile an int8 TFLite file; ``keep``: where the compiled file goes, if it is wanted.

    Raises:
        UsageError: Vela is not installed, or there is no such accelerator.
        DataError: Vela cannot read the file.
    """
    if accelerator not in ACCELERATORS:
        near = did_you_mean(accelerator, list(ACCELERATORS))
        raise UsageError(f"vela: no accelerator '{accelerator}'; there are {', '.join(ACCELERATORS)}.{near}")
    vela = _vela()
    tflite_operators(path)  # the same DataError as everywhere for what is no TFLite file
    with tempfile.TemporaryDirectory() as folder:
        arguments = [str(path), "--accelerator-config", accelerator, *SYSTEM, "--output-dir", folder]
        said = Path(folder) / "vela.log"
        recursion = sys.getrecursionlimit()  # Vela 5.2.0 sets it to 1,000
        try:
            with _printing_into(said):
                vela.main(arguments)
        except (RuntimeError, ValueError, OSError, SystemExit) as error:
            reason = " ".join(str(error).split())
            raise DataError(f"{path}: Vela cannot compile it ({reason}). Export int8 TFLite again.") from error
        finally:
            sys.setrecursionlimit(recursion)
        if keep is not None:
            shutil.copyfile(Path(folder) / f"{path.stem}_vela.tflite", keep)
        return _read(Path(folder), path.stem, accelerator)


def version() -> str:
    """Return the version of Vela that is installed here.

    Raises:
        UsageError: it is not installed.
    """
    return str(_vela().__version__)


def _vela() -> Any:
    try:
        from ethosu.vela import vela
    except ImportError as error:
        raise UsageError(
            f"vela: {error}; Arm's compiler judges what runs on an Ethos-U. pip install 'edgeml-export[ethos]'"
        ) from error
    return vela


def _read(folder: Path, stem: str, accelerator: str) -> Compiled:
    [summary] = folder.glob("*_summary_*.csv")
    with summary.open(newline="", encoding="utf-8") as file:
        row = list(csv.DictReader(file))[-1]
    left = [o.name for o in tflite_operators(folder / f"{stem}_vela.tflite") if o.kind not in ("input", NPU)]
    return Compiled(
        accelerator, version(), ms=1e3 * float(row["inference_time"]), cycles=round(float(row["cycles_total"])),
        sram_bytes=round(KIB * float(row["sram_memory_used"])),
        flash_bytes=round(KIB * float(row["off_chip_flash_memory_used"])), cpu_operators=tuple(left),
    )  # fmt: skip


@contextlib.contextmanager
def _printing_into(path: Path) -> Iterator[None]:
    """Lead what Python and C++ print into a file: Vela prints a page per network."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    with path.open("w", encoding="utf-8") as log:
        try:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
                yield
        finally:
            for descriptor, kept in zip((1, 2), saved, strict=True):
                os.dup2(kept, descriptor)
                os.close(kept)
