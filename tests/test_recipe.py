"""Recipes: read, overridden, written, hashed; every mistake is one line that names place, finding and remedy."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgeml import plugins, precisions, recipe_file, recipe_rules, strict_yaml
from edgeml.errors import RecipeError
from edgeml.recipe import (
    ORACLES,
    Augment,
    Benchmark,
    Data,
    Ensemble,
    Export,
    Recipe,
    Search,
    Splits,
    Train,
    Verify,
)
from edgeml.recipe_defaults import with_defaults
from edgeml.records import COUNTS, Budget, Limit

unhurried = settings(deadline=None, max_examples=50)  # shared machines: an example may take any time

SMALLEST = "schema_version: 1\nname: x\ndata: {source: digits}\n"
EVERYTHING = """\
schema_version: 1
name: Fashion-mnist_2
data:
  source: npz
  path: data.npz
  labels: [yes, no, on, off]
  splits: {validation: 0.1, blend: 0.15, test: given}
  augment: {flip: horizontal, shift: 8e-2}
search:
  space: ds_cnn
  oracle: hyperband
  max_trials: 1_000
  time_limit_minutes: 30
  member_share: [1, 1/2, 0.25]
budget:
  params: 30_000
  macs: 3e6
  latency: [{device: host, runtime: onnxruntime, precision: int8, max_ms: 0.5}]
