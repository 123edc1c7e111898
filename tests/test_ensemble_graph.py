"""Compiled ensembles: parity with the NumPy mean of the members, what is shared, what is refused, what files hold."""

from dataclasses import dataclass

import keras
import networks
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from test_folding_oracle import precision

import edgeml
from edgeml import assembly, ensemble, exporting, recipe, scaling, verification
from edgeml.ensemble.charge import total
from edgeml.keras_operators import keras_operators
from edgeml.onnx_operators import onnx_operators
from edgeml.records import Budget
from edgeml.search import oracles
from edgeml.search.feasibility import Feasibility
from edgeml.search.space import Space, of_kind
from edgeml.tflite_operators import tflite_operators

L = keras.layers
MOST_ERROR = 1e-6  # of the output range
SPACES = of_kind("images")
SMALL = Budget(params=20_000, macs=1_000_000)
SHAPES = ((12, 12, 1), (8, 8, 1), (10, 14, 1))
SCALINGS = (
    scaling.rescale((0, 255)),
    scaling.Scaling((1 / 127.5,), (-1.0,)),
    scaling.Scaling((1 / 60,), (-2.0,)),
)


def softmax(z):
    powers = np.exp(z - z.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


MEANS = {
    "arithmetic": lambda p, w: np.tensordot(w, p, axes=1),
    "geometric": lambda p, w: softmax(np.tensordot(w, np.log(np.maximum(p, 1e-30)), axes=1)),
    "exponential": lambda p, w: (e := np.tensordot(w, np.exp(p), axes=1)) / e.sum(axis=1, keepdims=True),
}


def outputs(model, x):
    return np.asarray(model(x, training=False), np.float64)


def resized(x, shape):
    return np.asarray(L.Resizing(*shape[:2])(x)) if x.shape[1:] != shape else x


def drawn(rng, shape, classes):
    """Draw a member from any space, its scaling and its statistics."""
    space = Space([SPACES[rng.integers(len(SPACES))]], shape, classes, SCALINGS[rng.integers(len(SCALINGS))])
    judge, seed = Feasibility(space.operators, SMALL), int(rng.integers(1, 2**31))
    oracle = oracles.create(
        "random", accepts=judge.accepts, hyperparameters=space.hyperparameters(), max_trials=1, epochs=1, seed=seed
    )
    model = networks.randomise(space.model(oracle._random_values()), seed)
    norms = [layer for layer in model._flatten_layers() if isinstance(layer, L.BatchNormalization)]
    for norm in norms:
        norm.momentum = 0.0
    x = pictures(rng, 32, shape)
    model(x, training=True)
    return confident(model, x)


def confident(model, x, deviation=1.5):
    """Widen the logits to ``deviation``: a trained classifier is sure of some inputs, a random one of none."""
    head = [layer for layer in model._flatten_layers() if isinstance(layer, L.Dense)][-1]
    logs = np.log(np.maximum(outputs(model, x), 1e-30))
    factor = deviation / (logs - logs.mean(axis=1, keepdims=True)).std()
    for weight in head.weights:
        weight.assign(factor * weight)
    return model


def pictures(rng, count, shape):
    """Grey patches and noise, (count, H, W, C) in 0..255."""
    coarse = rng.uniform(0, 220, (count, 4, 4, shape[-1]))
    rows, columns = (np.arange(size) * 4 // size for size in shape[:2])
    return (coarse[:, rows][:, :, columns] + rng.uniform(0, 35, (count, *shape))).astype(keras.config.floatx())


@dataclass(frozen=True, eq=False)
class Case:
    """Members, their weights and inputs of the largest size."""

    models: tuple
    weights: np.ndarray
    x: np.ndarray

    @classmethod
    def drawn(cls, rng, count):
        shapes = [SHAPES[rng.integers(len(SHAPES))] for _ in range(count)]
        models = tuple(drawn(rng, shape, 5) for shape in shapes)
        weights = rng.dirichlet(np.ones(count)) if rng.integers(2) else np.full(count, 1 / count)
        return cls(models, weights, pictures(rng, 32, max(shapes, key=np.prod)))

    def expected(self, mean):
        """Average what the members compute one by one."""
        members = [outputs(model, resized(self.x, model.input_shape[1:])) for model in self.models]
        return MEANS[mean](np.stack(members), self.weights)


CALM = {"deadline": None, "phases": [Phase.generate], "suppress_health_check": list(HealthCheck)}


@settings(max_examples=4, derandomize=True, **CALM)  # a seed has nothing to shrink
@given(st.integers(0, 2**16), st.integers(2, 4), st.sampled_from(sorted(MEANS)), st.booleans())
def test_any_set_of_members_computes_their_mean(seed, count, mean, merge):
    """In double precision, for random statistics may let a member amplify a rounding beyond any limit."""
    with precision("float64"):
        case = Case.drawn(np.random.default_rng(seed), count)
        graph = edgeml.compile_ensemble(case.models, case.weights, mean, merge=merge)
        assert_close(graph, case.expected(mean), case.x, 1e-9)
    assert not any(isinstance(layer, L.BatchNormalization) for layer in graph._flatten_layers())
    costs = [edgeml.cost(model) for model in case.models]
    cost, most = edgeml.cost(graph), total(costs, case.x[0].size, 5)
    assert cost.params <= most.params
    assert cost.macs <= most.macs


def network(seed, shape=(8, 8, 1), classes=5, width=8, activation="relu", head="softmax", scale=None, name="net"):
    """Scaling that stays, a convolution, its statistics, a classifier."""
    keras.utils.set_random_seed(seed)
    x = given = keras.Input(shape, name="image")
    x = L.Rescaling(*scale, name="scaling")(x) if scale else x
    x = L.Conv2D(width, 3, padding="same", use_bias=False, name="conv")(x)
    x = L.Activation(activation, name="act")(L.BatchNormalization(name="norm")(x))
    sure = keras.initializers.RandomNormal(stddev=0.2, seed=seed)  # as a trained network is
    end = "softmax" if head == "fused" else None
    x = L.Dense(classes, name="logits", activation=end, kernel_initializer=sure)(L.Flatten()(x))
    heads = {"softmax": [L.Softmax(name="soft")], "activation": [L.Activation("softmax", name="soft")], "fused": []}
    heads["named"] = [L.Softmax(name="soft"), L.Identity(name="scores")]
    for layer in heads[head]:
        x = layer(x)
    model = keras.Model(given, x, name=name)
    rng = np.random.default_rng(seed)
    model.get_layer("norm").moving_mean.assign(rng.normal(0, 0.3, width))
    model.get_layer("norm").moving_variance.assign(rng.uniform(0.5, 2, width))
    return model


X = np.random.default_rng(1).uniform(0, 4, (32, 8, 8, 1)).astype("float32")
WEIGHTS = np.array([0.5, 0.3, 0.2])


def mean_of(models, weights, mean, x=X):
    return MEANS[mean](np.stack([outputs(model, x) for model in models]), np.asarray(weights))


def assert_close(graph, expected, x=X, share=MOST_ERROR):
    assert np.abs(outputs(graph, x) - expected).max() <= share * np.ptp(expected)


def kinds(model):
    return [operator.kind for operator in keras_operators(model)]


@pytest.mark.parametrize("head", ["softmax", "activation", "fused", "named"])
@pytest.mark.parametrize("mean", MEANS)
def test_any_softmax_at_the_end_will_do(mean, head):
    models = [network(s, head=head) for s in range(3)]
    assert_close(edgeml.compile_ensemble(models, WEIGHTS, mean), mean_of(models, WEIGHTS, mean))
    nested = [scaling.rescale((0, 4)).keras(network(s, head=head, name=f"n{s}")) for s in range(3)]
    assert_close(edgeml.compile_ensemble(nested, WEIGHTS, mean), mean_of(nested, WEIGHTS, mean))


def test_sequential_members_and_functional_ones_mix():
    sequential = keras.Sequential([keras.Input((8, 8, 1)), L.Flatten(), L.Dense(5), L.Softmax()])
    models = [network(0), sequential]
    assert_close(edgeml.compile_ensemble(models, [0.4, 0.6]), mean_of(models, [0.4, 0.6], "arithmetic"))


def test_weight_zero_drops_its_member_and_one_member_is_its_own_graph_folded():
    models = [network(s) for s in range(3)]
    graph = edgeml.compile_ensemble(models, [0, 1, 0], "exponential")
    assert graph.name == models[1].name
    assert kinds(graph) == ["input", "conv", "dense", "softmax"]
    assert_close(graph, outputs(models[1], X))
    two, pair = edgeml.compile_ensemble(models, [0.5, 0.5, 0]), edgeml.compile_ensemble(models[:2], [0.5, 0.5])
    assert edgeml.cost(two) == edgeml.cost(pair)


def test_one_object_twice_is_one_member_of_both_weights():
    models = [network(0), network(1)]
    graph = edgeml.compile_ensemble([models[0], models[1], models[0]], WEIGHTS)
    assert kinds(graph).count("conv") == 2
    assert_close(graph, mean_of(models, [0.7, 0.3], "arithmetic"))
    assert kinds(edgeml.compile_ensemble([models[0]] * 2, [0.5, 0.5])) == ["input", "conv", "dense", "softmax"]


def test_members_on_one_backbone_fold_and_stay_as_they_were():
    trunk = network(0)
    features = trunk.get_layer("act").output
    heads = [L.Softmax()(L.Dense(5)(L.Flatten()(features))) for _ in range(2)]
    models = [keras.Model(trunk.input, head) for head in heads]
    expected = mean_of(models, [0.6, 0.4], "arithmetic")
    graph = edgeml.compile_ensemble(models, [0.6, 0.4])
    assert "affine" not in kinds(graph)[:4]
    assert_close(graph, expected)
    np.testing.assert_array_equal(mean_of(models, [0.6, 0.4], "arithmetic"), expected)


def test_the_given_models_are_not_changed():
    models = [network(s, scale=(0.5, -1.0)) for s in range(2)]
    before = [(model.to_json(), model.get_weights()) for model in models]
    edgeml.compile_ensemble(models, [0.5, 0.5], merge=True)
    for model, (text, weights) in zip(models, before, strict=True):
        assert model.to_json() == text
        assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), weights, strict=True))


