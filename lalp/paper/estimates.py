"""Statistics of sums over responses, with their intervals over prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from lalp.stats import Estimate, bootstrap_interval


def ratio(sums: Float[np.ndarray, "... sums"]) -> Float[np.ndarray, "... ratios"]:
    """First half of the columns over the second half."""
    numerator, denominator = np.split(sums, 2, axis=-1)
    return numerator / denominator


def row_estimates(table: pd.DataFrame, value: str, units: str) -> list[Estimate]:
    """A table's numbers with their ends ``low`` and ``high`` and their units, row by row."""
    return [
        Estimate(*map(float, ends), int(number))
        for *ends, number in table[[value, "low", "high", units]].itertuples(index=False)
    ]


def split_groups(frame: pd.DataFrame, by: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """``all`` rows, then those of each value of a column."""
    yield "all", frame
    yield from frame.groupby(by, observed=True)


def prompt_sums(
    rows: pd.DataFrame, prompts: Sequence[str], column: str, cells: str, names: Sequence[object]
) -> Float[np.ndarray, "prompts two*cells"]:
    """Sum of a column per prompt and cell, then the number of rows; 0 if there are none.

    The prompts are an argument, so all groups of rows see the same resamples.
    """
    table = rows.pivot_table(column, "prompt_id", cells, ["sum", "count"], observed=True)
    columns = pd.MultiIndex.from_product([["sum", "count"], names])
    return table.reindex(index=prompts, columns=columns).fillna(0.0).to_numpy(dtype=float)


def bootstrap(
    sums: Float[np.ndarray, "prompts sums"],
    statistic: Callable[[np.ndarray], np.ndarray],
    *,
    level: float = 0.95,
    **resampling: int,
) -> list[Estimate]:
    """Statistics of the sums over prompts, with the interval of `bootstrap_interval` for each.

    Prompts whose sums are all 0 (without a row of the group) are not units and do not count. A
    statistic that rests on one prompt has no interval: its ends are NaN and resolve nothing.

    Example:
        >>> sums = np.array([[1.0, 2.0], [3.0, 4.0], [0.0, 0.0]])  # numerators, denominators
        >>> print(*bootstrap(sums, ratio, num_resamples=10))
        0.67 [-0.92, 2.25]
    """
    values, draws = resample(sums, statistic, **resampling)
    jackknife = leave_one_out(sums[(sums != 0).any(axis=1)], statistic)
    ends = bootstrap_interval(values, draws, jackknife, level)
    return [Estimate(*map(float, e), len(jackknife)) for e in zip(values, *ends, strict=True)]


def resample(
    sums: Float[np.ndarray, "prompts sums"],
    statistic: Callable[[np.ndarray], np.ndarray],
    num_resamples: int = 2000,
    seed: int = 0,
) -> tuple[Float[np.ndarray, "statistics"], Float[np.ndarray, "resamples statistics"]]:
    """Statistics of the sums over prompts, and over resampled prompts (none for one prompt)."""
    draws = np.zeros((0, len(sums)))
    if len(sums) > 1:
        shares = np.full(len(sums), 1 / len(sums))
        # Statistics depend on sums only, so it is enough to know how often each prompt is drawn.
        generator = np.random.default_rng(seed)
        draws = generator.multinomial(len(sums), shares, size=num_resamples).astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        return statistic(sums.sum(axis=0)), statistic(draws @ sums)


def leave_one_out(
    sums: Float[np.ndarray, "prompts sums"], statistic: Callable[[np.ndarray], np.ndarray]
) -> Float[np.ndarray, "prompts statistics"]:
    """Statistics of the sums over all prompts but one, for each of them.

    Example:
        >>> leave_one_out(np.array([[1.0, 2.0], [3.0, 4.0]]), ratio).ravel()
        array([0.75, 0.5 ])
    """
    # Sums before and after each prompt. Subtracting from the total would leave rounding errors
    # where no other prompt has a value, and a ratio of these would look like a number.
    before, after = np.zeros_like(sums), np.zeros_like(sums)
    before[1:], after[:-1] = sums[:-1].cumsum(axis=0), sums[:0:-1].cumsum(axis=0)[::-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        return statistic(before + after)


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
