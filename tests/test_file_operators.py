"""Operators of .tflite and .onnx files against published figures and against the Keras graph that was exported."""

import contextlib
import json
import re

import networks
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgeml import costs, exporting
from edgeml.errors import DataError
from edgeml.folding import fold_batch_norm
from edgeml.keras_operators import keras_operators
from edgeml.onnx_operators import onnx_operators
from edgeml.operators import Operator, not_counted, without_relabelling
from edgeml.tflite_operators import tflite_operators

READERS = {".tflite": tflite_operators, ".onnx": onnx_operators}
REFERENCE = {  # MLPerf Tiny (mlcommons/tiny): params and MACs
    "image_classification/pretrainedResnet.tflite": (77_706, 12_501_632),
    "image_classification/pretrainedResnet_quant.tflite": (77_706, 12_501_632),
    "visual_wake_words/vww_96_float.tflite": (210_850, 7_489_664),
    "visual_wake_words/vww_96_int8.tflite": (210_850, 7_489_664),
    "anomaly_detection/ad01_fp32.tflite": (265_864, 264_192),
    "keyword_spotting/kws_ref_model.tflite": (22_604, 2_656_768),
}


@pytest.mark.parametrize("file", REFERENCE)
def test_reference_files_cost_exactly_what_is_published(shared_data, file):
    operators = tflite_operators(shared_data / "models" / "mlcommons_tiny" / file)
    cost = costs.cost_of_file(operators)
    assert (cost.params, cost.macs) == REFERENCE[file]
    assert not_counted(operators) == []


@pytest.fixture(scope="module", params=["relu", "relu6", "hard_swish"])
def files(request, tmp_path_factory):
    folded = fold_batch_norm(networks.separable(request.param)).model
    folder = tmp_path_factory.mktemp(request.param)
    samples = {folded.inputs[0].name: networks.pictures(8)}
    artifacts = exporting.write(folded, folder, ("tflite", "onnx"), ("float32", "int8"), samples, lambda event: None)
    return costs.cost(keras_operators(folded), keys=()), [artifact.path for artifact in artifacts]


def test_exported_files_cost_exactly_what_their_graph_does(files):
    due, paths = files
    assert len(paths) == 4
    for path in paths:
        operators = READERS[path.suffix](path)
        assert not_counted(operators) == [], path.name
        assert costs.cost_of_file(operators) == due, path.name


def test_what_an_int8_onnx_file_only_relabels_is_listed_and_costs_nothing(files):
    _, paths = files
    operators = onnx_operators(next(path for path in paths if path.name == "model_int8.onnx"))
    relabelling = [operator for operator in operators if operator.kind in ("quantize", "dequantize", "view")]
    assert len(relabelling) > 10
    assert not any(operator.params or operator.macs for operator in relabelling)


def test_names_lead_to_earlier_operators_only(files):
    for path in files[1]:
        seen = set()
        for operator in READERS[path.suffix](path):
            assert set(operator.inputs) <= seen, (path.name, operator)
            assert operator.name not in seen
            seen.add(operator.name)


