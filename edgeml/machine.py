"""The machine at hand: its processor, what that can do, and where users' files of this program lie on it."""

from __future__ import annotations

import os
from pathlib import Path

from edgeml.bundled.stopwatch import conditions, processor

__all__ = ["cache_folder", "conditions", "processor", "settings_folder"]


def cache_folder() -> Path:
    """Return where this program keeps what it can make again (XDG Base Directory Specification)."""
    return _base("XDG_CACHE_HOME", ".cache") / "edgeml"


def settings_folder() -> Path:
    """Return where a user's own files for this program lie (XDG Base Directory Specification)."""
    return _base("XDG_CONFIG_HOME", ".config") / "edgeml"


def _base(variable: str, folder: str) -> Path:
    named = os.environ.get(variable, "")
    return Path(named) if os.path.isabs(named) else Path.home() / folder
