"""Exceptions that nobody foresaw: the system's are told as such, the others as what they are."""

import errno

import pytest

from edgeml.errors import UsageError, unforeseen


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_what_the_system_refuses_names_the_file_and_is_no_internal_error(number):
    code, kind, message = unforeseen(OSError(number, "No space left on device", "runs/x/ledger.jsonl"))
    assert (code, kind) == (UsageError.exit_code, "UsageError")
    assert message == "runs/x/ledger.jsonl: No space left on device. Mend that; a run goes on with --resume."


def test_anything_else_is_internal_and_says_where_to_look():
    code, kind, message = unforeseen(KeyError("global_pool_0"))
    assert (code, kind) == (1, "InternalError")
    assert message == "internal error: KeyError: 'global_pool_0'. --debug shows where."
