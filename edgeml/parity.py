"""Parity of two models: names, then shapes, then types, then values, then decisions; every failure with its figures.

The reference is Keras. For float files, logits are compared where the graph ends in a softmax: its inverse is log(p) up
to a constant, so log-probabilities, centred per row, differ as the logits do. Their largest difference is judged as a
share of the logits' range (element-wise relative error explodes near zero, softmax hides errors). Outputs that are no
probabilities are compared as they are, by the same measure. Where the output is an arithmetic mean of softmaxes there
are no logits: probabilities are compared. Files with weights as halves are judged likewise, by a limit of their own;
files with weights or activations as integers by signal-to-quantization-noise ratio and cosine similarity.

Outputs of a sigmoid are compared as values, too: runtimes compute it to a constant absolute error (onnxruntime 1.32 to
1.5e-7), of which logits make 2e-3 at z = -10 as at z = 10, so that right files would fail. Near p = 0.5, where it
decides, p moves by a quarter of what z does, and a share of its range of one is stricter than one of logits of ±5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml import recipe
from edgeml.runtimes import Arrays, Loaded, Signature

Float = NDArray[np.float64]
SOFTMAX, MIXTURE, VALUES = "softmax", "mixture", "values"  # what a graph ends in: softmax, a mean of them, else
LAYER = "layer"  # what is made on the way
NO_GATE = "none"
SIGNATURE = "signature"  # what is judged where nothing was run
FLOATS = ("float32", "float16")  # compute in real numbers with weights as they are, or rounded
LEAST_RANGE = 0.05  # of logits, or of the largest value: a smaller range is within a few roundings of float32
MOST_DB = 200.0  # of equal outputs; float32 itself carries 144 dB
LEAST_ROWS = 8  # that a mean is taken off
CONSTANT = 1e-3  # of the largest value: outputs that vary by less say nothing of what an input is
LOGIT_FLOOR = 1e-12  # probabilities below it carry no logit: float32 softmax underflows there
WHOLE = 1e-3  # that the weights of a mean are at most away from a sum of one


@dataclass(frozen=True)
class Parity:
    """One comparison: what was compared on which inputs, the figure that is judged, its limit, and what else was seen.

    ``error`` and ``limit`` are in the unit that ``measure`` names. ``top1_agreement`` counts rows outside ties.
    ``configuration`` says how the file was run. ``gate`` is the precision whose gates judge it, or ``none``: figures
    are stated then, and only numbers that are none fail.
    """

    file: str
    reference: str
    what: str
    inputs: str
    samples: int
    gate: str
    measure: str
    error: float
    limit: float
    max_abs: float
    range_error: float
    top1_agreement: float
    sqnr_db: float | None
    cosine: float | None
    passed: bool
    failures: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    configuration: str = ""


def mismatches(reference: Signature, other: Signature) -> list[str]:
    """Compare names, shapes (a fixed batch is allowed) and kinds of types; return one line per difference."""
    found = []
    for side in ("inputs", "outputs"):
        expected, got = getattr(reference, side), getattr(other, side)
        names = [tensor.name for tensor in expected], [tensor.name for tensor in got]
        if names[0] != names[1]:
            found.append(f"{side}: named {names[1]}; {names[0]} in the reference")
            continue
        for want, have in zip(expected, got, strict=True):
            if want.shape[1:] != have.shape[1:]:
                found.append(f"{side} '{want.name}': shape {have.shape}; {want.shape} in the reference")
            if have.scale is None and want.dtype != have.dtype:
                found.append(f"{side} '{want.name}': type {have.dtype}; {want.dtype} in the reference")
    return found


def compare(
    reference: Loaded,
    other: Loaded,
    inputs: Arrays,
    gates: recipe.Verify,
    *,
    file: str,
    what: str,
    inputs_name: str,
    precision: str,
    kinds: Sequence[str],
    is_judged: bool = True,
) -> Parity:
    """Run both models on ``inputs`` and judge the second model's outputs against the first's, all outputs together.

    Where ``is_judged`` is False, figures are stated and only numbers that are none fail.
    """
    broken = mismatches(reference.signature, other.signature)
    samples = len(next(iter(inputs.values())))
    if broken:
        nan = float("nan")
        return Parity(file, reference.runtime, what, inputs_name, samples, precision, SIGNATURE, nan, nan, nan, nan,
                      nan, None, None, False, tuple(broken))  # fmt: skip
    expected, got = reference.predict(inputs), other.predict(inputs)
    names = [tensor.name for tensor in reference.signature.outputs]
    pairs = [(np.asarray(expected[name], np.float64), np.asarray(got[name], np.float64)) for name in names]
    row = _judged(pairs, gates, file, reference.runtime, what, inputs_name, precision, kinds)
    return row if is_judged else _stated(row)


def compare_ranges(
    reference: Loaded, other: Loaded, inputs: Arrays, gates: recipe.Verify, *, file: str, inputs_name: str
) -> Parity:
    """Run a file and a program made of it: the largest difference, as a share of the range of the file's outputs."""
    expected, got = reference.predict(inputs), other.predict(inputs)
    seen = [
        measure(np.asarray(want, np.float64), np.asarray(got[name], np.float64), VALUES)
        for name, want in expected.items()
    ]
    worst, limit = max(seen, key=lambda one: one.range_error), gates.program_max_range_error
    is_broken = not worst.range_error <= limit
    failures = (f"share of the output range {worst.range_error:.1e} > {limit:g}",) if is_broken else ()
    return Parity(file, reference.runtime, "program = file", inputs_name, len(next(iter(inputs.values()))), "program",
                  "share of the output range", worst.range_error, limit, worst.max_abs, worst.range_error,
                  worst.top1_agreement, worst.sqnr_db, worst.cosine, not failures, failures)  # fmt: skip


