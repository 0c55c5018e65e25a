"""Find in the original text where a language model's steps begin."""

from __future__ import annotations

import json
import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from difflib import SequenceMatcher
from itertools import groupby, pairwise
from typing import Any

from lalp.steps.sentences import Span, cut_at, split_sentences

# If less of the text than this is found again in the answer, its boundaries are not trusted.
MIN_COVERAGE = 0.8

# Letters and digits are separate, so "2x" and "2 x" are the same words; each ideograph is one.
_IDEOGRAPH = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_IDEOGRAPH}]|\d+|[^\W\d_{_IDEOGRAPH}]+")
_FENCE = re.compile(r"```\w*\s*\n(.*?)(?:```|\Z)", re.DOTALL)
_OPENING = re.compile(r"\{\s*[\"'}]|\[\s*[\"'{\[\]]")
# For broken JSON. A quote ends a string only if JSON continues after it, or at the text's end.
_TOKEN = re.compile(
    r'"(?P<name>[^"\\]*)"\s*:|"(?P<string>(?:\\.|[^\\])*?)"(?=\s*(?:,?\s*(?:["\[\]{}]|\Z)))'
    r'|"(?P<rest>.*)\Z|(?P<open>[\[{])|(?P<close>[\]}])',
    re.DOTALL,
)
# A backslash that JSON does not know, or one of LaTeX that JSON reads as a control character:
# "\frac" holds no form feed.
_LATEX_BACKSLASH = re.compile(r'\\(?:(["\\/n]|u[0-9a-fA-F]{4}|[bfrt](?![a-zA-Z]))|)')
_GAP = re.compile(r"\s+")
_LINE_GAP = re.compile(r"\s*\n\s*")
# Text that begins inside a JSON string: its first quote ends a string.
_WITHIN_STRING = re.compile(r'(?:\\.|[^"\\])*+"\s*(?:[,\]}]|\Z)', re.DOTALL)
_CLOSING_THINK = re.compile(r"</think(?:ing)?>")
# An answer that drops this many words at a sentence's start still means its start.
_FEW_WORDS = 3
# Number of words in a phrase that anchors an alignment if both texts hold it once.
_PHRASE = 4
# Pairs of equal words between two anchors. With more (the same few words over and over, and no
# phrase that occurs once), nothing is aligned there, because it would take minutes.
_MAX_PAIRS = 1_000_000


def split_by_answer(text: str, answer: str, cut_off: bool = False) -> tuple[list[Span], str | None]:
    """Steps of ``text`` from a model's answer, which is JSON or nearly JSON.

    If the answer is useless, the steps are sentences, and the reason is given. ``cut_off`` says
    that the server stopped the answer at its length limit. The spans partition ``text``.
    """
    words = _words(text)
    shares = []
    for pieces in _readings(answer):
        found = _align(words, pieces)
        shares.append(sum(place >= 0 for place, _ in found) / max(1, len(words)))
        if shares[-1] >= MIN_COVERAGE:
            return cut_at(text, _boundaries(text, words, found)), None
    coverage = max(shares, default=0.0)
    why = "the answer holds no steps" if answer.strip() else "the answer is empty"
    if cut_off:
        why = f"the answer was cut off at the length limit ({coverage:.0%} of the words)"
    elif shares:
        why = f"too little of the text is found in the answer ({coverage:.0%} of the words)"
    return split_sentences(text), why


class _Pairs(list):
    """A JSON object as (name, value) pairs: a dict would lose one of two groups of one name."""


_DECODER = json.JSONDecoder(object_pairs_hook=_Pairs, strict=False)


def _readings(answer: str) -> Iterator[list[str]]:
    """Lists of steps that the answer may mean, most literal first."""
    body = _without_thought(answer)
    for part in [*_FENCE.findall(body), body]:
        repaired = _LATEX_BACKSLASH.sub(lambda match: match[0] if match[1] else r"\\", part)
        openings = [match.start() for match in _OPENING.finditer(repaired)]
        longest, value = 0, None
        # Prose around the answer may also hold a small list. Fifty tries keep hostile texts cheap.
        for place in openings[:50]:
            with suppress(ValueError, RecursionError):
                whole, end = _DECODER.raw_decode(repaired, place)
                if end - place > longest:
                    longest, value = end - place, whole
        if longest:
            yield _pieces(value)
        if openings:
            yield _pieces(_lenient(repaired[openings[0] :]))


