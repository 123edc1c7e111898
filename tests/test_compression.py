"""Zeros and clusters are there, survive every later step and the int8 file; what tfmot leaves alone is named."""

import json
import os
import subprocess
import sys

import keras
import networks
import numpy as np
import pytest
import test_folding_oracle as oracle
import tf_keras
from test_space_exports import NAMES, as_trained, drawn, shades

from edgeml import compile_ensemble, compression, twin
from edgeml.compression import compress, fine_tuning, pruning, quantization_aware, request, toolkit
from edgeml.compression.records import Training, kernel_of
from edgeml.errors import DataError, UsageError
from edgeml.folding import fold_batch_norm
from edgeml.folding.rebuild import copied
from edgeml.targets import tflite

L = keras.layers
ROWS, CLASSES = 96, 4
SHORT = {"epochs": 2, "batch_size": 32}


def network(seed=0):
    """Scaling, a convolution, a separable one and a dense head, each kernel of its own shape; weights that matter."""
    x = inputs = keras.Input((8, 8, 3), name="pixels")
    x = L.Conv2D(12, 3, strides=2, use_bias=False, name="stem")(L.Rescaling(1 / 255, name="scaling")(x))
    x = L.Activation("relu")(L.BatchNormalization(momentum=0.9, name="norm_1")(x))
    x = L.SeparableConv2D(16, 3, padding="same", use_bias=False, name="separable")(x)
    x = L.Activation("hard_silu")(L.BatchNormalization(momentum=0.9, name="norm_2")(x))
    x = L.Dense(10, activation="relu", name="hidden")(L.GlobalAveragePooling2D()(x))
    return networks.randomise(keras.Model(inputs, L.Dense(CLASSES, activation="softmax", name="logits")(x)), seed)


@pytest.fixture(scope="module")
def model():
    return network()


