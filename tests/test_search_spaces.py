"""The contract of every file in search_spaces/: what operators() says is what build() builds."""

from collections import Counter

import keras
import numpy as np
import pytest

from edgeml import costs, plugins, scaling
from edgeml.errors import RecipeError
from edgeml.folding import fold_batch_norm
from edgeml.keras_operators import as_if_trained, keras_operators
from edgeml.operators import Operator
from edgeml.records import Budget
from edgeml.search import oracles
from edgeml.search.feasibility import Feasibility
from edgeml.search.space import Space, takes

NAMES = plugins.names("search_spaces")
SHAPES = {
    "images": [(8, 8, 1), (28, 28, 1), (32, 32, 3)],
    "windows": [(119, 6), (35, 3), (49, 10)],
    "vectors": [(4,), (30,), (64,)],
}
ODD_SHAPES = {
    "images": [(1, 1, 1), (3, 5, 8), (12, 7, 16)],
    "windows": [(1, 1), (2, 9), (17, 16)],
    "vectors": [(1,), (2,)],
}
THREE_CHANNELS = {"images": [(8, 8, 3)], "windows": [(7, 3), (35, 3), (64, 3)], "vectors": [(3,)]}
SIDES, MOST_CLASSES = (8, 96), 100
CLASSES = 10


def cases(shapes):
    """Return every space with every shape of a kind that it takes."""
    found = [(name, shape) for name in NAMES for kind in takes(name) for shape in shapes[kind]]
    return pytest.mark.parametrize(("name", "shape"), found, ids=str)


def space_of(names, shape, scaled=None, classes=CLASSES):
    return Space(names, shape, classes, scaled or scaling.rescale((0, 255)))


def draws(space, count, seed=0):
    """Draw values as a search does."""
    judge = Feasibility(space.operators, Budget())
    oracle = oracles.create(
        "random", accepts=judge.accepts, hyperparameters=space.hyperparameters(), max_trials=1, epochs=1, seed=seed
    )
    return [oracle._drawn() for _ in range(count)]


def described(operator):
    """What must agree, all but the name."""
    return (operator.kind, operator.output_shape, operator.weights, operator.biases, operator.macs, operator.kernel,
            operator.strides, operator.activation)  # fmt: skip


def assert_as_built(space, values):
    model = space.model(values)
    with as_if_trained(model):
        built = keras_operators(fold_batch_norm(model).model)
    declared = space.operators(values)
    assert costs.cost(declared) == costs.cost(built), values
    numbers = {}
    assert graph(declared, numbers) == graph(built, numbers), values


def graph(operators, numbers):
    """Return every operator with what feeds it, in no order: Keras lists the branches of a shortcut in its own."""
    own = {}
    for operator in operators:
        key = described(operator), tuple(own[name] for name in operator.inputs)
        own[operator.name] = numbers.setdefault(key, len(numbers))
    names = {number: key for key, number in numbers.items()}
    return Counter(names[number] for number in own.values())


def test_graphs_differ_where_an_operator_or_its_source_does():
    a, b = (Operator(name, "conv", ("input",), (4, 4, 8), weights=8) for name in "ab")
    given, total = Operator("input", "input", (), (4, 4, 1)), Operator("sum", "add", ("a", "b"), (4, 4, 8))
    numbers = {}
    assert graph([given, a, b, total], numbers) == graph([given, b, a, total], numbers)
    for other in (a._replace(biases=8), a._replace(activation="relu"), a._replace(kernel=(3, 3))):
        assert graph([given, a, b, total], numbers) != graph([given, other, b, total], numbers)
    chained = [given, a, b._replace(inputs=("a",)), total]
    assert graph([given, a, b, total], numbers) != graph(chained, numbers)
    assert graph([given, a, b], numbers) != graph([given, a], numbers)


@cases(SHAPES)
def test_operators_are_those_of_the_built_model(name, shape):
    space = space_of([name], shape)
    for values in draws(space, 5, seed=sum(shape)):
        assert_as_built(space, values)


@pytest.mark.slow
@cases(SHAPES)
def test_operators_are_those_of_the_built_model_over_many_draws(name, shape):
    space = space_of([name], shape)
    for values in draws(space, 67, seed=1000 + sum(shape)):
        assert_as_built(space, values)


@cases(ODD_SHAPES)
def test_odd_shapes_and_many_channels_are_judged_as_they_are_built(name, shape):
    space = space_of([name], shape)
    for values in draws(space, 6, seed=3):
        assert_as_built(space, values)


def assert_any_size_is_as_built(name, count, seed):
    """Draw the input's shape and the classes, too."""
    rng = np.random.default_rng(seed)
    for index in range(count):
        height, width = (int(side) for side in rng.integers(SIDES[0], SIDES[1] + 1, 2))
        channels, classes = int(rng.choice([1, 3])), int(rng.integers(2, MOST_CLASSES + 1))
        kinds = takes(name)
        shape = {"images": (height, width, channels), "windows": (height, width), "vectors": (height,)}[
            kinds[index % len(kinds)]
        ]
        space = space_of([name], shape, classes=classes)
        for values in draws(space, 1, seed=index):
            assert_as_built(space, values)
            assert space.operators(values)[-1].output_shape == (classes,)


