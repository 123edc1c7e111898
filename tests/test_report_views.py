"""What the sections of the report are made of: rows worked out of ``report.json``, before anything is drawn."""

import pytest

from edgeml.report import asked, formats, layers, limits, matrices, svg, views


def compared(file, inputs, error, *, configuration=None, limit=2e-5, measure="share of the output range", **more):
    row = {"file": file, "what": "file = folded", "inputs": inputs, "samples": 8, "error": error, "limit": limit}
    named = {} if configuration is None else {"configuration": configuration}
    return {**row, "measure": measure, "gate": "float32", "passed": True, **named, **more}


def cells(block):
    return {line["label"]: [cell.get("text") for cell in line["cells"]] for line in block["lines"]}


def test_parity_is_a_matrix_of_files_and_configurations_by_inputs():
    rows = [
        compared("a.onnx", "test (359)", 1e-6, configuration="all"),
        compared("a.onnx", "zeros (8)", 4e-6, configuration="all"),
        compared("a.onnx", "test (359)", 1e-5, configuration="off"),
        compared("b.tflite", "test (359)", 28.4, limit=15, measure="SQNR in dB, at least"),
    ]
    first, second = matrices.parity(rows)
    assert (first["file"], first["inputs"], first["passed"]) == ("a.onnx", ["test", "zeros"], True)
    assert cells(first) == {"all": ["1e-6", "4e-6"], "off": ["1e-5", None]}
    assert [cell.get("share") for line in first["lines"] for cell in line["cells"]] == pytest.approx(
        [0.05, 0.2, 0.5, None]
    )
    assert first["judged"] == ["share of the output range, at most 2e-5"]
    assert cells(second) == {"file = folded": ["28.4", None]}
    assert second["lines"][0]["cells"][0]["share"] == pytest.approx(15 / 28.4)  # decibels have to lie above
    assert second["judged"] == ["SQNR in dB, at least 15"]
    (shares,) = matrices.parity(
        [compared("b.tflite", "test", 1.0, limit=0.98, measure="share of equal rows, at least")]
    )
    assert shares["judged"] == ["share of equal rows, at least 0.980"]


def test_a_cell_of_the_parity_matrix_shows_the_worst_of_its_comparisons_and_failures_before_all():
    alike = [compared("a.onnx", "test", error, what=f"output {error}", configuration="all") for error in (1e-6, 9e-6)]
    assert cells(matrices.parity(alike)[0]) == {"all": ["9e-6"]}
    failed = compared("a.onnx", "test", float("nan"), configuration="all", passed=False, max_abs=0.5)
    (block,) = matrices.parity([*alike, views.present(failed)])
    assert not block["passed"]
    assert cells(block) == {"all": ["0.500"]}


def test_figures_that_no_gate_judges_use_up_nothing_of_a_limit():
    (block,) = matrices.parity(
        [compared("a.onnx", "zeros", 30.0, limit=0.0, measure="SQNR in dB, at least", gate="none")]
    )
    assert block["judged"] == []
    assert block["lines"][0]["cells"][0]["share"] == 0
    assert views.judged([compared("a.onnx", "zeros", 9.0, gate="none")], "a.onnx") == {}


def test_accuracy_is_drawn_over_macs_params_and_bytes_and_over_what_else_the_budget_limits():
    trials = [
        {
            "id": "t1",
            "cost": {"macs": 9, "params": 3, "weight_bytes": {"float32": 12, "int8": 4}, "arena_bytes": {"int8": 7}},
            "predicted_ms": {"host/onnxruntime/int8": 0.5},
        },
        {"id": "t2", "cost": {"macs": 8}},
    ]
    limit = {"device": "host", "runtime": "onnxruntime", "precision": "int8", "max_ms": 2.0}
    budget = {"asked": {"macs": 10, "arena_bytes": 100, "latency": [limit]}}
    found = {one["label"]: (one["values"], one["limit"]) for one in views.axes(trials, {"budget": budget})}
    assert found == {
        "multiply-accumulates": ({"t1": 9, "t2": 8}, 10),
        "parameters": ({"t1": 3}, None),
        "bytes of weights, smallest precision": ({"t1": 4}, None),
        "arena bytes": ({"t1": 7}, 100),
        "predicted latency, host onnxruntime int8, ms": ({"t1": 0.5}, 2.0),
    }
    trials[0]["cost"]["file_bytes"] = {"onnx": {"int8": 60}, "tflite": {"int8": 70, "float32": 90}}
    sizes = next(one for one in views.axes(trials, {}) if one["name"] == "file_bytes")
    assert sizes["values"] == {"t1": 90}
    assert views.axes([], {}) == []


