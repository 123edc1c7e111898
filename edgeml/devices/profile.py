"""A device profile: what a device, runtime and precision need for a network, as coefficients in one TOML file.

    predicted ms = sum of coefficient x feature          (``features``)

An operator of a kind that was never measured is refused, not counted as free; a network outside the range that was
measured is predicted with a warning. ``error`` is the profile's own, each network left out of its own fit: predicted /
measured at the 5th, 50th and 95th percentile. ``safe_ms``, the prediction times ``safety``, is what a budget is
compared with.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgeml.devices.features import features
from edgeml.devices.fit import Fit
from edgeml.errors import DataError, NotMeasuredError
from edgeml.operators import Operator

BEYOND = 1.1  # a feature may be a tenth above what was measured before its network counts as outside


@dataclass(frozen=True)
class Prediction:
    """``ms``: expected; ``safe_ms``: what is judged; ``outside``: why it is less sure than the profile's error says."""

    ms: float
    safe_ms: float
    outside: tuple[str, ...] = ()


@dataclass(frozen=True)
class Profile:
    """What is known of one device with one runtime at one precision.

    ``block``, ``depth``: of the tile that fitted best. ``range``: the least and most that was measured of each feature.
    ``key``: what must be the same for the profile to hold (processor, instruction sets, runtime version, threads,
    space, input shape). ``error``: p5, p50, p95 of predicted / measured. ``networks``: how many it was fitted on.
    ``held_out``: |predicted / measured - 1| of others, and what was predicted and measured of them.
    ``judge``: who has the last word on a file: "measured", it is timed on this machine; "vela", the compiler for
    ``accelerator``; "none", nobody here, the prediction stands.
    """

    name: str
    description: str
    runtime: str
    runtime_version: str
    precision: str
    source: str
    block: int
    depth: int
    coefficients: Mapping[str, float]
    range: Mapping[str, Sequence[float]]
    error: Mapping[str, float]
    networks: int
    key: Mapping[str, Any]
    held_out: Mapping[str, float] = field(default_factory=dict)
    held_out_predicted_ms: Sequence[float] = ()
    held_out_measured_ms: Sequence[float] = ()
    judge: str = "measured"
    accelerator: str = ""

    def predict(self, operators: Sequence[Operator]) -> Prediction:
        """Predict the quiet latency of a network's folded operators.

        Raises:
            NotMeasuredError: an operator of a kind that was not measured.
        """
        found = features(operators, self.runtime, self.precision, self.block, self.depth)
        unknown = sorted({name.partition(":")[0] for name in found if name not in self.coefficients})
        if unknown:
            raise NotMeasuredError(
                f"device {self.name}: '{unknown[0]}' was not measured; {', '.join(self.kinds())} were. Calibrate with a"
                " space that has it, or leave it out of the search."
            )
        ms = sum(self.coefficients[name] * value for name, value in found.items())
        outside = tuple(filter(None, (self._outside(name, value) for name, value in found.items())))
        return Prediction(ms, ms * self.safety, outside)

    @property
    def safety(self) -> float:
        """What a prediction is multiplied by before it is judged: by this much the profile predicts too little.

        The larger of 1 / p5 of its own networks and 1 + the 90th percentile of the error on those it has not seen.
        """
        return max(1.0, 1 / self.error["p5"], 1 + self.held_out.get("p90", 0.0))

    def _outside(self, name: str, value: float) -> str:
        """Say how a feature lies outside what was measured; below it only what is of the whole graph counts."""
        low, high = self.range[name]
        if value > BEYOND * high:
            return f"{name} {value:.3g} > {high:.3g}"
        return f"{name} {value:.3g} < {low:.3g}" if name.startswith("graph:") and value < low / BEYOND else ""

    def kinds(self) -> list[str]:
        """Return the kinds of operators that were measured."""
        return sorted({name.partition(":")[0] for name in self.coefficients if name.endswith(":1")} - {"graph"})


def of_fit(fit: Fit, **about: Any) -> Profile:
    """Return the profile that a fit gives."""
    p5, p50, p95 = fit.percentiles()
    return Profile(
        block=fit.block, depth=fit.depth, coefficients=fit.coefficients, range=fit.range, networks=len(fit.ratios),
        error={"p5": p5, "p50": p50, "p95": p95}, **about,
    )  # fmt: skip


def read(path: Path) -> Profile:
    """Read a profile.

    Raises:
        DataError: the file is none.
    """
    try:
        return Profile(**tomllib.loads(path.read_text("utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, TypeError) as error:
        raise DataError(
            f"{path}: no device profile ({error}). Make it again with `edgeml devices calibrate`."
        ) from error


def write(profile: Profile, path: Path) -> None:
    """Write a profile, whole or not at all."""
    import tomli_w

    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.partial")
    beside.write_text(tomli_w.dumps(asdict(profile)), "utf-8")
    beside.replace(path)
