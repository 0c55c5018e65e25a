r"""Verifying final answers: reading an answer from text, and comparing it with a reference.

A false "correct" would put a wrong solution into a training pool, while a missed one only makes the
pool smaller: wherever a text is ambiguous there is no answer, never a guess.

- **Reading.** :func:`extract_answer` reads texts that mark their answer (``\boxed{}``, ``####``,
  "the answer is ...") or are one bare expression; :func:`extract_from_sentence` reads one English
  sentence ("There are 29 valid strings of length 6"). Math-Verify's own extraction is not used: in
  such sentences it takes the number that stands last, here the 6.
- **Comparing.** :func:`equivalent` splits both sides into values (``x=8, y=2 or x=2, y=8``) and has
  Math-Verify compare them one by one, the reference first, as its ``verify`` is not symmetric.
- **Running.** :func:`grade_answers` does so in worker processes with a time limit per item. Workers
  are fresh interpreters that talk JSON lines over pipes: nothing is forked from a process that
  holds torch's threads, and no caller needs a ``__main__`` guard.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import queue
import re
import resource
import select
import signal
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

from lalp.assets import code_of
from lalp.records import atomic_path


@dataclass(frozen=True)
class Grade:
    """What became of one answer.

    Attributes:
        outcome: ``correct``, ``wrong``, ``no answer`` (nothing unambiguous to compare),
            ``timeout``, or ``error`` (the reference cannot be read, or the comparison crashed).
        extracted: The part of the text that was compared, or None.
    """

    outcome: str
    extracted: str | None


# ---------------------------------------------------------------------------------------------
# Reading: where an expression ends
# ---------------------------------------------------------------------------------------------

_UNICODE = str.maketrans(
    {
        "−": "-", "–": "-", "×": "*", "·": "*", "⋅": "*", "∙": "*", "÷": "/", "’": "'",
        "…": "...", "⋯": "...", "π": "pi ", "∞": "infinity ", "√": "sqrt", "²": "^2", "³": "^3",
        "½": "1/2", "\u00a0": " ", "\u2009": " ", "\u202f": " ", "\ue000": None, "\ue001": None,
    }
)  # fmt: skip
_FORMULA = re.compile(
    r"(?<!\\)\$\$(.+?)\$\$|(?<!\\)\$(.+?)(?<!\\)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL
)
_BOX = re.compile(r"\\f?boxed\s*\{")
_BETWEEN_BOXES = re.compile(
    r"[\s$]*(?:[,;]|(?:[,;]\s*)?(?:\\text\s*\{\s*)?\b(?:and|or)\b(?:\s*\})?)[\s$]*(?:[a-zA-Z]\s*=\s*)?"
)
_NUMBER_WORDS = {
    "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6",
    "seven": "7", "eight": "8", "nine": "9", "ten": "10", "eleven": "11", "twelve": "12",
}  # fmt: skip
_TEXT = "text|textbf|textit|textrm|mbox|mathrm|mathbf|mathit|operatorname"
_FUNCTIONS = "sqrt|floor|ceil|ln|log|sin|cos|tan|exp|max|min|gcd|binom|pi|infinity|sum_"
# English words of two and three letters that would else pass for products such as "ab" and "xyz".
_SHORT_WORDS = (
    "is|in|if|or|as|at|to|by|of|be|on|an|no|so|we|it|do|and|for|the|are|all|any|has|can|its|not|"
    "but|mod|let|set|sum|per|odd|how|two|one|six|ten|max|min|log|sin|cos|tan|exp|gcd|via|due"
)
_TOKEN = re.compile(
    rf"""\s*(?:
      (?P<formula>\ue000\d+\ue001)
    | (?P<number>(?:\d{{1,3}}(?:,\d{{3}})+(?![\d,])|\d+(?:\.\d+)?|\.\d+)(?:\s?%)?)
    | (?P<function>(?:{_FUNCTIONS})(?=[^a-z]|$))
    | (?P<list>,(?:\s*(?:and|or)(?=\s))?|(?:and|or)(?=\s))
    | (?P<word>(?:{"|".join(_NUMBER_WORDS)})\b)
    | (?P<product>(?!(?:{_SHORT_WORDS})\b)[a-z]{{2,3}}
        (?![a-zA-Z'_]|-[a-zA-Z]{{4}}|\s+[a-zA-Z]{{2}}))
    | (?P<name>[A-Za-z](?:_(?:\w|\([^()]*\)|\{{[^{{}}]*\}}))?(?![A-Za-z']))
    | (?P<operator>\.\.\.|[-+*/^=!()|\[\]{{}}±≡<>≤≥_])
    )""",
    re.VERBOSE,
)
_MODULUS = (
    r"\s*(?:\\pmod\s*(?:\{[^{}]*\}|\w)"
    r"|\(\s*\\?(?:text\{)?mod(?:ulo)?\b\}?[^()]*(?:\([^()]*\)[^()]*)?\)"
    r"|\\?\bmod(?:ulo)?\b\s*(?:[^\s(),]|\([^()]*\))+)"
)


def _plain(text: str) -> str:
    """The text in ASCII mathematics, without bold marks."""
    text = re.sub(r"√\s*(\d+(?:\.\d+)?|[a-zA-Z])", r"sqrt(\1)", text)
    text = re.sub(r"\\!\s*", "", text)  # a negative space, as in 11,\! 111
    return text.translate(_UNICODE).replace("**", "").strip()


def _mask(text: str) -> tuple[str, list[str]]:
    """Replace each LaTeX formula by one private-use token, so that what has words is prose."""
    formulas: list[str] = []

    def keep(match: re.Match[str]) -> str:
        formulas.append(next(group for group in match.groups() if group is not None).strip())
        return f"\ue000{len(formulas) - 1}\ue001"

    return _FORMULA.sub(keep, text), formulas


def _unmask(text: str, formulas: Sequence[str]) -> str:
    return re.sub(r"\ue000(\d+)\ue001", lambda match: formulas[int(match[1])], text)


def _expression_end(text: str, start: int) -> int:
    """Where the longest expression, or list of expressions, from ``start`` on ends."""
    end = position = start
    depth, previous = 0, None
    while depth >= 0 and (match := _TOKEN.match(text, position)):
        kind, token = match.lastgroup, match[0].strip()
        in_formula = previous == "operator" or re.match(r"\s*[-+*/^=)]", text[match.end() :][:9])
        if kind == "product" and not in_formula:
            break  # "abc" is a product within a formula; elsewhere it may be anything
        depth += (token in ("(", "[", "{")) - (token in (")", "]", "}"))
        position, previous = match.end(), kind
        if depth == 0 and kind != "list" and (kind != "operator" or token in ")]}!|"):
            end = position
    return end


def _tidy(expression: str) -> str:
    """Strip punctuation around an expression, and the modulus behind it."""
    expression = re.sub(r"\\equiv(?![A-Za-z])|≡", "=", expression.strip(" \t\n,;"))
    return re.sub(rf"(?:{_MODULUS})?[\s,.;]*$", "", expression)


def _boxed(text: str) -> list[tuple[str, int, int]]:
    """The contents, starts and ends of the last boxes, without those whose braces do not close."""
    found = []
    for match in list(_BOX.finditer(text))[-20:]:  # each may be searched to the end of the text
        end = _closing(text, match.end() - 1)
        if end is not None and (content := text[match.end() : end].strip()):
            found.append((content, match.start(), end + 1))
    return found


def _last_boxed(text: str) -> str | None:
    r"""The content of the last box, or of several in a list: ``\boxed{1}, \boxed{2}``."""
    boxes = _boxed(text)
    contents = [content for content, _, _ in boxes[-1:]]
    for (content, _, end), (_, start, _) in reversed(list(pairwise(boxes))):
        if not _BETWEEN_BOXES.fullmatch(text, end, max(start, end)):
            break
        contents.insert(0, content)
    return ", ".join(contents) or None


def _closing(text: str, start: int) -> int | None:
    """Index of the bracket that closes the one at ``start``, or None."""
    opening, closing = text[start], {"{": "}", "(": ")", "[": "]"}[text[start]]
    depth = 0
    for match in re.finditer(rf"\\.|[{re.escape(opening + closing)}]", text[start:], re.DOTALL):
        depth += (match[0] == opening) - (match[0] == closing)
        if depth == 0:
            return start + match.start()
    return None


# ---------------------------------------------------------------------------------------------
# Reading: texts that mark their answer
# ---------------------------------------------------------------------------------------------

_ANSWER_IS = re.compile(r"(?i)\banswers?(?: to (?:the|this) \w+)?(?: is| are|\s*[:=])+\s*(?=\S)")
_PROSE = re.compile(
    rf"(?<![\\a-zA-Z])(?!(?:{_FUNCTIONS})(?![a-z]))(?:[a-zA-Z]{{4,}}|(?:{_SHORT_WORDS})\b)"
)
_PHRASE = re.compile(r"[A-Za-z][A-Za-z'-]*(?: [A-Za-z'-]+){0,2}")


def extract_answer(text: str) -> str | None:
    r"""The final answer that a text marks as such.

    In this order: the content of the last ``\boxed{}`` (or of a list of boxes); what follows the
    last ``####``; what follows the last "answer is" or "answer:"; the whole text if it is one bare
    expression or a phrase of up to three words. A text that merely mentions numbers has no answer.
    """
    if boxed := _last_boxed(text):
        return boxed
    text = _plain(text)
    if "####" in text:
        return text.rpartition("####")[2].strip().partition("\n")[0].strip() or None
    masked, formulas = _mask(text)
    marks = [match.end() for match in _ANSWER_IS.finditer(masked)]
    if marks:
        masked = re.split(r"\n|(?<=[.!?;])\s", masked[marks[-1] :])[0].rstrip(" .")
        end = _expression_end(masked, 0)
        rest = masked[end:]
        clear = _AFTER.match(rest) or _COUNTED.match(rest)
        if end and clear:
            return _tidy(_unmask(masked[:end], formulas))
    bare = masked if marks else _unmask(masked, formulas)
    marked = rf"\\(?:{_TEXT}|begin|end)\s*\{{[^{{}}]*\}}|\b(?:and|or)\b"
    prose = _BOX.search(bare) or _PROSE.search(re.sub(marked, "", bare))
    if _PHRASE.fullmatch(bare) or (len(bare) <= 300 and "\n" not in bare and not prose):
        return _tidy(_unmask(bare, formulas)) or None
    return None


_LETTER_GIVEN = re.compile(
    rf"(?:(?i:option|choice)\s+)?(?:[$\s]|\\\(|\\(?:{_TEXT})\s*\{{)*"
    r"(?:\((?P<closed>[A-J])\)|(?P<open>[A-J])(?=[)}$]*[ \t]*(?:$|[.,:;!\n]|\\|because\b|since\b)))"
    r"(?![)}$]*\s*(?:,|/|or\b|and\b)\s*(?:or\b|and\b)?\s*\(?[A-J]\b)"
)


def extract_choice(text: str) -> str | None:
    r"""The letter of the option that a text marks as its answer.

    It stands in the last ``\boxed{}``, behind the last "answer is" or "answer:", or alone. Its own
    option may follow ("(B) 12"). Two letters are no answer.
    """
    if (boxed := _last_boxed(text)) is not None:
        match = _CHOICE.fullmatch(_words(boxed))
        return match[1] if match else None
    text = _plain(text)
    marks = [match.end() for match in _ANSWER_IS.finditer(text)]
    match = _LETTER_GIVEN.match(text, marks[-1]) if marks else _CHOICE.fullmatch(_words(text))
    return match[match.lastgroup or 1] if match else None


def is_choice(reference: str) -> bool:
    r"""Whether a reference is the letter of an option: ``B``, ``(B)``, ``\text{(B)}``."""
    return re.fullmatch("[A-J]", _words(reference)) is not None


# ---------------------------------------------------------------------------------------------
# Reading: one English sentence
# ---------------------------------------------------------------------------------------------

_LONGEST_SENTENCE = 3000  # characters; what is longer is no sentence, and reading takes its square

# Words between a verb and its expression that do not change what is stated.
_FILLER = re.compile(
    r"\s*(?:therefore|thus|then|hence|always|just|simply|indeed|exactly|only|precisely|both|either|"
    r"also|still|equal|equivalent|congruent|given|expressed|represented|described|written|found|"
    r"calculated|determined|to|be|by|as|into|in the form|a total of|:|,|"
    r"the (?:following )?(?:expression|formula|number|value|limit|integer|fraction|constant|set|"
    r"pair|product|(?:closed |open )?interval|ordered pair|binomial coefficient|"
    r"constant polynomial)s?)(?=[\s\ue000(:]|$)"
)
_APPROXIMATELY = re.compile(r"\s*(?:approximately|about|around|roughly)\b")
_BOUND = re.compile(
    r"(?i)\s*(?:at least|at most|exactly|only|no more than|no fewer than|a (?:max|min)imum of)\b"
)
_VERB = re.compile(
    r"\b(?:is|are|be|equals|converges? to|(?:as|into)(?=\s+[\ue000(])|"
    r"(?:has|have|with|gives|leaves|attains|reaches) (?:a|an|the) (?:\w+ )?"
    r"(?:value|limit|remainder) of)(?=[\s:\ue000])"
)
# "where n is", "when both a and b are", "there is": the verb does not state the value.
_NOT_MAIN = re.compile(
    r"(?:\b(?:where|when|whenever|if|since|because|while|assuming)\s+"
    r"(?:both |all |the |each )?[^\s,]+(?: and [^\s,]+)?\s+|\b(?:[Tt]here|not)\s+|n't\s+)$"
)
_CLAUSE = re.compile(r"\b(?:when|whenever|where|if|unless|such that|so that|for which|in which)\b")
_REASON = re.compile(r",? (?:because|since|due to)\b|, as (?:it|the|this|any|each|both)\b")
# What may follow an expression without changing it.
_AFTER = re.compile(
    r"\s*(?:[.;:!]?$|,?\s*(?:which|where|when|whenever|achieved|attained|reached|occurring|obtained|"
    r"because|since|as|so|given|assuming|regardless|if|for|with|in|under|over|modulo|mod|among|"
    r"considering|respectively|such (?:that|as)|using|meaning|implying|indicating|"
    r"and (?:it|this)(?: value| minimum| maximum)? (?:is|occurs|happens)|"
    r"(?:or|i\.e\.,?|or equivalently|and)? ?(?:approximately|about|equivalently))\b"
    r"|,? ?\(?mod\b|\((?:or|approximately|which|i\.e\.|when|where|since|for|in|rounded)\b)"
)
# A noun that is counted: "29 strings", "2 of the"; not "3 times as", "n factorial".
_COUNTED = re.compile(
    r"\s+(?!(?:times (?:the|as)|such (?:that|as)|for|in|that|when|where|if|with|and|or|is|are|was|"
    r"has|have|the|to|more|less|plus|minus|factorial|squared|cubed|choose|divided|multiplied|raised|"
    r"percent|hundred|thousand|million|billion|trillion|dozen|modulo|mod)\b)[a-zA-Z][a-z-]*"
)
_CASES = re.compile(
    r"\band \S+ (?:when|if|for)\b|^\s*\([^()]*\),? (?:and|or)\b|\botherwise\b|"
    r"\bodd\b.*\beven\b|\beven\b.*\bodd\b"
)
_HOW_MANY = re.compile(r"(?i)\bhow (?:many|often)\b|\bnumber of\b")
# "At least two" answers "at least how many", not "how many".
_BOUND_ASKED = {
    r"(?i)\b(?:at least|no fewer than|a minimum of)\b": re.compile(
        r"(?i)\b(?:at least|minimum|least|smallest|fewest|need)\b"
    ),
    r"(?i)\b(?:at most|no more than|a maximum of)\b": re.compile(
        r"(?i)\b(?:at most|maximum|most|largest)\b"
    ),
}
_THERE = re.compile(
    r"(?i)(?:^|[,.] |\bso |\bthus |\bthen )"
    r"(?:there (?:is|are|exists?|will be|must be|can be)(?=\s)|"
    r"(?=(?:at least|at most|exactly|only)\b))"
)
_THERE_IS_NO = re.compile(
    r"(?i)(?:^|[,.] |\bso )there (?:is|are|exists?) no(?:ne)?\b|(?:^|, )none of|^for no\b|"
    r"^no (?!more|fewer|less)\w"
)
_HAS = re.compile(
    r"(?i)\b(?:has|have|needs?|requires?|contains?|holds?(?: true)? for|a total of|"
    r"occurs(?=\s+(?:exactly )?\S+ times)|in(?=\s+(?:(?:exactly|only) )?\S+ (?:\w+ )?ways))(?=\s)"
)
_HAS_NO = re.compile(r"(?i)\b(?:has|have|contains?) no\b")
_NEGATED = re.compile(r"(?i)\b(?:not|no|never|false|none|fails?)\b|n't")
_EXCEPT = re.compile(r"(?i)\b(?:except|other than|besides|apart from|only if|unless|but)\b")
_ALL_OF = re.compile(r"(?i)\b(?:all|each|every)\b(?: of)?(?: the)?(?: first)?(?: (\d+) (?!n\b))?")
_RANGE = re.compile(r"\{(\d+),[^{}]*\.\.\.,?\s*(\d+)\s*\}|\bfrom (\d+) to (\d+)\b")


def extract_from_sentence(sentence: str, question: str = "") -> str | None:
    """The answer that one English sentence states, if it states exactly one.

    It is what follows the main verb ("The smallest value of ... is **1/9**, which is achieved when
    ..."), given that it is an expression and that what follows it does not change it. Where two
    readings disagree there is no answer. Reasons ("because ...") are not read.

    Args:
        sentence: One sentence, plain or with LaTeX formulas.
        question: What was asked. Only if it asks for a number of things do "There are 29 strings",
            "has no roots", "At least one of" and "in 12 ways" state an answer, and only if it
            asks for that modulus does "0 modulo 7".
    """
    if boxed := list(dict.fromkeys(content for content, _, _ in _boxed(sentence))):
        return ", ".join(boxed)
    if len(sentence) > _LONGEST_SENTENCE:
        return None
    masked, formulas = _mask(_plain(sentence).rstrip(" ."))
    reason = _REASON.search(masked)
    if reason and reason.start() > 0:
        masked = masked[: reason.start()]
    for bound, asked in _BOUND_ASKED.items():
        if not asked.search(question):
            masked = re.sub(bound, "~", masked)
    counts = bool(_HOW_MANY.search(question))
    readers: list[Callable[[str, Sequence[str], bool], Iterator[str]]]
    readers = [_read_there, _read_verb, _read_has, _read_all, _read_equation]
    for read in readers if counts else (_read_verb, _read_equation):
        spans = [_unmask(span, formulas) for span in read(masked, formulas, counts)]
        if spans:
            answers = {_tidy(span) for span in spans}
            if len(answers) > 1 or not all(_mentions(question, span) for span in spans):
                return None
            # "x = 3" answers the question which, not how many.
            return next(
                (a for a in answers if not (counts and re.match(r"[a-z]\s*=\s*-?\d", a))), None
            )
    return None


def _mentions(question: str, span: str) -> bool:
    """Whether the question asks for every modulus that the span states."""
    moduli = re.findall(r"(?:\\pmod|\\?\bmod(?:ulo)?\b)\s*\{?\s*((?:[^\s{}()]|\([^()]*\))+)", span)
    plain = re.sub(r"[\\{}]", "", question)
    before = r"mod(?:ulo)?\s*" if re.search(r"\bp?mod", plain) else r"(?<!\w)"
    found = [re.search(rf"{before}{re.escape(modulus)}(?!\w)", plain) for modulus in moduli]
    return not question or None not in found


def _read_verb(masked: str, formulas: Sequence[str], counts: bool) -> Iterator[str]:
    """What follows "is", "equals", "converges to", ... in the main clause, else in ", which is"."""
    predicate = len(masked)
    found: dict[bool, list[str]] = {False: [], True: []}
    for verb in _VERB.finditer(masked):
        before = masked[: verb.start()].rstrip()
        # A clause that began after the main verb ends at a comma: "..., where ..., is 5".
        in_clause = _CLAUSE.search(before[predicate:]) and not before.endswith(",")
        if not in_clause and not _NOT_MAIN.search(before + " "):
            values = _value_after(masked, verb.end(), counts, _AFTER, _COUNTED)
            found[before.endswith(("which", "that"))] += values
        if verb[0] in ("is", "are") and not _CLAUSE.search(before):
            predicate = min(predicate, verb.end())
    yield from found[False] or found[True]


def _read_there(masked: str, formulas: Sequence[str], counts: bool) -> Iterator[str]:
    """How many there are: "There are 29 strings", "At most one of the", "None of the"."""
    if _THERE_IS_NO.search(masked) and not _EXCEPT.search(masked):
        yield "0"
    for there in _THERE.finditer(masked):
        yield from _value_after(masked, there.end(), counts, _COUNTED)


def _read_has(masked: str, formulas: Sequence[str], counts: bool) -> Iterator[str]:
    """How many something has: "has two solutions", "has no roots", "in 12 ways"."""
    if _HAS_NO.search(masked) and not _EXCEPT.search(masked):
        yield "0"
    for has in _HAS.finditer(masked):
        yield from _value_after(masked, has.end(), counts, _COUNTED)


def _value_after(masked: str, start: int, counts: bool, *after: re.Pattern[str]) -> Iterator[str]:
    """The expression behind filler words at ``start``, if what follows matches one of ``after``."""
    approximate = False
    while match := (
        _FILLER.match(masked, start)
        or _APPROXIMATELY.match(masked, start)
        or (_BOUND.match(masked, start) if counts else None)
    ):
        approximate |= match.re is _APPROXIMATELY
        start = match.end()
    end = _expression_end(masked, start)
    if end > start and (modulus := re.match(_MODULUS, masked[end:])):
        end += modulus.end()
    span, rest = masked[start:end].strip(), masked[end:]
    if approximate and not re.fullmatch(r"[\d.,]+\s?%?|\ue000\d+\ue001", span):
        return
    following = [pattern for pattern in after if pattern.match(rest)]
    article = following == [_COUNTED] and (not counts or span in ("a", "A", "I"))
    if span and following and not article and not _CASES.search(rest):
        yield _NUMBER_WORDS.get(span, span)


def _read_all(masked: str, formulas: Sequence[str], counts: bool) -> Iterator[str]:
    """How many "all" are: "for all n in {1, ..., 100}", "all 100 terms"."""
    every = _ALL_OF.search(masked)
    if not every or _NEGATED.search(masked) or _EXCEPT.search(masked):
        return
    text = re.sub(r"\\[lc]?dots", "...", _unmask(masked, formulas)).replace("\\", "")
    ranges = {match.groups() for match in _RANGE.finditer(text)}
    if every[1]:
        yield every[1]
    elif len(ranges) == 1:
        low, high = (int(bound) for bound in ranges.pop() if bound is not None)
        yield str(high - low + 1)


def _read_equation(masked: str, formulas: Sequence[str], counts: bool) -> Iterator[str]:
    """An equation or congruence that is the sentence, or that ends it after "then" or a comma."""
    starts = r"(?i)^(?:(?:therefore|thus|so|hence),? )?|\bthen,? |\bso |, "
    for start in re.finditer(starts, masked):
        end = _expression_end(masked, start.end())
        if modulus := re.match(_MODULUS, masked[end:]):
            end += modulus.end()
        span, rest = masked[start.end() : end], masked[end:]
        last = re.match(r"\s*(?:$|for (?:all|any|even|odd))", rest)
        first = start.end() == 0 and _AFTER.match(rest)
        if re.search(r"=|≡|\\equiv", _unmask(span, formulas)) and (last or first):
            yield span


# ---------------------------------------------------------------------------------------------
# Comparing
# ---------------------------------------------------------------------------------------------

_NAME = r"[A-Za-z](?:_(?:\w|\{[^{}]*\}|\([^()]*\)))?"
_NAMES = re.compile(rf"{_NAME}|[a-zA-Z]\([a-z]\)|\(\s*{_NAME}(?:\s*,\s*{_NAME})*\s*\)")
_NUMBER = re.compile(r"([-+]?)(\d+(?:\.\d+)?|\d{1,3}(?:,\d{3})+(?:\.\d+)?|\.\d+)(?:/(\d+))?(\\?%)?")
_THOUSANDS = re.compile(r"(?<![\d,.(\[{])(\d{1,3}(?:,\d{3})+)(?![\d,)\]}])")
_SPACING = re.compile(
    r"(?<!\\)\\(?:(?:left|right|[bB]igg?|displaystyle|limits|q?quad)(?![a-zA-Z])|[,;!: ])"
)
_WORDS = re.compile(r"(?i)(?!infinity$)(?:[a-z]{4,}|yes|no|odd)(?:[ -][a-z]+)*")
_CHOICE = re.compile(r"([A-J])(?:[).:](?:[\s\\].*)?)?", re.DOTALL)
# Symbols that only comparing needs as LaTeX.
_SYMBOLS = str.maketrans(
    {
        "°": r"^\circ ", "¢": r"\text{ cents}", "≤": r"\le ", "≥": r"\ge ", "∪": r"\cup ",
        "∈": r"\in ", "∅": r"\emptyset ",
    }
)  # fmt: skip
_UNITS = {
    "degree": "degrees?|deg", "dollar": "dollars?|usd", "cent": "cents?",
    "mm": "millimet(?:er|re)s?|mm", "cm": "centimet(?:er|re)s?|cm", "m": "met(?:er|re)s?|m",
    "km": "kilomet(?:er|re)s?|km", "inch": "inch(?:es)?|in", "foot": "foot|feet|ft",
    "yard": "yards?|yd", "mile": "miles?|mi", "second": "seconds?|secs?|s",
    "minute": "minutes?|mins?", "hour": "hours?|hrs?|h", "day": "days?", "gram": "grams?|g",
    "kg": "kilograms?|kg", "pound": "pounds?|lbs?", "unit": "units?",
}  # fmt: skip
_UNIT = re.compile(
    r"(?i)\s*(?P<power>square|sq\.?|cubic)?\s*(?:"
    + "|".join(f"(?P<{name}>{names})" for name, names in _UNITS.items())
    + r")\.?\s*(?:\^\s*\{?(?P<exponent>[23])\}?)?\s*"
)
_PERCENT = re.compile(rf"(?<=\d)\s*(?:percent|\\(?:{_TEXT})\s*\{{\s*percent\s*\}})$")
_TEXT_UNIT = re.compile(
    rf"(?<=[^\s({{])\s*\\(?:{_TEXT})\s*\{{(?!\s*(?:hundred|thousand|[mbtr]+illion|dozen|choose|mod)\b)"
    r"[^{}\d]*\}\s*(?:\^\s*(?:[23]|\{[23]\}))?$"
)
# What a unit may stand behind: a number without unknowns.
_VALUE = re.compile(
    r"(?:[-+\d.,/{}()\s]|\\(?:[dt]?frac|pi|sqrt)(?![a-zA-Z])|\\[,;! ])*[\d})i](?!\w)\s*"
)
# 4.5e33, as in Minerva's references.
_E_NOTATION = re.compile(r"(?<![\w.\\])(\d+(?:\.\d*)?|\.\d+)[eE]\+?(-?\d+)(?![\w.])")
_RELATION = re.compile(r"\\(?:[lg]eq?(?:slant)?|[lg]t)(?![a-zA-Z])|[<>]=?")
_CALLS = {
    "sqrt": r"\sqrt{%s}", "floor": r"\lfloor %s \rfloor ", "ceil": r"\lceil %s \rceil ",
    "^": "^{%s}", "_": "_{%s}",
}  # fmt: skip
_VAGUE = re.compile(r"\.\.\.|\\mp(?![a-z])|^$")
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

    This may run for very long on hostile input: :func:`grade_answers` sets a time limit.

    Raises:
        UnreadableError: If the answer cannot be read as a mathematical expression.
        ValueError: If the reference cannot.
    """
    words, given_words = _words(reference), _words(answer)
    is_text = re.match(rf"\s*\(?\\(?:{_TEXT})\s*\{{", reference) and words.isalpha()
    if _CHOICE.fullmatch(words) and (is_text or len(words) == 1):
        chosen = _CHOICE.fullmatch(given_words)
        if chosen or is_text:
            return bool(chosen) and chosen[1] == words
    if is_text or _WORDS.fullmatch(words):
        return words.casefold() == given_words.casefold()
    if None not in (units := {_unit(reference), _unit(answer)}) and len(units) == 2:
        return False
    reference, answer = _without_name(reference), _without_name(answer)
    if _clean(reference) == _clean(answer):
        return True
    try:
        golds = split_values(reference)
        for part in (part for value in golds for part in value if not _is_number(part)):
            _parse(part)
    except UnreadableError as error:
        raise ValueError(f"cannot read the reference {reference!r}: {error}") from error
    ranges = _ranges(reference), _ranges(answer)
    if all(ranges) and (_RELATION.search(_clean(reference)) or _RELATION.search(_clean(answer))):
        return _same_items(*ranges, _same_range)
    return _same_items(golds, split_values(answer), _same_value)


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
    for piece in [*_pieces(_without_braces(_clean(expression))), ""]:
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
    values = [tuple(map(_without_unit, value)) for value in values]
    return [signed for value in values for signed in _both_signs(value)]


def _tuples(value: str, unknowns: Sequence[str]) -> list[tuple[str, ...]]:
    """The components of ``(a, b)`` or ``(x=a, y=b)`` as one tuple; else the value on its own."""
    bracketed = value.startswith("(") and _closing(value, 0) == len(value) - 1
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
    text = _plain(expression.replace("**", "^")).translate(_SYMBOLS).replace("^^", "^")
    text = re.sub(_E_NOTATION, r"\1 \\cdot 10^{\2}", _peeled(text))
    text = re.sub(r"(?<=\d)\\,(?=\d{3}(?!\d))", "", text)  # a thin space between thousands
    text = _SPACING.sub(" ", text.replace("$", " "))
    text = re.sub(rf"\\(?:{_TEXT})\s*\{{\s*,?\s*(and|or)\s*\}}", r" \1 ", text)
    text = re.sub(r"\\\\\s*\[[^\[\]]*\]", r"\\\\", text)  # the height of a matrix's row
    text = re.sub(r"\\[lcv]?dots[cbo]?(?![a-z])", "...", text.replace("{,}", ","))
    text = re.sub(r"\\pm(?![a-z])|\+/-", "±", text).replace(r"\varnothing", r"\emptyset")
    text = _THOUSANDS.sub(lambda match: match[1].replace(",", ""), text).strip().rstrip(" .")
    return _NUMBER_WORDS.get(text.casefold(), text)


def _peeled(text: str) -> str:
    """The content of a box, dollar signs, braces or a font around the whole expression."""
    text = text.strip()
    while match := re.match(rf"(?:\\(?:{_TEXT}|boldsymbol|bm|f?boxed)\s*)?\{{", text):
        if _closing(text, match.end() - 1) != len(text) - 1:
            break
        text = text[match.end() : -1].strip(" $")
    return text


def _without_unit(text: str) -> str:
    r"""A value without its unit: ``36 dollars``, ``15\text{ cm}^2``, ``30^\circ``, ``9 mice``."""
    text = re.sub(_PERCENT, r"\\%", text)
    text = re.sub(_TEXT_UNIT, "", re.sub(r"(?<=\S)\s*\^\s*(?:\\circ|\{\s*\\circ\s*\})$", "", text))
    match = re.match(r"(.*(?:\d|\}|\\pi))(?=\s)", text)
    if not match:
        return text
    noun = text[match.end() :]
    counted = _COUNTED.match(noun) and re.fullmatch(r"(?:\s+[a-z][a-z-]{2,}){1,3}", noun)
    known = _UNIT.fullmatch(noun) and len(noun.strip()) > 1
    return match[1] if known or (counted and _number(match[1]) is not None) else text


def _unit(text: str) -> str | None:
    """The unit that is stated with a number, and its power; None if none that is known is."""
    text = _plain(text).translate(_SYMBOLS).replace("^^", "^").strip(" .$")
    if text.startswith(r"\$"):
        return "dollar"
    value = _VALUE.match(text)
    if not value:
        return None
    unit = text[value.end() :].strip()
    if re.fullmatch(r"\^\s*\{?\s*\\circ\s*\}?", unit):
        return "degree"
    wrapped = re.match(rf"\\(?:{_TEXT})\s*\{{", unit)
    match = _UNIT.fullmatch(re.sub(rf"\\(?:{_TEXT})\s*\{{([^{{}}]*)\}}", r"\1", unit))
    if not match or (len(unit) == 1 and not wrapped):  # "2m" may be twice an unknown
        return None
    name = next(name for name in _UNITS if match[name])
    power = (match["power"] or "")[:2].casefold()
    return name + (match["exponent"] or {"sq": "2", "cu": "3"}.get(power, ""))


def _without_name(text: str) -> str:
    r"""A set without the unknown that lies in it: ``x \in [0, 1]``."""
    return re.sub(r"^[\s$({]*[a-zA-Z]\s*(?:\\in(?![a-zA-Z])|∈)", "", text)


def _ranges(text: str) -> list[tuple[str, bool, str, bool]] | None:
    """Intervals or inequalities as ends and whether they belong to it; None for anything else."""
    parts = _split_outside(_clean(_without_name(text)), r"\\cup(?![a-zA-Z])|\bor\b")
    ranges = [_range(part) for part in parts]
    return None if None in ranges else ranges


def _range(text: str) -> tuple[str, bool, str, bool] | None:
    bracketed = re.fullmatch(r"([\[(])(.+)([\])])", text)
    if bracketed:
        ends = _split_outside(bracketed[2], ",")
        return (
            (ends[0], bracketed[1] == "[", ends[1], bracketed[3] == "]") if len(ends) == 2 else None
        )
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


def _same_range(gold: tuple[str, bool, str, bool], answer: tuple[str, bool, str, bool]) -> bool:
    return gold[1::2] == answer[1::2] and all(map(_same_end, gold[::2], answer[::2]))


def _same_end(gold: str, answer: str) -> bool:
    ends = [re.sub(r"[\s+{}]|\\(?=infty)", "", end) for end in (gold, answer)]
    return ends[0] == ends[1] if any("inf" in end for end in ends) else _same(gold, answer)


def _without_braces(text: str) -> str:
    """The elements of ``{1, 2}``, anything else as it is."""
    text = text.replace(r"\{", "{").replace(r"\}", "}")
    return text[1:-1] if text.startswith("{") and _closing(text, 0) == len(text) - 1 else text


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
    sides = _sides(piece)
    if len(sides) > 1 and all(_NAMES.fullmatch(side) for side in sides[:-1]):
        return [re.sub(r"\s", "", side) for side in sides[:-1]], sides[-1]
    if len(sides) > 1 and "..." in piece:
        return [], sides[-1]  # "1 + ... + n = 5" states 5, whatever the sum
    return [], piece


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
    return len(gold) == len(answer) and all(map(_same, gold, answer))


def _same(gold: str, answer: str) -> bool:
    """Whether two single expressions are equal."""
    if len(_sides(gold)) == 1:
        answer = _sides(answer)[-1]
    if (bases := (_in_base(gold), _in_base(answer))) != (None, None):
        digits = [
            pair[0] if pair else text for pair, text in zip(bases, (gold, answer), strict=True)
        ]
        named = {pair[1] for pair in bases if pair} | (set() if bases[0] else {"10"})
        return digits[0] == digits[1] and len(named) == 1
    numbers = _number(gold), _number(answer)
    if numbers[0] is not None and numbers[1] is not None:
        return _rounds_to(numbers[0], answer)
    from math_verify import verify

    gold_expression, answer_expression = _parse(gold), _parse(answer)
    if _unfinished(answer_expression) and not _unfinished(gold_expression):
        return False
    if numbers[1] is not None and _rounds_to(_constant(gold_expression), answer):
        return True
    if _differ_somewhere(gold_expression, answer_expression):
        return False  # spares the algebra, which takes longest where there is nothing to prove
    if verify(gold_expression, answer_expression, timeout_seconds=None):
        return True
    # Math-Verify compares a bare symbol by its name alone; n + 1 it compares by algebra.
    symbol = getattr(gold_expression, "is_Symbol", False)
    return symbol and verify(gold_expression + 1, answer_expression + 1, timeout_seconds=None)


def _is_number(text: str) -> bool:
    return _number(text) is not None or _in_base(text) is not None


def _in_base(text: str) -> tuple[str, str] | None:
    """Digits and base of a number such as ``2516_8``; None without a base."""
    match = re.fullmatch(r"(\d[\dA-F]*)\s*_\s*(\d|\{.*\})", text.strip())
    if match is None:
        return None
    base = _words(match[2][1:-1] or match[2])
    return match[1], _NUMBER_WORDS.get(base, base)


def _number(text: str) -> Fraction | None:
    r"""The value of an integer, decimal, fraction or percentage; None for anything else."""
    text = re.sub(r"\s*([-+/])\s*", r"\1", text.strip())
    text = re.sub(r"^([-+]?)\\[dt]?frac\{(\d+)\}\{(\d+)\}$", r"\1\2/\3", text)
    match = _NUMBER.fullmatch(text)
    if not match or (match[3] and int(match[3]) == 0):
        return None
    value = Fraction(match[2].replace(",", "")) / int(match[3] or 1) / (100 if match[4] else 1)
    return -value if match[1] == "-" else value


def _rounds_to(gold: Fraction | None, answer: str) -> bool:
    """Whether the number ``answer`` is ``gold``, or a decimal of three digits that it rounds to."""
    value, decimal = _number(answer), re.search(r"(\d*)\.(\d+)", answer.replace(",", ""))
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

    normalization = replace(LatexExtractionConfig().normalization_config, units=False)
    latex = to_latex(text)
    # "2 3" would be read as 2 + 3, "n!!" as (n!)!, and "a^b^c" as (a^b)^c.
    # Of "12_8" the base would be dropped.
    unreadable = r"\d\s+\d|!\s*!|\^\{[^{}]*\}\s*\^|^\s*[*/^]|[-+*/^=]\s*$|(?<![a-zA-Z_{])\d+\s*_"
    if re.search(unreadable, latex):
        raise UnreadableError(f"{text!r} is not one expression")
    # Math-Verify takes "3s" for 3 seconds; units are dropped before.
    config = [LatexExtractionConfig(normalization_config=normalization)]
    found = parse(f"${latex}$", config, fallback_mode="no_fallback", parsing_timeout=None)
    if len(found) != 1 or _is_decided(found[0]):
        raise UnreadableError(f"{text!r} is not a mathematical expression")
    return found[0]


def _is_decided(expression: Any) -> bool:
    """Whether it is an equation that is true or false by itself; all false ones would be equal."""
    from sympy import Eq

    return isinstance(expression, Eq) and (
        not expression.free_symbols or _unfinished(expression.lhs) or _unfinished(expression.rhs)
    )


def to_latex(text: str) -> str:
    r"""Write plain formulas as LaTeX: ``C(n, 2)``, ``sqrt(2)``, ``2^(n-1)``, ``sum_(i=1)^n i``.

    LaTeX stays as it is.
    """
    text = re.sub(r"(?<![\\a-zA-Z])infinity(?![a-z])", r"\\infty ", text).replace("*", r" \cdot ")
    words = "pi|ln|log|sin|cos|tan|exp|max|min|gcd|sum(?=_)"
    text = re.sub(rf"(?<![\\a-zA-Z])({words})(?![a-zA-Z])", r"\\\1 ", text).replace(
        r"\sum _", r"\sum_"
    )
    text = re.sub(r"(?<![\\a-zA-Z])sqrt\s*(\d+|[a-z]\b)", r"\\sqrt{\1}", text)
    text = re.sub(r"\^\s*(-?\d+|-[a-z]\b)", r"^{\1}", re.sub(r"(?<!\\)%", r"\\%", text))
    call = re.compile(r"(?<![\\a-zA-Z])(C|binom|sqrt|floor|ceil)\s*\(|([_^])\s*\(")
    position = 0
    while match := call.search(text, position):
        end = _closing(text, match.end() - 1)
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


def _evaluated(expression: Any) -> Any:
    """The expression in floating point; exact arithmetic only where that is needed."""
    value = expression.evalf(30)
    return value if value.is_number and value.is_Atom else expression.doit().evalf(30)


def _constant(expression: Any) -> Fraction | None:
    """A real constant to 30 digits, None for anything else."""
    from sympy import Expr

    if not isinstance(expression, Expr) or expression.free_symbols:
        return None
    value = _evaluated(expression)
    return Fraction(str(value)) if value.is_Float and value.is_finite else None


def _differ_somewhere(gold: Any, answer: Any) -> bool:
    """Whether two formulas have other unknowns, or other values where those are small integers."""
    from sympy import Expr

    if not isinstance(gold, Expr) or not isinstance(answer, Expr):
        return False
    sides = [{symbol: symbol.name.casefold() for symbol in e.free_symbols} for e in (gold, answer)]
    if set(sides[0].values()) != set(sides[1].values()):
        return True
    point = dict(zip(sorted(set(sides[0].values())), (11, 3, 7, 5, 2, 13), strict=False))
    values = []
    for expression, symbols in zip((gold, answer), sides, strict=True):
        at = {symbol: point.get(name, 1) for symbol, name in symbols.items()}
        try:
            values.append(_evaluated(expression.subs(at)))
        except (TypeError, ValueError, ArithmeticError, AttributeError):
            return False
    if not all(value.is_number and value.is_finite for value in values):
        return False
    difference, *sizes = (abs(value).evalf(15) for value in (values[0] - values[1], *values))
    return bool(difference > 1e-9 * max(1, *sizes))


def _words(text: str) -> str:
    """A text answer without LaTeX's text commands, brackets, article and full stop."""
    text = re.sub(rf"\\(?:{_TEXT})\s*\{{([^{{}}]*)\}}", r"\1", text).strip("().$ ")
    return re.sub(r"^(?:[Aa]n?|[Tt]he)\s+(?=[a-zA-Z]{3})", "", text)


# ---------------------------------------------------------------------------------------------
# Running comparisons in worker processes
# ---------------------------------------------------------------------------------------------

_START_LIMIT = 120.0  # seconds for a fresh interpreter to import sympy on a busy machine
_GRACE = 5.0  # seconds after the time limit at which a worker without its parent ends itself
_WORKER_MEMORY = (
    2 << 30
)  # bytes beyond what a fresh worker maps: 10^10^10 must not fill the machine
_ITEMS_PER_WORKER = 20  # fewer do not pay for the start of another worker

_Job = tuple[str, str]


def grade_answers(
    pairs: Sequence[tuple[str, str]],
    *,
    num_workers: int = 2,
    time_limit: float = 10.0,
    cache: Path | None = None,
) -> list[Grade]:
    """Grade answers against references in worker processes, equal pairs once.

    Args:
        pairs: Reference and answer text (see :func:`extract_answer`), in this order.
        num_workers: Worker processes at most; each needs about 200 MB.
        time_limit: Seconds per pair; a worker that takes longer is killed and replaced.
        cache: JSON lines file with the grades of former calls: read first, and rewritten as a whole
            if there is something new. Grades made by another version of this module, Math-Verify
            or sympy are not used.

    Returns:
        One grade per pair, in the order of ``pairs``.
    """
    known = _read_cache(cache) if cache else {}
    texts = {pair: extract_answer(pair[1]) for pair in dict.fromkeys(pairs)}
    jobs = dict.fromkeys((pair[0], text) for pair, text in texts.items() if text is not None)
    outcomes = {job: _known_outcome(job, known, time_limit) for job in jobs}
    todo = [job for job, outcome in outcomes.items() if outcome is None]
    if todo:
        outcomes |= _run_workers(todo, num_workers, time_limit)
        known |= {job: (outcomes[job], time_limit) for job in todo if outcomes[job] != "error"}
        if cache:
            _write_cache(cache, known)
    grades = {
        pair: Grade("no answer" if text is None else outcomes[pair[0], text], text)
        for pair, text in texts.items()
    }
    return [grades[pair] for pair in pairs]


def _known_outcome(
    job: _Job, known: dict[_Job, tuple[str, float]], time_limit: float
) -> str | None:
    """The outcome that needs no worker: cached, the same text, or two plain numbers."""
    reference, answer = job
    outcome, limit = known.get(job, (None, 0.0))
    if outcome is not None and (outcome != "timeout" or limit >= time_limit):
        return outcome
    if reference.split() == answer.split():
        return "correct"
    gold = _number(reference)
    if gold is None or _number(answer) is None:
        return None
    return "correct" if _rounds_to(gold, answer) else "wrong"


def _run_workers(jobs: Sequence[_Job], num_workers: int, time_limit: float) -> dict[_Job, str]:
    """Share the jobs out to workers, each served by one thread of this process."""
    pending: queue.SimpleQueue[_Job] = queue.SimpleQueue()
    for job in jobs:
        pending.put(job)
    outcomes: dict[_Job, str] = {}
    failures: list[BaseException] = []
    wanted = max(1, min(num_workers, math.ceil(len(jobs) / _ITEMS_PER_WORKER)))
    workers = [_Worker(time_limit) for _ in range(wanted)]

    def serve(worker: _Worker) -> None:
        try:
            while not failures:
                job = pending.get_nowait()
                outcomes[job] = worker.grade(*job)
        except queue.Empty:
            pass
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=serve, args=(worker,), daemon=True) for worker in workers]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    except BaseException as error:  # such as Ctrl-C: let the threads end too
        failures.append(error)
    finally:
        for worker in workers:
            worker.stop()
    if failures:
        raise failures[0]
    return outcomes


class _Worker:
    """One worker process, started when first needed and again after every kill."""

    def __init__(self, time_limit: float) -> None:
        self.time_limit = time_limit
        self.process: subprocess.Popen[bytes] | None = None

    def grade(self, reference: str, answer: str) -> str:
        """The outcome for one pair; ``error`` if the worker dies of it."""
        process = self.process or self.start()
        try:
            process.stdin.write(json.dumps([reference, answer]).encode() + b"\n")
            process.stdin.flush()
            outcome = _read_line(process.stdout, self.time_limit)
        except OSError:
            outcome = ""
        if not outcome:
            self.stop()
        return "timeout" if outcome is None else outcome or "error"

    def start(self) -> subprocess.Popen[bytes]:
        """Start a process and wait until it is ready.

        Raises:
            RuntimeError: If it does not get ready; the message ends with its own error output.
        """
        package = str(Path(__file__).resolve().parents[1])
        path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with tempfile.TemporaryFile() as errors:
            self.process = subprocess.Popen(
                _worker_command(self.time_limit),
                stderr=errors,
                env=os.environ | {"PYTHONPATH": path},
                **pipes,
            )
            if _read_line(self.process.stdout, _START_LIMIT) != "ready":
                self.stop()
                errors.seek(0)
                said = errors.read().decode(errors="replace").strip()[-2000:]
                raise RuntimeError(f"a grading worker did not start: {said or 'it said nothing'}")
        return self.process

    def stop(self) -> None:
        """Kill the process, if there is one."""
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.wait()
            process.stdout.close()
            with contextlib.suppress(OSError):  # it may still hold a line for the process
                process.stdin.close()


def _read_line(stream: IO[bytes], limit: float) -> str | None:
    """One line: None if none comes within ``limit`` seconds, empty if the process has ended."""
    readable, _, _ = select.select([stream], [], [], limit)
    return stream.readline().decode().strip() if readable else None


def _worker_command(time_limit: float) -> list[str]:
    serve = f"from lalp.grading import _serve; _serve({time_limit + _GRACE!r})"
    return [sys.executable, "-P", "-c", serve]


def _serve(last_resort: float) -> None:
    """A worker's main loop: a JSON pair per line in, an outcome per line out."""
    import logging

    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not be taken for a reply
    logging.disable(logging.CRITICAL)
    _same("n", "n+1-1")  # load Math-Verify and sympy before the clock of the first pair starts
    _limit_memory()
    print("ready", file=replies, flush=True)
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_REAL, last_resort)  # its default action ends the process
        outcome = _outcome(*json.loads(line))
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(outcome, file=replies, flush=True)


def _limit_memory() -> None:
    """Bound this process's address space, where the system tells how large it is now."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return
    limit = pages * resource.getpagesize() + _WORKER_MEMORY
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    soft = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _outcome(reference: str, answer: str) -> str:
    try:
        return "correct" if equivalent(reference, answer) else "wrong"
    except UnreadableError:
        return "no answer"
    except Exception:  # sympy raises almost anything on odd input
        return "error"


# ---------------------------------------------------------------------------------------------
# The cache of grades
# ---------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def grading_key() -> str:
    """What an outcome depends on besides the pair: the code that grades, here and in libraries."""
    packages = ("math-verify", "latex2sympy2_extended", "sympy")
    own = hashlib.sha256(code_of("grading").encode()).hexdigest()[:12]
    return ", ".join([f"lalp grading {own}", *(f"{p} {version(p)}" for p in packages)])


def _read_cache(path: Path) -> dict[_Job, tuple[str, float]]:
    """The outcome and time limit of each pair in a cache file; empty if it cannot be used."""
    if not path.exists():
        return {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        header, *records = map(json.loads, lines)
        if header["key"] != grading_key():
            warnings.warn(
                f"{path} is by other versions: {header['key']}; grading anew", stacklevel=3
            )
            return {}
        if len(records) != header["records"]:
            raise ValueError(f"{len(records)} of {header['records']} records")
        return {
            (gold, text): (str(outcome), float(limit)) for gold, text, outcome, limit in records
        }
    except (OSError, ValueError, TypeError, KeyError) as error:
        warnings.warn(f"{path} is not a whole cache of grades: {error}; grading anew", stacklevel=3)
        return {}


def _write_cache(path: Path, known: dict[_Job, tuple[str, float]]) -> None:
    header = {"key": grading_key(), "records": len(known)}
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(json.dumps(header) + "\n")
        # ASCII only: str.splitlines splits at more than line feeds.
        file.writelines(json.dumps([*job, *entry]) + "\n" for job, entry in known.items())
