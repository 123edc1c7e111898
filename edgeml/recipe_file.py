"""Recipes as files: strict YAML → ``Recipe`` → YAML.

    text ─ strict_yaml ─► tree of nodes ─ --set a.b=c ─► tree ─ recipe_rules ─► Recipe ─ to_dict ─► YAML, sha256

An error is one line, its place in front:
``recipes/x.yaml:7: search.max_trails: unknown key; did you mean 'max_trials'? (allowed: …)``.

Beyond the plain types: one word may stand for a list of one (``space: ds_cnn``), a fraction is ``1/2`` or ``0.5``, an
integer may be ``3e4`` (as in JSON Schema), and ``null`` says "none" where a key may be left out for none. Keys whose
defaults follow from other keys are filled in here (``recipe_defaults``): a recipe that was read states them all.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from edgeml import recipe_rules, strict_yaml
from edgeml.errors import RecipeError
from edgeml.plugins import did_you_mean
from edgeml.recipe import Recipe
from edgeml.recipe_checks import CHECKS
from edgeml.recipe_defaults import FOLLOWING, with_defaults
from edgeml.recipe_rules import Field
from edgeml.strict_yaml import MAX_BYTES, MAX_DEPTH, Node, shown

_T = TypeVar("_T")


def read(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file.

    A relative ``data.path`` in the file means the recipe's own folder if something lies there, else the working
    directory; in an override it means the working directory.

    Args:
        path: the YAML file.
        overrides: ``KEY=VALUE`` each, as in ``search.seed=7``; the value is YAML.

    Raises:
        RecipeError: the file cannot be read, or is not a valid recipe.
    """
    tree = _overridden(strict_yaml.load(_bytes(path), str(path)), overrides)
    recipe = _resolved(tree)
    given = tree.value["data"].value.get("path")
    if given is None or given.value is None or not given.line:  # line 0: an override
        return recipe
    beside = os.path.join(path.parent, given.value)
    found = beside if os.path.exists(beside) else given.value
    return dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, path=found))


def parse(raw: bytes | str, where: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe from text that errors call ``where``; ``data.path`` stays as written.

    Raises:
        RecipeError: not a valid recipe.
    """
    return _resolved(_overridden(strict_yaml.load(raw, where), overrides))


def read_record(cls: type[_T], path: Path | None, flags: Mapping[str, str]) -> _T:
    """Read a record that is no recipe from a YAML file, if there is one, and from ``--KEY TEXT`` flags, which win.

    Raises:
        RecipeError: the file cannot be read, a key is not known, or a value is not allowed.
    """
    if path is None:
        tree = strict_yaml.load("{}", "", lines=False)
    else:
        tree = strict_yaml.load(_bytes(path), str(path))
        _require_keys(cls, tree)
    for key, text in flags.items():
        tree = _put(tree, [key], strict_yaml.load(text, f"--{key} {shown(text)}", lines=False, path=key))
    return _record(cls, tree)


def to_dict(recipe: Recipe) -> dict[str, Any]:
    """Return every key with its value, defaults included, as plain types.

    A key that is None is left out, but for those where that would mean something else: ``search.early_stopping``.
    """
    keys: dict[str, Any] = recipe_rules.plain(recipe)
    return keys


def dump(recipe: Recipe) -> str:
    """Return the recipe as YAML; reading it gives an equal recipe."""
    return strict_yaml.dump(to_dict(recipe))


def sha256(recipe: Recipe) -> str:
    """Return the hash of the canonical JSON: equal recipes have equal hashes, however they were written."""
    canonical = json.dumps(to_dict(recipe), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a recipe, with the plug-ins that are installed here.

    The reader checks more than a schema can say: the sum of the splits, the bounds of a fraction written ``3/2``, equal
    fractions written differently, control characters.
    """
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "edgeml recipe"}
    return head | recipe_rules.schema(Recipe)


