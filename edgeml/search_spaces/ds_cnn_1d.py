"""Depthwise-separable residual network along time: what ``ds_cnn`` is to images, to windows of sensor channels.

    (T, C) ─ as (T, 1, C) ─ stem conv k x 1 ─ [stage: block (stride) ─ block ─ …] x stages ─ average ─ dense ─ softmax

Its convolutions are two-dimensional, one column wide: every runtime takes them as it takes those of images, TensorFlow
Lite Micro among them. After DS-CNN (Zhang et al. 2017, arXiv 1711.07128; MLPerf Tiny, arXiv 2106.07597), with identity
shortcuts (He et al. 2015, arXiv 1512.03385) around the blocks that keep their shape.
"""

from __future__ import annotations

from typing import Any

from edgeml.network import Layer, Network
from edgeml.operators import Operator, Shape
from edgeml.search_spaces import _layers

TAKES = ("windows",)
WIDTHS = [8, 16, 24, 32, 48, 64]
KERNELS = [3, 5, 9]
MAX_STAGES = 4


def network(hp: Any, input_shape: Shape, num_classes: int) -> Network:
    """Describe the network that ``hp`` stands for."""
    net = Network(input_shape)
    steps, channels = input_shape
    x = net.reshape(net.input, (steps, 1, channels))
    room = _layers.halvings((steps, steps), smallest=2)
    shared = {"activation": hp.Choice("activation", _layers.ACTIVATIONS), "residual": hp.Boolean("residual")}
    x = _stem(net, x, hp, room, shared["activation"])
    most = max(1, min(MAX_STAGES, room))
    stages = hp.Int("stages", 1, most)
    for stage in range(1, most + 1):
        with hp.conditional_scope("stages", list(range(stage, most + 1))):
            options = _stage_options(hp, f"stage_{stage}")
        for block in range(options.pop("depth") if stage <= stages else 0):
            stride = options["stride"] if block == 0 else 1
            x = _layers.separable_block(net, x, **{**options, "stride": stride}, **shared)
    _layers.head(net, x, hp, num_classes)
    _layers.training_options(hp)
    return net


def _stem(net: Network, x: Layer, hp: Any, room: int, activation: str) -> Layer:
    """Append the first convolution; it may stride where there is ``room`` for four halvings."""
    width, kernel = hp.Choice("stem_width", [8, 16, 24, 32]), hp.Choice("stem_kernel", KERNELS)
    x = net.conv(x, width, kernel=(kernel, 1), stride=hp.Choice("stem_stride", [4, 2, 1] if room >= 4 else [1]))
    return _layers.norm_act(net, x, norm="batch", activation=activation)


def _stage_options(hp: Any, name: str) -> dict[str, Any]:
    return {
        "width": hp.Choice(f"{name}_width", WIDTHS),
        "depth": hp.Int(f"{name}_depth", 1, 3),
        "kernel": (hp.Choice(f"{name}_kernel", KERNELS), 1),
        "stride": hp.Choice(f"{name}_stride", [2, 1]),
        "norm": hp.Choice(f"{name}_norm", _layers.NORMS),
    }


def build(hp: Any, input_shape: Shape, num_classes: int) -> Any:
    """Build and compile the Keras model."""
    return _layers.compiled(network(hp, input_shape, num_classes), hp)


def operators(hp: Any, input_shape: Shape, num_classes: int) -> tuple[Operator, ...]:
    """List the operators of the folded graph."""
    return network(hp, input_shape, num_classes).operators()
