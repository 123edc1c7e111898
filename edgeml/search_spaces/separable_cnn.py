"""The classic stack: convolutions with max pooling between, and a dense head.

    [conv ─ norm ─ act] x blocks, pooling by the stride plan ─ global average ─ (hidden) ─ dense ─ softmax

After Chollet, "Deep Learning with Python", chapter 7 (six SeparableConv2D layers with pooling), with widths, depth,
kernels and pooling open, and identity shortcuts (He et al. 2015, arXiv 1512.03385) where the shape is kept. ``conv``
turns all of them into regular convolutions; ``tools/separable_or_regular`` compares the two kinds.
"""

from __future__ import annotations

from typing import Any

from edgeml.network import Network
from edgeml.operators import Operator, Shape
from edgeml.search_spaces import _layers

WIDTHS = [8, 16, 24, 32, 48, 64, 96, 128]
MAX_BLOCKS = 6
FIRST_POOL = {"early": 1, "middle": 2, "late": 3}  # the block after which pooling starts; every second block from there


def network(hp: Any, input_shape: Shape, num_classes: int) -> Network:
    """Describe the network that ``hp`` stands for."""
    net = Network(input_shape)
    x = net.input
    activation = hp.Choice("activation", _layers.ACTIVATIONS)
    conv = net.separable if hp.Choice("conv", ["separable", "regular"]) == "separable" else net.conv
    residual = hp.Boolean("residual")
    norm = hp.Choice("norm", _layers.NORMS)
    pools_left = _layers.halvings(input_shape, smallest=2)
    first_pool = FIRST_POOL[hp.Choice("stride_plan", list(FIRST_POOL))]
    blocks = hp.Int("blocks", 2, MAX_BLOCKS)
    for block in range(1, MAX_BLOCKS + 1):
        with hp.conditional_scope("blocks", list(range(max(block, 2), MAX_BLOCKS + 1))):
            width = hp.Choice(f"block_{block}_width", WIDTHS)
            kernel = hp.Choice(f"block_{block}_kernel", [3, 5])
        if block > blocks:
            continue
        y = conv(x, width, kernel=kernel, bias=norm == "none")
        y = _layers.norm_act(net, y, norm=norm, activation=activation)
        x = net.add(x, y) if residual and block > 1 and x.shape == y.shape else y  # not around the input's scaling
        if pools_left and block >= first_pool and (block - first_pool) % 2 == 0:
            x, pools_left = net.max_pool(x), pools_left - 1
    _layers.head(net, x, hp, num_classes)
    _layers.training_options(hp)
    return net


def build(hp: Any, input_shape: Shape, num_classes: int) -> Any:
    """Build and compile the Keras model."""
    return _layers.compiled(network(hp, input_shape, num_classes), hp)


def operators(hp: Any, input_shape: Shape, num_classes: int) -> tuple[Operator, ...]:
    """List the operators of the folded graph."""
    return network(hp, input_shape, num_classes).operators()
