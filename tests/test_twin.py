"""A twin computes what its model does, both ways, for every space and every layer that it knows; others are refused."""

import keras
import networks
import numpy as np
import pytest
import test_folding_oracle as oracle
import tf_keras
from test_space_exports import NAMES, as_trained, drawn, shades

from edgeml import compile_ensemble, twin
from edgeml.ensemble.graph import logits
from edgeml.errors import UsageError
from edgeml.folding import fold_batch_norm
from edgeml.layers import BatchRenormalization

L = keras.layers
MOST_ERROR = {"float32": 1e-6, "float64": 1e-8}  # of the output range; some constants go through float32


def error(model, twin_model, x, fed=None):
    """Largest difference as a share of the range of the output."""
    ours = oracle.outputs(model, x)
    fed = keras.tree.flatten(x if fed is None else fed)
    theirs = [np.asarray(y) for y in keras.tree.flatten(twin_model(fed if len(fed) > 1 else fed[0], training=False))]
    for y in ours:
        assert y.std(axis=0).max() > 0, "vacuous: the output does not depend on the input"
    return max(float(np.abs(a - b).max() / np.ptp(a)) for a, b in zip(ours, theirs, strict=True))


def changed(twin_model, seed=3):
    rng = np.random.default_rng(seed)
    for weight in twin_model.weights:
        weight.assign(weight.numpy() * rng.uniform(0.8, 1.2, weight.shape))
    return twin_model


def own_rounding(model, x):
    """By how much of its range a model's output moves when its inputs move by one rounding."""
    fed = x if isinstance(x, list) else [x]
    moved = [np.nextafter(one, np.inf, dtype=one.dtype) if one.dtype.kind == "f" else one for one in fed]
    first, second = (keras.tree.flatten(model(y if len(y) > 1 else y[0], training=False)) for y in (fed, moved))
    return max(float(np.abs(np.asarray(a) - np.asarray(b)).max() / np.ptp(np.asarray(a)))
               for a, b in zip(first, second, strict=True))  # fmt: skip


def exact_both_ways(model, x, dtype="float32"):
    """A few networks of random weights amplify roundings: two orders of the same sum differ by a few of their own."""
    made = twin.twin(model)
    assert isinstance(made, tf_keras.Model)
    assert error(model, made, x) <= max(MOST_ERROR[dtype], 4 * own_rounding(model, x))
    twin.back(changed(made), model)
    assert error(model, made, x) <= max(MOST_ERROR[dtype], 4 * own_rounding(model, x))


# ---- networks of every space


def network_of(name, seed):
    """A network of a space up to its logits, which a softmax would hide."""
    space, values, shape = drawn(name, seed)
    x = shades(60, shape, seed)
    model = logits(as_trained(space.model(values), x))
    return keras.Model(model.inputs[0], model.outputs[0], name=name), x


@pytest.mark.parametrize("seed", [0])
@pytest.mark.parametrize("name", NAMES)
def test_every_space_before_and_after_folding(name, seed):
    model, x = network_of(name, seed)
    exact_both_ways(model, x)
    exact_both_ways(fold_batch_norm(model).model, x)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 23))
@pytest.mark.parametrize("name", NAMES)
def test_many_of_every_space_before_and_after_folding(name, seed):
    test_every_space_before_and_after_folding(name, seed)


@pytest.mark.parametrize("name", ["ds_cnn", "ds_cnn_1d", "dense_selu"])
def test_scaling_at_the_input_is_left_to_whoever_feeds_the_twin(name):
    model, x = network_of(name, 1)
    made = twin.twin(model, strip_scaling=True)
    assert not [layer for layer in made.layers if layer.name == "scaling"]
    fed = twin.feed(model, x)
    assert fed.dtype == np.float32
    assert abs(fed).max() < 4 < abs(x).max()
    assert error(model, made, x, fed) <= 2e-6, "the scaling itself is rounded elsewhere"


# ---- ensembles


@pytest.mark.parametrize("mean", ["arithmetic", "geometric", "exponential"])
@pytest.mark.parametrize("merge", [False, True])
def test_a_compiled_ensemble(mean, merge):
    members = [networks.separable(a, shape, seed=s) for s, (a, shape) in enumerate(
        [("relu", (12, 12, 3)), ("hard_swish", (12, 12, 3)), ("relu6", (8, 8, 3))])]  # fmt: skip
    graph = compile_ensemble(members, [0.5, 0.3, 0.2], mean, merge=merge)
    kinds = {type(node).__name__ for node in graph.operations}
    assert "Resizing" in kinds
    assert ("Split" in kinds) == merge
    assert ("Log" in kinds) == (mean == "exponential")
    exact_both_ways(graph, networks.pictures(20))


