"""TFLite files of every precision: built-in operators only, static batch (1 unless another is asked for).

float16 stores weights as halves, each with a DEQUANTIZE that makes it float32. dynamic stores kernels of at least 1,024
weights as int8; what they are multiplied with is quantized as the file runs. int8 and int16x8 are post-training
quantization: per-channel symmetric weights of 8 bits, per-tensor activations of 8 or 16 whose ranges are the minimum
and maximum seen on calibration samples (Jacob et al. 2017, arXiv 1712.05877; the TFLite quantization specification).
Their inputs and outputs are integers, so that raw pixels go in through the input's scale and zero point alone; with
``io`` float32 a QUANTIZE and a DEQUANTIZE stand at the edges, and nothing in between is float.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeml.bundled.opening import whole_batches
from edgeml.errors import TargetError
from edgeml.precisions import NATIVE, OWN
from edgeml.precisions import PRECISIONS as FORMATS
from edgeml.runtimes import Arrays
from edgeml.runtimes.keras import output_names
from edgeml.targets import Quantization, Written
from edgeml.targets._scopes import first_layer, layer_of
from edgeml.targets._tflite_floats import quantized, tensors_of
from edgeml.targets._tracing import traced

RUNTIME = "litert"
SUFFIX = ".tflite"
PRECISIONS = OWN["tflite"]
NEEDS: dict[str, tuple[tuple[str, str], ...]] = {}
PLAIN = {"int16x8": ("selu_by_exp", "hard_silu")}  # activations without an operator; else selu alone
METHODS = {
    "float16": Quantization("weights stored as halves", "none"),
    "dynamic": Quantization("kernels of 1,024 weights and more as int8", "as the file runs"),
    "int8": Quantization("ptq", "minimum and maximum"),
    "int16x8": Quantization("ptq", "minimum and maximum"),
}
OPERATION = re.compile(r"'tf\.(\w+)'|op: '(\w+)'")  # in the converter's errors
LARGEST_HALF = 65_504.0
EDGES = ("QUANTIZE", "DEQUANTIZE")


def export(
    model: Any,
    precision: str,
    path: Path,
    sources: Mapping[tuple[str, str], Path],
    calibration: Arrays | None,
    batch: int | None = None,
    io: str = NATIVE,
    *,
    float_layers: Sequence[str] = (),
) -> Written:
    """Write one file; in int8, the ``float_layers`` of the model are computed in float32.

    Raises:
        TargetError: an operator is not built in or has no integer kernel, or a weight is beyond the halves.
    """
    if float_layers:
        content = with_float_layers(prepare(model, calibration or {}, batch), model, float_layers, io)
    else:
        content = _named(_converted(model, precision, calibration, batch, io), model, precision, io)
    path.write_bytes(content)
    return Written(METHODS.get(precision))


def prepare(model: Any, calibration: Arrays, batch: int | None = None) -> bytes:
    """Return a float file that holds the ranges of all its tensors: what ``with_float_layers`` takes."""
    return _converted(model, "int8", calibration, batch, NATIVE, is_prepared=True)


def with_float_layers(prepared: bytes, model: Any, layers: Sequence[str], io: str = NATIVE) -> bytes:
    """Return an int8 file of a prepared one in which ``layers`` of the model stay in float32.

    Raises:
        TargetError: one of them has no kernel.
    """
    made = quantized(prepared, tensors_of(prepared, model, layers), is_native=io == NATIVE)
    return _named(made, model, "int8", io, is_mixed=True)


def _converted(
    model: Any,
    precision: str,
    calibration: Arrays | None,
    batch: int | None,
    io: str,
    *,
    is_prepared: bool = False,
) -> bytes:
    import tensorflow as tf
    from tensorflow.lite.python.convert import ConverterError

    # The second argument (the Keras model) must be left out: with it, TF 2.21 writes a file without its weights.
    plain = PLAIN.get(precision, ("selu",))
    function = traced(model, batch=batch or 1, plain=plain).get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function])
    _configure(converter, precision, io)
    if FORMATS[precision].is_integer:
        converter.representative_dataset = lambda: _batches(calibration or {}, model.inputs, batch or 1)
    converter._experimental_calibrate_only = is_prepared
    try:
        return _without_warnings(converter.convert)
    except (ConverterError, RuntimeError, ValueError) as error:
        said = _first_line(error)
        name = first_layer(model, _paths_to_blame(function, said))
        where = f"layer '{name}': " if name else _operation(model, said)
        raise TargetError(f"tflite {precision}: {where}{said}. Change or remove that layer.") from error


def _operation(model: Any, said: str) -> str:
    """Name an operation that is no layer (``keras.ops.erf(x)``) by its kind, and the layer before it."""
    found = OPERATION.search(said)
    for one in getattr(model, "operations", ()) if found else ():
        if found and type(one).__name__.lower() == (found[1] or found[2]).lower():
            before = one._inbound_nodes[0].input_tensors[0]._keras_history.operation
            return f"operation '{one.name}' ({type(one).__name__}) behind layer '{before.name}': "
    return ""


def _paths_to_blame(function: Any, said: str) -> Iterator[str]:
    """Yield the paths of all operators of the kind that an error of the converter is about.

    It knows them by the names of TensorFlow, or by those of TFLite, which a float32 file tells the places of.
    """
    import tensorflow as tf
    from tensorflow.lite.python import schema_py_generated as schema

    found = OPERATION.search(said)
    if found is None:
        return
    if found[1]:
        yield from (one.name for one in function.graph.get_operations() if one.type == found[1])
        return
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function])
    _configure(converter, "float32", NATIVE)
    file = schema.ModelT.InitFromPackedBuf(_without_warnings(converter.convert), 0)
    for node in file.subgraphs[0].operators:
        if _kind(file, node, schema) == found[2]:
            yield file.subgraphs[0].tensors[node.outputs[0]].name.decode()


def _configure(converter: Any, precision: str, io: str) -> None:
    import tensorflow as tf

    sets, spec = tf.lite.OpsSet, converter.target_spec
    integers = {
        "int8": (sets.TFLITE_BUILTINS_INT8, tf.int8),
        "int16x8": (sets.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8, tf.int16),
    }
    operators, dtype = integers.get(precision, (sets.TFLITE_BUILTINS, tf.float32))
    spec.supported_ops = [operators]
    if precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        spec.supported_types = [tf.float16]
    if io == NATIVE:
        converter.inference_input_type = converter.inference_output_type = dtype


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


def _named(content: bytes, model: Any, precision: str, io: str, *, is_mixed: bool = False) -> bytes:
    """Give inputs and outputs the model's names, add the signature, and refuse what does not belong there.

    ``is_mixed``: some layers are asked to stay in float.
    """
    import flatbuffers
    from tensorflow.lite.python import schema_py_generated as schema

    file = schema.ModelT.InitFromPackedBuf(content, 0)
    graph = file.subgraphs[0]
    if FORMATS[precision].is_integer and not is_mixed:
        _refuse_floats(file, model, precision, () if io == NATIVE else EDGES)
    if precision == "float16":
        _refuse_clipped(file, model)
    for index, name in zip(graph.outputs, output_names(model), strict=True):
        graph.tensors[index].name = name.encode()
    definition = schema.SignatureDefT()
    definition.signatureKey, definition.subgraphIndex = b"serving_default", 0
    definition.inputs = [_entry(schema, graph, index) for index in graph.inputs]
    definition.outputs = [_entry(schema, graph, index) for index in graph.outputs]
    file.signatureDefs = [definition]
    builder = flatbuffers.Builder(len(content))
    builder.Finish(file.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _entry(schema: Any, graph: Any, index: int) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = graph.tensors[index].name, index
    return entry


def _refuse_floats(file: Any, model: Any, precision: str, edges: Sequence[str]) -> None:
    """Refuse real numbers in a file of integers, but for inputs and outputs that only operators ``edges`` touch."""
    from tensorflow.lite.python import schema_py_generated as schema

    graph = file.subgraphs[0]
    touched: dict[int, set[str]] = {}
    for node in graph.operators:
        for index in (*node.inputs, *node.outputs):
            touched.setdefault(int(index), set()).add(_kind(file, node, schema))
    borders = {*map(int, graph.inputs), *map(int, graph.outputs)}
    allowed = {index for index in borders if touched.get(index, {""}) <= set(edges)}
    floats = [
        tensor.name.decode()
        for index, tensor in enumerate(graph.tensors)
        if tensor.type == schema.TensorType.FLOAT32 and index not in allowed
    ]
    if floats:
        where = f"layer '{name}'" if (name := first_layer(model, floats)) else f"tensor '{floats[0]}'"
        raise TargetError(
            f"tflite {precision}: {where} stays float ({len(floats)} tensors in all); a full-integer file has none."
            " Change that layer, or export float32."
        )


def _kind(file: Any, node: Any, schema: Any) -> str:
    code = file.operatorCodes[node.opcodeIndex]
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    return str(names[max(code.builtinCode, code.deprecatedBuiltinCode)])


def _refuse_clipped(file: Any, model: Any) -> None:
    """Refuse halves at the end of their range: there the converter (2.21) puts what lies beyond it."""
    from tensorflow.lite.python import schema_py_generated as schema

    for tensor in file.subgraphs[0].tensors:
        data = file.buffers[tensor.buffer].data
        if tensor.type != schema.TensorType.FLOAT16 or data is None:
            continue
        if np.abs(np.frombuffer(bytes(data), "<f2").astype(np.float32)).max(initial=0.0) >= LARGEST_HALF:
            path = tensor.name.decode()
            where = f"layer '{name}'" if (name := layer_of(model, path)) else f"tensor '{path}'"
            raise TargetError(
                f"tflite float16: {where} has weights beyond {LARGEST_HALF:,.0f}; halves end there. Train it with a"
                " weight decay, or export float32."
            )
