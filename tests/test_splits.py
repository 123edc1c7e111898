"""Splits: exact shares, every class everywhere, copies together, the same on every machine."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import time
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgeml import data
from edgeml.data import Dataset
from edgeml.errors import DataError, RecipeError
from edgeml.recipe import Data, Splits
from edgeml.splits import Partition, _together, apportion, split, standardization

HELD_OUT = ("validation", "blend", "test")
GIVEN = Splits(test="given")


def dataset(y: list[int], *, content: list[int] | None = None, test: list[int] | None = None) -> Dataset:
    """Samples of four bytes that tell ``content``, by default all different; test samples start at 10^9."""

    def bytes_of(numbers: list[int]) -> np.ndarray:
        return np.array(numbers, "<u4").view(np.uint8).reshape(-1, 2, 2, 1)

    return Dataset(
        x=bytes_of(list(range(len(y))) if content is None else content),
        y=np.array(y, np.int64),
        labels=tuple(f"class {k}" for k in range(max(y) + 1)),
        value_range=(0.0, 255.0),
        test=None if test is None else (bytes_of([10**9 + k for k in range(len(test))]), np.array(test, np.int64)),
    )


def by_class(counts: list[int]) -> list[int]:
    return [k for k, count in enumerate(counts) for _ in range(count)]


def check_whole(partition: Partition, samples: int) -> None:
    """Every sample is in exactly one split."""
    drawn = [part.indices for name, part in partition.parts.items() if name != "test" or not partition.test_given]
    assert sorted(np.concatenate(drawn).tolist()) == list(range(samples))


shares = st.integers(1, 30).map(lambda percent: percent / 100)
seeds = st.integers(0, 2**31 - 1)


@given(st.lists(st.integers(8, 90), min_size=2, max_size=12), shares, shares, shares, seeds)
@settings(deadline=None, max_examples=150)
def test_shares_are_exact_to_a_sample_and_no_class_is_missing(counts, validation, blend, test, seed):
    partition = split(dataset(by_class(counts)), Splits(validation=validation, blend=blend, test=test), seed)

    check_whole(partition, sum(counts))
    assert list(partition.parts) == ["train", *HELD_OUT]
    exact = dict(zip(HELD_OUT, (Fraction(str(share)) for share in (validation, blend, test)), strict=True))
    for name, share in exact.items():
        drawn = list(partition.parts[name].per_class.values())
        smallest_fits = all(share * count >= 1 for count in counts)
        for got, count in zip(drawn, counts, strict=True):
            assert abs(got - share * count) < 1 or got == 1
        if smallest_fits and all((1 - sum(exact.values())) * count >= 3 for count in counts):
            assert abs(sum(drawn) - share * sum(counts)) < 1
    assert all(count >= 1 for part in partition.parts.values() for count in part.per_class.values())
    assert partition.notes == ()


@given(st.data(), st.lists(st.integers(8, 40), min_size=2, max_size=5), seeds)
@settings(deadline=None, max_examples=150)
def test_copies_stay_together_and_no_class_is_missing(draw, counts, seed):
    y = by_class(counts)
    content = []
    for index, k in enumerate(y):
        place = index - y.index(k)
        repeats = place >= 4 and draw.draw(st.booleans())  # one of the first four of its class, which all differ
        content.append(index - place + place % 4 if repeats else index)

    partition = split(dataset(y, content=content), Splits(), seed)

    check_whole(partition, len(y))
    held = [{content[index] for index in part.indices} for part in partition.parts.values()]
    assert all(not a & b for a, b in itertools.combinations(held, 2))
    assert all(count >= 1 for part in partition.parts.values() for count in part.per_class.values())
    assert bool(partition.notes) == (len(set(content)) < len(y))


def test_copies_go_to_train_and_shares_stay_exact():
    y = by_class([50, 50])
    content = list(range(100))
    content[10:15] = [3] * 5  # six copies of sample 3
    content[60:62] = [70, 71]
    whole = dataclasses.replace(dataset(y, content=content), ids=tuple(f"file{k}" for k in range(100)))
    for seed in range(20):
        partition = split(whole, Splits(), seed)
        assert {3, *range(10, 15), 60, 61, 70, 71} <= set(partition.parts["train"].indices.tolist())
        assert [len(part.indices) for part in partition.parts.values()] == [60, 10, 10, 20]
    assert partition.notes == (
        "copies of other samples: 7 (file3 = file10, file3 = file11, file3 = file12, …); copies stay in one split",
    )


def test_a_sample_with_two_labels_is_in_train_and_reported():
    content = list(range(100))
    content[80] = 7
    for seed in range(20):
        partition = split(dataset(by_class([50, 50]), content=content), Splits(), seed)
        assert {7, 80} <= set(partition.parts["train"].indices.tolist())
    assert partition.notes == (
        "identical samples of different classes: 1 (sample 7 = sample 80); all are in train: correct them",
    )


def test_too_few_different_samples_are_refused():
    with pytest.raises(
        DataError, match=r"class 'class 1' has 3 different samples .*; each of train, validation, blend, test"
    ):
        split(dataset(by_class([9, 9]), content=[*range(9), *[20, 21, 22] * 3]), Splits(), 1)
    assert split(dataset(by_class([9, 9]), content=[*range(9), *[20, 21, 22] * 3], test=[0, 1]), GIVEN, 1)


def test_few_different_samples_are_spread_over_all_splits():
    """A split stops short of its quota before it takes what another one needs to see the class at all."""
    whole = dataset(by_class([8, 8]), content=[*range(8), 20, 21, *[22] * 3, *[23] * 3])
    partition = split(whole, Splits(validation=0.25, blend=0.25, test=0.25), 0)
    assert sorted(part.per_class["class 1"] for part in partition.parts.values()) == [1, 1, 3, 3]


def test_the_seed_decides_and_so_does_nothing_else():
    whole = dataset(by_class([30, 20, 10]))
    zero, again, one = (split(whole, Splits(), seed).to_json() for seed in (0, 0, 1))
    assert zero == again
    assert zero["splits"] != one["splits"]
    # Golden: NumPy's PCG64 draws the same on every machine.
    assert zero["splits"]["test"]["indices"] == [11, 30, 18, 36, 2, 3, 35, 57, 48, 54, 24, 23]


def test_every_split_comes_in_random_order():
    """Whoever takes the first samples of a split, for calibration say, gets all classes."""
    partition = split(dataset(by_class([500, 500]), test=by_class([500, 500])), GIVEN, 3)
    for part in partition.parts.values():
        assert part.indices.tolist() != sorted(part.indices)
    for _, y in partition.arrays(dataset(by_class([500, 500]), test=by_class([500, 500]))).values():
        assert 0.2 < y[:50].mean() < 0.8


def test_arrays_are_what_the_record_says():
    whole = dataset(by_class([30, 20]), test=by_class([3, 4]))
    partition = split(whole, GIVEN, 5)
    arrays = partition.arrays(whole)
    assert list(arrays) == ["train", "validation", "blend", "test"]
    written = json.loads(json.dumps(partition.to_json()))
    assert written["seed"] == 5
    assert written["test_given"] is True
    for name, (x, y) in arrays.items():
        record = written["splits"][name]
        source = whole.test if name == "test" else (whole.x, whole.y)
        np.testing.assert_array_equal(x, source[0][record["indices"]])
        np.testing.assert_array_equal(y, source[1][record["indices"]])
        assert record["samples"] == len(y)
        assert record["per_class"] == {f"class {k}": int((y == k).sum()) for k in (0, 1)}
        assert record["sha256"]["x"] == hashlib.sha256(x.tobytes()).hexdigest()
        assert record["sha256"]["y"] == hashlib.sha256(y.tobytes()).hexdigest()


def test_a_given_test_split_is_used():
    whole = dataset(by_class([50, 50]), test=[0, 1, 1])
    partition = split(whole, GIVEN, 1)
    assert [len(part.indices) for part in partition.parts.values()] == [80, 10, 10, 3]
    assert partition.notes == ()
    unsaid = split(whole, Splits(), 1)
    assert unsaid.parts["test"].sha256_x == partition.parts["test"].sha256_x
    assert unsaid.notes == ("the source gives its own test split of 3 samples; it is used",)


def test_a_test_share_that_does_not_fit_the_source_is_refused():
    with pytest.raises(
        RecipeError, match=r"^data\.splits\.test: 0\.3, but the source gives its own test split; only `given`"
    ):
        split(dataset(by_class([20, 20]), test=[0, 1]), Splits(test=0.3), 1)
    with pytest.raises(RecipeError, match=r"^data\.splits\.test: given, but the source gives no test split; a share"):
        split(dataset(by_class([20, 20])), GIVEN, 1)


def test_shares_that_leave_nothing_for_train_are_refused():
    with pytest.raises(RecipeError, match=r"validation 0\.5 \+ blend 0\.3 \+ test 0\.2 leave nothing for train"):
        split(dataset(by_class([20, 20])), Splits(validation=0.5, blend=0.3), 1)


def test_given_test_samples_that_training_sees_are_reported():
    whole = dataset(by_class([20, 20]), test=[0, 1, 1])
    x_test = whole.test[0].copy()
    x_test[1:] = whole.x[[4, 25]]
    partition = split(dataclasses.replace(whole, test=(x_test, whole.test[1])), GIVEN, 1)
    assert partition.notes == (
        "2 of 3 given test samples also occur in the other splits (the first at index 1): figures on test flatter by "
        "as much",
    )


@given(st.lists(st.integers(4, 200), min_size=1, max_size=30), shares, shares, shares)
@example([8, 8], 0.3, 0.3, 0.3)  # rounding up three times would leave train nothing of the first class
@settings(deadline=None, max_examples=300)
def test_apportion_keeps_a_sample_for_every_split(counts, validation, blend, test):
    exact = {name: Fraction(str(share)) for name, share in zip(HELD_OUT, (validation, blend, test), strict=True)}
    quotas = apportion(counts, exact)
    for k, count in enumerate(counts):
        assert all(quotas[name][k] >= 1 for name in HELD_OUT)
        assert sum(quotas[name][k] for name in HELD_OUT) < count


def test_apportion_spreads_what_rounding_takes():
    """Ten classes of 25 at 10 %: 2.5 each. What validation takes more of, blend takes less of."""
    quotas = apportion([25] * 10, {"validation": Fraction(1, 10), "blend": Fraction(1, 10)})
    assert sum(quotas["validation"]) == sum(quotas["blend"]) == 25
    assert [a + b for a, b in zip(*quotas.values(), strict=True)] == [5] * 10


def test_groups_that_hold_copies_of_one_sample_are_one():
    assert _together([0, 1, 0, 3, 4], (7, 8, 8, 9, 9)) == [0, 0, 0, 3, 3]
    assert _together([0, 1, 0], ()) == [0, 1, 0]


def test_trashnet_copies_are_found(shared_data):
    photos = data.load(Data(source="image_folder", path=str(shared_data / "data" / "trashnet150")))
    started = time.perf_counter()
    partition = split(photos, Splits(), 1)
    assert time.perf_counter() - started < 3
    assert partition.notes == (
        "identical samples of different classes: 3 (glass/glass115.jpg = metal/metal91.jpg, glass/glass176.jpg = "
        "plastic/plastic152.jpg, glass/glass389.jpg = plastic/plastic332.jpg); all are in train: correct them",
    )
    assert [len(part.indices) for part in partition.parts.values()] == [1516, 253, 253, 505]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_standardization_is_per_channel_in_float64(dtype):
    rng = np.random.default_rng(0)
    x = (rng.normal([120, 60, 200], [30, 5, 9], (2500, 4, 4, 3)).clip(0, 255)).astype(dtype)
    mean, variance = standardization(x)
    assert mean.dtype == variance.dtype == np.float64
    wide = x.astype(np.float64)
    np.testing.assert_allclose(mean, wide.mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(variance, wide.var(axis=(0, 1, 2)), rtol=1e-10)


def test_standardization_of_a_narrow_offset_does_not_cancel():
    x = np.full((3000, 2, 2, 1), 1000.0, np.float32)
    x[::2] += 2**-10
    np.testing.assert_allclose(standardization(x)[1], [(2**-11) ** 2], rtol=1e-9)
