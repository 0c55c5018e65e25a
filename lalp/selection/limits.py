"""Limits of a selection: responses per prompt, shares of teachers, the best part, tokens.

They are applied in this order for every rule:

1. ``where`` and ``teachers`` say which responses are considered; scores that depend on the whole
   table (``hybrid``, ``galp-casl``, ``lalp-casl``) are computed on these.
2. ``min_score`` leaves out candidates below it.
3. ``per_prompt`` is the number that the rule takes for each prompt.
4. ``quota`` takes from each teacher as many as the shares allow, best by the rule first.
5. ``top`` keeps the best part of the rest.
6. ``max_tokens`` takes every response that still fits, best first.

The best responses are those that the rule takes first: with the highest score, with the lowest, in
the middle, or in random order. Quotas also hold after 5 and 6, within rounding.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int

from lalp.errors import InputError, did_you_mean
from lalp.selection.table import num_tokens, require_columns
from lalp.selection.where import Condition, holds, parse_where
from lalp.stats import check_count

_SHARE = re.compile(r"(\d{1,3}(?:\.\d{1,20})?)\s*%|([01]?\.\d{1,20}|[01])", re.ASCII)
_PER_TEACHER = "/teacher"
# Shares such as 1/3 are not exact as floats: sums closer to 1 than this count as 1.
_ROUNDING = Fraction(1, 10**9)


def parse_share(share: str | float, what: str) -> Fraction:
    """A share as ``20%`` or ``0.2``; ``what`` names it in the message.

    Example:
        >>> parse_share("12.5%", "top"), parse_share(0.2, "top")
        (Fraction(1, 8), Fraction(1, 5))
    """
    match = _SHARE.fullmatch(str(share).strip())
    value = Fraction(match[1]) / 100 if match and match[1] else Fraction(match[2] if match else -1)
    if not 0 <= value <= 1:
        raise InputError(f"{what} {share!r} is no share: give 20% or 0.2, at most 100%")
    return value


def parse_quotas(texts: Sequence[str]) -> dict[str, str]:
    """Read ``TEACHER=SHARE`` texts from a command line.

    Example:
        >>> parse_quotas(["QwQ-32B=60%", "DeepSeek-R1=0.4"])
        {'QwQ-32B': '60%', 'DeepSeek-R1': '0.4'}
    """
    quotas: dict[str, str] = {}
    for text in texts:
        teacher, sign, share = text.rpartition("=")
        if not (sign and teacher):
            raise InputError(f"quota {text!r} is not understood: give TEACHER=SHARE, as in A=30%")
        if teacher in quotas:
            raise InputError(f"teacher {teacher!r} has two quotas: give one")
        quotas[teacher] = share
    return quotas


@dataclass(frozen=True)
class Limits:
    """Limits of `select`; the defaults allow one response for every prompt.

    Args:
        where: Conditions that all hold, as `lalp.selection.where` reads them.
        teachers: Teachers whose responses may be chosen; all if none is named.
        min_score: Least value of the rule's score, in nats per token (or in the score's unit).
        per_prompt: Number of responses to a prompt.
        quota: Share of the selection by teacher, such as ``{"A": "30%"}``. Teachers without a quota
            share the rest as the rule takes them.
        top: Best part of what earlier limits leave: ``20%`` of all, ``20%/teacher`` of each
            teacher's; rounded up.
        max_tokens: Response tokens of the whole selection, as the student counts them.
    """

    where: str | Sequence[str] = ()
    teachers: str | Sequence[str] = ()
    min_score: float | None = None
    per_prompt: int = 1
    quota: Mapping[str, str | float] = field(default_factory=dict)
    top: str | float | None = None
    max_tokens: int | None = None

    def __post_init__(self) -> None:
        """Refuse invalid limits before any table is read."""
        _ = self.conditions, self.top_share
        check_count("per_prompt", self.per_prompt)
        if self.max_tokens is not None:
            check_count("max_tokens", self.max_tokens)
        if self.min_score is not None and not math.isfinite(self.min_score):
            raise InputError(f"min_score is {self.min_score}: give a number")
        if sum(self.shares.values()) > 1 + _ROUNDING:
            raise InputError("the quotas add up to more than 100 %: give less")

    @property
    def conditions(self) -> list[Condition]:
        """What ``where`` asks for."""
        return [condition for text in _texts(self.where) for condition in parse_where(text)]

    @property
    def shares(self) -> dict[str, Fraction]:
        """``quota`` in numbers."""
        return {t: parse_share(s, f"quota of {t!r},") for t, s in self.quota.items()}

    @property
    def top_share(self) -> Fraction:
        """``top`` in numbers, of all or of each teacher's; 1 without it."""
        if self.top is None:
            return Fraction(1)
        share = parse_share(str(self.top).strip().removesuffix(_PER_TEACHER), "top")
        if not share:
            raise InputError("top is 0 %: give more")
        return share

    @property
    def is_per_teacher(self) -> bool:
        """Whether ``top`` is a part of each teacher's responses."""
        return str(self.top).strip().endswith(_PER_TEACHER)

    @property
    def choose_prompts(self) -> bool:
        """Whether some limit keeps some prompts and drops others because of their choices."""
        return bool(self.quota) or self.top is not None or self.max_tokens is not None

    def narrow(self, scores: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The rows of the teachers, and which of them meet the conditions."""
        require_columns(scores, ["teacher"])
        names = set(map(str, scores["teacher"].unique()))
        for teacher in (*_texts(self.teachers), *self.quota):
            if str(teacher) not in names:
                advice = did_you_mean(teacher, sorted(names))
                raise InputError(f"teacher {teacher!r} has no response here: {advice}")
        if teachers := _texts(self.teachers):
            scores = scores[scores["teacher"].isin(teachers)].reset_index(drop=True)
        met = np.ones(len(scores), dtype=bool)
        for condition in self.conditions:
            met &= holds(scores, condition)
        if len(scores) and not met.any():
            asked = " and ".join(map(str, self.conditions))
            empty = [one.field for one in self.conditions if scores[one.field].isna().all()]
            advice = f"nothing is known of {empty[0]!r}: leave it out" if empty else "ask for less"
            raise InputError(f"no response meets the condition '{asked}': {advice}")
        return scores, scores if met.all() else scores[met].reset_index(drop=True)


def _texts(given: str | Sequence[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def cut(
    chosen: pd.DataFrame, best_first: Int[np.ndarray, " rows"], limits: Limits
) -> tuple[Bool[np.ndarray, " rows"], dict[str, int]]:
    """Which chosen responses the quotas, the top share and the token budget keep.

    Args:
        chosen: Up to ``per_prompt`` responses of each prompt.
        best_first: Their places, in the rule's order over all prompts.
        limits: The limits to apply.

    Returns:
        A mark for each response, and the number that each limit left out.
    """
    order, sizes = list(map(int, best_first)), [len(best_first)]
    teachers = chosen["teacher"].astype(str).tolist()
    groups = [teacher if teacher in limits.quota else None for teacher in teachers]
    shares = _all_shares(teachers, limits)
    if limits.quota:
        order = _fill(order, groups, shares)
    sizes.append(len(order))
    if limits.top is not None:
        order = _top(order, teachers, limits)
        order = _fill(order, groups, shares) if limits.quota else order
    sizes.append(len(order))
    if limits.max_tokens is not None:
        order = _fill(order, groups, shares, num_tokens(chosen).tolist(), limits.max_tokens)
    sizes.append(len(order))
    limit_names = ("quotas", "top share", "token budget")
    lost = zip(limit_names, itertools.pairwise(sizes), strict=True)
    kept = np.zeros(len(chosen), dtype=bool)
    kept[order] = True
    return kept, {f"responses beyond the {name}": a - b for name, (a, b) in lost if a > b}


def _all_shares(teachers: Sequence[str], limits: Limits) -> dict[str | None, Fraction]:
    """Share by teacher; None stands for all teachers without a quota."""
    quotas, there = limits.shares, set(teachers)
    lacking = [teacher for teacher, share in quotas.items() if share and teacher not in there]
    if lacking:
        found = f"teacher {lacking[0]!r} has a quota, and the rule chose no response of it"
        raise InputError(f"{found}: leave the quota out, or choose more per prompt")
    rest = 1 - sum(quotas.values(), Fraction(0))
    if abs(rest) < _ROUNDING:
        rest = Fraction(0)
    if rest and there <= quotas.keys():
        total = f"the quotas add up to {float(1 - rest):.4g}"
        raise InputError(f"{total}, and no other teacher is there for the rest: give 1 in all")
    return {teacher: share for teacher, share in {**quotas, None: rest}.items() if share}


def _top(order: list[int], teachers: Sequence[str], limits: Limits) -> list[int]:
    """The best part of all responses, or of each teacher's."""
    group_of = {row: teachers[row] if limits.is_per_teacher else "" for row in order}
    sizes = Counter(group_of.values())
    room = {group: math.ceil(limits.top_share * size) for group, size in sizes.items()}
    kept = []
    for row in order:
        if room[group_of[row]]:
            room[group_of[row]] -= 1
            kept.append(row)
    return kept


def _fill(
    order: list[int],
    groups: Sequence[str | None],
    shares: Mapping[str | None, Fraction],
    lengths: Sequence[int] | None = None,
    max_tokens: int = 0,
) -> list[int]:
    """Take rows best first so that each group has its share, until the next group has none left.

    After n rows, for every n, a group has its share of n, rounded up or down: the quota method of
    Balinski and Young (1975). With lengths, only rows that still fit are taken.
    """
    queues: dict[str | None, deque[int]] = {group: deque() for group in shares}
    for row in order:
        if groups[row] in queues:  # else its share is 0
            queues[groups[row]].append(row)
    taken: list[int] = []
    counts = dict.fromkeys(queues, 0)
    while True:
        # One more must not exceed the share, rounded up; of these groups, take the one most behind.
        due = [g for g in queues if counts[g] < shares[g] * (len(taken) + 1)]
        group = max(due, key=lambda g: shares[g] / (counts[g] + 1))
        queue = queues[group]
        while queue and lengths is not None and lengths[queue[0]] > max_tokens:
            queue.popleft()  # a row that does not fit now never will
        if not queue:
            return taken
        row = queue.popleft()
        taken.append(row)
        counts[group] += 1
        max_tokens -= lengths[row] if lengths is not None else 0
