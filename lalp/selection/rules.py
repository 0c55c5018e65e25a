"""Choose one response per prompt (paper, Sec. 4 and 7).

A scores table has one row per response: ``prompt_id``, ``response_id``, ``teacher``, ``correct``
(true, false, or null where nobody verified it), ``num_tokens``, ``galp``, one ``lalp@WINDOW`` per
window, and ``reason`` (why a score is NaN). Scores are nats per token, higher = more natural.
Responses known to be wrong are never candidates (Sec. 3.1). No choice or number depends on the
order of the rows, and all randomness comes from ``seed``.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import pandas as pd

from lalp.errors import InputError
from lalp.scoring.columns import GALP, lalp_column
from lalp.scoring.windows import Window
from lalp.selection import table
from lalp.selection.variants import LOWER_IS_BETTER, VARIANTS, add_variants, variant_column
from lalp.stats import stable_hash

RULES = ("random", "galp", "galp-middle", "galp-lowest", "lalp", "lalp-lowest", *VARIANTS)
THIRDS = ("highest", "middle", "lowest")
_WINDOWED = frozenset({"lalp", "lalp-lowest", "hybrid", "lalp-tail"})
Tie = Literal["first", "shortest", "random"]


def score_column(rule: str, window: str | int | Window | None = None) -> str | None:
    """Name of the score that a rule compares; None for ``random``, which needs no score.

    Example:
        >>> score_column("lalp-lowest", "25.0%"), score_column("random")
        ('lalp@25%', None)
    """
    if rule not in RULES:
        raise InputError(f"there is no rule {rule!r}: choose one of {', '.join(RULES)}")
    if rule == "random":
        return None
    if rule in VARIANTS:
        return variant_column(rule, window)
    if rule.startswith(GALP):
        return GALP
    return lalp_column(window)


def select(
    scores: pd.DataFrame,
    rule: str,
    window: str | int | Window | None = None,
    *,
    seed: int = 0,
    tie: Tie = "first",
    skip_unscored: bool = False,
) -> pd.DataFrame:
    """Choose one response per prompt by a rule (paper, Sec. 7.2, Table 3).

    A random choice (by rule or by tie) depends on the seed, the prompt and its candidates only.

    Args:
        scores: One row per response.
        rule: One of ``RULES``: a random candidate, or the one of highest, lowest or middle score
            (of an even number, the upper middle). Scores of `lalp.selection.variants` that the
            table lacks are computed; of ``rsr`` the lowest is chosen.
        window: Context window of ``lalp``, ``lalp-lowest``, ``hybrid`` and ``lalp-tail``; may be
            left out if the table holds only one. The other rules ignore it.
        seed: For ``random``, as rule and as tie rule.
        tie: Which of equal scores to take: ``first`` (smallest response id, as text),
            ``shortest`` (fewest tokens, then smallest id) or ``random``.
        skip_unscored: Leave out candidates without a score instead of refusing.

    Returns:
        The chosen rows, one per prompt, prompts in order of first appearance. ``attrs["left_out"]``
        counts the responses and prompts left out, by reason.

    Example:
        >>> from lalp.selection.table import example_scores
        >>> select(example_scores(), "lalp")["response_id"].tolist()
        ['p1', 'q1']
    """
    if tie not in get_args(Tie):
        raise InputError(f"there is no tie rule {tie!r}: choose {', '.join(get_args(Tie))}")
    if window is None and rule in _WINDOWED:
        window = table.only_window(scores)
    column = score_column(rule, window)
    if rule in VARIANTS and column not in scores.columns:
        scores = add_variants(scores, [rule], window)
    columns = [] if column is None else [column]
    keep, left_out = table.candidates(scores, columns, skip_unscored=skip_unscored)
    if column is None:
        keys = [table.draws("rule", seed, scores)]
    else:
        values = table.score_values(scores, column)
        # `take` chooses the smallest, and puts response ids behind all keys: no choice is open.
        keys = [values if rule.endswith("lowest") or rule in LOWER_IS_BETTER else -values]
        if tie == "random":
            keys.append(table.draws("tie", seed, scores))
        elif tie == "shortest":
            keys.append(table.score_values(scores, "num_tokens"))
    chosen = table.take(scores, keep, keys, middle=rule.endswith("middle"))
    return table.with_left_out(scores, chosen, left_out, "prompts without a candidate")


def of_teacher(scores: pd.DataFrame, teacher: str) -> pd.DataFrame:
    """The rows of one teacher, to select within it (paper, Table 1, 13 and 14)."""
    table.require_columns(scores, ["teacher"])
    rows = scores[scores["teacher"] == teacher].reset_index(drop=True)
    if rows.empty:
        known = ", ".join(sorted(map(str, scores["teacher"].unique())))
        raise InputError(f"teacher {teacher!r} has no response here: there are {known}")
    return rows


def select_third(scores: pd.DataFrame, third: str, column: str = GALP) -> pd.DataFrame:
    """The responses in one of ``THIRDS`` of a score's order over prompts (paper, Sec. 4, Table 1).

    ``scores`` hold one response per prompt, by one teacher as a rule (`of_teacher`). Thirds differ
    by one response at most, the higher ones being the larger. Equal scores are put in order of
    response ids.

    Example:
        >>> from lalp.selection.table import example_scores
        >>> scores = example_scores().assign(prompt_id=list("abcd"))
        >>> [select_third(scores, third)["galp"].tolist() for third in THIRDS]
        [[-0.5, -0.4], [-0.7], [-0.9]]
    """
    if third not in THIRDS:
        raise InputError(f"there is no third {third!r}: choose one of {', '.join(THIRDS)}")
    keep, left_out = table.candidates(scores, [column], skip_unscored=False)
    rows = np.flatnonzero(keep)
    if scores.iloc[rows]["prompt_id"].duplicated().any() or len(rows) < len(THIRDS):
        needed = "one response per prompt, by one teacher, of at least three prompts"
        raise InputError(f"{len(rows)} candidates cannot be cut into thirds: give {needed}")
    keys = [table.id_order(scores), -table.score_values(scores, column)]
    order = rows[np.lexsort([key[rows] for key in keys])]
    # Sorted places keep the table's own order within a third.
    places = np.sort(np.array_split(order, len(THIRDS))[THIRDS.index(third)])
    chosen = scores.iloc[places].reset_index(drop=True)
    return table.with_left_out(scores, chosen, left_out, "prompts of other thirds")


def within_tokens(selected: pd.DataFrame, max_tokens: int, *, seed: int = 0) -> pd.DataFrame:
    """A part of a selection that fits into a number of response tokens: the control for length.

    Rules differ in the length of what they choose. Prompts are taken in an order drawn by ``seed``,
    the same for every selection, each one that still fits.

    Example:
        >>> from lalp.selection.table import example_scores
        >>> within_tokens(select(example_scores(), "galp"), 25, seed=1)["num_tokens"].tolist()
        [20]
    """
    table.check_selection(selected)
    table.require_columns(selected, ["num_tokens"])
    # The order depends on prompts alone, so that it is the same for every selection.
    places = [stable_hash("tokens", seed, prompt_id) for prompt_id in selected["prompt_id"]]
    lengths = selected["num_tokens"].astype(int).tolist()
    kept, used = [], 0
    for i in sorted(range(len(places)), key=places.__getitem__):
        if used + lengths[i] <= max_tokens:
            kept.append(i)
            used += lengths[i]
    if not kept:
        raise InputError(f"no response of the selection fits into {max_tokens} tokens: give more")
    return selected.iloc[sorted(kept)].reset_index(drop=True)


def teacher_mix(selected: pd.DataFrame) -> pd.DataFrame:
    """``count`` and ``percent`` of each chosen teacher, in order of name (paper, Table 8)."""
    table.require_columns(selected, ["teacher"])
    count = selected["teacher"].value_counts().sort_index()
    return pd.DataFrame({"count": count, "percent": 100 * count / max(1, count.sum())})


def agreement(selected_a: pd.DataFrame, selected_b: pd.DataFrame) -> float:
    """Share of prompts, among those in both selections, where both choose the same response."""
    for selected in (selected_a, selected_b):
        table.check_selection(selected)
    key = ["prompt_id", "response_id"]
    both = selected_a[key].merge(selected_b[key], on="prompt_id")
    if both.empty:
        raise InputError("the two selections share no prompt: compare selections from one pool")
    return float((both["response_id_x"] == both["response_id_y"]).mean())
