"""Intervals, tests and numbers of units, by hand and by scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from lalp.errors import InputError
from lalp.stats import (
    FEW_UNITS,
    LEAST_RESAMPLED,
    Estimate,
    bca_interval,
    bootstrap_interval,
    detectable,
    draws,
    holm,
    holm_signs,
    hotelling_test,
    mean_interval,
    mean_of_means_interval,
    means_interval,
    needed_text,
    p_value,
    paired_shares_interval,
    percentile_interval,
    power_of,
    t_interval,
    trials_needed,
    units_needed,
    what_resolves,
    what_resolves_all,
    wilson_interval,
)


@pytest.mark.parametrize("size", [2, 18, FEW_UNITS - 1])
def test_few_values_have_students_t_interval(size):
    values = np.random.default_rng(size).normal(2, 1, size)
    expected = stats.ttest_1samp(values, 0).confidence_interval()
    assert mean_interval(values, 100, 0) == pytest.approx((expected.low, expected.high))
    found = means_interval(values[:, None], np.zeros((9, 1)))
    assert found[:, 0] == pytest.approx([expected.low, expected.high])


def test_many_values_have_a_percentile_interval():
    values = np.random.default_rng(0).normal(size=(FEW_UNITS, 2))
    draws = np.random.default_rng(1).normal(size=(500, 2))
    expected = np.quantile(draws, [0.025, 0.975], axis=0)
    assert means_interval(values, draws) == pytest.approx(expected)
    without = np.zeros((FEW_UNITS, 2))
    assert bootstrap_interval(np.zeros(2), draws, without) == pytest.approx(expected)


@pytest.mark.parametrize("values", [[], [2.0]])
def test_too_few_values_give_none(values):
    assert all(math.isnan(end) for end in mean_interval(np.array(values), 100, 0))


def test_it_comes_near_the_normal_interval():
    values = np.random.default_rng(1).normal(2, 1, 400)
    low, high = mean_interval(values, 5000, 0)
    expected = stats.norm.interval(0.95, values.mean(), values.std() / 20)
    assert (low, high) == pytest.approx(expected, abs=0.01)


def test_the_same_seed_draws_the_same_units():
    values = np.random.default_rng(2).normal(size=60)
    assert np.array(mean_interval(values + 5, 500, 3)) - 5 == pytest.approx(
        mean_interval(values, 500, 3)
    )
    assert mean_interval(values, 500, 3) != mean_interval(values, 500, 4)


def test_batches_change_nothing(monkeypatch):
    values = np.random.default_rng(5).normal(size=60)
    whole = mean_interval(values, 300, 0)
    monkeypatch.setattr(draws, "_BATCH_NUMBERS", 100)
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


def test_a_mean_of_means_has_welchs_interval():
    one, other = (np.random.default_rng(i).normal(i, 1 + i, 9 + 4 * i) for i in (0, 1))
    # Half the sum of two means: Welch's test of their sum.
    expected = stats.ttest_ind(one, -other, equal_var=False).confidence_interval()
    found = mean_of_means_interval([one, other], 9, 0)
    assert found == pytest.approx((expected.low / 2, expected.high / 2))
    assert mean_of_means_interval([one], 9, 0) == pytest.approx(mean_interval(one, 9, 0))
    # A stratum in which nothing varies adds nothing.
    constant = mean_of_means_interval([one, np.ones(5)], 9, 0)
    assert np.ptp(constant) == pytest.approx(np.ptp(mean_interval(one, 9, 0)) / 2)
    assert mean_of_means_interval([np.ones(5), np.ones(2) * 3], 9, 0) == (2, 2)
    assert all(math.isnan(end) for end in mean_of_means_interval([one, np.ones(1)], 9, 0))
    many = [np.random.default_rng(i).normal(i, 1, FEW_UNITS) for i in (0, 1)]
    expected = np.mean(many), 1.96 * math.sqrt(sum(v.var() for v in many) / FEW_UNITS) / 2
    low, high = mean_of_means_interval(many, 4000, 0)
    assert (low + high) / 2 == pytest.approx(expected[0], abs=0.02)
    assert (high - low) / 2 == pytest.approx(expected[1], rel=0.05)


def test_a_difference_of_paired_shares_by_hand():
    first, second = np.array([1.0] * 6 + [0] * 4), np.array([1.0] * 3 + [0] * 6 + [1])
    # Both, the first alone, the second alone, neither: 3, 3, 1, 3, and a half more in each.
    alike = (3.5 * 3.5 - 3.5 * 1.5) / math.sqrt(7 * 5 * 5 * 7)
    (low, high), (low2, high2) = wilson_interval(0.6, 10), wilson_interval(0.4, 10)
    below, above = (0.6 - low, high2 - 0.4), (high - 0.6, 0.4 - low2)
    ends = [math.sqrt(a**2 + b**2 - 2 * alike * a * b) for a, b in (below, above)]
    found = paired_shares_interval(first, second)
    assert found == pytest.approx((0.2 - ends[0], 0.2 + ends[1]))
    back = paired_shares_interval(second, first)
    assert found == pytest.approx((-back[1], -back[0]))
    # What always agrees is not known to agree for certain.
    assert np.ptp(paired_shares_interval(first, first)) > 0.3
    assert all(math.isnan(end) for end in paired_shares_interval(first[:0], first[:0]))


def test_paired_shares_of_few_problems_hold_the_truth():
    generator, held = np.random.default_rng(9), 0
    for _ in range(600):
        # Of four kinds of problems, each model solves three: on half of them they agree.
        kinds = generator.integers(4, size=12)
        low, high = paired_shares_interval((kinds > 0).astype(float), (kinds < 3).astype(float))
        held += low <= 0 <= high
    assert held / 600 > 0.93


def test_undefined_resamples_do_not_count_and_one_unit_has_no_interval():
    draws = np.array([[1.0], [math.nan], [3.0]])
    assert percentile_interval(draws, 2, level=0.5).tolist() == [[1.5], [2.5]]
    assert np.isnan(percentile_interval(draws, 1)).all()


# --- statistics that are no plain means -----------------------------------------------------------


def resampled_ratio(
    pairs: np.ndarray, num_resamples: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A ratio of sums ``[units, 2, ...]``, that of resamples, and that without each unit."""
    number = len(pairs)
    times = np.random.default_rng(seed).multinomial(number, [1 / number] * number, num_resamples)
    sums = [pairs.sum(axis=0), np.tensordot(times.astype(float), pairs, 1)]
    without = pairs.sum(axis=0) - pairs
    return sums[0][0] / sums[0][1], sums[1][:, 0] / sums[1][:, 1], without[:, 0] / without[:, 1]


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_bca_is_scipys(level):
    pairs = np.random.default_rng(3).lognormal(size=(18, 2))
    found = bca_interval(*resampled_ratio(pairs, 20_000, 0), level)
    expected = stats.bootstrap(
        tuple(pairs.T),
        lambda a, b, axis=-1: a.sum(axis) / b.sum(axis),
        paired=True,
        confidence_level=level,
        n_resamples=20_000,
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert found == pytest.approx([expected.low, expected.high], abs=0.04)


def test_bca_of_the_same_draws_is_scipys_formula_to_the_last_digits():
    values = np.random.default_rng(4).lognormal(size=12)
    oracle = stats.bootstrap((values,), np.mean, n_resamples=999, rng=np.random.default_rng(2))
    draws, without = oracle.bootstrap_distribution, (values.sum() - values) / 11
    found = bca_interval(values.mean(), draws, without)
    assert found == pytest.approx(list(oracle.confidence_interval))
    # Several columns at once, one of them with draws that do not count.
    twice = np.stack([draws, draws], axis=1)
    twice = np.vstack([twice, [[math.nan, draws.mean()]] * 3])
    both = bca_interval(np.full(2, values.mean()), twice, np.stack([without, without], axis=1))
    assert both[:, 0] == pytest.approx(found)


def covered(ends: np.ndarray, truth: float) -> float:
    return float(((ends[0] <= truth) & (truth <= ends[1])).mean())


def test_intervals_of_few_units_hold_the_truth_more_often_than_percentiles():
    # Means of 18 lognormal values; 2,000 of them at once.
    values = np.random.default_rng(5).lognormal(0, 0.5, (18, 2000))
    pairs = np.stack([values, np.ones_like(values)], axis=1)
    found, truth = resampled_ratio(pairs, 1000, 1), math.exp(0.5**2 / 2)
    percentiles = covered(percentile_interval(found[1], 18), truth)
    assert 0.89 < percentiles < 0.925
    assert covered(bootstrap_interval(*found), truth) > percentiles + 0.015
    assert covered(means_interval(values, found[1]), truth) > percentiles + 0.015
    # Of four units, resamples take few values: Student's t with the jackknife's error does better.
    few = resampled_ratio(pairs[:4], 300, 1)
    assert covered(percentile_interval(few[1], 4), truth) < 0.8
    assert covered(bootstrap_interval(*few), truth) > 0.9


def test_means_of_very_few_units_have_students_t_interval_either_way():
    values = np.array([1.0, 2.0, 4.0, 7.0, 1.5])
    assert len(values) < LEAST_RESAMPLED
    found = bootstrap_interval(values.mean(), np.zeros(9), (values.sum() - values) / 4)
    assert found == pytest.approx(mean_interval(values, 9, 0))


DRAWS = np.random.default_rng(6).normal(size=400)
WITHOUT = np.random.default_rng(7).normal(0, 0.1, 12)
WIDER = stats.t.ppf(0.975, 11) * math.sqrt(12 / 11)


@pytest.mark.parametrize(
    ("value", "draws", "without", "expected"),
    [
        # Nothing varies, but for rounding errors.
        (0.3, np.full(400, 0.3) + 1e-17, np.full(12, 0.3), (0.3, 0.3)),
        # No draw lies below the value: percentiles, at the widened level (0.3 % on each side).
        (-9.0, DRAWS, WITHOUT, np.quantile(DRAWS, stats.norm.cdf([-WIDER, WIDER]))),
        # A statistic that is not defined: for all units, in each draw, without some unit.
        (math.nan, DRAWS, WITHOUT, (math.nan, math.nan)),
        (math.inf, DRAWS, WITHOUT, (math.nan, math.nan)),
        (0.0, np.full(400, math.nan), WITHOUT, (math.nan, math.nan)),
        (0.0, DRAWS, np.array([*WITHOUT[:-1], math.nan]), (math.nan, math.nan)),
        # One unit, or none.
        (0.0, DRAWS, WITHOUT[:1], (math.nan, math.nan)),
        (0.0, DRAWS[:0], WITHOUT[:0], (math.nan, math.nan)),
    ],
)
@pytest.mark.filterwarnings("error")
def test_degenerate_statistics(value, draws, without, expected):
    found = bootstrap_interval(np.array(value), draws, without)
    assert found == pytest.approx(list(expected), nan_ok=True)


def test_ties_count_half():
    # A share that most draws repeat: the bias is 0 by symmetry, so the ends are symmetric as well.
    draws = np.array([0.0] * 10 + [1 / 3] * 80 + [2 / 3] * 10)
    noise = np.random.default_rng(8).choice([-1e-16, 0.0, 1e-16], 100)
    found = bca_interval(np.array(1 / 3), draws + noise, np.full(12, 1 / 3))
    assert found == pytest.approx([0, 2 / 3])


def test_undefined_draws_do_not_count():
    some = np.where(np.arange(400) % 7 == 0, math.inf, DRAWS)
    found = bootstrap_interval(np.array(0.0), some, WITHOUT)
    expected = bootstrap_interval(np.array(0.0), DRAWS[np.arange(400) % 7 > 0], WITHOUT)
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("interval", [bca_interval, bootstrap_interval])
def test_levels_are_shares(interval):
    with pytest.raises(InputError, match=r"level is 95: give a share between 0 and 1"):
        interval(np.array(0.0), DRAWS, WITHOUT, 95)


# --- tests, and how many units they take ----------------------------------------------------------


@pytest.mark.parametrize(
    ("p_values", "expected"),
    [
        ([0.01, 0.02, 0.03], [0.03, 0.04, 0.04]),
        ([0.9, 0.5], [1, 1]),
        ([math.nan, 0.04, 0.001], [math.nan, 0.04, 0.002]),
        ([0.2], [0.2]),
        ([math.nan], [math.nan]),
        ([], []),
    ],
)
def test_holms_correction_by_hand(p_values, expected):
    assert holm(p_values) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("values", [[0.3, -0.1, 0.5, 0.2], [-2.0, -2.5], [0.0, 0.0]])
def test_p_values_are_those_behind_the_interval(values):
    expected = stats.ttest_1samp(values, 0).pvalue if any(values) else 1.0
    assert p_value(t_interval(values)) == pytest.approx(expected)
    assert p_value(Estimate(0.1, math.nan, math.nan, 20)) != p_value(t_interval(values))


def test_a_p_value_below_005_goes_with_an_interval_that_excludes():
    # Of an interval that leans to one side, the half that reaches for the other number decides.
    assert p_value(Estimate(1.0, 0.0, 9.0, 12)) == pytest.approx(0.05)
    assert p_value(Estimate(1.0, -7.0, 2.0, 12), against=2.0) == pytest.approx(0.05)
    assert math.isnan(p_value(Estimate(1.0, 0.5, 1.5)))


def test_holm_keeps_the_signs_that_stand_for_the_whole_family():
    sure, close = Estimate(-1.0, -1.2, -0.8, 20), Estimate(1.0, 0.01, 1.99, 20)
    assert holm_signs([close]) == [1]
    assert holm_signs([sure, close, Estimate(0.0, -1, 1, 20)]) == [-1, 0, 0]
    assert holm_signs([Estimate(1.0, math.nan, math.nan, 1), sure]) == [0, -1]
    assert holm_signs([]) == []


def test_hotelling_by_the_inverse_of_the_covariance():
    values = np.random.default_rng(1).normal(0.4, 1, (15, 3)) @ [[1, 0, 0.5], [0, 2, 0], [0, 1, 1]]
    t_squared = 15 * values.mean(axis=0) @ np.linalg.inv(np.cov(values.T)) @ values.mean(axis=0)
    f, p = hotelling_test(values)
    assert f == pytest.approx(t_squared * 12 / (14 * 3))
    assert p == pytest.approx(stats.f.sf(f, 3, 12))
    # Any other way to write the same columns gives the same.
    assert hotelling_test(values @ [[2, 1, 0], [0, 1, 0], [1, 1, 1]]) == pytest.approx((f, p))


def test_hotelling_rejects_as_often_as_it_should():
    made = np.random.default_rng(2).normal(size=(2000, 9, 3)) @ np.array(
        [[1, 1, 0], [0, 1, 0], [0, 0, 3]]
    )
    p_values = np.array([hotelling_test(values)[1] for values in made])
    assert (p_values < 0.05).mean() == pytest.approx(0.05, abs=0.015)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.zeros((5, 2)), (0, 1)),
        (np.ones((5, 2)), (math.inf, 0)),
        (np.zeros((2, 2)), (math.nan, math.nan)),  # no more units than columns
        (np.full((5, 1), math.nan), (math.nan, math.nan)),
        # A column that is a multiple of the other adds nothing.
        (np.outer([1.0, 2.0, 3.0], [1, 2]), (12, stats.f.sf(12, 1, 2))),
    ],
)
def test_hotelling_where_units_hardly_differ(values, expected):
    assert hotelling_test(values) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("effect", [0.2, 0.5, 1.3, 4.0])
