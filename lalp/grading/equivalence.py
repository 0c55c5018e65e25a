"""Compare an answer with a reference: the same value, or values?

A false "correct" puts a wrong solution into a training pool, while a missed one only makes the pool
smaller: wherever a text is ambiguous there is no answer, never a guess. Both sides are split into
values (``x=8, y=2 or x=2, y=8``), which Math-Verify compares one by one, the reference first, as
its ``verify`` is not symmetric.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from typing import Any

from lalp.grading.answers import (
    CHOICE,
    NUMBER_WORDS,
    TEXT,
    WORDS,
    bare_words,
    closing_bracket,
    plain_text,
)
from lalp.grading.exact import (
    differ_somewhere,
    rounded_constant,
    same_constant,
    with_imaginary_unit,
)
from lalp.grading.units import DEGREE, LATEX_SIGNS, same_unit, split_unit, without_unit

_CALLS = WORDS["calls"]
_NAME = r"[A-Za-z](?:_(?:\w|\{[^{}]*\}|\([^()]*\)))?"
_NAMES = re.compile(rf"{_NAME}|[a-zA-Z]\([a-z]\)|\(\s*{_NAME}(?:\s*,\s*{_NAME})*\s*\)")
_NUMBER = re.compile(r"([-+]?)(\d+(?:\.\d+)?|\d{1,3}(?:,\d{3})+(?:\.\d+)?|\.\d+)(?:/(\d+))?(\\?%)?")
_THOUSANDS = re.compile(r"(?<![\d,.(\[{])(\d{1,3}(?:,\d{3})+)(?![\d,)\]}])")
_SPACING = re.compile(
    r"(?<!\\)\\(?:(?:left|right|[bB]igg?|displaystyle|limits|q?quad)(?![a-zA-Z])|[,;!: ])"
)
_WORDS = re.compile(r"(?i)(?!infinity$)(?:[a-z]{4,}|yes|no|odd)(?:[ -][a-z]+)*")
# 4.5e33, as in Minerva's references.
_E_NOTATION = re.compile(r"(?<![\w.\\])(\d+(?:\.\d*)?|\.\d+)[eE]\+?(-?\d+)(?![\w.])")
_REPEATING = re.compile(r"(?<![\d,])(\d{0,30})\.(\d{0,30})\\(?:overline|bar)\s*\{?(\d{1,30})\}?")
# Angles, segments and the like, named by the points that make them.
_BY_POINTS = re.compile(
    r"\\(angle|triangle|overline|overleftrightarrow|overrightarrow)\s*\{?\s*([A-Z]{2,6})\s*\}?"
)
_RELATION = re.compile(r"\\(?:[lg]eq?(?:slant)?|[lg]t)(?![a-zA-Z])|[<>]=?")
_VAGUE = re.compile(r"\.\.\.|\\mp(?![a-z])|^$")
_MEMBER_OF = re.compile(r"^[\s$({]*[a-zA-Z]\s*(?:\\in(?![a-zA-Z])|∈)")  # x \in [0, 1]
_UNION = r"\\cup(?![a-zA-Z])|\bor\b"
# An interval: its lower end, whether that belongs to it, and the same of its upper end.
_Range = tuple[str, bool, str, bool]
_MAX_VALUES = 100  # an answer with more values is an enumeration, and matching is quadratic


class UnreadableError(ValueError):
    """An expression cannot be read without guessing."""


def equivalent(reference: str, answer: str) -> bool:
    """Whether the answer states the same value, or values, as the reference.

    Several values are compared as a set: each of the reference's must match another one of the
    answer's. Values of several unknowns ("x=6, y=5") are compared unknown by unknown in
    alphabetical order; the name of a single one is dropped. A decimal with three or more
    significant digits matches a constant that rounds to it. An answer that leaves a sum, product,
    limit or integral to be carried out matches only a reference that does so too.

    This may run for very long on hostile input: `grade_answers` sets a time limit.

    Raises:
        UnreadableError: If the answer cannot be read as a mathematical expression.
        ValueError: If the reference cannot.

    Example:
        >>> equivalent("x = 8 or x = 2", "2, 8"), equivalent("1/3", "33.3%")
        (True, True)
    """
    words, given_words = bare_words(reference), bare_words(answer)
    # As LaTeX's text commands say, the reference is no formula: "\text{yes}", "\textbf{(B)}".
    is_text = re.match(rf"\s*\(?\\(?:{TEXT})\s*\{{", reference) and words.isalpha()
    if CHOICE.fullmatch(words) and (is_text or len(words) == 1):
        chosen = CHOICE.fullmatch(given_words)
        if chosen or is_text:
            return bool(chosen) and chosen[1] == words
    if is_text or _WORDS.fullmatch(words):
        return words.casefold() == given_words.casefold()
    (value, unit), (given_value, given_unit) = split_unit(reference), split_unit(answer)
    # Without a unit on one side, only the numbers are compared.
    if unit and given_unit:
        if not same_unit(unit, given_unit):
            return False
        reference, answer = value, given_value
    if _marks(reference) != _marks(answer):
        return False
    reference, answer = _MEMBER_OF.sub("", reference), _MEMBER_OF.sub("", answer)
    cleaned = _clean(reference), _clean(answer)
    if cleaned[0] == cleaned[1]:
        return True
    try:
        golds = split_values(reference)
        for part in (part for value in golds for part in value):
            if number(part) is None and _in_base(part) is None:
                _parse(part)
    except UnreadableError as error:
        raise ValueError(f"cannot read the reference {reference!r}: {error}") from error
    ranges = [[_range(part) for part in _split_outside(text, _UNION)] for text in cleaned]
    # Without a relation on either side, "(1, 2)" may be a point.
    closed = any(text.startswith("[") or text.endswith("]") for text in cleaned)
    if (closed or any(map(_RELATION.search, cleaned))) and not any(None in r for r in ranges):
        return _same_items(*ranges, _same_range)
    return _same_items(golds, split_values(answer), _same_value)


def _marks(text: str) -> list[int]:
    """How many primes and double primes a text has: Math-Verify drops them."""
    text = plain_text(re.sub(r"\^\s*\{?\s*\\prime\s*\}?|\\prime", "'", text))
    return [text.count("'") + 2 * text.count('"'), text.count('"')]


def _same_items(golds: Sequence[Any], given: Sequence[Any], same: Callable[..., bool]) -> bool:
    """Whether each item of ``golds`` is the same as another one of ``given``, in any order."""
    given = list(given)
    if len(golds) != len(given):
        return False
    for gold in golds:
        match = next((value for value in given if same(gold, value)), None)
        if match is None:
            return False
        given.remove(match)
    return True


def split_values(expression: str) -> list[tuple[str, ...]]:
    """Split an expression into its values, each a tuple of one or more components.

    ``x=8, y=2 or x=2, y=8`` and ``(x, y) = (8, 2), (2, 8)`` both give ``[("8", "2"), ("2", "8")]``;
    ``{1, 19}`` gives ``[("1",), ("19",)]``; ``x = ±1`` gives ``[("1",), ("-1",)]``.

    Raises:
        UnreadableError: If a value holds an ellipsis, ∓ or more than one ±, or there are too many.
    """
    values: list[tuple[str, ...]] = []
    named: dict[str, str] = {}  # the values of single unknowns that belong together
    unknowns: list[str] = []  # of "(x, y) = ...", which also holds for the pairs that follow
    text = _clean(expression).replace(r"\{", "{").replace(r"\}", "}")
    is_set = (
        text.startswith("{")
        and "\\emptyset" not in text
        and closing_bracket(text, 0) == len(text) - 1
    )
    for piece in [*_pieces(text[1:-1] if is_set else text), ""]:
        names, value = _named(piece)
        single = bool(names) and not names[0].startswith("(")
        if named and not (single and named.keys().isdisjoint(names)):
            values.append(_by_name(named))
            named = {}
        if single:
            named |= dict.fromkeys(names, value)
        elif piece:
            unknowns = _pieces(names[0][1:-1]) if names else unknowns
            values += _tuples(value, unknowns)
    if not 0 < len(values) <= _MAX_VALUES or any(_VAGUE.search(part) for v in values for part in v):
        raise UnreadableError(f"{expression!r} does not state explicit values")
    values = [tuple(map(without_unit, value)) for value in values]
    return [signed for value in values for signed in _both_signs(value)]


def _tuples(value: str, unknowns: Sequence[str]) -> list[tuple[str, ...]]:
    """The components of ``(a, b)`` or ``(x=a, y=b)`` as one tuple; else the value on its own."""
    bracketed = value.startswith("(") and closing_bracket(value, 0) == len(value) - 1
    components = _pieces(value[1:-1]) if bracketed else []
    if len(components) < 2:
        return [(value,)]
    if all(len(_sides(part)) > 1 for part in components):
        return split_values(", ".join(components))
    if len(components) == len(unknowns):
        return [_by_name(dict(zip(unknowns, components, strict=True)))]
    return [tuple(components)]


def _clean(expression: str) -> str:
    r"""One spelling for what is written in many: spacing, dots, ``\pm``, "and", thousands."""
    text = plain_text(expression.replace("**", "^")).translate(LATEX_SIGNS).replace("^^", "^")
    text = re.sub(_E_NOTATION, r"\1 \\cdot 10^{\2}", _peeled(text))
    text = re.sub(r"(?<=\d)\\,(?=\d{3}(?!\d))", "", text)  # a thin space between thousands
    text = _SPACING.sub(" ", text.replace("$", " "))
    text = re.sub(rf"\\(?:{TEXT})\s*\{{\s*,?\s*(and|or)\s*\}}", r" \1 ", text)
    text = re.sub(r"\\\\\s*\[[^\[\]]*\]", r"\\\\", text)  # the height of a matrix's row
    text = re.sub(r"\\[lcv]?dots[cbo]?(?![a-z])", "...", text.replace("{,}", ","))
    text = re.sub(r"\\pm(?![a-z])|\+/-", "±", text).replace(r"\varnothing", r"\emptyset")
    text = _spelled_out(text)
    text = _THOUSANDS.sub(lambda match: match[1].replace(",", ""), text).strip().rstrip(" .")
    return NUMBER_WORDS.get(text.casefold(), text)


def _spelled_out(text: str) -> str:
    r"""Braces where LaTeX lets them be left out, and repeating decimals as fractions."""
    text = re.sub(r"(\\[dt]?frac)\s*([0-9a-zA-Z])(?![a-zA-Z])", r"\1{\2}", text)
    text = re.sub(r"(\\[dt]?frac\{[^{}]*\})\s*([0-9a-zA-Z])", r"\1{\2}", text)
    text = re.sub(r"(\\log)\s*_\s*([0-9a-zA-Z])\s*", r"\1_{\2} ", text)
    text = re.sub(r"(?<![\w)}!])(\w+!)\s*\^", r"(\1)^", text)
    text = re.sub(r"\\\{\s*\\\}|^\{\s*\}$", r"\\emptyset", text)
    return _REPEATING.sub(_repeating, text)


def _repeating(match: re.Match[str]) -> str:
    """0.1(6) is (16 - 1) / 90."""
    fixed, period = match[1] + match[2], match[3]
    numerator = int(fixed + period) - int(fixed or 0)
    return rf"\frac{{{numerator}}}{{{(10 ** len(period) - 1) * 10 ** len(match[2])}}}"


def _peeled(text: str) -> str:
    """The content of a box, dollar signs, braces or a font around the whole expression."""
    text = text.strip()
    while match := re.match(rf"(?:\\(?:{TEXT}|boldsymbol|bm|f?boxed)\s*)?\{{", text):
        if closing_bracket(text, match.end() - 1) != len(text) - 1:
            break
        text = text[match.end() : -1].strip(" $")
    return text


def _range(text: str) -> _Range | None:
    """An interval, or an inequality as one; None for anything else."""
    if bracketed := re.fullmatch(r"([\[(])(.+)([\])])", text):
        ends = _split_outside(bracketed[2], ",")
        closed = bracketed[1] == "[", bracketed[3] == "]"
        return (ends[0], closed[0], ends[1], closed[1]) if len(ends) == 2 else None
    sides = [side.strip() for side in _RELATION.split(text)]
    relations = [re.sub(r"\\", "", sign) for sign in _RELATION.findall(text)]
    if relations and all(sign[0] in ">g" for sign in relations):
        sides, relations = sides[::-1], relations[::-1]
    elif not relations or any(sign[0] in ">g" for sign in relations):
        return None
    closed = ["e" in sign or "=" in sign for sign in relations]
    named = [bool(re.fullmatch(_NAME, side)) for side in sides]
    match named:
        case [False, True, False]:
            return sides[0], closed[0], sides[2], closed[1]
        case [True, False]:
            return "-\\infty", False, sides[1], closed[0]
        case [False, True]:
            return sides[0], closed[0], "\\infty", False
    return None


def _same_range(gold: _Range, answer: _Range) -> bool:
    def same_end(gold: str, answer: str) -> bool:
        ends = [re.sub(r"[\s+{}]|\\(?=infty)", "", end) for end in (gold, answer)]
        infinite = any("inf" in end for end in ends)
        return ends[0] == ends[1] if infinite else same_expression(gold, answer)

    return gold[1::2] == answer[1::2] and all(map(same_end, gold[::2], answer[::2]))


def _split_outside(text: str, separator: str) -> list[str]:
    """Split at the separators that stand outside all brackets, and strip the parts."""
    parts, depth, start = [], 0, 0
    for match in re.finditer(rf"[(\[{{]|[)\]}}]|{separator}", text):
        if match[0] in ("(", "[", "{"):
            depth += 1
        elif match[0] in (")", "]", "}"):
            depth -= 1
        elif depth == 0:
            parts.append(text[start : match.start()])
            start = match.end()
    return [part.strip() for part in (*parts, text[start:])]


def _pieces(text: str) -> list[str]:
    """The parts of a list with commas, semicolons, "and" or "or"."""
    return [piece for piece in _split_outside(text, r"[,;]|\b(?:and|or)\b") if piece]


def _sides(text: str) -> list[str]:
    """The sides of an equation or a chain of equations."""
    return _split_outside(text, r"(?<![<>!:\\])=")


def _named(piece: str) -> tuple[list[str], str]:
    """Split ``x = y = 0`` into its unknowns and their value; no unknowns if it has another form."""
    *lefts, value = _sides(piece)
    if all(map(_NAMES.fullmatch, lefts)):
        return [re.sub(r"\s", "", side) for side in lefts], value if lefts else piece
    # "1 + ... + n = 5" states 5, whatever the sum.
    return [], value if "..." in piece else piece


def _by_name(named: dict[str, str]) -> tuple[str, ...]:
    return tuple(named[name] for name in sorted(named))


def _both_signs(value: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Write a value with ± as two values."""
    signs = sum(part.count("±") for part in value)
    if signs > 1:
        raise UnreadableError(f"{value} has several ±, and their pairing is not stated")
    plus = tuple(re.sub(r"(^|[({=]\s*)±", r"\1", part).replace("±", "+") for part in value)
    return [plus, tuple(part.replace("±", "-") for part in value)] if signs else [value]


