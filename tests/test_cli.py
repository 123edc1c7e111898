"""Tests of the command line, each in a process of its own: what it prints where, its exit code, and what it leaves."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from PIL import Image

EDGEML = str(Path(sys.executable).with_name("edgeml"))
VERBS = ("run", "search", "export", "verify", "benchmark", "inspect", "report", "schema", "doctor")
# The smallest search that there is: digits, three networks of one epoch; two are trained to the end.
RECIPE = """schema_version: 1
name: tiny
data: {source: digits, splits: {validation: 0.1, blend: 0.1, test: 0.2}}
search: {space: ds_cnn, max_trials: 3, epochs: 1, batch_size: 64}
budget: {params: 4_000}
train: {epochs: 2, finalists: 2}
ensemble: {max_members: 2, keep: always, controls: never}
export: {calibration_samples: 64}
verify: {int8_max_accuracy_drop: 1.0}
"""
Found = subprocess.CompletedProcess[str]


def edgeml(*words: str | Path, cwd: Path, before: tuple[str, ...] = ()) -> Found:
    return subprocess.run([*before, EDGEML, *map(str, words)], capture_output=True, text=True, cwd=cwd, check=False)


def everything(folder: Path) -> dict[str, bytes]:
    """Every file below with its content, and every folder; but for locks, and the folder that runs would lie in."""
    paths = [p for p in sorted(folder.rglob("*")) if p.name not in ("lock", "runs")]
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else b"" for p in paths}


def refused(*words: str | Path, cwd: Path, code: int, before: tuple[str, ...] = ()) -> str:
    """Run a command that must fail: one line on stderr, nothing on stdout, nothing written. Return the line."""
    was = everything(cwd)
    found = edgeml(*words, "--quiet", cwd=cwd, before=before)
    assert (found.returncode, found.stdout) == (code, ""), found.stderr
    assert everything(cwd) == was
    (line,) = found.stderr.splitlines()
    assert line.startswith("edgeml: ")
    return line


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with one recipe in it."""
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    return tmp_path


# ---- help, misuse, schema, doctor ----


@pytest.mark.parametrize("words", [["schema"], ["--help"], [], ["serch"], ["search", "gone.yaml", "--quiet"]])
def test_the_module_is_the_command(words: list[str], tmp_path: Path) -> None:
    module = [sys.executable, "-m", "edgeml", *words]
    found = subprocess.run(module, capture_output=True, text=True, cwd=tmp_path, check=False)
    known = edgeml(*words, cwd=tmp_path)
    assert found.returncode == known.returncode
    for mine, its in ((found.stdout, known.stdout), (found.stderr, known.stderr)):
        assert mine.replace("python -m edgeml", "edgeml") == its


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_and_takes_the_common_flags(verb: str, tmp_path: Path) -> None:
    found = edgeml(verb, "--help", cwd=tmp_path)
    assert (found.returncode, found.stderr) == (0, "")
    assert f"Usage: edgeml {verb}" in found.stdout
    assert all(flag in found.stdout for flag in ("--json", "--quiet", "--debug"))


def test_the_help_lists_every_verb_and_a_bare_call_shows_it(tmp_path: Path) -> None:
    helped, bare = edgeml("--help", cwd=tmp_path), edgeml(cwd=tmp_path)
    listed = {line.split()[0] for line in helped.stdout.partition("Commands:")[2].splitlines() if line.strip()}
    assert listed >= set(VERBS)
    assert (bare.returncode, bare.stdout, bare.stderr.strip()) == (2, "", helped.stdout.strip())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("serch", "No such command 'serch'. Did you mean 'search'? `edgeml --help`"),
        ("run", "Missing argument"),
        ("search tiny.yaml --trails 3", "--trials"),
        ("search tiny.yaml --trials 0", "greater than or equal to 1"),
        ("benchmark x.onnx --threads many", "--threads many: whole numbers from 1 on are allowed, as 1 or 1,2,4."),
    ],
)
def test_a_wrong_call_is_one_line(here: Path, words: str, says: str) -> None:
    assert says in refused(*words.split(), cwd=here, code=2)


