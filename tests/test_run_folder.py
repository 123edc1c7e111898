"""Run folders on disk: who may work in one, and what becomes of what lies there."""

import fcntl
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from edgeml import recipe_file, run_folder
from edgeml.errors import RecipeError, UsageError

RECIPE = "schema_version: 1\nname: tiny\ndata: {source: digits}\nsearch: {max_trials: 2}\n"


def recipe(text=RECIPE):
    return recipe_file.parse(text, "recipe.yaml")


def begun(root, *, trained=True, finished=False):
    """Leave a run behind, as an earlier process would have."""
    run = run_folder.begin(root, recipe(), keep_finished=True)
    if trained:
        run.ledger.append("trial_ended", "t0000", status="completed")
    if finished:
        run.ledger.append("run_ended", finished=True)
    run.close()


def test_a_second_process_is_refused_by_the_pid_of_the_first(tmp_path):
    code = (
        "import sys, os, pathlib; from edgeml import recipe_file, run_folder\n"
        f"run = run_folder.begin(pathlib.Path(sys.argv[1]), recipe_file.parse({RECIPE!r}, 'r'), keep_finished=True)\n"
        "print(os.getpid(), flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        pid = other.stdout.readline().strip()
        for attempt in (lambda root: run_folder.begin(root, recipe(), resume=True, keep_finished=True),
                        lambda root: run_folder.begin(root, recipe(), overwrite=True, keep_finished=True),
                        run_folder.reopen):  # fmt: skip
            with pytest.raises(UsageError, match=f"process {pid} works in this run"):
                attempt(tmp_path / "run")
        other.kill()
    run_folder.reopen(tmp_path / "run").close()  # the lock died with its process


def test_of_two_that_overwrite_at_once_one_is_refused_and_deletes_nothing(tmp_path, monkeypatch):
    begun(tmp_path / "run")
    (tmp_path / "run" / "data").mkdir()
    delete = shutil.rmtree

    def meanwhile(path, *more, **options):
        """Let another one begin while the first deletes."""
        monkeypatch.setattr(shutil, "rmtree", delete)
        with pytest.raises(UsageError, match=f"process {os.getpid()} works in this run"):
            run_folder.begin(tmp_path / "run", recipe(), overwrite=True, keep_finished=True)
        delete(path, *more, **options)

    monkeypatch.setattr(shutil, "rmtree", meanwhile)
    run = run_folder.begin(tmp_path / "run", recipe(), overwrite=True, keep_finished=True)
    assert shutil.rmtree is delete
    assert sorted(path.name for path in run.root.iterdir()) == ["ledger.jsonl", "lock", "recipe.resolved.yaml"]
    run.close()


@pytest.mark.parametrize("finished", [False, True])
def test_a_lock_that_was_removed_before_it_was_taken_holds_nothing(tmp_path, monkeypatch, finished):
    if finished:
        begun(tmp_path / "run", finished=True)
    first = run_folder.begin(tmp_path / "run", recipe(), keep_finished=True)
    flock = fcntl.flock

    def afterwards(file, operation):
        """Let the first one end after the second has opened its lock; it has trained nothing, so its run goes."""
        monkeypatch.setattr(fcntl, "flock", flock)
        first.close()
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", afterwards)
    second = run_folder.begin(tmp_path / "run", recipe(), keep_finished=True)
    with pytest.raises(UsageError, match="works in this run"):
        run_folder.begin(tmp_path / "run", recipe(), overwrite=True, keep_finished=True)
    assert run_folder.is_run(tmp_path / "run")
    second.close()


def test_a_finished_run_stays_aside_where_another_process_has_begun_in_its_place(tmp_path, monkeypatch):
    begun(tmp_path / "run", finished=True)
    first = run_folder.begin(tmp_path / "run", recipe(), keep_finished=True)
    remove = run_folder._remove

    def and_begin(root):
        remove(root)
        second.append(run_folder.begin(root, recipe(), keep_finished=True))

    second = []
    monkeypatch.setattr(run_folder, "_remove", and_begin)
    first.close()
    monkeypatch.setattr(run_folder, "_remove", remove)
    assert run_folder.is_run(tmp_path / "run.1")
    assert run_folder.is_run(tmp_path / "run")
    second[0].close()


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"x")
    for options in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(UsageError, match="holds something that is not a run"):
            run_folder.begin(tmp_path, recipe(), keep_finished=True, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "run").write_text("x")
    with pytest.raises(UsageError, match="run: is a file"):
        run_folder.begin(tmp_path / "run", recipe(), keep_finished=True)