def _without_thought(answer: str) -> str:
    """The text after the answer's own thought; a tag in a JSON string belongs to the solution."""
    begins_with_json = answer.lstrip().startswith(("{", "[", "`"))
    # The last fifty tags are enough, and keep hostile answers cheap.
    for tag in reversed(list(_CLOSING_THINK.finditer(answer))[-50:]):
        body = answer[tag.end() :]
        if _WITHIN_STRING.match(body):
            continue
        # After a thought, an answer may have no steps: a draft inside the thought is no answer. But
        # if quotes are not escaped, or the answer is cut off, this may still be a JSON string.
        if _OPENING.search(body) or not (begins_with_json or '"' in body):
            return body
    return answer


def _lenient(text: str) -> Any:
    """The readable part of broken JSON: cut off, commas missing, quotes not escaped."""
    root: list[Any] = []
    open_values, name = [root], ""
    for match in _TOKEN.finditer(text):
        if match["close"]:
            del open_values[max(1, len(open_values) - 1) :]
        elif match["name"] is not None:
            name = match["name"]
        else:
            value: Any = match["string"] or match["rest"] or ""
            if match["open"]:
                value = _Pairs() if match["open"] == "{" else []
            parent = open_values[-1]
            parent.append((name, value) if isinstance(parent, _Pairs) else value)
            name = ""
            if match["open"]:
                open_values.append(value)
    return root[0] if root else None


def _pieces(value: Any) -> list[str]:
    """Each step's text: the entries inside wrappers such as ``{"steps": ...}``."""
    entries = _entries(value := _decoded(value))
    named = [pair for pair in entries if pair[0].lower() == "steps" and isinstance(pair[1], list)]
    if len(named) == 1:
        value, entries = named[0][1], _entries(named[0][1])
    while len(inner := [pair for pair in entries if isinstance(pair[1], list)]) == 1:
        name, entry = inner[0]
        if isinstance(value, _Pairs):
            wraps = not name[-1:].isdigit()  # "group1" is itself a step
        else:
            wraps = len(entries) == 1 and isinstance(entry, _Pairs)
        if not wraps:
            break
        value, entries = entry, _entries(entry)
    return [" ".join(_strings(entry)) for _, entry in entries]


def _decoded(value: Any) -> Any:
    """The value that another one holds as JSON text, alone or in wrappers."""
    inner = value
    while isinstance(inner, list) and len(entries := _entries(inner)) == 1:
        inner = entries[0][1]
    if not (isinstance(inner, str) and _OPENING.match(inner.lstrip())):
        return value
    with suppress(ValueError, RecursionError):
        return _decoded(_DECODER.decode(inner.strip()))
    return value


def _entries(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, _Pairs):
        return value
    return [("", entry) for entry in value] if isinstance(value, list) else [("", value)]


def _strings(value: Any) -> Iterator[str]:
    """All texts inside, in order; field names are not part of the solution."""
    waiting = [value]  # hostile answers would make a recursion too deep
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            waiting += [entry for _, entry in reversed(_entries(value))]


# A word in lower case, with its place in the text.
_Word = tuple[str, int, int]


def _words(text: str) -> list[_Word]:
    return [(match.group().casefold(), *match.span()) for match in _WORD.finditer(text)]


def _align(words: Sequence[_Word], pieces: Sequence[str]) -> list[tuple[int, int]]:
    """For each word of the pieces: its word in the text (-1 = none), and its piece."""
    told = [(word, i) for i, piece in enumerate(pieces) for word, _, _ in _words(piece)]
    a, b = [word for word, _, _ in words], [word for word, _ in told]
    places = [-1] * len(told)
    cuts = [(0, 0), *_anchors(a, b), (len(a), len(b))]
    for (i, j), (i_end, j_end) in pairwise(cuts):
        for start, start_told, size in _blocks(a[i:i_end], b[j:j_end]):
            places[j + start_told : j + start_told + size] = range(i + start, i + start + size)
    return [(place, piece) for place, (_, piece) in zip(places, told, strict=True)]


