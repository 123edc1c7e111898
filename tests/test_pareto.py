"""The Pareto front of candidates."""

from dataclasses import replace
from fractions import Fraction

from edgeml.recipe import Search
from edgeml.records import Cost
from edgeml.search.candidates import Candidate
from edgeml.search.pareto import objectives_of, pareto_front, values


def candidate(name, accuracy, macs, params=1, status="completed"):
    metrics = {} if accuracy is None else {"val_accuracy": accuracy}
    return Candidate(
        id=name,
        space="s",
        share=Fraction(1),
        hyperparameters={},
        cost=Cost(params, macs),
        status=status,
        metrics=metrics,
    )


def names(*candidates, **options):
    return [one.id for one in pareto_front(candidates, **options)]


def test_who_is_beaten_in_all_objectives_is_not_on_the_front():
    assert names(candidate("a", 0.9, 100), candidate("b", 0.95, 200), candidate("c", 0.85, 150)) == ["b", "a"]


def test_as_good_in_one_and_worse_in_the_other_is_beaten_equals_stay():
    assert names(candidate("a", 0.9, 100), candidate("b", 0.9, 101), candidate("c", 0.9, 100)) == ["a", "c"]


def test_only_completed_trials_count():
    broken = candidate("f", None, 1, status="failed"), candidate("d", 0.99, 1, status="diverged")
    assert names(candidate("a", 0.9, 100), *broken) == ["a"]
    assert names(*broken) == names() == []


def test_other_objectives_give_another_front():
    pair = candidate("a", 0.9, 100, params=7), candidate("b", 0.95, 90, params=8)
    assert names(*pair) == ["b"]
    assert names(*pair, objectives=("val_accuracy", "params")) == ["b", "a"]
    assert names(*pair, objectives=("val_accuracy",)) == ["b"]


def test_bytes_of_several_files_are_those_of_the_largest():
    sizes = {"a": {"onnx": {"int8": 5, "float32": 9}}, "b": {"onnx": {"int8": 4, "float32": 10}}}
    pair = [replace(candidate(name, 0.9, 1), cost=Cost(1, 1, file_bytes=size)) for name, size in sizes.items()]
    assert names(*pair, objectives=("val_accuracy", "file_bytes")) == ["a"]
    assert values(pair[0], ("val_accuracy", "file_bytes")) == {"val_accuracy": 0.9, "file_bytes": 9}


def test_balanced_accuracy_is_maximised():
    pair = [candidate("a", 0.9, 100), candidate("b", 0.95, 100)]
    pair = [replace(c, metrics={**c.metrics, "val_balanced_accuracy": 1 - c.metrics["val_accuracy"]}) for c in pair]
    assert names(*pair, objectives=("val_balanced_accuracy", "macs")) == ["a"]


def test_a_front_is_about_several_objectives_or_about_accuracy_and_macs():
    assert objectives_of(Search()) == objectives_of(Search(oracle="nsga2")) == ("val_accuracy", "macs")
    assert objectives_of(Search(objectives=("val_accuracy",))) == ("val_accuracy", "macs")
    assert objectives_of(Search(objective="val_balanced_accuracy")) == ("val_balanced_accuracy", "macs")
    three = ("val_accuracy", "params", "macs")
    assert objectives_of(Search(oracle="nsga2", objectives=three)) == three
    assert values(candidate("a", 0.9, 100, params=7), three) == {"val_accuracy": 0.9, "params": 7, "macs": 100}
