"""What a recipe asked for, in a few lines of words: the budget has a section of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edgeml.report.limits import Row


def rows(recipe: Row) -> list[Row]:
    """Return name and words of each part of a recipe that a reader asks about first."""
    return [{"name": name, "text": ", ".join(map(str, parts))} for name, parts in _parts(recipe) if parts]


def _parts(recipe: Row) -> Iterator[tuple[str, list[Any]]]:
    data, search, train = (recipe.get(name, {}) for name in ("data", "search", "train"))
    yield "data", _known(data.get("source"), data.get("name"), data.get("path"))
    yield (
        "search",
        _known(
            " or ".join(search.get("space", [])),
            search.get("oracle"),
            _count(search.get("max_trials"), "trial"),
            _count(search.get("epochs"), "epoch", "{} each"),
            _count(search.get("time_limit_minutes"), "minute", "at most {}"),
        ),
    )
    yield "finalists", _known(
        _count(train.get("finalists"), "network"), _count(train.get("epochs"), "epoch", "{} each"),
        _count(train.get("seeds"), "seed") if train.get("seeds", 1) > 1 else None,
    )  # fmt: skip
    ensemble, export = recipe.get("ensemble", {}), recipe.get("export", {})
    kept = str(ensemble["keep"]).replace("_", " ") if "keep" in ensemble else None
    yield "ensemble", _known(_count(ensemble.get("max_members"), "member", "at most {}"), kept and f"kept {kept}")
    yield "compression", [f"{step}: {value}" for step, value in recipe.get("compress", {}).items() if value]
    yield "files", _known(" and ".join(export.get("targets", [])), *export.get("precision", []))
    yield "seed", _known(search.get("seed"))


def _known(*parts: Any) -> list[Any]:
    return [part for part in parts if part not in (None, "")]


def _count(number: float | None, noun: str, words: str = "{}") -> str | None:
    """Return ``12 trials``, set into ``words``; nothing of nothing."""
    return None if number is None else words.format(f"{number:g} {noun}{'s' * (number != 1)}")
