"""One CSV file as a table of text: a header, rows of the same length, and numbers out of it; RFC 4180, UTF-8.

    time;x;y;activity      →  header ("time", "x", "y", "activity"), rows, and the line of the file each one ends in
    0;0.1;-3;walk             numbers(("x", "y")) = [[0.1, -3.0]]

Columns are parted by comma, semicolon or tab, whichever the header has most of. What cannot be read is named by file
and line.
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

SEPARATORS = ",;\t"


@dataclass(frozen=True, eq=False)
class Table:
    """A file's rows of text, and the line that each one ends in."""

    path: Path
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]

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
        try:
            values = np.array([[float(row[place]) for place in places] for row in self.rows])
        except ValueError:
            raise self._refusal(places) from None
        if not np.isfinite(values).all():
            raise self._refusal(places)
        return values

    def is_numeric(self, column: str) -> bool:
        """Tell whether any value of a column is a number."""
        place = self.header.index(column)
        return any(_is_number(row[place]) for row in self.rows)

    def _refusal(self, places: Sequence[int]) -> DataError:
        """Name the first value that is no finite number."""
        cells = ((line, place, row[place]) for row, line in zip(self.rows, self.lines, strict=True) for place in places)
        line, place, text = next(one for one in cells if not (_is_number(one[2]) and math.isfinite(float(one[2]))))
        return DataError(
            f"{self.path}:{line}: column '{self.header[place]}' is '{text.strip()[:40]}'; a finite number is needed."
            " Repair or remove the row."
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
    lines, rows = _parsed(path, text)
    if len(rows) < 2:
        raise DataError(f"{path}: holds {len(rows)} rows; a header and at least one row are needed. Add data.")
    header = tuple(name.strip() for name in rows[0])
    _check_header(path, header)
    uneven = next((n for n, row in enumerate(rows) if len(row) != len(header)), None)
    if uneven is not None:
        raise DataError(
            f"{path}:{lines[uneven]}: {len(rows[uneven])} values; {len(header)}, as in the header, are needed. Repair"
            " the row."
        )
    return Table(path, header, tuple(rows[1:]), tuple(lines[1:]))


def _parsed(path: Path, text: str) -> tuple[list[int], list[tuple[str, ...]]]:
    """Return the rows that are not empty, and the line that each ends in."""
    first = text.lstrip().partition("\n")[0]
    reader = csv.reader(text.splitlines(), delimiter=max(SEPARATORS, key=first.count), strict=True)
    try:
        found = [(reader.line_num, tuple(row)) for row in reader if row]
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: {error}; a CSV row is needed. Repair the row.") from error
    return [line for line, _ in found], [row for _, row in found]


def _check_header(path: Path, header: tuple[str, ...]) -> None:
    numbers = sum(map(_is_number, header))
    if numbers and numbers >= len(header) - 1:  # the class may be text
        raise DataError(
            f"{path}:1: the first row holds numbers ({', '.join(header[:4])}); a header with the names of the columns"
            " is needed. Write one."
        )
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{path}:1: two columns are called '{twice}'; each needs its own name. Rename one.")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
