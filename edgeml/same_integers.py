"""An integer file in two runtimes that should compute the same integers: microcontrollers and reference kernels."""

from __future__ import annotations

import numpy as np

from edgeml import intervals, recipe
from edgeml.parity import VALUES, Float, Parity, measure
from edgeml.runtimes import Arrays, Loaded

CHANCE = 0.025  # of so many other decisions, if files were as alike as is due


def compare_integers(
    reference: Loaded, other: Loaded, inputs: Arrays, gates: recipe.Verify, *, file: str, inputs_name: str
) -> Parity:
    """Run an integer file in two runtimes: of how many rows all outputs are equal to the bit, and the decisions.

    Decisions fail where so many others come by chance in fewer than one of forty cases; rows whose two largest are
    within two steps have none. A share of equal rows that is too low is a warning: roundings.
    """
    expected, got = reference.predict(inputs), other.predict(inputs)
    pairs = [(np.asarray(want, np.float64), np.asarray(got[name], np.float64)) for name, want in expected.items()]
    same = np.all([(a == b).reshape(len(a), -1).all(axis=1) for a, b in pairs], axis=0)
    equal, (first, second) = float(same.mean()), pairs[0]
    step = other.signature.outputs[0].scale or 0.0
    agreement, decided = _decisions(first, second, 2.5 * step)
    seen = measure(first, second, VALUES)
    least, alike = gates.tflm_min_equal_rows, gates.tflm_min_top1
    is_apart = intervals.tail(round((1 - agreement) * decided), decided, 1 - alike) < CHANCE
    failures = (f"equal decisions {agreement:.4f} < {alike:g}",) if is_apart else ()
    apart = f", at most {seen.max_abs / step:.0f} steps apart" if step else ""
    warnings = (f"equal rows {equal:.4f} < {least:g}{apart}",) if equal < least else ()
    return Parity(file, f"{reference.runtime}, reference kernels", "same integers", inputs_name, len(same), "tflm",
                  "share of equal rows, at least", equal, least, seen.max_abs, seen.range_error,
                  agreement, seen.sqnr_db, seen.cosine, not failures, failures, warnings)  # fmt: skip


def _decisions(first: Float, second: Float, tie: float) -> tuple[float, int]:
    """Return the share of rows with the same largest element, and of how many: those whose two largest lie apart."""
    if first.ndim < 2 or first.shape[-1] < 2:
        return 1.0, 0
    ordered = np.sort(first, axis=-1)
    clear = ordered[..., -1] - ordered[..., -2] > tie
    same = (first.argmax(axis=-1) == second.argmax(axis=-1))[clear]
    return (float(same.mean()), same.size) if same.size else (1.0, 0)