def test_a_wrong_call_is_json_where_json_is_asked_for(here: Path) -> None:
    found = edgeml("verify", "--json", cwd=here)
    assert (found.returncode, found.stderr) == (2, "")
    message = "Missing argument 'bundle'. `edgeml verify --help` shows what is allowed."
    assert json.loads(found.stdout)["error"] == {"code": 2, "kind": "UsageError", "message": message}


def test_the_schema_is_json_and_takes_our_recipes(tmp_path: Path) -> None:
    import yaml

    found = edgeml("schema", cwd=tmp_path)
    assert (found.returncode, found.stderr) == (0, "")
    schema = json.loads(found.stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    for path in sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml")):
        jsonschema.validate(yaml.safe_load(path.read_text()), schema)
    with pytest.raises(jsonschema.ValidationError, match="serch"):
        jsonschema.validate({**yaml.safe_load(RECIPE), "serch": {}}, schema)


def test_doctor_names_versions_and_processor(tmp_path: Path) -> None:
    found = edgeml("doctor", "--json", cwd=tmp_path)
    document = json.loads(found.stdout)
    assert {"versions", "cpu", "extras", "problems"} <= document.keys()
    assert {"tensorflow", "keras", "onnxruntime", "ai-edge-litert"} <= document["versions"].keys()
    assert found.returncode == (1 if document["problems"] else 0)
    lines = [line.split() for line in edgeml("doctor", cwd=tmp_path).stdout.splitlines()]
    assert ["onnxruntime", document["versions"]["onnxruntime"]] in lines


# ---- bad recipes ----


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ("tinny.yaml", 3, "tinny.yaml: no such file; its folder has tiny.yaml. Did you mean 'tiny.yaml'?"),
        ("photos", 4, "photos: no such folder, recipe, .npz or .csv file."),
        ("tiny.yaml --set serch.epochs=3", 3, "did you mean 'search'?"),
        ("tiny.yaml --set search.epochs=many", 3, "--set search.epochs=many: search.epochs: got text 'many'"),
        ("tiny.yaml --set search.space=ds_cnnn", 3, "Did you mean 'ds_cnn'?"),
        ("tiny.yaml --resume --overwrite", 2, "exclude each other"),
    ],
)
def test_bad_recipes_and_overrides(here: Path, words: str, code: int, says: str) -> None:
    assert says in refused("run", *words.split(), cwd=here, code=code)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("max_trials: 3", "max_trails: 3", "recipe.yaml:4:"),
        ("max_trials: 3", "max_trials: three", "got text 'three'"),
        ("name: tiny", "name: tiny\nname: again", "recipe.yaml:3:"),
        ("{params: 4_000}", "{params: 4_000", "not YAML"),
    ],
)
def test_a_bad_recipe_is_named_with_its_line(here: Path, old: str, new: str, says: str) -> None:
    (here / "recipe.yaml").write_text(RECIPE.replace(old, new))
    assert says in refused("search", "recipe.yaml", cwd=here, code=3)


def test_unquoted_yes_and_no_are_labels(here: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(here / "d.npz", x=rng.integers(0, 256, (90, 8, 8, 1), dtype=np.uint8), y=np.arange(90) % 3)
    (here / "words.yaml").write_text(
        "schema_version: 1\nname: words\ndata: {source: npz, path: d.npz, labels: [yes, no, off]}\n"
    )
    line = refused("search", "words.yaml", "--set", "budget.params=10", cwd=here, code=5)
    assert "the smallest" in line  # the labels were taken, the budget was not
    again = refused("search", "words.yaml", "--set", "data.labels=[yes, no]", cwd=here, code=4)
    assert "2" in again
    assert "label" in again


# ---- a budget that nothing fits ----


def test_a_budget_that_nothing_fits_names_the_smallest_network_and_blocks_nothing(here: Path) -> None:
    (here / "runs" / "tiny").mkdir(parents=True)  # what a killed search leaves that has trained nothing
    (here / "runs" / "tiny" / "recipe.resolved.yaml").write_text(RECIPE)
    found = edgeml("search", "tiny.yaml", "--set", "budget.params=100", "--json", cwd=here)
    error = json.loads(found.stdout)["error"]
    assert (found.returncode, error["code"], error["kind"]) == (5, 5, "BudgetError")
    assert "322 params and" in error["message"]
    assert "params 322 > 100" in error["message"]
    assert not (here / "runs" / "tiny").exists()
    assert "no network" in refused("search", "tiny.yaml", "--dry-run", "--set", "budget.params=100", cwd=here, code=5)


# ---- bad data ----


def pictures(folder: Path, classes: int, each: int = 6) -> Path:
    rng = np.random.default_rng(0)
    for number in range(classes):
        (folder / f"class{number}").mkdir(parents=True)
        for index in range(each):
            pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"class{number}" / f"{index}.png")
    return folder