def test_equal_weights_are_one_product_and_cancel_in_an_exponential_mean():
    models = [network(s) for s in range(3)]
    plain = edgeml.compile_ensemble(models, [1 / 3] * 3)
    assert kinds(plain)[-2:] == ["add", "affine"]
    assert edgeml.cost(plain).params == sum(edgeml.cost(model).params for model in models) + 1
    assert "affine" not in kinds(edgeml.compile_ensemble(models, [1 / 3] * 3, "exponential"))
    assert "affine" not in kinds(edgeml.compile_ensemble(models, WEIGHTS, "geometric"))
    assert kinds(edgeml.compile_ensemble(models, WEIGHTS)).count("affine") == 3


# --- what is shared


def test_an_equal_scaling_that_cannot_fold_is_done_once():
    models = [network(s, scale=(0.5, -1.0)) for s in range(3)]  # a shift in front of zero padding
    folding = ensemble.fold_ensemble(ensemble.side_by_side(models, WEIGHTS, "geometric"))
    assert kinds(folding.model).count("affine") == 1
    assert [name for name, _ in folding.kept] == ["scaling"]
    assert folding.folded.count("norm") == 3
    assert_close(folding.model, mean_of(models, WEIGHTS, "geometric"))
    models[1] = network(1, scale=(0.5, -1.5))
    graph = edgeml.compile_ensemble(models, WEIGHTS, "geometric")
    assert kinds(graph).count("affine") == 2
    assert_close(graph, mean_of(models, WEIGHTS, "geometric"))


