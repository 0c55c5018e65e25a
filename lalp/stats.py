"""Intervals, and the random numbers behind them: one place for all statistics of the project."""

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
    """95 % percentile bootstrap interval of a mean; NaN with fewer than two values.

    A value stands for an independent unit, a prompt as a rule. The same seed draws the same units,
    so intervals of several columns go together.
    """
    if len(values) < 2:
        return math.nan, math.nan
    interval = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=num_resamples,
        batch=max(1, _BATCH_NUMBERS // len(values)),
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def t_interval(values: Sequence[float], level: float = 0.95) -> Estimate:
    """Mean and Student's t interval of independent values; NaN values do not count.

    Example:
        >>> print(t_interval([1.0, 2.0, 3.0]))
        2.00 [-0.48, 4.48]
    """
    known = np.asarray(values, dtype=float)
    known = known[~np.isnan(known)]
    mean = float(known.mean()) if len(known) else math.nan
    if len(known) < 2:
        return Estimate(mean, math.nan, math.nan, len(known))
    spread = float(known.std(ddof=1))
    if spread == 0:
        return Estimate(mean, mean, mean, len(known))
    low, high = stats.t.interval(level, len(known) - 1, mean, spread / math.sqrt(len(known)))
    return Estimate(mean, float(low), float(high), len(known))


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
    """
    if not 0 < level < 1:
        raise InputError(f"level is {level}: give a share between 0 and 1, such as 0.95")
    if num_units < 2:
        return np.full((2, *resampled.shape[1:]), np.nan)
    with warnings.catch_warnings():
        # A column that is NaN in every resample has a NaN interval.
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanquantile(resampled, [(1 - level) / 2, (1 + level) / 2], axis=0)


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
