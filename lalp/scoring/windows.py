"""Context windows: how they are written and read. `equations.window_starts` applies them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Literal

from lalp.errors import InputError, likeliest

TokenSpan = tuple[int, int]

# Windows name score columns, so a share has few enough digits to be written out exactly again.
_FORM = re.compile(r"(?P<number>\d{1,9}(?:\.\d{1,9})?)(?P<unit>%|t|)", re.ASCII)


@dataclass(frozen=True)
class Window:
    """How much of the response a step may see before itself (paper, Eq. 3 and Fig. 3).

    ``steps``: the last ``size`` steps; ``fraction``: the share ``size`` of the preceding steps,
    rounded up; ``tokens``: the last ``size`` response tokens.
    """

    kind: Literal["steps", "fraction", "tokens", "all"]
    size: Fraction = Fraction(0)  # steps, share between 0 and 1, or tokens; 0 for ``all``

    def __str__(self) -> str:
        if self.kind == "all":
            return "all"
        if self.kind == "fraction":
            percent = self.size * 100
            return f"{(Decimal(percent.numerator) / percent.denominator).normalize():f}%"
        return f"{self.size}t" if self.kind == "tokens" else str(self.size)


def parse_window(window: str | int | Window) -> Window:
    """Read a window: ``0``, ``4`` (steps), ``25%`` (of earlier steps), ``256t`` (tokens), ``all``.

    Raises:
        InputError: If the text has none of these forms, or a share exceeds 100 %.

    Example:
        >>> str(parse_window("12.50%"))
        '12.5%'
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
    meant = "did you mean 'all'? Give" if likeliest(text, ["all"]) else "give"
    raise InputError(
        f"window {text!r} is not understood: {meant} a number of steps (0, 4), a share of the "
        "preceding steps (25%, at most 100%), a number of tokens (256t), or all; for several, "
        "repeat --window"
    )


def parse_windows(windows: Sequence[str | int | Window]) -> list[Window]:
    """Read one or more windows; InputError if one is malformed or repeated, or none is given."""
    parsed = [parse_window(window) for window in windows]
    if not parsed:
        raise InputError("no window given: name at least one, for example 4")
    repeated = {str(window) for window in parsed if parsed.count(window) > 1}
    if repeated:
        raise InputError(f"window {sorted(repeated)[0]} is given more than once: name it once")
    return parsed
