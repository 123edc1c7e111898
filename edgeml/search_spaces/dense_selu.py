"""Self-normalising network: dense layers whose activations keep mean 0 and variance 1 by themselves, without norms.

    x ─ [dense ─ selu ─ alpha dropout] x layers ─ dense ─ softmax        selu(x) = λ x           x > 0
                                                                                 = λ α (eˣ - 1)  else

Weights start as the theory asks, normal with variance 1 / inputs (lecun_normal); inputs should be standardized.
Klambauer et al. 2017, arXiv 1706.02515, which also names the shapes tried here. A window is laid out in one row.
"""

from __future__ import annotations

from typing import Any

from edgeml.network import Network
from edgeml.operators import Operator, Shape
from edgeml.search_spaces import _layers

TAKES = ("vectors", "windows")
WIDTHS = [8, 16, 24, 32, 48, 64, 96, 128]
MAX_LAYERS = 6
SHAPES = {"rectangular": 1.0, "conic": 0.7}  # how wide a layer is, by the one before it


def network(hp: Any, input_shape: Shape, num_classes: int) -> Network:
    """Describe the network that ``hp`` stands for."""
    net = Network(input_shape)
    x = net.flatten(net.input) if len(input_shape) > 1 else net.input
    width, narrowing = hp.Choice("width", WIDTHS), SHAPES[hp.Choice("shape", ["conic", "rectangular"])]
    dropout = hp.Choice("alpha_dropout", [0.0, 0.05, 0.1])
    for layer in range(hp.Int("layers", 1, MAX_LAYERS)):
        units = max(8, 8 * round(width * narrowing**layer / 8))
        x = net.act(net.dense(x, units, start="lecun_normal"), "selu")
        x = net.dropout(x, dropout, kind="alpha_dropout")
    net.softmax(net.dense(x, num_classes, start="lecun_normal"))
    _layers.training_options(hp)
    return net


def build(hp: Any, input_shape: Shape, num_classes: int) -> Any:
    """Build and compile the Keras model."""
    return _layers.compiled(network(hp, input_shape, num_classes), hp)


def operators(hp: Any, input_shape: Shape, num_classes: int) -> tuple[Operator, ...]:
    """List the operators of the folded graph."""
    return network(hp, input_shape, num_classes).operators()