def _same_value(gold: tuple[str, ...], answer: tuple[str, ...]) -> bool:
    return len(gold) == len(answer) and all(map(same_expression, gold, answer))


def same_expression(gold: str, answer: str) -> bool:
    """Whether two single expressions are equal."""
    if None not in (named := (_points(gold), _points(answer))) or any(named):
        return named[0] == named[1]
    if len(_sides(gold)) == 1:
        answer = _sides(answer)[-1]
    if (bases := (_in_base(gold), _in_base(answer))) != (None, None):
        # A reference without a base has base 10; an answer without one has the reference's.
        digits, base = bases[0] or (gold, "10")
        given_digits, given_base = bases[1] or (answer, base)
        return (digits, base) == (given_digits, given_base)
    numbers = number(gold), number(answer)
    if numbers[0] is not None and numbers[1] is not None:
        return rounds_to(numbers[0], answer)
    from math_verify import verify

    gold_expression, answer_expression = with_imaginary_unit(_parse(gold), _parse(answer))
    if _unfinished(answer_expression) and not _unfinished(gold_expression):
        return False
    # Only a decimal is rounded: 1 is not 1 + 10^-50.
    is_decimal = numbers[1] is not None and "." in answer
    if is_decimal and rounds_to(rounded_constant(gold_expression), answer):
        return True
    if (same := same_constant(gold_expression, answer_expression)) is not None:
        return same
    if differ_somewhere(gold_expression, answer_expression):
        return False  # spares the algebra, which takes longest where there is nothing to prove
    if verify(gold_expression, answer_expression, timeout_seconds=None):
        return True
    # Math-Verify compares a bare symbol by its name alone; n + 1 it compares by algebra.
    symbol = getattr(gold_expression, "is_Symbol", False)
    return symbol and verify(gold_expression + 1, answer_expression + 1, timeout_seconds=None)


