"""Compare an answer with a reference: the same value, or values?

A false "correct" puts a wrong solution into a training pool; a missed one only makes the pool
smaller. So an ambiguous text has no answer, and nothing is guessed. Both sides are split into
values (``x=8, y=2 or x=2, y=8``). These are compared one by one: by their units, by their unknowns,
and as formulas that Math-Verify's parser reads.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
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
    same_equation,
    with_imaginary_unit,
)
from lalp.grading.formulas import (
    UnreadableError,
    are_reordered,
    are_words,
    is_read_whole,
    is_unfinished,
    parse_formula,
    spelling,
    split_list,
    split_outside,
    split_sides,
)
from lalp.grading.units import LATEX_SIGNS, same_unit, split_unit, with_dollars, without_unit

_LETTER = rf"(?:[A-Za-z]|\\(?:{WORDS['greek']})(?![a-zA-Z])\s*)"
_NAME = rf"{_LETTER}(?:_(?:\d+|\w|\{{[^{{}}]*\}}|\([^()]*\)))?"
_NAMES = re.compile(
    rf"{_NAME}|[a-zA-Z]'*\((?:[a-z]|-?\d+)\)|\(\s*{_NAME}(?:\s*,\s*{_NAME})*\s*\)"
    r"|(?:m\s*)?\\angle\s*\{?\s*[A-Z]{1,3}\s*\}?|[A-Z]{2}"
)
_NUMBER = re.compile(
    r"([-+]?)(\d+(?:\.\d+)?|[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?|\.\d+)(?:/(\d+))?(\s*\\?%)?"
)
_DECIMAL = re.compile(r"[-+]?[\d,]*\.\d+(?:\s*\\?%)?")
_THOUSANDS = re.compile(r"(?<![\d,.(\[{])([1-9]\d{0,2}(?:,\d{3})+)(?![\d,)\]}])")
_SPACING = re.compile(
    r"(?<!\\)\\(?:(?:left|right|[bB]igg?|displaystyle|limits|q?quad)(?![a-zA-Z])|[,;!: ])"
)
_WORDS = re.compile(r"(?i)(?!infinity$)(?:[a-z]{4,}|yes|no|odd)(?:[ -][a-z]+)*")
# 4.5e33, as in Minerva's references; "2e-1" is twice e, minus 1.
_E_NOTATION = re.compile(
    r"(?<![\w.\\])(?![2-9]e-\d(?!\d))(\d+(?:\.\d*)?|\.\d+)[eE]\+?(-?\d+)(?![\w.])"
)
_REPEATING = re.compile(
    r"(?<![\d,])(\d{0,30})\.(\d{0,30})\\(?:overline|bar)\s*\{?(\d{1,30})\}?(?!\s*\d)"
)
# Angles, segments and the like, named by the points that make them.
_BY_POINTS = re.compile(
    r"\\(angle|triangle|overline|overleftrightarrow|overrightarrow)\s*\{?\s*([A-Z]{2,6})\s*\}?"
)
_RELATION = re.compile(r"\\(?:[lg]eq?(?:slant)?|[lg]t)(?![a-zA-Z])|[<>]=?")
_VAGUE = re.compile(r"\.\.\.|\\mp(?![a-z])|^$")
_MEMBER_OF = re.compile(r"^[\s$({]*[a-zA-Z]\s*(?:\\in(?![a-zA-Z])|∈)")  # x \in [0, 1]
_UNION = r"\\cup(?![a-zA-Z])|\bor\b"
# Commands, functions and called names, which are not unknowns.
_NO_UNKNOWN = re.compile(
    rf"\\(?!(?:{WORDS['greek']})(?![a-zA-Z]))[a-zA-Z]+|(?<![\\a-zA-Z])(?:{WORDS['functions']})(?![a-z])"
    r"|[a-zA-Z](?=\()"
)
# Requested quantities, to the left of their value: "P(A \cup B)", "f(3)", "\sin B", "|S|", an area.
_QUANTITY = re.compile(
    rf"(?:[fghA-Z]'*|[a-z](?=\((?:\d|[A-Z])))\([^()]*(?:\([^()]*\)[^()]*)*\)"
    rf"|\|(?:[^a-z\\|]|\\[a-z]+)*\||\\(?:sin|cos|tan)\s*\(?(?:{_NAME}|\\angle\s*[A-Z]{{1,3}})\)?"
    r"|\\lim(?![a-z]).*|[A-Z]{2,4}|.*\\[bp]?mod(?![a-z]).*"
)
# An interval: its lower end, whether that belongs to it, the same for its upper end, its unknown.
_Range = tuple[str, bool, str, bool, str]
_MAX_VALUES = 100  # an answer with more values is an enumeration, and matching is quadratic


@dataclass(frozen=True)
class _Value:
    """One value, or its components, and the unknowns that they belong to."""

    parts: tuple[str, ...]
    names: tuple[str, ...] = ()


def equivalent(reference: str, answer: str) -> bool:
    """Whether the answer states the same value, or values, as the reference.

    Several values are compared as a set: each of the reference's must match another one of the
    answer's. Values of several unknowns ("x=6, y=5") are compared unknown by unknown in
    alphabetical order; names count if both sides have them. A unit counts if both sides have one. A
    decimal with three or more significant digits matches a constant that rounds to it. An answer
    with an unevaluated sum, product, limit or integral matches only a reference that has one too.

    This may run for very long on hostile input: `grade_answers` sets a time limit.

    Raises:
        UnreadableError: If the answer cannot be read as a mathematical expression.
        ValueError: If the reference cannot.

    Example:
        >>> equivalent("x = 8 or x = 2", "2, 8"), equivalent("1/3", "33.3%")
        (True, True)
        >>> equivalent("5", "x = 5"), equivalent("5", "2x = 5")
        (True, False)
    """
    words, given_words = bare_words(reference), bare_words(answer)
    # LaTeX's text commands show that the reference is not a formula: "\text{yes}", "\textbf{(B)}".
    is_text = re.match(rf"\s*\(?\\(?:{TEXT})\s*\{{", reference) and words.isalpha()
    if CHOICE.fullmatch(words) and (is_text or len(words) == 1):
        chosen = CHOICE.fullmatch(given_words)
        if chosen or is_text:
            return bool(chosen) and chosen[1] == words
    if is_text or _WORDS.fullmatch(words):
        return words.casefold() == given_words.casefold()
    reference, answer = _MEMBER_OF.sub("", reference), _MEMBER_OF.sub("", answer)
    cleaned = _clean(reference), _clean(answer)
    if cleaned[0] == cleaned[1]:
        return True
    if _differ_in_logic(*cleaned):
        return False
    try:
        golds = _values(reference)
        for part in (part for value in golds for part in value.parts):
            _check_reference(part)
    except UnreadableError as error:
        raise ValueError(f"cannot read the reference {reference!r}: {error}") from error
    ranges = [[_range(part) for part in split_outside(text, _UNION)] for text in cleaned]
    # If neither side has a relation, "(1, 2)" may be a point.
    closed = any(text.startswith("[") or text.endswith("]") for text in cleaned)
    if (closed or any(map(_RELATION.search, cleaned))) and not any(None in r for r in ranges):
        return _same_items(*ranges, _same_range)
    return _same_items(golds, _values(answer), _same_value)


def _differ_in_logic(gold: str, answer: str) -> bool:
    """Whether conditions or statements are joined by "or" on one side and by "and" on the other."""
    alternatives = [bool(re.search(_UNION, text)) for text in (gold, answer)]
    if alternatives[0] == alternatives[1]:
        return False
    if _RELATION.search(gold) and _RELATION.search(answer):
        return True
    statements = [all(map(str.isalpha, split_list(text))) for text in (gold, answer)]
    return all(statements) and any(re.search(r"\band\b", text) for text in (gold, answer))


def _check_reference(part: str) -> None:
    """Read one value of a reference if it should be a formula."""
    part = without_unit(part)
    bracketed = _components(part)
    if bracketed:
        for component in bracketed[1]:
            _check_reference(component)
    elif not (number(part) is not None or _in_base(part) or ":" in part) and is_read_whole(part):
        parse_formula(part)


def _same_items(golds: Sequence[Any], given: Sequence[Any], same: Callable[..., bool]) -> bool:
    """Whether each item of ``golds`` is the same as another one of ``given``, in any order."""
    given = list(given)
    if len(golds) != len(given):
        return False
    for gold in golds:
        match = next((i for i, value in enumerate(given) if same(gold, value)), None)
        if match is None:
            return False
        del given[match]
    return True


def split_values(expression: str) -> list[tuple[str, ...]]:
    """Split an expression into its values, each a tuple of one or more components.

    ``x=8, y=2 or x=2, y=8`` and ``(x, y) = (8, 2), (2, 8)`` both give ``[("8", "2"), ("2", "8")]``;
    ``{1, 19}`` gives ``[("1",), ("19",)]``; ``x = ±1`` gives ``[("1",), ("-1",)]``.

    Raises:
        UnreadableError: If a value holds an ellipsis, ∓ or more than one ±, or there are too many.
    """
    return [tuple(map(without_unit, value.parts)) for value in _values(expression)]


def _values(expression: str) -> list[_Value]:
    """The values of `split_values`, with their units and unknowns."""
    values: list[_Value] = []
    named: dict[str, str] = {}  # the values of single unknowns that belong together
    unknowns: list[str] = []  # of "(x, y) = ...", which also holds for the pairs that follow
    text = _clean(expression)
    content = _set_content(text)
    for piece in [*split_list(text if content is None else content), ""]:
        names, value = _named(piece)
        single = bool(names) and not names[0].startswith("(")
        if named and not (single and named.keys().isdisjoint(names)):
            values.append(_by_name(named))
            named = {}
        if single:
            named |= dict.fromkeys(names, value)
        elif piece:
            unknowns = split_list(names[0][1:-1]) if names else unknowns
            values += _tuples(value, unknowns)
    parts = [part for value in values for part in value.parts]
    if not 0 < len(values) <= _MAX_VALUES or any(map(_VAGUE.search, parts)):
        raise UnreadableError(f"{expression!r} does not state explicit values")
    return [signed for value in values for signed in _both_signs(value)]


def _set_content(text: str) -> str | None:
    r"""The content of a set's braces; None for all else, such as the fractional part of x."""
    plain = text.replace(r"\{", "{").replace(r"\}", "}")
    if not plain.startswith("{") or "\\emptyset" in text or not plain.endswith("}"):
        return None
    content = text[1 + text.startswith("\\") : -1].removesuffix("\\")
    is_set = closing_bracket(plain, 0) == len(plain) - 1
    return content if is_set and (len(split_list(content)) > 1 or not _unknowns(content)) else None


