"""Scores of some of the same tokens: cut to equal length, and without a thought's marks.

No token depends on what follows it, so the tokens of a cut response have the same scores as in the
whole one. `rules.yaml` says what these controls decide.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool

from lalp.paper.traces.pool import MAIN_TEACHERS
from lalp.scoring.columns import GALP, score_columns, token_column
from lalp.scoring.equations import average_log_prob, local_average_log_prob

MARK = re.compile(r"</?think>")
_IDS = ("prompt_id", "response_id", "teacher", "correct")


def cut_scores(scores: pd.DataFrame, teachers: Sequence[str] = MAIN_TEACHERS) -> pd.DataFrame:
    """Scores of every problem's responses cut to the length of the shortest of them.

    A response is cut after its last step that ends within the length of the shortest one. A problem
    is left out if a teacher has no response, or if a response has no step left. ``scores`` hold
    tokens; columns are ids, scores (nats), ``num_tokens``, ``num_steps``.
    """
    rows = []
    own = scores[scores["teacher"].isin(teachers)]
    for _, group in own.groupby("prompt_id", sort=False):
        most = group["num_tokens"].min()
        cut = [_score_tokens(row, whole_steps(row["token_steps"], most)) for row in _rows(group)]
        if len(cut) == len(teachers) and all(row["num_steps"] for row in cut):
            rows += cut
    return pd.DataFrame(rows)


def unmarked_scores(scores: pd.DataFrame, texts: Mapping[str, str]) -> pd.DataFrame:
    """Scores without the tokens that hold a character of ``<think>`` or ``</think>``.

    ``texts`` are keyed by response id; ``scores`` and the columns are as in `cut_scores`.
    """
    rows = []
    for row in _rows(scores):
        spans = np.array([tuple(span) for span in row["token_spans"]], dtype=int).reshape(-1, 2)
        is_kept = np.ones(len(spans), dtype=bool)
        for mark in MARK.finditer(texts[row["response_id"]]):
            is_kept &= (spans[:, 1] <= mark.start()) | (spans[:, 0] >= mark.end())
        rows.append(_score_tokens(row, is_kept))
    return pd.DataFrame(rows)


def whole_steps(steps: Sequence[int], most: int) -> Bool[np.ndarray, " tokens"]:
    """Which tokens belong to steps that end within the first ``most`` tokens.

    Example:
        >>> whole_steps([0, 0, 1, 1, 1, 2], 4).tolist()
        [True, True, False, False, False, False]
    """
    numbers = np.asarray(steps, dtype=int)
    beyond = numbers[most:].min(initial=numbers.max(initial=-1) + 1)
    return numbers < beyond


def _rows(scores: pd.DataFrame) -> list[dict[str, Any]]:
    """Responses that were scored, one row each."""
    return scores[scores["reason"].isna()].to_dict("records")


def _score_tokens(row: Mapping[str, Any], is_kept: Bool[np.ndarray, " tokens"]) -> dict[str, Any]:
    """GALP and LALP (Eq. 1 and 3) over some of a response's tokens; NaN if there are none."""
    steps = np.asarray(row["token_steps"], dtype=int)[is_kept]
    # Steps come in order, so a change of number is a border.
    borders = np.flatnonzero(np.diff(steps)) + 1
    found = {name: row[name] for name in _IDS if name in row}
    found |= {"num_tokens": len(steps), "num_steps": len(borders) + 1 if len(steps) else 0}
    for name in score_columns(row):
        tokens = np.asarray(row[token_column(name)], dtype=float)[is_kept]
        if not len(tokens):
            found[name] = np.nan
        elif name == GALP:
            found[name] = float(average_log_prob(tokens))
        else:
            found[name] = float(local_average_log_prob(np.split(tokens, borders)))
    return found