@pytest.fixture(scope="module")
def data():
    """Pictures, one quarter of each brighter than the others: the class says which."""
    x, y = 127 * networks.pictures(ROWS, (8, 8, 3)), np.arange(ROWS) % CLASSES
    for picture, quarter in zip(x, y, strict=True):
        picture[4 * (quarter // 2) :][:4, 4 * (quarter % 2) :][:, :4] += 120
    return x, y


def kernels(result):
    return {kernel.name: kernel for kernel in result.kernels}


def file_kernels(model, x, path):
    """The int8 kernels of the model's TFLite file, by their shape as Keras has it."""
    from ai_edge_litert.interpreter import Interpreter

    folded = fold_batch_norm(model).model
    tflite.export(folded, "int8", path, {}, {"pixels": x})
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    found = {}
    for tensor in interpreter.get_tensor_details():
        if tensor["dtype"] == np.int8 and len(tensor["shape"]) in (2, 4):
            try:
                values = interpreter.get_tensor(tensor["index"])
            except ValueError:  # no constant
                continue
            found[tuple(tensor["shape"])] = values
    return folded, found


def survives(model, x, path):
    """Hold each kernel of the file against that of the folded model: zeros are zeros, equal values equal codes."""
    folded, found = file_kernels(model, x, path)
    seen = 0
    for name, attribute in (("stem", "kernel"), ("separable", "pointwise_kernel"), ("hidden", "kernel")):
        kernel = np.moveaxis(np.asarray(getattr(folded.get_layer(name), attribute)), -1, 0)
        codes = found[kernel.shape]
        assert (codes[kernel == 0] == 0).all()
        for channel, of_file in zip(kernel, codes, strict=True):
            assert len(np.unique(of_file)) <= len(np.unique(channel))
        seen += 1
    return seen


# ---- what each scheme keeps


def test_pruning_alone_keeps_the_structure_and_the_model(model, data):
    before = [w.copy() for w in model.get_weights()]
    told = []
    result = compress(model, prune=0.5, train_data=data, validation_data=data, on_event=told.append, **SHORT)
    found = kernels(result)
    assert [found[f"{name}"].sparsity for name in ("stem/kernel", "hidden/kernel", "separable/pointwise_kernel")] == [
        0.5, 0.5, 0.5,
    ]  # fmt: skip
    assert found["separable/depthwise_kernel"].sparsity == 0
    assert [(alone.step, alone.layer) for alone in result.left_alone] == [("prune", "separable/dw")]
    (step,) = result.steps
    assert (step.name, step.epochs, len(step.losses), len(told)) == ("prune", 2, 2, 2)
    assert step.val_accuracy == result.val_accuracy[1]
    assert np.isfinite(step.losses).all()
    names = [layer.name for layer in model.layers]
    assert [layer.name for layer in result.model.layers] == names, "batch normalization is there to be trained on"
    assert result.model.get_layer("norm_1").trainable
    assert all((a == b).all() for a, b in zip(before, model.get_weights(), strict=True))
    again = compress(model, prune=0.5, train_data=data, **SHORT)
    for one, two in zip(result.model.get_weights(), again.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(
    ("share", "steps", "epochs"),
    [(0.5, 1000, 10), (0.8, 1000, 20), ("2:4", 1000, 10), (0.5, 38, 40), (0.8, 38, 79), (0.8, 1, 100)],
)
def test_pruning_takes_its_time_by_default(share, steps, epochs):
    """80 % of a network for 1,200 digits: 91 % accuracy after 20 epochs, 98 % after 80, as before."""
    assert pruning.default_epochs(share, steps) == epochs


SCHEMES = {  # as tfmot calls them
    "zeros kept by clusters": (0.75, 6, False),
    "PQAT": (0.75, None, True),
    "CQAT": (None, 6, True),
    "PCQAT, and one kernel without zeros": ("2:4", 6, True),
    "QAT": (None, None, True),
}


LONG = ("zeros kept by clusters", "PQAT", "CQAT")  # PCQAT does what each of them does


@pytest.mark.parametrize("scheme", [pytest.param(s, marks=[pytest.mark.slow] * (s in LONG)) for s in SCHEMES])
def test_zeros_and_clusters_survive_later_steps_and_the_file(model, data, scheme, tmp_path):
    prune, cluster, qat = SCHEMES[scheme]
    result = compress(model, prune=prune, cluster=cluster, qat=qat, train_data=data, **SHORT)
    assert [step.name for step in result.steps] == [
        *(["prune"] * bool(prune)),
        *(["cluster"] * bool(cluster)),
        *(["qat"] * qat),
    ]
    assert all(np.isfinite(step.losses).all() for step in result.steps)
    found = kernels(result)
    for name in ("stem/kernel", "separable/pointwise_kernel", "hidden/kernel"):
        least = 0 if prune is None or (prune == "2:4" and name == "stem/kernel") else 0.75 if prune == 0.75 else 0.5
        assert found[name].sparsity >= least, name
        assert cluster is None or found[name].distinct <= cluster, name
        assert bool(least) == bool(found[name].sparsity), name
    if prune == "2:4":
        rows = np.asarray(result.model.get_layer("hidden").kernel).T.reshape(-1, 4)
        assert (np.count_nonzero(rows, axis=1) <= 2).all()
        assert ("prune", "stem", "3 input channels, no multiple of 4") in [
            (alone.step, alone.layer, alone.reason) for alone in result.left_alone
        ]
    assert not [layer for layer in result.model.layers if isinstance(layer, L.BatchNormalization)], "folded"
    assert survives(result.model, data[0], tmp_path / "model.tflite") == 3


def test_a_kernel_with_fewer_weights_than_clusters_is_left_alone(model, data):
    result = compress(model, cluster=45, train_data=data, epochs=1, batch_size=96)
    assert ("cluster", "logits", "40 weights that are not zero, no more than clusters") in [
        (alone.step, alone.layer, alone.reason) for alone in result.left_alone
    ]


# ---- fake quantization


def test_every_kernel_is_rounded_by_channel_whatever_follows(model):
    quantized, left = quantization_aware.quantized_twin(fold_batch_norm(model).model)
    assert left == []
    channels = {}
    for layer in quantized.layers:
        for variable in layer.weights:
            if variable.name.endswith("kernel_max:0"):
                channels[layer.layer.name] = int(np.prod(variable.shape))
    assert channels == {"stem": 12, "separable__dw": 12, "separable__pw": 16, "hidden": 10, "logits": 4}


def test_outputs_are_rounded_where_an_int8_file_rounds_them(model):
    from edgeml.compression import fake_quantization as fake

    found = fake.roundings(twin.twin(fold_batch_norm(model).model, strip_scaling=True))
    rounded = {name for name, rounding in found.items() if rounding.output}
    acts = {name for name in rounded if name.startswith("activation")}
    assert len(acts) == 2
    assert {name for name in rounded - acts if not name.startswith("global")} == {
        "separable__dw", "separable__pw", "hidden__act", "logits",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kernel", "kept"),
    [
        ([1.0, 2, 3, 4], ""),
        ([0.0, 2, 3, 4], "zeros"),
        ([1.0, 2, 1, 2], "clusters"),
        ([0.0, 2, 2, 1, 1], "zeros, clusters"),
        ([0.0, 0.0], "zeros"),
    ],
)
def test_what_a_kernel_holds_that_training_would_lose(kernel, kept):
    from edgeml.compression import fake_quantization as fake

    assert fake.kept(np.array(kernel)) == kept


def test_ranges_follow_at_the_decay_that_is_asked_for_and_no_longer():
    from edgeml.compression import fake_quantization as fake

    low, high = (tf_keras.backend.variable(value) for value in (-6.0, 6.0))
    x = tf_keras.backend.constant([0.0, 1.0])
    quantizer = fake.quantizers.MovingAverageQuantizer(8, False, False, False)
    with fake.adapted(0.5):
        quantizer(x, True, {"min_var": low, "max_var": high})
    assert (float(low), float(high)) == (-3.0, 3.5)
    quantizer(x, True, {"min_var": low, "max_var": high})
    assert float(high) == pytest.approx(3.5 - 0.001 * 2.5)


# ---- other graphs


@pytest.mark.parametrize("name", NAMES)
def test_every_kernel_of_every_space_is_rounded(name):
    space, values, shape = drawn(name, 1)
    folded = fold_batch_norm(as_trained(space.model(values), shades(20, shape, 1))).model
    quantized, left = quantization_aware.quantized_twin(folded)
    kernels = [weight for layer in folded.layers for weight in layer.weights if weight.name.endswith("kernel")]
    rounded = [weight for weight in quantized.weights if weight.name.endswith("kernel_max:0")]
    assert left == []
    assert len(rounded) == len(kernels) > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_space_is_pruned_and_trained_quantization_aware(name):
    space, values, shape = drawn(name, 1)
    x = shades(40, shape, 1)
    net = as_trained(space.model(values), x)
    labels = np.asarray(net(x)).argmax(axis=1)
    result = compress(net, prune=0.5, qat=True, train_data=(x, labels), epochs=1, batch_size=40)
    alone = {one.layer.partition("/")[0] for one in result.left_alone}
    for kernel in result.kernels:
        part = kernel.name.partition("/")
        if part[0] not in alone or part[2] == "pointwise_kernel":
            assert kernel.sparsity == pytest.approx(0.5, abs=0.5 / np.prod(kernel.shape)), kernel
    assert any(kernel.sparsity for kernel in result.kernels)


def test_an_ensemble_with_resizing_split_and_logarithm():
    members = [networks.separable("relu", shape, seed=s) for s, shape in enumerate([(12, 12, 3)] * 2 + [(8, 8, 3)])]
    graph = compile_ensemble(members, [0.5, 0.3, 0.2], "exponential", merge=True)
    x = networks.pictures(64)
    labels = np.asarray(graph(x)).argmax(axis=1)
    result = compress(graph, qat=True, train_data=(x, labels), epochs=1, batch_size=32)
    assert result.steps[0].losses[0] < 2
    assert not any((a == b).all() for a, b in zip(graph.get_weights(), result.model.get_weights(), strict=True))
    assert np.abs(np.asarray(result.model(x)).sum(axis=1) - 1).max() < 1e-5


def test_windows_of_a_signal_and_logits():
    x = np.random.default_rng(0).normal(size=(60, 20, 4)).astype("float32")
    net = oracle.chain((20, 4), L.Conv1D(8, 3, padding="causal", use_bias=False), L.BatchNormalization(), L.ReLU(),
                       L.MaxPooling1D(2), L.DepthwiseConv1D(3), L.Flatten(), L.Dense(3))  # fmt: skip
    labels = np.asarray(net(x)).argmax(axis=1)
    result = compress(net, prune=0.5, qat=True, train_data=(x, labels), validation_data=(x, labels), **SHORT)
    assert [kernel.sparsity for kernel in result.kernels if "depthwise" not in kernel.name] == [0.5, 0.5]


# ---- refusals


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, "nothing is asked for"),
        ({"prune": 1.0}, "prune is 1.0; None, '2:4' or a share"),
        ({"prune": "1:2"}, "prune is '1:2'"),
        ({"prune": True}, "prune is True"),
        ({"cluster": 1}, "cluster is 1; None or 2 to 256"),
        ({"cluster": 2, "prune": 0.5}, "cluster is 2; None or 3 to 256"),
        ({"cluster": 16.0}, "cluster is 16.0"),
        ({"qat": 1}, "qat is 1; True or False"),
        ({"qat": True, "epochs": 0}, "epochs is 0"),
        ({"qat": True, "batch_size": None}, "batch_size is None"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_loaded(asked, said):
    with pytest.raises(UsageError, match=said):
        compress(None, **asked, train_data=None)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x, y: x, "train_data is ndarray; a pair"),
        (lambda x, y: (x[:, :4], y), "samples of shape .*; .*8, 8, 3.* is due"),
        (lambda x, y: (x[:0], y[:0]), "samples of shape"),
        (lambda x, y: (x, y[:-1]), "labels of shape"),
        (lambda x, y: (x, np.eye(CLASSES)[y]), "class numbers of shape"),
        (lambda x, y: (x, y.astype("float32")), "type float32"),
        (lambda x, y: (x, y + 1), "labels from 1 to 4; classes 0 to 3 are due"),
        (lambda x, y: (np.where(x > 200, np.nan, x), y), "NaN or infinity"),
    ],
)
def test_data_that_do_not_fit(model, data, change, said):
    with pytest.raises(DataError, match=said):
        compress(model, qat=True, train_data=change(*data))


