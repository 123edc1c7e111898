"""Which Keras layer a tensor of a file comes from: its name is a path of TensorFlow's name scopes.

    functional_2_1/wave_1/Cos;functional_2_1/…   →   'wave'

Keras opens a scope under each layer's name; TensorFlow, traced by itself, ends it with the number of the call.
"""

from __future__ import annotations

import re
from typing import Any

CALL = re.compile(r"_\d+$")
VERSION = re.compile(r"V\d$")  # of an operation of TensorFlow: BatchMatMulV2


def layer_of(model: Any, path: str) -> str | None:
    """Return the innermost layer on a path, of several paths of the first; None if there is none."""
    known = {layer.name for layer in getattr(model, "_flatten_layers", list)()}  # a stand-in has none
    for part in reversed(path.partition(";")[0].split("/")):
        for name in (CALL.sub("", part), part):
            if name in known and name != model.name:
                return str(name)
    return None


def layer_with(model: Any, function: Any, kind: str) -> str | None:
    """Return the first layer with an operation of this kind, as TensorFlow or as TFLite calls it: ``Cos``, ``COS``."""
    wanted = _plain(kind)
    paths = (operation.name for operation in function.graph.get_operations() if _plain(operation.type) == wanted)
    return next((name for path in paths if (name := layer_of(model, path))), None)


def _plain(kind: str) -> str:
    return VERSION.sub("", kind).replace("_", "").upper()
