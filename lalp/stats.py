"""Intervals and the random numbers behind them."""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Iterator
from hashlib import blake2b

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from lalp.errors import InputError

# Numbers drawn at once.
_BATCH_NUMBERS = 2**22


def mean_interval(
    values: Float[np.ndarray, "units"], num_resamples: int, seed: int
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of a mean; NaN with fewer than two values.

    Args:
        values: One number per independent unit, a prompt as a rule.
        num_resamples: Bootstrap resamples.
        seed: The same seed draws the same units, so intervals of several columns go together.
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


_CHUNK_NUMBERS = 2**22


def _check_count(name: str, count: int) -> None:
    if count < 1:
        raise InputError(f"{name} is {count}: give at least 1")


# --- choosing ---------------------------------------------------------------------------------


def _hash(label: str, seed: int, *ids: object) -> int:
    """64 stable bits; the label keeps draws for different purposes independent."""
    text = json.dumps([label, operator.index(seed), *map(str, ids)])
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


def _generator(label: str, seed: int) -> np.random.Generator:
    return np.random.default_rng(_hash(label, seed))


def _chunks(total: int, numbers_each: int) -> Iterator[slice]:
    """Slices of ``range(total)`` that keep the arrays behind them within a bounded size."""
    step = max(1, _CHUNK_NUMBERS // max(1, numbers_each))
    return (slice(start, min(start + step, total)) for start in range(0, total, step))


def _bootstrap_means(
    values: Float[np.ndarray, "columns prompts teachers"], num_resamples: int, seed: int
) -> Float[np.ndarray, "resamples columns teachers"]:
    """Teacher means over prompts drawn with replacement, the same for all teachers and columns."""
    _check_count("num_resamples", num_resamples)
    num_columns, num_prompts, num_teachers = values.shape
    generator = _generator("bootstrap", seed)
    means = np.empty((num_resamples, num_columns, num_teachers))
    for part in _chunks(num_resamples, num_prompts):
        size = part.stop - part.start
        drawn = generator.integers(num_prompts, size=(size, num_prompts))
        drawn += num_prompts * np.arange(size)[:, None]
        times = np.bincount(drawn.ravel(), minlength=size * num_prompts)
        times = times.reshape(size, num_prompts).astype(float)
        means[part] = np.moveaxis(times @ values, 0, 1) / num_prompts
    return means


def _interval(
    resampled: Float[np.ndarray, "resamples ..."], level: float, num_prompts: int
) -> Float[np.ndarray, "2 ..."]:
    """Percentile interval over the first axis; NaN where one prompt leaves nothing to resample."""
    if not 0 < level < 1:
        raise InputError(f"level is {level}: give a share between 0 and 1, such as 0.95")
    if num_prompts < 2:
        return np.full((2, *resampled.shape[1:]), np.nan)
    return np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2], axis=0)


def _wilson(
    successes: Int[np.ndarray, " sizes"], trials: int
) -> tuple[Float[np.ndarray, " sizes"], Float[np.ndarray, " sizes"]]:
    """95 % Wilson score interval of a share."""
    bounds = [
        stats.binomtest(int(k), trials).proportion_ci(0.95, method="wilson") for k in successes
    ]
    return np.array([b.low for b in bounds]), np.array([b.high for b in bounds])
