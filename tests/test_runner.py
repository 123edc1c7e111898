"""Searches that train: cut and resumed, with trials that fail, and with a space that lies."""

import json
import shutil

import numpy as np
import pytest
from foreign import SMALL_SPACE, install
from sklearn.datasets import load_digits

from edgeml import recipe_file, run_folder, scaling, train
from edgeml.errors import BudgetError, IntegrityError, TrialsError
from edgeml.search import runner
from edgeml.search.engine import InProcess
from edgeml.search.feasibility import Feasibility
from edgeml.search.oracles import _refusing
from edgeml.search.space import Space

RECIPE = """
schema_version: 1
name: tiny
data: {source: digits}
search: {space: [%s], oracle: %s, max_trials: %d, epochs: %d, batch_size: 50, seed: 0%s}
budget: {params: %d}
"""


@pytest.fixture(scope="module")
def splits():
    x, y = load_digits(return_X_y=True)
    x = x.reshape(-1, 8, 8, 1).astype("float32")
    return {"train": (x[:100], y[:100].astype(np.int64)), "validation": (x[100:150], y[100:150].astype(np.int64))}


def begin(root, *, space="small", oracle="random", trials=3, epochs=1, more="", params=2_000, resume=False):
    recipe = recipe_file.parse(RECIPE % (space, oracle, trials, epochs, more, params), "recipe.yaml")
    return run_folder.begin(root, recipe, resume=resume, keep_finished=True)


def search(run, splits, on_event=lambda event: None, shares=(1,), workers=1):
    space = Space(run.recipe.search.space, (8, 8, 1), 10, scaling.rescale((0, 16)))
    try:
        judge = Feasibility(space.operators, run.recipe.budget, shares, counted=run.recipe.counted)
        engine = InProcess(run, space, splits, workers)
        return runner.search(run, space, judge, engine, on_event)
    finally:
        run.close()


SLOW = pytest.mark.slow


def essence(candidates):
    return [(c.id, c.hyperparameters, c.cost, c.built_cost, c.status, c.metrics, c.epochs) for c in candidates]


@pytest.fixture
def small(monkeypatch, tmp_path):
    install(monkeypatch, tmp_path / "package", "search_spaces", "small", SMALL_SPACE.replace(
        "[8, 16]", "[8, 16, 24, 32, 40]"))  # fmt: skip


@pytest.mark.parametrize(
    ("oracle", "epochs", "trials"),
    [
        ("random", 2, 3),
        ("hyperband", 3, 4),
        pytest.param("tpe", 1, 4, marks=SLOW),
        pytest.param("nsga2", 1, 4, marks=SLOW),
    ],
)
def test_a_search_cut_twice_ends_like_one_that_was_not(small, splits, tmp_path, monkeypatch, oracle, epochs, trials):
    more = ", objectives: [val_accuracy, file_bytes, arena_bytes]" if oracle == "nsga2" else ""
    options = {"oracle": oracle, "epochs": epochs, "trials": trials, "more": more}
    whole = search(begin(tmp_path / "whole", **options), splits)
    assert len(whole) == trials
    assert [(c.status, c.error) for c in whole] == trials * [("completed", None)]
    assert all(c.built_cost == c.cost for c in whole)

    def cut_after(epochs_left):
        def on_event(event):
            nonlocal epochs_left
            epochs_left -= event.message == "epoch"
            if not epochs_left:
                raise KeyboardInterrupt

        return on_event

    for number, epochs_left in enumerate((3, 1)):
        with pytest.raises(KeyboardInterrupt):
            search(begin(tmp_path / "cut", **options, resume=number > 0), splits, cut_after(epochs_left))
    resumed = search(begin(tmp_path / "cut", **options, resume=True), splits)
    assert essence(resumed) == essence(whole)
    kept = {path: path.read_bytes() for path in (tmp_path / "cut" / "tuner").rglob("*.json")}
    shutil.rmtree(tmp_path / "cut" / "tuner")
    again = search(begin(tmp_path / "cut", **options, resume=True), splits)  # replayed from the ledger alone
    assert essence(again) == essence(whole)
    assert kept.keys() == set((tmp_path / "cut" / "tuner").rglob("*.json"))
    state = json.loads((tmp_path / "cut" / "tuner" / "oracle" / "oracle.json").read_text())
    assert len(state["end_order"]) == trials
    monkeypatch.setattr(runner.oracles, "create", None)  # what has ended is read, whatever an oracle would propose now
    assert essence(search(begin(tmp_path / "cut", **options, resume=True), splits)) == essence(whole)
    ledger = map(json.loads, (tmp_path / "cut" / "ledger.jsonl").read_text().splitlines())
    assert [e["candidates_per_share"] for e in ledger if e["event"] == "refused"] == [{"1": trials}]


