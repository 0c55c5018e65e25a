r"""Lossless splitters: a response becomes steps, each a span of its original text.

For any string, the spans of a text partition it exactly: the first begins at 0, each begins where
the one before it ends, the last ends at ``len(text)``, and none is empty. A step begins at its
first character that is not white space; the white space after a step belongs to that step, and
leading white space belongs to the first one.

Where a person could choose differently, ``sentences`` does this:

- **Display math** (``$$..$$``, ``\[..\]``, an environment) stays with an unfinished sentence before
  it, even across a blank line, and with a lower-case continuation after it ("We have \[..\] where
  ..."). After a full stop, a colon or another display it begins its own step.
- **Equations in plain text**, each on its own line, are steps by the same rule, so notation alone
  changes little. But a blank line before them always ends a step.
- **Headings** and lines wholly in bold stay with the text after them; so do list markers, "Step
  3.", ``<think>`` and bare connectives on a line of their own ("Then:"). They infer nothing, yet as
  steps they would weigh as much as a derivation.
- **Rules, closing tags and end-of-proof signs** (``---``, ``</think>``, "Q.E.D.") stay with the
  text before them.
- **Environments of prose** (proof, itemize, ...) are split like any other text; their ``\item``
  begins a step.
- **Code blocks** (fenced, verbatim, or diagrams in ``[asy]``) are separate steps. An unclosed block
  ends before the first line of prose.
- **Rows of tables** are never split.
- **A full stop before a lower-case word** ends a sentence unless it is a known abbreviation: in
  solutions, sentences often begin with a variable.
- **Other scripts**: their own full stops and question marks end sentences, with or without a space
  after them, but not between two digits. So do ``?`` and ``!`` after a letter of Chinese or
  Japanese. After a number, ``！`` ends a sentence if the next words can open one; ``5！种`` is a
  factorial. An ASCII ``!`` does so only before words such as 所以.

`regions` finds the parts that must not be split; the lines or words beside each boundary then
decide it. So the work is linear in the length of the text, except for sorting and binary searches.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from lalp.errors import InputError, did_you_mean
from lalp.steps.regions import (
    LINE_BREAK,
    SPACE,
    WORDS,
    Gap,
    Region,
    find_gaps,
    merge_regions,
    protected_regions,
    region_at,
    would_cut,
)

Span = tuple[int, int]

# Where sentences end. The full stops of Arabic, Hindi, Armenian, Ethiopic, Burmese and Khmer end
# only sentences; like the wide ones of Chinese and Japanese, they need no space after them.
_WIDE_TERMINATORS = "。！？｡．"
_FULL_STOPS = "؟۔।॥։።፧။។៕"
_QUESTION_MARKS = frozenset("?" + _FULL_STOPS)
_TERMINATOR = re.compile(rf"[.!?…{_FULL_STOPS}]+|[{_WIDE_TERMINATORS}]+")
# Marks of the writing direction are invisible.
_CLOSERS = re.compile(r"(?:[\"'”’»›)\]}*_`」』）】》〉\u200e\u200f]|</\w+>)*")
_IDEOGRAPH = re.compile(r"[\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
# Letters without case, with their marks: those of Hebrew, Arabic, India, Southeast Asia, Georgia,
# Ethiopia and Korea. None is a factorial's operand.
_UNCASED = re.compile(
    rf"{_IDEOGRAPH.pattern}|[\u0591-\u109f\u10d0-\u10ff\u1100-\u137f\u1780-\u17d3\uac00-\ud7a3]"
)
_WIDE_OPENING = re.compile(r"[“‘「『《【$\\]|[^\W_]")
_WIDE_OPENER, _AFTER_FACTORIAL = (
    re.compile("|".join(sorted(WORDS[name]))) for name in ("wide_openers", "after_factorial")
)
_IN_ADDRESS = re.compile(r"\w://[^\s，。；、！？（）「」『』《》]*$")
# In Japanese, words after a quotation say who said it: 「はい。」と答えた。
_AFTER_QUOTATION = re.compile(r"と(?!ても|ころ|にかく|りあえず)|って|という|など")
_CLOSING_BRACKETS = frozenset("\"'”’»)]}")
_MATH_CLOSERS = re.compile(r"(?:\$|\\\)|\\\]|\}|\\end\{[^{}\s]{1,40}\}|\s)*+$")
_OPENING = re.compile(r"[*_\"'“‘«(\[`<]*")
_NO_SENTENCE_START = re.compile(r"[=>+/^&,;:)\]}×·÷≤≥≠≈≡→⇒⇔，、；：）」』】]|[-–—*<|]\s")
_LAST_WORD = re.compile(r"[^\s()\[\]{}\"'“”‘’*_$\\,;:~—–/|=+<>]*$")
_LAST_LETTERS = re.compile(r"[^\W\d_]*$")
_DOTTED = re.compile(r"(?:[^\W\d_]\.)+[^\W\d_]$")
_NAME = re.compile(r"\s*([A-Z]\.|[A-Z][\w'’-]+)")
_BEFORE_INITIAL = re.compile(
    r"(?:^|[A-Z]\.\s*|\w\w[.!?]\s+|[(\[&]\s*|\b(?:[A-Z][a-z]+|by|see|due to)\s+)$"
)
_NUMBER_OR_LABEL = re.compile(r"[\d(\[$\\#]|[A-Z]\b|[IVX]+\b")
# In "Steps: 1. Do x." the number opens a list; in "the answer is: 1. Then" it ends a sentence.
_OPENS_LIST = re.compile(r"(?<!\bis)(?<!\bare):\s+\(?[1aAiI]$")
_CLOSING_THINK = re.compile(r"</think(?:ing)?>\s*")

# Lines and fragments.
_LABELS, _WIDE_LABELS, _CONNECTIVES, _PROMISING = (
    "|".join(sorted(WORDS[name])) for name in ("labels", "wide_labels", "connectives", "promising")
)
_ENUMERATOR = r"[(（]?(?:\d{1,3}(?:[-–]\d{1,3})?|[ivx]{1,5}|[IVX]{1,5}|[A-Za-z])(?:\\?\.|[)）．।۔])"
_LIST_ITEM = re.compile(
    rf"[•‣◦▪●○]|\\item\b|\d{{1,3}}[．、]|(?:[-*–—]|[*_]*{_ENUMERATOR}[*_]*)(?=\s|$)"
)
_HEADING = re.compile(r"#{1,6}\s|\\(?:sub)*(?:section|paragraph)\*?\{[^{}]*\}$")
_BOLD_LINE = re.compile(r"(?:\*\*(?!\s)[^*]+\*\*|__(?!\s)[^_]+__):?$")
_LABEL = rf"(?:(?:Sub)?[Cc]ase|(?:Final )?[Aa]nswer|{_LABELS})(?![^\W_])"
_BOLD_LABEL = re.compile(rf"[*_]+{_LABEL}")
_DECORATION = r"(?:[-*_#>•‣◦▪●○–—\s]|<\w+>|\\item\b|\\begin\{[^{}]*\}|\\[(\[])*+"
_MARKER = re.compile(
    rf"{_DECORATION}(?:{_ENUMERATOR}{_DECORATION})*+"
    rf"(?:{_LABEL}(?:\s+(?:\d+(?:\.\d+)*|[IVX]+|[ivx]+|[A-Za-z])(?![^\W_]))?[.:)]*{_DECORATION})?"
    rf"(?:(?:{_WIDE_LABELS})\s*(?:\d{{1,3}}|[一二三四五六七八九十]{{1,3}})?步?(?![^\W_]))?[.:．。：]*"
)
_CONNECTIVE = re.compile(
    rf"(?:(?:that is|{_CONNECTIVES})\b,?\s*)*"
    r"(?:(?:we|this|which) (?:have|get|obtain|find|gives?|see)(?: that)?)?[,:]?",
    re.IGNORECASE,
)
_RULE = re.compile(r"[-=*_~\s]{2,}")
_CLOSING_TAG = re.compile(r"</\w+>|\\end\{[^{}]*\}")
_END_OF_PROOF = re.compile(r"\(?Q\.?\s?E\.?\s?D\b\.?\)?")
# At the end of a line, these words, operators and open brackets mean that the sentence continues.
# After an operator, such letters are a product: "s = at".
_DANGLING = re.compile(rf"(?:(?:^|(?<=[\w,)$.] ))(?:{_PROMISING})|[-=+/^(\[{{&×·÷≤≥≈≡→⇒]|\s[*<>])$")
_CONTINUING_SIGN = re.compile(r"[+×·÷/,;.)\]}]")
_RELATION = re.compile(
    r"[=<>≤≥≠≈≡≅∼∝∈→⇒⇔⟹∣]|\\(?:leq?|geq?|neq?|equiv|approx|sim|cong|to|in|mid|implies|iff"
    r"|(?:Long)?[Rr]ightarrow)\b"
)
_LETTERS = re.compile(r"(?<![\\\w])[^\W\d_]{2,}")


@dataclass(frozen=True)
class _Line:
    """A line without surrounding white space; breaks inside a region do not end it."""

    start: int
    text: str
    follows_blank: bool
    opens: str | None  # the kind of the region that it begins with
    closes_display: bool


def _sentence_starts(text: str, regions: list[Region]) -> set[int]:
    """Where a sentence begins because a terminator ended the one before it."""
    starts = {match.end() for match in _CLOSING_THINK.finditer(text)}
    for mark in _TERMINATOR.finditer(text):
        after = mark.end()
        region = region_at(regions, mark.start())
        if region is not None:
            # A formula may hold the full stop of its sentence, directly before closing delimiters:
            # "$x = 5.$ Then". The limit keeps the work linear.
            is_code, rest = region.kind in ("block", "code", "row"), region.end - after
            if mark.group() not in (".", "?") or is_code or rest > 80:
                continue
            if not _MATH_CLOSERS.match(text[after : region.end]):
                continue
            after = region.end
        closed = _CLOSERS.match(text, after).end()
        start = SPACE.match(text, closed).end()
        if start == len(text) or (start == closed and not _needs_no_space(text, mark, start)):
            continue
        goes_on = region is not None and _begins_with_small_word(text, start)
        if not goes_on and _ends_sentence(text, mark, text[after:closed], start):
            starts.add(start)
    return {start for start in starts if not would_cut(regions, start)}


def _needs_no_space(text: str, mark: re.Match[str], start: int) -> bool:
    """Whether the sign ``mark`` may end a sentence if the next one begins right after it."""
    sign, before = mark.group()[0], text[max(0, mark.start() - 1) : mark.start()]
    if sign == "．" or sign in _FULL_STOPS:
        return not (before.isdigit() and text[start].isdigit())  # "３．１４"
    if sign in _WIDE_TERMINATORS:
        return True
    after_letter = _IDEOGRAPH.match(before)
    # "对吗?x = 5", but not "文件.txt".
    is_asked = sign in "?!" and after_letter and _WIDE_OPENING.match(text, start)
    if not (is_asked or _IDEOGRAPH.match(text, start)):
        return False
    tail = text[max(0, mark.start() - 200) : mark.start()]
    return not (after_letter and _IN_ADDRESS.search(tail))


def _ends_sentence(text: str, mark: re.Match[str], closers: str, start: int) -> bool:
    """Whether the terminator ``mark`` ends a sentence, so that another begins at ``start``."""
    signs, before = mark.group(), text[max(0, mark.start() - 1) : mark.start()]
    if _NO_SENTENCE_START.match(text, start):
        return False
    if closers.endswith(("」", "』")) and _AFTER_QUOTATION.match(text, start):
        return False
    if signs[0] in _WIDE_TERMINATORS:
        return signs != "！" or _is_exclaimed(text, mark.start()) or _opens_after(text, mark, start)
    # A word like "Then" or "I" begins there, possibly in quotes or bold.
    word = _OPENING.match(text, start).end()
    first, second = text[word : word + 1], text[word + 1 : word + 2]
    capitalized = first.isupper() and (second.islower() or (first == "I" and second in " '’"))
    if not before or (before.isspace() and signs[0] not in _FULL_STOPS):
        return capitalized
    if not _CLOSING_BRACKETS.isdisjoint(closers) and _begins_with_small_word(text, start):
        return False
    if not _QUESTION_MARKS.isdisjoint(signs):
        return True
    if "!" in signs:
        if capitalized or signs[-1] == "." or _is_exclaimed(text, mark.start()):
            return True
        return signs == "!" and _WIDE_OPENER.match(text, word) is not None
    if signs != ".":
        return capitalized
    return _full_stop_ends_sentence(text, mark.start(), start, capitalized)


def _begins_with_small_word(text: str, position: int) -> bool:
    letters = text[position : position + 2]
    return len(letters) == 2 and letters.isalpha() and letters.islower()


def _is_exclaimed(text: str, position: int) -> bool:
    """Whether the ``!`` at ``position`` follows a word rather than a factorial's operand."""
    tail = text[max(0, position - 30) : position]
    if _UNCASED.match(tail[-1:]) and not tail[-1:].isdigit():
        return True
    word = _LAST_LETTERS.search(tail).group()
    in_formula = tail.removesuffix(word).endswith(("\\", "_", "^", "$"))
    return not in_formula and (len(word) > 2 or word.lower() in WORDS["two_letter_words"])


