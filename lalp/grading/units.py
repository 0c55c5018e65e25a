r"""Units after a value: ``5 m/s``, ``15\text{ cm}^2``, ``30^\circ``, ``4:30 P.M.``."""

from __future__ import annotations

import re

from lalp.grading.answers import COUNTED, TEXT, WORDS, plain_text

LATEX_SIGNS = str.maketrans(WORDS["latex_signs"])
"""Signs of a text as LaTeX, such as ``°``."""
_PERCENT = re.compile(rf"(?<=\d)\s*(?:percent|\\(?:{TEXT})\s*\{{\s*percent\s*\}})$")
DEGREE = r"\^\s*(?:\\circ(?![a-z])|\{\s*\\circ\s*\})"
"""The sign of degrees."""
_TEMPERATURE = re.compile(rf"(?:{DEGREE}\s*|\s*degrees?\s+)(C|F|(?i:celsius|fahrenheit))\s*")
_SCALES = {"c": "celsius", "f": "fahrenheit"}
_WRAPPED = re.compile(rf"\\(?:{TEXT})\s*\{{([^{{}}]*)\}}")
# Whole words in any case; in shorter units case counts: mg is not Mg.
_NAMES = {name: re.compile(rf"(?:{names})\.?") for name, names in WORDS["units"].items()}
_FACTOR = re.compile(
    r"(?:(?P<before>square|sq\.?|cubic)\s+)?(?P<name>[A-Za-z](?:[A-Za-z]|\.[a-z])*\.?)"
    r"(?:\s+(?P<word>squared|cubed)|\s*\^\s*\{?(?P<exponent>[23])\}?)?"
)
_POWERS = {"square": 2, "sq": 2, "sq.": 2, "squared": 2, "cubic": 3, "cubed": 3}
# A number without unknowns; a unit after it needs no mark.
_VALUE = re.compile(
    r"(?:[-+\d.,:/{}()\s]|\\(?:[dt]?frac|pi|sqrt)(?![a-zA-Z])|\\[,;! ])*[\d})i](?!\w)\s*"
)
# Units that are products of unknowns after a formula: "\frac{1}{2} mg".
_PRODUCTS = frozenset(WORDS["units_like_products"].split("|"))
# The counted things, in up to four words: "31 red marbles", "6\text{ different ways}".
_NOUN = re.compile(r"\s*[a-zA-Z][a-z-]{2,}(?:\s+[a-zA-Z][a-z-]+){0,3}[.\s]*")
_VERBS = re.compile(rf"\b(?:{WORDS['no_noun']})\b")
_DOLLARS = re.compile(r"\\\$\s*(\d[\d.,]*\d|\d|\.\d+)")


def split_unit(text: str) -> tuple[str, str | None]:
    r"""A value and its unit in one spelling, or ``of`` and the things it counts.

    Example:
        >>> split_unit(r"5 \text{ meters per second}"), split_unit("5 m/s"), split_unit("2m")
        (('5', 'm/second'), ('5', 'm/second'), ('2m', None))
        >>> split_unit(r"6x \text{ cm}"), split_unit("31 red marbles")
        (('6x', 'cm'), ('31', 'of red marbles'))
    """
    clean = with_dollars(plain_text(text).translate(LATEX_SIGNS).replace("^^", "^").strip(" $"))
    if _PERCENT.search(clean):
        return re.sub(_PERCENT, r"\\%", clean), None
    for start in _ends_of_values(clean):
        value, stated = clean[:start].strip(), clean[start:]
        if not value or (re.match(rf"\s*{DEGREE}", stated) and not _VALUE.fullmatch(value)):
            continue  # in "\sin 30^\circ" the degree belongs to the angle
        unit = _canonical(stated)
        bare = _WRAPPED.match(stated.strip()) is None
        # "2m" may be twice an unknown.
        product = bare and (len(stated.strip()) == 1 or ("\\" in value and unit in _PRODUCTS))
        if unit is not None and not product:
            return value, unit
        words = _WRAPPED.sub(r" \1 ", stated).strip(" .")
        if _is_counted(words) and (not bare or _VALUE.fullmatch(value)):
            return value, f"of {words.casefold()}"
    return text, None


