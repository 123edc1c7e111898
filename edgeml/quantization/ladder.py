"""The ladder of quantization: climbed only as far as needed, each step a file that is written, opened and measured.

    ptq → equalization → bias_correction → qat → float_layers

    ptq               ranges from calibration samples, one scale per output channel of a kernel
    equalization      scales moved between layers; the float model computes the same bits (``folding.equalization``)
    bias_correction   what rounding the weights adds on average is taken off the biases
    qat               the weights are trained on under quantization noise; needs training data
    float_layers      the layers that cost most stay in float, by name

A step starts from the best so far, and is kept only if its file is better: within the limits, more accurate, then less
noise; one that LiteRT cannot open never is, and layers are not left in float for less noise alone. It ends where
accuracy is at most ``max_accuracy_drop`` below the float model's on the same samples, and the file is within the gates
of parity. Test is never looked at.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml import parity
from edgeml.errors import DataError, TargetError
from edgeml.precisions import NATIVE
from edgeml.recipe import Quantize, Verify
from edgeml.records import Event
from edgeml.runtimes import Arrays, open_model
from edgeml.runtimes.keras import Reference
from edgeml.targets import Quantization, tflite

ROUNDING = 1e-9  # of a difference of two shares
OnEvent = Callable[[Event], None]
Tuned = Callable[[Any], tuple[Any, str]]  # a folded model in; one that was trained on, and what was done


@dataclass(frozen=True, eq=False)
class Exam:
    """What a file is held against: samples by input, the labels of them or None, and what the float model says."""

    inputs: Arrays
    labels: NDArray[np.int64] | None
    expected: Mapping[str, NDArray[np.float32]]
    kinds: tuple[str, ...]

    @property
    def accuracy(self) -> float | None:
        """The float model's."""
        return self.accuracy_of(self.expected)

    @property
    def samples(self) -> int:
        """How many there are."""
        return len(next(iter(self.inputs.values())))

    def accuracy_of(self, outputs: Mapping[str, NDArray[np.float32]]) -> float | None:
        """Return the share of the labels that the first output has right."""
        if self.labels is None:
            return None
        return float(np.mean(next(iter(outputs.values())).argmax(axis=1) == self.labels))


@dataclass(frozen=True)
class Rung:
    """One step: what was done, what its file gave on ``samples``, and whether it was kept.

    ``accuracy_drop``: below the float model, a share; None without labels. All figures are None of a file that LiteRT
    cannot open.
    """

    name: str
    what: str
    accuracy: float | None
    accuracy_drop: float | None
    sqnr_db: float | None
    cosine: float | None
    samples: int
    is_within: bool
    is_kept: bool
    seconds: float


@dataclass(frozen=True, eq=False)
class Climb:
    """The model that is quantized best, its layers that stay in float, how it came to that, and its TFLite file.

    ``outputs``: what the file says of the samples that files were held against. ``content``: the file itself.
    """

    model: Any
    float_layers: tuple[str, ...]
    rungs: tuple[Rung, ...]
    outputs: Mapping[str, NDArray[np.float32]]
    content: bytes
    quantization: Quantization
    target: str = "tflite"  # whose file ``content`` is

    @property
    def is_within(self) -> bool:
        """Tell whether the last step that was kept is within the limits."""
        return [rung for rung in self.rungs if rung.is_kept][-1].is_within


def exam(model: Any, inputs: Arrays, labels: NDArray[np.int64] | None) -> Exam:
    """Ask a folded float model about samples."""
    return Exam(inputs, labels, Reference(model).predict(inputs), tuple(parity.output_kinds(model)))


@dataclass(frozen=True, eq=False)
class _State:
    model: Any
    float_layers: tuple[str, ...] = ()


def climb(
    model: Any,
    precision: str,
    calibration: Arrays,
    held: Exam,
    config: Quantize,
    gates: Verify,
    tune: Tuned | None = None,
    on_event: OnEvent = lambda event: None,
    *,
    batch: int | None = None,
    io: str = NATIVE,
) -> Climb:
    """Quantize a folded model to ``precision``, by as many steps as are needed.

    Args:
        model: folded Keras model.
        precision: ``int8``, ``int16x8`` or ``dynamic``.
        calibration: samples (N, …) by input.
        held: what each file is judged by.
        config: the limit and the steps.
        gates: parity gates.
        tune: trains a folded model under quantization noise; without it that step is left out.
        on_event: called after each step.
        batch: that of the files, None for 1.
        io: what enters and leaves them, see ``edgeml.precisions``.

    Raises:
        TargetError: an operator has no kernel for it, or LiteRT opens none of the files.
    """
    with tempfile.TemporaryDirectory(prefix="edgeml-ladder-") as folder:
        judge = _Judge(Path(folder) / "model.tflite", precision, calibration, held, config, gates, batch, io)
        best, rungs, content = _State(model), list[Rung](), b""
        kept: Rung | None = None
        outputs: Mapping[str, NDArray[np.float32]] = {}
        for name in ("ptq", *(step for step in ORDER if step in config.steps)):
            if kept is not None and kept.is_within:
                break
            start = time.monotonic()
            made = _STEPS[name](best, judge, tune)
            if made is None:
                continue
            state, what = made
            rung, said = judge.rung(name, what, state, kept, start)
            rungs.append(rung)
            if rung.is_kept:
                best, kept, outputs, content = state, rung, said, judge.path.read_bytes()
            on_event(Event("quantize", line(precision, rung)))
    if kept is None:
        raise TargetError(f"tflite {precision}: {rungs[-1].what}. Export float32, or scale the inputs to a like range.")
    method = " + ".join(rung.name for rung in rungs if rung.is_kept or rung is rungs[0])
    done = replace(tflite.METHODS[precision], method=method)
    return Climb(best.model, best.float_layers, tuple(rungs), outputs, content, done)