def test_units_needed_are_the_fewest_with_that_power(effect):
    needed = int(units_needed(effect))
    assert units_needed(-effect) == needed

    def power(size: int) -> float:
        center, critical = effect * math.sqrt(size), stats.t.isf(0.025, size - 1)
        noncentral = stats.nct(size - 1, center)
        return noncentral.sf(critical) + noncentral.cdf(-critical)

    assert power(needed) >= 0.8
    assert needed == 2 or power(needed - 1) < 0.8


def test_units_needed_by_simulation():
    needed = int(units_needed(0.8, power=0.9))
    made = np.random.default_rng(3).normal(0.8, 1, (20_000, needed))
    found = (stats.ttest_1samp(made, 0, axis=1).pvalue < 0.05).mean()
    assert found == pytest.approx(0.9, abs=0.02)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0], math.nan),
        ([], math.nan),
        ([1.0, -1.0], math.nan),
        ([0.0, 0.0], math.nan),
        ([2.0, 2.0], 2),
        (math.inf, 2),
        (0.5, 34),  # as G*Power and statsmodels say
        (math.nan, math.nan),
        (1e-3, math.ceil((2.801585 / 1e-3) ** 2)),
    ],
)
def test_units_needed_at_the_edges(values, expected):
    assert units_needed(values) == pytest.approx(expected, rel=1e-5, nan_ok=True)


