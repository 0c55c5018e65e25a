"""Step splitters: exact partition of any text, and the steps a mathematician would name."""

import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from lalp.errors import InputError
from lalp.steps.sentences import SPLITTERS, split_paragraphs, split_sentences, split_steps


def pieces(text, spans):
    return [text[start:end] for start, end in spans]


any_character = st.characters(exclude_categories=())  # lone surrogates too
any_text = st.text(any_character, max_size=60)

FRAGMENTS = [
    *("$", "$$", r"\(", r"\)", r"\[", r"\]", r"\begin{align}", r"\end{align}", r"\\", r"\$", "`"),
    *("\n```\n", "\n~~~~\n", "\\begin{verbatim}", "\\end{verbatim}", "|---|\n", "So it is so."),
    *("．", "।", "؟", "։", "中。", "「好。」", "步骤1．", "１", "\u200f", "中?x", "5！", "다!"),
    *("```", "~~~", "```python", "**", "*", "_", "# ", "## ", "- ", "* ", "+ ", "> ", "| ", "---"),
    *(".", "!", "?", "...", "…", "。", "！", ":", ";", ",", "(", ")", "[", "]", "{", "}", '"', "’"),
    *("\n", "\n", "\n\n", "\r\n", "\r", "\x85", "\u2028", "\x0b", " ", " ", "\t", "\xa0", "\x00"),
    *("1.", "2. ", "(a) ", "iv. ", "Step 3.", "Proof.", "Then", "We have", "where", "so", "n!"),
    *("5", "3.14", "e.g.", "etc.", "Fig.", "J.", "Smith", "x", "= 4", "f(2) = 3", "x_1, ..., x_n"),
    *("<think>", "</think>", "[asy]", "[/asy]", r"\begin{proof}", r"\end{proof}", r"\item", "word"),
    *("\ud800", "e\u0301", "中文"),
    *("Ж", "🙂", "“", "”", "«", "\\", "&", "<", "=", "+", "-", "Q.E.D."),
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
    assert spans == list(pairwise(edges))
    assert edges[-1] == len(text)
    assert all(start < end for start, end in spans)
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


# Texts of known parts.

FORMULA_ATOMS = [
    *("x", "3.14", "n!", "a. b", "y? z", "1, 2, ..., n", "=", "+ ", r"\frac{1}{2}", "(", ")"),
    *(r"\text{if } n", "Q. E", "5! A", r"\ldots", ": ", "; ", "[1]", "{2}", "q\nr", "i. j"),
    "f'(x)",
]
# "#" stands for a formula.
PROTECTED = [
    *("$z#z$", r"\(#\)", r"$\alpha #w$", "$$z#$$", r"\[#\]", "\\[ #\n\n# \\]", "`#.`", "``#` ``"),
    *(r"\begin{align*} # \\[2pt] # \end{align*}", r"$$\begin{aligned}#\end{aligned}$$"),
    "\\begin{cases}\\begin{array}#\\end{array}\n\ny. Z\\end{cases}",
    "\n```\n#.\n\nX. Y\n```\n",
]
formulas = st.lists(st.sampled_from(FORMULA_ATOMS), min_size=1, max_size=6).map("".join)
protected_texts = st.builds(
    lambda form, formula: form.replace("#", formula), st.sampled_from(PROTECTED), formulas
)
prose = st.sampled_from(
    [" is even. ", " holds.\n\nThen ", ". So ", "? Yes. ", "\n- ", "\n1. ", "! Now ", "\n", ".\n"]
)


@given(parts=st.lists(st.tuples(prose, protected_texts), min_size=1, max_size=5), end=prose)
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
    *("Let x be 3.14 or 1.000,5.", "There are n! = 120 ways, e.g. $a. B$.", "Is it (n-1)! or n!?"),
    *("We sum x_1, ..., x_n, i.e. 1 + 2 + ... + n.", 'He wrote "it is so."', "n is even."),
    *("By Fig. 2 and Eq. (3) this is Thm. 4 (see J. Smith).", r"Then \(a. B\) is 5.", "因为 x=1。"),
    *("See https://a.org/b.html?q=1 and main.py v1.2.", "**It holds.**", "Use `a. B` here."),
    *("Great!", "12 divides it.", "The price is $5, not $6.", "$x$ is odd.", "So $y = 5.$"),
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


CASES = yaml.safe_load(Path(__file__).with_name("sentences.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("splitter", "name"), [(splitter, name) for splitter, cases in CASES.items() for name in cases]
)
def test_cases(splitter, name):
    expected = CASES[splitter][name]
    text = "".join(expected)
    assert pieces(text, split_steps(text, splitter)) == expected


def test_splitters_by_name():
    text = "One. Two.\n\nThree."
    assert pieces(text, split_steps(text)) == ["One. ", "Two.\n\n", "Three."]
    assert pieces(text, split_steps(text, "paragraphs")) == ["One. Two.\n\n", "Three."]
    assert set(SPLITTERS) == {"sentences", "paragraphs"}
    with pytest.raises(InputError, match=r"'words'.*paragraphs, sentences"):
        split_steps("One.", "words")


PATHOLOGICAL = [
    *("$", "(", ".", "\\[", "```", "1.", "\n", "$$\n\n", "`\n", "\\begin{a}", "i.i.)", "**a**\n"),
    *("x,\n", ".)*", "a", " ", "。", "```\nSo it is so.\n", "a```b\n", "x: ```c\n", "``` So.\n\n"),
    *("\\begin{verbatim}", "|a|\n|-|\n", "|", "-|", "[asy]\n", "1．", "5?中", "# ", "> "),
    *("中?x", "5！中", "x://中?y"),
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
    events = []
    before = sys.getprofile()
    sys.setprofile(lambda frame, event, argument: events.append(event))
    try:
        split_sentences(text)
    finally:
        sys.setprofile(before)
    return events.count("call") + events.count("c_call")


@pytest.mark.parametrize(
    "unit", [*PATHOLOGICAL, "Let $x$ be 5. Then\n\\[ y = 6 \\]\nwhere z! is `a`.\n\n1. So.\n"]
)
def test_calls_grow_with_the_length_of_the_text(unit):
    short, long = (count_calls(unit * n) for n in (100, 800))
    # 8 times the text; the rest is for binary searches.
    assert long < 8 * 1.6 * short + 200
