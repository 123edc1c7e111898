"""Every rule of folding on the smallest graph that shows it: both directions, and each refusal with its reason."""

import keras
import numpy as np
import pytest
import test_folding_oracle as oracle
from test_folding_oracle import L, bn, chain, check, randomise

float64, floatx = oracle.float64, oracle.floatx  # fixtures

IMAGE, SERIES, VOLUME = (8, 8, 3), (9, 3), (5, 5, 5, 2)

BACKWARD = {
    "conv1d": (SERIES, L.Conv1D, (4, 3)),
    "conv1d causal": (SERIES, L.Conv1D, (4, 3), {"padding": "causal", "dilation_rate": 2}),
    "conv2d": (IMAGE, L.Conv2D, (4, 3)),
    "conv2d without bias": (IMAGE, L.Conv2D, (4, 3), {"use_bias": False}),
    "conv2d same strided": (IMAGE, L.Conv2D, (4, 3), {"padding": "same", "strides": 2}),
    "conv2d grouped": ((8, 8, 4), L.Conv2D, (6, 3), {"groups": 2}),
    "conv3d": (VOLUME, L.Conv3D, (3, 2)),
    "conv1d transposed": (SERIES, L.Conv1DTranspose, (4, 3), {"strides": 2}),
    "conv2d transposed": (IMAGE, L.Conv2DTranspose, (4, 3), {"strides": 2, "padding": "same"}),
    "conv3d transposed": (VOLUME, L.Conv3DTranspose, (3, 2), {"use_bias": False}),
    "depthwise 1d": (SERIES, L.DepthwiseConv1D, (3,), {"depth_multiplier": 2}),
    "depthwise 2d": (IMAGE, L.DepthwiseConv2D, (3,), {"use_bias": False}),
    "depthwise 2d multiplier": (IMAGE, L.DepthwiseConv2D, (3,), {"depth_multiplier": 3}),
    "separable 1d": (SERIES, L.SeparableConv1D, (4, 3), {"depth_multiplier": 2}),
    "separable 2d": (IMAGE, L.SeparableConv2D, (4, 3), {"depth_multiplier": 2, "use_bias": False}),
    "dense": ((7,), L.Dense, (4,)),
    "dense on images": (IMAGE, L.Dense, (4,), {"use_bias": False}),
}


@pytest.mark.parametrize("case", BACKWARD)
def test_backward_into(case, floatx):
    shape, cls, args, kwargs = (*BACKWARD[case], {})[:4]
    result = check(randomise(chain(shape, cls(*args, **kwargs, name="carrier"), bn())), ["bn"])
    assert [type(layer) for layer in result.model.layers] == [L.InputLayer, cls]


@pytest.mark.parametrize("axis", [1, 2, 3, -1])
@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize("center", [False, True])
def test_batch_norm_on_any_axis(axis, scale, center, float64):
    norm = bn(axis=axis, scale=scale, center=center)
    model = randomise(chain((5, 6, 3), L.Conv2D(4, 1), norm))
    channels = axis in (3, -1)
    check(model, ["bn"] if channels else [], {} if channels else {"bn": "not the channel axis"})


def test_batch_norm_with_renorm_folds_like_any_other(float64):
    check(randomise(chain(IMAGE, L.Conv2D(4, 3), bn(renorm=True))), ["bn"])


PASSES = {
    "dropout": (IMAGE, lambda: L.Dropout(0.5)),
    "spatial dropout": (IMAGE, lambda: L.SpatialDropout2D(0.5)),
    "noise": (IMAGE, lambda: L.GaussianNoise(0.5)),
    "identity": (IMAGE, L.Identity),
    "linear activation": (IMAGE, lambda: L.Activation("linear")),
    "average pooling": (IMAGE, lambda: L.AveragePooling2D(3)),
    "average pooling same": (IMAGE, lambda: L.AveragePooling2D(3, 2, padding="same")),
    "adaptive average pooling": (IMAGE, lambda: L.AdaptiveAveragePooling2D(3)),
    "global average pooling": (IMAGE, L.GlobalAveragePooling2D),
    "global average pooling, dims kept": (IMAGE, lambda: L.GlobalAveragePooling2D(keepdims=True)),
    "cropping": (IMAGE, lambda: L.Cropping2D(1)),
    "upsampling": (IMAGE, lambda: L.UpSampling2D(2)),
    "upsampling bilinear": (IMAGE, lambda: L.UpSampling2D(2, interpolation="bilinear")),
    "reshape": (IMAGE, lambda: L.Reshape((-1, 4))),
    "permute": (SERIES, lambda: L.Permute((1, 2))),
    "permute axes": (IMAGE, lambda: L.Permute((2, 1, 3))),
    "repeat": ((5,), lambda: L.RepeatVector(3)),
}