def _anchors(a: Sequence[str], b: Sequence[str]) -> list[tuple[int, int]]:
    """Places of phrases that both texts hold once: the most in the same order (patience diff)."""
    places = _single_phrases(b)
    pairs = [(i, places[phrase]) for phrase, i in _single_phrases(a).items() if phrase in places]
    # The longest increasing subsequence: chains[n] is the chain of n + 1 pairs that ends earliest,
    # at ends[n]. It is linked backwards, so chains share their beginnings.
    ends: list[int] = []
    chains: list[tuple] = []
    for i, j in pairs:
        n = bisect_left(ends, j)
        ends[n : n + 1] = [j]
        chains[n : n + 1] = [((i, j), chains[n - 1] if n else None)]
    anchors, link = [], chains[-1] if chains else None
    while link:
        anchor, link = link
        anchors.append(anchor)
    return anchors[::-1]


def _single_phrases(words: Sequence[str]) -> dict[tuple[str, ...], int]:
    """Phrases of a few words that occur once, and their places."""
    phrases = list(zip(*(words[k:] for k in range(_PHRASE)), strict=False))
    counts = Counter(phrases)
    return {phrase: i for i, phrase in enumerate(phrases) if counts[phrase] == 1}


def _blocks(a: Sequence[str], b: Sequence[str]) -> Iterator[tuple[int, int, int]]:
    """Matching runs of words between two anchors: (start in a, start in b, length)."""
    shorter = min(len(a), len(b))
    head = next((i for i in range(shorter) if a[i] != b[i]), shorter)
    left = shorter - head
    tail = next((i for i in range(left) if a[-1 - i] != b[-1 - i]), left)
    yield 0, 0, head
    a_left, b_left = a[head : len(a) - tail], b[head : len(b) - tail]
    counts = Counter(a_left)
    if sum(counts[word] for word in b_left) <= _MAX_PAIRS:
        matcher = SequenceMatcher(None, a_left, b_left, autojunk=False)
        for i, j, size in matcher.get_matching_blocks():
            # A single word between strangers is chance.
            if size > 1:
                yield head + i, head + j, size
    yield len(a) - tail, len(b) - tail, tail


def _boundaries(text: str, words: Sequence[_Word], found: Sequence[tuple[int, int]]) -> list[int]:
    """Where steps begin in ``text``: at the first word of each piece that was found again.

    Text that the answer leaves out stays with the step before it. If a piece's first words are not
    in the text, it gets as many words before its first word that was found.
    """
    sentences = [start for start, _ in split_sentences(text)]
    starts = []
    before = -1  # the last word that was found
    for _, piece in groupby(found, key=lambda word: word[1]):
        places = [place for place, _ in piece]
        known = [place for place in places if place >= 0]
        if known and before >= 0:
            first = max(before + 1, known[0] - places.index(known[0]))
            starts.append(
                _locate(text, words[before:], first - before, known[0] - before, sentences)
            )
        before = known[-1] if known else before
    return starts


def _locate(
    text: str, words: Sequence[_Word], first: int, found: int, sentences: Sequence[int]
) -> int:
    """Where in ``text`` a step begins.

    Number 0 of its ``words`` is the last one that surely belongs to the step before, number
    ``found`` the first one that surely belongs to the step, which seems to begin with ``first``.
    """
    # Sentences respect formulas and headings, so a sentence that begins here or a few words away is
    # preferred; then a line, then any white space.
    wanted = words[first][1]
    low, high = bisect_left(sentences, words[0][2]), bisect_right(sentences, words[found][1])
    if low < high:
        nearest = min(sentences[low:high], key=lambda start: abs(start - wanted))
        between = sum(nearest <= start < wanted for _, start, _ in words[1:first])
        if first < found or between <= _FEW_WORDS:
            return nearest
    gap = words[first - 1][2]
    space = _LINE_GAP.search(text, gap, wanted) or _GAP.search(text, gap, wanted)
    return space.end() if space else wanted
