"""Intervals, by hand and by scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from lalp import stats as lalp_stats
from lalp.stats import mean_interval, percentile_interval, t_interval, wilson_interval


def test_two_values_give_the_ends():
    # A resample of two is (a, a), (a, b) or (b, b): a quarter of all means is each end.
    assert mean_interval(np.array([-1.0, 3.0]), 1000, 0) == (-1, 3)


@pytest.mark.parametrize("values", [[], [2.0]])
def test_too_few_values_give_none(values):
    assert all(math.isnan(end) for end in mean_interval(np.array(values), 100, 0))


def test_it_comes_near_the_normal_interval():
    values = np.random.default_rng(1).normal(2, 1, 400)
    low, high = mean_interval(values, 5000, 0)
    expected = stats.norm.interval(0.95, values.mean(), values.std() / 20)
    assert (low, high) == pytest.approx(expected, abs=0.01)


def test_the_same_seed_draws_the_same_units():
    values = np.random.default_rng(2).normal(size=30)
    assert np.array(mean_interval(values + 5, 500, 3)) - 5 == pytest.approx(
        mean_interval(values, 500, 3)
    )
    assert mean_interval(values, 500, 3) != mean_interval(values, 500, 4)


def test_batches_change_nothing(monkeypatch):
    values = np.random.default_rng(5).normal(size=20)
    whole = mean_interval(values, 300, 0)
    monkeypatch.setattr(lalp_stats, "_BATCH_NUMBERS", 100)
    assert mean_interval(values, 300, 0) == pytest.approx(whole)


def test_the_t_interval_of_two_values_is_wide():
    found = t_interval([0.2, 0.4, math.nan])
    # Half the width is t(0.975, 1) = 12.7062 standard errors, and one of them is 0.1.
    assert (found.value, found.num_units) == (pytest.approx(0.3), 2)
    assert (found.high - found.low) / 0.2 == pytest.approx(12.7062)


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0.5, 0.5], (0.5, 0.5, 0.5)), ([0.5], (0.5, math.nan, math.nan)), ([], (math.nan,) * 3)],
)
def test_the_t_interval_where_nothing_varies_or_is_known(values, expected):
    found = t_interval(values)
    assert (found.value, found.low, found.high) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(("successes", "trials"), [(0, 8), (3, 10), (8, 8)])
def test_wilsons_interval_is_scipys(successes, trials):
    expected = stats.binomtest(successes, trials).proportion_ci(method="wilson")
    found = wilson_interval(successes / trials, trials)
    assert found == pytest.approx((expected.low, expected.high))


def test_undefined_resamples_do_not_count_and_one_unit_has_no_interval():
    draws = np.array([[1.0], [math.nan], [3.0]])
    assert percentile_interval(draws, 2, level=0.5).tolist() == [[1.5], [2.5]]
    assert np.isnan(percentile_interval(draws, 1)).all()
