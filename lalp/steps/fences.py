r"""Code blocks of a text: fenced ones, and environments of LaTeX such as verbatim.

People and models write fences where CommonMark allows none, forget to close them, or leave a
closing one without its opening one. So a fence also opens or closes a block in the middle of a
line, and an unclosed block ends before the first line of prose. A stray fence then takes no more of
the response than the code after it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_FENCE = re.compile(
    r"(?P<ticks>`{3,})|(?P<tildes>~{3,})"
    r"|\\(?P<end>begin|end)\{(?P<name>(?:[Vv]erbatim|lstlisting|minted|alltt)\*?)\}"
)
# What may precede a fence that begins its line: the marks of lists and quotations.
_LEAD = re.compile(r"\s*(?:(?:>|[-*+]|\d{1,3}[.)])\s*)*+")
# What may follow an opening fence: a language, then attributes or a file.
_INFO = re.compile(
    r"\s*(?:[A-Za-z][\w+#-]*(?:\s+[^`\s]*(?:[=:/{]|\.\w)[^`]*|\s*\{[^`]*\})?|\{[^`]*\}|\.\w[\w-]*)?\s*\Z"
)
# A line of prose, not code: it begins with a capitalized word, and two small words follow each
# other, or a sentence ends with the line. Other scripts mark prose by their full stops.
_PROSE = re.compile(
    r"""[ ]{0,3}(?:(?:[-*>]|\#{2,6}|\d{1,3}[.)])\s+)*[*_("“]*(?:
        (?!.*[;{}]\s*$) [A-Z][a-z]*[ ,]
        (?:.{0,80}?\b[a-z]{2,}[ ][a-z]{2,}(?![\w(\[]|\.\w|[ ]?=) | .*[.?!:]\s*$)
        | [^\x00-\u036f\u2000-\u2bff].{0,80}?[。．！？｡।؟۔։]
    )""",
    re.VERBOSE,
)
_NEXT_LINE = re.compile(r"\s*([^\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]*)")
_SENTENCE_END = (".", ":", ",", "!", "?")


@dataclass(frozen=True)
class _Fence:
    """A run of backticks or tildes, or the begin or end of an environment, at ``[start, end)``."""

    start: int
    end: int
    line_end: int
    kind: str  # shared by both fences of a block: "`", "~" or the environment's name
    length: int
    opens: bool
    closes: bool
    bare: bool  # nothing else is on its line


def find_code_blocks(text: str) -> list[tuple[int, int]]:
    """Spans of the code blocks of ``text``, from the opening to the closing fence."""
    fences = _find_fences(text)
    blocks, all_closed = _pair_fences(text, fences)
    # If fences do not pair up, one may be stray; blocks and prose must not swap places then.
    return blocks if all_closed else _pair_fences(text, fences, one_is_stray=True)[0]


def _find_fences(text: str) -> list[_Fence]:
    fences: list[_Fence] = []
    position = 0
    for line in text.splitlines(keepends=True):
        marks = list(_FENCE.finditer(line))
        lead = _LEAD.match(line).end() if marks else 0
        # Backticks in pairs are inline code. If their number is odd, one is a fence: the first if
        # it begins the line, else the last.
        ticks = [mark.start() for mark in marks if mark["ticks"]]
        fence = ticks[0 if ticks[0] == lead else -1] if len(ticks) % 2 else -1
        for mark in marks:
            place, sign, rest = mark.start(), mark.group(), line[mark.end() :]
            at_start, bare = place == lead, not rest.strip()
            if mark["name"]:
                kind, opens = mark["name"], mark["end"] == "begin"
                closes = not opens
            elif place == fence or (mark["tildes"] and at_start):
                kind, opens = sign[0], _opens_block(rest, at_start)
                closes = bare or (rest[0].isspace() if not at_start else not opens)
            else:
                continue
            start, end, line_end = position + place, position + mark.end(), position + len(line)
            length = len(sign) if sign[0] == kind else 0
            fences.append(_Fence(start, end, line_end, kind, length, opens, closes, bare))
        position += len(line)
    return fences


def _opens_block(rest: str, at_start: bool) -> bool:
    """Whether a fence opens a block if ``rest`` follows it: "``` So x = 5." closes one."""
    if "`" in rest or rest.rstrip().endswith(_SENTENCE_END):
        return False
    unusual = at_start and not _PROSE.match(rest.lstrip())
    return unusual or _INFO.match(rest) is not None


def _pair_fences(
    text: str, fences: Sequence[_Fence], *, one_is_stray: bool = False
) -> tuple[list[tuple[int, int]], bool]:
    """Blocks, and whether each that was opened was closed.

    With ``one_is_stray``, no block begins with prose unless its fence names a language.
    """
    blocks: list[tuple[int, int]] = []
    unclosed: list[tuple[_Fence, int]] = []  # and where the next one opens
    opened: _Fence | None = None
    is_stray = False
    for fence in fences:
        if opened:
            if fence.kind != opened.kind or fence.length < opened.length:
                continue
            if fence.closes and not is_stray:
                blocks.append((opened.start, fence.end))
                opened = None
                continue
            if not fence.opens:
                continue
            unclosed.append((opened, fence.start))
        opened = fence if fence.opens else None
        is_stray = one_is_stray and fence.bare and _prose_follows(text, fence.line_end)
    if opened:
        unclosed.append((opened, len(text)))
    for fence, limit in unclosed:
        end = end_of_code(text, fence.line_end, limit)
        if end > fence.line_end:
            blocks.append((fence.start, end))
    return sorted(blocks), not unclosed


def _prose_follows(text: str, position: int) -> bool:
    line = _NEXT_LINE.match(text, position)
    return _PROSE.match(line[1]) is not None


def end_of_code(text: str, begin: int, limit: int | None = None) -> int:
    """Where code that continues at ``begin`` ends, if it must end before the first prose line."""
    position = end = begin
    for line in text[begin:limit].splitlines(keepends=True):
        if _PROSE.match(line):
            break
        if line.strip():
            end = position + len(line.rstrip())
        position += len(line)
    return end
