"""The judge of a search: memory, shares, counts, and what it says when nothing fits."""

from fractions import Fraction

import pytest

from edgeml import costs
from edgeml.devices.profile import Profile
from edgeml.errors import BudgetError
from edgeml.operators import Operator
from edgeml.precisions import File
from edgeml.records import Budget, Limit
from edgeml.search.feasibility import PATIENCE, Feasibility

SHARES = (Fraction(1), Fraction(1, 2), Fraction(1, 3))


def judge(budget, shares=(Fraction(1),), calls=None, least_use=0.0, counted=()):
    def operators(values):
        if calls is not None:
            calls.append(dict(values))
        return (
            Operator("x", "input", (), (1,)),
            Operator("d", "dense", ("x",), (1,), values["n"], 0, 10 * values["n"]),
        )

    return Feasibility(operators, budget, shares, least_use, counted=counted)


def test_a_cost_is_counted_once_whatever_the_order_and_hyperbands_own_keys():
    calls = []
    feasibility = judge(Budget(), calls=calls)
    costs = [feasibility.cost(v) for v in ({"n": 3, "m": 1}, {"m": 1, "n": 3}, {"n": 3, "m": 1, "tuner/epochs": 9})]
    assert costs[0] == costs[1] == costs[2]
    assert len(calls) == 1


def test_refused_networks_are_forgotten_in_the_end_accepted_ones_and_the_smallest_are_not(monkeypatch):
    monkeypatch.setattr("edgeml.search.feasibility.RECENT", 3)
    calls = []
    feasibility = judge(Budget(params=5), calls=calls)
    numbers = (1, 9, 8, 7, 6)
    assert [feasibility.accepts({"n": n}, 0) for n in numbers] == [True, False, False, False, False]
    for n in (1, 6, 7, 8):
        feasibility.cost({"n": n})
    assert len(calls) == len(numbers)
    feasibility.cost({"n": 9})
    assert [call["n"] for call in calls] == [*numbers, 9]
    assert feasibility.smallest() == ({"n": 1}, feasibility.needs({"n": 1}))


def test_trials_are_stratified_over_shares():
    feasibility = judge(Budget(params=30), SHARES)
    accepted = [[feasibility.accepts({"n": n}, trial) for n in (30, 15, 10)] for trial in range(6)]
    assert accepted == 2 * [[True, True, True], [False, True, True], [False, False, True]]
    assert feasibility.share({"n": 15}) == Fraction(1, 2)  # where it was accepted last


def test_refusals_are_counted_by_budget_key():
    feasibility = judge(Budget(params=5, macs=40))
    for n in (4, 5, 6):
        feasibility.accepts({"n": n}, 0)
    assert feasibility.refused == {"params": 1, "macs": 2}


def test_what_is_counted_beside_the_budget_is_no_limit():
    feasibility = judge(Budget(params=5), counted=("arena_bytes", "file_bytes"))
    cost = feasibility.cost({"n": 5})
    assert cost == judge(Budget(arena_bytes=1, file_bytes=1)).cost({"n": 5})
    assert cost.arena_bytes["int8"] > 0
    assert [feasibility.accepts({"n": n}, 0) for n in (5, 6)] == [True, False]


def test_arena_and_files_are_counted_only_where_the_budget_asks_and_with_the_formulas_error():
    assert (judge(Budget(params=5)).cost({"n": 1}).arena_bytes, judge(Budget()).cost({"n": 1}).file_bytes) == ({}, {})
    cost = judge(Budget(arena_bytes=1, file_bytes=1)).cost({"n": 1_000})
    predicted, charged = cost.file_bytes["tflite"]["float32"], costs.charged(cost).file_bytes["tflite"]["float32"]
    assert predicted < charged
    for limit, fits in ((charged, True), (charged - 1, False), (predicted, False)):
        assert judge(Budget(file_bytes=limit)).accepts({"n": 1_000}, 0) == fits
    arena = costs.charged(cost).arena_bytes["int8"]
    assert judge(Budget(arena_bytes=arena)).accepts({"n": 1_000}, 0)
    refusing = judge(Budget(arena_bytes=arena - 1), SHARES[:1])
    assert not refusing.accepts({"n": 1_000}, 0)
    assert refusing.refused == {"arena_bytes": 1}


def test_only_the_files_that_are_exported_count():
    def judged(files, **limit):
        operators = judge(Budget())._operators
        return Feasibility(operators, Budget(**limit), files=files).accepts({"n": 1_000}, 0)

    assert judged([File("tflite", "int8")], weight_bytes=1_000)
    assert not judged([File("tflite", "float32")], weight_bytes=1_000)
    assert judged([File("onnx", "int8")], file_bytes=4_000)
    assert not judged([File("onnx", "int8"), File("onnx", "float32")], file_bytes=4_000)


