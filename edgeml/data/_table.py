"""One CSV file as a table of text: a header, rows of the same length, and numbers out of it; RFC 4180, UTF-8.

    time;x;y;activity      →  header ("time", "x", "y", "activity"), rows, and the line of the file each one ends in
    0;0.1;-3;walk             numbers(("x", "y")) = [[0.1, -3.0]]

Columns are parted by comma, semicolon, tab or ``|``, whichever the header has most of. Where it is not the comma, a
file may have decimal commas, 3,14: in all of its numbers, for none may have a point then. What cannot be read is named
by file and line.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeml.errors import DataError, RecipeError
from edgeml.plugins import did_you_mean

SEPARATORS = ";\t|,"  # of as many, the comma comes last: it may be a decimal mark


@dataclass(frozen=True, eq=False)
class Table:
    """A file's rows of text, the line that each one ends in, and what parts the columns."""

    path: Path
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]
    separator: str

    def place(self, key: str, column: str) -> int:
        """Return the place of a column that the recipe's ``key`` names.

        Raises:
            RecipeError: there is none of this name.
        """
        if column not in self.header:
            near = did_you_mean(column, list(self.header))
            raise RecipeError(f"data.{key}: no column '{column}' in {self.path}; {', '.join(self.header)} are.{near}")
        return self.header.index(column)

    def texts(self, column: str) -> list[str]:
        """Return a column of names.

        Raises:
            DataError: a name is empty.
        """
        place = self.header.index(column)
        found = [row[place].strip() for row in self.rows]
        if "" in found:
            raise DataError(
                f"{self.path}:{self.lines[found.index('')]}: column '{column}' is empty; every row needs a class."
                " Complete or remove it."
            )
        return found

    def numbers(self, columns: Sequence[str]) -> NDArray[np.float64]:
        """Return columns of numbers, (N, F).

        Raises:
            DataError: a value is not a finite number.
        """
        places = [self.header.index(column) for column in columns]
        mark = "," if self.has_decimal_commas(columns) else "."
        try:
            values = np.array([[_number(row[place], mark) for place in places] for row in self.rows])
        except ValueError:
            raise self._refusal(places, mark) from None
        if not np.isfinite(values).all():
            raise self._refusal(places, mark)
        return values

    def has_decimal_commas(self, columns: Sequence[str]) -> bool:
        """Tell whether any number of these columns has a decimal comma; all have to, then."""
        if self.separator == ",":
            return False
        places = [self.header.index(column) for column in columns]
        return any("," in row[place] and _is_number(row[place], ",") for row in self.rows for place in places)

    def is_numeric(self, column: str) -> bool:
        """Tell whether any value of a column is a number."""
        place = self.header.index(column)
        return any(_is_number(row[place], mark) for row in self.rows for mark in _marks(self.separator))

    def _refusal(self, places: Sequence[int], mark: str) -> DataError:
        """Name the first value that is no finite number."""
        cells = ((line, place, row[place]) for row, line in zip(self.rows, self.lines, strict=True) for place in places)
        line, place, text = next(
            one for one in cells if not (_is_number(one[2], mark) and math.isfinite(_number(one[2], mark)))
        )
        due, todo = "a finite number", "Repair or remove the row."
        if mark == "," and "." in text and _is_number(text, "."):
            due, todo = "a decimal comma, as in other numbers of the file,", "Write all numbers alike."
        elif mark == "." and "," in text and _is_number(text, ","):
            due, todo = "a decimal point, where commas part the columns,", "Part them by semicolons, or write points."
        return DataError(
            f"{self.path}:{line}: column '{self.header[place]}' is '{text.strip()[:40]}'; {due} is needed. {todo}"
        )


def read(path: Path) -> Table:
    """Read a CSV file.

    Raises:
        DataError: it is missing, empty, not UTF-8, without a header, or its rows differ in length.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; a CSV file is needed. Check data.path.") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise DataError(f"{path}:{line}: not UTF-8 text; a CSV file in UTF-8 is needed. Save it as UTF-8.") from error
    first = text.lstrip().partition("\n")[0]
    separator = max(SEPARATORS, key=first.count) if any(map(first.count, SEPARATORS)) else ","
    lines, rows = _parsed(path, text, separator)
    if len(rows) < 2:
        raise DataError(f"{path}: holds {len(rows)} rows; a header and at least one row are needed. Add data.")
    header = tuple(name.strip() for name in rows[0])
    _check_header(path, header, _marks(separator))
    uneven = next((n for n, row in enumerate(rows) if len(row) != len(header)), None)
    if uneven is not None:
        raise DataError(
            f"{path}:{lines[uneven]}: {len(rows[uneven])} values; {len(header)}, as in the header, are needed. Repair"
            " the row."
        )
    return Table(path, header, tuple(rows[1:]), tuple(lines[1:]), separator)


def _parsed(path: Path, text: str, separator: str) -> tuple[list[int], list[tuple[str, ...]]]:
    """Return the rows that are not empty, and the line that each ends in."""
    reader = csv.reader(text.splitlines(), delimiter=separator, strict=True)
    try:
        found = [(reader.line_num, tuple(row)) for row in reader if row]
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: {error}; a CSV row is needed. Repair the row.") from error
    return [line for line, _ in found], [row for _, row in found]


def _check_header(path: Path, header: tuple[str, ...], marks: str) -> None:
    numbers = sum(any(_is_number(name, mark) for mark in marks) for name in header)
    if numbers and numbers >= len(header) - 1:  # the class may be text
        raise DataError(
            f"{path}:1: the first row holds numbers ({', '.join(header[:4])}); a header with the names of the columns"
            " is needed. Write one."
        )
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{path}:1: two columns are called '{twice}'; each needs its own name. Rename one.")


def _marks(separator: str) -> str:
    """Return the decimal marks that a file may have."""
    return "." if separator == "," else ".,"


def _number(text: str, mark: str) -> float:
    """Return a number with this decimal mark; ValueError for anything else."""
    if mark == ".":
        return float(text)
    if "." in text:
        raise ValueError(text)
    return float(text.replace(mark, ".", 1))


def _is_number(text: str, mark: str) -> bool:
    try:
        _number(text, mark)
    except ValueError:
        return False
    return True
