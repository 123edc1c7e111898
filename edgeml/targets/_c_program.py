"""A program of C sources behind the ``Loaded`` protocol: built by gcc, run as a process of its own."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeml.errors import TargetError
from edgeml.runtimes import Arrays, Made, Signature, in_batches
from edgeml.targets import Golden
from edgeml.targets._c_sources import golden_rows, outputs_of

FLAGS = ("-std=c11", "-O2", "-Wall", "-Wextra", "-Werror")
SECONDS = 300  # that a compiler or a program may take
TIME = re.compile(r"([\d.]+) us per inference")


def call(program: str, *arguments: str, place: Path | None = None) -> str:
    """Run a compiler or a program, and return what it printed.

    Raises:
        TargetError: it fails, or takes longer than five minutes.
    """
    found = shutil.which(program) or program
    try:
        done = subprocess.run(  # noqa: S603  (a compiler, or what it built of our sources)
            [found, *arguments], capture_output=True, text=True, timeout=SECONDS, cwd=place, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        said = " ".join((getattr(error, "stderr", "") or str(error)).split())[:300]
        raise TargetError(
            f"c: {Path(program).name} failed: {said}. Leave the target c out, and report this."
        ) from error
    return done.stdout


class Program:
    """The sources in a folder, built in a place of its own that lasts as long as this object."""

    def __init__(self, sources: Path, signature: Signature, runtime: str, batch: int) -> None:
        self.signature, self.runtime, self._batch = signature, runtime, batch
        self._place = here = Path(tempfile.mkdtemp(prefix="edgeml-c-"))
        weakref.finalize(self, shutil.rmtree, here, ignore_errors=True)
        shutil.copyfile(sources / "golden.bin", here / "golden.bin")
        call("gcc", *FLAGS, str(sources / "main.c"), str(sources / "model.c"), "-o", str(here / "main"), "-lm")

    def predict(self, inputs: Arrays) -> dict[str, NDArray[np.float32]]:
        """Run all rows, in one call of the program."""
        return in_batches(self.signature, inputs, self._run)

    def _run(self, batch: Arrays) -> Arrays:
        here = self._place
        (here / "in.bin").write_bytes(b"".join(golden_rows(self.signature, batch, {}, self._batch)))
        call(str(here / "main"), "in.bin", "out.bin", place=here)
        return outputs_of((here / "out.bin").read_bytes(), self.signature, self._batch)

    def range_error(self, golden: Golden) -> float:
        """Return the largest difference from what golden inputs are due to give, as a share of the outputs' range."""
        made = self.predict(golden.inputs)
        return max(float(np.abs(made[name] - due).max() / (np.ptp(due) or 1.0)) for name, due in golden.outputs.items())

    def ms(self) -> float:
        """Return the mean milliseconds of an inference on the golden rows, as the program itself tells."""
        here = self._place
        said = call(str(here / "main"), "golden.bin", "out.bin", place=here)  # judged elsewhere
        return float(TIME.findall(said)[0]) / 1e3

    def single(self, inputs: Arrays, rows: int = 1) -> Callable[[], None]:
        """Return a call of the program: mostly the start of a process, ``ms`` is of an inference."""

        def run() -> None:
            self._run({name: values[:rows] for name, values in inputs.items()})

        return run

    def layers(self, inputs: Arrays) -> list[Made] | None:
        """Return None: activations lie on the stack of a call."""
        del inputs
        return None
