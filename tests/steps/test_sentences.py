"""Step splitters: exact partition of any text, and the steps a mathematician would name."""

import re
import sys
import time
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lalp.errors import InputError
from lalp.steps.sentences import (
    SPLITTERS,
    split_paragraphs,
    split_sentences,
    split_steps,
)


def pieces(text, spans):
    return [text[start:end] for start, end in spans]


# --- Any text -------------------------------------------------------------------------------------

any_character = st.characters(exclude_categories=())  # lone surrogates too
any_text = st.text(any_character, max_size=60)

FRAGMENTS = [
    *("$", "$$", r"\(", r"\)", r"\[", r"\]", r"\begin{align}", r"\end{align}", r"\\", r"\$", "`"),
    *("```", "~~~", "```python", "**", "*", "_", "# ", "## ", "- ", "* ", "+ ", "> ", "| ", "---"),
    *(".", "!", "?", "...", "…", "。", "！", ":", ";", ",", "(", ")", "[", "]", "{", "}", '"', "’"),
    *("\n", "\n", "\n\n", "\r\n", "\r", "\x85", "\u2028", "\x0b", " ", " ", "\t", "\xa0", "\x00"),
    *(
        "1.",
        "2. ",
        "(a) ",
        "iv. ",
        "Step 3.",
        "Proof.",
        "Then",
        "We have",
        "where",
        "so",
        "n!",
        "5",
    ),
    *("3.14", "e.g.", "etc.", "Fig.", "J.", "Smith", "x", "= 4", "f(2) = 3", "x_1, ..., x_n"),
    *("<think>", "</think>", "[asy]", "[/asy]", r"\begin{proof}", r"\end{proof}", r"\item", "word"),
    *(
        "\ud800",
        "e\u0301",
        "中文",
        "Ж",
        "🙂",
        "“",
        "”",
        "«",
        "\\",
        "&",
        "<",
        "=",
        "+",
        "-",
        "Q.E.D.",
    ),
]
mixed_text = st.lists(st.sampled_from(FRAGMENTS) | any_character, max_size=40).map("".join)


@pytest.mark.parametrize("splitter", SPLITTERS)
@given(text=any_text | mixed_text)
@example(text="")
@example(text=" \n\x85\u2028 ")
@example(text="\ud800. \udfff.\r\n\r\nA")
@example(text="\x00\n\n\x00")
@example(text="\n\n 1.\n\n")
@example(text="e\u0301. \u0301")
def test_spans_partition_any_text(splitter, text):
    spans = split_steps(text, splitter)
    edges = [0, *(end for _, end in spans)]
    assert spans == [(start, end) for start, end in pairwise(edges)]
    assert edges[-1] == len(text)
    assert all(start < end for start, end in spans)
    assert "".join(pieces(text, spans)) == text
    assert split_steps(text, splitter) == spans
    # White space belongs to the step before it.
    assert all(not text[start].isspace() for start, _ in spans[1:])
    if text.strip():
        assert all(piece.strip() for piece in pieces(text, spans))
    elif text:
        assert spans == [(0, len(text))]


@pytest.mark.parametrize("splitter", SPLITTERS)
@given(
    text=mixed_text.filter(str.strip),
    before=st.text(" \t\n\r\x0b\x85\u2029\xa0", max_size=4),
    after=st.text(" \t\n\r\x0b\x85\u2029\xa0", max_size=4),
)
def test_white_space_around_a_text_changes_no_step(splitter, text, before, after):
    def steps(whole):
        return [piece.strip() for piece in pieces(whole, split_steps(whole, splitter))]

    assert steps(before + text + after) == steps(text)


@pytest.mark.parametrize("splitter", SPLITTERS)
@pytest.mark.parametrize("newline", ["\r\n", "\r", "\x0c", "\x85", "\u2028"])
@given(text=mixed_text)
def test_all_kinds_of_line_breaks_are_alike(splitter, newline, text):
    text = "\n".join(text.splitlines())
    other = text.replace("\n", newline)
    expected = [piece.replace("\n", newline) for piece in pieces(text, split_steps(text, splitter))]
    assert pieces(other, split_steps(other, splitter)) == expected


# --- Texts of known parts -------------------------------------------------------------------------