def _opens_after(text: str, mark: re.Match[str], start: int) -> bool:
    """Whether a sentence can open at ``start``, after the ``！`` of what may be a factorial."""
    before = text[max(0, mark.start() - 1) : mark.start()]
    is_operand = before.isdigit() or (before.isascii() and before.isalpha()) or before == ")"
    if not is_operand:
        return True
    return bool(_WIDE_OPENER.match(text, start)) or not _AFTER_FACTORIAL.match(text, start)


def _full_stop_ends_sentence(text: str, position: int, start: int, capitalized: bool) -> bool:
    tail = text[max(0, position - 40) : position]
    word = _LAST_WORD.search(tail).group()
    lower = word.lower()
    if not WORDS["abbreviations"].isdisjoint((word, lower)) or _OPENS_LIST.search(tail):
        return False
    if lower in WORDS["numbered"]:
        announces = _NUMBER_OR_LABEL.match(text, start) or (lower != "no" and text[start].islower())
        return not announces
    dotted = _DOTTED.match(word) is not None
    if lower in WORDS["open_ended"] or (dotted and not word.isupper()):
        return capitalized
    if not dotted and not (len(word) == 1 and word.isupper()):
        return True
    # A capital letter and a full stop may abbreviate a name ("by J. Smith", "U.S. Senate").
    name = _NAME.match(text[position + 1 : start + 20])
    if name is None or LINE_BREAK.search(name.group()):
        return True
    # "Then", "Adding" and "Similarly" open sentences; they are no names.
    if name[1] in WORDS["openers"] or name[1].endswith(("ing", "ly")):
        return True
    if dotted or name[1].endswith("."):
        return False
    return _BEFORE_INITIAL.search(tail.removesuffix(word)) is None


