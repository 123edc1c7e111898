"""Depthwise-separable residual network: depthwise–norm–act–pointwise–norm–act blocks in stages.

    stem conv 3x3 ─ [stage: block (stride) ─ block ─ …] x stages ─ global average ─ (hidden) ─ dense ─ softmax

After MobileNet (Howard et al. 2017, arXiv 1704.04861) and DS-CNN (Zhang et al. 2017, arXiv 1711.07128), with identity
shortcuts (He et al. 2015, arXiv 1512.03385) around the blocks that keep their shape.
"""

from __future__ import annotations

from typing import Any

from edgeml.network import Layer, Network
from edgeml.operators import Operator, Shape
from edgeml.search_spaces import _layers

WIDTHS = [8, 16, 24, 32, 48, 64, 96, 128]
MAX_STAGES = 4


def network(hp: Any, input_shape: Shape, num_classes: int) -> Network:
    """Describe the network that ``hp`` stands for."""
    net = Network(input_shape)
    room = _layers.halvings(input_shape, smallest=2)
    activation = hp.Choice("activation", _layers.ACTIVATIONS)
    residual = hp.Boolean("residual")
    x = _layers.stem(net, hp, room, activation)
    most = max(1, min(MAX_STAGES, room))
    stages = hp.Int("stages", 1, most)
    for stage in range(1, most + 1):
        with hp.conditional_scope("stages", list(range(stage, most + 1))):
            options = _stage_options(hp, f"stage_{stage}")
        if stage <= stages:
            x = _stage(net, x, **options, activation=activation, residual=residual)
    _layers.head(net, x, hp, num_classes)
    _layers.training_options(hp)
    return net


def _stage_options(hp: Any, name: str) -> dict[str, Any]:
    return {
        "width": hp.Choice(f"{name}_width", WIDTHS),
        "depth": hp.Int(f"{name}_depth", 1, 4),
        "kernel": hp.Choice(f"{name}_kernel", [3, 5]),
        "stride": hp.Choice(f"{name}_stride", [2, 1]),
        "norm": hp.Choice(f"{name}_norm", _layers.NORMS),
    }


def _stage(
    net: Network,
    x: Layer,
    width: int,
    depth: int,
    kernel: int,
    stride: int,
    norm: str,
    activation: str,
    residual: bool,
) -> Layer:
    for index in range(depth):
        x = _layers.separable_block(net, x, width, kernel, stride if index == 0 else 1, norm, activation, residual)
    return x


def build(hp: Any, input_shape: Shape, num_classes: int) -> Any:
    """Build and compile the Keras model."""
    return _layers.compiled(network(hp, input_shape, num_classes), hp)


def operators(hp: Any, input_shape: Shape, num_classes: int) -> tuple[Operator, ...]:
    """List the operators of the folded graph."""
    return network(hp, input_shape, num_classes).operators()
