"""Teacher rankings and selections of `04_selection`, and the verdicts on them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd

from lalp.paper.profiles import Profile
from lalp.paper.tables import STUDENT_7B, STUDENT_32B, TABLES, paper_teacher_order
from lalp.paper.verdicts import Verdict
from lalp.scoring.columns import column_window, lalp_column
from lalp.selection.matched import select_random_matched
from lalp.selection.ranking import prompts_enough, rank_teachers, tau_interval, teacher_differences
from lalp.selection.rules import agreement, select, teacher_mix

PAPER_STUDENTS = (STUDENT_7B, STUDENT_32B)


def rank_by_column(
    scores: pd.DataFrame, columns: Sequence[str], profile: Profile, seed: int
) -> dict[str, pd.DataFrame]:
    """`rank_teachers` for several score columns."""
    return {
        column: rank_teachers(scores, column, num_resamples=profile.num_resamples, seed=seed)
        for column in columns
    }


def window_means(sweep: pd.DataFrame, profile: Profile, seed: int) -> pd.DataFrame:
    """Teacher means and ranks for each window of Fig. 3, and for GALP at the end."""
    columns = [lalp_column(window) for window in profile.sweep_windows] + ["galp"]
    tables = rank_by_column(sweep, columns, profile, seed)
    return pd.concat(
        [table.assign(window=column_window(column) or "GALP") for column, table in tables.items()],
        ignore_index=True,
    )


def order_table(rankings: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Teachers from highest to lowest under each score, and the means that order them."""
    return pd.DataFrame(
        [
            {
                "score": column,
                "order": " > ".join(table["teacher"]),
                "means": ", ".join(f"{mean:.3f}" for mean in table["mean"]),
            }
            for column, table in rankings.items()
        ]
    )


def select_all(scores: pd.DataFrame, window: str, seed: int) -> dict[str, pd.DataFrame]:
    """Every rule's selection, and the controls matched on teacher mix (paper, Tables 3 and 8)."""
    chosen = {
        "random": select(scores, "random", seed=seed),
        "lalp-lowest": select(scores, "lalp-lowest", window),
        "galp": select(scores, "galp"),
        "lalp": select(scores, "lalp", window),
    }
    if "lalp@all" in scores:
        chosen["lalp@all"] = select(scores, "lalp", "all")
    for rule in ("galp", "lalp"):
        chosen[f"random, mix of {rule}"] = select_random_matched(scores, chosen[rule], seed=seed)
    return chosen


