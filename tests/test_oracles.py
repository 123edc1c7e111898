"""What every oracle must keep, on a pure function: nothing is trained."""

from collections import Counter

import keras_tuner as kt
import pytest

from edgeml import recipe
from edgeml.search import oracles
from edgeml.search.oracles import grid

NAMES = recipe.ORACLES
BUDGET = 12


def small_space():
    hp = kt.HyperParameters()
    for name in "abc":
        hp.Int(name, 0, 9)
    hp.Choice("kind", ["plain", "fine"])
    with hp.conditional_scope("kind", ["fine"]):
        hp.Choice("finesse", [1, 2, 3])
    return hp


def cost(values):
    return values["a"] + values["b"] + values["c"]


def fits(values, trial):
    return cost(values) <= BUDGET


def score(values):
    return 1 - ((values["a"] - 6) ** 2 + (values["b"] - 2) ** 2 + (values["c"] - 4) ** 2) / 200


class Drive:
    """Asks and tells an oracle, as the runner does; ``failing`` names the trials that fail."""

    def __init__(self, folder, name, accepts=fits, space=small_space, trials=18, epochs=9, seed=1):
        self.oracle = oracles.create(
            name, accepts=accepts, hyperparameters=space(), max_trials=trials, epochs=epochs, seed=seed
        )
        self.oracle._set_project_dir(folder, "oracle")
        self.proposals = []

    def run(self, count=10_000, failing=lambda number: False):
        while len(self.proposals) < count:
            trial = self.oracle.create_trial("worker")
            if trial.status != "RUNNING":
                break
            self.proposals.append(dict(trial.hyperparameters.values))
            if failing(len(self.proposals)):
                trial.status = "FAILED"
            else:
                self.oracle.update_trial(trial.trial_id, {"val_accuracy": score(self.proposals[-1])})
                trial.status = "COMPLETED"
            self.oracle.end_trial(trial)
        return self.proposals


def point(values):
    return tuple(sorted((key, value) for key, value in values.items() if not key.startswith("tuner/")))


def fresh(proposals):
    """Leave out what Hyperband promoted: it is meant to come again."""
    return [point(values) for values in proposals if "tuner/trial_id" not in values]


@pytest.mark.parametrize("name", NAMES)
def test_nothing_over_budget_and_nothing_twice(name, tmp_path):
    proposals = Drive(tmp_path, name).run()
    assert len(proposals) == 18
    assert all(cost(values) <= BUDGET for values in proposals)
    assert len(set(fresh(proposals))) == len(fresh(proposals))
    assert all(("finesse" in values) == (values["kind"] == "fine") for values in proposals)


@pytest.mark.parametrize("name", NAMES)
def test_one_seed_one_search(name, tmp_path):
    seed = 0  # for KerasTuner this is no seed
    first = Drive(tmp_path / "1", name, seed=seed).run()
    assert Drive(tmp_path / "2", name, seed=seed).run() == first
    if name != "grid":
        assert Drive(tmp_path / "3", name, seed=seed + 1).run() != first


@pytest.mark.parametrize("name", NAMES)
def test_a_replayed_search_goes_on_as_if_it_had_not_stopped(name, tmp_path):
    whole = Drive(tmp_path / "1", name).run()
    assert Drive(tmp_path / "2", name).run(count=12) == whole[:12]
    replayed = Drive(tmp_path / "2", name)  # the files of the first attempt lie there
    replayed.run(count=12)
    assert replayed.run() == whole


@pytest.mark.parametrize("name", NAMES)
def test_failing_trials_neither_stop_a_search_nor_come_again(name, tmp_path):
    proposals = Drive(tmp_path, name).run(failing=lambda number: number % 2 or number < 8)
    assert len(proposals) == 18 if name != "hyperband" else len(proposals) >= 12
    assert len(set(fresh(proposals))) == len(fresh(proposals))


