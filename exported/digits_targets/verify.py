"""Check this bundle on this machine: no byte was changed, and every model file still computes what it was proven to.

    python verify.py [--json]

Needs numpy and a runtime (onnxruntime for .onnx; ai-edge-litert, tflite-runtime or tensorflow for .tflite), no more.
First every file is held against SHA256SUMS, then each model file computes the 64 inputs of golden.npz and is held
against the limits in manifest.json.

Exit code: 0 passed; 2 nothing could be checked; 6 a file computes something else; 8 a file was changed or is missing.
"""

from __future__ import annotations

import os
import sys

# What lies in this folder is what is checked: none of it is imported.
_here = os.path.realpath(os.path.dirname(__file__))
sys.path[:] = [place for place in sys.path if os.path.realpath(place or ".") != _here]

try:
    import numpy
except ModuleNotFoundError as error:
    print(f"{error}. Do: pip install numpy", file=sys.stderr)
    sys.exit(2)

import argparse
import hashlib
import json
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

import math
from typing import Any


def written(value: Any) -> Any:
    """Turn numbers that JSON has not (NaN, infinity) into null."""
    if isinstance(value, dict):
        return {key: written(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [written(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
import importlib
import importlib.metadata
import operator
from pathlib import Path
from typing import Any, Callable, NamedTuple  # noqa: UP035  (at home on Python 3.9)

import numpy as np

Run = Callable[[Any], Any]  # from inputs by name to a list of outputs
Single = Callable[[Any], Callable[[], Any]]  # puts inputs in place; what it returns makes one inference, no more
INSTALL = {".onnx": "onnxruntime", ".tflite": "ai-edge-litert"}
INTERPRETERS = (  # module, path of the class in it, distribution
    ("ai_edge_litert.interpreter", "Interpreter", "ai-edge-litert"),
    ("tflite_runtime.interpreter", "Interpreter", "tflite-runtime"),
    ("tensorflow", "lite.Interpreter", "tensorflow"),
)


class Opened(NamedTuple):
    """A file in its runtime (name and version), and what it calls its inputs; ``single`` is for timing."""

    runtime: str
    fed: list[str]
    run: Run
    single: Single


def open_onnx(path: Path, inputs: list[str], outputs: list[str], threads: int) -> Opened:
    """Open an ONNX file."""
    runtime = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    fed, wanted = (
        [names[place] for place in places(asked, names)]
        for asked, names in (
            (inputs, [one.name for one in session.get_inputs()]),
            (outputs, [one.name for one in session.get_outputs()]),
        )
    )

    def single(feed: dict[str, Any]) -> Callable[[], Any]:
        return lambda: session.run(wanted, feed)

    return Opened(f"onnxruntime {runtime.__version__}", fed, lambda feed: session.run(wanted, feed), single)


def open_tflite(path: Path, inputs: list[str], outputs: list[str], threads: int) -> Opened:
    """Open a TFLite file."""
    kind, runtime = interpreter_class()
    model = kind(model_path=str(path), num_threads=threads)
    model.allocate_tensors()
    sources, results = model.get_input_details(), model.get_output_details()
    chosen = [results[place]["index"] for place in places(outputs, [one["name"] for one in results])]
    index = {one["name"]: one["index"] for one in sources}
    names = list(index)

    def single(feed: dict[str, Any]) -> Callable[[], Any]:
        for name, x in feed.items():
            model.set_tensor(index[name], x)
        invoke: Callable[[], Any] = model.invoke
        return invoke

    def run(feed: dict[str, Any]) -> list[Any]:
        single(feed)()
        return [model.get_tensor(one) for one in chosen]

    return Opened(runtime, [names[place] for place in places(inputs, names)], run, single)


def places(asked: list[str], names: list[str]) -> list[int]:
    """Find tensors by their names, one that goes by another name in this file by its place."""
    return [names.index(name) if name in names else place for place, name in enumerate(asked)]


def tensors(manifest: dict[str, Any], entry: dict[str, Any], side: str) -> list[dict[str, Any]]:
    """List what a file takes (side "input") or gives: name, dtype, and scale and zero point where it is quantized."""
    listed = manifest.get(side + "s") or [manifest[side]]
    quantization = entry.get("quantization") or {}
    first = {listed[0]["name"]: quantization.get(side) or {}}
    quantized = quantization.get(side + "s") or first
    return [{"dtype": "float32", **one, **quantized.get(one["name"], {})} for one in listed]


def golden_tensors(golden: Any, key: str, names: list[str]) -> list[Any]:
    """Return the golden tensors of a kind: the first has the bare key, others their names behind it."""
    return [golden[key if place == 0 else f"{key}/{name}"] for place, name in enumerate(names)]


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


def as_input(x: Any, tensor: dict[str, Any]) -> Any:
    """Turn real values into what the file takes: round(x / scale) + zero_point, cut to the range of its dtype."""
    dtype = np.dtype(tensor["dtype"])
    if "scale" not in tensor:
        return np.asarray(x, dtype)
    steps = np.round(np.asarray(x, np.float64) / tensor["scale"]) + tensor["zero_point"]
    return np.clip(steps, np.iinfo(dtype).min, np.iinfo(dtype).max).astype(dtype)


def whole_batches(x: Any, batch: int) -> Any:
    """Repeat the last row until the rows are whole batches."""
    return np.concatenate([x, np.repeat(x[-1:], -len(x) % batch, axis=0)])


OPENERS = {".onnx": open_onnx, ".tflite": open_tflite}
LIBRARIES = {".onnx": ("onnxruntime",), ".tflite": tuple(module for module, _, _ in INTERPRETERS)}

PASSED, NOTHING_CHECKED, PARITY_FAILED, INTEGRITY_FAILED = 0, 2, 6, 8
MALFORMED = (AttributeError, KeyError, TypeError, ValueError, IndexError, zipfile.BadZipFile, EOFError)
NEEDED = ("manifest.json", "golden.npz")
INSTALLED = re.compile(r"(?<![^/])node_modules/.*")  # by npm, for the page: told as one
SUM_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")


def main(arguments: list[str] | None = None) -> int:
    """Check the bundle that this script lies in; return the exit code."""
    parser = argparse.ArgumentParser(description="Check this bundle: unchanged files, unchanged results.")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout instead of a table")
    as_json = parser.parse_args(arguments).json
    folder = Path(__file__).resolve().parent
    report = check(folder)
    code = exit_code(report)
    if as_json:
        print(json.dumps(written({**report, "exit_code": code}), indent=1))
    else:
        print("\n".join(lines(report)))
    return code


def check(folder: Path) -> dict[str, Any]:
    """Check integrity, then parity; nothing of a bundle with a changed byte is opened."""
    report: dict[str, Any] = {
        "passed": False, "integrity": {"passed": False, "files": 0, "problems": []}, "unlisted": [], "parity": [],
        "not_checked": [], "first_divergence": None,
    }  # fmt: skip
    try:
        checked(folder, report)
    except MALFORMED as error:
        what = f"manifest.json or golden.npz: not as it was written ({type(error).__name__}: {error})"
        report["integrity"].update(passed=False, problems=[*report["integrity"]["problems"], what])
    return report


def checked(folder: Path, report: dict[str, Any]) -> None:
    """Fill in what is found."""
    count, problems = integrity(folder)
    report["integrity"] = {"passed": not problems, "files": count, "problems": problems}
    if problems:
        return
    strangers = set(lying(folder)) - set(summed(folder)) - {"SHA256SUMS"}
    report["unlisted"] = sorted({INSTALLED.sub("node_modules/", name) for name in strangers})
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
    return len(listed), problems or unlike(folder)


def summed(folder: Path) -> dict[str, str]:
    """Return the files of SHA256SUMS, with their sums."""
    found = (SUM_LINE.fullmatch(line) for line in (folder / "SHA256SUMS").read_text("utf-8").splitlines())
    return {match[2]: match[1] for match in found if match}


def lying(folder: Path) -> list[str]:
    """List what lies in the folder."""
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() or path.is_symlink()]


def outside(name: str) -> bool:
    """Tell whether a name leads out of the folder."""
    return Path(name).is_absolute() or ".." in re.split(r"[/\\]", name)


def unlike(folder: Path) -> list[str]:
    """Hold SHA256SUMS, the (unchanged) manifest and the folder against each other; one line per contradiction."""
    manifest, sums = json.loads((folder / "manifest.json").read_text("utf-8")), summed(folder)
    entries = {one["path"]: one for one in manifest["files"]}
    known = {one["path"] for one in models(manifest)}
    problems = [f"{name}: not in SHA256SUMS" for name in sorted(known - set(sums))]
    problems += [f"{name}: manifest.json has another sum" for name, one in entries.items()
                 if name in sums and one.get("sha256", sums[name]) != sums[name]]  # fmt: skip
    known |= {name for name, one in entries.items() if one["role"] == "deployment"}
    strangers = [name for name in lying(folder) if Path(name).suffix in OPENERS and name not in known]
    return problems + [f"{name}: a model file that manifest.json does not know" for name in sorted(strangers)]


def parity(folder: Path, manifest: dict[str, Any], golden: dict[str, Any], entry: dict[str, Any]) -> dict[str, Any]:
    """Compute the golden inputs with one file and hold the result against its limits."""
    path, limits = entry["path"], manifest["golden"].get(entry["path"])
    row: dict[str, Any] = {"file": path, "passed": False, "samples": len(golden["inputs"])}
    if limits is None:
        return {**row, "problem": "manifest.json has no limit for it"}
    row.update(reference=limits["reference"], limit=limits["max_abs_limit"])
    inputs, outputs = (tensors(manifest, entry, side) for side in ("input", "output"))
    names, given = ([one["name"] for one in side] for side in (inputs, outputs))
    try:
        row["runtime"], fed, run, _ = OPENERS[Path(path).suffix](folder / path, names, given, 1)
        values = [as_input(x, one) for x, one in zip(golden_tensors(golden, "inputs", names), inputs)]
        results = predict(run, dict(zip(fed, values)), outputs, entry.get("batch") or 1)
    except runtime_errors() as error:
        return {**row, "problem": f"the runtime refuses it: {' '.join(str(error).split())}"}
    return {**row, **all_judged(results, golden, path, limits, given)}


def runtime_errors() -> tuple[type[Exception], ...]:
    """List what the installed runtimes raise: onnxruntime has a dozen classes with no common one above them."""
    own: list[type[Exception]] = [ValueError, RuntimeError]
    state = sys.modules.get("onnxruntime.capi.onnxruntime_pybind11_state")
    own += [kind for kind in vars(state or object).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    return tuple(own)


def predict(run: Run, feed: dict[str, Any], outputs: list[dict[str, Any]], batch: int) -> list[Any]:
    """Run one batch at a time (that of TFLite files is fixed, at 1 if nothing else is said); real results."""
    rows = len(next(iter(feed.values())))
    feed = {name: whole_batches(x, batch) for name, x in feed.items()}
    parts = [
        [np.array(result) for result in run({name: x[i : i + batch] for name, x in feed.items()})]
        for i in range(0, rows, batch)
    ]
    return [real(np.concatenate(results)[:rows], output) for results, output in zip(zip(*parts), outputs)]


def real(result: Any, output: dict[str, Any]) -> Any:
    """Turn what a file gives into real values."""
    if "scale" not in output:
        return result
    return (result.astype(np.float64) - output["zero_point"]) * output["scale"]


def all_judged(
    results: list[Any], golden: dict[str, Any], path: str, limits: dict[str, Any], names: list[str]
) -> dict[str, Any]:
    """Judge every output; the figures are of the first that fails, or of the first, the problems of all."""
    references = golden_tensors(golden, "outputs" if limits["reference"] == "outputs" else "expected/" + path, names)
    each = [limits, *(limits["outputs"][name] for name in names[1:])]
    rows = [{**judged(*one), "limit": one[2]["max_abs_limit"]} for one in zip(results, references, each)]
    problems = [f"output '{name}': {row['problem']}" for name, row in zip(names, rows) if row["problem"]]
    shown = next((row for row in rows if row["problem"]), rows[0])
    return shown if len(rows) == 1 else {**shown, "problem": "; ".join(problems) or None}


def judged(result: Any, reference: Any, limits: dict[str, Any]) -> dict[str, Any]:
    """Compare shapes, then values, then decisions; every broken limit is told."""
    if result.shape != reference.shape:
        return {"passed": False, "problem": f"shape {list(result.shape)}, due is {list(reference.shape)}"}
    result, reference = (values.reshape(len(values), -1) for values in (result, reference))
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
    if reference.shape[1] < 2:
        return 1.0
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
    if report["unlisted"]:
        names = [*report["unlisted"][:5], *(["…"] if len(report["unlisted"]) > 5 else [])]
        text.append(f"{len(report['unlisted'])} files not in SHA256SUMS, not checked: {', '.join(names)}")
    if not report["parity"]:
        reason = (
            "no runtime for these files is installed" if report["not_checked"] else "the bundle holds no model file"
        )
        return [*text, f"NOTHING CHECKED: {reason}."]
    left = f", {len(report['not_checked'])} files not checked" if report["not_checked"] else ""
    return [*text, ("PASSED" if report["passed"] else "FAILED") + left]


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
