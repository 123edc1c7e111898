"""``edgeml devices``: list, show, calibrate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeml.errors import GateError, UsageError
from edgeml.plugins import did_you_mean
from edgeml.recipe import Recipe
from edgeml.records import Event, Limit, to_json
from edgeml.terminal import table

Document = dict[str, Any]
RUNTIMES, PRECISIONS = ("onnxruntime", "litert"), ("float32", "int8")
ANY_MS = 1e9  # a calibration that no latency limit asks for


def listed() -> tuple[str, Document]:
    """List every device, and the profiles of this machine."""
    from edgeml.devices import catalogue, profile

    others = [(name, path, profile.read(path)) for name, path in catalogue.paths().items()]
    hosts = [(catalogue.HOST, path, profile.read(path)) for path in catalogue.of_hosts()]
    rows = [([name, _runtime(p), p.precision, _error(p.error)], p.description) for name, _, p in [*hosts, *others]]
    if not hosts:
        rows.insert(
            0, ([catalogue.HOST, "onnxruntime, litert", "float32, int8", ""], "this machine; not calibrated yet")
        )
    header = ["device", "runtime", "precision", "error p5 to p95"]
    lines = table(header, [cells for cells, _ in rows]).splitlines()
    width = max(map(len, lines))
    said = ["what it is", *(description for _, description in rows)]
    text = "\n".join(f"{line:<{width}}  {what}" for line, what in zip(lines, said, strict=True))
    document = {
        "devices": [
            {"name": name, "path": str(path), "is_here": _is_here(p) if name == catalogue.HOST else None, **_about(p)}
            for name, path, p in [*hosts, *others]
        ],
        "names": catalogue.names(),
    }
    return text, document


def shown(name: str) -> tuple[str, Document]:
    """Show one device, or each of the profiles of this machine.

    Raises:
        UsageError: no such device, or the host has not been calibrated.
        DataError: a file that is no profile.
    """
    from edgeml.devices import catalogue, profile

    if name.endswith(".toml"):
        paths = [Path(name)]
    elif name == catalogue.HOST:
        paths = catalogue.of_hosts()
        if not paths:
            raise UsageError("device host: not calibrated yet. Run `edgeml devices calibrate RECIPE`.")
    else:
        catalogue.get(name)  # says which there are
        paths = [catalogue.paths()[name]]
    found = [(path, profile.read(path)) for path in paths]
    text = "\n\n".join(_page(path, one) for path, one in found)
    return text, {"profiles": [{"path": str(path), **_about(one), **_details(one)} for path, one in found]}


def _page(path: Path, one: Any) -> str:
    held = one.held_out
    lines = [
        f"{one.name}: {one.description}",
        f"  runtime     {_runtime(one)}, {one.precision}",
        f"  made from   {one.source}",
        f"  error       predicted / measured {_error(one.error)} (5th to 95th percentile), {one.networks} networks",
        *([f"  held out    {held['p50']:.1%} median, {held['p90']:.1%} p90 of {held['networks']:.0f} networks"]
          if held else []),
        f"  last word   {JUDGES[one.judge]}",
        *(f"  {key:<11} {_said(value)}" for key, value in one.key.items()),
        *([] if one.name != "host" or _is_here(one) else [
            "  not of here: another processor or runtime version; `edgeml devices calibrate RECIPE` makes one"]),
        f"  operators   {', '.join(one.kinds())}",
        f"  range       {_reach(one)}",
        f"  file        {path}",
    ]  # fmt: skip
    return "\n".join(lines)


def _reach(one: Any) -> str:
    """Say how large networks may be before one is outside of what was measured: operators of a kind, padded MACs."""
    macs = {kind: f" of {one.range[f'{kind}:mac'][1]:.2g} M MACs" for kind in (*one.kinds(), "graph")
            if f"{kind}:mac" in one.range}  # fmt: skip
    counts = {kind: f"{one.range[f'{kind}:1'][1]:.0f} {kind}" for kind in one.kinds()} or {"graph": "networks"}
    return "at most " + ", ".join(count + macs.get(kind, "") for kind, count in counts.items())


JUDGES = {
    "measured": "finalists are measured on this machine",
    "vela": "finalists are compiled by Vela",
    "none": "the prediction stands, its error on top",
}


def _runtime(one: Any) -> str:
    """Return runtime and version; those of this machine name themselves."""
    version: str = one.runtime_version
    return version if " " in version else f"{one.runtime} {version}"


def _said(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {inner}" for key, inner in value.items()) or "no limit"
    return " ".join(map(str, value)) or "all" if isinstance(value, list) else str(value)


def _is_here(one: Any) -> bool:
    from edgeml import calibration

    here = calibration.of_machine(one.runtime, one.key.get("threads", 1))
    return all(one.key.get(name) == value for name, value in here.items())


def _error(error: Any) -> str:
    return f"{error['p5']:.3f} to {error['p95']:.3f}, median {error['p50']:.3f}"


def _about(one: Any) -> Document:
    names = ("description", "runtime", "runtime_version", "precision", "source", "error", "networks", "held_out",
             "judge", "key")  # fmt: skip
    return {name: to_json(getattr(one, name)) for name in names}


def _details(one: Any) -> Document:
    return {
        "operators": one.kinds(),
        "block": one.block,
        "depth": one.depth,
        "coefficients": dict(one.coefficients),
        "range": {name: list(ends) for name, ends in one.range.items()},
    }


def calibrated(recipe: Recipe, runtime: str, precision: str, on_event: Callable[[Event], None]) -> tuple[str, Document]:
    """Measure this machine for the space, input and budget of a recipe.

    Raises:
        UsageError: a runtime or precision that is not calibrated.
        GateError, BudgetError: see ``calibration.calibrate``.
    """
    _check_words(runtime, precision)
    from edgeml import latency_budget
    from edgeml.devices import catalogue

    networks = _space(recipe, on_event)
    asked = [one for one in recipe.budget.latency if (one.runtime, one.precision) == (runtime, precision)]
    limit = next((one for one in asked if one.device == catalogue.HOST),
                 Limit(catalogue.HOST, runtime, precision, ANY_MS))  # fmt: skip
    threads = recipe.benchmark.threads
    made = latency_budget.host_profile(networks, recipe.budget, limit, threads, on_event, again=True)
    path = catalogue.of_host(runtime, precision, latency_budget.host_key(networks, recipe.budget, limit, threads))
    return _page(path, made), {"device": catalogue.HOST, "profile": str(path), **_about(made)}


def kit(
    recipe: Recipe, runtime: str, precision: str, count: int, place: Path, on_event: Callable[[Event], None]
) -> tuple[str, Document]:
    """Write a kit of ``count`` networks of the recipe's space, or a few more.

    Raises:
        UsageError: the folder is occupied, or a word is not allowed.
        BudgetError: too few networks are within the budget.
        GateError: too many of them become files that cannot be opened.
    """
    _check_words(runtime, precision)
    from edgeml import bundle, calibration, calibration_draw, device_kit, exporting, latency_budget

    if place.is_file() or (place.is_dir() and any(place.iterdir())):
        raise UsageError(f"{place}: holds something already; an empty or new folder is required. Choose another --out.")
    exporting.check_request([calibration.TARGETS[runtime]], [precision], calibrated=True)
    space = _space(recipe, on_event)
    networks = (space.operators(values) for values in space.drawn(calibration_draw.DRAWS * count, recipe.search.seed))
    drawn = calibration_draw.draw(networks, recipe.budget, count, runtime, precision, recipe.search.seed)
    key = latency_budget.space_key(space, recipe.budget)
    with bundle.staged(place) as folder:
        files = [file.name for file in device_kit.write(drawn, runtime, precision, folder, on_event, key=key)]
        if len(files) < device_kit.LEAST_ROWS:
            raise GateError(
                f"devices kit {runtime} {precision}: {len(files)} of {len(drawn)} networks became files that {runtime}"
                f" opens; at least {device_kit.LEAST_ROWS} are needed. Ask for more --networks, or take another space."
            )
    sheet = place / device_kit.SHEET
    text = [f"kit      {place} ({len(files)} networks)", f"read     {place / device_kit.NOTE}", f"fill in  {sheet}",
            f"then     edgeml devices fit {sheet} --name my-board"]  # fmt: skip
    return "\n".join(text), {"folder": str(place), "files": files, "sheet": str(sheet)}


def fit(sheet: Path, name: str, description: str, runtime_version: str) -> tuple[str, Document]:
    """Make a device of a filled sheet.

    Raises: see ``device_kit.fitted``.
    """
    from edgeml import device_kit

    made = device_kit.fitted(sheet, name, description, runtime_version)
    path, was_there = device_kit.keep(made)
    limit = f"{{device: {name}, runtime: {made.runtime}, precision: {made.precision}, max_ms: …}}"
    text = [_page(path, made), f"  in a recipe budget: {{latency: [{limit}]}}"]
    if was_there:
        text.append(f"  replaced    the profile {name} that was there")
    return "\n".join(text), {
        "device": name, "profile": str(path), "error": dict(made.error), "held_out": dict(made.held_out),
        "replaced": was_there,
    }  # fmt: skip


def _check_words(runtime: str, precision: str) -> None:
    for word, given, allowed in (("runtime", runtime, RUNTIMES), ("precision", precision, PRECISIONS)):
        if given not in allowed:
            near = did_you_mean(given, list(allowed))
            raise UsageError(f"--{word}: got '{given}'; {' or '.join(allowed)} is allowed.{near}")


def _space(recipe: Recipe, on_event: Callable[[Event], None]) -> Any:
    """Return a recipe's search space, for the inputs and classes of its data."""
    from edgeml import data, splits
    from edgeml.search import space

    on_event(Event("data", "loading"))
    dataset = data.load(recipe.data)
    arrays = splits.split(dataset, recipe.data.splits, recipe.search.seed).arrays(dataset)
    return space.of_data(recipe, arrays["train"][0], dataset.value_range, len(dataset.labels))
