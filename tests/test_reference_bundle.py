"""The bundle that lies in the repository is whole, small, proven, and what today's code would write."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path

import pytest

import edgeml
from edgeml import bundle, plugins, precisions, recipe_file
from edgeml.report import pages
from edgeml.verbs import receiving

ROOT = Path(__file__).parents[1]
BUNDLE = ROOT / "exported" / "digits_targets"
RECIPE = ROOT / "recipes" / "digits_targets.yaml"
MOST_BYTES = 1_000_000
REDRAW = "Run `python tools/reference_bundle --redraw` and commit the bundle."
AGAIN = "Run `python tools/reference_bundle` (gcc; extras micro, c, ethos) and commit the bundle."
SUMMED = {"manifest.json", "SHA256SUMS"}  # hold the sum of report.html
DRAWN_BY_MATPLOTLIB = {"report.html"}  # whose curves another version draws with other digits


@pytest.fixture(scope="module")
def redrawn(tmp_path_factory):
    """A copy of the bundle, drawn again."""
    loader = SourceFileLoader("reference_bundle", str(ROOT / "tools" / "reference_bundle"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.dont_write_bytecode", True)
        tool = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
        loader.exec_module(tool)
    place = tmp_path_factory.mktemp("reference") / BUNDLE.name
    shutil.copytree(BUNDLE, place)
    tool.redraw(place)
    return place


def files_in(folder):
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}


def test_it_is_small_and_all_of_it_is_in_git():
    found = files_in(BUNDLE)
    assert sum(path.stat().st_size for path in found.values()) < MOST_BYTES
    if (ROOT / ".git").exists():
        listed = subprocess.run(["git", "ls-files", "."], cwd=BUNDLE, capture_output=True, text=True, check=True)
        assert set(listed.stdout.split()) == set(found)


def test_it_passes_what_a_receiver_runs(tmp_path):
    place = tmp_path / "b"
    shutil.copytree(BUNDLE, place)
    words = [sys.executable, "verify.py", "--json"]
    done = subprocess.run(words, cwd=place, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout
    told = json.loads(done.stdout)
    assert (told["passed"], told["unlisted"], told["not_checked"]) == (True, [], [])
    assert edgeml.verify(BUNDLE)["passed"]


def test_a_receiver_is_told_of_programs_for_devices():
    text, _ = receiving.inspect(BUNDLE)
    told = [line.split() for line in text.splitlines() if re.match(r"\w+/ ", line)]
    assert [line[0] for line in told] == ["tflm/", "c/", "ort/", "ort/", "ethos_u/"]
    assert all(re.fullmatch(r"[\d,]+", line[2]) for line in told), "flash bytes"
    assert "arena about" not in text, "it was measured"


def test_it_is_made_from_the_recipe_as_it_stands():
    assert recipe_file.read(BUNDLE / "recipe.yaml") == recipe_file.read(RECIPE), AGAIN


def test_it_has_every_file_and_program_of_every_target():
    manifest, asked = bundle.read(BUNDLE), recipe_file.read(RECIPE).export
    assert set(asked.targets) == set(plugins.names("targets"))
    models = [(one["target"], one["precision"]) for one in bundle.models(manifest)]
    assert sorted(models) == sorted((one.target, one.precision) for one in precisions.files(*_words(asked)))
    made = [(one["target"], one["precision"]) for one in manifest["deployments"]]
    assert made == precisions.programs(*_words(asked))


def _words(asked):
    return asked.targets, asked.precision


def test_programs_scripts_and_card_are_those_of_today(redrawn):
    before, after = files_in(BUNDLE), files_in(redrawn)
    assert before.keys() == after.keys(), REDRAW
    others = [
        name
        for name in sorted(before.keys() - SUMMED - DRAWN_BY_MATPLOTLIB)
        if before[name].read_bytes() != after[name].read_bytes()
    ]
    assert not others, f"{', '.join(others)}: not what today's code writes. {REDRAW}"
    then, now = (bundle.read(folder) for folder in (BUNDLE, redrawn))
    for manifest in (then, now):
        manifest["files"] = [one for one in manifest["files"] if one["path"] not in DRAWN_BY_MATPLOTLIB]
    assert then == now, REDRAW


def test_the_report_has_the_sections_of_today(redrawn):
    then, now = ((folder / "report.html").read_text("utf-8") for folder in (BUNDLE, redrawn))
    assert pages.sections(then) == pages.sections(now) != [], REDRAW


def test_no_file_names_a_place_of_the_machine_that_made_it():
    places = re.compile(rb"/(?:tmp|home|root|work|Users|var|opt|usr)/[\w.-]+")
    named = {name: found[0] for name, path in files_in(BUNDLE).items() if (found := places.search(path.read_bytes()))}
    assert not named
