"""``edgeml inspect`` on every kind of model file: published figures, our own exports, damaged files."""

import json

import networks
import onnx
import pytest
from onnx import TensorProto, helper

from edgeml import exporting
from edgeml.errors import DataError
from edgeml.folding import fold_batch_norm
from edgeml.precisions import OWN, PRECISIONS
from edgeml.verbs.inspection import inspect

KEYS = {
    "params", "macs", "weight_bytes", "peak_activation_bytes", "arena_bytes", "file_bytes", "layers", "batch_norm",
    "not_counted",
}  # fmt: skip
REFERENCE = {  # MLPerf Tiny (mlcommons/tiny): params and MACs
    "image_classification/pretrainedResnet.h5": (77_706, 12_501_632),
    "image_classification/pretrainedResnet_quant.tflite": (77_706, 12_501_632),
    "visual_wake_words/vww_96.h5": (210_850, 7_489_664),
    "visual_wake_words/vww_96_int8.tflite": (210_850, 7_489_664),
    "anomaly_detection/ad01.h5": (265_864, 264_192),
    "anomaly_detection/ad01_fp32.tflite": (265_864, 264_192),
    "keyword_spotting/kws_ref_model.tflite": (22_604, 2_656_768),
}


SLOW = ("visual_wake_words/vww_96.h5", "anomaly_detection/ad01.h5")  # a child process opens each of them


@pytest.mark.parametrize("file", [pytest.param(file, marks=[pytest.mark.slow] * (file in SLOW)) for file in REFERENCE])
def test_reference_models_are_what_is_published(shared_data, file):
    path = shared_data / "models" / "mlcommons_tiny" / file
    text, document = inspect(path)
    json.dumps(document)
    assert document.keys() >= KEYS
    assert (document["params"], document["macs"]) == REFERENCE[file]
    assert sum(layer["params"] for layer in document["layers"]) == document["params"]
    assert sum(layer["macs"] for layer in document["layers"]) == document["macs"]
    assert document["not_counted"] == []
    assert f"{document['params']:,} params" in text
    assert document["arena_bytes"] > document["peak_activation_bytes"]
    if path.suffix == ".tflite":
        assert document["file_bytes"] == path.stat().st_size


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A Keras model, and the files that are exported from it."""
    folder = tmp_path_factory.mktemp("inspected")
    model = networks.separable("relu6")
    model.save(folder / "trained.keras")
    samples = {model.inputs[0].name: networks.pictures(8)}
    folded = fold_batch_norm(model).model
    exporting.write(folded, folder, [*OWN], [*PRECISIONS], samples, lambda event: None)
    return folder


def test_a_file_says_what_its_keras_model_does(files):
    text, keras = inspect(files / "trained.keras")
    assert keras["batch_norm"] == {"folded": 4, "kept": []}
    assert "arena  about" in text
    for target, precisions in OWN.items():
        for precision in precisions:
            path = files / exporting.file_name(target, precision)
            text, found = inspect(path)
            assert found.keys() >= KEYS
            for key in ("params", "macs", "weight_bytes", "peak_activation_bytes"):
                assert found[key] == keras[key], (path.name, key)
            assert found["file_bytes"] == path.stat().st_size
            rel = 0.3 if precision == "float16" else 0.2  # see ``test_file_bytes``
            assert keras["file_bytes"][target][precision] == pytest.approx(found["file_bytes"], rel=rel)
            assert found["batch_norm"] == {"folded": 0, "kept": []}
    assert inspect(files / "model_int8.tflite")[1]["arena_bytes"] == pytest.approx(keras["arena_bytes"], rel=0.01)
    text, found = inspect(files / "model.onnx")
    assert found["arena_bytes"] is None
    assert "arena  not counted" in text


def test_what_is_not_known_is_said_and_a_normalization_is_named(tmp_path):
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2, 4, 4]) for name in "xy")
    channel = [helper.make_tensor(name, TensorProto.FLOAT, [2], [0.5, 2.0]) for name in ("g", "b", "m", "v")]
    nodes = [
        helper.make_node("BatchNormalization", ["x", "g", "b", "m", "v"], ["normal"]),
        helper.make_node("LRN", ["normal"], ["y"], size=3),
    ]
    path = tmp_path / "odd.onnx"
    onnx.save(helper.make_model(helper.make_graph(nodes, "odd", [x], [y], channel)), path)
    text, document = inspect(path)
    assert document["not_counted"] == [{"layer": "y", "kind": "LRN"}]
    assert "not counted y: 'LRN' is not known" in text
    assert document["batch_norm"] == {"folded": 0, "kept": [{"layer": "normal", "reason": "the file holds it"}]}


def test_long_names_do_not_widen_the_table(shared_data):
    path = shared_data / "models" / "mlcommons_tiny" / "keyword_spotting" / "kws_ref_model.tflite"
    text, document = inspect(path)
    assert max(len(layer["name"]) for layer in document["layers"]) > 100
    assert max(map(len, text.splitlines())) < 100


@pytest.mark.parametrize("name", ["m.tflite", "m.onnx", "m.keras", "m.h5"])
@pytest.mark.parametrize("content", [None, b"", b"hello, this is no model", bytes(range(256)) * 8])
def test_bad_files_are_one_clear_line(tmp_path, name, content):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        inspect(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("name", ["model.onnx", "model_int8.tflite", "trained.keras"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_half_a_file_is_no_model(files, tmp_path, name, share):
    content = (files / name).read_bytes()
    path = tmp_path / name
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match=name):
        inspect(path)


def test_what_is_no_model_file_is_refused(tmp_path):
    (tmp_path / "m.txt").write_text("x")
    with pytest.raises(DataError, match=r"'.txt' is not inspected; .keras, .h5, .hdf5, .tflite, .onnx and SavedModel"):
        inspect(tmp_path / "m.txt")
