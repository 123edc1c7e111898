"""What the spaces share: how training is tuned, how a size is halved, where a network begins and ends."""

from __future__ import annotations

from typing import Any

from edgeml.network import Kernel, Layer, Network

ACTIVATIONS = ["relu", "relu6", "hard_swish"]
NORMS = ["batch", "batch_renorm", "none"]


def training_options(hp: Any) -> None:
    """Register optimizer and learning rate, which cost nothing on the device."""
    hp.Choice("optimizer", ["adam", "adamw", "rmsprop", "sgd"])
    hp.Float("learning_rate", 1e-3, 1e-2, sampling="log", default=3e-3)


def compiled(network: Network, hp: Any) -> Any:
    """Build the Keras model and compile it with the optimizer that ``hp`` names."""
    from edgeml import train

    model = network.keras()
    train.compile_for(model, hp.get("optimizer"), hp.get("learning_rate"))
    return model


def halvings(input_shape: tuple[int, ...], smallest: int) -> int:
    """Count how often the shorter side can be halved and stay at or above ``smallest`` pixels."""
    side, count = min(input_shape[:2]), 0
    while side >= 2 * smallest:
        side, count = -(-side // 2), count + 1
    return count


def norm_act(net: Network, x: Layer, *, norm: str, activation: str) -> Layer:
    """Append normalisation, one of ``NORMS``, and the activation."""
    return net.act(net.norm(x, norm), activation)


def separable_block(
    net: Network, x: Layer, width: int, kernel: Kernel, stride: int, norm: str, activation: str, residual: bool
) -> Layer:
    """Append a depthwise and a pointwise convolution, each normalised and activated, with a shortcut if it fits."""
    y = net.depthwise(x, kernel=kernel, stride=stride, bias=norm == "none")
    y = norm_act(net, y, norm=norm, activation=activation)
    y = net.conv(y, width, bias=norm == "none")
    y = norm_act(net, y, norm=norm, activation=activation)
    return net.add(x, y) if residual and x.shape == y.shape else y


def stem(net: Network, hp: Any, room: int, activation: str) -> Layer:
    """Append the first convolution, 3 x 3; it may halve where there is ``room`` for four halvings."""
    stride = hp.Choice("stem_stride", [2, 1] if room >= 4 else [1])
    x = net.conv(net.input, hp.Choice("stem_width", [8, 16, 24, 32]), kernel=3, stride=stride)
    return norm_act(net, x, norm="batch", activation=activation)


def head(net: Network, x: Layer, hp: Any, num_classes: int) -> Layer:
    """Append pooling, an optional hidden layer, and the classifier."""
    x = net.global_pool(x)
    hidden = hp.Choice("head_units", [0, 16, 32])
    if hidden:
        x = net.act(net.dense(x, hidden), "relu")
    return classifier(net, x, hp, num_classes)


def classifier(net: Network, x: Layer, hp: Any, num_classes: int) -> Layer:
    """Append dropout and the layer that tells the classes."""
    x = net.dropout(x, hp.Choice("dropout", [0.0, 0.1, 0.25]))
    return net.softmax(net.dense(x, num_classes))