def _unknowns(text: str) -> set[str]:
    return set(re.findall(_NAME, _NO_UNKNOWN.sub(" ", text)))


def _components(text: str) -> tuple[str, list[str]] | None:
    """The bracket and the components of a tuple or a set; None for anything else."""
    if (content := _set_content(text)) is not None and text.startswith("\\"):
        return "{", split_list(content)
    if text.startswith("(") and closing_bracket(text, 0) == len(text) - 1:
        parts = split_list(text[1:-1])
        return ("(", parts) if len(parts) > 1 else None
    return None


def _tuples(value: str, unknowns: Sequence[str]) -> list[_Value]:
    """The components of ``(a, b)`` or ``(x=a, y=b)`` as one tuple; else the value alone."""
    bracket, components = _components(value) or ("", [])
    if bracket != "(":
        return [_Value((value,))]
    if all(len(split_sides(part)) > 1 for part in components):
        return _values(", ".join(components))
    if len(components) == len(unknowns):
        return [_by_name(dict(zip(unknowns, components, strict=True)))]
    return [_Value(tuple(components))]


def _clean(expression: str) -> str:
    r"""One spelling for several variants: spacing, dots, ``\pm``, "and", thousands."""
    text = plain_text(expression.replace("**", "^")).translate(LATEX_SIGNS).replace("^^", "^")
    text = re.sub(_E_NOTATION, r"\1 \\cdot 10^{\2}", with_dollars(_peeled(text)))
    text = re.sub(r"(?<=\d)\\,(?=\d{3}(?!\d))", "", text)  # a thin space between thousands
    text = _SPACING.sub(" ", text.replace("$", " "))
    text = re.sub(rf"\\(?:{TEXT})\s*\{{\s*,?\s*(and|or)\s*\}}", r" \1 ", text)
    text = re.sub(r"\\\\\s*\[[^\[\]]*\]", r"\\\\", text)  # the height of a matrix's row
    text = re.sub(r"\\[lcv]?dots[cbo]?(?![a-z])", "...", text.replace("{,}", ","))
    text = re.sub(r"\\pm(?![a-z])|\+/-", "±", text).replace(r"\varnothing", r"\emptyset")
    text = re.sub(r"\\math(?:rm|it)\s*\{([a-zA-Z])\}", r"\1", text)
    text = _spelled_out(text)
    text = _THOUSANDS.sub(lambda match: match[1].replace(",", ""), text).strip()
    text = re.sub(r"(?<!\.)\s*\.$", "", text)
    return NUMBER_WORDS.get(text.casefold(), text)


