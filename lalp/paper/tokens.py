"""One row per scored token, from scores that were computed with ``with_tokens=True``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int

from lalp.errors import InputError
from lalp.scoring.columns import token_column

_IDS = ("prompt_id", "response_id", "teacher")
Describe = Callable[[Mapping[str, Any], Int[np.ndarray, "tokens 2"]], Mapping[str, Any]]
"""More columns of a response's tokens, from its row of the scores and its tokens' spans."""


def token_rows(
    scores: pd.DataFrame, texts: Mapping[str, str], columns: Sequence[str], describe: Describe
) -> pd.DataFrame:
    """Each token's ids, step, log-probability under each score (nats), and columns of ``describe``.

    Only tokens that have a log-probability under every score are kept, so scores are compared on
    the same tokens; ``attrs["left_out"]`` counts the others. ``texts`` are keyed by response id.
    InputError if a token column or a text is missing.
    """
    for name in ("token_spans", "token_steps", *map(token_column, columns)):
        if name not in scores:
            raise InputError(
                f"the scores lack column {name!r}: score with this window and with_tokens=True"
            )
    if lost := [i for i in scores["response_id"] if i not in texts]:
        raise InputError(f"response {lost[0]!r} has scores but no text: give the scored pool")
    parts = []
    for row in scores.to_dict("records"):
        spans = np.array([tuple(span) for span in row["token_spans"]], dtype=int).reshape(-1, 2)
        part: dict[str, Any] = {name: row[name] for name in _IDS}
        part["step"] = np.asarray(row["token_steps"], dtype=int)
        part |= {name: np.asarray(row[token_column(name)], dtype=float) for name in columns}
        parts.append(pd.DataFrame(part | describe(row, spans)))
    table = pd.concat(parts, ignore_index=True).astype(dict.fromkeys(_IDS, "category"))
    scored = np.isfinite(table[list(columns)]).all(axis=1)
    kept = table[scored].reset_index(drop=True)
    kept.attrs["left_out"] = int((~scored).sum())
    return kept
