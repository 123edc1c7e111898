"""The last look: test labels are read here, once, after all files exist. It may refuse a bundle, never reselect.

Beside every file stand what a reader needs to judge it: trivial baselines fitted on the same splits, the best single
network, plain averaging, the confusion matrix and the worst mistakes.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml import intervals
from edgeml.errors import GateError
from edgeml.exporting import Artifact
from edgeml.recipe import Verify
from edgeml.runtimes import Loaded, open_model
from edgeml.runtimes.keras import Reference

TEST, GIVEN = "test", "given"  # what samples are: a split that nothing was decided on, or what the user gave
NAMES = {TEST: "test accuracy", GIVEN: "accuracy"}
KERAS = "model.keras"  # the folded graph
WORST = 12
LINES, LINE_POINTS = 6, 64  # of a window that is shown
VALUES = 16  # of a vector
LOGISTIC_SAMPLES = 10_000  # at most so many training samples, and
LOGISTIC_FEATURES = 4_096  # so many inputs: the baseline has to cost seconds
Arrays = tuple[NDArray[Any], NDArray[np.int64]]
Probabilities = NDArray[Any]


def judged(
    artifacts: Sequence[Artifact],
    inputs: Mapping[str, NDArray[Any]],
    labels: NDArray[np.int64],
    gates: Verify,
    model: Any,
    *,
    output: str | None = None,
    split: str = TEST,
    balanced: bool = False,
    calibrated: bool = True,
) -> tuple[dict[str, Probabilities], list[dict[str, Any]]]:
    """Ask every file about the test inputs; return what it says, (N, K) by file, and the manifest's rows.

    Args:
        artifacts: the files.
        inputs: (N, …) each, by name.
        labels: the class of each, (N,).
        gates: what accuracy may drop by.
        model: the folded Keras graph that the files were made from, which they are held against where none is float32.
        output: the one that says it, the first if None.
        split: what the samples are, in the manifest.
        balanced: see ``scored``.
        calibrated: see ``scored``.

    Raises:
        GateError: accuracy drops by more than its gate.
    """

    def asked(loaded: Loaded) -> Probabilities:
        found = loaded.predict(inputs)
        return found[output or next(iter(found))]

    said = {a.path.name: asked(open_model(a.path)) for a in artifacts}
    floats = {a.path.name: said[a.path.name] for a in artifacts if a.precision == "float32"}
    rows = metrics(said, labels, split=split, balanced=balanced, calibrated=calibrated)
    rows = with_drops(rows, said, labels, floats or {KERAS: asked(Reference(model))})
    check_drop(rows, artifacts, gates)
    return said, rows


def metrics(
    probabilities: Mapping[str, Probabilities],
    labels: NDArray[np.int64],
    *,
    split: str = TEST,
    balanced: bool = False,
    calibrated: bool = True,
) -> list[dict[str, Any]]:
    """Return the manifest's rows: file, split, and what ``scored`` says."""
    return [
        {"file": name, "split": split, **scored(p, labels, balanced=balanced, calibrated=calibrated)}
        for name, p in probabilities.items()
    ]


def scored(
    probabilities: Probabilities, labels: NDArray[np.int64], *, balanced: bool = False, calibrated: bool = True
) -> dict[str, Any]:
    """Return the accuracy of (N, K) with its 95 % interval.

    ``balanced``: also the mean recall of the classes; ``calibrated``: the expected calibration error of probabilities.
    """
    predicted = probabilities.argmax(axis=1)
    row = intervals.accuracy(predicted, labels)
    if calibrated:
        row["calibration_error"] = intervals.calibration_error(probabilities, labels)
    if balanced:
        mean = intervals.balanced_accuracy(predicted, labels)
        row |= {"balanced_accuracy": mean["accuracy"], "balanced_interval_95": mean["interval_95"]}
    return row


def with_drops(
    rows: Sequence[Mapping[str, Any]],
    probabilities: Mapping[str, Probabilities],
    labels: NDArray[np.int64],
    floats: Mapping[str, Probabilities],
) -> list[dict[str, Any]]:
    """Add to the rows of other files how far they fall below the best of ``floats``, (N, K) each, with its interval."""
    right = {name: np.asarray(p).argmax(axis=1) == labels for name, p in {**probabilities, **floats}.items()}
    best = max(floats, key=lambda name: float(right[name].mean()))
    return [dict(row) | ({} if row["file"] in floats else _drop(best, right[best], right[row["file"]])) for row in rows]


def _drop(file: str, before: NDArray[np.bool_], after: NDArray[np.bool_]) -> dict[str, Any]:
    only, only_other = int(np.sum(before & ~after)), int(np.sum(after & ~before))
    return {"against": file, "accuracy_drop": (only - only_other) / len(before),
            "accuracy_drop_interval_95": list(intervals.paired_difference(only, only_other, len(before)))}  # fmt: skip


