"""Which trials are trained to the end: the best of all, and those that say what it does not.

Every trial leaves what it says of the validation split. Sets of trials are grown from that (``ensemble.sets``), nobody
being left out for a low score of their own; the members of the best sets that fit the budget together are taken, set by
set. Where trials have left nothing, the best of each share of the budget are taken in turn.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeml.costs import charged
from edgeml.ensemble import sets
from edgeml.ensemble.charge import summed, total
from edgeml.run_folder import RunFolder
from edgeml.search.candidates import Candidate
from edgeml.search.trial import SAID

SETS = 50  # best sets, of all sizes, whose members are taken until there are enough


def pick(run: RunFolder, candidates: Sequence[Candidate], count: int) -> list[Candidate]:
    """Return up to ``count`` trials, the best first; of a network that was promoted only its best trial."""
    ranked = _ranked(candidates, run.recipe.search.objective)
    taken = ranked[:1] + _together(run, ranked) if run.recipe.ensemble.max_members > 1 else ranked
    picked = list({c.id: c for c in [*taken, *_in_turn(ranked)]}.values())[:count]
    return sorted(picked, key=ranked.index)


def _ranked(candidates: Sequence[Candidate], objective: str) -> list[Candidate]:
    finished = [c for c in candidates if c.status == "completed"]
    ranked = sorted(finished, key=lambda c: (-c.metrics[objective], c.metrics["val_loss"]))
    origins = _origins(candidates)
    first = {origins[c.id]: c for c in reversed(ranked)}
    return [c for c in ranked if first[origins[c.id]] is c]


def _origins(candidates: Sequence[Candidate]) -> dict[str, str]:
    """Return the first trial of each trial's network: Hyperband's promoted ones name their parent."""
    found: dict[str, str] = {}
    for c in sorted(candidates, key=lambda c: c.number):  # a parent has the smaller one
        parent = c.hyperparameters.get("tuner/trial_id")
        found[c.id] = found.get(f"t{int(parent):04d}", c.id) if parent else c.id
    return found


def _in_turn(ranked: Sequence[Candidate]) -> list[Candidate]:
    """Return all, the best of each share of the budget in turn: members must fit together."""
    queues = {share: [c for c in ranked if c.share == share] for share in dict.fromkeys(c.share for c in ranked)}
    order: list[Candidate] = []
    while any(queues.values()):
        order += [queue.pop(0) for queue in queues.values() if queue]
    return order


def _together(run: RunFolder, ranked: Sequence[Candidate]) -> list[Candidate]:
    """Return the members of the best sets within budget, set by set; none where trials left nothing behind."""
    paths = {c.id: run.root / "trials" / c.id / SAID for c in ranked}
    known = [c for c in ranked if paths[c.id].is_file()]
    if len(known) < 2:
        return []
    x, labels = run.splits()["validation"]
    said = [np.load(paths[c.id]) for c in known]
    true = np.stack([p[np.arange(len(labels)), np.asarray(labels)] for p in said]).astype(np.float64)
    budget, elements = run.recipe.budget, int(np.prod(x.shape[1:]))
    costs = [charged(c.cost) for c in known]
    latency_ms = [{limit: c.predicted_ms.get(limit.where, 0.0) for limit in budget.latency} for c in known]

    def fits(members: sets.Members) -> bool:
        cost = total([costs[i] for i in members], elements, said[0].shape[1], run.recipe.ensemble.mean)
        return not budget.violations(cost, summed([latency_ms[i] for i in members]))

    grown = sets.grow(true, fits, run.recipe.ensemble.max_members)
    best = sorted((one for some in grown.by_size.values() for one in some), key=lambda one: grown.losses[one])[:SETS]
    return [known[i] for members in best for i in members]
