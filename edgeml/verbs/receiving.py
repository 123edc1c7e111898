"""``edgeml inspect BUNDLE``: one screen for whoever receives a bundle.

What it does, for what input, how good, how big, how fast where, proven how, and whether it is as it was made.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from edgeml import bundle
from edgeml.report import programs, views
from edgeml.report.formats import if_batch, shape
from edgeml.report.svg import short
from edgeml.terminal import table

Document = dict[str, Any]
SHOWN_LABELS = 8
HASH_DIGITS = 12
COUNTED = ("params", "macs", "weight_bytes", "peak_activation_bytes", "arena_bytes", "file_bytes", "not_counted")
SAID = ("name", "task", "input", "output", "metrics", "parity", "latency", "machine", "recipe_sha256", "data_sha256")


def inspect(folder: Path) -> tuple[str, Document]:
    """Say what a bundle is.

    Raises:
        IntegrityError: a file was changed or is missing.
    """
    count = bundle.check_unchanged(folder)
    manifest = bundle.read(folder)
    files = views.file_rows(manifest, manifest["latency"])
    folding, cost = manifest["folding"], manifest["cost"]
    document = {
        **{key: cost.get(key) for key in COUNTED},
        "not_counted": cost.get("not_counted", []),
        "layers": _layers(folder),
        "batch_norm": {"folded": len(folding["folded"]), "kept": folding["kept"]},
        **{key: manifest[key] for key in SAID},
        "files": manifest["files"],
        "unchanged": count,
    }
    return "\n".join(_lines(manifest, files, count)), document


def _layers(folder: Path) -> list[Any]:
    found: list[Any] = json.loads((folder / "report.json").read_text("utf-8"))["layers"]
    return found


def _lines(manifest: Document, files: Sequence[Document], count: int) -> Iterable[str]:
    cost, task, machine = manifest["cost"], manifest["task"], manifest["machine"]
    yield f"{_plain(manifest['name'])}: {_what(task)}"
    for side, said in (("in", "input"), ("out", "output")):
        for tensor in views.tensors(manifest, said):
            yield f"{side:6s} {_tensor(tensor)}"
    devices = programs.rows(manifest)
    arena = (cost.get("arena_bytes") or {}).get("int8") if any(one["precision"] == "int8" for one in files) else None
    measured = any(one["target"] == "tflm" for one in devices)  # then it stands in the table
    memory = f", arena about {arena:,} bytes (int8)" if arena and not measured else ""
    yield f"cost   {cost['params']:,} params, {cost['macs']:,} MACs per sample{memory}"
    yield ""
    accuracy = views.told(manifest)["accuracy"]
    yield table(["file", "bytes", accuracy, "max difference", "quiet latency"], [_row(one) for one in files])
    yield ""
    if devices:
        head = ["for devices", "made from", "flash bytes", "RAM bytes", "one inference", "agrees with its file"]
        yield table(head, [_program(one) for one in devices])
        yield ""
    yield f"fast   on {machine['cpu'] or machine['system']}; a latency is that of one inference, in a quiet moment"
    yield from _proof(manifest)
    yield f"made   {manifest['created']} by edgeml {manifest['edgeml']}{_origin(manifest)}"
    yield f"whole  {count} files are as they were made; without edgeml: sha256sum -c SHA256SUMS, python verify.py"
    started = [one["files"][0] for one in manifest.get("programs", [])]
    if started:
        yield f"run    {', '.join(started)}"


def _what(task: Document) -> str:
    labels = [short(_plain(label)) for label in task["labels"]]
    if not labels:
        return "computes numbers, no classes"
    more = ", …" if len(labels) > SHOWN_LABELS else ""
    return f"tells {len(labels)} classes apart: {', '.join(labels[:SHOWN_LABELS])}{more}"


def _tensor(tensor: Document) -> str:
    parts = [
        f"{_plain(tensor['name'])}: {shape(tensor['shape'])} {tensor.get('layout', '')}".rstrip(),
        tensor["meaning"],
    ]
    if "range" in tensor:
        parts.append("{:g} to {:g}".format(*tensor["range"]))
    if "divided_by" in tensor:
        parts.append("each column divided by divided_by of the manifest")
    return _plain(", ".join(parts))


def _row(file: Document) -> list[str]:
    test, parity, latency = file["test"], file["parity"], file["latency"]
    accuracy = "–"
    if "accuracy" in test:
        low, high = test["interval_95"]
        accuracy = f"{test['accuracy']:.1%} [{100 * low:.1f}, {100 * high:.1f}], n={test['samples']:,}"
    speed = f"{latency['quiet_ms']:.4f} ms, {latency['runtime']}{if_batch(latency.get('batch'))}" if latency else "–"
    return [file["path"], f"{file['bytes']:,}", accuracy, f"{parity['max_abs']:.1e}" if parity else "–", speed]


def _program(one: Document) -> list[str]:
    flash, ram, cycles = ("–" if one.get(key) is None else f"{one[key]:,}" for key in programs.COLUMNS if key != "ms")
    speed = f"{one['ms']:.4f} ms" if "ms" in one else f"{cycles} cycles" if "cycles" in one else "–"
    return [f"{one['target']}/", one["source"], flash, ram, speed, one["agreement"]]


def _proof(manifest: Document) -> Iterable[str]:
    rows = [row for row in manifest["parity"] if row.get("gate") not in ("none", "tflm")]
    passed = sum(row["passed"] for row in rows)
    inputs = ", ".join(dict.fromkeys(row["inputs"] for row in rows))
    configurations = (row.get("configuration") for row in rows)  # "LiteRT 2.3.0, XNNPACK, 1 thread, batch 1"
    runtimes = ", ".join(sorted({one.partition(",")[0] for one in configurations if one}))
    yield f"proven {passed} of {len(rows)} comparisons with Keras passed; {inputs}; in {runtimes}"


def _origin(manifest: Document) -> str:
    hashes = ((what, manifest.get(f"{what}_sha256")) for what in ("recipe", "data"))
    return "".join(f", {what} {sha256[:HASH_DIGITS]}" for what, sha256 in hashes if sha256)


def _plain(text: str) -> str:
    """Return a text of others that a terminal only prints."""
    return "".join(mark if mark.isprintable() else " " for mark in text)
