"""What `edgeml export` feeds a model file with: samples as the files will take them, and the classes of samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeml.errors import DataError
from edgeml.records import Event

if TYPE_CHECKING:
    from edgeml.samples import Samples

OnEvent = Callable[[Event], None]


def read(path: Path | None, model: Any, layout: str | None, *, is_labelled: bool) -> Samples:
    """Read samples as the files will take them: of images from a folder the axes are put in the layout's order."""
    from edgeml import framing
    from edgeml.samples import Samples, read_samples

    if path is None:
        return Samples(None)
    own = framing.layout_of(model)
    shapes = {tensor.name: framing.in_layout(tensor.shape[1:], own, framing.NHWC) for tensor in model.inputs}
    found = read_samples(path, shapes, is_labelled=is_labelled)
    if not path.is_dir():
        return found
    axes = (0, *framing.axes(framing.NHWC, layout or own))
    return replace(found, inputs={name: np.transpose(x, axes) for name, x in (found.inputs or {}).items()})


def tells_classes(model: Any, labels: Sequence[str] | None) -> bool:
    """Tell a model that says probabilities of two classes or more, or whose values have names."""
    from edgeml.descriptions import is_classifier
    from edgeml.model_inputs import has_classes

    return is_classifier(model, labels) and has_classes(model)


def truth_of(found: Samples, where: Path | None, model: Any, labels: Sequence[str] | None, on_event: OnEvent) -> Any:
    """Return the classes of samples that were read ``where``; None where there are none to use, which a line says.

    Raises:
        DataError: the model tells classes apart, and these are none of it.
    """
    from edgeml.model_inputs import true_classes

    why = found.unused
    if found.truth_name and not tells_classes(model, labels):
        why = f"'{found.truth_name}' is of no use, the model is no classifier. Give labels if its values are of classes"
    if why:
        on_event(Event("export", f"warning: {where}: no accuracy: {why}."))
    if why or found.inputs is None or found.truth is None:
        return None
    try:
        return true_classes(model, found.inputs, found.truth, labels, f"{where}: '{found.truth_name}'")
    except DataError as error:
        if labels is not None or where is None or not where.is_dir():
            raise
        on_event(Event("export", f"warning: no accuracy. {error}"))  # folders have to have some names
        return None
