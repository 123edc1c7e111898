"""Operators of a profile and the layers that they are of: by names in onnxruntime, by order in LiteRT."""

import keras
import pytest
from networks import pictures, separable

from edgeml import exporting, operator_layers, timing
from edgeml.ensemble import compile_ensemble
from edgeml.folding import fold_batch_norm
from edgeml.runtimes import OperatorTime
from edgeml.tflite_operators import Wired
from edgeml.timing import Case

L = keras.layers


@pytest.fixture(scope="module")
def graph():
    return fold_batch_norm(compile_ensemble([separable("hard_swish", seed=1), separable(seed=2)], [0.5, 0.5])).model


@pytest.fixture(scope="module")
def files(graph, tmp_path_factory):
    """An ONNX file, and a TFLite file of integers, of which LiteRT itself runs hard-swish and softmax."""
    folder = tmp_path_factory.mktemp("files")
    fed = {tensor.name: pictures(16) for tensor in graph.inputs}
    made = [
        exporting.write(graph, folder, [target], [precision], fed, lambda event: None)[0]
        for target, precision in (("onnx", "float32"), ("tflite", "int8"))
    ]
    found = timing.profiled([Case(one.path.name, (one.path,)) for one in made], runs=20)
    return [(one, [*profiled.profile.operators]) for one, profiled in zip(made, found, strict=True)]


def operators(*kinds):
    return [OperatorTime(str(i), kind, 0.0) for i, kind in enumerate(kinds)]


def test_a_node_with_what_it_was_fused_with_is_of_the_layers_of_both(files):
    artifact, _ = files[0]
    (relu,) = (node for node, own in artifact.layers.items() if own == ("member_1/act_1",))
    (conv,) = (node for node, own in artifact.layers.items() if own == ("member_1/stem",) and node.startswith("Conv"))
    named = [OperatorTime(f"{relu}_nchwc", "Conv", 0.0), OperatorTime(f"fused {conv}", "FusedConv", 0.0),
             OperatorTime(relu, "Relu", 0.0), OperatorTime(relu, "Sigmoid", 0.0)]  # fmt: skip
    assert operator_layers.of_onnx(artifact.path, artifact.layers, named) == [
        ("member_1/stem", "member_1/act_1"), ("member_1/stem",), ("member_1/act_1",), ("member_1/act_1",),
    ]  # fmt: skip


def test_all_that_onnxruntime_computes_has_layers(files):
    artifact, found = files[0]
    layers = operator_layers.of_onnx(artifact.path, artifact.layers, found)
    of_kind = {one.kind: own for one, own in zip(found, layers, strict=True) if not own}
    assert not of_kind.keys() & {"Conv", "FusedConv", "Gemm", "FusedGemm", "Softmax", "MaxPool"}
    assert {f"member_{i}/{name}" for i in (0, 1) for name in ("stem", "middle", "hidden", "scores")} <= {
        name for own in layers for name in own
    }


def test_a_name_that_no_node_has_tells_nothing(files):
    artifact, _ = files[0]
    unknown = [OperatorTime("Transpose_token_46", "Transpose", 0.0), OperatorTime("", "Conv", 0.0)]
    assert operator_layers.of_onnx(artifact.path, artifact.layers, unknown) == [(), ()]


def test_operators_of_litert_are_matched_in_the_order_in_which_they_run(graph, files):
    artifact, found = files[1]
    layers = operator_layers.of_tflite(artifact.path, graph, found)
    of_kind = {kind: [own for one, own in zip(found, layers, strict=True) if one.kind == kind]
               for kind in ("HARD_SWISH", "SOFTMAX")}  # fmt: skip
    assert [own[0] for own in of_kind["HARD_SWISH"]] == [f"member_0/act_{i}" for i in (1, 2, 3, 4)]
    assert of_kind["SOFTMAX"] == [("member_1/scores",), ("member_0/scores",)]  # the member without hard-swish is first
    products = [(one.kind, own) for one, own in zip(found, layers, strict=True)
                if one.kind.startswith(("Conv", "Fully"))]  # fmt: skip
    kernels = ["stem", "depthwise", "middle", "separable", "separable", "hidden", "logits"]
    assert len(products) == 2 * len(kernels)
    for member in ("member_0", "member_1"):
        told = [(kind, own) for kind, own in products if own[0].startswith(member)]
        for kernel, (_, own) in zip(kernels, told, strict=True):
            assert f"{member}/{kernel}" in own
        assert ["DWConv" in kind for kind, _ in told] == [False, True, False, True, False, False, False]


def test_where_xnnpack_runs_some_of_a_kind_nothing_is_told(graph, files):
    artifact, found = files[1]
    fewer = [one for one in found if one.kind != "HARD_SWISH"]
    assert set(operator_layers.of_tflite(artifact.path, graph, [*fewer, *operators("HARD_SWISH")])) == {()}


def test_sorts_of_which_there_are_more_or_less_than_in_the_file_have_no_layers(graph, files):
    artifact, found = files[1]
    layers = operator_layers.of_tflite(artifact.path, graph, [*found, *operators("Convolution (NHWC, QC8) IGEMM")])
    kinds = [one.kind for one in found]
    assert all(own == () for kind, own in zip(kinds, layers, strict=False) if kind.startswith(("Conv", "Fully")))
    assert all(own for kind, own in zip(kinds, layers, strict=False) if kind == "SOFTMAX")


def test_litert_runs_turn_by_turn_all_that_is_ready():
    first, swish, behind, beside = (
        Wired("CONV_2D", "a", (0,), (1,)), Wired("HARD_SWISH", "b", (1,), (2,)), Wired("CONV_2D", "c", (2,), (3,)),
        Wired("CONV_2D", "d", (0,), (4,)),
    )  # fmt: skip
    nodes = [first, swish, behind, beside]
    assert operator_layers._as_run(nodes, {"HARD_SWISH"}) == [first, beside, swish, behind]
    assert operator_layers._as_run(nodes, set()) == nodes
