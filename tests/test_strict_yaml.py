"""YAML text to nodes: what each scalar means, what is refused and where, and that nothing but RecipeError gets out."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgeml import strict_yaml
from edgeml.errors import RecipeError
from edgeml.strict_yaml import MAX_BYTES, MAX_DEPTH, Node

unhurried = settings(deadline=None)  # shared machines: an example may take any time


def values(node: Node) -> Any:
    """Forget where the values stand."""
    if isinstance(node.value, dict):
        return {key: values(child) for key, child in node.value.items()}
    return [values(child) for child in node.value] if isinstance(node.value, list) else node.value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[(word, None) for word in ("null", "Null", "NULL", "~")],
        *[(word, True) for word in ("true", "True", "TRUE")],
        *[(word, False) for word in ("false", "False", "FALSE")],
        *[(word, word) for word in ("yes", "no", "on", "off", "Yes", "NO", "y", "n", "tRUE", "none", "nan")],
        *[(text, int(text)) for text in ("0", "12", "-3", "+4", "30_000", "1_000_000")],
        *[(text, float(text)) for text in ("0.5", "1.", ".5", "-2.25", "1e3", "1e-3", "2.5E+2", "1_000.5")],
        *[(text, text) for text in ("010", "007.5", "0x1F", "0o17", "0b1", "1:30", "1:30.5", "1__0", "_1", "1_")],
        *[
            (text, text)
            for text in ("2026-11-22", ".inf", "-.inf", ".nan", "=", "<<", "1/2", "-", "+", ".", "e3", "1e")
        ],
        ("'1'", "1"),
        ('"true"', "true"),
        ("''", ""),
        ('"\\u00e9t\\u00e9"', "été"),
    ],
)
def test_a_scalar_means_what_the_core_schema_says(text: str, value: object) -> None:
    read = strict_yaml.load(f"[{text}]" if text != "-" else '["-"]', "x.yaml").value[0].value
    assert (read, type(read)) == (value, type(value))


def test_a_plain_number_is_never_read_as_another_number_than_python_reads() -> None:
    for text in ("1e-3", "30_000", "0.1", "6.02e23"):
        assert strict_yaml.load(text, "x").value == float(text)


def test_nodes_know_their_line_and_path() -> None:
    tree = strict_yaml.load("# head\nsearch:\n  space:\n    - a\n    - b\n  seed: 1_0\n", "x.yaml")
    search = tree.value["search"]
    assert (tree.line, tree.path) == (2, "")
    assert (search.line, search.path) == (2, "search")
    assert [(item.line, item.path) for item in search.value["space"].value] == [
        (4, "search.space[0]"),
        (5, "search.space[1]"),
    ]
    assert search.value["seed"] == Node(10, "1_0", "x.yaml", 6, "search.seed")


def test_nothing_is_none() -> None:
    for text in ("", "\n\n", "# a comment\n", b"", "---\n", "\ufeff"):
        assert strict_yaml.load(text, "x.yaml").value is None


@pytest.mark.parametrize(
    ("raw", "place", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", "x.yaml:3: a:", ["given twice", "line 1"]),
        ("a:\n  b: 2\n  'b': 3\n", "x.yaml:3: a.b:", ["given twice", "line 2"]),
        ("{1: a, 1: b}", "x.yaml:1: 1:", ["given twice"]),
        ("a: &x 1\n", "x.yaml:1: a:", ["anchor"]),
        ("a: 1\nb: *x\n", "x.yaml:2: b:", ["alias"]),
        ("&x a: 1\n", "x.yaml:1:", ["anchor"]),
        ("a: [&x {}]\n", "x.yaml:1: a[0]:", ["anchor"]),
        ("\na: !!int 1\n", "x.yaml:2: a:", ["tag", "int"]),
        ("a: !!python/object/apply:os.system [ls]\n", "x.yaml:1: a:", ["tag", "os.system"]),
        ("a: ! x\n", "x.yaml:1: a:", ["tag"]),
        ("!t {a: 1}\n", "x.yaml:1:", ["tag"]),
        ("? [a]\n: 1\n", "x.yaml:1:", ["key that is a list or mapping"]),
        ("a: 1\n---\nb: 2\n", "x.yaml:2:", ["second document"]),
        ("a:\n\tb: 1\n", "x.yaml:2:1:", ["spaces instead of tabs"]),
        ("a: 1\t# x\n", "x.yaml:1:5:", ["spaces instead of tabs"]),
        ('a: "x\\ty"\n', "x.yaml:1: a:", ["control character"]),
        ("a: |\n  x\n  y\n", "x.yaml:1: a:", ["line break"]),
        ('a: "x\\nb"\n', "x.yaml:1: a:", ["line break"]),
        ('a: "\\u2028"\n', "x.yaml:1: a:", ["line break"]),
        ('a: "\\uD800"\n', "x.yaml:1: a:", ["half a character"]),
        ('"a\\0b": 1\n', "x.yaml:1:", ["control character"]),
        ('a: "\\UFFFFFFFF"\n', "x.yaml:", ["not YAML", "escape"]),
        ("%YAML " + "1" * 5000 + ".1\n--- a\n", "x.yaml:", ["not YAML"]),
        ("a: b: c\n", "x.yaml:1:5:", ["mapping values are not allowed", "quote text"]),
        ("a: [1, 2\n", "x.yaml:2:1:", ["not YAML", "begun on line 1"]),
        ("a: 1\nb\nc: 1\n", "x.yaml:3:1:", ["expected ':'", "begun on line 2", "after the colon"]),
        ("ok: 1\nb: \x07\n", "x.yaml:2:4:", ["special characters", "UTF-8"]),
        ("ok: 1\nb: \ud800\n", "x.yaml:2:4:", ["special characters"]),
        (b"a: 1\nb: \xe9t\xe9\n", "x.yaml:2:", ["0xe9", "UTF-8"]),
        ("a: 1".encode("utf-16"), "x.yaml:1:", ["UTF-8"]),
        ("a: 1".encode("utf-16-le"), "x.yaml:1:2:", ["special characters", "UTF-8"]),
        ("a: " + "9" * 41, "x.yaml:1: a:", ["41 characters", "40 are allowed"]),
        ("a: 1." + "3" * 99, "x.yaml:1: a:", ["101 characters"]),
        ("a: -1e999", "x.yaml:1: a:", ["-1e999", "below 1e308"]),
        ("[" * (MAX_DEPTH + 1), "x.yaml:1:", ["level 21", "20 are allowed"]),
        ("{a: " * 5000, "x.yaml:1:", ["level 21"]),
        ("- " * 300_000, "x.yaml:1:", ["level 21"]),
        (b"#" * (MAX_BYTES + 1), "x.yaml:", ["1,048,576"]),
    ],
)
def test_refused_with_the_place(raw: bytes | str, place: str, words: list[str]) -> None:
    with pytest.raises(RecipeError) as caught:
        strict_yaml.load(raw, "x.yaml")
    message = str(caught.value)
    assert message.startswith(f"{place} ")
    assert [word for word in words if word not in message] == []
    assert "\n" not in message
    assert len(message) < 400


def test_the_bounds_themselves_are_allowed() -> None:
    assert strict_yaml.load("[" * MAX_DEPTH + "]" * MAX_DEPTH, "x").value[0].path == "[0]"
    assert strict_yaml.load("1" * 40, "x").value == int("1" * 40)
    assert strict_yaml.load(b"a: 1 #" + b" " * (MAX_BYTES - 6), "x").value["a"].value == 1


def test_text_without_lines_is_named_alone() -> None:
    for text in ("{", "{a: 1, a: 2}", "\ud800", "&x 1", "a\n---\nb"):
        with pytest.raises(RecipeError, match=r"^--set k=v: (k: |k\.a: )?\D"):
            strict_yaml.load(text, "--set k=v", lines=False, path="k")


def test_shown_is_one_short_line() -> None:
    assert strict_yaml.shown("a\nb\x00\ud800c") == "a b  c"
    assert strict_yaml.shown("x" * 61) == "x" * 59 + "…"
    assert strict_yaml.shown("x" * 60) == "x" * 60


texts = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]))
tricky = st.sampled_from(
    ["yes", "1e-3", "0x1F", "010", "1:30", "null", "~", "", " a ", "a: b", "# a", "- a", "<<", "30_000"]
)
numbers = st.integers(-(10**38), 10**38) | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | numbers | texts | tricky
trees = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(texts | tricky, inner), max_leaves=20)


@unhurried
@given(trees)
@example(["1e3", "1e-3", 1e-05, 1e17, 5e-324, "2026-11-22", "=", "…", "\ufeff", "\U0001f600", "a  b" * 60])
def test_what_is_written_is_read_again(tree: Any) -> None:
    assert values(strict_yaml.load(strict_yaml.dump(tree), "x.yaml")) == tree


@unhurried
@given(st.dictionaries(tricky | texts, tricky | texts))
def test_text_is_text_for_other_readers_too(tree: dict[str, str]) -> None:
    assert yaml.safe_load(strict_yaml.dump(tree)) == tree


def test_a_shared_list_is_written_twice_and_not_as_an_alias() -> None:
    shared = [1, 2]
    assert strict_yaml.dump({"a": shared, "b": shared}) == "a: [1, 2]\nb: [1, 2]\n"


yaml_like = st.text(st.sampled_from("ab1_0.eE-+:,[]{}'\"\\|>&*!%#?~@` \n\t/yno\ufeff\x00\u2028ü…"), max_size=60)


def outcome(raw: bytes | str) -> Node | str:
    """Return the tree, or the message of the one error that is allowed."""
    try:
        return strict_yaml.load(raw, "x.yaml")
    except RecipeError as error:
        return str(error)


@unhurried
@given(st.binary() | st.text() | yaml_like | yaml_like.map(str.encode))
@example("1e999")
@example("a: !<\x85> 1")
def test_garbage_raises_nothing_but_recipe_error(raw: bytes | str) -> None:
    found = outcome(raw)
    if isinstance(found, str):
        assert found.startswith("x.yaml:")
        assert found.splitlines() == [found]
    else:
        assert values(strict_yaml.load(strict_yaml.dump(values(found)), "again.yaml")) == values(found)
