r"""Which kinds of token carry a score: probability mass by category (paper, Sec. 7.4.1).

The paper sorts tokens into four categories and names one or two members of each. What it does not
say is filled in here by rules on the *text*: a response is cut into spans (words, fixed phrases,
numbers, symbols), each span gets a **kind**, and a token has the kind of the span that holds its
first non-space character. The same character so has the same kind under every tokenizer.

=============  ===========  ====================================================================
kind           category     examples
=============  ===========  ====================================================================
filler         discourse    okay, so, now, well, hmm, wait, actually, clearly
signpost       discourse    first, finally, for example, let's, we need to, we have, note that,
                            "Step 2:", the numbers of a list
conclusion     reasoning    therefore, thus, it follows that, this means that, contradiction
premise        reasoning    because, since, given that, by induction, according to
condition      reasoning    if, then, otherwise, suppose, provided that, "Case 1:"
contrast       reasoning    but, however, although, on the other hand
binding        reasoning    let (not let's), denote, define, substituting, such that
number         math         42, 1,000, 3.5, the digits of 2nd
variable       math         x, n, ab, ABC, Greek letters; "a" where it is no article
operator       math         = + - / ^ | ! and the brackets, commas and dots inside a formula
function       math         sin, log, gcd, mod; "choose" between two numbers
latex          math         \\frac, \\cdot, $ and other delimiters
math word      other        equation, integer, sum, divisible
function word  other        the, of, is, which, when, for, both, must
content word   other        every other word, in any language
punctuation    other        . , : ; ? quotes, brackets and hyphens of prose
layout         other        line breaks, bullets, ** and # of Markdown, tags
=============  ===========  ====================================================================

- **Connectives** are split by the top senses of the Penn Discourse Treebank: contingency and
  comparison are reasoning, expansion and time are discourse. "So" is the exception: the paper names
  it as filler. Words that are mostly neither (when, as, for, while, where) are function words.
- **White space.** A token of spaces only belongs to what follows, as it would if the tokenizer had
  glued it there (many cut " 3" into " " and "3"). White space that holds a line break, or ends the
  text, is layout.
- **Doubt.** A span is marked unsure where a person could choose otherwise ("so", "then", "second",
  the comma in "x, y"); ``token_table`` says for each token what is doubtful about it.
- **Readings.** The paper's examples leave open what else is discourse: its own text puts
  "Therefore" there (Sec. 7.4.1) and its Table 4 among reasoning. ``READINGS`` holds several
  assignments of kinds to categories; a conclusion that hangs on one of them is none.

The lists are English. The work is linear in the length of the text.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
import warnings
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from lalp.records import InputError

CATEGORIES = ("discourse", "math", "reasoning", "other")
"""The paper's four (Table 4), in its order of rows."""

REASONING_BEARING = "math + reasoning"
_GROUPS = {**{name: (name,) for name in CATEGORIES}, REASONING_BEARING: ("math", "reasoning")}

KINDS: Mapping[str, str] = MappingProxyType(
    {
        "filler": "discourse",
        "signpost": "discourse",
        "conclusion": "reasoning",
        "premise": "reasoning",
        "condition": "reasoning",
        "contrast": "reasoning",
        "binding": "reasoning",
        "number": "math",
        "variable": "math",
        "operator": "math",
        "function": "math",
        "latex": "math",
        "math word": "other",
        "function word": "other",
        "content word": "other",
        "punctuation": "other",
        "layout": "other",
    }
)
"""Every kind, and its category when only what the paper names counts."""

EXAMPLES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "filler": ("Okay", "So", "now", "of course"),
        "signpost": ("Finally", "for example", "we need to", "Step 2:"),
        "conclusion": ("Therefore", "it follows that", "which means"),
        "premise": ("because", "given that", "by induction"),
        "condition": ("if and only if", "suppose", "otherwise", "Case 1:"),
        "contrast": ("However", "although", "on the other hand"),
        "binding": ("Let", "let's denote", "substituting"),
        "number": ("42", "1,000", "3.5", "2nd"),
        "variable": ("x", "n", "bc", "α"),
        "operator": ("=", "+", "≤", "^"),
        "function": ("sin", "gcd", "mod"),
        "latex": (r"\frac", r"\cdot", r"\["),
        "math word": ("equation", "integer", "divisible"),
        "function word": ("the", "of", "which", "when"),
        "content word": ("find", "rewrite", "garden"),
        "punctuation": (",", ";", "?"),
        "layout": ("**", "#", "<br>"),
    }
)
"""Members of each kind, as a text of their own; of "Step 2:" the colon is punctuation."""

_PROSE = ("function word", "punctuation", "layout")
READINGS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "narrow": KINDS,
        "broad discourse": {**KINDS, **dict.fromkeys(_PROSE, "discourse")},
        "broad discourse and math": {
            **KINDS,
            **dict.fromkeys(_PROSE, "discourse"),
            "math word": "math",
        },
        "conclusions as discourse": {**KINDS, "conclusion": "discourse"},
    }
)
"""Assignments of kinds to categories: ``narrow`` is the default, the broad ones call filler all
that has no content of its own, the last one follows Sec. 7.4.1 instead of Table 4."""

SINGLE_TOKENS = "single tokens"
"""The reading by ``label_token_alone`` instead of by spans."""

Weighting = Literal["token", "response", "step"]
Measure = Literal["mass", "count", "low", "low in pool"]