def test_a_layer_that_stays_in_float_adds_nothing_but_itself(tmp_path):
    """Its integers are read as they are, then scaled: the scale is no weight."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "one", "z"], ["n"]),
        helper.make_node("Mul", ["n", "s"], ["r"]), helper.make_node("Gemm", ["r", "w"], ["y"]),
    ]  # fmt: skip
    constants = {"s": np.float32(0.1), "z": np.uint8(3), "one": np.float32(1), "w": ones(6, 5)}
    operators = onnx_operators(written(tmp_path, nodes, ["n", 6], constants, 2))
    assert [o.kind for o in operators] == ["input", "quantize", "dequantize", "dequantize", "dense"]
    assert sum(o.params for o in operators) == 30


def test_relabelling_is_looked_through():
    chain = [
        Operator("x", "input", (), (4,)), Operator("q", "quantize", ("x",), (4,)),
        Operator("v", "view", ("q",), (2, 2)), Operator("y", "softmax", ("v",), (2, 2)),
    ]  # fmt: skip
    assert [(o.name, o.inputs) for o in without_relabelling(chain)] == [("x", ()), ("y", ("x",))]


# --- single operators of ONNX, as other tools write them


def written(folder, nodes, inputs, constants, output_rank):
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, inputs)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * output_rank)],
        [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )  # fmt: skip
    path = folder / "one.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def ones(*shape):
    return np.ones(shape, "float32")


@pytest.mark.parametrize(
    ("node", "x", "constants", "params", "macs"),
    [
        (("Conv", {"group": 2}), ["batch", 4, 6, 6], {"w": ones(8, 2, 3, 3), "b": ones(8)}, 152, 16 * 144),
        (("Conv", {"group": 4}), ["batch", 4, 6, 6], {"w": ones(4, 1, 3, 3)}, 36, 16 * 36),
        (("Conv", {}), [1, 4, 6, 6], {"w": ones(8, 4, 1, 1), "b": 0 * ones(8)}, 32, 36 * 32),
        (("ConvTranspose", {"strides": [2, 2]}), ["n", 4, 3, 3], {"w": ones(4, 5, 2, 2)}, 80, 9 * 80),
        (("Gemm", {"transB": 1}), ["n", 6], {"w": ones(5, 6), "b": ones(5)}, 35, 30),
        (("MatMul", {}), ["n", 7, 6], {"w": ones(6, 5)}, 30, 210),
        (("PRelu", {}), ["n", 4, 3, 3], {"w": ones(4, 1, 1)}, 4, 0),
        (("Mul", {}), ["n", 4, 3, 3], {"w": ones(4, 1, 1)}, 4, 0),
        (("Clip", {}), ["n", 4, 3, 3], {"w": np.float32(0), "b": np.float32(6)}, 0, 0),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else None,
)
def test_onnx_operators_cost_what_one_counts_by_hand(tmp_path, node, x, constants, params, macs):
    kind, attributes = node
    made = helper.make_node(kind, ["x", *constants], ["y"], **attributes)
    operators = onnx_operators(written(tmp_path, [made], x, constants, len(x)))
    assert (sum(o.params for o in operators), sum(o.macs for o in operators)) == (params, macs)
    assert not_counted(operators) == []


def test_a_weight_read_twice_is_stored_once_and_computed_twice(tmp_path):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("MatMul", ["m", "w"], ["y"])]
    operators = onnx_operators(written(tmp_path, nodes, ["n", 6], {"w": ones(6, 6)}, 2))
    assert (sum(o.params for o in operators), sum(o.macs for o in operators)) == (36, 72)


def test_an_unknown_operator_is_listed_and_no_silent_zero(tmp_path):
    path = written(tmp_path, [helper.make_node("Erf", ["x"], ["y"])], ["n", 6], {}, 2)
    assert [(o.name, o.kind) for o in not_counted(onnx_operators(path))] == [("y", "Erf")]


def test_an_unknown_operator_that_hides_shapes_is_listed_too(tmp_path):
    nodes = [helper.make_node("NonZero", ["x"], ["m"]), helper.make_node("Cast", ["m"], ["y"], to=1)]
    operators = onnx_operators(written(tmp_path, nodes, ["n", 6], {}, 2))
    assert [(o.kind, o.output_shape) for o in not_counted(operators)] == [("NonZero", ())]
    matrix = [nodes[0], helper.make_node("Cast", ["m"], ["c"], to=1), helper.make_node("MatMul", ["c", "w"], ["y"])]
    with pytest.raises(DataError, match="the shape of 'c' is not known"):
        onnx_operators(written(tmp_path, matrix, ["n", 6], {"w": ones(6, 6)}, 2))


# --- bad files


@pytest.mark.parametrize("suffix", READERS)
@pytest.mark.parametrize("content", [b"", b"no model", b"\x00" * 400, json.dumps({"a": 1}).encode()])
def test_what_is_no_model_is_refused_in_one_line(tmp_path, suffix, content):
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(content)
    with pytest.raises(DataError, match=re.escape(str(path))) as caught:
        READERS[suffix](path)
    assert "\n" not in str(caught.value)


def test_a_file_that_was_cut_off_or_damaged_is_refused_or_read(files, tmp_path):
    rng = np.random.default_rng(0)
    for whole in files[1]:
        content, path = whole.read_bytes(), tmp_path / whole.name
        for cut in (12, len(content) // 3, len(content) - 5):
            path.write_bytes(content[:cut])
            with pytest.raises(DataError):
                READERS[path.suffix](path)
        for _ in range(20):
            damaged = bytearray(content)
            for place in rng.integers(0, len(damaged), 6):
                damaged[place] = rng.integers(256)
            path.write_bytes(damaged)
            with contextlib.suppress(DataError):  # and nothing else is raised
                READERS[path.suffix](path)


def test_a_shape_that_is_not_known_is_named(tmp_path):
    path = written(tmp_path, [helper.make_node("Relu", ["x"], ["y"])], ["n", "side", 4], {}, 3)
    with pytest.raises(DataError, match="the shape of 'x' is not known"):
        onnx_operators(path)
