"""Models that somebody else saved: opened in a child process first, which hands on a plain ``.keras`` file of Keras 3.

    .keras, .h5, SavedModel ─► child: no code from the file, limits of size, memory and time ─► .keras ─► this process

What the child does is in ``foreign_child``. A file can name any class; unknown ones are looked for only in modules that
the user gives, in the words ``module:name``.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeml import errors
from edgeml.errors import DataError, IntegrityError, UsageError
from edgeml.memory import memory_mb

SUFFIXES = (".keras", ".h5", ".hdf5")
MOST_FILE_MB, MOST_MEMORY_MB, MOST_SECONDS = 4_000, 12_000, 600
POLL_SECONDS = 0.05
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3"}  # what remains are a child's last words
LAST_WORDS = 300  # characters of what a child that died said last


def load(path: Path, custom_objects: Sequence[str] = ()) -> Any:
    """Load a ``.keras`` or ``.h5`` file or a SavedModel folder, of Keras 3 or 2, uncompiled.

    Args:
        path: file or folder.
        custom_objects: ``module:name`` of classes and functions of the user's own that the model uses.

    Raises:
        DataError: not a whole Keras model, or one with layers that are not known here.
        IntegrityError: it holds Python code, which is not run, or asks for more than the limits allow.
        UsageError: a custom object cannot be imported.
    """
    _check(path)
    with tempfile.TemporaryDirectory() as place:
        plain, answer, said = (Path(place) / name for name in ("model.keras", "answer.json", "said.txt"))
        command = [sys.executable, "-m", "edgeml.foreign_child", str(path), str(plain), str(answer), *custom_objects]
        modules = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        with said.open("wb") as log:
            child = subprocess.Popen(  # noqa: S603  (this interpreter, and a module of ours)
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **QUIET, "PYTHONPATH": modules},
            )
            try:
                known = imported(custom_objects)
                import keras  # takes as long here as there: both at once

                import edgeml.layers  # noqa: F401  (its layers are known)

                _wait(child, path)
            finally:
                child.kill()
                child.wait()
        if not answer.exists():
            words = " ".join(said.read_text("utf-8", "replace").split())[-LAST_WORDS:]
            raise DataError(f"{path}: the process that opened it died ({child.returncode}): {words or 'no word'}.")
        told = json.loads(answer.read_text("utf-8"))
        if told:
            raise getattr(errors, told["kind"])(told["message"])
        return keras.models.load_model(plain, custom_objects=known, compile=False, safe_mode=True)


def imported(custom_objects: Sequence[str]) -> dict[str, Any]:
    """Import ``module:name`` objects, modules of the working directory included.

    Raises:
        UsageError: one cannot be.
    """
    found = {}
    if custom_objects and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    for text in custom_objects:
        module, _, name = text.partition(":")
        try:
            found[name] = getattr(importlib.import_module(module), name)
        except Exception as error:  # an import in somebody's module may raise anything
            raise UsageError(
                f"--custom-objects {text}: {type(error).__name__}: {' '.join(str(error).split())}; 'module:name' of"
                " something that can be imported here is due."
            ) from error
    return found


def _check(path: Path) -> None:
    if not path.exists():
        raise DataError(f"{path}: no such file.")
    if path.is_dir():
        if not (path / "saved_model.pb").is_file():
            raise DataError(f"{path}: no model; a SavedModel folder holds saved_model.pb.")
    elif path.suffix not in SUFFIXES:
        raise DataError(f"{path}: '{path.suffix}' is not read; {', '.join(SUFFIXES)} and SavedModel folders are.")
    size = sum(file.stat().st_size for file in path.rglob("*")) if path.is_dir() else path.stat().st_size
    if size > MOST_FILE_MB * 2**20:
        raise IntegrityError(f"{path}: {size / 2**20:,.0f} MiB; {MOST_FILE_MB:,} are allowed.")


def _wait(child: subprocess.Popen[bytes], path: Path) -> None:
    deadline = time.monotonic() + MOST_SECONDS
    while child.poll() is None:
        if memory_mb(child.pid) > MOST_MEMORY_MB:
            raise IntegrityError(f"{path}: opening it takes more than {MOST_MEMORY_MB:,} MiB of memory.")
        if time.monotonic() > deadline:
            raise IntegrityError(f"{path}: opening it takes more than {MOST_SECONDS} seconds.")
        time.sleep(POLL_SECONDS)