def test_tiny_networks_wait_until_there_are_no_others():
    """The mean over the keys counts, of the trial's own share; a space of small networks is searched all the same."""
    feasibility = judge(Budget(params=100, macs=800), SHARES[:2], least_use=0.5)
    assert [feasibility.accepts({"n": n}, 0) for n in (44, 45, 80, 81)] == [False, True, True, False]
    assert [feasibility.accepts({"n": n}, 1) for n in (22, 23, 40, 41)] == [False, True, True, False]
    assert feasibility.refused["least_use"] == 2
    assert [feasibility.accepts({"n": 1}, 0) for _ in range(PATIENCE + 1)] == [False] * PATIENCE + [True]
    assert not feasibility.accepts({"n": 1}, 0)
    assert judge(Budget(), least_use=0.5).accepts({"n": 1}, 0)


def test_a_share_that_nothing_fits_is_not_searched():
    feasibility = judge(Budget(params=30), SHARES)
    feasibility.keep_shares_for([{"n": 12}, {"n": 99}])
    assert feasibility.shares == SHARES[:2]
    assert [feasibility.accepts({"n": 16}, trial) for trial in range(3)] == [True, False, True]


def test_a_share_that_is_dry_is_given_up_but_never_the_last_one():
    feasibility = judge(Budget(params=30), SHARES)
    assert feasibility.drop_share_of(1)
    assert [feasibility.accepts({"n": 11}, trial) for trial in range(4)] == [True, False, True, False]
    assert feasibility.drop_share_of(1)
    assert not feasibility.drop_share_of(1)
    assert feasibility.shares == (1,)


def test_a_grid_gives_each_network_its_smallest_share():
    feasibility = Feasibility(judge(Budget())._operators, Budget(params=30), SHARES, in_turn=False)
    assert [feasibility.accepts({"n": n}, 0) for n in (10, 11, 16, 31)] == [True, True, True, False]
    assert [feasibility.share({"n": n}) for n in (10, 11, 16)] == [Fraction(1, 3), Fraction(1, 2), 1]
    assert not feasibility.drop_share_of(0)


def test_a_share_of_small_networks_does_not_wear_out_the_patience_with_others():
    feasibility = judge(Budget(params=100), SHARES[:2], least_use=0.5)
    for _ in range(PATIENCE):
        assert not feasibility.accepts({"n": 1}, 0)
    assert feasibility.accepts({"n": 1}, 0)
    assert not feasibility.accepts({"n": 2}, 1)


def test_nothing_fits_names_the_smallest_network_and_its_cost():
    feasibility = judge(Budget(params=1_000), SHARES)
    feasibility.cost({"n": 90_000})
    with pytest.raises(BudgetError) as caught:
        feasibility.keep_shares_for([{"n": 1_234}])
    assert str(caught.value) == (
        "budget: no network of the space fits; the smallest seen needs 1,234 params and 12,340 MACs"
        " (params 1,234 > 1,000; n=1234). Raise the budget or take a smaller space."
    )


def test_nothing_built_is_said_too():
    assert "no network of the space could be built" in str(judge(Budget()).none_fits())


LIMIT = Limit("board", "litert", "float32", max_ms=3.0)
PROFILE = Profile(
    name="board", description="", runtime="litert", runtime_version="1", precision="float32", source="", block=8,
    depth=1, coefficients={"graph:1": 1.0, "input:out": 0.0, "dense:1": 0.0, "dense:w": 1e4}, key={}, networks=50,
    range=dict.fromkeys(("graph:1", "input:out", "dense:1", "dense:w"), (0.0, 1.0)), error={"p5": 0.8, "p95": 1.1},
)  # fmt: skip


def timed(shares=(Fraction(1),), least_use=0.0, kind="dense"):
    def operators(values):
        return Operator("x", "input", (), (1,)), Operator("d", kind, ("x",), (1,), values["n"])

    return Feasibility(operators, Budget(latency=(LIMIT,)), shares, least_use, profiles={LIMIT: PROFILE})


def test_a_latency_limit_is_judged_by_the_prediction_and_its_error():
    feasibility = timed()
    assert feasibility.needs({"n": 1}).predicted[LIMIT].ms == pytest.approx(2.0)  # 2.5 with the error, 3 are allowed
    assert [feasibility.accepts({"n": n}, 0) for n in (1, 2)] == [True, False]  # 3.75 are not, nor would 3.0 be
    assert feasibility.refused == {"latency": 1}


def test_a_share_of_a_latency_limit_is_judged_as_that_of_any_other():
    feasibility = timed((Fraction(1), Fraction(1, 2)))
    assert [feasibility.accepts({"n": 1}, trial) for trial in (0, 1)] == [True, False]  # 2.5 of 3, of 1.5


def test_latency_counts_as_use_of_the_budget():
    assert timed(least_use=0.8).accepts({"n": 1}, 0)  # 2.5 of 3
    assert not timed(least_use=0.9).accepts({"n": 1}, 0)


def test_what_no_device_has_measured_is_refused_and_said():
    feasibility = timed(kind="concat")
    assert not feasibility.accepts({"n": 1}, 0)
    assert feasibility.refused == {"not_measured": 1}
    with pytest.raises(BudgetError, match=r"not_measured.*concat"):
        feasibility.keep_shares_for([{"n": 1}])
