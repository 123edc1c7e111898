"""What a search minimises beside its accuracy is what a budget limits."""

import pytest

from edgeml import costs
from edgeml.operators import Operator
from edgeml.precisions import FILES
from edgeml.records import COUNTS, Budget, Cost
from edgeml.search.objectives import minimised_value

OPERATORS = (Operator("x", "input", (), (4,)), Operator("d", "dense", ("x",), (3,), 12, 3, 12))


@pytest.mark.parametrize("name", COUNTS)
def test_an_objective_is_the_least_budget_that_it_fits(name):
    cost = costs.cost(OPERATORS, FILES)
    value = minimised_value(name, cost)
    assert value > 0
    assert not Budget(**{name: value}).violations(cost)
    assert Budget(**{name: value - 1}).violations(cost)


def test_what_was_not_counted_is_not_nothing():
    with pytest.raises(ValueError, match=r"search\.objectives: arena_bytes is not in the cost .*; count it"):
        minimised_value("arena_bytes", Cost(1, 1))


def test_latency_is_what_was_predicted_for_the_first_limit():
    assert minimised_value("latency", Cost(1, 1), [0.25, 7.0]) == 0.25
    with pytest.raises(ValueError, match="latency is not in the cost"):
        minimised_value("latency", Cost(1, 1))
