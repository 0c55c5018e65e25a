"""How sure a mean over prompts is."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float
from scipy import stats

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