def _split_lines(text: str, all_gaps: list[Gap], regions: list[Region]) -> list[_Line]:
    """Lines of a text; code blocks are lines, and a display with text after it ends one."""
    gaps = [gap for gap in all_gaps if not would_cut(regions, gap.start)]
    displays = {region.start: region.end for region in regions if region.kind == "display"}
    for end in displays.values():
        following = SPACE.match(text, end).end()
        if following == end and not text[end : end + 1].isalpha() and end not in displays:
            continue
        if not LINE_BREAK.search(text, end, following):
            gaps.append(Gap(end, following, blank=False))
    begun = {gap.end for gap in gaps}
    for block in (region for region in regions if region.kind == "block"):
        following = SPACE.match(text, block.end).end()
        if not LINE_BREAK.search(text, block.end, following):
            gaps.append(Gap(block.end, following, blank=False))
        if block.start not in begun:
            gaps.append(Gap(block.start, block.start, blank=False))
        begun.add(following)
    kinds = {region.start: region.kind for region in regions}
    display_ends = set(displays.values())
    body = len(text) - len(text.lstrip())
    gaps = sorted((gap for gap in gaps if body < gap.end < len(text)), key=lambda gap: gap.start)
    lines: list[_Line] = []
    for before, after in pairwise([Gap(0, body, blank=False), *gaps, Gap(len(text), 0, False)]):
        start, line = before.end, text[before.end : after.start].rstrip()
        closes = not display_ends.isdisjoint((start + len(line), start + len(line.rstrip(",;."))))
        lines.append(_Line(start, line, before.blank, kinds.get(start), closes))
    return lines


