"""``edgeml inspect``: what a model file needs, layer by layer. A Keras model is counted after folding, a file as it is.

                .keras, .h5, SavedModel             .tflite, .onnx
layers          of the folded graph                 the file's own operators
arena_bytes     predicted, of the int8 TFLite file  by its operators (.tflite), not counted (.onnx)
file_bytes      predicted, by target and precision  its size
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeml import bundle, foreign
from edgeml.errors import DataError
from edgeml.operators import Operator, not_counted
from edgeml.records import Cost, to_json
from edgeml.terminal import table
from edgeml.verbs import receiving

Document = dict[str, Any]
FILES = (".tflite", ".onnx")
SIZES = {"int8": 1, "float32": 4}  # bytes of an element
LONGEST_NAME = 40  # TFLite files name a tensor after all layers that became it
FLOAT_ONLY = "not counted: it holds trees, which have no int8 form"
NO_ARENA = "not counted: TensorFlow Lite Micro reads .tflite files"


def inspect(path: Path, custom_objects: Sequence[str] = ()) -> tuple[str, Document]:
    """Count a model file, or say what a bundle is.

    Raises:
        DataError: no model file, or a damaged one. IntegrityError: a bundle that was changed.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file.")
    if (path / bundle.MANIFEST).is_file():
        return receiving.inspect(path)
    if path.is_dir() or path.suffix in foreign.SUFFIXES:
        return _of_keras(path, custom_objects)
    if path.suffix not in FILES:
        allowed = f"{', '.join((*foreign.SUFFIXES, *FILES))} and SavedModel folders"
        raise DataError(f"{path}: '{path.suffix}' is not inspected; {allowed} are.")
    return _of_file(path)


def _of_keras(path: Path, custom_objects: Sequence[str]) -> tuple[str, Document]:
    from edgeml.assembly import fold
    from edgeml.keras_operators import as_if_trained

    model = foreign.load(path, custom_objects)
    with as_if_trained(model):
        before, graph = model.count_params(), fold(model, strict=False)
    kept = [{"layer": name, "reason": reason} for name, reason in graph.folding.kept]
    arena = graph.cost.arena_bytes.get("int8")
    document = {
        **_document(graph.cost, graph.operators), "arena_bytes": arena, "variables_before_folding": before,
        "batch_norm": {"folded": len(graph.folding.folded), "kept": kept},
    }  # fmt: skip
    files = (f"{size:,} {t} {p}" for t, sizes in graph.cost.file_bytes.items() for p, size in sizes.items())
    text = [
        *_lines(graph.cost, graph.operators, f"{before:,} variables before folding"),
        f"arena  {FLOAT_ONLY}" if arena is None else f"arena  about {arena:,} bytes in TensorFlow Lite Micro, int8",
        f"files  about {', '.join(files)} (bytes)",
        f"folded {len(graph.folding.folded)}, kept {len(kept)}",
        *(f"  kept {row['layer']}: {row['reason']}" for row in kept),
        *_unknown(graph.operators),
    ]
    return "\n".join(text), document


def _of_file(path: Path) -> tuple[str, Document]:
    from edgeml import costs
    from edgeml.arena import file_arena_bytes
    from edgeml.onnx_operators import onnx_operators
    from edgeml.tflite_operators import tflite_operators

    is_tflite, size = path.suffix == ".tflite", path.stat().st_size
    operators = tflite_operators(path) if is_tflite else onnx_operators(path)
    arena = file_arena_bytes(operators) if is_tflite else None
    cost = costs.cost_of_file(operators)
    # Of all files, only ONNX ones can hold a normalization that has scale and shift in one operator.
    kept = [{"layer": o.name, "reason": "the file holds it"} for o in operators if o.kind == "affine" and o.biases]
    document = {
        **_document(cost, operators), "arena_bytes": arena, "file_bytes": size,
        "batch_norm": {"folded": 0, "kept": kept},
    }  # fmt: skip
    text = [
        *_lines(cost, operators, "as the file has them"),
        f"arena  {NO_ARENA}" if arena is None else f"arena  about {arena:,} bytes in TensorFlow Lite Micro",
        f"file  {size:,} bytes",
        *(f"  kept {row['layer']}: {row['reason']}" for row in kept),
        *_unknown(operators),
    ]
    return "\n".join(text), document


def _unknown(operators: Sequence[Operator]) -> list[str]:
    return [f"  not counted {o.name}: '{o.kind}' is not known" for o in not_counted(operators)]


def _document(cost: Cost, operators: Sequence[Operator]) -> Document:
    return {
        **to_json(cost),
        "layers": [
            {"name": o.name, "kind": o.kind, "output_shape": list(o.output_shape), "params": o.params, "macs": o.macs}
            for o in operators
        ],
        "not_counted": [{"layer": o.name, "kind": o.kind} for o in not_counted(operators)],
    }


def _lines(cost: Cost, operators: Sequence[Operator], remark: str) -> list[str]:
    weights = ", ".join(f"{size:,} {precision}" for precision, size in cost.weight_bytes.items())
    peaks = [f"{size * cost.peak_activation_bytes:,} bytes {p}" for p, size in SIZES.items() if p in cost.weight_bytes]
    rows = [
        [_short(o.name), o.kind, "x".join(map(str, o.output_shape)), f"{o.params:,}", f"{o.macs:,}"] for o in operators
    ]
    return [
        table(["layer", "kind", "output", "params", "MACs"], rows),
        "",
        f"{cost.params:,} params ({remark})  {cost.macs:,} MACs",
        f"weights  {weights} (bytes)",
        f"peak activations  {', '.join(peaks)}",
    ]


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"…{name[1 - LONGEST_NAME :]}"
