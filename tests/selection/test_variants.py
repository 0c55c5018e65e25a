"""Scores beside GALP and LALP: hybrid, without first tokens, rank-surprisal ratio."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import build_student
from hypothesis import given, settings
from hypothesis import strategies as st

from lalp.errors import InputError
from lalp.paper.profiles import load_profile
from lalp.paper.selection.variants import first_token_table
from lalp.pools.reading import load_pool
from lalp.scoring.run import score
from lalp.selection.rules import select
from lalp.selection.variants import (
    VARIANTS,
    add_variants,
    variant_column,
    within_prompt_correlations,
)


def table_of(rows: list[dict]) -> pd.DataFrame:
    """A score table with token columns; GALP and LALP follow from the tokens."""
    made = []
    for i, row in enumerate(rows):
        tokens, steps = np.array(row["tokens"], float), np.array(row["steps"])
        means = [tokens[steps == k].mean() for k in np.unique(steps)]
        made.append(
            {
                "prompt_id": row.get("prompt", "p"),
                "response_id": f"r{i}",
                "teacher": row.get("teacher", "A"),
                "correct": True,
                "num_tokens": len(tokens),
                "num_steps": len(means),
                "galp": tokens.mean(),
                "lalp@4": float(np.mean(means)),
                "mean_rank_100": row.get("rank", 1.0),
                "token_steps": steps,
                "galp:tokens": tokens,
                "lalp@4:tokens": tokens,
            }
        )
    return pd.DataFrame(made)


def test_tails_by_hand():
    # Steps of 1, 3 and 2 tokens; without first tokens: (-1, -3) and (-5).
    table = table_of([{"tokens": [-9, -8, -1, -3, -7, -5], "steps": [0, 1, 1, 1, 2, 2]}])
    added = add_variants(table, ["galp-tail", "lalp-tail"], "4")
    assert added["galp-tail"][0] == pytest.approx(-3)  # mean of -1, -3, -5
    assert added["lalp-tail@4"][0] == pytest.approx(-3.5)  # mean of -2 and -5


def test_steps_of_one_token_leave_no_tail():
    table = table_of([{"tokens": [-1, -2], "steps": [0, 1]}])
    added = add_variants(table, ["galp-tail", "lalp-tail"], "4")
    assert math.isnan(added["galp-tail"][0])
    assert math.isnan(added["lalp-tail@4"][0])


def test_unscored_responses_stay_unscored():
    table = table_of([{"tokens": [-1, -2, -3], "steps": [0, 0, 1]}] * 2)
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


@given(
    st.lists(st.tuples(*[st.integers(-512, 0)] * 2), min_size=2, max_size=12),
    st.sampled_from([0.0, 1.0]),
)
def test_the_hybrids_ends_order_as_galp_and_lalp_do(pairs, weight):
    table = pd.DataFrame(pairs, columns=["galp", "lalp@2"]) / 64
    hybrid = add_variants(table, ["hybrid"], "2", weight=weight)["hybrid@2"]
    end = table["lalp@2" if weight else "galp"]
    assert (hybrid.rank() == end.rank()).all()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(*[st.integers(-512, 0)] * 2), min_size=2, max_size=12),
    st.randoms(use_true_random=False),
)
def test_the_hybrids_choice_does_not_depend_on_the_order_of_rows(pairs, random):
    table = table_of([{"tokens": [-1, -2], "steps": [0, 0]}] * len(pairs))
    table[["galp", "lalp@4"]] = np.array(pairs) / 64
    rows = random.sample(range(len(pairs)), len(pairs))
    chosen = select(table, "hybrid", "4")["response_id"]
    assert list(chosen) == list(select(table.iloc[rows], "hybrid", "4")["response_id"])


def test_first_tokens_beside_the_others_by_hand():
    table = table_of(
        [
            {"tokens": [-6, -1, -4, -3], "steps": [0, 0, 1, 1]},
            {"tokens": [-2, -5], "steps": [0, 0]},
        ]
    )
    found = first_token_table(table, replace(load_profile("smoke"), main_window="4"))
    assert list(found["GALP"]) == pytest.approx([-4, -3])  # -6, -4, -2 and -1, -3, -5
    assert list(found["LALP"]) == pytest.approx([-4, -3])


def test_rank_surprisal_ratio_by_hand_and_the_lowest_is_chosen():
    table = table_of(
        [
            {"tokens": [-2, -2], "steps": [0, 0], "rank": 6.0},
            {"tokens": [-1, -3], "steps": [0, 0], "rank": 4.0},
        ]
    )
    assert list(add_variants(table, ["rsr"])["rsr"]) == pytest.approx([3.0, 2.0])
    assert list(select(table, "rsr")["response_id"]) == ["r1"]


def test_selection_computes_what_the_table_lacks():
    table = table_of(
        [
            {"tokens": [-9, -1, -9, -1], "steps": [0, 0, 1, 1]},
            {"tokens": [-2, -2, -2, -2], "steps": [0, 0, 1, 1]},
        ]
    )
    assert list(select(table, "galp")["response_id"]) == ["r1"]
    for rule in ("galp-tail", "lalp-tail"):
        assert list(select(table, rule)["response_id"]) == ["r0"], rule


def test_the_only_window_is_found_beside_token_columns():
    table = table_of([{"tokens": [-1, -2], "steps": [0, 0]}])
    assert len(select(table, "lalp")) == 1


@pytest.mark.parametrize(
    ("variant", "drop", "message"),
    [
        ("rsr", "mean_rank_100", "no column 'mean_rank_100': score the pool again"),
        ("lalp-tail", "lalp@4:tokens", "score the pool with tokens"),
        ("hybrid", "lalp@4", "no column 'lalp@4'"),
    ],
)
def test_missing_columns_are_named(variant, drop, message):
    table = table_of([{"tokens": [-1, -2], "steps": [0, 0]}]).drop(columns=drop)
    with pytest.raises(InputError, match=message):
        add_variants(table, [variant], "4")


def test_bad_requests_are_refused():
    table = table_of([{"tokens": [-1, -2], "steps": [0, 0]}])
    with pytest.raises(InputError, match="there is no score 'best'"):
        add_variants(table, ["best"])
    with pytest.raises(InputError, match="needs a window"):
        add_variants(table, ["hybrid"])
    with pytest.raises(InputError, match="between 0 and 1"):
        add_variants(table, ["hybrid"], "4", weight=1.5)


def test_within_prompt_correlations_by_hand():
    # Prompt a: same order (tau 1); b: opposite (-1); c: ties only, left out.
    table = pd.DataFrame(
        {
            "prompt_id": list("aabbcc"),
            "num_tokens": 10,
            "num_steps": 2,
            "galp": [-1.0, -2.0, -1.0, -2.0, -1.0, -1.0],
            "lalp@4": [-1.0, -3.0, -3.0, -1.0, -2.0, -3.0],
        }
    )
    (row,) = within_prompt_correlations(table, ["galp", "lalp@4"]).to_dict("records")
    assert row["tau"] == 0
    assert row["num_prompts"] == 2
    assert (row["low"], row["high"]) == (-1, 1)


def test_correlations_turn_rsr_around():
    table = pd.DataFrame(
        {
            "prompt_id": list("aabb"),
            "num_tokens": 10,
            "num_steps": 2,
            "galp": [-1.0, -2.0, -1.0, -2.0],
            "rsr": [1.0, 2.0, 3.0, 4.0],
        }
    )
    assert within_prompt_correlations(table, ["galp", "rsr"])["tau"][0] == 1


@settings(max_examples=20, deadline=None)
@given(st.permutations(list(range(6))))
def test_correlations_do_not_depend_on_the_order_of_rows(order):
    table = table_of(
        [
            {"tokens": [-i, -2 * i % 5], "steps": [0, i % 2], "prompt": "ab"[i // 3]}
            for i in range(6)
        ]
    )
    names = ["galp", "lalp@4", "tokens_per_step"]
    pd.testing.assert_frame_equal(
        within_prompt_correlations(table, names),
        within_prompt_correlations(table.iloc[order], names),
    )


def test_variants_of_a_scored_pool_agree_with_their_formulas(tokenizer, tmp_path):
    pool = load_pool(
        [
            {"prompt_id": "p", "prompt": "Add 2 and 3.", "teacher": t, "response": text}
            for t, text in (("A", "We add. So x = 5. Done."), ("B", "The sum is 5. Check: 5 - 3."))
        ]
    )
    student = build_student("llama", tokenizer)
    scores = score(pool, student, ["1", "all"], with_tokens=True, store=tmp_path, progress=False)
    added = add_variants(scores, VARIANTS, "1")
    for row in added.to_dict("records"):
        tokens, steps = row["lalp@1:tokens"], row["token_steps"]
        tails = [tokens[steps == k][1:] for k in np.unique(steps)]
        expected = np.mean([tail.mean() for tail in tails if len(tail)])
        assert row["lalp-tail@1"] == pytest.approx(expected, abs=1e-6)
        assert 1 <= row["mean_rank_100"] <= min(100, row["mean_rank"])
        assert row["rsr"] == pytest.approx(row["mean_rank_100"] / -row["galp"])
