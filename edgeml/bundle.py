"""A bundle: files, golden tensors, manifest, sums; staged beside its place and renamed as a whole.

    exported/.<name>.staging-<pid>/  ── every gate passed ──►  exported/<name>/

The manifest is written last but for the sums. A bundle that stands is replaced only by a finished one; a folder that is
not a bundle is never touched.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import edgeml
from edgeml import probes, run_folder
from edgeml.bundled import verify as script
from edgeml.errors import IntegrityError, UsageError
from edgeml.ledger import Ledger
from edgeml.machine import conditions
from edgeml.records import to_json

MANIFEST, SUMS = "manifest.json", "SHA256SUMS"
GOLDEN_SAMPLES = 64
GOLDEN_REAL = 48
PACKAGES = ("tensorflow", "keras", "keras-tuner", "tf2onnx", "onnx", "onnxruntime", "ai-edge-litert", "numpy")
# What another machine's kernels may differ by, as a share of the range: float32 by rounding, integers by a few steps of
# 1/256 (of which 16-bit ones have as many again); halves may be computed in halves.
OTHER_MACHINE_LIMITS = {
    "float32": 1e-4, "float16": 4e-3, "dynamic": 16 / 256, "int8": 16 / 256, "int16x8": 1 / 256,
}  # fmt: skip
OTHER_MACHINE_TOP1_MIN = 0.95
SHOWN_PROBLEMS = 3
FUTURE = "from __future__ import annotations\n"
ALONE = """
import os
import sys

# What lies in this folder is what is checked: none of it is imported.
_here = os.path.realpath(os.path.dirname(__file__))
sys.path[:] = [place for place in sys.path if os.path.realpath(place or ".") != _here]

try:
    import numpy
except ModuleNotFoundError as error:
    print(f"{error}. Do: pip install numpy", file=sys.stderr)
    sys.exit(2)
"""
SHARED = re.compile(r"^from edgeml\.bundled\.(\w+) import (\(.*?\)|[^(\n]*)$", re.MULTILINE | re.DOTALL)


@contextmanager
def staged(place: Path) -> Iterator[Path]:
    """Give a folder to fill; when the block ends well it becomes ``place``, else it vanishes.

    Raises:
        UsageError: ``place`` holds something that is not a bundle, or cannot be written to.
    """
    check_place(place.resolve())
    with _staged(place.resolve()) as staging:
        yield staging


@contextmanager
def _staged(place: Path) -> Iterator[Path]:
    staging = place.with_name(f".{place.name}.staging-{os.getpid()}")
    shutil.rmtree(staging, ignore_errors=True)  # of a process that was killed and had our number
    is_new = not place.parent.exists()
    try:
        staging.mkdir(parents=True)
    except OSError as error:
        raise UsageError(f"{place.parent}: cannot be written to ({error.strerror}). Choose another --out.") from error
    try:
        yield staging
        _swap(staging, place)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        if is_new:
            with suppress(OSError):  # a bundle lies in it
                place.parent.rmdir()


def check_place(place: Path) -> None:
    """Raise before long work if ``place`` cannot become a bundle."""
    if place.is_file() or (place.is_dir() and any(place.iterdir()) and not (place / MANIFEST).is_file()):
        raise UsageError(f"{place}: holds something that is not a bundle. Move it away, or choose another --out.")
    strangers = _strangers(place)
    if strangers:
        raise UsageError(
            f"{place}: holds a bundle and, beside it, {', '.join(strangers[:3])}, which would be lost. Move"
            f" {'it' if len(strangers) == 1 else 'them'} away, or choose another --out."
        )
    parent = next(folder for folder in [place.parent, *place.parent.parents] if folder.exists())
    if not os.access(parent, os.W_OK | os.X_OK):
        raise UsageError(f"{parent}: cannot be written to (read-only, or not yours). Choose another --out.")


def _strangers(place: Path) -> list[str]:
    """Name the files in a bundle's folder that its sums do not list."""
    if not (place / SUMS).is_file():
        return []
    listed = {line.split("  ", 1)[-1] for line in (place / SUMS).read_text("utf-8", "replace").splitlines()} | {SUMS}
    found = (path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file())
    return sorted(name for name in found if name not in listed)


def _swap(staging: Path, place: Path) -> None:
    old = place.with_name(f".{place.name}.old-{os.getpid()}")
    if place.exists():
        place.rename(old)
    try:
        staging.rename(place)
    except OSError:
        if old.exists():
            old.rename(place)
        raise
    shutil.rmtree(old, ignore_errors=True)


def golden_inputs(samples: NDArray[Any], value_range: tuple[float, float]) -> NDArray[np.float32]:
    """Return 64 inputs, (64, …): real ones spread over ``samples`` (N, …), then ``probes``.

    Probes of images are of their value range, those of vectors and windows of the range of each column of ``samples``.
    """
    rows = np.linspace(0, len(samples) - 1, min(GOLDEN_REAL, len(samples))).astype(int)
    real = samples[rows].astype("float32")
    within = probes.range_of(samples) if samples.ndim in probes.COLUMNS else value_range
    return np.concatenate([real, probes.drawn(real.shape[1:], within, GOLDEN_SAMPLES - len(real))])


