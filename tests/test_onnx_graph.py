"""Graph surgery on hand-made graphs: each pass does its work, leaves the function as it was, and knows when to stop."""

import copy
import itertools

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgeml.targets import _onnx_graph as surgery
from edgeml.targets import _onnx_integers as integers
from edgeml.targets._onnx_canonical import canonical
from edgeml.targets._onnx_hard_swish import exact_hard_swish, litert_codes
from edgeml.targets._onnx_transposes import move_transposes_down

LEVELS = onnxruntime.GraphOptimizationLevel
TO_NCHW, TO_NHWC = [0, 3, 1, 2], [0, 2, 3, 1]
KERNEL = np.random.default_rng(5).normal(size=(3, 2, 3, 3)).astype("float32")
ALL = (surgery.drop_neutral, surgery.merge_gemm, surgery.merge_hard_swish, integers.drop_implied_clips,
       integers.clip_integers, move_transposes_down)  # fmt: skip


def node(kind, inputs, output, **attributes):
    return helper.make_node(kind, inputs.split(), [output], **attributes)


def model(nodes, constants, shape=("n", 4), outputs="y", out_rank=None):
    arrays = {name: np.asarray(value, None if isinstance(value, np.generic | np.ndarray) else np.float32)
              for name, value in constants.items()}  # fmt: skip
    rank = out_rank or len(shape)
    graph = helper.make_graph(
        nodes, "hand", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * rank) for name in outputs.split()],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def run(network, x):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(network.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})


def operated(network, *passes, x=None, exact=True):
    """Apply the passes; the function must be the same. Return the operators that are left."""
    shape = [2 if isinstance(d.dim_param, str) and d.dim_param else d.dim_value
             for d in network.graph.input[0].type.tensor_type.shape.dim]  # fmt: skip
    x = np.random.default_rng(0).normal(0, 4, shape).astype("float32") if x is None else x
    before = run(network, x)
    graph = surgery.Graph(network)
    surgery.run_passes(graph, passes or ALL)
    made = canonical(graph, {})
    onnx.checker.check_model(made, full_check=True)
    for one, two in zip(before, run(made, x), strict=True):
        assert one.shape == two.shape
        if exact:
            np.testing.assert_array_equal(one, two)
        else:
            np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-5)
    assert [o.name for o in made.graph.output] == [o.name for o in network.graph.output]
    return [n.op_type for n in made.graph.node]


# ---- drop_neutral


@pytest.mark.parametrize(("kind", "constant"), [("Add", 0), ("Mul", 1), ("Identity", None)])
@pytest.mark.parametrize("swapped", [False, True])
def test_neutral_operations_vanish(kind, constant, swapped):
    inputs = "a" if constant is None else "c a" if swapped else "a c"
    network = model(
        [node("Relu", "x", "a"), node(kind, inputs, "b"), node("Neg", "b", "y")],
        {} if constant is None else {"c": [constant]},
    )
    assert operated(network, surgery.drop_neutral) == ["Relu", "Neg"]


@pytest.mark.parametrize(("kind", "constant"), [("Add", 1e-30), ("Mul", 1.0000001), ("Sub", 0), ("Add", 1), ("Mul", 0)])
def test_what_is_not_neutral_stays(kind, constant):
    network = model([node("Relu", "x", "a"), node(kind, "a c", "b"), node("Neg", "b", "y")], {"c": [constant]})
    assert operated(network, surgery.drop_neutral) == ["Relu", kind, "Neg"]


@pytest.mark.parametrize("shape", [(1, 4), (3, 1, 1), (1, 1, 1), (4,)])
def test_a_neutral_constant_that_changes_the_shape_stays(shape):
    network = model(
        [node("ReduceSum", "x axes", "a", keepdims=1), node("Mul", "a c", "b"), node("Neg", "b", "y")],
        {"c": np.ones(shape, "float32"), "axes": np.array([1])},
        out_rank=max(2, len(shape)),
    )
    assert operated(network, surgery.drop_neutral) == ["ReduceSum", "Mul", "Neg"]


