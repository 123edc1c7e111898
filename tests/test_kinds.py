"""What one sample is, told by its shape."""

import pytest

from edgeml import kinds, recipe


@pytest.mark.parametrize(
    ("shape", "name", "sample", "layout"),
    [
        ((30,), "vectors", "vector", "NF"),
        ((119, 6), "windows", "window", "NTC"),
        ((8, 8, 1), "images", "image", "NHWC"),
    ],
)
def test_a_kind_is_told_by_the_number_of_sizes(shape, name, sample, layout):
    found = kinds.kind_of(shape)
    assert (found.name, found.sample, found.layout) == (name, sample, layout)
    assert len(found.layout) == len(shape) + 1


def test_a_recipe_knows_every_kind():
    assert {recipe.Data(source="npz", kind=name).kind for name in kinds.NAMES} == {"vectors", "windows", "images"}
