"""Batch renormalization is the paper's, step by step, and batch normalization at inference, in files and in folding."""

import keras
import numpy as np
import pytest

from edgeml import batch_statistics
from edgeml.folding import fold_batch_norm
from edgeml.layers import BatchRenormalization

L = keras.layers
RNG = np.random.default_rng(0)
X = RNG.normal(2.0, 3.0, (6, 4, 4, 3)).astype("float32")
RAMP = 800


def numpy(value):
    return keras.ops.convert_to_numpy(value).astype("float64")


def built(step=RAMP, **options):
    layer = BatchRenormalization(momentum=0.9, ramp_steps=RAMP, name="renorm", **options)
    layer.build(X.shape)
    layer.moving_mean.assign([1.0, 2.5, -20.0])
    layer.moving_variance.assign([4.0, 12.0, 0.01])
    for variable in (layer.gamma, layer.beta):
        if variable is not None:
            variable.assign(RNG.normal(size=3))
    layer.step.assign(float(step))
    return layer


def expected(layer, r_max, d_max):
    """The paper's algorithm 1, in NumPy."""
    x, mean, variance = X.astype("float64"), numpy(layer.moving_mean), numpy(layer.moving_variance)
    own_mean, own_variance = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
    deviation, moving = np.sqrt(own_variance + layer.epsilon), np.sqrt(variance + layer.epsilon)
    r = np.clip(deviation / moving, 1 / r_max, r_max)
    d = np.clip((own_mean - mean) / moving, -d_max, d_max)
    gamma = 1.0 if layer.gamma is None else numpy(layer.gamma)
    beta = 0.0 if layer.beta is None else numpy(layer.beta)
    y = ((x - own_mean) / deviation * r + d) * gamma + beta
    return y, 0.9 * mean + 0.1 * own_mean, 0.9 * variance + 0.1 * own_variance


@pytest.mark.parametrize("options", [{}, {"scale": False}, {"center": False}])
@pytest.mark.parametrize(("step", "r_max", "d_max"), [(0, 1, 0), (100, 1, 0), (300, 1 + 2 * 2 / 7, 2.5), (800, 3, 5)])
def test_a_training_step_is_the_papers(options, step, r_max, d_max):
    layer = built(step, **options)
    y, mean, variance = expected(layer, r_max, d_max)
    np.testing.assert_allclose(numpy(layer(X, training=True)), y, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(numpy(layer.moving_mean), mean, rtol=1e-5)
    np.testing.assert_allclose(numpy(layer.moving_variance), variance, rtol=1e-5)
    assert float(numpy(layer.step)) == step + 1


def test_in_warm_up_it_is_batch_normalization():
    layer, plain = built(step=0), L.BatchNormalization(momentum=0.9)
    plain.build(X.shape)
    plain.set_weights(layer.get_weights()[:4])
    np.testing.assert_allclose(numpy(layer(X, training=True)), numpy(plain(X, training=True)), rtol=1e-4, atol=1e-4)


def test_wide_open_training_sees_what_inference_sees():
    layer = built(r_max=1e6, d_max=1e6)
    inference = numpy(layer(X, training=False))
    np.testing.assert_allclose(numpy(layer(X, training=True)), inference, rtol=1e-3, atol=1e-2)


def test_the_gradient_takes_the_corrections_for_constants():
    import tensorflow as tf

    layer, weights = built(), RNG.normal(size=X.shape).astype("float32")
    x, variance = tf.constant(X), numpy(layer.moving_variance)
    moving = np.sqrt(variance + layer.epsilon)
    r = np.clip(np.sqrt(X.var(axis=(0, 1, 2)) + layer.epsilon) / moving, 1 / 3, 3).astype("float32")
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        loss = tf.reduce_sum(layer(x, training=True) * weights)
        own_mean, own_variance = tf.nn.moments(x, (0, 1, 2))
        normal = (x - own_mean) / tf.sqrt(own_variance + layer.epsilon)
        known = tf.reduce_sum(normal * r * layer.gamma * weights)  # d and beta add constants
    np.testing.assert_allclose(tape.gradient(loss, x), tape.gradient(known, x), rtol=1e-3, atol=1e-4)


def test_what_is_frozen_is_inference():
    layer = built()
    layer.trainable = False
    np.testing.assert_array_equal(numpy(layer(X, training=True)), numpy(layer(X, training=False)))
    assert float(numpy(layer.step)) == RAMP


@pytest.mark.parametrize("options", [{"r_max": 0.5}, {"d_max": -1}, {"ramp_steps": 0}, {"r_max": float("nan")}])
def test_limits_that_cannot_be_are_refused(options):
    with pytest.raises(ValueError, match=f"BatchRenormalization: {next(iter(options))} is .* is due"):
        BatchRenormalization(**options)


def model(dtype="float64"):
    """One that folds, one in front of an activation whose input is also added: it stays."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input((8, 8, 2), dtype=dtype)
    x = L.Conv2D(4, 3, dtype=dtype)(inputs)
    x = L.Activation("relu", dtype=dtype)(BatchRenormalization(name="folds", dtype=dtype)(x))
    y = L.Activation("relu", dtype=dtype)(BatchRenormalization(name="stays", dtype=dtype)(x))
    made = keras.Model(inputs, L.Add(dtype=dtype)([x, y]))
    for name in ("folds", "stays"):
        layer = made.get_layer(name)
        layer.moving_mean.assign(RNG.normal(size=4))
        layer.moving_variance.assign(RNG.uniform(0.5, 2, 4))
        layer.gamma.assign(RNG.normal(size=4))
        layer.beta.assign(RNG.normal(size=4))
    return made


def test_it_folds_and_what_stays_is_kerass_own(tmp_path):
    given = model()
    folding = fold_batch_norm(given)
    assert folding.folded == ("folds",)
    assert [name for name, _ in folding.kept] == ["stays"]
    assert type(folding.model.get_layer("stays")) is L.BatchNormalization
    x = RNG.normal(size=(5, 8, 8, 2))
    want, have = numpy(given(x)), numpy(folding.model(x))
    assert np.abs(want - have).max() <= 1e-12 * np.ptp(want)
    folding.model.save(tmp_path / "folded.keras")
    assert b"edgeml" not in (tmp_path / "folded.keras").read_bytes()


def test_a_saved_model_is_loaded_as_it_was(tmp_path):
    given = model("float32")
    given.get_layer("folds").ramp_steps = 123
    given.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", compile=False)
    assert (loaded.get_layer("folds").ramp_steps, loaded.get_layer("folds").r_max) == (123, 3.0)
    x = RNG.normal(size=(5, 8, 8, 2)).astype("float32")
    np.testing.assert_array_equal(numpy(given(x)), numpy(loaded(x)))


def test_its_statistics_can_be_estimated_again():
    inputs = keras.Input((4, 4, 3))
    made = keras.Model(inputs, BatchRenormalization(name="renorm")(inputs))
    made.get_layer("renorm").step.assign(1e6)  # wide open
    assert batch_statistics.reestimate(made, X, 2) == 1
    np.testing.assert_allclose(numpy(made.get_layer("renorm").moving_mean), X.mean(axis=(0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(numpy(made.get_layer("renorm").moving_variance), X.var(axis=(0, 1, 2)), rtol=1e-4)
