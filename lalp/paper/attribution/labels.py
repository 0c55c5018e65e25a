r"""Label every character of a response, then its tokens (paper, Sec. 7.4.1).

The paper sorts tokens into four categories and names one or two members of each. Rules on the
*text* fill the gaps. A response is cut into spans (words, fixed phrases, numbers, symbols), and
each span gets a **kind**. A token has the kind of the span that holds its first non-space
character, so a character has the same kind under every tokenizer.

- **Connectives** are split by the top senses of the Penn Discourse Treebank: contingency and
  comparison are reasoning, expansion and time are discourse. "So" is the exception: the paper names
  it as filler. Words that are rarely either (when, as, for, while, where) are function words.
- **White space.** A token that holds only spaces belongs to the text after it, as if the tokenizer
  had joined them (many cut " 3" into " " and "3"). White space that holds a line break, or ends the
  text, is layout.
- **Doubt.** A span is in doubt if a person could choose another kind ("so", "then", "second", the
  comma in "x, y").
- **Readings.** The paper's examples leave open what else is discourse: its own text puts
  "Therefore" there (Sec. 7.4.1) and its Table 4 among reasoning. ``READINGS`` holds several
  assignments of kinds to categories; a conclusion must hold under all of them.

The lists are English. The work is linear in the length of the text.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Int

from lalp.errors import InputError
from lalp.paper.attribution import lexicon
from lalp.students.encoding import first_character

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Span:
    """A piece of text of one kind: characters ``start`` to ``end``; never empty."""

    start: int
    end: int
    kind: str
    sure: bool = True


# Possessive, and stops at the next opener: linear even if many delimiters have no partner.
_MATH_REGION = re.compile(
    r"\$\$[^$]++\$\$"
    r"|(?<!\\)\\\[(?:[^\\]|\\(?![\[\]]))*+\\\]"
    r"|(?<!\\)\\\((?:[^\\]|\\(?![()]))*+\\\)"
    rf"|\\begin\{{({lexicon.MATH_ENVIRONMENTS})\*?\}}(?:[^\\]|\\(?!begin\{{\1|end\{{\1))*+\\end\{{\1\*?\}}"
    # "$5 and $6" is no formula: white space before the second dollar, or a digit after it.
    r"|(?<![\\$])\$(?!\s)(?:[^$\n\\]|\\[^\n])++(?<!\s)\$(?!\d)"
)
_TEXT_ARGUMENT = re.compile(r"\\(?:text(?:bf|it|rm|sf|tt)?|mbox|hbox|intertext)\{([^{}]*)\}")
_LABEL = re.compile(
    rf"(?m)^[ \t#>*_-]*(?P<label>(?P<name>(?i:{lexicon.LABELS}))"
    r"(?:[ \t]+(?:\d{1,3}|[A-Za-z]|[ivxIVX]{1,5}))?)(?=[ \t]*[*_]*(?:[:)]|\.(?!\d)))"
)
_ENUMERATOR = re.compile(
    r"(?m)^[ \t]*[*_]*(?P<label>\(?(?:\d{1,3}|[A-Za-z]|[ivx]{2,4})[.)])(?=[*_]*[ \t])"
)
# A formula may follow in "- 8a": a dash is a bullet only before a word.
_BULLET = re.compile(
    r"(?m)^[ \t]*(?P<label>[-*–](?=[ \t]+[*_\"(]*[^\W\d_]{2})|(?:[•‣◦▪●○]|#{1,6}|>)(?=[ \t]))"
)
_RULE = re.compile(r"(?m)^[ \t]*(?P<label>[-=*_~]{3,})[ \t]*$")
_TABLE_ROW = re.compile(r"(?m)^[ \t]*\|[ \t:-].*\|[ \t]*$")
# Superscripts, fractions and the like are not letters, although \w matches them.
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
# Letters that usually occur together as factors or points: abc, xyz.
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
    # Each pass leaves alone what an earlier one has labelled, and reads it as context.
    lexer.label_lines()
    lexer.label_phrases()
    lexer.label_words()
    lexer.label_brackets()
    lexer.label_symbols()
    return lexer.spans()


class _Lexer:
    """The pieces of one text, and what is known about each so far."""

    def __init__(self, text: str) -> None:
        self.text = text
        # 1 for each character inside LaTeX math, except for the words of ``\text{...}``.
        self.in_math = bytearray(len(text))
        for match in _MATH_REGION.finditer(text):
            self.in_math[match.start() : match.end()] = b"\1" * len(match[0])
        for match in _TEXT_ARGUMENT.finditer(text):
            self.in_math[match.start(1) : match.end(1)] = bytes(len(match[1]))
        matches = list(_LEXEME.finditer(text))
        self.shapes = [match.lastgroup for match in matches]
        self.words = [match.group() for match in matches]
        self.starts = [match.start() for match in matches]
        self.ends = [match.end() for match in matches]
        self.gaps = [text[a.end() : b.start()] for a, b in pairwise(matches)]
        self.kinds: list[str | None] = [None] * len(matches)
        self.sure = [True] * len(matches)
        # The last piece of the phrase that a piece belongs to.
        self.lasts = list(range(len(matches)))

    def set(self, first: int, kind: str, sure: bool = True, last: int | None = None) -> None:
        """Make the pieces ``first`` to ``last`` one span."""
        last = first if last is None else last
        for i in range(first, last + 1):
            self.kinds[i], self.sure[i], self.lasts[i] = kind, sure, last

    def spans(self) -> list[Span]:
        spans, i = [], 0
        while i < len(self.words):
            last = self.lasts[i]
            spans.append(Span(self.starts[i], self.ends[last], self.kinds[i], self.sure[i]))
            i = last + 1
        return spans

    def touches(self, i: int) -> bool:
        """Whether nothing is between piece ``i`` and the next one; False for no piece."""
        return 0 <= i < len(self.gaps) and not self.gaps[i]

    def neighbours(self, i: int) -> tuple[int | None, int | None]:
        """The pieces before and after on the same line."""
        before = i - 1 if i and not _LINE_BREAK.search(self.gaps[i - 1]) else None
        ends_line = i == len(self.gaps) or _LINE_BREAK.search(self.gaps[i])
        return before, None if ends_line else i + 1

    def beside(self, i: int) -> list[str]:
        """The words of the neighbours that exist."""
        return [self.words[j] for j in self.neighbours(i) if j is not None]

    def follows_number(self, i: int) -> bool:
        return self.touches(i - 1) and self.shapes[i - 1] == "number"

    # --- whole lines and phrases

    def label_lines(self) -> None:
        """Headings such as "Step 2:", list numbers, bullets and rules."""
        for pattern, kind, sure in (
            (_RULE, "layout", True),
            (_BULLET, "layout", False),
            (_ENUMERATOR, "signpost", False),
            (_LABEL, "signpost", True),
        ):
            for match in pattern.finditer(self.text):
                pieces = self._pieces(*match.span("label"))
                start = match.start("label")
                if pieces and self.starts[pieces[0]] == start and not self.in_math[start]:
                    name = match.groupdict().get("name") or ""
                    own = "condition" if "case" in name.lower() else kind
                    self.set(pieces[0], own, sure, pieces[-1])
        for match in _TABLE_ROW.finditer(self.text):
            for i in self._pieces(*match.span()):
                if self.words[i] == "|":
                    self.set(i, "layout")

    def _pieces(self, start: int, end: int) -> range:
        """Indices of the pieces that lie within the characters ``start`` to ``end``."""
        return range(bisect_left(self.starts, start), bisect_right(self.ends, end))

    def label_phrases(self) -> None:
        """From left to right, the longest phrase that begins at a word."""
        i = 0
        while i < len(self.words):
            last, found, node, j = i, None, lexicon.TREE, i
            while j is not None and self.shapes[j] == "word" and self.kinds[j] is None:
                node = node.get(_normal(self.words[j]))
                # No phrases in formulas or attached to a number: "3rd".
                is_prose = not self.in_math[self.starts[j]] and not self.follows_number(j)
                if node is None or not is_prose:
                    break
                phrase = node.get("")
                if phrase and (not phrase.begins_clause or self._begins_clause(i)):
                    last, found = j, phrase
                j = self._next_word(j)
            if found:
                self.set(i, found.kind, found.sure, last)
            i = last + 1

    def _begins_clause(self, i: int) -> bool:
        before, _ = self.neighbours(i)
        if before is None or self.words[before][0] in '.?!:;,(*"“':
            return True
        return self.kinds[before] in ("filler", "conclusion", "contrast")  # "So next we ..."

    def _next_word(self, i: int) -> int | None:
        """The word after ``i``, past white space or one hyphen ("step-by-step")."""
        j = i + 1
        if self.touches(i) and self.words[j] == "-" and self.touches(j):
            return j + 1
        if j == len(self.words):
            return None
        gap = self.gaps[i]
        # A phrase may run over the end of a line, but not into the next paragraph.
        return j if gap.isspace() and len(_LINE_BREAK.findall(gap)) < 2 else None

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
        if self.follows_number(i) and normal in ("st", "nd", "rd", "th"):
            return "number", True
        if normal in lexicon.WORDS["function_names"]:
            return "function", True
        if self.in_math[self.starts[i]]:
            return "variable", True
        beside = self.beside(i)
        are_operands = [one[0].isdecimal() or one in "()" or _is_letter(one) for one in beside]
        if normal == "choose" and len(beside) == 2 and all(are_operands):
            return "function", False
        if len(word) == 1 or re.fullmatch(r"[^\W\d_]['’]s", word):
            return self._letter_kind(i)
        if self.follows_number(i) and len(word) <= 4:
            return "variable", normal not in lexicon.WORDS["function_words"]
        return self._longer_word_kind(word, normal, beside)

    def _letter_kind(self, i: int) -> tuple[str, bool]:
        """A single letter: a variable, unless it is the article "a" or the pronoun "I"."""
        word = self.words[i]
        if not _is_letter(word[0]):
            return "content word", True
        if word not in ("a", "A", "I"):
            return "variable", True
        before, after = self.neighbours(i)
        if before is not None:
            sign, shape = self.words[before], self.shapes[before]
            joins = sign in _OPERATORS or (sign in "-*_(" and self.touches(before))
            if shape == "latex" or (shape == "symbol" and joins):
                return "variable", True
        if after is None:
            return "variable", False
        if self.shapes[after] == "word":
            following = _normal(self.words[after])
            if word == "I":
                return "function word", True
            begins_sentence = before is None or self.words[before] in '.?!:*"“'
            if following in lexicon.WORDS["after_variable"] or (
                word == "A" and not begins_sentence
            ):
                return "variable", True
            return "function word", len(following) > 1
        if self.shapes[after] != "symbol":
            return "function word", True  # "a 3-digit number"
        if self.words[after] in "([{\"'“‘*`$" and not self.touches(i):
            return "function word", False
        return "variable", True  # "a - b", "a, b" and "(a)"

    def _longer_word_kind(self, word: str, normal: str, beside: list[str]) -> tuple[str, bool]:
        if normal in lexicon.WORDS["math_words"]:
            return "math word", True
        if normal in lexicon.WORDS["function_words"] or normal in lexicon.WORDS["ordinals"]:
            return "function word", True
        if not word.isascii():
            is_formula = len(word) <= 3 and all(map(_is_letter, word))
        elif len(word) == 2 and normal not in lexicon.WORDS["two_letter_words"]:
            return "variable", word.islower()
        else:
            is_formula = (
                (len(word) <= 4 and word.isupper())
                or (_PRODUCT.fullmatch(word) and list(word) == sorted(set(word)))
                or (len(word) <= 3 and any(one in _JOINING for one in beside))
                or (re.fullmatch(r"[a-z]?[A-Z][a-z]?", word) and not word.istitle())
            )
        return ("variable", False) if is_formula else ("content word", True)

    # --- symbols

    def label_brackets(self) -> None:
        """Brackets that hold a formula are part of it, those that hold words are not."""
        # Counts up to each piece: the content of a bracket is then a difference of two counts.
        prose = np.cumsum([0, *(k is not None and k not in lexicon.MATH for k in self.kinds)])
        math = np.cumsum([0, *(k in lexicon.MATH for k in self.kinds)])
        open_: list[int] = []
        for i, word in enumerate(self.words):
            if self.shapes[i] != "symbol" or self.kinds[i] is not None:
                continue
            if word in "([{":
                open_.append(i)
            # A bracket without its partner stays open, such as those of the interval [0, 1).
            elif word in _BRACKETS and open_ and self.words[open_[-1]] == _BRACKETS[word]:
                j = open_.pop()
                if self.touches(j - 1) and self.shapes[j - 1] == "word":
                    # f(x), P(A and B); but solution(s)
                    is_formula = self.kinds[j - 1] in lexicon.MATH
                else:
                    is_formula = math[i] > math[j] and prose[i] == prose[j]
                for k in (i, j):
                    in_formula = is_formula or self.in_math[self.starts[k]]
                    self.set(k, "operator" if in_formula else "punctuation")

    def label_symbols(self) -> None:
        depth = 0
        for i, word in enumerate(self.words):
            if self.kinds[i] == "operator":
                depth += (word in "([{") - (word in ")]}")
            elif self.kinds[i] is None and self.in_math[self.starts[i]]:
                self.set(i, "latex" if word in "$&" else "operator")
            elif self.kinds[i] is None:
                self.set(i, *self._symbol_kind(i, depth))

    def _symbol_kind(self, i: int, depth: int) -> tuple[str, bool]:
        word, attached = self.words[i], self.touches(i - 1)
        before, after = map(self._is_math, self.neighbours(i))
        if word[0] == "*":
            return ("operator", True) if before and after else ("layout", True)
        if word[0] == "_":
            joins = attached and self.touches(i) and before
            return ("operator", True) if joins else ("layout", True)
        if word[0] in "#`":
            return "layout", True
        if word in "-–":
            # A minus is followed by a formula; the hyphens of "non-zero" and "2-digit" are not.
            hyphen = attached and self.shapes[i - 1] == "word" and not before
            is_minus = after and not hyphen
            return ("operator", before or self.touches(i)) if is_minus else ("punctuation", True)
        if word == "/":
            return ("operator", before and after) if before or after else ("punctuation", True)
        if word in "!'’":
            is_sign = attached and before
            return ("operator", word != "!" or after) if is_sign else ("punctuation", True)
        if word in ",;:" or word[0] in ".…":
            return self._point_kind(i, depth, before, after)
        if word == "$":
            return ("operator", False) if after and self.touches(i) else ("punctuation", False)
        if _is_operator(word):
            return "operator", True
        is_number = unicodedata.category(word[0]) in ("No", "Nl")  # such as ², ½
        return ("number" if is_number else "punctuation"), True

    def _is_math(self, i: int | None) -> bool:
        """Whether a piece is part of a formula; if undecided, whether only formulas have it."""
        if i is None:
            return False
        kind = self.kinds[i]
        return _is_operator(self.words[i]) if kind is None else kind in lexicon.MATH

    def _point_kind(self, i: int, depth: int, before: bool, after: bool) -> tuple[str, bool]:
        """Commas, colons and dots: in a formula inside its brackets, or between its members."""
        word = self.words[i]
        if word[0] in ".…":
            if word in ("...", "…", "..", "....") and (before or after or depth):
                return "operator", True
            listed = len(word) > 1 and "," in self.beside(i)
            return ("operator", False) if listed else ("punctuation", True)
        if depth > 0 and word in ",;":
            return "operator", True
        ratio = word == ":" and self.touches(i - 1) and self.touches(i) and before and after
        return ("operator", False) if ratio else ("punctuation", not (before and after))


def _is_operator(word: str) -> bool:
    return word in _OPERATORS or unicodedata.category(word[0]) == "Sm"


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


def label_characters(text: str) -> tuple[list[str], list[bool]]:
    """Kind of every character, and whether that is sure."""
    kinds, sure = ["layout"] * len(text), [True] * len(text)
    for span in label_spans(text):
        for i in range(span.start, span.end):
            kinds[i], sure[i] = span.kind, span.sure
    for match in re.finditer(r"\s+", text):
        start, end = match.span()
        breaks = end == len(text) or _LINE_BREAK.search(text, start, end)
        kinds[start:end] = ["layout" if breaks else kinds[end]] * (end - start)
    return kinds, sure


def label_tokens(
    text: str, token_spans: Int[np.ndarray, "tokens 2"]
) -> tuple[list[str], list[str]]:
    """Kind of each token of a text, and any doubt about it.

    A token has the kind of its first character that is not white space; a token that holds only
    white space has the kind of its first character. Doubts are "" (none), ``rule`` (the span's kind
    is open to doubt), ``straddles`` (the token reaches into a span of another category) or
    ``space`` (white space only). InputError if a span lies outside the text.
    """
    spans = np.asarray(token_spans, dtype=np.int64).reshape(-1, 2)
    if spans.size and (spans.min() < 0 or spans.max() > len(text)):
        raise InputError(
            f"a token ends at character {spans.max()} of a text of {len(text)}: give the text that "
            "was tokenized"
        )
    if not text:
        return ["layout"] * len(spans), ["space"] * len(spans)
    character_kinds, sure = label_characters(text)
    kinds, doubts = [], []
    for start, end in spans.tolist():
        # A token without characters takes the place of the next one.
        start = min(start, len(text) - 1)
        end = max(end, start + 1)
        first = first_character(text, start, end)
        kinds.append(character_kinds[first])
        visible = [i for i in range(start, end) if not text[i].isspace()]
        if len({lexicon.KINDS[character_kinds[i]] for i in visible}) > 1:
            doubts.append("straddles")
        elif visible:
            doubts.append("" if sure[first] else "rule")
        else:
            doubts.append("space")
    return kinds, doubts


def label_token_alone(token: str) -> str:
    """Category of a token by its own text: a second, independent rule to check the first.

    The paper may have done this: look the token up in two short lists, and call it math if it has a
    digit, a symbol or a single letter. The rule sees no context and depends on the tokenizer.
    """
    word = token.strip().lower()
    for category, words in lexicon.TOKEN_WORDS.items():
        if word in words:
            return category
    letters = sum(character.isalpha() for character in word)
    if not word or set(word) <= set(".,:;?!\"'") or letters > 1:
        return "other"
    return "math"


def token_table(text: str, tokenizer: PreTrainedTokenizerBase) -> pd.DataFrame:
    """The tokens of a text with their spans, kinds, categories and doubts."""
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    spans = np.array(encoded["offset_mapping"])
    kinds, doubts = label_tokens(text, spans)
    table = pd.DataFrame({"token": [text[start:end] for start, end in spans]})
    table[["start", "end"]] = spans
    return table.assign(kind=kinds, category=[lexicon.KINDS[kind] for kind in kinds], doubt=doubts)