export: {targets: tflite, precision: [float32]}
"""


@pytest.fixture(scope="module")
def judge() -> jsonschema.Draft202012Validator:
    schema = recipe_file.json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def refusal(text: str, *overrides: str) -> str:
    """Return the message of the error that reading gives."""
    with pytest.raises(RecipeError) as caught:
        recipe_file.parse(text, "r.yaml", overrides)
    assert str(caught.value).splitlines() == [str(caught.value)]
    return str(caught.value)


def test_the_smallest_recipe_has_the_defaults() -> None:
    assert recipe_file.parse(SMALLEST, "r.yaml") == Recipe(schema_version=1, name="x", data=Data(source="digits"))


def test_every_way_of_writing_a_value() -> None:
    assert recipe_file.parse(EVERYTHING, "r.yaml") == Recipe(
        schema_version=1,
        name="Fashion-mnist_2",
        data=Data(
            source="npz",
            path="data.npz",
            labels=("yes", "no", "on", "off"),
            splits=Splits(validation=0.1, blend=0.15, test="given"),
            augment=Augment(flip="horizontal", shift=0.08),
        ),
        search=Search(
            space=("ds_cnn",),
            oracle="hyperband",
            max_trials=1000,
            time_limit_minutes=30.0,
            member_share=(Fraction(1), Fraction(1, 2), Fraction(1, 4)),
        ),
        budget=Budget(params=30_000, macs=3_000_000, latency=(Limit("host", "onnxruntime", "int8", 0.5),)),
        export=Export(targets=("tflite",), precision=("float32",)),
    )


def test_values_have_the_type_of_their_field() -> None:
    recipe = recipe_file.parse(EVERYTHING, "r.yaml")
    assert type(recipe.budget.macs) is int
    assert type(recipe.search.time_limit_minutes) is float
    assert {type(share) for share in recipe.search.member_share} == {Fraction}


def test_a_decimal_share_is_the_fraction_it_means() -> None:
    shares = recipe_file.parse(
        SMALLEST + "search: {member_share: [0.1, 0.333333333, 1.0]}", "r.yaml"
    ).search.member_share
    assert shares == (Fraction(1, 10), Fraction(1, 3), Fraction(1))


@pytest.mark.parametrize(
    ("lines", "oracle", "early_stopping", "members"),
    [
        ("", "random", None, 3),
        ("search: {epochs: 8}", "random", None, 3),
        ("search: {epochs: 9}", "hyperband", None, 3),
        ("search: {epochs: 50}", "hyperband", None, 3),
        ("search: {epochs: 10, oracle: tpe}", "tpe", None, 3),
        ("search: {epochs: 11, oracle: tpe}", "tpe", 5, 3),
        ("search: {epochs: 11, oracle: tpe, early_stopping: null}", "tpe", None, 3),
        ("search: {epochs: 11, early_stopping: 2}", "hyperband", 2, 3),
        ("ensemble: {max_members: 1}", "random", None, 1),
        ("ensemble: {max_members: 2}", "random", None, 2),
        ("ensemble: {max_members: 16}", "random", None, 3),
    ],
)
def test_a_default_that_follows_from_other_keys_is_filled_in_and_written(
    lines: str, oracle: str, early_stopping: int | None, members: int
) -> None:
    recipe = recipe_file.parse(SMALLEST + lines, "r.yaml")
    shares = (Fraction(1), Fraction(1, 2), Fraction(1, 3))[:members]
    assert (recipe.search.oracle, recipe.search.early_stopping) == (oracle, early_stopping)
    assert recipe.search.member_share == shares
    keys = recipe_file.to_dict(recipe)["search"]
    assert {"oracle", "early_stopping", "member_share"} <= keys.keys()
    assert recipe_file.parse(recipe_file.dump(recipe), "again.yaml") == recipe


def test_what_a_recipe_says_itself_is_kept() -> None:
    said = recipe_file.parse(SMALLEST + "search: {epochs: 30, oracle: grid, member_share: 1/2}", "r.yaml").search
    assert (said.oracle, said.member_share) == ("grid", (Fraction(1, 2),))
    overridden = recipe_file.parse(SMALLEST, "r.yaml", ["search.epochs=30", "search.oracle=random"]).search
    assert (overridden.oracle, overridden.early_stopping) == ("random", 5)


def test_records_made_in_python_have_the_defaults_of_a_recipe() -> None:
    made = Recipe(schema_version=1, name="x", data=Data(source="digits"))
    assert with_defaults(made) == made


def test_the_oracle_that_takes_one_objective_is_the_one_that_would_run() -> None:
    assert "got 2 for the oracle hyperband; several are" in refusal(
        SMALLEST + "search: {epochs: 9, objectives: [val_accuracy, macs]}"
    )


# The last line of a recipe, the path that the message names, how the message goes on after it, how it ends.
MISTAKES = [
    (
        "search:\n  seed: 2\n  max_trails: 3",
        "search.max_trails",
        "unknown key; did you mean 'max_trials'? (allowed: ",
        ").",
    ),
    (
        "serach: {}",
        "serach",
        "unknown key; did you mean 'search'? (allowed: schema_version, name, data, search, ",
        ").",
    ),
    ("wholly_else: 1", "wholly_else", "unknown key (allowed: schema_version, ", ")."),
    ("1: 1", "1", "unknown key (allowed: ", ")."),
    ("budget:\n  params: lots", "budget.params", "got text 'lots'; an integer >= 1 is allowed (scalars ", ")."),
    ("budget: {params: 0}", "budget.params", "got the number 0; an integer >= 1 is allowed (", ")."),
    ("budget: {macs: 1.5}", "budget.macs", "got the number 1.5; an integer >= 1 is allowed (", ")."),
    ("budget: {file_bytes: 0}", "budget.file_bytes", "got the number 0; an integer >= 1 is ", ")."),
    ("budget: {arena_bytes: -1}", "budget.arena_bytes", "got the number -1; an integer >= 1 is ", ")."),
    ("budget: {peak_activation_bytes: true}", "budget.peak_activation_bytes", "got true; an integer >= 1 is ", ")."),
    ("budget: {parms: 1}", "budget.parms", "unknown key; did you mean 'params'? (allowed: params, macs, ", ")."),
    ("budget: 5", "budget", "got the number 5; keys are allowed (params, macs, ", "Write 'key: value' lines."),
    ("budget:", "budget", "got nothing; keys are allowed (params, macs, ", ""),
    ("budget: [params]", "budget", "got a list; keys are allowed (params, macs, ", ""),
    (
        "budget: {latency: 5}",
        "budget.latency",
        "got the number 5; a list is allowed, each item a section (device, ",
        "",
    ),
    ("budget: {latency: {}}", "budget.latency", "got keys; a list is allowed, each item a section (device, ", ""),
    ("budget: {latency: [5]}", "budget.latency[0]", "got the number 5; keys are allowed (device, ", ""),
    ("budget: {latency: [{device: pi}]}", "budget.latency[0]", "'runtime' is missing; onnxruntime, litert, vela o", ""),
    ("search: {oracle: hyperbnd}", "search.oracle", "got text 'hyperbnd'; random, grid, ", "Did you mean 'hyperband'?"),
    ("search: {space: ds_cn}", "search.space", "got text 'ds_cn'; ", "Did you mean 'ds_cnn'?"),
    ("search: {space: [ds_cnn, 2]}", "search.space[1]", "got the number 2; ", ")."),
    ("search: {space: []}", "search.space", "got a list; a list of at least 1 is allowed, each item ", ")."),
    ("search: {space: {}}", "search.space", "got keys; a list of at least 1 is allowed, each item ", ")."),
    ("search: {space: [[ds_cnn]]}", "search.space[0]", "got a list; ", ")."),
    ("search: {space: [ds_cnn, ds_cnn]}", "search.space[1]", "got text 'ds_cnn' again; each item is ", "Remove one."),
    ("search: {seed: null}", "search.seed", "got null; an integer >= 0 and <= 2,147,483,646 is allowed (", ")."),
    ("search: {seed: -1}", "search.seed", "got the number -1; an integer >= 0 and <= ", ""),
    ("search: {seed: 010}", "search.seed", "got text '010'; an integer >= 0 and <= ", ""),
    ("search: {epochs: '6'}", "search.epochs", "got text '6'; an integer >= 1 and <= 10,000 is allowed (", ""),
    ("search: {epochs: yes}", "search.epochs", "got text 'yes'; an integer >= 1 and <= 10,000 is allowed (", ""),
    ("search: {time_limit_minutes: 1:30}", "search.time_limit_minutes", "got text '1:30'; a number > 0 is ", ""),
    ("search: {time_limit_minutes: .inf}", "search.time_limit_minutes", "got text '.inf'; a number > 0 is ", ""),
    (
        "search: {member_share: 0}",
        "search.member_share",
        "got the number 0; a fraction like 1/2 or 0.5 > 0 and <= 1 ",
        "",
    ),
    ("search: {member_share: [1, 1/0]}", "search.member_share[1]", "got text '1/0'; a fraction like ", ""),
    ("search: {member_share: [1, half]}", "search.member_share[1]", "got text 'half'; a fraction like ", ""),
    ("train: {label_smoothing: 0.6}", "train.label_smoothing", "got the number 0.6; a number >= 0 and <= 0.5 is ", ""),
    ("export: {targets: [onnx, tflit]}", "export.targets[1]", "got text 'tflit'; ", "Did you mean 'tflite'?"),
    ("export: {precision: int16}", "export.precision", "got text 'int16'; float32, float16, ", "mean 'int16x8'?"),
    ("export: {io: uint8}", "export.io", "got text 'uint8'; native or float32 is allowed (", ""),
    ("data: {name: x}", "data", "'source' is missing; csv, digits, ", "Add a line 'source: …'."),
    ("data: {source: digit}", "data.source", "got text 'digit'; csv, digits, ", "Did you mean 'digits'?"),
    ("data: {source: tsv, name: 5}", "data.source", "got text 'tsv'; csv, digits, ", "Did you mean 'csv'?"),
    ("data: {source: digits, name: 5}", "data.name", "got the number 5; text is ", "Write it in quotes: '5'."),
    ("data: {source: digits, labels: [0, 1]}", "data.labels[0]", "got the number 0; text is ", "quotes: '0'."),
    ("data: {source: digits, labels: [a, 1e-3]}", "data.labels[1]", "got the number 1e-3; text is ", "quotes: '1e-3'."),
    ("data: {source: digits, labels: [true, false]}", "data.labels[0]", "got true; text is ", "quotes: 'true'."),
    ("data: {source: digits, labels: [a, null]}", "data.labels[1]", "got null; text is ", "quotes: 'null'."),
    ("data: {source: digits, labels: [a, '']}", "data.labels[1]", "got text ''; text is ", ")."),
    ("data: {source: digits, labels: [a]}", "data.labels", "got a list; a list of at least 2 is allowed", ")."),
    ("data: {source: digits, labels: cat}", "data.labels", "got text 'cat'; a list of at least 2 is allowed", ")."),
    ("data: {source: digits, labels: [a, b, a]}", "data.labels[2]", "got text 'a' again; ", "Remove one."),
    ("data: {source: digits, splits: {test: give}}", "data.splits.test", "got text 'give'; a number", "mean 'given'?"),
    (
        "data: {source: digits, splits: {test: 0}}",
        "data.splits.test",
        "got the number 0; a number > 0 and <= 0.5 or g",
        "",
    ),
    ("data: {source: digits, splits: {blend: given}}", "data.splits.blend", "got text 'given'; a number > 0 and ", ""),
    ("data: {source: digits, augment: {flip: no}}", "data.augment.flip", "got text 'no'; none, horizontal, vert", ""),
]
HOST = "device: host, runtime: litert, precision: int8, max_ms"
BEYOND_A_SCHEMA = [
    (
        "export: {targets: [onnx], precision: [float32, dynamic]}",
        "export.precision",
        "target onnx: no precision 'dynamic'; onnx writes float32, float16, int8.",
        "Leave it out.",
    ),
    (
        "export: {precision: [dynamic, int16x8]}",
        "export.precision",
        "target onnx: writes none of dynamic, int16x8; ",
        "leave this target out.",
    ),
    (
        f"budget: {{latency: [{{{HOST}: 1}}, {{{HOST}: 2}}]}}",
        "budget.latency[1]",
        "host/litert/int8 has a limit already; one each is allowed. ",
        "Keep the smaller max_ms.",
    ),
    ("benchmark: {}\nbenchmark: {}", "benchmark", "key given twice, first on line 4; ", "Remove one of the two."),
    ("search: {member_share: 3/2}", "search.member_share", "got text '3/2'; a fraction like ", ""),
    ("search: {member_share: [1/2, 0.5]}", "search.member_share[1]", "got the number 0.5 again; ", "Remove one."),
    (
        "data: {source: digits, splits: {validation: 0.5, blend: 0.2}}",
        "data.splits",
        "validation 0.5 + blend 0.2 + test 0.2 = 0.9; a sum below 0.9 is allowed. ",
        "Leave more to train on.",
    ),
    (
        "data: {source: digits, splits: {validation: 0.5, blend: 0.4, test: given}}",
        "data.splits",
        "validation 0.5 + blend 0.4 = 0.9; a sum below 0.9 is allowed. ",
        "Leave more to train on.",
    ),
]
LIMITS = [
    ("device: a b, runtime: litert, precision: int8, max_ms: 1", "device", "got text 'a b'; text like "),
    (
        "device: host, runtime: onnx, precision: int8, max_ms: 1",
        "runtime",
        "got text 'onnx'; onnxruntime, litert, vela or",
    ),
    (
        "device: host, runtime: litert, precision: 8, max_ms: 1",
        "precision",
        "got the number 8; float32 or int8 is allow",
    ),
    (
        "device: host, runtime: litert, precision: int8, max_ms: 0",
        "max_ms",
        "got the number 0; a number > 0 is allowed",
    ),
]
MISTAKES += [(f"budget: {{latency: [{{{keys}}}]}}", f"budget.latency[0].{key}", goes, "") for keys, key, goes in LIMITS]


def ended(lines: str) -> str:
    """Return a recipe that ends with these lines."""
    return ("schema_version: 1\nname: x\n" if lines.startswith("data:") else SMALLEST) + lines


@pytest.mark.parametrize(("lines", "path", "goes_on", "ends"), MISTAKES + BEYOND_A_SCHEMA)
def test_a_mistake_is_named_in_one_line(lines: str, path: str, goes_on: str, ends: str) -> None:
    text = ended(lines)
    message = refusal(text)
    assert message.startswith(f"r.yaml:{len(text.splitlines())}: {path}: {goes_on}")
    assert message.endswith(ends)


def test_messages_in_full() -> None:
    assert refusal(SMALLEST + "budget:\n  params:\n    lots\n") == (
        "r.yaml:5: budget.params: got text 'lots'; an integer >= 1 is allowed (scalars that inference needs)."
    )
    assert refusal("name: x") == (
        "r.yaml:1: 'schema_version' is missing; 1 is required (version of this format). Add a line 'schema_version: …'."
    )
    assert refusal(SMALLEST + "search: {oracle: hyperbnd}") == (
        "r.yaml:4: search.oracle: got text 'hyperbnd'; random, grid, bayesian, hyperband, tpe or nsga2 is allowed "
        "(who proposes the next network; if left out, hyperband from 9 `epochs` on, else random). Did you mean "
        "'hyperband'?"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "r.yaml:1: got nothing; keys are allowed (schema_version, name, data, "),
        ("# only a comment\n", "r.yaml:1: got nothing; "),
        ("- a\n", "r.yaml:1: got a list; keys are allowed ("),
        ("a:1", "r.yaml:1: got text 'a:1'; keys are allowed ("),
        ("# head\nschema_version: 1\nname: x\n", "r.yaml:2: 'data' is missing; a section (source, "),
        ("schema_version: 2\n" + SMALLEST[18:], "r.yaml:1: schema_version: got the number 2; 1 is allowed"),
        (SMALLEST.replace("x", "a/b"), "r.yaml:2: name: got text 'a/b'; text like ["),
        (SMALLEST.replace("x", "7"), "r.yaml:2: name: got the number 7; text like ["),
        (SMALLEST.replace("x", "n" * 65), "r.yaml:2: name: got text 'nnn"),
    ],
)
def test_a_recipe_needs_its_keys(text: str, message: str) -> None:
    assert refusal(text).startswith(message)


def test_where_a_boolean_is_due_yes_is_not_one() -> None:
    switch = recipe_rules.Field(bool, many=False, optional=False, default=False, rules={"doc": "a switch"})
    assert [switch.read(strict_yaml.load(word, "r")) for word in ("true", "false", "yes", "off", "1")] == [
        True,
        False,
        None,
        None,
        None,
    ]
    assert switch.allowed() == "true or false"
    assert switch.schema() == {"type": "boolean"}


# --- files


def written(folder: Path, text: str, name: str = "r.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_read_names_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, SMALLEST + "bugdet: {}\n")
    with pytest.raises(RecipeError) as caught:
        recipe_file.read(path)
    assert str(caught.value).startswith(f"{path}:4: bugdet: unknown key; did you mean 'budget'?")


def test_a_missing_file_lists_its_neighbours(tmp_path: Path) -> None:
    written(tmp_path, SMALLEST, "digits.yaml")
    written(tmp_path, SMALLEST, "flowers.yml")
    with pytest.raises(
        RecipeError, match=r"digit\.yaml: no such file; .*digits\.yaml, flowers\.yml\. Did you mean 'digits\.yaml'\?"
    ):
        recipe_file.read(tmp_path / "digit.yaml")
    with pytest.raises(RecipeError, match=r"digits\.yaml: no such file; its folder has no recipe\.$"):
        recipe_file.read(tmp_path / "none" / "digits.yaml")


def test_a_folder_is_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="directory; a YAML file is allowed"):
        recipe_file.read(tmp_path)
    with pytest.raises(RecipeError, match="a YAML file is allowed"):
        recipe_file.read(tmp_path / ("n" * 300))


def test_a_file_too_large_is_not_read_to_its_end() -> None:
    with pytest.raises(RecipeError, match=r"^/dev/zero: more than 1,048,576 bytes"):
        recipe_file.read(Path("/dev/zero"))


def test_a_data_path_lies_beside_the_recipe_if_something_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "recipes"
    folder.mkdir()
    path = written(folder, "schema_version: 1\nname: x\ndata: {source: npz, path: d.npz}\n")
    assert recipe_file.read(path).data.path == "d.npz"
    written(folder, "", "d.npz")
    written(tmp_path, "", "d.npz")
    assert recipe_file.read(path).data.path == str(folder / "d.npz")
    assert recipe_file.read(path, ["data.path=d.npz"]).data.path == "d.npz"
    assert recipe_file.read(path, ["data.path=null"]).data.path is None
    assert recipe_file.read(path, [f"data.path={tmp_path}"]).data.path == str(tmp_path)
    assert recipe_file.parse(path.read_text(), "r.yaml").data.path == "d.npz"


def test_a_data_path_that_no_disk_can_hold_stays_as_written(tmp_path: Path) -> None:
    long = "n" * 5000
    path = written(tmp_path, f"schema_version: 1\nname: x\ndata: {{source: npz, path: {long}}}\n")
    assert recipe_file.read(path).data.path == long


# --- overrides


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("search.seed=7", "search.seed", 7),
        (" search . seed = 7 ", "search.seed", 7),
        ("search.space=[ds_cnn, separable_cnn]", "search.space", ("ds_cnn", "separable_cnn")),
        ("search.member_share=1/3", "search.member_share", (Fraction(1, 3),)),
        ("budget={}", "budget", Budget()),
        ("budget={params: 5}", "budget", Budget(params=5)),
        ("budget.params=", "budget.params", None),
        ("budget.params=null", "budget.params", None),
        (
            "budget.macs=5",
            "budget",
            Budget(params=30_000, macs=5, latency=(Limit("host", "onnxruntime", "int8", 0.5),)),
        ),
        ("data.labels=['a=b', no]", "data.labels", ("a=b", "no")),
        ("verify.int8_min_cosine=0.5", "verify", Verify(int8_min_cosine=0.5)),
        ("benchmark={threads: 2}", "benchmark", Benchmark(threads=2)),
    ],
)
def test_an_override_replaces_one_key(override: str, path: str, value: object) -> None:
    found: Any = recipe_file.parse(EVERYTHING, "r.yaml", [override])
    for name in path.split("."):
        found = getattr(found, name)
    assert found == value


def test_the_last_override_wins_and_all_apply() -> None:
    recipe = recipe_file.parse(
        SMALLEST, "r.yaml", ["search.seed=1", "search.epochs=2", "search.seed=3", "search.seed=4"]
    )
    assert recipe.search == Search(seed=4, epochs=2)


def test_an_override_may_mend_what_the_file_has_wrong() -> None:
    assert recipe_file.parse(SMALLEST + "budget: 5", "r.yaml", ["budget.params=5"]).budget == Budget(params=5)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("search.sed=1", "--set search.sed=1: search.sed: unknown key; did you mean 'seed'? (allowed: "),
        ("nope.x.y=1", "--set nope.x.y=1: nope: unknown key (allowed: "),
        ("search.seed", "--set search.seed: not KEY=VALUE; a key of the recipe is allowed. Write e.g. --set sear"),
        ("", "--set : not KEY=VALUE"),
        ("=1", "--set =1: not KEY=VALUE"),
        ("search..seed=1", "--set search..seed=1: not KEY=VALUE"),
        ("a." * 5000 + "b=1", "--set a.a.a."),
        ("search.seed=-1", "--set search.seed=-1: search.seed: got the number -1; an integer >= 0 and"),
        ("search=5", "--set search=5: search: got the number 5; keys are allowed (space, "),
        ("search.seed.x=1", "--set search.seed.x=1: search.seed: got keys; an integer >= 0 and"),
        ("search.seed={", "--set search.seed={: not YAML: "),
        ("budget={params: 1, params: 2}", "--set budget={params: 1, params: 2}: budget.params: key given twice; "),
        ("budget={parms: 1}", "--set budget={parms: 1}: budget.parms: unknown key; did you mean 'params'?"),
        ("budget.latency=[{}]", "--set budget.latency=[{}]: budget.latency[0]: 'device' is missing; text like "),
        ("data.splits.blend=0.5", "--set data.splits.blend=0.5: data.splits: validation 0.5 + blend 0.5 + "),
        ("name=a\nb", "--set name=a b: name: got text 'a b'; text like "),
        ("data={}", "--set data={}: data: 'source' is missing; "),
    ],
)
def test_a_wrong_override_is_named_itself(override: str, message: str) -> None:
    text = "schema_version: 1\nname: x\ndata:\n  source: digits\n  splits: {blend: 0.1, validation: 0.5}\n"
    assert refusal(text, override).startswith(message)


def test_an_override_does_not_hide_a_file_that_is_no_recipe() -> None:
    assert refusal("[]", "search.seed=1").startswith("r.yaml:1: got a list; keys are allowed (")


# --- back to text


def words(folder: str) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(plugins.names(folder)), min_size=1, unique=True).map(tuple)


def numbers(low: float, high: float, above: bool = False) -> st.SearchStrategy[float]:
    return st.floats(low, high, exclude_min=above)


texts = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1, max_size=30)
some = texts | st.sampled_from(["yes", "no", "007", "1e-3", "null", "~", "0x1F", "1:30", "a: b", "# c", "- d", " e "])
shares = st.fractions(0, 1, max_denominator=1000).filter(bool)
counts = st.none() | st.integers(1, 10**30)
limits = st.builds(
    Limit,
    st.just("host"),
    st.sampled_from(["onnxruntime", "litert"]),
    st.sampled_from(["float32", "int8"]),
    numbers(0, 1e300, above=True),
)
recipes = st.builds(
    Recipe,
    schema_version=st.just(1),
    name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", fullmatch=True),
    data=st.builds(
        Data,
        source=st.sampled_from(plugins.names("data")),
        name=st.none() | some,
        path=st.none() | some,
        image_size=st.none() | st.integers(4, 1024),
        labels=st.none() | st.lists(some, min_size=2, unique=True).map(tuple),
        input=st.sampled_from(["rescale", "standardize"]),
        splits=st.builds(
            Splits,
            validation=numbers(0, 0.2, above=True),
            blend=numbers(0, 0.2, above=True),
            test=numbers(0, 0.4, above=True) | st.just("given"),
        ),
        augment=st.builds(
            Augment, flip=st.sampled_from(["none", "both"]), shift=numbers(0, 0.5), rotation=numbers(0, 180)
        ),
    ),
    search=st.builds(
        Search,
        space=words("search_spaces"),
        time_limit_minutes=st.none() | numbers(0, 1e9, above=True),
        seed=st.integers(0, 2**31 - 2),
        oracle=st.sampled_from(ORACLES),
        epochs=st.integers(1, 100),
        early_stopping=st.none() | st.integers(1, 20),
        member_share=st.lists(shares, min_size=1, unique=True).map(tuple),
        least_use=numbers(0, 0.95),
        only=st.none() | st.sampled_from([("residual=true",), ("*_norm=batch", "optimizer=adam|adamw")]),
        train_samples=st.none() | st.integers(1, 10**6),
    ),
    budget=st.builds(
        Budget,
        params=counts,
        macs=counts,
        weight_bytes=counts,
        file_bytes=counts,
        peak_activation_bytes=counts,
        arena_bytes=counts,
        latency=st.lists(limits, unique_by=lambda limit: limit.where).map(tuple),
    ),
    train=st.builds(Train, label_smoothing=numbers(0, 0.5)),
    ensemble=st.builds(Ensemble, max_members=st.integers(1, 16)),
    export=st.builds(
        Export,
        targets=words("targets"),
        precision=st.lists(st.sampled_from([*precisions.PRECISIONS]), min_size=1, unique=True).map(tuple),
        io=st.sampled_from(precisions.IO),
    ).filter(lambda one: precisions.refusal(one.targets, one.precision) is None),
    verify=st.builds(Verify, int8_min_sqnr_db=numbers(0, 1e30)),
)


@unhurried
@given(recipes)
def test_a_written_recipe_reads_as_itself(judge: jsonschema.Draft202012Validator, recipe: Recipe) -> None:
    text = recipe_file.dump(recipe)
    again = recipe_file.parse(text, "again.yaml")
    assert again == recipe
    assert recipe_file.sha256(again) == recipe_file.sha256(recipe)
    assert [error.message for error in judge.iter_errors(recipe_file.to_dict(recipe))] == []


def test_a_written_file_reads_as_itself(tmp_path: Path) -> None:
    recipe = recipe_file.parse(EVERYTHING, "r.yaml")
    assert recipe_file.read(written(tmp_path, recipe_file.dump(recipe))) == recipe


def test_the_written_recipe_is_complete_and_plain() -> None:
    keys = recipe_file.to_dict(recipe_file.parse(EVERYTHING, "r.yaml"))
    assert list(keys) == [field.name for field in dataclasses.fields(Recipe)]
    assert keys["search"]["member_share"] == [1, "1/2", "1/4"]
    assert keys["budget"] == {
        "params": 30_000,
        "macs": 3_000_000,
        "latency": [{"device": "host", "runtime": "onnxruntime", "precision": "int8", "max_ms": 0.5}],
    }
    assert json.loads(json.dumps(keys)) == keys
    assert "member_share: [1, 1/2, 1/4]\n" in recipe_file.dump(recipe_file.parse(EVERYTHING, "r.yaml"))


def test_the_hash_is_of_the_meaning() -> None:
    hashes = {
        recipe_file.sha256(recipe_file.parse(text, "r.yaml"))
        for text in (
            SMALLEST,
            "# a comment\ndata:\n  source: 'digits'\nname: x\nschema_version: 1\n",
            SMALLEST + "search: {max_trials: 2_0, space: [ds_cnn], member_share: [1.0, 0.5, 1/3]}\nbudget: {}\n",
            "schema_version: 1\nname: x\ndata: {source: digits, augment: {shift: -0.0}}\n",
        )
    }
    assert len(hashes) == 1
    assert recipe_file.sha256(recipe_file.parse(SMALLEST, "r.yaml", ["search.seed=2"])) not in hashes
    assert [len(value) for value in hashes] == [64]


# --- the schema


def test_the_schema_is_json_and_every_key_is_described() -> None:
    schema = recipe_file.json_schema()
    assert json.loads(json.dumps(schema)) == schema
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["required"] == ["schema_version", "name", "data"]

    def described(section: dict[str, Any]) -> bool:
        inner = section.get("properties", {}).values()
        return section.get("additionalProperties", False) is False and all(
            key["description"] and described(key) for key in inner
        )

    assert described(schema)
    assert schema["properties"]["search"]["properties"]["max_trials"] == {
        "description": "networks to train",
        "type": "integer",
        "minimum": 1,
        "maximum": 100_000,
        "default": 20,
    }
    search = schema["properties"]["search"]["properties"]
    following = [search[key] for key in ("oracle", "member_share", "early_stopping")]
    assert not any("default" in key for key in following)
    assert all("if left out, " in key["description"].lower() for key in following)
    assert schema["properties"]["data"]["properties"]["source"]["enum"] == plugins.names("data")


def plainly(text: str) -> Any:
    """Read YAML as the reader's own loader does, without its rules."""

    def values(node: strict_yaml.Node) -> Any:
        if isinstance(node.value, dict):
            return {key: values(child) for key, child in node.value.items()}
        return [values(child) for child in node.value] if isinstance(node.value, list) else node.value

    return values(strict_yaml.load(text, "r.yaml"))


