"""Defaults of a recipe that follow from other keys: oracle and early stopping from the epochs, shares from the members.

Such a key is filled in where it was left out, so that a recipe that was read states it.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import fields, replace
from typing import Any

from edgeml.recipe import SHARES, Recipe, Search

HALVING_EPOCHS = 9  # from here on Hyperband has three rungs: 1, 3 and 9 epochs
STOPPING_EPOCHS, STOPPING_PATIENCE = 10, 5  # trials of more than 10 epochs end after 5 that bring nothing
FOLLOWING = tuple(one.name for one in fields(Search) if one.metadata.get("follows"))


def with_defaults(recipe: Recipe, left_out: Container[str] = FOLLOWING) -> Recipe:
    """Fill in those keys of ``search`` whose defaults follow from other keys, where they are ``left_out``."""
    search = recipe.search
    oracle = default_oracle(search.epochs) if "oracle" in left_out else search.oracle
    patient = oracle != "hyperband" and search.epochs > STOPPING_EPOCHS  # Hyperband stops trials itself
    found: dict[str, Any] = {
        "oracle": oracle,
        "early_stopping": STOPPING_PATIENCE if patient else None,
        "member_share": SHARES[: recipe.ensemble.max_members],
    }
    return replace(recipe, search=replace(search, **{key: found[key] for key in FOLLOWING if key in left_out}))


def default_oracle(epochs: int) -> str:
    """Return who proposes where nobody is named: successive halving, if a trial is long enough to be halved."""
    return "hyperband" if epochs >= HALVING_EPOCHS else "random"