def _line_ends_step(prev: _Line, nxt: _Line) -> bool:
    """Whether the break between two lines ends a step."""
    if "block" in (prev.opens, nxt.opens):
        return True
    announced = prev.text.endswith((":", "："))
    if nxt.opens == "display":
        return announced or prev.closes_display or _has_formula_head(prev.text)
    if not prev.closes_display:
        begins = nxt.follows_blank or announced or _HEADING.match(nxt.text)
        return bool(begins) or not _continues_line(prev, nxt)
    # After a display, only the rest of its sentence belongs to its step.
    first = nxt.text[0]
    if _LIST_ITEM.match(nxt.text) or _HEADING.match(nxt.text):
        return True
    if first.islower():
        return _has_formula_head(nxt.text)
    return first not in ",;.)" and (first.isupper() or not prev.text.endswith(","))


def _continues_line(prev: _Line, nxt: _Line) -> bool:
    """Whether the sentence or formula that ``prev`` leaves unfinished continues in ``nxt``."""
    if _RULE.fullmatch(prev.text) or _LIST_ITEM.match(nxt.text):
        return False
    breaks_off = _DANGLING.search(prev.text, max(0, len(prev.text) - 20))
    if breaks_off or _CONTINUING_SIGN.match(nxt.text):
        return True
    before_formula = _has_formula_head(nxt.text) or not nxt.text[0].isalpha()
    if not before_formula and nxt.text[0].islower():
        return True
    if _has_formula_head(prev.text):
        return False
    # Prose is unfinished after a comma, and before a formula also after a word ("so that we get").
    word = _LAST_LETTERS.search(prev.text[-30:]).group()
    return prev.text.endswith(",") or (before_formula and word.islower() and _is_prose_word(word))


