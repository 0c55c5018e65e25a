"""Intervals, tests, and the random numbers behind them: one place for all statistics.

Which interval a number has is decided here alone. From `FEW_UNITS` units on it is the percentile
bootstrap. Below, a bootstrap is too narrow: a mean has Student's t interval (`mean_interval`,
`means_interval`), any other statistic the one of `bootstrap_interval`. A share of independent
trials has Wilson's interval at any number.
"""

from __future__ import annotations

import json
import math
import operator
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from lalp.errors import InputError

# Numbers drawn at once: bounds the memory of a bootstrap.
_BATCH_NUMBERS = 2**22

FEW_UNITS = 50
"""From so many units on, intervals are percentile bootstraps."""

LEAST_RESAMPLED = 6
"""Of fewer units, resamples take so few values that their ends say nothing: see below."""

ALIKE_UNITS = 1000
"""A difference that needs more units than this is none at the precision at hand."""


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


# --- Intervals ---------------------------------------------------------------------------------


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
    if len(values) < FEW_UNITS:
        low, high = _t_ends(values, 0.95)
        return float(low), float(high)
    interval = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=num_resamples,
        batch=max(1, _BATCH_NUMBERS // len(values)),
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)


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
    _check_level(level)
    number = len(values)
    if number < 2:
        return np.full((2, *values.shape[1:]), np.nan)
    half = _t_quantile(level, number) * values.std(axis=0, ddof=1) / math.sqrt(number)
    mean = values.mean(axis=0)
    return np.stack([mean - half, mean + half])


def _t_quantile(level: float, num_units: int) -> float:
    return float(stats.t.ppf((1 + level) / 2, num_units - 1))


def _check_level(level: float) -> None:
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
    _check_level(level)
    number = len(jackknife)
    value, draws, jackknife = (_finite(part) for part in (value, draws, jackknife))
    if number < LEAST_RESAMPLED:
        ends = _jackknife_ends(value, jackknife, level)
    elif number < FEW_UNITS:
        wider = _t_quantile(level, number) * math.sqrt(number / (number - 1))
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
    half = _t_quantile(level, number) * np.sqrt(squares * (number - 1) / number)
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
    _check_level(level)
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
    _check_level(level)
    if num_units < 2:
        return np.full((2, *resampled.shape[1:]), np.nan)
    with warnings.catch_warnings():
        # A column that is NaN in every resample has a NaN interval.
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanquantile(resampled, [(1 - level) / 2, (1 + level) / 2], axis=0)


# --- Tests, and how many units they take -------------------------------------------------------


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


def units_needed(
    values: Sequence[float] | float, *, power: float = 0.8, level: float = 0.05
) -> float:
    """Fewest units with which a two-sided paired t test finds a mean difference.

    Exact: by the noncentral t distribution. It takes the mean and the spread that were seen for the
    true ones, which themselves are known no better than their intervals say.

    Args:
        values: A difference for each unit; or their mean over their standard deviation.
        power: How likely the test is to find the difference.
        level: How likely it is to find one where there is none.

    Returns:
        A whole number, at least 2; NaN for a mean of 0 and for fewer than two values.

    Example:
        >>> units_needed(0.5), units_needed([0.3, -0.1, 0.3, -0.1])
        (34.0, 44.0)
    """
    _check_level(power)
    _check_level(level)
    effect = abs(values if isinstance(values, int | float) else _effect(values))
    if math.isnan(effect) or effect == 0:
        return math.nan
    if math.isinf(effect):
        return 2.0
    z = stats.norm.isf(level / 2) + stats.norm.ppf(power)
    needed = max(2, math.ceil((z / effect) ** 2))
    # Beyond a million units, Student's t is the normal distribution.
    while needed > 2 and needed < 1_000_000 and _t_power(effect, needed, level) >= power:
        needed -= 1
    while needed < 1_000_000 and _t_power(effect, needed, level) < power:
        needed += 1
    return float(needed)


def _effect(values: Sequence[float]) -> float:
    """Mean over standard deviation."""
    known = np.asarray(values, dtype=float)
    if len(known) < 2:
        return math.nan
    mean, spread = float(known.mean()), float(known.std(ddof=1))
    return mean / spread if spread else math.copysign(math.inf, mean) if mean else 0.0


def _t_power(effect: float, num_units: int, level: float) -> float:
    """How likely a two-sided t test finds an effect in standard deviations above 0."""
    critical, center = _t_quantile(1 - level, num_units), effect * math.sqrt(num_units)
    tails = stats.nct(num_units - 1, center)
    return float(tails.sf(critical) + tails.cdf(-critical))


def trials_needed(
    share: float, against: float, *, power: float = 0.8, level: float = 0.05
) -> float:
    """Fewest trials with which Wilson's interval of a share excludes another share.

    With that many trials or any more, the interval does so with the given power. Exact up to 10,000
    trials: by the binomial distribution; above by the normal one. NaN for equal shares.

    Example:
        >>> trials_needed(0.7, against=0.5)
        48.0
    """
    if math.isnan(share) or share == against:
        return math.nan
    z, own, other = stats.norm.isf(level / 2), share * (1 - share), against * (1 - against)
    needed = (z * math.sqrt(other) + stats.norm.ppf(power) * math.sqrt(own)) / (share - against)
    normal = math.ceil(needed**2)
    if normal > 10_000:
        return float(normal)
    trials = np.arange(1, 2 * normal + 100)
    # Wilson's interval holds all shares that a score test does not reject.
    center, reach = trials * against, z * np.sqrt(trials * other)
    below = stats.binom.cdf(np.ceil(center - reach) - 1, trials, share)
    above = stats.binom.sf(np.floor(center + reach), trials, share)
    # The power goes up and down with single trials: what counts is from where on it suffices.
    lacking = trials[below + above < power]
    return float(lacking.max(initial=0) + 1)