LOOSE = {"upsampling bilinear": 1e-6}  # TensorFlow resizes in float32, whatever the model's precision


def _carrier(shape):
    return {1: lambda: L.Dense(4), 2: lambda: L.Conv1D(4, 2), 3: lambda: L.Conv2D(4, 2)}[len(shape)]()


@pytest.mark.parametrize("case", PASSES)
def test_through_backward(case, float64):
    shape, layer = PASSES[case]
    check(randomise(chain(shape, _carrier(shape), layer(), bn())), ["bn"], tolerance=LOOSE.get(case))


@pytest.mark.parametrize("case", PASSES)
def test_through_forward(case, float64):
    shape, layer = PASSES[case]
    behind = chain((*shape[:-1], 4), bn(), layer())  # four channels, as the reshape has it
    carrier = L.Dense(4) if "global" in case else _carrier(behind.output_shape[1:])
    model = keras.Model(behind.input, carrier(behind.output))
    check(randomise(model), ["bn"], tolerance=LOOSE.get(case))


def test_dense_reshape_batch_norm_becomes_one_scale_per_unit(float64):
    check(randomise(chain((5,), L.Dense(4 * 4 * 3), L.Reshape((4, 4, 3)), bn())), ["bn"])


def test_batch_norm_flatten_dense_becomes_one_scale_per_row(float64):
    check(randomise(chain(IMAGE, bn(), L.Flatten(), L.Dense(4))), ["bn"])


def test_conv_flatten_batch_norm_has_a_scale_per_position(float64):
    check(randomise(chain(IMAGE, L.Conv2D(4, 3), L.Flatten(), bn())), [], {"bn": "not the channel axis"})


def test_permuted_channels_need_the_inverse_order(float64):
    model = chain((5, 6, 3), L.Conv2D(4, 2), L.Permute((3, 1, 2)), bn(axis=1), L.Permute((2, 3, 1)))
    check(randomise(model), ["bn"])
    model = chain((5, 6, 3), bn(axis=1), L.Permute((2, 3, 1)), L.Conv2D(4, 2))
    check(randomise(model), ["bn"])


@pytest.mark.parametrize("pool", [L.MaxPooling2D, L.GlobalMaxPooling2D])
def test_max_pooling_only_with_positive_scales(pool, float64):
    check(randomise(chain(IMAGE, L.Conv2D(4, 3), pool(), bn()), positive=True), ["bn"])
    check(randomise(chain(IMAGE, L.Conv2D(4, 3), pool(), bn())), [], {"bn": "negative scale"})
    check(randomise(chain(IMAGE, bn(), L.MaxPooling2D(), L.Conv2D(4, 3)), positive=True), ["bn"])
    check(randomise(chain(IMAGE, bn(), L.MaxPooling2D(), L.Conv2D(4, 3))), [], {"bn": "negative scale"})


def test_zero_padding_only_without_a_shift(float64):
    scale = L.Rescaling([0.5, -2.0, 3.0], name="scale")
    check(chain(IMAGE, L.Conv2D(3, 3), L.ZeroPadding2D(2), scale, L.ReLU()), ["scale"])
    check(chain(IMAGE, L.Rescaling(0.5, name="scale"), L.ZeroPadding2D(2), L.Conv2D(3, 3)), ["scale"])
    check(randomise(chain(IMAGE, L.Conv2D(3, 3), L.ZeroPadding2D(2), bn())), [], {"bn": "pads with zeros"})
    check(randomise(chain(IMAGE, bn(), L.ZeroPadding2D(2), L.Conv2D(3, 3))), [], {"bn": "pads with zeros"})


@pytest.mark.parametrize(
    ("offset", "kwargs", "folds"),
    [
        (0.0, {"kernel_size": 3, "padding": "same"}, True),  # x / 255 in front of a padded stem
        (0.0, {"kernel_size": 3, "padding": "same", "strides": 2}, True),
        (-1.0, {"kernel_size": 3, "padding": "same"}, False),
        (-1.0, {"kernel_size": 3}, True),
        (-1.0, {"kernel_size": 1, "padding": "same"}, True),
        (-1.0, {"kernel_size": 1, "padding": "same", "strides": 3}, True),
        (-1.0, {"kernel_size": 2, "padding": "same", "strides": 2}, True),  # 8 = 4 x 2: nothing is padded in
        (-1.0, {"kernel_size": 2, "padding": "same", "strides": 3}, True),  # 3 · 2 + 2 = 8
        (-1.0, {"kernel_size": 3, "padding": "same", "strides": 3}, False),
    ],
)
@pytest.mark.parametrize("carrier", ["conv", "depthwise", "separable"])
def test_rescaling_into_a_stem(offset, kwargs, folds, carrier, floatx):
    if carrier == "conv":
        stem = L.Conv2D(4, **kwargs)
    else:
        stem = L.DepthwiseConv2D(**kwargs) if carrier == "depthwise" else L.SeparableConv2D(4, **kwargs)
    model = randomise(chain(IMAGE, L.Rescaling(1 / 127.5, offset, name="scale"), stem))
    check(model, ["scale"] if folds else [], {} if folds else {"scale": "pads with zeros"})


