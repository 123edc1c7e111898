"""Statistics estimated again are those of the data, whatever the batches, and nothing else changes."""

import keras
import numpy as np
import pytest

from edgeml import batch_statistics

L = keras.layers
X = np.random.default_rng(0).normal(3.0, 2.0, (50, 5, 5, 2)).astype("float32")
X[::7] += 4.0  # batches differ


def network(dropout=0.5):
    """A normalization of the input itself, then a nested model with a convolution, dropout and another one."""
    keras.utils.set_random_seed(1)
    inner = keras.Sequential(
        [keras.Input((5, 5, 2)), L.Dropout(dropout), L.Conv2D(4, 3), L.BatchNormalization(momentum=0.9, name="second")],
        name="inner",
    )
    inputs = keras.Input((5, 5, 2))
    return keras.Model(inputs, inner(L.BatchNormalization(momentum=0.7, name="first")(inputs))), inner


def statistics(layer):
    return [keras.ops.convert_to_numpy(v).astype("float64") for v in (layer.moving_mean, layer.moving_variance)]


@pytest.mark.parametrize("batch_size", [8, 50, 64])
def test_they_are_mean_and_variance_of_all_inputs_of_the_layer(batch_size):
    model, _ = network()
    assert batch_statistics.reestimate(model, X, batch_size) == 2
    mean, variance = statistics(model.get_layer("first"))
    np.testing.assert_allclose(mean, X.astype("float64").mean(axis=(0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(variance, X.astype("float64").var(axis=(0, 1, 2)), rtol=1e-6)


def test_a_nested_layer_sees_no_dropout():
    model, inner = network(dropout=0.5)
    batch_statistics.reestimate(model, X, 50)
    first = model.get_layer("first")
    normalised = keras.ops.convert_to_numpy(first(X, training=False))  # one batch: its own statistics
    seen = keras.ops.convert_to_numpy(inner.layers[1](normalised)).astype("float64")
    mean, variance = statistics(inner.get_layer("second"))
    np.testing.assert_allclose(mean, seen.mean(axis=(0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(variance, seen.var(axis=(0, 1, 2)), rtol=1e-4)


def test_nothing_else_changes():
    model, inner = network()
    frozen = L.BatchNormalization()
    frozen.trainable = False
    model = keras.Model(model.inputs[0], frozen(model.outputs[0]))
    before = [keras.ops.convert_to_numpy(v) for v in (*model.trainable_variables, *frozen.variables)]
    batch_statistics.reestimate(model, X, 16)
    after = [keras.ops.convert_to_numpy(v) for v in (*model.trainable_variables, *frozen.variables)]
    for one, same in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, same)
    second = inner.get_layer("second")
    assert second.momentum == 0.9
    was = statistics(second)
    model(X, training=False)  # at inference again
    for one, same in zip(was, statistics(second), strict=True):
        np.testing.assert_array_equal(one, same)
    model(X, training=True)
    assert not np.array_equal(was[0], statistics(second)[0])  # and in training a moving average


def test_it_is_undone_when_a_sample_does_not_fit():
    model, inner = network()
    with pytest.raises(ValueError, match="shape"):
        batch_statistics.reestimate(model, X[:, :4], 16)
    assert inner.get_layer("second").momentum == 0.9
    assert "call" not in vars(inner.get_layer("second"))


def test_a_network_without_normalization_is_left_alone():
    model = keras.Sequential([keras.Input((4,)), L.Dense(2)])
    assert batch_statistics.reestimate(model, np.zeros((3, 4)), 2) == 0
