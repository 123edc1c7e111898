"""Which Keras layer a tensor of a file comes from: its name is a path of TensorFlow's name scopes.

    functional_2_1/wave_1/Cos;functional_2_1/…   →   'wave'

Keras opens a scope under each layer's name; TensorFlow, traced by itself, ends it with the number of the call.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Sequence
from typing import Any

from edgeml.runtimes.keras import leaves

CALL = re.compile(r"_\d+$")


def layer_of(model: Any, path: str) -> str | None:
    """Return the innermost layer on a path, of several paths of the first; None if there is none."""
    known = {layer.name for layer in getattr(model, "_flatten_layers", list)()}  # a stand-in has none
    for part in reversed(path.partition(";")[0].split("/")):
        for name in (CALL.sub("", part), part):
            if name in known and name != model.name:
                return str(name)
    return None


def layers_of(model: Any, *paths: str) -> tuple[str, ...]:
    """Return the layers on all paths, also on those that stand in one name: an operator may be of several.

    They are named as ``runtimes.keras.leaves`` does: a layer in a model inside by both their names.
    """
    known = [tuple(name.split("/")) for name in leaves(model)]
    found = (_innermost(known, one) for path in paths for one in path.split(";"))
    return tuple(dict.fromkeys("/".join(name) for name in found if name is not None))


def _innermost(known: Sequence[tuple[str, ...]], path: str) -> tuple[str, ...] | None:
    """Return the layer whose names stand on the path in their order, the one that most names tell, then the last."""
    parts = [{part, CALL.sub("", part)} for part in path.split("/")]
    places = {name: place for name in known if (place := _last_place(name, parts)) is not None}
    return max(places, key=lambda name: (len(name), places[name]), default=None)


def _last_place(name: Sequence[str], parts: Sequence[Container[str]]) -> int | None:
    at = -1
    for one in name:
        at = next((i for i in range(at + 1, len(parts)) if one in parts[i]), len(parts))
    return at if at < len(parts) else None


def first_layer(model: Any, paths: Iterable[str]) -> str | None:
    """Return the layer on the first of ``paths`` that has one."""
    return next((name for path in paths if (name := layer_of(model, path))), None)
