"""The report and the model card of a made-up run: complete, escaped, self-contained, honest about what is missing."""

import base64
import copy
import io
import json
import re
import time
from html.parser import HTMLParser

import numpy as np
import pytest
import yaml
from PIL import Image

import edgeml.report
from edgeml import manifests, recipe, scaling
from edgeml.ledger import Ledger
from edgeml.report import agreement, formats, limits, plots, search_plots, svg, views
from edgeml.search import candidates
from edgeml.search.space import Space

ATTACK = "<img src=x onerror=alert(1)>"
THIN = "\u202f"
HERE = {"device": "host", "runtime": "onnxruntime", "precision": "int8", "max_ms": 0.02}
VELA = {"device": "ethos-u55-128", "runtime": "vela", "precision": "int8", "max_ms": 0.5}
ST = {"device": "stm32h747-cubeai", "runtime": "cubeai", "precision": "int8", "max_ms": 10.0}


def thumbnail(seed):
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 8), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def trial(i):
    random = np.random.default_rng(i)
    params = int(1500 + 420 * i * random.uniform(0.5, 1.0))
    accuracy = 0.985 - 0.25 * np.exp(-params / 1500) - random.uniform(0, 0.02)
    failed = i in (7, 13)
    return {
        "id": f"t{i:04}",
        "share": ("1", "1/2", "1/3")[i % 3],
        "space": ("ds_cnn", "separable_cnn")[i % 2],
        "hyperparameters": {"width": 8 * (1 + i % 4), "kernel": 3, "activation": "relu"},
        "cost": {
            **{"params": params, "macs": 31 * params, "peak_activation_bytes": 3072},
            "file_bytes": {"tflite": {"float32": 9_000 + 4 * params, "int8": 9_000 + params}},
        },
        "status": ("failed", "diverged")[i % 2] if failed else "completed",
        "metrics": {} if failed else {"val_accuracy": accuracy, "val_loss": 0.3 - accuracy / 5},
        "epochs": [{"loss": 1.0, "val_accuracy": accuracy}] * 6,
        "seconds": 2.5 + i / 10,
        "error": "loss is NaN in epoch 2" if failed else None,
        "finalist": i in (11, 16, 19),
        "predicted_ms": {"host/onnxruntime/int8": params / 4e5, "ethos-u55-128/vela/int8": params / 5e4},
    }


def score(accuracy, samples=180):
    half = 1.96 * (accuracy * (1 - accuracy) / samples) ** 0.5
    return {"accuracy": accuracy, "interval_95": [accuracy - half, min(accuracy + half, 1)], "samples": samples}


def file(path, target, precision, size, **quantization):
    record = {
        "path": path,
        "role": "model",
        "target": target,
        "precision": precision,
        "sha256": "ab" * 32,
        "bytes": size,
    }
    return record | ({"quantization": quantization} if quantization else {})


def parity(path, what, inputs, **figures):
    exact = {
        "max_abs": 3e-7,
        "range_error": 5e-8,
        "error": 5e-8,
        "top1_agreement": 1.0,
        "gate": "float32",
        "limit": 2e-5,
    }
    row = {"file": path, "what": what, "inputs": inputs, "reference": "keras", "samples": 360, "passed": True}
    return row | exact | figures


def latency(path, ms):
    interval = [0.985 * ms, 1.02 * ms]
    return {
        "file": path,
        "runtime": "onnxruntime 1.32.0" if "onnx" in path else "ai-edge-litert 2.3.0",
        "precision": "int8" if "int8" in path else "float32",
        "device": "host",
        "threads": 1,
        **{"quiet_ms": ms, "interval_95": interval, "p50_ms": 1.05 * ms, "p90_ms": 1.4 * ms, "p99_ms": 2.6 * ms},
        **{"noise_floor": 0.011, "predicted_ms": None, "load_ms": 3.9},
    }


def profile(path, run_ms, operators):
    rows = [{"name": str(i), "kind": kind, "ms": ms, "layers": own} for i, (kind, ms, own) in enumerate(operators)]
    about = {"file": path, "threads": 1, "batch": 1, "runs": 1000, "profiler": "whole microseconds, rounded down"}
    return about | {"run_ms": run_ms, "operators": rows, "problem": None}


def member(name, weight):
    cost = {"params": 4061, "macs": 105_000}
    return {"id": name, "weight": weight, "space": "ds_cnn", "hyperparameters": {"width": 16}, "cost": cost}


def split(name, counts):
    return {"name": name, "samples": int(counts.sum()), "per_class": counts.tolist(), "sha256": "56" * 32}


def standings(predicted, measured, predicted_by_vela, compiled, predicted_by_st):
    by_vela, by_st = "Vela 5.2.0, a model of cycles", "prediction with its error (ST model zoo, READMEs of 2024-05)"
    return [
        {**HERE, **judgement(predicted, measured, measured, "measured on this machine")},
        {**VELA, **judgement(predicted_by_vela, None, compiled, by_vela)},
        {**ST, **judgement(predicted_by_st, None, 1.2 * predicted_by_st, by_st)},
    ]


def judgement(predicted, measured, judged, by):
    return {"predicted_ms": predicted, "measured_ms": measured, "judged_ms": judged, "judged_by": by}


def rival(name, accuracy, ships=False):
    return {
        **{"name": name, "ids": ["t0011"], "weights": [1.0], "mean": "arithmetic", "ships": ships, "samples": 360},
        **{"blend_log_loss": 0.06, "test_accuracy": accuracy, "test_interval_95": [accuracy - 0.01, accuracy + 0.01]},
        **{"mcnemar_p": None if ships else 0.031, "test_log_loss": 0.05, "calibration_error": 0.012},
        **{"params": 4061, "macs": 125891, "bytes": 24_000, "quiet_ms": 0.02, "latency_interval_95": [0.019, 0.021]},
    }


def device(limit, version, source, held_out):
    random = np.random.default_rng(5)
    measured = np.geomspace(0.008, 0.4, 10) if held_out else np.zeros(0)
    return {
        **{"name": limit["device"], "runtime": limit["runtime"], "precision": limit["precision"]},
        **{"runtime_version": version, "source": source, "description": "Some device at 3 GHz", "judge": "measured"},
        **{"error": {"p5": 0.938, "p50": 1.0, "p95": 1.071}, "networks": 50, "held_out": held_out},
        "held_out_measured_ms": measured.tolist(),
        "held_out_predicted_ms": (measured * random.uniform(0.92, 1.08, len(measured))).tolist(),
    }


