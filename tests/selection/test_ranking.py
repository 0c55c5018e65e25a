"""Teacher rankings with their uncertainty, and how many prompts are enough."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lalp.cli.printing import print_teachers
from lalp.errors import InputError
from lalp.selection import ranking as selection_ranking
from lalp.selection.ranking import (
    compare_rankings,
    fewest_prompts,
    prompts_enough,
    rank_teachers,
    tau_interval,
    teacher_differences,
    teacher_interaction,
)
from lalp.stats import draws
from tests.selection.score_tables import NAN, means_table, scores_table, steady


@pytest.fixture
def graded() -> pd.DataFrame:
    """Prompts 1 and 2 are shared by A, B and C; 3 lacks a scored C, 4 lacks B."""
    rows = [
        ("1", "a", "A", True, -1.0),
        ("1", "b", "A", True, -2.0),  # averaged with the one before: -1.5
        ("1", "c", "B", True, -1.0),
        ("1", "d", "C", None, -3.0),
        ("1", "e", "C", False, 0.0),  # wrong: never counted
        ("2", "f", "A", True, -0.5),
        ("2", "g", "B", True, -2.0),
        ("2", "h", "C", True, -1.0),
        ("3", "i", "A", True, 0.0),
        ("3", "j", "B", True, -9.0),
        ("3", "k", "C", True, NAN),
        ("4", "l", "A", True, 0.0),
        ("4", "m", "C", True, -9.0),
    ]
    return scores_table(rows, "prompt_id response_id teacher correct galp")


def test_teachers_are_ranked_by_their_mean_over_shared_prompts(graded):
    ranking = rank_teachers(graded, "galp")
    columns = ["teacher", "rank", "num_responses", "mean"]
    expected = [["A", 1, 3, -1.0], ["B", 2, 2, -1.5], ["C", 3, 2, -2.0]]
    assert ranking[columns].values.tolist() == expected
    # Two prompts: Student's t of -1.5 and -0.5, of -1 and -2, of -3 and -1.
    reach = stats.t.ppf(0.975, 1) * np.array([0.5, 0.5, 1])
    assert list(ranking["high"] - ranking["mean"]) == pytest.approx(list(reach))
    assert list(ranking["mean"] - ranking["low"]) == pytest.approx(list(reach))
    assert ranking.attrs == {
        "num_prompts": 2,
        "prompts_by_teacher": {"A": 4, "B": 3, "C": 3},
        "left_out": {
            "incorrect responses": 1,
            "unscored responses": 1,
            "prompts without a scored candidate of every teacher": 2,
        },
    }
    # Two prompts give three kinds of resample: both 1 (a quarter), both 2 (a quarter), mixed.
    # B is first in the first kind, A in the others.
    assert list(ranking["p_top"]) == pytest.approx([0.75, 0.25, 0.0], abs=0.03)


def test_equal_means_share_a_rank_and_the_top():
    ranking = rank_teachers(means_table({"C": [-1, -2], "B": [-2, -1], "A": [-3, -3]}), "galp")
    assert list(ranking["teacher"]) == ["B", "C", "A"]
    assert list(ranking["rank"]) == [1, 1, 3]
    same = rank_teachers(means_table({"A": [-0.1] * 7, "B": [-0.1] * 7}), "galp")
    assert list(same["p_top"]) == [0.5, 0.5]


def test_rounding_errors_are_no_differences():
    table = means_table({"A": [-0.1, -0.2, -0.3], "B": [-0.3, -0.2, -0.1]})  # floats sum otherwise
    ranking = rank_teachers(table, "galp", num_resamples=8000)
    assert list(ranking["rank"]) == [1, 1]
    # A leads by 2, 0 and -2 tenths on the three prompts, so each resample has a mirror image.
    assert list(ranking["p_top"]) == pytest.approx([0.5, 0.5], abs=0.015)
    difference = teacher_differences(table, "galp").iloc[0]
    assert 0 <= difference["difference"] < 1e-12
    assert not difference["resolved"]
    full = prompts_enough(table, "galp", [3], num_draws=50).iloc[0]
    assert full["order_share"] == full["top_share"] == 1.0


def test_no_shared_prompt_is_explained(graded):
    with pytest.raises(InputError, match="of 2 prompts there is one by B for 1, C for 1, A for 2"):
        rank_teachers(graded[graded["prompt_id"].isin(["3", "4"])], "galp")
    with pytest.raises(InputError, match="A for 0"):
        rank_teachers(means_table({"A": [NAN, NAN]}), "galp")


@pytest.mark.parametrize(
    "analyse",
    [
        lambda table: compare_rankings(table, ["galp"]),
        lambda table: tau_interval(table, "galp", "galp"),
        lambda table: teacher_interaction(table, "galp", "galp"),
        lambda table: prompts_enough(table, "galp"),
    ],
)
def test_one_teacher_has_a_mean_but_no_order(analyse):
    table = means_table({"A": [-1, -3]})
    ranking = rank_teachers(table, "galp")
    assert ranking[["mean", "rank", "p_top"]].iloc[0].tolist() == [-2.0, 1.0, 1.0]
    assert teacher_differences(table, "galp").empty
    with pytest.raises(InputError, match="one teacher, 'A'"):
        analyse(table)


def test_one_prompt_gives_no_interval():
    table = means_table({"A": [-1], "B": [-2]})
    ranking = rank_teachers(table, "galp")
    assert ranking[["low", "high", "p_top"]].isna().all(axis=None)
    (difference,) = teacher_differences(table, "galp").itertuples()
    assert difference.difference == 1.0
    assert math.isnan(difference.low) and not difference.resolved
    assert math.isnan(tau_interval(table, "galp", "galp").low)


@pytest.fixture(scope="module")
def noisy() -> pd.DataFrame:
    """Sixty prompts of very different ease, three teachers that differ a little."""
    generator = np.random.default_rng(3)
    ease = generator.normal(-1, 0.5, size=60)
    gaps = {"A": 0.0, "B": 0.04, "C": 0.042}
    means = {name: list(ease + gap + generator.normal(0, 0.05, 60)) for name, gap in gaps.items()}
    table = means_table(means)
    return table.assign(**{"lalp@8": table["galp"] + generator.normal(0, 0.1, size=len(table))})


def by_teacher(table: pd.DataFrame, column: str = "galp") -> np.ndarray:
    """Prompt by teacher, names in order."""
    return table.pivot(index="prompt_id", columns="teacher", values=column).to_numpy()


def test_intervals_agree_with_scipy(noisy):
    ranking = rank_teachers(noisy, "galp", num_resamples=6000).set_index("teacher")
    differences = teacher_differences(noisy, "galp", num_resamples=6000)
    values = dict(zip("ABC", by_teacher(noisy).T, strict=True))
    same = {"method": "percentile", "n_resamples": 6000, "random_state": 1}
    for name, sample in values.items():
        expected = stats.bootstrap([sample], np.mean, **same).confidence_interval
        assert ranking.loc[name, ["low", "high"]].tolist() == pytest.approx(expected, abs=0.01)
    for row in differences.itertuples():
        gap = values[row.higher] - values[row.lower]
        expected = stats.bootstrap([gap], np.mean, **same).confidence_interval
        assert row.difference == pytest.approx(gap.mean())
        assert [row.low, row.high] == pytest.approx(expected, abs=0.002)


def test_a_paired_difference_resolves_what_overlapping_intervals_hide(noisy):
    ranking = rank_teachers(noisy, "galp").set_index("teacher")
    assert ranking.loc["A", "high"] > ranking.loc["C", "low"]
    differences = teacher_differences(noisy, "galp")
    pairs = list(itertools.combinations(ranking.index, 2))
    assert list(zip(differences["higher"], differences["lower"], strict=True)) == pairs
    assert ranking.index[2] == "A"
    assert differences["resolved"].tolist() == [False, True, True]


@pytest.mark.parametrize(
    "analyse",
    [
        lambda table: rank_teachers(table, "galp", num_resamples=200),
        lambda table: teacher_differences(table, "galp", num_resamples=200),
        lambda table: compare_rankings(table, ["galp", "lalp@8"]),
        lambda table: prompts_enough(table, "galp", num_draws=100),
        lambda table: pd.DataFrame([tau_interval(table, "galp", "lalp@8", num_resamples=200)]),
        lambda table: pd.DataFrame([teacher_interaction(table, "galp", "lalp@8")]),
        lambda table: pd.DataFrame(
            [teacher_interaction(table, "galp", "lalp@8", standardized=True)]
        ),
    ],
)
def test_analyses_repeat_bit_for_bit_whatever_the_row_order(noisy, analyse, monkeypatch):
    extra = noisy.assign(response_id=noisy["response_id"] + "x", galp=noisy["galp"] / 3)
    table = pd.concat([noisy, extra, noisy.assign(response_id=noisy["response_id"] + "y")])
    once = analyse(table)
    again = analyse(table.sample(frac=1, random_state=5))
    pd.testing.assert_frame_equal(once, again, check_exact=True)
    assert once.attrs == again.attrs
    monkeypatch.setattr(draws, "_BATCH_NUMBERS", 1000)
    pd.testing.assert_frame_equal(once, analyse(table), rtol=1e-12)


def test_differences_of_few_prompts_have_students_t_and_holms_correction(noisy):
    few = noisy[noisy["prompt_id"].isin([f"p{i}" for i in range(18)])]
    found = teacher_differences(few, "galp")
    values = dict(zip("ABC", by_teacher(few).T, strict=True))
    tests = [stats.ttest_rel(values[row.higher], values[row.lower]) for row in found.itertuples()]
    ends = [test.confidence_interval() for test in tests]
    assert found["p"].tolist() == pytest.approx([test.pvalue for test in tests])
    assert found["low"].tolist() == pytest.approx([one.low for one in ends])
    assert found["high"].tolist() == pytest.approx([one.high for one in ends])
    by_size = sorted(range(3), key=lambda pair: found["p"][pair])
    expected, last = dict.fromkeys(by_size), 0.0
    for times, pair in zip((3, 2, 1), by_size, strict=True):
        last = expected[pair] = min(1.0, max(last, times * found["p"][pair]))
    assert found["p_holm"].tolist() == pytest.approx([expected[pair] for pair in range(3)])
    assert found["resolved"].tolist() == (found["p_holm"] < 0.05).tolist()
    strict_ = teacher_differences(few, "galp", level=1 - found["p_holm"].min() / 2)
    assert not strict_["resolved"].any()


def test_pairs_that_every_prompt_orders_alike_are_resolved_and_ties_are_not():
    table = means_table({"A": [-1, -2, -3], "B": [-2, -3, -4], "C": [-2, -3, -4]})
    found = teacher_differences(table, "galp")
    assert found[["p", "p_holm"]].values.tolist() == [[0, 0], [0, 0], [1, 1]]
    assert found["resolved"].tolist() == [True, True, False]


# --- teachers by scores ---------------------------------------------------------------------------


def spaced(local_gaps: list[float], num_prompts: int = 20, seed: int = 0) -> pd.DataFrame:
    """Teachers A, B, C, equal under GALP; their gaps under LALP, with noise in both."""
    generator = np.random.default_rng(seed)
    ease, own = generator.normal(size=(2, num_prompts, 1)) * [[[1.0]], [[0.3]]]
    galp, local = generator.normal(0, 0.1, (2, num_prompts, 3)) - 2 + ease
    local += own + np.array(local_gaps)
    table = means_table(dict(zip("ABC", galp.T.tolist(), strict=True)))
    return table.assign(**{"lalp@4": local.T.ravel()})


def by_formula(table: pd.DataFrame) -> tuple[float, float]:
    """Hotelling's F and p by other contrasts: each teacher minus the first."""
    gaps = by_teacher(table, "lalp@4") - by_teacher(table)
    contrasts = gaps[:, 1:] - gaps[:, :1]
    number, size = contrasts.shape
    mean, covariance = contrasts.mean(axis=0), np.cov(contrasts.T).reshape(size, size)
    t_squared = number * mean @ np.linalg.inv(covariance) @ mean
    f = t_squared * (number - size) / ((number - 1) * size)
    return f, float(stats.f.sf(f, size, number - size))


