"""Activations of Keras 3 in tf_keras: most by name, the hard ones out of parts.

    hard_sigmoid(x) = relu6(x + 3) / 6      hard_silu(x) = x · hard_sigmoid(x)

tf_keras' own hard_sigmoid is another function, and it has no hard_silu; the TFLite converter makes one HARD_SWISH of
these parts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tf_keras

from edgeml.folding.graph import Node
from edgeml.twin.calls import Call, chain, of

old = tf_keras.layers
NAMES = {  # of functions that are the same in both: in Keras 3, in tf_keras
    **{name: name for name in ("relu", "softmax", "sigmoid", "tanh", "elu", "selu", "softplus", "softsign")},
    **{name: name for name in ("exponential", "gelu", "mish")},
    "silu": "swish",
}


def name_of(layer: Any) -> str:
    """Return the name of a layer's activation, empty for a function that is not Keras' own."""
    if layer.activation is None:
        return "linear"
    name = getattr(layer.activation, "__name__", "")
    return name if getattr(keras.activations, name, None) is layer.activation else ""


def activation(node: Node, name: str) -> Call:
    """Build the activation of a layer."""
    return FUNCTIONS[name_of(node.layer)](of(node, name))


def _named(name: str) -> Callable[[dict[str, Any]], Call]:
    return lambda options: chain(old.Activation(name, **options))


def _hard_sigmoid(options: dict[str, Any]) -> Call:
    name, dtype = options["name"], options["dtype"]
    one, three, sixth = (np.asarray(value, dtype) for value in (1.0, 3.0, 1.0 / 6.0))
    return chain(
        old.Rescaling(one, three, name=f"{name}__p3", dtype=dtype),
        old.ReLU(6.0, name=f"{name}__r6", dtype=dtype),
        old.Rescaling(sixth, name=name, dtype=dtype),
    )


def _hard_silu(options: dict[str, Any]) -> Call:
    gate = _hard_sigmoid({**options, "name": f"{options['name']}__s6"})
    product = old.Multiply(**options)
    return lambda tensors: [product([tensors[0], *gate(tensors)])]


FUNCTIONS: Mapping[str, Callable[[dict[str, Any]], Call]] = {
    **{ours: _named(theirs) for ours, theirs in NAMES.items()},
    "linear": lambda options: list,
    "relu6": lambda options: chain(old.ReLU(6.0, **options)),
    "leaky_relu": lambda options: chain(old.LeakyReLU(0.2, **options)),
    "hard_sigmoid": _hard_sigmoid,
    "hard_silu": _hard_silu,
}
