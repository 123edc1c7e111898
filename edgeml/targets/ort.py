"""ORT files for onnxruntime's mobile and reduced builds, from the ONNX files, and what such a build needs.

    ort/model.ort                 optimized for any ARM or x86 machine: no layout of one processor in it
    ort/model.required_operators_and_types.config   what `build.sh --include_ops_by_config` takes

float16 is left out: its halves are turned into float32 as the file is optimized. Where a processor has a layout of its
own (x86), the ``.onnx`` file is faster: both are timed, in turn. The verdict on mobile accelerators is
that of onnxruntime's own checker, with input shapes fixed where they are not.
"""

from __future__ import annotations

import logging
import re
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edgeml.bundled.stopwatch import QUIET_PERCENTILE
from edgeml.errors import TargetError
from edgeml.interleaving import interleaved, quiet_ms
from edgeml.runtimes import onnxruntime as runtime
from edgeml.targets import Deployed, Golden

PRECISIONS = ("float32", "int8")
NEEDS: dict[str, tuple[tuple[str, str], ...]] = {one: (("onnx", one),) for one in PRECISIONS}
VERDICT = re.compile(r"Model should perform well with (.+?) (as is|if modified to have fixed input shapes): (YES|NO)")
LOADS = 15  # of each file, in turn
ROUNDS = 12
SLOWER = 1.1  # from which it is told


def check_installed() -> None:
    """Nothing is needed but onnxruntime, which is always there."""


def check(source: Path, model: Any, layers: Mapping[str, Sequence[str]]) -> None:
    """Whatever onnxruntime opens can be saved so."""
    del source, model, layers


def deploy(source: Path, folder: Path, golden: Golden) -> Deployed:
    """Write the ORT file and its operators into ``folder``.

    Raises:
        TargetError: onnxruntime cannot save it.
    """
    path = folder / f"{source.stem}.ort"
    _convert(source, path)
    with _root_logger_kept(), warnings.catch_warnings():
        from onnxruntime.tools.ort_format_model import create_config_from_models

        warnings.simplefilter("ignore", ResourceWarning)  # onnxruntime.tools (1.32) leaves the file open
        logging.getLogger("ort_format_model.utils").setLevel(logging.WARNING)
        needed = path.with_suffix(".required_operators_and_types.config")
        create_config_from_models([path], needed, True)
    needed.write_text(needed.read_text("utf-8").replace(f"{path}", path.name), "utf-8")  # no path of this machine
    loads = _load_ms((path, source))
    opened = runtime.open_model(path)
    blocks = interleaved({one.suffix: runtime.open_model(one).single(golden.inputs) for one in (path, source)}, ROUNDS)
    own, plain = (quiet_ms(blocks[one.suffix]) for one in (path, source))
    figures = {"flash_bytes": path.stat().st_size, "load_ms": loads[0], "onnx_load_ms": loads[1], "ms": own,
               "onnx_ms": plain}  # fmt: skip
    slower = [f"takes {own / plain:.1f} times as long as its .onnx on this machine"] if own > SLOWER * plain else []
    return Deployed(runtime.version(), opened, figures, (*slower, *verdicts(source)))


def _convert(source: Path, path: Path) -> None:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(path)
    options.add_session_config_entry("session.save_model_format", "ORT")
    options.add_session_config_entry("session.qdqisint8allowed", "1")  # as its converter does for ARM
    try:
        ort.InferenceSession(source, options, ["CPUExecutionProvider"], disabled_optimizers=["NchwcTransformer"])
    except RuntimeError as error:
        raise TargetError(f"ort: onnxruntime cannot save {source.name}: {str(error).splitlines()[0]}.") from error


def verdicts(source: Path) -> Iterator[str]:
    """Yield what onnxruntime's mobile usability checker says of an ONNX file, for each accelerator."""
    said: list[str] = []
    logger = logging.Logger("usability", logging.INFO)
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(handler)
    with _root_logger_kept():
        from onnxruntime.tools.mobile_helpers import usability_checker

        usability_checker.analyze_model(source, skip_optimize=False, logger=logger)
    last = {name: (how, verdict) for name, how, verdict in VERDICT.findall("\n".join(said))}
    for name, (how, verdict) in last.items():
        fixed = ", with fixed input shapes" if how != "as is" else ""
        yield f"{name}{fixed}: {'worth trying' if verdict == 'YES' else 'no gain, run it on the CPU'}"


@contextmanager
def _root_logger_kept() -> Iterator[None]:
    """Undo what importing onnxruntime.tools (1.32) does to the logging of everybody: ``basicConfig``."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:], root.level = handlers, level


def _load_ms(paths: Sequence[Path]) -> list[float]:
    """Return the quiet milliseconds that opening each file takes, measured in turn."""
    taken: list[list[float]] = [[] for _ in paths]
    for _ in range(LOADS):
        for path, times in zip(paths, taken, strict=True):
            begun = time.perf_counter()
            runtime.open_model(path)
            times.append(1e3 * (time.perf_counter() - begun))
    return [float(np.percentile(times, QUIET_PERCENTILE)) for times in taken]
