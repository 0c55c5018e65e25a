"""Scores that others compare with GALP and LALP, built on a score table.

- Full-prefix LALP is the window ``all``: GALP's context with LALP's equal weight of steps.
- ``hybrid``: a weighted sum of standardized GALP and LALP. The paper names it under "Limitations"
  as the remedy for errors that only the whole response shows.
- ``galp-tail`` and ``lalp-tail``: without the first token of each step. ASLEC (arXiv 2604.06834)
  finds that steps begin with unlikely tokens. Long steps dilute these, so mean log-probabilities
  favour long steps.
- ``galp-casl`` and ``lalp-casl``: ASLEC's other remedy, a regression over the table of the score on
  the mean of the first tokens, the mean of the others, and the share F of first tokens; its slope
  times F is subtracted from the score. ASLEC's code fits it for each teacher, this code for the
  whole table, so teachers stay comparable. For LALP all means are over steps that count equally.
- ``rsr``: rank-surprisal ratio (arXiv 2601.14249), mean rank of the tokens, each at most 100, over
  their mean surprisal. Lower is better, unlike all others.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

from lalp.errors import InputError, did_you_mean
from lalp.scoring.columns import GALP, lalp_column, token_column
from lalp.scoring.windows import Window, parse_window
from lalp.selection.table import require_columns, score_values
from lalp.stats import mean_interval

VARIANTS = ("hybrid", "galp-tail", "lalp-tail", "rsr")
DEBIASED = ("galp-casl", "lalp-casl")
# Rules that need a window.
WINDOWED = frozenset({"lalp", "lalp-lowest", "hybrid", "lalp-tail", "lalp-casl"})
# Rules that choose the lowest value.
LOWER_IS_BETTER = frozenset({"rsr"})


def variant_column(variant: str, window: str | int | Window | None = None) -> str:
    """Name of a variant's column.

    Example:
        >>> variant_column("hybrid", 4), variant_column("rsr")
        ('hybrid@4', 'rsr')
    """
    if variant not in (*VARIANTS, *DEBIASED):
        advice = did_you_mean(variant, (*VARIANTS, *DEBIASED))
        raise InputError(f"there is no score {variant!r}: {advice}")
    if variant not in WINDOWED:
        return variant
    if window is None:
        raise InputError(f"{variant} needs a window: name one, for example 4")
    return f"{variant}@{parse_window(window)}"


def add_variants(
    scores: pd.DataFrame,
    variants: Sequence[str] = VARIANTS,
    window: str | int | Window | None = None,
    *,
    weight: float = 0.5,
) -> pd.DataFrame:
    """A copy of the score table with a column for each variant; NaN if it has no value.

    Args:
        scores: From `lalp.score`; the tail and casl variants need its token columns
            (``with_tokens``).
        variants: Any of ``VARIANTS`` and ``DEBIASED``.
        window: Context window of ``hybrid``, ``lalp-tail`` and ``lalp-casl``.
        weight: LALP's share of the hybrid, between 0 (GALP alone) and 1.

    Example:
        >>> from lalp.selection.table import example_scores
        >>> add_variants(example_scores(), ["hybrid"], 4)["hybrid@4"].round(1).tolist()
        [0.2, -0.2, -0.1, 0.1]
    """
    table = scores.copy()
    for variant in variants:
        column = variant_column(variant, window)
        table[column] = _variant_scores(scores, variant, column.partition("@")[2], weight)
    return table


def _variant_scores(scores: pd.DataFrame, variant: str, window: str, weight: float) -> pd.Series:
    if variant == "rsr":
        # The number of tokens cancels: sum_t min(rank_t, 100) / sum_t -log p_t.
        return _column(scores, "mean_rank_100") / -_column(scores, GALP)
    if variant == "galp-tail":
        return _tail_scores(scores, GALP, by_step=False)
    if variant == "lalp-tail":
        return _tail_scores(scores, lalp_column(window), by_step=True)
    if variant == "galp-casl":
        return _debiased_scores(scores, GALP, by_step=False)
    if variant == "lalp-casl":
        return _debiased_scores(scores, lalp_column(window), by_step=True)
    if not 0 <= weight <= 1:
        raise InputError(f"weight {weight} of the hybrid: give a number between 0 and 1")
    hybrid = 0.0
    for name, share in ((lalp_column(window), weight), (GALP, 1 - weight)):
        values = _column(scores, name)
        # Equal scores say nothing in any unit: they count as 0.
        hybrid += share * ((values - values.mean()) / (values.std(ddof=0) or 1.0))
    # Rounded, because the last bits of a mean depend on the order of the rows.
    return hybrid.round(10)


def _tail_scores(scores: pd.DataFrame, name: str, *, by_step: bool) -> pd.Series:
    """Mean log-probability of tokens that do not begin a step; steps count equally if ``by_step``.

    NaN if ``name`` is NaN, or if every token begins a step.
    """
    tokens, token_steps = _column(scores, token_column(name)), _column(scores, "token_steps")
    values = np.full(len(scores), np.nan)
    for row in np.flatnonzero(np.isfinite(_column(scores, name))):
        steps = np.asarray(token_steps.iloc[row])
        later = np.diff(steps, prepend=-1) == 0
        if later.any():
            tail = np.asarray(tokens.iloc[row], float)[later]
            # A step of one token has no tail, so it is in no group.
            values[row] = _mean(tail, steps[later], by_step=by_step)
    return pd.Series(values, index=scores.index)


def _debiased_scores(scores: pd.DataFrame, name: str, *, by_step: bool) -> pd.Series:
    """The score without what the share of first tokens explains of it; NaN if a part lacks."""
    values = score_values(scores, name)
    parts = np.column_stack([_token_parts(scores, name, by_step=by_step), values])
    # In order of ids, because the last bits of a fit depend on the order of the rows.
    ids = scores[["prompt_id", "response_id"]].astype(str)
    order = np.lexsort([ids["response_id"], ids["prompt_id"]])
    known = order[np.isfinite(parts[order]).all(axis=1)]
    if len(known) < _LEAST_TO_FIT:
        found = f"the debiasing of {name} fits four numbers to {len(known)} scored responses"
        raise InputError(f"{found}: give at least {_LEAST_TO_FIT}, or choose another rule")
    centered = parts[known] - parts[known].mean(axis=0)
    slopes = np.linalg.lstsq(centered[:, :3], centered[:, 3])[0]
    debiased = values - slopes[2] * parts[:, 2]
    return pd.Series(debiased.round(10), index=scores.index)


# Three slopes and a constant need four responses, and errors need one more.
_LEAST_TO_FIT = 5


def _token_parts(
    scores: pd.DataFrame, name: str, *, by_step: bool
) -> Float[np.ndarray, "responses 3"]:
    """Mean of the first tokens of steps, mean of the others, and the share of first tokens."""
    tokens, token_steps = _column(scores, token_column(name)), _column(scores, "token_steps")
    parts = np.full((len(scores), 3), np.nan)
    for row in np.flatnonzero(np.isfinite(_column(scores, name))):
        steps, values = np.asarray(token_steps.iloc[row]), np.asarray(tokens.iloc[row], float)
        first = np.diff(steps, prepend=-1) != 0
        if not first.all():
            share = 1 / np.bincount(np.cumsum(first) - 1) if by_step else first
            tail = _mean(values[~first], steps[~first], by_step=by_step)
            parts[row] = values[first].mean(), tail, share.mean()
    return parts


def _mean(values: np.ndarray, steps: np.ndarray, *, by_step: bool) -> float:
    """Mean over tokens, or over the steps' means."""
    return float((pd.Series(values).groupby(steps).mean() if by_step else values).mean())


