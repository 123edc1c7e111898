"""What every verb of the command line shares: its options, its one-line errors, its exit codes."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeml.errors import EdgemlError, Interrupted, unforeseen
from edgeml.terminal import Terminal

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show what libraries print, and tracebacks.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the recipe.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run that is there.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the run that is there.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Networks trained at once (search.workers).")]
Custom = Annotated[
    list[str] | None,
    typer.Option("--custom-objects", metavar="MODULE:NAME", help="Your own code for a layer or function; repeatable."),
]
Out = Annotated[Path | None, typer.Option("--out", help="Folder of the bundle; exported/NAME if not given.")]


def carry_out(verb: Callable[[Terminal], tuple[str, Any, int]], *, as_json: bool, quiet: bool, debug: bool) -> None:
    """Run a verb; print its result or its one-line error, and exit with the right code."""
    code = 0
    with Terminal(as_json=as_json, quiet=quiet, debug=debug) as terminal:
        try:
            text, document, code = verb(terminal)
            terminal.result(text, document)
        except EdgemlError as error:
            code = failed(terminal, error.exit_code, type(error).__name__, str(error))
        except KeyboardInterrupt:
            code = failed(terminal, Interrupted.exit_code, "Interrupted", "stopped; nothing was written.")
        except BrokenPipeError:
            terminal.out_is_closed()  # the reader has seen enough (`| head`)
        except Exception as error:  # noqa: BLE001  (the last door: everything that was not foreseen)
            if debug:
                traceback.print_exc(file=terminal.err)
            code = failed(terminal, *unforeseen(error))
    sys.exit(code)


def failed(terminal: Terminal, code: int, kind: str, message: str) -> int:
    """Say in one line, or as JSON, what went wrong; return the exit code."""
    terminal.clear()
    if terminal.as_json:
        terminal.result("", {"error": {"code": code, "kind": kind, "message": message}})
    else:
        print(f"edgeml: {message}", file=terminal.err)
    return code