def mix_table(selections: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Percent of responses per teacher, a row per selection (paper, Table 8)."""
    mixes = {rule: teacher_mix(chosen)["percent"] for rule, chosen in selections.items()}
    return pd.DataFrame(mixes).T.fillna(0.0).sort_index(axis=1)


def agreement_table(selections: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Share of prompts for which two rules choose the same response."""
    return pd.DataFrame(
        [[agreement(a, b) for b in selections.values()] for a in selections.values()],
        index=list(selections),
        columns=list(selections),
    )


def selection_verdicts(
    scores: pd.DataFrame, sweep: pd.DataFrame, profile: Profile, seed: int
) -> list[Verdict]:
    """What this run says on the claims of Secs. 6 and 7.1, and Tables 2 and 8."""
    column = lalp_column(profile.main_window)
    return [
        _order_verdict(scores, column, profile, seed),
        _sweep_verdict(sweep, profile, seed),
        _level_verdict(scores, column),
        _enough_verdict(scores, column, profile, seed),
        _mix_verdict(scores, profile, seed),
    ]


def _order_verdict(scores: pd.DataFrame, column: str, profile: Profile, seed: int) -> Verdict:
    tau = tau_interval(scores, "galp", column, num_resamples=profile.num_resamples, seed=seed)
    orders = [" > ".join(rank_teachers(scores, name)["teacher"]) for name in ("galp", column)]
    paper = [" > ".join(paper_teacher_order(STUDENT_7B, name)) for name in ("GALP", "LALP")]
    if orders[0] != orders[1]:
        verdict = "holds" if tau.high < 1 else "not resolved"
    else:
        verdict = "does not hold" if tau.low == 1 else "not resolved"
    return Verdict(
        "LALP and GALP order the teachers differently (Table 2, Fig. 1)",
        f"GALP {paper[0]}; LALP {paper[1]}",
        f"GALP {orders[0]}; LALP {orders[1]}; Kendall tau {tau.tau:.2f} "
        f"[{tau.low:.2f}, {tau.high:.2f}]",
        verdict,
        f"{tau.num_prompts} prompts in common; the interval "
        + ("excludes" if tau.high < 1 else "includes")
        + " the same order (tau 1)",
        where="Table 2, Fig. 1",
    )


def _sweep_verdict(sweep: pd.DataFrame, profile: Profile, seed: int) -> Verdict:
    windows = profile.sweep_windows
    taus = [
        tau_interval(sweep, "galp", lalp_column(w), num_resamples=profile.num_resamples, seed=seed)
        for w in windows
    ]
    rising = all(a.tau <= b.tau for a, b in itertools.pairwise(taus))
    if taus[0].tau < taus[-1].tau and rising:
        verdict = "holds" if taus[0].high < 1 else "not resolved"
    else:
        verdict = "not resolved" if taus[0].high == 1 and taus[0].low < 1 else "does not hold"
    return Verdict(
        "As the window grows, the order of teachers under LALP turns into GALP's (Fig. 3)",
        "small windows differ from GALP, large ones agree with it",
        "Kendall tau with GALP: "
        + ", ".join(f"{w} {tau.tau:.2f}" for w, tau in zip(windows, taus, strict=True)),
        verdict,
        f"{taus[0].num_prompts} prompts in common; at {windows[0]} the interval is "
        f"[{taus[0].low:.2f}, {taus[0].high:.2f}]",
        where="Fig. 3",
    )


def _level_verdict(scores: pd.DataFrame, column: str) -> Verdict:
    paper = TABLES["2"].frame.loc[STUDENT_7B]
    above = (scores[column] > scores["galp"]).mean()
    return Verdict(
        "LALP values lie above GALP values (Table 2)",
        f"GALP {paper['GALP'].min():.2f} to {paper['GALP'].max():.2f}, "
        f"LALP {paper['LALP'].min():.2f} to {paper['LALP'].max():.2f}",
        f"GALP {scores['galp'].mean():.2f}, LALP {scores[column].mean():.2f} on average; "
        f"LALP is above GALP for {above:.0%} of responses",
        "holds" if above > 0.5 else "does not hold",
        "less context makes tokens less likely, so Eq. 3 as written puts LALP below GALP; the "
        "paper's Fig. 5 says so as well",
        where="Table 2",
    )


def _enough_verdict(scores: pd.DataFrame, column: str, profile: Profile, seed: int) -> Verdict:
    curve = prompts_enough(scores, column, seed=seed)
    total = int(curve["num_prompts"].max())
    enough = int(curve.query("order_share >= 0.95")["num_prompts"].min())
    pairs = teacher_differences(scores, column, num_resamples=profile.num_resamples, seed=seed)
    resolved = bool(pairs["resolved"].all())
    verdict = "holds" if enough / total <= 200 / 817 else "does not hold"
    return Verdict(
        "A quarter of the prompts gives the order of all (Sec. 7.1)",
        "200 of 817 prompts",
        f"{enough} of {total} prompts give LALP's full order in 95 % of draws",
        verdict if resolved else "not resolved",
        f"{int(pairs['resolved'].sum())} of {len(pairs)} pairs of teachers differ beyond their "
        "intervals; close teachers need many prompts",
        where="Sec. 7.1",
    )


def _mix_verdict(scores: pd.DataFrame, profile: Profile, seed: int) -> Verdict:
    chosen = select_all(scores, profile.main_window, seed)
    mix = mix_table({rule: chosen[rule] for rule in ("galp", "lalp")})
    moved = _moved(mix)
    chance = _chance_of_moving(chosen["galp"], chosen["lalp"], profile.num_resamples, seed)
    same = agreement(chosen["galp"], chosen["lalp"])
    percents = {
        rule: ", ".join(f"{teacher} {value:.0f}" for teacher, value in mix.loc[rule].items())
        for rule in mix.index
    }
    return Verdict(
        "LALP takes its responses from other teachers than GALP (Table 8)",
        f"{_paper_moves()} of 100 responses change their teacher at least (7B, 32B)",
        f"GALP {percents['galp']}; LALP {percents['lalp']} (%); "
        f"the same response for {same:.0%} of prompts",
        "holds" if chance < 0.05 else "not resolved",
        f"{moved:.0f} of 100 responses change their teacher at least; two rules of equal taste "
        f"would differ as much with probability {chance:.2f}",
        where="Table 8",
    )


def _moved(mix: pd.DataFrame) -> float:
    """Percent of responses that change their teacher at least between GALP and LALP."""
    return float((mix.loc["galp"] - mix.loc["lalp"]).abs().sum() / 2)


def _chance_of_moving(
    galp: pd.DataFrame, lalp: pd.DataFrame, num_resamples: int, seed: int
) -> float:
    """How often two rules of equal taste would differ in mix as much as these (permutation test).

    Which rule made which of the two choices for a prompt is drawn anew, prompt by prompt.
    """
    teachers = sorted({*galp["teacher"], *lalp["teacher"]})
    both = galp[["prompt_id", "teacher"]].merge(lalp[["prompt_id", "teacher"]], on="prompt_id")
    codes = [pd.Categorical(both[f"teacher_{s}"], categories=teachers).codes for s in "xy"]
    shift = np.eye(len(teachers))[codes[0]] - np.eye(len(teachers))[codes[1]]
    signs = np.random.default_rng(seed).choice([-1, 1], size=(num_resamples, len(shift), 1))
    by_chance = np.abs((shift * signs).sum(axis=1)).sum(axis=1)
    # Sums of ones are exact, so that a draw as extreme as what was seen counts.
    return float((by_chance >= np.abs(shift.sum(axis=0)).sum()).mean())


def _paper_moves() -> str:
    frame = TABLES["8"].frame
    return " and ".join(f"{_moved(frame.loc[student]):.0f}" for student in PAPER_STUDENTS)
