"""Context windows and the plan of forward rows that scores many windows at once.

A row feeds response tokens ``start .. end`` right after the prompt. Whatever the window, a step
whose context begins at token ``start`` can be read off that row, so rows are shared between
windows: a sweep costs as much as its largest window, and GALP is the row that begins at token 0.
"""

from __future__ import annotations

import heapq
import math
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Literal

from lalp.records import InputError

TokenSpan = tuple[int, int]

# Few enough digits for every share to be written out exactly again: windows name score columns.
_FORM = re.compile(r"(?P<number>\d{1,9}(?:\.\d{1,9})?)(?P<unit>%|t|)", re.ASCII)


@dataclass(frozen=True)
class Window:
    """How much of the response a step may see before itself (paper, Eq. 3 and Fig. 3).

    Attributes:
        kind: ``steps`` (the last ``size`` steps), ``fraction`` (that share of the preceding
            steps, rounded up), ``tokens`` (the last ``size`` response tokens) or ``all``.
        size: Steps, share between 0 and 1, or tokens; 0 for ``all``.
    """

    kind: Literal["steps", "fraction", "tokens", "all"]
    size: Fraction = Fraction(0)

    def __str__(self) -> str:
        if self.kind == "all":
            return "all"
        if self.kind == "fraction":
            percent = self.size * 100
            return f"{(Decimal(percent.numerator) / percent.denominator).normalize():f}%"
        return f"{self.size}t" if self.kind == "tokens" else str(self.size)


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


def parse_window(window: str | int | Window) -> Window:
    """Read a window: ``0``, ``4`` (steps), ``25%`` (of those before), ``256t`` (tokens), ``all``.

    Raises:
        InputError: If the text is none of these forms, or a share exceeds 100 %.
    """
    if isinstance(window, Window):
        return window
    text = str(window).strip()
    if text == "all":
        return Window("all")
    match = _FORM.fullmatch(text)
    number = Fraction(match["number"]) if match else Fraction(0)
    if match and match["unit"] == "%" and number <= 100:
        return Window("fraction", number / 100)
    if match and match["unit"] != "%" and number.denominator == 1:
        return Window("tokens" if match["unit"] else "steps", number)
    raise InputError(
        f"window {text!r} is not understood: give a number of steps (0, 4), a share of the "
        "preceding steps (25%, at most 100%), a number of tokens (256t), or all"
    )


def parse_windows(windows: Sequence[str | int | Window]) -> list[Window]:
    """Read several windows; the same one twice is refused.

    Raises:
        InputError: If there is none, or one is repeated or malformed.
    """
    parsed = [parse_window(window) for window in windows]
    if not parsed:
        raise InputError("no window given: name at least one, for example 4")
    repeated = {str(window) for window in parsed if parsed.count(window) > 1}
    if repeated:
        raise InputError(f"window {sorted(repeated)[0]} is given more than once: name it once")
    return parsed


def window_starts(window: Window, step_spans: Sequence[TokenSpan]) -> list[int]:
    """First response token that each step sees (paper, Eq. 3: ``s_max(1, k-w)``)."""
    if window.kind == "tokens":
        return [max(0, start - int(window.size)) for start, _ in step_spans]
    return [step_spans[k - _steps_before(window, k)][0] for k in range(len(step_spans))]


def _steps_before(window: Window, preceding: int) -> int:
    """Number of steps that a step with ``preceding`` steps before it sees."""
    if window.kind == "steps":
        return min(int(window.size), preceding)
    # Fractions are exact, so ceil(7 % of 100 steps) is 7 and not 8 as with floats.
    share = Fraction(1) if window.kind == "all" else window.size
    return math.ceil(share * preceding)


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
