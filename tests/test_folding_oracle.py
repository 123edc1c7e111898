"""The oracle of the folding tests: original and folded model on the same inputs, judged by the range of the output.

In float64 folding is algebra: 1e-12 of the output range; a tolerance of float32 would hide a wrong term. Every check
also asks that the outputs vary over the batch, that the report is complete, and that the original is as it was.
"""

import contextlib

import keras
import numpy as np
import pytest

from edgeml.folding import fold_batch_norm

L = keras.layers
AFFINE = (L.BatchNormalization, L.Normalization, L.Rescaling)
TOLERANCE = {"float64": 1e-12, "float32": 1e-5}


def bn(name="bn", **kwargs):
    return L.BatchNormalization(name=name, **kwargs)


def chain(shape, *layers):
    """A functional model out of layers in a row."""
    inputs = keras.Input(shape, name="x")
    x = inputs
    for layer in layers:
        x = layer(x)
    return keras.Model(inputs, x)


def randomise(model, seed=0, positive=False):
    """Give statistics and biases values that matter; negative scales too unless ``positive``."""
    rng = np.random.default_rng(seed)
    for layer in model._flatten_layers():
        if isinstance(layer, L.BatchNormalization):
            shape = layer.moving_mean.shape
            layer.moving_mean.assign(rng.normal(0, 0.5, shape))
            layer.moving_variance.assign(rng.uniform(0.5, 2, shape))
            if layer.gamma is not None:
                signs = 1 if positive else np.where(np.arange(shape[0]) % 2, 1, -1)
                layer.gamma.assign(rng.uniform(0.5, 1.5, shape) * signs)
            if layer.beta is not None:
                layer.beta.assign(rng.normal(0, 0.5, shape))
        elif getattr(layer, "bias", None) is not None and hasattr(layer.bias, "assign"):
            layer.bias.assign(rng.normal(0, 0.3, layer.bias.shape))
    return model


def samples(model, count=4, seed=1):
    """Random inputs in the structure and dtypes of the model; unknown sizes become 8."""
    rng = np.random.default_rng(seed)
    graph = getattr(model, "_functional", model)

    def draw(tensor):
        shape = (count, *(8 if size is None else size for size in tensor.shape[1:]))
        return rng.integers(0, 7, shape).astype(tensor.dtype) if "int" in tensor.dtype else rng.normal(size=shape)

    return keras.tree.map_structure(draw, graph.input)


def outputs(model, x):
    return [keras.ops.convert_to_numpy(y) for y in keras.tree.flatten(model(x, training=False))]


def range_error(model, other, x):
    """Largest difference over all outputs, as a share of the range of that output."""
    worst = 0.0
    for one, two in zip(outputs(model, x), outputs(other, x), strict=True):
        assert one.shape == two.shape
        assert one.dtype == two.dtype
        assert one.std(axis=0).max() > 0, "vacuous: the output does not depend on the input"
        worst = max(worst, float(np.abs(one - two).max() / np.ptp(one)))
    return worst


def affine_names(model):
    return sorted(layer.name for layer in model._flatten_layers() if isinstance(layer, AFFINE))


def check(model, folded, kept=(), *, x=None, tolerance=None):
    """Fold ``model`` and judge everything that always holds; ``kept``: names, or names with words of the reason."""
    x = samples(model) if x is None else x
    before = [w.copy() for w in model.get_weights()]
    names = [(t.name, t.shape, t.dtype) for t in model.inputs], [t._keras_history[0].name for t in model.outputs]
    result = fold_batch_norm(model)
    clone = result.model
    reasons = dict(result.kept)
    assert sorted(result.folded) == sorted(folded), result
    assert sorted(reasons) == sorted(dict(kept) if isinstance(kept, dict) else kept), result
    for name, words in (kept if isinstance(kept, dict) else {}).items():
        assert words in reasons[name], reasons[name]
    assert affine_names(clone) == sorted(name for name, _ in result.kept)
    tolerance = tolerance or TOLERANCE[keras.config.floatx()]
    assert range_error(model, clone, x) <= tolerance
    assert (
        [(t.name, t.shape, t.dtype) for t in clone.inputs],
        [t._keras_history[0].name for t in clone.outputs],
    ) == names
    assert clone.name == model.name
    assert not clone.trainable_weights
    assert not clone.compiled
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    return result


@contextlib.contextmanager
def precision(dtype):
    """Build with ``dtype``: Keras caches the policy of layers apart from ``floatx``, which rules inputs."""
    old = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)
    keras.utils.set_random_seed(0)
    try:
        yield dtype
    finally:
        keras.config.set_floatx(old[0])
        keras.config.set_dtype_policy(old[1])


@pytest.fixture
def float64():
    with precision("float64") as dtype:
        yield dtype


@pytest.fixture(params=["float64", "float32"])
def floatx(request):
    with precision(request.param) as dtype:
        yield dtype


def test_the_oracle_sees_a_relative_error_of_a_millionth(float64):
    model = randomise(chain((6, 6, 2), L.Conv2D(3, 3), bn()))
    clone = fold_batch_norm(model).model
    assert range_error(model, clone, samples(model)) <= 1e-12
    clone.layers[-1].bias.assign(clone.layers[-1].bias + 1e-6)
    assert range_error(model, clone, samples(model)) > 1e-8


def test_the_oracle_sees_a_constant_output(float64):
    model = chain((3,), L.Rescaling(0.0), L.Dense(2))
    with pytest.raises(AssertionError, match="vacuous"):
        range_error(model, model, samples(model))
