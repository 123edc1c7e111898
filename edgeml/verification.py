"""Every staged file is proven against the Keras reference: each in every configuration that its runtimes have.

    members averaged = trained Keras = folded Keras = each TFLite file = each ONNX file

A file is run on all real inputs in its default configuration, on some of them in the others (``configurations``); in
each of them on inputs that no data set holds (``probes``), too. Of those, float files are judged where
float32 carries the model itself; of integer files, which saturate there by design, the figures are stated. Where
float32 itself rounds a mean of probabilities by more than its gate, files are held to that, and a warning says so.
Where a pair fails, the layer is named at which it parts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgeml import configurations, divergence, ensemble, parity, probes, recipe, same_integers
from edgeml.configurations import InBatches, Remembering
from edgeml.errors import DataError, ParityError
from edgeml.exporting import Artifact, OnEvent
from edgeml.keras_operators import keras_operators
from edgeml.parity import FLOATS, Parity
from edgeml.records import Event
from edgeml.runtimes import Arrays, Loaded, open_model
from edgeml.runtimes.keras import Reference

PROBES, FEWEST_PROBES = 64, 8  # inputs that no data set holds
PROBED = 1 / 8  # of them, on probes
STEADY = 0.05  # of a limit, that one rounding of a probe may move the reference by; files are within four times
OWN_ROUNDINGS, MOST_CARRIED = 4, 10  # of a mean of softmaxes: float32 files reach 3; at most so many times the gate
MEAN = "members = ensemble"
SHOWN = 3  # failures of one file


@dataclass(frozen=True)
class Members:
    """Keras models of one input and one output, how much each weighs, and by which mean they are averaged."""

    models: Sequence[Any]
    weights: Sequence[float]
    mean: str


def prove(
    folded: Any,
    original: Any,
    artifacts: Sequence[Artifact],
    samples: Arrays,
    name: str,
    gates: recipe.Verify,
    on_event: OnEvent = lambda event: None,
    members: Members | None = None,
) -> list[Parity]:
    """Compare trained = folded, and folded = each file in each configuration, on ``samples`` (called ``name``).

    Args:
        folded: Keras model that the files were made from.
        original: as it was trained.
        artifacts: the files.
        samples: real inputs by name, (N, …) each.
        name: what they are called in rows and errors.
        gates: limits.
        on_event: told of warnings.
        members: of an ensemble, what its graph was compiled from.

    Returns:
        A row per comparison; the first of a file is that of its default configuration on all samples.

    Raises:
        ParityError: something differs; the message gathers failures with figures and limits, and names the layer at
            which each file parts from Keras.
    """
    proof = _Proof(folded, original, samples, name, gates)
    rows = [*proof.of_members(members), *proof.of_folding()]
    for artifact in artifacts:
        rows += proof.of_file(artifact)
    for warning in dict.fromkeys([*(f"{row.file}: {text}" for row in rows for text in row.warnings), *proof.notes]):
        on_event(Event("verify", f"warning: {warning}"))
    if not all(row.passed for row in rows):
        raise ParityError(f"parity on {name}: {proof.failures(rows, artifacts)}")
    return rows


class _Proof:
    """The Keras models and what they make of the inputs that everything is compared on."""

    def __init__(self, folded: Any, original: Any, samples: Arrays, name: str, gates: recipe.Verify) -> None:
        self.folded, self.original = folded, original
        self.notes: list[str] = []
        self.kinds = parity.output_kinds(folded)
        self.reference = Remembering(Reference(folded))
        self.all = samples, name
        self.gates = self._carried(gates)
        count, macs = len(next(iter(samples.values()))), sum(one.macs for one in keras_operators(folded, strict=False))
        most = configurations.MOST_MACS / max(macs, 1)
        part = configurations.some_of(samples, macs)
        some = len(next(iter(part.values())))
        self.some = part, f"{some} of {name}" if some < count else name
        self.probes = self._steady(_probes(samples, min(PROBES, max(FEWEST_PROBES, int(PROBED * most)))))

    def _carried(self, gates: recipe.Verify) -> recipe.Verify:
        """Return the gates, that of probabilities raised to a few of the model's own roundings on real inputs."""
        if parity.MIXTURE not in self.kinds:
            return gates
        inputs = self.all[0]
        (moved,) = parity.own_rounding(self.reference, inputs, self.reference.predict(inputs)).values()
        asked, own = gates.float32_max_probability_error, float(moved.max())
        limit = min(OWN_ROUNDINGS * own, MOST_CARRIED * asked)
        if limit <= asked:
            return gates
        self.notes.append(
            f"one rounding of the inputs moves the ensemble's probabilities by {own:.1e}: float32 files are held to"
            f" {limit:.1e}, not to {asked:g}"
        )
        return replace(gates, float32_max_probability_error=limit)

    def _steady(self, inputs: Arrays) -> Arrays:
        """Return the probes of which one rounding does not move the reference by a good part of the limit."""
        outputs = self.reference.predict(inputs)
        moved = parity.own_rounding(self.reference, inputs, outputs, self.kinds)
        keep = np.ones(len(next(iter(inputs.values()))), bool)
        for (key, values), kind in zip(outputs.items(), self.kinds, strict=True):
            if kind == parity.MIXTURE:
                keep &= moved[key] * OWN_ROUNDINGS <= self.gates.float32_max_probability_error
                continue
            spread = np.ptp(parity.as_compared(values.astype(np.float64), kind))
            keep &= moved[key] <= STEADY * self.gates.float32_max_range_error * (spread or 1.0)
        return {key: values[keep] for key, values in inputs.items()}

    def of_members(self, members: Members | None) -> Iterator[Parity]:
        """Compare the graph of an ensemble with the mean of its members."""
        if members is not None:
            graph, (inputs, name) = Reference(self.original), self.all
            yield self._row(_Mean(members, graph), graph, inputs, name, "model.keras", MEAN, "float32")

    def of_folding(self) -> Iterator[Parity]:
        """Compare the folded model with the trained one."""
        trained = Reference(self.original)
        for inputs, name, _ in self._sets(is_default=True):
            yield self._row(trained, self.reference, inputs, name, "model.keras", "trained = folded", "float32")

    def of_file(self, artifact: Artifact) -> Iterator[Parity]:
        """Compare a file in each configuration with the folded model."""
        path, precision = artifact.path, artifact.precision
        for configuration in configurations.of(path):
            opened = configuration.open(path)
            for inputs, name, is_real in self._sets(is_default=configuration.is_default):
                row = self._row(
                    self.reference, InBatches(opened, configuration.batch), inputs, name, path.name, "file = folded",
                    precision, is_judged=is_real or precision in FLOATS,
                )  # fmt: skip
                warnings = row.warnings if configuration.is_default else ()  # once for a file
                yield replace(row, configuration=configuration.told(opened), warnings=warnings)
        if classes := configurations.overrun(path):
            self.notes.append(
                f"{path.name}: not run by LiteRT's reference kernels: their int8 softmax, as TensorFlow Lite Micro's,"
                f" ends the process where more than 255 of its {classes:,} classes are about equally likely"
            )
        elif configurations.runs_on_micro(artifact.target, precision):
            yield from self._of_micro(artifact)

    def _of_micro(self, artifact: Artifact) -> Iterator[Parity]:
        """Compare TensorFlow Lite Micro with LiteRT's reference kernels on the same file."""
        inputs, name = self.some
        kernels = configurations.LITERT_REFERENCE.open(artifact.path)
        try:
            opened = configurations.MICRO.open(artifact.path)
        except DataError as error:
            self.notes.append(str(error))
            return
        row = same_integers.compare_integers(
            kernels, opened, inputs, self.gates, file=artifact.path.name, inputs_name=name
        )
        yield replace(row, configuration=configurations.MICRO.told(opened))

    def _sets(self, *, is_default: bool) -> Iterator[tuple[Arrays, str, bool]]:
        """Yield inputs, what they are called, and whether they are real."""
        yield *(self.all if is_default else self.some), True
        if len(next(iter(self.probes.values()))):
            yield self.probes, "probes", False

    def _row(
        self,
        first: Loaded,
        second: Loaded,
        inputs: Arrays,
        name: str,
        file: str,
        what: str,
        precision: str,
        *,
        is_judged: bool = True,
    ) -> Parity:
        return parity.compare(
            first, second, inputs, self.gates, file=file, what=what, inputs_name=name, precision=precision,
            kinds=self.kinds, is_judged=is_judged,
        )  # fmt: skip

    def failures(self, rows: Sequence[Parity], artifacts: Sequence[Artifact]) -> str:
        """Say what failed, where each file parts from Keras, and whether float32 carries the model at all."""
        failed: dict[tuple[str, str], list[Parity]] = {}
        for row in rows:
            if not row.passed:
                failed.setdefault((row.file, row.what), []).append(row)
        by_name = {artifact.path.name: artifact for artifact in artifacts}
        parts = [
            f"{file} ({what}): {_gathered(found)}{self._parting(found[0], by_name.get(file))}"
            for (file, what), found in failed.items()
        ]
        return f"{' | '.join(parts)}. Nothing was written to the output folder.{self._hint()}"

    def _parting(self, row: Parity, artifact: Artifact | None) -> str:
        if row.measure == parity.SIGNATURE:
            return ""
        inputs = self.probes if row.inputs == "probes" else self.all[0]
        if row.what == MEAN:
            return ""
        if artifact is None:
            table = divergence.folding_table(
                self.original, self.folded, Reference(self.original), Reference(self.folded), inputs
            )
        else:
            table = divergence.table(
                self.folded, Reference(self.folded), artifact.path.name, open_model(artifact.path), inputs,
                artifact.precision, self.gates, artifact.layers,
            )  # fmt: skip
        first = divergence.first_diverging(table)
        return f"; first diverging {divergence.told(first)}" if first else ""

    def _hint(self) -> str:
        samples = self.all[0]
        outputs = self.reference.predict(samples)
        moved = parity.own_rounding(self.reference, samples, outputs)
        own = max(float(moved[name].max()) / (float(np.ptp(values)) or 1.0) for name, values in outputs.items())
        return (
            f" One rounding of the inputs changes the model's own outputs by {own:.0e} of their range: on these inputs"
            " float32 does not carry it; give --samples as it was trained on."
            if own > self.gates.float32_max_range_error else ""
        )  # fmt: skip


