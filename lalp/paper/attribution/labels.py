"""Label every character of a response, then its tokens."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int

from lalp.errors import InputError
from lalp.paper.attribution.lexicon import (
    CATEGORIES,
    KIND_NAMES,
    KINDS,
    LABELS,
    LAYOUT,
    MATH,
    MATH_ENVIRONMENTS,
    READINGS,
    SINGLE_TOKENS,
    TOKEN_WORDS,
    TREE,
    WORDS,
    Phrase,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Span:
    """A piece of text of one kind: characters ``start`` to ``end``; never empty.

    ``sure`` is False where a person could choose another kind.
    """

    start: int
    end: int
    kind: str
    sure: bool = True


# Possessive and stopping at the next opener: linear, however many delimiters have no partner.
_MATH_REGION = re.compile(
    r"\$\$[^$]++\$\$"
    r"|(?<!\\)\\\[(?:[^\\]|\\(?![\[\]]))*+\\\]"
    r"|(?<!\\)\\\((?:[^\\]|\\(?![()]))*+\\\)"
    rf"|\\begin\{{({MATH_ENVIRONMENTS})\*?\}}(?:[^\\]|\\(?!begin\{{\1|end\{{\1))*+\\end\{{\1\*?\}}"
    # "$5 and $6" is no formula: white space before the second dollar, or a digit after it.
    r"|(?<![\\$])\$(?!\s)(?:[^$\n\\]|\\[^\n])++(?<!\s)\$(?!\d)"
)
_TEXT_ARGUMENT = re.compile(r"\\(?:text(?:bf|it|rm|sf|tt)?|mbox|hbox|intertext)\{([^{}]*)\}")
_LABEL = re.compile(
    rf"(?m)^[ \t#>*_-]*(?P<label>(?P<name>(?i:{LABELS}))"
    r"(?:[ \t]+(?:\d{1,3}|[A-Za-z]|[ivxIVX]{1,5}))?)(?=[ \t]*[*_]*(?:[:)]|\.(?!\d)))"
)
_ENUMERATOR = re.compile(
    r"(?m)^[ \t]*[*_]*(?P<label>\(?(?:\d{1,3}|[A-Za-z]|[ivx]{2,4})[.)])(?=[*_]*[ \t])"
)
# "- 8a" may go on with a formula: a dash is a bullet before a word only.
_BULLET = re.compile(
    r"(?m)^[ \t]*(?P<label>[-*–](?=[ \t]+[*_\"(]*[^\W\d_]{2})|(?:[•‣◦▪●○]|#{1,6}|>)(?=[ \t]))"
)
_RULE = re.compile(r"(?m)^[ \t]*(?P<label>[-=*_~]{3,})[ \t]*$")
_TABLE_ROW = re.compile(r"(?m)^[ \t]*\|[ \t:-].*\|[ \t]*$")
# Superscripts, fractions and the like are no letters, although \w holds them.
_LETTER = (
    r"[^\W\d_\u00b2\u00b3\u00b9\u00bc-\u00be\u2070\u2074-\u2079\u2080-\u2089\u2150-\u218b"
    r"\u2460-\u249b]"
)
_LEXEME = re.compile(
    r"(?P<latex>\\(?:begin|end)\{[^{}\s]{1,40}\}|\\[A-Za-z]+\*?|\\\S?)"
    r"|(?P<tag></?[A-Za-z]{2,20}>)"
    r"|(?P<number>\d+(?:,\d{3}(?!\d))*(?:\.\d+)?)"
    r"|(?P<word>\b(?:e\.g|i\.e|q\.e\.d|Q\.E\.D)\b\.?|"
    + _LETTER
    + r"+(?:['’](?:s|t|d|m|re|ve|ll)\b)?)"
    r"|(?P<symbol>\.{2,}|\*+|#+|`+|_+|\S)",
    re.DOTALL,
)
# Letters that usually stand together as factors or points: abc, xyz.
_PRODUCT = re.compile(r"[a-e]{3,5}|[i-n]{3}|[p-t]{3}|[u-z]{3,4}")
_OPERATORS = frozenset("=+<>^/|~·×÷−±∓√∛∞°′″∠△⊥∥⊙∴∵%")
# Signs that join letters to a formula.
_JOINING = frozenset("=+^_≡≤≥<>/")
_BRACKETS = {")": "(", "]": "[", "}": "{"}
_LINE_BREAK = re.compile(r"[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")


# --- Spans ----------------------------------------------------------------------------------------


def label_spans(text: str) -> list[Span]:
    """Cut a text into spans and give each a kind (``lexicon.yaml`` lists them).

    The spans are in order, do not overlap and hold every character that is not white space.
    """
    lexer = _Lexer(text)
    lexer.label_lines()
    lexer.label_phrases()
    lexer.label_words()
    lexer.label_symbols()
    return lexer.spans()


class _Lexer:
    """The pieces of one text, and what is known of each so far."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.in_math = _math_mask(text)
        matches = list(_LEXEME.finditer(text))
        self.shapes = [match.lastgroup for match in matches]
        self.words = [match.group() for match in matches]
        self.starts = [match.start() for match in matches]
        self.ends = [match.end() for match in matches]
        self.kinds: list[str | None] = [None] * len(matches)
        self.sure = [True] * len(matches)
        # The last piece of the phrase that a piece belongs to.
        self.lasts = list(range(len(matches)))

    def set(self, i: int, kind: str, sure: bool = True) -> None:
        self.kinds[i], self.sure[i] = kind, sure

    def spans(self) -> list[Span]:
        spans, i = [], 0
        while i < len(self.words):
            last = self.lasts[i]
            spans.append(Span(self.starts[i], self.ends[last], self.kinds[i], self.sure[i]))
            i = last + 1
        return spans

    def touches(self, i: int) -> bool:
        """Whether nothing stands between piece ``i`` and the next one."""
        return i + 1 < len(self.words) and self.ends[i] == self.starts[i + 1]

    def neighbour(self, i: int, step: int) -> int | None:
        """The piece before (-1) or after (+1) on the same line."""
        j = i + step
        if not 0 <= j < len(self.words):
            return None
        first, second = min(i, j), max(i, j)
        gap = self.text[self.ends[first] : self.starts[second]]
        return None if _LINE_BREAK.search(gap) else j

    def neighbours(self, i: int) -> tuple[int | None, int | None]:
        return self.neighbour(i, -1), self.neighbour(i, 1)

    # --- whole lines

    def label_lines(self) -> None:
        """Headings such as "Step 2:", list numbers, bullets and rules."""
        for pattern, kind, sure in (
            (_RULE, "layout", True),
            (_BULLET, "layout", False),
            (_ENUMERATOR, "signpost", False),
            (_LABEL, "signpost", True),
        ):
            self._label_matches(pattern, kind, sure)
        for match in _TABLE_ROW.finditer(self.text):
            for i in self._pieces(*match.span()):
                if self.words[i] == "|":
                    self.set(i, "layout")

    def _label_matches(self, pattern: re.Pattern[str], kind: str, sure: bool) -> None:
        for match in pattern.finditer(self.text):
            start, end = match.span("label")
            pieces = self._pieces(start, end)
            if self.in_math[start] or not pieces or self.starts[pieces[0]] != start:
                continue
            is_case = "case" in (match.groupdict().get("name") or "").lower()
            for i in pieces:
                self.set(i, "condition" if is_case else kind, sure)
                self.lasts[i] = pieces[-1]

    def _pieces(self, start: int, end: int) -> range:
        """Indices of the pieces that lie within the characters ``start`` to ``end``."""
        return range(bisect_left(self.starts, start), bisect_right(self.ends, end))

    # --- phrases

    def label_phrases(self) -> None:
        i = 0
        while i < len(self.words):
            last, phrase = self._longest_phrase(i)
            if phrase:
                for j in range(i, last + 1):
                    self.set(j, phrase.kind, phrase.sure)
                    self.lasts[j] = last
            i = last + 1

    def _longest_phrase(self, i: int) -> tuple[int, Phrase | None]:
        last, found, node, j = i, None, TREE, i
        while j is not None and self._is_prose_word(j):
            node = node.get(_normal(self.words[j]))
            if node is None:
                break
            phrase = node.get("")
            if phrase and (not phrase.begins_clause or self._begins_clause(i)):
                last, found = j, phrase
            j = self._next_word(j)
        return last, found

    def _begins_clause(self, i: int) -> bool:
        before = self.neighbour(i, -1)
        if before is None or self.words[before][0] in '.?!:;,(*"“':
            return True
        return self.kinds[before] in ("filler", "conclusion", "contrast")  # "So next we ..."

    def _is_prose_word(self, i: int) -> bool:
        return (
            self.shapes[i] == "word"
            and self.kinds[i] is None
            and not self.in_math[self.starts[i]]
            and not (i and self.touches(i - 1) and self.shapes[i - 1] == "number")
        )

    def _next_word(self, i: int) -> int | None:
        """The word after ``i``, past white space or one hyphen ("step-by-step")."""
        j = i + 1
        if self.touches(i) and self.words[j] == "-" and self.touches(j):
            j += 1
        elif j < len(self.words) and not self._is_gap(i):
            return None
        return j if j < len(self.words) else None

    def _is_gap(self, i: int) -> bool:
        gap = self.text[self.ends[i] : self.starts[i + 1]]
        # A phrase may run over the end of a line, but not into the next paragraph.
        return bool(gap) and gap.isspace() and len(_LINE_BREAK.findall(gap)) < 2

    # --- words and numbers

    def label_words(self) -> None:
        for i, shape in enumerate(self.shapes):
            if self.kinds[i] is not None:
                continue
            if shape == "word":
                self.set(i, *self._word_kind(i))
            elif shape == "tag":
                self.set(i, "operator" if self.in_math[self.starts[i]] else "layout")
            elif shape in ("number", "latex"):
                self.set(i, shape)

    def _word_kind(self, i: int) -> tuple[str, bool]:
        word, normal = self.words[i], _normal(self.words[i])
        after_number = bool(i) and self.touches(i - 1) and self.shapes[i - 1] == "number"
        if after_number and normal in ("st", "nd", "rd", "th"):
            return "number", True
        if normal in WORDS["function_names"]:
            return "function", True
        if self.in_math[self.starts[i]]:
            return "variable", True
        if normal == "choose" and self._between_numbers(i):
            return "function", False
        if len(word) == 1 or re.fullmatch(r"[^\W\d_]['’]s", word):
            return self._letter_kind(i)
        if after_number and len(word) <= 4:
            return "variable", normal not in WORDS["function_words"]
        return self._longer_word_kind(i, word, normal)

    def _between_numbers(self, i: int) -> bool:
        return all(
            j is not None
            and (self.shapes[j] == "number" or self.words[j] in "()" or _is_letter(self.words[j]))
            for j in self.neighbours(i)
        )

    def _letter_kind(self, i: int) -> tuple[str, bool]:
        """A single letter: a variable, unless it is the article "a" or the pronoun "I"."""
        word = self.words[i]
        if not _is_letter(word[0]):
            return "content word", True
        if word not in ("a", "A", "I"):
            return "variable", True
        before, after = self.neighbours(i)
        if before is not None and self._is_formula_sign(before):
            return "variable", True
        if after is None:
            return "variable", False
        if self.shapes[after] == "word":
            following = _normal(self.words[after])
            if word == "I":
                return "function word", True
            if following in WORDS["after_variable"]:
                return "variable", True
            if word == "A" and not self._begins_sentence(i):
                return "variable", True
            return "function word", len(following) > 1
        if self.shapes[after] == "symbol" and self.words[after] in "([{\"'“‘*`$":
            return ("variable", True) if self.touches(i) else ("function word", False)
        # "a 3-digit number", but "a - b", "a, b" and "(a)".
        return ("variable", True) if self.shapes[after] == "symbol" else ("function word", True)

    def _is_formula_sign(self, i: int) -> bool:
        return self.shapes[i] == "latex" or (
            self.shapes[i] == "symbol"
            and (self.words[i] in _OPERATORS or (self.words[i] in "-*_(" and self.touches(i)))
        )

    def _begins_sentence(self, i: int) -> bool:
        before = self.neighbour(i, -1)
        return before is None or self.words[before] in '.?!:*"“'

    def _longer_word_kind(self, i: int, word: str, normal: str) -> tuple[str, bool]:
        if normal in WORDS["math_words"]:
            return "math word", True
        if normal in WORDS["function_words"] or normal in WORDS["ordinals"]:
            return "function word", True
        if not word.isascii():
            is_formula = len(word) <= 3 and all(map(_is_letter, word))
            return ("variable", False) if is_formula else ("content word", True)
        if len(word) == 2 and normal not in WORDS["two_letter_words"]:
            return "variable", word.islower()
        beside = [self.words[j] for j in self.neighbours(i) if j is not None]
        is_formula = (
            (len(word) <= 4 and word.isupper())
            or (_PRODUCT.fullmatch(word) and list(word) == sorted(set(word)))
            or (len(word) <= 3 and any(one in _JOINING for one in beside))
            or (re.fullmatch(r"[a-z]?[A-Z][a-z]?", word) and not word.istitle())
        )
        return ("variable", False) if is_formula else ("content word", True)

    # --- symbols

    def label_symbols(self) -> None:
        self._label_brackets()
        depth = 0
        for i, word in enumerate(self.words):
            if self.kinds[i] == "operator" and word in "([{":
                depth += 1
            elif self.kinds[i] == "operator" and word in ")]}":
                depth -= 1
            elif self.kinds[i] is None and self.in_math[self.starts[i]]:
                self.set(i, "latex" if word in "$&" else "operator")
            elif self.kinds[i] is None:
                self.set(i, *self._symbol_kind(i, depth))

    def _label_brackets(self) -> None:
        """Brackets that hold a formula are part of it, those that hold words are not."""
        prose = np.cumsum([0, *(k is not None and k not in MATH for k in self.kinds)])
        math = np.cumsum([0, *(k in MATH for k in self.kinds)])
        open_: list[int] = []
        for i, word in enumerate(self.words):
            if self.shapes[i] != "symbol" or self.kinds[i] is not None:
                continue
            if word in "([{":
                open_.append(i)
            elif word in _BRACKETS:
                if not open_ or self.words[open_[-1]] != _BRACKETS[word]:
                    continue  # such as the interval [0, 1)
                j = open_.pop()
                holds_math = math[i] > math[j] and prose[i] == prose[j]
                kind = "operator" if self._is_formula(j, holds_math) else "punctuation"
                for k in (i, j):
                    if self.kinds[k] is None:
                        self.set(k, "operator" if self.in_math[self.starts[k]] else kind)

    def _is_formula(self, opener: int, holds_math: bool) -> bool:
        """Whether a bracket belongs to a formula: by what it holds, and what it follows."""
        before = opener - 1
        if opener and self.touches(before) and self.shapes[before] == "word":
            # f(x), P(A and B); but solution(s)
            return self.kinds[before] in MATH
        return holds_math

    def _symbol_kind(self, i: int, depth: int) -> tuple[str, bool]:
        word = self.words[i]
        before, after = map(self._is_math, self.neighbours(i))
        if word[0] == "*":
            return ("operator", True) if before and after else ("layout", True)
        if word[0] == "_":
            joins = i and self.touches(i - 1) and self.touches(i) and before
            return ("operator", True) if joins else ("layout", True)
        if word[0] in "#`":
            return "layout", True
        if word in "-–":
            return self._dash_kind(i, before, after)
        if word == "/":
            return ("operator", before and after) if before or after else ("punctuation", True)
        if word in "!'’":
            attached = i and self.touches(i - 1) and before
            return ("operator", word != "!" or after) if attached else ("punctuation", True)
        if word in ",;:" or word[0] in ".…":
            return self._point_kind(i, depth, before, after)
        if word == "$":
            return ("operator", False) if after and self.touches(i) else ("punctuation", False)
        if word in _OPERATORS or unicodedata.category(word[0]) == "Sm":
            return "operator", True
        is_number = unicodedata.category(word[0]) in ("No", "Nl")  # such as ², ½
        return ("number" if is_number else "punctuation"), True

    def _is_math(self, i: int | None) -> bool:
        """Whether a piece is part of a formula; if undecided, whether only formulas have it."""
        if i is None:
            return False
        if self.kinds[i] is None:
            return self.words[i] in _OPERATORS or unicodedata.category(self.words[i][0]) == "Sm"
        return self.kinds[i] in MATH

    def _dash_kind(self, i: int, before: bool, after: bool) -> tuple[str, bool]:
        """A minus is followed by a formula; the hyphens of "non-zero" and "2-digit" are not."""
        hyphen = i and self.touches(i - 1) and self.shapes[i - 1] == "word" and not before
        if not after or hyphen:
            return "punctuation", True
        return "operator", before or self.touches(i)

    def _point_kind(self, i: int, depth: int, before: bool, after: bool) -> tuple[str, bool]:
        """Commas, colons and dots: in a formula inside its brackets, or between its members."""
        word = self.words[i]
        if word[0] in ".…":
            if word in ("...", "…", "..", "....") and (before or after or depth):
                return "operator", True
            beside = [self.words[j] for j in self.neighbours(i) if j is not None]
            listed = len(word) > 1 and "," in beside
            return ("operator", False) if listed else ("punctuation", True)
        if depth > 0 and word in ",;":
            return "operator", True
        ratio = word == ":" and i and self.touches(i - 1) and self.touches(i) and before and after
        return ("operator", False) if ratio else ("punctuation", not (before and after))


