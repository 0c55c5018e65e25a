"""Settings read from YAML into pydantic dataclasses; every error names file, line and key."""

from __future__ import annotations

from dataclasses import fields
from reprlib import Repr
from typing import TypeVar

import yaml
from pydantic import ConfigDict, ValidationError

from lalp.errors import InputError, did_you_mean, reason

# For records of settings: @dataclass(frozen=True, config=STRICT) of pydantic.dataclasses.
STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

Record = TypeVar("Record")

_UNKNOWN_KEY = ("unexpected_keyword_argument", "extra_forbidden")

# What is shown of a value: a file of ten lines can hold one of a billion parts.
_SHORT = Repr()
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxdict, _SHORT.maxstring = 2, 4, 4, 60


def parse_settings(text: str, where: str, record: type[Record]) -> Record:
    """Read YAML that gives the fields of a pydantic dataclass, and nothing else.

    InputError if it is no such text, a key is unknown, missing or given twice, or a value does not
    fit; ``where`` and the line begin the message.

    Example:
        >>> from pydantic.dataclasses import dataclass
        >>> @dataclass(frozen=True, config=STRICT)
        ... class Sizes:
        ...     width: int
        >>> parse_settings("width: 3", "sizes.yaml", Sizes)
        Sizes(width=3)
        >>> parse_settings("width: three", "sizes.yaml", Sizes)
        Traceback (most recent call last):
        lalp.errors.InputError: sizes.yaml, line 1: key 'width' should be a valid integer...
    """
    try:
        node = yaml.compose(text, yaml.SafeLoader)
        values = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # Besides YAML's own: a date that there is not, a number of too many digits, 5,000 brackets.
        problem, mark = getattr(error, "problem", None), getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark else ""
        raise InputError(f"{where}{place}: not valid YAML: {problem or reason(error)}") from error
    if not isinstance(values, dict):
        raise InputError(f"{where}: expected lines of the form `key: value`")
    lines = {key.value: key.start_mark.line + 1 for key, _ in node.value}
    if len(lines) < len(node.value):
        raise InputError(f"{where}: a key is given twice: keep one")
    try:
        return record(**{str(key): value for key, value in values.items()})
    except ValidationError as error:
        raise InputError(f"{where}{_first_fault(error, lines, record)}") from None


def _first_fault(error: ValidationError, lines: dict[str, int], record: type) -> str:
    """Line, key and what is wrong with it, of the first thing that does not fit."""
    # A misspelt key is missing too, under its right name: the wrong one says more.
    fault = min(error.errors(), key=lambda each: each["type"] not in _UNKNOWN_KEY)
    path = [part for part in fault["loc"] if part != record.__name__]
    key = str(path[0]) if path else ""
    place = f", line {lines[key]}" if key in lines else ""
    if fault["type"] in _UNKNOWN_KEY:
        known = did_you_mean(key, [field.name for field in fields(record)])
        return f"{place}: unknown key {key!r}: {known}"
    if fault["type"] in ("missing", "missing_argument"):
        return f": key {key!r} is missing: add it"
    if fault["type"] == "value_error":  # raised by a validator of ours, in words of its own
        return f"{place}: " + fault["msg"].removeprefix("Value error, ")
    wrong = reason(ValueError(fault["msg"].removeprefix("Input ")))
    number = f", item {path[1] + 1}," if len(path) > 1 and isinstance(path[1], int) else ""
    return f"{place}: key {key!r}{number} {wrong}, not {_SHORT.repr(fault['input'])}"
