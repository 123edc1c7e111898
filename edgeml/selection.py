"""What was chosen on which split, and how it held: validation, blend and test side by side, so that over-fitting shows.

validation   the search looked at it after every epoch of every trial
blend        chose the members and their weights; cross-fitted: each fifth is judged by whom the others chose
test         read once, when nothing is left to choose
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml import ensemble, evaluation, pipeline
from edgeml.assembly import Field, probabilities_of
from edgeml.ensemble import Choice
from edgeml.ensemble.weights import FOLDS
from edgeml.records import to_json
from edgeml.run_folder import Arrays, RunFolder

Json = dict[str, Any]
Float = NDArray[np.float64]
SPLITS = ("validation", "blend", "test")


@dataclass(frozen=True, eq=False)
class Selection:
    """The finalists, who of them ships, and what each says about the test split, (N, K)."""

    field: Field
    choice: Choice
    test: tuple[Float, ...]


def shipped(run: RunFolder, selection: Selection, arrays: Mapping[str, Arrays], trials: int) -> Json:
    """Return the accuracy of the graph that ships on every split that something was decided on, and on test.

    On blend members and weights are those chosen without the fifth that they are judged by.
    """
    choice, weights = selection.choice, np.asarray(selection.choice.weights)
    members = [selection.field.models[i] for i in choice.members]
    validation = np.stack([probabilities_of(model, arrays["validation"][0]) for model in members])
    test = np.stack([selection.test[i] for i in choice.members])
    outputs = {
        "validation": ensemble.blend(validation, weights, choice.mean),
        "blend": choice.predicted,
        "test": ensemble.blend(test, weights, choice.mean),
    }
    balanced = pipeline.is_skewed(run)
    return {
        **{name: evaluation.scored(p, np.asarray(arrays[name][1]), balanced=balanced) for name, p in outputs.items()},
        "folds": FOLDS,
        "trials_compared": trials,
        "finalists_compared": len(selection.field.finalists),
        "sets_compared": choice.compared,
        "sets_cross_fitted": choice.scored,
    }


def seeds(finalists: Sequence[Json]) -> list[Json]:
    """Return mean and standard deviation over the seeds of each finalist, on every split."""
    rows: dict[str, list[Json]] = {}
    for one in finalists:
        rows.setdefault(pipeline.trial_of(one["id"]), []).append(one)
    return [
        {"id": name, "cost": own[0]["cost"]}
        | {
            f"{split}_accuracy": pipeline.spread([one[f"{split}_accuracy"]["accuracy"] for one in own])
            for split in SPLITS
        }
        for name, own in rows.items()
    ]


def finalists(run: RunFolder, selection: Selection, arrays: Mapping[str, Arrays]) -> list[Json]:
    """Return each finalist with its accuracy on every split, its cost and its latency."""
    return [_finalist(run, selection, index, arrays) for index in range(len(selection.field.finalists))]


def _finalist(run: RunFolder, selection: Selection, index: int, arrays: Mapping[str, Arrays]) -> Json:
    field = selection.field
    outputs = {
        "validation": probabilities_of(field.models[index], arrays["validation"][0]),
        "blend": field.blend[index],
        "test": selection.test[index],
    }
    labels = {name: np.asarray(arrays[name][1]) for name in SPLITS}
    balanced = pipeline.is_skewed(run)
    return {
        "id": field.finalists[index].id,
        "cost": to_json(field.finalists[index].cost),
        **{f"{name}_accuracy": evaluation.scored(p, labels[name], balanced=balanced) for name, p in outputs.items()},
        "blend_log_loss": ensemble.log_loss(field.blend[index], labels["blend"]),
        "latency": [
            {
                "device": one.limit.device,
                "runtime": one.limit.runtime,
                "precision": one.limit.precision,
                "predicted_ms": one.predicted_ms,
                "ms": one.measured_ms,
                "judged_ms": one.judged_ms,
                "judged_by": one.judged_by,
                "max_ms": one.limit.max_ms,
            }
            for one in field.standings[index]
        ],
        "chosen": index in selection.choice.members,
    }


def ensemble_rows(selection: Selection, method: str) -> Json:
    """Return the members, why they were chosen, what each more was worth, and how different the finalists are."""
    field, choice = selection.field, selection.choice
    several = len(choice.members) > 1
    pairs = ensemble.pairwise(field.blend, field.labels)
    return {
        "members": [
            {"id": field.finalists[i].id, "weight": w} for i, w in zip(choice.members, choice.weights, strict=True)
        ],
        "mean": choice.mean if several else None,
        "weights_method": method if several else "none",
        "kept": "ensemble" if several else "single",
        "reason": choice.reason,
        "single_blend_log_loss": choice.single_loss,
        "steps": to_json(choice.steps),
        "diversity": {"ids": [c.id for c in field.finalists], **{
            name: getattr(pairs, name).tolist() for name in ("disagreement", "error_correlation", "double_fault")
        }},
    }  # fmt: skip
