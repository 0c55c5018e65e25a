"""Correlations over teachers: values and p derived by hand, intervals by their coverage."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lalp.errors import InputError
from lalp.paper.rsr import correlate as module
from lalp.paper.rsr.correlate import ALL_STUDENTS, correlate, rank_correlations
from lalp.paper.rsr.published import published_scores


def known(accuracies: dict[str, list[float]]) -> pd.DataFrame:
    """Accuracies of students, in order of teachers a, b, ..., as `published` gives them."""
    rows = [
        {"student": student, "teacher": chr(97 + place), "accuracy": value}
        for student, values in accuracies.items()
        for place, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


def scored(values: dict[tuple[str, str], list[float]]) -> pd.DataFrame:
    """Scores of teachers by score and student, as `teacher_scores` gives them."""
    rows = [
        {"score": score, "student": student, "teacher": chr(97 + place), "value": value}
        for (score, student), numbers in values.items()
        for place, value in enumerate(numbers)
    ]
    return pd.DataFrame(rows)


@pytest.fixture
def four(monkeypatch):
    """Two students of four teachers; the second's accuracies stand the other way round."""
    monkeypatch.setattr(module, "published", lambda: known({"S": [1, 2, 3, 4], "T": [4, 3, 2, 1]}))


def test_rank_correlations_by_hand():
    # One of three pairs stands the other way: tau 1/3; d = 0, 1, -1: rho = 1 - 6 * 2 / (3 * 8).
    found = rank_correlations(np.array([1.0, 2.0, 3.0]), np.array([10.0, 30.0, 20.0]))
    assert found == pytest.approx([1 / 2, 1 / 3])


@pytest.mark.parametrize("seed", range(5))
def test_rank_correlations_are_scipys_with_ties_too(seed):
    one, other = np.random.default_rng(seed).integers(0, 5, size=(2, 11)).astype(float)
    expected = [stats.spearmanr(one, other).statistic, stats.kendalltau(one, other).statistic]
    assert rank_correlations(one, other) == pytest.approx(expected)


def test_all_ties_have_no_correlation():
    assert np.isnan(rank_correlations(np.ones(4), np.arange(4.0))).all()


def test_a_perfect_order_of_four_teachers(four):
    table = correlate(scored({("galp", "S"): [1, 2, 3, 4]}), num_resamples=20_000)
    row = table.query("student == 'S' and measure == 'spearman'").iloc[0]
    assert (row["correlation"], row["low"], row["high"], row["num_teachers"]) == (1, 1, 1, 4)
    # Of 24 orders, two are as extreme: this one and its reverse.
    assert row["p"] == pytest.approx(2 / 24, abs=0.006)
    assert math.isnan(row["over_galp"])  # GALP itself


def test_the_mean_over_students_and_what_a_score_has_over_galp(four):
    values = {("galp", "S"): [1, 2, 3, 4], ("galp", "T"): [1, 2, 3, 4]}
    values |= {("lalp@4", "S"): [1, 2, 3, 4], ("lalp@4", "T"): [4, 3, 2, 1]}
    table = correlate(scored(values), num_resamples=500)
    rho = table.query("measure == 'spearman'").set_index(["score", "student"])
    assert rho["correlation"]["galp", "T"] == -1
    assert rho["correlation"]["galp", ALL_STUDENTS] == 0
    assert rho["correlation"]["lalp@4", ALL_STUDENTS] == 1
    assert rho["over_galp"]["lalp@4", ALL_STUDENTS] == 1
    assert rho["over_galp"]["lalp@4", "S"] == 0
    assert rho["window"].tolist() == ["", "", "", "4", "4", "4"]
    # Students share their teachers' order: the mean over both is no more certain than one.
    assert rho["p"]["lalp@4", ALL_STUDENTS] == pytest.approx(2 / 24, abs=0.03)


def test_holm_counts_the_scores_of_one_student(four):
    values = {
        ("galp", "S"): [1, 2, 3, 4],
        ("lalp@4", "S"): [1, 2, 4, 3],
        ("rsr", "S"): [2, 1, 4, 3],
    }
    table = correlate(scored(values), num_resamples=500)
    rows = table.query("student == 'S' and measure == 'kendall'").sort_values("p")
    expected = np.minimum(np.maximum.accumulate(rows["p"] * [3, 2, 1]), 1)
    assert rows["p_holm"].to_numpy() == pytest.approx(expected.to_numpy())


def test_the_same_seed_gives_the_same_numbers():
    scores = published_scores().query("student == 'Qwen-3-4B'")
    one, again = (correlate(scores, num_resamples=200, seed=3) for _ in range(2))
    pd.testing.assert_frame_equal(one, again)


def test_published_scores_foresee_accuracy_as_the_paper_says():
    table = correlate(published_scores(), num_resamples=2000)
    rho = table.query("measure == 'spearman' and student == @ALL_STUDENTS").set_index("score")
    # Tables 4 and 13: 0.49 and 0.856, before accuracies were rounded.
    assert rho["correlation"]["galp"] == pytest.approx(0.49, abs=0.01)
    assert rho["correlation"]["rsr"] == pytest.approx(0.856, abs=0.01)
    assert rho["p_holm"]["rsr"] < 0.05 < rho["p_holm"]["galp"]
    assert rho["low"]["rsr"] > 0.5 and rho["low"]["galp"] < 0


def test_intervals_hold_the_truth_as_often_as_they_say(monkeypatch):
    generator, size, rho = np.random.default_rng(0), 11, 0.6
    true, held = 6 / math.pi * math.asin(rho / 2), []
    for _ in range(250):
        accuracy, *noise = generator.standard_normal((3, size))
        monkeypatch.setattr(module, "published", lambda values=accuracy: known({"S": values}))
        one, other = (rho * accuracy + math.sqrt(1 - rho**2) * each for each in noise)
        values = scored({("galp", "S"): one, ("lalp@4", "S"): other})
        table = correlate(values, num_resamples=300).query("student == 'S'")
        row = table.query("measure == 'spearman' and score == 'lalp@4'").iloc[0]
        held.append(
            (row["low"] <= true <= row["high"], row["over_galp_low"] <= 0 <= row["over_galp_high"])
        )
    assert (np.mean(held, axis=0) > 0.93).all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({("galp", "S"): [1, 2, 3]}, "3 teachers are too few"),
        (
            {("galp", "S"): [1, 2, 3, math.nan]},
            "there is no galp of d under S: score the set again",
        ),
        ({("galp", "U"): [1, 2, 3, 4]}, "no accuracy is published of the student U"),
        ({("galp", "S"): [1, 2, 3, 4, 5]}, "no accuracy is published of the teacher e"),
    ],
)
def test_what_cannot_be_correlated_is_refused(four, values, message):
    with pytest.raises(InputError, match=message):
        correlate(scored(values), num_resamples=10)
