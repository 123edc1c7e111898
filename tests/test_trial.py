"""What a job does: promoted trials go on where their parent stopped, finalists are kept as they are measured."""

import gc
import math
from dataclasses import replace

import keras
import numpy as np
import pytest
from foreign import SMALL_SPACE, install
from test_runner import begin, search, splits  # noqa: F401  (a fixture)

from edgeml import scaling, train
from edgeml.errors import IntegrityError
from edgeml.search import trial
from edgeml.search.engine import Job
from edgeml.search.feasibility import Feasibility
from edgeml.search.space import Space

WIDE = SMALL_SPACE.replace("[8, 16]", "[8, 16, 24, 32, 40]")


@pytest.fixture
def small(monkeypatch, tmp_path):
    install(monkeypatch, tmp_path / "package", "search_spaces", "small", WIDE)


def finalist(run, name="t0000", **options):
    values = {"width": 8}
    space = Space(("small",), (8, 8, 1), 10, scaling.rescale((0, 16)))
    cost = Feasibility(space.operators, run.recipe.budget).cost(values)
    return space, Job(name, "finalist", "small", values, cost, **options)


def test_an_arena_that_hangs_on_the_order_of_operators_is_no_lie_of_the_space(small, splits, tmp_path):  # noqa: F811
    run = begin(tmp_path / "run", trials=1)
    space, job = finalist(run)
    model = space.model(job.hyperparameters)
    trial._recounted(model, replace(job, cost=replace(job.cost, arena_bytes={"int8": 1})), run.recipe)
    with pytest.raises(IntegrityError, match="search space small: it declares"):
        trial._recounted(model, replace(job, cost=replace(job.cost, macs=1)), run.recipe)
    run.close()


@pytest.mark.slow
def test_no_epoch_is_trained_twice_by_hyperband(small, splits, tmp_path, monkeypatch):  # noqa: F811
    fitted = []

    def noting(model, *args, **options):
        state = [v.numpy() for v in (*model.variables, *model.optimizer.variables)] if model.optimizer.built else None
        history = fit(model, *args, **options)
        fitted.append((state, [v.numpy() for v in (*model.variables, *model.optimizer.variables)], len(history)))
        return history

    fit = train.fit
    monkeypatch.setattr(train, "fit", noting)
    found = search(begin(tmp_path / "run", oracle="hyperband", epochs=3, trials=4), splits)
    promoted = [c for c in found if "tuner/trial_id" in c.hyperparameters]
    assert len(promoted) == 1
    for one, (before, _, epochs) in zip(found, fitted, strict=True):
        about = one.hyperparameters
        assert epochs == about["tuner/epochs"] - about["tuner/initial_epoch"]
        if one in promoted:
            for own, of_parent in zip(before, fitted[int(about["tuner/trial_id"])][1], strict=True):
                np.testing.assert_array_equal(own, of_parent)  # the optimizer's state as well
    kept = sorted(path.relative_to(tmp_path / "run" / "trials").as_posix() for path in tmp_path.rglob("*.weights.h5"))
    assert kept == [f"{c.id}/network.weights.h5" for c in found]


def test_only_hyperband_writes_weights(small, splits, tmp_path):  # noqa: F811
    search(begin(tmp_path / "run", trials=1), splits)
    assert not list(tmp_path.rglob("*.h5"))


def test_the_objective_steers_the_search_and_failed_trials_are_told_in_it(small, splits, tmp_path):  # noqa: F811
    events = []
    more = ", objective: val_balanced_accuracy, early_stopping: 1"
    options = {"trials": 2, "epochs": 8, "more": more, "oracle": "tpe"}
    found = search(begin(tmp_path / "run", **options), splits, events.append)
    for one in found:
        scores = [metrics["val_balanced_accuracy"] for metrics in one.epochs]
        assert one.metrics["val_balanced_accuracy"] == max(scores)
        assert len(scores) == min(8, int(np.argmax(scores)) + 2)  # one epoch without a better one ends it
    started = [event.data for event in events if event.message == "trial started"]
    assert [data["objective"] for data in started] == 2 * ["val_balanced_accuracy"]
    assert started[1]["best"] == found[0].metrics["val_balanced_accuracy"]


def test_a_finalist_is_kept_as_it_is_measured_and_seeds_differ(small, splits, tmp_path):  # noqa: F811
    run = begin(tmp_path / "run")
    (space, first), (_, second) = finalist(run, epochs=2), finalist(run, "t0000-s2", epochs=2, seed_number=2)
    outcomes = [trial.carry_out(run, space, splits, job, lambda *epoch: None) for job in (first, second)]
    weights = []
    for job, outcome in zip((first, second), outcomes, strict=True):
        assert outcome.status == "completed", outcome.error
        model = keras.models.load_model(tmp_path / "run" / "finalists" / job.id / "model.keras")
        train.compile_for(model, "sgd", 0.1)
        found = train.evaluate(model, splits["validation"], 10)
        assert {name: outcome.metrics[name] for name in found} == pytest.approx(found)
        weights.append(model.get_weights())
        norm = next(layer for layer in model._flatten_layers() if hasattr(layer, "moving_mean"))
        source = keras.Model(model.layers[-1].inputs, norm.input)
        seen = source.predict(splits["train"][0] / 16, verbose=0)  # 100 clean samples, one batch
        np.testing.assert_allclose(norm.moving_mean, seen.mean(axis=(0, 1, 2)), atol=1e-5)
        np.testing.assert_allclose(norm.moving_variance, seen.var(axis=(0, 1, 2)), rtol=1e-3)
    assert not np.array_equal(weights[0][0], weights[1][0])
    run.close()


def test_a_finalist_ends_with_the_epoch_in_which_its_time_does_and_is_kept(small, splits, tmp_path):  # noqa: F811
    run = begin(tmp_path / "run")
    space, job = finalist(run, epochs=1_000, stop_after_seconds=1.0)
    epochs = []
    assert trial.carry_out(run, space, splits, job, lambda number, metrics: epochs.append(number)).status == "completed"
    assert 1 <= len(epochs) < 1_000
    assert (tmp_path / "run" / "finalists" / "t0000" / "model.keras").is_file()
    run.close()


def test_a_finalist_that_diverges_leaves_no_file(small, splits, tmp_path):  # noqa: F811
    run = begin(tmp_path / "run")
    space, job = finalist(run, epochs=1)
    broken = {**splits, "train": (np.full_like(splits["train"][0], math.nan), splits["train"][1])}
    assert trial.carry_out(run, space, broken, job, lambda *epoch: None).status == "diverged"
    assert not list(tmp_path.rglob("*.keras"))
    run.close()


def steps_of_keras():
    gc.collect()
    return [o for o in gc.get_objects() if type(o).__name__ == "FuncGraph" and o.name == "one_step_on_data"]


def test_networks_that_are_gone_leave_no_graph_behind(small, splits, tmp_path):  # noqa: F811
    """Keras' step on TensorFlow holds a custom gradient, which TensorFlow registers for good, and with it its graph."""
    before = steps_of_keras()  # of tests that trained by themselves
    search(begin(tmp_path / "run", trials=2), splits)
    assert all(any(graph is known for known in before) for graph in steps_of_keras())


def test_a_trial_ends_with_the_epoch_in_which_the_time_of_the_search_does(small, splits, tmp_path):  # noqa: F811
    run = begin(tmp_path / "run", trials=9, epochs=1_000, more=", time_limit_minutes: 0.05, early_stopping: null")
    found = search(run, splits)
    assert [c.status for c in found] == ["completed"]
    assert 1 <= len(found[0].epochs) < 1_000