def test_a_neutral_operation_at_the_output_hands_its_name_on():
    network = model([node("Relu", "x", "a"), node("Identity", "a", "y")], {})
    assert operated(network, surgery.drop_neutral) == ["Relu"]


def test_a_neutral_operation_from_input_to_output_stays():
    network = model([node("Identity", "x", "y")], {})
    assert operated(network, surgery.drop_neutral) == ["Identity"]


def test_a_neutral_operation_between_two_outputs():
    network = model([node("Relu", "x", "a"), node("Identity", "a", "y")], {}, outputs="a y")
    assert operated(network, surgery.drop_neutral) == ["Relu", "Identity"]


def test_a_neutral_operation_whose_source_others_read():
    nodes = [node("Relu", "x", "a"), node("Identity", "a", "b"), node("Neg", "a", "c"), node("Add", "b c", "y")]
    assert operated(model(nodes, {}), surgery.drop_neutral) == ["Relu", "Neg", "Add"]
    nodes = [node("Relu", "x", "a"), node("Neg", "a", "b"), node("Identity", "a", "y"), node("Abs", "b", "z")]
    assert sorted(operated(model(nodes, {}, outputs="y z"), surgery.drop_neutral)) == ["Abs", "Neg", "Relu"]


# ---- merge_gemm


def dense(bias_shape, first="Relu", extra=(), outputs="y", matrix=(4, 3)):
    rng = np.random.default_rng(1)
    nodes = [node(first, "x", "a"), node("MatMul", "a w", "m"), node("Add", "m b", "y"), *extra]
    constants = {"w": rng.normal(size=matrix).astype("f"), "b": rng.normal(size=bias_shape).astype("f")}
    return model(nodes, constants, outputs=outputs, out_rank=max(2, len(bias_shape)))


def test_matrix_and_vector_become_one_gemm():
    assert operated(dense((3,)), surgery.merge_gemm, exact=False) == ["Relu", "Gemm"]


@pytest.mark.parametrize("bias_shape", [(2, 3), (1, 3), (5, 1, 3)])
def test_a_bias_that_is_no_vector_stays(bias_shape):
    assert operated(dense(bias_shape), surgery.merge_gemm) == ["Relu", "MatMul", "Add"]


def test_a_vector_longer_than_the_row_stays():
    assert operated(dense((7,), matrix=(4, 1)), surgery.merge_gemm) == ["Relu", "MatMul", "Add"]


def test_a_matmul_with_two_readers_or_that_leaves_the_graph_stays():
    two = [node("Neg", "m", "z")]
    assert "MatMul" in operated(dense((3,), extra=two, outputs="y z"), surgery.merge_gemm)
    assert "MatMul" in operated(dense((3,), outputs="y m"), surgery.merge_gemm)


def test_a_matmul_of_rank_3_stays():
    rng = np.random.default_rng(1)
    network = model(
        [node("Relu", "x", "a"), node("MatMul", "a w", "m"), node("Add", "m b", "y")],
        {"w": rng.normal(size=(4, 3)).astype("f"), "b": rng.normal(size=3).astype("f")}, shape=("n", 5, 4),
    )  # fmt: skip
    assert operated(network, surgery.merge_gemm) == ["Relu", "MatMul", "Add"]


# ---- merge_hard_swish


def hard_swish(three=3.0, six=6.0, sixth=1 / 6, extra=(), outputs="y", order="a s"):
    nodes = [node("Neg", "x", "a"), node("Add", "a three", "p"), node("Clip", "p low high", "q"),
             node("Mul", "q sixth", "s"), node("Mul", order, "y"), *extra]  # fmt: skip
    constants = {name: np.float32(v) for name, v in {"three": three, "low": 0, "high": six, "sixth": sixth}.items()}
    return model(nodes, constants, outputs=outputs)


def padded(around, fill=0.0, mode="constant", **attributes):
    constants = {"p": np.array(around, np.int64), "v": np.float32(fill), "w": KERNEL}
    pad = node("Pad", "x p v", "a", mode=mode)
    return model([pad, node("Conv", "a w", "y", **attributes)], constants, shape=(2, 2, 6, 7), out_rank=4)


