"""Committed results, partly made again: the largest difference, and whether it is small enough.

Training is a long chain of small steps, so another machine trains to slightly different weights.
Results from before any training agree to `SAME_NATS`. Results from after it have a wider bar, which
the caller states with a reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from lalp.errors import InputError

# The same response under the same weights may be this far off on another machine, in nats.
SAME_NATS = 1e-4


def compare(
    what: str,
    committed: pd.DataFrame,
    now: pd.DataFrame,
    keys: Sequence[str],
    columns: Sequence[str],
    at_most: float = 0.0,
) -> dict[str, Any]:
    """Compare every row that was made now with the committed row of the same keys.

    Args:
        what: What is compared, in words.
        committed: Holds a row for each of ``now``, and may hold more.
        now: Rows made in this run.
        keys: Columns that name a row in both tables.
        columns: Numbers or texts to compare; a missing value must be missing in both.
        at_most: The bar: how far two numbers may lie apart. Texts must be the same. Infinite if
            nothing is demanded.

    Returns:
        ``what``, ``values`` (how many were compared), ``agree`` (how many lie within the bar),
        ``largest`` difference (infinite if texts differ or one is missing), ``at most``.

    Raises:
        InputError: If the committed table lacks a row, or has it twice.

    Example:
        >>> before = pd.DataFrame({"step": [1, 2], "loss": [2.0, 1.0]})
        >>> now = pd.DataFrame({"step": [2], "loss": [1.5]})
        >>> compare("loss", before, now, ["step"], ["loss"], 0.6)["largest"]
        0.5
    """
    keys = list(keys)
    known = committed.set_index(keys)[list(columns)]
    made = now.set_index(keys)[list(columns)]
    if known.index.has_duplicates or not made.index.isin(known.index).all():
        raise InputError(
            f"{what}: committed results lack a row that was made now, or have it twice: they belong"
            " to other texts or settings; make them again"
        )
    known = known.loc[made.index]
    gaps = np.concatenate([_gaps(known[name], made[name]) for name in columns])
    # Without a bar, only equal values agree.
    near = int((gaps <= (at_most if np.isfinite(at_most) else 0.0)).sum())
    largest = float(gaps.max(initial=0.0))
    return {
        "what": what,
        "values": len(gaps),
        "agree": near,
        "largest": largest,
        "at most": at_most,
    }


def _gaps(one: pd.Series, other: pd.Series) -> np.ndarray:
    """How far values lie apart; infinite if texts differ or only one is missing."""
    missing = one.isna().to_numpy(), other.isna().to_numpy()
    if all(pd.api.types.is_numeric_dtype(column) for column in (one, other)):
        gaps = np.abs(one.to_numpy(dtype=float) - other.to_numpy(dtype=float))
    else:
        same = one.astype(str).to_numpy() == other.astype(str).to_numpy()
        gaps = np.where(same, 0.0, np.inf)
    gaps = np.where(missing[0] & missing[1], 0.0, gaps)
    return np.where(missing[0] ^ missing[1], np.inf, gaps)


def require_agreement(checks: Sequence[Mapping[str, Any]], command: str) -> pd.DataFrame:
    """The checks as a table; InputError if one is beyond its bar.

    ``command`` makes the committed results again.
    """
    table = pd.DataFrame(checks)
    beyond = table[table["largest"] > table["at most"]]
    if not beyond.empty:
        row = beyond.iloc[0]
        raise InputError(
            f"committed results do not come out again: {row['what']}: {row['agree']} of"
            f" {row['values']} agree, the largest difference is {row['largest']:.3g}, at most"
            f" {row['at most']:g} is expected; if the code was meant to change, run {command}"
        )
    return table


def describe_made(provenance: Mapping[str, Any]) -> str:
    """Time, place and hours of a committed run; ``live run`` without provenance.

    Example:
        >>> describe_made({})
        'live run'
    """
    if not provenance:
        return "live run"
    hours, cores = provenance["hours_since_last_start"], provenance["cores"]
    return (
        f"committed run of {provenance['date']} ({provenance['profile']} profile, {hours} hours on"
        f" {cores} cores of {provenance['machine']})"
    )