def test_an_interaction_is_hotellings_test_of_the_gaps():
    table = spaced([0.0, 0.05, 0.1])
    found = teacher_interaction(table, "lalp@4", "galp")
    assert (found.statistic, found.p) == pytest.approx(by_formula(table))
    assert (found.degrees, found.num_prompts) == ((2, 18), 20)
    assert (found.higher, found.lower) == ("C", "A")
    shift = by_teacher(table, "lalp@4") - by_teacher(table)
    gap = shift[:, 2] - shift[:, 0]
    expected = stats.ttest_1samp(gap, 0).confidence_interval(1 - 0.05 / 3)
    ends = (found.contrast.low, found.contrast.high)
    assert (found.contrast.value, *ends) == pytest.approx((gap.mean(), *expected))
    turned = teacher_interaction(table, "galp", "lalp@4")
    assert (turned.p, turned.higher) == (pytest.approx(found.p), "A")
    assert turned.contrast.value == pytest.approx(found.contrast.value)


def test_of_two_teachers_it_is_the_paired_t_test():
    table = spaced([0.0, 0.05, 0.0]).query("teacher != 'C'")
    gaps = by_teacher(table, "lalp@4") - by_teacher(table)
    found = teacher_interaction(table, "galp", "lalp@4")
    expected = stats.ttest_rel(gaps[:, 0], gaps[:, 1])
    assert (found.statistic, found.p) == pytest.approx((expected.statistic**2, expected.pvalue))