def test_the_ledger_tells_the_whole_story(small, splits, tmp_path):
    events = []
    search(begin(tmp_path / "run", trials=2), splits, events.append)
    run = run_folder.reopen(tmp_path / "run")
    names = [e["event"] for e in run.ledger.entries]
    assert names == ["run_started", *2 * ["trial_started", "epoch", "trial_ended"], "refused"]
    ended = run.ledger.of("trial_ended")[0]
    assert ended["status"] == "completed"
    assert ended["built_cost"] == run.ledger.of("trial_started")[0]["cost"]
    assert set(ended["metrics"]) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert [e.message for e in events] == 2 * ["trial started", "epoch", "trial ended"]
    run.close()


def test_a_time_limit_that_was_reached_holds_after_a_resume_and_loses_nothing(small, splits, tmp_path):
    options = {"more": ", time_limit_minutes: 0.0001"}
    first = search(begin(tmp_path / "run", **options), splits)
    assert len(first) == 1  # at least one, then the time is up
    assert essence(search(begin(tmp_path / "run", **options, resume=True), splits)) == essence(first)


def test_a_ledger_of_another_search_is_refused(small, splits, tmp_path):
    run = begin(tmp_path / "run")
    run.ledger.append("trial_started", "t0000", hyperparameters={"width": 12}, cost={})
    run.ledger.append("trial_ended", "t0000", status="completed", metrics={}, seconds=1.0, error=None)
    with pytest.raises(IntegrityError, match=r"trial t0000 is not what this search proposes.*--overwrite"):
        search(run, splits)


def test_a_space_that_lies_stops_the_run(monkeypatch, splits, tmp_path):
    lie = SMALL_SPACE.replace(
        "return network(hp, input_shape, num_classes).operators()",
        "return network(hp, input_shape, num_classes).operators()[:-2]  # forgets the classifier",
    )
    install(monkeypatch, tmp_path / "package", "search_spaces", "small", lie)
    with pytest.raises(IntegrityError, match=r"search space small: it declares Cost\(params=.* builds needs Cost"):
        search(begin(tmp_path / "run"), splits)


@pytest.mark.parametrize(("broken", "failing"), [("width == 8", 1), ("width >= 16", 4)])
def test_failing_trials_are_recorded_and_judged_at_the_end(monkeypatch, splits, tmp_path, broken, failing):
    source = SMALL_SPACE.replace("[8, 16]", "[8, 16, 24, 32, 40]").replace(
        "    return network(hp, input_shape, num_classes).keras()",
        "    width = hp.get('width') if 'width' in hp.values else 8\n"
        f"    if {broken}:\n        raise RuntimeError(f'no network of width {{width}}')\n"
        "    return network(hp, input_shape, num_classes).keras()",
    )
    install(monkeypatch, tmp_path / "package", "search_spaces", "small", source)
    run = begin(tmp_path / "run", trials=5)
    if failing > 1:
        with pytest.raises(TrialsError, match=r"4 of 5 trials failed; at most a third may\..*no network of width"):
            search(run, splits)
    else:
        assert [c.status for c in search(run, splits)].count("failed") == 1
    run = run_folder.reopen(tmp_path / "run")
    failed = [e for e in run.ledger.of("trial_ended") if e["status"] == "failed"]
    assert len(failed) == failing
    assert all("RuntimeError" in entry["error"] and "Traceback" in entry["error"] for entry in failed)
    run.close()


def test_nothing_fits_says_so_before_anything_is_trained(splits, tmp_path):
    run = begin(tmp_path / "run", space="ds_cnn", oracle="grid", params=100)
    with pytest.raises(BudgetError, match=r"the smallest seen needs \d+ params and [\d,]+ MACs \(params \d+ > 100; "):
        search(run, splits)


def test_a_share_that_nothing_fits_does_not_end_the_search(small, splits, tmp_path):
    from fractions import Fraction

    smallest = 8 * 9 + 8 + 8 * 10 + 10
    run = begin(tmp_path / "run", trials=2, params=2 * smallest)
    found = search(run, splits, shares=(Fraction(1), Fraction(1, 3)))
    assert [c.share for c in found] == [1, 1]


@pytest.mark.parametrize(("oracle", "epochs"), [("random", 1), ("tpe", 1), ("hyperband", 3)])
def test_a_dry_share_leaves_its_turns_to_the_others(small, splits, tmp_path, monkeypatch, oracle, epochs):
    from fractions import Fraction

    monkeypatch.setattr(_refusing, "TRIES", 300)
    smallest = 8 * 9 + 8 + 8 * 10 + 10
    run = begin(tmp_path / "run", trials=5, epochs=epochs, oracle=oracle, params=6 * smallest)
    found = search(run, splits, shares=(Fraction(1), Fraction(1, 6)))
    assert len(found) > 2 * sum(c.share < 1 for c in found) > 0


def test_trials_see_as_many_training_samples_as_the_recipe_says(small, splits, tmp_path, monkeypatch):
    seen = []
    fit = train.fit

    def watched(model, data, *rest, **options):
        seen.append(len(data[0]))
        return fit(model, data, *rest, **options)

    monkeypatch.setattr(train, "fit", watched)
    search(begin(tmp_path / "run", trials=1, more=", train_samples: 60"), splits)
    search(begin(tmp_path / "all", trials=1, more=", train_samples: 9_999"), splits)
    assert seen == [60, 100]