FORMULA_ATOMS = [
    *("x", "3.14", "n!", "a. b", "y? z", "1, 2, ..., n", "=", "+ ", r"\frac{1}{2}", "(", ")"),
    *(
        r"\text{if } n",
        "Q. E",
        "5! A",
        r"\ldots",
        ": ",
        "; ",
        "[1]",
        "{2}",
        "q\nr",
        "i. j",
        "f'(x)",
    ),
]
formulas = st.lists(st.sampled_from(FORMULA_ATOMS), min_size=1, max_size=6).map("".join)
inline_math = formulas.flatmap(
    lambda body: st.sampled_from([f"$z{body}z$", rf"\({body}\)", rf"$\alpha {body}w$"])
)
display_math = formulas.flatmap(
    lambda body: st.sampled_from(
        [
            f"$$z{body}$$",
            rf"\[{body}\]",
            rf"\[ {body}" + "\n\n" + rf"{body} \]",
            rf"\begin{{align*}} {body} \\[2pt] {body} \end{{align*}}",
            rf"\begin{{cases}}\begin{{array}}{body}\end{{array}}" + "\n\n" + r"y. Z\end{cases}",
            rf"$$\begin{{aligned}}{body}\end{{aligned}}$$",
        ]
    )
)
code = formulas.flatmap(
    lambda body: st.sampled_from([f"`{body}.`", f"``{body}` ``", f"\n```\n{body}.\n\nX. Y\n```\n"])
)
prose = st.sampled_from(
    [" is even. ", " holds.\n\nThen ", ". So ", "? Yes. ", "\n- ", "\n1. ", "! Now ", "\n", ".\n"]
)


@given(
    parts=st.lists(st.tuples(prose, inline_math | display_math | code), min_size=1, max_size=5),
    end=prose,
)
def test_well_formed_math_and_code_are_never_split(parts, end):
    text, protected = "Let", []
    for words, region in parts:
        text += words
        protected.append((len(text), len(text) + len(region)))
        text += region
    text += end
    for splitter in SPLITTERS:
        for start, _ in split_steps(text, splitter):
            for first, last in protected:
                # A code block begins after its own line break.
                first += text[first:last].index(text[first:last].strip())
                assert not first < start < last, (splitter, text[start:])


SENTENCES = [
    "Let x be 3.14 or 1.000,5.",
    "There are n! = 120 ways, e.g. $a. B$.",
    "Is it (n-1)! or n!?",
    "We sum x_1, ..., x_n, i.e. 1 + 2 + ... + n.",
    'He wrote "it is so."',
    "By Fig. 2 and Eq. (3) this is Thm. 4 (see J. Smith).",
    r"Then \(a. B\) is 5.",
    "Great!",
    "See https://a.org/b.html?q=1 and main.py v1.2.",
    "n is even.",
    "**It holds.**",
    "因为 x=1。",
    "Use `a. B` here.",
    "12 divides it.",
    "The price is $5, not $6.",
    "$x$ is odd.",
    "So $y = 5.$",
]


@given(st.lists(st.tuples(st.sampled_from(SENTENCES), st.sampled_from([" ", "  ", "\n\n"]))))
def test_a_text_of_whole_sentences_falls_into_them(parts):
    expected = [sentence + gap for sentence, gap in parts]
    text = "".join(expected)
    assert pieces(text, split_sentences(text)) == expected


@given(st.lists(st.text("ab. \t\n\r\x85\u2028", max_size=12)))
def test_paragraphs_are_what_stands_between_blank_lines(parts):
    text = "".join(parts)
    paragraphs, open_line = [], False
    for line in text.splitlines():
        if not line.strip():
            open_line = False
        elif open_line:
            paragraphs[-1] += line.split()
        else:
            paragraphs.append(line.split())
            open_line = True
    found = [piece.split() for piece in pieces(text, split_paragraphs(text)) if piece.strip()]
    assert found == paragraphs


# --- Sentences ------------------------------------------------------------------------------------

