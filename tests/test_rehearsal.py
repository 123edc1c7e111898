"""A rehearsed search: what it says of the space, and that it says the same as the search would."""

import os
from dataclasses import replace
from fractions import Fraction

import keras_tuner
import pytest
from foreign import SMALL_SPACE, install

from edgeml import latency_budget, recipe_file, scaling
from edgeml.errors import BudgetError
from edgeml.recipe import Search
from edgeml.search import oracles, rehearsal
from edgeml.search.space import Space
from edgeml.verbs import examine

RECIPE = """
schema_version: 1
name: tiny
data: {source: digits}
search: {space: [%s], max_trials: 10}
budget: {params: %d}
"""

NESTED = """
from foreign_small import build, operators as small

def operators(hp, input_shape, num_classes):
    for layer in range(hp.Int("layers", 1, 3)):
        pass
    for layer in (2, 3):
        with hp.conditional_scope("layers", list(range(layer, 4))):
            hp.Choice(f"kind_{layer}", [1, 2, 3])
    hp.Float("rate", 0.1, 0.2)
    return small(hp, input_shape, num_classes)
"""


@pytest.fixture
def spaces(monkeypatch, tmp_path):
    install(monkeypatch, tmp_path / "a", "search_spaces", "small", SMALL_SPACE)
    install(monkeypatch, tmp_path / "b", "search_spaces", "nested", NESTED)


@pytest.mark.parametrize(
    ("names", "size"), [(["small"], 2), (["nested"], 2 * (1 + 3 + 9)), (["small", "nested"], 2 + 26)]
)
def test_the_size_heeds_conditions_and_adds_up_over_a_union(spaces, names, size):
    assert rehearsal._size(Space(names, (8, 8, 1), 10, scaling.rescale((0, 16)))) == size


def test_a_rehearsal_says_what_would_happen(spaces):
    text, told = examine.dry_run(recipe_file.parse(RECIPE % ("small", 200), "r"), lambda event: None)
    assert "data      1797 images of 8 x 8 x 1\nclasses   10: 0 178, 1 182," in text
    assert f"trials    {told['trials']} of {told['epochs']} epochs in all; {examine.ENDS[told['ended_by']]}" in text
    assert f"share     1 of the budget: {told['shares'][0]['fit']} of 500 drawn fit" in text
    assert told["data"]["input_shape"] == [8, 8, 1]
    assert told["space"]["size"] == 2
    assert 0.4 < told["space"]["feasible_share"] < 0.6  # one width of two
    assert told["smallest"]["params"] == 9 * 8 + 8 + 8 * 10 + 10
    assert told["largest"]["params"] == 9 * 16 + 16 + 16 * 10 + 10
    assert told["estimated_seconds"] > 0


TABLE = """
schema_version: 1
name: table
data: {source: csv, path: %s, label: kind}
search: {space: [wide_deep], max_trials: 2}
budget: {params: 5000}
export: {precision: [float32]}
"""


def test_a_rehearsal_says_how_a_table_was_understood(tmp_path):
    names = [f"c{n}" for n in range(12)]
    rows = [",".join(["no" if n % 3 else "yes", *(f"{n * 10**k}" for k in range(12))]) for n in range(48)]
    (tmp_path / "t.csv").write_text("\n".join([",".join(["kind", *names]), *rows]) + "\n")
    text, told = examine.dry_run(recipe_file.parse(TABLE % (tmp_path / "t.csv"), "r"), lambda event: None)
    assert told["data"] == {
        "samples": 48, "test_samples": 0, "kind": "vectors", "input_shape": [12], "columns": names,
        "class_from": "column kind", "classes": {"no": 32, "yes": 16}, "notes": [],
    }  # fmt: skip
    assert text.splitlines()[:2] == [
        "data      48 vectors of 12; columns c0, c1, c2, c3, c4, c5, c6, c7, c8, …, c11",
        "classes   2, by column kind: no 32, yes 16",
    ]


def test_a_budget_that_only_the_smallest_fits_passes_and_one_below_it_does_not():
    told = rehearsal.rehearse(recipe_file.parse(RECIPE % ("separable_cnn", 259), "r"), lambda event: None)
    assert told["smallest"]["params"] == 259
    with pytest.raises(BudgetError, match="the smallest seen needs 259 params"):
        rehearsal.rehearse(recipe_file.parse(RECIPE % ("separable_cnn", 258), "r"), lambda event: None)


def test_each_member_share_is_judged_as_in_the_search(spaces):
    overrides = ["search.member_share=[1, 1/2, 1/3]", "search.least_use=0.6"]  # networks of 170 and 330 params
    told = rehearsal.rehearse(recipe_file.parse(RECIPE % ("small", 400), "r", overrides), lambda event: None)
    whole, half, third = told["shares"]
    assert [Fraction(row["share"]) for row in told["shares"]] == [1, Fraction(1, 2), Fraction(1, 3)]
    assert (whole["fit"], whole["searched"]) == (500, True)
    assert whole["meet_least_use"] == 500 - half["fit"]  # the large ones
    assert half["meet_least_use"] == half["fit"]
    assert (third["fit"], third["meet_least_use"], third["searched"]) == (0, 0, False)
    alone = [*overrides, "ensemble.max_members=1"]
    told = rehearsal.rehearse(recipe_file.parse(RECIPE % ("small", 400), "r", alone), lambda event: None)
    assert [row["share"] for row in told["shares"]] == ["1"]


