from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from lalp.paper.profiles import load_profile
from lalp.paper.selection import run


def selection(teachers: str) -> pd.DataFrame:
    ids = [f"p{i}" for i in range(len(teachers))]
    return pd.DataFrame({"prompt_id": ids, "teacher": list(teachers), "response_id": ids})


def test_chance_of_moving_by_hand():
    # Four prompts, all moved from A to B: only the draws with equal signs are as extreme, 2 of 16.
    chance = run._chance_of_moving(selection("AAAA"), selection("BBBB"), 20_000, seed=0)
    assert chance == pytest.approx(2 / 16, abs=0.01)


def test_the_same_selection_moves_nothing():
    assert run._chance_of_moving(selection("ABC"), selection("ABC"), 100, seed=0) == 1


def test_moved_counts_each_response_once():
    mix = pd.DataFrame({"A": [75.0, 25.0], "B": [25.0, 75.0]}, index=["galp", "lalp"])
    assert run._moved(mix) == 50


def scores_of(galp: dict[str, float], lalp: dict[str, float], prompts: int) -> pd.DataFrame:
    """Prompts that all tell the same: teacher means are the given ones."""
    return pd.DataFrame(
        {
            "prompt_id": f"p{i}",
            "response_id": f"p{i}/{teacher}",
            "teacher": teacher,
            "correct": True,
            "num_tokens": 10,
            "num_steps": 2,
            "galp": galp[teacher],
            "lalp@4": lalp[teacher],
            "lalp@5%": lalp[teacher],
            "lalp@100%": galp[teacher],
            "reason": None,
        }
        for i in range(prompts)
        for teacher in galp
    )


PROFILE = replace(
    load_profile("smoke"),
    student="s",
    pool="champ",
    splitter="sentences",
    windows=["4"],
    main_window="4",
    num_prompts=9,
    responses_per_teacher=1,
    sweep_windows=["5%", "100%"],
    sweep_prompts=9,
    splitters=["paragraphs"],
    splitter_prompts=4,
    embedder="e",
    coverage_prompts=9,
    num_resamples=200,
)
APART = {"A": -1.0, "B": -2.0, "C": -3.0}
TURNED = {"A": -3.5, "B": -2.5, "C": -1.5}


def verdicts(scores: pd.DataFrame) -> dict[str, str]:
    found = run.selection_verdicts(scores, scores, PROFILE, seed=0)
    return {verdict.claim.partition(" (")[0]: verdict.verdict for verdict in found}


def test_clear_scores_get_clear_verdicts():
    found = list(verdicts(scores_of(APART, TURNED, 12)).values())
    assert found == ["holds", "holds", "does not hold", "holds", "holds"]


def test_equal_orders_do_not_hold():
    found = list(verdicts(scores_of(APART, {t: s - 0.5 for t, s in APART.items()}, 12)).values())
    assert found[0] == "does not hold"
    assert found[1] == "does not hold"
    assert found[4] == "not resolved"


def test_one_prompt_resolves_nothing():
    assert "holds" not in list(verdicts(scores_of(APART, TURNED, 1)).values())[:2]