def test_the_schema_takes_what_the_reader_takes(judge: jsonschema.Draft202012Validator) -> None:
    for text in (
        SMALLEST,
        EVERYTHING,
        SMALLEST + "budget: {params: null}\nsearch: {max_trials: 3.0, member_share: 1/2}",
    ):
        recipe_file.parse(text, "r.yaml")
        assert [error.message for error in judge.iter_errors(plainly(text))] == []


@pytest.mark.parametrize(
    "text",
    [ended(lines) for lines, *_ in MISTAKES]
    + ["", "[]", "name: x", "schema_version: 2\nname: x\ndata: {source: digits}"],
)
def test_the_schema_refuses_what_the_reader_refuses(judge: jsonschema.Draft202012Validator, text: str) -> None:
    refusal(text)
    assert not judge.is_valid(plainly(text))


# --- and nothing else ever


junk = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 10**9)
    | st.floats(0, 1)
    | st.sampled_from(["ds_cnn", "given", "1/2", "x"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["params", "seed", "x", "test"]), inner)
    ),
    max_leaves=4,
)
keys = st.sampled_from(
    [
        f"{name}.{inner}"
        for name, field in recipe_rules.fields(Recipe).items()
        if dataclasses.is_dataclass(field.kind)
        for inner in recipe_rules.fields(field.kind)
    ]
    + list(recipe_rules.fields(Recipe))
)


