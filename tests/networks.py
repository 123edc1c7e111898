"""Small Keras networks that behave as if trained: statistics, scales and biases that matter, logits that vary."""

import keras
import numpy as np
import onnx
from onnx import numpy_helper

import edgeml

L = keras.layers
ACTIVATIONS = {"relu": "relu", "relu6": "relu6", "hard_swish": "hard_silu"}


def separable(activation="relu", shape=(12, 12, 3), classes=5, seed=0, head="softmax"):
    """Stem, depthwise and pointwise, a residual, a separable convolution, pooling, dense."""
    act = ACTIVATIONS[activation]
    x = inputs = keras.Input(shape, name="pixels")
    x = _norm_act(L.Conv2D(8, 3, padding="same", strides=2, use_bias=False, name="stem")(x), act, "1")
    y = _norm_act(L.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise")(x), act, "2")
    y = _norm_act(L.Conv2D(8, 1, use_bias=False, name="middle")(y), act, "3")
    x = L.Add(name="shortcut")([x, y])
    x = _norm_act(L.SeparableConv2D(16, 3, padding="same", use_bias=False, name="separable")(x), act, "4")
    x = L.GlobalAveragePooling2D(name="mean")(L.MaxPooling2D(2, name="max")(x))
    x = L.Dense(classes, name="logits")(L.Dense(16, activation="relu", name="hidden")(x))
    x = L.Softmax(name="scores")(x) if head == "softmax" else L.Activation(head.split("_")[0], name="scores")(x)
    return randomise(keras.Model(inputs, x, name=f"net_{activation}"), seed)


def _norm_act(x, activation, number):
    return L.Activation(activation, name=f"act_{number}")(L.BatchNormalization(name=f"norm_{number}")(x))


def randomise(model, seed=0):
    """Give every weight a value that matters."""
    rng = np.random.default_rng(seed)
    for layer in model._flatten_layers():
        if isinstance(layer, L.BatchNormalization):
            shape = layer.gamma.shape
            layer.gamma.assign(rng.uniform(0.7, 1.4, shape))
            layer.beta.assign(rng.normal(0, 0.3, shape))
            layer.moving_mean.assign(rng.normal(0, 0.3, shape))
            layer.moving_variance.assign(rng.uniform(0.3, 1.5, shape))
            continue
        for weight in layer.weights if not hasattr(layer, "layers") else []:
            fan = max(1, int(np.prod(weight.shape[:-1])))
            if "depthwise" in weight.name:
                fan = int(np.prod(weight.shape[:2]))
            spread = 0.2 if len(weight.shape) == 1 else np.sqrt(2 / fan)
            weight.assign(rng.normal(0, spread, weight.shape))
    return model


def pictures(count, shape=(12, 12, 3), seed=1):
    return np.random.default_rng(seed).uniform(0, 1, (count, *shape)).astype("float32")


def export(model, place, *arguments, **options):
    """Export without timing operators, which takes a second or more of every bundle."""
    return edgeml.export(model, place, *arguments, profile=False, **options)


def first_rows(rows):
    """The first row of each pair that was compared: on all samples, in the file's default configuration."""
    found = {}
    for row in rows:
        found.setdefault((row.file, row.what), row)
    return list(found.values())


def nudge(path, factor=1.01):
    """Change the largest weight of the middle convolution of a float32 ONNX file of ``separable``, by 1 %."""
    network = onnx.load(path)
    weights = [node.input[1] for node in network.graph.node if node.op_type == "Conv"][2]
    for tensor in network.graph.initializer:
        if tensor.name == weights:
            array = numpy_helper.to_array(tensor).copy()
            array.flat[array.argmax()] *= factor
            tensor.CopyFrom(numpy_helper.from_array(array, weights))
    onnx.save(network, path)