def golden_arrays(key: str, tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Name golden tensors: the first has the bare key, others their names behind it, as ``opening`` reads them."""
    return {key if place == 0 else f"{key}/{name}": array for place, (name, array) in enumerate(tensors.items())}


def golden_limits(precision: str, outputs: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """Return what ``verify.py`` holds a file to on another machine; ``outputs`` are the golden ones, (64, …) each.

    Limits of outputs behind the first stand under their names in ``outputs``.
    """
    first, *others = [limits_of_output(precision, values) for values in outputs.values()]
    named = dict(zip(list(outputs)[1:], others, strict=True))
    return {**first, "outputs": named} if named else first


def limits_of_output(precision: str, outputs: NDArray[Any]) -> dict[str, Any]:
    """Return the limits of one output.

    A float32 file is held to Keras' own results, any other to its own on the machine that proved it: what
    quantization changes was judged there, on far more samples.
    """
    are_probabilities = np.all(outputs >= 0) and np.allclose(outputs.sum(axis=-1), 1, atol=1e-3)
    spread = 1.0 if are_probabilities else float(np.ptp(outputs)) or 1.0  # probabilities range from 0 to 1
    exact = precision == "float32"
    limit = spread * OTHER_MACHINE_LIMITS[precision]
    return {
        "reference": "outputs" if exact else "expected",
        "max_abs_limit": limit,
        "top1_agreement_min": 1.0 if exact else OTHER_MACHINE_TOP1_MIN,
        "tie_margin": 2 * limit if exact else limit / 2,
    }


def write_sums(folder: Path, manifest: dict[str, Any], roles: Mapping[str, Mapping[str, Any]]) -> None:
    """Complete ``manifest["files"]`` from what lies in ``folder``, and write manifest and SHA256SUMS.

    ``roles`` gives what is known of a file beside its name, sum and size, which are told anew.
    """
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and p.name not in (MANIFEST, SUMS))
    manifest["files"] = [_entry(path, path.relative_to(folder).as_posix(), roles) for path in paths]
    (folder / MANIFEST).write_text(json.dumps(to_json(manifest), indent=1, allow_nan=False) + "\n", "utf-8")
    named = [*paths, folder / MANIFEST]
    lines = [f"{sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in sorted(named)]
    (folder / SUMS).write_text("".join(lines), "utf-8")


def _entry(path: Path, name: str, roles: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {"path": name, **roles.get(name, {"role": "document"}), "sha256": sha256(path), "bytes": path.stat().st_size}


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def copy_scripts(folder: Path) -> None:
    """Put the scripts that need only numpy and a runtime into a bundle, each with the lines that they share."""
    scripts = Path(edgeml.__file__).parent / "bundled"

    def lines(found: re.Match[str]) -> str:
        return (scripts / f"{found[1]}.py").read_text("utf-8").partition(FUTURE)[2].strip()

    for name in ("verify.py", "benchmark.py"):
        whole = SHARED.sub(lines, (scripts / name).read_text("utf-8"))
        (folder / name).write_text(whole.replace(FUTURE, FUTURE + ALONE, 1), "utf-8")


def provenance() -> dict[str, Any]:
    """Return when, with what and on what a bundle was made."""
    return {
        "edgeml": version("edgeml-export"),
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "versions": {name: version(name) for name in PACKAGES},
        "machine": conditions(),
    }


def models(manifest: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Return the entries of the exported model files."""
    return [entry for entry in manifest["files"] if entry.get("role") == "model" and entry.get("target") != "keras"]


def read(folder: Path) -> dict[str, Any]:
    """Return the manifest of a bundle.

    Raises:
        UsageError: the folder is not a bundle.
        IntegrityError: the manifest was changed so that it is no JSON.
    """
    check_is_bundle(folder)
    try:
        found: dict[str, Any] = json.loads((folder / MANIFEST).read_text("utf-8"))
    except ValueError as error:
        raise IntegrityError(f"{folder / MANIFEST}: changed, not JSON ({error}). Get the bundle again.") from error
    return found


def check_unchanged(folder: Path) -> int:
    """Hold a bundle against its sums; return how many files they list.

    Raises:
        UsageError: the folder is not a bundle. IntegrityError: a file was changed or is missing.
    """
    if not (folder / SUMS).is_file():
        check_is_bundle(folder)
    count, problems = script.integrity(folder)
    if problems:
        named = "; ".join(problems[:SHOWN_PROBLEMS])
        raise IntegrityError(f"{folder}: not as it was made ({named}). Get the bundle again.")
    return count


def of_run(run: Path) -> Path:
    """Return where a run wrote its last bundle.

    Raises:
        UsageError: it has not written one yet.
    """
    ended = Ledger(run / run_folder.LEDGER).of("run_ended")
    if not ended:
        raise UsageError(f"{run}: this run has no bundle yet. Make it with `edgeml export {run}`.")
    return Path(ended[-1]["bundle"])


def check_is_bundle(folder: Path) -> None:
    """Raise if a folder is not a bundle.

    Raises:
        UsageError: it has no manifest.
    """
    if not (folder / MANIFEST).is_file():
        raise UsageError(
            f"{folder}: not a bundle ({MANIFEST} is missing). Make one with `edgeml run` or `edgeml export`."
        )


@contextmanager
def rewritten(place: Path) -> Iterator[Path]:
    """Give a copy of a bundle to change; when the block ends well it takes the bundle's place.

    Files of others, which no sum lists, are left out of the copy, and lie there again afterwards.

    Raises:
        UsageError: the working directory is in the bundle, and would be gone.
    """
    if Path.cwd().is_relative_to(place.resolve()):
        raise UsageError(f"{place}: is replaced as a whole, and you stand in it. `cd ..` and give its path.")
    others = _strangers(place)
    with _staged(place.resolve()) as folder:
        shutil.copytree(place, folder, dirs_exist_ok=True)
        for name in others:
            (folder / name).unlink()
        yield folder
        for name in others:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(place / name, folder / name)
