"""What of a Keras model no file can hold, named before anything is converted: one line instead of a converter's."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeml.errors import DataError, TargetError, UsageError
from edgeml.precisions import is_calibrated
from edgeml.runtimes.keras import functional, output_names

NAME = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.\\/>-]*")  # of an operation of TensorFlow
HALVES = ("float16", "bfloat16")
SPECTROGRAMS = ("MelSpectrogram", "STFTSpectrogram")
AS_IT_CAME = (
    "Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "AlphaDropout", "GaussianDropout",
    "GaussianNoise", "Identity", "ActivityRegularization", "RandomFlip", "RandomRotation", "RandomTranslation",
    "RandomZoom",
)  # fmt: skip


def exportable(model: Any, to: Sequence[str], precision: Sequence[str]) -> Any:
    """Return a model as a functional one; refuse what the targets cannot write.

    Raises:
        UsageError: it has no layer graph. DataError: weights that are no numbers.
        TargetError: a free input size, a name, a type, a layer, a precision or an output that no file can hold.
    """
    inputs, outputs = getattr(model, "inputs", None), getattr(model, "outputs", None)
    if not inputs or not outputs:
        raise UsageError(
            f"model '{getattr(model, 'name', model)}': {type(model).__name__} has no layer graph; Functional and built"
            " Sequential models have one. Build it, or write it with the functional API."
        )
    model = functional(model)
    for tensor in inputs:
        _check_input(model, tensor)
    names = [*(tensor.name for tensor in inputs), *output_names(model)]
    for name in [*names, *(layer.name for layer in model._flatten_layers())]:
        if not NAME.fullmatch(name):
            raise TargetError(
                f"model '{model.name}': the name '{name}'; letters, digits and . _ - / are allowed in files. Rename it."
            )
    check_precision(model, precision)
    for layer in model._flatten_layers(include_self=False):
        _check_layer(layer, to, precision)
    _check_outputs(model)
    return model


def check_precision(model: Any, precision: Sequence[str]) -> None:
    """Refuse a precision that a layer has no form in.

    Raises:
        TargetError: trees in anything but float32.
    """
    from edgeml.layers import TreeEnsemble

    others = [word for word in precision if word != "float32"]
    for layer in getattr(model, "_flatten_layers", list)():  # a stand-in has none
        if others and isinstance(layer, TreeEnsemble):
            raise TargetError(
                f"layer '{layer.name}' (TreeEnsemble): holds decision trees, and {others[0]} is asked for; float32 is"
                " allowed. Set export.precision to [float32], or leave ensemble.trees out."
            )


def _check_input(model: Any, tensor: Any) -> None:
    if None in tensor.shape[1:]:
        raise TargetError(
            f"model '{model.name}': input '{tensor.name}' has shape {tensor.shape}; every size but the batch must be"
            " fixed. Build it for one size."
        )
    if tensor.dtype == "string":
        raise TargetError(
            f"model '{model.name}': input '{tensor.name}' is text; numbers are allowed. Encode it outside."
        )


def _check_layer(layer: Any, to: Sequence[str], precision: Sequence[str]) -> None:
    import keras

    where = f"layer '{layer.name}' ({type(layer).__name__})"
    if getattr(layer, "compute_dtype", None) in HALVES:
        raise TargetError(
            f"{where}: computes in {layer.compute_dtype}; files are written in float32. Build the model with dtype"
            " float32 and load its weights."
        )
    if getattr(layer, "stateful", False):
        raise TargetError(f"{where}: keeps its state from call to call; no file does. Build it with stateful=False.")
    if type(layer).__name__ in SPECTROGRAMS and ("onnx" in to or is_calibrated(precision)):
        raise TargetError(
            f"{where}: has a Fourier transform, which ONNX files and integers have not; TFLite in float32 has. Export"
            " that alone, or compute it outside the model."
        )
    if isinstance(layer, keras.layers.RNN) and is_calibrated(precision) and not getattr(layer, "unroll", False):
        raise TargetError(
            f"{where}: is a loop, on which TensorFlow's calibration crashes. Build it with unroll=True, or export"
            " float32."
        )
    for weight in getattr(layer, "_trainable_variables", []) + getattr(layer, "_non_trainable_variables", []):
        values = keras.ops.convert_to_numpy(weight)
        if values.dtype.kind == "f" and not np.all(np.isfinite(values)):
            raise DataError(f"{where}: its '{weight.name}' holds NaN or infinite values. Train it again.")


def _check_outputs(model: Any) -> None:
    """Refuse what converters lose: an output that is an input, or one value as two outputs."""
    known = {_value(tensor): f"the input '{tensor.name}'" for tensor in model.inputs}
    for name, tensor in zip(output_names(model), model.outputs, strict=True):
        origin = _value(tensor)
        if origin in known:
            raise TargetError(
                f"model '{model.name}': output '{name}' is {known[origin]} as it is; files hold a value once. Leave"
                " that output out."
            )
        known[origin] = f"the output '{name}'"


def _value(tensor: Any) -> tuple[int, ...]:
    """Return what tells one value from another: the layer, and what it was called on."""
    operation, node, place = _origin(tensor)._keras_history
    sources = operation._inbound_nodes[node].input_tensors
    return id(operation), place, *(id(_origin(source)) for source in sources)


def _origin(tensor: Any) -> Any:
    """Return the tensor that layers without effect at inference hand on."""
    operation, node, _ = tensor._keras_history
    kind = type(operation).__name__
    is_linear = kind == "Activation" and getattr(operation.activation, "__name__", "") == "linear"
    if kind in AS_IT_CAME or is_linear:
        return _origin(operation._inbound_nodes[node].input_tensors[0])
    return tensor
