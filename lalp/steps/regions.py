"""Code and math in a text (no splitter cuts them), and the gaps between its lines."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lalp.files import read_data
from lalp.steps.fences import end_of_code, find_code_blocks

# Words that decide where sentences end, by kind.
_LISTS = read_data("steps/words.yaml")
WORDS: dict[str, frozenset[str]] = {k: frozenset(words.split()) for k, words in _LISTS.items()}

LINE_BREAK = re.compile(r"\r\n|[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_GAP = re.compile(rf"(?:{LINE_BREAK.pattern})\s*")
SPACE = re.compile(r"\s*")
_DELIMITER_ROW = re.compile(r"\|?(?:\s*:?-+:?\s*\|)+(?:\s*:?-+:?\s*)?")
_BACKTICKS = re.compile(r"`+")
# ``\\`` comes first: in ``\\[2pt]`` the bracket opens nothing.
_DELIMITER = re.compile(r"\\\\|\\\$|\\[\[\]()]|\\(?:begin|end)\{([^{}\s]{1,40})\}|\[/?asy\]|\$")
_BRACKETS = {
    r"\]": (r"\[", "display"),
    r"\)": (r"\(", "inline"),
    "[/asy]": ("[asy]", "block"),  # a diagram in Asymptote
}
# Text between two dollars is prose if a sentence ends in it, or if it continues one.
_PROSE_IN_DOLLARS = re.compile(r"[a-z]{3}[.?!]\s+(?:[A-Z]|$)|^[.,;:?!]\s")
_PROSE_IN_BRACKETS = re.compile(r"[a-z]{3}[.?!]\s+[A-Z][a-z]")
_PROSE_IN_DOUBLE_DOLLARS = re.compile(r"[a-z]{3}[.:?!]\s")


@dataclass(frozen=True)
class Region:
    """Characters that stay together.

    ``kind`` is ``block`` (of code), ``code``, ``row`` (of a table), ``display``, ``inline`` (math)
    or ``heading``.
    """

    start: int
    end: int
    kind: str


@dataclass(frozen=True)
class Gap:
    """White space from a line break to the next character; ``blank`` if it holds an empty line."""

    start: int
    end: int
    blank: bool


def protected_regions(text: str, gaps: list[Gap]) -> list[Region]:
    """Code and math of ``text``, disjoint and in order."""
    blocks = [Region(start, end, "block") for start, end in find_code_blocks(text)]
    rows = _table_rows(text, blocks)
    # Inline regions never cross a blank line, a code block or the border of a table row.
    borders = [block.start for block in blocks] + [edge for r in rows for edge in (r.start, r.end)]
    stops = sorted([gap.start for gap in gaps if gap.blank] + borders)
    code = merge_regions(blocks + rows + _code_spans(text, blocks, stops))
    tokens = _outside(_DELIMITER.finditer(text), code)
    bracketed = merge_regions(code + _bracketed(text, tokens, stops) + _environments(tokens))
    dollars = [m.start() for m in _outside(tokens, bracketed) if m.group() == "$"]
    return merge_regions(bracketed + _dollar_math(text, dollars, stops))


def merge_regions(regions: Iterable[Region]) -> list[Region]:
    """Merge overlapping regions; the outermost gives the kind."""
    merged: list[Region] = []
    for region in sorted(regions, key=lambda r: (r.start, -r.end)):
        if merged and region.start < merged[-1].end:
            last = merged[-1]
            merged[-1] = Region(last.start, max(last.end, region.end), last.kind)
        else:
            merged.append(region)
    return merged


def region_at(regions: Sequence[Region], position: int) -> Region | None:
    """The region that holds the character at ``position``."""
    index = bisect_right(regions, position, key=lambda r: r.start) - 1
    return regions[index] if index >= 0 and position < regions[index].end else None


def would_cut(regions: Sequence[Region], boundary: int) -> bool:
    """Whether ``boundary`` would cut a region in two."""
    region = region_at(regions, boundary)
    return region is not None and region.start < boundary


def _outside(matches: Iterable[re.Match[str]], regions: Sequence[Region]) -> list[re.Match[str]]:
    return [match for match in matches if region_at(regions, match.start()) is None]


def _same_paragraph(stops: list[int], first: int, second: int) -> bool:
    return bisect_left(stops, first) == bisect_left(stops, second)


def _table_rows(text: str, blocks: Sequence[Region]) -> list[Region]:
    """Rows of Markdown tables: a head, a line such as ``|---|:-:|`` and the rows after it."""
    rows: list[Region] = []
    position, above, in_table = 0, None, False
    for line in text.splitlines(keepends=True):
        start, end = position + len(line) - len(line.lstrip()), position + len(line.rstrip())
        position += len(line)
        row = None
        if "|" in line and region_at(blocks, start) is None:
            row = Region(start, end, "row")
            if above and _DELIMITER_ROW.fullmatch(line.strip()):
                in_table = True
                rows.append(above)
        in_table = in_table and row is not None
        if row and in_table:
            rows.append(row)
        above = None if in_table else row
    return rows


def _code_spans(text: str, blocks: list[Region], stops: list[int]) -> list[Region]:
    """Inline code: a run of backticks up to the next run of the same length."""
    runs = _outside(_BACKTICKS.finditer(text), blocks)
    # Each run with the next one of its length, found from the end, so the work stays linear.
    latest: dict[int, re.Match[str]] = {}
    closers: list[re.Match[str] | None] = []
    for run in reversed(runs):
        closers.append(latest.get(len(run.group())))
        latest[len(run.group())] = run
    spans: list[Region] = []
    for opener, closer in zip(runs, reversed(closers), strict=True):
        inside_span = spans and opener.start() < spans[-1].end
        if not closer or inside_span or not _same_paragraph(stops, opener.start(), closer.start()):
            continue
        length = len(opener.group())
        # ``quoted'' and `quoted' are TeX's quotation marks, not code.
        if (
            length > 2
            or (length == 1 and not text[closer.start() - 1].isspace())
            or (length == 2 and text.find("''", opener.end(), closer.start()) < 0)
        ):
            spans.append(Region(opener.start(), closer.end(), "code"))
    return spans


def _bracketed(text: str, tokens: list[re.Match[str]], stops: list[int]) -> list[Region]:
    r"""``\[..\]``, ``\(..\)`` and diagrams: a closer ends the nearest opener before it.

    An unclosed bracket is text; an unclosed diagram at the start of a line ends before prose.
    """
    regions: list[Region] = []
    opened: dict[str, int] = {}
    for token in tokens:
        opener, kind = _BRACKETS.get(token.group(), ("", ""))
        if not opener:
            opened[token.group()] = token.start()
        elif opener in opened:
            start = opened.pop(opener)
            within = _same_paragraph(stops, start, token.start())
            is_prose = not within and (
                kind == "inline"
                or (kind == "display" and _PROSE_IN_BRACKETS.search(text, start, token.start()))
            )
            if not is_prose:
                regions.append(Region(start, token.end(), kind))
    if (start := opened.get("[asy]", -1)) >= 0:
        before = text[max(0, start - 40) : start].rstrip(" \t")
        if not before or LINE_BREAK.match(before[-1]):
            regions.append(Region(start, end_of_code(text, start), "block"))
    return regions


def _environments(tokens: list[re.Match[str]]) -> list[Region]:
    r"""``\begin{x}..\end{x}``, nested; an unclosed or unopened one is text."""
    regions: list[Region] = []
    opened: list[tuple[str, int]] = []
    counts: Counter[str] = Counter()
    for token in tokens:
        name = (token[1] or "").rstrip("*")
        if not name or name in WORDS["prose_environments"]:
            continue
        if token.group().startswith(r"\begin"):
            opened.append((name, token.start()))
            counts[name] += 1
            continue
        while counts[name]:
            inner, start = opened.pop()
            counts[inner] -= 1
            if inner == name:
                regions.append(Region(start, token.end(), "display"))
                break
    return regions


def _dollar_math(text: str, dollars: list[int], stops: list[int]) -> list[Region]:
    """``$$..$$`` and ``$..$``; a dollar that seems to open neither is text."""
    # For each dollar, the index of the first ``$$`` that begins at or after it, or -1.
    doubles = [-1] * (len(dollars) + 2)
    for i in range(len(dollars) - 2, -1, -1):
        doubles[i] = i if dollars[i] + 1 == dollars[i + 1] else doubles[i + 1]
    # If the number of ``$$`` is odd, one is stray. Then none may cross a blank line, because all
    # prose after the stray one would swap places with the math.
    count, i = 0, doubles[0]
    while i >= 0:
        count, i = count + 1, doubles[i + 2]
    regions: list[Region] = []
    i = 0
    while i + 1 < len(dollars):
        display = doubles[i] == i
        width, closer = (2, doubles[i + 2]) if display else (1, i + 1)
        start, end = dollars[i], dollars[closer]
        if closer < 0:
            closes = False
        elif _same_paragraph(stops, start, end):
            closes = display or _is_inline_math(text, start, end)
        else:
            paired = display and count % 2 == 0
            closes = paired and not _PROSE_IN_DOUBLE_DOLLARS.search(text, start, end)
        if closes:
            regions.append(Region(start, end + width, "display" if display else "inline"))
            i = closer
        i += width
    return regions


def _is_inline_math(text: str, opener: int, closer: int) -> bool:
    """Whether two dollars without another between them enclose a formula, not prices or prose."""
    content = text[opener + 1 : closer]
    price, ends_open = content[:1].isdigit(), content[-1:].isspace()
    # "$5 or ($6": the second dollar begins another price.
    if price and (ends_open or content[-1] in "([\"'“-–—"):
        return False
    if text[closer + 1 : closer + 2].isdigit() and (price or ends_open):
        return False
    return _PROSE_IN_DOLLARS.search(content) is None


def find_gaps(text: str) -> list[Gap]:
    """All line breaks of ``text``, neighbouring ones in one gap."""
    return [
        Gap(m.start(), m.end(), len(LINE_BREAK.findall(m.group())) > 1) for m in _GAP.finditer(text)
    ]