def manifest():
    int8_gate = {
        "gate": "int8 SQNR, dB",
        "limit": 15,
        "error": 28.4,
        "sqnr_db": 28.4,
        "cosine": 0.99931,
        "range_error": 0.012,
    }
    calibration = {"split": "train", "samples": 256, "sha256": "cd" * 32}
    uint8 = {"dtype": "uint8", "scale": 16 / 255, "zero_point": 0}
    int8 = {"dtype": "int8", "scale": 16 / 255, "zero_point": -128}
    files = [
        file("model.onnx", "onnx", "float32", 36_412),
        file("model.tflite", "tflite", "float32", 37_904),
        file("model_int8.onnx", "onnx", "int8", 21_130, method="ptq", input=uint8, calibration=calibration),
        file(
            "model_int8.tflite",
            "tflite",
            "int8",
            18_264,
            method="ptq",
            input=int8,
            calibration=calibration,
            output={"dtype": "int8", "scale": 1 / 256, "zero_point": -128},
        ),
        {"path": "labels.txt", "role": "labels", "bytes": 20, "sha256": "ef" * 32},
    ]
    tests = {"model.onnx": 356, "model.tflite": 356, "model_int8.onnx": 355, "model_int8.tflite": 354}
    quiet = {"model.onnx": 0.0213, "model.tflite": 0.0187, "model_int8.onnx": 0.0174, "model_int8.tflite": 0.0141}
    return {
        "schema_version": 1,
        "name": "digits",
        "edgeml": "0.1.0",
        "created": "2026-11-22T12:00:00Z",
        "golden": {
            "model.onnx": {"reference": "outputs", "max_abs_limit": 1e-4, "top1_agreement_min": 1.0},
            "model_int8.onnx": {"reference": "expected", "max_abs_limit": 1 / 16, "top1_agreement_min": 0.95},
        },
        "task": {"kind": "classification", "labels": [str(i) for i in range(10)]},
        "input": {
            **{"name": "image", "shape": [8, 8, 1], "dtype": "float32", "layout": "NHWC"},
            **{"range": [0, 16], "meaning": "raw pixel values"},
        },
        "output": {"name": "probabilities", "shape": [10], "meaning": "probabilities"},
        "files": files,
        "members": [member("t0011", 0.62), member("t0019", 0.38)],
        "cost": {"params": 8_123, "macs": 210_312, "peak_activation_bytes": 4096, "arena_bytes": {"int8": 9000}},
        "budget": {
            "asked": {"params": 10_000, "macs": 1_000_000, "latency": [HERE, VELA, ST]},
            "violations": [],
            "latency": standings(0.0181, 0.0174, 0.31, 0.327, 5.2),
        },
        "folding": {
            "folded": ["t0011_bn_1", "t0011_bn_2", "t0019_bn_1"],
            "kept": [{"layer": "t0019_bn_9", "reason": "two layers read what comes before it"}],
        },
        "metrics": [{"file": one, "split": "test", **score(right / 360, 360)} for one, right in tests.items()],
        "parity": [
            parity("model.keras", "trained = folded", "test", max_abs=2e-7, error=9e-9),
            *(parity(one, "file = folded", inputs) for one in list(tests)[:2] for inputs in ("test", "extreme")),
            *(parity(one, "file = folded", "test", max_abs=0.031, **int8_gate) for one in list(tests)[2:]),
        ],
        "latency": [latency(one, ms) for one, ms in quiet.items()],
        "recipe_sha256": "12" * 32,
        "data_sha256": "34" * 32,
        "versions": {"tensorflow": "2.21.0", "keras": "3.15.1", "onnxruntime": "1.32.0"},
        "machine": {"cpu": "Some CPU at 3 GHz", "cores": 2, "flags": ["avx2", "avx512f"], "load_1min": 3.283203125},
    }


def finalist(name, params, accuracies, *, chosen):
    here, by_vela, by_st = standings(params / 4e5, params / 3.9e5, params / 5e4, params / 4.8e4, params / 2e3)
    splits = ("validation", "blend", "test")
    scores = {f"{splits[i]}_accuracy": score(accuracies[i], (180, 180, 360)[i]) for i in range(3)}
    return {
        "id": name,
        "cost": {"params": params, "macs": 31 * params},
        **scores,
        "blend_log_loss": 0.081,
        "latency": [{**row, "ms": row.pop("measured_ms")} for row in (here, by_vela, by_st)],
        "chosen": chosen,
    }


def made_up():
    labels = [str(i) for i in range(10)]
    matrix = np.diag([36, 35, 36, 37, 35, 37, 36, 35, 33, 35])
    matrix[8, 1], matrix[9, 3], matrix[3, 8], matrix[8, 2] = 2, 1, 1, 1
    counts = np.array([99, 102, 101, 103, 101, 102, 101, 100, 97, 100])
    return {
        "manifest": manifest(),
        "recipe": {
            **{"schema_version": 1, "name": "digits", "data": {"source": "digits"}},
            **{"search": {"space": ["ds_cnn"], "max_trials": 20, "oracle": "bayesian", "epochs": 6}},
            "train": {"epochs": 70, "finalists": 3, "seeds": 1},
        },
        "command": "edgeml run recipes/digits.yaml",
        "trials": [trial(i) for i in range(1, 21)],
        "refused": {"params": 12, "macs": 0, "latency": 7, "not_measured": 3},
        "devices": [
            device(VELA, "5.2.0", "tools/vela_against_model --fit", {}),
            device(
                HERE,
                "1.32.0",
                "calibrated on 50 random networks, 3 rounds, in 41 seconds",
                {"p50": 0.031, "p90": 0.074, "networks": 10},
            ),
            device(ST, "8.1.0", "ST model zoo, READMEs of 2024-05", {}),
        ],
        "finalists": [
            finalist("t0011", 4061, (0.989, 0.983, 0.981), chosen=True),
            finalist("t0019", 4062, (0.983, 0.978, 0.978), chosen=True),
            finalist("t0016", 5944, (0.994, 0.978, 0.975), chosen=False),
        ],
        "ensemble": {
            "members": [{"id": "t0011", "weight": 0.62}, {"id": "t0019", "weight": 0.38}],
            "mean": "arithmetic",
            "weights_method": "nelder-mead",
            "kept": "ensemble",
            "reason": "Two members lower the blend log loss by 0.021, more than the noise of the blend split.",
            "single_blend_log_loss": 0.081,
            "steps": [
                {"size": 2, "loss": 0.06, "against": 1, "gain_95": [0.01, 0.03], "taken": True},
                {"size": 3, "loss": 0.059, "against": 2, "gain_95": [-0.01, 0.01], "taken": False},
            ],
            "proof": {"file": "model.tflite", "rows": [rival("the ensemble", 0.989, True), rival("single", 0.981)]},
            "diversity": {
                "ids": ["t0011", "t0019"],
                "disagreement": [[0, 0.021], [0.021, 0]],
                "double_fault": [[0.02, 0.01], [0.01, 0.02]],
                "error_correlation": [[1, 0.4], [0.4, 1]],
            },
        },
        "baselines": [
            {"name": "majority class", "test_accuracy": 0.1028, "interval_95": [0.075, 0.139], "samples": 360},
            {"name": "logistic regression", "test_accuracy": 0.9667, "interval_95": [0.942, 0.981], "samples": 360},
        ],
        "splits": [
            split(name, (counts * share).astype(int))
            for name, share in (("train", 1.0), ("validation", 0.18), ("blend", 0.18), ("test", 0.36))
        ],
        "data_notes": ["3 images occur twice; both copies are in train"],
        "confusion": {"file": "model_int8.tflite", "labels": labels, "matrix": matrix.tolist()},
        "worst": [
            {"label": "8", "predicted": "1", "confidence": 0.97 - 0.05 * i, "png_base64": thumbnail(i)}
            for i in range(6)
        ],
        "layers": [
            {"name": f"layer_{i}", "kind": "Conv2D", "output_shape": [8, 8, 16], "params": 144, "macs": 9216}
            for i in range(12)
        ],
        "operators": [
            profile("model.onnx", 0.04, [("Softmax", 0.002, ["softmax"]), ("Conv", 0.0123, ["conv_0", "act_0"])]),
            profile("model.tflite", 0.009, [("Mean (ND)", 0.0, []), ("Softmax", 0.0, ["softmax"])]),
            {"file": "model_int8.tflite", "threads": 1, "batch": 1, "problem": "LiteRT's profiler cannot run it"},
        ],
        "gates": {"float32_max_range_error": 2e-5, "int8_sqnr_db": 15, "int8_max_accuracy_drop": 0.01},
        "seconds": {"search": 61.2, "train": 40.0, "export": 22.9, "verify": 8.1, "benchmark": 3.0},
    }


