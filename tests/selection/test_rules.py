"""Selection rules, the matched control, and teacher rankings with their uncertainty."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats

from lalp import stats as lalp_stats
from lalp.errors import InputError
from lalp.selection import matched, rules
from lalp.selection import ranking as selection_ranking
from lalp.selection.matched import select_random_matched
from lalp.selection.ranking import (
    compare_rankings,
    prompts_enough,
    rank_teachers,
    tau_interval,
    teacher_differences,
)
from lalp.selection.rules import (
    RULES,
    agreement,
    of_teacher,
    score_column,
    select,
    select_third,
    teacher_mix,
    within_tokens,
)
from lalp.selection.variants import VARIANTS

NAN = math.nan
# Those that need nothing but GALP and LALP columns, and no spread over the pool.
BASIC = tuple(rule for rule in RULES if rule not in VARIANTS)
steady = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def scores_table(rows: list[tuple], columns: str) -> pd.DataFrame:
    """A scores table from tuples; columns that the test does not name get neutral values."""
    table = pd.DataFrame(rows, columns=columns.split())
    neutral = {"correct": True, "num_tokens": 10, "num_steps": 2, "galp": -1.0, "reason": None}
    for name, value in neutral.items():
        if name not in table:
            table[name] = value
    return table


def means_table(means: dict[str, list[float]], column: str = "galp") -> pd.DataFrame:
    """One response per teacher and prompt; ``means`` lists each teacher's scores by prompt."""
    rows = [
        (f"p{number}", f"{teacher}{number}", teacher, value)
        for teacher, values in means.items()
        for number, value in enumerate(values)
    ]
    return scores_table(rows, f"prompt_id response_id teacher {column}")


def chosen_ids(selected: pd.DataFrame) -> dict[str, str]:
    return dict(zip(selected["prompt_id"], selected["response_id"], strict=True))


@pytest.fixture
def pool() -> pd.DataFrame:
    """Three teachers, four prompts; the best of each prompt and rule is plain to see."""
    rows = [
        ("q", "qA", "A", True, -0.9, -1.9),
        ("q", "qB", "B", True, -0.5, -1.1),
        ("q", "qC", "C", None, -0.7, -1.0),
        ("p", "pA", "A", True, -0.1, -2.0),
        ("p", "pB", "B", False, -0.05, -0.1),
        ("r", "rC", "C", None, -0.6, -1.5),
        ("s", "sA", "A", True, -0.4, -1.2),
        ("s", "sA2", "A", True, -0.3, -1.3),
        ("s", "sB", "B", True, -0.2, -1.4),
    ]
    return scores_table(rows, "prompt_id response_id teacher correct galp lalp@4")


# --- rules ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("galp", {"q": "qB", "p": "pA", "r": "rC", "s": "sB"}),
        ("galp-lowest", {"q": "qA", "p": "pA", "r": "rC", "s": "sA"}),
        ("lalp", {"q": "qC", "p": "pA", "r": "rC", "s": "sA"}),
        ("lalp-lowest", {"q": "qA", "p": "pA", "r": "rC", "s": "sB"}),
    ],
)
def test_each_rule_takes_what_one_would_take_by_hand(pool, rule, expected):
    selected = select(pool, rule, "4")
    assert chosen_ids(selected) == expected
    assert list(selected["prompt_id"]) == ["q", "p", "r", "s"]  # order of first appearance
    assert list(selected.columns) == list(pool.columns)
    assert list(selected.index) == [0, 1, 2, 3]
    assert selected.attrs["left_out"] == {"incorrect responses": 1}


def test_the_chosen_rows_are_rows_of_the_table(pool):
    selected = select(pool, "galp")
    whole = pool.merge(selected[["prompt_id", "response_id"]])
    pd.testing.assert_frame_equal(whole, selected, check_dtype=True)


def test_score_column_names_what_a_rule_compares():
    assert score_column("random") is None
    assert score_column("galp-lowest", "4") == "galp"
    assert score_column("lalp", 4) == "lalp@4"
    assert score_column("lalp-lowest", "25.0%") == "lalp@25%"
    assert score_column("lalp", "256t") == "lalp@256t"