def _spelled_out(text: str) -> str:
    r"""Add the braces that LaTeX lets people omit, and write repeating decimals as fractions."""
    text = re.sub(r"(\\[dt]?frac)\s*([0-9a-zA-Z])(?![a-zA-Z])", r"\1{\2}", text)
    text = re.sub(r"(\\[dt]?frac\{[^{}]*\})\s*([0-9a-zA-Z])", r"\1{\2}", text)
    text = re.sub(r"(\\log)\s*_\s*([0-9a-zA-Z])\s*", r"\1_{\2} ", text)
    text = re.sub(r"(?<![\w)}!])(\w+!)\s*\^", r"(\1)^", text)
    text = re.sub(r"\\\{\s*\\\}|^\{\s*\}$", r"\\emptyset", text)
    text = re.sub(r"^(-?\d+)\s+(\d+)/(\d+)$", r"\1\\frac{\2}{\3}", text)
    return _REPEATING.sub(_repeating, text)


def _repeating(match: re.Match[str]) -> str:
    """0.1(6) is (16 - 1) / 90."""
    fixed, period = match[1] + match[2], match[3]
    numerator = int(fixed + period) - int(fixed or 0)
    return rf"\frac{{{numerator}}}{{{(10 ** len(period) - 1) * 10 ** len(match[2])}}}"


