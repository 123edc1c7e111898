"""TFLM's arena: plans laid out by hand, files against figures that tflite-micro reported, the order of a graph."""

import pytest

from edgeml import arena
from edgeml.operators import Operator
from edgeml.tflite_operators import tflite_operators

REPORTED = {  # file: total and head, as tflite-micro 0.dev20261023182759 printed them
    "image_classification/pretrainedResnet.tflite": (203_376, 196_608),
    "image_classification/pretrainedResnet_quant.tflite": (55_984, 49_152),
    "visual_wake_words/vww_96_float.tflite": (324_800, 294_912),
    "visual_wake_words/vww_96_int8.tflite": (103_680, 73_728),
    "keyword_spotting/kws_ref_model.tflite": (24_272, 16_000),
    "anomaly_detection/ad01_fp32.tflite": (6_224, 3_072),
}


@pytest.mark.parametrize("file", REPORTED)
def test_files_need_what_tflm_reported(shared_data, file):
    operators = tflite_operators(shared_data / "models" / "mlcommons_tiny" / file)
    total, head = REPORTED[file]
    assert arena.head_bytes(operators) == head
    assert arena.file_arena_bytes(operators) == pytest.approx(total, rel=0.03)


@pytest.mark.parametrize(
    ("buffers", "bytes_due"),
    [
        ([], 0),
        ([(32, 0, 1), (16, 1, 2)], 48),  # both alive at step 1
        ([(32, 0, 1), (32, 2, 3)], 32),  # never alive together: the same place
        ([(16, 0, 1), (64, 1, 2), (16, 2, 3), (64, 3, 4)], 80),
        ([(48, 0, 2), (32, 1, 1), (64, 2, 3), (16, 1, 3)], 128),
        ([(32, 0, 1), (32, 1, 3), (32, 3, 4), (16, 2, 2)], 64),
    ],
)
def test_plans_laid_out_by_hand(buffers, bytes_due):
    assert arena.planned_bytes(buffers) == bytes_due


def test_among_equals_the_one_made_later_is_placed_first():
    assert arena.planned_bytes([(32, 0, 1), (32, 1, 2), (32, 2, 4), (48, 4, 5), (32, 0, 5)]) == 112


def op(name, elements, *inputs, **keys):
    return Operator(name, keys.pop("kind", "add" if inputs else "input"), inputs, (elements,), **keys)


def test_tensors_are_rounded_up_to_16_bytes():
    assert arena.head_bytes([op("x", 17), op("y", 1, "x")]) == 48


def test_a_branch_runs_to_its_end_the_first_by_name_first():
    network = [op("x", 4), op("b1", 4, "x"), op("b2", 4, "b1"), op("s", 4, "x"), op("y", 4, "s", "b2")]
    assert [o.name for o in arena.as_converted(network)] == ["x", "b1", "b2", "s", "y"]
    network = [op("x", 4), op("b1", 4, "x"), op("b2", 4, "b1"), op("a", 4, "x"), op("y", 4, "b2", "a")]
    assert [o.name for o in arena.as_converted(network)] == ["x", "a", "b1", "b2", "y"]
    members = [op("x", 4), op("a1", 4, "x"), op("b1", 4, "x"), op("a2", 4, "a1"), op("b2", 4, "b1"),
               op("y", 4, "a2", "b2")]  # fmt: skip
    assert [o.name for o in arena.as_converted(members)] == ["x", "a1", "a2", "b1", "b2", "y"]


def test_names_are_sorted_as_tensorflow_has_them():
    network = [op("x", 4), op("d_1", 4, "x"), op("d_10", 4, "x"), op("m_1/d", 4, "x"), op("m_10/d", 4, "x")]
    assert [o.name for o in arena.as_converted(network)] == ["x", "d_10", "d_1", "m_10/d", "m_1/d"]


def test_scale_and_shift_are_two_operators():
    network = [
        op("x", 4),
        op("s", 4, "x", kind="affine", weights=4, biases=4),
        op("m", 4, "s", kind="affine", weights=4),
    ]
    assert [o.name for o in arena.as_converted(network)] == ["x", "s/scale", "s", "m"]


def test_the_order_of_the_list_decides_nothing():
    network = [op("x", 40), op("b1", 80, "x"), op("b2", 40, "b1"), op("s", 40, "x"), op("y", 40, "s", "b2")]
    other = [network[i] for i in (0, 3, 1, 2, 4)]
    assert arena.arena_bytes(network) == arena.arena_bytes(other)


def test_an_activation_that_tflite_does_not_fuse_is_a_tensor_of_its_own():
    def network(activation):
        return [op("x", 32), op("y", 32, "x", kind="conv", activation=activation), op("z", 32, "y")]

    names = [o.name for o in arena.as_converted(network("hard_swish"))]
    assert names == ["x", "y", "y/hard_swish", "z"]
    assert len(arena.as_converted(network("relu6"))) == 3


def test_what_reads_in_another_shape_reads_a_view():
    given = Operator("input", "input", (), (49, 10))
    wide, deep = (Operator(name, "dense", ("input",), (4,)) for name in ("wide", "deep"))
    found = arena.as_converted([given, wide, deep, Operator("sum", "add", ("wide", "deep"), (4,))])
    assert [o.name for o in found] == ["input", "wide/view", "deep", "wide", "sum"]
    assert [o.output_shape for o in found if o.kind == "view"] == [(49, 10)]
    conv = Operator("conv", "conv", ("input",), (49, 1, 8), kernel=(3, 1))
    both = [given, wide, conv, Operator("flat", "dense", ("conv",), (4,))]
    assert [o.name for o in arena.as_converted(both) if o.kind == "view"] == ["conv/view", "flat/view", "wide/view"]
    kept = Operator("dense", "dense", ("input",), (49, 4))
    assert [o.name for o in arena.as_converted([given, conv])] == ["input", "conv/view", "conv"]
    assert [o.name for o in arena.as_converted([given, kept])] == ["input", "dense"], "along the last axis"


def test_the_margin_for_cmsis_nn_is_that_of_the_largest_convolution():
    network = [Operator("x", "input", (), (8, 8, 3)), Operator("c", "conv", ("x",), (8, 8, 4), kernel=(3, 3)),
               Operator("p", "conv", ("c",), (8, 8, 64), kernel=(1, 1))]  # fmt: skip
    assert arena.cmsis_nn_margin_bytes(network) == 4 * 9 * 3


def test_the_parts_of_a_split_are_one_operator_in_the_records():
    whole = [op("x", 64), op("s", 64, "x", kind="split")]
    listed = [op("x", 64), op("s", 32, "x", kind="split"), op("s#1", 32, "x", kind="split")]  # as a file has it
    assert arena.tail_bytes(whole) == arena.tail_bytes(listed)
