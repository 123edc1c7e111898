"""The records that travel between the stages: frozen, with units in their names, to and from JSON.

``Budget`` is what was asked, ``Cost`` what a network needs; ``Budget.violations`` is the one place where the two meet.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from numbers import Real
from typing import Any

# Budget keys that bear the name of a Cost field.
COUNTS = ("params", "macs", "weight_bytes", "file_bytes", "peak_activation_bytes", "arena_bytes")


@dataclass(frozen=True)
class Limit:
    """A latency limit: single-sample inference on ``device`` with ``runtime`` at ``precision`` within ``max_ms``."""

    device: str
    runtime: str
    precision: str
    max_ms: float

    def __post_init__(self) -> None:
        is_number = isinstance(self.max_ms, Real) and not isinstance(self.max_ms, bool)
        if not (is_number and 0 < self.max_ms < float("inf")):
            raise ValueError(f"latency limit on {self.where}: max_ms is {self.max_ms!r}; a number above 0 is due.")

    @property
    def where(self) -> str:
        """What it is about, in a word: ``host/onnxruntime/int8``."""
        return f"{self.device}/{self.runtime}/{self.precision}"


@dataclass(frozen=True)
class Cost:
    """What the folded graph of a network needs at batch 1.

    ``params``: scalars that inference needs. ``macs``: multiply-accumulates of every convolution, dense layer and other
    matrix product. ``weight_bytes``: bytes of weights by precision. ``peak_activation_bytes``: most bytes of
    activations alive at once, at one byte per element (int8); a float32 runtime needs four times as many.
    ``arena_bytes``: of TensorFlow Lite Micro, by precision of the TFLite file. ``file_bytes``: by target and precision.
    The last two are predictions until the files are written, and empty where they were not counted.
    """

    params: int
    macs: int
    weight_bytes: Mapping[str, int] = field(default_factory=dict)
    peak_activation_bytes: int = 0
    arena_bytes: Mapping[str, int] = field(default_factory=dict)
    file_bytes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


def limited(key: str, value: Any) -> int | None:
    """Return the number that budget ``key`` limits and a search minimises, of a cost's ``value``; None: not counted.

    Of ``weight_bytes`` the smallest precision, of ``file_bytes`` the largest file.
    """
    if not isinstance(value, Mapping):
        return None if value is None else int(value)
    found = [number for inner in value.values() if (number := limited(key, inner)) is not None]
    return (min if key == "weight_bytes" else max)(found, default=None)


@dataclass(frozen=True)
class Budget:
    """What the whole exported graph may need; ``None`` means no limit.

    ``latency`` takes dicts of a limit's fields, too. ``weight_bytes`` holds at the smallest precision exported,
    ``file_bytes`` for every file exported, ``arena_bytes`` for the int8 TFLite file.

    Raises:
        ValueError: a limit that is no positive number, or no limit of latency.
    """

    params: int | None = None
    macs: int | None = None
    weight_bytes: int | None = None
    file_bytes: int | None = None
    peak_activation_bytes: int | None = None
    arena_bytes: int | None = None
    latency: tuple[Limit, ...] = ()

    def __post_init__(self) -> None:
        for key in COUNTS:
            value = getattr(self, key)
            if value is not None and (isinstance(value, bool) or not hasattr(value, "__index__") or value < 1):
                raise ValueError(f"budget.{key}: {value!r}; a whole number of at least 1, or None, is due.")
        try:
            limits = tuple(Limit(**one) if isinstance(one, Mapping) else one for one in self.latency)
        except TypeError as error:
            raise ValueError(f"budget.latency: {error}; device, runtime, precision and max_ms are due.") from error
        if isinstance(self.latency, (str, Mapping)) or not all(isinstance(one, Limit) for one in limits):
            raise ValueError(f"budget.latency: {self.latency!r}; a list of edgeml.Limit is due.")
        object.__setattr__(self, "latency", limits)

    def violations(self, cost: Cost, latency_ms: Mapping[Limit, float] | None = None) -> list[str]:
        """Return one line per broken limit, empty if ``cost`` is feasible.

        Args:
            cost: what the network needs.
            latency_ms: per limit of ``latency``, measured or predicted with its error on top; one that is not in it
                is not judged.

        Raises:
            ValueError: the budget limits what was not counted.
        """
        found = [f"{key} {value:,} > {limit:,}" for key, value, limit in self._limited(cost) if value > limit]
        for limit, ms in (latency_ms or {}).items():
            if ms > limit.max_ms:
                found.append(f"latency on {limit.where} {ms:.3f} ms > {limit.max_ms:g} ms")
        return found

    def use(self, cost: Cost, latency_ms: Mapping[Limit, float] | None = None) -> float:
        """Return how far ``cost`` fills the budget: the mean of the shares of its limits, 1 where there is none."""
        shares = [value / limit for _, value, limit in self._limited(cost) if limit]
        shares += [ms / limit.max_ms for limit, ms in (latency_ms or {}).items()]
        return sum(shares) / len(shares) if shares else 1.0

    @property
    def keys(self) -> tuple[str, ...]:
        """The counts that have a limit."""
        return tuple(key for key in COUNTS if getattr(self, key) is not None)

    def _limited(self, cost: Cost) -> Iterator[tuple[str, int, int]]:
        for key in self.keys:
            value = limited(key, getattr(cost, key))
            if value is None:
                raise ValueError(f"budget.{key}: the cost {cost} was counted without it; count it")
            yield key, value, getattr(self, key)

    def scaled(self, share: Fraction) -> Budget:
        """Return the budget of one member that may use ``share`` of every key."""
        counts = {key: getattr(self, key) for key in COUNTS}
        return Budget(
            **{key: None if limit is None else max(1, int(limit * share)) for key, limit in counts.items()},
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
