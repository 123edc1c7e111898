"""What is timed and what it is compared with: files of bundles, runs and models, the converters' own, the members.

bundle   ─► its files                       naive: of its model.keras, which is folded; members: cut out of that
run      ─► those of its bundle             naive: of the trained networks; members: each folded and exported alone
.keras   ─► its float32 files, made here    naive: of the model as it is; members: cut out of it
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgeml import bundle, exporting, foreign, model_export, run_folder
from edgeml.ensemble import side_by_side, taken_apart
from edgeml.errors import DataError, UsageError
from edgeml.folding import fold_batch_norm
from edgeml.golden import golden_inputs
from edgeml.pipeline import OnEvent
from edgeml.records import Event
from edgeml.runtimes import Arrays
from edgeml.runtimes.keras import load
from edgeml.targets import _straight

SUFFIXES = (".onnx", ".tflite")
NAIVE, MEMBERS = "naive", "members"
PRECISION, INT8 = "float32", "int8"


@dataclass(frozen=True)
class File:
    """A file to time, or several that are run one after the other; ``batch``: a fixed one that is known of it."""

    name: str
    paths: tuple[Path, ...]
    precision: str = "as in file"
    batch: int | None = None

    @property
    def suffix(self) -> str:
        """The ending of the file."""
        return self.paths[0].suffix


@dataclass(frozen=True)
class Source:
    """Files of one source; ``place``: what the user called it."""

    place: Path
    files: tuple[File, ...]


def opened(place: Path, work: Path, on_event: OnEvent) -> Source:
    """Find the files of a source; a ``.keras`` file is exported into ``work`` first.

    Raises:
        DataError: neither bundle, run nor model file. UsageError: a run without a bundle, or a folder that is neither.
        IntegrityError: a bundle in which something was changed.
    """
    if place.is_dir():
        folder = bundle.of_run(place) if run_folder.is_run(place) else place
        bundle.check_unchanged(folder)
        return Source(place, tuple(_files(folder, str)))
    if place.suffix == ".keras":
        on_event(Event("export", f"{place} in {PRECISION}"))
        made = model_export.export(
            foreign.load(place), work / f"exported_{place.stem}", precision=PRECISION, profile=False
        )
        return Source(place, tuple(_files(made, lambda path: f"{place}: {path.name}")))
    if place.suffix not in SUFFIXES:
        raise DataError(
            f"{place}: not a bundle, a run or a {' / '.join(SUFFIXES)} / .keras file. Export the model first."
        )
    return Source(place, (File(str(place), (place,)),))


def _files(folder: Path, called: Callable[[Path], str]) -> Iterator[File]:
    """Yield the model files of a bundle."""
    for entry in bundle.models(bundle.read(folder)):
        path = folder / entry["path"]
        yield File(called(path), (path,), entry["precision"], entry.get("batch"))


def rival(path: str) -> File:
    """Return the file that all are to be compared with.

    Raises:
        UsageError: there is no model file of that name.
    """
    file = Path(path)
    if not file.is_file() or file.suffix not in SUFFIXES:
        model = f"{' / '.join(SUFFIXES)} file"
        found = f"not a {model}" if file.exists() else "no such file"
        raise UsageError(f"--against {path}: {found}; a {model}, {NAIVE} or {MEMBERS} is allowed. Check the path.")
    return File(path, (file,))


def against(files: Sequence[File], one: File) -> list[tuple[File, File]]:
    """Pair each file with another one, which may be among them; if that is the only one, with itself."""
    known = next((file for file in files if file.name == one.name), one)
    found = [(file, known) for file in files if file.name != one.name]
    return found or [(known, replace(known, name=f"{known.name}, again"))]


def pairs(source: Source, against: str, work: Path, on_event: OnEvent) -> list[tuple[File, File]]:
    """Return each file of a source with what it is compared with: the converters' files, or the members.

    Members are float32 files, the converters' also int8 where the source is a bundle, or a run that has one: its golden
    inputs give the ranges.

    Raises:
        UsageError: the source has no Keras model, no members, or no file in such a precision.
    """
    folder = work / f"{against}_{source.place.name}"
    folder.mkdir(parents=True)
    others = _naive(source, folder, on_event) if against == NAIVE else _members(source, folder, on_event)
    found = [
        (file, other)
        for file in source.files
        for other in others
        if (file.precision, file.suffix) == (other.precision, other.suffix)
    ]
    if not found:
        raise UsageError(f"{source.place}: has no {PRECISION} file to compare with --against {against}. Export one.")
    return found


def _naive(source: Source, folder: Path, on_event: OnEvent) -> list[File]:
    what = "as trained" if run_folder.is_run(source.place) or source.place.suffix == ".keras" else "folded"
    model = _model(source.place, NAIVE)
    golden = _golden(source.place, model)
    known = {PRECISION} if golden is None else {PRECISION, INT8}
    wanted = known & {file.precision for file in source.files} or {PRECISION}
    on_event(Event("convert", f"{source.place}, {what}, in {', '.join(sorted(wanted))} by the converters alone"))
    return [
        File(f"{source.place}: {what}, {made.converter}", (made.path,), made.precision)
        for made in _straight.write(model, folder, wanted, golden)
    ]


def _golden(place: Path, model: Any) -> Arrays | None:
    """Return the golden inputs of a source, (N, …) by input, if it has a bundle."""
    if not place.is_dir():
        return None
    folder = bundle.of_run(place) if run_folder.is_run(place) else place
    return golden_inputs(folder, [tensor.name for tensor in model.inputs])


def _model(place: Path, against: str) -> Any:
    if run_folder.is_run(place):
        models, record = _trained(place)
        return side_by_side(models, record["weights"], record["mean"])
    if place.is_dir():
        return load(place / "model.keras")
    if place.suffix == ".keras":
        return foreign.load(place)
    raise UsageError(f"{place}: --against {against} needs the Keras model. Give a bundle, a run or a .keras file.")


def _trained(run: Path) -> tuple[list[Any], dict[str, Any]]:
    record: dict[str, Any] = json.loads((run / run_folder.ENSEMBLE).read_text("utf-8"))
    return [load(run / "finalists" / name / "model.keras") for name in record["members"]], record


def _members(source: Source, folder: Path, on_event: OnEvent) -> list[File]:
    """Export every member alone."""
    try:
        models = _apart(source.place)
    except ValueError as error:
        raise UsageError(f"{source.place}: {error}. --against {NAIVE} compares with the converters.") from error
    folded = [fold_batch_norm(model).model for model in models]
    title = f"{source.place}: its {len(models)} members in turn"
    found = []
    for file in source.files:
        if file.precision == PRECISION:
            paths = []
            for number, model in enumerate(folded):
                place = folder / str(number)
                place.mkdir(exist_ok=True)
                asked = [file.suffix[1:]], [PRECISION], None, on_event
                paths += [one.path for one in exporting.write(model, place, *asked, batch=file.batch)]
            found.append(File(f"{title}, {file.suffix}", tuple(paths), PRECISION, file.batch))
    return found


def _apart(place: Path) -> list[Any]:
    """Return the members of a run as they were trained, those of another source as they lie in its graph.

    Raises:
        ValueError: there are not several that can be told apart. UsageError: the source has no Keras graph.
    """
    if run_folder.is_run(place):
        models, _ = _trained(place)
        if len(models) < 2:
            raise ValueError("its graph has no members")
        return models
    weights = [one["weight"] for one in bundle.read(place)["members"]] if place.is_dir() else None
    return taken_apart(_model(place, MEMBERS), weights)
