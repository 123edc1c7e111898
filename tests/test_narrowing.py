"""A space that a recipe makes smaller: what is proposed, and what is refused of the recipe."""

import pytest

from edgeml import scaling
from edgeml.errors import RecipeError
from edgeml.records import Budget
from edgeml.search import oracles
from edgeml.search.feasibility import Feasibility
from edgeml.search.space import Space

BOTH = ("ds_cnn", "separable_cnn")


def space(names=("ds_cnn",), only=()):
    return Space(names, (28, 28, 1), 10, scaling.rescale((0, 255)), only)


def proposals(networks, oracle="random", count=12):
    """What an oracle proposes; each trial is told, so that those with a model make one."""
    judge = Feasibility(networks.operators, Budget(params=20_000))
    asked = oracles.create(
        oracle, accepts=judge.accepts, hyperparameters=networks.hyperparameters(), max_trials=count, epochs=1, seed=3,
        needs=judge.needs,
    )  # fmt: skip
    asked.save = asked._save_trial = lambda *_: None
    found = []
    for number in range(count):
        trial = asked.create_trial(f"t{number}")
        found.append(trial.hyperparameters.values)
        asked.update_trial(trial.trial_id, {"val_accuracy": number / 20})
        trial.status = "COMPLETED"
        asked.end_trial(trial)
    return found


@pytest.mark.parametrize("oracle", ["random", "bayesian", "tpe", "nsga2"])
def test_every_oracle_keeps_to_the_values_that_are_left(oracle):
    only = ("residual=true", "stage_*_norm=batch", "optimizer=adam|adamw", "stages=2|3", "learning_rate=0.003",
            "stage_1_width=16|32")  # fmt: skip
    found = proposals(space(only=only), oracle)
    for values in found:
        assert values["residual"] is True
        assert {v for name, v in values.items() if name.endswith("_norm")} == {"batch"}
        assert values["learning_rate"] == 0.003
        assert values["stage_1_width"] in (16, 32)
        assert "stage_4_width" not in values or values["stages"] == 4
    assert {values["stages"] for values in found} == {2, 3}
    assert {values["optimizer"] for values in found} == {"adam", "adamw"}
    assert len({values["stage_1_kernel"] for values in found}) == 2


def test_a_name_fits_with_and_without_its_space():
    networks = space(BOTH, ["residual=true", "separable_cnn/conv=regular", "space=separable_cnn"])
    for values in proposals(networks):
        assert values["space"] == "separable_cnn"
        assert values["separable_cnn/residual"] is True
        assert values["separable_cnn/conv"] == "regular"
        assert not any(name.startswith("ds_cnn/") for name in values)


def test_conditions_and_the_rest_of_the_space_stay():
    whole, narrow = space().hyperparameters(), space(only=["stage_2_width=64", "residual=true|false"]).hyperparameters()
    assert [entry.name for entry in narrow.space] == [entry.name for entry in whole.space]
    for before, after in zip(whole.space, narrow.space, strict=True):
        assert [c.get_config() for c in after.conditions] == [c.get_config() for c in before.conditions]
        assert (after.get_config() == before.get_config()) == (before.name != "stage_2_width")


def test_the_default_is_the_smallest_that_is_left():
    assert space(only=["stage_1_width=48|32"]).hyperparameters().values["stage_1_width"] == 32
    assert space(only=["stem_width=32|8"]).hyperparameters().values["stem_width"] == 8


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("residul=true", ["'residul' fits no hyper-parameter", "Did you mean 'residual'?"]),
        ("stage_9_width=16", ["fits no hyper-parameter"]),
        ("residual=yes", ["residual cannot be yes", "true, false are allowed"]),
        ("stages=5", ["stages cannot be 5"]),
        ("stages=1|x", ["stages cannot be x"]),
        ("learning_rate=0.5", ["learning_rate cannot be 0.5", "0.001 to 0.01 are allowed"]),
        ("learning_rate=fast", ["learning_rate cannot be fast"]),
        ("optimizer=adam|", ["optimizer cannot be"]),
    ],
)
def test_what_the_space_does_not_have_is_named(rule, words):
    with pytest.raises(RecipeError) as caught:
        space(only=[rule]).hyperparameters()
    assert str(caught.value).startswith("search.only: ")
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)
