"""Timing: records that make sense, no difference where there is none, and one where there is."""

import gc
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import edgeml
from edgeml import benchmarking, interleaving, timing
from edgeml.bundled import processes, stopwatch
from edgeml.errors import DataError, UsageError
from edgeml.verbs import measuring


def network(path, width, layers=4, name="x", batch="n"):
    """Dense layers of one width; cost grows with its square."""
    rng = np.random.default_rng(0)
    nodes, value, weights = [], name, []
    for i in range(layers):
        nodes.append(helper.make_node("MatMul", [value, f"w{i}"], [f"v{i}" if i < layers - 1 else "y"]))
        weights.append(numpy_helper.from_array(rng.normal(0, 0.1, (width, width)).astype("f"), f"w{i}"))
        value = f"v{i}"
    graph = helper.make_graph(
        nodes, "n", [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, width])], weights,
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
    return network(folder / "large.onnx", 128, layers=32)


@pytest.fixture(scope="module")
def timed(small, large):
    """Both files, one thread, in one run."""
    cases = [
        timing.Case("small", (small,), "float32"),
        timing.Case("large", (large,)),
        timing.Case("eight", (small,), rows=8),
        timing.Case("twice", (small, small)),
    ]
    return {one.latency.file: one for one in timing.measured(cases, rounds=6)[0]}


def test_figures_are_in_order(timed, small):
    record = timed["small"].latency
    low, high = record.interval_95
    assert 0 < low <= record.quiet_ms <= high
    assert record.quiet_ms <= record.p50_ms <= record.p90_ms <= record.p99_ms
    assert record.noise_floor >= 0
    assert record.load_ms > 0
    assert record.first_run_ms > 0
    assert record.predicted_ms is None
    assert (record.file, record.precision, record.device, record.threads) == ("small", "float32", "host", 1)
    assert record.runtime.startswith("onnxruntime 1.")
    assert record.file_bytes == small.stat().st_size
    assert timed["small"].paced.shape == (stopwatch.OPENINGS, 6)


def test_memory_is_that_of_the_file_alone(timed):
    """Weights of 4 x 64 KiB and 32 x 64 KiB, and what a session needs; not the runtime's own 40 MiB."""
    small, large = (timed[name].latency.peak_memory_bytes for name in ("small", "large"))
    assert 2**18 <= small <= 8 * 2**20
    assert large - small >= 28 * 2**16


def test_warmed_up_means_that_it_gets_no_faster():
    seconds = [4e-3, 3e-3, 2e-3, 1e-3]

    def call():
        end = time.perf_counter() + (seconds.pop(0) if seconds else 5e-4)
        while time.perf_counter() < end:
            pass

    worker = processes.Worker(lambda message: ({}, lambda message: call))
    worker.open({})
    told = worker.start({})
    gc.enable()
    assert told["warmed_up"]
    assert told["first_run_ms"] >= 4
    assert told["warm_up_runs"] >= 4 + processes.STABLE_BLOCKS
    assert told["block_runs"] == 7


def test_eight_samples_and_two_files_take_longer_than_one(timed):
    assert [timed[name].latency.batch for name in ("small", "eight", "twice")] == [1, 8, 1]
    assert timing.compare(timed["twice"], timed["small"]).ratio > 1.3
    assert timed["twice"].latency.file_bytes == 2 * timed["small"].latency.file_bytes
    assert timed["eight"].latency.quiet_ms > timed["small"].latency.quiet_ms


def test_processes_are_pinned_to_as_many_cores_as_there_are_threads(timed):
    allowed = sorted(os.sched_getaffinity(0))
    assert timed["small"].latency.cores == (allowed[-1],)
    assert processes.cores(len(allowed)) == allowed
    assert processes.cores(len(allowed) + 1) is None


def test_a_process_that_dies_is_told():
    server = processes.Server([sys.executable, "-c", "import sys"], dict(os.environ))
    session = server.session()
    with pytest.raises(processes.Refused, match="the process that was to open it died"):
        session.ask("open", paths=["x.onnx"])
    session.close()
    server.close()


