"""Limits of a selection: their order, and that none is ever broken."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lalp.errors import InputError
from lalp.selection.limits import Limits, cut, parse_quotas, parse_share
from lalp.selection.rules import RULES, select
from lalp.selection.table import best_first
from lalp.selection.variants import DEBIASED, VARIANTS
from tests.selection.score_tables import means_table, scores_table, steady, tables

BASIC = tuple(rule for rule in RULES if rule not in (*VARIANTS, *DEBIASED))
SHARES = st.sampled_from(["10%", "25%", "50%", "100%", 0.3])
LIMITS = st.fixed_dictionaries(
    {"per_prompt": st.integers(1, 3)},
    optional={
        "where": st.sampled_from(["correct", "num_tokens < 3", "galp >= -3 and num_tokens > 0"]),
        "min_score": st.sampled_from([-4.0, -2.0, -1.0]),
        "top": st.sampled_from(["20%", "50%", "50%/teacher", 0.7]),
        "max_tokens": st.integers(1, 20),
        "quota": st.dictionaries(st.sampled_from("AB"), SHARES, min_size=1),
    },
)


def by_id(selected: pd.DataFrame) -> list[tuple]:
    return sorted(zip(selected["prompt_id"], selected["response_id"], strict=True))


def chosen_within(table: pd.DataFrame, rule: str, seed: int, limits: dict) -> pd.DataFrame | None:
    """The selection, or None where the limits leave nothing or name what is not there."""
    if rule == "random":
        limits.pop("min_score", None)
    try:
        return select(table, rule, seed=seed, **limits)
    except InputError:
        return None


@settings(steady, max_examples=40)
@given(
    table=tables(),
    rule=st.sampled_from(BASIC),
    limits=LIMITS,
    seed=st.integers(0, 3),
    order=st.randoms(use_true_random=False),
)
def test_no_limit_is_broken_and_the_order_of_rows_does_not_matter(table, rule, limits, seed, order):
    rows = order.sample(range(len(table)), len(table))
    selected = chosen_within(table, rule, seed, dict(limits))
    shuffled = chosen_within(table.iloc[rows], rule, seed, dict(limits))
    assume(selected is not None)
    assert by_id(selected) == by_id(shuffled)
    assert selected.attrs == shuffled.attrs
    assert selected["prompt_id"].value_counts().max() <= limits["per_prompt"]
    assert not any(correct is False for correct in selected["correct"])
    if limits.get("where") == "correct":
        assert selected["correct"].tolist() == [True] * len(selected)
    if "max_tokens" in limits:
        assert selected["num_tokens"].sum() <= limits["max_tokens"]
    if "min_score" in limits and rule != "random":
        column = "galp" if rule.startswith("galp") else "lalp@4"
        assert (selected[column] >= limits["min_score"]).all()
    for teacher, share in Limits(**limits).shares.items():
        exact = share * len(selected)
        assert math.floor(exact) <= (selected["teacher"] == teacher).sum() <= math.ceil(exact)
    # Prompts stand in the table's order, each in one piece.
    places = [list(dict.fromkeys(table["prompt_id"])).index(p) for p in selected["prompt_id"]]
    assert places == sorted(places)


@steady
@given(table=tables(), rule=st.sampled_from(BASIC), seed=st.integers(0, 3))
def test_limits_that_do_not_bind_change_nothing(table, rule, seed):
    plain = select(table, rule, seed=seed)
    wide = {"top": "100%", "max_tokens": 10**6, "per_prompt": 1, "where": "num_tokens > 0"}
    teachers = sorted(set(table["teacher"]))
    widest = wide | {"teachers": teachers} | ({} if rule == "random" else {"min_score": -1e9})
    pd.testing.assert_frame_equal(plain, select(table, rule, seed=seed, **widest))
    every = select(table, rule, seed=seed, per_prompt=99)
    assert len(every) == (table["correct"].ne(False)).sum()


@steady
@given(table=tables(), count=st.integers(1, 4), rule=st.sampled_from(BASIC[1:]))
def test_a_prompts_responses_are_what_a_search_through_its_candidates_gives(table, count, rule):
    column = "galp" if rule.startswith("galp") else "lalp@4"
    sign = 1 if rule.endswith("lowest") else -1
    expected = []
    for prompt, rows in table[table["correct"].ne(False)].groupby("prompt_id"):
        ranked = sorted(zip(sign * rows[column], rows["response_id"], strict=True))
        skipped = max(0, len(ranked) - count) // 2 if rule.endswith("middle") else 0
        expected += [(prompt, name) for _, name in ranked[skipped : skipped + count]]
    assert by_id(select(table, rule, per_prompt=count)) == sorted(expected)


@pytest.fixture
def graded() -> pd.DataFrame:
    """Six prompts with a response by A (better) and by B each; the first prompts are best."""
    rows = [
        (f"p{n}", f"{teacher}{n}", teacher, n % 2 == 0, -n - worse, 10 * (n + 1))
        for n in range(6)
        for teacher, worse in (("A", 0.0), ("B", 0.5))
    ]
    return scores_table(rows, "prompt_id response_id teacher easy galp num_tokens")


@pytest.mark.parametrize(
    ("limits", "expected", "left_out"),
    [
        ({"per_prompt": 2, "top": "25%"}, "A0 B0 A1", {"top share": 9}),
        ({"per_prompt": 2, "top": "30%/teacher"}, "A0 B0 A1 B1", {"top share": 8}),
        ({"top": 0.5}, "A0 A1 A2", {"top share": 3}),
        # 10 + 20 + 30 fit into 65; 40, 50 and 60 do not.
        ({"max_tokens": 65}, "A0 A1 A2", {"token budget": 3}),
        # 10 + 20 + 30 + 40 = 100 leaves nothing; without the first, 50 still fits.
        ({"max_tokens": 50, "min_score": -4.0}, "A0 A1", {"token budget": 3, "low": 3}),
        ({"per_prompt": 2, "quota": {"A": "50%"}}, "A0 B0 A1 B1 A2 B2 A3 B3 A4 B4 A5 B5", {}),
        # One of three by A; B has six, so three of A go with them.
        ({"per_prompt": 2, "quota": {"A": 0.25}}, "A0 B0 B1 A1 B2 B3 B4 B5", {"quotas": 4}),
        ({"per_prompt": 2, "quota": {"A": 0}}, "B0 B1 B2 B3 B4 B5", {"quotas": 6}),
        (
            {"per_prompt": 2, "quota": {"A": 0.25}, "top": "50%"},
            "B0 A0 B1 B2",
            {"quotas": 4, "top share": 4},
        ),
        ({"where": "easy", "teachers": "B"}, "B0 B2 B4", {"where": 3}),
        ({"where": ["easy", "num_tokens < 50"]}, "A0 A2", {"where": 8}),
        ({"min_score": -2.25}, "A0 A1 A2", {"low": 7}),
    ],
)
def test_each_limit_by_hand(graded, limits, expected, left_out):
    selected = select(graded, "galp", **limits)
    assert sorted(selected["response_id"]) == sorted(expected.split())
    counts = selected.attrs["left_out"]
    names = {"where": "responses that do not meet the conditions"}
    names["low"] = "responses below the least score"
    found = {names.get(name, f"responses beyond the {name}"): n for name, n in left_out.items()}
    assert {name: n for name, n in counts.items() if not name.startswith("prompts")} == found


def test_the_best_first_means_the_rules_own_order(graded):
    one = {"per_prompt": 2, "top": "20%"}  # three of twelve
    assert set(select(graded, "galp-lowest", **one)["response_id"]) == {"B5", "A5", "B4"}
    middle = {"teachers": "A", "top": "50%"}
    assert set(select(graded, "galp-middle", **middle)["response_id"]) == {"A1", "A2", "A3"}


def test_a_random_part_does_not_prefer_prompts_with_many_candidates():
    rows = [("few", "f0", "A"), *[("many", f"m{i}", "A") for i in range(9)]]
    table = scores_table(rows)
    taken = Counter(select(table, "random", seed=s, top="50%")["prompt_id"][0] for s in range(300))
    assert 110 < taken["few"] < 190


def test_teachers_with_a_quota_of_nothing_are_no_others():
    table = means_table({name: [-1.0] * 8 for name in "ABC"})
    mix = Counter(select(table, "galp", per_prompt=3, quota={"A": 0, "B": "75%"})["teacher"])
    assert mix["A"] == 0 and mix["B"] == 8
    assert mix["C"] in (2, 3)


@steady
@given(
    shares=st.lists(st.integers(0, 8), min_size=1, max_size=5).filter(any),
    sizes=st.lists(st.integers(1, 30), min_size=5, max_size=5),
    budget=st.none() | st.integers(1, 400),
    random=st.randoms(use_true_random=False),
)
def test_quotas_hold_within_rounding_and_are_filled_as_far_as_they_go(
    shares, sizes, budget, random
):
    quota = {name: Fraction(n, sum(shares)) for name, n in zip("ABCDE", shares, strict=False)}
    rows = [
        (f"{t}{i}", f"{t}{i}", t, random.random(), random.randint(1, 20))
        for t, size in zip(quota, sizes, strict=False)
        for i in range(size)
    ]
    table = scores_table(rows, "prompt_id response_id teacher galp num_tokens")
    texts = {name: str(float(share)) for name, share in quota.items()}
    try:
        limits = Limits(quota=texts, max_tokens=budget)
    except InputError:  # thirds as decimals may exceed 1 in all
        assume(False)
    try:
        kept, _ = cut(table, best_first(table, [-table["galp"]]), limits)
    except InputError:  # or leave a rest that nobody is there for
        assume(False)
    chosen = table[kept]
    for name, share in limits.shares.items():
        exact = share * len(chosen)
        assert math.floor(exact) <= (chosen["teacher"] == name).sum() <= math.ceil(exact)
    if budget is not None:
        assert chosen["num_tokens"].sum() <= budget
        return
    # Some teacher has given all it has, and each gave its best.
    assert any((chosen["teacher"] == t).sum() == (table["teacher"] == t).sum() for t in quota)
    for teacher, rows in table.groupby("teacher"):
        ranked = rows.sort_values(["galp", "response_id"], ascending=[False, True])
        best = ranked["response_id"].head((chosen["teacher"] == teacher).sum())
        assert set(best) == set(chosen.loc[chosen["teacher"] == teacher, "response_id"])


def test_thirds_as_floats_are_thirds():
    table = means_table({name: [-1.0] * 8 for name in "ABC"})
    selected = select(table, "galp", per_prompt=3, quota=dict.fromkeys("ABC", 1 / 3))
    assert Counter(selected["teacher"]) == {"A": 8, "B": 8, "C": 8}


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"teachers": ["A", "Bb"]}, "teacher 'Bb' has no response here: did you mean 'B'"),
        ({"quota": {"a": "20%"}}, "teacher 'a' has no response here"),
        ({"quota": {"A": "60%", "B": "50%"}}, "more than 100 %"),
        (
            {"quota": {"A": "60%", "B": "30%"}, "per_prompt": 2},
            "add up to 0.9, and no other teacher",
        ),
        ({"quota": {"B": "20%"}}, "'B' has a quota, and the rule chose no response"),
        ({"quota": {"A": "x"}}, "quota of 'A', 'x' is no share"),
        ({"top": "20"}, "top '20' is no share: give 20% or 0.2"),
        ({"top": "120%"}, "at most 100%"),
        ({"top": "0%"}, "top is 0 %"),
        ({"top": "20%/prompt"}, "is no share"),
        ({"per_prompt": 0}, "per_prompt is 0"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"max_tokens": 9}, "no candidate is left.*6 responses beyond the token budget"),
        ({"min_score": math.nan}, "min_score is nan"),
        ({"min_score": 1.0}, "12 responses below the least score"),
        ({"where": "num_tokens > 99"}, "no response meets the condition 'num_tokens > 99'"),
        ({"where": "nmu_tokens > 9"}, "did you mean 'num_tokens'"),
    ],
)
def test_limits_that_cannot_be_kept_are_refused(graded, limits, message):
    with pytest.raises(InputError, match=message):
        select(graded, "galp", **limits)


def test_scores_that_a_limit_needs_must_be_there(graded):
    with pytest.raises(InputError, match="min_score goes with a score"):
        select(graded, "random", min_score=-1.0)
    with pytest.raises(InputError, match="'A2' of prompt 'p2' has no num_tokens"):
        lengths = graded["num_tokens"].where(graded["response_id"] != "A2")
        select(graded.assign(num_tokens=lengths), "galp", max_tokens=99)
    with pytest.raises(TypeError, match="per_promt"):
        select(graded, "galp", per_promt=2)


def test_quotas_of_a_command_line():
    assert parse_quotas(["A=B=30%"]) == {"A=B": "30%"}
    for texts, message in ((["A"], "'A' is not understood"), (["A=1", "A=0"], "two quotas")):
        with pytest.raises(InputError, match=message):
            parse_quotas(texts)
    assert [parse_share(s, "top") for s in ("0", ".5", 1, "100%", 1 / 3)] == [
        *(0, Fraction(1, 2), 1, 1),
        Fraction(str(1 / 3)),
    ]


def test_weights_by_hand(graded):
    # Of three candidates two are taken; the third has -4: leads of 3 and 1, mean 2.
    rows = [("p", n, "A", s) for n, s in (("a", -1.0), ("b", -3.0), ("c", -4.0))]
    table = scores_table([*rows, ("q", "d", "A", -9.0)], "prompt_id response_id teacher galp")
    selected = select(table, "galp", per_prompt=2, weights=True)
    assert selected["weight"].tolist() == [1.5, 0.5, 1.0]
    lowest = select(table, "galp-lowest", per_prompt=2, weights=True)
    assert lowest[["response_id", "weight"]].values.tolist() == [["c", 1.2], ["b", 0.8], ["d", 1.0]]
    # One of each prompt counts 1; so do all of a prompt that gives all it has.
    for count in (1, 3):
        assert set(select(table, "galp", per_prompt=count, weights=True)["weight"]) == {1.0}
    for rule in ("random", "galp-middle"):
        with pytest.raises(InputError, match="no best response to weight"):
            select(table, rule, weights=True)


@steady
@given(
    table=tables(), count=st.integers(1, 3), rule=st.sampled_from(["galp", "lalp", "lalp-lowest"])
)
def test_weights_are_never_negative_and_their_mean_is_one_in_each_prompt(table, count, rule):
    selected = select(table, rule, per_prompt=count, weights=True)
    assert (selected["weight"] >= 0).all()
    assert np.allclose(selected.groupby("prompt_id")["weight"].mean(), 1)
    for _, rows in selected.groupby("prompt_id"):
        assert all(a >= b - 1e-12 for a, b in itertools.pairwise(rows["weight"]))