def test_models_that_are_not_classifiers_of_keras_3(data):
    with pytest.raises(UsageError, match=r"tf_keras.*a model of Keras 3 is due"):
        compress(twin.twin(network()), qat=True, train_data=data)
    with pytest.raises(UsageError, match=r"outputs of shapes \[\(None, 1\)\]"):
        compress(oracle.chain((4,), L.Dense(1)), qat=True, train_data=data)
    sigmoids = oracle.chain((4,), L.Dense(3, activation="sigmoid"))
    x = np.random.default_rng(0).normal(size=(9, 4)).astype("float32")
    with pytest.raises(UsageError, match="do not add up to 1"):
        compress(sigmoids, qat=True, train_data=(x, np.arange(9) % 3))


def test_a_model_or_a_loss_that_is_no_number_ends_it(model, data):
    broken = copied(model)
    broken.get_layer("logits").bias.assign([np.nan, 0, 0, 0])
    with pytest.raises(UsageError, match="outputs hold NaN"):
        compress(broken, qat=True, train_data=data)
    training = Training(data, None, None, 32, 1, False, lambda event: None)
    with pytest.raises(UsageError, match="prune: the loss is nan in epoch 1; a finite one is due"):
        fine_tuning.fine_tune(twin.twin(broken), broken, training, "prune", epochs=3, learning_rate=1e-3)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(toolkit, "find_spec", lambda name: None if name.endswith("optimization") else object())
    with pytest.raises(UsageError, match="`pip install tensorflow-model-optimization`"):
        compress(None, qat=True, train_data=None)