def test_members_whose_layers_have_the_same_names():
    members = [networks.separable(name, seed=0) for name in ("relu", "relu6")]
    x = keras.Input((12, 12, 3))
    exact_both_ways(keras.Model(x, L.Add()([member(x) for member in members])), networks.pictures(20))


# ---- single layers


def images(*layers):
    return oracle.chain((9, 8, 4), *layers), np.random.default_rng(0).normal(size=(5, 9, 8, 4))


def windows(*layers):
    return oracle.chain((11, 4), *layers), np.random.default_rng(0).normal(size=(5, 11, 4))


def vectors(*layers):
    return oracle.chain((6,), *layers), np.random.default_rng(0).normal(size=(5, 6))


FUNCTIONS = ["relu", "relu6", "leaky_relu", "elu", "selu", "gelu", "silu", "hard_silu", "hard_sigmoid", "softmax",
             "tanh", "sigmoid", "softplus", "softsign", "exponential", "mish", "linear"]  # fmt: skip
CASES = {
    **{f"dense {name}": lambda name=name: vectors(L.Dense(5, activation=name)) for name in FUNCTIONS},
    **{f"activation {name}": lambda name=name: images(L.Activation(name)) for name in FUNCTIONS if name != "linear"},
    "conv valid": lambda: images(L.Conv2D(6, (3, 2), strides=2)),
    "conv groups": lambda: images(L.Conv2D(6, 3, padding="same", groups=2, use_bias=False)),
    "conv dilated": lambda: images(L.Conv2D(6, 3, padding="same", dilation_rate=2, activation="hard_silu")),
    "transposed": lambda: images(L.Conv2DTranspose(3, 3, strides=2, padding="same")),
    "depthwise": lambda: images(L.DepthwiseConv2D(3, strides=2, padding="same", depth_multiplier=2)),
    "depthwise dilated": lambda: images(L.DepthwiseConv2D(3, dilation_rate=2)),
    "separable": lambda: images(L.SeparableConv2D(6, 3, strides=2, depth_multiplier=2, padding="same")),
    "separable relu": lambda: images(L.SeparableConv2D(6, 3, use_bias=False, activation="relu")),
    "conv 1d": lambda: windows(L.Conv1D(6, 3, strides=2, padding="same")),
    "conv 1d causal": lambda: windows(L.Conv1D(6, 3, dilation_rate=2, padding="causal", activation="relu")),
    "conv 1d groups": lambda: windows(L.Conv1D(6, 3, groups=2)),
    "depthwise 1d": lambda: windows(L.DepthwiseConv1D(3, strides=2, padding="same", depth_multiplier=2)),
    "separable 1d": lambda: windows(L.SeparableConv1D(6, 3, strides=2, depth_multiplier=2)),
    "batch norm": lambda: images(L.BatchNormalization(epsilon=1e-7, scale=False)),
    "batch norm of rows": lambda: images(L.BatchNormalization(axis=1, center=False)),
    "batch renorm": lambda: vectors(L.Dense(5), BatchRenormalization()),
    "rescaling": lambda: images(L.Rescaling(1 / 255, 0.5)),
    "rescaling by channel": lambda: images(L.Conv2D(4, 1), L.Rescaling(np.arange(1.0, 5), np.arange(4.0))),
    "normalization": lambda: images(L.Normalization(mean=np.arange(4.0) * 100, variance=np.arange(1.0, 5))),
    "normalization scalar": lambda: images(L.Normalization(axis=None, mean=3.0, variance=2.0, invert=True)),
    "relu": lambda: images(L.ReLU(1.5, 0.1, 0.2)),
    "leaky relu": lambda: images(L.LeakyReLU(0.1)),
    "elu": lambda: images(L.ELU(0.7)),
    "prelu": lambda: images(L.PReLU(alpha_initializer="normal", shared_axes=(1, 2))),
    "softmax": lambda: images(L.Softmax()),
    **{f"{kind} 2d": lambda kind=kind: images(getattr(L, f"{kind}Pooling2D")((3, 2), (2, 1), "same"))
       for kind in ("Max", "Average")},
    **{f"{kind} 1d": lambda kind=kind: windows(getattr(L, f"{kind}Pooling1D")(3, 2, "same"))
       for kind in ("Max", "Average")},
    **{f"global {kind} {rank} {keep}": lambda kind=kind, rank=rank, keep=keep: (images if rank == 2 else windows)(
        getattr(L, f"Global{kind}Pooling{rank}D")(keepdims=keep))
       for kind in ("Max", "Average") for rank in (1, 2) for keep in (False, True)},
    "padding": lambda: images(L.ZeroPadding2D(((1, 0), (2, 1))), L.Cropping2D(((0, 1), (1, 0)))),
    "padding 1d": lambda: windows(L.ZeroPadding1D((2, 1)), L.Cropping1D((0, 1))),
    "upsampling": lambda: images(L.UpSampling2D((2, 3), interpolation="bilinear")),
    "upsampling 1d": lambda: windows(L.UpSampling1D(2)),
    "resizing": lambda: images(L.Resizing(5, 7)),
    "shapes": lambda: images(L.Permute((2, 1, 3)), L.Reshape((9, -1)), L.Flatten(), L.RepeatVector(3)),
    "dropouts": lambda: images(L.Dropout(0.5), L.SpatialDropout2D(0.5), L.AlphaDropout(0.5), L.GaussianNoise(1.0),
                               L.GaussianDropout(0.5), L.Identity(), L.ActivityRegularization(0.1)),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_layer_is_exact(case):
    with oracle.precision("float64"):
        model, x = CASES[case]()
        exact_both_ways(oracle.randomise(model), x, "float64")


@pytest.mark.parametrize("merge", ["Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate"])
def test_two_inputs_joined_and_two_outputs(merge):
    one, two = keras.Input((4,), name="one:1"), keras.Input((4,), name="two")
    shared = L.Dense(3)
    joined = getattr(L, merge)()([shared(one), shared(two)])
    model = keras.Model([one, two], [joined, shared(one) + joined if merge == "Add" else joined])
    x = [np.random.default_rng(s).normal(size=(6, 4)).astype("float32") for s in (0, 1)]
    exact_both_ways(model, x)
    assert len(twin.twin(model).weights) == 2, "a shared layer stays shared"
    with pytest.raises(UsageError, match="2 inputs"):
        twin.feed(model, x[0])


# ---- refusals


class Twice(L.Layer):
    def call(self, x):
        return 2 * x


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ([L.LSTM(3)], "layer 'lstm.*' \\(LSTM\\) has no twin"),
        ([Twice()], "Twice.* has no twin"),
        ([L.Dense(3, activation=lambda x: x * 2)], "ends in an activation that has no twin"),
        ([L.Conv1D(3, 2, data_format="channels_first")], "takes channels_first"),
        ([L.Dense(3, dtype="mixed_float16")], "computes in float16"),
        ([lambda x: L.Dropout(0.5, name="drop")(x, training=True)], "is called with training=True"),
    ],
)
def test_a_layer_without_a_twin_is_named(layers, said):
    model = oracle.chain((4, 5), *layers)
    with pytest.raises(UsageError, match=f"compression: .*{said}.*export without it still works"):
        twin.twin(model)


def test_trees_are_refused():
    from edgeml.layers import TreeEnsemble

    model = oracle.chain((4,), TreeEnsemble(2, 3, 4, 2, name="forest"))
    with pytest.raises(UsageError, match="layer 'forest' \\(TreeEnsemble\\) has no twin"):
        twin.twin(model)


def test_a_model_without_graph_and_a_twin_of_another_model():
    class Subclassed(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(UsageError, match="has no layer graph"):
        twin.twin(Subclassed())
    with pytest.raises(UsageError, match="no weight 'kernel' in a layer 'two'"):
        twin.back(twin.twin(oracle.chain((4,), L.Dense(2, name="one"))), oracle.chain((4,), L.Dense(2, name="two")))


def test_the_model_stays_as_it_is():
    model = networks.separable()
    before = [w.copy() for w in model.get_weights()]
    changed(twin.twin(model))
    assert all((a == b).all() for a, b in zip(before, model.get_weights(), strict=True))