def test_power_is_what_a_simulation_finds():
    made = np.random.default_rng(4).normal(0.08, 0.1, (20_000, 12))
    for level in (0.05, 0.05 / 3):
        found = (stats.ttest_1samp(made, 0, axis=1).pvalue < level).mean()
        assert power_of(-0.08, 0.1, 12, level) == pytest.approx(found, abs=0.01)


@pytest.mark.parametrize("units", [5, 12, 60])
@pytest.mark.parametrize("level", [0.05, 0.05 / 13])
def test_what_is_detectable_has_the_power_asked_for(units, level):
    difference = detectable(0.1, units, power=0.7, level=level)
    assert power_of(difference, 0.1, units, level) == pytest.approx(0.7)


def test_power_rises_with_the_difference_also_where_scipy_lacks_a_tail():
    level = 0.05 / 13
    found = [power_of(difference, 0.1, 5, level) for difference in np.linspace(0, 0.8, 401)]
    assert not np.isnan(found).any()
    assert found[0] == pytest.approx(level)
    assert (np.diff(found) > -1e-12).all()


def test_power_at_the_edges():
    assert math.isnan(power_of(0.1, 0.1, 1)) and math.isnan(detectable(0.1, 1))
    assert math.isnan(power_of(0.1, math.nan, 5)) and math.isnan(detectable(math.nan, 5))
    assert (power_of(0.1, 0.0, 5), power_of(0.0, 0.0, 5), detectable(0.0, 5)) == (1, 0, 0)
    assert power_of(0.0, 0.1, 5) == pytest.approx(0.05)
    # Two units: the statistic is about the difference over |z| / sqrt(2), z normal.
    critical, middle = stats.t.ppf(0.995, 1), stats.norm.ppf(0.9)
    found = detectable(0.1, 2, level=0.01)
    assert found == pytest.approx(0.1 * critical * middle / math.sqrt(2), rel=1e-3)


