"""The command line: one function per verb. Frameworks are imported inside the verbs; ``terminal`` does the drawing."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from edgeml import cli_benchmark, cli_devices
from edgeml.cli_frame import Custom, Debug, Json, Out, Overwrite, Quiet, Resume, Set, Workers, carry_out, failed
from edgeml.errors import Interrupted
from edgeml.terminal import Progress, Terminal, table

app = typer.Typer(
    name="edgeml", no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False,
    help="Search small Keras networks under a budget, fold, ensemble, export to TFLite and ONNX, prove every file.",
)  # fmt: skip
app.add_typer(cli_devices.app, name="devices")
app.command()(cli_benchmark.benchmark)


def main() -> None:
    """Entry point of the command ``edgeml``."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code = app(standalone_mode=False)
    except TyperException as error:
        code = _misused(error, as_json="--json" in sys.argv)
    sys.exit(code)


def _misused(error: TyperException, *, as_json: bool) -> int:
    """Say in one line what is wrong with the call; a bare ``edgeml`` shows the help."""
    context = getattr(error, "ctx", None)
    with Terminal(as_json=as_json, quiet=True, debug=True) as terminal:
        if len(sys.argv) < 2:
            print(error.format_message(), file=terminal.err)
            return error.exit_code
        message = " ".join(error.format_message().split())
        stop = "" if message.endswith((".", "?")) else "."
        help_ = f"{context.command_path if context else 'edgeml'} --help"
        return failed(terminal, error.exit_code, "UsageError", f"{message}{stop} `{help_}` shows what is allowed.")


def _interruptible(work: Callable[[], Any], resume: str) -> Any:
    """Call ``work``; Ctrl-C ends it with the command that goes on.

    Raises:
        Interrupted: the user stopped it.
    """
    try:
        return work()
    except KeyboardInterrupt:
        raise Interrupted(f"stopped; what was trained is kept. Go on with: {resume}") from None


def _command() -> str:
    return shlex.join(["edgeml", *sys.argv[1:]])


def _command_to_resume() -> str:
    words = [word for word in sys.argv[1:] if word not in ("--overwrite", "--resume")]
    return shlex.join(["edgeml", *words, "--resume"])


def _overrides(set_: list[str] | None, flags: Mapping[str, int | None]) -> list[str]:
    """Return ``--set`` and the flags that stand for keys of the recipe, as KEY=VALUE."""
    return [*(set_ or []), *(f"{key}={value}" for key, value in flags.items() if value is not None)]


