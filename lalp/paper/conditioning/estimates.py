"""Statistics of sums over responses, with bootstrap intervals over prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from lalp.stats import Estimate, percentile_interval


def spread_estimates(table: pd.DataFrame) -> pd.DataFrame:
    """A table with each `Estimate` as three numbers: ``name``, ``name_low``, ``name_high``."""
    columns: dict[str, Any] = {}
    for name in table:
        if any(isinstance(cell, Estimate) for cell in table[name]):
            columns[name] = [cell.value for cell in table[name]]
            columns[f"{name}_low"] = [cell.low for cell in table[name]]
            columns[f"{name}_high"] = [cell.high for cell in table[name]]
        else:
            columns[name] = table[name]
    return pd.DataFrame(columns, index=table.index)


def ratio(sums: Float[np.ndarray, "... sums"]) -> Float[np.ndarray, "... ratios"]:
    """First half of the columns over the second half."""
    numerator, denominator = np.split(sums, 2, axis=-1)
    return numerator / denominator


def group_sums(frame: pd.DataFrame, by: str) -> Iterator[tuple[str, Callable[..., np.ndarray]]]:
    """For ``all`` and each value of a column: a function that sums a value per prompt and bin.

    Prompts are the same for every group, so that all groups see the same resamples.
    """
    codes, prompts = pd.factorize(frame["prompt_id"], sort=True)
    column = frame[by].astype("category")
    for group in ["all", *column.cat.remove_unused_categories().cat.categories]:
        inside = np.full(len(frame), True) if group == "all" else (column == group).to_numpy()

        def sums(
            bins: Int[np.ndarray, "rows"],
            num_bins: int,
            values: Float[np.ndarray, "rows"] | None = None,
            inside: np.ndarray = inside,
        ) -> Float[np.ndarray, "prompts bins"]:
            cells = codes[inside] * num_bins + bins[inside]
            weights = None if values is None else values[inside]
            size = len(prompts) * num_bins
            return np.bincount(cells, weights, size).reshape(len(prompts), num_bins).astype(float)

        yield group, sums


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
        codes, prompts = pd.factorize(own["prompt_id"], sort=True)
        values = own[columns].to_numpy(dtype=float)
        sums = np.zeros((len(prompts), 2 * len(columns)))
        np.add.at(sums, codes, np.hstack([values, np.ones_like(values)]))
        estimates = bootstrap(sums, ratio, **resampling)
        rows.append((*group, len(own), len(prompts), *estimates))
    return pd.DataFrame(rows, columns=[*by, "num_items", "num_prompts", *columns])
