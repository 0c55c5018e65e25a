"""Sensitivity to the step splitter (Sec. B.1)."""

from __future__ import annotations

import pandas as pd

from lalp.paper.champ.champ import pick_candidates
from lalp.paper.profiles import Profile
from lalp.paper.selection.splitters import (
    centered_means,
    compare_splitters,
    splitter_column,
    weigh_responses,
)
from lalp.paper.verdicts import Verdict
from lalp.pools.pool import Pool
from lalp.scoring.columns import lalp_column
from lalp.scoring.run import score
from lalp.steps.splitters import split_pool
from lalp.students.student import load_tokenizer

# Below, a bootstrap over prompts gives intervals that are far too narrow.
_ENOUGH_PROMPTS = 10


def splitter_scores(
    profile: Profile, pool: Pool, scores: pd.DataFrame, seed: int = 0
) -> pd.DataFrame:
    """The candidates' scores under the profile's other splitters, beside the main one's.

    Windows of steps or tokens are scored anew, for the first ``splitter_prompts`` of the
    candidates' prompts. The full prefix follows from GALP's tokens for all of them.

    Args:
        profile: The run's profile.
        pool: The profile's pool.
        scores: From `profile_scores`, with token columns.
        seed: The one of ``scores``.

    Returns:
        One row per response; for each splitter ``NAME:lalp@W`` and ``NAME:num_steps``.
    """
    most, each = profile.num_prompts, profile.responses_per_teacher
    candidates = pick_candidates(pool, most, each, seed)
    few = pick_candidates(pool, min(most, profile.splitter_prompts), each, seed)
    texts = {response.response_id: response.text for response in candidates.responses}
    tokenizer = load_tokenizer(profile.student)
    *windows, full = splitter_windows(profile)
    frame = scores[["prompt_id", "response_id", "teacher", "correct", "num_tokens"]].copy()
    for splitter in (profile.splitter, *profile.splitters):
        steps = split_pool(candidates, splitter, tokenizer=tokenizer, embedder=profile.embedder)
        weighed = weigh_responses(scores, texts, steps)
        frame[splitter_column(splitter, "num_steps")] = weighed["num_steps"]
        frame[splitter_column(splitter, full)] = weighed["score"]
        local = scores[scores["prompt_id"].isin(few.prompts)]
        if splitter != profile.splitter:
            chosen = {name: steps[name] for name in local["response_id"]}
            local = score(few, profile.student, windows, splitter=chosen)
        local = local.set_index("response_id").reindex(scores["response_id"])
        for window in windows:
            frame[splitter_column(splitter, window)] = local[lalp_column(window)].to_numpy()
    return frame


def splitter_windows(profile: Profile) -> list[str]:
    """Windows for the comparison of splitters: none, the main one, those in tokens, and all."""
    local = [w for w in profile.windows if w in ("0", profile.main_window) or w.endswith("t")]
    return [*(window for window in local if window != "all"), "all"]


def splitter_sensitivity(frame: pd.DataFrame, profile: Profile, seed: int) -> pd.DataFrame:
    """`compare_splitters` for the profile: does the ranking survive other steps?"""
    splitters, windows = [profile.splitter, *profile.splitters], splitter_windows(profile)
    options = {"num_resamples": profile.num_resamples, "seed": seed}
    return compare_splitters(frame, splitters, windows, **options)


def splitter_means(frame: pd.DataFrame, profile: Profile, seed: int) -> pd.DataFrame:
    """`centered_means` for the profile, for the figure."""
    splitters, windows = [profile.splitter, *profile.splitters], splitter_windows(profile)
    options = {"num_resamples": profile.num_resamples, "seed": seed}
    return centered_means(frame, splitters, windows, **options)


def splitter_verdicts(table: pd.DataFrame, profile: Profile) -> list[Verdict]:
    """Whether the teacher ranking is one of the responses, or one of how they were cut.

    Args:
        table: From `splitter_sensitivity`.
        profile: The run's profile.
    """
    return [
        _splitter_verdict(
            table.query("window == @profile.main_window and splitter != @profile.splitter"),
            f"The teacher ranking under LALP, w = {profile.main_window}, survives another step "
            "splitter",
        ),
        _splitter_verdict(
            table.query("window == 'all' and splitter != @profile.splitter"),
            "The weighting of steps alone (full prefix) ranks teachers alike under another step "
            "splitter",
        ),
    ]


def _splitter_verdict(rows: pd.DataFrame, claim: str) -> Verdict:
    num_prompts = int(rows["prompts"].min())
    verdict = "not resolved"
    if num_prompts >= _ENOUGH_PROMPTS:
        if (rows["tau_high"] < 1).any():
            verdict = "does not hold"
        elif (rows["tau_low"] == 1).all():
            verdict = "holds"
    taus = (
        f"{r.splitter} {r.tau:.2f} [{r.tau_low:.2f}, {r.tau_high:.2f}]" for r in rows.itertuples()
    )
    few = "" if num_prompts >= _ENOUGH_PROMPTS else ", too few for intervals to be trusted"
    return Verdict(
        claim,
        "a language model's steps; sentences were tried; no comparison is shown",
        "Kendall tau with the main splitter's order: " + ", ".join(taus),
        verdict,
        f"{num_prompts} prompts{few}; the intervals hold for the whole table together; the same "
        f"response is selected for {rows['same'].min():.0%} to {rows['same'].max():.0%} of prompts",
        "Sec. B.1",
    )
