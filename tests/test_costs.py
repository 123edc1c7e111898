"""Cost against what is known: published reference models, brute force over all orders, and hand-counted layers."""

from dataclasses import replace
from itertools import permutations
from math import prod

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edgeml
from edgeml import arena, costs, file_bytes
from edgeml.errors import TargetError
from edgeml.foreign_child import opened
from edgeml.keras_operators import as_if_trained, keras_operators
from edgeml.operators import Operator
from edgeml.precisions import File
from edgeml.records import Cost

L = keras.layers

REFERENCE = {  # MLPerf Tiny (mlcommons/tiny): params and MACs of the folded graph
    "image_classification/pretrainedResnet.h5": (77_706, 12_501_632),
    "visual_wake_words/vww_96.h5": (210_850, 7_489_664),
    "anomaly_detection/ad01.h5": (265_864, 264_192),
}


@pytest.mark.parametrize("file", REFERENCE)
def test_reference_models_cost_exactly_what_is_published(shared_data, file):
    cost = edgeml.cost(opened(shared_data / "models" / "mlcommons_tiny" / file, {}))
    assert (cost.params, cost.macs) == REFERENCE[file]


def test_a_keras_2_file_becomes_plain_keras_3_layers(shared_data, tmp_path):
    model = opened(shared_data / "models" / "mlcommons_tiny" / "visual_wake_words" / "vww_96.h5", {})
    model.save(tmp_path / "again.keras")
    x = np.random.default_rng(0).uniform(0, 1, (2, 96, 96, 3)).astype("float32")
    np.testing.assert_array_equal(opened(tmp_path / "again.keras", {})(x), model(x))


# --- peak activations


@st.composite
def graphs(draw):
    """Up to 7 operators; each reads one or two earlier ones."""
    operators = [Operator("0", "input", (), (draw(st.integers(1, 9)),))]
    for number in range(1, draw(st.integers(2, 7))):
        inputs = draw(st.lists(st.integers(0, number - 1), min_size=1, max_size=2))
        operators.append(Operator(str(number), "add", tuple(map(str, inputs)), (draw(st.integers(1, 9)),)))
    return operators


def brute_force(operators):
    read = {name for operator in operators for name in operator.inputs}
    size = {operator.name: prod(operator.output_shape) for operator in operators}
    peaks = []
    for order in permutations(operators):
        place = {operator.name: i for i, operator in enumerate(order)}
        if any(place[name] > place[operator.name] for operator in operators for name in operator.inputs):
            continue
        last = {name: max(place[o.name] for o in operators if name in o.inputs) for name in read}
        alive = [
            sum(size[o.name] for o in order[: step + 1] if last.get(o.name, len(order)) >= step)
            for step in range(len(order))
        ]
        peaks.append(max(alive))
    return min(peaks)


@settings(max_examples=60, deadline=None)
@given(graphs())
def test_peak_is_that_of_the_best_of_all_orders(operators):
    assert costs.peak_activation_elements(operators) == brute_force(operators)


def test_peak_is_not_that_of_the_order_given():
    def op(name, size, *inputs):
        return Operator(name, "add", inputs, (size,))

    big_last = [op("x", 10), op("small", 9, "x"), op("big", 20, "x"), op("less", 1, "big"), op("y", 1, "less", "small")]
    assert costs.peak_activation_elements(big_last) == 31  # x, big, less; in the order given 39: x, small, big


def test_a_graph_with_too_many_orders_is_charged_its_given_order(monkeypatch):
    monkeypatch.setattr(costs, "MAX_ORDERS", 3)
    operators = [Operator("x", "input", (), (4,))]
    operators += [Operator(f"b{i}", "add", ("x",), (2,)) for i in range(6)]
    operators += [Operator("y", "concat", tuple(f"b{i}" for i in range(6)), (12,))]
    assert costs.peak_activation_elements(operators) == 24


def test_bytes_by_precision():
    cost = costs.cost([Operator("x", "input", (), (4,)), Operator("d", "dense", ("x",), (3,), 12, 3, 12)])
    assert cost.weight_bytes == {"float32": 60, "float16": 30, "dynamic": 60, "int8": 24, "int16x8": 36}
    large = costs.cost([Operator("x", "input", (), (64,)), Operator("d", "dense", ("x",), (16,), 1024, 16)])
    assert large.weight_bytes["dynamic"] == 1024 + 4 * 16  # a kernel of fewer than 1,024 weights stays float32
    assert (cost.params, cost.macs, cost.peak_activation_bytes) == (15, 12, 7)


def test_only_what_is_asked_for_is_counted():
    operators = [Operator("x", "input", (), (4,)), Operator("d", "dense", ("x",), (3,), 12, 3, 12)]
    everything = costs.cost(operators)
    assert everything.arena_bytes == {"int8": arena.arena_bytes(operators)}
    assert everything.file_bytes == file_bytes.file_bytes(operators)
    one = costs.cost(operators, [File("onnx", "int8")], ("arena_bytes",))
    assert one.weight_bytes == {"int8": 24}
    assert (one.arena_bytes, one.file_bytes) == (everything.arena_bytes, {})
    assert costs.cost(operators, [File("onnx", "int8")]).file_bytes == {
        "onnx": {"int8": everything.file_bytes["onnx"]["int8"]}
    }


