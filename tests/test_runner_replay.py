"""What the runner asks, tells and writes down, for every oracle and several workers; the engine trains nothing."""

import random

import numpy as np
import pytest
from foreign import SMALL_SPACE, install

from edgeml import recipe_file, run_folder, scaling
from edgeml.errors import TrialsError
from edgeml.search import runner
from edgeml.search.engine import Outcome
from edgeml.search.feasibility import Feasibility
from edgeml.search.space import Space

RECIPE = """
schema_version: 1
name: dry
data: {source: digits}
search: {space: small, oracle: %s, max_trials: %d, epochs: 4, seed: 5, workers: %d%s}
budget: {params: 4_000}
"""
SPACE = SMALL_SPACE.replace("[8, 16]", "list(range(4, 120, 4))")


class Instant:
    """An engine that invents accuracies; jobs end in any order, as ``behave`` says for id and attempt."""

    def __init__(self, workers, seed=0, behave=lambda name, attempt: "completed", cut_after=None):
        self.workers, self._random, self._behave, self._left = workers, random.Random(seed), behave, cut_after
        self.jobs, self.attempts, self.log = [], {}, []

    def warm_up(self):
        pass

    def submit(self, job):
        self.jobs.append(job)
        self.attempts[job.id] = self.attempts.get(job.id, 0) + 1
        assert len(self.jobs) <= self.workers

    def wait(self, on_epoch):
        job = self.jobs.pop(self._random.randrange(len(self.jobs)))
        quality = np.random.default_rng(job.hyperparameters["width"]).uniform(0.2, 0.8)
        metrics = [{"val_accuracy": quality + epoch / 50, "val_loss": 1.0} for epoch in range(4)]
        for number, one in enumerate(metrics):
            if self._left is not None:
                self._left -= 1
                if self._left < 0:
                    raise KeyboardInterrupt
            on_epoch(job, number, one)
        status = self._behave(job.id, self.attempts[job.id])
        return job, Outcome(status, metrics[-1], error=None if status == "completed" else "why", seconds=0.5)

    def close(self):
        pass


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    install(monkeypatch, tmp_path / "package", "search_spaces", "small", SPACE)


def search(root, engine, *, oracle="random", trials=12, more="", events=None):
    recipe = recipe_file.parse(RECIPE % (oracle, trials, engine.workers, more), "recipe.yaml")
    run = run_folder.begin(root, recipe, resume=True, keep_finished=True)
    space = Space(("small",), (8, 8, 1), 10, scaling.rescale((0, 16)))
    try:
        judge = Feasibility(space.operators, recipe.budget)
        return runner.search(run, space, judge, engine, (events if events is not None else []).append)
    finally:
        run.close()


def essence(candidates):
    return [(c.id, c.hyperparameters, c.cost, c.status, c.metrics, c.epochs) for c in candidates]


def entries(root, event):
    run = run_folder.reopen(root)
    run.close()
    return run.ledger.of(event)


@pytest.mark.parametrize("oracle", ["random", "bayesian", "hyperband", "grid"])
@pytest.mark.parametrize("workers", [1, 3])
def test_a_ledger_replays_as_it_was_written(tmp_path, oracle, workers):
    options = {"oracle": oracle, "trials": 8}
    whole = search(tmp_path / "whole", Instant(workers), **options)
    assert [c.id for c in whole] == [f"t{n:04d}" for n in range(8)]
    idle = Instant(workers, cut_after=0)  # it would be interrupted by the first epoch
    assert essence(search(tmp_path / "whole", idle, **options)) == essence(whole)
    assert not idle.attempts
    rng = random.Random(workers)
    for number in range(100):
        try:
            found = search(tmp_path / "cut", Instant(workers, seed=number, cut_after=rng.randrange(18)), **options)
            break
        except KeyboardInterrupt:
            continue
    assert number > 2
    again = search(tmp_path / "cut", Instant(workers, cut_after=0), **options)
    assert essence(again) == essence(found)
    fresh = [c.hyperparameters["width"] for c in found if not c.hyperparameters.get("tuner/trial_id")]
    assert len(set(fresh)) == len(fresh)
    if workers == 1:
        assert essence(found) == essence(whole)


