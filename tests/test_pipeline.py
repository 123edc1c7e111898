"""Which candidates are trained to the end, and for how long."""

from fractions import Fraction

import numpy as np
import pytest

from edgeml import recipe_file, run_folder
from edgeml.pipeline import affordable_epochs, pick_finalists
from edgeml.records import Cost
from edgeml.search.runner import Candidate


def candidate(name, share, accuracy, status="completed"):
    metrics = {"val_accuracy": accuracy, "val_loss": 1 - accuracy}
    return Candidate(name, "ds_cnn", Fraction(share), {}, Cost(1, 1), status, metrics=metrics)


CANDIDATES = [
    candidate("a", "1/2", 0.6),
    candidate("b", "1", 0.9),
    candidate("c", "1", 0.8),
    candidate("d", "1/2", 0.5),
    candidate("e", "1", 0.99, status="failed"),
]


def test_the_best_of_all_comes_first_even_alone():
    assert [c.id for c in pick_finalists(CANDIDATES, 1)] == ["b"]


def test_every_share_of_the_budget_sends_its_best():
    assert [c.id for c in pick_finalists(CANDIDATES, 2)] == ["b", "a"]
    assert [c.id for c in pick_finalists(CANDIDATES, 9)] == ["b", "c", "a", "d"]


RECIPE = """schema_version: 1
name: tiny
data: {source: digits}
search: {train_samples: %d}
budget: {params: 4_000}
train: {epochs: 100, time_limit_minutes: 1}
"""


@pytest.mark.parametrize(("samples", "epochs"), [(999, 20), (120, 6)])
def test_epochs_that_fit_into_the_time_limit_are_judged_by_the_search(tmp_path, samples, epochs):
    """A trial of 3 seconds an epoch, on all 540 samples or on 120; 180 held out cost as much as 60 trained."""
    run = run_folder.begin(tmp_path / "run", recipe_file.parse(RECIPE % samples, "recipe.yaml"), keep_finished=True)
    arrays = {name: (np.zeros((count, 2)), np.zeros(count)) for name, count in (("train", 540), ("validation", 180))}
    run.save_data(arrays, {}, {})
    for second in (0, 3, 6):
        run.ledger.append("epoch", "a", epoch=second // 3, metrics={})
        entry = run.ledger.entries[-1]
        entry["time"] = f"2026-01-01T00:00:{second:02d}Z"
    found = affordable_epochs(run, CANDIDATES[0], finalists=1)
    run.close()
    assert found == epochs
