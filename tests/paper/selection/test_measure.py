"""Selections of notebook 04, and what it says on scores that are clear, equal or few."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lalp.files import read_data
from lalp.paper.profiles import load_profile
from lalp.paper.selection import measure, plots
from lalp.paper.selection.splitters import compare_splitters
from lalp.paper.selection.variants import context_minus_weighting, first_token_table
from lalp.selection.ranking import prompts_enough, rank_teachers
from lalp.stats import holm, units_needed
from tests.paper.selection.test_splitters import frame_of, profile_of
from tests.paper.verdict_cells import run_verdict_cells
from tests.selection.score_tables import tokens_table


def test_chance_of_moving_by_hand():
    before, after, mixed = (
        pd.DataFrame({"prompt_id": list("pqrs"), "teacher": list(teachers)})
        for teachers in ("AAAA", "BBBB", "ABCA")
    )
    # Four prompts, all moved from A to B: only the draws with equal signs are as extreme, 2 of 16.
    chance = measure.chance_of_moving(before, after, 20_000, seed=0)
    assert chance == pytest.approx(2 / 16, abs=0.01)
    assert measure.chance_of_moving(mixed, mixed, 100, seed=0) == 1


def test_the_interval_of_moved_by_hand():
    before = pd.DataFrame({"prompt_id": list("pqrs"), "teacher": list("AAAA")})
    after = before.assign(teacher=list("BBAA"))
    found = measure.moved_interval(before, after, 20_000, seed=0)
    # Two of four move: the values are 100, 100, 0, 0. Student's t with 3 degrees of freedom.
    reach = 3.182446 * np.std([100, 100, 0, 0], ddof=1) / 2
    assert found.number.value == 50
    assert (found.number.low, found.number.high) == pytest.approx((50 - reach, 50 + reach))
    assert found.chance == pytest.approx(1 / 2, abs=0.02)  # of two signs, two of four draws agree


def test_what_would_resolve_a_shift_by_hand():
    before = pd.DataFrame({"prompt_id": list("pqrs"), "teacher": list("AAAB")})
    after = before.assign(teacher=list("BBAB"))
    # A's share falls by two of four: -1, -1, 0, 0. There are two teachers, so half the level.
    needed = units_needed([-1.0, -1.0, 0.0, 0.0], level=0.025)
    assert measure.prompts_to_move(before, after) == f"{needed:.0f} prompts"
    assert measure.prompts_to_move(before, before) == "no number of prompts: no difference"


def test_moved_counts_each_response_once():
    mix = pd.DataFrame({"A": [75.0, 25.0], "B": [25.0, 75.0]}, index=["galp", "lalp"])
    assert measure.moved(mix) == 50


def test_first_tokens_beside_the_others_by_hand():
    table = tokens_table(([-6, -1, -4, -3], [0, 0, 1, 1]), ([-2, -5], [0, 0]))
    found = first_token_table(table, profile_of(main_window="4"))
    assert list(found["GALP"]) == pytest.approx([-4, -3])  # -6, -4, -2 and -1, -3, -5
    assert list(found["LALP"]) == pytest.approx([-4, -3])


def scores_of(galp: dict[str, float], lalp: dict[str, float], prompts: int) -> pd.DataFrame:
    """Prompts that all tell the same: teacher means are the given ones."""
    rows = [(f"p{i}", f"p{i}/{teacher}", teacher) for i in range(prompts) for teacher in galp]
    frame = pd.DataFrame(rows, columns=["prompt_id", "response_id", "teacher"])
    whole, local = frame["teacher"].map(galp), frame["teacher"].map(lalp)
    columns = {"galp": whole, "lalp@4": local, "lalp@5%": local, "lalp@100%": whole}
    return frame.assign(correct=True, num_tokens=10, num_steps=2, reason=None, **columns)


PROFILE = profile_of(windows=["4"], main_window="4", sweep_windows=["5%", "100%"])
APART = {"A": -1.0, "B": -2.0, "C": -3.0}
TURNED = {"A": -3.5, "B": -2.5, "C": -1.5}


def verdicts(
    scores: pd.DataFrame, resplit: pd.DataFrame | None = None, more: pd.DataFrame | None = None
) -> list[str]:
    """What notebook 04 says, given what it has computed by then."""
    options = {"num_resamples": PROFILE.num_resamples, "seed": 0}
    columns, windows = ("galp", "lalp@4"), ["4", "all"]
    resplit = frame_of(12) if resplit is None else resplit
    said = run_verdict_cells(
        "04_selection",
        profile=PROFILE,
        options=options,
        main_column="lalp@4",
        scores=scores,
        sweep=scores,
        rankings={column: rank_teachers(scores, column, **options) for column in columns},
        curves={column: prompts_enough(scores, column, seed=0) for column in columns},
        selections=measure.select_all(scores, "4", 0),
        more=scores if more is None else more,
        pairs=measure.pair_table(scores if more is None else more, columns, **options),
        sensitivity=compare_splitters(resplit, ["s", "p", "t"], windows, num_resamples=200),
    )
    assert all(verdict.where for verdict in said)
    return [verdict.verdict for verdict in said]


def test_verdicts_follow_the_scores():
    found = verdicts(scores_of(APART, TURNED, 12))
    assert found == [*["holds"] * 3, "does not hold", *["holds"] * 5]
    equal = verdicts(scores_of(APART, {t: s - 0.5 for t, s in APART.items()}, 12))
    # The choices too: both scores take the same teachers for sure.
    assert [*equal[:3], *equal[5:7]] == ["does not hold"] * 5
    # One prompt resolves nothing.
    assert "holds" not in verdicts(scores_of(APART, TURNED, 1))[:3]


@pytest.mark.parametrize(
    ("lalp", "noise", "expected"),
    [
        (TURNED, 0.1, ["holds", "holds"]),
        (APART, 0.1, ["does not hold", "does not hold"]),
        # Two teachers alike under LALP: not all pairs are resolved, and none is turned.
        (APART | {"B": -3.0}, 0.1, ["not resolved", "does not hold"]),
        (TURNED, 40.0, ["not resolved", "not resolved"]),
    ],
)
def test_more_prompts_have_verdicts_of_their_own(lalp, noise, expected):
    """The rules of `champ/rules_all.yaml`, on 40 prompts."""
    more, rng = scores_of(APART, lalp, 40), np.random.default_rng(1)
    for column in ("galp", "lalp@4"):
        more[column] += rng.normal(0, noise, len(more))
    found = verdicts(scores_of(APART, APART, 12), more=more)
    assert [found[1], found[6]] == expected
    rules = read_data("paper/champ/rules_all.yaml")
    assert set(rules["claims"]) == {"order", "other_teachers"}


@pytest.mark.parametrize(
    ("resplit", "expected"),
    [
        (frame_of(12), "holds"),
        (frame_of(12, {"t"}), "does not hold"),
        (frame_of(12, noise=4.0), "not resolved"),
        # Few prompts resolve nothing, however clear.
        (frame_of(9), "not resolved"),
        (frame_of(9, {"t"}), "not resolved"),
    ],
)
def test_other_steps(resplit, expected):
    assert verdicts(scores_of(APART, TURNED, 2), resplit)[7:] == [expected] * 2


def test_orders_and_means_of_the_teachers_are_shown_as_text():
    table = pd.DataFrame({"teacher": ["A", "B"], "mean": [-0.25, -1.0]})
    shown = measure.order_table({"galp": table, "lalp@4": table[::-1]})
    assert shown.to_numpy().tolist() == [
        ["galp", "A > B", "-0.250, -1.000"],
        ["lalp@4", "B > A", "-1.000, -0.250"],
    ]


def test_context_and_weighting_are_compared_prompt_by_prompt():
    rows = pd.DataFrame(
        [
            # The full prefix orders three candidates as LALP does, and once in four as GALP.
            {"prompt_id": f"p{i}", "galp": g, "lalp@4": -g, "lalp@all": -g if i else g}
            | {"num_tokens": 10, "num_steps": 2}
            for i in range(4)
            for g in (-1.0, -2.0, -3.0)
        ]
    )
    found = context_minus_weighting(rows, load_profile("smoke"), 0)
    # Differences of taus: 2, 2, 2 and -2; Student's t of three degrees of freedom.
    assert (found.value, found.num_units) == (1.0, 4)
    assert found.high == pytest.approx(1 + 3.1824 * 1.0, abs=1e-3)


def test_pairs_of_teachers_are_compared_on_the_prompts_that_both_answered():
    apart = scores_of(APART, TURNED, 12)
    # C answered two prompts only, and B's last prompts are its own.
    few = apart[(apart["teacher"] != "C") | apart["prompt_id"].isin(["p0", "p1"])]
    pairs = measure.pair_table(few, ["galp", "lalp@4"], num_resamples=50, seed=0)
    assert pairs.groupby("score")["num_prompts"].apply(list).tolist() == [[12, 2, 2]] * 2
    by = pairs.set_index(["first", "second", "score"])["difference"]
    assert by["A", "B", "galp"] == pytest.approx(1) and by["A", "B", "lalp@4"] == pytest.approx(-1)
    assert by["A", "C", "galp"] == pytest.approx(2) and by["B", "C", "lalp@4"] == pytest.approx(-1)
    # All prompts agree, so every pair is resolved, and turned.
    assert measure.inverted_pairs(pairs, "galp", "lalp@4") == [("A", "B"), ("A", "C"), ("B", "C")]
    assert measure.inverted_pairs(pairs, "galp", "galp") == []
    plt.close(plots.plot_pairs(pairs))


def test_an_unsure_pair_is_not_inverted_and_holm_counts_all_pairs():
    rng = np.random.default_rng(0)
    table = scores_of(APART, APART, 30)
    table["lalp@4"] = -table["galp"] + rng.normal(0, 8, len(table))
    pairs = measure.pair_table(table, ["galp", "lalp@4"], num_resamples=50, seed=0)
    local = pairs[pairs["score"] == "lalp@4"]
    assert not local["resolved"].all()
    assert set(measure.inverted_pairs(pairs, "galp", "lalp@4")) == set(
        local.loc[local["resolved"], ["first", "second"]].itertuples(index=False, name=None)
    )
    wide = table.pivot(index="prompt_id", columns="teacher", values="lalp@4")
    p = [stats.ttest_rel(wide[a], wide[b]).pvalue for a, b in ("AB", "AC", "BC")]
    assert local["p_holm"].tolist() == pytest.approx(holm(p).tolist())
