"""Weights by place: which variable of a Keras 3 layer is which weight of its twin, and copying both ways."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tf_keras

from edgeml.errors import UsageError

Place = tuple[str, str]  # name of a tf_keras layer, name of its weight


@dataclass(frozen=True, eq=False)
class Link:
    """A variable of a Keras 3 layer, and its place in the twin."""

    variable: Any
    place: Place


def copy_out(links: Sequence[Link], twin: Any) -> None:
    """Write the values of the Keras 3 variables into the twin."""
    found = _by_place(twin.layers)
    for link in links:
        target = found[link.place]
        target.assign(np.asarray(keras.ops.convert_to_numpy(link.variable)).reshape(target.shape))


def copy_back(links: Sequence[Link], twin: Any) -> None:
    """Write the twin's weights into the Keras 3 variables.

    Raises:
        UsageError: as ``edgeml.twin.back``.
    """
    found = _by_place(twin.layers)
    for link in links:
        if link.place not in found:
            raise UsageError(
                f"twin '{twin.name}': no weight '{link.place[1]}' in a layer '{link.place[0]}'; there are those of"
                f" {', '.join(sorted({name for name, _ in found}))}. Give the model that the twin was made of."
            )
    for link in links:
        link.variable.assign(found[link.place].numpy().reshape(link.variable.shape))


def _by_place(layers: Iterable[Any]) -> dict[Place, Any]:
    """Return every weight by its place; the wrappers of tfmot hold those of the layer in them, beside their own."""
    found: dict[Place, Any] = {}
    for layer in layers:
        core = layer
        while isinstance(core, tf_keras.layers.Wrapper):
            if type(core).__name__ == "ClusterWeights":  # whose kernel is the one before clustering
                raise UsageError(
                    f"twin: layer '{core.name}' still learns clusters. Strip them first (strip_clustering)."
                )
            core = core.layer
        for variable in layer.weights:
            found.setdefault((core.name, variable.name.rpartition("/")[2].partition(":")[0]), variable)
    return found