def _has_formula_head(line: str) -> bool:
    """Whether ``line`` begins with a formula: no prose before its first relation sign."""
    # A formula's relation comes early; the limit keeps the work linear.
    relation = _RELATION.search(line, 0, 200)
    head = line[: relation.start()] if relation else line[:200]
    if not any(_is_prose_word(letters.group()) for letters in _LETTERS.finditer(head)):
        return True
    # "area = 5": a name on its own is a left-hand side.
    return relation is not None and len(head.split()) == 1


def _is_prose_word(letters: str) -> bool:
    """Whether letters are a word, not a function (sin), a product (ab) or points (ABC)."""
    if len(letters) == 2:
        return letters.lower() in WORDS["two_letter_words"]
    return len(letters) > 2 and not letters.isupper() and letters not in WORDS["functions"]


def _is_heading(line: str) -> bool:
    if not _BOLD_LINE.match(line):
        return _HEADING.match(line) is not None
    # A bold line that is a sentence or an equation infers something, so it is a step.
    content = line.strip("*_: ")
    is_sentence = content.endswith((".", "!", "?")) or _RELATION.search(content)
    return not is_sentence or _BOLD_LABEL.match(line) is not None


def cut_at(text: str, starts: Iterable[int]) -> list[Span]:
    """The partition of ``text`` whose parts begin at ``starts``; empty for an empty text.

    Example:
        >>> cut_at("abcdef", [2, 0, 5])
        [(0, 2), (2, 5), (5, 6)]
    """
    inner = sorted({start for start in starts if 0 < start < len(text)})
    return list(pairwise([0, *inner, len(text)])) if text else []


