"""Which candidates are trained to the end, from which seeds, for how long; what is said of the data."""

from dataclasses import replace

import numpy as np
import pytest
from test_shortlist import CANDIDATES, candidate

from edgeml import pipeline, recipe_file, run_folder
from edgeml.errors import TrialsError
from edgeml.pipeline import affordable_epochs
from edgeml.records import Cost
from edgeml.search.engine import Outcome

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
        run.ledger.append("epoch", "t0", epoch=second // 3, metrics={})
        entry = run.ledger.entries[-1]
        entry["time"] = f"2026-01-01T00:00:{second:02d}Z"
    found = affordable_epochs(run, CANDIDATES[0], finalists=1)
    run.close()
    assert found == epochs


@pytest.mark.parametrize(("workers", "finalists", "rounds"), [(1, 1, 1), (2, 2, 1), (2, 3, 2), (2, 4, 2)])
def test_a_finalist_may_take_a_quarter_more_than_its_share_of_the_time(tmp_path, workers, finalists, rounds):
    text = (RECIPE % 999).replace("search: {", f"search: {{workers: {workers}, ")
    trials = [replace(candidate(f"t000{n}", 1, 0.9 - n / 10), seconds=2.0) for n in range(finalists)]
    for limit in ("1", "null"):
        recipe = recipe_file.parse(text, "recipe.yaml", [f"train.time_limit_minutes={limit}"])
        run = run_folder.begin(tmp_path / limit, recipe, keep_finished=True)
        run.save_data({name: (np.zeros((9, 2)), np.zeros(9)) for name in ("train", "validation")}, {}, {})
        engine = Instant([0.9] * finalists)
        pipeline.train_finalists(run, engine, trials, lambda event: None)
        run.close()
        expected = None if limit == "null" else 1.25 * 60 / rounds
        assert [job.stop_after_seconds for job in engine.jobs] == [expected] * finalists


class Instant:
    """An engine whose finalists are trained at once, to the accuracies given."""

    workers = 1

    def __init__(self, accuracies):
        self.accuracies, self.jobs = list(accuracies), []

    def submit(self, job):
        self.jobs.append(job)

    def wait(self, on_epoch):
        if not self.accuracies:
            raise KeyboardInterrupt
        accuracy = self.accuracies.pop(0)
        if accuracy is None:
            return self.jobs[-1], Outcome("failed", error="no such network\nTraceback")
        metrics = {"val_accuracy": accuracy, "val_loss": 1.0}
        on_epoch(self.jobs[-1], 0, metrics)
        return self.jobs[-1], Outcome("completed", metrics=metrics)


def test_a_finalist_that_fails_is_named_and_not_trained_again_by_a_resume(tmp_path):
    trials = [replace(candidate(f"t000{n}", 1, 0.9 - n / 10), seconds=2.0) for n in range(2)]
    run = run_folder.begin(tmp_path / "run", recipe_file.parse(RECIPE % 999, "recipe.yaml"), keep_finished=True)
    run.save_data({name: (np.zeros((9, 2)), np.zeros(9)) for name in ("train", "validation")}, {}, {})
    try:
        for accuracies in ([None, 0.9], []):
            finalists = pipeline.train_finalists(run, Instant(accuracies), trials, lambda event: None)
            assert [c.id for c in finalists] == ["t0001"]
        assert pipeline.failed_finalists(run)["t0000"]["error"] == "no such network\nTraceback"
        with pytest.raises(TrialsError, match=r"none of 1 finalists .* t0000 failed: no such network\. Search again"):
            pipeline.train_finalists(run, Instant([]), trials[:1], lambda event: None)
    finally:
        run.close()


@pytest.mark.parametrize("attempts", [1, 2])
def test_an_epoch_of_a_lost_attempt_says_nothing_of_time(tmp_path, attempts):
    run = run_folder.begin(tmp_path / "run", recipe_file.parse(RECIPE % 999, "recipe.yaml"), keep_finished=True)
    run.save_data({name: (np.zeros((9, 2)), np.zeros(9)) for name in ("train", "validation")}, {}, {})
    for attempt in range(attempts):
        run.ledger.append("trial_started", "t0")
        for second in (0, 3):
            run.ledger.append("epoch", "t0", epoch=second // 3, metrics={})
            run.ledger.entries[-1]["time"] = f"2026-01-0{attempt + 1}T00:00:{second:02d}Z"  # a day apart
    found = affordable_epochs(run, CANDIDATES[0], finalists=1)
    run.close()
    assert found == 20


def test_a_trial_of_one_epoch_is_judged_by_what_a_mac_takes_in_others(tmp_path):
    """It took 30 seconds, of them most to trace the network; others of half its MACs need 2 and 4 seconds an epoch."""
    run = run_folder.begin(tmp_path / "run", recipe_file.parse(RECIPE % 999, "recipe.yaml"), keep_finished=True)
    run.save_data({name: (np.zeros((9, 2)), np.zeros(9)) for name in ("train", "validation")}, {}, {})
    for name, macs, seconds in (("t0", 200, (0,)), ("t1", 100, (0, 2)), ("t2", 100, (0, 4, 8))):
        run.ledger.append("trial_started", name, cost={"params": 1, "macs": macs})
        for second in seconds:
            run.ledger.append("epoch", name, epoch=0, metrics={})
            run.ledger.entries[-1]["time"] = f"2026-01-01T00:00:{second:02d}Z"
    alone = replace(CANDIDATES[0], seconds=30.0, cost=Cost(1, 200))
    found = [affordable_epochs(run, one, finalists=1) for one in (alone, replace(alone, seconds=1.0))]
    run.close()
    assert found == [10, 60]  # a minute: six seconds an epoch; never more than what was seen


SEEDED = """
schema_version: 1
name: seeded
data: {source: digits}
train: {epochs: 100, finalists: 2, seeds: 3, time_limit_minutes: 1}
"""


def test_every_finalist_is_trained_from_every_seed_and_a_resume_goes_on(tmp_path):
    trials = [replace(candidate(f"t000{n}", 1, 0.9 - n / 10), seconds=2.0) for n in range(3)]
    recipe = recipe_file.parse(SEEDED, "recipe.yaml")
    run = run_folder.begin(tmp_path / "run", recipe, keep_finished=True)
    first = Instant([0.90, 0.92])
    with pytest.raises(KeyboardInterrupt):
        pipeline.train_finalists(run, first, trials, lambda event: None)
    second = Instant([0.97, 0.8, 0.8, 0.8])
    finalists = pipeline.train_finalists(run, second, trials, lambda event: None)
    names = ["t0000", "t0000-s2", "t0000-s3", "t0001", "t0001-s2", "t0001-s3"]
    assert [c.id for c in finalists] == names
    assert [job.id for job in first.jobs] == names[:3]
    assert [job.id for job in second.jobs] == names[2:]
    assert [(job.number, job.seed_number) for job in second.jobs] == [(0, 3), (1, 1), (1, 2), (1, 3)]
    assert {job.epochs for job in second.jobs} == {5}  # a minute for six of them, two seconds an epoch
    assert {job.stop_after_seconds for job in second.jobs} == {1.25 * 60 / 6}
    assert pipeline.epochs_of_finalists(run) == {name: {"epochs": 1, "planned_epochs": 5} for name in names}
    entries = run.ledger.of("finalist_trained")
    assert [entry["trial"] for entry in entries] == names
    assert entries[0]["over_seeds"] == {"seeds": 1, "mean": 0.90, "standard_deviation": None}
    assert entries[2]["over_seeds"]["mean"] == pytest.approx(0.93)
    assert entries[2]["over_seeds"]["standard_deviation"] == pytest.approx(np.std([0.90, 0.92, 0.97], ddof=1))
    run.close()


@pytest.mark.parametrize(
    ("counts", "more", "says"),
    [
        ((31, 10), "", True),
        ((30, 10), "", False),
        ((31, 10), "train: {class_weight: balanced}\n", False),
        ((31, 10), "search: {objective: val_balanced_accuracy}\n", False),
    ],
)
def test_skewed_classes_are_said_once_nothing_is_done_about_them(tmp_path, counts, more, says):
    recipe = recipe_file.parse("schema_version: 1\nname: s\ndata: {source: npz, path: none}\n" + more, "recipe.yaml")
    run = run_folder.begin(tmp_path / "run", recipe, keep_finished=True)
    part = {"train": {"per_class": dict(zip("ab", counts, strict=True))}}
    run.save_data({}, {"splits": part}, {"notes": []})
    events = []
    pipeline.prepare(run, events.append)
    text = "".join(event.message for event in events if event.stage == "data")
    assert ("classes differ by 3.1:1; train.class_weight: balanced" in text) is says
    assert ("search.objective: val_balanced_accuracy" in text) is says
    run.close()
