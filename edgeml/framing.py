"""What an export puts around a model: the scaling that its training applied outside, and another layout of images.

    x (NCHW) ─► NHWC ─► scale · x + offset ─► model ─► NCHW

Inputs and outputs keep the model's names. Folding takes the scaling into the first layer, and clean graphs hold one
transposition less or more. A sidecar file, ``my_model.keras.yaml`` beside ``my_model.keras``, may say all of it:

    labels: [cat, dog]      scale: 1/255      offset: 0      layout: nchw
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml import recipe_file
from edgeml.errors import UsageError
from edgeml.recipe_rule import rule
from edgeml.runtimes.keras import output_names

NHWC, NCHW = "nhwc", "nchw"
LAYOUTS = (NHWC, NCHW)
IMAGE_RANK = 4
Number = float | Fraction
Numbers = Number | Sequence[Number]


@dataclass(frozen=True, kw_only=True)
class Frame:
    """What is known of a model beside its file. ``scale`` and ``offset``: one number, or one per channel."""

    labels: tuple[str, ...] | None = rule(None, "class names in output order", min_items=1)
    layout: str | None = rule(None, "of images in the exported files, if not the model's own", choices=LAYOUTS)
    scale: tuple[Fraction, ...] | None = rule(
        None, "the model was trained on scale·x + offset; the files take x", min_items=1
    )
    offset: tuple[Fraction, ...] | None = rule(None, "see scale", min_items=1)


def sidecar(source: Path) -> Path:
    """Return where the sidecar file of a model file or folder lies, if there is one."""
    return source.with_name(f"{source.name}.yaml")


def read(source: Path, flags: Mapping[str, str | None]) -> Frame:
    """Return what the sidecar file of ``source`` says, and ``flags``, as YAML text, instead of it.

    Raises:
        RecipeError: a key that is not known, or a value that is not allowed.
    """
    beside = sidecar(source)
    given = {key: text for key, text in flags.items() if text is not None}
    return recipe_file.read_record(Frame, beside if beside.is_file() else None, given)


def framed(model: Any, scale: Numbers | None, offset: Numbers | None, layout: str | None) -> Any:
    """Return a functional ``model`` with scaling in front and ``layout`` around it; itself, if nothing is asked for.

    Raises:
        UsageError: an unknown layout; a scale for several inputs, for integers, or of another number of channels.
    """
    import keras

    if layout not in (None, *LAYOUTS):
        raise UsageError(f"layout: got '{layout}'; {' or '.join(LAYOUTS)} is allowed.")
    own = layout_of(model)
    wanted, is_scaled = layout or own, scale is not None or offset is not None
    turned = [len(tensor.shape) == IMAGE_RANK and wanted != own for tensor in [*model.inputs, *model.outputs]]
    if not (any(turned) or is_scaled):
        return model
    inputs, fed = [], []
    for tensor, is_turned in zip(model.inputs, turned, strict=False):
        shape = in_layout(tensor.shape[1:], own, wanted) if is_turned else tensor.shape[1:]
        inputs.append(keras.Input(shape, dtype=tensor.dtype, name=tensor.name))
        fed.append(keras.layers.Permute(axes(wanted, own))(inputs[-1]) if is_turned else inputs[-1])
    if is_scaled:
        fed = [_scaled(model, fed, scale, offset)]
    results = keras.tree.flatten(model(keras.tree.pack_sequence_as(model.input, fed)))
    outputs = [
        (keras.layers.Permute(axes(own, wanted), name=name) if is_turned else keras.layers.Identity(name=name))(result)
        for name, result, is_turned in zip(output_names(model), results, turned[len(inputs) :], strict=True)
    ]
    return keras.Model(inputs, outputs, name=model.name)


def most(scale: Numbers | None, offset: Numbers | None) -> float:
    """Return the largest x for which scale · x + offset is within -1 and 1: what random inputs reach."""
    by, plus = numbers(scale, 1.0), numbers(offset, 0.0)
    return float(np.max(np.maximum(np.abs(1 - plus), np.abs(-1 - plus)) / np.maximum(np.abs(by), 1e-12)))


def layout_of(model: Any) -> str:
    """Return the layout of a model's images: ``nchw`` where a layer says ``channels_first``."""
    formats = {getattr(layer, "data_format", None) for layer in model._flatten_layers()}
    return NCHW if "channels_first" in formats else NHWC


def axes(before: str, after: str) -> tuple[int, int, int]:
    """Return the axes behind the batch that turn images of one layout into another, as Keras' Permute takes them."""
    if before == after:
        return 1, 2, 3
    return (3, 1, 2) if after == NCHW else (2, 3, 1)


def in_layout(shape: Sequence[int], before: str, after: str) -> tuple[int, ...]:
    """Return the sizes of an image (behind the batch) in another layout, other shapes as they are."""
    return tuple(shape[axis - 1] for axis in axes(before, after)) if len(shape) == IMAGE_RANK - 1 else tuple(shape)


def numbers(given: Numbers | None, default: float) -> NDArray[np.float64]:
    """Return one number, or one per channel, as an array (1,) or (C,).

    Raises:
        UsageError: something else.
    """
    try:
        return np.atleast_1d(np.asarray(default if given is None else given).astype(np.float64))
    except (TypeError, ValueError) as error:
        raise UsageError(f"scale: got {given!r}; a number, or one per channel, is allowed.") from error


def _scaled(model: Any, fed: Sequence[Any], scale: Numbers | None, offset: Numbers | None) -> Any:
    import keras

    if len(fed) > 1:
        names = ", ".join(tensor.name for tensor in model.inputs)
        raise UsageError(f"scale: the model has the inputs {names}; one is allowed. Give the model Rescaling layers.")
    if "float" not in fed[0].dtype:
        raise UsageError(f"scale: input '{model.inputs[0].name}' is {fed[0].dtype}; a float one is allowed.")
    is_first = len(fed[0].shape) == IMAGE_RANK and layout_of(model) == NCHW
    channels, shape = (fed[0].shape[1], (-1, 1, 1)) if is_first else (fed[0].shape[-1], (-1,))
    factors = [numbers(scale, 1.0), numbers(offset, 0.0)]
    for name, values in zip(("scale", "offset"), factors, strict=True):
        if values.ndim != 1 or len(values) not in (1, channels) or not np.all(np.isfinite(values)):
            raise UsageError(f"{name}: got {values.tolist()}; 1 or {channels} finite numbers are allowed.")
    return keras.layers.Rescaling(*(float(v[0]) if len(v) == 1 else v.reshape(shape).tolist() for v in factors))(fed[0])
