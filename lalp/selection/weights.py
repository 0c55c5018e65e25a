"""How much each of several responses of a prompt should count in training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from lalp.selection.table import TIE_NATS


def margin_weights(
    prompts: Sequence[object],
    keep: Bool[np.ndarray, " rows"],
    key: Float[np.ndarray, " rows"],
    places: Int[np.ndarray, " chosen"],
) -> Float[np.ndarray, " chosen"]:
    """LARK's weights (arXiv 2605.30651): by the lead over the best response left out.

    Among weights with a given chi-squared distance from equal ones, these give the highest mean
    score. Their mean is 1 in each prompt. They are all 1 if no candidate was left out, because
    there is nothing to measure a lead from, and if all tie; LARK gives the worst one 0 there.

    Args:
        prompts: Prompt of each row.
        keep: Which rows are candidates.
        key: Score of each row; lower is better here.
        places: The rows that were chosen.

    Example:
        >>> key, places = np.array([1.0, 2.0, 4.0, 1.0]), np.array([0, 1, 3])
        >>> margin_weights(["p", "p", "p", "q"], np.ones(4, bool), key, places).tolist()
        [1.2, 0.8, 1.0]
    """
    prompt_of, names = pd.factorize(np.asarray(prompts, dtype=object))
    left = keep.copy()
    left[places] = False
    best_left = np.full(len(names), np.nan)
    np.fmin.at(best_left, prompt_of[left], key[left])
    group = prompt_of[places]
    lead = best_left[group] - key[places]
    mean = (np.bincount(group, lead, len(names)) / np.maximum(np.bincount(group), 1))[group]
    # NaN (nothing was left out) is not above it either.
    return np.divide(lead, mean, out=np.ones(len(lead)), where=mean > TIE_NATS)
