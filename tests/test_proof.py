"""What an ensemble is compared with: who is trained for it, and what is told of them."""

from dataclasses import replace
from fractions import Fraction

import keras
import numpy as np
import pytest

from edgeml import assembly, controls, ensemble, intervals, proof, recipe_file
from edgeml.assembly import Assembled, Field
from edgeml.controls import Controls
from edgeml.precisions import File
from edgeml.records import Budget, Cost
from edgeml.search.candidates import Candidate

L = keras.layers
ROWS, CLASSES = 240, 3
RECIPE = """schema_version: 1
name: p
data: {source: digits}
search: {space: [ds_cnn]}
budget: {params: %d}
export: {targets: [tflite], precision: [float32]}
"""


class Run:
    """As much of a run as the comparison reads."""

    def __init__(self, params, x, labels):
        self.recipe = recipe_file.parse(RECIPE % params, "r.yaml")
        self._splits = {"blend": (x, labels)}

    def splits(self):
        return self._splits


def network(seed, width=4):
    keras.utils.set_random_seed(seed)
    x = keras.Input((5,), name="image")
    return keras.Model(x, L.Softmax()(L.Dense(CLASSES)(L.Dense(width, "relu")(x))), name=f"m{seed}")


def candidate(name, model, accuracy):
    metrics = {"val_accuracy": accuracy, "val_loss": 1.0}
    return Candidate(name, "ds_cnn", Fraction(1), {}, assembly.fold(model).cost, "completed", metrics=metrics)


@pytest.fixture(scope="module")
def made():
    rng = np.random.default_rng(0)
    x, labels = rng.normal(0, 1, (ROWS, 5)).astype("float32"), rng.integers(0, CLASSES, ROWS)
    models = [network(seed) for seed in range(3)]
    said = np.stack([assembly.probabilities_of(model, x) for model in models])
    finalists = tuple(candidate(f"t000{i}", model, 0.5 + i / 10) for i, model in enumerate(models))
    field = Field(finalists, tuple(models), said, labels, ((), (), ()), 5)
    config = replace(recipe_file.parse(RECIPE % 500, "r.yaml").ensemble, keep="always", mean="arithmetic")
    choice = ensemble.choose(said, labels, [c.cost for c in finalists], Budget(), config)
    graph = assembly.graph_of(field, choice.shipping, (File("tflite", "float32"),))
    return Run(500, x, labels), Assembled(field, choice, graph), (x, labels)


def trial(name, params, accuracy, macs=100):
    metrics = {"val_accuracy": accuracy, "val_loss": 1.0}
    return Candidate(name, "ds_cnn", Fraction(1), {}, Cost(params, macs), "completed", metrics=metrics)


def test_equal_is_who_costs_about_as_much_and_the_best_of_these():
    some = [trial("t1", 95, 0.7), trial("t2", 85, 0.8), trial("t3", 70, 0.9), trial("t4", 101, 0.99)]
    assert controls._of_equal(some, Cost(100, 100), "params", "val_accuracy").id == "t2"
    assert controls._of_equal(some[2:], Cost(100, 100), "params", "val_accuracy").id == "t3"  # the nearest from below
    assert controls._of_equal(some[3:], Cost(100, 100), "params", "val_accuracy") is None


def test_copies_are_of_the_best_network_of_which_as_many_fit(made):
    run, assembled, _ = made
    field, best = assembled.field, assembled.choice.ensemble
    networks = controls._networks(run, field, [trial("t0009", 10, 0.2), trial("t0008", 9, 0.4)])
    assert [c.id for c in networks[3:]] == ["t0008", "t0009"]
    assert sorted(c.id for c in networks[:3]) == ["t0000", "t0001", "t0002"]
    losses = dict(zip([c.id for c in field.finalists], field.losses, strict=True))
    assert losses[networks[0].id] == min(losses.values())
    two = replace(best, members=best.members[:2], weights=np.array([0.5, 0.5]))
    copies = controls._copies(run, field, networks, two)
    assert [c.id for c in copies] == [networks[0].id, f"{networks[0].id}-s2"]
    tight = Run(30, *run.splits()["blend"])  # a network has 39 params
    assert [c.id for c in controls._copies(tight, field, networks, two)] == ["t0008", "t0008-s2"]
    assert controls._copies(Run(5, *run.splits()["blend"]), field, networks, two) == ()


def test_no_ensemble_no_comparison(made):
    run, assembled, _ = made
    alone = Assembled(assembled.field, replace(assembled.choice, ensemble=None), assembled.graph)
    assert controls.trained(run, None, alone, [], lambda event: None) == Controls()
    assert proof.rivals(run, alone, Controls(), {}) == []


def test_rivals_are_counted_timed_and_told_as_they_are(made, tmp_path):
    run, assembled, (x, labels) = made
    field, choice = assembled.field, assembled.choice
    more = [network(seed, width=6) for seed in (7, 8, 9)]
    other, copy, student = (
        candidate(name, m, 0.4) for name, m in zip(("t0005", "t0005-s2", "t0001-d1"), more, strict=True)
    )
    models = {c.id: m for c, m in zip(field.finalists, field.models, strict=True)}
    models |= {"t0005": more[0], "t0005-s2": more[1], "t0001-d1": more[2]}
    compared = Controls(other.cost, other, other, (other, copy), (student,))
    rivals = proof.rivals(run, assembled, compared, models)
    names = [one.names for one in rivals]
    assert names[0][0] == "the ensemble"
    assert ("best of equal params", "best of equal MACs") in names
    far = proof.rivals(run, assembled, replace(compared, cost=Cost(2 * other.cost.params, 4 * other.cost.macs)), models)
    told = ("nearest in params (50% of the ensemble's)", "nearest in MACs (25% of the ensemble's)")
    assert told in [one.names for one in far]
    assert rivals[0].ships
    assert sum(one.ships for one in rivals) == 1
    measured = proof.measured(rivals, models, run.recipe, tmp_path, {"image": x})
    said = {name: assembly.probabilities_of(model, x) for name, model in models.items()}
    rows = {row["name"]: row for row in proof.rows(measured, said, labels)}
    equal = rows["best of equal params, best of equal MACs"]
    output = assembly.probabilities_of(more[0], x)
    right = output.argmax(axis=1) == labels
    assert equal["test_accuracy"] == pytest.approx(right.mean())
    assert equal["test_log_loss"] == pytest.approx(ensemble.log_loss(output, labels))
    whole = choice.shipping.of(field.blend)
    own = whole.argmax(axis=1) == labels
    assert equal["right_alone"] == [np.sum(own & ~right), np.sum(right & ~own)]
    assert equal["mcnemar_p"] == pytest.approx(intervals.mcnemar(*equal["right_alone"]))
    assert equal["params"] == 5 * 6 + 6 + 6 * 3 + 3
    assert rows["distilled from the ensemble"]["blend_log_loss"] is None
    assert rows["one network from 2 seeds"]["params"] > 2 * equal["params"]
    assert all(row["bytes"] > 500 and row["quiet_ms"] > 0 for row in rows.values())