def test_without_fork_files_are_timed_here(small, monkeypatch):
    monkeypatch.setattr(processes, "can_fork", lambda: False)
    (found,), _ = timing.measured([timing.Case("x", (small,))], rounds=2)
    assert found.latency.quiet_ms > 0
    assert found.latency.peak_memory_bytes is None
    assert gc.isenabled()


def test_quiet_is_the_tenth_percentile_of_block_minima():
    blocks = [np.array([9.0, i, 50.0]) for i in range(1, 12)]
    blocks[-1][1] = 100.0
    assert interleaving.quiet_ms(blocks) == 2.0
    assert stopwatch.figures([blocks] * 3, np.ones((3, 11)))["quiet_ms"] == 2.0
    assert interleaving.quiet_ms([*blocks, np.array([7.0, 1000.0])]) == pytest.approx(2.1)


def test_the_processes_of_a_file_count_as_their_median():
    fast, slow = [np.array([1.0, 9.0])] * 3, [np.array([2.0, 9.0])] * 3
    openings = [slow, slow, fast, slow]
    found = stopwatch.figures(openings, stopwatch.minima_of(openings))
    assert (found["quiet_ms"], found["noise_floor"]) == (2.0, 1.0)
    assert found["interval_95"][0] < 2.0  # which processes there are is chance, too


@pytest.mark.parametrize(
    ("factor", "spread", "claim"),
    [(1.0, 0.01, "no difference"), (2.0, 0.01, "slower"), (0.5, 0.01, "faster"), (1.05, 0.2, "no difference"),
     (0.95, 0.2, "no difference")],
)  # fmt: skip
def test_claims(timed, factor, spread, claim):
    """Processes that lie ``spread`` apart allow no claim of a smaller difference."""
    rng, pace = np.random.default_rng(3), 1 + spread * np.arange(4) / 3

    def drawn(scale):
        paced = scale * pace[:, None] * rng.normal(1, 0.001, (4, 20))
        floor = stopwatch.figures([[np.ones(3)]], paced)["noise_floor"]
        return timing.Timed(replace(timed["small"].latency, noise_floor=floor), paced)

    found = timing.compare(drawn(factor), drawn(1.0))
    assert found.claim == claim
    assert found.noise_floor == pytest.approx(spread, abs=0.01)
    assert found.interval_95[0] <= found.ratio <= found.interval_95[1]
    assert found.ratio == pytest.approx(factor, rel=0.05)


def test_eight_times_the_layers_are_slower(small, large):
    records, comparisons = edgeml.benchmark([small, large], against=small)
    assert [r.file for r in records] == [str(small), str(large)]
    assert [(c.file, c.against, c.claim) for c in comparisons] == [(str(large), str(small), "slower")]
    assert comparisons[0].ratio > 2


def test_threads_and_batches_are_swept(small, large):
    records, compared = edgeml.benchmark(large, against=small, threads=(1, 2), batch=(1, 4))
    settings = [(1, 1), (1, 4), (2, 1), (2, 4)]
    assert [(r.threads, r.batch) for r in records] == 2 * settings
    assert [(c.threads, c.batch) for c in compared] == settings


def test_a_file_with_another_batch_is_named(small, folder):
    fixed = network(folder / "fixed.onnx", 128, batch=4)
    text, document = measuring.benchmark([small, fixed], None, "1", "1,4", benchmarking.silent)
    assert [(Path(r["file"]).name, r["batch"]) for r in document["results"]] == [
        ("small.onnx", 1), ("small.onnx", 4), ("fixed.onnx", 4)
    ]  # fmt: skip
    assert document["left_out"] == [{"file": str(fixed), "asked": 1, "batch": 4}]
    assert f"not timed with batch 1: {fixed}; of a fixed batch, 4" in text.splitlines()
    figures = [line for line in text.splitlines() if line.startswith("  ")]
    assert len(figures) == 1 + 3
    assert max(map(len, figures)) <= 100


