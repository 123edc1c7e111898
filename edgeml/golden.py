"""The bundle's own ``model.keras`` against its golden tensors: needs TensorFlow, so it is asked for by ``--layers``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgeml import bundle
from edgeml.bundled import verify as script
from edgeml.bundled.opening import golden_tensors
from edgeml.runtimes.keras import Reference, load, version


def keras_row(place: Path) -> dict[str, Any]:
    """Return a row like those of ``verify.py`` for the folded Keras graph."""
    loaded = Reference(load(place / "model.keras"))
    names = [[tensor.name for tensor in side] for side in (loaded.signature.inputs, loaded.signature.outputs)]
    with np.load(place / "golden.npz", allow_pickle=False) as archive:
        inputs, outputs = (
            dict(zip(own, golden_tensors(archive, key, own), strict=True))
            for key, own in zip(("inputs", "outputs"), names, strict=True)
        )
    got = loaded.predict(inputs)
    limits = bundle.golden_limits("float32", outputs)
    row = {"file": "model.keras", "runtime": version(), "samples": len(inputs[names[0][0]]),
           "reference": limits["reference"]}  # fmt: skip
    golden = bundle.golden_arrays("outputs", outputs)
    return {**row, **script.all_judged([got[name] for name in names[1]], golden, "model.keras", limits, names[1])}
