"""A space made smaller by a recipe: ``search.only`` says which values some of its hyper-parameters may take.

    only: [residual=true, stage_*_norm=batch, optimizer=adam|adamw]

A name may hold ``*`` and ``?``, and fits with and without the space's own name in front (``ds_cnn/residual``). What is
left of one value becomes KerasTuner's ``Fixed``, of several a ``Choice``.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from edgeml.errors import RecipeError
from edgeml.plugins import did_you_mean
from edgeml.strict_yaml import shown


def narrow(hp: Any, only: Sequence[str]) -> None:
    """Leave the entries of ``hp`` (KerasTuner hyper-parameters) the values that ``only`` names; conditions stay.

    Raises:
        RecipeError: a name fits no entry, or a value is none that its entry can take.
    """
    for rule in only:
        pattern, _, words = rule.partition("=")
        places = [place for place, entry in enumerate(hp.space) if _fits(entry.name, pattern)]
        if not places:
            names = list(dict.fromkeys(entry.name for entry in hp.space))
            raise RecipeError(
                f"search.only: {shown(pattern)!r} fits no hyper-parameter; {', '.join(names)} are allowed."
                f"{did_you_mean(pattern, names)}"
            )
        for place in places:
            entry = hp.space[place]
            narrowed = _entry(entry, _left(entry, words.split("|"), rule))
            family = hp._hps[entry.name]
            family[next(i for i, one in enumerate(family) if one is entry)] = hp.space[place] = narrowed


def _fits(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name.rpartition("/")[2], pattern)


def _entry(entry: Any, values: list[Any]) -> Any:
    import keras_tuner

    if type(entry).__name__ == "Boolean" and len(values) > 1:
        return entry
    hp = keras_tuner.HyperParameters()
    if len(values) == 1:
        hp.Fixed(entry.name, values[0])
    else:
        hp.Choice(entry.name, values, default=entry.default if entry.default in values else None)
    narrowed = hp.space[0]
    narrowed.conditions = list(entry.conditions)
    return narrowed


def _left(entry: Any, words: Sequence[str], rule: str) -> list[Any]:
    """Return the values that the words stand for, in the order of the entry's own."""
    if type(entry).__name__ == "Float":
        allowed = f"{entry.min_value:g} to {entry.max_value:g}"
        known = {word: v for word in words for v in _number(word) if entry.min_value <= v <= entry.max_value}
        known = dict(sorted(known.items(), key=lambda pair: pair[1]))
    else:
        values = [entry.value] if type(entry).__name__ == "Fixed" else entry.values
        known = {_word(value): value for value in values}
        allowed = ", ".join(known)
    for word in words:
        if word not in known:
            raise RecipeError(
                f"search.only: {shown(rule)!r}: {entry.name} cannot be {shown(word)}; {allowed} are allowed."
            )
    return [value for word, value in known.items() if word in words]


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _number(word: str) -> list[float]:
    try:
        return [float(word)]
    except ValueError:
        return []
