"""Which rows of tokens a student reads, so that many windows share them."""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from lalp.scoring.windows import TokenSpan, Window, window_starts
from lalp.students.encoding import Encoded


@dataclass(frozen=True)
class Row:
    """One forward row over response tokens ``[start, end)`` after the prompt.

    Attributes:
        start: First response token of the row.
        end: One past the last token whose log-probability is read.
        targets: Token spans to read, in order and disjoint.
    """

    start: int
    end: int
    targets: tuple[TokenSpan, ...]

    @property
    def num_inputs(self) -> int:
        """Tokens fed to the model: the last target is predicted, never fed."""
        return self.end - self.start - 1

    @property
    def num_targets(self) -> int:
        """Tokens whose log-probability is read."""
        return sum(end - start for start, end in self.targets)


def plan_rows(contexts: Sequence[tuple[int, TokenSpan]]) -> list[Row]:
    """Merge (context start, target span) pairs into one row per context start.

    Spans that share a context start may repeat or overlap: each token is read once.
    """
    by_start: dict[int, set[TokenSpan]] = defaultdict(set)
    for start, span in contexts:
        by_start[start].add(span)
    rows = []
    for start, spans in sorted(by_start.items()):
        targets = _merge_spans(sorted(spans))
        rows.append(Row(start, targets[-1][1], targets))
    return rows


def _merge_spans(spans: Sequence[TokenSpan]) -> tuple[TokenSpan, ...]:
    merged: list[TokenSpan] = []
    for start, end in spans:
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return tuple(merged)


def batch_rows(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Group row indices, longest first, so that each padded batch holds at most ``max_tokens``.

    A row longer than ``max_tokens`` is a batch of its own. The result depends on nothing but the
    arguments, so that a resumed run repeats the same arithmetic.
    """
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    batches: list[list[int]] = []
    for row in order:
        if batches and lengths[batches[-1][0]] * (len(batches[-1]) + 1) <= max_tokens:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def spread_rows(lengths: Sequence[int], max_tokens: int, workers: int) -> list[list[int]]:
    """Group row indices into batches of like size, a whole number of them per worker.

    Longest first, each into the batch that is shortest so far. Batches hold ``max_tokens`` on
    average at most; a row longer than that may fill one by itself.
    """
    number = workers * max(1, math.ceil(sum(lengths) / (workers * max_tokens)))
    sizes = [(0, batch) for batch in range(number)]
    batches: list[list[int]] = [[] for _ in range(number)]
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        size, batch = sizes[0]
        heapq.heapreplace(sizes, (size + lengths[row], batch))
        batches[batch].append(row)
    return [batch for batch in batches if batch]


@dataclass(frozen=True)
class Task:
    """One response to score: its tokens, the token span of each step, and the positions it has.

    Attributes:
        encoded: Prompt and response tokens.
        step_spans: Token span of each step (empty where no token begins in it).
        limit: Longest sequence, prompt included, that the student can read.
    """

    encoded: Encoded
    step_spans: tuple[TokenSpan, ...]
    limit: int

    @property
    def num_tokens(self) -> int:
        """Response tokens ``T``."""
        return len(self.encoded.response_ids)

    def fits(self, start: int, end: int) -> bool:
        """Whether prompt and response tokens ``[start, end)`` fit the student's positions."""
        return len(self.encoded.prompt_ids) + end - start <= self.limit


def plan_response(task: Task, windows: Sequence[Window], *, galp: bool = True) -> list[Row]:
    """Rows that score one response under GALP and every window; what cannot fit is not planned."""
    contexts = [(0, (0, task.num_tokens))] if galp else []
    for window in windows:
        contexts += zip(window_starts(window, task.step_spans), task.step_spans, strict=True)
    return plan_rows(
        [
            (start, span)
            for start, span in contexts
            if span[0] < span[1] and task.fits(start, span[1])
        ]
    )