_KIND_NAMES = tuple(KINDS)
_LAYOUT = _KIND_NAMES.index("layout")
_MATH = frozenset(kind for kind, category in KINDS.items() if category == "math")
_LOW_SHARE = 0.1
# Shares summed in another order differ by about 1e-16: no smaller shift is one.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Span:
    """A piece of text of one kind: characters ``start`` to ``end``; never empty.

    ``sure`` is False where a person could choose another kind.
    """

    start: int
    end: int
    kind: str
    sure: bool = True


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# --- Tables ---------------------------------------------------------------------------------------

# Marks after a phrase: "?" for another use beside this one, "^" for the beginning of a clause only.
_PHRASES = {
    "filler": """
        okay, ok, alright, hmm, hm, oh, ah, wait, well^, so?, now, actually, basically, simply?,
        anyway, yeah, yes^, sure^, of course, clearly, obviously, indeed, great^, perfect^, right^,
        here^, you know, i mean, i think, i guess, let me see, let's see""",
    "signpost": """
        first^, firstly, first of all, second^, secondly, third^, thirdly, next^, finally, lastly,
        to begin with, to start with, to begin, to start, let's start by, let's begin by,
        we start by, we can start by, in summary, to summarize, to sum up, in conclusion,
        to conclude, overall^, in short, at this point, from here, as follows, after that,
        for example, for instance, e.g, i.e, etc, and so on, and so forth, that is^, in other words,
        namely, specifically, in particular, similarly, likewise, moreover, furthermore, further^,
        in addition, additionally, also, besides, again, respectively, alternatively, in fact,
        as mentioned, as mentioned earlier, as mentioned above, as shown, as shown above,
        as before, as above, recall, recall that, remember, remember that, note, note that, notice,
        notice that, observe, observe that, keep in mind, we know, we know that, we see,
        we see that, we can see, we can see that, we can say that, we can observe that,
        we notice that, we observe that, we note that, it is clear that, it's clear that,
        it can be seen that, it is easy to see that, it is important to note that,
        it is worth noting that, let's, let us, let me, we can, we could, we can now, we can then,
        we need, we need to, we want, we want to, we have, we have to, we now have, we then have,
        we must?, we get, we obtain, we find, we find that, we use, we can use, we will, we'll,
        we shall, we consider, we are given, we are given that, we are looking for, we start with,
        i will, i'll, i need to, i can, our goal is, our task is, the goal is,
        to solve this problem, to solve this, to solve the problem, to do this, to do so,
        in order to?, the problem asks, the problem asks for, the question asks, the question is,
        this problem can be solved, the answer is, the final answer is, our answer is,
        the solution is, in this case, in our case, step by step, step wise, one by one,
        as a first step, going back, in general, at first, in the end, let's look at,
        let's take a look at, let's try, let's check, let me check, let me try, let's verify,
        let me verify, let's consider, let's find""",
    "conclusion": """
        therefore, thus, hence, consequently, accordingly, ergo, as a result, as a consequence,
        it follows, it follows that, this follows from, which follows from, follows from,
        follows that, this implies, this implies that, which implies, which implies that, implies,
        implies that, imply, implying, implying that, this means, this means that, which means,
        which means that, that means, that means that, means that, meaning that, this gives,
        this gives us, which gives, which gives us, gives us, giving us, this shows,
        this shows that, which shows that, this yields, which yields, yields, yielding,
        this leads to, which leads to, leads to, leading to, this results in, which results in,
        results in, resulting in, we conclude, we conclude that, we can conclude,
        we can conclude that, conclude that, we deduce, we deduce that, we can deduce,
        we can deduce that, we infer that, we can infer that, this proves, this proves that,
        which proves that, this tells us, this tells us that, which tells us that, equivalently,
        contradiction, a contradiction, contradicts, contradicting, contradict, this contradicts,
        which contradicts, which is a contradiction, q.e.d, qed, for this reason, it must be that,
        it must be the case that, this suggests, this suggests that""",
    "premise": """
        because, because of, this is because, since, given^, given that, due to,
        due to the fact that, the fact that, by the fact that, from the fact that,
        using the fact that,
        we can use the fact that, according to, based on, by definition, by assumption,
        by hypothesis, by induction, by symmetry, by construction, by contradiction,
        by the induction hypothesis, in view of, owing to, thanks to, as a consequence of,
        now that, this follows because, seeing that""",
    "condition": """
        if, if and only if, iff, only if, even if, as if, if not, if so, then?, if then, unless,
        otherwise, whenever, provided?, provided that, as long as, so long as, in case, suppose,
        suppose that, let's suppose, let's suppose that, let us suppose, assume, assume that,
        let's assume, let's assume that, let us assume, let us assume that, we assume,
        we assume that, we can assume, we can assume that, assuming, assuming that,
        consider the case, let's consider the case, in the case, in that case?,
        without loss of generality, wlog, whether?, depending on""",
    "contrast": """
        but, however, although, though, even though, nevertheless, nonetheless, yet^, still^,
        whereas, on the other hand, on the one hand, on one hand, on the contrary, contrary to,
        conversely, in contrast, by contrast, in contrast to, instead, instead of, rather?,
        rather than, despite, in spite of, regardless, regardless of, except, unlike""",
    "binding": """
        let, let's let, let's denote, let's define, let's call?, let us denote, let us define,
        denote, denotes, denoted, denoted by, denoting, define, defines, defined as, defined by,
        defining, we define, we denote, we let, we can define, we can denote, we can let,
        substitute, substituting, substituted, substitution?, we can substitute, we substitute,
        plug, plugging, plug in, plugging in, plugging this in, replacing?, such that""",
}

