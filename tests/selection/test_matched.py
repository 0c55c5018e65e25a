"""The control that matches a selection in its teachers."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lalp.errors import InputError
from lalp.selection import matched
from lalp.selection.matched import select_best_matched, select_random_matched
from lalp.selection.rules import select, teacher_mix
from tests.selection.score_tables import chosen_ids, scores_table, steady, tables


def assert_uniform(drawn: Counter, num_outcomes: int) -> None:
    assert len(drawn) == num_outcomes
    assert stats.chisquare(list(drawn.values())).pvalue > 1e-3


@steady
@given(table=tables(), seed=st.integers(0, 5), order=st.randoms(use_true_random=False))
def test_the_control_has_the_same_prompts_and_the_same_number_per_teacher(table, seed, order):
    like = select(table, "galp")
    control = select_random_matched(table, like, seed=seed)
    assert list(control["prompt_id"]) == list(like["prompt_id"])
    pd.testing.assert_frame_equal(teacher_mix(control), teacher_mix(like))
    assert not any(correct is False for correct in control["correct"])
    rows = order.sample(range(len(table)), len(table))
    shuffled = select_random_matched(table.iloc[rows], like[::-1], seed=seed)
    assert chosen_ids(control) == chosen_ids(shuffled)


def test_the_control_covers_the_prompts_of_the_selection_only(pool):
    control = select_random_matched(pool, select(pool, "galp")[1:])
    assert list(control["prompt_id"]) == ["p", "r", "s"]
    left_out = {"incorrect responses": 1, "prompts outside the matched selection": 1}
    assert control.attrs["left_out"] == left_out


def test_the_control_draws_teachers_and_their_responses_uniformly():
    table = scores_table([(p, f"{t}{n}", t) for p in "pqr" for t in "AB" for n in range(2)])
    like = table[(table["prompt_id"] + table["response_id"]).isin(["pA0", "qB0", "rB1"])]
    drawn = Counter(
        tuple(select_random_matched(table, like, seed=seed)["response_id"]) for seed in range(240)
    )
    assert_uniform(drawn, 3 * 2**3)  # where A stands, and one of two responses each


@pytest.mark.parametrize(
    ("like", "named"),
    [
        ([("p", "pB", "B")], "no candidate of 'B' for prompt 'p'"),  # it is wrong
        ([("r", "rA", "A")], "no candidate of 'A' for prompt 'r'"),
        ([("z", "zA", "A")], "prompt 'z'"),
        ([("p", "pD", "D")], "'D'"),
        ([("q", "qA", "A"), ("q", "qB", "B")], "'q'.*more than once"),
        ([], "no rows"),
    ],
)
def test_a_selection_from_another_table_is_refused(pool, like, named):
    with pytest.raises(InputError, match=named):
        select_random_matched(pool, scores_table(like))


# Which teachers each prompt has a candidate of, and an assignment that is feasible.
@pytest.mark.parametrize(
    ("choices", "start"),
    [
        ([{0, 1}, {1, 2}, {2, 0}], [0, 1, 2]),  # only a cycle of three changes the start
        ([{0, 1}, {1, 2}, {2, 3}, {3, 0}], [0, 1, 2, 3]),
        ([{0, 1}, {1, 2}, {2, 0}, {0, 1, 2}, {0, 1}, {2}], [0, 1, 2, 1, 0, 2]),
    ],
)
def test_the_chain_visits_every_feasible_assignment_equally_often(choices, start):
    feasible = [f for f in itertools.product(*choices) if sorted(f) == sorted(start)]
    assert len(feasible) > 1
    available = np.array([[t in some for t in range(max(start) + 1)] for some in choices])
    generator = np.random.default_rng(0)
    state, visits = np.array(start), Counter()
    for step in range(12_000):
        matched._move(available, state, generator)
        if step % 12 == 0:  # apart enough to be nearly independent
            visits[tuple(state.tolist())] += 1
    assert set(visits) == set(feasible)
    assert_uniform(visits, len(feasible))


@steady
@given(table=tables(), order=st.randoms(use_true_random=False))
def test_the_best_of_a_mix_is_what_a_search_over_all_selections_finds(table, order):
    like = select(table, "random", seed=1)
    found = select_best_matched(table, like, "galp")
    pd.testing.assert_frame_equal(teacher_mix(found), teacher_mix(like))
    assert list(found["prompt_id"]) == list(like["prompt_id"])
    rows = table[[correct is not False for correct in table["correct"]]]
    choices = [own[["teacher", "galp"]].to_numpy() for _, own in rows.groupby("prompt_id")]
    mix = Counter(like["teacher"])
    sums = [
        sum(score for _, score in chosen)
        for chosen in itertools.product(*choices)
        if Counter(teacher for teacher, _ in chosen) == mix
    ]
    assert found["galp"].sum() == max(sums)
    shuffled = select_best_matched(
        table.iloc[order.sample(range(len(table)), len(table))], like[::-1], "galp"
    )
    assert shuffled["galp"].sum() == max(sums)


@steady
@given(table=tables())
def test_a_selection_is_the_best_of_its_own_mix(table):
    like = select(table, "galp")
    assert select_best_matched(table, like, "galp")["galp"].sum() == like["galp"].sum()


def test_the_best_of_a_mix_by_hand():
    """A is better everywhere, by most at q, so that it goes there and B to p."""
    scores = {("p", "A"): -1.0, ("p", "B"): -1.5, ("q", "A"): -2.0, ("q", "B"): -4.0}
    rows = [(p, f"{p}{t}", t, value) for (p, t), value in scores.items()]
    table = scores_table(rows, "prompt_id response_id teacher galp")
    like = table[table["response_id"].isin(["pA", "qB"])]
    assert list(select_best_matched(table, like, "galp")["response_id"]) == ["pB", "qA"]
    with pytest.raises(InputError, match="'rsr'"):
        select_best_matched(table, like, "rsr")
    with pytest.raises(InputError, match="no candidate of 'C' for prompt 'p'"):
        select_best_matched(table, like.assign(teacher="C"), "galp")


def test_the_best_of_a_mix_gives_no_prompt_to_a_teacher_who_lacks_it():
    rows = [("p", "pA", "A", -9.0), ("p", "pB", "B", 0.0), ("q", "qB", "B", -1.0)]
    table = scores_table(rows, "prompt_id response_id teacher galp")
    like = table[table["response_id"].isin(["pA", "qB"])]
    assert list(select_best_matched(table, like, "galp")["response_id"]) == ["pA", "qB"]
