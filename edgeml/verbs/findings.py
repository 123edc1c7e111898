"""What a search has found, as text and as JSON: the best trials, the Pareto front, what failed and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edgeml.records import to_json
from edgeml.run_folder import RunFolder
from edgeml.terminal import table

if TYPE_CHECKING:
    from edgeml.search.candidates import Candidate

Document = dict[str, Any]
MOST_ROWS = 10


def of_search(folder: RunFolder, candidates: Sequence[Candidate], seconds: float) -> tuple[str, Document]:
    """Say what the trials of a run came to; ``seconds`` is what this session took."""
    from edgeml.search import pareto

    objective = folder.recipe.search.objective
    best = sorted((c for c in candidates if c.status == "completed"), key=lambda c: -c.metrics[objective])
    counts = {status: sum(c.status == status for c in candidates) for status in {c.status for c in candidates}}
    objectives = pareto.objectives_of(folder.recipe.search)
    front = pareto.pareto_front(candidates, objectives)
    document = {
        "run": str(folder.root), "trials": counts, "refused": folder.ledger.of("refused")[-1]["counts"],
        "objective": objective,
        "best": [
            {"id": c.id, "val_accuracy": c.metrics["val_accuracy"], objective: c.metrics[objective],
             "cost": to_json(c.cost), "share": str(c.share), "space": c.space, "predicted_ms": dict(c.predicted_ms)}
            for c in best
        ],
        "front": [{"id": c.id, **pareto.values(c, objectives)} for c in front],
        "failed": [
            {"id": c.id, "status": c.status, "error": c.error} for c in candidates if c.status != "completed"
        ],
        "seconds": seconds,
    }  # fmt: skip
    rows = [
        [c.id, c.space, str(c.share), f"{c.cost.params:,}", f"{c.cost.macs:,}", f"{c.metrics[objective]:.3f}"]
        for c in best[:MOST_ROWS]
    ]
    lines = [
        table(["trial", "space", "share", "params", "MACs", objective.replace("_", " ")], rows),
        "",
        *failures(folder, candidates),
        f"front    {' '.join(c.id for c in front)} ({', '.join(objectives)})",
        f"run      {folder.root}",
        f"next     edgeml export {folder.root}",
    ]
    return "\n".join(lines), document


def failures(folder: RunFolder, candidates: Sequence[Candidate]) -> list[str]:
    """Name the trials and finalists that came to nothing, each with its reason."""
    from edgeml import pipeline

    trials = [(c.id, c.status, c.error) for c in candidates if c.status != "completed"]
    finalists = [(name, e["status"], e["error"]) for name, e in pipeline.failed_finalists(folder).items()]
    return [f"{status:<9}{name}: {(error or '').partition(chr(10))[0][:200]}" for name, status, error in trials] + [
        f"{status:<9}finalist {name}: {(error or '').partition(chr(10))[0][:200]}" for name, status, error in finalists
    ]