def _column(scores: pd.DataFrame, name: str) -> pd.Series:
    how = "with tokens (--tokens)" if "token" in name else "again"
    require_columns(scores, [name], f"score the pool {how}")
    return scores[name]


def within_prompt_correlations(
    scores: pd.DataFrame, columns: Sequence[str], *, num_resamples: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Kendall tau (b) between scores among the candidates of one prompt, averaged over prompts.

    A selection per prompt sees only this order; a correlation over all responses would mostly show
    that some prompts are easier than others. Scores for which lower is better change their sign. A
    prompt with a missing score, or in which all candidates tie, is left out of that pair. The
    column ``tokens_per_step`` is the mean number of tokens of a step.

    Returns:
        One row per pair: ``score``, ``other``, ``tau``, its interval ``low`` to ``high`` over
        prompts (95 %, that of `lalp.stats.mean_interval` within -1 and 1), ``num_prompts``.

    Example:
        >>> from lalp.selection.table import example_scores
        >>> scores = example_scores().assign(num_steps=2)
        >>> within_prompt_correlations(scores, ["galp", "lalp@4"])[["tau", "num_prompts"]]
           tau  num_prompts
        0 -1.0            2
    """
    table = []
    for first, second in itertools.combinations(columns, 2):
        known = prompt_taus(scores, first, second).dropna().to_numpy()
        tau = float(known.mean()) if len(known) else np.nan
        ends = np.clip(mean_interval(known, num_resamples, seed), -1, 1)
        table.append((first, second, tau, *ends, len(known)))
    return pd.DataFrame(table, columns=["score", "other", "tau", "low", "high", "num_prompts"])


def prompt_taus(scores: pd.DataFrame, first: str, second: str) -> pd.Series:
    """Kendall tau (b) of two scores by prompt, as in `within_prompt_correlations`; NaN for none.

    Example:
        >>> from lalp.selection.table import example_scores
        >>> prompt_taus(example_scores().assign(num_steps=2), "galp", "lalp@4").to_dict()
        {'p': -1.0, 'q': -1.0}
    """
    values = scores.assign(tokens_per_step=scores["num_tokens"] / scores["num_steps"])
    one, other = (
        _column(values, name) * (-1 if name in LOWER_IS_BETTER else 1) for name in (first, second)
    )
    taus = {}
    for prompt, rows in values.groupby("prompt_id", sort=True).indices.items():
        pair = one.iloc[rows], other.iloc[rows]
        # scipy warns of a single candidate; a missing score gives NaN by itself.
        taus[prompt] = stats.kendalltau(*pair).statistic if len(rows) > 1 else np.nan
    return pd.Series(taus, dtype=float)
