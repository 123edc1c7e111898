"""Folding in channels_first: the channel axis is 1; run through XLA, since TensorFlow's CPU kernels take NHWC only."""

import keras
import pytest
import test_folding_oracle as oracle
from test_folding_oracle import L, bn, chain, check, randomise

SHAPE = (3, 9, 8)
FIRST = {"data_format": "channels_first"}


@pytest.fixture(autouse=True)
def channels_first(monkeypatch):
    tf = pytest.importorskip("tensorflow", reason="the XLA door used here is TensorFlow's")
    if keras.config.backend() != "tensorflow":
        pytest.skip("the XLA door used here is TensorFlow's")

    def compiled(model, x):
        call = tf.function(lambda x: model(x, training=False), jit_compile=True)
        return [
            keras.ops.convert_to_numpy(y) for y in keras.tree.flatten(call(keras.tree.map_structure(tf.constant, x)))
        ]

    monkeypatch.setattr(oracle, "outputs", compiled)
    old = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    with oracle.precision("float64"):
        yield
    keras.config.set_image_data_format(old)


FOLDS = {
    "conv 1d": ((3, 9), lambda: [L.Conv1D(4, 3), bn(axis=1)]),
    "conv": (SHAPE, lambda: [L.Conv2D(4, 3), bn(axis=1)]),
    "conv 3d": ((2, 5, 6, 5), lambda: [L.Conv3D(3, 2), bn(axis=1)]),
    "depthwise": (SHAPE, lambda: [L.DepthwiseConv2D(3), bn(axis=1)]),
    "separable": (SHAPE, lambda: [L.SeparableConv2D(4, 3), bn(axis=1)]),
    "transposed": (SHAPE, lambda: [L.Conv2DTranspose(4, 3), bn(axis=1)]),
    "average pooling": (SHAPE, lambda: [L.Conv2D(4, 3), L.AveragePooling2D(2), bn(axis=1)]),
    "global pooling": (SHAPE, lambda: [L.Conv2D(4, 3), L.GlobalAveragePooling2D(), bn(axis=1)]),
    "cropping": (SHAPE, lambda: [L.Conv2D(4, 3), L.Cropping2D(1), L.UpSampling2D(2), bn(axis=1)]),
    "into conv": (SHAPE, lambda: [bn(axis=1), L.Conv2D(4, 3)]),
    "into padded conv": (SHAPE, lambda: [L.Rescaling(1 / 255, name="bn"), L.Conv2D(5, 3, padding="same", strides=2)]),
    "into conv without padding": (SHAPE, lambda: [bn(axis=1), L.Conv2D(5, 2, padding="same", strides=(3, 2))]),
    "into depthwise": (SHAPE, lambda: [bn(axis=1), L.DepthwiseConv2D(3)]),
    "into dense": (SHAPE, lambda: [bn(axis=1), L.Reshape((-1,)), L.Dense(4)]),
    "normalization": (SHAPE, lambda: [L.Normalization(1, [1, 2, 3], [1, 2, 3], name="bn"), L.Conv2D(4, 3)]),
    "rescaling per channel": (SHAPE, lambda: [L.Rescaling([1.0, 2.0, 3.0], name="bn"), L.Conv2D(4, 3)]),
}


@pytest.mark.parametrize("case", FOLDS)
def test_folds(case):
    shape, layers = FOLDS[case]
    check(randomise(chain(shape, *layers())), ["bn"])


def test_the_last_axis_is_not_the_channel_axis():
    check(randomise(chain(SHAPE, L.Conv2D(4, 3), bn(axis=-1))), [], {"bn": "not the channel axis"})


def test_max_pooling():
    check(randomise(chain(SHAPE, L.Conv2D(4, 3), L.MaxPooling2D(2), bn(axis=1)), positive=True), ["bn"])


def test_flatten_that_reorders_is_left():
    check(randomise(chain(SHAPE, bn(axis=1), L.Flatten(), L.Dense(4))), [], {"bn": "reorders a channels_first tensor"})


def test_a_normalization_that_stays_is_rescaled_where_rescaling_can_say_it():
    model = chain(SHAPE, L.ReLU(), L.Normalization(1, [-1, 0, -2], [1, 2, 3], name="n"), L.ReLU())
    assert isinstance(check(model, [], ["n"]).model.get_layer("n"), L.Rescaling)
    model = chain((3,), L.ReLU(), L.Normalization(1, [-1, 0, -2], [1, 2, 3], name="n"), L.ReLU())
    assert isinstance(check(model, [], ["n"]).model.get_layer("n"), L.Normalization)


def test_a_flat_normalization_that_stays_takes_nothing_in():
    model = chain((3,), L.ReLU(), L.Normalization(1, [-1, 0, -2], [1, 2, 3], name="n"), bn(), L.ReLU())
    check(randomise(model), ["n"], ["bn"])  # forward, since Rescaling could not hold the product
    model = chain((3,), L.ReLU(), bn(), L.Normalization(1, [-1, 0, -2], [1, 2, 3], name="n"), L.ReLU())
    check(randomise(model), ["n"], ["bn"])


def test_a_bias_as_long_as_a_row_is_left():
    # Keras 3.15.1 on TensorFlow adds a bias of 4 values to (N, 4, H, 4) along the last axis
    model = randomise(chain((3, 9, 6), L.Conv2D(4, 3), bn(axis=1)))
    check(model, [], {"bn": "its bias would go along the columns"})
    model = randomise(chain((3, 9, 6), L.Conv2D(4, 3, use_bias=False), bn(axis=1, center=False)))
    check(model, [], {"bn": "its bias would go along the columns"})
    check(chain((3, 9, 6), L.Rescaling(0.5, name="scale"), L.Conv2D(4, 3, use_bias=False)), ["scale"])
