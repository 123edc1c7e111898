"""What looks at something: the verbs verify, report, doctor, and ``search --dry-run``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from edgeml import plugins, run_folder
from edgeml.errors import IntegrityError
from edgeml.machine import processor
from edgeml.recipe import Recipe
from edgeml.records import Event
from edgeml.terminal import table

Document = dict[str, Any]
ENDS = {  # what ends a search, as a rehearsal says it
    "search.time_limit_minutes": "search.time_limit_minutes ends the search",
    "search.max_trials": "search.max_trials ends the search",
    "hyperband": "after them Hyperband's brackets are done",
    "space": "the space has no more networks",
}
MOST_NAMES = 10  # of columns and classes that a line holds
DRAWN = ("report.html:", "README.md:")  # files that `report` writes, as a line of the integrity check begins


def verify(place: Path, *, layers: bool) -> tuple[str, Document, int]:
    """Check a bundle."""
    from edgeml import bundle
    from edgeml.bundled import verify as script

    if not (place / bundle.SUMS).is_file():
        bundle.read(place)  # says that it is no bundle; a damaged manifest is for the check to find
    document = script.check(place)
    if layers and document["integrity"]["passed"]:
        from edgeml import golden

        golden.check_layers(place, document)
    *lines, verdict = script.lines(document)
    code = script.exit_code(document)
    if code:
        document["error"] = {"code": code, **_failure(document, verdict)}
    return "\n".join([*lines, *_layers(document), verdict]), document, code


def _failure(document: Document, verdict: str) -> Document:
    """Return kind and message of what a check has found."""
    if not document["integrity"]["passed"]:
        return {"kind": "IntegrityError", "message": "; ".join(document["integrity"]["problems"])}
    failed = [f"{row['file']}: {row['problem']}" for row in document["parity"] if not row["passed"]]
    parted = document["first_divergence"]
    failed += [f"{parted['file']}: layer '{parted['layer']}' is out of its limit"] if parted and not failed else []
    return {"kind": "ParityError" if document["parity"] else "UsageError", "message": " | ".join(failed) or verdict}


def _layers(document: Document) -> list[str]:
    """Return a table of layers per file, and what parts first."""
    found: list[str] = []
    rows = document.get("layers", [])
    for file in dict.fromkeys(row["file"] for row in rows):
        own = [row for row in rows if row["file"] == file]
        cells = [
            [row["layer"], row["operator"], _range(row["input_range"]), _range(row["output_range"]),
             f"{row['error']:.2g}", f"{row['limit']:.2g}", "" if row["is_within"] else "out of its limit"]
            for row in own
        ]  # fmt: skip
        found += ["", f"{file}: {own[0]['measure']}"]
        found.append(table(["layer", "operator", "input", "output", "error", "limit", ""], cells))
    first = document["first_divergence"]
    if first:
        found += ["", f"{first['file']} parts from Keras first in layer '{first['layer']}' ({first['operator']}):"
                      f" {first['measure']} {first['error']:.2g}, limit {first['limit']:.2g}"]  # fmt: skip
    return [*found, ""] if found else []


def _range(ends: Sequence[float]) -> str:
    return f"{ends[0]:.3g} to {ends[1]:.3g}"


def report(source: Path, measured: Path | None = None, device: str | None = None) -> tuple[str, Document]:
    """Draw the report of a bundle, or of a run's bundle, again; its manifest and sums follow.

    ``measured``: figures of another machine, called ``device``, that are added before.

    Raises:
        UsageError: the run has not written a bundle yet.
        IntegrityError: something else than what is drawn was changed: new sums would hide it.
    """
    import json

    from edgeml import bundle, manifests, readings
    from edgeml.bundled import verify as script

    place = bundle.of_run(source) if run_folder.is_run(source) else source
    if not (place / bundle.SUMS).is_file():
        bundle.read(place)  # says that it is no bundle
    problems = [line for line in script.integrity(place)[1] if not line.startswith(DRAWN)]
    if problems:
        raise IntegrityError(f"{place}: {'; '.join(problems)}. Get the bundle again.")
    manifest = bundle.read(place)
    found = json.loads((place / "report.json").read_text("utf-8"))
    if measured is not None:
        read = readings.read(measured, manifest, device)
        readings.added(manifest, *read)
        readings.added(found["manifest"], *read)
    with bundle.rewritten(place) as folder:
        manifests.write_pages(folder, found)
        bundle.write_sums(folder, manifest, {entry["path"]: entry for entry in manifest["files"]})
    return f"report   {place / 'report.html'}", {"report": str(place / "report.html")}


def doctor() -> Document:
    """Look at this installation."""
    from importlib.metadata import PackageNotFoundError, metadata, requires, version

    from packaging.requirements import Requirement

    versions, problems = {}, []
    for line in requires("edgeml-export") or []:
        wanted = Requirement(line)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            versions[wanted.name] = version(wanted.name)
        except PackageNotFoundError:
            problems.append(f"{wanted.name} is not installed; pip install '{wanted}'")
            continue
        if not wanted.specifier.contains(versions[wanted.name], prereleases=True):
            problems.append(f"{wanted.name} {versions[wanted.name]} is installed; {wanted.specifier} is due")
    problems += [line for folder in plugins.FOLDERS for line in plugins.working(folder)[1]]
    extras = [name for name in metadata("edgeml-export").get_all("Provides-Extra") or [] if name != "dev"]
    return {
        "versions": versions, "cpu": processor(), "problems": problems,
        "extras": {name: _is_installed(name) for name in extras},
    }  # fmt: skip


def _is_installed(extra: str) -> bool:
    """Tell whether every package of an extra is there."""
    from importlib.metadata import PackageNotFoundError, requires, version

    from packaging.requirements import Requirement

    wanted = [Requirement(line) for line in requires("edgeml-export") or []]
    names = [one.name for one in wanted if one.marker is not None and one.marker.evaluate({"extra": extra})]
    try:
        return all(version(name) for name in names)
    except PackageNotFoundError:
        return False


def dry_run(recipe: Recipe, on_event: Callable[[Event], None]) -> tuple[str, Document]:
    """Say what a search would meet, without writing anything."""
    from edgeml import exporting, latency_budget
    from edgeml.search import rehearsal

    latency_budget.check(recipe)
    exporting.check_tools(recipe.export.targets)
    found = rehearsal.rehearse(recipe, on_event, partial(latency_budget.known_profiles, recipe))
    share, workers = found["space"]["feasible_share"], found["workers"]
    limited = f"; {found['seconds_without_time_limit'] / 60:.1f} without the time limit"
    text = [
        *_data(found["data"]),
        f"space     {found['space']['size']:.3g} networks; {share:.1%} of {found['space']['samples']} drawn fit",
        *(
            f"latency   {where} is not judged here: `edgeml devices calibrate RECIPE` makes its profile"
            for where in found["latency_not_judged"]
        ),
        *(
            f"latency   {count} of those that fit are outside what the profile {where} was made of: less sure"
            for where, count in found["outside_profiles"].items()
        ),
        *(_share(row, found["space"]["samples"], recipe.search.least_use) for row in found["shares"]),
        f"smallest  {found['smallest']['params']:,} params  {found['smallest']['macs']:,} MACs",
        f"largest   {found['largest']['params']:,} params  {found['largest']['macs']:,} MACs",
        f"trials    {found['trials']} of {found['epochs']} epochs in all; {ENDS[found['ended_by']]}",
        f"time      about {found['estimated_seconds'] / 60:.1f} minutes"
        + (limited if found["ended_by"] == rehearsal.TIME_LIMIT else ""),
        f"workers   {workers['count']} with {workers['threads_each']} thread(s) each share {workers['cores']} cores:"
        f" {workers['at_once']} trials at once at that speed",
        "",
        table(["hyper-parameter", "values"], _values(found["space"]["hyperparameters"])),
    ]
    return "\n".join(text), found


def _data(about: Mapping[str, Any]) -> list[str]:
    """Say how the data were understood: samples, columns and classes, many of them shortened."""
    given = f", {about['test_samples']} more given for test" if about["test_samples"] else ""
    columns = f"; columns {_shortened(about['columns'])}" if about["columns"] else ""
    source = f", by {about['class_from']}" if about["class_from"] else ""
    counts = [f"{name} {count}" for name, count in about["classes"].items()]
    return [
        f"data      {about['samples']} {about['kind']} of {' x '.join(map(str, about['input_shape']))}{columns}{given}",
        f"classes   {len(counts)}{source}: {_shortened(counts)}",
        *(f"note      {note}" for note in about["notes"]),
    ]


def _shortened(names: Sequence[str]) -> str:
    """Join names, of many the first and the last."""
    kept = names if len(names) <= MOST_NAMES else [*names[: MOST_NAMES - 1], "…", names[-1]]
    return ", ".join(kept)


def _share(row: Mapping[str, Any], samples: int, least_use: float) -> str:
    using = f", {row['meet_least_use']} of them use {least_use:.0%} of it (search.least_use)" if least_use else ""
    idle = "" if row["searched"] else "; not searched: not even the default network fits"
    return f"share     {row['share']} of the budget: {row['fit']} of {samples} drawn fit{using}{idle}"


def _values(hyperparameters: Mapping[str, Sequence[Any]]) -> list[list[str]]:
    return [[name, " ".join(map(str, values))] for name, values in hyperparameters.items()]
