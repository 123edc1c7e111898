"""An int8 TFLite file in which some layers stay float: calibrated once, then quantized around them.

    … ─ q ─ CONV ─ q ─ …        becomes        … ─ q ─ DEQUANTIZE ─ CONV (float32) ─ QUANTIZE ─ q ─ …

The converter (TensorFlow 2.21) quantizes a calibrated float file in a second step, which takes names of tensors to
leave alone: that is how its quantization debugger works. It takes tens of milliseconds, calibration takes seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgeml.errors import TargetError
from edgeml.targets._scopes import layer_of


def quantized(calibrated: bytes, floats: Sequence[str], *, is_native: bool = True) -> bytes:
    """Return the int8 file of a calibrated one, in which the tensors ``floats`` are computed in float32.

    ``is_native``: inputs and outputs are int8, too.
    """
    import tensorflow as tf
    from tensorflow.lite.python.convert import mlir_quantize

    ends = tf.int8 if is_native else tf.float32
    made: bytes = mlir_quantize(
        calibrated, fully_quantize=True, input_data_type=ends, output_data_type=ends, denylisted_nodes=list(floats)
    )
    return made


def computed(calibrated: bytes, model: Any) -> dict[str, tuple[str, ...]]:
    """Return, by Keras layer with a kernel, the tensors that it computes in a calibrated file."""
    from tensorflow.lite.python import schema_py_generated as schema

    graph = schema.ModelT.InitFromPackedBuf(calibrated, 0).subgraphs[0]
    kernels = {layer.name for layer in model._flatten_layers() if _has_kernel(layer)}
    last = {graph.outputs[0]: model.outputs[0]._keras_history.operation.name} if len(model.outputs) == 1 else {}
    found: dict[str, tuple[str, ...]] = {}
    for index in (int(index) for node in graph.operators for index in node.outputs):
        path = graph.tensors[index].name.decode()
        named = (layer_of(model, part) for part in path.split(";"))
        name: str | None = next((one for one in named if one in kernels), last.get(index))
        if name is not None and name in kernels:  # the first part may be that of an activation behind the layer
            found[name] = (*found.get(name, ()), path)
    return found


def tensors_of(calibrated: bytes, model: Any, layers: Sequence[str]) -> tuple[str, ...]:
    """Return the tensors that Keras ``layers`` compute.

    Raises:
        TargetError: one of them computes none, or has no kernel.
    """
    known: Mapping[str, tuple[str, ...]] = computed(calibrated, model)
    for name in layers:
        if name not in known:
            raise TargetError(
                f"tflite int8: layer '{name}' cannot stay float; layers with kernels can: {', '.join(known)}."
            )
    return tuple(path for name in layers for path in known[name])


def _has_kernel(layer: Any) -> bool:
    return any(hasattr(layer, name) for name in ("kernel", "depthwise_kernel")) and not hasattr(layer, "layers")
