"""What the programs of a bundle need to know, worked out of its manifest."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from edgeml.bundled.opening import tensors
from edgeml.handover.element_types import TYPES

Facts = dict[str, Any]
TARGETS = ("onnx", "tflite")
AS_GIVEN = "raw values, as the model takes them"  # of an exported model: its range is what samples had, no more
USUAL = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0), (-128.0, 127.0))  # ranges of pixels


def facts(manifest: Mapping[str, Any]) -> Facts:
    """Return what is to be filled in; nothing for files of several inputs or outputs, open sizes or unknown types."""
    inputs = manifest.get("inputs") or [manifest["input"]]
    outputs = manifest.get("outputs") or [manifest["output"]]
    shape = inputs[0].get("shape") or []
    types = {one.get("dtype", "float32") for one in (*inputs, *outputs)}
    if len(inputs) > 1 or len(outputs) > 1 or not shape or None in shape or types - TYPES.keys():
        return {}
    labels = list(manifest["task"].get("labels") or [])
    layout = inputs[0].get("layout") or ""
    is_first = layout == "NCHW"
    height, width, channels = _image(shape, is_first)
    low, high = pixel_range(inputs[0])
    return {
        "input": inputs[0],
        "shape": tuple(shape),
        "size": prod(shape),
        "rows": _rows(shape, height, channels, is_first),
        "is_image": channels in (1, 3),
        "height": height,
        "width": width,
        "channels": channels,
        "is_channels_first": is_first,
        "low": low,
        "high": high,
        "divided_by": inputs[0].get("divided_by"),
        "output": outputs[0],
        "labels": labels if outputs[0].get("shape") == [len(labels)] else [],
        "models": {target: models(manifest, target) for target in TARGETS},
    }


def models(manifest: Mapping[str, Any], target: str) -> list[Facts]:
    """Return a target's files: path, batch, and what goes in and comes out (dtype; scale, zero_point if integers)."""
    found = []
    for entry in manifest["files"]:
        if entry.get("role") != "model" or entry.get("target") != target:
            continue
        batch = entry.get("batch") or 1
        taken, given = (tensors(dict(manifest), entry, side) for side in ("input", "output"))
        found.append({
            "path": entry["path"], "batch": batch, "sizes": [batch, *taken[0]["shape"]], "input": _form(taken[0]),
            "output": _form(given[0]),
        })  # fmt: skip
    return found


def pixel_range(tensor: Mapping[str, Any]) -> tuple[float, float]:
    """Return what black and white are: the range of the data set, or the usual one around the samples of an export."""
    low, high = tensor.get("range") or USUAL[0]
    if tensor.get("meaning") == AS_GIVEN:
        return next((one for one in USUAL if one[0] <= low and high <= one[1]), (low, high))
    return float(low), float(high)


def _image(shape: list[int], is_channels_first: bool) -> tuple[int, int, int]:
    """Return height, width and channels; none of what is no image."""
    if len(shape) != 3:
        return 0, 0, 0
    height, width, channels = (*shape[1:], shape[0]) if is_channels_first else shape
    return height, width, channels


def _rows(shape: list[int], height: int, channels: int, is_channels_first: bool) -> int:
    """Return how many lines of a CSV may hold one window or image; none of what is neither."""
    if len(shape) == 2:
        return shape[0]
    return height if channels == 1 or (channels == 3 and not is_channels_first) else 0


def _form(tensor: Mapping[str, Any]) -> Facts:
    return {key: tensor[key] for key in ("dtype", "scale", "zero_point") if key in tensor}
