"""Choose responses, one per prompt or within limits (paper, Sec. 4 and 7).

A scores table has one row per response: ``prompt_id``, ``response_id``, ``teacher``, ``correct``
(true, false, or null if nobody verified it), ``num_tokens``, ``galp``, one ``lalp@WINDOW`` per
window, and ``reason`` (why a score is NaN). Scores are nats per token, higher = more natural.
Responses known to be wrong are never candidates (Sec. 3.1). No choice or number depends on the
order of the rows, and all randomness comes from ``seed``. `lalp.selection.limits` lists the limits
and their order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from jaxtyping import Bool

from lalp.errors import InputError, did_you_mean
from lalp.scoring.columns import GALP, lalp_column
from lalp.scoring.windows import Window
from lalp.selection import table
from lalp.selection.limits import Limits, cut
from lalp.selection.variants import (
    DEBIASED,
    LOWER_IS_BETTER,
    VARIANTS,
    WINDOWED,
    add_variants,
    variant_column,
)
from lalp.selection.weights import margin_weights
from lalp.stats import stable_hash

_OWN_RULES = ("random", "galp", "galp-middle", "galp-lowest", "lalp", "lalp-lowest")
RULES = (*_OWN_RULES, *VARIANTS, *DEBIASED)
THIRDS = ("highest", "middle", "lowest")
Tie = Literal["first", "shortest", "random"]


def score_column(rule: str, window: str | int | Window | None = None) -> str | None:
    """Name of the score that a rule compares; None for ``random``, which needs no score.

    Example:
        >>> score_column("lalp-lowest", "25.0%"), score_column("random")
        ('lalp@25%', None)
    """
    if rule not in RULES:
        raise InputError(f"there is no rule {rule!r}: {did_you_mean(rule, RULES)}")
    if rule == "random":
        return None
    if rule not in _OWN_RULES:
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
    weights: bool = False,
    **limits: Any,
) -> pd.DataFrame:
    """Choose one response per prompt by a rule (paper, Sec. 7.2, Table 3), or within limits.

    A random choice (by rule or by tie) depends only on the seed, the prompt and its candidates.

    Args:
        scores: One row per response.
        rule: One of ``RULES``: a random candidate, or the one with the highest, lowest or middle
            score (for an even number, the upper middle). Scores of `lalp.selection.variants` that
            the table lacks are computed; for ``rsr`` the lowest is chosen.
        window: Context window of ``lalp``, ``lalp-lowest``, ``hybrid``, ``lalp-tail`` and
            ``lalp-casl``; may be left out if the table holds only one. The other rules ignore it.
        seed: For ``random``, as rule and as tie rule.
        tie: Which of equal scores to take: ``first`` (smallest response id, as text),
            ``shortest`` (fewest tokens, then smallest id) or ``random``.
        skip_unscored: Leave out candidates without a score instead of refusing the table.
        weights: Add the column ``weight``: how much each response of a prompt should count in
            training (`lalp.selection.weights`). Later limits do not change it.
        **limits: Fields of `lalp.selection.limits.Limits`: ``where``, ``teachers``, ``min_score``,
            ``per_prompt``, ``quota``, ``top``, ``max_tokens``.

    Returns:
        The chosen rows: prompts in order of first appearance, rows of a prompt in the rule's order.
        ``attrs["left_out"]`` counts the responses and prompts left out, by reason.

    Example:
        >>> from lalp.selection.table import example_scores
        >>> select(example_scores(), "lalp")["response_id"].tolist()
        ['p1', 'q1']
        >>> select(example_scores(), "galp", where="num_tokens < 40", top="50%")["galp"].tolist()
        [-0.4]
    """
    asked = Limits(**limits)
    field = enter(scores, rule, window, seed, tie, skip_unscored, asked)
    if weights and (rule == "random" or field.is_middle):
        raise InputError(f"rule {rule!r} has no best response to weight others by: leave it out")
    how = {"count": asked.per_prompt, "middle": field.is_middle}
    places = table.take(field.scores, field.keep, field.keys, **how)
    chosen = field.scores.iloc[places].reset_index(drop=True)
    if weights:
        prompts = field.scores["prompt_id"]
        chosen["weight"] = margin_weights(prompts, field.keep, field.keys[0], places)
    chosen = table.with_left_out(field.whole, chosen, field.left_out, "prompts without a candidate")
    if not asked.choose_prompts:
        return chosen
    keys = [key[places] for key in field.keys]
    if rule == "random":
        # The smallest of many draws is smaller, so prompts with many candidates would come first.
        keys = [table.draws("order", seed, chosen)]
    order = table.best_first(chosen, keys, middle=field.is_middle)
    kept, beyond = cut(chosen, order, asked)
    counts = chosen.attrs["left_out"] | beyond
    return table.with_counts(chosen[kept].reset_index(drop=True), counts)


@dataclass(frozen=True)
class Field:
    """The responses that enter a choice."""

    whole: pd.DataFrame  # rows of the teachers, regardless of the conditions
    scores: pd.DataFrame  # rows that also meet the conditions
    keep: Bool[np.ndarray, " rows"]  # rows of ``scores`` that may be chosen
    keys: list[np.ndarray]  # sort keys, smallest first
    is_middle: bool  # whether the rule takes from the middle of that order
    left_out: dict[str, int]


def enter(
    scores: pd.DataFrame,
    rule: str,
    window: str | int | Window | None,
    seed: int,
    tie: Tie,
    skip_unscored: bool,
    limits: Limits,
) -> Field:
    """Find which responses may be chosen, and in which order: the first steps of `select`."""
    if tie not in get_args(Tie):
        raise InputError(f"there is no tie rule {tie!r}: {did_you_mean(tie, get_args(Tie))}")
    whole, narrowed = limits.narrow(scores)
    if len(narrowed) < len(scores):
        # Prompts keep the order of the whole table, whichever of their rows are left.
        places = {prompt: place for place, prompt in enumerate(scores["prompt_id"].unique())}
        order = narrowed["prompt_id"].map(places).argsort(kind="stable")
        narrowed = narrowed.iloc[order].reset_index(drop=True)
    if window is None and rule in WINDOWED:
        window = table.only_window(narrowed)
    column = score_column(rule, window)
    if limits.min_score is not None and (column is None or rule in LOWER_IS_BETTER):
        raise InputError(f"min_score goes with a score of which more is better, not with {rule!r}")
    if rule not in _OWN_RULES and rule in RULES and column not in narrowed.columns:
        narrowed = add_variants(narrowed, [rule], window)
    columns = [] if column is None else [column]
    keep, left_out = table.candidates(narrowed, columns, skip_unscored=skip_unscored)
    if unmet := len(whole) - len(narrowed):
        left_out = {"responses that do not meet the conditions": unmet} | left_out
    if column is None:
        keys = [table.draws("rule", seed, narrowed)]
        return Field(whole, narrowed, keep, keys, False, left_out)
    values = table.score_values(narrowed, column)
    if limits.min_score is not None:
        low = keep & (values < limits.min_score)
        keep &= ~low
        left_out |= {"responses below the least score": int(low.sum())} if low.any() else {}
    # `take` chooses the smallest, with response ids after all keys, so no choice stays open.
    keys = [values if rule.endswith("lowest") or rule in LOWER_IS_BETTER else -values]
    if tie == "random":
        keys.append(table.draws("tie", seed, narrowed))
    elif tie == "shortest":
        keys.append(table.score_values(narrowed, "num_tokens"))
    return Field(whole, narrowed, keep, keys, rule.endswith("middle"), left_out)


def of_teacher(scores: pd.DataFrame, teacher: str) -> pd.DataFrame:
    """The rows of one teacher, to select within it (paper, Table 1, 13 and 14)."""
    table.require_columns(scores, ["teacher"])
    rows = scores[scores["teacher"] == teacher].reset_index(drop=True)
    if rows.empty:
        advice = did_you_mean(teacher, sorted(map(str, scores["teacher"].unique())))
        raise InputError(f"teacher {teacher!r} has no response here: {advice}")
    return rows


def select_third(scores: pd.DataFrame, third: str, column: str = GALP) -> pd.DataFrame:
    """The responses in one of ``THIRDS`` of a score's order over prompts (paper, Sec. 4, Table 1).

    ``scores`` hold one response per prompt, usually by one teacher (`of_teacher`). Thirds differ by
    one response at most, and the higher ones are the larger. Equal scores are ordered by response
    id.

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
    # Sorted places keep the table's order within a third.
    places = np.sort(np.array_split(order, len(THIRDS))[THIRDS.index(third)])
    chosen = scores.iloc[places].reset_index(drop=True)
    return table.with_left_out(scores, chosen, left_out, "prompts of other thirds")


def within_tokens(selected: pd.DataFrame, max_tokens: int, *, seed: int = 0) -> pd.DataFrame:
    """A part of a selection that fits into a number of response tokens: the control for length.

    Rules differ in the length of the responses they choose. ``seed`` draws one order of prompts for
    every selection; each prompt that still fits is taken.

    Example:
        >>> from lalp.selection.table import example_scores
        >>> within_tokens(select(example_scores(), "galp"), 25, seed=1)["num_tokens"].tolist()
        [20]
    """
    table.check_selection(selected)
    table.require_columns(selected, ["num_tokens"])
    # The order depends only on prompts, so it is the same for every selection.
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
    """Share of the prompts in both selections for which both choose the same response."""
    for selected in (selected_a, selected_b):
        table.check_selection(selected)
    key = ["prompt_id", "response_id"]
    both = selected_a[key].merge(selected_b[key], on="prompt_id")
    if both.empty:
        raise InputError("the two selections share no prompt: compare selections from one pool")
    return float((both["response_id_x"] == both["response_id_y"]).mean())