def outcome(raw: bytes | str, *overrides: str) -> Recipe | str:
    """Return the recipe, or the message of the one error that is allowed."""
    try:
        return recipe_file.parse(raw, "r.yaml", overrides)
    except RecipeError as error:
        return str(error)


def one_line_or_sound(found: Recipe | str) -> bool:
    """Say whether a refusal is one line, and whether what was taken survives writing."""
    if isinstance(found, str):
        return found.splitlines() == [found] and len(found) < 1000
    return recipe_file.parse(recipe_file.dump(found), "again.yaml") == found


@unhurried
@given(st.binary() | st.text() | st.text(st.sampled_from("schema_version: 1\n{}[],'\"#&*!|>-?")))
def test_garbage_is_refused_in_one_line(raw: bytes | str) -> None:
    assert one_line_or_sound(outcome(raw))


@unhurried
@given(st.text() | st.builds("{}={}".format, keys | st.text(), st.text()))
def test_a_garbage_override_is_refused_in_one_line(override: str) -> None:
    assert one_line_or_sound(outcome(EVERYTHING, override))


@unhurried
@given(st.dictionaries(keys, junk, min_size=1, max_size=4))
@example({"search.member_share": [1e-300]})
@example({"search.member_share": [0.1 + 0.2, 1 / 3]})
@example({"search.time_limit_minutes": 5e-324})
def test_the_reader_takes_nothing_that_the_schema_refuses(judge: jsonschema.Draft202012Validator, values: Any) -> None:
    overrides = [f"{key}={strict_yaml.dump(value)}" for key, value in values.items()]
    found = outcome(SMALLEST, *overrides)
    assert one_line_or_sound(found)
    if isinstance(found, Recipe):
        tree = yaml.safe_load(SMALLEST)
        for key, value in values.items():
            section, _, inner = key.partition(".")
            tree = tree | {section: {**tree.get(section, {}), inner: value} if inner else value}
        assert [error.message for error in judge.iter_errors(tree)] == []