@pytest.mark.parametrize("attributes", [
    {}, {"pads": [1, 0, 2, 1]}, {"auto_pad": "VALID", "strides": [2, 2]}, {"auto_pad": "NOTSET", "dilations": [2, 1]},
])  # fmt: skip
def test_a_convolution_pads_by_itself(attributes):
    network = padded([0, 0, 1, 0, 0, 0, 2, 3], **attributes)
    assert operated(network, surgery.merge_pad, exact=False) == ["Conv"]


@pytest.mark.parametrize("network", [
    padded([0, 0, 1, 0, 0, 0, 2, 3], fill=1.0), padded([0, 0, 1, 0, 0, 0, 2, 3], mode="edge"),
    padded([1, 0, 1, 0, 0, 0, 2, 3]), padded([0, 0, -1, 0, 0, 0, 2, 3]),
    padded([0, 0, 1, 0, 0, 0, 2, 3], auto_pad="SAME_UPPER"),
], ids=["not zeros", "not constant", "the batch", "cut off", "padded to size"])  # fmt: skip
def test_a_pad_that_a_convolution_cannot_say_stays(network):
    assert operated(network, surgery.merge_pad) == ["Pad", "Conv"]


def test_a_pad_that_others_read_stays():
    constants = {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64), "w": KERNEL}
    nodes = [node("Pad", "x p", "a"), node("Conv", "a w", "b"), node("Relu", "a", "y"), node("Relu", "b", "z")]
    network = model(nodes, constants, shape=(2, 2, 6, 7), outputs="y z", out_rank=4)
    assert sorted(operated(network, surgery.merge_pad)) == ["Conv", "Pad", "Relu", "Relu"]


@pytest.mark.parametrize("order", ["a s", "s a"])
def test_hard_swish_becomes_one_node(order):
    assert operated(hard_swish(order=order), surgery.merge_hard_swish, exact=False) == ["Neg", "HardSwish"]


@pytest.mark.parametrize("other", [{"three": 2.5}, {"six": 5.0}, {"sixth": 0.2}, {"order": "s s"}])
def test_what_only_looks_like_hard_swish_stays(other):
    assert "HardSwish" not in operated(hard_swish(**other), surgery.merge_hard_swish)


@pytest.mark.parametrize("inner", ["p", "q", "s"])
def test_hard_swish_whose_inside_is_read_stays(inner):
    read = operated(hard_swish(extra=[node("Abs", inner, "z")], outputs="y z"), surgery.merge_hard_swish)
    assert "HardSwish" not in read
    assert "HardSwish" not in operated(hard_swish(outputs=f"y {inner}"), surgery.merge_hard_swish)


# ---- drop_implied_clips


def clipped(kind, scale, zero, *, low=0.0, high=6.0, extra=(), outputs="y"):
    clip = node("Clip", "a low high", "b") if kind == "Clip" else node("Relu", "a", "b")
    nodes = [node("Neg", "x", "a"), clip, node("QuantizeLinear", "b s z", "q"), node("DequantizeLinear", "q s z", "y"),
             *extra]  # fmt: skip
    bounds = {"low": np.float32(low), "high": np.float32(high)} if kind == "Clip" else {}
    return model(nodes, {"s": np.float32(scale), "z": np.int8(zero), **bounds}, outputs=outputs)


X = np.linspace(-9, 9, 400, dtype="float32").reshape(-1, 4)


@pytest.mark.parametrize(
    ("kind", "scale", "zero", "gone"),
    [
        ("Relu", 0.1, -128, True),
        ("Relu", 0.1, -127, False),
        ("Clip", 6 / 255, -128, True),
        ("Clip", 6 / 255 * 1.01, -128, False),
        ("Clip", 5 / 255, -128, True),
        ("Clip", 6 / 255, -100, False),
    ],
)
def test_a_clip_goes_where_quantization_clips(kind, scale, zero, gone):
    left = operated(clipped(kind, scale, zero), integers.drop_implied_clips, x=X)
    assert (kind not in left) is gone