def _peeled(text: str) -> str:
    """The expression without a box, dollar signs, braces or a font around all of it."""
    text = text.strip()
    while match := re.match(rf"(?:\\(?:{TEXT}|boldsymbol|bm|f?boxed)\s*)?\{{", text):
        if closing_bracket(text, match.end() - 1) != len(text) - 1:
            break
        text = text[match.end() : -1].strip(" $")
    return text


def _range(text: str) -> _Range | None:
    """An interval, or an inequality as one; None for anything else."""
    if bracketed := re.fullmatch(r"([\[(])(.+)([\])])", text):
        ends = split_outside(bracketed[2], ",")
        closed = bracketed[1] == "[", bracketed[3] == "]"
        return (ends[0], closed[0], ends[1], closed[1], "") if len(ends) == 2 else None
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
            return sides[0], closed[0], sides[2], closed[1], sides[1]
        case [True, False]:
            return "-\\infty", False, sides[1], closed[0], sides[0]
        case [False, True]:
            return sides[0], closed[0], "\\infty", False, sides[1]
    return None


def _same_range(gold: _Range, answer: _Range) -> bool:
    def same_end(gold: str, answer: str) -> bool:
        ends = [re.sub(r"[\s+{}]|\\(?=infty)", "", end) for end in (gold, answer)]
        infinite = any("inf" in end for end in ends)
        return ends[0] == ends[1] if infinite else same_expression(gold, answer)

    if gold[4] and answer[4] and gold[4] != answer[4]:
        return False
    return gold[1:4:2] == answer[1:4:2] and all(map(same_end, gold[:4:2], answer[:4:2]))


def _named(piece: str) -> tuple[list[str], str]:
    """Split ``x = y = 0`` into its unknowns and their value; no unknowns if the form differs."""
    *lefts, value = split_sides(piece)
    if len(lefts) == 1 and _NAMES.fullmatch(value) and not _NAMES.fullmatch(lefts[0]):
        lefts, value = [value], lefts[0]  # "5 = x"
    if all(map(_NAMES.fullmatch, lefts)):
        return [spelling(side) for side in lefts], value if lefts else piece
    # "1 + ... + n = 5" states 5 for any sum.
    return [], value if "..." in piece else piece