def test_resume_and_overwrite_exclude_each_other(tmp_path):
    with pytest.raises(UsageError, match="exclude each other"):
        run_folder.begin(tmp_path, recipe(), resume=True, overwrite=True, keep_finished=True)


def test_an_unfinished_run_is_resumed_or_overwritten_but_never_by_itself(tmp_path):
    begun(tmp_path / "run")
    with pytest.raises(UsageError, match=r"holds an unfinished run; .*--resume.*--overwrite"):
        run_folder.begin(tmp_path / "run", recipe(), keep_finished=True)
    resumed = run_folder.begin(tmp_path / "run", recipe(), resume=True, keep_finished=True)
    assert len(resumed.ledger.of("trial_ended")) == 1
    resumed.close()
    fresh = run_folder.begin(tmp_path / "run", recipe(), overwrite=True, keep_finished=True)
    assert [e["event"] for e in fresh.ledger.entries] == ["run_started"]
    fresh.close()


def test_a_changed_recipe_does_not_resume(tmp_path):
    begun(tmp_path / "run")
    changed = recipe(RECIPE.replace("max_trials: 2", "max_trials: 3"))
    with pytest.raises(RecipeError, match=r"the recipe has changed since this run was started.*--overwrite"):
        run_folder.begin(tmp_path / "run", changed, resume=True, keep_finished=True)


def test_finished_runs_step_aside_and_all_are_kept(tmp_path):
    begun(tmp_path / "run", finished=True)
    (tmp_path / "run" / "mark").touch()
    begun(tmp_path / "run", finished=True)
    begun(tmp_path / "run", finished=True)
    assert (tmp_path / "run.1" / "mark").exists()
    assert run_folder.is_run(tmp_path / "run.2")
    with pytest.raises(UsageError, match="holds a finished run"):
        run_folder.begin(tmp_path / "run", recipe(), keep_finished=False)


def test_a_run_that_trains_nothing_gives_the_place_back(tmp_path):
    begun(tmp_path / "run", finished=True)
    (tmp_path / "run" / "mark").touch()
    run_folder.begin(tmp_path / "run", recipe(), keep_finished=True).close()
    assert (tmp_path / "run" / "mark").exists()
    assert not (tmp_path / "run.1").exists()


def test_reopening_keeps_the_recipe_and_refuses_what_is_no_run(tmp_path):
    begun(tmp_path / "run")
    run = run_folder.reopen(tmp_path / "run")
    assert run.recipe == recipe()
    run.close()
    with pytest.raises(UsageError, match="no run"):
        run_folder.reopen(tmp_path)


def test_data_are_there_once_they_are_whole(tmp_path):
    run = run_folder.begin(tmp_path / "run", recipe(), keep_finished=True)
    x, y = np.arange(8, dtype=np.uint8).reshape(2, 2, 2, 1), np.array([0, 1])
    assert not run.has_data()
    run.save_data({"train": (x, y), "test": (x[:1], y[:1])}, {"train": [0, 1]}, {"labels": ["a", "b"]})
    assert run.has_data()
    assert isinstance(run.splits()["train"][0], np.memmap)
    np.testing.assert_array_equal(run.splits()["train"][0], x)
    np.testing.assert_array_equal(run.splits()["test"][1], y[:1])
    assert run.dataset() == {"labels": ["a", "b"]}
    assert run.partition() == {"train": [0, 1]}
    run.close()