@app.command()
def run(
    source: Annotated[
        Path, typer.Argument(help="A recipe (.yaml), a folder of class folders, or an .npz or .csv file.")
    ],
    max_params: Annotated[int | None, typer.Option(min=1, help="Most parameters of the whole graph.")] = None,
    max_macs: Annotated[int | None, typer.Option(min=1, help="Most multiply-accumulates of the whole graph.")] = None,
    max_latency_ms: Annotated[float | None, typer.Option(min=1e-6, help="Most ms here, onnxruntime float32.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Within five minutes on a small data set.")] = False,
    workers: Workers = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    out: Out = None,
    set_: Set = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Search, train, ensemble, fold, export, verify, benchmark, bundle, report."""
    limits = {"max_params": max_params, "max_macs": max_macs, "max_latency_ms": max_latency_ms}
    overrides = _overrides(set_, {"search.workers": workers})

    def verb(terminal: Terminal) -> tuple[str, Any, int]:
        from edgeml.verbs import make

        recipe = make.recipe_of(source, overrides, **limits, quick=quick)  # type: ignore[arg-type]
        told = out, _command(), Progress(terminal), terminal
        work = partial(make.run, recipe, *told, resume=resume, overwrite=overwrite)
        return *_interruptible(work, _command_to_resume()), 0

    carry_out(verb, as_json=as_json, quiet=quiet, debug=debug)


@app.command()
def search(
    recipe: Annotated[Path, typer.Argument(help="A recipe (.yaml).")],
    trials: Annotated[int | None, typer.Option(min=1, help="Networks to train (search.max_trials).")] = None,
    workers: Workers = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what a search would meet; write nothing.")] = False,
    resume: Resume = False,
    overwrite: Overwrite = False,
    set_: Set = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Search alone, into runs/NAME/."""
    overrides = _overrides(set_, {"search.max_trials": trials, "search.workers": workers})

    def verb(terminal: Terminal) -> tuple[str, Any, int]:
        from edgeml.verbs import examine, make

        loaded = make.recipe_of(recipe, overrides)
        if dry_run:
            return *examine.dry_run(loaded, Progress(terminal)), 0
        work = partial(make.search, loaded, Progress(terminal), terminal, resume=resume, overwrite=overwrite)
        return *_interruptible(work, _command_to_resume()), 0

    carry_out(verb, as_json=as_json, quiet=quiet, debug=debug)


@app.command()
def export(
    source: Annotated[Path, typer.Argument(help="A run folder; or a .keras / .h5 file or SavedModel folder.")],
    to: Annotated[str | None, typer.Option(help="Targets: tflite,onnx.")] = None,
    precision: Annotated[str | None, typer.Option(help="Number formats: float32,float16,dynamic,int8,int16x8.")] = None,
    io: Annotated[str | None, typer.Option(help="Of int8 and int16x8 files: native (integers) or float32.")] = None,
    samples: Annotated[
        Path | None,
        typer.Option(
            help="What every file is compared on, with classes (y) or not: npz as the files take it, or folder."
        ),
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="Inputs that ranges of int8 and int16x8 are taken from.")
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="Text file: one class name a line, in output order.")] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Fixed batch size; else TFLite and int8 ONNX 1, ONNX any.")
    ] = None,
    layout: Annotated[str | None, typer.Option(help="Of images in the files: nhwc or nchw; the model's own.")] = None,
    scale: Annotated[
        str | None, typer.Option(help="The model was trained on scale·x + offset: 1/255, or a list.")
    ] = None,
    offset: Annotated[str | None, typer.Option(help="See --scale.")] = None,
    custom_objects: Custom = None,
    out: Out = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write a proven bundle from a run, or from any Keras model.

    Labels, layout, scale and offset may also stand in MODEL.keras.yaml beside MODEL.keras.
    """

    def verb(terminal: Terminal) -> tuple[str, Any, int]:
        from edgeml.verbs import make

        if source.is_dir() and not (source / "saved_model.pb").is_file():
            given = {"--samples": samples, "--calibration": calibration, "--labels": labels}
            of_a_file = {"--batch": batch, "--layout": layout, "--scale": scale, "--offset": offset}
            refused = {**given, **of_a_file, "--custom-objects": custom_objects}
            told = _command(), Progress(terminal), terminal
            work = partial(make.export_run, source, to, precision, io, out, refused, *told)
            return *_interruptible(work, _command()), 0
        files = {"samples": samples, "calibration": calibration, "labels": labels}
        frame = {"layout": layout, "scale": scale, "offset": offset}
        ask = source, to, precision, io, out, files, batch, frame, custom_objects or ()
        return *make.export_model(*ask, Progress(terminal), terminal), 0

    carry_out(verb, as_json=as_json, quiet=quiet, debug=debug)


@app.command()
def verify(
    bundle: Annotated[Path, typer.Argument(help="A bundle.")],
    layers: Annotated[bool, typer.Option("--layers", help="Run the bundle's model.keras too (TensorFlow).")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Check a bundle: integrity first, then every file against the golden tensors."""

    def verb(_: Terminal) -> tuple[str, Any, int]:
        from edgeml.verbs import examine

        return examine.verify(bundle, layers=layers)

    carry_out(verb, as_json=as_json, quiet=quiet, debug=debug)


@app.command()
def inspect(
    model: Annotated[
        Path, typer.Argument(help="A .keras, .h5, .tflite or .onnx file, a SavedModel folder, or a bundle.")
    ],
    custom_objects: Custom = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Show parameters, MACs, memory, file sizes and folding plan, per layer; of a bundle what a receiver asks."""

    def verb(_: Terminal) -> tuple[str, Any, int]:
        from edgeml.verbs import inspection

        return *inspection.inspect(model, custom_objects or ()), 0

    carry_out(verb, as_json=as_json, quiet=quiet, debug=debug)


@app.command()
def report(
    bundle: Annotated[Path, typer.Argument(help="A bundle, or a run.")],
    measured: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Add what its benchmark.py --json wrote on another machine.")
    ] = None,
    device: Annotated[str | None, typer.Option(metavar="NAME", help="What to call that machine.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Draw a bundle's HTML report again."""

    def verb(_: Terminal) -> tuple[str, Any, int]:
        from edgeml.verbs import examine

        return *examine.report(bundle, measured, device), 0

    carry_out(verb, as_json=as_json, quiet=quiet, debug=debug)


@app.command()
def schema(as_json: Json = True, quiet: Quiet = False, debug: Debug = False) -> None:
    """Print the JSON Schema of recipes."""
    from edgeml import recipe_file

    def verb(_: Terminal) -> tuple[str, Any, int]:
        return "", recipe_file.json_schema(), 0

    carry_out(verb, as_json=as_json, quiet=quiet, debug=debug)


@app.command()
def doctor(as_json: Json = False, quiet: Quiet = False, debug: Debug = False) -> None:
    """Show versions, processor, extras, and what is wrong with this installation."""

    def verb(_: Terminal) -> tuple[str, Any, int]:
        from edgeml.verbs import examine

        found = examine.doctor()
        rows = [[name, version] for name, version in found["versions"].items()]
        cpu = found["cpu"]
        text = [table(["package", "version"], rows), f"\ncpu: {cpu['cpu']} {' '.join(cpu['flags'])}"]
        text += [f"extra {name}: {'' if there else 'not '}installed" for name, there in found["extras"].items()]
        text += [f"problem: {line}" for line in found["problems"]] or ["no problems found"]
        return "\n".join(text), found, 1 if found["problems"] else 0

    carry_out(verb, as_json=as_json, quiet=quiet, debug=debug)