@pytest.mark.parametrize(
    ("options", "convolutions", "activation"),
    [
        ([{}, {}, {}], 1, "relu"),
        ([{}, {"width": 6}, {}], 1, "relu"),  # parts of unequal size
        ([{}, {"activation": "tanh"}, {}], 1, "linear"),  # applied behind the split
        ([{"scale": (0.5, -1.0)}] * 3, 1, "relu"),
        ([{}, {"scale": (0.5, -1.0)}, {}], 2, "relu"),
    ],
)
def test_equal_shaped_first_convolutions_run_as_one(options, convolutions, activation):
    models = [network(s, **own) for s, own in enumerate(options)]
    plain = edgeml.compile_ensemble(models, WEIGHTS)
    graph = edgeml.compile_ensemble(models, WEIGHTS, merge=True)
    operators = keras_operators(graph)
    assert [kinds(plain).count(kind) for kind in ("conv", "split")] == [3, 0]
    assert [kinds(graph).count(kind) for kind in ("conv", "split")] == [convolutions, 1]
    assert max((o for o in operators if o.kind == "conv"), key=lambda o: o.macs).activation == activation
    assert_close(graph, mean_of(models, WEIGHTS, "arithmetic"))
    one, other = edgeml.cost(graph), edgeml.cost(plain)
    assert (one.params, one.macs) == (other.params, other.macs)
    assert one.peak_activation_bytes >= other.peak_activation_bytes