def check_drop(rows: Sequence[Mapping[str, Any]], artifacts: Sequence[Artifact], gates: Verify) -> None:
    """Hold the drop of each file against the gate of its precision; rows of float32 files have none.

    Raises:
        GateError: accuracy drops by more than its gate.
    """
    by_file = {row["file"]: row for row in rows}
    for artifact in artifacts:
        row, limit = by_file[artifact.path.name], gates.of(artifact.precision, "max_accuracy_drop")
        drop = row.get("accuracy_drop", 0.0)
        if limit is not None and drop > limit + 1e-9:
            low, high = row["interval_95"]
            least, most = row["accuracy_drop_interval_95"]
            raise GateError(
                f"{row['file']}: {NAMES[row['split']]} {row['accuracy']:.2%} [{low:.2%}, {high:.2%}] is"
                f" {100 * drop:.2f} [{100 * least:.2f}, {100 * most:.2f}] points below float32 ({row['against']}); at"
                f" most {100 * limit:g} are allowed. Raise verify.{artifact.precision}_max_accuracy_drop (in Python: of"
                " gates), or export float32 only. Nothing was written."
            )


def baselines(train: Arrays, test: Arrays, num_classes: int) -> list[dict[str, Any]]:
    """Fit the majority class and logistic regression on the inputs; score both on test."""
    majority = int(np.bincount(train[1], minlength=num_classes).argmax())
    rows = [("majority class", np.full(len(test[1]), majority)), ("logistic regression on the inputs", None)]
    out = []
    for name, predicted in rows:
        values = _logistic(train, test[0]) if predicted is None else predicted
        scored = intervals.accuracy(values, test[1])
        out.append({"name": name, "test_accuracy": scored["accuracy"], "interval_95": scored["interval_95"],
                    "samples": scored["samples"]})  # fmt: skip
    return out


def _logistic(train: Arrays, x_test: NDArray[Any]) -> NDArray[Any]:
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = train[0][:LOGISTIC_SAMPLES], train[1][:LOGISTIC_SAMPLES]
    sides = 2 if x.ndim == 4 else 1  # of an image both are thinned out, of a window the steps
    step = int(np.ceil(max(1.0, np.prod(x.shape[1:]) / LOGISTIC_FEATURES) ** (1 / sides)))
    thinned = (slice(None), *[slice(None, None, step)] * sides)

    def flat(values: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(values[thinned], "float32").reshape(len(values), -1)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # bounded on purpose
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200, C=0.1)).fit(flat(x), y)
    return np.asarray(model.predict(flat(x_test)))


def confusion(
    probabilities: Probabilities, labels: NDArray[np.int64], names: Sequence[str], file: str
) -> dict[str, Any]:
    """Return the confusion matrix, rows the truth."""
    matrix = np.zeros((len(names), len(names)), int)
    np.add.at(matrix, (labels, probabilities.argmax(axis=1)), 1)
    return {"file": file, "labels": list(names), "matrix": matrix.tolist()}


def worst(
    probabilities: Probabilities, test: Arrays, names: Sequence[str], value_range: tuple[float, float]
) -> list[dict[str, Any]]:
    """Return the mistakes of which the network is most certain, with the image, the lines of a window or the values."""
    x, y = test
    predicted = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predicted != y)
    order = wrong[np.argsort(-probabilities[wrong, predicted[wrong]], kind="stable")][:WORST]
    return [
        {
            "label": names[y[i]],
            "predicted": names[predicted[i]],
            "confidence": float(probabilities[i, predicted[i]]),
            **_shown(x, i, value_range),
        }
        for i in order
    ]


def _shown(x: NDArray[Any], index: int, value_range: tuple[float, float]) -> dict[str, Any]:
    if x.ndim == 4:
        return {"png_base64": _png(x[index], value_range)}
    if x.ndim == 3:
        return {"lines": _lines(x, index)}
    values = [float(f"{value:.4g}") for value in x[index].ravel()[:VALUES]]
    return {"vector": values, "left_out": max(0, x[index].size - VALUES)}


def _lines(x: NDArray[Any], index: int) -> list[list[float]]:
    """Return the first channels of a window as 0..1, which is the range of the channel over all windows (N, T, C)."""
    low, high = x.min(axis=(0, 1)), x.max(axis=(0, 1))
    every = -(-x.shape[1] // LINE_POINTS)
    scaled = (x[index, ::every] - low) / np.maximum(high - low, 1e-12)
    lines: list[list[float]] = np.round(scaled.T[:LINES].astype(float), 3).tolist()
    return lines


def _png(image: NDArray[Any], value_range: tuple[float, float]) -> str:
    from PIL import Image

    low, high = value_range
    shown = np.clip((np.asarray(image, "float32") - low) * (255.0 / max(high - low, 1e-12)), 0, 255).astype("uint8")
    picture = Image.fromarray(shown[..., 0] if shown.shape[-1] == 1 else shown[..., :3])
    factor = max(1, 48 // max(picture.size))
    picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    picture.thumbnail((96, 96))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()
