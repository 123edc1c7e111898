"""Models that others saved: what loads computes the same, what does not says why in one line, and nothing is run."""

import json
import textwrap
import zipfile

import keras
import numpy as np
import pytest

from edgeml import foreign, foreign_child
from edgeml.errors import DataError, EdgemlError, IntegrityError, UsageError

pytestmark = pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
L = keras.layers
X = np.random.default_rng(0).uniform(0, 1, (3, 8, 8, 2)).astype("float32")


def model():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((8, 8, 2), name="image")
    x = L.ReLU()(L.BatchNormalization()(L.SeparableConv2D(4, 3)(inputs)))
    return keras.Model(inputs, L.Dense(3, "softmax")(L.GlobalAveragePooling2D()(x)))


@keras.saving.register_keras_serializable("somebody")
class Twice(L.Layer):
    def call(self, x):
        return 2.0 * x


@keras.saving.register_keras_serializable("somebody")
def halved(x):
    return x / 2.0


def custom():
    inputs = keras.Input((8, 8, 2))
    return keras.Model(inputs, Twice()(inputs))


def of_keras_2(*names):
    """A model that tf_keras builds: a depthwise convolution, whose config has ``groups``, and layers of these names."""
    import tf_keras

    tf_keras.utils.set_random_seed(1)
    inputs = tf_keras.Input((8, 8, 2), name="image")
    x = tf_keras.layers.DepthwiseConv2D(3, name=names[0])(inputs)
    x = tf_keras.layers.BatchNormalization(name=names[1])(x)
    x = tf_keras.layers.Flatten()(tf_keras.layers.Conv2D(4, 3, activation="relu", name=names[2])(x))
    return tf_keras.Model(inputs, tf_keras.layers.Dense(3, activation="softmax")(x))


def same(one, other):
    want, have = (np.asarray(m.predict(X, verbose=0)) for m in (one, other))
    np.testing.assert_allclose(have, want, atol=1e-6)


def refused(path, kind, match, known=None):
    with pytest.raises(EdgemlError, match=match) as raised:
        foreign_child.opened(path, known or {})
    assert type(raised.value) is kind
    assert str(raised.value).startswith(str(path))
    assert "\n" not in str(raised.value)


# ---- what loads


@pytest.mark.parametrize("name", ["m.keras", "m.h5", "m.hdf5"])
def test_files_of_keras_3(name, tmp_path):
    given = model()
    if name.endswith(".hdf5"):
        given.save(tmp_path / "m.h5")
        (tmp_path / "m.h5").rename(tmp_path / name)
    else:
        given.save(tmp_path / name)
    same(given, foreign_child.opened(tmp_path / name, {}))


@pytest.mark.parametrize("names", [("a", "b", "c"), ("first/dw", "first/bn", "second/conv")])
@pytest.mark.parametrize("name", ["m.h5", "folder"])
def test_models_of_keras_2_compute_what_they_did(name, names, tmp_path):
    given = of_keras_2(*names)
    given.save(tmp_path / name)
    loaded = foreign_child.opened(tmp_path / name, {})
    same(given, loaded)
    assert [layer.name for layer in loaded.layers[1:4]] == [name.replace("/", "_") for name in names]


def test_a_twin_that_computes_something_else_is_refused(tmp_path):
    old, new = of_keras_2("a", "b", "c"), model()
    with pytest.raises(DataError, match="computes something else"):
        foreign_child._check_twin(tmp_path, old, new)


def test_the_users_own_layers_are_taken_when_given(tmp_path):
    for name in ("m.keras", "m.h5"):
        custom().save(tmp_path / name)
        loaded = foreign_child.opened(tmp_path / name, {"Twice": Twice})
        np.testing.assert_array_equal(loaded.predict(X, verbose=0), 2 * X)


@pytest.mark.parametrize("name", ["m.keras", "m.h5"])
def test_a_lambda_layer_that_names_a_known_function_is_no_code(name, tmp_path):
    inputs = keras.Input((8, 8, 2))
    keras.Model(inputs, L.Lambda(halved)(inputs)).save(tmp_path / name)
    np.testing.assert_array_equal(foreign_child.opened(tmp_path / name, {}).predict(X, verbose=0), X / 2)


# ---- what does not


@pytest.mark.parametrize("name", ["m.keras", "m.h5"])
def test_python_code_is_not_run(name, tmp_path):
    inputs = keras.Input((4,))
    keras.Model(inputs, L.Lambda(lambda x: x + 1, name="evil")(inputs)).save(tmp_path / name)
    refused(tmp_path / name, IntegrityError, r"holds Python code \(Lambda layer 'evil'\), which is not run")


def test_python_code_of_keras_2_is_not_run(tmp_path):
    import tf_keras

    given = tf_keras.Sequential([tf_keras.Input((4,)), tf_keras.layers.Lambda(lambda x: x + 1, name="evil")])
    given.save(tmp_path / "m.h5")
    given.save(tmp_path / "folder")
    refused(tmp_path / "m.h5", IntegrityError, "holds Python code .*'evil'")
    refused(tmp_path / "folder", IntegrityError, "holds Python code")


@pytest.mark.parametrize("name", ["m.weights.h5", "weights.h5"])
def test_weights_alone_are_no_model(name, tmp_path):
    given = model()
    if name == "m.weights.h5":
        given.save_weights(tmp_path / name)
    else:
        of_keras_2("a", "b", "c").save_weights(tmp_path / name)
    refused(tmp_path / name, DataError, r"holds weights only, no architecture. Build .* model\.load_weights")


