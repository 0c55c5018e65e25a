"""Scores beside GALP and LALP: hybrid, without first tokens, rank-surprisal ratio."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lalp.errors import InputError
from lalp.selection import variants
from lalp.selection.rules import select
from lalp.selection.variants import (
    DEBIASED,
    VARIANTS,
    add_variants,
    variant_column,
    within_prompt_correlations,
)
from tests.selection.score_tables import tokens_table


@pytest.mark.parametrize(
    ("tokens", "steps", "galp", "lalp"),
    [
        # Steps of 1, 3 and 2 tokens; without first tokens: (-1, -3) and (-5).
        ([-9, -8, -1, -3, -7, -5], [0, 1, 1, 1, 2, 2], -3, -3.5),
        ([-1, -2], [0, 1], math.nan, math.nan),  # steps of one token leave no tail
    ],
)
def test_tails_by_hand(tokens, steps, galp, lalp):
    table = tokens_table((tokens, steps))
    added = add_variants(table, ["galp-tail", "lalp-tail"], "4")
    found = added[["galp-tail", "lalp-tail@4"]].iloc[0].tolist()
    assert found == pytest.approx([galp, lalp], nan_ok=True)


def test_unscored_responses_stay_unscored():
    table = tokens_table(*[([-1, -2, -3], [0, 0, 1])] * 2)
    table.loc[0, ["galp", "lalp@4"]] = math.nan
    added = add_variants(table, VARIANTS, "4")
    columns = [variant_column(variant, "4") for variant in VARIANTS]
    assert added.loc[0, columns].isna().all()
    assert added.loc[1, columns].notna().all()


def test_hybrid_by_hand():
    # GALP -1 and -3: standardized 1 and -1. LALP -4 and -2: -1 and 1.
    table = pd.DataFrame({"galp": [-1.0, -3.0], "lalp@4": [-4.0, -2.0]})
    assert list(add_variants(table, ["hybrid"], 4)["hybrid@4"]) == pytest.approx([0, 0])
    heavy = add_variants(table, ["hybrid"], 4, weight=0.75)["hybrid@4"]
    assert list(heavy) == pytest.approx([-0.5, 0.5])


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(*[st.integers(-512, 0)] * 2), min_size=2, max_size=12),
    st.randoms(use_true_random=False),
)
def test_the_hybrids_choice_does_not_depend_on_the_order_of_rows(pairs, random):
    table = tokens_table(*[([-1, -2], [0, 0])] * len(pairs))
    table[["galp", "lalp@4"]] = np.array(pairs) / 64
    rows = random.sample(range(len(pairs)), len(pairs))
    chosen = select(table, "hybrid", "4")["response_id"]
    assert list(chosen) == list(select(table.iloc[rows], "hybrid", "4")["response_id"])


def test_rank_surprisal_ratio_by_hand_and_the_lowest_is_chosen():
    ranks = [{"mean_rank_100": 6.0}, {"mean_rank_100": 4.0}]
    table = tokens_table(([-2, -2], [0, 0], ranks[0]), ([-1, -3], [0, 0], ranks[1]))
    assert list(add_variants(table, ["rsr"])["rsr"]) == pytest.approx([3.0, 2.0])
    assert list(select(table, "rsr")["response_id"]) == ["r1"]


def test_selection_computes_what_the_table_lacks():
    table = tokens_table(([-9, -1, -9, -1], [0, 0, 1, 1]), ([-2] * 4, [0, 0, 1, 1]))
    assert list(select(table, "galp")["response_id"]) == ["r1"]
    for rule in ("galp-tail", "lalp-tail"):  # their only window need not be named
        assert list(select(table, rule)["response_id"]) == ["r0"], rule


ONE = tokens_table(([-1, -2], [0, 0]))


@pytest.mark.parametrize(
    ("variant", "change", "message"),
    [
        ("rsr", {"drop": "mean_rank_100"}, "no column 'mean_rank_100': score the pool again"),
        ("lalp-tail", {"drop": "lalp@4:tokens"}, "score the pool with tokens"),
        ("hybrid", {"drop": "lalp@4"}, "no column 'lalp@4'"),
        ("best", {}, "there is no score 'best'"),
        ("hybrid", {"window": None}, "needs a window"),
        ("hybrid", {"weight": 1.5}, "between 0 and 1"),
    ],
)
def test_bad_requests_and_missing_columns_are_refused(variant, change, message):
    settings = {"window": "4"} | change
    table = ONE.drop(columns=settings.pop("drop", []))
    with pytest.raises(InputError, match=message):
        add_variants(table, [variant], **settings)


def test_within_prompt_correlations_by_hand():
    # Prompt a: same order (tau 1); b: opposite (-1); c: ties only, left out.
    table = pd.DataFrame({"prompt_id": list("aabbcc"), "num_tokens": 10, "num_steps": 2})
    table["galp"] = [-1.0, -2.0, -1.0, -2.0, -1.0, -1.0]
    table["lalp@4"] = [-1.0, -3.0, -3.0, -1.0, -2.0, -3.0]
    table["rsr"] = [1.0, 2.0, 3.0, 4.0, 5.0, 5.0]  # lower is better
    with_lalp, with_rsr, _ = within_prompt_correlations(table, ["galp", "lalp@4", "rsr"]).values
    assert list(with_lalp) == ["galp", "lalp@4", 0, -1, 1, 2]  # tau, its interval, prompts
    assert list(with_rsr) == ["galp", "rsr", 1, 1, 1, 2]


@settings(max_examples=20, deadline=None)
@given(st.permutations(list(range(6))))
def test_correlations_do_not_depend_on_the_order_of_rows(order):
    prompts = [{"prompt_id": name} for name in "aaabbb"]
    table = tokens_table(*(([-i, -2 * i % 5], [0, i % 2], prompts[i]) for i in range(6)))
    names = ["galp", "lalp@4", "tokens_per_step"]
    pd.testing.assert_frame_equal(
        within_prompt_correlations(table, names),
        within_prompt_correlations(table.iloc[order], names),
    )


def casl_table(gamma: float) -> pd.DataFrame:
    """Responses whose score falls by ``gamma`` for each unit of the share of first tokens.

    First tokens are -8 + noise, others -1 + noise; the share is 1/2, 1/3, 1/4, ...
    """
    generator = np.random.default_rng(0)
    rows = []
    for number in range(12):
        length, noise = 2 + number % 4, generator.normal(0, 0.1, 2)
        tokens = [-8 + noise[0], *[-1 + noise[1]] * (length - 1)] * 3
        rows.append((tokens, np.repeat([0, 1, 2], length)))
    table = tokens_table(*rows)
    share = 1 / (2 + np.arange(12) % 4)
    first = np.array([tokens[0] for tokens in table["galp:tokens"]])
    tail = np.array([tokens[1] for tokens in table["galp:tokens"]])
    score = 0.5 * first + 2 * tail + gamma * share
    return table.assign(**{"galp": score, "lalp@4": score})


@pytest.mark.parametrize("rule", ["galp-casl", "lalp-casl@4"])
def test_casl_finds_the_slope_and_takes_it_off(rule):
    table = casl_table(-7.0)
    added = add_variants(table, [rule.partition("@")[0]], "4")[rule]
    share = 1 / (2 + np.arange(12) % 4)
    assert list(added) == pytest.approx(list(table["galp"] + 7 * share))


def test_casl_takes_the_preference_for_long_steps_away():
    # GALP of these texts grows with the length of steps by nothing but dilution.
    table = casl_table(0.0)
    table["galp"] = [np.mean(tokens) for tokens in table["galp:tokens"]]
    lengths = table["num_tokens"] / 3
    before = np.corrcoef(table["galp"], lengths)[0, 1]
    after = np.corrcoef(add_variants(table, ["galp-casl"])["galp-casl"], lengths)[0, 1]
    assert before > 0.9
    assert abs(after) < 0.5


def test_casl_weights_steps_alike_for_lalp_and_leaves_unscored_responses_out():
    table = casl_table(-7.0)
    long = [*[-1.0] * 9, -4.0, -2.0]  # steps of 9 and of 2 tokens
    table.at[0, "lalp@4:tokens"], table.at[0, "token_steps"] = np.array(long), [0] * 9 + [1] * 2
    table.loc[1, "lalp@4"] = math.nan
    parts = variants._token_parts(table, "lalp@4", by_step=True)
    # First tokens -1 and -4; the others' steps -1 and -2; one of 9 and one of 2.
    assert list(parts[0]) == pytest.approx([-2.5, -1.5, (1 / 9 + 1 / 2) / 2])
    by_token = variants._token_parts(table, "lalp@4", by_step=False)
    assert list(by_token[0]) == pytest.approx([-2.5, (-8 - 2) / 9, 2 / 11])
    added = add_variants(table, ["lalp-casl"], 4)["lalp-casl@4"]
    assert added.isna().tolist() == [False, True] + [False] * 10


@settings(max_examples=20, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_casl_rules_choice_does_not_depend_on_the_order_of_rows(random):
    table = casl_table(-3.0).assign(prompt_id=list("aabbccddeeff"))
    rows = random.sample(range(12), 12)
    for rule in DEBIASED:
        chosen, shuffled = select(table, rule, "4"), select(table.iloc[rows], rule, "4")
        assert sorted(chosen["response_id"]) == sorted(shuffled["response_id"])


def test_casl_needs_enough_responses_and_their_tokens():
    table = casl_table(-7.0)
    with pytest.raises(InputError, match=r"fits four numbers to 4 scored.*at least 5"):
        add_variants(table[:4], ["galp-casl"])
    with pytest.raises(InputError, match="score the pool with tokens"):
        select(table.drop(columns="galp:tokens"), "galp-casl")
    with pytest.raises(InputError, match=r"no score 'galp-cals': did you mean 'galp-casl'"):
        add_variants(table, ["galp-cals"])
