"""Names to modules: a file's name is its registration, Python entry points add the files of others.

    edgeml/search_spaces/ds_cnn.py   →  plugins.get("search_spaces", "ds_cnn")
    [project.entry-points."edgeml.search_spaces"]  mine = "my_package.my_space"

A plug-in folder holds plug-ins only; a name with a leading underscore is not one. One of others that does not import,
or lacks what every one of its folder has, is refused by name where it is asked for, and left out where all are looked
through. What a target of others raises is told as its own.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from edgeml.errors import EdgemlError, TargetError, UsageError

CONTRACTS: Mapping[str, tuple[tuple[str, ...], ...]] = {  # what a plug-in of each folder has: all of one line
    "data": (("load",),),
    "search_spaces": (("build",),),
    "runtimes": (("SUFFIX", "open_model"),),
    "targets": (
        ("PRECISIONS", "NEEDS", "SUFFIX", "RUNTIME", "export"),
        ("PRECISIONS", "NEEDS", "check_installed", "check", "deploy"),
    ),
}
FOLDERS = tuple(CONTRACTS)


def names(folder: str) -> list[str]:
    """List the plug-ins of a folder, ours and others', sorted."""
    return sorted(_ours(folder) | {point.name for point in entry_points(group=f"edgeml.{folder}")})


def _ours(folder: str) -> set[str]:
    here = Path(__file__).parent / folder
    return {path.stem for path in here.glob("*.py") if not path.stem.startswith("_")}


def get(folder: str, name: str) -> ModuleType:
    """Import one plug-in.

    Raises:
        UsageError: no plug-in has this name, or the module of a third party does not import or is none.
    """
    if name in _ours(folder):
        return importlib.import_module(f"edgeml.{folder}.{name}")
    for point in entry_points(group=f"edgeml.{folder}", name=name):
        try:
            module: ModuleType = point.load()
        except Exception as error:
            reason = _one_line(error)
            raise UsageError(f"plug-in {name} ({point.value}): {reason}. Repair or uninstall its package.") from error
        lacking = min(([one for one in line if not hasattr(module, one)] for line in CONTRACTS[folder]), key=len)
        if lacking:
            raise UsageError(
                f"plug-in {name} ({point.value}): its module has no {', '.join(lacking)}. Repair or uninstall its"
                " package."
            )
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
    broken += [
        f"plug-in {point.name} ({point.value}): edgeml has a '{point.name}' of its own, which is used. Rename it."
        for point in entry_points(group=f"edgeml.{folder}") if point.name in _ours(folder)
    ]  # fmt: skip
    return found, broken


@contextmanager
def blamed(folder: str, name: str) -> Iterator[None]:
    """Tell what a plug-in of somebody else raises as its own; what ours raise stays as it is.

    Raises:
        TargetError: it raised something that is no error of edgeml's.
    """
    try:
        yield
    except EdgemlError:
        raise
    except Exception as error:
        if name in _ours(folder):
            raise
        raise TargetError(f"plug-in {name}: it raised {_one_line(error)}. Leave it out; tell its author.") from error


def _one_line(error: Exception) -> str:
    said = " ".join(str(error).split()).rstrip(".")
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def did_you_mean(word: str, allowed: list[str]) -> str:
    """Return `` Did you mean 'x'?`` for a near miss, else an empty string."""
    near = difflib.get_close_matches(word, allowed, n=1)
    return f" Did you mean '{near[0]}'?" if near else ""