def test_unknown_sizes_count_as_padded(float64):
    stem = L.Conv2D(4, 2, padding="same", strides=2)
    check(chain((None, None, 3), L.Rescaling(0.5, 1.0, name="scale"), stem), [], {"scale": "pads with zeros"})


@pytest.mark.parametrize("causal", [1, 2])
def test_causal_padding_counts_as_padding(causal, float64):
    model = randomise(chain(SERIES, bn(), L.Conv1D(4, causal, padding="causal")))
    check(model, ["bn"] if causal == 1 else [], {} if causal == 1 else {"bn": "pads with zeros"})


FORWARD = {
    "grouped": ((8, 8, 4), L.Conv2D, (6, 3), {"groups": 2}),
    "depthwise multiplier": (IMAGE, L.DepthwiseConv2D, (3,), {"depth_multiplier": 2, "use_bias": False}),
    "separable": (IMAGE, L.SeparableConv2D, (4, 3), {"depth_multiplier": 2, "use_bias": False}),
    "separable 1d": (SERIES, L.SeparableConv1D, (4, 3), {"depth_multiplier": 2}),
    "depthwise 1d": (SERIES, L.DepthwiseConv1D, (3,)),
    "conv1d": (SERIES, L.Conv1D, (4, 3), {"dilation_rate": 2, "use_bias": False}),
    "conv3d": (VOLUME, L.Conv3D, (3, 2)),
    "dense": ((7,), L.Dense, (4,), {"use_bias": False, "activation": "relu"}),
    "dense on images": (IMAGE, L.Dense, (4,)),
}


@pytest.mark.parametrize("case", FORWARD)
def test_forward_into(case, floatx):
    shape, cls, args, kwargs = (*FORWARD[case], {})[:4]
    check(randomise(chain(shape, bn(), cls(*args, **kwargs))), ["bn"])


@pytest.mark.parametrize("cls", [L.Conv1DTranspose, L.Conv2DTranspose, L.Conv3DTranspose])
def test_forward_into_a_transposed_convolution_only_without_a_shift(cls, float64):
    shape = {L.Conv1DTranspose: SERIES, L.Conv2DTranspose: IMAGE, L.Conv3DTranspose: VOLUME}[cls]
    scale = L.Rescaling(np.linspace(0.5, 2, shape[-1]), name="scale")
    check(chain(shape, scale, cls(4, 3, strides=2)), ["scale"])
    check(randomise(chain(shape, bn(), cls(4, 3, strides=2))), [], {"bn": "transposed convolution"})


@pytest.mark.parametrize("invert", [False, True])
def test_normalization(invert, floatx):
    values = {"mean": [0.1, -2.0, 3.0], "variance": [0.5, 2.0, 0.0], "invert": invert}
    check(chain(IMAGE, L.Normalization(**values, name="n"), L.Conv2D(4, 3)), ["n"])
    check(chain(IMAGE, L.Conv2D(3, 3), L.Normalization(**values, name="n")), ["n"])


def test_a_normalization_that_stays_becomes_a_rescaling(floatx):
    values = {"mean": [0.1, -2.0, 3.0], "variance": [0.5, 2.0, 1.0]}
    model = chain(IMAGE, L.ReLU(), L.Normalization(**values, name="n"), L.ReLU())
    result = check(model, [], {"n": "is an activation"})
    assert isinstance(result.model.get_layer("n"), L.Rescaling)


def test_an_adapted_normalization_per_position(float64):
    layer = L.Normalization(axis=(1, 2), name="n")
    layer.adapt(np.random.default_rng(0).normal(3, 2, (64, 4, 3)))
    check(chain((4, 3), layer, L.Flatten(), L.Dense(5)), ["n"])
    check(chain((4, 3), layer, L.Conv1D(5, 2)), [], {"n": "not the channel axis"})


