"""Which candidates are trained to the end."""

from fractions import Fraction

from edgeml.pipeline import pick_finalists
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
