"""Values that are given read like KerasTuner's hyper-parameters: the same networks, whatever is missing or idle."""

import keras_tuner as kt
import numpy as np
import pytest

from edgeml import scaling
from edgeml.search.given import Given
from edgeml.search.oracles._refusing import Redraw
from edgeml.search.space import Space, of_kind

SHAPES = {"images": (28, 28, 1), "windows": (49, 10), "vectors": (30,)}
DRAWS = 200


def keras_tuners(values):
    hp = kt.HyperParameters()
    hp.values = dict(values)
    return hp


class Draws(Redraw):
    """The drawing of an oracle, alone."""

    def __init__(self, space):
        self.hyperparameters, self.seed, self._seed_state = space.hyperparameters(), 1, 0


@pytest.mark.parametrize(
    ("kind", "names"),
    [(kind, names) for kind in SHAPES for names in (*([name] for name in of_kind(kind)), of_kind(kind))],
    ids=lambda value: "+".join(value) if isinstance(value, list) else value,
)
def test_every_space_reads_the_same_network_from_given_values(kind, names):
    space, rng = Space(names, SHAPES[kind], 10, scaling.rescale((0, 255))), np.random.default_rng(0)
    draw, sizes, before = Draws(space), set(), {}
    for number in range(DRAWS):
        values = draw._drawn()
        if number % 4 == 1:  # some are missing: their defaults
            values = {key: value for key, value in values.items() if rng.random() < 0.7}
        if number % 4 == 3:  # some are idle: those of another network whose conditions this one does not meet
            values = {**before, **values}
        before = values
        expected = space._scaling.operators(space._call("operators", keras_tuners(values)))
        assert space.operators(values) == expected, values
        sizes.add(sum(operator.weights for operator in expected))
    assert len(sizes) > DRAWS / 4


def scopes(hp):
    yield hp.Int("n", 2, 9), hp.Float("rate", 1, 2), hp.Boolean("flag"), hp.Fixed("one", 1), hp.Choice("c", ["x", "y"])
    yield hp.Choice("d", [3, 4], default=4), hp.Int("m", 0, 8, step=2, default=6), hp.Boolean("on", default=True)
    with hp.conditional_scope("c", ["y"]):
        yield hp.Int("below", 0, 3)
        with hp.name_scope("inner"):
            yield hp.Choice("e", ["p", "q"])
            with hp.conditional_scope("e", ["q"]):
                yield hp.Float("deep", 0.5, 1)
    yield hp.Int("beside", 1, 5, parent_name="flag", parent_values=[True]), hp.get("n"), hp["c"], "n" in hp, "f" in hp
    with hp.conditional_scope("c", "y"):  # one value may stand for a list
        yield hp.Int("alone", 7, 9)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"n": 5, "rate": 1.5, "flag": True, "one": 2, "c": "y", "inner/e": "q", "inner/deep": 0.75, "beside": 3},
        {"c": "x", "below": 3, "inner/e": "q", "alone": 8},
        {"c": "y", "flag": True},
    ],
)
def test_conditions_scopes_and_defaults_are_keras_tuners(values):
    ours, theirs = Given(values), keras_tuners(values)
    for found, expected in zip(scopes(ours), scopes(theirs), strict=True):
        assert found == expected
    assert ours.values == theirs.values
    assert [type(value) for value in ours.values.values()] == [type(value) for value in theirs.values.values()]


def test_a_name_that_was_not_read_is_a_key_error():
    with pytest.raises(KeyError, match="unread"):
        Given({}).get("unread")