def test_one_class_is_no_classification(here: Path) -> None:
    pictures(here / "photos", 1)
    assert "photos" in refused("run", "photos", cwd=here, code=4)


def test_a_corrupt_image_is_named(here: Path) -> None:
    folder = pictures(here / "photos", 2)
    whole = (folder / "class1" / "3.png").read_bytes()
    (folder / "class1" / "3.png").write_bytes(whole[: len(whole) // 2])
    assert "class1/3.png" in refused("run", "photos", "--max-params", "900", cwd=here, code=4)


def test_labels_beyond_the_range_and_nan(here: Path) -> None:
    x, y = np.zeros((60, 8, 8, 1), "float32"), np.arange(60) % 3
    np.savez(here / "labels.npz", x=x, y=y)
    line = refused("run", "labels.npz", "--set", "data.labels=[a, b]", cwd=here, code=4)
    assert "label" in line
    x[7, 0, 0, 0] = np.nan
    np.savez(here / "nan.npz", x=x, y=y)
    assert "NaN" in refused("run", "nan.npz", cwd=here, code=4)


def test_an_empty_array_file(here: Path) -> None:
    (here / "empty.npz").write_bytes(b"")
    assert "empty.npz" in refused("run", "empty.npz", cwd=here, code=4)


# ---- bad places ----


def test_an_output_folder_that_holds_something_else(here: Path) -> None:
    (here / "out").mkdir()
    (here / "out" / "thesis.txt").write_text("do not lose")
    assert "holds something that is not a bundle" in refused("run", "tiny.yaml", "--out", "out", cwd=here, code=2)
    (here / "runs" / "tiny").mkdir(parents=True)
    (here / "runs" / "tiny" / "thesis.txt").write_text("do not lose")
    assert "holds something that is not a run" in refused("search", "tiny.yaml", cwd=here, code=2)


def test_a_read_only_place(here: Path) -> None:
    # root may write anywhere unless it gives that right away
    before = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search") if os.geteuid() == 0 else ()
    (here / "locked").mkdir(mode=0o555)
    line = refused("run", "tiny.yaml", "--out", "locked/x", cwd=here, code=2, before=before)
    assert "locked: cannot be written to" in line
    (here / "locked" / "..").resolve().chmod(0o555)
    try:
        assert "cannot be written to" in refused("search", "tiny.yaml", cwd=here, code=2, before=before)
    finally:
        here.chmod(0o755)


# ---- bad model files and bundles ----


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ("inspect tiny.yaml", 4, "'.yaml' is not inspected"),
        ("inspect gone.tflite", 4, "gone.tflite: no such file."),
        ("inspect empty.onnx", 4, "empty.onnx: not an ONNX file"),
        ("export empty", 2, "empty: no run"),
        ("verify empty", 2, "empty: not a bundle (manifest.json is missing)"),
        ("verify gone", 2, "gone: not a bundle"),
        ("report empty", 2, "empty: not a bundle"),
        ("benchmark empty", 2, "empty: not a bundle"),
        ("benchmark tiny.yaml", 4, "tiny.yaml: not a bundle, a run or a .onnx / .tflite / .keras file"),
        ("benchmark gone.onnx", 4, "gone.onnx: no such file."),
    ],
)
def test_what_is_not_a_model_or_a_bundle(here: Path, words: str, code: int, says: str) -> None:
    (here / "empty").mkdir()
    (here / "empty.onnx").touch()
    assert says in refused(*words.split(), cwd=here, code=code)


def test_a_keras_file_that_is_not_one(here: Path) -> None:
    (here / "fake.keras").write_text("hello")
    assert "fake.keras: not a Keras model" in refused("export", "fake.keras", cwd=here, code=4)


