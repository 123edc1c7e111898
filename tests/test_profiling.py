"""Profiles of a bundle's files: how many runs, and what stands where a profiler fails."""

import numpy as np
import pytest
from networks import pictures, separable

from edgeml import exporting, profiling, timing
from edgeml.errors import DataError
from edgeml.folding import fold_batch_norm


@pytest.mark.parametrize(("ms", "runs"), [(0.01, 1_000), (2.5, 1_000), (25, 100), (4_000, 1)])
def test_runs_that_take_long_are_fewer(ms, runs):
    assert profiling.runs_of(ms) == runs


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    graph = fold_batch_norm(separable()).model
    artifacts = exporting.write(
        graph, tmp_path_factory.mktemp("files"), ["tflite", "onnx"], ["float32"], None, lambda event: None
    )
    files = {one.path.name: one.path for one in artifacts}
    latency = timing.measure(files, {"pixels": pictures(1)}, precision=dict.fromkeys(files, "float32"), rounds=2)
    return graph, artifacts, latency


def test_a_profiler_that_fails_leaves_its_file_out_and_says_why(made, monkeypatch):
    monkeypatch.setattr(profiling, "PROFILED_RUNS", 20)
    other_shape = {"pixels": np.zeros((1, 5, 5, 3), "float32")}  # which onnxruntime refuses
    events = []
    tflite, onnx = profiling.of_files(*made[:2], other_shape, made[2], events.append)
    assert (tflite.file, tflite.problem, tflite.runs) == ("model.tflite", None, 20)
    assert (onnx.file, onnx.operators, onnx.run_ms) == ("model.onnx", (), None)
    assert "Got invalid dimensions for input" in onnx.problem
    assert [event.stage for event in events] == ["profile"]


def test_where_no_process_can_be_had_all_files_are_left_out(made, monkeypatch):
    def refused(*arguments):
        raise DataError("no process")

    monkeypatch.setattr(profiling, "profiled_or_not", refused)
    found = profiling.of_files(*made[:2], {"pixels": pictures(1)}, made[2], lambda event: None)
    assert [(one.file, one.problem) for one in found] == [("model.tflite", "no process"), ("model.onnx", "no process")]