@dataclass(frozen=True, eq=False)
class _Judge:
    path: Path
    precision: str
    calibration: Arrays
    held: Exam
    config: Quantize
    gates: Verify
    batch: int | None
    io: str

    def rung(
        self, name: str, what: str, state: _State, before: Rung | None, start: float
    ) -> tuple[Rung, Mapping[str, NDArray[np.float32]]]:
        """Write the file of a state and measure it; it is kept if it is better than ``before``, the last that was."""
        tflite.export(state.model, self.precision, self.path, {}, self.calibration, self.batch, self.io,
                      float_layers=state.float_layers)  # fmt: skip
        try:
            outputs = open_model(self.path).predict(self.held.inputs)
        except DataError as error:
            why = "; ".join(filter(None, [what, str(error).removeprefix(f"{self.path}: ").rstrip(".")]))
            taken = time.monotonic() - start
            return Rung(name, why, None, None, None, None, self.held.samples, False, False, taken), {}
        seen = self._seen(outputs)
        counted = 2 if state.float_layers else 3
        is_better = before is None or _merit(seen)[:counted] > _merit(before)[:counted]
        return replace(seen, name=name, what=what, is_kept=is_better, seconds=time.monotonic() - start), outputs

    def is_enough(self, outputs: Arrays) -> bool:
        """Tell whether a file with these outputs is within all limits."""
        return self._seen(outputs).is_within

    def _seen(self, outputs: Arrays) -> Rung:
        noise, cosine = self._distance(outputs)
        accuracy, own = self.held.accuracy_of(outputs), self.held.accuracy
        drop = None if accuracy is None or own is None else own - accuracy
        limits = (self.gates.of(self.precision, gate) or 0.0 for gate in ("min_sqnr_db", "min_cosine"))
        is_like = all(value >= limit for value, limit in zip((noise, cosine), limits, strict=True))
        is_as_good = drop is None or drop <= self.config.max_accuracy_drop + ROUNDING
        return Rung("", "", accuracy, drop, noise, cosine, self.held.samples, is_like and is_as_good, True, 0.0)

    def _distance(self, outputs: Arrays) -> tuple[float, float]:
        """Return SQNR in dB and cosine of a file's outputs and the float model's, the worst of all outputs."""
        pairs = [(want.astype(np.float64), np.asarray(outputs[name], np.float64))
                 for name, want in self.held.expected.items()]  # fmt: skip
        seen = [parity.measure(*pair, kind) for pair, kind in zip(pairs, self.held.kinds, strict=True)]
        return min(one.sqnr_db for one in seen), min(one.cosine for one in seen)


def _merit(rung: Rung) -> tuple[bool, float, float]:
    return rung.is_within, rung.accuracy or 0.0, -np.inf if rung.sqnr_db is None else rung.sqnr_db


def _as_it_is(best: _State, judge: _Judge, tune: Tuned | None) -> tuple[_State, str]:
    del judge, tune
    return best, ""


def _equalized(best: _State, judge: _Judge, tune: Tuned | None) -> tuple[_State, str] | None:
    from edgeml.folding.equalization import equalize

    del judge, tune
    after = equalize(best.model)
    return (_State(after.model), f"{len(after.pairs)} pairs of layers") if after.pairs else None


def _corrected(best: _State, judge: _Judge, tune: Tuned | None) -> tuple[_State, str] | None:
    from edgeml.quantization.bias_correction import correct_biases

    del tune
    if not judge.calibration:
        return None
    model, names = correct_biases(best.model, judge.calibration)
    return (_State(model), f"{len(names)} layers") if names else None


def _tuned(best: _State, judge: _Judge, tune: Tuned | None) -> tuple[_State, str] | None:
    if tune is None or judge.precision != "int8":
        return None
    model, what = tune(best.model)
    return _State(model), what


def _with_floats(best: _State, judge: _Judge, tune: Tuned | None) -> tuple[_State, str] | None:
    from edgeml.quantization import float_layers

    del tune
    if judge.precision != "int8":
        return None
    held = judge.held
    names = float_layers.choose(best.model, judge.calibration, held.inputs, held.expected, judge.is_enough, judge.batch)
    return (_State(best.model, names), ", ".join(names)) if names else None


_STEPS: Mapping[str, Callable[[_State, _Judge, Tuned | None], tuple[_State, str] | None]] = {
    "ptq": _as_it_is,
    "equalization": _equalized,
    "bias_correction": _corrected,
    "qat": _tuned,
    "float_layers": _with_floats,
}
ORDER: Sequence[str] = tuple(_STEPS)[1:]


def line(precision: str, rung: Rung) -> str:
    """Say what a step gave: ``int8 ptq: 98.88% of 90, 0.56 points below float, 28.4 dB``."""
    accuracy = ""
    if rung.accuracy is not None and rung.accuracy_drop is not None:
        side = "above" if rung.accuracy_drop < 0 else "below"
        accuracy = f"{rung.accuracy:.2%} of {rung.samples}, {100 * abs(rung.accuracy_drop):.2f} points {side} float, "
    noise = "no file" if rung.sqnr_db is None else f"{rung.sqnr_db:.1f} dB"
    kept = "" if rung.is_kept else ", not kept"
    return f"{precision} {rung.name}{f' ({rung.what})' if rung.what else ''}: {accuracy}{noise}{kept}"