def test_a_failure_is_json_where_json_is_asked_for(here: Path) -> None:
    found = edgeml("verify", "gone", "--json", cwd=here)
    assert (found.returncode, found.stderr) == (2, "")
    error = json.loads(found.stdout)["error"]
    assert (error["code"], error["kind"]) == (2, "UsageError")
    assert error["message"].startswith("gone: not a bundle")


# ---- a search, interrupted twice and finished; then everything that can be done with it ----


@dataclass(frozen=True)
class Story:
    """What happened to one search."""

    folder: Path
    intruder: Found
    pid: int
    stopped: tuple[int, str, str]
    stopped_again: tuple[int, str, str]
    finished: Found
    trials_kept: list[str]


def interrupted(words: list[str], cwd: Path, trial: str, sign: signal.Signals, intrude: bool = False) -> Any:
    """Start a search, send it a signal when ``trial`` has ended; return its end, an intruder's, and its pid."""
    process = subprocess.Popen(
        words, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509  (a suite run by & ignores it)
    )  # fmt: skip
    assert process.stderr is not None
    shown = ""
    for line in process.stderr:
        shown += line
        if f" {trial}/" in line and "begins" not in line:
            break
    process.send_signal(signal.SIGSTOP)  # whatever the intruder takes, no trial begins meanwhile
    intruder = edgeml("search", "tiny.yaml", cwd=cwd) if intrude else None
    process.send_signal(sign)
    process.send_signal(signal.SIGCONT)
    out, err = process.communicate(timeout=60)
    return (process.returncode, out, shown + err), intruder, process.pid


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder = tmp_path_factory.mktemp("story")
    (folder / "tiny.yaml").write_text(RECIPE)
    words = [EDGEML, "search", "tiny.yaml", "--set", "search.max_trials=4"]
    stopped, intruder, pid = interrupted(words, folder, "1", signal.SIGINT, intrude=True)
    again = [EDGEML, *shlex.split(stopped[2].rpartition("Go on with: ")[2])[1:]]
    stopped_again, _, _ = interrupted(again, folder, "2", signal.SIGTERM)
    ledger = [json.loads(line) for line in (folder / "runs" / "tiny" / "ledger.jsonl").read_text().splitlines()]
    kept = [entry["trial"] for entry in ledger if entry["event"] == "trial_ended"]
    last = shlex.split(stopped_again[2].rpartition("Go on with: ")[2])[1:]
    return Story(folder, intruder, pid, stopped, stopped_again, edgeml(*last, "--json", cwd=folder), kept)


def test_ctrl_c_stops_with_the_command_that_goes_on(story: Story) -> None:
    code, out, err = story.stopped
    assert (code, out) == (75, "")
    assert err.splitlines()[-1] == (
        "edgeml: stopped; what was trained is kept."
        " Go on with: edgeml search tiny.yaml --set search.max_trials=4 --resume"
    )
    assert "Traceback" not in err


def test_a_second_process_is_told_who_works_there(story: Story) -> None:
    assert (story.intruder.returncode, story.intruder.stdout) == (2, "")
    assert story.intruder.stderr == (
        f"edgeml: runs/tiny: process {story.pid} works in this run. Wait for it, or stop it.\n"
    )


def test_sigterm_is_like_ctrl_c_and_resume_is_not_repeated(story: Story) -> None:
    code, out, err = story.stopped_again
    assert (code, out) == (75, "")
    assert err.splitlines()[-1].endswith("edgeml search tiny.yaml --set search.max_trials=4 --resume")


def test_the_command_that_goes_on_trains_only_what_is_missing(story: Story) -> None:
    assert story.finished.returncode == 0, story.finished.stderr
    document = json.loads(story.finished.stdout)
    assert {"run", "trials", "refused", "best", "front", "seconds"} <= document.keys()
    assert [set(row) for row in document["front"]] == [{"id", "val_accuracy", "macs"}] * len(document["front"])
    assert document["front"][0]["val_accuracy"] == document["best"][0]["val_accuracy"]
    assert document["trials"] == {"completed": 4}
    assert [set(row) >= {"id", "val_accuracy", "cost"} for row in document["best"]] == [True] * 4
    assert story.trials_kept == ["t0000", "t0001"]
    shown = [line.split()[1] for line in story.finished.stderr.splitlines() if line.startswith("search ")]
    assert shown == ["3/4", "4/4"]


