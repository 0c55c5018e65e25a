r"""Read formulas with Math-Verify's parser, and tell which ones it reads completely.

That parser drops what it does not know: it reads ``A^T``, ``\gcd(a, b)`` and ``x^\circ`` as ``A``,
``1`` and ``x``. Such formulas are equal only if they have the same spelling.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache
from typing import Any

from lalp.grading.answers import WORDS, closing_bracket
from lalp.grading.units import DEGREE

_CALLS = WORDS["calls"]
_COMMAND = re.compile(r"\\([a-zA-Z]+)")
_KEPT = frozenset(WORDS["kept_commands"].split("|"))
_LOST = re.compile("|".join(WORDS["lost_in_parsing"]))
_LONG_WORD = re.compile(rf"(?<![\\a-zA-Z])(?!(?:{WORDS['functions']})(?![a-z]))[a-zA-Z]{{4,}}")
_LETTERS = re.compile(r"[a-zA-Z]{2,}")
_CAPITALS = re.compile(r"(?<![\\a-zA-Z])[A-Z]{2,}(?![a-z])")


class UnreadableError(ValueError):
    """An expression cannot be read without guessing."""


def split_outside(text: str, separator: str) -> list[str]:
    """Split at the separators outside all brackets, and strip the parts."""
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


def split_list(text: str) -> list[str]:
    """The parts of a list with commas, semicolons, "and" or "or"."""
    return [piece for piece in split_outside(text, r"[,;]|\b(?:and|or)\b") if piece]


def split_sides(text: str) -> list[str]:
    """The sides of an equation or a chain of equations, or congruences."""
    return split_outside(text, r"(?<![<>!:\\])=|≡")


def is_read_whole(text: str) -> bool:
    r"""Whether Math-Verify's parser keeps the whole meaning of a formula.

    Example:
        >>> is_read_whole(r"\frac{x^2}{2}"), is_read_whole("x^T"), is_read_whole(r"\vec{x}")
        (True, False, False)
    """
    text = re.sub(rf"(?<=\d)\s*{DEGREE}", "", text)
    text = re.sub(r"\\(?:begin|end)\{[bpvB]?matrix\}", "", text)
    unknown = any(name not in _KEPT for name in _COMMAND.findall(to_latex(text)))
    return text.isascii() and not (unknown or _LOST.search(text) or _LONG_WORD.search(text))


def spelling(text: str) -> str:
    r"""A formula without spaces and without redundant braces: ``x_{1}`` is ``x_1``."""
    text = re.sub(r"(\\[a-zA-Z]+)\s+([a-zA-Z0-9])(?![a-zA-Z0-9])", r"\1{\2}", text)
    text = re.sub(r"([_^])\s*\{\s*([a-zA-Z0-9])\s*\}", r"\1\2", text)
    return re.sub(r"(?<!\d) | (?!\d)", "", re.sub(r"\s+", " ", text))


def are_words(gold: str, answer: str) -> bool:
    """Whether letters are a name or a word, not a product: their order and case count.

    Example:
        >>> are_words("IV", "VI"), are_words("cat", "act"), are_words("ab", "ba")
        (True, True, False)
    """
    sides = [re.sub(r"\s", "", text) for text in (gold, answer)]
    words = [side for side in sides if _LETTERS.fullmatch(side)]
    capitals = any(word != word.lower() for word in words)
    return capitals or (len(words) == 2 and max(map(len, words)) > 2)


def are_reordered(gold: str, answer: str) -> bool:
    """Whether two formulas hold the same capitals in a different order: points, or matrices."""
    runs = [sorted(_CAPITALS.findall(text)) for text in (gold, answer)]
    return runs[0] != runs[1] and sorted(map(sorted, runs[0])) == sorted(map(sorted, runs[1]))


@lru_cache(maxsize=4096)
def parse_formula(text: str) -> Any:
    """The sympy expression that Math-Verify's parser reads in ``text``; names are case-sensitive.

    Raises:
        UnreadableError: If the text is not one expression.
    """
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig, latex2sympy, normalize_latex
    from math_verify import LatexExtractionConfig
    from math_verify.grader import should_treat_as_complex
    from sympy import Eq

    normalization = replace(LatexExtractionConfig().normalization_config, units=False)
    # Degrees that are not a unit of the whole, as in "\\sin 30^\\circ".
    latex = re.sub(rf"(\d+(?:\.\d+)?)\s*{DEGREE}", r"(\\frac{\1\\pi}{180})", to_latex(text))
    # A product of a number and brackets would be read as a mixed number.
    latex = re.sub(r"(\d)\s*(\(\s*\\[dt]?frac)|(\))\s*(\\[dt]?frac)", r"\1\3 \\cdot \2\4", latex)
    # "2 3" would be read as 2 + 3, "n!!" as (n!)!, and "a^b^c" as (a^b)^c. The base of "12_8" would
    # be dropped.
    unreadable = r"\d\s+\d|!\s*!|\^\{[^{}]*\}\s*\^|^\s*[*/^]|[-+*/^=]\s*$|(?<![a-zA-Z_{])\d+\s*_"
    if re.search(unreadable, latex):
        raise UnreadableError(f"{text!r} is not one expression")
    try:
        # Math-Verify takes "3s" for 3 seconds; units are removed before.
        found = latex2sympy(
            normalize_latex(latex, config=normalization),
            is_real=not should_treat_as_complex(latex),
            convert_degrees=False,
            normalization_config=None,
            conversion_config=ConversionConfig(lowercase_symbols=False),
        )
    except (MemoryError, RecursionError):
        raise
    except Exception as error:  # the parser may raise almost anything
        raise UnreadableError(f"{text!r} is not a mathematical expression") from error
    # An equation that is true or false by itself is refused: all false ones would be equal.
    if found is None or (
        isinstance(found, Eq)
        and (not found.free_symbols or any(map(is_unfinished, (found.lhs, found.rhs))))
    ):
        raise UnreadableError(f"{text!r} is not a mathematical expression")
    return found


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
        name, arguments = match[1] or match[2], split_list(inner)
        if name in _CALLS:
            written = _CALLS[name] % inner
        elif len(arguments) == 2:
            written = rf"\binom{{{arguments[0]}}}{{{arguments[1]}}}"
        else:
            continue
        power = text[: match.start()].endswith("^")
        text = text[: match.start()] + (f"{{{written}}}" if power else written) + text[end + 1 :]
    return text.strip()


def is_unfinished(expression: Any) -> bool:
    """Whether a sum, product, integral, limit or derivative is left unevaluated."""
    from sympy import Basic, Derivative, Integral, Limit, Product, Sum

    parts = (Sum, Product, Integral, Limit, Derivative)
    return isinstance(expression, Basic) and expression.has(*parts)