def test_importing_it_imports_nothing_heavy() -> None:
    heavy = {
        "numpy",
        "tensorflow",
        "keras",
        "keras_tuner",
        "sklearn",
        "scipy",
        "PIL",
        "matplotlib",
        "onnx",
        "onnxruntime",
    }
    code = "import edgeml.recipe_file, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert heavy.intersection(done.stdout.split()) == set()


def test_several_objectives_are_for_an_oracle_that_takes_them() -> None:
    def objectives(text: str) -> Any:
        return recipe_file.parse(SMALLEST + f"search: {{{text}}}", "r.yaml").search.objectives

    assert objectives("oracle: nsga2") is None
    assert objectives("oracle: nsga2, objectives: [val_accuracy, params, macs]") == ("val_accuracy", "params", "macs")
    assert objectives("oracle: tpe, objectives: val_accuracy") == ("val_accuracy",)
    assert refusal(SMALLEST + "search: {oracle: tpe, objectives: [val_accuracy, macs]}") == (
        "r.yaml:4: search.objectives: got 2 for the oracle tpe; several are allowed for nsga2. Write 'oracle: nsga2',"
        " or leave this key out."
    )
    assert refusal(SMALLEST + "search: {oracle: nsga2, objectives: [macs]}") == (
        "r.yaml:4: search.objectives: got macs; a list with val_accuracy is allowed. Add val_accuracy: a cost alone is"
        " least for the smallest network."
    )
    assert "Did you mean 'macs'?" in refusal(SMALLEST + "search: {oracle: nsga2, objectives: [val_accuracy, mac]}")