@pytest.mark.parametrize("name", NAMES)
def test_any_size_and_number_of_classes_is_judged_as_it_is_built(name):
    assert_any_size_is_as_built(name, 4, seed=6)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_any_size_and_number_of_classes_is_judged_as_it_is_built_over_many_draws(name):
    assert_any_size_is_as_built(name, 200, seed=7)


@cases(THREE_CHANNELS)
def test_standardized_inputs_are_judged_as_they_are_built(name, shape):
    scaled = scaling.standardize(np.array([90.0, 110.0, 0.0]), np.array([50.0, 60.0, 0.0]))
    space = space_of([name], shape, scaled)
    for values in draws(space, 5 if len(shape) == 3 else 12):
        assert_as_built(space, values)


@pytest.mark.parametrize(("kind", "shape"), [("images", (8, 8, 1)), ("windows", (20, 3)), ("vectors", (9,))])
def test_the_union_is_judged_as_it_is_built(kind, shape):
    names = [name for name in NAMES if kind in takes(name)]
    space = space_of(names, shape)
    drawn = draws(space, 12)
    assert {space.name_of(values) for values in drawn} == set(names)
    for values in drawn:
        assert_as_built(space, values)
        prefix = space.name_of(values)
        assert all(key == "space" or key.startswith(f"{prefix}/") for key in values)
        assert space.option(values, "optimizer") == values[f"{prefix}/optimizer"]


@cases(SHAPES)
def test_the_default_is_the_smallest(name, shape):
    space = space_of([name], shape)
    default = costs.cost(space.operators(space.hyperparameters().values))
    drawn = [costs.cost(space.operators(values)) for values in draws(space, 300)]
    assert default.params <= min(cost.params for cost in drawn)
    assert default.macs <= min(cost.macs for cost in drawn)


@cases(SHAPES)
def test_every_hyperparameter_changes_the_network_or_the_training(name, shape):
    space, moved = space_of([name], shape), set()
    for values in draws(space, 150, seed=5):
        hp = space.hyperparameters()
        for entry in hp.space:
            if entry.name in values and entry.name not in moved:
                moved.update({entry.name} & changed(space, values, entry))
    varied = {entry.name for entry in space.hyperparameters().space if fixed(entry) is False}
    assert moved == varied


def fixed(entry):
    return len(list(entry.values)) == 1


def changed(space, values, entry):
    """Return the name of ``entry`` if another value of it gives another network or another training."""
    module = plugins.get("search_spaces", space.names[0])
    for value in entry.values:
        other = {**values, entry.name: value}
        nets = [layers_of(module, space, v) for v in (values, other)]
        trained = [(v["optimizer"], v["learning_rate"]) for v in (values, other)]
        if nets[0] != nets[1] or trained[0] != trained[1]:
            return {entry.name}
    return set()


def layers_of(module, space, values):
    import keras_tuner

    hp = keras_tuner.HyperParameters()
    hp.values = dict(values)
    return [(layer.kind, layer.shape, layer.options) for layer in module.network(hp, *space.arguments).layers]


def a_shape(name):
    return SHAPES[takes(name)[0]][-1]


@pytest.mark.parametrize("name", NAMES)
def test_widths_are_multiples_of_eight(name):
    space = space_of([name], a_shape(name))
    for values in draws(space, 50):
        hidden = [o for o in space.operators(values) if o.kind in ("conv", "dense") and o.output_shape != (CLASSES,)]
        assert hidden
        assert all(operator.output_shape[-1] % 8 == 0 for operator in hidden)


@pytest.mark.parametrize("name", NAMES)
def test_one_call_registers_every_conditional_hyperparameter(name):
    space = space_of([name], a_shape(name))
    known = {entry.name for entry in space.hyperparameters().space}
    assert known >= {key for values in draws(space, 100) for key in values}
    import keras_tuner

    for values in draws(space, 20):
        hp = keras_tuner.HyperParameters()
        hp.values = dict(values)
        plugins.get("search_spaces", name).operators(hp, a_shape(name), CLASSES)
        assert {entry.name for entry in hp.space} == known


@pytest.mark.parametrize("name", NAMES)
def test_a_space_builds_compiled_models_for_keras_tuner(name):
    import keras_tuner

    model = plugins.get("search_spaces", name).build(keras_tuner.HyperParameters(), a_shape(name), CLASSES)
    assert model.compiled
    assert model.output_shape == (None, CLASSES)
    momenta = [layer.momentum for layer in model.layers if hasattr(layer, "momentum")]
    assert set(momenta) == (set() if name == "dense_selu" else {0.9})


