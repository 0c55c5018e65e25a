"""What of a score table is a candidate, and which tables are refused."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from lalp.errors import InputError
from lalp.selection.matched import select_random_matched
from lalp.selection.ranking import compare_rankings, prompts_enough, rank_teachers
from lalp.selection.rules import score_column, select
from lalp.selection.table import describe_scores
from tests.selection.score_tables import NAN, chosen_ids, scores_table


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda pool: select(pool, "best"), "random, galp, galp-middle, galp-lowest, lalp"),
        (lambda pool: select(pool, "lalp", "8"), "lalp@8.*galp, lalp@4"),
        (lambda pool: select(pool, "lalp", "8 steps"), "not understood"),
        (lambda pool: select(pool.assign(**{"lalp@25%": -1.0}), "lalp"), "4, 25%: name one"),
        (lambda pool: select(pool.drop(columns="lalp@4"), "lalp-lowest"), "needs a window"),
        (lambda pool: score_column("lalp"), "window"),
        (lambda pool: select(pool, "galp", tie="longest"), "first, shortest, random"),
        (lambda pool: select(pool.drop(columns="correct"), "galp"), "'correct'"),
        (lambda pool: select(pool.drop(columns="galp"), "galp"), "'galp'.*lalp@4"),
        (lambda pool: select(pool.iloc[:0], "random"), "no rows"),
        (lambda pool: select(pool.assign(correct="yes"), "galp"), "true, false or null"),
        (lambda pool: select(pool.assign(galp="high"), "galp"), "numbers"),
        (lambda pool: select(pool.assign(teacher=None), "galp"), "9 of 9 rows have no teacher"),
        (lambda pool: select(pd.concat([pool, pool]), "galp"), "'qA' of prompt 'q'.*once"),
        (lambda pool: select(pool.assign(correct=False), "galp"), "9 incorrect responses"),
        (lambda pool: rank_teachers(pool, "lalp@7"), "galp, lalp@4"),
        (lambda pool: compare_rankings(pool, []), "no score column"),
        (lambda pool: rank_teachers(pool[:3], "galp", level=95), "0.95"),
        (lambda pool: rank_teachers(pool[:3], "galp", num_resamples=0), "num_resamples is 0"),
        (lambda pool: prompts_enough(pool[:3], "galp", [2]), "size 2.*from 1 to 1"),
        (lambda pool: prompts_enough(pool[:3], "galp", [0.5]), "size 0.5"),
        (lambda pool: prompts_enough(pool[:3], "galp", []), "no size"),
        (lambda pool: prompts_enough(pool[:3], "galp", num_draws=0), "num_draws is 0"),
    ],
)
def test_bad_input_is_refused_with_a_message_that_helps(pool, call, named):
    with pytest.raises(InputError, match=named):
        call(pool)


@pytest.mark.parametrize(
    "correct",
    [
        [True, False, None],
        [1.0, 0.0, NAN],
        [np.True_, np.False_, NAN],
        pd.array([True, False, pd.NA], dtype="boolean"),
    ],
)
def test_correct_is_read_in_every_form_a_file_gives(correct):
    rows = [("p", "a", "A", -0.2), ("p", "b", "B", -0.1), ("p", "c", "C", -0.3)]
    table = scores_table(rows, "prompt_id response_id teacher galp").assign(correct=correct)
    assert chosen_ids(select(table, "galp")) == {"p": "a"}
    assert chosen_ids(select(table, "galp-lowest")) == {"p": "c"}


@pytest.fixture
def unscored() -> pd.DataFrame:
    rows = [
        ("p", "a", "A", True, NAN, -1.0, "600 tokens exceed 512 positions"),
        ("p", "b", "B", True, -0.9, -2.0, None),
        ("p", "c", "B", False, NAN, NAN, "the response has no tokens"),
        ("q", "d", "A", True, NAN, -1.0, None),
    ]
    return scores_table(rows, "prompt_id response_id teacher correct galp lalp@4 reason")


def test_selection_refuses_to_choose_among_unscored_candidates(unscored):
    with pytest.raises(InputError) as caught:
        select(unscored, "galp")
    message = str(caught.value)
    assert "2 of 3 candidate responses have no score galp" in message
    assert "'a' of prompt 'p' (600 tokens exceed 512 positions)" in message
    assert "skip_unscored=True (--skip-unscored)" in message
    with pytest.raises(InputError, match="no reason recorded"):
        select(unscored[3:], "galp")


def test_unscored_candidates_can_be_left_out_and_are_counted(unscored):
    selected = select(unscored, "galp", skip_unscored=True)
    assert chosen_ids(selected) == {"p": "b"}
    assert selected.attrs["left_out"] == {
        "incorrect responses": 1,
        "unscored responses": 2,
        "prompts without a candidate": 1,
    }
    with pytest.raises(InputError, match="1 unscored responses, 1 prompts without"):
        select(unscored[3:], "galp", skip_unscored=True)


def test_only_the_score_that_is_compared_must_be_there_and_finite(unscored):
    assert chosen_ids(select(unscored, "lalp", 4)) == {"p": "a", "q": "d"}
    assert set(select(unscored, "random")["prompt_id"]) == {"p", "q"}
    unscored["lalp@4"] = [-math.inf, -2.0, 0.0, -1.0]
    with pytest.raises(InputError, match="1 of 3"):
        select(unscored, "lalp-lowest", 4)


def test_the_table_given_is_left_as_it_was(pool):
    pool.attrs = {"student": "tiny", "left_out": {"other": 1}}
    before = pool.copy()
    selected = select(pool, "galp")
    rank_teachers(pool[:3], "galp")
    select_random_matched(pool, selected)
    pd.testing.assert_frame_equal(pool, before)
    assert pool.attrs == {"student": "tiny", "left_out": {"other": 1}}
    assert selected.attrs == {"student": "tiny", "left_out": {"incorrect responses": 1}}


def test_categories_and_nullable_floats_are_read_like_plain_columns(pool):
    types = {"teacher": "category", "prompt_id": "category", "galp": "Float64"}
    other = pool.astype({**types, "correct": "boolean"})
    plain, read = (rank_teachers(table[:3], "galp") for table in (pool, other))
    pd.testing.assert_frame_equal(plain, read, check_dtype=False)
    chosen = select(other, "galp")
    assert chosen_ids(chosen) == chosen_ids(select(pool, "galp"))
    control = select_random_matched(other, chosen)
    assert chosen_ids(control) == chosen_ids(select_random_matched(pool, select(pool, "galp")))


def test_a_short_form_counts_what_is_wrong_or_unscored(pool):
    table = describe_scores(pool.assign(galp=pool["galp"].where(pool["response_id"] != "qA")))
    assert table[["responses", "incorrect", "unscored"]].to_dict("index") == {
        "A": {"responses": 4, "incorrect": 0, "unscored": 1},
        "B": {"responses": 3, "incorrect": 1, "unscored": 0},
        "C": {"responses": 2, "incorrect": 0, "unscored": 0},
    }
    assert table.loc["A", "galp"] == pytest.approx(-0.8 / 3)
    assert table.loc["C", ["num_tokens", "num_steps", "lalp@4"]].tolist() == [10, 2, -1.25]
    nothing = describe_scores(pool.assign(galp=NAN))
    assert nothing["galp"].isna().all() and nothing["unscored"].sum() == len(pool)
    with pytest.raises(InputError, match="no column 'teacher'"):
        describe_scores(pool.drop(columns="teacher"))
