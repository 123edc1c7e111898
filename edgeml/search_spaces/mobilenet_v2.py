"""MobileNetV2: inverted residuals with linear bottlenecks, in stages.

    stem conv 3x3 ─ [stage: block (stride) ─ block ─ …] x stages ─ (conv 1x1) ─ global average ─ dense ─ softmax

    block:  x ─ conv 1x1 to expansion·C ─ norm ─ act ─ depthwise (stride) ─ norm ─ act ─ conv 1x1 to width ─ norm ─(+ x)

After Sandler et al. 2018, arXiv 1801.04381. No activation follows the last convolution of a block: in few channels it
would destroy what the next block needs (section 3.2 there). Where expansion is 1 the first convolution is left out.
Every block that keeps its shape has the shortcut, for without it the network is linear from bottleneck to bottleneck.
"""

from __future__ import annotations

from typing import Any

from edgeml.network import Layer, Network
from edgeml.operators import Operator, Shape
from edgeml.search_spaces import _layers

WIDTHS = [8, 16, 24, 32, 48, 64, 96]  # of bottlenecks: up to 6 times as many channels stand between two of them
EXPANSIONS = [1, 2, 3, 4, 6]
MAX_STAGES = 5


def network(hp: Any, input_shape: Shape, num_classes: int) -> Network:
    """Describe the network that ``hp`` stands for."""
    net = Network(input_shape)
    room = _layers.halvings(input_shape, smallest=2)
    activation = hp.Choice("activation", _layers.ACTIVATIONS)
    x = _layers.stem(net, hp, room, activation)
    most = max(1, min(MAX_STAGES, room))
    stages = hp.Int("stages", 1, most)
    for stage in range(1, most + 1):
        with hp.conditional_scope("stages", list(range(stage, most + 1))):
            options = _stage_options(hp, f"stage_{stage}", [2, 1] if room else [1])
        if stage <= stages:
            x = _stage(net, x, **options, activation=activation)
    expanded = hp.Choice("head_width", [0, 32, 64, 128, 256])
    if expanded:
        x = _layers.norm_act(net, net.conv(x, expanded), norm="batch", activation=activation)
    _layers.classifier(net, net.global_pool(x), hp, num_classes)
    _layers.training_options(hp)
    return net


def _stage_options(hp: Any, name: str, strides: list[int]) -> dict[str, Any]:
    return {
        "expansion": hp.Choice(f"{name}_expansion", EXPANSIONS),
        "width": hp.Choice(f"{name}_width", WIDTHS),
        "depth": hp.Int(f"{name}_depth", 1, 4),
        "kernel": hp.Choice(f"{name}_kernel", [3, 5]),
        "stride": hp.Choice(f"{name}_stride", strides),
        "norm": hp.Choice(f"{name}_norm", _layers.NORMS),
    }


def _stage(
    net: Network,
    x: Layer,
    expansion: int,
    width: int,
    depth: int,
    kernel: int,
    stride: int,
    norm: str,
    activation: str,
) -> Layer:
    for index in range(depth):
        x = _block(net, x, expansion, width, kernel, stride if index == 0 else 1, norm, activation)
    return x


def _block(
    net: Network, x: Layer, expansion: int, width: int, kernel: int, stride: int, norm: str, activation: str
) -> Layer:
    y = x
    if expansion > 1:
        y = net.conv(y, expansion * x.shape[-1], bias=norm == "none")
        y = _layers.norm_act(net, y, norm=norm, activation=activation)
    y = net.depthwise(y, kernel=kernel, stride=stride, bias=norm == "none")
    y = _layers.norm_act(net, y, norm=norm, activation=activation)
    y = net.conv(y, width, bias=norm == "none")
    y = net.norm(y, norm)
    return net.add(x, y) if stride == 1 and x.shape == y.shape else y


def build(hp: Any, input_shape: Shape, num_classes: int) -> Any:
    """Build and compile the Keras model."""
    return _layers.compiled(network(hp, input_shape, num_classes), hp)


def operators(hp: Any, input_shape: Shape, num_classes: int) -> tuple[Operator, ...]:
    """List the operators of the folded graph."""
    return network(hp, input_shape, num_classes).operators()
