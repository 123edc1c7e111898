"""The house rules: who may import what, who prints, how long things are, what an import costs."""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "edgeml"
FILES = sorted(PACKAGE.rglob("*.py"))
SHARED_LINES = ("finite", "opening", "processes", "stopwatch")
ALONE = "bundled/"  # scripts that are copied into bundles and run without edgeml

# Each heavy library has few doors; a door that ends in "/" is a folder.
DOORS = {
    "keras_tuner": ("search/", "tuners.py"),
    "optuna": ("search/",),
    "tensorflow": ("targets/", "devices/stand_in.py", "compression/toolkit.py"),
    "tf2onnx": ("targets/onnx.py", "targets/_onnx_", "targets/_straight.py"),
    "onnx": ("targets/onnx.py", "targets/_onnx_", "onnx_operators.py", "runtimes/_onnx_tensors.py"),
    "onnxruntime": ("runtimes/onnxruntime.py", "targets/_onnx_static.py", "targets/ort.py", ALONE),
    "tflite_micro": ("runtimes/tflm.py",),
    "ai_edge_litert": (
        "runtimes/litert.py",
        "runtimes/_litert_profiler.py",
        "runtimes/tflm.py",
        "tflite_operators.py",
        "stored_kernels.py",
        ALONE,
    ),
    "tf_keras": ("foreign_child.py", "twin/", "compression/"),
    "tensorflow_model_optimization": ("compression/",),
    "typer": ("cli.py", "cli_"),
    "sklearn": ("data/digits.py", "data/sklearn_table.py", "evaluation.py", "trees/"),
    "scipy": ("ensemble/weights.py", "devices/fit.py", "targets/_onnx_hard_swish.py"),
    "emx_onnx_cgen": ("targets/c.py",),
    "ethosu": ("devices/vela.py",),
    "tensorboard": ("tensorboards.py",),
    "PIL": ("data/image_folder.py", "evaluation.py", "tensorboards.py"),
    "matplotlib": ("report/",),
    "jinja2": ("report/", "handover/"),
    "yaml": ("strict_yaml.py", "report/pages.py"),
}

