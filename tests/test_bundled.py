"""The scripts of a bundle, run as a stranger runs them: in another process, isolated, edgeml not at hand."""

import ast
import hashlib
import json
import re
import shutil
import subprocess
import sys
import venv
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from ai_edge_litert.interpreter import Interpreter
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import InferenceSession

import edgeml.report
from edgeml import timing_child
from edgeml.bundle import copy_scripts
from edgeml.bundled import benchmark
from edgeml.runtimes import open_model, runtime_of

SHAPE, CLASSES, SAMPLES = (4, 4, 1), 5, 64
INPUT_SCALE = 16 / 255
MODELS = ("model.onnx", "model_int8.onnx", "model.tflite", "model_int8.tflite")


def weights():
    return np.random.default_rng(3).normal(0, 0.1, (16, CLASSES)).astype(np.float32)


def softmax(x):
    powers = np.exp(x - x.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


def write_onnx(path, *, quantized):
    nodes = [
        helper.make_node("Flatten", ["pixels"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
    ]
    constants = [numpy_helper.from_array(weights(), "w")]
    name, kind = "pixels", TensorProto.FLOAT
    if quantized:
        name, kind = "image", TensorProto.UINT8
        nodes.insert(0, helper.make_node("DequantizeLinear", ["image", "scale", "zero"], ["pixels"]))
        constants += [
            numpy_helper.from_array(np.float32(INPUT_SCALE), "scale"),
            numpy_helper.from_array(np.uint8(0), "zero"),
        ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, kind, ["N", *SHAPE])],
        # two outputs, the wanted one last: it is chosen by the name in the manifest
        [helper.make_tensor_value_info(one, TensorProto.FLOAT, ["N", CLASSES]) for one in ("logits", "probabilities")],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())


def write_tflite(path, inputs, *, quantized):
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec((1, *SHAPE), tf.float32)])
    def tiny(image):
        return tf.nn.softmax(tf.reshape(image, (1, 16)) @ tf.constant(weights()))

    converter = tf.lite.TFLiteConverter.from_concrete_functions([tiny.get_concrete_function()], tf.Module())
    if quantized:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([x[None]] for x in inputs)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    path.write_bytes(converter.convert())


def litert_results(path, inputs):
    """Run the int8 file independently of the scripts; return its quantization and its dequantized results."""
    from ai_edge_litert.interpreter import Interpreter

    model = Interpreter(str(path))
    model.allocate_tensors()
    source, target = model.get_input_details()[0], model.get_output_details()[0]
    (scale, zero), (out_scale, out_zero) = source["quantization"], target["quantization"]
    results = []
    for x in inputs:
        model.set_tensor(source["index"], np.clip(np.round(x[None] / scale) + zero, -128, 127).astype(np.int8))
        model.invoke()
        results.append((model.get_tensor(target["index"])[0].astype(np.float32) - out_zero) * out_scale)
    record = {
        "input": {"dtype": "int8", "scale": scale, "zero_point": zero},
        "output": {"dtype": "int8", "scale": out_scale, "zero_point": out_zero},
    }
    return record, np.stack(results).astype(np.float32)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A real little bundle: two ONNX files, two TFLite files, golden tensors, manifest and checksums."""
    folder = tmp_path_factory.mktemp("made") / "tiny"
    folder.mkdir()
    inputs = np.random.default_rng(1).uniform(0, 16, (SAMPLES, *SHAPE)).astype(np.float32)
    inputs[0], inputs[1] = 0, 16
    write_onnx(folder / "model.onnx", quantized=False)
    write_onnx(folder / "model_int8.onnx", quantized=True)
    write_tflite(folder / "model.tflite", inputs, quantized=False)
    write_tflite(folder / "model_int8.tflite", inputs, quantized=True)
    tflite_record, tflite_expected = litert_results(folder / "model_int8.tflite", inputs)
    outputs = softmax(inputs.reshape(SAMPLES, -1) @ weights())
    rounded = np.clip(np.round(inputs.astype(np.float64) / INPUT_SCALE), 0, 255) * INPUT_SCALE
    golden = {
        "inputs": inputs,
        "outputs": outputs,
        "expected/model_int8.onnx": softmax(rounded.reshape(SAMPLES, -1).astype(np.float32) @ weights()),
        "expected/model_int8.tflite": tflite_expected,
    }
    np.savez(folder / "golden.npz", **golden)
    onnx_record = {"input": {"dtype": "uint8", "scale": INPUT_SCALE, "zero_point": 0}}
    records = {"model_int8.onnx": onnx_record, "model_int8.tflite": tflite_record}
    exact = {"reference": "outputs", "max_abs_limit": 1e-5}
    int8 = {"reference": "expected", "max_abs_limit": 0.004, "top1_agreement_min": 0.95}
    manifest = {
        "input": {"name": "pixels", "shape": list(SHAPE), "range": [0, 16], "meaning": "raw pixel values"},
        "output": {"name": "probabilities", "shape": [CLASSES]},
        "files": [
            {"path": name, "role": "model", "target": name.rpartition(".")[2]}
            | ({"quantization": records[name]} if name in records else {})
            for name in MODELS
        ]
        + [{"path": "model.keras", "role": "model"}, {"path": "golden.npz", "role": "golden"}],
        "golden": {name: int8 if name in records else exact for name in MODELS},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    copy_scripts(folder)
    (folder / "model.keras").write_bytes(b"not opened here")
    seal(folder)
    return folder


@pytest.fixture
def copy(bundle, tmp_path):
    """One's own copy of the bundle, to be spoiled."""
    return Path(shutil.copytree(bundle, tmp_path / "copy"))


