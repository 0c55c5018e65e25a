"""Selection rules, and how selections are compared."""

from __future__ import annotations

import itertools
from collections import Counter

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lalp.errors import InputError
from lalp.selection.rules import (
    RULES,
    THIRDS,
    agreement,
    of_teacher,
    select,
    select_third,
    teacher_mix,
    within_tokens,
)
from lalp.selection.variants import DEBIASED, VARIANTS
from tests.selection.score_tables import NAN, chosen_ids, means_table, scores_table, steady, tables

# Those that need nothing but GALP and LALP columns, and no spread over the pool.
BASIC = tuple(rule for rule in RULES if rule not in (*VARIANTS, *DEBIASED))


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
    assert selected.attrs["left_out"] == {"incorrect responses": 1}
    whole = pool.merge(selected[["prompt_id", "response_id"]])
    pd.testing.assert_frame_equal(whole, selected, check_dtype=True)
    # The only window of a table need not be named.
    assert chosen_ids(select(pool, rule)) == expected


def test_random_ties_are_fair_and_never_beat_a_better_score():
    rows = [("p", f"r{i}", "A", score) for i, score in enumerate([-0.6, *[-0.5] * 4])]
    tied = scores_table(rows, "prompt_id response_id teacher galp")
    chosen = [select(tied, "galp", tie="random", seed=seed) for seed in range(400)]
    taken = Counter(one["response_id"][0] for one in chosen)
    assert sorted(taken) == ["r1", "r2", "r3", "r4"]
    assert stats.chisquare(list(taken.values())).pvalue > 1e-3


ANY_RULE = {
    "rule": st.sampled_from(BASIC),
    "tie": st.sampled_from(["first", "shortest", "random"]),
    "seed": st.integers(-3, 3),
}


@steady
@given(table=tables(), order=st.randoms(use_true_random=False), **ANY_RULE)
def test_choices_do_not_depend_on_rows_order_or_on_other_prompts(table, order, rule, tie, seed):
    selected = select(table, rule, seed=seed, tie=tie)
    assert list(selected["prompt_id"]) == list(dict.fromkeys(table["prompt_id"]))
    assert not any(correct is False for correct in selected["correct"])
    rows = order.sample(range(len(table)), len(table))
    shuffled = select(table.iloc[rows], rule, seed=seed, tie=tie)
    assert chosen_ids(selected) == chosen_ids(shuffled)
    assert selected.attrs == shuffled.attrs
    for prompt, rows in table.groupby("prompt_id"):
        alone = select(rows, rule, seed=seed, tie=tie)
        assert chosen_ids(alone) == {prompt: chosen_ids(selected)[prompt]}


@steady
@given(table=tables(), rule=st.sampled_from(BASIC[1:]), tie=st.sampled_from(["first", "shortest"]))
def test_choices_equal_a_search_through_the_candidates(table, rule, tie):
    column = "galp" if rule.startswith("galp") else "lalp@4"
    sign = 1 if rule.endswith("lowest") else -1
    expected = {}
    for prompt, rows in table[table["correct"].ne(False)].groupby("prompt_id"):
        lengths = rows["num_tokens"] if tie == "shortest" else 0 * rows["num_tokens"]
        ranked = sorted(zip(sign * rows[column], lengths, rows["response_id"], strict=True))
        expected[prompt] = ranked[(len(ranked) - 1) // 2 * rule.endswith("middle")][2]
    assert chosen_ids(select(table, rule, tie=tie)) == expected


def test_random_is_seeded_and_uniform_and_differs_between_prompts():
    table = scores_table([(f"p{i}", f"r{j}", "A") for i in range(300) for j in range(4)])
    one, again, other = (select(table, "random", seed=seed) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(one, again)
    counts = one["response_id"].value_counts()
    assert len(counts) == 4
    assert stats.chisquare(counts).pvalue > 1e-3
    assert 0.15 < agreement(one, other) < 0.35  # 1/4 for independent draws


def test_teacher_mix_counts_and_adds_up_to_hundred():
    selected = pd.DataFrame({"teacher": ["B", "A", "B", "B"]})
    mix = teacher_mix(selected)
    assert mix.to_dict("index") == {
        "A": {"count": 1, "percent": 25.0},
        "B": {"count": 3, "percent": 75.0},
    }
    assert list(mix.index) == ["A", "B"]
    assert teacher_mix(selected[:0]).empty


def test_agreement_is_the_share_of_common_prompts_with_the_same_choice(pool):
    galp, lalp = select(pool, "galp"), select(pool, "lalp")
    assert agreement(galp, lalp) == 0.5  # p and r of p, q, r, s
    assert agreement(galp, galp) == 1.0
    assert agreement(galp[1:], lalp) == pytest.approx(2 / 3)
    with pytest.raises(InputError, match="share no prompt"):
        agreement(galp[:1], lalp[1:])
    # Ids are compared within a prompt only.
    first, second = (scores_table([("p", one, "A"), ("q", "2", "A")]) for one in "12")
    assert agreement(first, second) == 0.5


def test_only_one_teachers_responses_are_kept():
    table = means_table({"A": [-1, -2], "B": [-3, -4]})
    assert set(of_teacher(table, "B")["response_id"]) == {"B0", "B1"}
    with pytest.raises(InputError, match="teacher 'C' has no response here: there are A, B"):
        of_teacher(table, "C")


@steady
@given(st.lists(st.integers(-9, 0), min_size=3, max_size=20), st.randoms(use_true_random=False))
def test_thirds_partition_the_prompts_in_the_scores_order(values, random):
    table = means_table({"A": [float(value) for value in values]})
    rows = random.sample(range(len(table)), len(table))
    thirds = [select_third(table.iloc[rows], third) for third in THIRDS]
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
    lengths = table.set_index("prompt_id")["num_tokens"]
    for seed in range(5):
        part = within_tokens(table, 60, seed=seed)
        used = part["num_tokens"].sum()
        assert used <= 60
        assert (used + lengths.drop(part["prompt_id"]) > 60).all()  # none of the others fits
    assert len(within_tokens(table, 100)) == 4
    with pytest.raises(InputError, match="fits into 9 tokens"):
        within_tokens(table, 9)


def test_prompts_are_taken_in_the_same_order_whatever_was_chosen():
    first, second = (means_table({name: [-1] * 12}) for name in "AB")  # 10 tokens each
    parts = [set(within_tokens(first, 50, seed=seed)["prompt_id"]) for seed in (0, 1)]
    assert parts == [set(within_tokens(second, 50, seed=seed)["prompt_id"]) for seed in (0, 1)]
    assert parts[0] != parts[1]
