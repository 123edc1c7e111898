"""A bundle checked from Python: the same checks as ``verify.py`` in the bundle, with an exception where one fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeml import bundle
from edgeml.bundled import verify as script
from edgeml.errors import IntegrityError, ParityError, UsageError


def verify(place: str | Path) -> dict[str, Any]:
    """Check integrity, then every model file against the golden tensors; return the figures.

    Raises:
        IntegrityError: a file was changed or is missing; no model is opened.
        ParityError: a file computes something else.
        UsageError: not a bundle, or no runtime is installed that opens its files.
    """
    folder = Path(place)
    bundle.check_is_bundle(folder)
    found = script.check(folder)
    if not found["integrity"]["passed"]:
        raise IntegrityError(f"{folder}: {'; '.join(found['integrity']['problems'])}. Get the bundle again.")
    if not found["parity"]:
        raise UsageError(f"{folder}: nothing could be checked; no runtime is installed. pip install onnxruntime.")
    failed = [f"{row['file']}: {row['problem']}" for row in found["parity"] if not row["passed"]]
    if failed:
        raise ParityError(f"{folder}: {' | '.join(failed)}.")
    return found
