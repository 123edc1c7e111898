"""Folding in models as people build them: nested, shared, siamese, with names, masks, wrappers and foreign classes."""

import keras
import pytest
import test_folding_oracle as oracle
from test_folding_oracle import L, bn, chain, check, randomise, range_error, samples

from edgeml.folding import fold_batch_norm

float64, floatx = oracle.float64, oracle.floatx  # fixtures
IMAGE = (8, 8, 3)


def tower(name="tower", *tail):
    return keras.Sequential(
        [keras.Input(IMAGE), L.Conv2D(4, 3, use_bias=False), bn("inner"), L.ReLU(), *tail], name=name
    )


# ---- nested


def test_nested_models_stay_nested_and_fold_across_their_border(floatx):
    x = keras.Input(IMAGE, name="x")
    inner = keras.Sequential(
        [keras.Input(IMAGE), L.Conv2D(4, 3, name="conv"), L.Dropout(0.1, name="dropout")], name="stem"
    )
    norm = keras.Sequential([keras.Input((6, 6, 4)), bn()], name="norm")
    result = check(randomise(keras.Model(x, L.ReLU()(norm(inner(x))))), ["bn"])
    assert [layer.name for layer in result.model.layers[:2]] == ["x", "stem"]  # 'norm' had nothing left
    assert [layer.name for layer in result.model.get_layer("stem").layers] == ["conv", "dropout"]


def test_nested_functional_with_two_inputs_and_two_outputs(floatx):
    a, b = keras.Input((5,), name="a"), keras.Input((5,), name="b")
    inner = keras.Model([a, b], [L.Dense(4)(a), L.Dense(4)(L.Add()([a, b]))], name="inner")
    x = keras.Input((5,), name="x")
    left, right = inner([bn("before")(x), x])
    model = keras.Model(x, L.Concatenate()([bn("left")(left), right]))
    check(randomise(model), ["left"], {"before": "no map passes through"})


def test_three_levels(float64):
    block = keras.Sequential([tower("a"), tower_like("b"), bn("outer")], name="block")
    model = keras.Sequential(
        [keras.Input(IMAGE), L.Rescaling(1 / 255, name="scale"), block, L.GlobalAveragePooling2D()]
    )
    check(randomise(model), ["inner", "inner_b", "outer", "scale"])


def tower_like(name):
    layers = [keras.Input((6, 6, 4)), L.DepthwiseConv2D(3, use_bias=False), bn(f"inner_{name}"), L.Conv2D(2, 1)]
    return keras.Sequential(layers, name=name)


def test_nested_models_keep_the_order_of_dict_inputs(float64):
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    inner = keras.Model({"b": b, "a": a}, L.Concatenate()([L.Dense(2)(a), L.Dense(3)(b)]))
    x, y = keras.Input((3,), name="x"), keras.Input((3,), name="y")
    model = keras.Model([x, y], inner({"a": bn("na")(x), "b": bn("nb")(y)}))
    check(randomise(model), ["na", "nb"])


def test_training_mode_reaches_into_nested_models(float64):
    x = keras.Input(IMAGE)
    model = keras.Model(x, tower()(x, training=True))
    assert dict(fold_batch_norm(model).kept) == {"inner": "'inner' is called with training=True"}
    model = keras.Model(x, tower()(x, training=False))
    check(randomise(model), ["inner"])


# ---- shared


def test_siamese_towers_fold_inside_and_stay_shared(floatx):
    result = check(randomise(siamese(tower("tower", L.Flatten(), L.Dense(5)))), ["inner"])
    assert len(result.model.get_layer("tower").weights) == 4


def test_no_fold_crosses_the_border_of_a_shared_tower(float64):
    a, b = keras.Input(IMAGE), keras.Input(IMAGE)
    both = keras.Sequential([keras.Input(IMAGE), bn("first"), L.Conv2D(4, 3, name="last")], name="tower")
    model = keras.Model([a, b], L.Add()([bn("after")(both(L.Rescaling(0.5, name="before")(a))), both(b)]))
    result = check(randomise(model), ["first"], ["after", "before"])
    assert "'tower' (Sequential)" in dict(result.kept)["before"]


def test_shared_layers_are_left(float64):
    x, conv, norm = keras.Input(IMAGE), L.Conv2D(3, 3, padding="same", name="c"), bn("shared")
    check(randomise(keras.Model(x, bn()(conv(conv(x))))), [], {"bn": "'c' is used in 2 places"})
    model = keras.Model(x, norm(L.Conv2D(3, 3)(norm(L.Conv2D(3, 3)(x)))))
    check(randomise(model), [], {"shared": "'shared' is used in 2 places"})


def test_calls_in_other_models_do_not_count(float64):
    x = keras.Input(IMAGE)
    y = L.ReLU()(bn()(L.Conv2D(4, 3)(x)))
    keras.Model(x, L.Flatten()(y))
    extractor = keras.Model(x, y)
    keras.Sequential([extractor, L.Flatten()])
    check(randomise(extractor), ["bn"])


