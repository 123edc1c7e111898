"""Equalization changes exponents alone: the same bits come out, and channels between two layers have like ranges."""

import itertools

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from networks import L, pictures, randomise

from edgeml.folding import fold_batch_norm
from edgeml.folding.equalization import equalize

SHAPE = (12, 12, 3)


def spread(model, decades, seed=0):
    """Scale the outputs of every layer by random powers of two, and what reads them back: nothing else changes."""
    rng = np.random.default_rng(seed)
    chain = [layer for layer in model.layers if hasattr(layer, "kernel")]
    for first, second in itertools.pairwise(chain):
        count = first.bias.shape[0]
        s = 2.0 ** rng.integers(-3 * decades, 3 * decades + 1, count)
        by_output = s.reshape(-1, 1) if isinstance(first, L.DepthwiseConv2D) else s
        first.kernel.assign(first.kernel * by_output)
        first.bias.assign(first.bias * s)
        second.kernel.assign(second.kernel / s[:, None])
    return model


def plain(activation="relu", between=L.Identity):
    x = inputs = keras.Input(SHAPE)
    x = L.Conv2D(6, 3, strides=2, activation=activation, name="stem")(x)
    for number in (1, 2):
        x = L.DepthwiseConv2D(3, padding="same", activation=activation, name=f"depthwise_{number}")(between()(x))
        x = L.Conv2D(8, 1, activation=activation, name=f"pointwise_{number}")(x)
    x = L.Dense(5, name="logits")(L.GlobalAveragePooling2D()(x))
    return randomise(keras.Model(inputs, x))


def unevenness(model):
    """The largest quotient, over all layers, of two channels' largest values."""
    layers = [layer.output for layer in model.layers if hasattr(layer, "kernel") and layer.name != "logits"]
    said = keras.Model(model.inputs, layers).predict(pictures(32), verbose=0)
    largest = [np.abs(values).max(axis=tuple(range(values.ndim - 1))) for values in said]
    return max(float(one.max() / one[one > 0].min()) for one in largest)


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", None])
@pytest.mark.parametrize("between", [L.Identity, lambda: L.MaxPooling2D(2, padding="same"), lambda: L.ZeroPadding2D(1)])
def test_a_planted_spread_goes_and_every_bit_stays(activation, between):
    model = spread(plain(activation, between), decades=2)
    after = equalize(model)
    assert len(after.pairs) == 5
    x = pictures(16)
    np.testing.assert_array_equal(after.model.predict(x, verbose=0), model.predict(x, verbose=0))
    assert unevenness(after.model) < unevenness(model) / 10


def test_what_is_even_already_stays_as_it_is():
    once = equalize(spread(plain(), decades=2)).model
    assert equalize(once).pairs == ()


@pytest.mark.parametrize("activation", ["relu6", "hard_silu", "sigmoid", "elu"])
def test_an_activation_that_bends_elsewhere_ends_the_pair(activation):
    model = plain(activation)
    assert [pair for pair in equalize(model).pairs if pair[1] != "logits"] == []


def test_a_value_that_two_read_is_left_alone():
    x = inputs = keras.Input(SHAPE)
    x = L.Conv2D(4, 1, activation="relu", name="first")(x)
    x = L.Add()([x, L.Conv2D(4, 1, name="second")(x)])
    model = randomise(keras.Model(inputs, x))
    model.get_layer("first").kernel.assign(model.get_layer("first").kernel * [1.0, 64.0, 1.0, 1.0])
    assert equalize(model).pairs == ()


def test_a_dead_channel_is_no_reason_to_divide_by_zero():
    model = spread(plain(), decades=1)
    kernel = np.array(model.get_layer("depthwise_1").kernel)
    kernel[:, :, 2] = 0
    model.get_layer("depthwise_1").kernel.assign(kernel)
    x = pictures(8)
    np.testing.assert_array_equal(equalize(model).model.predict(x, verbose=0), model.predict(x, verbose=0))


def test_within_a_separable_convolution():
    x = inputs = keras.Input(SHAPE)
    x = L.SeparableConv2D(8, 3, name="separable")(x)
    model = randomise(keras.Model(inputs, x))
    layer, s = model.get_layer("separable"), np.array([1.0, 256.0, 1 / 256])
    layer.depthwise_kernel.assign(layer.depthwise_kernel * s[:, None])
    layer.pointwise_kernel.assign(layer.pointwise_kernel / s[:, None])
    after = equalize(model)
    assert after.pairs == (("separable", "separable"),)
    largest = np.abs(after.model.get_layer("separable").depthwise_kernel).max(axis=(0, 1, 3))
    assert largest.max() / largest.min() < 8
    x = pictures(8)
    np.testing.assert_array_equal(after.model.predict(x, verbose=0), model.predict(x, verbose=0))


LAYERS = {
    "conv": lambda draw: L.Conv2D(draw(st.integers(1, 5)), draw(st.integers(1, 3)), padding="same",
                                  activation=draw(st.sampled_from([None, "relu", "relu6", "leaky_relu"]))),
    "depthwise": lambda draw: L.DepthwiseConv2D(2, padding="same", depth_multiplier=draw(st.integers(1, 2))),
    "separable": lambda draw: L.SeparableConv2D(draw(st.integers(1, 5)), 2, padding="same"),
    "transposed": lambda draw: L.Conv2DTranspose(draw(st.integers(1, 3)), 2, padding="same"),
    "norm": lambda draw: L.BatchNormalization(),
    "relu": lambda draw: L.ReLU(negative_slope=draw(st.sampled_from([0.0, 0.5]))),
    "relu6": lambda draw: L.ReLU(6.0),
    "pool": lambda draw: L.MaxPooling2D(2, 1, padding="same"),
}  # fmt: skip


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_graph_computes_the_same_bits(data):
    tensors = [keras.Input((4, 4, 3))]
    inputs = tensors[0]
    for _ in range(data.draw(st.integers(2, 7))):
        x = data.draw(st.sampled_from(tensors[-2:]))
        tensors.append(LAYERS[data.draw(st.sampled_from(sorted(LAYERS)))](data.draw)(x))
    model = randomise(keras.Model(inputs, tensors[-1]), data.draw(st.integers(0, 99)))
    folded = fold_batch_norm(model).model
    x = pictures(4, (4, 4, 3))
    np.testing.assert_array_equal(equalize(folded).model.predict(x, verbose=0), folded.predict(x, verbose=0))