def test_what_is_hard_for_all_teachers_under_one_score_does_not_count():
    table = spaced([0.0, 0.05, 0.1])
    shifted = table.assign(galp=table["galp"] + table["prompt_id"].str[1:].astype(int) % 7)
    found, moved = (teacher_interaction(one, "galp", "lalp@4") for one in (table, shifted))
    assert moved.p == pytest.approx(found.p)
    assert moved.contrast.value == pytest.approx(found.contrast.value)


def test_a_score_that_stretches_all_gaps_differs_in_nats_only():
    table = spaced([0.0, 0.0, 0.0])
    table["galp"] += table["teacher"].map({"A": 0.0, "B": 0.3, "C": 0.6})
    generator = np.random.default_rng(1)
    table["lalp@4"] = 3 * table["galp"] + generator.normal(0, 0.1, len(table))
    nats = teacher_interaction(table, "galp", "lalp@4")
    alike = teacher_interaction(table, "galp", "lalp@4", standardized=True)
    assert nats.p < 0.001 and alike.p > 0.05
    table["lalp@4"] = -table["lalp@4"]
    assert teacher_interaction(table, "galp", "lalp@4", standardized=True).p < 0.001


@pytest.mark.parametrize("standardized", [False, True])
def test_equal_spacings_are_called_different_in_one_of_twenty_cases(standardized):
    found = []
    for seed in range(300):
        table = spaced([0.0, 0.0, 0.0], 12, seed)
        gaps = table["teacher"].map({"A": 0.0, "B": 0.2, "C": 0.3})
        scale = 4 if standardized else 1
        table = table.assign(galp=scale * (table["galp"] + gaps), local=table["lalp@4"] + gaps)
        table = table.assign(**{"lalp@4": table["local"]})
        one = teacher_interaction(table, "galp", "lalp@4", standardized=standardized)
        found.append(one.p < 0.05)
    assert np.mean(found) == pytest.approx(0.05, abs=0.035)