def test_a_clip_with_another_reader_stays():
    read = [node("Abs", "b", "z1")]
    assert "Relu" in operated(clipped("Relu", 0.1, -128, extra=read, outputs="y z1"), integers.drop_implied_clips, x=X)
    assert "Relu" in operated(clipped("Relu", 0.1, -128, outputs="y b"), integers.drop_implied_clips, x=X)


@settings(max_examples=40, deadline=None)
@given(scale=st.floats(0.01, 0.1), zero=st.integers(-128, 127), high=st.floats(0.5, 8), low=st.floats(-3, 0.4))
def test_no_clip_that_matters_is_ever_removed(scale, zero, high, low):
    operated(clipped("Clip", np.float32(scale), zero, low=low, high=high), integers.drop_implied_clips, x=X)


# ---- clip_integers


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(["Clip", "Relu"]), scale=st.floats(1e-3, 0.2), zero=st.integers(-128, 127),
    high=st.floats(0.5, 8), low=st.floats(-3, 0.4),
)  # fmt: skip
def test_a_clip_of_integers_gives_the_same_integers(kind, scale, zero, high, low):
    ties = np.float32(scale) * np.arange(-300, 300, 0.5, dtype="float32")
    x = np.concatenate([X.reshape(-1), ties]).reshape(-1, 4)
    left = operated(clipped(kind, np.float32(scale), zero, low=low, high=high), integers.clip_integers, x=x)
    assert left == ["Neg", "QuantizeLinear", "Clip", "DequantizeLinear"]


def test_a_clip_that_others_read_is_not_moved():
    read = [node("Abs", "b", "z1")]
    left = operated(clipped("Clip", 0.1, -128, extra=read, outputs="y z1"), integers.clip_integers, x=X)
    assert left.index("Clip") < left.index("QuantizeLinear")


# ---- exact_hard_swish


def quantized_hard_swish(low, high):
    """Return uint8 → uint8 with the ranges that a converter would choose, and LiteRT's 256 answers."""
    scale = np.float32((high - low) / 255)
    zero = int(np.rint(-low / scale))
    swish = (x := np.linspace(low, high, 2000)) * np.clip(x + 3, 0, 6) / 6
    out_scale = np.float32((max(swish.max(), 0) - min(swish.min(), 0)) / 255)
    out_zero = int(np.rint(-min(swish.min(), 0) / out_scale))
    nodes = [node("DequantizeLinear", "x s z", "d"), node("HardSwish", "d", "h"), node("QuantizeLinear", "h t u", "y")]
    constants = {"s": scale, "z": np.uint8(zero), "t": out_scale, "u": np.uint8(out_zero)}
    made = model(nodes, constants)
    for value in [*made.graph.input, *made.graph.output]:
        value.type.tensor_type.elem_type = TensorProto.UINT8
    return made, litert_codes(np.arange(256) - zero, float(scale), float(out_scale), out_zero)


def exact(low, high, level=LEVELS.ORT_ENABLE_ALL):
    """Return the operators of the exact form; its answers are LiteRT's."""
    made, expected = quantized_hard_swish(low, high)
    graph = surgery.Graph(made)
    exact_hard_swish(graph)
    file = canonical(graph, {})
    onnx.checker.check_model(file, full_check=True)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    session = onnxruntime.InferenceSession(file.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {"x": np.arange(256, dtype=np.uint8).reshape(-1, 4)})
    np.testing.assert_array_equal(got.ravel(), expected)
    return [one.op_type for one in file.graph.node]


@settings(max_examples=60, deadline=None)
@given(low=st.floats(0.3, 30), high=st.floats(0.3, 30), level=st.sampled_from(
    [LEVELS.ORT_DISABLE_ALL, LEVELS.ORT_ENABLE_ALL]))  # fmt: skip
