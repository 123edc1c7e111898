"""The records that travel between the stages: frozen, with units in their names, to and from JSON.

``Budget`` is what was asked, ``Cost`` what a network needs; ``Budget.violations`` is the one place where the two meet.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

COUNTS = ("params", "macs", "peak_activation_bytes")  # budget keys that bear the name of a Cost field


@dataclass(frozen=True)
class Limit:
    """A latency limit: single-sample inference on ``device`` with ``runtime`` at ``precision`` within ``max_ms``."""

    device: str
    runtime: str
    precision: str
    max_ms: float


@dataclass(frozen=True)
class Cost:
    """What the folded graph of a network needs at batch 1.

    ``params``: scalars that inference needs. ``macs``: multiply-accumulates of every convolution, dense layer and other
    matrix product. ``weight_bytes``: bytes of weights by precision. ``peak_activation_bytes``: most bytes of
    activations alive at once, at one byte per element (int8); a float32 runtime needs four times as many.
    """

    params: int
    macs: int
    weight_bytes: Mapping[str, int] = field(default_factory=dict)
    peak_activation_bytes: int = 0


@dataclass(frozen=True)
class Budget:
    """What the whole exported graph may need; ``None`` means no limit."""

    params: int | None = None
    macs: int | None = None
    peak_activation_bytes: int | None = None
    latency: tuple[Limit, ...] = ()

    def violations(self, cost: Cost, measured_ms: Mapping[Limit, float] | None = None) -> list[str]:
        """Return one line per broken limit, empty if ``cost`` is feasible.

        Args:
            cost: what the network needs.
            measured_ms: latency per limit, where it is known; a limit that is not in it is not judged.
        """
        found = []
        for key in COUNTS:
            limit, value = getattr(self, key), getattr(cost, key)
            if limit is not None and value > limit:
                found.append(f"{key} {value:,} > {limit:,}")
        for limit_ms, ms in (measured_ms or {}).items():
            if ms > limit_ms.max_ms:
                where = f"{limit_ms.device}/{limit_ms.runtime}/{limit_ms.precision}"
                found.append(f"latency on {where} {ms:.3f} ms > {limit_ms.max_ms:g} ms")
        return found

    def use(self, cost: Cost) -> float:
        """Return how far ``cost`` fills the budget: the mean of the shares of its counts, 1 where there is none."""
        shares = [getattr(cost, key) / limit for key in COUNTS if (limit := getattr(self, key))]
        return sum(shares) / len(shares) if shares else 1.0

    def scaled(self, share: Fraction) -> Budget:
        """Return the budget of one member that may use ``share`` of every key."""
        counts = {key: getattr(self, key) for key in COUNTS}
        return Budget(
            **{key: None if limit is None else int(limit * share) for key, limit in counts.items()},
            latency=tuple(dataclasses.replace(limit, max_ms=limit.max_ms * float(share)) for limit in self.latency),
        )


@dataclass(frozen=True)
class Event:
    """Something worth showing while a long function runs: ``stage`` (search, train, …), ``message``, and figures."""

    stage: str
    message: str
    data: Mapping[str, Any] = field(default_factory=dict)


def to_json(record: Any) -> Any:
    """Turn records, mappings and sequences into what ``json.dumps`` takes; NumPy scalars become Python numbers."""
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        return {f.name: to_json(getattr(record, f.name)) for f in dataclasses.fields(record)}
    if isinstance(record, Mapping):
        return {str(key): to_json(value) for key, value in record.items()}
    if isinstance(record, (list, tuple, set, frozenset)):
        return [to_json(value) for value in record]
    if hasattr(record, "tolist"):
        return record.tolist()
    if isinstance(record, Fraction):
        return str(record)
    return record