def _stated(row: Parity) -> Parity:
    """Return a row without a gate: it fails only where numbers are none."""
    failures = () if np.isfinite(row.max_abs) else ("numbers that are none",)
    return replace(row, gate=NO_GATE, passed=not failures, failures=failures, warnings=())


def _judged(
    pairs: Sequence[tuple[Float, Float]],
    gates: recipe.Verify,
    file: str,
    reference: str,
    what: str,
    inputs_name: str,
    precision: str,
    kinds: Sequence[str],
) -> Parity:
    by_range = MIXTURE not in kinds  # such a graph is an ensemble, and has one output
    limit = float_limit(gates, precision, by_range=by_range)
    tie = 2 * limit
    measured = [measure(want, have, kind, tie) for (want, have), kind in zip(pairs, kinds, strict=True)]
    worst = max(measured, key=lambda m: m.max_abs)
    sqnr, cosine = min(m.sqnr_db for m in measured), min(m.cosine for m in measured)
    range_error, agreement = max(m.range_error for m in measured), min(m.top1_agreement for m in measured)
    if precision in FLOATS:
        error = range_error if by_range else worst.max_abs
        name = "share of the output range" if by_range else "largest difference"
        checks = [(f"{name} {error:.2e} > {limit:.0e}", not error <= limit),
                  (f"top-1 agreement {agreement:.4f} < 1 outside ties", agreement < 1.0)]  # fmt: skip
    else:
        error, name = sqnr, "SQNR in dB, at least"
        limit, least = gates.of(precision, "min_sqnr_db") or 0.0, gates.of(precision, "min_cosine") or 0.0
        checks = [(f"SQNR {sqnr:.1f} dB < {limit:g} dB", not sqnr >= limit),
                  (f"cosine {cosine:.4f} < {least:g}", cosine < least)]  # fmt: skip
    failures = tuple(text for text, is_broken in checks if is_broken)
    usual = gates.of(precision, "warn_sqnr_db")
    is_low = usual is not None and sqnr < usual and not failures
    warnings = (f"SQNR {sqnr:.1f} dB < {usual:g} dB; look at its accuracy",) if is_low else ()
    samples = len(pairs[0][0])
    return Parity(file, reference, what, inputs_name, samples, precision, name, error, limit, worst.max_abs,
                  range_error, agreement, sqnr, cosine, not failures, failures, warnings)  # fmt: skip


def float_limit(gates: recipe.Verify, precision: str, *, by_range: bool) -> float:
    """Return what logits or probabilities of a float file may differ by; 0 for others, which are judged otherwise."""
    if precision == "float16":
        return gates.float16_max_range_error
    limit = gates.float32_max_range_error if by_range else gates.float32_max_probability_error
    return limit if precision == "float32" else 0.0


@dataclass(frozen=True)
class Difference:
    """How far two arrays of outputs are apart."""

    max_abs: float
    range_error: float
    top1_agreement: float
    sqnr_db: float
    cosine: float


def measure(expected: Float, got: Float, kind: str, tie: float = 0.0) -> Difference:
    """Measure the distance of ``got`` from ``expected``, both (N, …); NaN anywhere counts as infinite.

    ``tie``: rows whose two largest elements are at most so far apart have no decision to agree with; a share of the
    range, of probabilities for ``mixture``.
    """
    expected, got = (values.reshape(len(values), -1) for values in (expected, got))
    if not (np.all(np.isfinite(got)) and np.all(np.isfinite(expected))):
        return Difference(np.inf, np.inf, 0.0, -np.inf, 0.0)
    difference = np.abs(expected - got)
    a, b = (_logits(expected), _logits(got)) if kind == SOFTMAX else (expected, got)
    least = LEAST_RANGE * (1.0 if kind == SOFTMAX else float(np.abs(a).max()))
    spread = max(float(np.ptp(a)), least) or 1.0
    shared = (expected > LOGIT_FLOOR) & (got > LOGIT_FLOOR) if kind == SOFTMAX else np.ones_like(expected, bool)
    range_error = float(np.max(np.abs(a - b), where=shared, initial=0.0)) / spread
    told, heard = (values - _constant(expected, kind) for values in (expected, got))
    signal, noise = float(np.sum(told**2)), float(np.sum(difference**2))
    sqnr = MOST_DB if noise == 0 else 10 * np.log10(signal / noise) if signal else -np.inf
    norms = float(np.linalg.norm(told) * np.linalg.norm(heard))
    cosine = float(np.sum(told * heard)) / norms if norms else 1.0
    agreement = top1_agreement(a, b, tie * (spread if kind != MIXTURE else 1.0))
    return Difference(float(difference.max()), range_error, agreement, float(min(sqnr, MOST_DB)), cosine)