def test_a_single_window_need_not_be_named(pool):
    assert chosen_ids(select(pool, "lalp")) == chosen_ids(select(pool, "lalp", "4"))
    pool["lalp@25%"] = -1.0
    with pytest.raises(InputError, match="4, 25%"):
        select(pool, "lalp")
    with pytest.raises(InputError, match="needs a window"):
        select(pool.drop(columns=["lalp@4", "lalp@25%"]), "lalp-lowest")


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda pool: select(pool, "best"), "random, galp, galp-middle, galp-lowest, lalp"),
        (lambda pool: select(pool, "lalp", "8"), "lalp@8.*galp, lalp@4"),
        (lambda pool: select(pool, "lalp", "8 steps"), "not understood"),
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
    table = scores_table(rows, "prompt_id response_id teacher galp")
    table["correct"] = correct
    assert chosen_ids(select(table, "galp")) == {"p": "a"}
    assert chosen_ids(select(table, "galp-lowest")) == {"p": "c"}


# --- ties -------------------------------------------------------------------------------------


@pytest.fixture
def tied() -> pd.DataFrame:
    rows = [
        ("p", "r3", "A", -0.5, 7),
        ("p", "r2", "A", -0.5, 5),
        ("p", "r1", "B", -0.5, 9),
        ("p", "r4", "B", -0.5, 5),
        ("p", "r0", "B", -0.6, 1),
    ]
    return scores_table(rows, "prompt_id response_id teacher galp num_tokens")


def test_ties_go_to_the_smallest_id_or_the_shortest(tied):
    assert chosen_ids(select(tied, "galp")) == {"p": "r1"}
    assert chosen_ids(select(tied, "galp", tie="first")) == {"p": "r1"}
    assert chosen_ids(select(tied, "galp", tie="shortest")) == {"p": "r2"}
    assert chosen_ids(select(tied, "galp-lowest", tie="shortest")) == {"p": "r0"}


def test_random_ties_are_fair_and_never_beat_a_better_score(tied):
    taken = Counter(
        select(tied, "galp", tie="random", seed=s)["response_id"][0] for s in range(400)
    )
    assert sorted(taken) == ["r1", "r2", "r3", "r4"]
    assert stats.chisquare(list(taken.values())).pvalue > 1e-3


# --- unscored candidates ----------------------------------------------------------------------


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


def test_only_the_score_that_is_compared_must_be_there(unscored):
    assert chosen_ids(select(unscored, "lalp", 4)) == {"p": "a", "q": "d"}
    assert set(select(unscored, "random")["prompt_id"]) == {"p", "q"}


def test_infinite_scores_count_as_unscored(unscored):
    unscored.loc[:, "lalp@4"] = [-math.inf, -2.0, 0.0, -1.0]
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


# --- properties of every rule -----------------------------------------------------------------

# Multiples of 1/64 so that adding a constant is exact and makes no new ties.
SCORE = st.integers(-256, 0).map(lambda n: n / 64)


@st.composite
def tables(draw, min_teachers: int = 1) -> pd.DataFrame:
    """A table in which every prompt has a candidate; responses stand in any order."""
    teachers = "ABCD"[: draw(st.integers(min_teachers, 4))]
    rows = []
    for prompt in draw(st.lists(st.text(max_size=3), min_size=1, max_size=6, unique=True)):
        for number in range(draw(st.integers(1, 5))):
            correct = draw(st.sampled_from([True, None, False])) if number else True
            teacher = draw(st.sampled_from(teachers))
            name = f"{draw(st.sampled_from('xyz'))}{number}"
            scores = draw(SCORE), draw(SCORE)
            rows.append((prompt, name, teacher, correct, draw(st.integers(1, 3)), *scores))
    columns = "prompt_id response_id teacher correct num_tokens galp lalp@4"
    return scores_table(draw(st.permutations(rows)), columns)


ANY_RULE = {
    "rule": st.sampled_from(BASIC),
    "tie": st.sampled_from(["first", "shortest", "random"]),
    "seed": st.integers(-3, 3),
}


