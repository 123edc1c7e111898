"""``edgeml devices``: the profiles that latency budgets are judged by before a network exists."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeml.cli_frame import Debug, Json, Quiet, Set, carry_out
from edgeml.terminal import Progress, Terminal

app = typer.Typer(help="Device profiles: what latency budgets are judged by before a network exists.",
                  invoke_without_command=True)  # fmt: skip

Runtime = Annotated[str, typer.Option(help="onnxruntime or litert.")]
Precision = Annotated[str, typer.Option(help="float32 or int8.")]


@app.callback()
def devices(context: typer.Context) -> None:
    """List, show, calibrate device profiles; make one for a device of your own."""
    if context.invoked_subcommand is None:
        list_()


@app.command("list")
def list_(as_json: Json = False, quiet: Quiet = False, debug: Debug = False) -> None:
    """List the devices that a budget may name."""

    def verb(_: Terminal) -> tuple[str, Any, int]:
        from edgeml.verbs import devices

        return *devices.listed(), 0

    carry_out(verb, as_json=as_json, quiet=quiet, debug=debug)


@app.command()
def show(
    device: Annotated[str, typer.Argument(help="A device's name, or a profile's file (.toml).")],
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Show what a profile is of, what it was made from, and how far it errs."""

    def verb(_: Terminal) -> tuple[str, Any, int]:
        from edgeml.verbs import devices

        return *devices.shown(device), 0

    carry_out(verb, as_json=as_json, quiet=quiet, debug=debug)


@app.command()
def calibrate(
    recipe: Annotated[Path, typer.Argument(help="A recipe (.yaml): its space and budget say which networks.")],
    runtime: Runtime = "onnxruntime",
    precision: Precision = "float32",
    set_: Set = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Time random networks of a recipe's space on this machine and keep a profile of it."""

    def verb(terminal: Terminal) -> tuple[str, Any, int]:
        from edgeml.verbs import devices, make

        work = partial(devices.calibrated, make.recipe_of(recipe, set_ or []), runtime, precision)
        return *work(Progress(terminal)), 0

    carry_out(verb, as_json=as_json, quiet=quiet, debug=debug)


@app.command()
def kit(
    recipe: Annotated[Path, typer.Argument(help="A recipe (.yaml): its space and budget say which networks.")],
    runtime: Runtime = "litert",
    precision: Precision = "int8",
    networks: Annotated[int, typer.Option(min=45, help="How many to time.")] = 60,
    out: Annotated[Path | None, typer.Option("--out", help="Its folder; kit-RUNTIME-PRECISION if not given.")] = None,
    set_: Set = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write networks to time on a device of your own, and a result sheet to fill in."""

    def verb(terminal: Terminal) -> tuple[str, Any, int]:
        from edgeml.verbs import devices, make

        place = out or Path(f"kit-{runtime}-{precision}")
        work = partial(devices.kit, make.recipe_of(recipe, set_ or []), runtime, precision, networks, place)
        return *work(Progress(terminal)), 0

    carry_out(verb, as_json=as_json, quiet=quiet, debug=debug)


@app.command()
def fit(
    sheet: Annotated[Path, typer.Argument(help="The filled result sheet, beside its kit.json.")],
    name: Annotated[str, typer.Option(help="What a budget will call the device.")],
    description: Annotated[str, typer.Option(help="What it is.")] = "a device of your own",
    runtime_version: Annotated[str, typer.Option(help="Of the runtime on the device.")] = "not stated",
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Turn a filled result sheet into a device that a budget may name."""

    def verb(_: Terminal) -> tuple[str, Any, int]:
        from edgeml.verbs import devices

        return *devices.fit(sheet, name, description, runtime_version), 0

    carry_out(verb, as_json=as_json, quiet=quiet, debug=debug)