def test_a_file_against_itself(small):
    records, (compared,) = edgeml.benchmark(small, against=small)
    assert [record.file for record in records] == [str(small), f"{small}, again"]
    assert (compared.file, compared.against) == (str(small), f"{small}, again")
    assert 0.5 < compared.ratio < 2


def test_inputs_of_another_name_are_told_by_their_place(small, folder):
    renamed = network(folder / "renamed.onnx", 128, name="image")
    records, (compared,) = edgeml.benchmark(renamed, against=small)
    assert [record.file for record in records] == [str(renamed), str(small)]
    assert (compared.file, compared.against) == (str(renamed), str(small))


def test_without_against_nothing_is_compared(small):
    records, comparisons = edgeml.benchmark([small])
    assert len(records) == 1
    assert comparisons == []


def test_where_the_time_goes(small):
    (found,) = benchmarking.operators(small, runs=300)
    profile = found.profile
    assert [one.kind for one in profile.operators] == ["MatMul"] * 4
    assert (profile.runs, found.threads) == (300, 1)
    assert 0 < sum(one.ms for one in profile.operators) <= profile.run_ms
    assert profile.profiler.startswith("onnxruntime 1.")


def test_what_the_profilers_cannot_see_is_said(small):
    text, document = measuring.operators([small], "1", 20, benchmarking.silent)
    assert measuring.NOTE in text.splitlines()
    assert document["note"] == measuring.NOTE


def test_files_that_cannot_be_timed_together(small, folder):
    with pytest.raises(DataError, match=r"input 'x' has shape \(1, 64\); another file has another shape"):
        edgeml.benchmark([small, network(folder / "other.onnx", 64)])
    with pytest.raises(DataError, match=r"model\.h5: not a bundle, a run or a \.onnx / \.tflite / \.keras file"):
        edgeml.benchmark([folder / "model.h5"])
    (folder / "broken.onnx").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"broken\.onnx: onnxruntime cannot open it"):
        edgeml.benchmark([folder / "broken.onnx"])
    with pytest.raises(DataError, match="no such file"):
        edgeml.benchmark([folder / "missing.onnx"])
    with pytest.raises(UsageError, match=r"small\.onnx: --against naive needs the Keras model"):
        edgeml.benchmark(small, against="naive")
    allowed = "a .onnx / .tflite file, naive or members is allowed"
    with pytest.raises(UsageError, match=f"^--against nowhere: no such file; {allowed}"):
        edgeml.benchmark(small, against="nowhere")
    with pytest.raises(UsageError, match=f"not a .onnx / .tflite file; {allowed}"):
        edgeml.benchmark(small, against=folder)
    with pytest.raises(UsageError, match=r"small\.onnx: --against members needs the Keras model"):
        edgeml.benchmark(small, against="members")


def test_a_clock_that_changes_for_whole_rounds_does_not_make_calls_differ():
    """Nor files: their minima are compared at one pace."""
    rng = np.random.default_rng(0)
    own = rng.uniform(0.01, 1.0, 40)
    pace = np.where(np.arange(20) % 10 < 2, 1.0, 1.17)  # a fifth of the rounds on the fast clock
    noise = 1 + rng.exponential(0.002, (40, 20))
    minima = own[:, None] * pace * noise
    minima[rng.random((40, 20)) < 0.1] *= 1.5  # and visits that something else disturbed
    blocks = {i: [np.array([ms]) for ms in row] for i, row in enumerate(minima)}
    found = np.array(list(interleaving.quiet_together(blocks).values())) / own
    assert np.ptp(found) < 0.02
    assert abs(np.median(found) - 1) < 0.02
    paced = stopwatch.at_one_pace(own[0] * pace * noise[:8])
    ratio, (low, high) = stopwatch.ratio(paced[:4], paced[4:])
    assert abs(ratio - 1) < 0.002
    assert high - low < 0.004