def test_hard_swish_of_integers_gives_what_litert_gives(low, high, level):
    assert "HardSwish" not in exact(-low, high, level)


@pytest.mark.parametrize(
    ("low", "high", "operators"),
    [
        (-3.1, 7.7, ["HardSigmoid", "Mul"]),
        (-20, 30, ["HardSigmoid", "Mul", "Add"]),
        (-8.23, 0.3229, ["Cast", "Gather"]),
    ],
)
def test_hard_swish_takes_no_more_operators_than_it_needs(low, high, operators):
    assert [kind for kind in exact(low, high) if "Linear" not in kind] == operators


def test_hard_swish_of_real_numbers_stays():
    graph = surgery.Graph(model([node("HardSwish", "x", "y")], {}))
    exact_hard_swish(graph)
    assert [one.op_type for one in graph.nodes] == ["HardSwish"]


# ---- activations_to_uint8, dequantize_outputs


def test_uint8_shifts_every_activation_and_no_weight():
    nodes = [
        node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "d"),
        node("DequantizeLinear", "w s wz", "v"), node("MatMul", "d v", "m"), node("QuantizeLinear", "m s2 z2", "y"),
    ]  # fmt: skip
    constants = {"s": np.float32(0.05), "z": np.int8(-7), "w": np.arange(-8, 8, dtype="int8").reshape(4, 4),
                 "wz": np.int8(0), "s2": np.float32(0.1), "z2": np.int8(3)}  # fmt: skip
    network = model(nodes, constants)
    network.graph.output[0].type.tensor_type.elem_type = TensorProto.INT8
    before = run(network, X)[0]
    shifted, graph = surgery.Graph(copy.deepcopy(network)), surgery.Graph(network)
    integers.activations_to_uint8(shifted)
    np.testing.assert_array_equal(run(canonical(shifted, {}), X)[0].astype(int) - 128, before)
    integers.activations_to_uint8(graph)
    integers.dequantize_outputs(graph)
    real = canonical(graph, {})
    onnx.checker.check_model(real, full_check=True)
    np.testing.assert_array_equal(run(real, X)[0], (before.astype("f") - 3) * np.float32(0.1))
    assert real.graph.output[0].name == "y"


def test_sums_of_weights_that_an_int16_cannot_hold_are_exact_on_every_cpu():
    """onnxruntime cuts uint8 x int8 off at 32,767 where there is no VNNI: 255 x 127 + 255 x 127 is 64,770."""
    nodes = [
        node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "d"),
        node("DequantizeLinear", "w t wz", "v", axis=1), node("MatMul", "d v", "m"),
        node("QuantizeLinear", "m s2 z2", "y"),
    ]  # fmt: skip
    signs = np.array([1, 1, -1, -1] * 4, "int8")[:, None]
    constants = {
        "s": np.float32(1),
        "z": np.uint8(0),
        "s2": np.float32(1),
        "z2": np.uint8(128),
        "w": np.full((16, 8), 127, "int8") * signs,
        "t": np.full(8, 0.001, "f"),
        "wz": np.zeros(8, "int8"),
    }
    x = np.tile(np.float32([255, 255, 200, 100]), (3, 4))
    graph = surgery.Graph(model(nodes, constants, shape=("n", 16), out_rank=2))
    integers.weights_to_uint8(graph)
    made = canonical(graph, {})
    made.graph.output[0].type.tensor_type.elem_type = TensorProto.UINT8
    onnx.checker.check_model(made, full_check=True)
    kernels = [numpy_helper.to_array(one) for one in made.graph.initializer if len(one.dims) == 2]
    assert [(kernel.dtype, kernel.min(), kernel.max()) for kernel in kernels] == [("uint8", 1, 255)]
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])  # fused
    exact = 128 + round((255 + 255 - 200 - 100) * 4 * 127 * 0.001)
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], np.full((3, 8), exact))


def test_a_float_output_is_left_alone():
    graph = surgery.Graph(model([node("Relu", "x", "y")], {}))
    integers.dequantize_outputs(graph)
    assert [n.op_type for n in graph.nodes] == ["Relu"]