CASES = {
    "plain": ["It is so. ", "We stop."],
    "one sentence": ["It is so"],
    "leading white space": [" \n It is so. ", "We stop."],
    "question and exclamation": ["Is it even? ", "Yes! ", "What?! ", "Fine."],
    "lower-case variable begins a sentence": ["It holds for n=3. ", "n=4 fails. ", "f(x) too."],
    "number begins a sentence": ["The sum is 5. ", "12 is even. ", "-5 is not."],
    "spaced full stop": ["It holds . ", "We stop ."],
    # Math
    "inline dollars": ["Then $x = 3. y$ holds. ", "So $a$ is odd."],
    "inline parentheses": [r"Then \(x = 3. Y\) holds. ", r"So \(a\) is odd."],
    "full stop inside a formula": ["So $x = 5.$ ", r"Then \(y = 6.\) ", "We stop."],
    "question inside a formula": ["Is $x = 5?$ ", "Yes."],
    "factorial inside a formula": ["There are $n!$ Fibonacci ways. ", "Good."],
    "display in brackets": ["So \\[ a. B \\] holds. ", "Good."],
    "display in dollars": ["So $$a. B$$ holds. ", "Good."],
    "display goes on": ["We have\n\\[ x = 1 \\]\nwhere x is odd. ", "Good."],
    "display across blank lines goes on": ["We have\n\n$$x = 1,$$\n\nwhere x is odd. ", "Good."],
    "display after a colon": ["Adding, we get:\n\n", "\\[ x = 1 \\]\n\n", "So we stop."],
    "display ends with a full stop": ["We get\n$$x = 1.$$\n", "So we stop."],
    "small letter after a display's full stop": ["By\n\\[ x = 1. \\]\nwhere x is odd."],
    "displays in a row": ["Adding,\n\\[ x = 1 \\]\n", "\\[ y = 2 \\]\n", "Good."],
    "display after a sentence": ["It is so. ", "\\[ x = 1 \\] ", "Therefore we stop."],
    "no space after a display": ["By \\[x = 5.\\]", "Squaring, we get \\[y\\]where y is odd."],
    "line break after a row": ["So\n\\[ a \\\\[2pt] b. C \\]\nholds. ", "Good."],
    "nested environments": [
        "So\n\\begin{align*}\na &= \\begin{cases} 1. & A \\\\ 2. & B \\end{cases} \\\\\nb. C\n"
        "\\end{align*}\n",
        "Good.",
    ],
    "unclosed environment": ["So \\begin{align} a = b. ", "We stop. ", "Good."],
    "environment closed by another": [
        "So \\begin{align} a. B \\begin{cases} c. D \\end{align} holds. ",
        "Good.",
    ],
    "unclosed inner environment": ["So \\end{align} is stray. ", "Good."],
    "unclosed bracket": ["So \\[ a = b. ", "We use \\[ c. D \\] too. ", "Good."],
    "unclosed parenthesis": ["So \\( a = b. ", "We use \\( c. D \\) too. ", "Good."],
    "unclosed dollar": ["So $x = 5. ", "We stop.\n\n", "Then $y. z$ holds. ", "Good."],
    "stray double dollar": ["So $$ is odd.\n\n", "It is. ", "So\n\n$$a. B$$\n\nholds. ", "Good."],
    "display with a blank line": ["So\n$$\na = b\n\nc. D\n$$\nholds. ", "Good."],
    "two badly closed displays": ["So $$x = 1$ holds.\n\n", "It is. ", "So $$y = 2$ holds."],
    "dollar math on both sides": ["Then $a$$b. c$ holds. ", "Good."],
    "escaped dollar": [r"It costs \$5. ", r"That is \$6. ", "Good."],
    "prices": ["It costs $5. ", "That costs $6. ", "Both are $7 or so. ", "Good."],
    "prices before math": ["It costs $5 now. ", "Let $n$ be 3. ", "Then $m$ is odd. ", "Good."],
    "stray dollar before math": ["It costs $ now. ", "Let $n$ be. ", "Then $m. k$ is. ", "Good."],
    "money range": ["It costs $5-$10. ", "Good."],
    # Full stops that end nothing
    "decimals and versions": ["Pi is 3.14, or 1.000,5 in v1.2.3 there. ", "Good."],
    "abbreviations": [
        "See e.g. Cauchy, i.e. Fig. 2, Eq. (3), Thm. $4$ vs. Abel w.r.t. X. ",
        "Good.",
    ],
    "titles": ["Dr. Euler met Prof. Gauss and Mrs. Noether. ", "Good."],
    "etc.": ["Take a, b, etc. and so on. ", "Take a, b, etc. ", "Then stop."],
    "no. as a word": ["See no. 5 here. ", "The answer is no. ", "So we stop."],
    "maximum": ["The max. value is 5. ", "Good."],
    "initials": ["This is due to J. R. Smith and by B. Jones. ", "J. Smith showed it. ", "Good."],
    "points are not initials": ["They meet at A. ", "Then B, C. ", "Adding point D. ", "Good."],
    "line break is no initial": ["Consider C.\n", "Triangles are odd."],
    "country": ["In the U.S. Senate it is. ", "We left the U.S. ", "The end."],
    "ellipsis in a list": ["Take x_1, ..., x_n and 1 + 2 + … + n. ", "Good."],
    "ellipsis ends a sentence": ["It goes on... ", "Then it stops… ", "Good... or not."],
    "names with dots": ["See main.py, a.b.c, www.a.org/b.html?c=1 or x.txt. ", "Good."],
    # Exclamation marks
    "factorials": ["There are n! ways. ", "So 5!/(2!3!) = 10 ways. ", "(n-1)! = 6. ", "Good."],
    "factorial at the end": ["It is 5!. ", "It is n! ", "Then stop."],
    "double factorial": ["So 7!! = 105 and (2k)! > k! hold. ", "Good."],
    "product's factorial": ["So mn! ways and 2nk! = 4 ways. ", "Good."],
    "exclamations": ["Great! ", "now go on. ", "So it is even! ", "5 is not."],
    # Quotes and brackets
    "closing quotes": ['He said "it is." ', "Then “it is not.” ", "Good."],
    "closing brackets": ["(It is so.) ", "[It is not.] ", "Good."],
    "mid-sentence quote": ['"Is it?" he asked. ', "It is (why?) so. ", "Good."],
    # Other scripts
    "Chinese": ["因为 x=1。", "所以呢？", "“对！”", "他说（是的。）", "共有5！种。"],
    "no space and a comma": ["他说“好。”，然后走了。", "好。"],
    "Hindi and Arabic": ["यह सम है। ", "वह नहीं। ", "هل هو زوجي؟ ", "نعم."],
    # Lists and labels
    "numbered list": ["1. First do x. ", "Then y.\n", "2. Then z.\n", "3) Stop."],
    "numbered list in one line": ["1. First do x. ", "2. Then do y. ", "3. Stop."],
    "list after a colon": ["Steps: 1. First do x. ", "2. Then do y."],
    "number after a colon": ["The answer is: 1. ", "We check it."],
    "number at the end of a sentence": ["The next terms are 2, 3, 5. ", "We stop."],
    "letters": ["(a) Let x be odd.\n", "(b) Let x be even.\n", "c) Stop.\n", "iv. Done."],
    "range": ["1-3. These are odd.\n", "4. This is not."],
    "escaped marker": ["1\\. First.\n", "2\\. Second."],
    "marker alone": ["1.\n\nFirst do x.\n\n", "2.\nThen y."],
    "nested markers": ["1. (a) Let x be odd.\n   ", "(b) Let x be even."],
    "marker at the end": ["First do x.\n2."],
    "bullets": ["Note:\n- one\n", "- two. ", "And more.\n", "* three\n", "• four"],
    "wrapped item": ["- this is\n  one item\n", "- and this another"],
    "steps": ["Step 1. Let x be odd. ", "Step 2. Let y be.\n", "Step 3:\nStop. ", "Case 2. None."],
    "proof": ["Proof. Let x be odd. ", "So it is. Q.E.D.\n\n", "*Proof.* Trivial. ∎"],
    "bold markers": ["**Step 1.** Let x be odd. ", "**2.** Let y be. ", "**Step 3:** Stop."],
    "answer": ["It follows.\n\n", "Answer: 5."],
    "LaTeX list": [
        "\\begin{enumerate}\n\\item Let x. ",
        "\\item Let y.\n",
        "\\item Stop\n\\end{enumerate}\n",
        "Good.",
    ],
    "environment of prose": ["\\begin{proof} Let x. ", "We stop.\n\\end{proof}"],
    # Headings
    "headings": ["# Title. More\n\nLet x be odd. ", "So.\n", "## Next\n### Sub\nStop."],
    "LaTeX heading": ["\\section*{Idea. Plan}\nLet x be odd. ", "We stop."],
    "bold heading": ["**The idea**\n\nLet x be odd. ", "We stop.\n", "**Step 2: x = 1**\nStop."],
    "bold sentence": ["We add.\n", "**So x is odd.**\n", "**x = 5**\n", "We stop."],
    "last heading": ["We stop.\n\n", "## Next"],
    # Lines
    "derivation": ["f(1) = 1\n", "f(2) = f(1) + f(0) = 4\n", "f(3) = 7"],
    "aligned chain": ["y = 2(2x + 1)\n  ", "= 4x + 2\n  ", "= 8."],
    "derivation after a colon": ["We compute:\n", "f(1) = 1\n", "f(2) = 4\n\n", "So we stop."],
    "derivation with remarks": [
        "T(0) = 1 (one way, trivially)\n",
        "T(1) = 1 (one tile)\n",
        "Good.",
    ],
    "sentence runs into an equation": ["Since x is odd, we get\nx = 5\n", "y = 6"],
    "connective alone": ["Then:\n\nx = 5\n\n", "and\n\ny = 6\n\n", "We have:\nz = 7"],
    "inline formulas on lines": ["We have:\n$a = 1$\n", "$b = 2$\n", "\\(c = 3\\)"],
    "wrapped formula": ["x = a +\nb\n", "y = c\n+ d"],
    "variable at the end of a line": ["x = b/a\n", "y = at\n", "z = 1"],
    "named quantities": ["area = 5\n", "cost = 6\n", "Total cost = 7"],
    "wrapped prose": ["This is a text that was\nwrapped at some\nwidth. ", "Good."],
    "prose wrapped before math": ["This is the number\n$n$ that we know of\nAbel. ", "Good."],
    "lines without full stops": ["Squares are odd\n", "Cubes are even\n\n", "Nothing else"],
    "blank line": ["We know that\n\n", "this holds"],
    "vertical dots": ["a_1 = 1\n", "a_2 = 2\n...\n", "a_9 = 9"],
    "table": ["| n | f |\n|---|---|\n", "| 1 | 2 |"],
    "rule": ["We stop.\n\n---\n\n", "Now more."],
    "Windows line ends": ["f(1) = 1\r\n", "f(2) = 4\r\n\r\n", "So we stop."],
    # Code
    "fenced code": ["Run:\n", "```python\nx = 1. \n\ny = 2\n```\n", "It prints 5. ", "Good."],
    "tilde fence holds backticks": ["~~~\na. B\n```\n\nC. D\n~~~\n", "Good."],
    "longer fence": ["````\n```\na. B\n```\n````\n", "Good."],
    "unclosed fence": ["Run\n", "```\na. B\n\nC. D\n"],
    "dollars in code": ["```\necho $x. Y\n```\n", "So $a. b$ holds. ", "Good."],
    "inline code": ["Use `a. B` and ``c` D. E``. ", "Good."],
    "unclosed inline code": ["Use `a. ", "Then b."],
    "TeX quotes": ["He says ``yes''. ", "She says ``no''. ", "He says `a'. ", "She `b'."],
    "diagram": ["See\n", "[asy]\ndraw((0,0)--(1,1));\n\nlabel(A. B);\n[/asy]\n", "Good."],
    "cut-off diagram": ["See the picture.\n\n", "[asy]\ndraw((0,0)--(1,1));\n\ndraw((0,"],
    # Tags
    "think": ["<think>\nLet x be odd. ", "So it is.\n</think>\n\n", "It is 5."],
    "think in one line": ["<think>Let x be odd. ", "So it is.</think>", "It is 5."],
    "empty think": ["<think>\n\n</think>\n\nIt is 5. ", "Good."],
    "only tags": ["<think>\n</think>"],
}


