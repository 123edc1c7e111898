"""A recipe's search from Python: callbacks reach every trial and finalist, wherever they are trained."""

import keras
import pytest
from foreign import SMALL_SPACE, install
from spies import Notes

import edgeml
from edgeml.errors import UsageError

RECIPE = """
schema_version: 1
name: tiny
data: {source: digits}
search: {space: small, max_trials: 1, epochs: 3, batch_size: 512}
train: {epochs: 2, finalists: 1}
"""


class Own(Notes):
    pass


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    install(monkeypatch, tmp_path / "package", "search_spaces", "small", SMALL_SPACE)
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    return tmp_path / "tiny.yaml"


@pytest.mark.parametrize("in_process", [True, False])
def test_callbacks_reach_trials_and_finalists_each_with_its_own_copies(recipe, tmp_path, in_process):
    stop = keras.callbacks.EarlyStopping("loss", min_delta=1e9, patience=1)  # nothing is better: two epochs
    found = edgeml.run_search(
        recipe, tmp_path / "run", callbacks=[Notes(tmp_path / "notes"), stop], finalists=True, in_process=in_process
    )
    assert len(found) == 1
    rows = [line.split()[:2] for line in (tmp_path / "notes").read_text().splitlines()]
    assert rows == 2 * [["1", "0"], ["2", "1"]]
    assert [len(c.epochs) for c in edgeml.run_search(recipe, tmp_path / "run", resume=True)] == [2]


def test_the_learning_rate_is_the_callbacks(recipe, tmp_path):
    plateau = keras.callbacks.ReduceLROnPlateau("loss", factor=0.5, min_delta=1e9, patience=1)
    callbacks = [Notes(tmp_path / "notes"), plateau]
    found = edgeml.run_search(recipe, tmp_path / "run", callbacks=callbacks, in_process=True)
    rates = [float(line.split()[2]) for line in (tmp_path / "notes").read_text().splitlines()]
    assert rates == [3e-3, 3e-3, 1.5e-3]
    assert [candidate.epochs[2]["learning_rate"] for candidate in found] == [pytest.approx(1.5e-3)]


def test_callbacks_that_cannot_go_to_a_child_are_refused_before_anything_starts(recipe, tmp_path, monkeypatch):
    odd = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: None)
    with pytest.raises(UsageError, match=r"callbacks: LambdaCallback cannot be pickled .*in_process=True"):
        edgeml.run_search(recipe, tmp_path / "run", callbacks=[odd])
    monkeypatch.setattr(Own, "__module__", "__main__")
    with pytest.raises(UsageError, match=r"callbacks: Own is defined in __main__.*in_process=True"):
        edgeml.run_search(recipe, tmp_path / "run", callbacks=[Own(tmp_path / "notes")])
    assert not (tmp_path / "run").exists()


def test_callbacks_that_a_child_cannot_import_end_the_run_with_the_reason(recipe, tmp_path, monkeypatch):
    import sys
    import types

    module = types.ModuleType("only_here")
    module.Own = type("Own", (Notes,), {"__module__": "only_here"})
    monkeypatch.setitem(sys.modules, "only_here", module)
    with pytest.raises(UsageError, match=r"callbacks: No module named 'only_here' in the process that trains"):
        edgeml.run_search(recipe, tmp_path / "run", callbacks=[module.Own(tmp_path / "notes")])
