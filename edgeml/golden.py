"""The bundle's own ``model.keras`` against its golden tensors: needs TensorFlow, so it is asked for by ``--layers``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgeml import bundle
from edgeml.bundled import verify as script
from edgeml.runtimes.keras import Reference, load, version


def keras_row(place: Path) -> dict[str, Any]:
    """Return a row like those of ``verify.py`` for the folded Keras graph."""
    with np.load(place / "golden.npz", allow_pickle=False) as archive:
        inputs, outputs = archive["inputs"], archive["outputs"]
    loaded = Reference(load(place / "model.keras"))
    got = next(iter(loaded.predict({loaded.signature.inputs[0].name: inputs}).values()))
    limits = bundle.golden_limits("model.keras", "float32", outputs)
    row = {"file": "model.keras", "runtime": version(), "samples": len(inputs), "reference": limits["reference"],
           "limit": limits["max_abs_limit"]}  # fmt: skip
    return {**row, **script.judged(got, {"outputs": outputs}, "model.keras", limits)}
