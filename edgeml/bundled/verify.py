"""Check this bundle on this machine: no byte was changed, and every model file still computes what it was proven to.

    python verify.py [--json]

Needs numpy and a runtime (onnxruntime for .onnx; ai-edge-litert, tflite-runtime or tensorflow for .tflite), no more.
First every file is held against SHA256SUMS, then each model file computes the 64 inputs of golden.npz and is held
against the limits in manifest.json.

Exit code: 0 passed; 2 nothing could be checked; 6 a file computes something else; 8 a file was changed or is missing.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import importlib.metadata
import json
import operator
import re
import sys
from pathlib import Path
from typing import Any, Callable  # noqa: UP035  (at home on Python 3.9)

import numpy as np

PASSED, NOTHING_CHECKED, PARITY_FAILED, INTEGRITY_FAILED = 0, 2, 6, 8
NEEDED = ("manifest.json", "golden.npz")
SUM_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")

# ---- opening a model file: the same lines stand in verify.py and benchmark.py, so that each runs alone ----

INSTALL = {".onnx": "onnxruntime", ".tflite": "ai-edge-litert"}
INTERPRETERS = (  # module, path of the class in it, distribution
    ("ai_edge_litert.interpreter", "Interpreter", "ai-edge-litert"),
    ("tflite_runtime.interpreter", "Interpreter", "tflite-runtime"),
    ("tensorflow", "lite.Interpreter", "tensorflow"),
)


def open_onnx(path: Path, output: str, threads: int) -> tuple[str, Callable[[Any], Any]]:
    """Open an ONNX file: the runtime with its version, and a function from one input to one output."""
    runtime = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name, names = session.get_inputs()[0].name, [one.name for one in session.get_outputs()]
    wanted = [output if output in names else names[0]]
    return f"onnxruntime {runtime.__version__}", lambda x: session.run(wanted, {name: x})[0]


def open_tflite(path: Path, output: str, threads: int) -> tuple[str, Callable[[Any], Any]]:
    """Open a TFLite file: the runtime with its version, and a function from one input to one output."""
    kind, runtime = interpreter_class()
    model = kind(model_path=str(path), num_threads=threads)
    model.allocate_tensors()
    source, results = model.get_input_details()[0]["index"], model.get_output_details()
    target = next((one for one in results if one["name"] == output), results[0])["index"]

    def run(x: Any) -> Any:
        model.set_tensor(source, x)
        model.invoke()
        return model.get_tensor(target)

    return runtime, run


def interpreter_class() -> tuple[Any, str]:
    """Find a TFLite interpreter that is installed; an ImportError if there is none."""
    for module, attribute, distribution in INTERPRETERS:
        try:
            found = importlib.import_module(module)
        except ImportError:
            continue
        return operator.attrgetter(attribute)(found), f"{distribution} {version(distribution)}"
    raise ImportError("no TFLite interpreter is installed")


def version(distribution: str) -> str:
    """Tell the version of an installed distribution, an empty string if it goes by another name here (nightly, cpu)."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def as_input(x: Any, quantization: dict[str, Any]) -> Any:
    """Turn raw float values into what the file takes: round(x / scale) + zero_point, cut to the range of its dtype."""
    if "scale" not in quantization:
        return np.asarray(x, np.float32)
    dtype = np.dtype(quantization["dtype"])
    steps = np.round(np.asarray(x, np.float64) / quantization["scale"]) + quantization["zero_point"]
    return np.clip(steps, np.iinfo(dtype).min, np.iinfo(dtype).max).astype(dtype)


OPENERS = {".onnx": open_onnx, ".tflite": open_tflite}

# ---- end of the common lines ----


def main(arguments: list[str] | None = None) -> int:
    """Check the bundle that this script lies in; return the exit code."""
    parser = argparse.ArgumentParser(description="Check this bundle: unchanged files, unchanged results.")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout instead of a table")
    as_json = parser.parse_args(arguments).json
    folder = Path(__file__).resolve().parent
    report = check(folder)
    code = exit_code(report)
    if as_json:
        print(json.dumps({**report, "exit_code": code}, indent=1))
    else:
        print("\n".join(lines(report)))
    return code