@pytest.mark.parametrize(("share", "against"), [(0.7, 0.5), (0.95, 0.9), (0.2, 0.9), (1.0, 0.9)])
def test_trials_needed_by_wilsons_intervals(share, against):
    needed = int(trials_needed(share, against))

    def power(trials: int) -> float:
        ends = [wilson_interval(k / trials, trials) for k in range(trials + 1)]
        excluded = [low > against or high < against for low, high in ends]
        return float(stats.binom.pmf(np.arange(trials + 1), trials, share)[excluded].sum())

    assert all(power(trials) >= 0.8 for trials in range(needed, needed + 20))
    assert needed == 1 or power(needed - 1) < 0.8


def test_equal_shares_are_never_told_apart_and_near_ones_late():
    assert math.isnan(trials_needed(0.5, 0.5)) and math.isnan(trials_needed(math.nan, 0.5))
    expected = (1.959964 * 0.5 + 0.841621 * math.sqrt(0.501 * 0.499)) ** 2 / 0.001**2
    assert trials_needed(0.501, 0.5) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([0.3, -0.1, 0.3, -0.1] * 2, "38 prompts"),
        ([0.3, 0.2, 0.3, 0.2], "already resolved"),
        ([0.01, -0.3, 0.3, 0.0], "76,000 prompts: alike at this precision"),
        ([1.0, -1.0], "no number of prompts: no difference"),
        ([1.0], "not known: no interval over 1 prompts"),
        (Estimate(0.2, math.nan, math.nan, 9), "not known: no interval over 9 prompts"),
        (Estimate(-0.2, -0.4, -0.1, 9), "already resolved"),
        (Estimate(0.2, 0.2, 0.2, 9), "already resolved"),
        (Estimate(0.0, 0.0, 0.0, 9), "no number of prompts: no difference"),
    ],
)
def test_what_resolves_in_words(found, expected):
    assert what_resolves(found) == expected


