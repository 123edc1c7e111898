"""How an oracle refuses: it draws again. ``Redraw`` for oracles that draw at random, ``CallAgain`` for any other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

Accepts = Callable[[Mapping[str, Any], int], bool]
TRIES = 3_000  # draws (a fifth of a millisecond each, and the judgement) before the space counts as dry
CALLS = 1_000  # proposals of a user's own oracle refused in a row before the search stops


class Redraw:
    """Draw until a feasible, unseen point is found. The bases are KerasTuner's; only used in front of an oracle."""

    accepts: Accepts
    judges_dearly: bool = False  # ``accepts`` builds a network, which takes a fifth of a second or more
    dry_at: int | None = None  # the number of the trial that nothing new was found for, if that was the last one
    trials: dict[str, Any]
    hyperparameters: Any
    seed: int
    _seed_state: int

    def _random_values(self) -> dict[str, Any] | None:
        values = next(self._feasible(), None)
        self.dry_at = len(self.trials) if values is None else None
        return values

    def _feasible(self) -> Iterator[dict[str, Any]]:
        """Yield what may be a trial among ``TRIES`` draws and the defaults."""
        for _ in range(TRIES):
            values = self._drawn()
            if self._admits(values):
                yield values
        yield from filter(self._admits, defaults(self.hyperparameters.space))

    def _admits(self, values: dict[str, Any]) -> bool:
        return not self._duplicate(values) and self.accepts(values, len(self.trials))  # type: ignore[attr-defined]

    def _drawn(self) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for entry in active(self.hyperparameters.space, values):
            # KerasTuner 1.4.8 samples by seed + number of draws: the streams of near seeds run into each other.
            values[entry.name] = entry.random_sample((self.seed << 32) + self._seed_state)
            self._seed_state += 1
        return values


class CallAgain:
    """Refuse what a user's own oracle proposes, and ask it again."""

    accepts: Accepts
    trials: dict[str, Any]
    stopped_because: str | None = None

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Return the first proposal that is accepted, or the oracle's own word that there is none."""
        for _ in range(CALLS):
            response: dict[str, Any] = super().populate_space(trial_id)  # type: ignore[misc]
            if response["status"] != "RUNNING" or self.accepts(response["values"] or {}, len(self.trials)):
                return response
        self.stopped_because = (
            f"{type(self).__name__}: {CALLS:,} proposals in a row for trial {trial_id} were over budget or could not be"
            " built; one that fits is required. Raise the budget, or let populate_space draw anew at each call."
        )
        return {"status": "STOPPED", "values": None}


def drawn(space: list[Any], count: int, seed: int) -> list[dict[str, Any]]:
    """Return the values of ``count`` random networks, in budget or not."""
    found = list[dict[str, Any]]()
    state = (seed + 1) << 32  # KerasTuner samples by one number: streams of near seeds would meet
    for _ in range(count):
        values: dict[str, Any] = {}
        for entry in active(space, values):
            values[entry.name] = entry.random_sample(state)
            state += 1
        found.append(values)
    return found


def defaults(space: list[Any]) -> Iterator[dict[str, Any]]:
    """Yield the default of a space; of a union of spaces, whose first entry names one of them, the default of each."""
    first = space[0] if space else None
    names_one = first is not None and any(c.name == first.name for entry in space for c in entry.conditions)
    for name in first.values if first is not None and names_one else [None]:
        values: dict[str, Any] = {}
        for entry in active(space, values):
            values[entry.name] = name if names_one and entry is first else entry.default
        yield values


def active(space: list[Any], values: Mapping[str, Any]) -> Iterator[Any]:
    """Yield the entries whose conditions ``values`` meets, which the caller fills in as it goes."""
    for entry in space:
        if all(condition.is_active(values) for condition in entry.conditions):
            yield entry
