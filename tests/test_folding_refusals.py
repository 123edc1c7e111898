"""What folding leaves to others: training mode, foreign classes, integers and half precision, wrappers, no graph."""

import keras
import numpy as np
import pytest
import test_folding_oracle as oracle
from test_folding_oracle import L, bn, chain, check, randomise, range_error, samples

from edgeml.errors import UsageError
from edgeml.folding import fold_batch_norm

float64, floatx = oracle.float64, oracle.floatx  # fixtures
IMAGE = (8, 8, 3)


def test_training_mode_is_left(float64):
    x = keras.Input(IMAGE)
    model = keras.Model(x, bn()(L.Conv2D(4, 3)(x), training=True))
    assert fold_batch_norm(model).kept == (("bn", "'bn' is called with training=True"),)


class LoudConv(L.Conv2D):
    """Overrides what it computes."""

    def call(self, inputs):
        return 2 * super().call(inputs)


class QuietConv(L.Conv2D):
    """Drops an argument, as loaders of old files do; computes what Conv2D computes."""

    def __init__(self, *args, groups=1, **kwargs):
        super().__init__(*args, **kwargs)


class Standardized(L.Conv2D):
    """Overrides how the kernel meets the input."""

    def convolution_op(self, inputs, kernel):
        return super().convolution_op(inputs, kernel - keras.ops.mean(kernel))


class HalfNorm(L.BatchNormalization):
    """Overrides what it computes."""

    def call(self, inputs, training=None, mask=None):
        return super().call(inputs, training=training, mask=mask) / 2


@pytest.mark.parametrize("cls", [LoudConv, Standardized])
def test_subclasses_that_compute_something_else_are_left(cls, float64):
    check(randomise(chain(IMAGE, cls(4, 3), bn())), [], {"bn": f"({cls.__name__})"})


def test_a_subclass_of_batch_norm_that_computes_something_else_is_named(float64):
    model = randomise(chain(IMAGE, L.Conv2D(4, 3), HalfNorm(name="half")))
    check(model, [], {"half": "HalfNorm overrides"})


def test_subclasses_that_only_change_the_constructor_fold_and_are_needed_no_more(float64, tmp_path):
    model = randomise(chain(IMAGE, QuietConv(4, 3), bn()))
    result = check(model, ["bn"])
    result.model.save(tmp_path / "m.keras")
    assert range_error(model, keras.saving.load_model(tmp_path / "m.keras"), samples(model)) <= 1e-12


def test_a_batch_norm_inside_a_wrapper_is_named(float64):
    inner = keras.Sequential([keras.Input((6,)), L.Dense(4), bn("hidden")])
    model = randomise(chain((3, 6), L.TimeDistributed(inner, name="steps")))
    check(model, [], {"hidden": "inside 'steps' (TimeDistributed)"})


def test_integers_are_left(floatx):
    x = keras.Input(IMAGE, dtype="uint8")
    model = keras.Model(x, L.Conv2D(4, 3)(L.Rescaling(1 / 255, name="scale")(x)))
    check(model, [], {"scale": f"'scale' turns uint8 into {floatx}"})


def test_half_precision_is_left():
    with oracle.precision("float32"):
        keras.config.set_dtype_policy("mixed_float16")
        model = randomise(chain(IMAGE, L.Conv2D(4, 3), bn()))
        assert fold_batch_norm(model).kept == (("bn", "'bn' computes in float16"),)


def test_lora_is_left():
    with oracle.precision("float32"):
        dense = L.Dense(4, name="d")
        model = randomise(chain((6,), dense, bn()))
        dense.enable_lora(2)
        dense.lora_kernel_b.assign(np.ones((2, 4)))
        check(model, [], {"bn": "'d' is quantized or has LoRA weights"})


def test_masks_pass_by(float64):
    x = keras.Input((7,), dtype="int32")
    embedded = L.Embedding(9, 4, mask_zero=True)(x)
    model = keras.Model(x, L.LSTM(3)(bn("b")(L.Dense(4)(bn("a")(embedded)))))
    check(randomise(model), ["a", "b"])


def test_lambdas_operations_and_foreign_layers_come_along(float64):
    x = keras.Input(IMAGE)
    y = bn()(L.Conv2D(4, 3)(x))
    y = L.Lambda(lambda t: t * 2)(keras.ops.sigmoid(y) + 1)
    y = L.MultiHeadAttention(2, 3)(*[L.Reshape((-1, 4))(y)] * 2)
    check(randomise(keras.Model(x, L.LayerNormalization()(y))), ["bn"])


def test_a_compiled_model_folds_uncompiled(float64):
    model = randomise(chain(IMAGE, L.Conv2D(4, 3), bn()))
    model.compile("adam", loss=lambda y, p: keras.ops.mean(y - p))
    check(model, ["bn"])


def test_regularizers_and_constraints_of_changed_layers_go(float64):
    conv = L.Conv2D(4, 3, kernel_regularizer="l2", kernel_constraint="unit_norm", bias_constraint="non_neg")
    clone = check(randomise(chain(IMAGE, conv, bn())), ["bn"]).model
    assert clone.layers[1].kernel_regularizer is None
    assert clone.layers[1].bias_constraint is None
    assert clone.losses == []


class Custom(keras.Model):
    """A subclassed model."""

    def call(self, x):
        return x


class Functional(keras.Model):
    """A subclass with a train step of its own, built from a graph."""

    def train_step(self, data):
        return {}


def test_a_subclass_around_a_graph_folds(float64):
    x = keras.Input(IMAGE)
    check(randomise(Functional(x, bn()(L.Conv2D(3, 3)(x)))), ["bn"])


@pytest.mark.parametrize("model", [Custom, lambda: keras.Sequential([L.Dense(3)])])
def test_a_model_without_a_graph_is_refused(model):
    with pytest.raises(UsageError, match=r"has no layer graph; Functional and built Sequential models fold\. Build it"):
        fold_batch_norm(model())


class NoConfig(L.Layer):
    """Has weights and needs an argument its config lacks."""

    def __init__(self, size):
        super().__init__()
        self.kernel = self.add_weight(shape=(size,), name="kernel")

    def call(self, inputs):
        return inputs * self.kernel

    def get_config(self):
        return {}


def test_a_layer_with_weights_that_cannot_be_cloned_is_refused(float64):
    with pytest.raises(UsageError, match=r"NoConfig cannot be cloned .* Give it get_config and from_config\.$"):
        fold_batch_norm(chain((4,), NoConfig(4)))
