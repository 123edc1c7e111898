"""How a key of a recipe is declared: its default, its line of documentation and its rules.

Each field carries its own rule in ``metadata``: ``doc`` (one line), and where they apply ``min`` / ``max`` / ``above``
(numbers), ``choices`` (allowed words), ``plugin`` (the folder whose file names are allowed), ``one_of`` (accepted words
beside the type), ``pattern`` (text), ``min_items`` (lists; at 1, one item may stand for the list), ``follows`` (the
default follows from other keys, see ``recipe_defaults``). ``recipe_rules`` turns them into checks, messages and JSON
Schema; ``recipe_file`` reads YAML into these records.
"""

from __future__ import annotations

from dataclasses import field
from typing import Any


def rule(default: Any, doc: str, **rules: Any) -> Any:
    """Declare a field with its default, its line of documentation and its rules."""
    return field(default=default, metadata={"doc": doc, **rules})


def required(doc: str, **rules: Any) -> Any:
    """Declare a field that every recipe must give."""
    return field(metadata={"doc": doc, **rules})