def _by_name(named: dict[str, str]) -> _Value:
    names = sorted(named, key=str.casefold)
    return _Value(tuple(named[name] for name in names), tuple(names))


def _both_signs(value: _Value) -> list[_Value]:
    """Write a value with ± as two values."""
    signs = sum(part.count("±") for part in value.parts)
    if signs > 1:
        raise UnreadableError(f"{value.parts} has several ±, and their pairing is not stated")
    plus = tuple(re.sub(r"(^|[({=]\s*)±", r"\1", part).replace("±", "+") for part in value.parts)
    minus = tuple(part.replace("±", "-") for part in value.parts)
    return [_Value(parts, value.names) for parts in (plus, minus)] if signs else [value]


def _same_value(gold: _Value, answer: _Value) -> bool:
    if gold.names and answer.names and gold.names != answer.names:
        return False
    if len(gold.parts) != len(answer.parts):
        return False
    if len(gold.parts) > 1:
        return all(map(same_expression, gold.parts, answer.parts))
    is_equation = [len(split_sides(value.parts[0])) > 1 for value in (gold, answer)]
    if gold.names and is_equation[1]:
        # "x = 10/2 = 5" equals "x = 5", and "2x - y = 1" equals "y = 2x - 1", but "2x = 10" is not
        # a solution.
        left = spelling(split_sides(answer.parts[0])[0])
        if (left,) == gold.names:
            return same_expression(gold.parts[0], answer.parts[0])
        if not _unknowns(gold.parts[0]):
            return False
    if is_equation[0] or (gold.names and is_equation[1]):
        return _same_equation(*(" = ".join((*v.names, *v.parts)) for v in (gold, answer)))
    return same_expression(gold.parts[0], answer.parts[0])


def _same_equation(gold: str, answer: str) -> bool:
    """Whether two equations say the same, like ``2x = 4`` and ``x = 2``."""
    if spelling(gold) == spelling(answer):
        return True
    sides = [split_sides(text) for text in (gold, answer)]
    if any(len(pair) != 2 for pair in sides) or not all(map(is_read_whole, (gold, answer))):
        return False
    return same_equation(*(tuple(map(parse_formula, pair)) for pair in sides))


def same_expression(gold: str, answer: str) -> bool:
    """Whether two single expressions are equal; units count if both have one."""
    (gold, unit), (answer, given_unit) = split_unit(gold), split_unit(answer)
    if unit and given_unit and not same_unit(unit, given_unit):
        return False
    if None not in (named := (_points(gold), _points(answer))) or any(named):
        return named[0] == named[1]
    if ":" in gold or ":" in answer:
        return _same_ratio(gold, answer)
    if len(split_sides(gold)) > 1:
        return _same_equation(gold, answer)
    answer = _stated(answer)
    if answer is None:
        return False
    bracketed, given = _components(gold), _components(answer)
    if bracketed and given:
        same = _same_items if bracketed[0] == "{" else _same_in_order
        return bracketed[0] == given[0] and same(bracketed[1], given[1], same_expression)
    if (bases := (_in_base(gold), _in_base(answer))) != (None, None):
        # A reference without a base has base 10; an answer without one has the reference's.
        digits, base = bases[0] or (gold, "10")
        given_digits, given_base = bases[1] or (answer, base)
        return (digits, base) == (given_digits, given_base)
    numbers = number(gold), number(answer)
    if numbers[0] is not None and numbers[1] is not None:
        return rounds_to(numbers[0], answer)
    return spelling(gold) == spelling(answer) or _same_formula(gold, answer)


def _same_in_order(golds: Sequence[str], given: Sequence[str], same: Callable[..., bool]) -> bool:
    return len(golds) == len(given) and all(map(same, golds, given))


