"""Find the final answer in a response."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

# --- grading and the pool -------------------------------------------------------------------

_THINK = re.compile(r"</?think>")


def final_part(text: str) -> str | None:
    """What follows the reasoning: behind the last ``</think>``; None where one is not closed."""
    marks = list(_THINK.finditer(text))
    if not marks:
        return text
    return text[marks[-1].end() :] if marks[-1][0] == "</think>" else None


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
NUMBER_WORDS = {
    "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6",
    "seven": "7", "eight": "8", "nine": "9", "ten": "10", "eleven": "11", "twelve": "12",
}  # fmt: skip
TEXT = "text|textbf|textit|textrm|mbox|mathrm|mathbf|mathit|operatorname"
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
    | (?P<word>(?:{"|".join(NUMBER_WORDS)})\b)
    | (?P<product>(?!(?:{_SHORT_WORDS})\b)[a-z]{{2,3}}
        (?![a-zA-Z'_]|-[a-zA-Z]{{4}}|\s+[a-zA-Z]{{2}}))
    | (?P<name>[A-Za-z](?:_(?:\w|\([^()]*\)|\{{[^{{}}]*\}}))?(?![A-Za-z']))
    | (?P<operator>\.\.\.|[-+*/^=!()|\[\]{{}}±≡<>≤≥_])
    )""",
    re.VERBOSE,
)
MODULUS = (
    r"\s*(?:\\pmod\s*(?:\{[^{}]*\}|\w)"
    r"|\(\s*\\?(?:text\{)?mod(?:ulo)?\b\}?[^()]*(?:\([^()]*\)[^()]*)?\)"
    r"|\\?\bmod(?:ulo)?\b\s*(?:[^\s(),]|\([^()]*\))+)"
)


def _plain(text: str) -> str:
    """The text in ASCII mathematics, without bold marks."""
    text = re.sub(r"√\s*(\d+(?:\.\d+)?|[a-zA-Z])", r"sqrt(\1)", text)
    text = re.sub(r"\\!\s*", "", text)  # a negative space, as in 11,\! 111
    return text.translate(_UNICODE).replace("**", "").strip()


def mask(text: str) -> tuple[str, list[str]]:
    """Replace each LaTeX formula by one private-use token, so that what has words is prose."""
    formulas: list[str] = []

    def keep(match: re.Match[str]) -> str:
        formulas.append(next(group for group in match.groups() if group is not None).strip())
        return f"\ue000{len(formulas) - 1}\ue001"

    return _FORMULA.sub(keep, text), formulas


def unmask(text: str, formulas: Sequence[str]) -> str:
    return re.sub(r"\ue000(\d+)\ue001", lambda match: formulas[int(match[1])], text)


def expression_end(text: str, start: int) -> int:
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


def tidy(expression: str) -> str:
    """Strip punctuation around an expression, and the modulus behind it."""
    expression = re.sub(r"\\equiv(?![A-Za-z])|≡", "=", expression.strip(" \t\n,;"))
    return re.sub(rf"(?:{MODULUS})?[\s,.;]*$", "", expression)


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
    masked, formulas = mask(text)
    marks = [match.end() for match in _ANSWER_IS.finditer(masked)]
    if marks:
        masked = re.split(r"\n|(?<=[.!?;])\s", masked[marks[-1] :])[0].rstrip(" .")
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


_LETTER_GIVEN = re.compile(
    rf"(?:(?i:option|choice)\s+)?(?:[$\s]|\\\(|\\(?:{TEXT})\s*\{{)*"
    r"(?:\((?P<closed>[A-J])\)|(?P<open>[A-J])(?=[)}$]*[ \t]*(?:$|[.,:;!\n]|\\|because\b|since\b)))"
    r"(?![)}$]*\s*(?:,|/|or\b|and\b)\s*(?:or\b|and\b)?\s*\(?[A-J]\b)"
)


def extract_choice(text: str) -> str | None:
    r"""The letter of the option that a text marks as its answer.

    It stands in the last ``\boxed{}``, behind the last "answer is" or "answer:", or alone. Its own
    option may follow ("(B) 12"). Two letters are no answer.
    """
    if (boxed := _last_boxed(text)) is not None:
        match = CHOICE.fullmatch(_words(boxed))
        return match[1] if match else None
    text = _plain(text)
    marks = [match.end() for match in _ANSWER_IS.finditer(text)]
    match = _LETTER_GIVEN.match(text, marks[-1]) if marks else CHOICE.fullmatch(_words(text))
    return match[match.lastgroup or 1] if match else None


def is_choice(reference: str) -> bool:
    r"""Whether a reference is the letter of an option: ``B``, ``(B)``, ``\text{(B)}``."""
    return re.fullmatch("[A-J]", _words(reference)) is not None


# What may follow an expression without changing it.
AFTER = re.compile(
    r"\s*(?:[.;:!]?$|,?\s*(?:which|where|when|whenever|achieved|attained|reached|occurring|obtained|"
    r"because|since|as|so|given|assuming|regardless|if|for|with|in|under|over|modulo|mod|among|"
    r"considering|respectively|such (?:that|as)|using|meaning|implying|indicating|"
    r"and (?:it|this)(?: value| minimum| maximum)? (?:is|occurs|happens)|"
    r"(?:or|i\.e\.,?|or equivalently|and)? ?(?:approximately|about|equivalently))\b"
    r"|,? ?\(?mod\b|\((?:or|approximately|which|i\.e\.|when|where|since|for|in|rounded)\b)"
)
# A noun that is counted: "29 strings", "2 of the"; not "3 times as", "n factorial".
COUNTED = re.compile(
    r"\s+(?!(?:times (?:the|as)|such (?:that|as)|for|in|that|when|where|if|with|and|or|is|are|was|"
    r"has|have|the|to|more|less|plus|minus|factorial|squared|cubed|choose|divided|multiplied|raised|"
    r"percent|hundred|thousand|million|billion|trillion|dozen|modulo|mod)\b)[a-zA-Z][a-z-]*"
)
CHOICE = re.compile(r"([A-J])(?:[).:](?:[\s\\].*)?)?", re.DOTALL)


def _words(text: str) -> str:
    """A text answer without LaTeX's text commands, brackets, article and full stop."""
    text = re.sub(rf"\\(?:{TEXT})\s*\{{([^{{}}]*)\}}", r"\1", text).strip("().$ ")
    return re.sub(r"^(?:[Aa]n?|[Tt]he)\s+(?=[a-zA-Z]{3})", "", text)