def test_what_resolves_an_estimate_is_what_resolves_its_values():
    values = np.random.default_rng(9).normal(0.2, 1, 20)
    assert what_resolves(t_interval(values)) == needed_text(units_needed(values))
    assert what_resolves(t_interval(values + 1), "seeds", against=1) == needed_text(
        units_needed(values), "seeds"
    )


@pytest.mark.parametrize(
    ("needed", "expected"),
    [(2.0, "2 items"), (99.0, "99 items"), (101.0, "110 items"), (1000.0, "1,000 items"),
     (1001.0, "1,100 items: alike at this precision")],
)  # fmt: skip
def test_planned_numbers_have_two_digits(needed, expected):
    assert needed_text(needed, "items") == expected


def test_of_several_numbers_the_hardest_says_what_resolves_all():
    found = [
        t_interval(values) for values in ([0.3, -0.1, 0.3, -0.1], [1.0, 1.1], [0.2, -0.1, 0.1])
    ]
    assert what_resolves_all(found[:2]) == what_resolves(found[0]) == "44 prompts"
    assert what_resolves_all(found, "seeds") == "44 seeds"
    assert what_resolves_all(found[1:2]) == what_resolves_all([]) == "already resolved"
    tie = Estimate(0.0, -1.0, 1.0, 9)
    assert what_resolves_all([*found, tie]) == "no number of prompts: no difference"
    unknown = Estimate(0.1, math.nan, math.nan, 1)
    assert what_resolves_all([found[0], unknown]) == "not known: no interval over 1 prompts"
