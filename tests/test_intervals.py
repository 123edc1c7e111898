"""Intervals of accuracies: textbook figures, and how often they hold the truth."""

import numpy as np
import pytest
from scipy import stats

from edgeml import intervals


def test_the_wilson_interval_is_the_textbooks():
    assert intervals.proportion(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)  # Newcombe 1998, table I
    assert intervals.proportion(0, 10)[0] == pytest.approx(0, abs=1e-9)
    assert intervals.proportion(10, 10)[1] == pytest.approx(1)


def test_balanced_accuracy_is_the_mean_recall_of_the_classes_that_occur():
    labels = np.array([0] * 8 + [1] * 2 + [3])
    predicted = np.array([0] * 8 + [0, 1] + [3])
    found = intervals.balanced_accuracy(predicted, labels)
    assert found["accuracy"] == pytest.approx((1 + 1 / 2 + 1) / 3)
    assert found["samples"] == 11
    assert found["interval_95"][0] < found["accuracy"] < found["interval_95"][1]


def test_of_one_class_it_is_the_wilson_interval():
    labels = np.zeros(10, np.int64)
    predicted = np.where(np.arange(10) < 7, 0, 1)
    assert intervals.balanced_accuracy(predicted, labels)["interval_95"] == pytest.approx(intervals.proportion(7, 10))


def test_its_interval_holds_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    labels, recalls = np.repeat([0, 1, 2], [200, 40, 20]), np.array([0.95, 0.8, 0.6])
    held = 0
    for _ in range(1000):
        right = rng.random(len(labels)) < recalls[labels]
        low, high = intervals.balanced_accuracy(np.where(right, labels, (labels + 1) % 3), labels)["interval_95"]
        held += low <= recalls.mean() <= high
    assert 0.93 <= held / 1000 <= 0.98


def test_a_difference_of_two_models_on_the_same_rows():
    """Agresti & Min 2005: half a row more of each, so that no interval has no width."""
    low, high = intervals.paired_difference(30, 10, 400)
    assert (low, high) == pytest.approx((0.0189, 0.0806), abs=1e-4)
    assert intervals.paired_difference(10, 30, 400) == pytest.approx((-high, -low))
    low, high = intervals.paired_difference(0, 0, 100)
    assert -0.02 < low < 0 < high < 0.02


def test_mcnemar_is_the_sign_test_of_the_rows_where_one_alone_is_right():
    from scipy.stats import binomtest

    for only, other in ((3, 9), (9, 3), (1, 20), (1300, 1260), (5, 5), (0, 1)):
        assert intervals.mcnemar(only, other) == pytest.approx(binomtest(only, only + other).pvalue)
    assert intervals.mcnemar(0, 0) == 1


def test_the_bootstrap_interval_is_near_wilsons():
    right = np.arange(360) < 340
    assert intervals.bootstrap(right) == pytest.approx(intervals.proportion(340, 360), abs=0.012)
    assert intervals.bootstrap(np.ones(50, bool)) == (1.0, 1.0)


def test_calibration_error_by_hand_and_of_who_says_what_is_true():
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.3, 0.7], [0.3, 0.7]])
    assert intervals.calibration_error(probabilities, np.array([0, 0, 1, 0])) == pytest.approx(0.5 * 0.1 + 0.5 * 0.2)
    rng = np.random.default_rng(0)
    said = rng.dirichlet(np.ones(3), 20_000)
    labels = (said.cumsum(axis=1) > rng.random((20_000, 1))).argmax(axis=1)
    assert intervals.calibration_error(said, labels) < 0.015
    sure = np.eye(3)[said.argmax(axis=1)]
    assert intervals.calibration_error(sure, labels) > 0.3


@pytest.mark.parametrize(("count", "n", "rate"), [(0, 60, 0.001), (1, 60, 0.001), (6, 512, 0.001), (3, 10, 0.5)])
def test_a_tail_is_that_of_the_binomial_distribution(count, n, rate):
    assert intervals.tail(count, n, rate) == pytest.approx(stats.binom.sf(count - 1, n, rate), abs=1e-12)