def test_activations_of_the_convolutions_themselves_may_differ():
    def member(seed, activation):
        keras.utils.set_random_seed(seed)
        layers = [keras.Input((8, 8, 1)), L.Conv2D(4, 3, activation=activation), L.Flatten(), L.Dense(5), L.Softmax()]
        return keras.Sequential(layers)

    for activations in (("relu", "relu"), ("relu", "elu"), ("softmax", "softmax")):
        models = [member(seed, activation) for seed, activation in enumerate(activations)]
        graph = edgeml.compile_ensemble(models, [0.6, 0.4], merge=True)
        assert kinds(graph).count("conv") == 1
        assert_close(graph, mean_of(models, [0.6, 0.4], "arithmetic"))


def test_a_member_of_another_size_has_its_input_resized_once():
    models = [network(0), network(1, (4, 6, 1)), network(2, (4, 6, 1))]
    graph = edgeml.compile_ensemble(models, WEIGHTS)
    assert graph.input_shape == (None, 8, 8, 1)
    assert kinds(graph).count("resize") == 1
    inputs = [X, bilinear(X, 4, 6), bilinear(X, 4, 6)]
    members = np.stack([outputs(model, x) for model, x in zip(models, inputs, strict=True)])
    assert_close(graph, MEANS["arithmetic"](members, WEIGHTS))


def bilinear(x, height, width):
    """Resize (N, H, W, C) as seen from pixel centres."""

    def axis(values, size, place):
        have = values.shape[place]
        at = np.clip((np.arange(size) + 0.5) * have / size - 0.5, 0, have - 1)
        low = np.minimum(at.astype(int), have - 1)
        high, part = np.minimum(low + 1, have - 1), (at - low).reshape([-1 if i == place else 1 for i in range(4)])
        return values.take(low, place) * (1 - part) + values.take(high, place) * part

    return axis(axis(x.astype("float64"), height, 1), width, 2).astype("float32")


# --- files


@pytest.mark.parametrize("mean", MEANS)
def test_an_ensemble_becomes_files_like_any_network(mean, tmp_path):
    models = [network(0), network(1, activation="tanh"), network(2, (6, 6, 1))]
    trained = ensemble.side_by_side(models, WEIGHTS, mean)
    folded = ensemble.fold_ensemble(trained, merge=True).model
    assert "split" in kinds(folded)
    artifacts = exporting.write(folded, tmp_path, ["tflite", "onnx"], ["float32", "int8"], {"image": X}, print)
    rows = verification.prove(folded, trained, artifacts, {"image": X}, "random", recipe.Verify())
    assert len([row for row in networks.first_rows(rows) if row.gate != "tflm"]) == 5
    assert all(row.passed for row in rows)
    for artifact in artifacts:
        read = {"tflite": tflite_operators, "onnx": onnx_operators}[artifact.target]
        found = [operator.kind for operator in read(artifact.path)]
        assert [found.count(kind) for kind in ("split", "resize", "conv")] == [2, 1, 2]
    folded.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_array_equal(outputs(again, X), outputs(folded, X))
    assert assembly.fold(again).cost == assembly.fold(folded).cost


