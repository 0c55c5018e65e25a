"""All responses to one prompt side by side, token by token, with the choice of each score.

As in the heat map of one response, the HTML holds no script, loads nothing, and has its styles in
its tags. Windows fold; opening one closes the others if the browser supports it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lalp.errors import InputError, no_such
from lalp.files import write_text
from lalp.pools.pool import Pool
from lalp.report.page import TEMPLATES
from lalp.scoring.columns import GALP, SCORE_COLORS, lalp_column, score_label, windows_of
from lalp.scoring.equations import self_conditioning_gap
from lalp.scoring.heat_map import gap_scale, legend, nats, shaded_steps, token_scores
from lalp.scoring.run import score
from lalp.scoring.table import scored_pool
from lalp.scoring.windows import parse_windows
from lalp.selection.rules import select
from lalp.students.student import Student

WINDOWS = ("0", "1", "4", "all")
"""Windows that are drawn of a pool: those of the paper that differ most."""

Pieces = list[tuple[str, str, str]]


def score_prompt(
    pool: Pool,
    prompt_id: str,
    student: str | Student,
    windows: Sequence[str] = WINDOWS,
    *,
    where: str = "the pool",
) -> pd.DataFrame:
    """Scores of one prompt's responses and of every token, with their texts, for `side_by_side`.

    Raises:
        InputError: If the pool lacks the prompt, or the student cannot be used.
    """
    if prompt_id not in pool.prompts:
        raise InputError(f"{where}: {no_such('prompt', prompt_id, list(pool.prompts))}")
    own = tuple(r for r in pool.responses if r.prompt_id == prompt_id)
    alone = Pool({prompt_id: pool.prompts[prompt_id]}, own)
    scores = score(alone, student, list(windows), with_tokens=True, progress=False)
    texts = {response.response_id: response.text for response in own}
    # If a thought was joined in the student's way, the scored text differs.
    shown = scores.get("response", scores["response_id"].map(texts))
    asked = [[asdict(message) for message in pool.prompts[prompt_id].messages]] * len(scores)
    return scores.assign(prompt=asked, response=shown)


def side_by_side(
    scores: pd.DataFrame, windows: Sequence[str] | None = None, *, where: str = "the table"
) -> str:
    """The responses to one prompt as columns, each token shaded by its gap (Eq. 4).

    There is one part for each window; the first is open. It marks the responses that GALP and LALP
    choose at this window. Neighbouring tokens without a shade form one piece, so the page stays
    small; hovering over a shaded token shows its values. All share one scale.

    Args:
        scores: Rows of one prompt, with token columns and the column ``response``.
        windows: The windows to show; by default all of the table.
        where: The table's name in error messages.

    Returns:
        A ``<div>`` with all text escaped; in a notebook, give it to ``IPython.display.HTML``.

    Raises:
        InputError: If the table holds several prompts, or lacks texts, tokens or a window.

    Example:
        >>> row = {"prompt_id": "p", "response_id": "r", "teacher": "Ada", "correct": True}
        >>> row |= {"response": "x=3"}
        >>> row |= {"num_tokens": 2, "num_steps": 1, "galp": -1.5, "lalp@4": -2.5}
        >>> row |= {"token_spans": [(0, 1), (1, 3)], "token_steps": [0, 0]}
        >>> row |= {"galp:tokens": [-1.0, -2.0], "lalp@4:tokens": [-1.0, -4.0]}
        >>> "gap +2.00 nats" in side_by_side(pd.DataFrame([row]))
        True
    """
    shown = _shown(scores, windows, where)
    return TEMPLATES.get_template("side_by_side.html.j2").render(shown)


def write_side_by_side(
    scores: pd.DataFrame,
    prompt_id: str,
    path: str | Path,
    windows: Sequence[str] | None = None,
    *,
    where: str = "the table",
) -> Path:
    """Write `side_by_side` of one prompt of a table as a page; an old page stays if anything fails.

    For example ``write_side_by_side(load_scores("tokens.parquet"), "p1", "p1.html")``.

    Raises:
        InputError: As `side_by_side`, or if the table lacks the prompt.
    """
    own = scores[scores["prompt_id"] == prompt_id]
    if own.empty:
        names = list(dict.fromkeys(map(str, scores["prompt_id"])))
        raise InputError(f"{where}: {no_such('prompt', prompt_id, names)}")
    shown = _shown(own, windows, where)
    facts = {
        "prompt_id": prompt_id,
        "asked": scored_pool(own[:1], where).prompts[prompt_id].messages,
    }
    write_text(
        Path(path), TEMPLATES.get_template("side_by_side_page.html.j2").render(shown | facts)
    )
    return Path(path)


def prompt_to_draw(scores: pd.DataFrame, window: str) -> str | None:
    """The prompt with the fewest response tokens for which LALP and GALP choose differently.

    Only prompts that all teachers answered count; None if there is none.

    Example:
        >>> from lalp.selection.table import example_scores
        >>> prompt_to_draw(example_scores(), "4")  # 50 tokens each: the first
        'p'
    """
    taken = {
        rule: select(scores, rule, window, skip_unscored=True).set_index("prompt_id")["response_id"]
        for rule in ("galp", "lalp")
    }
    differs = taken["galp"].ne(taken["lalp"].reindex(taken["galp"].index))
    by_prompt = scores.groupby("prompt_id", sort=False)
    is_whole = by_prompt["teacher"].nunique() == scores["teacher"].nunique()
    lengths = by_prompt["num_tokens"].sum()[
        is_whole & differs.reindex(is_whole.index, fill_value=False)
    ]
    return None if lengths.empty else str(lengths.idxmin())


def _shown(scores: pd.DataFrame, windows: Sequence[str] | None, where: str) -> dict[str, Any]:
    """The contents of both templates: the legend, and the columns of each window."""
    rows = _checked(scores, where)
    names = [str(each) for each in parse_windows(windows or windows_of(scores, tokens=True))]
    tokens = {
        window: [
            token_scores(row["response"], row, window, f"{where}, {row['response_id']}")
            for row in rows
        ]
        for window in names
    }
    gaps = [self_conditioning_gap(*pair) for pairs in tokens.values() for pair in pairs]
    scale = gap_scale(np.concatenate(gaps))
    parts = []
    for window, pairs in tokens.items():
        taken = {rule: _taken(scores, rule, window) for rule in ("galp", "lalp")}
        columns = [
            _column(row, window, taken, shaded_steps(row["response"], row, *pair, scale))
            for row, pair in zip(rows, pairs, strict=True)
        ]
        about = {"label": score_label(lalp_column(window)), "drops_nothing": window == "all"}
        parts.append(about | {"columns": columns})
    return {"legend": legend(scale), "parts": parts, "colors": SCORE_COLORS}


def _checked(scores: pd.DataFrame, where: str) -> list[dict[str, Any]]:
    """The rows, in the order of their teachers."""
    for what, is_there in (
        ("texts", "response" in scores),
        ("token columns", bool(windows_of(scores, tokens=True))),
    ):
        if not is_there:
            raise InputError(f"{where}: no {what} in it: write it with lalp score --tokens")
    if (count := scores["prompt_id"].nunique()) > 1:
        raise InputError(f"{where}: holds {count} prompts: one is drawn at a time")
    return scores.sort_values(["teacher", "response_id"]).to_dict("records")


def _taken(scores: pd.DataFrame, rule: str, window: str) -> str | None:
    """The response that a rule chooses; None if none can be chosen."""
    try:
        return str(select(scores, rule, window, skip_unscored=True)["response_id"].item())
    except InputError:  # All are wrong or have no score; the window was found before.
        return None


def _column(
    row: Mapping[str, Any],
    window: str,
    taken: Mapping[str, str | None],
    steps: list[tuple[int, Pieces]],
) -> dict[str, Any]:
    return {
        **{name: row[name] for name in ("teacher", "num_tokens", "num_steps")},
        "is_wrong": row.get("correct") is False,
        "is_taken": {rule: name == row["response_id"] for rule, name in taken.items()},
        "galp": nats(row[GALP]),
        "lalp": nats(row[lalp_column(window)]),
        "steps": [(number, _joined(pieces)) for number, pieces in steps],
    }


def _joined(pieces: Pieces) -> Pieces:
    """Pieces of a step; neighbours without a shade form one piece."""
    joined: Pieces = []
    for style, group in groupby(pieces, key=lambda piece: piece[2]):
        members = list(group)
        joined += members if style else [("".join(text for text, _, _ in members), "", "")]
    return joined