def test_a_space_refuses_data_of_another_kind_and_names_those_that_fit():
    refused = (
        r"search.space: ds_cnn takes images, the data are vectors \(30,\); spaces for vectors: dense_selu, wide_deep\."
    )
    with pytest.raises(RecipeError, match=refused):
        space_of(["wide_deep", "ds_cnn"], (30,))
    with pytest.raises(RecipeError, match="wide_deep takes vectors and windows, the data are images"):
        space_of(["wide_deep"], (8, 8, 1))


def test_a_shift_folds_into_dense_layers_and_where_no_zero_is_padded_in():
    scaled = scaling.standardize(np.array([9.0, 1.0, 4.0]), np.array([5.0, 6.0, 2.0]))
    kinds = {}
    for name, shape, values in [("wide_deep", (3,), {}), ("dense_selu", (7, 3), {}),
                                ("ds_cnn_1d", (35, 3), {"stem_stride": 4, "stem_kernel": 3}),
                                ("ds_cnn_1d", (36, 3), {"stem_stride": 4, "stem_kernel": 5})]:  # fmt: skip
        kinds[name, shape] = [operator.kind for operator in space_of([name], shape, scaled).operators(values)]
    assert [case for case, found in kinds.items() if "affine" in found] == [("ds_cnn_1d", (36, 3))]


def test_selu_networks_start_as_the_theory_asks():
    space = space_of(["dense_selu"], (40,))
    values = {"width": 64, "layers": 3, "shape": "rectangular", "alpha_dropout": 0.1}
    model = space.build({**values, "optimizer": "adam", "learning_rate": 1e-3})
    assert [layer.units for layer in model.layers if hasattr(layer, "units")] == [64, 64, 64, CLASSES]
    assert sum(type(layer).__name__ == "AlphaDropout" for layer in model.layers) == 3
    x = np.random.default_rng(0).normal(size=(500, 40)).astype("float32")
    last = [layer for layer in model.layers if layer.name.startswith("act")][-1]
    activations = np.asarray(keras.Model(model.input, last.output)(x))
    assert abs(activations.mean()) < 0.2
    assert abs(activations.var() - 1) < 0.4


def network_of(name, **given):
    import keras_tuner

    hp = keras_tuner.HyperParameters()
    for key, value in given.items():
        hp.Fixed(key, value)
    return plugins.get("search_spaces", name).network(hp, (28, 28, 1), CLASSES)


def test_mobilenet_v2_has_linear_bottlenecks_and_shortcuts_where_shapes_allow():
    layers = network_of(
        "mobilenet_v2", stages=1, stage_1_width=16, stage_1_depth=3, stage_1_expansion=3, stage_1_stride=2
    ).layers
    readers = {layer.name: [other.kind for other in layers if layer in other.inputs] for layer in layers}
    norms = {layer.inputs[0].name: layer.name for layer in layers if layer.kind == "norm"}
    convolutions = [layer for layer in layers if layer.kind == "conv"]
    _, *expansions_and_projections = convolutions
    assert [layer.shape[-1] for layer in expansions_and_projections] == [24, 16, 48, 16, 48, 16]
    for projection in expansions_and_projections[1::2]:
        assert "act" not in readers[norms[projection.name]]
    for expansion in expansions_and_projections[::2]:
        assert readers[norms[expansion.name]] == ["act"]
    assert sum(layer.kind == "add" for layer in layers) == 2, "the first block strides"


def test_mobilenet_v2_leaves_an_expansion_of_one_out():
    layers = network_of("mobilenet_v2", stages=1, stage_1_expansion=1, head_width=32).layers
    kinds = [layer.kind for layer in layers]
    assert kinds == ["input", "conv", "norm", "act", "depthwise", "norm", "act", "conv", "norm", "conv", "norm", "act",
                     "global_pool", "dense", "softmax"]  # fmt: skip


@pytest.mark.parametrize("halve", ["stride", "pool"])
def test_mini_xception_halves_outside_the_middle_flow_and_keeps_a_shortcut_around_every_pair(halve):
    layers = network_of(
        "mini_xception", halve=halve, stem_stride=1, entry_blocks=2, middle_blocks=2, exit_width=24
    ).layers
    adds = [layer for layer in layers if layer.kind == "add"]
    assert [add.shape for add in adds] == [(14, 14, 8), (7, 7, 8), (7, 7, 8), (7, 7, 8), (4, 4, 24)]
    assert [add.inputs[0].kind for add in adds] == ["norm", "norm", "act", "act", "norm"], "identity in the middle"
    assert sum(layer.kind == "max_pool" for layer in layers) == (3 if halve == "pool" else 0)
    assert sum(layer.kind == "separable" for layer in layers) == 10


def test_separable_cnn_can_be_regular():
    separable, regular = (network_of("separable_cnn", conv=conv).operators() for conv in ("separable", "regular"))
    assert "depthwise" in {o.kind for o in separable}
    assert "depthwise" not in {o.kind for o in regular}
    first = next(o for o in regular if o.kind == "conv")
    assert (first.weights, first.biases, first.kernel) == (9 * 8, 8, (3, 3))
