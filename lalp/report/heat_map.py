"""One response of a pool token by token: which one, and its heat map."""

from __future__ import annotations

from html import escape

import pandas as pd

from lalp.pools.pool import Pool
from lalp.scoring.columns import GALP, lalp_column
from lalp.scoring.heat_map import token_heat_map
from lalp.scoring.run import score
from lalp.students.student import Student

# A page of longer ones would be slow: they are drawn only if a pool holds nothing shorter.
_MOST_TOKENS = 1_000


def response_to_draw(scores: pd.DataFrame, window: str) -> str | None:
    """The response that gains most from context outside the window, over all its tokens.

    Among responses of at most 1,000 tokens, it has the largest ``(GALP - LALP) * num_tokens``. If
    all are longer, it is the shortest; it is None if none has both scores.

    Example:
        >>> from lalp.selection.table import example_scores
        >>> response_to_draw(example_scores(), "4")  # 0.8 nats of 20 tokens, 0.5 of 30
        'p2'
    """
    column = lalp_column(window)
    rows = scores.dropna(subset=[GALP, column])
    if rows.empty:
        return None
    short = rows[rows["num_tokens"] <= _MOST_TOKENS]
    if short.empty:
        return str(rows.loc[rows["num_tokens"].idxmin(), "response_id"])
    gain = (short[GALP] - short[column]) * short["num_tokens"]
    return str(short.loc[gain.idxmax(), "response_id"])


def draw_response(pool: Pool, scores: pd.DataFrame, student: str | Student, window: str) -> str:
    """Heat map of `response_to_draw` as HTML below its prompt; a sentence if there is none.

    The response is scored once more for its tokens, into the same store as `scores`.
    """
    name = response_to_draw(scores, window)
    if name is None:
        return f"<p>No response has both GALP and LALP at window {escape(window)}.</p>"
    response = next(each for each in pool.responses if each.response_id == name)
    prompt = pool.prompts[response.prompt_id]
    alone = Pool({prompt.prompt_id: prompt}, (response,))
    row = score(alone, student, [window], with_tokens=True, progress=False).iloc[0].to_dict()
    asked = escape(prompt.messages[-1].content)
    return (
        f"<p><b>{escape(name)}</b>, an answer to:</p>\n"
        f'<blockquote style="white-space:pre-wrap">{asked}</blockquote>\n'
        f"{token_heat_map(response.text, row, window)}"
    )