def _bytes(path: Path) -> bytes:
    """Read one byte more than is allowed at most."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        there = sorted(file.name for ending in ("*.yaml", "*.yml") for file in path.parent.glob(ending))
        listed = f"its folder has {shown(', '.join(there), 200)}" if there else "its folder has no recipe"
        raise RecipeError(f"{path}: no such file; {listed}.{did_you_mean(path.name, there)}") from error
    except OSError as error:
        raise RecipeError(f"{path}: {error.strerror}; a YAML file is allowed. Name a file that can be read.") from error


def _overridden(tree: Node, overrides: Sequence[str]) -> Node:
    """Apply ``KEY=VALUE`` one after the other; the last one wins."""
    _require_keys(Recipe, tree)
    for text in overrides:
        where = f"--set {shown(text)}"
        key, equals, value = text.partition("=")
        keys = [part.strip() for part in key.split(".")]
        if not equals or not all(keys) or len(keys) > MAX_DEPTH:
            raise RecipeError(
                f"{where}: not KEY=VALUE; a key of the recipe is allowed. Write e.g. --set search.seed=7."
            )
        given = strict_yaml.load(value, where, lines=False, path=shown(".".join(keys)))
        tree = _put(tree, keys, given)
    return tree


def _put(node: Node, keys: list[str], given: Node) -> Node:
    """Return ``node`` with ``given`` at ``keys`` below it, in the place of what is there or in the way."""
    if not keys:
        return given
    first, *rest = keys
    here = node if isinstance(node.value, dict) else dataclasses.replace(given, value={}, text="", path=node.path)
    missing = dataclasses.replace(given, value=None, path=f"{here.path}.{shown(first)}" if here.path else shown(first))
    others = {key: child for key, child in here.value.items() if key != first}
    return dataclasses.replace(here, value=others | {first: _put(here.value.get(first, missing), rest, given)})


def _require_keys(cls: type, node: Node) -> None:
    if not isinstance(node.value, dict):
        keys = ", ".join(recipe_rules.fields(cls))
        raise node.error(f"got {_found(node)}; keys are allowed ({keys}). Write 'key: value' lines.")


def _resolved(tree: Node) -> Recipe:
    recipe = _record(Recipe, tree)
    given = tree.value["search"].value if "search" in tree.value else {}
    return with_defaults(recipe, [key for key in FOLLOWING if key not in given])


def _record(cls: type[_T], node: Node) -> _T:
    """Read a section."""
    _require_keys(cls, node)
    fields = recipe_rules.fields(cls)
    for key, child in node.value.items():
        if key not in fields:
            near = did_you_mean(shown(key), list(fields)).replace(" Did", "; did")
            raise child.error(f"unknown key{near} (allowed: {', '.join(fields)}).")
    for key, field in fields.items():
        if field.required and key not in node.value:
            raise node.error(
                f"'{key}' is missing; {_allowed(field)} is required ({field.rules['doc']}). Add a line '{key}: …'."
            )
    record = cls(**{key: _value(fields[key], child) for key, child in node.value.items()})
    if cls in CHECKS:
        CHECKS[cls](record, node)
    return record


def _value(field: Field, node: Node) -> Any:
    """Read what stands behind one key."""
    if node.value is None and field.optional:
        return None
    if not field.many:
        return _item(field, node)
    nodes = [node] if field.alone and not isinstance(node.value, (list, dict)) else node.value
    if not isinstance(nodes, list) or len(nodes) < field.fewest:
        most = f"a list of at least {field.fewest}" if field.fewest else "a list"
        raise node.error(f"got {_found(node)}; {most} is allowed, each item {_allowed(field)} ({field.rules['doc']}).")
    items: dict[Any, None] = {}
    for inner in nodes:
        item = _item(field, inner)
        if item in items:
            raise inner.error(f"got {_found(inner)} again; each item is allowed once. Remove one.")
        items[item] = None
    return tuple(items)


def _item(field: Field, node: Node) -> Any:
    """Read one value or section."""
    if dataclasses.is_dataclass(field.kind):
        return _record(field.kind, node)  # type: ignore[arg-type]  # is_dataclass narrows to type or instance
    value = field.read(node)
    if value is None:
        raise node.error(
            f"got {_found(node)}; {field.allowed()} is allowed ({field.rules['doc']}).{_advice(field, node)}"
        )
    return value


def _allowed(field: Field) -> str:
    if dataclasses.is_dataclass(field.kind):
        return f"a section ({', '.join(recipe_rules.fields(field.kind))})"
    return field.allowed()


def _found(node: Node) -> str:
    """Say what ``node`` is, as its writer would."""
    if isinstance(node.value, (int, float)) and not isinstance(node.value, bool):
        return f"the number {node.text}"
    if isinstance(node.value, str):
        return f"text {shown(node.value)!r}"
    if isinstance(node.value, (list, dict)):
        return "a list" if isinstance(node.value, list) else "keys"
    return node.text or "nothing"


def _advice(field: Field, node: Node) -> str:
    """Suggest the near miss, or quotes around what YAML does not take for text."""
    if isinstance(node.value, str):
        return did_you_mean(node.value, [*map(str, field.words or ()), *field.rules.get("one_of", ())])
    return f" Write it in quotes: '{node.text}'." if field.kind is str and field.words is None and node.text else ""