def test_hyperband_waits_for_those_it_may_promote(tmp_path):
    engine = Instant(4)
    found = search(tmp_path / "run", engine, oracle="hyperband", trials=100)
    promoted = [c for c in found if c.hyperparameters.get("tuner/trial_id")]
    alone = search(tmp_path / "alone", Instant(1), oracle="hyperband", trials=100)
    assert len(promoted) == len([c for c in alone if c.hyperparameters.get("tuner/trial_id")]) > 0
    ends = {e["trial"]: e["seq"] for e in entries(tmp_path / "run", "trial_ended")}
    starts = {e["trial"]: e["seq"] for e in entries(tmp_path / "run", "trial_started")}
    for candidate in promoted:
        parent = f"t{int(candidate.hyperparameters['tuner/trial_id']):04d}"
        assert ends[parent] < starts[candidate.id]
        assert candidate.share == next(c.share for c in found if c.id == parent)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_trial_whose_process_dies_is_tried_once_more_and_no_other(tmp_path, workers):
    ends = {"t0001": ["crashed", "completed"], "t0002": ["crashed"] * 9, "t0004": ["timed_out"], "t0005": ["failed"]}
    engine, events = Instant(workers, behave=lambda name, attempt: ends.get(name, ["completed"] * 9)[attempt - 1]), []
    found = {c.id: c.status for c in search(tmp_path / "run", engine, events=events)}
    expected = {"t0001": "completed", "t0002": "crashed", "t0004": "timed_out", "t0005": "failed"}
    assert found == {f"t{n:04d}": "completed" for n in range(12)} | expected
    assert {name: count for name, count in engine.attempts.items() if count > 1} == {"t0001": 2, "t0002": 2}
    assert [e.data["id"] for e in events if e.message == "trial tried again"] == ["t0001", "t0002"]
    assert len([e for e in events if e.message == "trial ended"]) == 12


def test_a_trial_that_died_is_not_tried_for_ever_by_resuming(tmp_path):
    def behave(name, attempt):
        return "crashed" if name == "t0001" else "completed"

    for cut_after in (8, 0):  # t0000 is through, t0001 has died once, the search is stopped
        with pytest.raises(KeyboardInterrupt):
            search(tmp_path / "run", Instant(1, behave=behave, cut_after=cut_after))
    engine = Instant(1, behave=behave)
    found = search(tmp_path / "run", engine)
    assert (found[1].status, engine.attempts["t0001"]) == ("crashed", 1)
    ended = [e for e in entries(tmp_path / "run", "trial_ended") if e["trial"] == "t0001"]
    assert [e["attempt"] for e in ended] == [1, 2]


def test_a_trial_that_takes_the_whole_search_with_it_is_given_up_in_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "LOST_STARTS", 3)
    for cut_after in (4, 0, 0):  # after t0000, which makes it a run that can be resumed
        with pytest.raises(KeyboardInterrupt):
            search(tmp_path / "run", Instant(1, cut_after=cut_after))
    engine = Instant(1)
    found = search(tmp_path / "run", engine)
    assert (found[1].status, found[1].error) == ("crashed", "the search ended 3 times during it")
    assert "t0001" not in engine.attempts
    assert essence(search(tmp_path / "run", Instant(1, cut_after=0))) == essence(found)


def test_more_than_a_third_is_too_many_and_some_are_named(tmp_path):
    behave = lambda name, attempt: "diverged" if name < "t0005" else "completed"  # noqa: E731
    with pytest.raises(TrialsError, match=r"5 of 12 .* first, t0000, diverged: why; others: t0001 diverged, t0002"):
        search(tmp_path / "run", Instant(2, behave=behave))


def test_the_time_limit_counts_wall_time_over_all_sessions(tmp_path):
    more = ", time_limit_minutes: 1000"
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "run", Instant(2, cut_after=9), more=more)
    elapsed = [e["elapsed_seconds"] for e in entries(tmp_path / "run", "epoch")]
    assert 0 < elapsed[0] <= elapsed[-1] < 60  # whatever the trials say of themselves
    ledger = run_folder.reopen(tmp_path / "run")
    ledger.ledger.append("epoch", "t0099", epoch=0, metrics={}, elapsed_seconds=60_000.0)  # a long session
    ledger.close()
    found = search(tmp_path / "run", Instant(2), more=more)
    started = {e["trial"] for e in entries(tmp_path / "run", "trial_started")}
    assert {c.id for c in found} == started  # what ran is trained, nothing new begins
    assert len(found) < 12
    assert essence(search(tmp_path / "run", Instant(2, cut_after=0), more=more)) == essence(found)