def test_a_layer_also_used_inside_a_wrapper_is_shared(float64):
    conv = L.Conv2D(3, 3, padding="same")
    inside = keras.Input((2, *IMAGE))
    wrapped = L.TimeDistributed(conv)(inside)
    x = keras.Input(IMAGE)
    model = keras.Model([inside, x], [wrapped, bn()(conv(x))])
    assert "is used in 2 places" in dict(fold_batch_norm(randomise(model)).kept)["bn"]


def test_a_stateless_layer_may_be_shared(float64):
    x, pool = keras.Input((16, 16, 3)), L.AveragePooling2D(2)
    check(randomise(keras.Model(x, bn("b")(pool(L.Conv2D(3, 3)(bn("a")(pool(x))))))), ["a", "b"])


# ---- outputs and names


def test_a_tensor_with_another_reader_is_left(float64):
    x = keras.Input(IMAGE)
    conv = L.Conv2D(4, 3, name="c")(x)
    model = keras.Model(x, [bn()(conv), conv])
    check(randomise(model), [], {"bn": "the output of 'c' is also used elsewhere; forward: its value is an output"})


def test_output_names_survive(float64):
    x = keras.Input(IMAGE, name="picture")
    a = bn("probabilities")(L.Dense(4, name="logits")(L.Flatten()(x)))
    nested = keras.Sequential([keras.Input((4,)), bn("only")], name="scaled")
    b = nested(L.Dropout(0.5)(L.Dense(4)(a)))
    model = keras.Model({"picture": x}, {"first": bn("p")(L.Dense(3)(a)), "second": b})
    result = check(randomise(model), ["only", "p", "probabilities"])
    assert set(result.model.output) == {"first", "second"}
    assert [layer.name for layer in result.model.layers][-1] == "scaled"


def test_an_output_of_a_nested_model_that_ends_in_batch_norm_keeps_its_name(float64):
    x = keras.Input(IMAGE)
    inner = keras.Sequential([keras.Input(IMAGE), L.Conv2D(4, 3)], name="inner_model")
    check(randomise(keras.Model(x, bn("named")(inner(x)))), ["named"])


def test_a_map_that_stays_keeps_its_own_name_at_an_output(float64):
    result = check(randomise(chain(IMAGE, L.ReLU(), bn("stays"), bn("last"))), ["last"], ["stays"])
    assert [layer.name for layer in result.model.layers][-2:] == ["stays", "last"]


def test_a_shared_normalization_becomes_an_exact_rescaling(float64):
    x, norm = keras.Input((5,)), L.Normalization(mean=[0.1, 0.2, 0.3, 0.4, 0.7], variance=[0.3] * 5, name="n")
    model = keras.Model(x, norm(L.ReLU()(norm(x))))
    result = check(model, [], {"n": "'n' is used in 2 places"})
    assert isinstance(result.model.get_layer("n"), L.Rescaling)


def test_a_sequential_stays_one_and_saves(float64, tmp_path):
    model = keras.Sequential(
        [keras.Input(IMAGE), L.Conv2D(4, 3), bn("a"), L.ReLU(), L.SeparableConv2D(3, 3), bn("end")]
    )
    result = check(randomise(model), ["a", "end"])
    assert type(result.model) is keras.Sequential
    assert [layer.name for layer in result.model.layers][-1] == "end"


def siamese(both):
    a, b = keras.Input(IMAGE, name="a"), keras.Input(IMAGE, name="b")
    return keras.Model({"a": a, "b": b}, L.Subtract()([both(a), both(b)]))


@pytest.mark.parametrize("case", ["sequential", "siamese", "leftover", "normalization", "dicts"])
def test_the_folded_model_saves_and_loads(case, floatx, tmp_path):
    a, b = keras.Input(IMAGE, name="a"), keras.Input(IMAGE, name="b")
    build = {
        "sequential": lambda: tower("t", L.Flatten(), L.Dense(3), bn()),
        "siamese": lambda: siamese(tower()),
        "leftover": lambda: chain(IMAGE, L.ReLU(), bn("first"), bn("second"), L.ReLU()),
        "normalization": lambda: chain(
            IMAGE, L.ReLU(), L.Normalization(mean=[1, 2, 3], variance=[0.1, 2, 3]), L.ReLU()
        ),
        "dicts": lambda: keras.Model({"a": a, "b": b}, {"s": bn("n")(L.Add()([L.Conv2D(2, 3)(a), L.Conv2D(2, 3)(b)]))}),
    }
    model = randomise(build[case]())
    folded = fold_batch_norm(model).model
    folded.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert range_error(folded, loaded, samples(model)) == 0
    assert range_error(model, loaded, samples(model)) <= oracle.TOLERANCE[floatx]
