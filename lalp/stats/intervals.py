"""Numbers with their intervals.

Which interval a number has is decided here alone. From `FEW_UNITS` units on it is the percentile
bootstrap. Below, a bootstrap is too narrow: a mean has Student's t interval (`mean_interval`,
`means_interval`), any other statistic the one of `bootstrap_interval`. A share of independent
trials has Wilson's interval at any number.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

from lalp.errors import InputError
from lalp.stats.draws import batch_size

FEW_UNITS = 50
"""From this number of units on, intervals are percentile bootstraps."""

LEAST_RESAMPLED = 6
"""With fewer units, resamples take so few values that the ends of an interval say nothing."""


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval; NaN ends where there is none.

    Example:
        >>> print(f"{Estimate(0.73, 0.701, 0.7655):.2f}")
        0.73 [0.70, 0.77]
    """

    value: float
    low: float
    high: float
    num_units: int = 0  # independent units behind it, prompts as a rule; 0 where nobody counted

    def __format__(self, spec: str) -> str:
        spec = spec or ".2f"
        if math.isnan(self.low):
            return f"{self.value:{spec}} ({self.num_units} prompts: no interval)"
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"

    def __str__(self) -> str:
        return format(self)

    @property
    def sign(self) -> int:
        """1 or -1 where the interval excludes 0, else 0."""
        return int(self.low > 0) - int(self.high < 0)


def mean_interval(
    values: Float[np.ndarray, "units"], num_resamples: int, seed: int
) -> tuple[float, float]:
    """95 % interval of a mean: Student's t below `FEW_UNITS` values, else a percentile bootstrap.

    A value stands for an independent unit, a prompt as a rule; fewer than two have no interval
    (NaN). The same seed draws the same units, so intervals of several columns go together.

    Example:
        >>> [round(end, 2) for end in mean_interval(np.array([1.0, 2.0, 3.0]), 100, 0)]
        [-0.48, 4.48]
    """
    return mean_of_means_interval([values], num_resamples, seed)