def test_the_schema_knows_the_objectives(judge: jsonschema.Draft202012Validator) -> None:
    smallest = {"schema_version": 1, "name": "x", "data": {"source": "digits"}}

    def valid(objectives: Any) -> bool:
        return bool(judge.is_valid(smallest | {"search": {"objectives": objectives}}))

    assert valid(["val_accuracy", "macs"])
    assert valid("val_accuracy")
    assert all(valid(["val_accuracy", key]) for key in COUNTS)
    assert not valid(["val_accuracy", "seconds"])
    assert not valid([])


def test_what_is_counted_is_what_budget_and_objectives_name() -> None:
    def counted(text: str) -> tuple[str, ...]:
        return recipe_file.parse(SMALLEST + text, "r.yaml").counted

    assert counted("") == ()
    both = "search: {oracle: nsga2, objectives: [val_accuracy, file_bytes, macs]}\nbudget: {macs: 9, params: 9}\n"
    assert counted(both) == ("params", "macs", "file_bytes")


def test_objectives_name_the_accuracy_that_the_objective_names() -> None:
    both = "search: {oracle: nsga2, objective: val_balanced_accuracy, objectives: [%s]}"
    found = recipe_file.parse(SMALLEST + both % "val_balanced_accuracy, macs", "r.yaml").search
    assert found.objectives == ("val_balanced_accuracy", "macs")
    assert "got macs; a list with val_balanced_accuracy is allowed" in refusal(SMALLEST + both % "macs")
    assert refusal(SMALLEST + both % "val_accuracy, macs") == (
        "r.yaml:4: search.objectives: got val_accuracy; search.objective, val_balanced_accuracy, and costs are allowed."
        " Name the same one in both."
    )