@steady
@given(table=tables(), order=st.randoms(use_true_random=False), **ANY_RULE)
def test_choices_do_not_depend_on_the_order_of_rows(table, order, rule, tie, seed):
    rows = list(range(len(table)))
    order.shuffle(rows)
    selected = select(table, rule, seed=seed, tie=tie)
    shuffled = select(table.iloc[rows], rule, seed=seed, tie=tie)
    assert chosen_ids(selected) == chosen_ids(shuffled)
    assert selected.attrs == shuffled.attrs


@steady
@given(table=tables(), **ANY_RULE)
def test_there_is_one_candidate_per_prompt_in_order_of_appearance(table, rule, tie, seed):
    selected = select(table, rule, seed=seed, tie=tie)
    assert list(selected["prompt_id"]) == list(dict.fromkeys(table["prompt_id"]))
    assert not any(correct is False for correct in selected["correct"])


@steady
@given(table=tables(), **ANY_RULE)
def test_a_prompt_is_decided_by_its_own_candidates_alone(table, rule, tie, seed):
    whole = chosen_ids(select(table, rule, seed=seed, tie=tie))
    for prompt, rows in table.groupby("prompt_id"):
        assert chosen_ids(select(rows, rule, seed=seed, tie=tie)) == {prompt: whole[prompt]}


