"""Scores side by side (`10_variants`)."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lalp.paper.profiles import Profile
from lalp.scoring.columns import lalp_column
from lalp.selection.ranking import rank_teachers, tau_interval
from lalp.selection.rules import select
from lalp.selection.variants import (
    LOWER_IS_BETTER,
    VARIANTS,
    prompt_taus,
    variant_column,
    within_prompt_correlations,
)
from lalp.stats import Estimate, mean_interval


def variant_rules(scores: pd.DataFrame, profile: Profile) -> dict[str, str]:
    """Score columns side by side, each with the rule that chooses by it."""
    rules = {"galp": "galp", lalp_column(profile.main_window): "lalp"}
    rules |= {"lalp@all": "lalp"} if "lalp@all" in scores else {}
    return rules | {variant_column(v, profile.main_window): v for v in VARIANTS}


def choose_by_each(table: pd.DataFrame, profile: Profile) -> dict[str, pd.DataFrame]:
    """One selection per score; candidates without one of the scores are left out for all."""
    rules = variant_rules(table, profile)
    complete = table.dropna(subset=list(rules))
    return {
        column: select(complete, rule, column.partition("@")[2] or None)
        for column, rule in rules.items()
    }


def step_length_table(table: pd.DataFrame, profile: Profile, seed: int) -> pd.DataFrame:
    """Correlation of each score with the mean step length, within prompts (ASLEC's objection)."""
    resampling = {"num_resamples": profile.num_resamples, "seed": seed}
    tables = [
        within_prompt_correlations(table, [column, "tokens_per_step"], **resampling)
        for column in variant_rules(table, profile)
    ]
    return pd.concat(tables, ignore_index=True).drop(columns="other")


def first_token_table(table: pd.DataFrame, profile: Profile) -> pd.DataFrame:
    """Mean log-probability of the first tokens of steps and of all others, in nats."""
    first = np.concatenate([np.diff(steps, prepend=-1) != 0 for steps in table["token_steps"]])
    columns = {"GALP": "galp", "LALP": lalp_column(profile.main_window)}
    means = {}
    for name, column in columns.items():
        values = np.concatenate([*table[f"{column}:tokens"]])
        means[name] = [np.nanmean(values[first]), np.nanmean(values[~first])]
    return pd.DataFrame(means, index=["first tokens of steps", "other tokens"])


def variant_orders(table: pd.DataFrame, profile: Profile, seed: int) -> pd.DataFrame:
    """Teachers from best to worst under each score, and Kendall tau with LALP's order."""
    main = lalp_column(profile.main_window)
    # Rankings put the highest first.
    signed = table.assign(**{name: -table[name] for name in LOWER_IS_BETTER if name in table})
    resampling = {"num_resamples": profile.num_resamples, "seed": seed}
    rows = []
    for column in variant_rules(table, profile):
        ranking = rank_teachers(signed, column, **resampling)
        tau = tau_interval(signed, main, column, **resampling)
        order = " > ".join(ranking["teacher"])
        rows.append((column, order, ranking["p_top"][0], tau.value, tau.low, tau.high))
    return pd.DataFrame(rows, columns=["score", "order", "p_top", "tau with LALP", "low", "high"])


def context_minus_weighting(table: pd.DataFrame, profile: Profile, seed: int) -> Estimate:
    """Which part of LALP moves a prompt's candidates more: its context, or its equal weights.

    Full-prefix LALP's tau with LALP (another context) minus its tau with GALP (other weights),
    prompt by prompt. Below 0, the context moves them more.
    """
    context, weighting = (
        prompt_taus(table, name, "lalp@all") for name in (lalp_column(profile.main_window), "galp")
    )
    gaps = (context - weighting).dropna().to_numpy()
    ends = mean_interval(gaps, profile.num_resamples, seed)
    return Estimate(float(gaps.mean()) if len(gaps) else np.nan, *ends, len(gaps))
