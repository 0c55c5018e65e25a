"""Scores of sets and teachers, derived by hand."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from lalp.paper.rsr.plan import PLAN
from lalp.paper.rsr.scores import score_columns, set_scores, teacher_scores

COLUMNS = [name for name in score_columns(PLAN) if name != "rsr"]


def responses(galp: list[float], ranks: list[float], **others: list[float]) -> pd.DataFrame:
    """Responses of one set; scores that are not given are -1."""
    table = pd.DataFrame({"galp": galp, "mean_rank_100": ranks})
    for name in COLUMNS:
        table[name] = others.get(name, table.get(name, -1.0))
    return table.assign(teacher="QwQ-32B", generation="gen1")


def test_the_scores_are_those_that_the_plan_names():
    windows = ["lalp@0", "lalp@1", "lalp@2", "lalp@4", "lalp@all"]
    assert score_columns(PLAN) == ["galp", *windows, "rsr", "galp-casl", "lalp-casl@4"]


def test_a_set_has_the_mean_of_its_responses_and_the_ratio_of_means():
    table = set_scores(PLAN, responses([-1.0, -3.0], [2.0, 4.0])).set_index("score")
    assert table["value"]["galp"] == -2
    assert table["error"]["galp"] == 1  # standard deviation sqrt(2), over the root of two
    # Eq. 9: (2 + 4) / (1 + 3), where the mean of both ratios is (2 + 4 / 3) / 2.
    assert table["value"]["rsr"] == pytest.approx(1.5)
    # Pulls (2 - 1.5) / 2 and (4 - 4.5) / 2 = 0.25 and -0.25: standard deviation sqrt(2) / 4.
    assert table["error"]["rsr"] == pytest.approx(0.25)
    assert (table["num_scored"] == 2).all() and (table["num_unscored"] == 0).all()


def test_a_response_that_lacks_one_score_counts_for_none():
    values = responses([-1.0, -3.0, -9.0], [2.0, 4.0, 9.0], **{"lalp@0": [-1, -1, math.nan]})
    table = set_scores(PLAN, values).set_index("score")
    assert table["value"]["galp"] == -2
    assert (table["num_scored"] == 2).all() and (table["num_unscored"] == 1).all()


def test_a_set_of_which_nothing_is_scored_has_no_score():
    table = set_scores(PLAN, responses([math.nan], [2.0]))
    assert table["value"].isna().all() and (table["num_unscored"] == 1).all()


def test_a_teacher_has_the_mean_of_its_sets_and_more_is_better():
    rows = [
        ("S", "QwQ-32B", generation, score, value)
        for generation, values in (("gen1", (-1.0, 2.0)), ("gen2", (-2.0, 4.0)))
        for score, value in zip(("galp", "rsr"), values, strict=True)
    ]
    sets = pd.DataFrame(rows, columns=["student", "teacher", "generation", "score", "value"])
    found = teacher_scores(sets).set_index("score")["value"]
    assert found.to_dict() == {"galp": -1.5, "rsr": -3.0}
