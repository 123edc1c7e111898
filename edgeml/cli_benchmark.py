"""The verb benchmark of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edgeml.cli_frame import Debug, Json, Quiet, carry_out
from edgeml.errors import UsageError
from edgeml.terminal import Progress, Terminal


def benchmark(
    sources: Annotated[list[Path], typer.Argument(help="Bundles, runs or model files.")],
    against: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|naive|members",
            help="Compare every file with this one; with what converters write by themselves; with members in turn.",
        ),
    ] = None,
    threads: Annotated[str, typer.Option(metavar="N[,N…]", help="Threads of each runtime.")] = "1",
    batch: Annotated[str | None, typer.Option(metavar="N[,N…]", help="Samples of a run, where a file allows.")] = None,
    operators: Annotated[bool, typer.Option("--operators", help="Time each operator instead.")] = False,
    runs: Annotated[int, typer.Option(min=1, help="Runs that --operators sums over.")] = 1_000,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Measure latency, interleaved, with intervals and a noise floor."""

    def verb(terminal: Terminal) -> tuple[str, Any, int]:
        from edgeml.verbs import measuring

        if operators:
            if against is not None or batch is not None:
                raise UsageError("--operators: stands alone, with --threads. Leave --against and --batch out.")
            return *measuring.operators(sources, threads, runs, Progress(terminal)), 0
        return *measuring.benchmark(sources, against, threads, batch, Progress(terminal)), 0

    carry_out(verb, as_json=as_json, quiet=quiet, debug=debug)
