"""The Pareto front of a search: the candidates that no other one beats in every objective."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeml.recipe import MAXIMISED
from edgeml.search.candidates import Candidate
from edgeml.search.oracles import OBJECTIVES


def pareto_front(candidates: Sequence[Candidate], objectives: Sequence[str] = OBJECTIVES) -> list[Candidate]:
    """Return the completed candidates that no other one dominates, the most accurate first.

    One dominates another if it is as good in every objective and better in one; of equals all stay. Accuracies
    are maximised, fields of ``Cost`` are minimised.
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


def _losses(candidate: Candidate, objectives: Sequence[str]) -> tuple[float, ...]:
    return tuple(
        -candidate.metrics[name] if name in MAXIMISED else float(getattr(candidate.cost, name)) for name in objectives
    )
