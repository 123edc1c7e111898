"""Timing: records that make sense, no difference where there is none, and one where there is."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import edgeml
from edgeml import timing
from edgeml.errors import DataError


def network(path, width, layers=4, name="x"):
    """Dense layers of one width; cost grows with its square."""
    rng = np.random.default_rng(0)
    nodes, value, weights = [], name, []
    for i in range(layers):
        nodes.append(helper.make_node("MatMul", [value, f"w{i}"], [f"v{i}" if i < layers - 1 else "y"]))
        weights.append(numpy_helper.from_array(rng.normal(0, 0.1, (width, width)).astype("f"), f"w{i}"))
        value = f"v{i}"
    graph = helper.make_graph(
        nodes, "n", [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", width])], weights,
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("timing")


@pytest.fixture(scope="module")
def small(folder):
    return network(folder / "small.onnx", 128)


@pytest.fixture(scope="module")
def large(folder):
    return network(folder / "large.onnx", 128, layers=16)


def test_figures_are_in_order(small):
    (record,), blocks = timing.measure(
        {"small": small}, {"x": np.ones((3, 128), "f")}, precision={"small": "float32"}, rounds=8
    )
    low, high = record.interval_95
    assert 0 < low <= record.quiet_ms <= high
    assert record.quiet_ms <= record.p50_ms <= record.p90_ms <= record.p99_ms
    assert 0 <= record.noise_floor < 1
    assert record.load_ms > 0
    assert record.predicted_ms is None
    assert (record.file, record.precision, record.device, record.threads) == ("small", "float32", "host", 1)
    assert record.runtime.startswith("onnxruntime 1.")
    assert len(blocks["small"]) == 2 * 8
    assert all(timing.BLOCK_RUNS[0] <= len(block) <= timing.BLOCK_RUNS[1] for block in blocks["small"])


def test_quiet_is_the_tenth_percentile_of_block_minima():
    blocks = [np.array([9.0, i, 50.0]) for i in range(1, 12)]
    blocks[-1][1] = 100.0
    assert timing.quiet_ms(blocks) == 2.0
    assert timing.quiet_ms([*blocks, np.array([7.0, 1000.0])]) == pytest.approx(2.1)


@pytest.mark.parametrize(
    ("factor", "floor", "claim"),
    [(1.0, 0.01, "no difference"), (2.0, 0.01, "slower"), (0.5, 0.01, "faster"), (1.05, 0.2, "no difference"),
     (0.95, 0.2, "no difference")],
)  # fmt: skip
def test_claims(factor, floor, claim):
    rng = np.random.default_rng(3)
    one, two = ([np.abs(rng.normal(1, 0.02, 9)) for _ in range(40)] for _ in range(2))
    found = timing.compare("a", [factor * block for block in one], "b", two, floor)
    assert found.claim == claim
    assert found.interval_95[0] <= found.ratio <= found.interval_95[1]
    assert found.ratio == pytest.approx(factor, rel=0.05)


@pytest.mark.slow  # a figure of the machine, not of the code: it needs one that nobody else works on
def test_a_file_does_not_differ_from_itself(small):
    """The control that every claim rests on; one claim in five may be chance on a shared machine."""
    claims = []
    for _ in range(5):
        records, blocks = timing.measure(
            {"a": small, "b": small}, {"x": np.ones((1, 128), "f")}, precision={"a": "", "b": ""}, rounds=15
        )
        floor = max(record.noise_floor for record in records)
        claims.append(timing.compare("a", blocks["a"], "b", blocks["b"], floor).claim)
    assert claims.count("no difference") >= 4, claims


def test_four_times_the_layers_are_slower(small, large):
    records, comparisons = edgeml.benchmark([small, large], against=small)
    assert [r.file for r in records] == [str(small), str(large)]
    assert [(c.file, c.against, c.claim) for c in comparisons] == [(str(large), str(small), "slower")]
    assert comparisons[0].ratio > 1.5


def test_without_against_nothing_is_compared(small):
    records, comparisons = edgeml.benchmark([small])
    assert len(records) == 1
    assert comparisons == []


def test_files_that_cannot_be_timed_together(small, folder):
    with pytest.raises(DataError, match=r"input 'x' has shape \(1, 64\); another file has another shape"):
        edgeml.benchmark([small, network(folder / "other.onnx", 64)])
    with pytest.raises(DataError, match=r"model\.h5: not a bundle or a \.onnx / \.tflite file"):
        edgeml.benchmark([folder / "model.h5"])
    (folder / "broken.onnx").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"broken\.onnx: onnxruntime cannot open it"):
        edgeml.benchmark([folder / "broken.onnx"])
    with pytest.raises(DataError, match="no such file"):
        edgeml.benchmark([folder / "missing.onnx"])


def test_a_clock_that_changes_for_whole_rounds_does_not_make_calls_differ():
    rng = np.random.default_rng(0)
    own = rng.uniform(0.01, 1.0, 40)
    pace = np.where(np.arange(20) % 10 < 2, 1.0, 1.17)  # a fifth of the rounds on the fast clock
    noise = 1 + rng.exponential(0.002, (40, 20))
    minima = own[:, None] * pace * noise
    minima[rng.random((40, 20)) < 0.1] *= 1.5  # and visits that something else disturbed
    blocks = {i: [np.array([ms]) for ms in row] for i, row in enumerate(minima)}
    found = np.array(list(timing.quiet_together(blocks).values())) / own
    assert np.ptp(found) < 0.02
    assert abs(np.median(found) - 1) < 0.02