@pytest.mark.parametrize(
    ("merge", "folds"),
    [(L.Add, True), (L.Subtract, True), (L.Average, True), (L.Concatenate, True), (L.Multiply, False)],
)
def test_joins_backward(merge, folds, floatx):
    x = keras.Input(IMAGE)
    branches = [L.Conv2D(4, 3, use_bias=False)(x), L.Conv2D(4, 3)(x)]
    model = randomise(keras.Model(x, bn()(merge()(branches))))
    check(model, ["bn"] if folds else [], {} if folds else {"bn": "no map passes through"})


def test_a_join_is_all_or_nothing(float64):
    x = keras.Input(IMAGE)
    for merge in (L.Add(), L.Concatenate()):
        model = randomise(keras.Model(x, bn()(merge([L.Conv2D(4, 3)(x), L.Conv2D(4, 3, activation="relu")(x)]))))
        check(model, [], {"bn": "ends in an activation"})


def test_an_add_that_broadcasts_is_left(float64):
    x = keras.Input(IMAGE)
    wide = L.Conv2D(4, 3, padding="same")(x)
    narrow = L.Dense(4)(L.GlobalAveragePooling2D(keepdims=True)(x))
    check(randomise(keras.Model(x, bn()(L.Add()([wide, narrow])))), [], {"bn": "broadcasts"})


def test_a_concatenation_along_rows_shares_its_map(float64):
    x = keras.Input(IMAGE)
    rows = L.Concatenate(axis=1)([L.Conv2D(4, 3)(x), L.Conv2D(4, 3, padding="same", strides=(2, 1))(x)[:, :, :6]])
    check(randomise(keras.Model(x, bn()(rows))), [], {"bn": "no map passes through"})  # the slice is in the way
    rows = L.Concatenate(axis=1)([L.Conv2D(4, 3)(x), L.Conv2D(4, (5, 3))(x)])
    check(randomise(keras.Model(x, bn()(rows))), ["bn"])


def test_forward_through_a_concatenation_touches_its_own_channels_only(floatx):
    x = keras.Input(IMAGE)
    norm = bn()(x)
    joined = L.Concatenate()([L.ReLU()(x), norm, L.AveragePooling2D(1)(norm)])
    check(randomise(keras.Model(x, L.Conv2D(4, 3)(joined))), ["bn"])


def test_one_rescaling_into_all_its_readers(floatx):
    x = keras.Input(IMAGE)
    scaled = L.Rescaling(1 / 255, name="scale")(x)
    members = [
        keras.Sequential(
            [keras.Input(IMAGE), L.Conv2D(4, 3, padding="same", activation="relu"), L.Flatten(), L.Dense(3)]
        )
        for _ in range(2)
    ]
    heads = [member(scaled) for member in members] + [L.Dense(3)(L.GlobalAveragePooling2D()(scaled))]
    check(keras.Model(x, L.Average()(heads)), ["scale"])


def test_one_reader_that_refuses_keeps_the_map_for_all(float64):
    x = keras.Input(IMAGE)
    scaled = L.Rescaling(1 / 255, name="scale")(x)
    model = keras.Model(x, [L.Conv2D(4, 3)(scaled), L.ReLU()(scaled)])
    check(model, [], {"scale": "its value is an output of the model"})


def test_maps_merge_into_one_that_stays(floatx):
    model = chain(IMAGE, L.ReLU(), bn("first"), L.Dropout(0.5), bn("second"), L.ReLU())
    result = check(randomise(model), ["second"], ["first"])
    assert isinstance(result.model.get_layer("first"), L.BatchNormalization)
    model = chain(IMAGE, L.ReLU(), bn("first", scale=False, center=False), bn("second"), L.ReLU())
    check(randomise(model), ["second"], ["first"])
    model = chain(IMAGE, L.Rescaling(1 / 127.5, -1, name="scale"), bn(), L.Conv2D(4, 3, padding="same"))
    check(randomise(model), ["bn"], ["scale"])


def test_a_map_that_a_batch_norm_cannot_hold_is_not_merged_into_it(float64):
    model = chain((5, 6, 3), L.ReLU(), bn("first", axis=1), bn("second"), L.ReLU())
    check(randomise(model), [], ["first", "second"])


def test_an_activation_on_both_sides(float64):
    model = chain(IMAGE, L.Conv2D(4, 3, activation="relu", name="c"), bn(), L.ReLU(name="r"))
    reason = dict(check(randomise(model), [], ["bn"]).kept)["bn"]
    assert reason == "backward: 'c' ends in an activation; forward: 'r' is an activation"
