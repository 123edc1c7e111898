"""Budget, Cost and their meeting; records to JSON."""

import json
from fractions import Fraction

import numpy as np
import pytest

from edgeml.records import COUNTS, Budget, Cost, Event, Limit, to_json

LIMIT = Limit("host", "onnxruntime", "float32", 1.0)


def test_a_cost_at_the_limit_is_feasible_and_one_above_is_not():
    budget = Budget(params=10, macs=100, peak_activation_bytes=50)
    assert budget.violations(Cost(10, 100, {}, 50)) == []
    assert budget.violations(Cost(11, 100, {}, 50)) == ["params 11 > 10"]
    assert budget.violations(Cost(1234, 101, {}, 51)) == [
        "params 1,234 > 10", "macs 101 > 100", "peak_activation_bytes 51 > 50",
    ]  # fmt: skip


def test_no_limit_is_no_limit():
    assert Budget().violations(Cost(10**9, 10**12)) == []


@pytest.mark.parametrize("value", [0, -1, "x", "30000", 1.5, True, float("nan"), float("inf")])
def test_a_budget_that_cannot_be_is_refused(value):
    for key in COUNTS:
        with pytest.raises(ValueError, match=rf"budget\.{key}: .*; a whole number of at least 1, or None, is due"):
            Budget(**{key: value})
    assert Budget(params=np.int64(3)).params == 3


FIELDS = {"device": "host", "runtime": "litert", "precision": "int8", "max_ms": 0.5}


def test_latency_limits_may_be_dicts():
    assert Budget(latency=[FIELDS]).latency == (Limit(**FIELDS),)
    for wrong in ("host", FIELDS, [{"max_ms": 0.5}], [{**FIELDS, "foo": 1}], [3]):
        with pytest.raises(ValueError, match=r"budget\.latency: "):
            Budget(latency=wrong)
    for ms in (0, -1, "a", None, [1], float("nan"), float("inf"), True):
        with pytest.raises(ValueError, match=r"host/litert/int8: max_ms is .*; a number above 0 is due"):
            Budget(latency=[{**FIELDS, "max_ms": ms}])


def test_a_share_of_a_small_budget_is_a_budget():
    assert Budget(params=1).scaled(Fraction(1, 3)).params == 1


def test_of_weights_the_smallest_precision_counts_and_of_files_the_largest():
    files = {"tflite": {"float32": 90, "int8": 40}, "onnx": {"float32": 100}}
    cost = Cost(10, 100, {"float32": 40, "int8": 10}, 50, {"int8": 70}, files)
    assert Budget(weight_bytes=10, file_bytes=100, arena_bytes=70).violations(cost) == []
    assert Budget(weight_bytes=9, file_bytes=99, arena_bytes=69).violations(cost) == [
        "weight_bytes 10 > 9", "file_bytes 100 > 99", "arena_bytes 70 > 69",
    ]  # fmt: skip
    assert Budget(weight_bytes=20, file_bytes=200, arena_bytes=140).use(cost) == 0.5
    assert Budget(weight_bytes=39).violations(Cost(10, 100, {"float32": 40})) == ["weight_bytes 40 > 39"]


@pytest.mark.parametrize("key", ["weight_bytes", "file_bytes", "arena_bytes"])
def test_what_was_not_counted_is_not_within_a_budget(key):
    assert Budget(params=1).violations(Cost(1, 1)) == []
    for judged in ("violations", "use"):
        with pytest.raises(ValueError, match=f"budget.{key}: the cost .* was counted without it"):
            getattr(Budget(**{key: 10}), judged)(Cost(1, 1))


def test_latency_is_judged_only_where_it_is_known():
    budget = Budget(latency=(LIMIT,))
    assert budget.violations(Cost(1, 1)) == []
    assert budget.violations(Cost(1, 1), {LIMIT: 1.0}) == []
    assert budget.violations(Cost(1, 1), {LIMIT: 1.5}) == ["latency on host/onnxruntime/float32 1.500 ms > 1 ms"]


def test_a_share_scales_every_key_and_rounds_down():
    scaled = Budget(params=100, macs=10, latency=(LIMIT,)).scaled(Fraction(1, 3))
    assert (scaled.params, scaled.macs, scaled.peak_activation_bytes) == (33, 3, None)
    assert abs(scaled.latency[0].max_ms - 1 / 3) < 1e-12
    assert Budget(file_bytes=7, arena_bytes=9).scaled(Fraction(1, 2)) == Budget(file_bytes=3, arena_bytes=4)
    assert Budget(params=99).scaled(Fraction(1, 3)).params == 33  # in floats: 32


def test_records_become_plain_json():
    record = Event("search", "x", {"cost": Cost(1, 2, {"int8": 3}), "share": Fraction(1, 2), "n": np.int64(4),
                                   "a": np.array([1.5]), "s": {1}, "none": None})  # fmt: skip
    assert json.loads(json.dumps(to_json(record)))["data"] == {
        "cost": {
            "params": 1, "macs": 2, "weight_bytes": {"int8": 3}, "peak_activation_bytes": 0, "arena_bytes": {},
            "file_bytes": {},
        },
        "share": "1/2", "n": 4, "a": [1.5], "s": [1], "none": None,
    }  # fmt: skip