# ---- transposes

IMAGE = ("n", 3, 5, 2)


def transposed(*middle, constants=None, outputs="y", tail="z", shape=IMAGE, out_rank=4):
    nodes = [node("Transpose", "x", "t", perm=TO_NCHW), *middle, node("Transpose", tail, "y", perm=TO_NHWC)]
    return model(nodes, constants or {}, shape=shape, outputs=outputs, out_rank=out_rank)


def test_a_pair_around_elementwise_operators_vanishes():
    assert operated(transposed(node("HardSwish", "t", "h"), node("Relu", "h", "z")), move_transposes_down) == [
        "HardSwish", "Relu"]  # fmt: skip


def test_a_pair_around_a_quantizer_vanishes_unless_it_is_per_channel():
    middle = node("QuantizeLinear", "t s z8", "q", axis=1), node("DequantizeLinear", "q s z8", "z", axis=1)
    one = {"s": np.float32(0.1), "z8": np.int8(0)}
    assert "Transpose" not in operated(transposed(*middle, constants=one), move_transposes_down)
    each = {"s": np.array([0.1, 0.2], "f"), "z8": np.zeros(2, "int8")}
    assert operated(transposed(*middle, constants=each), move_transposes_down).count("Transpose") == 2


def test_branches_join():
    middle = node("Relu", "t", "a"), node("Neg", "t", "b"), node("Clip", "t low", "c"), node("Add", "a c", "z")
    left = operated(transposed(*middle, constants={"low": np.float32(0.5)}, outputs="y b"), move_transposes_down)
    assert left.count("Transpose") == 1  # Neg is not known to be elementwise: its own stays


def test_both_sides_of_a_join_may_be_one_value():
    assert "Transpose" not in operated(transposed(node("Mul", "t t", "z")), move_transposes_down)


def test_a_join_with_a_tensor_that_has_axes_stays():
    per_channel = {"c": np.array([1.0, 2.0], "f").reshape(2, 1, 1)}
    left = operated(transposed(node("Add", "t c", "z"), constants=per_channel), move_transposes_down)
    assert left.count("Transpose") == 2
    scalar = {"c": np.float32(2.0)}
    assert "Transpose" not in operated(transposed(node("Add", "t c", "z"), constants=scalar), move_transposes_down)
    long = {"c": np.full((1, 1, 1, 1, 1), 2.0, "f")}
    nodes = [node("Transpose", "x", "t", perm=TO_NCHW), node("Add", "t c", "y")]
    assert operated(model(nodes, long, shape=IMAGE, out_rank=5), move_transposes_down) == ["Transpose", "Add"]


def test_transposes_that_do_not_cancel_are_joined():
    nodes = [node("Transpose", "x", "t", perm=TO_NCHW), node("Transpose", "t", "y", perm=TO_NCHW)]
    assert operated(model(nodes, {}, shape=IMAGE), move_transposes_down) == ["Transpose"]


def test_a_pair_that_is_the_whole_graph_stays_a_function_of_its_input():
    nodes = [node("Transpose", "x", "t", perm=TO_NCHW), node("Transpose", "t", "y", perm=TO_NHWC)]
    operated(model(nodes, {}, shape=IMAGE), move_transposes_down)


@pytest.mark.parametrize("outputs", ["y t", "t y", "y z"])
def test_a_transposed_value_that_leaves_the_graph_keeps_its_layout(outputs):
    operated(transposed(node("Relu", "t", "z"), outputs=outputs), move_transposes_down)


@pytest.mark.parametrize("perm", list(itertools.permutations(range(4)))[::5])
@pytest.mark.parametrize("axes", [[2, 3], [-1, -2], [1], [1, 2, 3]])
@pytest.mark.parametrize("keep", [0, 1])
def test_a_mean_takes_the_axes_that_are_meant(perm, axes, keep):
    nodes = [node("Transpose", "x", "t", perm=list(perm)), node("ReduceMean", "t", "y", axes=axes, keepdims=keep)]
    network = model(nodes, {}, shape=(2, 3, 5, 2), out_rank=4 if keep else 4 - len(axes))
    operated(network, move_transposes_down, exact=False)


