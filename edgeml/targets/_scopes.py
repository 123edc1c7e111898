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
    known = {layer.name for layer in getattr(model, "_flatten_layers", list)()}  # a stand-in has none
    for part in reversed(path.partition(";")[0].split("/")):
        for name in (CALL.sub("", part), part):
            if name in known and name != model.name:
                return str(name)
    return None


def first_layer(model: Any, paths: Iterable[str]) -> str | None:
    """Return the layer on the first of ``paths`` that has one."""
    return next((name for path in paths if (name := layer_of(model, path))), None)
