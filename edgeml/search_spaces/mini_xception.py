"""A small Xception: pairs of separable convolutions with a shortcut around each, in three flows.

    stem conv 3x3 ─ [pair, halved] x entry ─ [pair] x middle ─ pair, halved ─ (separable) ─ global average ─ … ─ softmax

    pair:  x ─ separable ─ norm ─ act ─ separable ─ norm ─ (max pool) ─ + ─ act
           └──────────── identity, or strided conv 1x1 ─ norm ──────────┘

After Chollet 2016, arXiv 1610.02357, with two changes for small devices: the activation stands after the sum and not
before the next pair, so that the sum is its only source and runtimes fuse the two; and pairs halve by a stride in their
first convolution or by pooling 2 x 2, where Xception pools 3 x 3. Maps of less than 4 pixels are not halved.
"""

from __future__ import annotations

from typing import Any

from edgeml.network import Layer, Network
from edgeml.operators import Operator, Shape
from edgeml.search_spaces import _layers

WIDTHS = [8, 16, 24, 32, 48, 64, 96, 128]
MAX_ENTRY, MAX_MIDDLE = 3, 4


def network(hp: Any, input_shape: Shape, num_classes: int) -> Network:
    """Describe the network that ``hp`` stands for."""
    net = Network(input_shape)
    room = _layers.halvings(input_shape, smallest=2)
    activation = hp.Choice("activation", _layers.ACTIVATIONS)
    halve = hp.Choice("halve", ["stride", "pool"] if room else ["stride"])
    x = _layers.stem(net, hp, room, activation)

    most = max(1, min(MAX_ENTRY, room - 1))
    entry = hp.Int("entry_blocks", 1, most)
    for block in range(1, most + 1):
        with hp.conditional_scope("entry_blocks", list(range(block, most + 1))):
            width = hp.Choice(f"entry_{block}_width", WIDTHS)
            options = _convolution_options(hp, f"entry_{block}")
        if block <= entry:
            x = _pair(net, x, (width, width), **options, halve=halve, activation=activation)

    middle = hp.Int("middle_blocks", 0, MAX_MIDDLE)
    with hp.conditional_scope("middle_blocks", list(range(1, MAX_MIDDLE + 1))):
        options = _convolution_options(hp, "middle")
    for _ in range(middle):
        x = _pair(net, x, (x.shape[-1], x.shape[-1]), **options, halve=None, activation=activation)

    width, top = hp.Choice("exit_width", WIDTHS), hp.Choice("top_width", [0, 32, 64, 128])
    options = _convolution_options(hp, "exit")
    x = _pair(net, x, (x.shape[-1], width), **options, halve=halve, activation=activation)
    if top:
        x = _layers.norm_act(net, _separable(net, x, top, 1, **options), norm="none", activation=activation)
    _layers.head(net, x, hp, num_classes)
    _layers.training_options(hp)
    return net


def _convolution_options(hp: Any, name: str) -> dict[str, Any]:
    return {
        "kernel": hp.Choice(f"{name}_kernel", [3, 5]),
        "norm": hp.Choice(f"{name}_norm", _layers.NORMS),
    }


def _pair(
    net: Network, x: Layer, widths: tuple[int, int], kernel: int, norm: str, halve: str | None, activation: str
) -> Layer:
    if not _layers.halvings(x.shape, smallest=2):
        halve = None
    y = _separable(net, x, widths[0], 2 if halve == "stride" else 1, kernel, norm)
    y = _separable(net, net.act(y, activation), widths[1], 1, kernel, norm)
    y = net.max_pool(y) if halve == "pool" else y
    return net.act(net.add(_shortcut(net, x, y, norm), y), activation)


def _separable(net: Network, x: Layer, width: int, stride: int, kernel: int, norm: str) -> Layer:
    y = net.separable(x, width, kernel=kernel, stride=stride, bias=norm == "none")
    return net.norm(y, norm)


def _shortcut(net: Network, x: Layer, y: Layer, norm: str) -> Layer:
    """Return ``x`` in the shape of ``y``: itself where that is its shape."""
    if x.shape == y.shape:
        return x
    z = net.conv(x, y.shape[-1], stride=1 if x.shape[:2] == y.shape[:2] else 2, bias=norm == "none")
    return net.norm(z, norm)


def build(hp: Any, input_shape: Shape, num_classes: int) -> Any:
    """Build and compile the Keras model."""
    return _layers.compiled(network(hp, input_shape, num_classes), hp)


def operators(hp: Any, input_shape: Shape, num_classes: int) -> tuple[Operator, ...]:
    """List the operators of the folded graph."""
    return network(hp, input_shape, num_classes).operators()
