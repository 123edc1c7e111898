"""What model files say of themselves, so that a file that left its bundle can still be read: its nameplate.

    .onnx     metadata_props: edgeml.labels, edgeml.input, edgeml.recipe_sha256, edgeml.versions (JSON)
    .tflite   the TFLite metadata: description, what goes in and how it is scaled, labels.txt

It is put on after a file was written and before it is proven. It is cargo: a file that it would carry over
``budget.file_bytes`` goes without, so that the budget, which networks were searched by, holds; the manifest says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from edgeml.exporting import Artifact
from edgeml.handover.facts import pixel_range
from edgeml.targets import _onnx_metadata, _tflite_metadata
from edgeml.targets._tflite_metadata import TensorNote

INPUT_KEYS = ("name", "shape", "layout", "range", "divided_by")
VERSIONS = ("keras", "tensorflow")
BLACK_TO_WHITE = 255.0


Json = Mapping[str, Any]


def label_lines(labels: Sequence[str]) -> str:
    """Return the text of labels.txt: one class a line, whatever its name holds."""
    return "".join(f"{' '.join(label.split())}\n" for label in labels)


def put_on(artifacts: Sequence[Artifact], about: Json, most_bytes: int | None = None) -> list[Artifact]:
    """Give each file its nameplate, but for those that it would make larger than ``most_bytes``.

    Args:
        artifacts: files as they were written; those of other targets stay as they are.
        about: what a manifest says of inputs, outputs, task, versions and recipe.
        most_bytes: the budget of a file, None if there is none.

    Returns:
        The same artifacts, ``has_nameplate`` set where it is on.
    """
    found = []
    for artifact in artifacts:
        write = WRITERS.get(artifact.target)
        content = write(artifact.path.read_bytes(), about) if write else b""
        fits = bool(content) and (most_bytes is None or len(content) <= most_bytes)
        if fits:
            artifact.path.write_bytes(content)
        found.append(replace(artifact, has_nameplate=fits))
    return found


def _onnx(content: bytes, about: Json) -> bytes:
    listed = [{key: one[key] for key in INPUT_KEYS if key in one} for one in about["inputs"]]
    said = {
        "edgeml.labels": about["task"]["labels"],
        "edgeml.input": listed[0] if len(listed) == 1 else listed,
        "edgeml.recipe_sha256": about["recipe_sha256"],
        "edgeml.versions": _versions(about),
    }
    texts = {
        key: value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
        for key, value in said.items() if value
    }  # fmt: skip
    return _onnx_metadata.with_metadata(content, texts)


def _tflite(content: bytes, about: Json) -> bytes:
    task, recipe = about["task"], about["recipe_sha256"]
    made = ", ".join(f"{name} {number}" for name, number in _versions(about).items())
    description = f"{made}; recipe sha256 {recipe}" if recipe else made
    labelled = task.get("output", about["outputs"][0]["name"])
    lines = label_lines(task["labels"])
    outputs = [TensorNote(one["name"], labels=lines if one["name"] == labelled else "") for one in about["outputs"]]
    return _tflite_metadata.with_metadata(content, description, [_note(one) for one in about["inputs"]], outputs)


def _versions(about: Json) -> dict[str, str]:
    return {"edgeml": about["edgeml"], **{name: about["versions"][name] for name in VERSIONS}}


def _note(tensor: Json) -> TensorNote:
    shape = tensor["shape"]
    channels = shape[-1] if tensor.get("layout") == "NHWC" and len(shape) == 3 and shape[-1] in (1, 3) else 0
    least, most = tensor["range"]
    note = TensorNote(tensor["name"], channels, least=least, most=most)
    black, white = pixel_range(tensor)
    if not channels or white <= black:
        return note
    std = BLACK_TO_WHITE / (white - black)
    return replace(note, mean=0.0 - black * std, std=std)


WRITERS = {"onnx": _onnx, "tflite": _tflite}  # by target: what a compiler made of a file is not written again