def file(path, precision, size, accuracy, ms, **test):
    return {"path": path, "target": path.rpartition(".")[2], "precision": precision, "bytes": size,
            "test": {"accuracy": accuracy, **test}, "latency": {"quiet_ms": ms}}  # fmt: skip


def test_files_stand_beside_the_float32_file_of_their_target():
    files = [file("a.onnx", "float32", 100, 0.9, 1.0), file("b.onnx", "int8", 40, 0.89, 2.5),
             file("c.tflite", "int8", 30, 0.88, 3.0)]  # fmt: skip
    plain, onnx, lite = views.against_float32(files)
    assert (plain["share_of_bytes"], plain["points"]) == (None, {})
    assert (onnx["share_of_bytes"], onnx["share_of_time"]) == (0.4, 2.5)
    assert onnx["points"] == {"value": pytest.approx(-1.0)}
    assert (lite["share_of_bytes"], lite["points"]) == (None, {}), "no float32 file of its target"
    assert views.against_float32(files[:1]) == []


def test_a_paired_interval_of_the_accuracy_drop_is_shown_where_there_is_one():
    drop = {"accuracy_drop": 0.004, "accuracy_drop_interval_95": [-0.001, 0.009]}
    found = views.points({"accuracy": 0.9, **drop}, {"accuracy": 0.95})
    assert found == {"value": pytest.approx(-0.4), "interval": pytest.approx([-0.9, 0.1])}


def test_trials_that_failed_alike_stand_together_most_frequent_first():
    trials = [{"id": f"t{i}", "status": "failed", "error": "out of memory"} for i in range(3)]
    trials.insert(0, {"id": "t9", "status": "diverged", "error": "loss is NaN"})
    trials.append({"id": "t10", "status": "completed"})
    assert views.failures(trials) == [
        {"status": "failed", "error": "out of memory", "ids": ["t0", "t1", "t2"]},
        {"status": "diverged", "error": "loss is NaN", "ids": ["t9"]},
    ]


def test_layers_are_summed_by_kind_and_measured_by_the_dearest():
    rows = [
        {"name": "c1", "kind": "conv", "params": 10, "macs": 100},
        {"name": "d", "kind": "dense", "params": 40, "macs": 40},
        {"name": "c2", "kind": "conv", "params": 20, "macs": 300},
    ]
    found = layers.costs(rows)
    assert [(row["kind"], row["count"], row["params"], row["macs"]) for row in found["kinds"]] == [
        ("conv", 2, 30, 400), ("dense", 1, 40, 40),
    ]  # fmt: skip
    assert found["rows"][0]["shares"] == {"params": 0.25, "macs": pytest.approx(1 / 3)}
    assert found["totals"] == {"params": 70, "macs": 440}
    unknown = layers.costs([*rows, {"name": "x", "kind": "odd"}])
    assert unknown["totals"]["macs"] is None