@pytest.mark.parametrize("expected", CASES.values(), ids=CASES.keys())
def test_sentences(expected):
    text = "".join(expected)
    assert pieces(text, split_sentences(text)) == expected


# --- Paragraphs -----------------------------------------------------------------------------------

PARAGRAPHS = {
    "one": ["One. Two.\nThree."],
    "blank lines": ["One.\n\n", "Two.\n \t\n\n", "Three."],
    "line ends": ["One.\r\n\r\n", "Two.\r\r", "Three.\x85\u2028", "Four.\n\x0b", "Five."],
    "leading and trailing": ["\n\n One.\n\n", "Two.\n\n"],
    "list": ["1. One.\n2. Two.\n\n", "- three"],
    "code": ["One.\n```\na\n\nb\n```\nTwo.\n\n", "Three."],
    "unclosed code": ["One.\n\n", "~~~\na\n\nb"],
    "display": ["One\n\\[\na\n\nb\n\\]\n\n", "$$\na\n\nb\n$$\n\n", "Two."],
    "environment": ["\\begin{align}\na\n\nb\n\\end{align}\n\n", "Two."],
    "unclosed display": ["One \\[ a\n\n", "$$ b\n\n", "Two."],
    "inline math holds no blank line": ["One $a\n\n", "b$ \\(c\n\n", "d\\) two."],
}