def with_dollars(text: str) -> str:
    r"""``\$5`` as ``5\text{ dollars}``."""
    return _DOLLARS.sub(r"\1\\text{ dollars}", text)


def same_unit(unit: str, other: str) -> bool:
    """Whether two units of `split_unit` may replace each other: neither says more than the other.

    Example:
        >>> same_unit("of red marbles", "of marbles"), same_unit("of red hats", "of blue hats")
        (True, False)
    """
    words, others = _unit_words(unit), _unit_words(other)
    # A known unit may have an addition "of water"; "nautical miles" are not miles.
    if unit.startswith("of ") != other.startswith("of "):
        return words[:1] == others[:1]
    return set(words) <= set(others) or set(others) <= set(words)


def without_unit(text: str) -> str:
    r"""A value without its unit, or without the things it counts: ``36 dollars``, ``9 mice``."""
    return split_unit(text)[0]


def _unit_words(unit: str) -> list[str]:
    if not unit.startswith("of "):
        return [unit]
    words = [word for word in unit.split() if word not in ("of", "the")]
    return [_factor(word) or word.removesuffix("s") for word in words]


def _ends_of_values(text: str) -> list[int]:
    """Where a value may end and its unit begin: at a text or a degree, after a number."""
    wrapped = [match.start() for match in re.finditer(rf"\\(?:{TEXT})\s*\{{", text)]
    degrees = [match.start() for match in re.finditer(DEGREE, text)]
    number = _VALUE.match(text)
    spaced = re.search(r"(?:\d|\}|\\pi)(?=\s+[a-zA-Z][a-zA-Z/ ^\d.-]*$)", text)
    ends = {*wrapped[:1], *wrapped[-3:], *degrees[-1:]}
    ends |= {found.end() for found in (number, spaced) if found}
    return sorted(end for end in ends if end < len(text))


def _is_counted(noun: str) -> bool:
    """Whether the words after a number are the things it counts, not a remark about it."""
    words = " " + noun.strip()
    return bool(
        COUNTED.match(words) and _NOUN.fullmatch(noun) and not _VERBS.search(noun.casefold())
    )


def _canonical(stated: str) -> str | None:
    """A unit in one spelling, ``kg*m/second2``; None if it holds an unknown one."""
    if re.fullmatch(rf"\s*{DEGREE}\s*", stated):
        return "degree"
    text = re.sub(r"\\[,;! ]|~", " ", _WRAPPED.sub(r" \1 ", stated)).strip(" $")
    if half := re.fullmatch(r"(?i)([ap])\.?\s?m\.?", text):
        return half[1].casefold() + "m"
    if scale := _TEMPERATURE.fullmatch(text):
        return _SCALES[scale[1][0].casefold()]
    sides = []
    for side in re.split(r"/|\bper\b", text):
        factors = [_factor(part.strip()) for part in re.split(r"\\cdot|\*|(?<=\w)-(?=\w)", side)]
        if None in factors:
            return None
        sides.append("*".join(sorted(filter(None, factors))))
    return "/".join([sides[0], *sorted(sides[1:])])


def _factor(text: str) -> str | None:
    match = _FACTOR.fullmatch(text)
    if match is None:
        return None
    stated = match["name"]
    stated = stated.casefold() if len(stated.rstrip(".")) > 3 else stated
    name = next((name for name, known in _NAMES.items() if known.fullmatch(stated)), None)
    if name is None:
        return None
    power = match["exponent"] or _POWERS.get(match["before"] or match["word"], "")
    return WORDS["unit_quotients"].get(name, name) + str(power)
