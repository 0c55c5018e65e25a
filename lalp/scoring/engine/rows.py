"""Rows of tokens that many windows share, and the batches in which they are read.

A row feeds response tokens ``start .. end`` right after the prompt. A step whose context begins at
token ``start`` can be read from that row, whatever the window. So windows share rows: a sweep costs
as much as its largest window, and GALP is the row that begins at token 0.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from lalp.scoring.windows import TokenSpan

# The values that one row reads for its tokens: log-probabilities (nats), ranks (1 is the most
# likely token) and the entropies of the predictions (nats). A value that is not read is NaN. Ranks
# and entropies are read only in the row that begins at token 0.
TokenScores = Float[np.ndarray, "3 pos"]


@dataclass(frozen=True)
class Row:
    """One forward row over response tokens ``[start, end)`` after the prompt.

    ``targets`` are the token spans to read, in order and disjoint; the last one ends at ``end``.
    """

    start: int
    end: int
    targets: tuple[TokenSpan, ...]

    @property
    def num_tokens(self) -> int:
        """The number of response tokens in the row."""
        return self.end - self.start

    @property
    def num_inputs(self) -> int:
        """The number of tokens fed to the model: the last target is predicted, never fed."""
        return self.num_tokens - 1

    @property
    def num_targets(self) -> int:
        """The number of tokens whose log-probability is read."""
        return sum(end - start for start, end in self.targets)


def plan_rows(contexts: Sequence[tuple[int, TokenSpan]]) -> list[Row]:
    """Merge (context start, target span) pairs into one row per context start.

    Spans that share a context start may repeat or overlap, but each token is read once.

    Example:
        >>> plan_rows([(0, (0, 2)), (0, (2, 5)), (3, (4, 6))])
        [Row(start=0, end=5, targets=((0, 5),)), Row(start=3, end=6, targets=((4, 6),))]
    """
    by_start: dict[int, list[TokenSpan]] = {}
    for start, (begin, end) in sorted(set(contexts)):
        targets = by_start.setdefault(start, [])
        if targets and begin <= targets[-1][1]:
            targets[-1] = (targets[-1][0], max(end, targets[-1][1]))
        else:
            targets.append((begin, end))
    return [Row(start, spans[-1][1], tuple(spans)) for start, spans in by_start.items()]


def batch_rows(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Group row indices, longest first, so that each padded batch holds at most ``max_tokens``.

    A row longer than ``max_tokens`` is a batch of its own. The result depends only on the
    arguments, so a resumed run repeats the same arithmetic.
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
    """Group row indices into batches of similar size, a whole number of batches per worker.

    The longest rows come first; each goes into the batch that is smallest so far. Batches hold at
    most ``max_tokens`` on average. A row longer than that may fill a batch by itself.
    """
    number = workers * max(1, math.ceil(sum(lengths) / (workers * max_tokens)))
    sizes = [(0, batch) for batch in range(number)]
    batches: list[list[int]] = [[] for _ in range(number)]
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        size, batch = sizes[0]
        heapq.heapreplace(sizes, (size + lengths[row], batch))
        batches[batch].append(row)
    return [batch for batch in batches if batch]