_FUNCTION_NAMES = _words(
    """sin cos tan cot sec csc sinh cosh tanh arcsin arccos arctan log ln lg exp mod gcd lcm hcf max
    min sup inf lim limsup liminf det sgn sqrt cbrt floor ceil binom frac cdot"""
)
_MATH_WORDS = _words(
    """absolute acute add adding addition adjacent algebra algebraic altitude angle angles area
    argument arithmetic arrangement arrangements asymptote average axis base bases bijection
    binary binomial bisector bound bounded bounds calculate calculation ceiling center chord
    circle circles circumference coefficient coefficients column columns combination
    combinations combinatorial common complement complex composite compute concave congruence
    congruences congruent consecutive constant constants constraint constraints converge
    convergent converges convex coordinate coordinates coprime cosine count counting counts
    cube cubes cubic cycle cycles decimal decreasing definition degree degrees denominator
    denominators derivative derivatives determinant diagonal diagonals diameter difference
    differences differentiable digit digits dimension discriminant disjoint distance distinct
    distribution distributive divide divided dividend divides dividing divisibility divisible
    division divisor divisors domain edge edges eigenvalue element elements ellipse equal
    equality equals equation equations equilateral equivalence equivalent evaluate even
    exponent exponential exponents expression expressions factor factorial factorials
    factorization factorize factorized factors finite formula formulas fraction fractions
    function functions geometric geometry graph greater greatest height hexagon hypotenuse
    identities identity imaginary increasing independent index indices induction inductive
    inequalities inequality infinite infinity injective integer integers integral intersection
    interval intervals inverse irrational isosceles largest leg length lengths limit limits
    line linear lines logarithm logarithmic logarithms matrices matrix maximal maximize
    maximized maximum mean median midpoint minimal minimize minimized minimum minus modular
    modulo modulus monotone monotonic multiple multiples multiplication multiplicity
    multiplied multiply multiplying negative nonnegative nonzero number numbers numerator
    numerators octagon odd operation operations orthogonal parabola parallel parallelogram
    parity partition partitions pentagon percent perfect perimeter permutation permutations
    perpendicular pi plane plus point points polygon polynomial polynomials positive power
    powers prime primes probabilities probability product products progression proportional
    quadrant quadratic quadrilateral quotient radians radical radii radius random range rate
    ratio rational ratios real reciprocal reciprocals rectangle recurrence recursion recursive
    remainder remainders residue residues root roots row rows scalar secant segment semicircle
    sequence sequences series set sets side sides sign simplification simplified simplifies
    simplify simplifying sine slope smallest solution solutions solve solved solving square
    squared squares squaring string strings subset subsets subtract subtracted subtracting
    subtraction sum summation summing sums symmetric symmetry tangent term terms theorem
    theorems times total trapezoid triangle triangles trigonometric triple triples tuple
    tuples union unknown value values variable variables vector vectors vertex vertices volume
    width zero zeroes zeros am gm hm qm lhs rhs crt dp"""
)
_FUNCTION_WORDS = _words(
    """a about above across after against all along among an and another any anything are aren't
    around as at away be been before being below beneath between beyond both by can can't
    cannot could couldn't did didn't do does doesn't doing don't done down during each either
    else enough ever every everyone everything exactly few fewer for from had has hasn't have
    haven't having he he's her him his how i i'd i'm i've in inside into is isn't it it's its
    itself just least less lot many may me might more most much must my nd neither never no
    nobody non none nor not nothing of off on once one ones only onto or other others our ours
    ourselves out outside over own per rd s same several shall she should some someone
    something st th than that that's the their them themselves there there's these they this
    those three through throughout to together too toward towards twice two under until up
    upon us very via vs was wasn't we we'll we're we've were what what's when where where's
    which while who whom whose why will with within without won't would wouldn't you your"""
)
# Ordinals count as signposts only where a clause begins.
_ORDINALS = _words("first second third fourth fifth next last")
_TWO_LETTER_WORDS = _words(
    """ad ah am an as at be by do go he hi if in is it me mr ms my no of oh ok on or so to up us
    vs we st nd rd th cm mm km kg"""
)
# After these words "a" is read as an article only if a longer word follows.
_AFTER_VARIABLE = _words(
    """and are as at be by can cannot could divides does equals for from has have if in into is lies
    may mod modulo must need needs not of on or satisfies satisfy should so such than that then to
    when where which while will with would"""
)
_LABELS = (
    "Step|Steps|Part|Case|Subcase|Claim|Lemma|Theorem|Proof|Solution|Answer|Final answer|Problem|"
    "Approach|Method|Example|Note|Remark|Conclusion|Summary|Explanation|Base case|Inductive step"
)

# --- Patterns -------------------------------------------------------------------------------------