def test_a_prediction_is_charged_the_error_of_its_formula():
    cost = Cost(1, 2, {"int8": 3}, 4, {"int8": 1000}, {"tflite": {"float32": 1000}, "onnx": {"int8": 2000}})
    charged = costs.charged(cost)
    assert charged.arena_bytes == {"int8": 1010}
    assert charged.file_bytes == {"tflite": {"float32": 1021}, "onnx": {"int8": 2090}}
    assert replace(charged, arena_bytes=cost.arena_bytes, file_bytes=cost.file_bytes) == cost
    assert costs.charged(Cost(1, 2)) == Cost(1, 2)


# --- reading Keras models


def model_of(*layers, shape=(8, 8, 3)):
    return keras.Sequential([keras.Input(shape), *layers])


@pytest.mark.parametrize(
    ("layer", "params", "macs"),
    [
        (L.Conv2D(4, 3), 3 * 3 * 3 * 4 + 4, 6 * 6 * 3 * 3 * 3 * 4),
        (L.Conv2D(6, 3, groups=3, use_bias=False), 3 * 3 * 1 * 6, 6 * 6 * 9 * 6),
        (L.DepthwiseConv2D(3, strides=2, depth_multiplier=2), 9 * 6 + 6, 3 * 3 * 9 * 6),
        (L.SeparableConv2D(5, 3, depth_multiplier=2), 9 * 6 + 6 * 5 + 5, 36 * (9 * 6 + 6 * 5)),
        (L.Conv2DTranspose(4, 3, strides=2, padding="same"), 9 * 3 * 4 + 4, 64 * 9 * 3 * 4),
        (L.Dense(7), 3 * 7 + 7, 64 * 21),
        (L.PReLU(shared_axes=[1, 2]), 3, 0),
        (L.MaxPooling2D(), 0, 0),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, L.Layer) else None,
)  # fmt: skip
def test_layers_cost_what_one_counts_by_hand(layer, params, macs):
    cost = edgeml.cost(model_of(layer))
    assert (cost.params, cost.macs) == (params, macs)


def test_channels_first_costs_what_channels_last_costs():
    def net(data_format, shape):
        return model_of(
            L.Conv2D(4, 3, data_format=data_format), L.DepthwiseConv2D(3, data_format=data_format),
            L.SeparableConv2D(6, 3, data_format=data_format), shape=shape,
        )  # fmt: skip

    first, last = (
        edgeml.cost(net(*given)) for given in (("channels_first", (3, 9, 11)), ("channels_last", (9, 11, 3)))
    )
    counted = ("params", "macs", "weight_bytes", "peak_activation_bytes")
    assert all(getattr(first, key) == getattr(last, key) for key in counted)


def test_a_shared_layer_is_stored_once_and_computed_twice():
    x, shared = keras.Input((8, 8, 3)), L.Conv2D(3, 3, padding="same", use_bias=False)
    once, twice = edgeml.cost(keras.Model(x, shared(x))), edgeml.cost(keras.Model(x, shared(shared(x))))
    assert (once.params, twice.params) == (81, 81)
    assert (once.macs, twice.macs) == (64 * 81, 2 * 64 * 81)


def test_members_with_equal_names_are_all_counted():
    def member(name):
        return keras.Sequential([keras.Input((4,)), L.Dense(3, name="same")], name=name)

    x = keras.Input((4,))
    both = keras.Model(x, L.Add()([member("a")(x), member("b")(x)]))
    assert sum(operator.params for operator in keras_operators(both)) == 2 * 15
    assert edgeml.cost(both).params == 2 * 15


def test_an_activation_joins_only_an_operator_that_nobody_else_reads():
    x = keras.Input((4,))
    y = L.Dense(3, name="d")(x)
    z = L.ReLU(name="r")(y)
    alone = {o.name: o.activation for o in keras_operators(keras.Model(x, z))}
    read_twice = {o.name: o.activation for o in keras_operators(keras.Model(x, L.Add(name="a")([y, z])))}
    assert alone == {x.name: "linear", "d": "relu"}
    assert read_twice == {x.name: "linear", "d": "linear", "r": "relu", "a": "linear"}


def test_an_unknown_layer_is_an_error_and_no_zero():
    with pytest.raises(TargetError, match=r"layer 'recur' \(LSTM\): its cost is not known; .*Conv2D"):
        edgeml.cost(keras.Sequential([keras.Input((8, 3)), L.LSTM(4, name="recur")]))


def test_as_if_trained_gives_back_the_statistics_that_were_there():
    model = model_of(L.Conv2D(4, 3), L.BatchNormalization(), L.BatchNormalization(trainable=False))
    model.layers[1].moving_mean.assign([1.0, 2.0, 3.0, 4.0])
    with as_if_trained(model):
        assert np.all(np.array(model.layers[2].moving_mean) == 1)
    np.testing.assert_array_equal(model.layers[1].moving_mean, [1, 2, 3, 4])
    np.testing.assert_array_equal(model.layers[2].moving_mean, [0, 0, 0, 0])


def test_cost_leaves_the_model_as_it_was():
    model = model_of(L.Conv2D(4, 3, use_bias=False), L.BatchNormalization(), L.ReLU())
    before = [np.array(weight) for weight in model.weights]
    edgeml.cost(model)
    for old, new in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, new)