@pytest.mark.parametrize("name", NAMES)
def test_a_search_ends_when_every_point_that_fits_was_tried(name, tmp_path):
    def space():
        hp = kt.HyperParameters()
        for letter in "abc":
            hp.Int(letter, 0, 1)
        return hp

    proposals = Drive(tmp_path, name, accepts=lambda v, trial: cost(v) <= 2, space=space, epochs=27).run()
    assert sorted(fresh(proposals)) == sorted(
        (("a", a), ("b", b), ("c", c)) for a in (0, 1) for b in (0, 1) for c in (0, 1) if a + b + c <= 2
    )


@pytest.mark.parametrize("name", NAMES)
def test_nothing_fits(name, tmp_path):
    assert Drive(tmp_path, name, accepts=lambda values, trial: False).run() == []


@pytest.mark.parametrize("name", ["random", "bayesian", "hyperband", "tpe", "nsga2"])
def test_a_budget_that_only_the_default_fits_gives_the_default(name, tmp_path):
    def space():
        hp = kt.HyperParameters()
        for letter in "abcdef":
            hp.Int(letter, 0, 99)
        return hp

    proposals = Drive(tmp_path, name, accepts=lambda v, trial: all(v[k] == 0 for k in "abcdef"), space=space).run()
    assert fresh(proposals) == [tuple((letter, 0) for letter in "abcdef")]


def test_hyperband_promotes_as_many_as_without_a_budget(tmp_path):
    def rounds(folder, accepts):
        return Counter(v["tuner/round"] for v in Drive(folder, "hyperband", accepts, trials=500, epochs=27).run())

    free = rounds(tmp_path / "1", lambda values, trial: True)
    assert free == {0: 49, 1: 15, 2: 5, 3: 1}
    assert rounds(tmp_path / "2", lambda values, trial: values["a"] < 3) == free


def test_a_promoted_trial_is_its_parent_with_more_epochs(tmp_path):
    proposals = Drive(tmp_path, "hyperband").run()
    promoted = [values for values in proposals if "tuner/trial_id" in values]
    assert promoted
    for values in promoted:
        parent = proposals[int(values["tuner/trial_id"])]
        assert point(values) == point(parent)
        assert values["tuner/initial_epoch"] == parent["tuner/epochs"] < values["tuner/epochs"]


def test_bayesian_learns_within_the_trials_it_has(tmp_path):
    def later(name):
        scores = [score(values) for values in Drive(tmp_path / name, name, trials=24, seed=2).run()]
        return sum(scores[12:]) / 12

    assert later("bayesian") > later("random") + 0.05


def test_two_thirds_of_a_bayesian_search_are_not_random(tmp_path):
    assert Drive(tmp_path, "bayesian", trials=30).oracle.num_initial_points == 10


def test_a_grid_goes_through_everything_that_fits(tmp_path):
    proposals = Drive(tmp_path, "grid", accepts=lambda v, trial: cost(v) <= 4, trials=10_000).run()
    every = sum(a + b + c <= 4 for a in range(10) for b in range(10) for c in range(10)) * 4
    assert len(proposals) == len({point(values) for values in proposals}) == every


def test_a_grid_too_large_to_walk_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(grid, "LEAP", 300)
    assert len(Drive(tmp_path, "grid", accepts=lambda values, trial: values["a"] == 0 and values["b"] < 2).run()) == 18
    assert Drive(tmp_path / "2", "grid", accepts=lambda values, trial: values["a"] == 9).run() == []


@pytest.mark.parametrize("name", ["random", "bayesian", "hyperband", "tpe", "nsga2"])
def test_each_trial_is_judged_by_its_own_number(name, tmp_path):
    proposals = Drive(tmp_path, name, accepts=lambda values, trial: cost(values) <= (20, 5)[trial % 2]).run()
    own = [cost(v) for n, v in enumerate(proposals) if n % 2 and "tuner/trial_id" not in v]
    assert own
    assert max(own) <= 5 < max(map(cost, proposals))
