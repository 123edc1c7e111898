"""Bytes of files by formula against files that were written."""

import networks
import pytest

from edgeml import exporting
from edgeml.file_bytes import FORMULAS, file_bytes
from edgeml.folding import fold_batch_norm
from edgeml.keras_operators import keras_operators
from edgeml.operators import Operator
from edgeml.precisions import OWN, PRECISIONS


@pytest.mark.parametrize("activation", ["relu", "hard_swish"])
def test_files_take_about_what_the_formulas_say(activation, tmp_path):
    folded = fold_batch_norm(networks.separable(activation)).model
    samples = {folded.inputs[0].name: networks.pictures(8)}
    files = exporting.write(folded, tmp_path, [*OWN], [*PRECISIONS], samples, lambda event: None)
    predicted = file_bytes(keras_operators(folded))
    for file in files:
        due = file.path.stat().st_size
        # shorter names of layers than in the spaces, in a file of 9 kB: the worst case of what the formulas do not see;
        # in float16 files of TFLite each constant's name stands twice
        rel = 0.3 if (file.target, file.precision) == ("tflite", "float16") else 0.2
        assert predicted[file.target][file.precision] == pytest.approx(due, rel=rel), (file.target, file.precision)


def test_a_weight_of_each_precision():
    def network(weights):
        return [Operator("x", "input", (), (4,)), Operator("d", "dense", ("x",), (10,), weights, 10)]

    added = {
        (target, precision): file_bytes(network(3000))[target][precision] - size
        for target, sizes in file_bytes(network(2000)).items()
        for precision, size in sizes.items()
    }
    assert {precision: added["tflite", precision] for precision in OWN["tflite"]} == {
        "float32": 4000, "float16": 2000, "dynamic": 1000, "int8": 1000, "int16x8": 1000}  # fmt: skip
    assert added["onnx", "float16"] == 2000
    small, smaller = (file_bytes(network(n))["tflite"] for n in (1000, 900))
    assert small["dynamic"] - smaller["dynamic"] == 400  # a small kernel stays float32


def test_a_weight_adds_its_bytes_and_an_int8_channel_its_scales():
    def network(weights, width):
        return [Operator("x", "input", (), (4,)), Operator("d", "dense", ("x",), (width,), weights, width)]

    small, heavy, wide = (file_bytes(network(*size)) for size in ((100, 10), (1100, 10), (100, 20)))
    assert set(FORMULAS) == {(target, precision) for target, by in small.items() for precision in by}
    for target in small:
        assert heavy[target]["float32"] - small[target]["float32"] == 4_000
        assert heavy[target]["int8"] - small[target]["int8"] == 1_000
    assert wide["tflite"]["int8"] - small["tflite"]["int8"] == 287
