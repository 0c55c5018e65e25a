"""Measures of notebook 04: every rule's selection, and the distance between two of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from jaxtyping import Float

from lalp.paper.estimates import bootstrap
from lalp.selection.matched import select_random_matched
from lalp.selection.ranking import teacher_differences
from lalp.selection.rules import agreement, select, teacher_mix
from lalp.stats import Estimate, holm, needed_text, units_needed, wilson_interval


def order_table(rankings: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Teachers from highest to lowest under each score, and the means that order them."""
    rows = [
        (column, " > ".join(table["teacher"]), ", ".join(f"{mean:.3f}" for mean in table["mean"]))
        for column, table in rankings.items()
    ]
    return pd.DataFrame(rows, columns=["score", "order", "means"])


def pair_table(scores: pd.DataFrame, columns: Sequence[str], **resampling: int) -> pd.DataFrame:
    """Differences of every two teachers, on the prompts that both answered.

    Every pair has prompts of its own, so a teacher that answered few does not take the others'
    prompts away. ``resampling`` are ``num_resamples`` and ``seed`` of `teacher_differences`.

    Returns:
        A row per pair and score: ``first``, ``second`` (in order of name), ``score``,
        ``difference`` (first minus second, nats), ``low``, ``high``, ``p_holm`` (over the pairs of
        a score), ``resolved`` and ``num_prompts``.

    Example:
        >>> from lalp.selection.table import example_scores
        >>> pair_table(example_scores(), ["galp"])[["first", "second", "difference"]].round(2)
          first second  difference
        0   Ada    Bob       -0.15
    """
    rows = []
    for first, second in combinations(sorted(scores["teacher"].unique()), 2):
        both = scores[scores["teacher"].isin((first, second))]
        for column in columns:
            found = teacher_differences(both, column, **resampling)
            row, count = found.iloc[0], found.attrs["num_prompts"]
            gap = [row["difference"], row["low"], row["high"]]
            if row["higher"] == second:
                gap = [-row["difference"], -row["high"], -row["low"]]
            rows.append((first, second, column, *gap, row["p"], count))
    names = "first second score difference low high p num_prompts"
    pairs = pd.DataFrame(rows, columns=names.split())
    pairs["p_holm"] = pairs.groupby("score")["p"].transform(holm)
    return pairs.drop(columns="p").assign(resolved=pairs["p_holm"] < 0.05)


def inverted_pairs(pairs: pd.DataFrame, score: str, other: str) -> list[tuple[str, str]]:
    """Pairs of a `pair_table` that are resolved under both scores, with opposite signs."""
    signs = pairs["difference"].map(np.sign).where(pairs["resolved"], 0)
    wide = pairs.assign(sign=signs).pivot(index=["first", "second"], columns="score", values="sign")
    return wide.index[wide[score] * wide[other] < 0].tolist()


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
    shares = [[agreement(a, b) for b in selections.values()] for a in selections.values()]
    return pd.DataFrame(shares, index=list(selections), columns=list(selections))


def moved(mix: pd.DataFrame) -> float:
    """Points by which the teachers' shares of a selection shift from GALP to LALP, in a mix.

    So many of 100 responses change their teacher at least: of those that change, some cancel out.
    `changed_teachers` counts them all.
    """
    return float((mix.loc["galp"] - mix.loc["lalp"]).abs().sum() / 2)


def chance_of_moving(
    galp: pd.DataFrame, lalp: pd.DataFrame, num_resamples: int, seed: int
) -> float:
    """How often two equivalent rules would differ in mix as much as these (permutation test).

    For each prompt, the test draws anew which rule made which of the two choices.
    """
    teachers = sorted({*galp["teacher"], *lalp["teacher"]})
    # Only prompts with a choice by both rules can change sides.
    both = galp[["prompt_id", "teacher"]].merge(lalp[["prompt_id", "teacher"]], on="prompt_id")
    codes = [pd.Categorical(both[f"teacher_{s}"], categories=teachers).codes for s in "xy"]
    shift = np.eye(len(teachers))[codes[0]] - np.eye(len(teachers))[codes[1]]
    signs = np.random.default_rng(seed).choice([-1, 1], size=(num_resamples, len(shift), 1))
    by_chance = np.abs((shift * signs).sum(axis=1)).sum(axis=1)
    # Sums of ones are exact, so a draw as extreme as the observed one counts.
    return float((by_chance >= np.abs(shift.sum(axis=0)).sum()).mean())


@dataclass(frozen=True)
class Moved:
    """By how many points the teachers' shares shift, and how likely so much is by chance."""

    number: Estimate
    chance: float


def changed_teachers(galp: pd.DataFrame, lalp: pd.DataFrame) -> Estimate:
    """Percent of prompts for which two selections take another teacher, with Wilson's interval.

    Example:
        >>> from lalp.selection.rules import select
        >>> from lalp.selection.table import example_scores
        >>> galp, lalp = (select(example_scores(), rule) for rule in ("galp", "lalp"))
        >>> print(f"{changed_teachers(galp, lalp):.0f}")  # Bob's become Ada's, both of them
        100 [34, 100]
    """
    both = galp[["prompt_id", "teacher"]].merge(lalp[["prompt_id", "teacher"]], on="prompt_id")
    share = float((both["teacher_x"] != both["teacher_y"]).mean())
    low, high = wilson_interval(share, len(both))
    return Estimate(100 * share, 100 * low, 100 * high, len(both))


def prompts_to_move(galp: pd.DataFrame, lalp: pd.DataFrame) -> str:
    """How many prompts would resolve a shift of the teachers' shares, in words for a verdict.

    By the teacher whose share shifts most, at Bonferroni's level over all teachers.
    """
    sides = [one.set_index("prompt_id")["teacher"] for one in (galp, lalp)]
    teachers = sorted({*sides[0], *sides[1]})
    shifts = {t: (sides[1].eq(t).astype(float) - sides[0].eq(t)).dropna() for t in teachers}
    most = max(teachers, key=lambda teacher: abs(shifts[teacher].mean()))
    return needed_text(units_needed(shifts[most].tolist(), level=0.05 / len(teachers)))


def moved_interval(galp: pd.DataFrame, lalp: pd.DataFrame, num_resamples: int, seed: int) -> Moved:
    """`moved` between two selections, with its interval over prompts, and `chance_of_moving`."""
    teachers = sorted({*galp["teacher"], *lalp["teacher"]})
    both = galp[["prompt_id", "teacher"]].merge(lalp[["prompt_id", "teacher"]], on="prompt_id")
    eye = np.eye(len(teachers))
    codes = [both[f"teacher_{side}"].map(teachers.index).to_numpy() for side in "xy"]
    sums = np.hstack([eye[codes[1]] - eye[codes[0]], np.ones((len(both), 1))])

    def moving(total: Float[np.ndarray, "... sums"]) -> Float[np.ndarray, "... 1"]:
        return 50 * np.abs(total[..., :-1]).sum(axis=-1, keepdims=True) / total[..., -1:]

    (number,) = bootstrap(sums, moving, num_resamples=num_resamples, seed=seed)
    return Moved(number, chance_of_moving(galp, lalp, num_resamples, seed))