def test_an_interaction_in_words():
    said = str(teacher_interaction(spaced([0.0, 0.0, 2.0]), "lalp@4", "galp"))
    assert said.startswith("lalp@4 and galp space 3 teachers differently: F(2, 18) = ")
    assert "p < 0.001, 20 prompts; most: C over" in said and said.endswith("nats more under lalp@4")
    few = str(teacher_interaction(spaced([0, 0, 0], 2), "galp", "lalp@4"))
    assert few == (
        "galp and lalp@4: 2 prompts are too few to compare spacings, 3 teachers take at least 3"
    )
    assert "nan" not in str(teacher_interaction(spaced([0, 0, 0], 3), "galp", "lalp@4"))
    plain = str(teacher_interaction(spaced([0, 0, 0]), "galp", "lalp@4", standardized=True))
    assert "are not shown to space 3 teachers differently" in plain
    assert "standard deviations more" in plain


@pytest.mark.parametrize("standardized", [False, True])
@pytest.mark.filterwarnings("error")
def test_scores_that_are_the_same_or_always_differ(standardized):
    table = spaced([0.0, 0.1, 0.2]).assign(**{"lalp@8": lambda t: t["galp"] - 0.1})
    same = teacher_interaction(table, "galp", "lalp@8", standardized=standardized)
    assert (same.statistic, same.p) == (0, 1)
    flat = means_table({"A": [-1.0] * 5, "B": [-2.0] * 5, "C": [-1.5] * 5})
    flat["lalp@4"] = -1.0
    sure = teacher_interaction(flat, "galp", "lalp@4", standardized=standardized)
    assert (sure.statistic, sure.p, sure.higher, sure.lower) == (math.inf, 0, "A", "B")