class _Mean(InBatches):
    """The members of an ensemble, each run by itself and averaged in float64, with the signature of its graph."""

    def __init__(self, members: Members, graph: Loaded) -> None:
        super().__init__(graph, configurations.BATCH)
        self._members, self._references = members, [Reference(model) for model in members.models]

    def predict(self, inputs: Arrays) -> dict[str, Any]:
        """Return the mean for all rows."""
        (x,), (output,) = inputs.values(), self.signature.outputs
        said = [one.predict({one.signature.inputs[0].name: x}) for one in self._references]
        probabilities = np.stack([next(iter(outputs.values())).astype(np.float64) for outputs in said])
        return {output.name: ensemble.blend(probabilities, np.array(self._members.weights), self._members.mean)}


def _probes(samples: Arrays, count: int) -> Arrays:
    """Return inputs within the range of the real ones that are like none of them; of integers, integers."""
    return {name: probes.drawn(x.shape[1:], probes.range_of(x), count).astype(x.dtype) for name, x in samples.items()}


def _gathered(rows: Sequence[Parity]) -> str:
    """Say the first failures of one file, each with how it was run, and how many there are more."""
    lines = [f"{'; '.join(row.failures)} ({', '.join(filter(None, (row.configuration, row.inputs)))})" for row in rows]
    more = f"; and in {len(lines) - SHOWN} more comparisons" if len(lines) > SHOWN else ""
    return "; ".join(lines[:SHOWN]) + more