@pytest.fixture
def report():
    return made_up()


@pytest.fixture
def undrawn(monkeypatch):
    """Leave the plots out, where words alone are looked at: they take nearly all of the time."""
    monkeypatch.setattr(plots, "every", lambda view: {})


@pytest.fixture(scope="module")
def page():
    """The page of the whole report, drawn once."""
    return edgeml.report.html(made_up())


class Page(HTMLParser):
    """What a browser would see: the tags with their attributes, and the text inside and outside of SVG."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.drawn, self.depth = [], "", "", 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.depth += tag == "svg"

    def handle_endtag(self, tag):
        self.depth -= tag == "svg"

    def handle_data(self, data):
        self.text += data
        self.drawn += data if self.depth else ""

    def all(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


STRUCTURE = {
    "role",
    "status",
    "split",
    "target",
    "precision",
    "gate",
    "runtime",
    "device",
    "dtype",
    "layout",
    "png_base64",
}


def poisoned(value, key=None):
    """Put an attack into every text that comes from outside."""
    if isinstance(value, dict):
        return {
            (f"{ATTACK}{name}" if key in ("versions", "machine", "refused", "seconds", "gates") else name): poisoned(
                one, name
            )
            for name, one in value.items()
        }
    if isinstance(value, list):
        return [poisoned(one, key) for one in value]
    return f"{ATTACK}{value}" if isinstance(value, str) and key not in STRUCTURE else value


def headings(text):
    return re.findall(r"<h2>(.*?)</h2>", text)


def test_the_page_fetches_nothing_and_runs_nothing(page):
    page = Page(page)
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in page.tags}
    policy = next(one["content"] for one in page.all("meta") if one.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")
    assert len(page.all("img")) == 6
    assert all(one["src"].startswith("data:image/png;base64,iVBOR") for one in page.all("img"))
    assert all(one.get("href", one.get("xlink:href", "#")).startswith("#") for _, one in page.tags)
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    everything = page.text + " ".join(value or "" for _, attributes in page.tags for value in attributes.values())
    assert not re.search(
        r"url\((?!#)|@import|https?:|//[a-z]|javascript:", everything.replace("data:image/png;base64,", "")
    )


def test_every_text_from_outside_stays_text_also_inside_plots(report, page):
    plain, page = Page(page), Page(edgeml.report.html(poisoned(report)))
    assert len(page.all("img")) == 6
    assert all(one["src"].startswith("data:image/png;base64,iVBOR") for one in page.all("img"))
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert {tag for tag, _ in page.tags} == {tag for tag, _ in plain.tags}
    assert page.text.count(ATTACK) > 100
    assert ATTACK[:20] in page.drawn  # names beside plots are cut, not trusted


def test_a_class_called_like_an_attack_is_drawn_as_text(report):
    report["manifest"]["task"]["labels"][3] = report["confusion"]["labels"][3] = "<script>x</script>"
    page = Page(edgeml.report.html(report))
    assert not page.all("script")
    assert "<script>x</script>" in page.drawn
    assert page.text.count("<script>x</script>") > page.drawn.count("<script>x</script>")


@pytest.mark.parametrize("label", ["$\\frac{x$", "$x^2$", "手書き", "_hidden", 'a" id="b', "style: #010203"])
def test_odd_class_names_are_drawn_as_they_are(report, label):
    report["manifest"]["task"]["labels"][0] = label
    assert label in Page(plots.balance(views.page(report)["balance"])).drawn


def test_sections_come_in_their_order(page):
    assert headings(page) == [
        "The files",
        "What was asked",
        "Accuracy per split",
        "What the network adds",
        "The search",
        "Does every file compute what Keras computed?",
        "Latency",
        "Predicted against measured",
        "The ensemble",
        "Batch normalization, folded away",
        "Where it goes",
        "Precisions",
        "Where it errs",
        "The data",
        "Failures of trials",
        "Gates",
        "Environment",
        "Make it again",
    ]


def test_the_first_sentence_says_what_came_out(page):
    lead = re.search(r'<p class="lead">(.*?)</p>', page, re.DOTALL)[1]
    sentence = " ".join(re.sub(r"<[^>]+>", "", lead).replace(THIN, "_").split())
    assert sentence == (
        "Right on 98.9 % [97.8, 100.0] of 360 test samples in float32 and 98.6 % [97.4, 99.8] of them in int8, with "
        "8_123 parameters and 210_312 multiply-accumulates; the smallest file has 18_264 bytes, the fastest answers in "
        "0.0141 ms (model_int8.tflite, ai-edge-litert 2.3.0, 1 thread)."
    )


@pytest.mark.usefixtures("undrawn")
def test_a_latency_of_a_batch_says_so_wherever_it_stands(report):
    for row in report["manifest"]["latency"]:
        row["batch"] = 4
    text = text_of(edgeml.report.html(report))
    assert "0.0141 ms (model_int8.tflite, ai-edge-litert 2.3.0, 1 thread, a batch of 4)." in text
    assert "fastest answer0.0141 msai-edge-litert 2.3.0, 1 thread, a batch of 4" in text
    assert "Quiet latency: a batch of 4, the 10th percentile" in text
    assert "Measured, a batch of 4 at a time: onnxruntime's session.run, of LiteRT invoke() with the input" in text
    card = edgeml.report.model_card(report)
    assert "0.0141 ms for a batch of 4 (" in card
    assert "Quiet latency: a batch of 4, 10th" in card


@pytest.mark.usefixtures("undrawn")
def test_what_parity_warns_of_is_on_both_pages(report):
    row = next(row for row in report["manifest"]["parity"] if row["file"] == "model_int8.onnx")
    row["warnings"] = ["SQNR 17.2 dB < 20 dB; look at its accuracy"]
    assert "SQNR 17.2 dB < 20 dB; look at its accuracy" in Page(edgeml.report.html(report)).text
    assert "- `model_int8.onnx`: SQNR 17.2 dB \\< 20 dB; look at its accuracy\n" in edgeml.report.model_card(report)


def test_the_figures_are_on_the_page(page):
    text = Page(page).text
    for figure in (
        "98.3 % [97.0, 99.7] n=360",  # int8 TFLite
        f"8{THIN}123 of 10{THIN}000 81 %",  # budget
        "12 by parameters",
        "searchds_cnn, bayesian, 20 trials, 6 epochs each",
        "finalists3 networks, 70 epochs each",
        "0.0174 ms of 0.0200 ms 87 %",  # the int8 ONNX file under its latency limit
        "model.onnx within 1e-4 of Keras, 100 % of decisions; model_int8.onnx within 0.0625 of itself as it was proven",
        "10.3 % [7.5, 13.9] n=360",  # majority class
        "trained = folded test, n=360",
        "28.4 dB0.9993",
        "on 2026-11-22T12:00:00Z",
        "two layers read what comes before it",
        "256 samples of train",
        "5 mistakes in 360 test samples",
        "3 images occur twice",
        "loss is NaN in epoch 2",
        "load 1min3.28",
        "model_int8.onnxonnxruntime 1.32.0, 1 thread, host0.0174[0.0171, 0.0177]",  # its times
        "1 min 01 s",
        "edgeml run recipes/digits.yaml",
        "max_trials: 20",
        f"total{12 * 144:,}".replace(",", THIN),
        "budget 10\u202fk",
    ):
        assert figure in text, figure
    assert "None" not in text
    assert "nan" not in text.replace("finan", "")


@pytest.mark.usefixtures("undrawn")
def test_validation_blend_and_test_stand_side_by_side(report):
    counts = {"folds": 5, "trials_compared": 20, "finalists_compared": 3, "sets_compared": 7, "sets_cross_fitted": 4}
    splits = {"validation": score(0.991), "blend": score(0.985), "test": score(0.972, 360)}
    report["manifest"]["selection"] = splits | counts
    mean = {"seeds": 3, "mean": 0.981, "standard_deviation": 0.0042}
    report["seeds"] = [{"id": "t0011", **{f"{name}_accuracy": mean for name in splits}}]
    text = " ".join(Page(edgeml.report.html(report)).text.split())
    told = re.search(
        r"validation\s*steered the search(.*?)blend\s*chose members and weights(.*?)test\s*read once(.*?)95 %", text
    )
    assert [one.split("[")[0].strip() for one in told.groups()] == ["99.1 %", "98.5 %", "97.2 %"]
    assert all("[" in one for one in told.groups())
    assert "Compared were 20 trials on validation and 7 sets of 3 finalists on blend" in text
    assert "weights were fitted for 4 of these sets. Members and weights were chosen anew for each of 5 folds" in text
    assert re.search(r"t0011\s*3\s*98.1 % ± 0.4", text)
    card = edgeml.report.model_card(report)
    assert "7 sets of 3 finalists on blend (weights fitted for 4; the choice is cross-fitted, 5 folds)" in card
    assert "| test | read once | 97.2 %" in card


def test_the_objective_of_the_search_is_what_is_shown_of_it(report):
    report["recipe"]["search"]["objective"] = "val_balanced_accuracy"
    for one in report["trials"]:
        if one["metrics"]:
            one["metrics"]["val_balanced_accuracy"] = 1 - one["metrics"]["val_accuracy"]
    view = views.page(report)
    assert view["best"]["metrics"]["val_accuracy"] == min(t["metrics"].get("val_accuracy", 1) for t in report["trials"])
    assert "Balanced validation accuracy over the trials" in edgeml.report.html(report)


@pytest.mark.usefixtures("undrawn")
def test_steps_above_float32_are_not_below_it(report):
    int8 = report["manifest"]["files"][3]["quantization"]
    step = {"what": "", "accuracy": 0.98, "sqnr_db": 28.4, "cosine": 0.999, "samples": 90, "is_kept": False}
    int8["steps"] = [{**step, "name": "ptq", "accuracy_drop": 0.02}, {**step, "name": "qat", "accuracy_drop": -0.0056}]
    text = Page(edgeml.report.html(report)).text
    assert "int8ptq98.0 %−2.0028.4 dB" in text
    assert "int8qat98.0 %+0.5628.4 dB" in text


@pytest.mark.usefixtures("undrawn")
def test_balanced_accuracy_stands_beside_accuracy(report):
    row = report["manifest"]["metrics"][0]
    assert "balanced" not in Page(edgeml.report.html(report)).text
    row |= {"balanced_accuracy": 0.812, "balanced_interval_95": [0.75, 0.86]}
    assert "balanced 81.2 % [75.0, 86.0]" in Page(edgeml.report.html(report)).text
    assert "mean recall of the classes 81.2 % [75.0, 86.0]" in edgeml.report.model_card(report)


def test_plots_follow_the_page(report):
    drawn = plots.every(views.page(report))
    paretos = ("pareto_macs", "pareto_params", "pareto_file_bytes", "pareto_latency_3", "pareto_latency_4")
    assert set(drawn) == {*paretos, "history", "balance", "finalists", "baselines", "latency", "agreement"}
    for name, plot in drawn.items():
        colours = set(re.findall(r"#[0-9a-fA-F]{6}\b", plot))
        assert colours <= {"#000000"}, name  # stand-ins became variables (black: the invisible outline of nothing)
        assert "var(--accent)" in plot
        assert len(plot) < 60_000
        assert "<text" in plot
        assert "metadata" not in plot
    for name in ("t0011", "t0016", "t0019"):
        assert name in Page(drawn["pareto_macs"]).drawn


def paretos(report):
    view = views.page(report)
    return [search_plots.pareto(view, axis) for axis in view["axes"][:2]]


@pytest.mark.usefixtures("undrawn")
def test_the_front_of_the_search_is_marked_in_plots_and_table(report):
    without = edgeml.report.html(copy.deepcopy(report))  # an old report knows no front
    assert "◇" not in without
    assert "Pareto front" not in without
    plain = paretos(report)
    for one in report["trials"]:
        one["front"] = one["id"] in ("t0001", "t0011", "t0020")
    report["front_objectives"] = ["val_accuracy", "macs"]
    assert [one.count("<use ") for one in paretos(report)] == [one.count("<use ") + 3 for one in plain]
    page = edgeml.report.html(report)
    assert re.findall(r"<td>(t\d+) ◇</td>", page) == ["t0001", "t0011", "t0020"]
    assert "<td>t0002</td>" in page, "a trial beside the front has no mark at all"
    assert "<dd>t0001, t0011, t0020 (validation accuracy, MACs)</dd>" in page


@pytest.mark.usefixtures("undrawn")
def test_a_finalist_that_was_cut_says_so(report):
    assert 'epochs</th><th class="n">params' not in edgeml.report.html(report)
    report["finalists"][0] |= {"epochs": 41, "planned_epochs": 60}
    report["finalists"][1] |= {"epochs": 60, "planned_epochs": 60}
    page = edgeml.report.html(report)
    assert [f'<td class="n">{text}</td>' in page for text in ("41 of 60", "60", "60 of 60")] == [True, True, False]


def test_ids_are_unique_and_every_reference_hits(page):
    text, page = page, Page(page)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    references = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', text))
    assert references
    assert {one or other for one, other in references} <= set(ids)


def test_the_same_report_gives_the_same_bytes(report, page):
    assert edgeml.report.html(report) == page
    assert edgeml.report.model_card(report) == edgeml.report.model_card(copy.deepcopy(report))


def without(report):
    """Give the report again and again, each time with another key lost, also inside the manifest."""
    for part in (None, "manifest"):
        for key in report[part] if part else report:
            less = copy.deepcopy(report)
            (less[part] if part else less)[key] = None
            yield key, less


def test_null_and_missing_are_the_same_thing(report):
    assert views.present({"a": None, "b": [{"c": float("nan"), "d": 0}, None]}) == {"b": [{"d": 0}, None]}


def test_missing_keys_print_as_dashes_and_nothing_is_made_up(report):
    report.update(trials=report["trials"][6:7], splits=[], finalists=[], baselines=[])  # few plots: the loop is long
    report["manifest"]["latency"] = report["manifest"]["latency"][:1]
    report["manifest"]["budget"]["latency"][0]["measured_ms"] = None
    for key, less in without(report):
        for made in (Page(edgeml.report.html(less)).text, edgeml.report.model_card(less)):
            assert not re.search(r"\bNone\b|\bnan\b|Undefined", made.replace("session.run(None, ", "")), key


def test_rows_that_know_little_are_drawn_as_far_as_they_go(report):
    report.update(
        trials=[{"id": "bare"}, {"metrics": {"val_accuracy": 0.5}}, {"cost": {"params": 5}}, report["trials"][0]],
        finalists=[{"id": "f"}, {"id": "g", "test_accuracy": {"accuracy": 0.9}}],
        baselines=[{"name": "b"}, {"test_accuracy": 0.5}],
        splits=[{"name": "train"}, *report["splits"]],
        confusion={"labels": []},
        layers=[{"name": "l"}],
        operators=[{"file": "model.onnx"}, {"file": "model.onnx", "run_ms": 0.1}],
    )
    report["manifest"]["latency"] = [{"file": "model.onnx"}, {"quiet_ms": 0.1}]
    report["manifest"]["parity"] = [{"file": "model.onnx"}, {}]
    page = Page(edgeml.report.html(report))
    assert {attributes["aria-label"] for attributes in page.all("svg")} == {
        "Validation accuracy over parameters",
        "Validation accuracy over bytes of the largest file, predicted",
        "Validation accuracy over predicted latency, host onnxruntime int8, ms",
        "Validation accuracy over predicted latency, ethos-u55-128 vela int8, ms",
        "Validation accuracy over multiply-accumulates",
        "Validation accuracy over the trials",
        "Accuracy of the finalists per split",
        "Test accuracy against baselines",
        "Predicted against measured latency, host onnxruntime int8",
        "Quiet latency per file",
        "Samples per class and split",
    }
    assert "None" not in page.text


def test_nothing_known_is_still_a_page():
    for empty in ({}, {"manifest": {}}, {"manifest": {"files": [{"path": "model.onnx", "role": "model"}]}}):
        page = Page(edgeml.report.html(empty))
        assert "–" in page.text
        assert not page.all("svg")
        assert edgeml.report.model_card(empty).startswith("---\nlibrary_name: edgeml\n")
    assert headings(edgeml.report.html({})) == ["Environment"]


@pytest.mark.usefixtures("undrawn")
def test_null_figures_inside_rows_are_dashes(report):
    row = report["manifest"]["latency"][0]
    row.update(quiet_ms=None, interval_95=None, noise_floor=float("nan"))
    report["finalists"][0]["test_accuracy"] = None
    report["baselines"][0]["test_accuracy"] = None
    rows = re.findall(r"<tr.*?</tr>", edgeml.report.html(report), re.DOTALL)
    assert any("t0011" in one and one.count("–") == 1 for one in rows)
    assert any("majority class" in one and "–" in one for one in rows)
    assert any("model.onnx" in one and "1 thread" in one and one.count("–") == 3 for one in rows)


@pytest.mark.usefixtures("undrawn")
def test_a_failed_gate_and_a_broken_budget_are_shown_as_such(report):
    report["manifest"]["parity"][2].update(passed=False, error=3e-4)
    report["manifest"]["budget"].update(asked={"params": 8_000}, violations=["params 8,123 > 8,000"])
    text = edgeml.report.html(report)
    assert '3e-4 / 2e-5 <span class="bad">failed</span>' in text
    assert '<p class="bad">params 8,123 &gt; 8,000</p>' in text
    assert re.search(r'class="over".*?102 %.*?width: 100.0%', text, re.DOTALL)


@pytest.mark.usefixtures("undrawn")
def test_many_classes_are_listed_instead_of_drawn(report):
    matrix = np.eye(60, dtype=int) * 5
    matrix[2, 3] = 4
    labels = [f"class {i}" for i in range(60)]
    report["confusion"] = {"file": "model.onnx", "labels": labels, "matrix": matrix.tolist()}
    report["manifest"]["task"]["labels"] = labels
    report["splits"][0]["per_class"] = [5] * 60
    view = views.page(report)
    assert view["confusions"]["rows"] == []
    assert view["confusions"]["wrong"] == [{"label": "class 2", "predicted": "class 3", "count": 4, "share": 4 / 9}]
    assert plots.balance(view["balance"]) is None
    assert "class 3" in Page(edgeml.report.html(report)).text


def ledger_of(path, trials):
    """Write the ledger of a search as the search does, of 20 epochs a trial."""
    ledger = Ledger(path)
    for one in trials:
        told = {key: one[key] for key in ("hyperparameters", "cost", "share", "predicted_ms")}
        ledger.append("trial_started", one["id"], **told, attempt=1)
        for epoch in range(20):
            ledger.append("epoch", one["id"], epoch=epoch, metrics={"loss": 1.5 / (1 + epoch), "val_loss": 0.5})
        ended = {key: one[key] for key in ("status", "metrics", "seconds", "error")}
        ledger.append("trial_ended", one["id"], **ended, attempt=1, built_cost=one["cost"])


def test_a_search_of_two_hundred_trials_makes_a_small_page_in_time(report, tmp_path, monkeypatch):
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    ledger_of(tmp_path / "ledger.jsonl", [trial(i) for i in range(1, 201)])
    search = recipe.Search(space=("ds_cnn", "separable_cnn"), max_trials=200)
    space = Space(search.space, (8, 8, 1), 10, scaling.rescale((0, 16)))
    start = time.process_time()
    found = candidates.finished(Ledger(tmp_path / "ledger.jsonl"), space)
    report |= manifests.trials_json(found, {"t0011", "t0016", "t0019"}, search)
    manifests.write_pages(tmp_path, report)
    seconds = time.process_time() - start
    page = (tmp_path / "report.html").read_text("utf-8")
    assert len(found) == 200
    assert page.count('<td class="n">20</td>') >= 198, "all trials are in the table"
    assert page.count("<use ") > 5 * 198, "and a dot each in every plot"
    print(f"{len(page.encode()):,} bytes in {seconds:.1f} s of a processor")
    assert len(page.encode()) < 3e6
    assert seconds < 20
    machines = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert machines["trials"][0]["id"] == "t0001"
    assert len(machines["trials"]) == 200


def test_a_latency_limit_is_held_against_the_slowest_file_it_speaks_about(report):
    limit = HERE
    slow = {**report["manifest"]["latency"][2], "quiet_ms": 0.5}
    report["manifest"]["latency"].append(slow)
    assert limits.measured_ms(report["manifest"], limit) == 0.5
    assert limits.measured_ms(report["manifest"], {**limit, "runtime": "tflm"}) is None
    del slow["precision"]  # an old manifest: the precision is that of the file
    assert limits.measured_ms(report["manifest"], limit) == 0.5


def test_the_time_of_each_operator_stands_dearest_first_with_what_is_left(page):
    section = page[page.index("The time of each operator") : page.index("<h2>Precisions")]
    assert re.findall(r"<summary><code>(.*?)</code>", section) == ["model.onnx", "model.tflite"]
    lines = [text_of(line) for line in re.findall(r"<tr>.*?</tr>", section, re.DOTALL)]
    assert [line for line in lines if "operator, layers" not in line] == [
        "Convconv_0, act_012.330.8 %", "Softmaxsoftmax2.005.0 %",
        "outside of operators, and rounding25.764.2 %", "the whole run40.0",
        "outside of operators, and rounding; 2 operators not seen9.00100.0 %", "the whole run9.00",
    ]  # fmt: skip
    assert "whole microseconds, rounded down; 1 thread; 1 000 of 2 000 runs" in text_of(section).replace(THIN, " ")
    assert "model_int8.tflite: not profiled; LiteRT's profiler cannot run it" in text_of(section)


@pytest.mark.usefixtures("undrawn")
def test_a_long_profile_is_folded_away(report):
    long = profile("model.onnx", 1.0, [("Conv", 0.01, [f"conv_{i}"]) for i in range(13)])
    report["operators"] = [long, {**report["operators"][0], "batch": 4}]
    summaries = re.findall(r"<details( open)?><summary><code>(.*?)</code> (.*?)</summary>", edgeml.report.html(report))
    assert summaries == [
        ("", "model.onnx", "1.00 ms a profiled run"),
        (" open", "model.onnx", "0.0400 ms a profiled run, a batch of 4"),
    ]


def text_of(made):
    return " ".join(Page(made).text.split())


def test_each_latency_limit_says_what_was_judged_and_by_whom(report, page):
    text = text_of(page)
    for line in (
        "latency, host onnxruntime int8 0.0174 ms of 0.0200 ms 87 % measured on this machine; predicted 0.0181 ms",
        "latency, ethos-u55-128 vela int8 0.327 ms of 0.500 ms 65 % Vela 5.2.0, a model of cycles; predicted 0.310 ms",
        "latency, stm32h747-cubeai cubeai int8 6.24 ms of 10.0 ms 62 % prediction with its error (ST model zoo",
    ):
        assert line in text, line
    card = edgeml.report.model_card(report)
    assert [line for line in card.splitlines() if line.startswith("- Latency on")] == [
        "- Latency on host onnxruntime int8: 0.0174 ms of at most 0.0200 ms (measured on this machine; predicted"
        " 0.0181 ms)",
        "- Latency on ethos-u55-128 vela int8: 0.327 ms of at most 0.500 ms (Vela 5.2.0, a model of cycles; predicted"
        " 0.310 ms)",
        "- Latency on stm32h747-cubeai cubeai int8: 6.24 ms of at most 10.0 ms (prediction with its error (ST model"
        " zoo, READMEs of 2024-05); predicted 5.20 ms)",
    ]


@pytest.mark.usefixtures("undrawn")
def test_a_bundle_from_before_device_profiles_keeps_its_latency_limit(report):
    report["devices"] = report["manifest"]["budget"]["latency"] = None
    report["manifest"]["budget"]["asked"]["latency"] = [HERE]
    for one in report["finalists"]:
        one["latency"] = [{"runtime": "onnxruntime", "precision": "int8", "ms": 0.011, "max_ms": 0.02}]
    page = edgeml.report.html(report)
    assert "latency, host onnxruntime int8 0.0174 ms of 0.0200 ms 87 %" in text_of(page)
    assert "Predicted against measured" not in page
    assert re.search(r"<td>t0011 ●</td>(<td class=\"n\">[^<]*</td>){4}</tr>", page)
    assert '<td class="n">–</td><td class="n">0.0110 ms</td><td class="n">–</td><td class="n">0.0200 ms</td>' in page
    assert "- Latency on host onnxruntime int8: 0.0174 ms of at most 0.0200 ms\n" in edgeml.report.model_card(report)
    report["manifest"]["budget"]["asked"]["latency"] = None
    assert "Latency on" not in edgeml.report.model_card(report)


def test_predicted_and_measured_latency_of_finalists_are_two_columns(page):
    rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall(r"<tr.*?</tr>", page, re.DOTALL)]
    head = rows.index(["finalist", "predicted", "measured", "judged", "limit"])
    assert rows[head + 1] == ["host onnxruntime int8: measured on this machine"]
    assert rows[head + 2] == ["t0011 ●", "0.0102 ms", "0.0104 ms", "0.0104 ms", "0.0200 ms"]
    assert rows[head + 5] == ["ethos-u55-128 vela int8: Vela 5.2.0, a model of cycles"]
    assert rows[head + 6] == ["t0011 ●", "0.0812 ms", "–", "0.0846 ms", "0.500 ms"]


def test_the_device_profiles_are_listed_with_their_errors(page):
    text = text_of(page)
    row = r"host\s*onnxruntime 1.32.0\s*int8\s*50\s*−6.2 % to \+7.1 %\s*3.1 %\s*7.4 % n=10\s*calibrated on 50"
    assert re.search(row, text)
    assert re.search(r"vela 5.2.0\s*int8\s*50\s*−6.2 % to \+7.1 %\s*–\s*–\s*tools", text)
    assert "7 by latency, 3 by holding an operator that the device profile has not measured" in text


def test_the_plot_of_predictions_is_of_the_first_limit_that_was_measured_here(report):
    shown = views.page(report)["agreement"]
    assert shown["limit"]["where"] == "host onnxruntime int8"
    assert [len(shown[name]) for name in ("held_out", "finalists", "shipped")] == [10, 3, 1]
    assert shown["shipped"] == [(0.0181, 0.0174, None)]
    drawn = Page(agreement.agreement(shown)).drawn
    for name in ("t0011", "t0016", "t0019", "limit 0.02 ms", "the graph that ships", "predicted, ms", "measured, ms"):
        assert name in drawn, name


def test_what_lacks_one_of_the_two_figures_is_not_drawn(report):
    report["manifest"]["budget"]["latency"][0]["predicted_ms"] = None  # an ensemble: nothing predicts its mean
    report["finalists"][0]["latency"][0]["ms"] = None
    shown = views.page(report)["agreement"]
    assert [len(shown[name]) for name in ("held_out", "finalists", "shipped")] == [10, 2, 0]
    assert "The graph that ships is not drawn" in edgeml.report.html(report)
    report["devices"], report["finalists"] = [], []
    assert agreement.agreement(views.page(report)["agreement"]) is None


@pytest.mark.usefixtures("undrawn")
def test_a_limit_that_others_judged_has_words_and_no_plot(report):
    report["manifest"]["budget"]["asked"]["latency"] = [VELA, ST]
    assert agreement.agreement(views.page(report)["agreement"]) is None
    text = text_of(edgeml.report.html(report))
    assert "ethos-u55-128 vela int8: 0.327 ms of 0.500 ms, Vela 5.2.0, a model of cycles; predicted 0.310 ms" in text


def test_a_limit_is_drawn_beside_the_files_that_it_speaks_about(report):
    lite = {"device": "host", "runtime": "litert", "precision": "float32", "max_ms": 0.5}
    report["manifest"]["latency"][1]["runtime"] = "LiteRT 2.3.0"  # as the runtime calls itself
    report["manifest"]["budget"]["asked"]["latency"] = [HERE, VELA, ST, lite]
    rows = plots.latency_rows(views.page(report))
    assert [row["limit"] for row in rows] == [None, 0.5, 0.02, None]
    drawn = plots.intervals("latency", "title", rows, "ms", wide=True)
    assert drawn.count("stroke-dasharray: 4.8,3.6") == 2, "a dashed line each"


@pytest.mark.parametrize("values", [[0.3], [0.3, 0.31], [0.01, 25.0]])
def test_the_axes_of_predictions_hold_a_lone_point_and_three_decades(values):
    low, high = agreement.span(values)
    assert low < min(values)
    assert high > max(values)
    assert high / low >= 5.99


@pytest.mark.usefixtures("undrawn")
def test_predicted_latency_is_an_objective_and_a_column_of_the_trials(report):
    report["front_objectives"] = ["val_accuracy", "latency"]
    for one in report["trials"]:
        one["front"] = one["id"] == "t0001"
    page = edgeml.report.html(report)
    assert "(validation accuracy, predicted latency)" in page
    assert '<th class="n">predicted, host onnxruntime int8</th>' in page


def test_the_pareto_front_is_cheapest_first_and_never_falls():
    points = [(5, 0.9, "a"), (1, 0.5, "b"), (3, 0.9, "c"), (4, 0.7, "d"), (1, 0.6, "e")]
    assert search_plots.pareto_front(points) == [(1, 0.6), (3, 0.9)]


def test_pages_claim_no_test_split_for_samples_that_were_given(report):
    assert "interval on the test split" in edgeml.report.model_card(report)
    rows = report["manifest"]["metrics"]
    for row in rows:
        row.update(split="given", calibration_error=0.02, against="model.keras", accuracy_drop=0.003)
    for gone in ("baselines", "selection", "confusion", "worst", "ensemble", "splits", "recipe", "finalists"):
        report.pop(gone, None)
    card, page = edgeml.report.model_card(report), edgeml.report.html(report)
    for text in (card, page):
        assert "test split" not in text
        assert "test accuracy" not in text.lower()
        assert "test samples" not in text
        assert "the given samples" in text
        assert "points are against the Keras model" in text
    front = yaml.safe_load(card.split("---\n", 2)[1])["model-index"][0]["results"][0]
    assert front["dataset"]["split"] == "the given samples"
    assert front["metrics"][0]["name"] == "Accuracy, model.onnx"


def test_the_card_has_front_matter_that_hubs_read(report):
    card = edgeml.report.model_card(report)
    _, front, body = card.split("---\n", 2)
    data = yaml.safe_load(front)
    assert data["library_name"] == "edgeml"
    assert {"onnx", "tflite", "image-classification"} <= set(data["tags"])
    assert data["metrics"] == ["accuracy"]
    result = data["model-index"][0]["results"][0]
    assert result["metrics"] == [
        {"type": "accuracy", "value": 0.9889, "name": "Test accuracy, model.onnx"},
        {"type": "accuracy", "value": 0.9861, "name": "Test accuracy, model_int8.onnx"},
    ]
    assert result["task"]["type"] == data["pipeline_tag"] == "image-classification"
    assert result["dataset"]["split"] == "test"
    report["manifest"]["metrics"][0] |= {"calibration_error": 0.0213, "balanced_accuracy": 0.97}
    front = yaml.safe_load(edgeml.report.model_card(report).split("---\n", 2)[1])
    metrics = front["model-index"][0]["results"][0]["metrics"]
    assert [(one["type"], one["value"]) for one in metrics[:3]] == [
        ("accuracy", 0.9889), ("balanced_accuracy", 0.97), ("expected_calibration_error", 0.0213),
    ]  # fmt: skip
    report["manifest"]["task"]["kind"] = "tensors"
    assert "pipeline_tag" not in yaml.safe_load(edgeml.report.model_card(report).split("---\n", 2)[1])
    assert "**98.9 % [97.8, 100.0]**, n=360" in body
    assert f"| `model_int8.tflite` | 18{THIN}264 | 8{THIN}123 |" in body
    assert "0, 1, 2, 3, 4, 5, 6, 7, 8, 9." in body
    assert "8 × 8 × 1 NHWC, raw pixel values, 0 to 16" in body
    assert 'session.run(["probabilities"], {"image": x})' in body
    assert "python verify.py" in body


@pytest.mark.usefixtures("undrawn")
def test_windows_are_drawn_as_lines_and_said_to_be_divided(report):
    report["manifest"]["input"] |= {"name": "window", "shape": [119, 2], "layout": "NTC", "divided_by": [4.0, 512.0]}
    report["worst"] = [{"label": "8", "predicted": "1", "confidence": 0.9, "lines": [[0, 0.5, 1], [1, 1, 1]]}]
    shown = Page(edgeml.report.html(report))
    assert [line["points"] for line in shown.all("polyline")][-2:] == ["0.0,38.0 50.0,20.0 100.0,2.0",
                                                                       "0.0,2.0 50.0,2.0 100.0,2.0"]  # fmt: skip
    assert not shown.all("img")
    card = edgeml.report.model_card(report)
    assert "# x = raw / np.array([4.0, 512.0])" in card
    assert "divides the columns by 4.0, 512.0 first**" in card
    assert "time-series-classification" in card
    assert "image-classification" not in card


@pytest.mark.usefixtures("undrawn")
def test_mistakes_on_vectors_are_a_table(report):
    report["manifest"]["input"] |= {"name": "vector", "shape": [30], "layout": "NF"}
    report["worst"] = [{"label": "eight", "predicted": "one", "confidence": 0.9}]  # as reports of before have it
    assert re.search(r"eight\s*one\s*90 %", Page(edgeml.report.html(report)).text)
    report["worst"][0] |= {"vector": [0.125, -3.0, 17.0], "left_out": 27}
    text = text_of(edgeml.report.html(report))
    assert re.search(r"eight\s*one\s*90 %\s*0.125, -3.0, 17.0 and 27 more", text)
    assert "tabular-classification" in edgeml.report.model_card(report)


def test_names_cannot_break_out_of_the_card(report):
    name = "x\n---\ntags: [evil]\n---\n# Title <img src=x onerror=alert(1)> | cell | [a](javascript:b) `c`\n```"
    report["manifest"]["name"] = report["manifest"]["task"]["labels"][0] = report["baselines"][0]["name"] = name
    report["command"] = report["manifest"]["input"]["meaning"] = report["manifest"]["files"][0]["path"] = name
    card = edgeml.report.model_card(report)
    front = yaml.safe_load(card.split("\n---\n", 1)[0].removeprefix("---\n"))
    assert front["tags"][0] == "edgeml"
    assert front["model-index"][0]["name"] == name
    body = card[card.index("\n---\n") + 5 :]
    prose = re.sub(r"^```.*?^```$", "", body, flags=re.DOTALL | re.MULTILINE)
    prose = re.sub(r"`[^`\n]*`", "", prose.replace("\\`", ""))
    assert not re.search(r"(?<!\\)<|(?<!\\)\[a|^---$", prose, re.MULTILINE)
    assert len(re.findall(r"^```", body, re.MULTILINE)) % 2 == 0
    widths = {len(re.findall(r"(?<!\\)\|", line)) for line in prose.splitlines() if line.startswith("|")}
    assert widths == {10, 9, 7, 3}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (formats.integer(1234567), f"1{THIN}234{THIN}567"),
        (formats.integer(None), "–"),
        (formats.percent(0.98888), "98.9 %"),
        (formats.accuracy(0.98888, (0.974, 0.996)), "98.9 % [97.4, 99.6]"),
        (formats.accuracy(0.98888, None), "98.9 %"),
        (formats.accuracy(None, (0.1, 0.2)), "–"),
        (formats.figure(0.02134), "0.0213"),
        (formats.figure(3.24e-7), "3.2e-7"),
        (formats.figure(2e-5), "2e-5"),
        (formats.figure(12.0), "12.0"),
        (formats.figure(123.0), "123"),
        (formats.figure(1234.4), f"1{THIN}234"),
        (formats.figure(0.0), "0"),
        (formats.figure(float("nan")), "–"),
        (formats.milliseconds(1.5), "1.50 ms"),
        (formats.seconds(59.94), "59.9 s"),
        (formats.seconds(119.6), "2 min 00 s"),
        (formats.plain({"a": [1, None]}), "a 1, –"),
        (formats.points(0.5), "+0.50"),
        (formats.points(-0.281), "−0.28"),
        (formats.points(-0.001), "+0.00"),
        (formats.shape([None, 8, 1]), "? × 8 × 1"),
        (svg.compact(12500), "12.5\u202fk"),
        (svg.compact(0.5), "0.5"),
        (svg.short("x" * 40), "x" * 25 + "…"),
    ],
)
def test_figures_as_text(text, expected):
    assert text == expected


@pytest.mark.usefixtures("undrawn")
def test_trees_among_the_members_are_said_to_be_float32_only(report):
    words = "float32 only"
    assert words not in edgeml.report.html(report)
    report["manifest"]["members"][0]["space"] = "random_forest"
    assert words in edgeml.report.html(report)
    assert words in edgeml.report.model_card(report)


def test_heat_tables_of_ten_columns_fit_a_phone(page):
    tables = re.findall(r'<div class="scroll heat"><table style="--n: (\d+)">(.*?)</table>', page, re.DOTALL)
    assert len(tables) == 4
    assert [int(columns) for columns, _ in tables] == [body.count("<span>") for _, body in tables] == [2, 2, 2, 10]
    narrow = page.partition("@media (max-width: 640px)")[2].partition("@media print")[0]
    padding = int(re.search(r"body { padding: \d+px (\d+)px", narrow)[1])
    names, cell = map(int, re.search(r"min-width: calc\((\d+)px \+ var\(--n\) \* (\d+)px\)", narrow).groups())
    assert names + 10 * cell <= 390 - 2 * padding
    assert all("%" not in body for _, body in tables), "a sign in each cell takes the room of the next"