def test_what_was_asked_is_told_in_words_as_far_as_it_is_known():
    recipe = {
        "data": {"source": "npz", "path": "a.npz", "name": None},
        "search": {"space": ["ds_cnn", "wide_deep"], "oracle": "tpe", "max_trials": 1, "epochs": 6, "seed": 0},
        "train": {"finalists": 4, "epochs": 30, "seeds": 3},
        "ensemble": {"max_members": 2, "keep": "when_better"},
        "compress": {"prune": 0.5, "cluster": None},
        "export": {"targets": ["tflite", "onnx"], "precision": ["float32", "int8"]},
    }
    assert [(row["name"], row["text"]) for row in asked.rows(recipe)] == [
        ("data", "npz, a.npz"),
        ("search", "ds_cnn or wide_deep, tpe, 1 trial, 6 epochs each"),
        ("finalists", "4 networks, 30 epochs each, 3 seeds"),
        ("ensemble", "at most 2 members, kept when better"),
        ("compression", "prune: 0.5"),
        ("files", "tflite and onnx, float32, int8"),
        ("seed", "0"),
    ]
    assert asked.rows({}) == []


def test_figures_of_other_devices_stand_apart():
    rows = [
        {"file": "a.onnx", "device": "host", "quiet_ms": 0.5},
        {"file": "a.onnx", "device": "my-board", "quiet_ms": 0.1},
    ]
    view = views.page({"manifest": {"latency": rows, "files": [{"path": "a.onnx", "role": "model"}]}})
    assert (view["here"], view["elsewhere"]) == (rows[:1], rows[1:])
    assert view["fastest"]["quiet_ms"] == view["files"][0]["latency"]["quiet_ms"] == 0.5
    board = {"device": "my-board", "runtime": "", "max_ms": 0.2}
    assert limits.measured_ms({"latency": rows}, board) == 0.1


@pytest.mark.parametrize("corner", [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0)])
def test_names_beside_points_are_never_cut(corner):
    cut = []

    def paint(axes):
        axes.set(xlim=(0, 1), ylim=(0, 1))
        axes.plot([0, 1], [0, 1], "o")
        svg.name_points(axes, [(*corner, f"a finalist {i}") for i in range(4)])
        renderer = axes.figure.canvas.get_renderer()
        bounds = axes.get_window_extent(renderer)
        cut.extend(svg.is_cut(text.get_window_extent(renderer), bounds) for text in axes.texts)

    svg.draw("corner", "title", paint)
    assert cut == [False] * 4


def test_hyper_parameters_are_told_without_the_name_of_their_space():
    values = {"space": "ds_cnn", "ds_cnn/depth": 2, "ds_cnn/rate": 0.00512345, "ds_cnn/norm": "batch", "units": 8}
    assert formats.choices(values) == "depth 2, rate 0.00512, norm batch, units 8"


def test_gates_are_a_line_for_each_precision_that_was_written():
    limits = {"float32_max_range_error": 2e-5, "int8_min_cosine": 0.99, "int8_max_range_error": 0.5,
              "dynamic_min_cosine": 0.9, "tflm_min_top1": 0.999}  # fmt: skip
    assert matrices.gates(limits, ["float32", "int8", "tflm"]) == {
        "columns": ["max range error", "min cosine", "min top1"],
        "rows": [
            {"name": "float32", "cells": [2e-5, None, None]},
            {"name": "int8", "cells": [0.5, 0.99, None]},
            {"name": "tflm", "cells": [None, None, 0.999]},
        ],
    }
    assert matrices.gates(limits, ["dynamic"])["rows"] == [{"name": "dynamic", "cells": [0.9]}]
    assert matrices.gates({}, []) == {"columns": [], "rows": []}


def test_the_difference_of_a_file_is_the_largest_of_what_is_judged():
    rows = [compared("a.onnx", "test", 1e-7, limit=2e-5), compared("a.onnx", "test", 9e-6, limit=2e-5),
            compared("a.onnx", "probes", 1.0, limit=2e-5), compared("a.onnx", "test", 1.0, limit=2e-5)]  # fmt: skip
    for row, largest in zip(rows, (4e-7, 1e-7, 9e-1, 8e-1), strict=True):
        row["max_abs"] = largest
    rows[2]["gate"], rows[3]["gate"] = "none", "tflm"  # stated only; against LiteRT, not against Keras
    found = views.judged(rows, "a.onnx")
    assert (found["error"], found["max_abs"]) == (9e-6, 4e-7)
    assert views.judged(rows, "b.onnx") == {}