def seal(folder):
    files = sorted(path for path in folder.iterdir() if path.name != "SHA256SUMS")
    text = "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files)
    (folder / "SHA256SUMS").write_text(text)


def run(folder, script, *arguments, python=sys.executable):
    done = subprocess.run(
        [python, "-I", "-B", folder / script, *arguments], capture_output=True, text=True, check=False, timeout=120
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def environment(folder, *packages):
    """Make a virtual environment that holds these packages of ours and nothing else, not even pip."""
    venv.create(folder, with_pip=False, symlinks=True)
    here = Path(np.__file__).parents[1]
    site = next((folder / "lib").glob("python3*")) / "site-packages"
    for name in packages:
        for path in here.glob(f"{name}*"):
            (site / path.name).symlink_to(path)
    return folder / "bin" / "python"


def edit_manifest(folder, change):
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    seal(folder)


def rewrite_golden(folder, key, change):
    with np.load(folder / "golden.npz") as archive:
        arrays = dict(archive)
    arrays[key] = change(arrays[key].copy())
    np.savez(folder / "golden.npz", **arrays)
    seal(folder)


def test_verify_passes_on_every_file_of_an_untouched_bundle(bundle):
    done = run(bundle, "verify.py", "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["passed"], report["exit_code"]) == (0, True, 0)
    assert report["integrity"] == {"passed": True, "files": 9, "problems": []}
    assert [row["file"] for row in report["parity"]] == list(MODELS)
    for row in report["parity"]:
        assert row["samples"] == SAMPLES
        assert 0 <= row["max_abs"] <= row["limit"]
        assert row["problem"] is None
    assert report["parity"][0]["runtime"] == f"onnxruntime {onnxruntime.__version__}"
    assert report["parity"][3]["runtime"].startswith("ai-edge-litert 2")


def test_verify_says_it_in_text(bundle):
    done = run(bundle, "verify.py")
    lines = done.stdout.splitlines()
    assert lines[0] == "integrity: 9 files unchanged"
    assert lines[-1] == "PASSED"
    assert [line.split()[:2] for line in lines[1:5]] == [["ok", name] for name in MODELS]
    assert "(limit 1e-05, against outputs)" in lines[1]
    assert "(at least 0.9500)" in lines[4]


@pytest.mark.parametrize("name", ["model.onnx", "golden.npz", "manifest.json", "verify.py", "model.keras"])
def test_one_flipped_bit_is_refused_before_any_model_is_opened(copy, name):
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    if name == "verify.py":  # a script that changed itself would no longer be the one under test: change a comment
        data = (copy / name).read_bytes() + b"#\n"
    (copy / name).write_bytes(data)
    done = run(copy, "verify.py", "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 8
    assert report["integrity"]["problems"] == [f"{name}: changed"]
    assert (report["passed"], report["parity"]) == (False, [])


def test_missing_files_are_refused(copy):
    (copy / "model.tflite").unlink()
    done = run(copy, "verify.py")
    assert done.returncode == 8
    assert done.stdout.startswith("REFUSED")
    assert "model.tflite: missing" in done.stdout
    (copy / "SHA256SUMS").unlink()
    assert "SHA256SUMS: missing" in run(copy, "verify.py").stdout


@pytest.mark.parametrize("name", ["manifest.json", "model.onnx"])
def test_a_file_that_no_checksum_covers_is_refused(copy, name):
    sums = copy / "SHA256SUMS"
    sums.write_text("".join(line for line in sums.read_text().splitlines(True) if not line.endswith(f"  {name}\n")))
    done = run(copy, "verify.py")
    assert done.returncode == 8
    assert f"{name}: not in SHA256SUMS" in done.stdout


@pytest.mark.parametrize("line", ["../elsewhere", "/etc/hostname", "a/../../b"])
def test_checksums_of_files_elsewhere_are_refused(copy, line):
    with (copy / "SHA256SUMS").open("a") as file:
        file.write(f"{'0' * 64}  {line}\n")
    done = run(copy, "verify.py")
    assert done.returncode == 8
    assert "SHA256SUMS line 10: not a checksum of a file in this folder" in done.stdout


def test_wrong_results_fail_with_figure_and_limit_and_all_are_gathered(copy):
    rewrite_golden(copy, "outputs", lambda outputs: outputs + np.float32(0.001))
    done = run(copy, "verify.py", "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["passed"]) == (6, False)
    failed = {row["file"]: row for row in report["parity"] if not row["passed"]}
    assert set(failed) == {"model.onnx", "model.tflite"}
    assert failed["model.onnx"]["max_abs"] == pytest.approx(0.001, rel=1e-3)
    assert failed["model.onnx"]["problem"] == "max difference 0.001 > 1e-05"
    text = run(copy, "verify.py").stdout
    assert text.splitlines()[-1] == "FAILED"
    assert text.count("FAILED  model") == 2


def test_quantized_files_are_held_against_what_they_gave_when_made(copy):
    rewrite_golden(copy, "expected/model_int8.onnx", lambda expected: expected[:, ::-1])
    report = json.loads(run(copy, "verify.py", "--json").stdout)
    assert [row["file"] for row in report["parity"] if not row["passed"]] == ["model_int8.onnx"]


@pytest.mark.parametrize(("tie_margin", "passed"), [(0.0, False), (1.0, True)])
def test_decisions_are_held_against_the_same_tensors_outside_ties(copy, tie_margin, passed):
    """A quantized file decides as it did when it was proven, whatever Keras says: what it changes was judged then."""
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["golden"]["model_int8.tflite"] |= {"max_abs_limit": 2.0, "tie_margin": tie_margin}
    (copy / "manifest.json").write_text(json.dumps(manifest))
    rewrite_golden(copy, "outputs", lambda outputs: np.roll(outputs, 1, axis=1))
    row = json.loads(run(copy, "verify.py", "--json").stdout)["parity"][3]
    assert (row["file"], row["passed"], row["top1_agreement"]) == ("model_int8.tflite", True, 1.0)
    rewrite_golden(copy, "expected/model_int8.tflite", lambda expected: np.roll(expected, 1, axis=1))
    row = json.loads(run(copy, "verify.py", "--json").stdout)["parity"][3]
    assert row["passed"] is passed
    assert passed or row["problem"] == "top-1 agreement 0.0000 < 0.9500"


def test_nan_never_passes(copy):
    rewrite_golden(copy, "expected/model_int8.tflite", lambda expected: expected * np.nan)
    report = json.loads(run(copy, "verify.py", "--json").stdout)
    assert [row["passed"] for row in report["parity"]] == [True, True, True, False]

    assert "NaN" not in run(copy, "verify.py", "--json").stdout  # strict parsers refuse it


def test_nothing_that_lies_in_a_bundle_is_imported(copy):
    """`python verify.py` looks for numpy where the script lies, and what lies there is what is to be checked."""
    (copy / "numpy.py").write_text("print('run before any check')")
    done = subprocess.run([sys.executable, "verify.py"], cwd=copy, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "run before any check" not in done.stdout
    assert "1 files not in SHA256SUMS, not checked: numpy.py" in done.stdout


def test_what_npm_installs_is_told_as_one(copy):
    for name in ("a/x.js", "a/node_modules/y.js", "b.js"):
        path = copy / "web" / "node_modules" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    (copy / "web" / "package-lock.json").write_text("{}")
    told = json.loads(run(copy, "verify.py", "--json").stdout)["unlisted"]
    assert told == ["web/node_modules/", "web/package-lock.json"]


def test_model_files_that_nobody_proved_are_refused(copy):
    shutil.copy(copy / "model.onnx", copy / "model_float16.onnx")
    for is_sealed in (False, True):
        done = run(copy, "verify.py")
        assert done.returncode == 8
        assert "model_float16.onnx: a model file that manifest.json does not know" in done.stdout
        if not is_sealed:
            seal(copy)


def test_a_manifest_with_other_sums_is_refused(copy):
    edit_manifest(copy, lambda manifest: manifest["files"][0].update(sha256=64 * "0"))
    done = run(copy, "verify.py")
    assert done.returncode == 8
    assert "manifest.json has another sum" in done.stdout


@pytest.mark.parametrize("manifest", ["{", "[]", "{}", '{"files": [3]}'])
def test_a_sealed_manifest_that_is_none_is_refused(copy, manifest):
    (copy / "manifest.json").write_text(manifest)
    seal(copy)
    done = run(copy, "verify.py", "--json")
    assert done.returncode == 8
    assert "not as it was written" in json.loads(done.stdout)["integrity"]["problems"][0]


def test_sealed_golden_tensors_that_are_none_are_refused(copy):
    content = (copy / "golden.npz").read_bytes()
    for broken in (content[: len(content) // 2], b""):
        (copy / "golden.npz").write_bytes(broken)
        seal(copy)
        assert run(copy, "verify.py").returncode == 8
    np.savez(copy / "golden.npz", other=np.zeros(3))
    seal(copy)
    assert run(copy, "verify.py").returncode == 8


def test_files_that_a_runtime_refuses_and_files_without_limits_are_told(copy):
    (copy / "model.onnx").write_bytes(b"no graph")
    (copy / "model.tflite").write_bytes(b"no flatbuffer")
    edit_manifest(copy, lambda manifest: manifest["golden"].pop("model_int8.onnx"))
    done = run(copy, "verify.py", "--json")
    rows = json.loads(done.stdout)["parity"]
    assert done.returncode == 6
    assert [row["passed"] for row in rows] == [False, False, False, True]
    assert rows[0]["problem"].startswith("the runtime refuses it: [ONNXRuntimeError]")
    assert rows[1]["problem"] == "manifest.json has no limit for it"
    assert rows[2]["problem"].startswith("the runtime refuses it: ")


def test_with_only_numpy_nothing_is_checked_and_that_is_no_pass(bundle, tmp_path):
    python = environment(tmp_path / "bare", "numpy")
    done = run(bundle, "verify.py", python=python)
    assert done.returncode == 2
    assert "not checked  model.onnx (pip install onnxruntime)" in done.stdout
    assert "not checked  model_int8.tflite (pip install ai-edge-litert)" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("NOTHING CHECKED")
    timed = run(bundle, "benchmark.py", python=python)
    assert timed.returncode == 2
    assert "not timed  model.onnx (pip install onnxruntime)" in timed.stdout


def test_numpy_and_one_runtime_are_enough(bundle, tmp_path):
    python = environment(tmp_path / "one", "numpy", "onnxruntime")
    done = run(bundle, "verify.py", "--json", python=python)
    report = json.loads(done.stdout)
    assert (done.returncode, report["passed"]) == (0, True)
    assert [row["file"] for row in report["parity"]] == ["model.onnx", "model_int8.onnx"]
    assert [row["file"] for row in report["not_checked"]] == ["model.tflite", "model_int8.tflite"]
    assert run(bundle, "benchmark.py", "--rounds", "2", python=python).returncode == 0


def test_benchmark_times_every_file_by_the_protocol(bundle, tmp_path):
    out = tmp_path / "times.json"
    done = run(bundle, "benchmark.py", "--rounds", "6", "--json", str(out))
    document = json.loads(out.read_text())
    assert done.returncode == 0
    assert document["machine"]["cpu"]
    assert {"flags", "governor", "load_1min"} <= document["machine"].keys()
    assert [row["file"] for row in document["results"]] == list(MODELS)
    for row in document["results"]:
        low, high = row["interval_95"]
        assert 0 < low <= row["quiet_ms"] <= high <= 10 * row["quiet_ms"]
        assert row["quiet_ms"] <= row["p50_ms"] <= row["p90_ms"] <= row["p99_ms"]
        assert 6 * 4 * 7 < row["runs"] <= 6 * 4 * 120  # these nets are fast: their blocks are longer than the least
        assert row["first_run_ms"] > 0
        assert 0 < row["peak_memory_bytes"] < 20 * 2**20
        assert row["file_bytes"] == (bundle / row["file"]).stat().st_size
        assert row["sha256"] == hashlib.sha256((bundle / row["file"]).read_bytes()).hexdigest()
        assert row["warm_up_runs"] > 5
        assert (row["threads"], row["device"], row["predicted_ms"]) == (1, "host", None)
        assert 0 <= row["noise_floor"] < 5
        assert row["load_ms"] > 0
        assert row["file"] in done.stdout
    assert "noise floor" in done.stdout.splitlines()[-1]


@pytest.mark.parametrize("name", MODELS)
def test_the_script_times_what_edgeml_times(bundle, tmp_path, monkeypatch, name):
    """One call of the runtime, no input put in place and no output taken: else the two would say other latencies."""
    calls = []
    for kind, methods in {InferenceSession: ["run"], Interpreter: ["set_tensor", "invoke", "get_tensor"]}.items():
        for method in methods:
            monkeypatch.setattr(kind, method, noted(calls, method, getattr(kind, method)))
    path = bundle / name
    asked = {"path": str(path), "paths": [str(path)], "names": ["pixels"], "given": ["probabilities"], "threads": 1}
    timed = []
    for opened in (benchmark.opened, partial(timing_child.opened, runtime_of(path)[1])):
        told, prepare = opened(asked)
        source = open_model(path).signature.inputs[0]
        (fed,) = told.get("fed", [source.name])
        np.savez(tmp_path / "inputs.npz", **{fed: np.zeros((1, *SHAPE), source.dtype)})
        call = prepare({"inputs": str(tmp_path / "inputs.npz"), "rows": 1})
        calls.clear()
        call()
        timed.append(list(calls))
    assert timed == [["run" if path.suffix == ".onnx" else "invoke"]] * 2


def noted(calls, name, method):
    def called(*arguments):
        calls.append(name)
        return method(*arguments)

    return called


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [(("--rounds", "0"), "2 to 10000 is allowed"), (("--threads", "257"), "1 to 256 is allowed"),
     (("--rounds", "many"), "many; 2 to 10000"), (("--json", "/nonexistent/x"), "/nonexistent/x; a file in a"),
     (("--json", "."), "a file in a folder that is there")],
)  # fmt: skip
def test_benchmark_refuses_impossible_settings(bundle, arguments, allowed):
    done = run(bundle, "benchmark.py", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    said = done.stderr.splitlines()[-1]
    assert arguments[0] in said
    assert allowed in said
    assert len(done.stderr) < 500


@pytest.mark.parametrize("script", ["verify.py", "benchmark.py"])
def test_without_numpy_it_is_named(bundle, script):
    done = subprocess.run([sys.executable, "-I", "-S", bundle / script], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "No module named 'numpy'. Do: pip install numpy\n")


def test_threads_are_passed_on(bundle, tmp_path):
    out = tmp_path / "times.json"
    assert run(bundle, "benchmark.py", "--rounds", "2", "--threads", "2", "--json", str(out)).returncode == 0
    assert {row["threads"] for row in json.loads(out.read_text())["results"]} == {2}


@pytest.mark.parametrize("script", ["verify.py", "benchmark.py"])
def test_scripts_are_python_3_9_and_import_the_standard_library_and_numpy_only(bundle, script):
    tree = ast.parse((bundle / script).read_text(), feature_version=(3, 9))
    found = {
        alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    found |= {node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert found - set(sys.stdlib_module_names) == {"numpy"}


@pytest.mark.parametrize("quantized", [False, True])
def test_the_lines_in_the_model_card_run(bundle, quantized):
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["files"] = [one for one in manifest["files"] if ("int8" in one["path"]) == quantized]
    if quantized:
        manifest["input"]["name"] = "image"
    blocks = re.findall(r"```python\n(.*?)```", edgeml.report.model_card({"manifest": manifest}), re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        done = subprocess.run(
            [sys.executable, "-c", block], cwd=bundle, capture_output=True, text=True, check=False, timeout=60
        )
        assert (done.returncode, int(done.stdout) in range(CLASSES)) == (0, True), done.stderr
