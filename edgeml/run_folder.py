"""The folder of a run: recipe, splits, data, ledger and finalists, locked while a process works in it.

    runs/<name>/  recipe.resolved.yaml  splits.json  data/*.npy  ledger.jsonl  lock  trials/  finalists/  log.txt

A finished run is never deleted by a new one: it steps aside to ``<name>.1``, ``<name>.2``, … An unfinished one is
resumed or overwritten, whichever is asked for; with neither, it is left alone. One that has trained nothing (no data,
no network within budget, stopped at once) leaves no trace, and what is left of one that was killed is in nobody's way.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from itertools import count
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from edgeml import recipe_file
from edgeml.errors import RecipeError, UsageError
from edgeml.ledger import Ledger
from edgeml.recipe import Recipe

RECIPE, SPLITS, DATASET, LEDGER, LOCK, LOG, ENSEMBLE = (
    "recipe.resolved.yaml", "splits.json", "dataset.json", "ledger.jsonl", "lock", "log.txt", "ensemble.json",
)  # fmt: skip
Arrays = tuple[NDArray[Any], NDArray[np.int64]]


class RunFiles:
    """What lies in a run's folder, for whoever reads it: also for the processes that train, which hold no lock."""

    def __init__(self, root: Path, recipe: Recipe) -> None:
        self.root, self.recipe = root, recipe

    def path(self, *parts: str) -> Path:
        """Return a path inside the run, its folder made."""
        path = self.root.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def has_data(self) -> bool:
        """Tell whether the data of this run are complete."""
        return (self.root / DATASET).exists()

    def splits(self) -> dict[str, Arrays]:
        """Open the arrays of every split, memory-mapped."""
        names = [path.stem[2:] for path in sorted((self.root / "data").glob("x_*.npy"))]
        return {name: (self._array(f"x_{name}"), self._array(f"y_{name}")) for name in names}

    def _array(self, stem: str) -> NDArray[Any]:
        found: NDArray[Any] = np.load(self.root / "data" / f"{stem}.npy", mmap_mode="r")
        return found

    def dataset(self) -> dict[str, Any]:
        """Return what the data set is: labels, value range, meaning, notes."""
        found: dict[str, Any] = json.loads((self.root / DATASET).read_text("utf-8"))
        return found

    def partition(self) -> dict[str, Any]:
        """Return the record of the splits."""
        found: dict[str, Any] = json.loads((self.root / SPLITS).read_text("utf-8"))
        return found


class RunFolder(RunFiles):
    """A run on disk, held by this process until ``close``."""

    def __init__(
        self, root: Path, recipe: Recipe, lock: IO[str], *, is_new: bool = False, aside: Path | None = None
    ) -> None:
        super().__init__(root, recipe)
        self._lock, self._is_new, self.aside = lock, is_new, aside
        self.ledger = Ledger(root / LEDGER)

    def close(self) -> None:
        """Let others work in this run; a new one that has trained nothing is removed, and what it moved comes back."""
        with self._lock:
            if self._is_new and not _has_trained(self.ledger):
                _remove(self.root)
                if self.aside is not None:
                    with suppress(OSError):  # another process has begun there
                        self.aside.rename(self.root)

    def save_data(self, splits: Mapping[str, Arrays], partition: Any, dataset: Mapping[str, Any]) -> None:
        """Write arrays (memory-mapped by readers), the record of the splits, and what the data set is."""
        for name, (x, y) in splits.items():
            np.save(self.path("data", f"x_{name}.npy"), x)
            np.save(self.path("data", f"y_{name}.npy"), y)
        write_json(self.path(SPLITS), partition)
        write_json(self.path(DATASET), dataset)  # written last: its presence says that the data are whole


def is_run(path: Path) -> bool:
    """Tell whether a folder holds a run."""
    return (path / RECIPE).is_file()


def begin(
    root: Path, recipe: Recipe, *, resume: bool = False, overwrite: bool = False, keep_finished: bool
) -> RunFolder:
    """Start or go on with a run.

    Args:
        root: the run's folder.
        recipe: what is asked for.
        resume: go on with what is there.
        overwrite: delete what is there.
        keep_finished: a finished run steps aside to ``<name>.1``, … without being asked.

    Raises:
        UsageError: the folder holds an unfinished run, something else, cannot be written to, or another process works
            in it. RecipeError: the recipe changed since the run was started.
    """
    if resume and overwrite:
        raise UsageError("--resume and --overwrite exclude each other. Give one.")
    _check_place(root)
    aside = None
    with ExitStack() as held:
        lock = held.enter_context(_made_and_locked(root))
        if is_run(root):
            ledger = None if overwrite else Ledger(root / LEDGER)
            if resume and ledger and _has_trained(ledger):
                run = _resumed(root, recipe, lock)
                held.pop_all()  # from here on the lock is the run's
                return run
            if _steps_aside(root, ledger, keep_finished):
                aside = _moved_aside(root)
                with lock:  # which has moved, too: whoever waits for it must not come first
                    lock = held.enter_context(_made_and_locked(root))
            else:
                _empty(root)
        (root / RECIPE).write_text(recipe_file.dump(recipe), "utf-8")
        run = RunFolder(root, recipe, lock, is_new=True, aside=aside)
        run.ledger.append("run_started", recipe_sha256=recipe_file.sha256(recipe))
        held.pop_all()
    return run