def test_early_stopping_needs_a_schedule_whose_best_epoch_is_not_its_last() -> None:
    def train(text: str) -> Any:
        return recipe_file.parse(SMALLEST + f"train: {{{text}}}", "r.yaml").train

    assert train("schedule: constant, early_stopping: 1").early_stopping == 1
    assert train("schedule: plateau, early_stopping: 6").early_stopping == 6
    assert train("early_stopping: null").early_stopping is None
    assert refusal(SMALLEST + "train: {early_stopping: 3}") == (
        "r.yaml:4: train.early_stopping: got 3 with schedule cosine, whose rate is zero only at the end; schedule"
        " plateau or constant is allowed. Leave this key out, or write 'schedule: plateau'."
    )
    assert "more than 5 are allowed. Try 10." in refusal(SMALLEST + "train: {schedule: plateau, early_stopping: 5}")


@pytest.mark.parametrize("text", ["seeds: 0", "seeds: 21", "schedule: step", "class_weight: auto", "early_stopping: 0"])
def test_what_train_does_not_allow(text: str) -> None:
    assert f"train.{text.partition(':')[0]}: got" in refusal(SMALLEST + f"train: {{{text}}}")


def test_latency_as_an_objective_wants_a_limit_that_names_a_device() -> None:
    text = SMALLEST + "search:\n  oracle: nsga2\n  objectives: [val_accuracy, latency]\n"
    assert "got latency, and no budget.latency; a limit there says" in refusal(text)
    limit = "{device: host, runtime: litert, precision: int8, max_ms: 1000}"
    recipe = recipe_file.parse(text + f"budget: {{latency: [{limit}]}}\n", "r.yaml")
    assert recipe.search.objectives == ("val_accuracy", "latency")
