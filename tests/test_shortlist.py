"""Which trials are trained to the end."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from edgeml import recipe_file, run_folder, shortlist
from edgeml.records import Cost
from edgeml.search.candidates import Candidate
from edgeml.search.trial import SAID

RECIPE = """schema_version: 1
name: tiny
data: {source: digits}
budget: {params: 300}
"""


def candidate(name, share, accuracy, status="completed", params=100):
    metrics = {"val_accuracy": accuracy, "val_loss": 1 - accuracy}
    return Candidate(name, "ds_cnn", Fraction(share), {}, Cost(params, 1), status, metrics=metrics)


CANDIDATES = [
    candidate("t0", "1/2", 0.6),
    candidate("t1", "1", 0.9),
    candidate("t2", "1", 0.8),
    candidate("t3", "1/2", 0.5),
    candidate("t4", "1", 0.99, status="failed"),
]


OPEN = []


@pytest.fixture(autouse=True)
def closed():
    yield
    while OPEN:
        OPEN.pop().close()


@pytest.fixture
def run(tmp_path):
    return begun(tmp_path)


def begun(folder, *overrides, labels=None):
    run = run_folder.begin(folder / "run", recipe_file.parse(RECIPE, "recipe.yaml", overrides), keep_finished=True)
    y = np.zeros(4, np.int64) if labels is None else labels
    run.save_data({name: (np.zeros((len(y), 2, 2, 1)), y) for name in ("train", "validation")}, {}, {})
    OPEN.append(run)
    return run


def picked(run, candidates, count):
    return [c.id for c in shortlist.pick(run, candidates, count)]


def test_the_best_of_all_comes_first_even_alone(run):
    assert picked(run, CANDIDATES, 1) == ["t1"]


def test_every_share_of_the_budget_sends_its_best(run):
    assert picked(run, CANDIDATES, 2) == ["t1", "t0"]
    assert picked(run, CANDIDATES, 9) == ["t1", "t2", "t0", "t3"]


def test_the_best_follow_where_no_ensemble_is_asked_for(tmp_path):
    assert picked(begun(tmp_path, "ensemble.max_members=1"), CANDIDATES, 2) == ["t1", "t2"]


def promoted(name, parent, accuracy):
    return replace(candidate(name, 1, accuracy), hyperparameters={"tuner/trial_id": parent})


def test_a_promoted_trial_stands_for_its_parents(run):
    chain = [candidate("t0000", 1, 0.7), candidate("t0001", 1, 0.6), promoted("t0002", "0", 0.9)]
    chain.append(promoted("t0003", "2", 0.8))
    assert picked(run, chain, 4) == ["t0002", "t0001"]


def test_the_best_follow_the_objective(tmp_path):
    pair = [candidate("t0", 1, 0.9), candidate("t1", 1, 0.8)]
    pair = [replace(c, metrics={**c.metrics, "val_balanced_accuracy": 1 - c.metrics["val_accuracy"]}) for c in pair]
    assert picked(begun(tmp_path, "search.objective=val_balanced_accuracy"), pair, 2) == ["t1", "t0"]


def crowd(folder, params, *overrides):
    """Six trials that err alike, and one that errs more often, but elsewhere; what each said of 600 samples."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 600)
    truth, shared = np.eye(3)[labels], rng.normal(0, 1.3, (600, 3))
    logits = [2.2 * truth + shared + rng.normal(0, 0.05, (600, 3)) for _ in range(6)]
    logits.append(truth + rng.normal(0, 0.9, (600, 3)))
    run, candidates = begun(folder, *overrides, labels=labels), []
    for number, one in enumerate(logits):
        said = np.exp(one) / np.exp(one).sum(axis=1, keepdims=True)
        candidates.append(candidate(f"t000{number}", 1, np.mean(said.argmax(axis=1) == labels), params=params[number]))
        np.save(run.path("trials", f"t000{number}", SAID), said.astype("float32"))
    return run, candidates


def test_a_trial_that_errs_elsewhere_is_taken_though_its_score_is_the_least(tmp_path):
    run, candidates = crowd(tmp_path, [100] * 7)
    worst = min(candidates, key=lambda c: c.metrics["val_accuracy"])
    assert worst.id == "t0006"
    assert "t0006" in picked(run, candidates, 3)
    alone = begun(tmp_path / "alone", "ensemble.max_members=1")
    assert "t0006" not in picked(alone, candidates, 3)


def test_members_that_do_not_fit_together_are_not_taken_for_each_other(tmp_path):
    run, candidates = crowd(tmp_path, [290] * 6 + [200])
    assert "t0006" not in picked(run, candidates, 3)
    assert len(picked(run, candidates, 7)) == 7
