"""Wide and deep: a linear model and a dense network beside each other, trained as one (for tables).

    x ─┬─ dense K ────────────────────────────────────────── + ─ softmax          logits = A x + a + B deep(x) + b
       └─ [dense ─ norm ─ act ─ dropout] x layers ─ dense K ─┘

The linear part learns what single features say, the deep one what they say together (Cheng et al. 2016, arXiv
1606.07792, without its crossed features). A window is laid out in one row.
"""

from __future__ import annotations

from typing import Any

from edgeml.network import Layer, Network
from edgeml.operators import Operator, Shape
from edgeml.search_spaces import _layers

TAKES = ("vectors", "windows")
WIDTHS = [8, 16, 24, 32, 48, 64, 96, 128]
MAX_LAYERS = 4


def network(hp: Any, input_shape: Shape, num_classes: int) -> Network:
    """Describe the network that ``hp`` stands for."""
    net = Network(input_shape)
    x = net.flatten(net.input) if len(input_shape) > 1 else net.input
    options = {
        "activation": hp.Choice("activation", ["relu", "relu6"]),
        "norm": hp.Choice("norm", _layers.NORMS),
        "dropout": hp.Choice("dropout", [0.0, 0.1, 0.25]),
    }
    deep, layers = x, hp.Int("layers", 1, MAX_LAYERS)
    for layer in range(1, MAX_LAYERS + 1):
        with hp.conditional_scope("layers", list(range(layer, MAX_LAYERS + 1))):
            width = hp.Choice(f"layer_{layer}_width", WIDTHS)
        if layer <= layers:
            deep = _hidden(net, deep, width, **options)
    net.softmax(net.add(net.dense(x, num_classes), net.dense(deep, num_classes)))
    _layers.training_options(hp)
    return net


def _hidden(net: Network, x: Layer, width: int, activation: str, norm: str, dropout: float) -> Layer:
    x = _layers.norm_act(net, net.dense(x, width), norm=norm, activation=activation)
    return net.dropout(x, dropout)


def build(hp: Any, input_shape: Shape, num_classes: int) -> Any:
    """Build and compile the Keras model."""
    return _layers.compiled(network(hp, input_shape, num_classes), hp)


def operators(hp: Any, input_shape: Shape, num_classes: int) -> tuple[Operator, ...]:
    """List the operators of the folded graph."""
    return network(hp, input_shape, num_classes).operators()
