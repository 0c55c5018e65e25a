"""Statistics of sums over responses, with bootstrap intervals over prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from lalp.stats import Estimate, percentile_interval


def ratio(sums: Float[np.ndarray, "... sums"]) -> Float[np.ndarray, "... ratios"]:
    """First half of the columns over the second half."""
    numerator, denominator = np.split(sums, 2, axis=-1)
    return numerator / denominator


def split_groups(frame: pd.DataFrame, by: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """``all`` rows, then those of each value of a column."""
    yield "all", frame
    yield from frame.groupby(by, observed=True)


def prompt_sums(
    rows: pd.DataFrame, prompts: Sequence[str], column: str, cells: str, names: Sequence[object]
) -> Float[np.ndarray, "prompts two*cells"]:
    """Sum of a column per prompt and cell, then the number of rows; 0 where there is none.

    The prompts are given, so that all groups of rows see the same resamples.
    """
    table = rows.pivot_table(column, "prompt_id", cells, ["sum", "count"], observed=True)
    columns = pd.MultiIndex.from_product([["sum", "count"], names])
    return table.reindex(index=prompts, columns=columns).fillna(0.0).to_numpy(dtype=float)


def bootstrap(
    sums: Float[np.ndarray, "prompts sums"],
    statistic: Callable[[np.ndarray], np.ndarray],
    **resampling: int,
) -> list[Estimate]:
    """Statistics of the sums over prompts, with their intervals over resampled prompts.

    One prompt has no interval: its ends are NaN, and so resolve nothing.
    """
    values, draws = resample(sums, statistic, **resampling)
    # A statistic that a resample does not define must not count: its ends are of the others.
    defined = np.where(np.isfinite(draws), draws, np.nan)
    ends = np.where(np.isnan(values), np.nan, percentile_interval(defined, len(sums)))
    return [Estimate(*map(float, e), len(sums)) for e in zip(values, *ends, strict=True)]


def resample(
    sums: Float[np.ndarray, "prompts sums"],
    statistic: Callable[[np.ndarray], np.ndarray],
    num_resamples: int = 2000,
    seed: int = 0,
) -> tuple[Float[np.ndarray, "statistics"], Float[np.ndarray, "resamples statistics"]]:
    """Statistics of the sums over prompts, and of those over resampled prompts (none for one)."""
    draws = np.zeros((0, len(sums)))
    if len(sums) > 1:
        shares = np.full(len(sums), 1 / len(sums))
        # How often each prompt is drawn says all, since statistics depend on sums only.
        generator = np.random.default_rng(seed)
        draws = generator.multinomial(len(sums), shares, size=num_resamples).astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        return statistic(sums.sum(axis=0)), statistic(draws @ sums)


def group_means(
    frame: pd.DataFrame, by: list[str], columns: list[str], **resampling: int
) -> pd.DataFrame:
    """Means over the rows (items) of each group, each an `Estimate` over prompts, and counts."""
    rows = []
    for group, own in frame.groupby(by, sort=True):
        prompts = own.groupby("prompt_id", observed=True)
        # An item without a control (NaN) has no mean.
        sums = prompts[columns].sum(skipna=False).to_numpy(dtype=float)
        sizes = np.broadcast_to(prompts.size().to_numpy()[:, None], sums.shape)
        estimates = bootstrap(np.hstack([sums, sizes]), ratio, **resampling)
        rows.append((*group, len(own), len(sums), *estimates))
    return pd.DataFrame(rows, columns=[*by, "num_items", "num_prompts", *columns])