# ---- canonical


def test_bytes_depend_on_the_graph_alone():
    def build(names, order, noise):
        a, b, c, w = names
        nodes = [node("Relu", "x", a), node("Add", f"{a} {w}", b), node("Sigmoid", a, c), node("Mul", f"{b} {c}", "y")]
        constants = {w: np.arange(4, dtype="f")}
        if noise:
            constants["never_read"] = np.zeros(9, "f")
        network = model([nodes[i] for i in order], constants)
        for i, one in enumerate(network.graph.node):
            one.name = f"{names[0]}{i}"
            if noise:
                one.doc_string = "noise"
        return canonical(surgery.Graph(network), {"b": "2", "a": "1"}).SerializeToString(deterministic=True)

    first = build("abcw", (0, 1, 2, 3), False)
    assert build("pqrs", (0, 2, 1, 3), True) == first


def test_equal_constants_are_stored_once_and_dead_nodes_go():
    nodes = [node("Add", "x c1", "a"), node("Add", "a c2", "y"), node("Neg", "a", "dead")]
    made = canonical(surgery.Graph(model(nodes, {"c1": [1.5], "c2": [1.5]})), {})
    assert [tensor.name for tensor in made.graph.initializer] == ["constant_0"]
    assert [n.op_type for n in made.graph.node] == ["Add", "Add"]


def test_outputs_take_the_names_they_are_given():
    nodes = [node("Relu", "x", "a"), node("Neg", "a", "b")]
    graph = surgery.Graph(model(nodes, {}, outputs="a b"))
    surgery.name_outputs(graph, ["one", "two"], [(None, 4)] * 2)
    made = canonical(graph, {})
    assert [o.name for o in made.graph.output] == ["one", "two"]
    np.testing.assert_array_equal(run(made, X)[1], -run(made, X)[0])


def test_outputs_may_swap_names():
    nodes = [node("Relu", "x", "a"), node("Neg", "a", "b")]
    graph = surgery.Graph(model(nodes, {}, outputs="a b"))
    surgery.name_outputs(graph, ["b", "a"], [(None, 4)] * 2)
    made = canonical(graph, {})
    assert [o.name for o in made.graph.output] == ["b", "a"]
    np.testing.assert_array_equal(run(made, X)[0], np.maximum(X, 0))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_all_passes_leave_random_chains_as_they_were(data):
    """Chains of what the passes look for, in any order, with values that leave or are read twice."""
    kinds = data.draw(st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=7))
    value, nodes = "x", []
    for number, kind in enumerate(kinds):
        nodes.append(STEPS[kind](value, f"v{number}"))
        value = f"v{number}"
    other = data.draw(st.sampled_from(["x", *(n.output[0] for n in nodes)]))
    nodes += [node("Neg", f"{other}", "side"), node("Relu", value, "y")]
    constants = {"zero": [0.0], "one": [1.0], "two": np.float32(2), "low": np.float32(0), "high": np.float32(6),
                 "s": np.float32(6 / 255), "z": np.int8(-128)}  # fmt: skip
    operated(model(nodes, constants, shape=(2, 3, 3, 3), outputs="y side"))


STEPS = {
    "nchw": lambda a, b: node("Transpose", a, b, perm=TO_NCHW),
    "nhwc": lambda a, b: node("Transpose", a, b, perm=TO_NHWC),
    "zero": lambda a, b: node("Add", f"zero {a}", b),
    "one": lambda a, b: node("Mul", f"{a} one", b),
    "two": lambda a, b: node("Mul", f"{a} two", b),
    "same": lambda a, b: node("Identity", a, b),
    "clip": lambda a, b: node("Clip", f"{a} low high", b),
    "relu": lambda a, b: node("Relu", a, b),
    "twice": lambda a, b: node("Add", f"{a} {a}", b),
    "swish": lambda a, b: node("HardSwish", a, b),
}
