"""The bundle's own ``model.keras`` against its golden tensors, and against its files layer by layer.

Needs TensorFlow, so it is asked for by ``--layers``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeml import bundle, divergence
from edgeml.bundled import verify as script
from edgeml.bundled.opening import golden_tensors
from edgeml.divergence import LayerError
from edgeml.parity import FLOATS
from edgeml.recipe import Verify
from edgeml.records import to_json
from edgeml.runtimes import Arrays, open_model
from edgeml.runtimes.keras import Reference, load, version


def check_layers(place: Path, document: dict[str, Any]) -> None:
    """Add to what ``verify.py`` found: the Keras graph, every file's layers, and the first that parts too far.

    A float file of which a layer is out of limits fails, whatever its outputs are; for integer files that is a figure.
    """
    document["parity"].append(keras_row(place))
    tables = layer_tables(place)
    failed = {row["file"] for row in document["parity"] if not row["passed"]}
    parted = {name for name, (precision, rows) in tables.items() if precision in FLOATS and not _all_within(rows)}
    document["layers"] = to_json([row for _, rows in tables.values() for row in rows])
    for name, (_, rows) in tables.items():
        first = divergence.first_diverging(rows) if name in failed | parted else None
        if first is not None and document["first_divergence"] is None:
            document["first_divergence"] = to_json(first)
    document["passed"] = document["passed"] and document["parity"][-1]["passed"] and not parted


def _all_within(rows: list[LayerError]) -> bool:
    return all(row.is_within for row in rows)


def layer_tables(place: Path) -> dict[str, tuple[str, list[LayerError]]]:
    """Return, by file, its precision, and how far its layers are from those of the Keras graph on real inputs."""
    manifest, model = bundle.read(place), load(place / "model.keras")
    reference, gates = Reference(model), _gates(manifest)
    inputs = golden_inputs(place, [tensor.name for tensor in reference.signature.inputs])
    found = {}
    for entry in bundle.models(manifest):
        rows = divergence.table(
            model, reference, entry["path"], open_model(place / entry["path"]), inputs, entry["precision"], gates,
            entry.get("layers"),
        )  # fmt: skip
        found[entry["path"]] = entry["precision"], rows
    return found


def _gates(manifest: Mapping[str, Any]) -> Verify:
    """Return the gates of a bundle; those of float files as wide as those of its golden tensors."""
    known = {field.name for field in fields(Verify)}
    gates = Verify(**{key: value for key, value in manifest.get("gates", {}).items() if key in known})
    wide = {
        f"{precision}_max_range_error": max(
            gates.of(precision, "max_range_error") or 0.0, bundle.OTHER_MACHINE_LIMITS[precision]
        )
        for precision in FLOATS
    }
    return replace(gates, **wide)


def golden_inputs(place: Path, names: list[str]) -> Arrays:
    """Return the real ones of a bundle's golden inputs, (N, …) each, under these names."""
    with np.load(place / "golden.npz", allow_pickle=False) as archive:
        arrays = golden_tensors(archive, "inputs", names)
    return {name: array[: bundle.GOLDEN_REAL] for name, array in zip(names, arrays, strict=True)}


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
