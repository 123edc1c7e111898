"""A rehearsed search: what it says of the space, and that it says the same as the search would."""

import pytest
from foreign import SMALL_SPACE, install

from edgeml import recipe_file, scaling
from edgeml.errors import BudgetError
from edgeml.search import rehearsal
from edgeml.search.space import Space

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
    told = rehearsal.rehearse(recipe_file.parse(RECIPE % ("small", 200), "r"), lambda event: None)
    assert told["space"]["size"] == 2
    assert 0.4 < told["space"]["feasible_share"] < 0.6  # one width of two
    assert told["smallest"]["params"] == 9 * 8 + 8 + 8 * 10 + 10
    assert told["largest"]["params"] == 9 * 16 + 16 + 16 * 10 + 10
    assert told["estimated_seconds"] > 0


def test_a_budget_that_only_the_smallest_fits_passes_and_one_below_it_does_not():
    told = rehearsal.rehearse(recipe_file.parse(RECIPE % ("separable_cnn", 259), "r"), lambda event: None)
    assert told["smallest"]["params"] == 259
    with pytest.raises(BudgetError, match="the smallest seen needs 259 params"):
        rehearsal.rehearse(recipe_file.parse(RECIPE % ("separable_cnn", 258), "r"), lambda event: None)
