"""The hard case of int8: channels between two layers that differ by powers of ten, in a network of the same function.

    x → depthwise · s → relu → pointwise / s → y        relu(s · x) = s · relu(x),  s > 0

A tensor has one scale for all its channels: those a thousand times smaller than their neighbours lose all their steps.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import keras
import numpy as np


def spread(model: Any, decades: float, seed: int = 3, names: Container[str] | None = None) -> Any:
    """Scale what depthwise convolutions of a folded relu network make, by 10 to ± ``decades`` per channel.

    ``names``: only these of them. The next layer with a kernel is divided; the given model is not changed.
    """
    rng, after = np.random.default_rng(seed), keras.models.clone_model(model)
    after.set_weights(model.get_weights())
    for layer in after._flatten_layers():  # nested models too
        if isinstance(layer, keras.layers.DepthwiseConv2D) and (names is None or layer.name in names):
            s = 10.0 ** rng.uniform(-decades, decades, layer.bias.shape[0])
            layer.kernel.assign(layer.kernel * s[:, None])
            layer.bias.assign(layer.bias * s)
            reader = _reader(layer)
            reader.kernel.assign(reader.kernel / s[:, None])
    return after


def _reader(layer: Any) -> Any:
    (node,) = layer._outbound_nodes
    return node.operation if hasattr(node.operation, "kernel") else _reader(node.operation)