def _points(text: str) -> tuple[str, ...] | None:
    """What an angle, a segment or a ray is known by; None for all else."""
    match = _BY_POINTS.fullmatch(text.strip())
    if match is None:
        return None
    kind, points = match.groups()
    free = kind != "overrightarrow"  # "AB" and "BA" are one segment, and "ABC" and "CBA" one angle
    return kind, min(points, points[::-1]) if free else points


def _in_base(text: str) -> tuple[str, str] | None:
    """Digits and base of a number such as ``2516_8``; None without a base."""
    match = re.fullmatch(r"(\d[\dA-F]*)\s*_\s*(\d|\{.*\})", text.strip())
    if match is None:
        return None
    base = bare_words(match[2][1:-1] or match[2])
    return match[1], NUMBER_WORDS.get(base, base)


def number(text: str) -> Fraction | None:
    r"""The value of an integer, decimal, fraction or percentage; None for anything else."""
    text = re.sub(r"\s*([-+/])\s*", r"\1", text.strip())
    text = re.sub(r"^([-+]?)\\[dt]?frac\{(\d+)\}\{(\d+)\}$", r"\1\2/\3", text)
    match = _NUMBER.fullmatch(text)
    if not match or (match[3] and int(match[3]) == 0):
        return None
    value = Fraction(match[2].replace(",", "")) / int(match[3] or 1) / (100 if match[4] else 1)
    return -value if match[1] == "-" else value