def what_resolves(
    found: Estimate | Sequence[float], unit: str = "prompts", *, against: float = 0.0
) -> str:
    """How many units would tell a number from another one, in words for a verdict.

    Args:
        found: A difference for each unit; or an `Estimate`, whose interval is read as one of
            Student's t, which it is for means.
        unit: What is counted.
        against: The number that the interval must exclude.

    Example:
        >>> what_resolves([0.3, -0.1, 0.3, -0.1]), what_resolves(Estimate(0.3, 0.1, 0.5, 20))
        ('44 prompts', 'already resolved')
    """
    one = found if isinstance(found, Estimate) else t_interval(found)
    if one.low > against or one.high < against:
        return "already resolved"
    if one.num_units < 2 or math.isnan(one.low):
        return f"not known: no interval over {one.num_units} {unit}"
    # Of an interval that leans to one side, the half that reaches for the other number.
    half = one.value - one.low if one.value > against else one.high - one.value
    spread = half / _t_quantile(0.95, one.num_units) * math.sqrt(one.num_units)
    return needed_text(units_needed((one.value - against) / spread if spread else 0.0), unit)


def needed_text(needed: float, unit: str = "prompts") -> str:
    """What `units_needed` or `trials_needed` found, in words.

    Example:
        >>> needed_text(20.0), needed_text(1683.0, "seeds")
        ('20 prompts', '1,700 seeds: alike at this precision')
    """
    if math.isnan(needed):
        return f"no number of {unit}: no difference"
    # Of a planned number, two digits are known at most.
    step = 10 ** max(0, len(f"{needed:.0f}") - 2)
    text = f"{math.ceil(needed / step) * step:,.0f} {unit}"
    return f"{text}: alike at this precision" if needed > ALIKE_UNITS else text


# --- Draws -------------------------------------------------------------------------------------


def bootstrap_means(
    values: Float[np.ndarray, "columns prompts teachers"], num_resamples: int, seed: int
) -> Float[np.ndarray, "resamples columns teachers"]:
    """Teacher means over prompts drawn with replacement, the same for all teachers and columns."""
    check_count("num_resamples", num_resamples)
    num_columns, num_prompts, num_teachers = values.shape
    generator = seeded_generator("bootstrap", seed)
    means = np.empty((num_resamples, num_columns, num_teachers))
    for part in chunks(num_resamples, num_prompts):
        size = part.stop - part.start
        drawn = generator.integers(num_prompts, size=(size, num_prompts))
        drawn += num_prompts * np.arange(size)[:, None]
        times = np.bincount(drawn.ravel(), minlength=size * num_prompts)
        times = times.reshape(size, num_prompts).astype(float)
        means[part] = np.moveaxis(times @ values, 0, 1) / num_prompts
    return means


def subset_means(
    values: Float[np.ndarray, "prompts teachers"],
    sizes: Int[np.ndarray, " sizes"],
    num_draws: int,
    seed: int,
) -> Float[np.ndarray, "sizes draws teachers"]:
    """Teacher means over random subsets of prompts, for each size."""
    check_count("num_draws", num_draws)
    # Subsets are the first prompts of a random order, so none depends on the sizes asked for.
    generator = seeded_generator("subsets", seed)
    means = np.empty((len(sizes), num_draws, values.shape[1]))
    for part in chunks(num_draws, values.size):
        order = np.tile(np.arange(len(values)), (part.stop - part.start, 1))
        sums = values[generator.permuted(order, axis=1)].cumsum(axis=1)[:, sizes - 1]
        means[:, part] = (sums / sizes[:, None]).swapaxes(0, 1)
    return means


def check_count(name: str, count: int) -> None:
    """Refuse a number of things below 1, or so large that it can only be a mistake."""
    if count < 1:
        raise InputError(f"{name} is {count}: give at least 1")
    if count > MOST_THINGS:
        raise InputError(f"{name} is more than {MOST_THINGS:,}: give fewer")


# Of anything that a user counts; memory would end before.
MOST_THINGS = 1_000_000_000


def stable_hash(label: str, seed: int, *ids: object) -> int:
    """64 stable bits; the label keeps draws for different purposes independent."""
    text = json.dumps([label, operator.index(seed), *map(str, ids)])
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


def seeded_generator(label: str, seed: int) -> np.random.Generator:
    """A generator for one purpose, independent of those for others under the same seed."""
    return np.random.default_rng(stable_hash(label, seed))


def chunks(total: int, numbers_each: int) -> Iterator[slice]:
    """Slices of ``range(total)`` that keep the arrays behind them within a bounded size."""
    step = max(1, _BATCH_NUMBERS // max(1, numbers_each))
    return (slice(start, min(start + step, total)) for start in range(0, total, step))
