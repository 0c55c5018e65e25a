"""Scores side by side (`10_variants`)."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lalp.paper.profiles import Profile
from lalp.paper.verdicts import Verdict
from lalp.scoring.columns import lalp_column
from lalp.selection.ranking import rank_teachers, tau_interval
from lalp.selection.rules import select
from lalp.selection.variants import (
    LOWER_IS_BETTER,
    VARIANTS,
    add_variants,
    variant_column,
    within_prompt_correlations,
)


def variant_rules(scores: pd.DataFrame, profile: Profile) -> dict[str, str]:
    """Score columns laid side by side, each with the rule that chooses by it."""
    main = lalp_column(profile.main_window)
    rules = {"galp": "galp", main: "lalp"}
    if "lalp@all" in scores and main != "lalp@all":
        rules["lalp@all"] = "lalp"
    return rules | {variant_column(v, profile.main_window): v for v in VARIANTS}


def with_variants(scores: pd.DataFrame, profile: Profile) -> pd.DataFrame:
    """The profile's score table with hybrid, tails and RSR at the main window."""
    return add_variants(scores, VARIANTS, profile.main_window)


def choose_by_each(table: pd.DataFrame, profile: Profile) -> dict[str, pd.DataFrame]:
    """One selection per score; candidates that some score lacks are left out for all."""
    rules = variant_rules(table, profile)
    complete = table.dropna(subset=list(rules))
    return {
        column: select(complete, rule, column.partition("@")[2] or None)
        for column, rule in rules.items()
    }


def step_length_table(table: pd.DataFrame, profile: Profile, seed: int) -> pd.DataFrame:
    """How each score goes with the mean length of a step, within prompts (ASLEC's objection)."""
    return pd.concat(
        [
            within_prompt_correlations(
                table, [column, "tokens_per_step"], num_resamples=profile.num_resamples, seed=seed
            )
            for column in variant_rules(table, profile)
        ],
        ignore_index=True,
    ).drop(columns="other")


def first_token_table(table: pd.DataFrame, profile: Profile) -> pd.DataFrame:
    """Mean log-probability of the first tokens of steps and of all others, in nats."""
    first = np.concatenate([np.diff(steps, prepend=-1) != 0 for steps in table["token_steps"]])
    columns = {"GALP": "galp", "LALP": lalp_column(profile.main_window)}
    tokens = {n: np.concatenate([*table[f"{c}:tokens"]]) for n, c in columns.items()}
    return pd.DataFrame(
        {
            name: [np.nanmean(values[first]), np.nanmean(values[~first])]
            for name, values in tokens.items()
        },
        index=["first tokens of steps", "other tokens"],
    )


def variant_orders(table: pd.DataFrame, profile: Profile, seed: int) -> pd.DataFrame:
    """Teachers from best to worst under each score, and Kendall tau with LALP's order."""
    main = lalp_column(profile.main_window)
    signed = table.assign(**{name: -table[name] for name in LOWER_IS_BETTER if name in table})
    rows = []
    for column in variant_rules(table, profile):
        ranking = rank_teachers(signed, column, num_resamples=profile.num_resamples, seed=seed)
        tau = tau_interval(signed, main, column, num_resamples=profile.num_resamples, seed=seed)
        rows.append(
            {
                "score": column,
                "order": " > ".join(ranking["teacher"]),
                "p_top": ranking["p_top"][0],
                "tau with LALP": tau.tau,
                "low": tau.low,
                "high": tau.high,
            }
        )
    return pd.DataFrame(rows)


def variant_verdicts(table: pd.DataFrame, profile: Profile, seed: int) -> list[Verdict]:
    """What this run says on LALP's two changes and on later objections to it."""
    lengths = step_length_table(table, profile, seed).set_index("score")
    return [
        *_two_changes_verdict(table, profile, seed),
        _step_length_verdict(lengths, "galp", "galp-tail"),
        _step_length_verdict(
            lengths,
            lalp_column(profile.main_window),
            variant_column("lalp-tail", profile.main_window),
        ),
    ]


def _two_changes_verdict(table: pd.DataFrame, profile: Profile, seed: int) -> list[Verdict]:
    """Whether it is the short context, not the weighting, that sets LALP apart from GALP."""
    if "lalp@all" not in table:
        return []
    main = lalp_column(profile.main_window)
    options = {"num_resamples": profile.num_resamples, "seed": seed}
    pairs = within_prompt_correlations(table, ["galp", "lalp@all", main], **options)
    by_pair = {(row.score, row.other): row for row in pairs.itertuples()}
    weighting, context = by_pair["galp", "lalp@all"], by_pair["lalp@all", main]
    if context.high < weighting.low:
        verdict = "holds"
    else:
        verdict = "does not hold" if weighting.high < context.low else "not resolved"
    return [
        Verdict(
            "The short context, not the equal weight of steps, sets LALP apart from GALP",
            "LALP is motivated by its context; the two changes are not told apart",
            f"Kendall tau within prompts: weighting alone {weighting.tau:.2f} "
            f"[{weighting.low:.2f}, {weighting.high:.2f}], context alone {context.tau:.2f} "
            f"[{context.low:.2f}, {context.high:.2f}]",
            verdict,
            "full-prefix LALP stands between GALP (other weights) and LALP (other context); the "
            "change that lowers tau more is the larger one",
            where="Eq. 3",
        )
    ]


def _step_length_verdict(lengths: pd.DataFrame, column: str, tail: str) -> Verdict:
    whole, rest = lengths.loc[column], lengths.loc[tail]
    name = column.partition("@")[0].upper()
    if whole["low"] > 0:
        verdict = "holds"
    else:
        verdict = "does not hold" if whole["high"] < 0 else "not resolved"
    return Verdict(
        f"{name} is higher for responses with longer steps (ASLEC, later work)",
        "not in the paper; arXiv 2604.06834 finds it for mean log-probabilities",
        f"Kendall tau with tokens per step {whole['tau']:.2f} [{whole['low']:.2f}, "
        f"{whole['high']:.2f}]; without first tokens {rest['tau']:.2f} [{rest['low']:.2f}, "
        f"{rest['high']:.2f}]",
        verdict,
        f"among the candidates of one prompt, {whole['num_prompts']:.0f} prompts; ASLEC says that "
        "long steps dilute unlikely first tokens",
        where="Eq. 1-3",
    )