def _same_formula(gold: str, answer: str) -> bool:
    """Whether two formulas are equal, as Math-Verify's parser reads them."""
    from math_verify import verify

    if are_words(gold, answer) or are_reordered(gold, answer) or not is_read_whole(gold):
        return False
    answer_expression = parse_formula(answer)
    if not is_read_whole(answer):
        return False
    gold_expression, answer_expression = with_imaginary_unit(parse_formula(gold), answer_expression)
    if is_unfinished(answer_expression) and not is_unfinished(gold_expression):
        return False
    # Only a decimal is rounded: 1 is not 1 + 10^-50.
    is_decimal = _DECIMAL.fullmatch(answer.strip()) is not None
    if is_decimal and rounds_to(rounded_constant(gold_expression), answer):
        return True
    if (same := same_constant(gold_expression, answer_expression)) is not None:
        return same
    if differ_somewhere(gold_expression, answer_expression):
        return False  # avoids the algebra, which is slowest if there is nothing to prove
    if verify(gold_expression, answer_expression, timeout_seconds=None):
        return True
    # Math-Verify compares a bare symbol only by its name, but n + 1 by algebra.
    symbol = getattr(gold_expression, "is_Symbol", False)
    return symbol and verify(gold_expression + 1, answer_expression + 1, timeout_seconds=None)


def _stated(answer: str) -> str | None:
    """The value that an equation states for the requested quantity; None if it is for another one.

    A quantity, or an equal expression, may be to the left of it: "P(A) = 1/2", "2 + 2 = 4".
    """
    *lefts, value = split_sides(answer)
    if lefts and not all((*lefts, value)):
        raise UnreadableError(f"{answer!r} is not one equation")
    if _RELATION.search(answer):
        return None if lefts else answer
    if "≡" in answer:
        return value  # a congruent number is a different one
    for i, left in enumerate(lefts):
        derived = i > 0 and _unknowns(left) and _is_quantity(lefts[0])
        if not (derived or _is_quantity(left) or _is_equal(value, left)):
            return None
    return value


def _is_quantity(text: str) -> bool:
    """Whether a text names a possible request: a name, words, or a formula of several unknowns.

    "2x" and "x^2" are only steps towards x.
    """
    text = text.strip()
    if _NAMES.fullmatch(text) or _QUANTITY.fullmatch(text):
        return True
    words = re.sub(rf"\\(?:{TEXT})\s*\{{([^{{}}]*)\}}", r" \1 ", text).strip()
    if re.fullmatch(r"[A-Za-z][A-Za-z _{}-]*", words) and re.search("[A-Za-z]{3}", words):
        return not re.search(WORDS["denial"], words.casefold())
    return len(_unknowns(text)) > 1 and is_read_whole(text)


def _is_equal(value: str, left: str) -> bool:
    try:
        return same_expression(value, left)
    except UnreadableError:
        return False


def _same_ratio(gold: str, answer: str) -> bool:
    """Whether ``3:4`` and ``6:8`` are equal, or ``3/4``; a time such as ``4:30`` only as it is."""
    sides = [[part.strip() for part in text.split(":")] for text in (gold, answer)]
    if spelling(gold) == spelling(answer):
        return True
    if re.fullmatch(r"\d{1,2}:[0-5]\d(?::[0-5]\d)?", spelling(gold)) or "" in sides[0] + sides[1]:
        return False
    if sorted(map(len, sides)) == [1, 2]:
        quotients = [side[0] if len(side) == 1 else "({})/({})".format(*side) for side in sides]
        return same_expression(*quotients)
    if len(sides[0]) != len(sides[1]):
        return False
    (first, *others), (given_first, *given) = sides
    return all(
        _is_equal(f"({first})*({given_part})", f"({given_first})*({part})")
        for part, given_part in zip(others, given, strict=True)
    )


def _points(text: str) -> tuple[str, ...] | None:
    """The key of an angle, a segment or a ray; None for all else."""
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
    value = number(answer)
    if gold is None or value is None or value == gold:
        return gold is not None and value == gold
    decimal = _DECIMAL.fullmatch(answer.strip()) and re.search(
        r"(\d*)\.(\d+)", answer.replace(",", "")
    )
    if not decimal or len((decimal[1] + decimal[2]).lstrip("0")) < 3:
        return False
    unit = Fraction(1, 10 ** len(decimal[2])) / (100 if "%" in answer else 1)
    return abs(value - gold) <= unit / 2