def _math_mask(text: str) -> bytearray:
    r"""1 for each character inside LaTeX math, but for the words of ``\text{...}``."""
    mask = bytearray(len(text))
    for match in _MATH_REGION.finditer(text):
        mask[match.start() : match.end()] = b"\1" * (match.end() - match.start())
    for match in _TEXT_ARGUMENT.finditer(text):
        start, end = match.span(1)
        mask[start:end] = bytes(end - start)
    return mask


def _normal(word: str) -> str:
    return word.lower().replace("’", "'").rstrip(".")


def _is_letter(character: str) -> bool:
    """Latin, Greek and mathematical letters, as variables are written."""
    if len(character) != 1 or not character.isalpha():
        return False
    # The block of mathematical alphabets, and double-struck letters such as ℝ.
    styled = "\U0001d400" <= character <= "\U0001d7ff" or "\u2100" <= character <= "\u214f"
    return character.isascii() or styled or "GREEK" in unicodedata.name(character, "")


# --- Characters and tokens ------------------------------------------------------------------------


@dataclass(frozen=True)
class CharacterLabels:
    """Kind of every character of a text.

    Attributes:
        kinds: Places in ``KINDS``.
        sure: False where the span's kind is open to doubt.
        is_space: White space, which has the kind of what follows, or layout.
    """

    kinds: Int[np.ndarray, " characters"]
    sure: Bool[np.ndarray, " characters"]
    is_space: Bool[np.ndarray, " characters"]