@pytest.mark.parametrize("name", ["m.keras", "m.h5"])
def test_a_layer_that_is_not_known_is_named(name, tmp_path):
    custom().save(tmp_path / name)
    objects = keras.saving.get_custom_objects()
    kept = dict(objects)
    objects.clear()
    try:
        refused(tmp_path / name, DataError, "'Twice' is not known here. .* --custom-objects module:Twice")
    finally:
        objects.update(kept)


def test_bare_operations_of_keras_2_are_named(tmp_path):
    import tensorflow as tf
    import tf_keras

    inputs = tf_keras.Input((4,))
    tf_keras.Model(inputs, tf.math.sin(inputs)).save(tmp_path / "m.h5")
    refused(tmp_path / "m.h5", DataError, "'TFOpLambda' is a bare TensorFlow operation of Keras 2")


def test_a_saved_model_that_is_not_keras(tmp_path):
    import tensorflow as tf

    class Module(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((1, 4))])
        def __call__(self, x):
            return x + 1

    tf.saved_model.save(Module(), str(tmp_path / "folder"))
    refused(tmp_path / "folder", DataError, "SavedModel without a Keras model in it")


def test_a_description_that_would_fill_the_memory(tmp_path):
    with zipfile.ZipFile(tmp_path / "m.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", b" " * (foreign_child.MOST_TEXT_MB * 2**20 + 1))
    assert (tmp_path / "m.keras").stat().st_size < 10**6
    refused(tmp_path / "m.keras", IntegrityError, "unpacks to 64 MiB, 64 of them architecture")


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04junk", b"\x89HDF\r\n\x1a\njunk"])
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_file_that_is_no_model(content, suffix, tmp_path):
    (tmp_path / f"m{suffix}").write_bytes(content)
    refused(tmp_path / f"m{suffix}", DataError, "not a Keras model: ")


@pytest.mark.parametrize("config", ["[]", "{}", '{"class_name": "Functional", "config": {}}', '{"config": null}', "3"])
def test_a_description_of_nothing(config, tmp_path):
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        archive.writestr("config.json", config)
        archive.writestr("metadata.json", json.dumps({"keras_version": keras.__version__, "date_saved": ""}))
    refused(tmp_path / "m.keras", DataError, ": ")


# ---- the child and its parent


def test_paths_are_looked_at_first(tmp_path):
    (tmp_path / "m.pt").write_bytes(b"x")
    (tmp_path / "d").mkdir()
    for name, match in (("missing.h5", "no such file"), ("m.pt", "'.pt' is not read; .keras, .h5"), ("d", "no model")):
        with pytest.raises(DataError, match=match):
            foreign.load(tmp_path / name)


def test_a_childs_error_is_its_parents(tmp_path):
    (tmp_path / "m.h5").write_bytes(b"junk")
    with pytest.raises(DataError, match=r"m\.h5: not a Keras model"):
        foreign.load(tmp_path / "m.h5")


OWN = """
import keras, os, sys

if os.environ.get("DIES") and "foreign_child" in " ".join(sys.orig_argv):
    os._exit(3)

@keras.saving.register_keras_serializable("mine")
class Thrice(keras.layers.Layer):
    def call(self, x):
        return 3.0 * x
"""


def test_custom_objects_come_from_the_users_modules(tmp_path, monkeypatch):
    (tmp_path / "mine_own.py").write_text(textwrap.dedent(OWN))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    import mine_own

    inputs = keras.Input((8, 8, 2))
    keras.Model(inputs, mine_own.Thrice()(inputs)).save("m.keras")
    loaded = foreign.load(tmp_path / "m.keras", ["mine_own:Thrice"])
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), 3 * X)
    with pytest.raises(UsageError, match=r"--custom-objects mine_own:Fourth: AttributeError: .* 'module:name'"):
        foreign.imported(["mine_own:Fourth"])
    with pytest.raises(UsageError, match="--custom-objects nowhere: ModuleNotFoundError"):
        foreign.imported(["nowhere"])
    monkeypatch.setenv("DIES", "1")
    with pytest.raises(DataError, match=r"the process that opened it died \(3\): "):
        foreign.load(tmp_path / "m.keras", ["mine_own:Thrice"])


@pytest.mark.parametrize(("limit", "match"), [("MOST_SECONDS", "0 seconds"), ("MOST_MEMORY_MB", "MiB of memory")])
def test_limits(limit, match, tmp_path, monkeypatch):
    model().save(tmp_path / "m.keras")
    monkeypatch.setattr(foreign, limit, 0)
    with pytest.raises(IntegrityError, match=match):
        foreign.load(tmp_path / "m.keras")
    monkeypatch.setattr(foreign, "MOST_FILE_MB", 0)
    with pytest.raises(IntegrityError, match="0 are allowed"):
        foreign.load(tmp_path / "m.keras")


@pytest.mark.slow
def test_a_public_saved_model_of_mlperf_tiny(shared_data):
    path = shared_data / "models" / "mlcommons_tiny" / "keyword_spotting" / "kws_ref_model"
    loaded = foreign.load(path)
    assert (loaded.input_shape, loaded.output_shape) == ((None, 49, 10, 1), (None, 12))
    assert loaded.count_params() == 24_908
