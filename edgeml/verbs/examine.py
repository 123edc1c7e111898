"""The verbs that look at something: verify, benchmark, inspect, report, doctor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeml import run_folder
from edgeml.errors import DataError, IntegrityError, UsageError
from edgeml.ledger import Ledger
from edgeml.records import to_json
from edgeml.terminal import table

Document = dict[str, Any]
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

        document["parity"].append(golden.keras_row(place))
        document["passed"] = document["passed"] and document["parity"][-1]["passed"]
    return "\n".join(script.lines(document)), document, script.exit_code(document)


def benchmark(sources: Sequence[Path], against: Path | None, threads: int) -> tuple[str, Document]:
    """Measure latency of bundles and files."""
    from edgeml import benchmarking

    records, comparisons = benchmarking.benchmark(sources, against, threads)
    rows = [
        [r.file, r.runtime, f"{r.quiet_ms:.4f} [{r.interval_95[0]:.4f}, {r.interval_95[1]:.4f}]", f"{r.p50_ms:.4f}",
         f"{r.p99_ms:.4f}", f"{r.noise_floor:.1%}", f"{r.load_ms:.1f}"]
        for r in records
    ]  # fmt: skip
    header = ["file", "runtime", "quiet ms [95 %]", "p50 ms", "p99 ms", "noise floor", "load ms"]
    lines = [table(header, rows)] + [
        f"{c.file} / {c.against}: {c.ratio:.3f} [{c.interval_95[0]:.3f}, {c.interval_95[1]:.3f}] {c.claim}"
        for c in comparisons
    ]
    return "\n".join(lines), {"results": to_json(records), "comparisons": to_json(comparisons)}


def inspect(path: Path) -> tuple[str, Document]:
    """Count a Keras model file after folding."""
    from edgeml.assembly import fold
    from edgeml.runtimes.keras import load

    if path.suffix not in (".keras", ".h5"):
        raise DataError(f"{path}: '{path.suffix}' is not inspected; .keras and .h5 are.")
    model = load(path)
    before, graph = model.count_params(), fold(model)
    kept = [{"layer": name, "reason": reason} for name, reason in graph.folding.kept]
    document = {
        **to_json(graph.cost), "variables_before_folding": before,
        "layers": [
            {"name": o.name, "kind": o.kind, "output_shape": list(o.output_shape), "params": o.params, "macs": o.macs}
            for o in graph.operators
        ],
        "batch_norm": {"folded": len(graph.folding.folded), "kept": kept}, "not_counted": [],
    }  # fmt: skip
    rows = [
        [o.name, o.kind, "x".join(map(str, o.output_shape)), f"{o.params:,}", f"{o.macs:,}"] for o in graph.operators
    ]
    cost = graph.cost
    text = [
        table(["layer", "kind", "output", "params", "MACs"], rows),
        "",
        f"{cost.params:,} params ({before:,} variables before folding)  {cost.macs:,} MACs",
        f"weights  {cost.weight_bytes['float32']:,} bytes float32, {cost.weight_bytes['int8']:,} bytes int8",
        f"peak activations  {cost.peak_activation_bytes:,} bytes int8, {4 * cost.peak_activation_bytes:,} float32",
        f"folded {len(graph.folding.folded)}, kept {len(kept)}",
        *(f"  kept {row['layer']}: {row['reason']}" for row in kept),
    ]
    return "\n".join(text), document


def report(source: Path) -> tuple[str, Document]:
    """Draw the report of a bundle, or of a run's bundle, again; its manifest and sums follow.

    Raises:
        UsageError: the run has not written a bundle yet.
        IntegrityError: something else than what is drawn was changed: new sums would hide it.
    """
    import json

    from edgeml import bundle, manifests
    from edgeml.bundled import verify as script

    place = _bundle_of(source)
    if not (place / bundle.SUMS).is_file():
        bundle.read(place)  # says that it is no bundle
    problems = [line for line in script.integrity(place)[1] if not line.startswith(DRAWN)]
    if problems:
        raise IntegrityError(f"{place}: {'; '.join(problems)}. Get the bundle again.")
    manifest = bundle.read(place)
    found = json.loads((place / "report.json").read_text("utf-8"))
    roles = {
        entry["path"]: {k: v for k, v in entry.items() if k not in ("path", "sha256", "bytes")}
        for entry in manifest["files"]
    }
    with bundle.rewritten(place) as folder:
        manifests.write_pages(folder, found)
        bundle.write_sums(folder, manifest, roles)
    return f"report   {place / 'report.html'}", {"report": str(place / "report.html")}


def _bundle_of(source: Path) -> Path:
    if not run_folder.is_run(source):
        return source
    ended = Ledger(source / run_folder.LEDGER).of("run_ended")
    if not ended:
        raise UsageError(f"{source}: this run has no bundle yet. Make it with `edgeml export {source}`.")
    return Path(ended[-1]["bundle"])


def doctor() -> Document:
    """Look at this installation."""
    from importlib.metadata import PackageNotFoundError, requires, version

    from packaging.requirements import Requirement

    from edgeml import bundle

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
    return {"versions": versions, "cpu": bundle.machine(), "extras": {}, "problems": problems}
