"""Read the answer that a CHAMP solution's closing sentence states."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial

from lalp.files import read_data
from lalp.grading import answers

_LONGEST_SENTENCE = 3000  # characters; longer text is no sentence, and reading takes quadratic time

# Lists of words and phrases, each as one regular expression.
_ANY = {name: "|".join(each) for name, each in read_data("paper/champ/sentences.yaml").items()}
_FILLER = re.compile(
    rf"\s*(?:{_ANY['filler']}|the (?:following )?(?:{_ANY['filler_noun']})s?)(?=[\s\ue000(:]|$)"
)
_APPROXIMATELY = re.compile(r"\s*(?:approximately|about|around|roughly)\b")
_BOUND = re.compile(rf"(?i)\s*(?:{_ANY['bound']})\b")
_VERB = re.compile(rf"\b(?:{_ANY['verb']})(?=[\s:\ue000])")
_NOT_MAIN = re.compile(rf"(?:{_ANY['not_main']})$")
_CLAUSE = re.compile(r"\b(?:when|whenever|where|if|unless|such that|so that|for which|in which)\b")
_REASON = re.compile(r",? (?:because|since|due to)\b|, as (?:it|the|this|any|each|both)\b")
_CASES = re.compile(_ANY["cases"])
_HOW_MANY = re.compile(r"(?i)\bhow (?:many|often)\b|\bnumber of\b")
_THERE = re.compile(rf"(?i)(?:{_ANY['begin']})(?:{_ANY['there']})")
_THERE_IS_NO = re.compile(rf"(?i){_ANY['there_is_no']}")
_HAS = re.compile(rf"(?i)\b(?:{_ANY['has']})(?=\s)")
_HAS_NO = re.compile(r"(?i)\b(?:has|have|contains?) no\b")
_NEGATED = re.compile(r"(?i)\b(?:not|no|never|false|none|fails?)\b|n't")
_EXCEPT = re.compile(r"(?i)\b(?:except|other than|besides|apart from|only if|unless|but)\b")
_ALL_OF = re.compile(r"(?i)\b(?:all|each|every)\b(?: of)?(?: the)?(?: first)?(?: (\d+) (?!n\b))?")
_RANGE = re.compile(r"\{(\d+),[^{}]*\.\.\.,?\s*(\d+)\s*\}|\bfrom (\d+) to (\d+)\b")


def extract_from_sentence(sentence: str, question: str = "") -> str | None:
    """The answer that one English sentence states, if it states exactly one.

    It is what follows the main verb ("The smallest value of ... is **1/9**, which is achieved when
    ..."), if it is an expression that the words after it do not change. If two readings disagree,
    there is no answer. Reasons ("because ...") are not read. "There are 29 strings", "has no
    roots", "At least one of" and "in 12 ways" state an answer only if the question asks for a
    number of things. "0 modulo 7" does so only if the question asks for that modulus.
    """
    if boxed := list(dict.fromkeys(content for content, _, _ in answers.boxes(sentence))):
        return ", ".join(boxed)
    if len(sentence) > _LONGEST_SENTENCE:
        return None
    masked, formulas = answers.mask(answers.plain_text(sentence).rstrip(" ."))
    reason = _REASON.search(masked)
    if reason and reason.start() > 0:
        masked = masked[: reason.start()]
    for bound in ("at_least", "at_most"):
        if not re.search(rf"(?i)\b(?:{_ANY[f'{bound}_asked']})\b", question):
            masked = re.sub(rf"(?i)\b(?:{_ANY[bound]})\b", "~", masked)
    counts = bool(_HOW_MANY.search(question))
    readers = [_read_verb, _read_equation]
    if counts:
        readers = [_read_there, _read_verb, _read_has, _read_all, _read_equation]
    for read in readers:
        spans = [answers.unmask(span, formulas) for span in read(masked, formulas, counts)]
        if spans:
            stated = {answers.tidy(span) for span in spans}
            if len(stated) > 1 or not all(_mentions(question, span) for span in spans):
                return None
            # "x = 3" answers the question "which", not "how many".
            answer = stated.pop()
            return None if counts and re.match(r"[a-z]\s*=\s*-?\d", answer) else answer
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
            values = _value_after(masked, verb.end(), counts, answers.AFTER, answers.COUNTED)
            found[before.endswith(("which", "that"))] += values
        if verb[0] in ("is", "are") and not _CLAUSE.search(before):
            predicate = min(predicate, verb.end())
    yield from found[False] or found[True]


def _read_number(
    none: re.Pattern[str], some: re.Pattern[str], masked: str, _: Sequence[str], counts: bool
) -> Iterator[str]:
    """The number of things after ``some``, or 0 if the sentence says ``none``."""
    if none.search(masked) and not _EXCEPT.search(masked):
        yield "0"
    for match in some.finditer(masked):
        yield from _value_after(masked, match.end(), counts, answers.COUNTED)


# "There are 29 strings", "At most one of the", "None of the".
_read_there = partial(_read_number, _THERE_IS_NO, _THERE)
# "has two solutions", "has no roots", "in 12 ways".
_read_has = partial(_read_number, _HAS_NO, _HAS)


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
    end = answers.expression_end(masked, start)
    if end > start and (modulus := re.match(answers.MODULUS, masked[end:])):
        end += modulus.end()
    span, rest = masked[start:end].strip(), masked[end:]
    if approximate and not re.fullmatch(r"[\d.,]+\s?%?|\ue000\d+\ue001", span):
        return
    following = [pattern for pattern in after if pattern.match(rest)]
    article = following == [answers.COUNTED] and (not counts or span in ("a", "A", "I"))
    if span and following and not article and not _CASES.search(rest):
        yield answers.NUMBER_WORDS.get(span, span)


def _read_all(masked: str, formulas: Sequence[str], counts: bool) -> Iterator[str]:
    """How many "all" are: "for all n in {1, ..., 100}", "all 100 terms"."""
    every = _ALL_OF.search(masked)
    if not every or _NEGATED.search(masked) or _EXCEPT.search(masked):
        return
    text = re.sub(r"\\[lc]?dots", "...", answers.unmask(masked, formulas)).replace("\\", "")
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
        end = answers.expression_end(masked, start.end())
        span, rest = masked[start.end() : end], masked[end:]
        last = re.match(r"\s*(?:$|for (?:all|any|even|odd))", rest)
        first = start.end() == 0 and answers.AFTER.match(rest)
        modulus = re.match(answers.MODULUS, rest)
        if re.search(r"=|≡|\\equiv", answers.unmask(span, formulas)) and (last or first):
            yield span + (modulus[0] if modulus else "")