@pytest.mark.parametrize("expected", PARAGRAPHS.values(), ids=PARAGRAPHS.keys())
def test_paragraphs(expected):
    text = "".join(expected)
    assert pieces(text, split_paragraphs(text)) == expected


# --- By name --------------------------------------------------------------------------------------


def test_splitters_by_name():
    text = "One. Two.\n\nThree."
    assert pieces(text, split_steps(text)) == ["One. ", "Two.\n\n", "Three."]
    assert pieces(text, split_steps(text, "paragraphs")) == ["One. Two.\n\n", "Three."]
    assert set(SPLITTERS) == {"sentences", "paragraphs"}
    with pytest.raises(TypeError):
        SPLITTERS["mine"] = split_sentences


def test_unknown_splitter_names_the_known_ones():
    with pytest.raises(InputError, match=r"'words'.*paragraphs, sentences"):
        split_steps("One.", "words")


# --- Linear work ----------------------------------------------------------------------------------

PATHOLOGICAL = [
    *("$", "(", ".", "\\[", "```", "1.", "\n", "$$\n\n", "`\n", "\\begin{a}", "i.i.)", "**a**\n"),
    *("x,\n", ".)*", "a", " ", "。"),
]


@pytest.mark.parametrize("unit", PATHOLOGICAL)
def test_200_000_characters_take_no_quadratic_time(unit):
    text = "$" + unit * (200_000 // len(unit)) + "x$"
    began = time.process_time()
    for splitter in SPLITTERS:
        split_steps(text, splitter)
    assert time.process_time() - began < 10


def count_calls(text):
    """Calls of Python and C functions while ``text`` is split: the same on every machine."""
    calls = 0

    def count(frame, event, argument):
        nonlocal calls
        calls += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        split_sentences(text)
    finally:
        sys.setprofile(before)
    return calls


@pytest.mark.parametrize(
    "unit", [*PATHOLOGICAL, "Let $x$ be 5. Then\n\\[ y = 6 \\]\nwhere z! is `a`.\n\n1. So.\n"]
)
def test_calls_grow_with_the_length_of_the_text(unit):
    short, long = (count_calls(unit * n) for n in (100, 800))
    # 8 times the text; the rest is for binary searches.
    assert long < 8 * 1.6 * short + 200


def test_steps_of_a_response_read_naturally():
    text = (
        "To count the strings, let $a_n$ be their number (e.g. $a_1 = 3$).\n\n"
        "### Step 1: The recurrence\n\n"
        "We have\n\n$$a_n = 2a_{n-1} + a_{n-2}. $$\n\n"
        "Thus:\n\\[ a_2 = 7 \\]\n\\[ a_3 = 17. \\]\n\n"
        "1. There are 3! = 6 orders.\n2. Each is used once, so 6 \\cdot 17 = 102.\n\n"
        "**Final answer.** \\boxed{102}"
    )
    assert [
        re.sub(r"\s+", " ", piece).strip() for piece in pieces(text, split_sentences(text))
    ] == [
        "To count the strings, let $a_n$ be their number (e.g. $a_1 = 3$).",
        "### Step 1: The recurrence We have $$a_n = 2a_{n-1} + a_{n-2}. $$",
        r"Thus: \[ a_2 = 7 \]",
        r"\[ a_3 = 17. \]",
        "1. There are 3! = 6 orders.",
        r"2. Each is used once, so 6 \cdot 17 = 102.",
        r"**Final answer.** \boxed{102}",
    ]
