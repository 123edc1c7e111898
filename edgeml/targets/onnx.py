"""ONNX files: float32 and float16 from the Keras graph, int8 from the int8 TFLite file: both hold the same integers.

float32: tf2onnx ``from_function``, dynamic batch unless one is asked for, then cleaned. float16: the same with kernels
stored as halves (``_onnx_halves`` says why not computed in them). int8: tf2onnx ``from_tflite`` on the target
``tflite``, clips removed or moved behind the rounding, activations moved to uint8 (onnxruntime is 2-3 times slower on
int8 ones), weights too (exact on every CPU); raw values enter as uint8, or real numbers if the TFLite file takes them;
real numbers leave. Input scale and zero point stand in the file's metadata.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgeml.errors import TargetError
from edgeml.precisions import NATIVE, OWN
from edgeml.runtimes import Arrays, open_model
from edgeml.runtimes.keras import output_names
from edgeml.targets import Quantization, Written
from edgeml.targets._scopes import layer_of, layers_of
from edgeml.targets._tracing import traced

RUNTIME = "onnxruntime"
SUFFIX = ".onnx"
PRECISIONS = OWN["onnx"]
NEEDS: dict[str, tuple[tuple[str, str], ...]] = {"int8": (("tflite", "int8"),)}
METHODS = {
    "float16": Quantization("kernels stored as halves", "none"),
    "int8": Quantization("from the int8 TFLite file", "minimum and maximum"),
}
OPSET = 17
PASSING = ("QuantizeLinear", "DequantizeLinear", "Reshape", "Squeeze", "Flatten", "Transpose", "Identity", "Cast")


def export(
    model: Any,
    precision: str,
    path: Path,
    sources: Mapping[tuple[str, str], Path],
    calibration: Arrays | None,
    batch: int | None = None,
    io: str = NATIVE,
) -> Written:
    """Write one file, checked by ``onnx.checker``.

    Raises:
        TargetError: tf2onnx cannot convert the graph, or writes an invalid one.
    """
    import onnx

    from edgeml.targets import _onnx_graph as surgery
    from edgeml.targets._onnx_canonical import canonical
    from edgeml.targets._onnx_halves import store_halves

    del io  # that of an int8 file is that of the TFLite file
    done, scales = METHODS.get(precision), dict[str, str]()
    if precision == "int8":
        graph, done, scales = _of_int8(model, sources["tflite", "int8"], calibration, batch)
    else:
        graph = _cleaned(_from_keras(model, batch, precision))
    if precision == "float16":
        store_halves(graph)
    surgery.name_outputs(graph, output_names(model), [tuple(t.shape) for t in model.outputs])
    _check_operators(graph, precision, model)
    made = canonical(graph, scales)
    try:
        onnx.checker.check_model(made, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise TargetError(f"onnx {precision}: tf2onnx wrote an invalid graph: {_first_line(error)}.") from error
    path.write_bytes(made.SerializeToString(deterministic=True))
    return Written(done, _layers(graph, model))


def _layers(graph: Any, model: Any) -> dict[str, tuple[str, ...]]:
    """Return the Keras layers of each node: canonical names do not say them, and would cost bytes if they did."""
    found = {}
    for node, (made, name, *constants) in graph.origins.items():
        layers = layers_of(model, made) or layers_of(model, name) or layers_of(model, *constants)
        if layers:
            found[node] = layers
    for value, tensor in zip(graph.outputs, model.outputs, strict=True):  # its name is the output's alone
        node = graph.producer(value.name)
        while node is not None and node.op_type in PASSING:
            node = graph.producer(node.input[0])
        if node is not None:
            found[node.name] = (tensor._keras_history.operation.name,)
    return found


def _of_int8(
    model: Any, source: Path, calibration: Arrays | None, batch: int | None
) -> tuple[Any, Quantization, dict[str, str]]:
    """Return the graph of the int8 TFLite file; one that onnxruntime quantizes, where tf2onnx cannot read that file.

    With it, how it was quantized, and the metadata that say so.
    """
    from edgeml.targets import _onnx_graph as surgery
    from edgeml.targets._onnx_canonical import canonical
    from edgeml.targets._onnx_static import statically_quantized

    try:
        graph = _of_integers(source)
        _check_operators(graph, "int8", model)
        return graph, METHODS["int8"], {"edgeml.quantization": json.dumps(_input_scales(source))}
    except TargetError as error:
        plain = _cleaned(_from_keras(model, batch, "int8"))
        surgery.name_outputs(plain, output_names(model), [tuple(t.shape) for t in model.outputs])
        made = statically_quantized(canonical(plain, {}), model.inputs, calibration or {}, batch)
        method = f"static quantization by onnxruntime, other integers than the TFLite file's: {error}"
        return surgery.Graph(made), Quantization(method, "minimum and maximum"), {}


def _cleaned(converted: Any) -> Any:
    """Return the graph of a float32 model without what tf2onnx leaves in it."""
    from edgeml.targets import _onnx_graph as surgery
    from edgeml.targets._onnx_squeezes import move_pads_down, move_squeezes_down
    from edgeml.targets._onnx_transposes import move_transposes_down

    graph = surgery.Graph(converted)
    surgery.run_passes(
        graph,
        (
            surgery.spell_out,
            surgery.drop_neutral,
            surgery.merge_gemm,
            surgery.merge_hard_swish,
            move_transposes_down,
            move_squeezes_down,
            move_pads_down,
            surgery.merge_pad,
            surgery.merge_bias,
        ),
    )
    return graph


def _of_integers(source: Path) -> Any:
    """Return the graph of an int8 TFLite file, in the form that onnxruntime computes exactly and fast."""
    from edgeml.targets import _onnx_graph as surgery
    from edgeml.targets import _onnx_integers as integers
    from edgeml.targets._onnx_hard_swish import exact_hard_swish
    from edgeml.targets._onnx_transposes import move_transposes_down

    graph = surgery.Graph(_from_tflite(source))
    integers.check_biases(graph, _int32_constants(source))
    surgery.run_passes(graph, (surgery.drop_neutral, move_transposes_down, integers.drop_implied_clips))
    integers.activations_to_uint8(graph)
    surgery.run_passes(graph, (integers.clip_integers,))
    integers.round_pools_away(graph)
    exact_hard_swish(graph)
    integers.weights_to_uint8(graph)
    integers.keep_floats(graph)
    integers.dequantize_outputs(graph)
    return graph


def _check_operators(graph: Any, precision: str, model: Any) -> None:
    import onnx

    for node in graph.nodes:
        if not onnx.defs.has(node.op_type):
            place = node.name or node.output[0]
            where = f"layer '{name}'" if (name := layer_of(model, place)) else f"'{place}'"
            raise TargetError(
                f"onnx {precision}: {where}: '{node.op_type}' has no ONNX operator. Change that layer, or export TFLite"
                " alone."
            )


def _from_keras(model: Any, batch: int | None, precision: str) -> Any:
    import tf2onnx

    function = traced(model, batch)
    try:
        converted, _ = tf2onnx.convert.from_function(function, input_signature=function.input_signature, opset=OPSET)
    except (ValueError, RuntimeError, KeyError, NotImplementedError) as error:
        raise TargetError(f"onnx {precision}: tf2onnx cannot convert the graph: {_first_line(error)}.") from error
    return converted


def _from_tflite(source: Path) -> Any:
    import tf2onnx

    try:
        with _biases_kept():
            converted, _ = tf2onnx.convert.from_tflite(str(source), opset=OPSET)
    except (ValueError, RuntimeError, KeyError, NotImplementedError) as error:
        raise TargetError(f"onnx int8: tf2onnx cannot convert the int8 TFLite file: {_first_line(error)}.") from error
    return converted


@contextmanager
def _biases_kept() -> Iterator[None]:
    """Let tf2onnx (1.17) keep the bias of a fully connected layer whose input it reshapes: it names two of three."""
    from tf2onnx.graph import Graph

    own = Graph.replace_inputs

    def replace_inputs(self: Any, node: Any, inputs: list[str]) -> Any:
        is_cut = node.type == "TFL_FULLY_CONNECTED" and len(inputs) < len(node.input)
        return own(self, node, [*inputs, *node.input[len(inputs) :]] if is_cut else inputs)

    Graph.replace_inputs = replace_inputs
    try:
        yield
    finally:
        Graph.replace_inputs = own


def _int32_constants(source: Path) -> list[Any]:
    """Return the biases of an int8 TFLite file: its int32 vectors that are not all zero and have scales."""
    import numpy as np
    from tensorflow.lite.python import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(source.read_bytes(), 0)
    found = []
    for tensor in model.subgraphs[0].tensors:
        data, scales = model.buffers[tensor.buffer].data, getattr(tensor.quantization, "scale", None)
        if tensor.type == schema.TensorType.INT32 and data is not None and scales is not None and len(scales):
            found.append(np.frombuffer(bytes(data), "<i4"))
    return [values for values in found if values.any()]


def _input_scales(source: Path) -> dict[str, tuple[float, int]]:
    """Return scale and zero point of each input: those of the int8 file, moved to uint8."""
    return {
        tensor.name: (tensor.scale, tensor.zero_point + 128)
        for tensor in open_model(source).signature.inputs
        if tensor.scale is not None
    }


def _first_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0].strip() if lines else type(error).__name__
