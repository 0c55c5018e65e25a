"""What notebook 04 measures: every rule's selection, and how far two of them lie apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from lalp.paper.estimates import bootstrap
from lalp.selection.matched import select_random_matched
from lalp.selection.rules import agreement, select, teacher_mix
from lalp.stats import Estimate


def order_table(rankings: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Teachers from highest to lowest under each score, and the means that order them."""
    rows = [
        (column, " > ".join(table["teacher"]), ", ".join(f"{mean:.3f}" for mean in table["mean"]))
        for column, table in rankings.items()
    ]
    return pd.DataFrame(rows, columns=["score", "order", "means"])


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
    """Percent of responses that change their teacher at least between GALP and LALP in a mix."""
    return float((mix.loc["galp"] - mix.loc["lalp"]).abs().sum() / 2)


def chance_of_moving(
    galp: pd.DataFrame, lalp: pd.DataFrame, num_resamples: int, seed: int
) -> float:
    """How often two rules of equal taste would differ in mix as much as these (permutation test).

    Which rule made which of the two choices for a prompt is drawn anew, prompt by prompt.
    """
    teachers = sorted({*galp["teacher"], *lalp["teacher"]})
    # Only prompts for which both have chosen can change sides.
    both = galp[["prompt_id", "teacher"]].merge(lalp[["prompt_id", "teacher"]], on="prompt_id")
    codes = [pd.Categorical(both[f"teacher_{s}"], categories=teachers).codes for s in "xy"]
    shift = np.eye(len(teachers))[codes[0]] - np.eye(len(teachers))[codes[1]]
    signs = np.random.default_rng(seed).choice([-1, 1], size=(num_resamples, len(shift), 1))
    by_chance = np.abs((shift * signs).sum(axis=1)).sum(axis=1)
    # Sums of ones are exact, so that a draw as extreme as what was seen counts.
    return float((by_chance >= np.abs(shift.sum(axis=0)).sum()).mean())


@dataclass(frozen=True)
class Moved:
    """How many of 100 responses change their teacher at least, and how likely by chance."""

    number: Estimate
    chance: float


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
