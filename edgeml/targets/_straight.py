"""A Keras model as the converters write it by themselves, in float32 and int8: what exported files are compared with.

int8 is full-integer post-training quantization by the TFLite converter, integers at the edges, and onnxruntime's static
quantization (``_onnx_static``: QDQ, per channel) of tf2onnx's float32 file, which real numbers enter and leave.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeml.errors import TargetError
from edgeml.runtimes import Arrays
from edgeml.targets import _onnx_static

OPSET = 17  # as that of the target ``onnx``


@dataclass(frozen=True)
class Straight:
    """A file that a converter wrote."""

    converter: str
    precision: str
    path: Path


def write(model: Any, folder: Path, precisions: Collection[str], samples: Arrays | None) -> list[Straight]:
    """Write a model with each converter of the wanted precisions; int8 takes its ranges from ``samples`` by input.

    Raises:
        TargetError: all of them fail; one that does is left out.
    """
    found, said = [], ""
    for name, (suffix, precision, convert) in CONVERTERS.items():
        path = folder / f"{name.replace('.', '_').replace(' ', '_')}{suffix}"
        if precision not in precisions:
            continue
        try:
            convert(model, path, samples or {})
        except Exception as error:  # noqa: BLE001  (each converter raises what it likes)
            said = f"{name}: {' '.join(str(error).split())[:200]}"
            continue
        found.append(Straight(name, precision, path))
    if not found:
        raise TargetError(f"the converters by themselves: none can write this model; {said}. Compare with a file.")
    return found


def _tf2onnx(model: Any, path: Path, samples: Arrays) -> None:
    import keras
    import tensorflow as tf
    import tf2onnx

    del samples
    signature = [tf.TensorSpec((None, *t.shape[1:]), t.dtype, name=t.name) for t in model.inputs]

    def call(*tensors: Any) -> Any:
        return model(keras.tree.pack_sequence_as(model.input, list(tensors)), training=False)

    function = tf.function(call, input_signature=signature)
    tf2onnx.convert.from_function(function, input_signature=signature, opset=OPSET, output_path=str(path))


def _keras_export(model: Any, path: Path, samples: Arrays) -> None:
    del samples
    model.export(str(path), format="onnx", verbose=False)


def _tflite(model: Any, path: Path, samples: Arrays) -> None:
    import tensorflow as tf

    del samples
    path.write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())


def _static(model: Any, path: Path, samples: Arrays) -> None:
    plain = path.with_name(f"float32_{path.name}")
    _tf2onnx(model, plain, samples)
    _onnx_static.write(plain, path, model.inputs, samples)


def _tflite_int8(model: Any, path: Path, samples: Arrays) -> None:
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    values = [np.asarray(samples[tensor.name]).astype(tensor.dtype) for tensor in model.inputs]
    converter.representative_dataset = lambda: ([x[row : row + 1] for x in values] for row in range(len(values[0])))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of TF 2.21, that samples give the ranges of the inputs
        path.write_bytes(converter.convert())


CONVERTERS: dict[str, tuple[str, str, Callable[[Any, Path, Arrays], None]]] = {
    "tf2onnx": (".onnx", "float32", _tf2onnx),
    "keras.export": (".onnx", "float32", _keras_export),
    "TFLiteConverter": (".tflite", "float32", _tflite),
    "quantize_static of tf2onnx": (".onnx", "int8", _static),
    "TFLiteConverter int8": (".tflite", "int8", _tflite_int8),
}
