"""Decision trees as finalists: within every share of the budget, kept as files that say what scikit-learn says."""

import numpy as np
import pytest
from sklearn.datasets import load_wine

from edgeml import recipe_file, run_folder, tree_finalists
from edgeml.assembly import probabilities_of
from edgeml.errors import RecipeError
from edgeml.pipeline import load_finalist

RECIPE = """schema_version: 1
name: wine
data: {source: sklearn_table, name: wine}
search: {space: wide_deep}
budget: {params: 2_000}
ensemble: {trees: [random_forest, hist_gradient_boosting]}
export: {precision: float32}
"""


@pytest.fixture(scope="module")
def arrays():
    x, y = load_wine(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order].astype("float32"), y[order]
    return {"train": (x[:120], y[:120]), "validation": (x[120:], y[120:])}


def fitted(folder, arrays, *changes):
    run = run_folder.begin(folder / "run", recipe_file.parse(RECIPE, "r.yaml", changes), keep_finished=True)
    events = []
    try:
        found = tree_finalists.fit(run, arrays, events.append)
        return found, [probabilities_of(load_finalist(run, one), arrays["validation"][0]) for one in found], events
    finally:
        run.close()


def test_trees_of_every_share_are_kept_as_files(arrays, tmp_path):
    found, said, events = fitted(tmp_path, arrays)
    assert {one.space for one in found} == {"random_forest", "hist_gradient_boosting"}
    assert len({one.id for one in found}) == len(found) == len(events) >= 4
    shares = {one.share for one in found}
    assert len(shares) > 1
    for one, probabilities in zip(found, said, strict=True):
        assert one.cost.params <= 2_000 * one.share
        right = np.mean(probabilities.argmax(axis=1) == arrays["validation"][1])
        assert one.metrics["val_accuracy"] == pytest.approx(right)
        assert right > 0.85
        assert probabilities.sum(axis=1) == pytest.approx(1, abs=1e-5)


def test_no_trees_but_those_asked_for_and_within_budget(arrays, tmp_path):
    assert fitted(tmp_path / "none", arrays, "ensemble.trees=null")[0] == []
    only = fitted(tmp_path / "one", arrays, "ensemble.trees=random_forest")[0]
    assert {one.space for one in only} == {"random_forest"}
    assert fitted(tmp_path / "small", arrays, "budget.params=20")[0] == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["export.precision=[float32,int8]"], "random_forest, hist_gradient_boosting with export.precision int8"),
        (["budget.arena_bytes=90000"], "with budget.arena_bytes, of an int8 file"),
        (
            ["budget.latency=[{device: ethos-u55-128, runtime: vela, precision: float32, max_ms: 1}]"],
            "with a latency limit on ethos-u55-128",
        ),
        (["ensemble.trees=null", "ensemble.distill=true", "ensemble.max_members=1"], "got true with max_members 1"),
        (["ensemble.trees=[forest]"], "random_forest or hist_gradient_boosting"),
    ],
)
def test_what_trees_cannot_do_is_refused_before_anything_runs(changes, words):
    with pytest.raises(RecipeError, match=words):
        recipe_file.parse(RECIPE, "r.yaml", changes)