# From bottom to top; names of one line may not import each other. A package is one name, free inside, but for plug-ins.
LAYERS = (
    ("bundled", "errors", "intervals", "kinds", "memory", "onnx_idioms", "operators", "probes", "records"),
    ("machine", "plugins"),
    ("arena", "tree_shape", "recipe_rule", "precisions"),
    ("file_bytes", "layers", "recipe_files"),
    (
        "strict_yaml",
        "recipe",
        "costs",
        "network",
        "scaling",
        "ledger",
        "tensorboards",
        "train",
        "distillation",
        "batch_statistics",
        "terminal",
    ),
    ("recipe_defaults",),
    ("recipe_rules", "recipe_checks", "augmentation", "foreign", "trees"),
    ("recipe_file", "quick_recipe", "foreign_child"),
    (
        "run_folder",
        "data",
        "search_spaces",
        "folding",
        "runtimes",
        "keras_operators",
        "tflite_operators",
        "onnx_operators",
    ),
    ("configurations", "timing_child", "interleaving"),
    ("exportable", "framing", "splits", "samples", "model_cost", "ensemble", "parity", "timing", "devices"),
    ("targets",),
    ("divergence", "same_integers", "twin", "operator_layers"),
    ("compression",),
    ("stored_kernels",),
    ("quantization",),
    ("exporting",),
    ("verification", "deploying", "profiling"),
    ("calibration_draw",),
    ("calibration",),
    ("search", "device_kit"),
    ("latency_budget", "shortlist"),
    ("evaluation", "pipeline", "tree_finalists", "tuners"),
    ("bundle", "report", "handover", "assembly", "recipe_search"),
    ("nameplates", "descriptions"),
    ("selection", "controls", "compressing", "model_inputs"),
    ("proof",),
    ("manifests", "golden", "checking", "readings"),
    ("delivery", "model_export"),
    ("callbacks", "counterparts"),
    ("benchmarking",),
    ("verbs",),
    ("cli_frame",),
    ("cli_benchmark", "cli_devices"),
    ("cli",),
    ("__main__",),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
PLUGIN_FOLDERS = ("data", "search_spaces", "runtimes", "targets", "search/oracles")
HEAVY = (
    "tensorflow",
    "keras",
    "keras_tuner",
    "optuna",
    "onnx",
    "onnxruntime",
    "ai_edge_litert",
    "ethosu",
    "emx_onnx_cgen",
    "tflite_micro",
    "sklearn",
    "scipy",
    "matplotlib",
    "PIL",
)
MAX_MODULE_LINES, MAX_FUNCTION_LINES = 300, 50
HELP_SECONDS = 1.0


def inside(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in it; ``from edgeml import bundle`` counts as edgeml.bundle."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{inside(path)}:{node.lineno}: a relative import"
            assert node.module is not None
            is_package = (ROOT / node.module.replace(".", "/")).is_dir()
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                known = any((ROOT / name.replace(".", "/")).with_suffix(s).exists() for s in (".py", ""))
                yield name if is_package and known else node.module


def test_only_its_doors_import_a_heavy_library() -> None:
    trespassing = [
        f"{inside(path)} imports {name}; {library} comes in by {', '.join(DOORS[library]) or 'no door yet'}"
        for path in FILES
        for name in imported(path)
        if (library := name.partition(".")[0]) in DOORS
        and not any(inside(path).startswith(door) for door in DOORS[library])
    ]
    assert not trespassing


def test_the_doors_exist() -> None:
    doors = {door for doors in DOORS.values() for door in doors}
    assert not [door for door in doors if not any(inside(path).startswith(door) for path in FILES)]


def test_every_module_has_a_layer_and_every_layer_a_module() -> None:
    here = {inside(path).removesuffix(".py").partition("/")[0] for path in FILES} - {"__init__"}
    assert here == set(LEVEL)


def test_a_module_imports_only_from_layers_below() -> None:
    upward = []
    for path in FILES:
        mine = inside(path).removesuffix(".py").partition("/")[0]
        for name in imported(path):
            top, _, rest = name.partition(".")
            other = rest.partition(".")[0]
            if top == "edgeml" and other and mine != "__init__" and other != mine and LEVEL[other] >= LEVEL[mine]:
                upward.append(f"{inside(path)} imports {name}")
    assert not upward


@pytest.mark.parametrize("folder", PLUGIN_FOLDERS)
def test_plugins_do_not_import_each_other(folder: str) -> None:
    found = []
    for path in sorted((PACKAGE / folder).glob("*.py")):
        for name in imported(path):
            parts = name.split(".")
            here = ["edgeml", *folder.split("/")]
            if parts[: len(here)] == here and len(parts) > len(here) and not parts[len(here)].startswith("_"):
                found.append(f"{path.name} imports {name}")
    assert not found


def test_bundled_scripts_stand_alone() -> None:
    scripts = [path for path in FILES if inside(path).startswith(ALONE)]
    assert len(scripts) > 2
    assert not [
        (inside(path), name)
        for path in scripts
        for name in imported(path)
        if name.startswith("edgeml") and name.removeprefix("edgeml.bundled.") not in SHARED_LINES
    ]  # whose lines take the place of its import


def calls(path: Path, *names: str) -> list[str]:
    """Where a file calls one of ``names`` (dotted, as written)."""
    return [
        f"{inside(path)}:{node.lineno}"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in names
    ]


def test_only_the_command_line_prints_and_exits() -> None:
    others = [path for path in FILES if not inside(path).startswith(ALONE) and not inside(path).startswith("cli")]
    writes = ("print", "sys.stdout.write", "sys.stderr.write")
    assert not [place for path in others if inside(path) != "terminal.py" for place in calls(path, *writes)]
    assert not [place for path in others for place in calls(path, "sys.exit", "exit", "os._exit", "SystemExit")]
    assert calls(PACKAGE / "cli_frame.py", "sys.exit")
    assert calls(PACKAGE / "terminal.py", "print")


def test_every_module_says_what_it_is() -> None:
    assert not [inside(path) for path in FILES if not ast.get_docstring(tree(path))]


def test_modules_and_functions_stay_short() -> None:
    long = [inside(path) for path in FILES if len(path.read_text("utf-8").splitlines()) > MAX_MODULE_LINES]
    for path in FILES:
        for node in ast.walk(tree(path)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.end_lineno is not None:
                lines = node.end_lineno - node.lineno + 1 - _docstring_lines(node)
                if lines > MAX_FUNCTION_LINES:
                    long.append(f"{inside(path)}: {node.name} has {lines} lines")
    assert not long


def _docstring_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = node.body[0]
    is_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    return (first.end_lineno or first.lineno) - first.lineno + 1 if is_docstring else 0


@pytest.mark.parametrize(
    "module", ["edgeml", "edgeml.cli", "edgeml.recipe_file", "edgeml.verbs.make", "edgeml.verbs.examine"]
)
def test_an_import_costs_no_framework(module: str) -> None:
    code = f"import sys, {module}; print(*(name for name in {HEAVY} if name in sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


def test_help_answers_at_once() -> None:
    def seconds() -> float:
        start = time.monotonic()
        subprocess.run([Path(sys.executable).with_name("edgeml"), "--help"], capture_output=True, check=True)
        return time.monotonic() - start

    assert min(seconds() for _ in range(3)) < HELP_SECONDS
