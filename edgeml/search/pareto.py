"""The Pareto front of a search: the candidates that no other one beats in every objective."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeml.recipe import MAXIMISED, Search
from edgeml.search.candidates import Candidate
from edgeml.search.objectives import minimised_value
from edgeml.search.oracles import OBJECTIVES


def pareto_front(candidates: Sequence[Candidate], objectives: Sequence[str] = OBJECTIVES) -> list[Candidate]:
    """Return the completed candidates that no other one dominates, the most accurate first.

    One dominates another if it is as good in every objective and better in one; of equals all stay. Accuracies
    are maximised, costs are minimised.
    """
    completed = [candidate for candidate in candidates if candidate.status == "completed"]
    rows = [_losses(candidate, objectives) for candidate in completed]
    losses = np.array(rows).reshape(len(completed), len(objectives))
    front = [
        candidate
        for candidate, own in zip(completed, losses, strict=True)
        if not np.any(np.all(losses <= own, axis=1) & np.any(losses < own, axis=1))
    ]
    accuracies = [name for name in objectives if name in MAXIMISED] or MAXIMISED[:1]
    return sorted(front, key=lambda candidate: _losses(candidate, (*accuracies, *objectives)))


def objectives_of(search: Search) -> tuple[str, ...]:
    """Return what the front of a search is about: its objectives where it has several, else accuracy and MACs."""
    given = search.objectives or ()
    return given if len(given) > 1 else (search.objective, *OBJECTIVES[1:])


def values(candidate: Candidate, objectives: Sequence[str]) -> dict[str, float]:
    """Return the objectives of a completed candidate: accuracies as shares, costs as counts, latency in ms."""
    return {name: candidate.metrics[name] if name in MAXIMISED else _minimised(name, candidate) for name in objectives}


def _minimised(name: str, candidate: Candidate) -> float:
    return minimised_value(name, candidate.cost, list(candidate.predicted_ms.values()))


def _losses(candidate: Candidate, objectives: Sequence[str]) -> tuple[float, ...]:
    found = values(candidate, objectives)
    return tuple(-float(value) if name in MAXIMISED else float(value) for name, value in found.items())