def test_compiling_twice_gives_one_file(tmp_path):
    models, files = [network(s, scale=(0.5, -1.0)) for s in range(2)], []
    for number in range(2):
        graph = edgeml.compile_ensemble(models, [0.6, 0.4], "exponential", merge=True)
        (tmp_path / str(number)).mkdir()
        (artifact,) = exporting.write(graph, tmp_path / str(number), ["tflite"], ["float32"], None, print)
        files.append(artifact.path.read_bytes())
    assert files[0] == files[1]


# --- what is refused


def two_inputs():
    a, b = keras.Input((8, 8, 1)), keras.Input((8, 8, 1))
    return keras.Model([a, b], L.Softmax()(L.Dense(5)(L.Flatten()(L.Add()([a, b])))), name="two")


def ends_in(layer):
    return keras.Sequential([keras.Input((8, 8, 1)), L.Flatten(), L.Dense(5), *layer], name="bare")


@pytest.mark.parametrize(
    ("models", "weights", "mean", "words"),
    [
        (0, [], "arithmetic", "models: got none"),
        (2, [1.0], "arithmetic", "got 1 for 2 models"),
        (2, [1.5, -0.5], "arithmetic", "not negative and sum to one"),
        (2, [0.5, 0.4], "arithmetic", "not negative and sum to one"),
        (2, [float("nan"), float("nan")], "arithmetic", "not negative and sum to one"),
        (2, [0.5, 0.5], "harmonic", "mean: got 'harmonic'; arithmetic, geometric, exponential are allowed"),
    ],
)
def test_weights_that_are_none_are_refused(models, weights, mean, words):
    with pytest.raises(ValueError, match=words):
        edgeml.compile_ensemble([network(s) for s in range(models)], weights, mean)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (lambda: network(1, classes=3), r"output shapes \(5,\), \(3,\); members share one"),
        (lambda: network(1, (8, 8, 3)), r"input shapes \(8, 8, 1\), \(8, 8, 3\); .* of as many channels"),
        (two_inputs, r"member 1 \('two'\): has 2 inputs; one is allowed"),
        (lambda: ends_in([]), r"member 1 \('bare'\): its output has values down to -.*; a distribution is due"),
        (
            lambda: ends_in([L.ReLU()]),
            r"member 1 \('bare'\): its output has rows that sum to .*; a distribution is due",
        ),
        (lambda: keras.Sequential([L.Dense(5)], name="new"), r"member 1 \('new'\): Sequential has no layer graph"),
    ],
)
def test_members_that_do_not_fit_together_are_refused(other, words):
    with pytest.raises(ValueError, match=words):
        edgeml.compile_ensemble([network(0), other()], [0.5, 0.5])


@pytest.mark.parametrize(("models", "words"), [("one", "got a str;"), (["model.keras"], "got a str among")])
def test_what_are_no_models_is_refused(models, words):
    with pytest.raises(ValueError, match=words):
        edgeml.compile_ensemble(models, [1.0])


def test_a_softmax_operation_is_one_like_the_layer():
    x = keras.Input((8, 8, 1))
    model = keras.Model(x, keras.ops.softmax(L.Dense(5)(L.Flatten()(x))), name="op")
    assert edgeml.compile_ensemble([network(0), model], [0.5, 0.5], "geometric").output_shape == (None, 5)


def test_a_member_that_computes_nan_is_refused():
    broken = network(1)
    broken.get_layer("logits").bias.assign(np.full(5, np.nan))
    with pytest.raises(ValueError, match=r"member 1 \('net'\): its output has NaN or infinite values"):
        edgeml.compile_ensemble([network(0), broken], [0.5, 0.5])


def test_logits_that_no_softmax_made_are_refused():
    halves = ends_in([L.Softmax(), L.Reshape((5,))])
    with pytest.raises(ValueError, match=r"ends in Reshape 'reshape.*'; a softmax layer is due"):
        edgeml.compile_ensemble([network(0), halves], [0.5, 0.5], "geometric")