def test_a_search_that_is_there_is_neither_lost_nor_mixed(story: Story) -> None:
    for words in (["search", "tiny.yaml"], ["run", "tiny.yaml"]):
        line = refused(*words, cwd=story.folder, code=2)
        assert (
            "runs/tiny: holds a run whose search is done; go on with it by --resume, or replace it by --overwrite."
            in line
        )
    assert "recipe has changed" in refused("search", "tiny.yaml", "--resume", cwd=story.folder, code=3)


def test_dry_run_writes_nothing(here: Path) -> None:
    was = everything(here)
    found = edgeml("search", "tiny.yaml", "--dry-run", "--json", cwd=here)
    assert found.returncode == 0, found.stderr
    document = json.loads(found.stdout)
    assert {"space", "smallest", "largest", "estimated_seconds"} <= document.keys()
    assert 0 < document["space"]["feasible_share"] < 1
    assert document["smallest"]["params"] < 4_000 < document["largest"]["params"]
    assert document["estimated_seconds"] > 0
    assert (document["trials"], document["epochs"], document["ended_by"]) == (3, 3, "search.max_trials")
    assert everything(here) == was


def test_overwrite_replaces_even_a_damaged_run(here: Path) -> None:
    run = here / "runs" / "tiny"
    run.mkdir(parents=True)
    (run / "recipe.resolved.yaml").write_text(RECIPE)
    (run / "ledger.jsonl").write_text('{"event": "run_started"}\n')
    assert "does not match its checksum" in refused("search", "tiny.yaml", cwd=here, code=8)
    words = ("search", "tiny.yaml", "--overwrite", "--set", "data.source=npz", "--set", "data.path=gone.npz")
    assert edgeml(*words, cwd=here).returncode == 4  # it went as far as the data
    assert not run.exists()


@pytest.fixture(scope="module")
def export_stopped(story: Story) -> tuple[int, str, str]:
    """An export that was stopped when the first of two finalists had been trained."""
    return interrupted([EDGEML, "export", "runs/tiny"], story.folder, "1", signal.SIGINT)[0]  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def exported(story: Story, export_stopped: tuple[int, str, str]) -> Found:
    words = shlex.split(export_stopped[2].rpartition("Go on with: ")[2])[1:]
    return edgeml(*words, "--json", cwd=story.folder)


@pytest.fixture
def bundle(story: Story, exported: Found, tmp_path: Path) -> Path:
    """A copy of the bundle that may be changed."""
    assert exported.returncode == 0, exported.stderr
    shutil.copytree(story.folder / "exported" / "tiny", tmp_path / "b")
    return tmp_path / "b"


def test_ctrl_c_in_an_export_keeps_its_finalists(
    story: Story, export_stopped: tuple[int, str, str], exported: Found
) -> None:
    code, out, err = export_stopped
    assert (code, out) == (75, "")
    line = "edgeml: stopped; what was trained is kept. Go on with: edgeml export runs/tiny"
    assert err.splitlines()[-1] == line
    assert "Traceback" not in err
    shown = [line.split()[1:4:2] for line in exported.stderr.splitlines() if line.startswith("train ")]
    assert shown == [["2/2", "begins,"], ["2/2", "2"]]


def test_export_finishes_a_search(story: Story, exported: Found) -> None:
    assert exported.returncode == 0, exported.stderr
    document = json.loads(exported.stdout)
    assert {"bundle", "files", "parity", "folding"} <= document.keys()
    assert document["bundle"] == "exported/tiny"
    assert all(row["passed"] for row in document["parity"])
    names = {"model.tflite", "model_int8.tflite", "model.onnx", "model_int8.onnx"}
    assert {row["path"] for row in document["files"] if row["role"] == "model"} == names
    third_party = ("WARNING", "tensorflow", "XNNPACK", "Traceback", "retracing")
    assert not [line for line in exported.stderr.splitlines() if any(word in line for word in third_party)]
    assert "log.txt" in {path.name for path in (story.folder / "runs" / "tiny").iterdir()}


