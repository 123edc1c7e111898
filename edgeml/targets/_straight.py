"""A Keras model as the converters write it by themselves, in float32: what exported files are compared with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeml.errors import TargetError

OPSET = 17  # as that of the target ``onnx``


def write(model: Any, folder: Path) -> dict[str, Path]:
    """Write a model with each converter; return the files by the converters' names.

    Raises:
        TargetError: all of them fail; one that does is left out.
    """
    found, said = {}, ""
    for name, (suffix, convert) in CONVERTERS.items():
        path = folder / f"{name.replace('.', '_')}{suffix}"
        try:
            convert(model, path)
        except Exception as error:  # noqa: BLE001  (each converter raises what it likes)
            said = f"{name}: {' '.join(str(error).split())[:200]}"
            continue
        found[name] = path
    if not found:
        raise TargetError(f"the converters by themselves: none can write this model; {said}. Compare with a file.")
    return found


def _tf2onnx(model: Any, path: Path) -> None:
    import keras
    import tensorflow as tf
    import tf2onnx

    signature = [tf.TensorSpec((None, *t.shape[1:]), t.dtype, name=t.name) for t in model.inputs]

    def call(*tensors: Any) -> Any:
        return model(keras.tree.pack_sequence_as(model.input, list(tensors)), training=False)

    function = tf.function(call, input_signature=signature)
    tf2onnx.convert.from_function(function, input_signature=signature, opset=OPSET, output_path=str(path))


def _keras_export(model: Any, path: Path) -> None:
    model.export(str(path), format="onnx", verbose=False)


def _tflite(model: Any, path: Path) -> None:
    import tensorflow as tf

    path.write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())


CONVERTERS: dict[str, tuple[str, Callable[[Any, Path], None]]] = {
    "tf2onnx": (".onnx", _tf2onnx),
    "keras.export": (".onnx", _keras_export),
    "TFLiteConverter": (".tflite", _tflite),
}
