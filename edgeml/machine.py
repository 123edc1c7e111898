"""The machine at hand: its processor, what that can do, and where users' files of this program lie on it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

FLAGS = ("avx2", "avx512f", "avx512_vnni", "amx_int8", "asimd", "asimddp", "i8mm", "sve")


def processor() -> dict[str, Any]:
    """Return the processor's name, its vector extensions and the number of cores."""
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = set((facts.get("flags") or facts.get("Features") or "").split())
    return {
        "cpu": facts.get("model name", "unknown"),
        "flags": [flag for flag in FLAGS if flag in flags],
        "cores": os.cpu_count(),
    }


def cache_folder() -> Path:
    """Return where this program keeps what it can make again (XDG Base Directory Specification)."""
    return _base("XDG_CACHE_HOME", ".cache") / "edgeml"


def settings_folder() -> Path:
    """Return where a user's own files for this program lie (XDG Base Directory Specification)."""
    return _base("XDG_CONFIG_HOME", ".config") / "edgeml"


def _base(variable: str, folder: str) -> Path:
    named = os.environ.get(variable, "")
    return Path(named) if os.path.isabs(named) else Path.home() / folder