def check(folder: Path) -> dict[str, Any]:
    """Check integrity, then parity; nothing of a bundle with a changed byte is opened."""
    count, problems = integrity(folder)
    report: dict[str, Any] = {
        "passed": False,
        "integrity": {"passed": not problems, "files": count, "problems": problems},
        "parity": [],
        "not_checked": [],
        "first_divergence": None,
    }
    if problems:
        return report
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    with np.load(folder / "golden.npz", allow_pickle=False) as archive:
        golden = {key: archive[key] for key in archive.files}
    for entry in models(manifest):
        try:
            report["parity"].append(parity(folder, manifest, golden, entry))
        except ImportError:
            install = INSTALL[Path(entry["path"]).suffix]
            report["not_checked"].append({"file": entry["path"], "install": f"pip install {install}"})
    report["passed"] = bool(report["parity"]) and all(row["passed"] for row in report["parity"])
    return report


def models(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """List the model files that a runtime could open here (model.keras needs TensorFlow: `edgeml verify --layers`)."""
    return [one for one in manifest["files"] if one["role"] == "model" and Path(one["path"]).suffix in OPENERS]


def integrity(folder: Path) -> tuple[int, list[str]]:
    """Hold every file against SHA256SUMS; return how many are listed, and one line per problem."""
    sums = folder / "SHA256SUMS"
    if not sums.is_file():
        return 0, ["SHA256SUMS: missing"]
    listed, problems = set(), []
    for number, line in enumerate(sums.read_text("utf-8", errors="replace").splitlines(), 1):
        match = SUM_LINE.fullmatch(line)
        if match is None or outside(match[2]):
            problems.append(f"SHA256SUMS line {number}: not a checksum of a file in this folder")
            continue
        listed.add(match[2])
        path = folder / match[2]
        if not path.is_file():
            problems.append(f"{match[2]}: missing")
        elif hashlib.sha256(path.read_bytes()).hexdigest() != match[1]:
            problems.append(f"{match[2]}: changed")
    problems += [f"{name}: not in SHA256SUMS" for name in NEEDED if name not in listed]
    return len(listed), problems or unlisted(folder, listed)


def outside(name: str) -> bool:
    """Tell whether a name leads out of the folder."""
    return Path(name).is_absolute() or ".." in re.split(r"[/\\]", name)


def unlisted(folder: Path, listed: set[str]) -> list[str]:
    """Name the model files of the (unchanged) manifest that no checksum covers."""
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    return [f"{one['path']}: not in SHA256SUMS" for one in models(manifest) if one["path"] not in listed]


def parity(folder: Path, manifest: dict[str, Any], golden: dict[str, Any], entry: dict[str, Any]) -> dict[str, Any]:
    """Compute the golden inputs with one file and hold the result against its limits."""
    path, limits = entry["path"], manifest["golden"].get(entry["path"])
    row: dict[str, Any] = {"file": path, "passed": False, "samples": len(golden["inputs"])}
    if limits is None:
        return {**row, "problem": "manifest.json has no limit for it"}
    row.update(reference=limits["reference"], limit=limits["max_abs_limit"])
    try:
        open_file = OPENERS[Path(path).suffix]
        row["runtime"], run = open_file(folder / path, manifest["output"]["name"], 1)
        result = predict(run, golden["inputs"], entry.get("quantization") or {})
    except runtime_errors() as error:
        return {**row, "problem": f"the runtime refuses it: {' '.join(str(error).split())}"}
    return {**row, **judged(result, golden, path, limits)}


def runtime_errors() -> tuple[type[Exception], ...]:
    """List what the installed runtimes raise: onnxruntime has a dozen classes with no common one above them."""
    own: list[type[Exception]] = [ValueError, RuntimeError]
    state = sys.modules.get("onnxruntime.capi.onnxruntime_pybind11_state")
    own += [kind for kind in vars(state or object).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    return tuple(own)


def predict(run: Callable[[Any], Any], inputs: Any, quantization: dict[str, Any]) -> Any:
    """Run one sample at a time (TFLite files have a fixed batch of 1); results as float, dequantized."""
    feed = as_input(inputs, quantization.get("input") or {})
    result = np.concatenate([np.array(run(feed[i : i + 1])) for i in range(len(feed))])
    output = quantization.get("output") or {}
    if "scale" not in output:
        return result
    return (result.astype(np.float64) - output["zero_point"]) * output["scale"]


def judged(result: Any, golden: dict[str, Any], path: str, limits: dict[str, Any]) -> dict[str, Any]:
    """Compare shapes, then values, then decisions; every broken limit is told."""
    reference = golden["outputs" if limits["reference"] == "outputs" else "expected/" + path]
    if result.shape != reference.shape:
        return {"problem": f"shape {list(result.shape)}, due is {list(reference.shape)}"}
    limit, least = limits["max_abs_limit"], limits.get("top1_agreement_min")
    max_abs = float(np.max(np.abs(result.astype(np.float64) - reference)))
    agreement = top1_agreement(result, reference, limits.get("tie_margin", 2 * limit))
    broken = []
    if not max_abs <= limit:  # in this form a NaN is a failure
        broken.append(f"max difference {max_abs:.3g} > {limit:.3g}")
    if least is not None and not agreement >= least:
        broken.append(f"top-1 agreement {agreement:.4f} < {least:.4f}")
    figures = {"max_abs": max_abs, "top1_agreement": agreement, "top1_agreement_min": least}
    return {**figures, "passed": not broken, "problem": "; ".join(broken) or None}


def top1_agreement(result: Any, reference: Any, tie: float) -> float:
    """Return the share of equal decisions among samples whose reference margin is above ``tie``."""
    clear = np.ptp(np.sort(reference, axis=1)[:, -2:], axis=1) > tie
    same = result.argmax(axis=1) == reference.argmax(axis=1)
    return float(same[clear].mean()) if clear.any() else 1.0


def exit_code(report: dict[str, Any]) -> int:
    """Choose the exit code that says what was found."""
    if not report["integrity"]["passed"]:
        return INTEGRITY_FAILED
    if not report["parity"]:
        return NOTHING_CHECKED
    return PASSED if report["passed"] else PARITY_FAILED


def lines(report: dict[str, Any]) -> list[str]:
    """Say it in plain text."""
    sums = report["integrity"]
    if not sums["passed"]:
        return [
            "REFUSED: this bundle is not as it was made; no model was opened.",
            *(f"  {p}" for p in sums["problems"]),
        ]
    text = [f"integrity: {sums['files']} files unchanged"]
    text += [line(row) for row in report["parity"]]
    text += [f"not checked  {row['file']} ({row['install']})" for row in report["not_checked"]]
    if not report["parity"]:
        return [*text, "NOTHING CHECKED: no runtime for these files is installed."]
    return [*text, "PASSED" if report["passed"] else "FAILED"]


def line(row: dict[str, Any]) -> str:
    """Say what was found for one file."""
    verdict = "ok    " if row["passed"] else "FAILED"
    where = f"{verdict}  {row['file']}  {row.get('runtime', '')}"
    if "max_abs" not in row:
        return f"{where}  {row['problem']}"
    least = row["top1_agreement_min"]
    figures = f"max difference {row['max_abs']:.3g} (limit {row['limit']:.3g}, against {row['reference']})"
    decisions = f"top-1 {row['top1_agreement']:.4f}" + ("" if least is None else f" (at least {least:.4f})")
    problem = "" if row["passed"] else f"  {row['problem']}"
    return f"{where}  {row['samples']} inputs  {figures}  {decisions}{problem}"


if __name__ == "__main__":
    raise SystemExit(main())
