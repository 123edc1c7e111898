"""TFLite files: float32 and full-integer int8, built-in operators only, static batch (1 unless another is asked for).

int8 is post-training quantization: per-channel symmetric weights, per-tensor activations whose ranges are the minimum
and maximum seen on calibration samples (Jacob et al. 2017, arXiv 1712.05877; the TFLite quantization specification).
The input and output are int8, so that raw pixels go in through the input's scale and zero point alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeml.bundled.opening import whole_batches
from edgeml.errors import TargetError
from edgeml.runtimes import Arrays
from edgeml.runtimes.keras import output_names
from edgeml.targets import Quantization
from edgeml.targets._tracing import traced

RUNTIME = "litert"
SUFFIX = ".tflite"
PRECISIONS = ("float32", "int8")
NEEDS: dict[str, tuple[tuple[str, str], ...]] = {}


def export(
    model: Any,
    precision: str,
    path: Path,
    sources: Mapping[tuple[str, str], Path],
    calibration: Arrays | None,
    batch: int | None = None,
) -> Quantization | None:
    """Write one file.

    Raises:
        TargetError: an operator is not built in, or has no integer kernel.
    """
    import tensorflow as tf
    from tensorflow.lite.python.convert import ConverterError

    # The second argument (the Keras model) must be left out: with it, TF 2.21 writes a file without its weights.
    function = traced(model, batch=batch or 1, is_selu_plain=True).get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if precision == "int8":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: _batches(calibration or {}, model.inputs, batch or 1)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    try:
        content = _without_warnings(converter.convert)
    except (ConverterError, RuntimeError, ValueError) as error:
        raise TargetError(f"tflite {precision}: {_first_line(error)}. Change or remove that layer.") from error
    path.write_bytes(_named(content, output_names(model), precision))
    return Quantization("ptq", "minimum and maximum") if precision == "int8" else None


def _without_warnings(convert: Callable[[], bytes]) -> bytes:
    """Convert without what TF 2.21 warns of at every int8 conversion: its own interpreter and missing statistics."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Statistics for quantized inputs were expected", UserWarning)
        warnings.filterwarnings("ignore", r"\s*Warning: tf\.lite\.Interpreter is deprecated", UserWarning)
        return convert()


def _batches(calibration: Arrays, inputs: Sequence[Any], batch: int) -> Iterator[list[Any]]:
    dtypes = [getattr(tensor.dtype, "name", tensor.dtype) for tensor in inputs]  # Keras' are names
    fed = [whole_batches(calibration[t.name], batch).astype(d) for t, d in zip(inputs, dtypes, strict=True)]
    for row in range(0, len(fed[0]), batch):
        yield [values[row : row + batch] for values in fed]


def _first_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    said = next((line for line in lines if "error: " in line), lines[0] if lines else type(error).__name__)
    return said.rpartition("error: ")[2].rstrip(".")  # what stands before it is a path of this machine


def _named(content: bytes, outputs: list[str], precision: str) -> bytes:
    """Give outputs the model's names, add the signature, and refuse floats in an integer file."""
    import flatbuffers
    from tensorflow.lite.python import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content, 0)
    graph = model.subgraphs[0]
    if precision == "int8":
        _refuse_floats(graph, schema)
    for index, name in zip(graph.outputs, outputs, strict=True):
        graph.tensors[index].name = name.encode()
    definition = schema.SignatureDefT()
    definition.signatureKey, definition.subgraphIndex = b"serving_default", 0
    definition.inputs = [_entry(schema, graph, index) for index in graph.inputs]
    definition.outputs = [_entry(schema, graph, index) for index in graph.outputs]
    model.signatureDefs = [definition]
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _entry(schema: Any, graph: Any, index: int) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = graph.tensors[index].name, index
    return entry


def _refuse_floats(graph: Any, schema: Any) -> None:
    floats = [t.name.decode() for t in graph.tensors if t.type == schema.TensorType.FLOAT32]
    if floats:
        raise TargetError(
            f"tflite int8: tensor '{floats[0]}' stays float ({len(floats)} in all); a full-integer file has none."
            " Change that layer, or export float32."
        )