def test_kernels_are_looked_at_as_they_are():
    kernel = kernel_of("k", np.array([[0.0, 1.0], [0.0, 2.0]]))
    assert (kernel.sparsity, kernel.distinct, kernel.shape) == (0.5, 3, (2, 2))
    assert request.MOST_CLUSTERS == 256
    assert "compress" in compression.__all__


# ---- the environment

PROGRAM = """
import json, os, subprocess, sys
before = dict(os.environ)
import numpy as np
from edgeml.compression import toolkit
toolkit.load()
child = "import os; print(os.environ.get('TF_USE_LEGACY_KERAS'))"
seen = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True).stdout.strip()
import keras, tensorflow
from pathlib import Path
from edgeml.targets import tflite
inputs = keras.Input((4,), name="x")
model = keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(inputs))
model.compile("adam", "sparse_categorical_crossentropy")
model.fit(np.ones((8, 4)), np.zeros(8), verbose=0)
tflite.export(model, "float32", Path(sys.argv[1]), {}, None)
print(json.dumps({"kept": dict(os.environ) == before, "child": seen, "bytes": Path(sys.argv[1]).stat().st_size,
                  "tf.keras": tensorflow.keras.Model is keras.Model}))
"""


def test_the_environment_and_tf_keras_stay_as_they_were(tmp_path):
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, tmp_path / "model.tflite"], capture_output=True, text=True,
        env={key: value for key, value in os.environ.items() if key != "TF_USE_LEGACY_KERAS"},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-2000:]
    found = json.loads(ended.stdout.splitlines()[-1])
    assert (found["kept"], found["child"], found["tf.keras"]) == (True, "None", True)
    assert found["bytes"] > 500


def test_an_environment_that_asks_for_keras_2_keeps_asking(monkeypatch):
    monkeypatch.setenv("TF_USE_LEGACY_KERAS", "yes")
    with toolkit.environment_kept():
        os.environ["TF_USE_LEGACY_KERAS"] = "1"
        os.environ["EDGEML_NEW"] = "1"
    assert os.environ["TF_USE_LEGACY_KERAS"] == "yes"
    assert "EDGEML_NEW" not in os.environ