_MATH_ENVIRONMENTS = (
    "equation|align|aligned|alignat|gather|gathered|multline|eqnarray|array|cases|split|math|"
    "displaymath|[bBpvV]?matrix|smallmatrix"
)
# Possessive and stopping at the next opener: linear, however many delimiters have no partner.
_MATH_REGION = re.compile(
    r"\$\$[^$]++\$\$"
    r"|(?<!\\)\\\[(?:[^\\]|\\(?![\[\]]))*+\\\]"
    r"|(?<!\\)\\\((?:[^\\]|\\(?![()]))*+\\\)"
    rf"|\\begin\{{({_MATH_ENVIRONMENTS})\*?\}}(?:[^\\]|\\(?!begin\{{\1|end\{{\1))*+\\end\{{\1\*?\}}"
    # "$5 and $6" is no formula: white space before the second dollar, or a digit after it.
    r"|(?<![\\$])\$(?!\s)(?:[^$\n\\]|\\[^\n])++(?<!\s)\$(?!\d)"
)
_TEXT_ARGUMENT = re.compile(r"\\(?:text(?:bf|it|rm|sf|tt)?|mbox|hbox|intertext)\{([^{}]*)\}")
_LABEL = re.compile(
    rf"(?m)^[ \t#>*_-]*(?P<label>(?P<name>(?i:{_LABELS}))"
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
_BRACKETS = {")": "(", "]": "[", "}": "{"}
_LINE_BREAK = re.compile(r"[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")


@dataclass(frozen=True)
class _Phrase:
    kind: str
    sure: bool
    begins_clause: bool


def _phrase_tree() -> dict[str, Any]:
    """Phrases as nested dictionaries, word by word; the key "" holds the phrase that ends there."""
    root: dict[str, Any] = {}
    for kind, listed in _PHRASES.items():
        for phrase in listed.replace("\n", " ").split(","):
            node, mark = root, phrase.strip()[-1]
            for word in phrase.strip().rstrip("?^").split():
                node = node.setdefault(word, {})
            node[""] = _Phrase(kind, mark != "?", mark == "^")
    return root


_TREE = _phrase_tree()


# --- Spans ----------------------------------------------------------------------------------------


def label_spans(text: str) -> list[Span]:
    """Cut a text into spans and give each a kind (see the module's table).

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

    # --- whole lines

    def label_lines(self) -> None:
        """Headings such as "Step 2:", list numbers, bullets and rules."""
        self._label_matches(_RULE, "layout")
        self._label_matches(_BULLET, "layout", sure=False)
        self._label_matches(_ENUMERATOR, "signpost", sure=False)
        self._label_matches(_LABEL, "signpost")
        for match in _TABLE_ROW.finditer(self.text):
            for i in self._pieces(*match.span()):
                if self.words[i] == "|":
                    self.set(i, "layout")

    def _label_matches(self, pattern: re.Pattern[str], kind: str, sure: bool = True) -> None:
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

    def _longest_phrase(self, i: int) -> tuple[int, _Phrase | None]:
        last, found, node, j = i, None, _TREE, i
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
            if shape == "number":
                self.set(i, "number")
            elif shape == "latex":
                self.set(i, "latex")
            elif shape == "tag" and not self.in_math[self.starts[i]]:
                self.set(i, "layout")
            elif shape == "tag":
                self.set(i, "operator")
            elif shape == "word":
                self.set(i, *self._word_kind(i))

    def _word_kind(self, i: int) -> tuple[str, bool]:
        word, normal = self.words[i], _normal(self.words[i])
        after_number = bool(i) and self.touches(i - 1) and self.shapes[i - 1] == "number"
        if after_number and normal in ("st", "nd", "rd", "th"):
            return "number", True
        if normal in _FUNCTION_NAMES:
            return "function", True
        if self.in_math[self.starts[i]]:
            return "variable", True
        if normal == "choose" and self._between_numbers(i):
            return "function", False
        if len(word) == 1 or re.fullmatch(r"[^\W\d_]['’]s", word):
            return self._letter_kind(i)
        if after_number and len(word) <= 4:
            return "variable", normal not in _FUNCTION_WORDS
        return self._longer_word_kind(i, word, normal)

    def _between_numbers(self, i: int) -> bool:
        return all(
            j is not None
            and (self.shapes[j] == "number" or self.words[j] in "()" or _is_letter(self.words[j]))
            for j in (self.neighbour(i, -1), self.neighbour(i, 1))
        )

    def _letter_kind(self, i: int) -> tuple[str, bool]:
        """A single letter: a variable, unless it is the article "a" or the pronoun "I"."""
        word = self.words[i]
        if not _is_letter(word[0]):
            return "content word", True
        if word not in ("a", "A", "I"):
            return "variable", True
        before, after = self.neighbour(i, -1), self.neighbour(i, 1)
        if before is not None and self._is_formula_sign(before):
            return "variable", True
        if after is None:
            return "variable", False
        if self.shapes[after] == "word":
            following = _normal(self.words[after])
            if word == "I":
                return "function word", True
            if following in _AFTER_VARIABLE:
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
        if normal in _MATH_WORDS:
            return "math word", True
        if normal in _FUNCTION_WORDS or normal in _ORDINALS:
            return "function word", True
        if not word.isascii():
            is_formula = len(word) <= 3 and all(map(_is_letter, word))
            return ("variable", False) if is_formula else ("content word", True)
        if len(word) == 2 and normal not in _TWO_LETTER_WORDS:
            return "variable", word.islower()
        if len(word) <= 4 and word.isupper():
            return "variable", False
        if _PRODUCT.fullmatch(word) and list(word) == sorted(set(word)):
            return "variable", False
        if len(word) <= 3 and self._beside_operator(i):
            return "variable", False
        if len(word) <= 3 and re.fullmatch(r"[a-z]?[A-Z][a-z]?", word) and not word.istitle():
            return "variable", False
        return "content word", True

    def _beside_operator(self, i: int) -> bool:
        return any(
            j is not None and self.words[j] in ("=", "+", "^", "_", "≡", "≤", "≥", "<", ">", "/")
            for j in (self.neighbour(i, -1), self.neighbour(i, 1))
        )

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
        prose = np.cumsum([0, *(k is not None and k not in _MATH for k in self.kinds)])
        math = np.cumsum([0, *(k in _MATH for k in self.kinds)])
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
            return self.kinds[before] in _MATH
        return holds_math

    def _symbol_kind(self, i: int, depth: int) -> tuple[str, bool]:
        word = self.words[i]
        before, after = self._is_math(self.neighbour(i, -1)), self._is_math(self.neighbour(i, 1))
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
        return self.kinds[i] in _MATH

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
            beside = [j for j in (self.neighbour(i, -1), self.neighbour(i, 1)) if j is not None]
            listed = len(word) > 1 and any(self.words[j] == "," for j in beside)
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
    return (
        character.isascii() or _is_styled(character) or ("GREEK" in unicodedata.name(character, ""))
    )


def _is_styled(word: str) -> bool:
    """Letters of the block of mathematical alphabets, or double-struck ones such as ℝ."""
    return all("\U0001d400" <= c <= "\U0001d7ff" or "\u2100" <= c <= "\u214f" for c in word)


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
    kinds = np.full(len(text), _LAYOUT, dtype=np.int8)
    sure = np.ones(len(text), dtype=bool)
    for span in label_spans(text):
        kinds[span.start : span.end] = _KIND_NAMES.index(span.kind)
        sure[span.start : span.end] = span.sure
    is_space = np.fromiter(map(str.isspace, text), dtype=bool, count=len(text))
    for match in re.finditer(r"\s+", text):
        start, end = match.span()
        breaks = end == len(text) or _LINE_BREAK.search(text, start, end)
        kinds[start:end] = _LAYOUT if breaks else kinds[end]
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
    codes = _category_codes("narrow")[labels.kinds]
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
    return [_KIND_NAMES[code] for code in labels.kinds[first]], doubts.tolist()


def _category_codes(reading: str) -> Int[np.ndarray, " kinds"]:
    """Place of each kind's category in ``CATEGORIES``."""
    if reading not in READINGS:
        known = ", ".join([*READINGS, SINGLE_TOKENS])
        raise InputError(f"there is no reading {reading!r}: choose one of {known}")
    return np.array([CATEGORIES.index(READINGS[reading][kind]) for kind in _KIND_NAMES])


_TOKEN_WORDS = {
    "discourse": _words("okay ok so well now let first next finally we alright hmm wait"),
    "reasoning": _words("therefore thus hence because since if then implies but however"),
}


def label_token_alone(token: str) -> str:
    """Category of a token by its own text: a second, independent rule, to check the first one with.

    This is what the paper may have done: look the token up in two short lists, call it math if it
    has a digit, a symbol or a single letter. It sees no context (no phrases, no article "a"), and
    its result depends on the tokenizer.
    """
    word = token.strip().lower()
    for category, words in _TOKEN_WORDS.items():
        if word in words:
            return category
    letters = sum(character.isalpha() for character in word)
    if not word or set(word) <= set(".,:;?!\"'") or letters > 1:
        return "other"
    return "math"


def token_table(
    texts: Mapping[str, str], scores: pd.DataFrame, columns: Sequence[str]
) -> pd.DataFrame:
    """One row per token: what it is, and its log-probability under each score.

    Only tokens that have a log-probability under every score are kept, so that scores are compared
    on the same tokens.

    Args:
        texts: Response texts by response id.
        scores: One row per response, with the token columns of ``lalp.store.score``.
        columns: Scores, such as ``["galp", "lalp@4"]``.

    Returns:
        ``prompt_id``, ``response_id``, ``teacher``, ``step`` (place in the response), ``kind``,
        ``doubt`` (see ``label_tokens``), ``alone`` (see ``label_token_alone``) and one column per
        score (nats). ``attrs["left_out"]`` is the number of tokens left out.

    Raises:
        InputError: If a token column or a text is missing, or no token is scored.
    """
    _check_scores(texts, scores, columns)
    tables = [_response_tokens(texts[row["response_id"]], row, columns) for row in _rows(scores)]
    table = pd.concat(tables, ignore_index=True)
    scored = np.isfinite(table[list(columns)]).all(axis=1)
    if not scored.any():
        raise InputError("no token has a log-probability under every score: see column 'reason'")
    table = table[scored].reset_index(drop=True)
    for name in ("prompt_id", "response_id", "teacher", "kind", "doubt", "alone"):
        table[name] = table[name].astype("category")
    table.attrs = {"left_out": int((~scored).sum())}
    return table


def _check_scores(texts: Mapping[str, str], scores: pd.DataFrame, columns: Sequence[str]) -> None:
    needed = ["token_spans", "token_steps", *(f"{column}:tokens" for column in columns)]
    missing = [name for name in needed if name not in scores.columns]
    if missing:
        raise InputError(
            f"the scores have no column {missing[0]!r}: score this window with with_tokens=True"
        )
    lost = [i for i in scores["response_id"] if i not in texts]
    if lost:
        raise InputError(
            f"response {lost[0]!r} has scores but no text: give the pool that was scored"
        )


def _rows(scores: pd.DataFrame) -> Iterable[dict[str, Any]]:
    return scores.to_dict("records")


def _response_tokens(text: str, row: Mapping[str, Any], columns: Sequence[str]) -> pd.DataFrame:
    spans = np.array([tuple(span) for span in row["token_spans"]], dtype=np.int64).reshape(-1, 2)
    kinds, doubts = label_tokens(text, spans)
    return pd.DataFrame(
        {
            "prompt_id": row["prompt_id"],
            "response_id": row["response_id"],
            "teacher": row["teacher"],
            "step": np.asarray(row["token_steps"], dtype=np.int64),
            "kind": kinds,
            "doubt": doubts,
            "alone": [label_token_alone(text[start:end]) for start, end in spans],
            **{column: np.asarray(row[f"{column}:tokens"], dtype=float) for column in columns},
        }
    )


def frequent_members(texts: Iterable[str], num_members: int = 12) -> pd.DataFrame:
    """The most frequent spans of each kind in some texts, in lower case.

    Returns:
        One row per kind that occurs: ``kind``, ``category``, ``spans`` (how many) and ``members``.
    """
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    for text in texts:
        for span in label_spans(text):
            counts[span.kind][" ".join(text[span.start : span.end].lower().split())] += 1
    return pd.DataFrame(
        [
            {
                "kind": kind,
                "category": KINDS[kind],
                "spans": count.total(),
                "members": "  ".join(member for member, _ in count.most_common(num_members)),
            }
            for kind, count in counts.items()
            if count
        ]
    )


# --- Shares ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ShareDraws:
    """Category shares and their bootstrap resamples.

    Attributes:
        scores: Names of the scores.
        shares: Share of each category under each score; sums to 1 over categories.
        draws: The same in each resample of prompts; the same prompts for all scores.
        num_prompts: Prompts that were resampled.
    """

    scores: tuple[str, ...]
    shares: Float[np.ndarray, "scores categories"]
    draws: Float[np.ndarray, "resamples scores categories"]
    num_prompts: int


def draw_shares(
    tokens: pd.DataFrame,
    columns: Sequence[str],
    *,
    measure: Measure = "mass",
    weighting: Weighting = "token",
    reading: str = "narrow",
    num_resamples: int = 2000,
    seed: int = 0,
) -> ShareDraws:
    r"""Share of each category, with a bootstrap over prompts (paper, Table 4 and Fig. 4).

    With weights :math:`v_t`, the share of category c is ``sum(v[t in c]) / sum(v)``:

    - ``mass``: ``v = exp(log p)``, Table 4; ``count``: ``v = 1``, its baseline.
    - ``low``: ``v = 1`` for the tenth of each response's tokens that is least probable (rounded
      up), 0 for others; ``low in pool``: for the least probable tenth of all tokens together.

    Args:
        tokens: From ``token_table``.
        columns: Scores.
        measure: What is shared out.
        weighting: ``token``: all tokens of all responses together, as Table 4's formula reads.
            ``response``: shares within each response, every response equal. ``step``: as
            ``response``, but within it every step equal, as in LALP (Eq. 3).
        reading: One of ``READINGS``, or ``SINGLE_TOKENS``.
        num_resamples: Bootstrap resamples.
        seed: For the bootstrap.

    Raises:
        InputError: If an option is unknown or there is no token.
    """
    _check_options(tokens, measure, weighting)
    codes = _token_categories(tokens, reading)
    prompts, names = pd.factorize(tokens["prompt_id"], sort=True)
    cells = prompts * len(CATEGORIES) + codes
    sums = np.stack(
        [
            np.bincount(cells, _weights(tokens, column, measure, weighting), len(names) * 4)
            for column in columns
        ]
    ).reshape(len(columns), len(names), len(CATEGORIES))
    counts = np.random.default_rng(seed).multinomial(
        len(names), np.full(len(names), 1 / len(names)), size=num_resamples
    )
    draws = np.einsum("rp,spc->rsc", counts, sums, optimize=True)
    total = sums.sum(axis=1)
    # A resample may consist of prompts without low tokens: it has no shares (NaN).
    with np.errstate(invalid="ignore"):
        draws /= draws.sum(axis=2, keepdims=True)
    return ShareDraws(tuple(columns), total / total.sum(axis=1, keepdims=True), draws, len(names))


def _check_options(tokens: pd.DataFrame, measure: str, weighting: str) -> None:
    for name, value, known in (("measure", measure, Measure), ("weighting", weighting, Weighting)):
        if value not in get_args(known):
            raise InputError(
                f"there is no {name} {value!r}: choose one of {', '.join(get_args(known))}"
            )
    if tokens.empty:
        raise InputError("the table of tokens has no rows: choose other teachers or tokens")


def _token_categories(tokens: pd.DataFrame, reading: str) -> Int[np.ndarray, " tokens"]:
    if reading == SINGLE_TOKENS:
        return pd.Categorical(tokens["alone"], categories=CATEGORIES).codes.astype(np.int64)
    places = pd.Categorical(tokens["kind"], categories=_KIND_NAMES).codes
    return _category_codes(reading)[places]


def _weights(
    tokens: pd.DataFrame, column: str, measure: str, weighting: str
) -> Float[np.ndarray, " tokens"]:
    weights = pd.Series(_values(tokens, column, measure), index=tokens.index)
    response = pd.factorize(tokens["response_id"])[0]
    if weighting == "step":
        steps = [response, tokens["step"].to_numpy()]
        weights /= weights.groupby(steps, sort=False).transform("size")
    if weighting != "token":
        # A response may have none of the pool's low tokens: it then adds nothing.
        weights = (weights / weights.groupby(response, sort=False).transform("sum")).fillna(0.0)
    return weights.to_numpy()


def _values(tokens: pd.DataFrame, column: str, measure: str) -> Float[np.ndarray, " tokens"]:
    if measure == "mass":
        return np.exp(tokens[column].to_numpy())
    if measure == "count":
        return np.ones(len(tokens))
    return low_tokens(tokens, column, in_pool=measure == "low in pool").astype(float)


def low_tokens(
    tokens: pd.DataFrame, column: str, *, share: float = _LOW_SHARE, in_pool: bool = False
) -> Bool[np.ndarray, " tokens"]:
    """Which tokens are among the least probable ones (paper, Fig. 4).

    Args:
        tokens: From ``token_table``.
        column: Score.
        share: Of all tokens, rounded up; of equal values the first ones count.
        in_pool: Of all tokens together, instead of each response's own.
    """
    groups = np.zeros(len(tokens)) if in_pool else pd.factorize(tokens["response_id"])[0]
    grouped = tokens[column].groupby(groups, sort=False)
    # A tenth of 10 tokens is 1, although 0.1 * 10 might come out a little larger.
    limit = np.ceil(share * grouped.transform("size").to_numpy() - 1e-9)
    return (grouped.rank(method="first") <= limit).to_numpy()


def share_table(tokens: pd.DataFrame, columns: Sequence[str], **options: Any) -> pd.DataFrame:
    """Category shares with intervals, beside the categories' shares of all tokens.

    Args:
        tokens: From ``token_table``.
        columns: Scores.
        **options: As ``draw_shares``.

    Returns:
        One row per score and category: ``score``, ``category``, ``count`` (its share of tokens, the
        baseline), ``share``, ``low``, ``high`` (95 %; NaN with one prompt), and ``ratio``,
        ``ratio_low``, ``ratio_high``: share over baseline. For ``mass`` the ratio is the
        category's mean probability relative to that of all tokens.
    """
    found = draw_shares(tokens, columns, **options)
    base = draw_shares(tokens, columns, **{**options, "measure": "count"})
    low, high = _interval(found.draws, found.num_prompts)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios, ratio_draws = found.shares / base.shares, found.draws / base.draws
    ratio_low, ratio_high = _interval(ratio_draws, found.num_prompts)
    rows = [
        {
            "score": score,
            "category": category,
            "count": base.shares[s, c],
            "share": found.shares[s, c],
            "low": low[s, c],
            "high": high[s, c],
            "ratio": ratios[s, c],
            "ratio_low": ratio_low[s, c],
            "ratio_high": ratio_high[s, c],
        }
        for s, score in enumerate(found.scores)
        for c, category in enumerate(CATEGORIES)
    ]
    return pd.DataFrame(rows)


def shift_table(
    tokens: pd.DataFrame, local: str, base: str = "galp", **options: Any
) -> pd.DataFrame:
    """What a category gains from global to local, on the same tokens and resamples.

    Args:
        tokens: From ``token_table``.
        local: Score.
        base: Score that is subtracted.
        **options: As ``draw_shares``.

    Returns:
        One row per category, and one for math and reasoning together (what the paper calls
        reasoning-bearing): ``category``, ``shift``, ``low``, ``high`` (shares, 95 %; NaN with one
        prompt) and ``resolved`` (the interval excludes 0).
    """
    found = draw_shares(tokens, [base, local], **options)
    rows = [
        (name, *share_contrast(found, _shift(members, local, base)))
        for name, members in _GROUPS.items()
    ]
    frame = pd.DataFrame(rows, columns=["category", "shift", "low", "high"])
    return frame.assign(resolved=(frame["low"] > _ROUNDING) | (frame["high"] < -_ROUNDING))


def _shift(members: Iterable[str], local: str, base: str) -> dict[str, dict[str, float]]:
    if local == base:
        return {}
    return {local: dict.fromkeys(members, 1.0), base: dict.fromkeys(members, -1.0)}


def share_contrast(
    found: ShareDraws, weights: Mapping[str, Mapping[str, float]]
) -> tuple[float, float, float]:
    """A weighted sum of shares, such as a difference of two, with its 95 % interval.

    Args:
        found: Shares and their resamples.
        weights: By score and category; 0 where absent.
    """
    table = np.array([[weights.get(s, {}).get(c, 0.0) for c in CATEGORIES] for s in found.scores])
    value = float((found.shares * table).sum())
    low, high = _interval((found.draws * table).sum(axis=(1, 2)), found.num_prompts)
    return value, float(low), float(high)


def _interval(draws: Float[np.ndarray, "resamples ..."], num_prompts: int) -> np.ndarray:
    """Percentile interval of 95 %, (2, ...); one prompt has none."""
    if num_prompts < 2:
        return np.full((2, *draws.shape[1:]), np.nan)
    # Where a category is absent from all resamples, its ratio is NaN, and so is the interval.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanquantile(draws, [0.025, 0.975], axis=0)


def low_overlap(tokens: pd.DataFrame, local: str, base: str = "galp") -> float:
    """Share of the least probable tokens under one score that are so under another as well."""
    first, second = low_tokens(tokens, base), low_tokens(tokens, local)
    return float((first & second).sum() / first.sum())


def rule_agreement(tokens: pd.DataFrame, reading: str = "narrow") -> tuple[float, float]:
    """Agreement of the span rule with ``label_token_alone``: share of tokens, and Cohen's kappa."""
    first = _token_categories(tokens, reading)
    second = _token_categories(tokens, SINGLE_TOKENS)
    same = float((first == second).mean())
    shares = [
        np.bincount(codes, minlength=len(CATEGORIES)) / len(tokens) for codes in (first, second)
    ]
    chance = float(np.dot(*shares))
    return same, (same - chance) / (1 - chance) if chance < 1 else 1.0


# --- Robustness -----------------------------------------------------------------------------------


def compare_settings(
    tokens: pd.DataFrame, local: str, *, num_resamples: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """What the conclusions rest on, under every reading, weighting and choice of tokens.

    Args:
        tokens: From ``token_table``.
        local: The local score; the global one is ``galp``.
        num_resamples: Bootstrap resamples.
        seed: For the bootstrap.

    Returns:
        One row per setting and quantity: ``tokens`` (all, or those without doubt), ``reading``,
        ``weighting``, ``quantity`` (see ``QUANTITIES``), ``value``, ``low``, ``high`` (95 %). The
        first setting is the default one.
    """
    subsets = {"all": tokens, "without doubt": tokens[tokens["doubt"] == ""]}
    settings = itertools.product(subsets, [*READINGS, SINGLE_TOKENS], get_args(Weighting))
    tables = [
        _quantities(
            subsets[subset],
            local,
            reading=reading,
            weighting=weighting,
            num_resamples=num_resamples,
            seed=seed,
        ).assign(tokens=subset, reading=reading, weighting=weighting)
        for subset, reading, weighting in settings
        if len(subsets[subset])
    ]
    return pd.concat(tables, ignore_index=True)[
        ["tokens", "reading", "weighting", "quantity", "value", "low", "high"]
    ]


QUANTITIES: Mapping[str, str] = MappingProxyType(
    {
        "lead": "discourse minus math, share of mass under GALP",
        "ratio": "mean probability of discourse relative to all tokens under GALP",
        "discourse": "discourse, share of mass, LALP minus GALP",
        "bearing": "math and reasoning, share of mass, LALP minus GALP",
        "reasoning": "reasoning, share of mass, LALP minus GALP",
        "low math": "math among each response's low tokens, LALP minus GALP",
        "low math in pool": "math among the pool's low tokens, LALP minus GALP",
    }
)
"""Names in ``compare_settings``, and what they are."""


def _quantities(tokens: pd.DataFrame, local: str, **options: Any) -> pd.DataFrame:
    mass = draw_shares(tokens, ["galp", local], **options)
    ratio = share_table(tokens, ["galp"], **options).set_index("category").loc["discourse"]
    rows = {
        "lead": share_contrast(mass, {"galp": {"discourse": 1, "math": -1}}),
        "ratio": tuple(ratio[["ratio", "ratio_low", "ratio_high"]]),
        "discourse": share_contrast(mass, _shift(["discourse"], local, "galp")),
        "bearing": share_contrast(mass, _shift(["math", "reasoning"], local, "galp")),
        "reasoning": share_contrast(mass, _shift(["reasoning"], local, "galp")),
    }
    for name, measure in (("low math", "low"), ("low math in pool", "low in pool")):
        low = draw_shares(tokens, ["galp", local], measure=measure, **options)
        rows[name] = share_contrast(low, _shift(["math"], local, "galp"))
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high"])
    return frame.rename_axis("quantity").reset_index()


def summarize_settings(
    settings: pd.DataFrame, thresholds: Mapping[str, float] = MappingProxyType({"ratio": 1.0})
) -> pd.DataFrame:
    """One row per quantity: its default value, its range, and how many settings resolve it.

    Args:
        settings: From ``compare_settings``.
        thresholds: By quantity, what its interval must exclude to be resolved; 0 where absent.

    Returns:
        Indexed by quantity: ``value``, ``low``, ``high`` (default setting), ``smallest``,
        ``largest`` (values of all settings), ``above``, ``below`` (settings whose interval lies
        wholly there) and ``settings`` (how many there are).
    """
    rows = {}
    for name, group in settings.groupby("quantity", sort=False):
        threshold = thresholds.get(name, 0.0)
        rows[name] = {
            **{column: float(group[column].iloc[0]) for column in ("value", "low", "high")},
            "smallest": group["value"].min(),
            "largest": group["value"].max(),
            "above": int((group["low"] > threshold + _ROUNDING).sum()),
            "below": int((group["high"] < threshold - _ROUNDING).sum()),
            "settings": len(group),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("quantity")


def sweep_shares(
    tokens: pd.DataFrame, columns: Sequence[str], base: str = "galp", **options: Any
) -> pd.DataFrame:
    """What each category gains under every local score, of all teachers together and of each.

    Args:
        tokens: From ``token_table``.
        columns: Local scores.
        base: Score that is subtracted.
        **options: As ``draw_shares``.

    Returns:
        One row per teacher (first ``all``), score and category: the columns of ``shift_table``,
        and ``share``, the category's share under the score.
    """
    tables = []
    for teacher in ["all", *sorted(tokens["teacher"].astype(str).unique())]:
        own = tokens if teacher == "all" else tokens[tokens["teacher"] == teacher]
        shares = share_table(own, columns, **options).set_index(["score", "category"])["share"]
        for column in columns:
            shifts = shift_table(own, column, base, **options)
            shifts.insert(1, "share", [_share(shares[column], name) for name in shifts["category"]])
            tables.append(shifts.assign(teacher=teacher, score=column))
    return pd.concat(tables, ignore_index=True)


def _share(shares: pd.Series, group: str) -> float:
    return float(shares[list(_GROUPS[group])].sum())