def test_a_finished_run_steps_aside_only_for_run(story: Story, exported: Found) -> None:
    assert exported.returncode == 0
    assert "holds a finished run" in refused("search", "tiny.yaml", cwd=story.folder, code=2)


def test_verify_passes_then_sees_one_flipped_byte(bundle: Path) -> None:
    found = edgeml("verify", bundle, "--json", cwd=bundle)
    document = json.loads(found.stdout)
    assert (found.returncode, found.stderr, document["passed"]) == (0, "", True)
    assert {"passed", "integrity", "parity", "first_divergence"} <= document.keys()
    content = bytearray((bundle / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / "model.onnx").write_bytes(content)
    changed = edgeml("verify", bundle, cwd=bundle)
    assert changed.returncode == 8
    assert "model.onnx" in changed.stdout
    assert json.loads(edgeml("verify", bundle, "--json", cwd=bundle).stdout)["passed"] is False


def test_a_damaged_manifest_is_a_changed_file(bundle: Path) -> None:
    """Also one that is no text any more; and ``report`` does not bless with new sums what was changed."""
    content = (bundle / "manifest.json").read_bytes()
    (bundle / "manifest.json").write_bytes(b"\xff" + content[1:])
    assert edgeml("verify", bundle, cwd=bundle).returncode == 8
    assert "manifest.json" in refused("report", bundle, cwd=bundle, code=8)


def test_the_report_is_drawn_again_and_the_bundle_stays_proven(bundle: Path) -> None:
    (bundle / "report.html").unlink()
    found = edgeml("report", bundle, "--json", cwd=bundle.parent)
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout) == {"report": str(bundle / "report.html")}
    assert (bundle / "report.html").stat().st_size > 10_000
    assert edgeml("verify", bundle, cwd=bundle).returncode == 0
    assert subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=bundle, check=False).returncode == 0


def test_a_run_names_its_own_bundle(story: Story, exported: Found) -> None:
    assert exported.returncode == 0
    found = edgeml("report", "runs/tiny", "--json", cwd=story.folder)
    assert json.loads(found.stdout) == {"report": "exported/tiny/report.html"}
    assert (story.folder / "exported" / "tiny" / "recipe.yaml").is_file()


def test_benchmark_measures_every_file(bundle: Path) -> None:
    found = edgeml("benchmark", bundle, "--json", "--quiet", cwd=bundle)
    assert (found.returncode, found.stderr) == (0, "")
    document = json.loads(found.stdout)
    assert {"results", "comparisons", "machine", "versions"} <= document.keys()
    assert {"cpu", "flags", "governor", "load_1min"} <= document["machine"].keys()
    names = {Path(row["file"]).name for row in document["results"]}
    assert names == {"model.onnx", "model_int8.onnx", "model.tflite", "model_int8.tflite"}
    keys = {
        "file",
        "runtime",
        "device",
        "threads",
        "quiet_ms",
        "p50_ms",
        "p90_ms",
        "p99_ms",
        "interval_95",
        "noise_floor",
        "first_run_ms",
        "peak_memory_bytes",
        "file_bytes",
        "warm_up_runs",
        "cores",
    }
    assert all(keys <= row.keys() and row["quiet_ms"] > 0 for row in document["results"])


def test_inspect_counts_the_folded_graph(bundle: Path) -> None:
    found = edgeml("inspect", bundle / "model.keras", "--json", cwd=bundle)
    assert (found.returncode, found.stderr) == (0, "")
    document = json.loads(found.stdout)
    keys = {"params", "macs", "weight_bytes", "peak_activation_bytes", "arena_bytes", "file_bytes", "layers",
            "batch_norm", "not_counted"}  # fmt: skip
    assert keys <= document.keys()
    cost = json.loads((bundle / "manifest.json").read_text())["cost"]
    assert (document["params"], document["macs"]) == (cost["params"], cost["macs"])
    assert sum(layer["params"] for layer in document["layers"]) == document["params"]
    assert document["batch_norm"] == {"folded": 0, "kept": []}  # it was folded before it was saved
