"""What a TFLite file says of itself, in the way of the TFLite metadata specification (schema 1.5.0).

    model flatbuffer, with a metadata entry TFLITE_METADATA: a flatbuffer "M001" of ModelMetadata
    a ZIP archive behind it, not compressed: labels.txt, named by the metadata of the output

Interpreters read the flatbuffer alone; ``unzip`` and the task libraries find the archive from the end of the file.
TensorFlow's wheel has no code for that schema: its few tables are written slot by slot here.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ENTRY, IDENTIFIER = b"TFLITE_METADATA", b"M001"
LABELS = "labels.txt"
LEAST_PARSER = "1.0.0"
AXIS_LABELS = 2  # AssociatedFileType
FEATURES, IMAGE = 1, 2  # ContentProperties
RGB, GREY = 1, 2  # ColorSpaceType
NORMALIZATION = 1  # ProcessUnitOptions
LONG_AGO = (1980, 1, 1, 0, 0, 0)  # of the archive, so that equal labels are equal bytes


@dataclass(frozen=True)
class TensorNote:
    """What is said of an input or output; an image has ``channels``; pixels (0 to 255) enter as (p - mean) / std.

    ``least``, ``most``: of its values. ``labels``: text of labels.txt, one class a line.
    """

    name: str
    channels: int = 0
    mean: float = 0.0
    std: float = 0.0
    least: float | None = None
    most: float | None = None
    labels: str = ""


def with_metadata(
    content: bytes, description: str, inputs: Sequence[TensorNote], outputs: Sequence[TensorNote]
) -> bytes:
    """Return a model's bytes with its metadata, and the labels of its outputs behind them."""
    import flatbuffers
    from tensorflow.lite.python import schema_py_generated as schema

    file = schema.ModelT.InitFromPackedBuf(content, 0)
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = list(_metadata(description, inputs, outputs))
    entry.name, entry.buffer = ENTRY, len(file.buffers)
    file.buffers = [*file.buffers, buffer]
    file.metadata = [*(file.metadata or []), entry]
    builder = flatbuffers.Builder(len(content))
    builder.Finish(file.Pack(builder), file_identifier=b"TFL3")
    return _with_file(bytes(builder.Output()), "".join(one.labels for one in outputs))


def _with_file(content: bytes, labels: str) -> bytes:
    if not labels:
        return content
    whole = io.BytesIO(content)
    with zipfile.ZipFile(whole, "a", zipfile.ZIP_STORED) as archive:
        about = zipfile.ZipInfo(LABELS, LONG_AGO)
        about.create_system = 3
        archive.writestr(about, labels.encode("utf-8", "replace"))
    return whole.getvalue()


def _metadata(description: str, inputs: Sequence[TensorNote], outputs: Sequence[TensorNote]) -> bytes:
    import flatbuffers

    builder = flatbuffers.Builder(512)
    sides = {
        slot: _vector(builder, [_tensor(builder, one) for one in notes]) for slot, notes in ((2, inputs), (3, outputs))
    }
    graph = _table(builder, 4, sides)
    texts = {1: builder.CreateString(description), 7: builder.CreateString(LEAST_PARSER)}
    root = _table(builder, 8, {**texts, 3: _vector(builder, [graph])})
    builder.Finish(root, file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def _tensor(builder: Any, note: TensorNote) -> int:
    slots = {0: builder.CreateString(note.name), 3: _content(builder, note)}
    if note.std:
        options = _table(builder, 2, {0: _reals(builder, note.mean), 1: _reals(builder, note.std)})
        slots[4] = _vector(builder, [_table(builder, 2, {1: options}, {0: NORMALIZATION})])
    if note.least is not None and note.most is not None:
        slots[5] = _table(builder, 2, {0: _reals(builder, note.most), 1: _reals(builder, note.least)})
    if note.labels:
        name = builder.CreateString(LABELS)
        slots[6] = _vector(builder, [_table(builder, 3, {0: name}, {2: AXIS_LABELS})])
    return _table(builder, 7, slots)


def _content(builder: Any, note: TensorNote) -> int:
    if note.channels:
        image = _table(builder, 2, {}, {0: RGB if note.channels == 3 else GREY})
        return _table(builder, 3, {1: image}, {0: IMAGE})
    return _table(builder, 3, {1: _table(builder, 0, {})}, {0: FEATURES})


def _table(builder: Any, slots: int, offsets: Mapping[int, int], numbers: Mapping[int, int] | None = None) -> int:
    """Write a table: ``offsets`` to what was written before it, and ``numbers`` of one byte, by slot."""
    builder.StartObject(slots)
    for slot, offset in offsets.items():
        builder.PrependUOffsetTRelativeSlot(slot, offset, 0)
    for slot, number in (numbers or {}).items():
        builder.PrependUint8Slot(slot, number, 0)
    return int(builder.EndObject())


def _vector(builder: Any, offsets: Sequence[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())


def _reals(builder: Any, value: float) -> int:
    builder.StartVector(4, 1, 4)
    builder.PrependFloat32(value)
    return int(builder.EndVector())