def label_characters(text: str) -> CharacterLabels:
    """Give every character of a text a kind, white space included (see the module's rules)."""
    kinds = np.full(len(text), LAYOUT, dtype=np.int8)
    sure = np.ones(len(text), dtype=bool)
    for span in label_spans(text):
        kinds[span.start : span.end] = KIND_NAMES.index(span.kind)
        sure[span.start : span.end] = span.sure
    is_space = np.fromiter(map(str.isspace, text), dtype=bool, count=len(text))
    for match in re.finditer(r"\s+", text):
        start, end = match.span()
        breaks = end == len(text) or _LINE_BREAK.search(text, start, end)
        kinds[start:end] = LAYOUT if breaks else kinds[end]
    return CharacterLabels(kinds, sure, is_space)


def label_tokens(
    text: str, token_spans: Int[np.ndarray, "tokens 2"]
) -> tuple[list[str], list[str]]:
    """Kind of each token of a text, and what is doubtful about it.

    A token has the kind of its first character that is not white space; a token of white space
    only, that of its first character.

    Args:
        text: The response.
        token_spans: First character and end of each token.

    Returns:
        Kinds, and doubts: "" (none), ``rule`` (the span's kind is open to doubt), ``straddles``
        (the token reaches into a span of another category) or ``space`` (white space only).

    Raises:
        InputError: If a span lies outside the text.
    """
    spans = np.asarray(token_spans, dtype=np.int64).reshape(-1, 2)
    if spans.size and (spans.min() < 0 or spans.max() > len(text)):
        raise InputError(
            f"a token ends at character {spans.max()} of a text of {len(text)}: give the text that "
            "was tokenized"
        )
    if not text:
        return ["layout"] * len(spans), ["space"] * len(spans)
    labels = label_characters(text)
    # First character of each token that is not white space; its own first one if there is none.
    place = np.arange(len(text))
    following = np.minimum.accumulate(np.where(labels.is_space, len(text), place)[::-1])[::-1]
    starts = np.minimum(spans[:, 0], len(text) - 1)
    blank = following[starts] >= np.maximum(spans[:, 1], starts + 1)
    first = np.where(blank, starts, np.minimum(following[starts], len(text) - 1))
    # A token straddles where the category changes between its first and its last character.
    codes = category_codes("narrow")[labels.kinds]
    visible = np.flatnonzero(~labels.is_space)
    changes = np.zeros(len(text), dtype=np.int64)
    changes[visible[1:]] = codes[visible[1:]] != codes[visible[:-1]]
    changes = np.cumsum(changes)
    last = np.maximum(spans[:, 1] - 1, first)
    doubts = np.select(
        [blank, changes[last] != changes[first], ~labels.sure[first]],
        ["space", "straddles", "rule"],
        "",
    )
    return [KIND_NAMES[code] for code in labels.kinds[first]], doubts.tolist()


