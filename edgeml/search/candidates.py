"""The trials of a search that have ended, as the ledger knows them.

A trial starts once per attempt; the attempt whose end is final counts, with its epochs. One that began and did not end
is no attempt: the search was stopped or killed there, by nobody knows whom.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from edgeml.ledger import Entry, Ledger
from edgeml.records import Cost
from edgeml.search.space import Space

# Of a trial whose process dies: it may be the machine's fault. One that raises, diverges or takes too long is not tried
# again: with the same seed it would do the same.
ATTEMPTS = 2


@dataclass(frozen=True)
class Candidate:
    """A trial that has ended; ``predicted_ms``: by ``Limit.where``."""

    id: str
    space: str
    share: Fraction
    hyperparameters: Mapping[str, Any]
    cost: Cost
    status: str
    built_cost: Cost | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    epochs: tuple[Mapping[str, float], ...] = ()
    seconds: float = 0.0
    error: str | None = None
    predicted_ms: Mapping[str, float] = field(default_factory=dict)

    @property
    def number(self) -> int:
        """The number of the trial: 7 of t0007, of t0007-s2 and of t0007-d1."""
        return int(self.id[1:].partition("-")[0])


def finished(ledger: Ledger, space: Space) -> list[Candidate]:
    """Return the trials of a search that has ended, by number, from its ledger alone."""
    started, epochs = {entry["trial"]: entry for entry in ledger.of("trial_started")}, last_epochs(ledger)
    found = []
    for entry in ends(ledger)[0]:
        begun = started[entry["trial"]]
        identity = {
            "id": entry["trial"], "space": space.name_of(begun["hyperparameters"]), "share": Fraction(begun["share"]),
            "hyperparameters": begun["hyperparameters"], "predicted_ms": begun.get("predicted_ms", {}),
        }  # fmt: skip
        found.append(candidate_of(identity, Cost(**begun["cost"]), entry, epochs.get(entry["trial"], [])))
    return sorted(found, key=lambda one: one.number)


def last_epochs(ledger: Ledger) -> dict[str, list[Entry]]:
    """Return the epochs of each trial's last attempt: those of one that was lost are trained again."""
    found: dict[str, list[Entry]] = {}
    for entry in ledger.entries:
        if entry["event"] == "trial_started":
            found[entry["trial"]] = []
        elif entry["event"] == "epoch":
            found.setdefault(entry["trial"], []).append(entry)
    return found


def candidate_of(identity: Mapping[str, Any], cost: Cost, entry: Entry, epochs: list[Entry]) -> Candidate:
    """Return the trial that ``entry`` ended."""
    known = {name: entry[name] for name in ("status", "metrics", "seconds", "error")}
    built = Cost(**entry["built_cost"]) if entry.get("built_cost") else None
    metrics = tuple(epoch["metrics"] for epoch in epochs)
    return Candidate(**identity, cost=cost, built_cost=built, epochs=metrics, **known)


def ends(ledger: Ledger) -> tuple[list[Entry], dict[str, int], dict[str, int]]:
    """Return the entries that end a trial for good, in order; how often each was tried to its end; how often not."""
    final, attempts, lost = list[Entry](), dict[str, int](), dict[str, int]()
    for entry in ledger.entries:
        name = entry["trial"]
        if entry["event"] == "trial_started":
            lost[name] = lost.get(name, 0) + 1
        elif entry["event"] == "trial_ended":
            lost[name] = 0
            attempts[name] = entry.get("attempt", 1)
            if is_final(entry["status"], attempts[name]):
                final.append(entry)
    return final, attempts, lost


def is_final(status: str, attempt: int) -> bool:
    """Tell whether a trial that ended so is not tried again."""
    return status != "crashed" or attempt >= ATTEMPTS