def _constant(expected: Float, kind: str) -> Float | float:
    """Return what outputs that are no probabilities say of every row, which is no signal: 300 of 300 ± 2."""
    mean = expected.mean(axis=0)
    varies = float(np.abs(expected - mean).max(initial=0.0)) > CONSTANT * float(np.abs(expected).max(initial=0.0))
    return mean if kind == VALUES and len(expected) >= LEAST_ROWS and varies else 0.0


def own_rounding(
    model: Loaded, inputs: Arrays, outputs: Arrays, kinds: Sequence[str] | None = None
) -> dict[str, Float]:
    """Return how far each row of each of its ``outputs`` moves, (N,), when real inputs move by one rounding.

    That is one of the largest value that each element takes: columns of a table may differ by powers of ten. With
    ``kinds``, the logits of those that are a softmax. A network that amplifies it beyond a limit is not carried by
    float32 on that row: no file can be held to the limit.
    """
    moved = {name: x + np.spacing(np.abs(x).max(axis=0)) if x.dtype.kind == "f" else x for name, x in inputs.items()}
    after = model.predict(moved)
    found = {}
    for (name, values), kind in zip(outputs.items(), kinds or [VALUES] * len(outputs), strict=True):
        one, other = (as_compared(array.astype(np.float64), kind) for array in (after[name], values))
        found[name] = np.abs(one - other).reshape(len(values), -1).max(axis=1)
    return found


def as_compared(outputs: Float, kind: str) -> Float:
    """Return what is compared of outputs (N, …): the logits of a softmax, (N, K), centred; else they themselves."""
    return _logits(outputs.reshape(len(outputs), -1)) if kind == SOFTMAX else outputs


def _logits(probabilities: Float) -> Float:
    logits = np.log(np.maximum(probabilities, LOGIT_FLOOR))
    return np.asarray(logits - logits.mean(axis=1, keepdims=True))


def top1_agreement(expected: Float, got: Float, tie: float) -> float:
    """Return the share of rows with the same largest element, rows left out whose two largest are within ``tie``.

    ``tie`` is what is allowed (twice the limit: either order is then within it), never what was measured: two rows that
    disagree are always nearer to a tie than twice their own difference.
    """
    if expected.shape[1] < 2:
        return 1.0
    second, first = np.sort(expected, axis=1)[:, -2:].T
    clear = first - second > tie
    same = expected.argmax(axis=1) == got.argmax(axis=1)
    return float(same[clear].mean()) if clear.any() else 1.0


def output_kinds(model: Any) -> list[str]:
    """Tell what each output of a Keras model is: ``softmax``, ``mixture`` or ``values``.

    A mixture is the only output of its graph and a weighted mean of softmaxes, as a compiled ensemble ends in.
    """
    other = MIXTURE if len(model.outputs) == 1 and abs(_mass(model.outputs[0]) - 1.0) <= WHOLE else VALUES
    return [SOFTMAX if _is_softmax(_maker(tensor)[0]) else other for tensor in model.outputs]


def _mass(tensor: Any) -> float:
    """Return what each row sums to where softmaxes are scaled and added up; NaN where something else is done."""
    operation, fed = _maker(tensor)
    if _is_softmax(operation):
        return 1.0
    kind = type(operation).__name__
    if kind == "Add" and len(fed) > 1:
        return sum(map(_mass, fed))
    scale = np.ravel(operation.scale if kind == "Rescaling" and not np.any(operation.offset) else [])
    return float(scale[0]) * _mass(fed[0]) if len(scale) == 1 and scale[0] > 0 else float("nan")


def _maker(tensor: Any) -> tuple[Any, list[Any]]:
    """Return the operation that makes a tensor, within models and before what changes nothing, and what it is fed."""
    operation, node, place = tensor._keras_history
    if hasattr(operation, "outputs"):  # a nested model
        return _maker(operation.outputs[place])
    fed = list(operation._inbound_nodes[node].input_tensors)
    return _maker(fed[0]) if type(operation).__name__ == "Identity" else (operation, fed)


def _is_softmax(operation: Any) -> bool:
    activation = getattr(getattr(operation, "activation", None), "__name__", "")
    return type(operation).__name__ == "Softmax" or activation == "softmax"
