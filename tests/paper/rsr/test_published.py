"""The published numbers: they fit together, and the paper's own correlations follow from them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from lalp.paper.rsr.plan import PLAN
from lalp.paper.rsr.published import (
    agreement,
    published,
    published_correlations,
    published_scores,
)


def test_eleven_teachers_taught_five_students():
    table = published()
    assert len(table) == 55 and not table.isna().any(axis=None)
    assert list(table["student"].unique()) == list(PLAN.students)
    assert PLAN.num_sets == 33


def test_the_ratio_is_that_of_the_published_means():
    table = published()
    # Both are rounded to three digits.
    error = 0.0005 * (1 + table["rsr"]) / table["surprisal"] + 0.0005
    assert ((table["rank"] / table["surprisal"] - table["rsr"]).abs() <= error).all()


@pytest.mark.parametrize("student", PLAN.students)
def test_the_papers_correlations_follow_to_their_last_digit(student):
    table = published().query("student == @student").reset_index()
    own = published_correlations().loc[student]
    accuracy = table["accuracy"].to_numpy()
    # Two accuracies that are equal after rounding were not before: either may be the higher.
    first = table.index[table["accuracy"].duplicated(keep=False)]
    found = []
    for raised in first if len(first) else [0]:
        unrounded = accuracy + 0.01 * (np.arange(len(table)) == raised) * bool(len(first))
        pair = [stats.spearmanr(-table[name], unrounded).statistic for name in ("rsr", "surprisal")]
        found.append([round(pair[0], 3), round(pair[1], 2)])
    assert [own["rsr"], own["surprisal"]] in found


def test_scores_of_which_less_is_better_are_turned():
    table = published_scores().set_index(["score", "student", "teacher"])["value"]
    assert table["galp", "Qwen-3-14B", "QwQ-32B"] == -0.629
    assert table["rsr", "Qwen-3-14B", "QwQ-32B"] == -2.673
    assert table["rsr (200)", "Qwen-3-14B", "QwQ-32B"] == -2.684


def test_agreement_names_the_teacher_that_is_farthest_off():
    scores = published_scores().query("score == 'galp' and student == 'Qwen-3-4B'")
    assert agreement(scores)["largest_difference"].tolist() == [0]
    wrong = scores.assign(value=np.where(scores["teacher"] == "QwQ-32B", -3.0, scores["value"]))
    (row,) = agreement(wrong).itertuples()
    assert (row.of_teacher, row.largest_difference) == ("QwQ-32B", pytest.approx(3 - 0.693))
    assert row.spearman < 1


def test_a_score_that_is_not_published_is_compared_with_nothing():
    one = published_scores().query("score == 'galp'").assign(score="lalp@4")
    assert agreement(one).empty
