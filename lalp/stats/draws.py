"""Random numbers that depend on a seed and a purpose alone, in bounded memory."""

from __future__ import annotations

import json
import operator
from collections.abc import Iterator
from hashlib import blake2b

import numpy as np
from jaxtyping import Float, Int

from lalp.errors import InputError

# Numbers drawn at once: bounds the memory of a bootstrap.
_BATCH_NUMBERS = 2**22


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
    step = batch_size(numbers_each)
    return (slice(start, min(start + step, total)) for start in range(0, total, step))


def batch_size(numbers_each: int) -> int:
    """How many draws of so many numbers each may be in memory at once."""
    return max(1, _BATCH_NUMBERS // max(1, numbers_each))
