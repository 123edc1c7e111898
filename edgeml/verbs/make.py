"""The verbs that make something: run, search, export."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

from edgeml import recipe_file, run_folder
from edgeml.errors import DataError, UsageError
from edgeml.memory import keep_freed_memory
from edgeml.precisions import NATIVE
from edgeml.recipe import Recipe
from edgeml.records import Event
from edgeml.terminal import table
from edgeml.verbs import feed, findings

OnEvent = Callable[[Event], None]
Document = dict[str, Any]
RUNS = Path("runs")
PROGRAM_FIGURES = {"flash_bytes": "bytes of flash", "ram_bytes": "of RAM", "cycles": "cycles"}
RECIPE_SUFFIXES, DATA_SUFFIXES = (".yaml", ".yml"), (".npz", ".csv")


class Log(Protocol):
    """Where libraries may print."""

    def log_into(self, path: Path) -> None:
        """Lead what libraries print into ``path``."""


def recipe_of(
    source: Path,
    overrides: Sequence[str],
    *,
    max_params: int | None = None,
    max_macs: int | None = None,
    max_latency_ms: float | None = None,
    quick: bool = False,
) -> Recipe:
    """Read a recipe, or make one for a folder, an ``.npz`` or a ``.csv`` file."""
    keep_freed_memory()
    limits = {"max_params": max_params, "max_macs": max_macs, "max_latency_ms": max_latency_ms}
    is_recipe = source.is_file() or source.suffix in RECIPE_SUFFIXES
    if source.is_dir() or source.suffix in DATA_SUFFIXES or not is_recipe:
        if run_folder.is_run(source):
            raise UsageError(f"{source}: is a run, not data. Give its recipe, or `edgeml export {source}`.")
        if not source.exists():
            is_file = source.suffix in DATA_SUFFIXES
            what = "no such file" if is_file else "no such folder, recipe, .npz or .csv file"
            raise DataError(f"{source}: {what}. Check the path.")
        from edgeml import quick_recipe

        made = quick_recipe.for_data(source, **limits, quick=quick, settings=overrides)  # type: ignore[arg-type]
        return recipe_file.parse(recipe_file.dump(made), f"recipe for {source}", overrides)
    keys = {"max_params": "budget.params", "max_macs": "budget.macs"}
    asked = [f"{keys[name]}={value}" for name, value in limits.items() if value is not None and name in keys]
    if max_latency_ms is not None:
        asked.append(
            f"budget.latency=[{{device: host, runtime: onnxruntime, precision: float32, max_ms: {max_latency_ms}}}]"
        )
    if quick:
        raise UsageError("--quick: is for a folder, an .npz or a .csv file; a recipe says itself how long it takes.")
    return recipe_file.read(source, [*overrides, *asked])


def run(
    recipe: Recipe,
    out: Path | None,
    command: str,
    on_event: OnEvent,
    log: Log,
    *,
    resume: bool,
    overwrite: bool,
) -> tuple[str, Document]:
    """Search and deliver."""
    from edgeml import bundle

    place = out or Path("exported") / recipe.name
    bundle.check_place(place)
    folder = run_folder.begin(RUNS / recipe.name, recipe, resume=resume, overwrite=overwrite, keep_finished=True)
    try:
        log.log_into(folder.path(run_folder.LOG))
        if folder.aside is not None:
            back = "it comes back if nothing is trained"
            on_event(Event("run", f"the finished run that was there is now {folder.aside}; {back}"))
        return _delivered(folder, place, command, on_event)
    finally:
        folder.close()


def _delivered(folder: run_folder.RunFolder, place: Path, command: str, on_event: OnEvent) -> tuple[str, Document]:
    from edgeml import assembly, compressing, controls, delivery, exporting, pipeline, tree_finalists

    asked = folder.recipe.export
    exporting.check_request(asked.targets, asked.precision, calibrated=True)
    seconds: dict[str, float] = {}
    with pipeline.timed(seconds, "data"):
        arrays = pipeline.prepare(folder, on_event)
    with closing(pipeline.engine_of(folder)) as engine:
        with pipeline.timed(seconds, "search"):
            candidates = pipeline.search(folder, arrays, engine, on_event)
        with pipeline.timed(seconds, "train"):
            finalists = pipeline.train_finalists(folder, engine, candidates, on_event)
            finalists += tree_finalists.fit(folder, arrays, on_event)
        assembled = assembly.assemble(folder, finalists, arrays, on_event, seconds)
        with pipeline.timed(seconds, "controls"):
            compared = controls.trained(folder, engine, assembled, candidates, on_event)
        with pipeline.timed(seconds, "compress"):
            assembled = compressing.compressed(folder, assembled, arrays, on_event)
    manifest = delivery.deliver(folder, candidates, assembled, compared, arrays, place, command, on_event, seconds)
    text = "\n".join([_summary(manifest, place, folder.root), *findings.failures(folder, candidates)])
    return text, {"bundle": str(place), "manifest": manifest, "seconds": seconds}


def _summary(manifest: Document, place: Path, root: Path | None) -> str:
    from edgeml.report import views

    rows = [
        [
            one["path"], f"{one['bytes']:,}", f"{one['params']:,}", f"{one['macs']:,}", _accuracy(one["test"]),
            f"{one['parity']['max_abs']:.1e}",
            _speed(one["latency"]),
        ]
        for one in views.file_rows(manifest, manifest["latency"])
    ]  # fmt: skip
    programs = [
        f"program  {one['target']}/ of {one['source']}, {one['tool']}: {said}" for one, said in _programs(manifest)
    ]
    accuracy = f"{views.told(manifest)['accuracy']} [95 %]"
    header = ["file", "bytes", "params", "MACs", accuracy, "max diff", "quiet latency"]
    where = [f"bundle   {place}", f"report   {place / 'report.html'}"]
    if root is not None:
        where.append(f"run      {root}")
    return "\n".join([table(header, rows), "", *programs, *where])


def _speed(latency: Document) -> str:
    from edgeml.report.formats import if_batch

    return f"{latency['quiet_ms']:.4f} ms {latency['runtime'].split()[0]}{if_batch(latency.get('batch'))}"


def _programs(manifest: Document) -> Iterator[tuple[Document, str]]:
    """Yield what was made of the files, and what is to be said of it in a line."""
    from edgeml.report import programs

    for one in programs.rows(manifest):
        figures = [f"{one[key]:,} {words}" for key, words in PROGRAM_FIGURES.items() if key in one]
        yield one, ", ".join([*figures, one["agreement"]])


def _accuracy(scored: Mapping[str, Any]) -> str:
    if not scored:
        return "-"
    low, high = scored["interval_95"]
    return f"{scored['accuracy']:.2%} [{100 * low:.1f}, {100 * high:.1f}] n={scored['samples']}"


def search(recipe: Recipe, on_event: OnEvent, log: Log, *, resume: bool, overwrite: bool) -> tuple[str, Document]:
    """Search alone."""
    from edgeml import pipeline

    folder = run_folder.begin(RUNS / recipe.name, recipe, resume=resume, overwrite=overwrite, keep_finished=False)
    try:
        log.log_into(folder.path(run_folder.LOG))
        seconds: dict[str, float] = {}
        with pipeline.timed(seconds, "search"):
            arrays = pipeline.prepare(folder, on_event)
            with closing(pipeline.engine_of(folder)) as engine:
                candidates = pipeline.search(folder, arrays, engine, on_event)
    finally:
        folder.close()
    return findings.of_search(folder, candidates, seconds["search"])


def export_run(
    source: Path,
    to: str | None,
    precision: str | None,
    io: str | None,
    out: Path | None,
    refused: Mapping[str, Any],
    command: str,
    on_event: OnEvent,
    log: Log,
) -> tuple[str, Document]:
    """Finish a run: train finalists if needed, ensemble, export."""
    given = [name for name, value in refused.items() if value is not None]
    if given:
        raise UsageError(f"{given[0]}: is for model files; a run brings its own data. Leave it out.")
    folder = run_folder.reopen(source)
    try:
        changes = {
            key: tuple(text.split(",")) for key, text in (("targets", to), ("precision", precision)) if text is not None
        }
        overrides = [f"export.{key}=[{', '.join(words)}]" for key, words in changes.items()]
        overrides += [f"export.io={io}"] if io is not None else []
        where = str(source / run_folder.RECIPE)
        folder.recipe = recipe_file.parse(recipe_file.dump(folder.recipe), where, overrides)
        place = out or Path("exported") / folder.recipe.name
        log.log_into(folder.path(run_folder.LOG))
        text, document = _delivered(folder, place, command, on_event)
    finally:
        folder.close()
    return text, _export_document(document["bundle"], document["manifest"])


def _export_document(place: str, manifest: Document) -> Document:
    return {"bundle": place, "files": manifest["files"], "parity": manifest["parity"], "folding": manifest["folding"]}


def export_model(
    source: Path,
    to: str | None,
    precision: str | None,
    io: str | None,
    out: Path | None,
    files: Mapping[str, Path | None],
    batch: int | None,
    frame: Mapping[str, str | None],
    custom_objects: Sequence[str],
    on_event: OnEvent,
    log: Log,
) -> tuple[str, Document]:
    """Export a Keras model file; ``frame``: layout, scale and offset as YAML, which a sidecar file may say, too."""
    from edgeml import bundle, exporting, foreign, framing
    from edgeml.exportable import exportable
    from edgeml.model_export import export
    from edgeml.samples import read_labels

    del log  # there is no run whose log could keep what libraries print
    place = out or Path("exported") / source.stem
    bundle.check_place(place)
    targets, precisions = (
        exporting.words(default if given is None else given)
        for given, default in ((to, "tflite,onnx"), (precision, "float32"))
    )
    io = NATIVE if io is None else io
    exporting.check_request(targets, precisions, calibrated=files["calibration"] is not None, io=io)
    about = framing.read(source, frame)
    labels = about.labels if files["labels"] is None else read_labels(files["labels"])
    model = exportable(foreign.load(source, custom_objects), targets, precisions)
    samples = feed.read(files["samples"], model, about.layout, is_labelled=feed.tells_classes(model, labels))
    calibration = feed.read(files["calibration"], model, about.layout, is_labelled=False)
    if samples.inputs is None:
        on_event(Event("export", "warning: no --samples; parity is measured on random inputs"))
    truth = feed.truth_of(samples, files["samples"], model, labels, on_event)
    export(
        model, place, targets, precisions, samples=samples.inputs, truth=truth, calibration=calibration.inputs,
        labels=labels, batch=batch, layout=about.layout, scale=about.scale, offset=about.offset, io=io,
        on_event=on_event,
    )  # fmt: skip
    manifest = bundle.read(place)
    kept = [f"kept      {row['layer']}: {row['reason']}" for row in manifest["folding"]["kept"]]
    folded = f"folded    {len(manifest['folding']['folded'])} normalisation layers"
    left_out = [f"no count  {name}: its MACs are in no figure" for name in manifest["cost"]["not_counted"]]
    text = "\n".join([folded, *kept, *left_out, "", _summary(manifest, place, None)])
    return text, _export_document(str(place), manifest)