def reopen(root: Path) -> RunFolder:
    """Open a run with the recipe that it was started with.

    Raises:
        UsageError: no run there, or another process works in it.
    """
    if not is_run(root):
        raise UsageError(f"{root}: no run ({RECIPE} is missing). Make one with `edgeml search RECIPE`.")
    with ExitStack() as held:
        try:
            lock = held.enter_context(_locked(root))
            run = RunFolder(root, _recipe(root), lock)
        except FileNotFoundError:
            raise UsageError(f"{root}: was removed by another process just now. Look what it does there.") from None
        held.pop_all()
    return run


def read(root: Path) -> RunFiles:
    """Open a run for reading its recipe and data, whoever works in it."""
    return RunFiles(root, _recipe(root))


def _recipe(root: Path) -> Recipe:
    return recipe_file.parse((root / RECIPE).read_bytes(), str(root / RECIPE))


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half of it."""
    beside = path.with_name(f"{path.name}.partial")
    beside.write_text(json.dumps(value, indent=1), "utf-8")
    os.replace(beside, path)


def _resumed(root: Path, recipe: Recipe, lock: IO[str]) -> RunFolder:
    run = RunFolder(root, recipe, lock)
    started = run.ledger.of("run_started")
    if started and started[0]["recipe_sha256"] != recipe_file.sha256(recipe):
        changed = _changed_keys(recipe_file.to_dict(_recipe(root)), recipe_file.to_dict(recipe))
        raise RecipeError(
            f"{root}: the recipe has changed since this run was started ({', '.join(changed) or 'its form'}); a run"
            f" keeps its recipe. Undo the change, give {root / RECIPE} instead, or start again with --overwrite."
        )
    return run


def _changed_keys(old: Mapping[str, Any], new: Mapping[str, Any], path: str = "") -> list[str]:
    """Name the keys that differ, as ``--set`` would."""
    found = []
    for key in sorted(old.keys() | new.keys()):
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += _changed_keys(a, b, f"{path}{key}.")
        elif a != b:
            found.append(f"{path}{key}")
    return found


def _steps_aside(root: Path, ledger: Ledger | None, keep_finished: bool) -> bool:
    """Tell whether the run that is there is kept under another name; one that is neither kept nor given up stays."""
    finished = ledger is not None and _is_finished(ledger)
    if ledger and _has_trained(ledger) and not (finished and keep_finished):
        searched = "a run whose search is done" if ledger.of("refused") else "an unfinished run"
        state = "a finished run" if finished else searched
        raise UsageError(f"{root}: holds {state}; go on with it by --resume, or replace it by --overwrite.")
    return finished


def _has_trained(ledger: Ledger) -> bool:
    return bool(ledger.of("trial_ended"))


def _is_finished(ledger: Ledger) -> bool:
    return any(entry.get("finished") for entry in ledger.of("run_ended"))


def _check_place(root: Path) -> None:
    if root.exists() and not root.is_dir():
        raise UsageError(f"{root}: is a file; a run needs a folder. Move it away, or give the recipe another name.")
    if root.exists() and not is_run(root) and any(path.name != LOCK for path in root.iterdir()) and not is_run(root):
        raise UsageError(f"{root}: holds something that is not a run. Move it away, or give the recipe another name.")


def _empty(root: Path) -> None:
    """Delete all but the lock: the ledger first and the recipe last, so that what a killed process leaves is a run."""
    order = {LEDGER: 0, RECIPE: 2}
    for path in sorted(root.iterdir(), key=lambda path: order.get(path.name, 1)):
        if path.name == LOCK:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _remove(root: Path) -> None:
    """Delete a run as far as that is possible; the lock is the last file to go, for another process may take it."""
    with suppress(OSError):
        _empty(root)
        (root / LOCK).unlink()
        root.rmdir()


def _moved_aside(root: Path) -> Path:
    """Move the run that is there to the first free ``<name>.1``, ``<name>.2``, …; return where."""
    aside = next(path for n in count(1) if not (path := root.with_name(f"{root.name}.{n}")).exists())
    root.rename(aside)
    return aside


def _made_and_locked(root: Path) -> IO[str]:
    try:
        while True:
            root.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # removed by the process that held it
                return _locked(root)
    except OSError as error:
        raise UsageError(f"{root}: cannot be written to ({error.strerror}). Work in a folder of your own.") from error


def _locked(root: Path) -> IO[str]:
    """Lock a run. A lock file that was moved or deleted between being opened and being locked guards nothing."""
    while True:
        file = (root / LOCK).open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            file.close()
            raise UsageError(f"{root}: process {holder} works in this run. Wait for it, or stop it.") from None
        if _is_at(file, root / LOCK):
            break
        file.close()
    file.seek(0)
    file.truncate()
    file.write(str(os.getpid()))
    file.flush()
    return file


def _is_at(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
