"""Compiled ensembles taken apart: each member computes what the network computes that it was made of."""

import keras
import numpy as np
import pytest
from networks import randomise, separable

from edgeml.ensemble import compile_ensemble, taken_apart

L = keras.layers
MOST_ERROR = 1e-5
X = np.random.default_rng(0).uniform(-1, 1, (16, 6)).astype("float32")


def network(seed, scale=None):
    """Dense layers; where there is a scale, two members share it when they are compiled."""
    x = inputs = keras.Input((6,), name="vector")
    x = x if scale is None else L.Rescaling(scale)(x)
    x = L.Activation("relu")(L.BatchNormalization()(L.Dense(8, use_bias=False)(x)))
    return randomise(keras.Model(inputs, L.Softmax()(L.Dense(3)(x)), name=f"net_{seed}"), seed)


def said(model):
    return np.asarray(model(X, training=False))


@pytest.mark.parametrize("weights", [[0.5, 0.5], [0.7, 0.3]])
@pytest.mark.parametrize("mean", ["arithmetic", "geometric", "exponential"])
@pytest.mark.parametrize("scale", [None, 0.5])
def test_members_compute_what_they_did_alone(scale, mean, weights, tmp_path):
    models = [network(seed, scale) for seed in (1, 2)]
    compile_ensemble(models, weights, mean).save(tmp_path / "model.keras")
    found = taken_apart(keras.models.load_model(tmp_path / "model.keras"), weights)
    assert len(found) == 2
    for model, member in zip(models, found, strict=True):
        np.testing.assert_allclose(said(member), said(model), atol=MOST_ERROR)


def test_without_the_weights_of_a_geometric_mean_members_decide_alike():
    models = [network(seed) for seed in (1, 2)]
    for model, member in zip(models, taken_apart(compile_ensemble(models, [0.7, 0.3], "geometric")), strict=True):
        assert (said(member).argmax(axis=1) == said(model).argmax(axis=1)).all()
        assert not np.allclose(said(member), said(model), atol=1e-2)


def test_what_has_no_members_or_merged_ones_is_refused():
    with pytest.raises(ValueError, match=r"^its graph has no members$"):
        taken_apart(network(1))
    merged = compile_ensemble([separable(seed=seed) for seed in (1, 2)], [0.5, 0.5], merge=True)
    with pytest.raises(ValueError, match=r"^its members have 'stem' in common"):
        taken_apart(merged)
