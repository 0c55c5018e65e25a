"""Tests, alone and in families."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy import stats

from lalp.stats.intervals import Estimate, t_quantile


def standard_error(found: Estimate, against: float = 0.0) -> float:
    """Standard error behind an interval, read as one of Student's t, which it is for means.

    Of an interval that leans to one side, the half counts that reaches for the other number.

    Example:
        >>> round(standard_error(Estimate(2.0, -0.48, 4.48, 3)), 2)
        0.58
    """
    if found.num_units < 2:
        return math.nan
    half = found.value - found.low if found.value > against else found.high - found.value
    return half / t_quantile(0.95, found.num_units)


def p_value(found: Estimate, against: float = 0.0) -> float:
    """Two-sided p of the t test that goes with an interval: below 0.05 where that excludes.

    NaN without an interval or units.

    Example:
        >>> round(p_value(Estimate(2.0, -0.48, 4.48, 3)), 3)
        0.074
    """
    error, gap = standard_error(found, against), abs(found.value - against)
    if math.isnan(error) or not error:
        return math.nan if math.isnan(error) else float(gap == 0)
    return float(2 * stats.t.sf(gap / error, found.num_units - 1))


def p_text(p: float) -> str:
    """A p value in words, with no more digits than it can carry.

    Example:
        >>> p_text(0.0213), p_text(1.6e-08)
        ('p = 0.021', 'p < 0.001')
    """
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def holm_signs(family: Sequence[Estimate]) -> list[int]:
    """1 or -1 for each number whose difference from 0 survives Holm's correction, else 0.

    For claims that one of several numbers decides. A claim that needs all of them at once takes no
    correction: it is wrong only if the last of them is (an intersection-union test).

    Example:
        >>> holm_signs([Estimate(2.0, -0.1, 4.1, 20), Estimate(1.0, 0.5, 1.5, 20)])
        [0, 1]
    """
    corrected = holm([p_value(one) for one in family])
    return [one.sign if p < 0.05 else 0 for one, p in zip(family, corrected, strict=True)]


def holm(p_values: Sequence[float]) -> Float[np.ndarray, " tests"]:
    """Holm's correction of the p values of one family of tests; NaN is no test and stays.

    A corrected value below 0.05 is significant at 5 % for the whole family.

    Example:
        >>> holm([0.01, 0.04, float("nan"), 0.03]).round(3)
        array([0.03, 0.06,  nan, 0.06])
    """
    found = np.asarray(p_values, dtype=float).copy()
    places = np.argsort(found, kind="stable")[: np.count_nonzero(~np.isnan(found))]
    # The smallest counts as often as there are tests, the next one time less, none falls again.
    corrected = found[places] * np.arange(len(places), 0, -1)
    found[places] = np.minimum(np.maximum.accumulate(corrected), 1.0)
    return found


def hotelling_test(values: Float[np.ndarray, "units columns"]) -> tuple[float, float]:
    """F and p of Hotelling's T-squared test that all columns have mean 0.

    Directions in which units do not differ at all decide by their mean alone: F is infinite if that
    is not 0, else the direction is left out. NaN without more units than columns.

    Example:
        >>> [round(n, 3) for n in hotelling_test(np.array([[1.0], [2.0], [3.0]]))]  # t squared
        [12.0, 0.074]
    """
    number, size = values.shape
    if number <= size or not np.isfinite(values).all():
        return math.nan, math.nan
    mean = values.mean(axis=0)
    _, spread, axes = np.linalg.svd((values - mean) / math.sqrt(number - 1), full_matrices=False)
    along = axes @ mean
    rounding = 1e-10 * np.abs(values).max(initial=0.0)
    flat = spread <= rounding
    if (np.abs(along[flat]) > rounding).any():
        return math.inf, 0.0
    rank = int((~flat).sum())
    if not rank:
        return 0.0, 1.0
    t_squared = number * ((along[~flat] / spread[~flat]) ** 2).sum()
    f = float(t_squared * (number - rank) / ((number - 1) * rank))
    return f, float(stats.f.sf(f, rank, number - rank))