# --- taus -----------------------------------------------------------------------------------------


def test_kendall_tau_by_hand():
    table = means_table({"A": [-1, -1], "B": [-2, -2], "C": [-3, -3]})
    table["lalp@0"] = table["teacher"].map({"A": -3.0, "B": -2.0, "C": -1.0})  # reversed
    table["lalp@4"] = table["teacher"].map({"A": -2.0, "B": -1.0, "C": -3.0})  # one pair swapped
    table["lalp@8"] = -1.0
    taus = compare_rankings(table, ["galp", "lalp@0", "lalp@4", "lalp@8", "galp"])
    assert list(taus.index) == list(taus.columns) == ["galp", "lalp@0", "lalp@4", "lalp@8"]
    third = 1 / 3
    expected = [[1, -1, third, NAN], [-1, 1, -third, NAN], [third, -third, 1, NAN], [NAN] * 4]
    np.testing.assert_allclose(taus, expected)


def test_rankings_are_compared_on_responses_scored_under_every_column():
    table = means_table({"A": [-1, -9], "B": [-2, -2]})
    table["lalp@4"] = [-1.0, NAN, -2.0, -2.0]  # without prompt 2 A is first under both
    taus = compare_rankings(table, ["galp", "lalp@4"])
    assert taus.loc["galp", "lalp@4"] == pytest.approx(1)
    assert taus.attrs["num_prompts"] == 1
    assert taus.attrs["left_out"]["unscored responses"] == 1


def test_tau_interval_agrees_with_a_plain_loop(noisy):
    first, second = by_teacher(noisy), by_teacher(noisy, "lalp@8")
    generator = np.random.default_rng(4)
    taus = []
    for _ in range(1000):
        rows = generator.integers(60, size=60)
        taus.append(stats.kendalltau(first[rows].mean(axis=0), second[rows].mean(axis=0)).statistic)
    found = tau_interval(noisy, "galp", "lalp@8", level=0.8)
    assert [found.low, found.high] == pytest.approx(list(np.quantile(taus, [0.1, 0.9])))
    whole = stats.kendalltau(first.mean(axis=0), second.mean(axis=0)).statistic
    assert (found.value, found.num_units) == pytest.approx((whole, 60))


@steady
@given(st.lists(st.tuples(*[st.integers(0, 3)] * 4), min_size=2, max_size=2))
def test_vectorised_tau_equals_scipy_with_ties(ranks):
    signs = selection_ranking._pair_signs(np.array(ranks, dtype=float))
    expected = stats.kendalltau(*ranks).statistic
    found = selection_ranking._taus(*signs)
    assert found == pytest.approx(0.0 if math.isnan(expected) else expected)


