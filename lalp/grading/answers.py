"""Find the final answer in a response: the marked answer, never a guess."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from lalp.files import read_data

WORDS = read_data("grading/words.yaml")
"""Words and signs that answers contain."""
NUMBER_WORDS: dict[str, str] = WORDS["numbers"]
TEXT = "text|textbf|textit|textrm|mbox|mathrm|mathbf|mathit|operatorname"
"""LaTeX commands that set text."""
_SIGNS = str.maketrans(WORDS["signs"])
_FUNCTIONS, _SHORT_WORDS = WORDS["functions"], WORDS["short_words"]
_THINK = re.compile(r"</?think>")
_FORMULA = re.compile(
    r"(?<!\\)\$\$(.+?)\$\$|(?<!\\)\$(.+?)(?<!\\)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL
)
_BOX = re.compile(r"\\f?boxed\s*\{")
_BETWEEN_BOXES = re.compile(
    r"[\s$]*(?:[,;]|(?:[,;]\s*)?(?:\\text\s*\{\s*)?\b(?:and|or)\b(?:\s*\})?)[\s$]*(?:[a-zA-Z]\s*=\s*)?"
)
_TOKEN = re.compile(
    rf"""\s*(?:
      (?P<formula>\ue000\d+\ue001)
    | (?P<number>(?:\d{{1,3}}(?:,\d{{3}})+(?![\d,])|\d+(?:\.\d+)?|\.\d+)(?:\s?%)?)
    | (?P<function>(?:{_FUNCTIONS})(?=[^a-z]|$))
    | (?P<list>,(?:\s*(?:and|or)(?=\s))?|(?:and|or)(?=\s))
    | (?P<word>(?:{"|".join(NUMBER_WORDS)})\b)
    | (?P<product>(?!(?:{_SHORT_WORDS})\b)[a-z]{{2,3}}
        (?![a-zA-Z'_]|-[a-zA-Z]{{4}}|\s+[a-zA-Z]{{2}}))
    | (?P<name>[A-Za-z](?:_(?:\w|\([^()]*\)|\{{[^{{}}]*\}}))?(?![A-Za-z']))
    | (?P<operator>\.\.\.|[-+*/^=!()|\[\]{{}}±≡<>≤≥_])
    )""",
    re.VERBOSE,
)
# Full stops and the like at an end; not the dots of "1, 2, ...".
_STOPS = r"(?:[\s,;]|(?<!\.)\.(?![\s,;]*\.))*"
# "mod 9", "(mod 9)", \pmod{9} after an expression.
MODULUS = (
    r"\s*(?:\\pmod\s*(?:\{[^{}]*\}|\w)"
    r"|\(\s*\\?(?:text\{)?mod(?:ulo)?\b\}?[^()]*(?:\([^()]*\)[^()]*)?\)"
    r"|\\?\bmod(?:ulo)?\b\s*(?:[^\s(),]|\([^()]*\))+)"
)
# What may follow an expression without changing it.
AFTER = re.compile(
    rf"\s*(?:[.;:!]?$|,?\s*(?:{WORDS['after']}|"
    r"and (?:it|this)(?: value| minimum| maximum)? (?:is|occurs|happens)|"
    r"(?:or|i\.e\.,?|or equivalently|and)? ?(?:approximately|about|equivalently))\b"
    r"|,? ?\(?mod\b|\((?:or|approximately|which|i\.e\.|when|where|since|for|in|rounded)\b)"
)
# A counted noun: "29 strings", "2 of the"; not "3 times as", "n factorial".
COUNTED = re.compile(rf"\s+(?!(?:{WORDS['not_counted']})\b)[a-zA-Z][a-z-]*")
# A letter, and its option; not "(B) or (C)", "B: no, C", "(B) is wrong".
CHOICE = re.compile(
    r"([A-J])(?:[).:](?:[\s\\](?!\s*(?:or|and|is|are|no|not|nor|wrong|incorrect)\b)"
    r"(?!.*\b[A-J](?:[).:,]|$)).*)?)?",
    re.DOTALL,
)
_ANSWER_IS = re.compile(r"(?i)\banswers?(?: to (?:the|this) \w+)?(?: is| are|\s*[:=])+\s*(?=\S)")
_PROSE = re.compile(
    rf"(?<![\\a-zA-Z])(?!(?:{_FUNCTIONS})(?![a-z]))(?:[a-zA-Z]{{4,}}|(?:{_SHORT_WORDS})\b)"
)
_PHRASE = re.compile(r"[A-Za-z][A-Za-z'-]*(?: [A-Za-z'-]+){0,2}")
_LETTER_GIVEN = re.compile(
    rf"(?:(?i:option|choice)\s+)?(?:[$\s]|\\\(|\\(?:{TEXT})\s*\{{)*"
    r"(?:\((?P<closed>[A-J])\)|(?P<open>[A-J])(?=[)}$]*[ \t]*(?:$|[.,:;!\n]|\\|because\b|since\b)))"
    r"(?![)}$]*\s*(?:,|/|or\b|and\b)\s*(?:or\b|and\b)?\s*\(?[A-J]\b)"
)


def final_part(text: str) -> str | None:
    """The text after the reasoning: behind the last ``</think>``; None if one is not closed.

    Example:
        >>> final_part("<think>Is it 8?</think>It is 7.")
        'It is 7.'
    """
    marks = list(_THINK.finditer(text))
    if not marks:
        return text
    return text[marks[-1].end() :] if marks[-1][0] == "</think>" else None


def plain_text(text: str) -> str:
    """The text in ASCII mathematics, without bold marks: ``2·√3`` is ``2*sqrt(3)``."""
    text = re.sub(r"(?<=\d)\s*½", r"\\frac{1}{2}", text)
    text = re.sub(r"√\s*(\d+(?:\.\d+)?|[a-zA-Z])", r"sqrt(\1)", text)
    text = re.sub(r"\\!\s*", "", text)  # a negative space, as in 11,\! 111
    return text.translate(_SIGNS).replace("**", "").strip()


def mask(text: str) -> tuple[str, list[str]]:
    """Replace each LaTeX formula by one private-use token, so that all words are prose."""
    formulas: list[str] = []

    def keep(match: re.Match[str]) -> str:
        formulas.append(next(group for group in match.groups() if group is not None).strip())
        return f"\ue000{len(formulas) - 1}\ue001"

    return _FORMULA.sub(keep, text), formulas


def unmask(text: str, formulas: Sequence[str]) -> str:
    """Put back the formulas that `mask` took out."""
    return re.sub(r"\ue000(\d+)\ue001", lambda match: formulas[int(match[1])], text)


def expression_end(text: str, start: int) -> int:
    """The end of the longest expression, or list of expressions, from ``start`` on."""
    end = position = start
    depth, previous = 0, None
    while depth >= 0 and (match := _TOKEN.match(text, position)):
        kind, token = match.lastgroup, match[0].strip()
        in_formula = previous == "operator" or re.match(r"\s*[-+*/^=)]", text[match.end() :][:9])
        if kind == "product" and not in_formula:
            break  # "abc" is a product inside a formula; elsewhere it may be anything
        depth += (token in ("(", "[", "{")) - (token in (")", "]", "}"))
        position, previous = match.end(), kind
        if depth == 0 and kind != "list" and (kind != "operator" or token in ")]}!|"):
            end = position
    return end


def tidy(expression: str) -> str:
    """Strip punctuation around an expression (except dots), and the modulus after it."""
    expression = re.sub(r"\\equiv(?![A-Za-z])", "≡", expression.strip(" \t\n,;"))
    if modulus := re.search(rf"{MODULUS}{_STOPS}$", expression):
        # "3^5 = 1 mod 11" is a congruence too.
        expression = re.sub(r"(?<![<>!:\\])=", "≡", expression[: modulus.start()])
    expression = re.sub(r"^([a-zA-Z]\s*)≡", r"\1=", expression)  # "k ≡ 4 (mod 9)" states k
    return re.sub(rf"{_STOPS}$", "", expression)


def boxes(text: str) -> list[tuple[str, int, int]]:
    """Contents, starts and ends of the last boxes; boxes with unclosed braces are left out."""
    found = []
    # At most twenty, because each search may reach the end of the text.
    for match in list(_BOX.finditer(text))[-20:]:
        end = closing_bracket(text, match.end() - 1)
        if end is not None and (content := text[match.end() : end].strip()):
            found.append((content, match.start(), end + 1))
    return found


def _last_boxed(text: str) -> str | None:
    r"""The content of the last box, or of several in a list: ``\boxed{1}, \boxed{2}``."""
    found = boxes(text)
    contents = [content for content, _, _ in found[-1:]]
    for (content, _, end), (_, start, _) in reversed(list(pairwise(found))):
        if not _BETWEEN_BOXES.fullmatch(text, end, max(start, end)):
            break
        contents.insert(0, content)
    return ", ".join(contents) or None


def closing_bracket(text: str, start: int) -> int | None:
    """Index of the bracket that closes the one at ``start``; None if nothing does."""
    opening, closing = text[start], {"{": "}", "(": ")", "[": "]"}[text[start]]
    depth = 0
    # A character after a backslash, as in "\\}", closes nothing.
    for match in re.finditer(rf"\\.|[{re.escape(opening + closing)}]", text[start:], re.DOTALL):
        depth += (match[0] == opening) - (match[0] == closing)
        if depth == 0:
            return start + match.start()
    return None


def extract_answer(text: str) -> str | None:
    r"""The final answer that a text marks as such.

    This is the content of the last ``\boxed{}`` (or of a list of boxes); else the text after the
    last ``####``; else that after the last "answer is" or "answer:"; else the whole text if it is
    one bare expression or a phrase of up to three words. Otherwise there is none.

    Example:
        >>> extract_answer(r"First 3, then 4: so it is \boxed{12}.")
        '12'
        >>> extract_answer("There are 12 ways to seat 5 guests.") is None
        True
    """
    if boxed := _last_boxed(text):
        return boxed
    text = plain_text(text)
    if "####" in text:
        return text.rpartition("####")[2].strip().partition("\n")[0].strip() or None
    masked, formulas = mask(text)
    marks = [match.end() for match in _ANSWER_IS.finditer(masked)]
    if marks:
        masked = re.split(r"\n|(?<=[.!?;])\s", masked[marks[-1] :])[0]
        masked = re.sub(rf"{_STOPS}$", "", masked)
        end = expression_end(masked, 0)
        rest = masked[end:]
        clear = AFTER.match(rest) or COUNTED.match(rest)
        if end and clear:
            return tidy(unmask(masked[:end], formulas))
    bare = masked if marks else unmask(masked, formulas)
    marked = rf"\\(?:{TEXT}|begin|end)\s*\{{[^{{}}]*\}}|\b(?:and|or)\b"
    prose = _BOX.search(bare) or _PROSE.search(re.sub(marked, "", bare))
    if _PHRASE.fullmatch(bare) or (len(bare) <= 300 and "\n" not in bare and not prose):
        return tidy(unmask(bare, formulas)) or None
    return None


def extract_choice(text: str) -> str | None:
    r"""The letter of the option that a text marks as its answer.

    It is in the last ``\boxed{}``, after the last "answer is" or "answer:", or alone. Its own
    option may follow ("(B) 12"). Two letters are no answer.

    Example:
        >>> extract_choice("The answer is (B) 12 N.")
        'B'
    """
    if (boxed := _last_boxed(text)) is not None:
        match = CHOICE.fullmatch(bare_words(boxed))
        return match[1] if match else None
    text = plain_text(text)
    marks = [match.end() for match in _ANSWER_IS.finditer(text)]
    match = _LETTER_GIVEN.match(text, marks[-1]) if marks else CHOICE.fullmatch(bare_words(text))
    return match[match.lastgroup or 1] if match else None


def is_choice(reference: str) -> bool:
    r"""Whether a reference is the letter of an option: ``B``, ``(B)``, ``\text{(B)}``."""
    return re.fullmatch("[A-J]", bare_words(reference)) is not None


def letter_or_text(text: str, reference: str | None) -> str:
    """The text to compare: the given letter in a box, if the reference is a letter."""
    letter = extract_choice(text) if is_choice(reference or "") else None
    return rf"\boxed{{{letter}}}" if letter else text


def bare_words(text: str) -> str:
    """A text answer without LaTeX's text commands, brackets, article and full stop."""
    text = re.sub(rf"\\(?:{TEXT})\s*\{{([^{{}}]*)\}}", r"\1", text).strip("().$ ")
    return re.sub(r"^(?:[Aa]n?|[Tt]he)\s+(?=[a-zA-Z]{3})", "", text)


def without_percent(answer: str) -> str:
    """An answer in percent without its sign."""
    return re.sub(r"(?<=\d)[\s$}]*(?:\\?%|(?:\\text\s*\{)?\s*percent\}?)[\s$]*$", "", answer)