def _cut_body(text: str, starts: Iterable[int]) -> list[Span]:
    """As `cut_at`, but leading white space stays with the first part."""
    body = len(text) - len(text.lstrip())
    return cut_at(text, [start for start in starts if start > body])


def _attach_fragments(text: str, spans: list[Span]) -> list[Span]:
    """Join announcements to the step after them, and empty parts to the step before them."""
    steps: list[Span] = []
    pending = -1
    for start, end in spans:
        piece = text[start:end].strip()
        proved = _END_OF_PROOF.fullmatch(piece)
        # "1.", "**Step 3.**", ``<think>``, "Then:"; no marker is longer.
        announces = len(piece) <= 60 and (_MARKER.fullmatch(piece) or _CONNECTIVE.fullmatch(piece))
        lead = announces and not proved and not _RULE.fullmatch(piece)
        # ``---``, ``</think>``, an end-of-proof sign.
        silent = proved or not any(char.isalnum() for char in _CLOSING_TAG.sub("", piece))
        trail = silent and not lead
        if trail and steps and pending < 0:
            steps[-1] = (steps[-1][0], end)
            continue
        if pending < 0:
            pending = start
        if not (lead or trail):
            steps.append((pending, end))
            pending = -1
    if pending >= 0:
        steps.append((steps.pop()[0] if steps else 0, len(text)))
    return steps


def split_sentences(text: str) -> list[Span]:
    """Split a response into sentences, list items and lines of derivations.

    Code and math are never split. The top of this module lists the choices made.

    Example:
        >>> split_sentences("Add $1. + 2$. Then x = 3.")
        [(0, 14), (14, 25)]
    """
    gaps = find_gaps(text)
    regions = protected_regions(text, gaps)
    starts = _sentence_starts(text, regions)
    headings: list[Region] = []
    for prev, nxt in pairwise(_split_lines(text, gaps, regions)):
        if _is_heading(prev.text):
            headings.append(Region(prev.start, nxt.start + 1, "heading"))
        elif _line_ends_step(prev, nxt):
            starts.add(nxt.start)
    joined = merge_regions(headings)
    starts = {start for start in starts if not would_cut(joined, start)}
    return _attach_fragments(text, _cut_body(text, starts))


def split_paragraphs(text: str) -> list[Span]:
    """Split a response at blank lines, except those inside code blocks and display math."""
    gaps = find_gaps(text)
    regions = protected_regions(text, gaps)
    blanks = [gap for gap in gaps if gap.blank and not would_cut(regions, gap.start)]
    return _cut_body(text, [gap.end for gap in blanks])


# A splitter gives spans in characters, a partition of its text; none for an empty text.
SPLITTERS: Mapping[str, Callable[[str], list[Span]]] = {
    "sentences": split_sentences,
    "paragraphs": split_paragraphs,
}


def split_steps(text: str, splitter: str = "sentences") -> list[Span]:
    """Split a response into steps with the splitter of that name."""
    if splitter not in SPLITTERS:
        known = did_you_mean(splitter, sorted(SPLITTERS))
        raise InputError(f"unknown step splitter {splitter!r}: {known}")
    return SPLITTERS[splitter](text)
