"""Scores that others put beside GALP and LALP, built on a score table.

- Full-prefix LALP is the window ``all``: GALP's context with LALP's equal weight of steps.
- ``hybrid``: a weighted sum of standardized GALP and LALP, the remedy that the paper names under
  "Limitations" for errors that only the whole response shows.
- ``galp-tail`` and ``lalp-tail``: without the first token of each step. ASLEC (arXiv 2604.06834)
  finds that steps begin with unlikely tokens, which long steps dilute, so that mean
  log-probabilities favour long steps.
- ``rsr``: rank-surprisal ratio (arXiv 2601.14249), mean rank of the tokens, each at most 100, over
  their mean surprisal. Lower is better, unlike all others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy import stats

from lalp.errors import InputError
from lalp.scoring.columns import lalp_column
from lalp.scoring.windows import Window, parse_window
from lalp.stats import mean_interval

VARIANTS = ("hybrid", "galp-tail", "lalp-tail", "rsr")
# Those whose lowest value is chosen.
LOWER_IS_BETTER = frozenset({"rsr"})
_WINDOWED = frozenset({"hybrid", "lalp-tail"})


def variant_column(variant: str, window: str | int | Window | None = None) -> str:
    """Name of a variant's column, such as ``hybrid@4`` or ``rsr``.

    Raises:
        InputError: If there is no such variant, or it needs a window and has none.
    """
    if variant not in VARIANTS:
        raise InputError(f"there is no score {variant!r}: choose one of {', '.join(VARIANTS)}")
    if variant not in _WINDOWED:
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
    """The score table with a column more for each variant.

    Args:
        scores: From `lalp.score`; the tail variants need its token columns (``with_tokens``).
        variants: Any of ``VARIANTS``.
        window: Context window of ``hybrid`` and ``lalp-tail``.
        weight: LALP's share of the hybrid, between 0 (GALP alone) and 1.

    Returns:
        A copy. Where a score cannot be computed it is NaN.

    Raises:
        InputError: If a variant is unknown, or the table lacks what it is built on.
    """
    table = scores.copy()
    table.attrs = dict(scores.attrs)
    for variant in variants:
        column = variant_column(variant, window)
        suffix = column.partition("@")[2]
        table[column] = _BUILDERS[variant](scores, suffix, weight)
    return table


def _hybrid(scores: pd.DataFrame, window: str, weight: float) -> pd.Series:
    """``weight * z(LALP) + (1 - weight) * z(GALP)``, standardized over the table's responses."""
    if not 0 <= weight <= 1:
        raise InputError(f"weight {weight} of the hybrid: give a number between 0 and 1")
    lalp, galp = _column(scores, lalp_column(window)), _column(scores, "galp")
    # Rounded, for the last bits of a mean depend on the order of the rows.
    return (weight * _standardize(lalp) + (1 - weight) * _standardize(galp)).round(10)


def _standardize(values: pd.Series) -> pd.Series:
    spread = values.std(ddof=0)
    # Equal scores say nothing, whatever the unit.
    return (values - values.mean()) / spread if spread > 0 else values * 0.0


def _galp_tail(scores: pd.DataFrame, window: str, weight: float) -> pd.Series:
    return _by_response(scores, "galp", lambda log_probs, steps: _tails(log_probs, steps).mean())


def _lalp_tail(scores: pd.DataFrame, window: str, weight: float) -> pd.Series:
    return _by_response(scores, lalp_column(window), _mean_of_tail_means)


def _mean_of_tail_means(
    log_probs: Float[np.ndarray, "tokens"], steps: Int[np.ndarray, "tokens"]
) -> float:
    """Mean over steps of the mean over their tokens but the first; steps of one token drop out."""
    later = steps[_is_later(steps)]
    return pd.Series(_tails(log_probs, steps)).groupby(later).mean().mean()


def _tails(
    log_probs: Float[np.ndarray, "tokens"], steps: Int[np.ndarray, "tokens"]
) -> Float[np.ndarray, "later"]:
    return log_probs[_is_later(steps)]


def _is_later(steps: Int[np.ndarray, "tokens"]) -> np.ndarray:
    """True for every token but the first one of its step."""
    return np.diff(steps, prepend=-1) == 0


def _by_response(
    scores: pd.DataFrame, name: str, average: Callable[[np.ndarray, np.ndarray], float]
) -> pd.Series:
    """A score per response from its token log-probabilities; NaN where ``name`` is NaN."""
    tokens, steps = _column(scores, f"{name}:tokens"), _column(scores, "token_steps")
    values = [
        average(np.asarray(t, float), np.asarray(s)) if np.isfinite(v) and _is_later(s).any()
        else np.nan
        for t, s, v in zip(tokens, steps, _column(scores, name), strict=True)
    ]  # fmt: skip
    return pd.Series(values, index=scores.index, dtype=float)


def _rsr(scores: pd.DataFrame, window: str, weight: float) -> pd.Series:
    """``sum_t min(rank_t, 100) / sum_t -log p_t``, full prefix."""
    return _column(scores, "mean_rank_100") / -_column(scores, "galp")


_BUILDERS: dict[str, Callable[[pd.DataFrame, str, float], pd.Series]] = {
    "hybrid": _hybrid,
    "galp-tail": _galp_tail,
    "lalp-tail": _lalp_tail,
    "rsr": _rsr,
}


def _column(scores: pd.DataFrame, name: str) -> pd.Series:
    if name not in scores.columns:
        how = "with tokens (--tokens)" if "token" in name else "again"
        raise InputError(f"the table has no column {name!r}: score the pool {how}")
    return scores[name]


def within_prompt_correlations(
    scores: pd.DataFrame, columns: Sequence[str], *, num_resamples: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Kendall tau (b) between scores among the candidates of one prompt, averaged over prompts.

    That is what a selection per prompt sees; a correlation over all responses would mostly say
    that some prompts are easier than others. Scores of which less is better are turned around.

    Args:
        scores: One row per response; a prompt where a score is missing or all candidates tie is
            left out of that pair.
        columns: Score columns, or ``tokens_per_step`` (mean number of tokens of a step).
        num_resamples: Bootstrap resamples over prompts.
        seed: For the bootstrap.

    Returns:
        One row per pair: ``score``, ``other``, ``tau``, ``low``, ``high`` (95 %), ``num_prompts``.
    """
    values = scores.assign(tokens_per_step=scores["num_tokens"] / scores["num_steps"])
    for name in columns:
        _column(values, name)
    signed = {name: -values[name] if name in LOWER_IS_BETTER else values[name] for name in columns}
    groups = [rows for _, rows in values.groupby("prompt_id", sort=True).indices.items()]
    rows = []
    for i, first in enumerate(columns):
        for second in columns[i + 1 :]:
            taus = np.array([_tau(signed[first].iloc[g], signed[second].iloc[g]) for g in groups])
            low, high = mean_interval(taus[~np.isnan(taus)], num_resamples, seed)
            rows.append(
                {
                    "score": first,
                    "other": second,
                    "tau": float(np.nanmean(taus)) if (~np.isnan(taus)).any() else np.nan,
                    "low": low,
                    "high": high,
                    "num_prompts": int((~np.isnan(taus)).sum()),
                }
            )
    return pd.DataFrame(rows)


def _tau(first: pd.Series, second: pd.Series) -> float:
    if len(first) < 2 or first.isna().any() or second.isna().any():
        return np.nan
    return float(stats.kendalltau(first, second).statistic)
