"""Plan which tokens are read to score a response, and which scores it cannot have."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from lalp.scoring.columns import GALP, lalp_column
from lalp.scoring.engine.rows import Row, plan_rows
from lalp.scoring.equations import window_starts
from lalp.scoring.groups import Task
from lalp.scoring.windows import TokenSpan, Window
from lalp.students.rotary import Frequencies

_ONE_SET = Frequencies()


@dataclass(frozen=True)
class ResponsePlan:
    """How one response is scored under GALP and every window."""

    # For each score column and step: the first response token that the step sees, and the span of
    # its own tokens (which may contain given tokens). For GALP the whole response is one step.
    contexts: dict[str, list[tuple[int, TokenSpan]]]
    reasons: dict[str, str]  # why a score cannot be computed, by column
    rows: list[Row]  # all other scores are read from these


def plan_response(
    task: Task,
    windows: Sequence[Window],
    *,
    galp: bool = True,
    frequencies: Frequencies = _ONE_SET,
    vocabulary: int = sys.maxsize,
) -> ResponsePlan:
    """Plan the rows for one response; a score that cannot be computed gets a reason.

    ``frequencies`` and ``vocabulary`` are the student's. Steps whose context begins at the same
    token share a row if passes of their lengths get the same rotary frequencies.
    """
    contexts = {GALP: [(0, task.own_span((0, task.num_tokens)))]} if galp else {}
    own_spans = [task.own_span(span) for span in task.step_spans] if task.given else task.step_spans
    for window in windows:
        starts = window_starts(window, task.step_spans)
        contexts[lalp_column(window)] = list(zip(starts, own_spans, strict=True))
    if unreadable := _why_unreadable(task, vocabulary):
        return ResponsePlan(contexts, dict.fromkeys(contexts, unreadable), [])
    reasons = {
        column: reason
        for column, steps in contexts.items()
        if (reason := _why_unscored(task, column, steps))
    }
    alike: dict[tuple[int, ...], list[tuple[int, TokenSpan]]] = {}
    for start, span in (pair for steps in contexts.values() for pair in steps):
        if task.is_readable(start, span):
            length = len(task.encoded.prompt_ids) + span[1] - start
            alike.setdefault(frequencies.of(length), []).append((start, span))
    rows = [row for pairs in alike.values() for row in plan_rows(pairs)]
    return ResponsePlan(contexts, reasons, rows)


def _why_unreadable(task: Task, vocabulary: int) -> str | None:
    """Why a student cannot read any of a response's tokens; None if it can."""
    if not task.encoded.prompt_ids:
        return "the prompt has no tokens: nothing predicts the response's first token"
    for whose in ("prompt", "response"):
        beyond = max(getattr(task.encoded, f"{whose}_ids"), default=-1)
        if beyond >= vocabulary:
            return f"the {whose} has token id {beyond}, the student has {vocabulary} token ids"
    return None


def _why_unscored(task: Task, column: str, contexts: Sequence[tuple[int, TokenSpan]]) -> str | None:
    """Why a score cannot be computed, such as the first step that prevents it; None if it can."""
    prompt = len(task.encoded.prompt_ids)
    if task.encoded.lost:
        return task.encoded.lost
    if not task.num_scored:
        return "the response has no tokens"
    for k, (start, (begin, end)) in enumerate(contexts, 1):
        if begin == end:
            return f"step {k} has no tokens of its own"
        if not task.fits(start, end):
            tokens, positions = prompt + end - start, f"{task.limit} positions"
            if column == GALP:
                return f"{tokens} tokens exceed the student's {positions}"
            return f"step {k} needs {tokens} tokens, the student has {positions}"
    return None