def mean_of_means_interval(
    strata: Sequence[Float[np.ndarray, "units"]], num_resamples: int, seed: int
) -> tuple[float, float]:
    """95 % interval of the unweighted mean of several means, of benchmarks for example.

    The units of the strata are independent: their squared standard errors add up, and the degrees
    of freedom are Welch's and Satterthwaite's. Where every stratum has `FEW_UNITS` units, it is a
    percentile bootstrap that draws within each. One stratum has `mean_interval`.

    Example:
        >>> one, other = np.array([1.0, 2.0, 3.0]), np.array([5.0, 5.0])
        >>> [round(end, 2) for end in mean_of_means_interval([one, other], 100, 0)]
        [2.26, 4.74]
    """
    if min(map(len, strata)) < FEW_UNITS:
        return _welch_ends(strata)
    interval = stats.bootstrap(
        tuple(strata),
        lambda *samples, axis: np.mean([sample.mean(axis=axis) for sample in samples], axis=0),
        vectorized=True,
        n_resamples=num_resamples,
        batch=batch_size(max(map(len, strata))),
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def _welch_ends(strata: Sequence[Float[np.ndarray, "units"]]) -> tuple[float, float]:
    """Student's t interval of a mean of means; NaN with fewer than two units in a stratum."""
    sizes = np.array([len(values) for values in strata])
    if sizes.min() < 2:
        return math.nan, math.nan
    mean = float(np.mean([values.mean() for values in strata]))
    squares = np.array([values.var(ddof=1) for values in strata]) / sizes / len(strata) ** 2
    if not squares.any():
        return mean, mean
    freedom = squares.sum() ** 2 / (squares**2 / (sizes - 1)).sum()
    half = float(stats.t.ppf(0.975, freedom)) * math.sqrt(squares.sum())
    return mean - half, mean + half


def means_interval(
    values: Float[np.ndarray, "units ..."],
    resampled: Float[np.ndarray, "resamples ..."],
    level: float = 0.95,
) -> Float[np.ndarray, "2 ..."]:
    """Intervals of means over the first axis: `mean_interval` for many columns.

    ``resampled`` holds the means of resampled units, read from `FEW_UNITS` units on.

    Example:
        >>> means_interval(np.array([[1.0], [2.0], [3.0]]), np.zeros((9, 1))).round(2).tolist()
        [[-0.48], [4.48]]
    """
    if len(values) < FEW_UNITS:
        return _t_ends(values, level)
    return percentile_interval(resampled, len(values), level)


def _t_ends(values: Float[np.ndarray, "units ..."], level: float) -> Float[np.ndarray, "2 ..."]:
    """Student's t interval of means over the first axis; NaN with fewer than two units."""
    check_level(level)
    number = len(values)
    if number < 2:
        return np.full((2, *values.shape[1:]), np.nan)
    half = t_quantile(level, number) * values.std(axis=0, ddof=1) / math.sqrt(number)
    mean = values.mean(axis=0)
    return np.stack([mean - half, mean + half])


def t_quantile(level: float, num_units: int) -> float:
    """Standard errors from a mean to the end of its Student's t interval."""
    return float(stats.t.ppf((1 + level) / 2, num_units - 1))


def check_level(level: float) -> None:
    """Refuse what is no share, in an InputError."""
    if not 0 < level < 1:
        raise InputError(f"level is {level}: give a share between 0 and 1, such as 0.95")


def t_interval(values: Sequence[float], level: float = 0.95) -> Estimate:
    """Mean and Student's t interval of independent values; NaN values do not count.

    Example:
        >>> print(t_interval([1.0, 2.0, 3.0]))
        2.00 [-0.48, 4.48]
    """
    known = np.asarray(values, dtype=float)
    known = known[~np.isnan(known)]
    mean = float(known.mean()) if len(known) else math.nan
    if len(known) > 1 and np.ptp(known) == 0:
        return Estimate(mean, mean, mean, len(known))
    low, high = _t_ends(known, level)
    return Estimate(mean, float(low), float(high), len(known))


def bootstrap_interval(
    value: Float[np.ndarray, "..."],
    draws: Float[np.ndarray, "resamples ..."],
    jackknife: Float[np.ndarray, "units ..."],
    level: float = 0.95,
) -> Float[np.ndarray, "2 ..."]:
    """Interval of a statistic that is not a plain mean: a ratio, a sum, a slope.

    From `FEW_UNITS` units on the percentile interval of its resamples. Below it is the BCa
    interval, at a level widened by as much as Student's t is wider than the normal distribution
    and a standard deviation is larger than the root of a mean square (Hesterberg 2015, and the R
    package resample): without that, BCa is hardly better than the percentiles. With fewer than
    `LEAST_RESAMPLED` units it is Student's t interval with the jackknife's standard error.

    Args:
        value: The statistic of all units.
        draws: The statistic of each resample; those in which it is not finite do not count.
        jackknife: The statistic without each of the units, one after the other. Units that
            contribute nothing must be left out, since their number counts.
        level: Share of intervals that hold the truth.

    Returns:
        Both ends; NaN where the statistic is, with fewer than two units, and where the statistic is
        not defined without some unit, for then it rests on that unit alone.

    Example:
        >>> sizes = np.array([1.0, 2.0, 4.0])
        >>> without = (sizes.sum() - sizes) / 2
        >>> bootstrap_interval(sizes.mean(), np.zeros(9), without).round(2)  # Student's t: a mean
        array([-1.46,  6.13])
    """
    check_level(level)
    number = len(jackknife)
    value, draws, jackknife = (_finite(part) for part in (value, draws, jackknife))
    if number < LEAST_RESAMPLED:
        ends = _jackknife_ends(value, jackknife, level)
    elif number < FEW_UNITS:
        wider = t_quantile(level, number) * math.sqrt(number / (number - 1))
        ends = _bca_ends(value, draws, jackknife, wider)
    else:
        ends = percentile_interval(draws, number, level)
    unknown = np.isnan(value) | np.isnan(jackknife).any(axis=0)
    return np.where(unknown, np.nan, ends)


def _finite(numbers: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    return np.where(np.isfinite(numbers), numbers, np.nan)


def _jackknife_ends(
    value: Float[np.ndarray, "..."], jackknife: Float[np.ndarray, "units ..."], level: float
) -> Float[np.ndarray, "2 ..."]:
    number = len(jackknife)
    if number < 2:
        return np.full((2, *np.shape(value)), np.nan)
    squares = ((jackknife - jackknife.mean(axis=0)) ** 2).sum(axis=0)
    half = t_quantile(level, number) * np.sqrt(squares * (number - 1) / number)
    return np.stack([value - half, value + half])


def bca_interval(
    value: Float[np.ndarray, "..."],
    draws: Float[np.ndarray, "resamples ..."],
    jackknife: Float[np.ndarray, "units ..."],
    level: float = 0.95,
) -> Float[np.ndarray, "2 ..."]:
    """Bias-corrected and accelerated bootstrap interval (Efron 1987), for many columns at once.

    That of ``scipy.stats.bootstrap(method="BCa")``, which draws units itself and so cannot take
    resamples of sums. Resamples that tie with the value count half below it, up to rounding errors.
    Resamples in which the statistic is not defined (NaN) do not count. Where no resample lies on
    one side of the value, the bias is not finite: the ends are percentiles. Where all units are
    alike, the acceleration is 0. Arguments are those of `bootstrap_interval`.

    Example:
        >>> bca_interval(np.array(2.0), np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 3.0]))
        array([1.05, 2.95])
    """
    check_level(level)
    return _bca_ends(value, draws, jackknife, float(stats.norm.ppf((1 + level) / 2)))


def _bca_ends(
    value: Float[np.ndarray, "..."],
    draws: Float[np.ndarray, "resamples ..."],
    jackknife: Float[np.ndarray, "units ..."],
    z: float,
) -> Float[np.ndarray, "2 ..."]:
    """BCa interval that an unbiased statistic's normal distribution has at -z and z."""
    ordered = np.sort(draws, axis=0)  # NaN last
    known = (~np.isnan(ordered)).sum(axis=0)
    last = np.maximum(known - 1, 0)
    spread = np.take_along_axis(ordered, last[None], axis=0)[0] - ordered[0]
    # Sums in another order end in other bits: so close to the value, a resample ties with it.
    ties = np.abs(ordered - value) <= 1e-9 * spread
    below = (ordered < value) & ~ties
    bias = stats.norm.ppf((below + ties / 2).sum(axis=0) / np.maximum(known, 1))
    pulls = jackknife.mean(axis=0) - jackknife
    size = (pulls**2).sum(axis=0)
    acceleration = (pulls**3).sum(axis=0) / (6 * np.where(size > 0, size, 1) ** 1.5)
    ends = []
    for quantile in (-z, z):
        moved = np.where(np.isfinite(bias), bias, 0.0) + quantile
        scale = 1 - acceleration * moved
        # Beyond the pole of the formula, the share has reached its limit.
        share = stats.norm.cdf(moved - quantile + moved / np.where(scale > 0, scale, 1))
        share = np.where(scale > 0, share, float(quantile > 0))
        share = np.where(np.isfinite(bias), share, stats.norm.cdf(quantile))
        place = share * last
        lower = np.floor(place).astype(int)[None]
        sides = [lower, np.minimum(lower + 1, last)]
        low, high = (np.take_along_axis(ordered, side, axis=0)[0] for side in sides)
        ends.append(low + (high - low) * (place - lower[0]))
    return np.stack(ends)


def wilson_interval(share: float, trials: int) -> tuple[float, float]:
    """95 % Wilson score interval of a share of independent trials; NaN without trials.

    The successes need not be a whole number: a problem's share of correct samples counts as well.

    Example:
        >>> [round(end, 3) for end in wilson_interval(0.5, 10)]
        [0.237, 0.763]
    """
    if trials == 0:
        return math.nan, math.nan
    z2 = float(stats.norm.ppf(0.975)) ** 2 / trials
    center = (share + z2 / 2) / (1 + z2)
    half = math.sqrt(z2 * share * (1 - share) + z2**2 / 4) / (1 + z2)
    return max(0.0, center - half), min(1.0, center + half)


def paired_shares_interval(
    first: Float[np.ndarray, "units"], second: Float[np.ndarray, "units"]
) -> tuple[float, float]:
    """95 % interval of the difference of two shares of the same units, first minus second.

    Square-and-add from both Wilson intervals, less what the pairs have in common (Newcombe 1998,
    method 10), so that it goes with `wilson_interval` in one figure. A unit's value may lie between
    0 and 1. The correlation is taken with half a unit more in each of the four corners: without
    that, two models that agree on all units would differ by nothing for certain.

    Example:
        >>> nothing = np.zeros(8)  # Wilson's end for 0 of 8 is 0.324
        >>> [round(end, 3) for end in paired_shares_interval(nothing, nothing)]
        [-0.324, 0.324]
    """
    if len(first) == 0:
        return math.nan, math.nan
    means = first.mean(), second.mean()
    (low, high), (low2, high2) = (wilson_interval(float(mean), len(first)) for mean in means)
    corners = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    pairs = np.vstack([np.column_stack([first, second]), corners])
    weights = np.array([1.0] * len(first) + [0.5] * len(corners))
    (own, common), (_, other) = np.cov(pairs.T, aweights=weights)
    alike = common / math.sqrt(own * other)
    gap, ends = float(means[0] - means[1]), []
    for one, two in ((means[0] - low, high2 - means[1]), (high - means[0], means[1] - low2)):
        ends.append(math.sqrt(max(0.0, one**2 + two**2 - 2 * alike * one * two)))
    return max(-1.0, gap - ends[0]), min(1.0, gap + ends[1])


def percentile_interval(
    resampled: Float[np.ndarray, "resamples ..."], num_units: int, level: float = 0.95
) -> Float[np.ndarray, "2 ..."]:
    """Percentile interval over the first axis.

    Resamples in which a statistic is not defined (NaN) do not count. One unit leaves nothing to
    resample: its ends are NaN.

    Example:
        >>> percentile_interval(np.arange(101.0), num_units=60)
        array([ 2.5, 97.5])
    """
    check_level(level)
    if num_units < 2:
        return np.full((2, *resampled.shape[1:]), np.nan)
    with warnings.catch_warnings():
        # A column that is NaN in every resample has a NaN interval.
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanquantile(resampled, [(1 - level) / 2, (1 + level) / 2], axis=0)
