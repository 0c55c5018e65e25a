"""Means over responses with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

_LEVEL = 95.0


@dataclass(frozen=True)
class Estimate:
    """A statistic and its 95 % bootstrap interval over prompts (NaN ends: there is none)."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"

    @property
    def sign(self) -> int:
        """1 or -1 where the interval excludes 0, else 0."""
        return int(self.low > 0) - int(self.high < 0)


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


def pivot(
    frame: pd.DataFrame, column: str | None, prompts: Sequence[str], teachers: Sequence[str]
) -> Float[np.ndarray, "prompts teachers"]:
    """Sums of a column, or counts, per prompt and teacher."""
    rows = pd.Index(prompts).get_indexer(frame["prompt_id"].astype(str))
    columns = pd.Index(teachers).get_indexer(frame["teacher"].astype(str))
    grid = np.zeros((len(prompts), len(teachers)))
    known = (rows >= 0) & (columns >= 0)
    values = np.ones(len(frame)) if column is None else frame[column].to_numpy(dtype=float)
    np.add.at(grid, (rows[known], columns[known]), values[known])
    return grid


def ratio(sums: Float[np.ndarray, "... sums"]) -> Float[np.ndarray, "... ratios"]:
    """First half of the columns over the second half."""
    numerator, denominator = np.split(sums, 2, axis=-1)
    return numerator / denominator


def _groups(frame: pd.DataFrame, by: str) -> Iterator[tuple[str, Callable[..., np.ndarray]]]:
    """For ``all`` and each value of a column: a function that sums a value per prompt and bin.

    Prompts are the same for every group, so that all groups see the same resamples.
    """
    codes, prompts = pd.factorize(frame["prompt_id"], sort=True)
    column = frame[by].astype(object)
    ordered = frame[by].cat.categories if frame[by].dtype == "category" else sorted(column.unique())
    for group in ["all", *(g for g in ordered if (column == g).any())]:
        inside = np.ones(len(frame), dtype=bool) if group == "all" else (column == group).to_numpy()

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
    num_resamples: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A statistic of the sums over prompts, with its interval over resampled prompts.

    One prompt has no interval: its ends are NaN, and so resolve nothing.
    """
    values, resampled = resample(sums, statistic, num_resamples, seed)
    if resampled is None:
        return values, np.full_like(values, np.nan), np.full_like(values, np.nan)
    tail = (100 - _LEVEL) / 2
    low, high = _percentiles(resampled, [tail, 100 - tail])
    return values, np.where(np.isnan(values), np.nan, low), np.where(np.isnan(values), np.nan, high)


def resample(
    sums: Float[np.ndarray, "prompts sums"],
    statistic: Callable[[np.ndarray], np.ndarray],
    num_resamples: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray | None]:
    """A statistic of the sums over prompts, and of those over resampled prompts (None for one)."""
    num_prompts = len(sums)
    with np.errstate(invalid="ignore", divide="ignore"):
        values = statistic(sums.sum(axis=0))
        if num_prompts < 2:
            return values, None
        shares = np.full(num_prompts, 1 / num_prompts)
        draws = np.random.default_rng(seed).multinomial(num_prompts, shares, size=num_resamples)
        return values, statistic(draws.astype(float) @ sums)


def _estimate(numbers: Sequence[float]) -> Estimate:
    return Estimate(*(float(number) for number in numbers))


def _percentiles(
    values: Float[np.ndarray, "resamples statistics"], percents: Sequence[float]
) -> Float[np.ndarray, "percents statistics"]:
    """Percentiles over the resamples in which a statistic is defined (NaN if in none)."""
    ends = np.full((len(percents), values.shape[1]), np.nan)
    for column in range(values.shape[1]):
        defined = values[np.isfinite(values[:, column]), column]
        if len(defined):
            ends[:, column] = np.percentile(defined, percents)
    return ends
