"""Names to modules: a file's name is its registration, Python entry points add the files of others.

    edgeml/search_spaces/ds_cnn.py   →  plugins.get("search_spaces", "ds_cnn")
    [project.entry-points."edgeml.search_spaces"]  mine = "my_package.my_space"

A plug-in folder holds plug-ins only; a name with a leading underscore is not one. One of others that does not import is
refused by name where it is asked for, and left out where all are looked through.
"""

from __future__ import annotations

import difflib
import importlib
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from edgeml.errors import UsageError

FOLDERS = ("data", "search_spaces", "runtimes", "targets")


def names(folder: str) -> list[str]:
    """List the plug-ins of a folder, ours and others', sorted."""
    return sorted(_ours(folder) | {point.name for point in entry_points(group=f"edgeml.{folder}")})


def _ours(folder: str) -> set[str]:
    here = Path(__file__).parent / folder
    return {path.stem for path in here.glob("*.py") if not path.stem.startswith("_")}


def get(folder: str, name: str) -> ModuleType:
    """Import one plug-in.

    Raises:
        UsageError: no plug-in has this name, or the module of a third party does not import.
    """
    if name in _ours(folder):
        return importlib.import_module(f"edgeml.{folder}.{name}")
    for point in entry_points(group=f"edgeml.{folder}", name=name):
        try:
            module: ModuleType = point.load()
        except (ImportError, AttributeError, SyntaxError) as error:
            raise UsageError(f"plug-in {name} ({point.value}): {error}. Repair or uninstall its package.") from error
        return module
    raise UsageError(f"{folder}: no '{name}'; there are {', '.join(names(folder))}.{did_you_mean(name, names(folder))}")


def working(folder: str) -> tuple[dict[str, ModuleType], list[str]]:
    """Return the plug-ins of a folder that import, and a line about each that does not."""
    found, broken = {}, []
    for name in names(folder):
        try:
            found[name] = get(folder, name)
        except UsageError as error:
            broken.append(str(error))
    return found, broken


def did_you_mean(word: str, allowed: list[str]) -> str:
    """Return `` Did you mean 'x'?`` for a near miss, else an empty string."""
    near = difflib.get_close_matches(word, allowed, n=1)
    return f" Did you mean '{near[0]}'?" if near else ""