def category_codes(reading: str) -> Int[np.ndarray, " kinds"]:
    """Place of each kind's category in ``CATEGORIES``."""
    if reading not in READINGS:
        known = ", ".join([*READINGS, SINGLE_TOKENS])
        raise InputError(f"there is no reading {reading!r}: choose one of {known}")
    return np.array([CATEGORIES.index(READINGS[reading][kind]) for kind in KIND_NAMES])


def label_token_alone(token: str) -> str:
    """Category of a token by its own text: a second, independent rule, to check the first one with.

    This is what the paper may have done: look the token up in two short lists, call it math if it
    has a digit, a symbol or a single letter. It sees no context (no phrases, no article "a"), and
    its result depends on the tokenizer.
    """
    word = token.strip().lower()
    for category, words in TOKEN_WORDS.items():
        if word in words:
            return category
    letters = sum(character.isalpha() for character in word)
    if not word or set(word) <= set(".,:;?!\"'") or letters > 1:
        return "other"
    return "math"


def token_table(text: str, tokenizer: PreTrainedTokenizerBase) -> pd.DataFrame:
    """The tokens of a text with their categories.

    Returns:
        ``token`` (its text), ``start``, ``end``, ``kind``, ``category`` and ``doubt``.
    """
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    spans = np.array(encoded["offset_mapping"])
    kinds, doubts = label_tokens(text, spans)
    return pd.DataFrame(
        {
            "token": [text[start:end] for start, end in spans],
            "start": spans[:, 0],
            "end": spans[:, 1],
            "kind": kinds,
            "category": [KINDS[kind] for kind in kinds],
            "doubt": doubts,
        }
    )
