"""What can go wrong, and the exit code that says so.

    EdgemlError            1   internal error
    ├── UsageError         2   wrong call; run or output occupied; missing extra; unknown device
    ├── RecipeError        3   the recipe: syntax, unknown key, wrong type, impossible value
    ├── DataError          4   a data or model file that cannot be read or used
    ├── BudgetError        5   no network fits the budget
    ├── ParityError        6   a file does not compute what Keras computed
    ├── GateError          7   accuracy or latency outside its gate
    ├── IntegrityError     8   changed file, refused for safety
    ├── TrialsError        9   more than a third of the trials failed
    ├── TargetError       10   a target cannot take this network
    │   └── NotMeasuredError   a device profile has not measured an operator of it
    └── Interrupted       75   stopped on request; can be resumed

Every message is one line: ``<where>: <found>; <allowed>. <what to do>``.
"""

from __future__ import annotations

import errno
from typing import ClassVar

SYSTEM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EMFILE)  # of the machine, not of the program


class EdgemlError(Exception):
    """An error whose message is meant for the user as it stands."""

    exit_code: ClassVar[int] = 1


class UsageError(EdgemlError):
    """The command cannot be carried out as given."""

    exit_code = 2


class RecipeError(EdgemlError):
    """The recipe is not valid."""

    exit_code = 3


class DataError(EdgemlError):
    """A data or model file cannot be read or used."""

    exit_code = 4


class BudgetError(EdgemlError):
    """No network fits the budget."""

    exit_code = 5


class ParityError(EdgemlError):
    """A file does not compute what its reference computes."""

    exit_code = 6


class GateError(EdgemlError):
    """Accuracy or latency is outside its gate."""

    exit_code = 7


class IntegrityError(EdgemlError):
    """A file was changed, or is refused for safety."""

    exit_code = 8


class TrialsError(EdgemlError):
    """More than a third of the trials failed."""

    exit_code = 9


class TargetError(EdgemlError):
    """An export target cannot take this network."""

    exit_code = 10


class NotMeasuredError(TargetError):
    """A device profile has not measured an operator of this network."""


class Interrupted(EdgemlError):  # noqa: N818  (not a failure: the run can be resumed)
    """The run was stopped on request and can be resumed."""

    exit_code = 75


def unforeseen(error: Exception) -> tuple[int, str, str]:
    """Return exit code, kind and message of an exception that nobody has turned into one of these."""
    if isinstance(error, OSError) and error.errno in SYSTEM:
        where = f"{error.filename}: " if error.filename else ""
        return UsageError.exit_code, "UsageError", f"{where}{error.strerror}. Mend that; a run goes on with --resume."
    text = f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"
    return EdgemlError.exit_code, "InternalError", f"internal error: {text}. --debug shows where."
