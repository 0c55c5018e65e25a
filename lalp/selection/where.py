"""Conditions on the fields of a score table, such as ``correct and level >= 4``.

A condition is a field that holds true or false (``correct``, ``not correct``), or a comparison of a
field with a value: ``==``, ``!=``, ``<``, ``<=``, ``>``, ``>=``. Several are joined by ``and``.
Names and values with spaces need quotes. A missing value meets no condition. Nothing is evaluated
as code.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool

from lalp.errors import InputError, did_you_mean

_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
_TOKEN = re.compile(r"""\s*(?:"([^"]*)"|'([^']*)'|(==|!=|<=|>=|<|>)|([^\s"'<>=!]+))\s*""")
# Kinds of columns, in pandas' words; a column without any value counts as text.
_TEXTS, _NUMBERS = ("string", "empty"), ("integer", "floating", "mixed-integer-float", "decimal")
_TRUTH = {"true": True, "false": False}


@dataclass(frozen=True)
class Condition:
    """``field operator value``; without an operator, whether the field is ``value``: a truth."""

    field: str
    operator: str | None
    value: str | bool

    def __str__(self) -> str:
        if self.operator is None:
            return self.field if self.value else f"not {self.field}"
        return f"{self.field} {self.operator} {self.value}"


def parse_where(text: str) -> list[Condition]:
    """Read conditions that are joined by ``and``.

    Raises:
        InputError: If the text has none of the forms above.

    Example:
        >>> [str(one) for one in parse_where("correct and level >= 4 and source != 'my set'")]
        ['correct', 'level >= 4', 'source != my set']
    """
    parts: list[list[tuple[str, str]]] = [[]]
    for kind, word in _tokens(text):
        if (kind, word) == ("bare", "and"):
            parts.append([])
        else:
            parts[-1].append((kind, word))
    return [_condition(part, text) for part in parts]


def _tokens(text: str) -> list[tuple[str, str]]:
    """Words with what they are: ``quoted``, ``operator`` or ``bare``."""
    found, place = [], 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise _not_understood(text)
        place = match.end()
        double, single, sign, bare = match.groups()
        quoted = single if double is None else double
        if quoted is not None:
            found.append(("quoted", quoted))
        else:
            found.append(("operator", sign) if sign else ("bare", bare))
    return found


def _condition(part: list[tuple[str, str]], text: str) -> Condition:
    kinds = [kind == "operator" for kind, _ in part]
    words = [word for _, word in part]
    if kinds == [False]:
        return Condition(words[0], None, True)
    if kinds == [False, False] and part[0] == ("bare", "not"):
        return Condition(words[1], None, False)
    if kinds == [False, True, False]:
        (_, field), (_, sign), (kind, value) = part
        is_truth = kind == "bare" and value.lower() in _TRUTH
        return Condition(field, sign, _TRUTH[value.lower()] if is_truth else value)
    raise _not_understood(text)


def _not_understood(text: str) -> InputError:
    forms = "correct, not correct, level >= 4, source == 'my set'"
    return InputError(f"condition {text!r} is not understood: give {forms}, joined by and")


def holds(scores: pd.DataFrame, condition: Condition) -> Bool[np.ndarray, " rows"]:
    """Rows that meet a condition.

    Raises:
        InputError: If the table has no such field, or its values cannot be compared in this way.

    Example:
        >>> from lalp.selection.table import example_scores
        >>> holds(example_scores(), parse_where("num_tokens < 30")[0]).tolist()
        [False, True, False, True]
    """
    name = condition.field
    if name not in scores.columns:
        advice = did_you_mean(name, scores.columns)
        raise InputError(f"condition '{condition}': the table has no field {name!r}: {advice}")
    column, sign, value = scores[name], condition.operator, condition.value
    if sign is None or isinstance(value, bool):
        if sign not in (None, "==", "!="):
            raise InputError(f"condition '{condition}': true and false have no order: use ==")
        return _compare(_truths(column, condition), sign or "==", value)
    kind = pd.api.types.infer_dtype(column.astype(object), skipna=True)
    if kind == "boolean":
        raise InputError(f"condition '{condition}': the field holds true or false: write {name}")
    if kind not in (*_TEXTS, *_NUMBERS):
        what = "other things than numbers, or than texts"
        raise InputError(f"condition '{condition}': the field holds {what}: use another field")
    if kind in _TEXTS and sign in ("==", "!="):
        # As an object, because numpy drops NULs at the end of its own texts.
        return _compare(column.astype(object), sign, np.asarray(value, dtype=object))
    return _compare(_numbers(column, condition), sign, _number(value, condition))


def _compare(column: pd.Series, sign: str, value: Any) -> Bool[np.ndarray, " rows"]:
    known = column.notna().to_numpy(dtype=bool)
    found = np.zeros(len(column), dtype=bool)
    found[known] = _OPERATORS[sign](column[known].to_numpy(), value)
    return found


def _truths(column: pd.Series, condition: Condition) -> pd.Series:
    try:
        return column.astype("boolean")
    except (TypeError, ValueError):
        found = f"condition '{condition}': the field does not hold true, false or nothing"
        raise InputError(f"{found}: compare it with a value, as in level >= 4") from None


def _numbers(column: pd.Series, condition: Condition) -> pd.Series:
    try:
        return pd.to_numeric(column).astype("Float64")
    except (TypeError, ValueError):
        found = f"condition '{condition}': the field does not hold numbers"
        raise InputError(f"{found}: compare it by == or !=") from None


def _number(value: str, condition: Condition) -> float:
    try:
        return float(value)
    except ValueError:
        found = f"condition '{condition}': the field holds numbers and {value!r} is none"
        raise InputError(f"{found}: give a number") from None