@steady
@given(table=tables(), rule=st.sampled_from(BASIC[1:]), tie=st.sampled_from(["first", "shortest"]))
def test_choices_equal_a_search_through_the_candidates(table, rule, tie):
    column = "galp" if rule.startswith("galp") else "lalp@4"
    sign = 1 if rule.endswith("lowest") else -1
    keys: dict[str, list[tuple]] = {}
    for row in table.to_dict("records"):
        if row["correct"] is False:
            continue
        length = row["num_tokens"] if tie == "shortest" else 0
        keys.setdefault(row["prompt_id"], []).append(
            (sign * row[column], length, row["response_id"])
        )
    place = {prompt: (len(k) - 1) // 2 * rule.endswith("middle") for prompt, k in keys.items()}
    expected = {prompt: sorted(k)[place[prompt]][2] for prompt, k in keys.items()}
    assert chosen_ids(select(table, rule, tie=tie)) == expected


@steady
@given(table=tables(), constant=st.integers(-500, 500), **ANY_RULE)
def test_adding_a_constant_to_the_scores_changes_no_choice(table, constant, rule, tie, seed):
    moved = table.assign(**{name: table[name] + constant / 64 for name in ("galp", "lalp@4")})
    before = select(table, rule, seed=seed, tie=tie)
    assert chosen_ids(before) == chosen_ids(select(moved, rule, seed=seed, tie=tie))


def test_random_is_seeded_and_uniform_and_differs_between_prompts():
    rows = [(f"p{i}", f"r{j}", "A") for i in range(300) for j in range(4)]
    table = scores_table(rows, "prompt_id response_id teacher")
    one, again, other = (select(table, "random", seed=seed) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(one, again)
    counts = one["response_id"].value_counts()
    assert len(counts) == 4
    assert stats.chisquare(counts).pvalue > 1e-3
    assert 0.15 < agreement(one, other) < 0.35  # 1/4 for independent draws


# --- control matched on the teacher mix -------------------------------------------------------


@steady
@given(table=tables(), seed=st.integers(0, 5), order=st.randoms(use_true_random=False))
def test_the_control_has_the_same_prompts_and_the_same_number_per_teacher(table, seed, order):
    like = select(table, "galp")
    control = select_random_matched(table, like, seed=seed)
    assert list(control["prompt_id"]) == list(like["prompt_id"])
    pd.testing.assert_frame_equal(teacher_mix(control), teacher_mix(like))
    assert not any(correct is False for correct in control["correct"])
    rows = list(range(len(table)))
    order.shuffle(rows)
    shuffled = select_random_matched(table.iloc[rows], like[::-1], seed=seed)
    assert chosen_ids(control) == chosen_ids(shuffled)


def test_the_control_covers_the_prompts_of_the_selection_only(pool):
    like = select(pool, "galp")[1:]
    control = select_random_matched(pool, like)
    assert list(control["prompt_id"]) == ["p", "r", "s"]
    assert control.attrs["left_out"] == {
        "incorrect responses": 1,
        "prompts outside the matched selection": 1,
    }


def test_the_control_draws_teachers_and_their_responses_uniformly():
    rows = [(p, f"{t}{n}", t) for p in "pqr" for t in "AB" for n in range(2)]
    table = scores_table(rows, "prompt_id response_id teacher")
    like = table[(table["prompt_id"] + table["response_id"]).isin(["pA0", "qB0", "rB1"])]
    drawn = Counter(
        tuple(select_random_matched(table, like, seed=seed)["response_id"]) for seed in range(240)
    )
    assert len(drawn) == 3 * 2**3  # where A stands, and one of two responses each
    assert stats.chisquare(list(drawn.values())).pvalue > 1e-3


def test_one_teacher_leaves_only_its_responses_to_draw():
    table = scores_table([("p", "a", "A"), ("p", "b", "A")], "prompt_id response_id teacher")
    drawn = {select_random_matched(table, table[:1], seed=s)["response_id"][0] for s in range(20)}
    assert drawn == {"a", "b"}


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
    selected = pd.DataFrame(like, columns=["prompt_id", "response_id", "teacher"])
    with pytest.raises(InputError, match=named):
        select_random_matched(pool, selected)


# Which teachers each prompt has a candidate of; the first assignment of each is feasible.
ONLY_A_CYCLE = ([{0, 1}, {1, 2}, {2, 0}], [0, 1, 2])
FOUR_CYCLE = ([{0, 1}, {1, 2}, {2, 3}, {3, 0}], [0, 1, 2, 3])
MIXED = ([{0, 1}, {1, 2}, {2, 0}, {0, 1, 2}, {0, 1}, {2}], [0, 1, 2, 1, 0, 2])


@pytest.mark.parametrize(("choices", "start"), [ONLY_A_CYCLE, FOUR_CYCLE, MIXED])
def test_the_chain_visits_every_feasible_assignment_equally_often(choices, start):
    counts = sorted(start)
    feasible = [f for f in itertools.product(*choices) if sorted(f) == counts]
    assert len(feasible) > 1
    available = np.array([[t in some for t in range(max(counts) + 1)] for some in choices])
    generator = np.random.default_rng(0)
    state, visits = np.array(start), Counter()
    for step in range(12_000):
        matched._move(available, state, generator)
        if step % 12 == 0:  # apart enough to be nearly independent
            visits[tuple(state.tolist())] += 1
    assert set(visits) == set(feasible)
    assert stats.chisquare(list(visits.values())).pvalue > 1e-3


def test_the_control_leaves_a_start_that_only_a_cycle_of_three_can_change():
    choices, teachers = ONLY_A_CYCLE
    rows = [(f"p{i}", f"r{t}", f"T{t}") for i, some in enumerate(choices) for t in some]
    table = scores_table(rows, "prompt_id response_id teacher")
    like = scores_table(
        [(f"p{i}", f"r{t}", f"T{t}") for i, t in enumerate(teachers)],
        "prompt_id response_id teacher",
    )
    shared = Counter(
        agreement(like, select_random_matched(table, like, seed=seed)) for seed in range(60)
    )
    assert sorted(shared) == [0.0, 1.0]
    assert 15 <= shared[1.0] <= 45


def test_the_control_is_exact_without_any_move_where_all_teachers_are_available(monkeypatch):
    monkeypatch.setattr(matched, "_MOVES_PER_TEACHER", 0)
    rows = [(p, f"{p}{t}", t) for p in "pqrs" for t in "AB"]
    table = scores_table(rows, "prompt_id response_id teacher")
    like = table[table["response_id"].isin(["pA", "qA", "rB", "sB"])]
    drawn = Counter(
        "".join(select_random_matched(table, like, seed=seed)["teacher"]) for seed in range(300)
    )
    assert len(drawn) == 6
    assert stats.chisquare(list(drawn.values())).pvalue > 1e-3


# --- composition and agreement ----------------------------------------------------------------


def test_teacher_mix_counts_and_adds_up_to_hundred():
    selected = pd.DataFrame({"teacher": ["B", "A", "B", "B"]})
    mix = teacher_mix(selected)
    assert mix["count"].to_dict() == {"A": 1, "B": 3}
    assert mix["percent"].to_dict() == {"A": 25.0, "B": 75.0}
    assert list(mix.index) == ["A", "B"]
    assert teacher_mix(selected[:0]).empty


def test_agreement_is_the_share_of_common_prompts_with_the_same_choice(pool):
    galp, lalp = select(pool, "galp"), select(pool, "lalp")
    assert agreement(galp, lalp) == 0.5  # p and r of p, q, r, s
    assert agreement(galp, galp) == 1.0
    assert agreement(galp[1:], lalp) == pytest.approx(2 / 3)
    with pytest.raises(InputError, match="share no prompt"):
        agreement(galp[:1], lalp[1:])


def test_ids_are_compared_within_a_prompt_only():
    first = scores_table([("p", "1", "A"), ("q", "2", "A")], "prompt_id response_id teacher")
    second = scores_table([("p", "2", "A"), ("q", "2", "A")], "prompt_id response_id teacher")
    assert agreement(first, second) == 0.5


# --- teacher ranking --------------------------------------------------------------------------


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
    assert list(ranking["teacher"]) == ["A", "B", "C"]
    assert list(ranking["mean"]) == [-1.0, -1.5, -2.0]
    assert list(ranking["rank"]) == [1, 2, 3]
    assert list(ranking["num_responses"]) == [3, 2, 2]
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
    assert list(ranking["low"]) == [-1.5, -2.0, -3.0]
    assert list(ranking["high"]) == [-0.5, -1.0, -1.0]


def test_equal_means_share_a_rank_and_the_top():
    ranking = rank_teachers(means_table({"C": [-1, -2], "B": [-2, -1], "A": [-3, -3]}), "galp")
    assert dict(zip(ranking["teacher"], ranking["rank"], strict=True)) == {"B": 1, "C": 1, "A": 3}
    assert list(ranking["teacher"]) == ["B", "C", "A"]
    same = rank_teachers(means_table({"A": [-0.1] * 7, "B": [-0.1] * 7}), "galp")
    assert list(same["rank"]) == [1, 1]
    assert list(same["p_top"]) == [0.5, 0.5]


def test_rounding_errors_are_no_differences():
    tenths = {"A": [-0.1, -0.2, -0.3], "B": [-0.3, -0.2, -0.1]}
    assert sum(tenths["A"]) != sum(tenths["B"])
    table = means_table(tenths)
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
    with pytest.raises(InputError) as caught:
        rank_teachers(graded[graded["prompt_id"].isin(["3", "4"])], "galp")
    assert "of 2 prompts there is one by B for 1, C for 1, A for 2" in str(caught.value)
    with pytest.raises(InputError, match="A for 0"):
        rank_teachers(means_table({"A": [NAN, NAN]}), "galp")


def test_one_teacher_has_a_mean_but_no_order():
    table = means_table({"A": [-1, -3]})
    ranking = rank_teachers(table, "galp")
    assert ranking[["mean", "rank", "p_top"]].iloc[0].tolist() == [-2.0, 1.0, 1.0]
    assert teacher_differences(table, "galp").empty
    for call in (
        lambda: compare_rankings(table, ["galp"]),
        lambda: tau_interval(table, "galp", "galp"),
        lambda: prompts_enough(table, "galp"),
    ):
        with pytest.raises(InputError, match="one teacher, 'A'"):
            call()


def test_one_prompt_gives_no_interval():
    table = means_table({"A": [-1], "B": [-2]})
    ranking = rank_teachers(table, "galp")
    assert ranking[["low", "high", "p_top"]].isna().all(axis=None)
    difference = teacher_differences(table, "galp").iloc[0]
    assert difference["difference"] == 1.0
    assert math.isnan(difference["low"])
    assert not difference["resolved"]
    assert math.isnan(tau_interval(table, "galp", "galp").low)


@pytest.fixture(scope="module")
def noisy() -> pd.DataFrame:
    """Sixty prompts of very different ease, three teachers that differ a little."""
    generator = np.random.default_rng(3)
    ease = generator.normal(-1, 0.5, size=60)
    table = means_table(
        {
            name: list(ease + gap + generator.normal(0, 0.05, size=60))
            for name, gap in [("A", 0.0), ("B", 0.04), ("C", 0.042)]
        }
    )
    table["lalp@4"] = -table["galp"]
    table["lalp@8"] = table["galp"] + generator.normal(0, 0.1, size=len(table))
    return table


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
    differences = teacher_differences(noisy, "galp").set_index(["higher", "lower"])
    order = ranking.index
    assert list(differences.index) == [
        (order[0], order[1]),
        (order[0], order[2]),
        (order[1], order[2]),
    ]
    assert order[2] == "A"
    assert differences["resolved"].tolist() == [False, True, True]


def test_a_higher_level_widens_the_interval(noisy):
    narrow, wide = (rank_teachers(noisy, "galp", level=level) for level in (0.5, 0.99))
    assert (narrow["low"] > wide["low"]).all()
    assert (narrow["high"] < wide["high"]).all()


def test_p_top_is_the_share_of_resamples_in_a_plain_loop(noisy):
    values = by_teacher(noisy)
    generator = np.random.default_rng(9)
    first = Counter()
    for _ in range(4000):
        first[int(values[generator.integers(60, size=60)].mean(axis=0).argmax())] += 1
    ranking = rank_teachers(noisy, "galp", num_resamples=4000).set_index("teacher")
    expected = [first[i] / 4000 for i in range(3)]
    assert ranking.loc[["A", "B", "C"], "p_top"].tolist() == pytest.approx(expected, abs=0.04)
    assert ranking["p_top"].sum() == pytest.approx(1)


ANALYSES = [
    lambda table: rank_teachers(table, "galp", num_resamples=200),
    lambda table: teacher_differences(table, "galp", num_resamples=200),
    lambda table: compare_rankings(table, ["galp", "lalp@8"]),
    lambda table: prompts_enough(table, "galp", num_draws=100),
    lambda table: pd.DataFrame([tau_interval(table, "galp", "lalp@8", num_resamples=200)]),
]


@pytest.mark.parametrize("analyse", ANALYSES)
def test_analyses_repeat_bit_for_bit_whatever_the_row_order(noisy, analyse, monkeypatch):
    extra = noisy.assign(response_id=noisy["response_id"] + "x", galp=noisy["galp"] / 3)
    table = pd.concat([noisy, extra, noisy.assign(response_id=noisy["response_id"] + "y")])
    once = analyse(table)
    again = analyse(table.sample(frac=1, random_state=5))
    pd.testing.assert_frame_equal(once, again, check_exact=True)
    assert once.attrs == again.attrs
    monkeypatch.setattr(lalp_stats, "_BATCH_NUMBERS", 1000)
    pd.testing.assert_frame_equal(once, analyse(table), rtol=1e-12)


def test_categories_and_nullable_floats_are_read_like_plain_columns(noisy):
    other = noisy.astype(
        {"teacher": "category", "prompt_id": "category", "galp": "Float64", "correct": "boolean"}
    )
    plain, read = rank_teachers(noisy, "galp"), rank_teachers(other, "galp")
    pd.testing.assert_frame_equal(plain, read, check_dtype=False)
    chosen = select(other, "galp")
    assert chosen_ids(chosen) == chosen_ids(select(noisy, "galp"))
    control = select_random_matched(other, chosen)
    assert chosen_ids(control) == chosen_ids(select_random_matched(noisy, select(noisy, "galp")))


# --- rankings against each other --------------------------------------------------------------


def test_kendall_tau_by_hand():
    table = means_table({"A": [-1, -1], "B": [-2, -2], "C": [-3, -3]})
    table["lalp@0"] = table["teacher"].map({"A": -3.0, "B": -2.0, "C": -1.0})  # reversed
    table["lalp@4"] = table["teacher"].map({"A": -2.0, "B": -1.0, "C": -3.0})  # one pair swapped
    taus = compare_rankings(table, ["galp", "lalp@0", "lalp@4", "galp"])
    expected = [[1, -1, 1 / 3], [-1, 1, -1 / 3], [1 / 3, -1 / 3, 1]]
    assert list(taus.index) == list(taus.columns) == ["galp", "lalp@0", "lalp@4"]
    np.testing.assert_allclose(taus, expected)
    table["lalp@8"] = -1.0
    assert compare_rankings(table, ["galp", "lalp@8"])["lalp@8"].isna().all()


def test_rankings_are_compared_on_responses_scored_under_every_column():
    table = means_table({"A": [-1, -9], "B": [-2, -2]})
    table["lalp@4"] = [-1.0, NAN, -2.0, -2.0]  # without prompt 2 A is first under both
    taus = compare_rankings(table, ["galp", "lalp@4"])
    assert taus.loc["galp", "lalp@4"] == pytest.approx(1)
    assert taus.attrs["num_prompts"] == 1
    assert taus.attrs["left_out"]["unscored responses"] == 1


def test_tau_interval_of_clear_orders_is_a_point(noisy):
    assert tau_interval(noisy, "galp", "galp") == lalp_stats.Estimate(
        pytest.approx(1), pytest.approx(1), pytest.approx(1), 60
    )
    against = tau_interval(noisy, "galp", "lalp@4")
    assert (against.value, against.low, against.high) == pytest.approx((-1, -1, -1))


def test_tau_interval_agrees_with_a_plain_loop(noisy):
    first, second = by_teacher(noisy), by_teacher(noisy, "lalp@8")
    generator = np.random.default_rng(4)
    taus = []
    for _ in range(1000):
        rows = generator.integers(60, size=60)
        taus.append(stats.kendalltau(first[rows].mean(axis=0), second[rows].mean(axis=0)).statistic)
    found = tau_interval(noisy, "galp", "lalp@8", level=0.8)
    assert [found.low, found.high] == pytest.approx(list(np.quantile(taus, [0.1, 0.9])))
    assert found.value == pytest.approx(
        stats.kendalltau(first.mean(axis=0), second.mean(axis=0)).statistic
    )


@steady
@given(
    st.lists(st.lists(st.integers(0, 3), min_size=4, max_size=4), min_size=2, max_size=2),
)
def test_vectorised_tau_equals_scipy_with_ties(ranks):
    first, second = np.array(ranks, dtype=float)
    found = selection_ranking._taus(
        selection_ranking._pair_signs(first), selection_ranking._pair_signs(second)
    )
    expected = stats.kendalltau(first, second).statistic
    assert found == pytest.approx(0.0 if math.isnan(expected) else expected)


# --- how many prompts are enough --------------------------------------------------------------


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
        assert row.order_share == pytest.approx(order, abs=0.02)
        assert row.top_share == pytest.approx(top, abs=0.02)
        assert row.mean_tau == pytest.approx(np.mean(taus), abs=0.02)
        assert row.order_low <= row.order_share <= row.order_high
        assert row.top_low <= row.top_share <= row.top_high


def test_all_prompts_find_the_order_always_and_wilson_says_how_sure_that_is(noisy):
    curve = prompts_enough(noisy, "galp", num_draws=200)
    assert list(curve["num_prompts"]) == [1, 2, 5, 10, 20, 50, 60]
    last = curve.iloc[-1]
    assert last[["order_share", "top_share", "mean_tau"]].tolist() == [1.0, 1.0, 1.0]
    z = 1.959964  # Wilson's lower bound for n of n is n / (n + z^2)
    assert last["order_low"] == pytest.approx(200 / (200 + z**2), abs=1e-6)
    assert last["order_high"] == pytest.approx(1)


def test_what_is_found_at_one_size_does_not_depend_on_the_others(noisy):
    alone = prompts_enough(noisy, "galp", [20])
    among = prompts_enough(noisy, "galp", [50, 20, 20, 3])
    assert list(among["num_prompts"]) == [3, 20, 50]
    pd.testing.assert_frame_equal(alone, among[1:2].reset_index(drop=True))


def test_more_prompts_than_two_hundred_recover_a_clear_order():
    generator = np.random.default_rng(0)
    ease = generator.normal(0, 1, 400)
    gaps = {"A": 0.0, "B": -0.05, "C": -0.1}
    table = means_table(
        {t: list(ease + g + generator.normal(0, 0.1, 400)) for t, g in gaps.items()}
    )
    curve = prompts_enough(table, "galp", [5, 200]).set_index("num_prompts")
    assert curve.loc[200, "order_share"] > 0.99 > 0.9 > curve.loc[5, "order_share"]


# --- within one teacher, and within a number of tokens ----------------------------------------


@pytest.mark.parametrize(
    ("scores", "middle"),
    [([-1.0], 0), ([-1.0, -3.0], 0), ([-5.0, -1.0, -2.0], 2), ([-4.0, -1.0, -3.0, -2.0], 3)],
)
def test_the_middle_candidate_of_a_prompt(scores, middle):
    rows = [("p", f"r{i}", "A", score) for i, score in enumerate(scores)]
    table = scores_table(rows, "prompt_id response_id teacher galp")
    assert chosen_ids(select(table, "galp-middle")) == {"p": f"r{middle}"}


def test_only_one_teachers_responses_are_kept():
    table = means_table({"A": [-1, -2], "B": [-3, -4]})
    assert set(of_teacher(table, "B")["response_id"]) == {"B0", "B1"}
    with pytest.raises(InputError, match="teacher 'C' has no response here: there are A, B"):
        of_teacher(table, "C")


def test_thirds_by_hand():
    table = means_table({"A": [-1, -7, -3, -2, -5, -6, -4]})
    thirds = {third: set(select_third(table, third)["prompt_id"]) for third in rules.THIRDS}
    assert thirds == {
        "highest": {"p0", "p3", "p2"},
        "middle": {"p6", "p4"},
        "lowest": {"p5", "p1"},
    }


@steady
@given(st.lists(st.integers(-9, 0), min_size=3, max_size=20), st.randoms(use_true_random=False))
def test_thirds_partition_the_prompts_in_the_scores_order(values, random):
    table = means_table({"A": [float(value) for value in values]})
    rows = random.sample(range(len(table)), len(table))
    thirds = [select_third(table.iloc[rows], third) for third in rules.THIRDS]
    assert sorted(pd.concat(thirds)["prompt_id"]) == sorted(table["prompt_id"])
    assert max(map(len, thirds)) - min(map(len, thirds)) <= 1
    for higher, lower in itertools.pairwise(thirds):
        assert higher["galp"].min() >= lower["galp"].max()


@pytest.mark.parametrize(
    ("means", "third", "message"),
    [
        ({"A": [-1, -2]}, "highest", "2 candidates cannot be cut into thirds"),
        ({"A": [-1, -2, -3], "B": [-1, -2, -3]}, "middle", "one response per prompt"),
        ({"A": [-1, -2, NAN]}, "lowest", "have no score galp"),
        ({"A": [-1, -2, -3]}, "best", "there is no third 'best'"),
    ],
)
def test_what_has_no_thirds_is_refused(means, third, message):
    with pytest.raises(InputError, match=message):
        select_third(means_table(means), third)


def test_a_selection_within_a_number_of_tokens():
    table = means_table({"A": [-1, -2, -3, -4]}).assign(num_tokens=[30, 10, 20, 40])
    for seed in range(5):
        part = within_tokens(table, 60, seed=seed)
        left = set(table["prompt_id"]) - set(part["prompt_id"])
        used = part["num_tokens"].sum()
        assert used <= 60
        assert all(used + table.set_index("prompt_id")["num_tokens"][p] > 60 for p in left)
    assert len(within_tokens(table, 100)) == 4
    with pytest.raises(InputError, match="fits into 9 tokens"):
        within_tokens(table, 9)


def test_prompts_are_taken_in_the_same_order_whatever_was_chosen():
    first = means_table({"A": [-1] * 12}).assign(num_tokens=10)
    second = means_table({"B": [-1] * 12}).assign(num_tokens=10)
    for seed in (0, 1):
        parts = [within_tokens(table, 50, seed=seed) for table in (first, second)]
        assert list(parts[0]["prompt_id"]) == list(parts[1]["prompt_id"])
    assert set(within_tokens(first, 50, seed=0)["prompt_id"]) != set(parts[0]["prompt_id"])