def rounds_to(gold: Fraction | None, answer: str) -> bool:
    """Whether the number ``answer`` is ``gold``, or a decimal of three digits that it rounds to."""
    value, decimal = number(answer), re.search(r"(\d*)\.(\d+)", answer.replace(",", ""))
    if gold is None or value is None or value == gold:
        return gold is not None and value == gold
    if decimal is None or len((decimal[1] + decimal[2]).lstrip("0")) < 3:
        return False
    unit = Fraction(1, 10 ** len(decimal[2])) / (100 if "%" in answer else 1)
    return abs(value - gold) <= unit / 2


@lru_cache(maxsize=4096)
def _parse(text: str) -> Any:
    """The sympy expression that Math-Verify reads in ``text``."""
    from math_verify import LatexExtractionConfig, parse
    from sympy import Eq

    normalization = replace(LatexExtractionConfig().normalization_config, units=False)
    # Degrees that are no unit of the whole, as in "\\sin 30^\\circ".
    latex = re.sub(rf"(\d+(?:\.\d+)?)\s*{DEGREE}", r"(\\frac{\1\\pi}{180})", to_latex(text))
    # "2 3" would be read as 2 + 3, "n!!" as (n!)!, and "a^b^c" as (a^b)^c.
    # Of "12_8" the base would be dropped.
    unreadable = r"\d\s+\d|!\s*!|\^\{[^{}]*\}\s*\^|^\s*[*/^]|[-+*/^=]\s*$|(?<![a-zA-Z_{])\d+\s*_"
    if re.search(unreadable, latex):
        raise UnreadableError(f"{text!r} is not one expression")
    # Math-Verify takes "3s" for 3 seconds; units are dropped before.
    config = [LatexExtractionConfig(normalization_config=normalization)]
    found = parse(f"${latex}$", config, fallback_mode="no_fallback", parsing_timeout=None)
    # An equation that is true or false by itself is refused: all false ones would be equal.
    if len(found) != 1 or (
        isinstance(found[0], Eq)
        and (not found[0].free_symbols or any(map(_unfinished, (found[0].lhs, found[0].rhs))))
    ):
        raise UnreadableError(f"{text!r} is not a mathematical expression")
    return found[0]


