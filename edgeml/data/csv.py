"""CSV files: rows of a table as vectors, or windows over the rows of sensors; a file, or a folder of files.

    table.csv                     each row a sample; the class in column `label`, the last one if not named
    recording.csv, window: 128    each 128 rows a sample; the class in column `label`
    folder/walk.csv, run.csv, …   the class is the file's name, unless `label` names a column
    folder/train/…, folder/test/… the latter is the test split

Classes are sorted, as numbers if all are. A column without any number is left out. Windows that overlap
(``stride`` below ``window``) share measurements and never part: see ``_windows``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeml.data import Dataset, _table, _windows
from edgeml.errors import DataError, RecipeError
from edgeml.recipe import Data

REQUIRES = ("path",)

TRAIN, TEST = "train", "test"


@dataclass(frozen=True, eq=False)
class _Samples:
    """Samples (N, …): class names, where each is from, groups that stay together; how many were left out and why.

    ``columns``: what the last axis holds. ``label``: the column of the class, "" where files are named by it.
    """

    x: NDArray[np.float64]
    labels: tuple[str, ...]
    ids: tuple[str, ...]
    groups: tuple[str, ...] = ()
    left: Counter[str] = field(default_factory=Counter)
    columns: tuple[str, ...] = ()
    label: str = ""


def load(config: Data) -> Dataset:
    """Load the file or folder ``config.path``.

    Raises:
        DataError: a file cannot be read; what is wrong is named by file and line.
        RecipeError: a column that the recipe names is not there, or ``stride`` stands without ``window``.
    """
    if config.stride and not config.window:
        raise RecipeError("data.stride: without data.window; both together are allowed. Add data.window.")
    path = Path(config.path or "").expanduser()
    is_parted = (path / TRAIN).is_dir() and (path / TEST).is_dir()
    train, notes = _samples(path / TRAIN if is_parted else path, config)
    test = _samples(path / TEST, config)[0] if is_parted else None
    names = _sorted({*train.labels, *(test.labels if test else ())})
    _check_classes(path, names, len(train.labels))
    if is_parted and (beside := len(list(path.glob("*.csv")))):
        notes.append(f"{beside} files beside {TRAIN}/ and {TEST}/ are left out")
    return Dataset(
        x=train.x,
        y=_indices(train.labels, names),
        labels=names,
        value_range=(float(np.float32(train.x.min())), float(np.float32(train.x.max()))),
        meaning=f"columns {', '.join(train.columns)} as in the data file",
        test=(test.x, _indices(test.labels, names)) if test else None,
        notes=tuple(notes),
        ids=train.ids,
        groups=_numbered(train.groups) if config.stride and config.stride < (config.window or 0) else (),
        columns=train.columns,
        class_from=f"column {train.label}" if train.label else "names of files",
    )


def _check_classes(path: Path, names: Sequence[str], samples: int) -> None:
    if len(names) > max(2, samples / 2):
        raise DataError(
            f"csv {path}: {len(names)} classes ({', '.join(names[:3])}, …) in {samples} samples; few are needed. Name"
            " the column of the class in data.label; if left out, it is the last one."
        )


def _samples(path: Path, config: Data) -> tuple[_Samples, list[str]]:
    """Read all files of a path and cut them into samples; return these, and what to note."""
    by_file = path.is_dir() and not config.label
    tables = [_table.read(file) for file in _files(path)]
    columns, notes = _columns(tables, config, has_label=not by_file)
    parts = []
    for table in tables:
        labels = [table.path.stem] * len(table.rows) if by_file else table.texts(_label(table, config))
        parts.append((_windowed if config.window else _as_rows)(table, table.numbers(columns), labels, config))
    if not any(part.labels for part in parts):
        raise DataError(
            f"csv {path}: no window of {config.window} rows has one label; at least one is needed. Lower data.window."
        )
    if commas := [table.path.name for table in tables if table.has_decimal_commas(columns)]:
        more = f" and {len(commas) - 1} files more" * (len(commas) > 1)
        notes.append(f"{commas[0]}{more}: numbers have decimal commas, '3,14' is read as 3.14")
    x = np.concatenate([part.x for part in parts])
    names, ids, groups = (_chained(parts, key) for key in ("labels", "ids", "groups"))
    left = sum((part.left for part in parts), start=Counter[str]())
    label = "" if by_file else _label(tables[0], config)
    return _Samples(x, names, ids, groups, left, tuple(columns), label), [*notes, *_left_notes(left)]


def _chained(parts: Sequence[_Samples], key: str) -> tuple[str, ...]:
    return tuple(one for part in parts for one in getattr(part, key))


def _as_rows(table: _table.Table, values: NDArray[np.float64], labels: Sequence[str], _config: Data) -> _Samples:
    return _Samples(values, tuple(labels), tuple(f"{table.path.name}:{line}" for line in table.lines))


def _windowed(table: _table.Table, values: NDArray[np.float64], labels: Sequence[str], config: Data) -> _Samples:
    window = config.window or len(values)
    if len(values) < window:
        raise DataError(
            f"{table.path}: {len(values)} rows; a window of {window} needs as many. Lower data.window, or remove the"
            " file."
        )
    cut, name = _windows.cut(values, labels, window, config.stride or window), table.path.name
    return _Samples(
        cut.x, cut.labels,
        ids=tuple(f"{name}:{table.lines[start]}" for start in cut.starts),
        groups=tuple(f"{name}:{block}:{label}" for block, label in zip(cut.blocks, cut.labels, strict=True)),
        left=Counter({"labels": cut.two_labels, "blocks": cut.over_blocks, "rows": cut.rows_left}),
    )  # fmt: skip


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(path.glob("*.csv"))
    if not found:
        raise DataError(
            f"csv {path}: no *.csv file; one per class (or with a label column) is needed. Check data.path."
        )
    return found


def _label(table: _table.Table, config: Data) -> str:
    return table.header[table.place("label", config.label) if config.label else -1]


def _columns(tables: Sequence[_table.Table], config: Data, *, has_label: bool) -> tuple[list[str], list[str]]:
    """Return the columns that are learnt from, the same in all files, and what to note of the others."""
    first = tables[0]
    other = next((table for table in tables if table.header != first.header), None)
    if other is not None:
        raise DataError(
            f"{other.path}:1: columns {', '.join(other.header)}; {', '.join(first.header)}, as in {first.path.name},"
            " are needed. Give all files the same columns."
        )
    if config.columns:
        if has_label and _label(first, config) in config.columns:
            raise RecipeError(
                f"data.columns: names '{_label(first, config)}', the column of the class; others are allowed. Leave it"
                " out, or name another one in data.label."
            )
        return [first.header[first.place("columns", column)] for column in config.columns], []
    free = [column for column in first.header if not has_label or column != _label(first, config)]
    taken = [column for column in free if any(table.is_numeric(column) for table in tables)]
    if not taken:
        raise DataError(f"csv {first.path}: no column of numbers beside the label; one is needed. Check data.label.")
    left = [column for column in free if column not in taken]
    return taken, [f"columns without numbers are left out: {', '.join(left)}"] if left else []


def _left_notes(left: Mapping[str, int]) -> list[str]:
    said = {
        "labels": "windows hold more than one label and are left out",
        "blocks": f"windows reach over the end of a block of {_windows.BLOCK_WINDOWS} windows' length and are left out:"
        " windows that share rows stay in one split",
        "rows": "rows at the ends of files fill no window",
    }
    return [f"{count} {said[reason]}" for reason, count in left.items() if count]


def _sorted(names: set[str]) -> tuple[str, ...]:
    """Sort class names, as numbers if all are whole ones."""
    return tuple(sorted(names, key=int if all(name.lstrip("-").isdecimal() for name in names) else None))


def _indices(labels: Sequence[str], names: Sequence[str]) -> NDArray[np.int64]:
    places = {name: place for place, name in enumerate(names)}
    return np.array([places[label] for label in labels], np.int64)


def _numbered(groups: Sequence[str]) -> tuple[int, ...]:
    places = {group: place for place, group in enumerate(dict.fromkeys(groups))}
    return tuple(places[group] for group in groups)