def trained(epochs, max_trials, folder):
    """Return the epochs of each trial that Hyperband's oracle makes when trials end one after the other."""
    hp, found = keras_tuner.HyperParameters(), []
    hp.Float("rate", 0.0, 1.0)
    oracle = oracles.create(
        "hyperband", accepts=lambda *about: True, hyperparameters=hp, max_trials=max_trials, epochs=epochs, seed=1
    )
    oracle._set_project_dir(folder, "oracle")
    while (trial := oracle.create_trial(f"{len(found)}")).status == "RUNNING":
        values = trial.hyperparameters.values
        found.append(values["tuner/epochs"] - values["tuner/initial_epoch"])
        oracle.update_trial(trial.trial_id, {"val_accuracy": values["rate"]})
        trial.status = "COMPLETED"
        oracle.end_trial(trial)
    return found


@pytest.mark.parametrize(("epochs", "max_trials"), [(9, 1_000), (9, 12), (10, 1_000), (2, 1)])
def test_hyperbands_trials_are_those_of_its_oracle(tmp_path, epochs, max_trials):
    config = Search(oracle="hyperband", epochs=epochs, max_trials=max_trials)
    told = rehearsal._forecast(config, 2, rehearsal._Pace(1.0, 2.0, 1))
    found = trained(epochs, max_trials, tmp_path)
    assert (told["trials"], told["epochs"]) == (len(found), sum(found))
    assert told["estimated_seconds"] == len(found) + 2 * sum(found)
    assert told["ended_by"] == ("hyperband" if max_trials == 1_000 else "search.max_trials")


@pytest.mark.parametrize(
    ("minutes", "trials", "epochs", "seconds", "ended_by"),
    [(None, 10, 40, 50, "search.max_trials"), (1, 10, 40, 50, "search.max_trials"),
     (0.2, 3, 4 + 4 + 1, 12, "search.time_limit_minutes")],
)  # fmt: skip
def test_the_bound_that_is_met_first_is_named(minutes, trials, epochs, seconds, ended_by):
    config = Search(max_trials=10, epochs=4, time_limit_minutes=minutes)
    told = rehearsal._forecast(config, 11, rehearsal._Pace(1.0, 1.0, 1))
    assert (told["trials"], told["epochs"], told["estimated_seconds"]) == (trials, epochs, seconds)
    assert (told["ended_by"], told["seconds_without_time_limit"]) == (ended_by, 50)


def test_a_space_of_few_networks_ends_a_search():
    told = rehearsal._forecast(Search(max_trials=10, epochs=4), 3, rehearsal._Pace(1.0, 1.0, 2))
    assert (told["trials"], told["ended_by"], told["estimated_seconds"]) == (3, "space", 7.5)


@pytest.mark.parametrize(
    ("workers", "set_by_user", "threads", "at_once"),
    [(1, None, 4, 1), (2, None, 2, 2), (8, None, 1, 4), (2, "4", 4, 1), (2, "0", 4, 1)],
)
def test_workers_share_the_cores(spaces, monkeypatch, workers, set_by_user, threads, at_once):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(4), raising=False)
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    if set_by_user:
        monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", set_by_user)
    before = dict(os.environ)
    monkeypatch.setattr(rehearsal, "_seconds", lambda *about: (float(os.environ["TF_NUM_INTRAOP_THREADS"]), 1.0))
    told = rehearsal.rehearse(
        recipe_file.parse(RECIPE % ("small", 400), "r", [f"search.workers={workers}"]), lambda event: None
    )
    assert told["workers"] == {"count": workers, "at_once": at_once, "threads_each": threads, "cores": 4}
    step = float(set_by_user or threads)
    assert told["estimated_seconds"] == (2 * step + 12) / at_once  # two trials of six epochs
    assert dict(os.environ) == before


def test_networks_larger_than_those_that_a_profile_was_made_of_are_counted(monkeypatch):
    monkeypatch.setattr(rehearsal, "_seconds", lambda *about: (1.0, 1.0))
    limit = "{device: stm32h747-cubeai, runtime: cubeai, precision: int8, max_ms: 1e9}"
    recipe = recipe_file.parse(RECIPE % ("ds_cnn", 10_000_000), "r", [f"budget.latency=[{limit}]"])
    ((of, profile),) = latency_budget.known_profiles(recipe, None).items()
    for most, some in ((1e9, False), (0.01, True)):
        of_most = {of: replace(profile, range=dict.fromkeys(profile.range, (0.0, most)))}
        told = rehearsal.rehearse(recipe, lambda event: None, lambda _, known=of_most: known)["outside_profiles"]
        assert bool(told.get("stm32h747-cubeai/cubeai/int8")) == some
