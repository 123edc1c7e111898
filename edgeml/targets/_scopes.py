"""Which Keras layer a tensor of a file comes from: its name is a path of TensorFlow's name scopes.

    functional_2_1/wave_1/Cos;functional_2_1/…   →   'wave'

Keras opens a scope under each layer's name; TensorFlow, traced by itself, ends it with the number of the call.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

CALL = re.compile(r"_\d+$")


def layer_of(model: Any, path: str) -> str | None:
    """Return the innermost layer on a path, of several paths of the first; None if there is none."""
    return _innermost(_names(model), path.partition(";")[0])


def layers_of(model: Any, *paths: str) -> tuple[str, ...]:
    """Return the innermost layers on all paths, also on those that stand in one name: an operator may be of several."""
    known = _names(model)
    found = (_innermost(known, one) for path in paths for one in path.split(";"))
    return tuple(dict.fromkeys(name for name in found if name is not None))


def _names(model: Any) -> set[str]:
    layers: Iterable[Any] = getattr(model, "_flatten_layers", list)()  # a stand-in has none
    return {str(layer.name) for layer in layers} - {getattr(model, "name", None)}


def _innermost(known: set[str], path: str) -> str | None:
    for part in reversed(path.split("/")):
        name = next((one for one in (CALL.sub("", part), part) if one in known), None)
        if name is not None:
            return name
    return None


def first_layer(model: Any, paths: Iterable[str]) -> str | None:
    """Return the layer on the first of ``paths`` that has one."""
    return next((name for path in paths if (name := layer_of(model, path))), None)