def to_latex(text: str) -> str:
    r"""Write plain formulas as LaTeX; LaTeX stays as it is.

    Example:
        >>> print(to_latex("C(n, 2) + sqrt(2)"))
        \binom{n}{2} + \sqrt{2}
    """
    text = re.sub(r"(?<![\\a-zA-Z])infinity(?![a-z])", r"\\infty ", text).replace("*", r" \cdot ")
    words = "pi|ln|log|sin|cos|tan|exp|max|min|gcd|sum(?=_)"
    text = re.sub(rf"(?<![\\a-zA-Z])({words})(?![a-zA-Z])", r"\\\1 ", text)
    text = text.replace(r"\sum _", r"\sum_")
    text = re.sub(r"(?<![\\a-zA-Z])sqrt\s*(\d+|[a-z]\b)", r"\\sqrt{\1}", text)
    text = re.sub(r"\^\s*(-?\d+|-[a-z]\b)", r"^{\1}", re.sub(r"(?<!\\)%", r"\\%", text))
    call = re.compile(r"(?<![\\a-zA-Z])(C|binom|sqrt|floor|ceil)\s*\(|([_^])\s*\(")
    position = 0
    while match := call.search(text, position):
        end = closing_bracket(text, match.end() - 1)
        inner = text[match.end() : end]
        position = match.start() + 1
        if end is None:
            continue
        name, arguments = match[1] or match[2], _pieces(inner)
        if name in _CALLS:
            written = _CALLS[name] % inner
        elif len(arguments) == 2:
            written = rf"\binom{{{arguments[0]}}}{{{arguments[1]}}}"
        else:
            continue
        power = text[: match.start()].endswith("^")
        text = text[: match.start()] + (f"{{{written}}}" if power else written) + text[end + 1 :]
    return text.strip()


def _unfinished(expression: Any) -> bool:
    """Whether a sum, product, integral, limit or derivative is left to be carried out."""
    from sympy import Basic, Derivative, Integral, Limit, Product, Sum

    parts = (Sum, Product, Integral, Limit, Derivative)
    return isinstance(expression, Basic) and expression.has(*parts)
