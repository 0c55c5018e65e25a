r"""Units behind a value: ``5 m/s``, ``15\text{ cm}^2``, ``30^\circ``, ``4:30 P.M.``."""

from __future__ import annotations

import re

from lalp.grading.answers import COUNTED, TEXT, WORDS, plain_text

LATEX_SIGNS = str.maketrans(WORDS["latex_signs"])
"""Signs of a text as LaTeX, such as ``°``."""
_PERCENT = re.compile(rf"(?<=\d)\s*(?:percent|\\(?:{TEXT})\s*\{{\s*percent\s*\}})$")
DEGREE = r"\^\s*(?:\\circ(?![a-z])|\{\s*\\circ\s*\})"
"""The sign of degrees."""
_WRAPPED = re.compile(rf"\\(?:{TEXT})\s*\{{([^{{}}]*)\}}")
_NAMES = {name: re.compile(rf"(?i)(?:{names})\.?") for name, names in WORDS["units"].items()}
_FACTOR = re.compile(
    r"(?:(?P<before>square|sq\.?|cubic)\s+)?(?P<name>[A-Za-z](?:[a-z]|\.[a-z])*\.?|[A-Z]{2,3})"
    r"(?:\s+(?P<word>squared|cubed)|\s*\^\s*\{?(?P<exponent>[23])\}?)?"
)
_POWERS = {"square": 2, "sq": 2, "sq.": 2, "squared": 2, "cubic": 3, "cubed": 3}
# What a unit may stand behind: a number without unknowns.
_VALUE = re.compile(
    r"(?:[-+\d.,:/{}()\s]|\\(?:[dt]?frac|pi|sqrt)(?![a-zA-Z])|\\[,;! ])*[\d})i](?!\w)\s*"
)
# What is counted, in up to four words: "31 red marbles", "6\text{ different ways}".
_NOUN = re.compile(r"\s*[a-zA-Z][a-z-]{2,}(?:\s+[a-zA-Z][a-z-]+){0,3}[.\s]*")
_VERBS = re.compile(WORDS["no_noun"])


def split_unit(text: str) -> tuple[str, str | None]:
    r"""A value, and the unit that is stated with it in one spelling, or ``of`` and what it counts.

    Example:
        >>> split_unit(r"5 \text{ meters per second}"), split_unit("5 m/s"), split_unit("2m")
        (('5', 'm/second'), ('5', 'm/second'), ('2m', None))
        >>> split_unit("31 red marbles")
        ('31', 'of red marble')
    """
    clean = plain_text(text).translate(LATEX_SIGNS).replace("^^", "^").strip(" .$")
    if clean.startswith(r"\$"):
        return clean[2:], "dollar"
    value = _VALUE.match(clean)
    if not value:
        return text, None
    stated = clean[value.end() :]
    unit, words = _canonical(stated), _WRAPPED.sub(r" \1 ", stated).strip(" .")
    if unit is None and _is_counted(words):
        unit = "of " + " ".join(word.removesuffix("s") for word in words.casefold().split())
    # "2m" may be twice an unknown.
    if unit is None or (len(stated.strip()) == 1 and not _WRAPPED.match(stated)):
        return text, None
    return clean[: value.end()].strip(), unit


def same_unit(unit: str, other: str) -> bool:
    """Whether two units of `split_unit` may stand for each other: counted things share a word."""
    if unit.startswith("of ") and other.startswith("of "):
        return not set(unit[3:].split()).isdisjoint(other[3:].split())
    return unit == other


def without_unit(text: str) -> str:
    r"""A value without its unit, or without what it counts: ``36 dollars``, ``9 mice``."""
    text = re.sub(_PERCENT, r"\\%", text)
    if number := re.fullmatch(rf"(.*\S)\s*{DEGREE}", text):
        # Of "\sin 30^\circ" the degree belongs to the angle.
        return number[1] if _VALUE.fullmatch(number[1]) else text
    if wrapped := re.fullmatch(
        rf"(.*[^\s({{])\s*(\\(?:{TEXT})\s*\{{[^{{}}]*\}}\s*(?:\^\s*(?:[23]|\{{[23]\}}))?)", text
    ):
        content = _WRAPPED.sub(r"\1", wrapped[2])
        return wrapped[1] if _canonical(wrapped[2]) or _is_counted(content) else text
    match = re.match(r"(.*(?:\d|\}|\\pi))(?=\s)", text)
    if not match:
        return text
    noun = text[match.end() :]
    known = _canonical(noun) and len(noun.strip()) > 1
    is_number = re.fullmatch(r"[-+]?[\d.,/]*\d", match[1].strip()) is not None
    return match[1] if known or (is_number and _is_counted(noun)) else text


def _is_counted(noun: str) -> bool:
    """Whether words behind a number say what it counts, rather than something about it."""
    words = " " + noun.strip()
    return bool(
        COUNTED.match(words) and _NOUN.fullmatch(noun) and not _VERBS.search(noun.casefold())
    )


def _canonical(stated: str) -> str | None:
    """A unit in one spelling, ``kg*m/second2``; None if it holds one that is not known."""
    if re.fullmatch(rf"\s*{DEGREE}\s*", stated):
        return "degree"
    text = re.sub(r"\\[,;! ]|~", " ", _WRAPPED.sub(r" \1 ", stated)).strip(" $")
    if half := re.fullmatch(r"(?i)([ap])\.?\s?m\.?", text):
        return half[1].casefold() + "m"
    sides = []
    for side in re.split(r"/|\bper\b", text):
        factors = [_factor(part.strip()) for part in re.split(r"\\cdot|\*|(?<=\w)-(?=\w)", side)]
        if None in factors:
            return None
        sides.append("*".join(sorted(filter(None, factors))))
    return "/".join([sides[0], *sorted(sides[1:])])


def _factor(text: str) -> str | None:
    match = _FACTOR.fullmatch(text)
    name = match and next(
        (n for n, known in _NAMES.items() if known.fullmatch(match["name"])), None
    )
    if name is None:
        return None
    power = match["exponent"] or _POWERS.get(match["before"] or match["word"], "")
    return WORDS["unit_quotients"].get(name, name) + str(power)