def test_shares_equal_those_of_all_subsets():
    scores = {"T": [-1, -1, -4, -1, -2], "B": [-2, -3, -1, -2, -2], "A": [-3, -2, -2, -4, -5]}
    values = np.array(list(scores.values()), dtype=float).T  # full order: T, B, A
    curve = prompts_enough(means_table(scores), "galp", [1, 2, 3, 5], num_draws=8000)
    assert list(curve["num_prompts"]) == [1, 2, 3, 5]
    for row in curve.itertuples():
        subsets = itertools.combinations(range(5), row.num_prompts)
        means = [values[list(rows)].mean(axis=0) for rows in subsets]
        order = np.mean([a > b > c for a, b, c in means])
        top = np.mean([a > max(b, c) for a, b, c in means])
        taus = [stats.kendalltau(mean, [3, 2, 1]).statistic for mean in means]
        found = [row.order_share, row.top_share, row.mean_tau]
        assert found == pytest.approx([order, top, np.mean(taus)], abs=0.02)
        assert row.order_low <= row.order_share <= row.order_high
        assert row.top_low <= row.top_share <= row.top_high


def test_all_prompts_find_the_order_always(noisy):
    curve = prompts_enough(noisy, "galp", num_draws=200)
    assert list(curve["num_prompts"]) == [1, 2, 5, 10, 20, 50, 60]
    assert curve[["order_share", "top_share", "mean_tau"]].iloc[-1].tolist() == [1.0, 1.0, 1.0]


def test_what_is_found_at_one_size_does_not_depend_on_the_others(noisy):
    alone = prompts_enough(noisy, "galp", [20])
    among = prompts_enough(noisy, "galp", [50, 20, 20, 3])
    assert list(among["num_prompts"]) == [3, 20, 50]
    pd.testing.assert_frame_equal(alone, among[1:2].reset_index(drop=True))


def test_new_prompts_are_drawn_with_replacement_from_all():
    scores = {"T": [-1, -1, -4, -1, -2], "B": [-2, -3, -1, -2, -2], "A": [-3, -2, -2, -4, -5]}
    values = np.array(list(scores.values()), dtype=float).T
    curve = prompts_enough(means_table(scores), "galp", [1, 2, 3, 5], num_draws=8000)
    for row in curve.itertuples():
        draws = itertools.product(range(5), repeat=row.num_prompts)
        means = (values[list(rows)].mean(axis=0) for rows in draws)
        top = np.mean([a > max(b, c) for a, b, c in means])
        assert row.new_top_share == pytest.approx(top, abs=0.02)
        assert row.new_top_low <= row.new_top_share <= row.new_top_high
    # At the full number a subset agrees by construction, new prompts need not.
    assert curve["top_share"].iloc[-1] == 1 and curve["new_top_share"].iloc[-1] < 0.95


def test_all_prompts_are_no_evidence_that_fewer_suffice(noisy):
    curve = prompts_enough(noisy, "galp", [10, 20, 60], num_draws=200)
    assert curve["order_share"].iloc[-1] == 1
    assert math.isnan(fewest_prompts(curve, "order_share"))
    # A table that leaves out the full number has nothing to leave out.
    clear = prompts_enough(means_table({"A": [-1.0] * 8, "B": [-2.0] * 8}), "galp", [2, 4])
    assert fewest_prompts(clear, "order_share") == fewest_prompts(clear) == 2
    # From which size on: not where the share is reached by chance and lost again.
    columns = {"num_prompts": [1, 2, 5, 9], "new_top_share": [0.96, 0.9, 0.95, 0.97]}
    assert fewest_prompts(pd.DataFrame(columns)) == 5


def test_the_command_asks_how_many_new_prompts_name_the_first_teacher(capsys):
    rankings = {"galp": rank_teachers(means_table({"A": [-1.0] * 8, "B": [-2.0] * 8}), "galp")}
    shares = {"num_prompts": [1, 2, 5], "new_top_share": [0.9, 0.96, 0.97]}
    result = {"rankings": rankings, "num_prompts": {"galp": 8}, "left_out": {"galp": {}}}
    result |= {"first_place": {}, "kendall_tau": {}}
    said = "prompts like these name the same first teacher in 95 % of draws"
    print_teachers(result | {"prompts_enough": {"galp": pd.DataFrame(shares)}})
    assert f"  2 {said}\n" in capsys.readouterr().out
    print_teachers(result | {"prompts_enough": {"galp": pd.DataFrame(shares)[:1]}})
    assert f"  no number up to 8 of {said}\n" in capsys.readouterr().out
