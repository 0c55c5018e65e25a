"""The token classifier by hand-read examples and properties, the shares by hand-derived values."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lalp.errors import InputError
from lalp.paper import figures as paper_figures
from lalp.paper.attribution import labels
from lalp.paper.attribution import plots as attribution_plots
from lalp.paper.attribution import shares as attribution_shares
from lalp.paper.attribution.labels import (
    label_characters,
    label_spans,
    label_token_alone,
    label_tokens,
)
from lalp.paper.attribution.lexicon import CATEGORIES, EXAMPLES, KINDS, READINGS, SINGLE_TOKENS
from lalp.paper.attribution.shares import (
    QUANTITIES,
    REASONING_BEARING,
    compare_settings,
    draw_shares,
    frequent_members,
    low_overlap,
    low_tokens,
    rule_agreement,
    share_contrast,
    share_table,
    shift_table,
    summarize_settings,
    sweep_shares,
    token_table,
)
from lalp.paper.profiles import load_profile
from lalp.paper.tables import TABLES
from lalp.students.student import load_tokenizer
from tests.paper.verdict_cells import run_verdict_cells

KIND_NAMES = list(KINDS)


def kinds_of(text: str) -> dict[str, str]:
    """Kind of every span, by its text; a text that occurs twice must have one kind."""
    found: dict[str, set[str]] = {}
    for span in label_spans(text):
        found.setdefault(text[span.start : span.end], set()).add(span.kind)
    return {piece: "/".join(sorted(kinds)) for piece, kinds in found.items()}


def category_string(text: str) -> str:
    """One letter per character: the category's initial."""
    labels = label_characters(text)
    return "".join(KINDS[KIND_NAMES[kind]][0] for kind in labels.kinds)


# --- words and phrases --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "piece", "kind"),
    [
        ("Okay, we begin.", "Okay", "filler"),
        ("So we are done.", "So", "filler"),
        ("Next, we add.", "Next", "signpost"),
        ("The next term is 4.", "next", "function word"),
        ("First, we add.", "First", "signpost"),
        ("The first term is 4.", "first", "function word"),
        ("For example, take 3.", "For example", "signpost"),
        ("Let's add them.", "Let's", "signpost"),
        ("Let’s add them.", "Let’s", "signpost"),
        ("Let x be even.", "Let", "binding"),
        ("Let's denote it by x.", "Let's denote", "binding"),
        ("Therefore it is odd.", "Therefore", "conclusion"),
        ("From this it follows that n is odd.", "it follows that", "conclusion"),
        ("It holds because n is odd.", "because", "premise"),
        ("If n is odd, stop.", "If", "condition"),
        ("This holds if and only if n is odd.", "if and only if", "condition"),
        ("On the other hand, n is odd.", "On the other hand", "contrast"),
        ("on the\nother hand", "on the\nother hand", "contrast"),
        ("We go step-by-step here.", "step-by-step", "signpost"),
        ("i.e. a prime", "i.e.", "signpost"),
        ("Both numbers are odd.", "numbers", "math word"),
        ("Both numbers are odd.", "Both", "function word"),
        ("The garden is green.", "garden", "content word"),
        ("Это просто", "Это", "content word"),
        ("因此", "因此", "content word"),
    ],
)
def test_words_and_phrases(text, piece, kind):
    assert kinds_of(text)[piece] == kind


@pytest.mark.parametrize("kind", KINDS)
def test_the_examples_are_what_they_are_shown_for(kind):
    for example in EXAMPLES[kind]:
        spans = label_spans(example)
        kinds = {s.kind for s in spans if example[s.start : s.end] != ":"}
        assert kinds == {kind}, example


def test_a_phrase_does_not_run_into_the_next_paragraph():
    assert "contrast" in kinds_of("it lies on the\nother hand").values()
    assert "contrast" not in kinds_of("it lies on the\n\nother hand").values()


def test_a_phrase_is_matched_in_whole_words_only():
    assert kinds_of("iffy thusly sincere") == dict.fromkeys(
        ("iffy", "thusly", "sincere"), "content word"
    )


def test_a_label_begins_a_line():
    text = "Step 2: add.\nCase 3: it is odd.\nThis is step 2 of it."
    kinds = kinds_of(text)
    assert kinds["Step 2"] == "signpost"
    assert kinds["Case 3"] == "condition"
    assert kinds["2"] == "number"


def test_bullets_and_markdown_are_layout_but_a_minus_is_not():
    assert kinds_of("- We add.\n**Bold** words")["-"] == "layout"
    assert kinds_of("- We add.\n**Bold** words")["**"] == "layout"
    assert kinds_of("a^2\n- 8a + b")["-"] == "operator"
    assert kinds_of("2 * 3")["*"] == "operator"


# --- formulas -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "formula",
    [
        "x = 3",
        "2n + 1 = 15",
        "f(x, y) = 3x^2 - y",
        "(a - b)^2 + (b - c)^2 ≥ 0",
        "1,000.50",
        "101 choose 2 = 5050",
        "C(n, k) = n!/(k!(n-k)!)",
        "x_1, x_2",
        "ab + bc + ca",
        "|x| < 3",
        "n ≡ 1 mod 4",
        "α + β = γ",
        "x² + ½",
        "$a + b$",
        r"\[ a + b \]",
        r"\(ab\)",
        r"$$\frac{a}{b} \cdot c$$",
        r"\boxed{-9}",
        r"\begin{align} x &= a \\ y &= b \end{align}",
        "1 + 2 + ... + n",
        "f'(x)",
        "sin x + log 2",
    ],
)
def test_formulas_are_math_throughout(formula):
    kinds = kinds_of(formula)
    prose = {piece: kind for piece, kind in kinds.items() if KINDS[kind] != "math"}
    # The comma of a plain list is prose, and marked as doubtful.
    prose.pop(",", None)
    assert not prose


@pytest.mark.parametrize(
    ("text", "math"),
    [
        ("a number", ""),
        ("let a be", "a"),
        ("A number", ""),
        ("the point A is here", "A"),
        ("I see it", ""),
        ("a non-zero value", ""),
        ("a 2-digit number", "2"),
        ("the n-th term", "n"),
        ("and/or", ""),
        ("it costs (as said) much", ""),
        ("it is (say) even!", ""),
        ("solution(s)", "s"),
        ("AM-GM inequality", ""),
        (r"we have $x$ and \(y\)", r"$x$\(y\)"),
        (r"$x \text{ if odd}$", r"$x\text{}$"),
        ("he paid $5 and then $6", "$5$6"),
        ("the 2nd and 14th", "2nd14th"),
    ],
)
def test_what_is_math_in_prose(text, math):
    pieces = [text[s.start : s.end] for s in label_spans(text) if KINDS[s.kind] == "math"]
    assert "".join(pieces) == math


def test_brackets_go_with_what_they_hold():
    text = "We add (since x is odd) to f(x) and (x + 1)."
    brackets = [(text[s.start], s.kind) for s in label_spans(text) if text[s.start] in "()"]
    assert [kind for _, kind in brackets] == ["punctuation"] * 2 + ["operator"] * 4


def test_doubtful_spans_are_marked():
    text = "So x, y and then z; therefore x = 1."
    sure = {text[s.start : s.end]: s.sure for s in label_spans(text)}
    assert not sure["So"] and not sure["then"] and not sure[","]
    assert sure["therefore"] and sure["="]


# --- properties ---------------------------------------------------------------------------------

PIECES = st.sampled_from(
    [
        *"abAIxn ()[]{}$\\^_+-=*/|,.;:!?'\"`#<>&%~\n\t0123",
        "therefore", "on the", "other hand", "So", "step", "Step 1:", "if", "and only if", "we can",
        "let's", " ", "  ", "\n\n", "\\frac", "\\(", "\\)", "\\[", "\\]", "\\text{", "}", "$$",
        "\\begin{align}", "\\end{align}", "12,345.6", "α", "²", "≥", "…", "...", "因为", "é", "🙂",
        "- ", "1. ", "**", "</think>", "| a | b |", "e.g.", "’s", "\r\n",
        "\u2028", "\x1c", "\u00a0",
    ]
)  # fmt: skip
TEXTS = st.one_of(st.lists(PIECES, max_size=40).map("".join), st.text(max_size=60))


def cut(text: str, cuts: set[int]) -> np.ndarray:
    """Token spans that partition the text."""
    places = sorted({0, len(text), *(c for c in cuts if c < len(text))})
    return np.array(list(pairwise(places)), dtype=np.int64).reshape(-1, 2)


CUTS = st.sets(st.integers(0, 400), max_size=60)


@given(TEXTS)
def test_spans_hold_every_visible_character_once(text):
    spans = label_spans(text)
    held = [i for span in spans for i in range(span.start, span.end)]
    assert held == sorted(set(held))
    assert all(span.start < span.end and span.kind in KINDS for span in spans)
    assert {i for i, c in enumerate(text) if not c.isspace()} <= set(held)
    assert not any(text[s.start].isspace() or text[s.end - 1].isspace() for s in spans)


@given(TEXTS, CUTS)
def test_a_token_has_the_kind_of_its_first_visible_character(text, cuts):
    spans = cut(text, cuts)
    characters = label_characters(text)
    for (start, end), kind in zip(spans, label_tokens(text, spans)[0], strict=True):
        visible = [i for i in range(start, end) if not text[i].isspace()]
        assert kind == KIND_NAMES[characters.kinds[visible[0] if visible else start]]


@given(TEXTS, CUTS, CUTS)
def test_two_tokenizations_give_a_character_the_same_category(text, cuts_a, cuts_b):
    """Wherever no token straddles two categories; such tokens are marked."""
    found = []
    for spans in (cut(text, cuts_a), cut(text, cuts_b)):
        category: dict[int, str] = {}
        for (start, end), kind, doubt in zip(spans, *label_tokens(text, spans), strict=True):
            if doubt != "straddles":
                visible = (i for i in range(start, end) if not text[i].isspace())
                category |= dict.fromkeys(visible, KINDS[kind])
        found.append(category)
    for i in found[0].keys() & found[1].keys():
        assert found[0][i] == found[1][i]


@given(TEXTS, CUTS, CUTS)
def test_white_space_tokens_agree_too(text, cuts_a, cuts_b):
    kinds = [
        {
            i: kind
            for (start, end), kind, doubt in zip(spans, *label_tokens(text, spans), strict=True)
            if doubt == "space"
            for i in range(start, end)
        }
        for spans in (cut(text, cuts_a), cut(text, cuts_b))
    ]
    assert all(kinds[0][i] == kinds[1][i] for i in kinds[0].keys() & kinds[1].keys())


@given(TEXTS)
def test_tokens_of_one_character_never_straddle(text):
    assert "straddles" not in label_tokens(text, cut(text, set(range(len(text)))))[1]


def test_white_space_by_hand():
    assert category_string("x = 3\nSo on ") == "mmmmm" + "o" + "dd" + "ooo" + "o"


def test_white_space_belongs_to_what_follows_unless_it_breaks_the_line():
    text = "the 3\n 4"
    kinds, doubts = label_tokens(text, [[0, 3], [3, 4], [4, 5], [5, 6], [6, 7], [7, 8]])
    assert kinds == ["function word", "number", "number", "layout", "layout", "number"]
    assert doubts == ["", "space", "", "space", "space", ""]
    assert label_tokens(text, [[0, 3], [3, 5], [5, 8]])[0] == ["function word", "number", "number"]


def test_straddling_by_hand():
    text = "n=4. So"
    _, doubts = label_tokens(text, [[0, 3], [3, 4], [4, 7]])
    assert doubts == ["", "", "rule"]
    assert label_tokens(text, [[0, 4], [4, 7]])[1] == ["straddles", "rule"]


def test_empty_and_degenerate_tokens():
    assert label_tokens("", np.zeros((0, 2))) == ([], [])
    assert label_tokens("", [[0, 0]]) == (["layout"], ["space"])
    # Bytes of one character as several tokens, and tokens of no character.
    assert label_tokens("≥", [[0, 1], [0, 1], [1, 1]])[0] == ["operator"] * 3
    assert label_spans("") == [] and label_spans(" \n\t") == []


@pytest.mark.parametrize("spans", [[[0, 9]], [[-1, 2]]])
def test_spans_of_another_text_are_refused(spans):
    with pytest.raises(InputError, match="give the text that was tokenized"):
        label_tokens("short", spans)


@pytest.mark.parametrize(
    "unit",
    ["$", "$$", "\\(", "\\[", "(", "([{", "\\begin{align}", "\\begin{cases}\\begin{align}", "a ",
     "let's ", "we ", "|", "*", "\n", " ", "-", "Step ", "1. x\n", "\\text{", "…"],
)  # fmt: skip
def test_time_is_linear_whatever_the_text(unit):
    text = unit * (20_000 // len(unit))
    start = time.process_time()  # other processes do not count
    label_spans(text)
    assert time.process_time() - start < 2


# --- the second rule ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "category"),
    [(" Okay", "discourse"), ("Therefore", "reasoning"), (" 3", "math"), (" x", "math"),
     (" =", "math"), (").", "math"), (" garden", "other"), (",", "other"), ("\n\n", "other"),
     ("", "other")],
)  # fmt: skip
def test_tokens_alone(token, category):
    assert label_token_alone(token) == category


# --- tables of tokens ---------------------------------------------------------------------------

TEXT = "So x = 3."
SPANS = [[0, 2], [2, 4], [4, 6], [6, 8], [8, 9]]


def score_row(response: str, galp: list[float], local: list[float], **changes: object) -> dict:
    return {
        "prompt_id": response[:2],
        "response_id": response,
        "teacher": response[-1],
        "token_spans": [np.array(span) for span in SPANS],
        "token_steps": np.zeros(5, dtype=int),
        "galp:tokens": np.array(galp),
        "lalp@4:tokens": np.array(local),
        **changes,
    }


def test_token_table_by_hand():
    rows = [score_row("p1A", [-1.0] * 5, [-2.0] * 5)]
    table = token_table({"p1A": TEXT}, pd.DataFrame(rows), ["galp", "lalp@4"])
    assert list(table["kind"]) == ["filler", "variable", "operator", "number", "punctuation"]
    assert list(table["alone"]) == ["discourse", "math", "math", "math", "other"]
    assert list(table["doubt"]) == ["rule", "", "", "", ""]
    assert list(table["lalp@4"]) == [-2.0] * 5
    assert table.attrs == {"left_out": 0}


def test_only_tokens_with_every_score_count():
    local = [-1.0, float("nan"), -1.0, -1.0, -1.0]
    rows = [score_row("p1A", [-1.0] * 5, local), score_row("p1B", [float("nan")] * 5, [-1.0] * 5)]
    table = token_table(dict.fromkeys(("p1A", "p1B"), TEXT), pd.DataFrame(rows), ["galp", "lalp@4"])
    assert len(table) == 4 and table.attrs == {"left_out": 6}
    assert "variable" not in set(table["kind"])


@pytest.mark.parametrize(
    ("texts", "columns", "change", "message"),
    [
        ({}, ["galp"], {}, "has scores but no text"),
        ({"p1A": TEXT}, ["lalp@2"], {}, "with_tokens=True"),
        ({"p1A": "So"}, ["galp"], {}, "give the text that was tokenized"),
        ({"p1A": TEXT}, ["galp"], {"galp:tokens": np.full(5, np.nan)}, "no token has"),
    ],
)
def test_tables_that_cannot_be_made_are_refused(texts, columns, change, message):
    rows = pd.DataFrame([score_row("p1A", [-1.0] * 5, [-1.0] * 5, **change)])
    with pytest.raises(InputError, match=message):
        token_table(texts, rows, columns)


def test_frequent_members_by_hand():
    table = frequent_members(["So x = 3. So", "on  the\nother hand x"], 2).set_index("kind")
    assert table.loc["filler", "members"] == "so" and table.loc["filler", "spans"] == 2
    assert table.loc["contrast", "members"] == "on the other hand"
    assert table.loc["variable", "spans"] == 2


# --- shares -------------------------------------------------------------------------------------

ONE_KIND = {"discourse": "filler", "math": "number", "reasoning": "premise", "other": "layout"}


def make_tokens(rows: list[tuple]) -> pd.DataFrame:
    """Tokens as (prompt, response, step, category, global probability, local probability)."""
    names = ["prompt_id", "response_id", "step", "category", "global", "local"]
    frame = pd.DataFrame(rows, columns=names)
    return frame.assign(
        teacher=frame["response_id"].str[-1],
        kind=frame["category"].map(ONE_KIND),
        alone=frame["category"],
        doubt="",
        galp=np.log(frame["global"]),
        **{"lalp@4": np.log(frame["local"])},
    )


TOKENS = make_tokens(
    [
        ("p1", "p1A", 0, "discourse", 0.8, 0.4),
        ("p1", "p1A", 0, "math", 0.4, 0.4),
        ("p1", "p1A", 1, "math", 0.4, 0.2),
        ("p2", "p2B", 0, "reasoning", 0.2, 0.5),
        ("p2", "p2B", 0, "other", 0.2, 0.5),
    ]
)


def shares(score: int = 0, **options: object) -> dict[str, float]:
    found = draw_shares(TOKENS, ["galp", "lalp@4"], num_resamples=10, **options)
    values = found.shares[score]
    assert values.sum() == pytest.approx(1)
    return {category: round(float(v), 6) for category, v in zip(CATEGORIES, values, strict=True)}


def test_mass_by_hand():
    # 0.8, 0.8, 0.2 and 0.2 of 2.0.
    assert shares() == {"discourse": 0.4, "math": 0.4, "reasoning": 0.1, "other": 0.1}
    # 0.4, 0.6, 0.5 and 0.5 of 2.0.
    assert shares(1) == {"discourse": 0.2, "math": 0.3, "reasoning": 0.25, "other": 0.25}


def test_count_by_hand():
    assert shares(measure="count") == {
        "discourse": 0.2,
        "math": 0.4,
        "reasoning": 0.2,
        "other": 0.2,
    }


def test_every_response_equal_by_hand():
    # Half of (0.5, 0.5) and half of (0.5, 0.5).
    assert shares(weighting="response") == dict.fromkeys(CATEGORIES, 0.25)
    counts = shares(weighting="response", measure="count")
    assert counts["discourse"] == pytest.approx(1 / 6, abs=1e-6)


def test_every_step_equal_by_hand():
    # Steps of the first response weigh alike: counts 1/4, 1/4 and 1/2 of it.
    counts = shares(weighting="step", measure="count")
    assert counts == {"discourse": 0.125, "math": 0.375, "reasoning": 0.25, "other": 0.25}
    # Mass: 0.8/2, 0.4/2 and 0.4/1 sum to 1.
    mass = shares(weighting="step")
    assert mass == {"discourse": 0.2, "math": 0.3, "reasoning": 0.25, "other": 0.25}


def test_low_tokens_by_hand():
    # One of three and one of two; equal values: the first.
    assert list(low_tokens(TOKENS, "galp")) == [False, True, False, True, False]
    assert list(low_tokens(TOKENS, "galp", in_pool=True)) == [False, False, False, True, False]
    assert list(low_tokens(TOKENS, "lalp@4")) == [False, False, True, True, False]
    assert low_overlap(TOKENS, "lalp@4") == 0.5
    assert shares(measure="low") == {"discourse": 0, "math": 0.5, "reasoning": 0.5, "other": 0}
    assert shares(measure="low in pool")["reasoning"] == 1


def test_a_response_without_low_tokens_adds_nothing():
    # The pool's lowest token is in p2B; in resamples of p1 alone there is none.
    found = draw_shares(
        TOKENS, ["galp"], measure="low in pool", weighting="response", num_resamples=50
    )
    assert found.shares[0].tolist() == [0, 0, 1, 0]
    table = share_table(TOKENS, ["galp"], measure="low in pool", num_resamples=50)
    assert table.set_index("category").loc["reasoning", ["low", "high"]].tolist() == [100, 100]


@pytest.mark.parametrize("size", [1, 9, 10, 11, 20, 30, 31, 70])
def test_a_tenth_is_rounded_up(size):
    rows = [("p", "pA", 0, "math", 0.01 + i / 100, 0.5) for i in range(size)]
    assert low_tokens(make_tokens(rows), "galp").sum() == -(-size // 10)


def test_readings_move_kinds():
    tokens = TOKENS.assign(kind=["conclusion", "function word", "math word", "layout", "number"])
    expected = {  # discourse, math, reasoning, other
        "narrow": [0, 1, 1, 3],
        "broad discourse": [2, 1, 1, 1],
        "broad discourse and math": [2, 2, 1, 0],
        "conclusions as discourse": [1, 1, 0, 3],
        SINGLE_TOKENS: [1, 2, 1, 1],
    }
    assert set(expected) == {*READINGS, SINGLE_TOKENS}
    for reading, counts in expected.items():
        found = draw_shares(tokens, ["galp"], measure="count", reading=reading, num_resamples=2)
        assert found.shares[0] * 5 == pytest.approx(counts)


def test_every_reading_covers_every_kind():
    for reading in READINGS.values():
        assert set(reading) == set(KINDS) and set(reading.values()) <= set(CATEGORIES)


def test_share_table_by_hand():
    table = share_table(TOKENS, ["galp"], num_resamples=50).set_index("category")
    assert list(table["count"]) == pytest.approx([20, 40, 20, 20])
    assert list(table["share"]) == pytest.approx([40, 40, 10, 10])
    # Mean probability over that of all: 0.8 / 0.4.
    assert table.loc["discourse", "ratio"] == pytest.approx(2)
    # Resamples hold p1 twice, p2 twice, or both.
    assert table.loc["reasoning", "low"] == 0 and table.loc["reasoning", "high"] == 50


def test_shift_table_by_hand():
    table = shift_table(TOKENS, "lalp@4", num_resamples=50).set_index("category")
    assert list(table["shift"]) == pytest.approx([-20, -10, 15, 15, 5])
    assert list(table["share"]) == pytest.approx([20, 30, 25, 25, 55])
    assert table.index[-1] == REASONING_BEARING


def test_a_score_against_itself_shifts_nothing():
    table = shift_table(TOKENS, "galp", num_resamples=50)
    assert (table[["shift", "low", "high"]] == 0).all().all() and not table["resolved"].any()


def test_contrasts_are_paired():
    # Both prompts shift alike, so the interval of the difference is a point.
    rows = [
        (f"p{i}", f"p{i}A", 0, category, p * (i + 1) / 9, q * (i + 1) / 9)
        for i in range(8)
        for category, p, q in (("discourse", 0.9, 0.5), ("math", 0.9, 1.0))
    ]
    table = shift_table(make_tokens(rows), "lalp@4", num_resamples=200).set_index("category")
    assert list(table.loc["math", ["low", "high"]]) == pytest.approx([100 / 6, 100 / 6])
    assert table.loc["math", "resolved"]
    found = draw_shares(make_tokens(rows), ["galp"], num_resamples=20)
    assert share_contrast(found, {"galp": {"discourse": 2, "math": -1}}).value == pytest.approx(0.5)


def test_one_prompt_has_no_interval():
    one = TOKENS[TOKENS["prompt_id"] == "p1"]
    assert share_table(one, ["galp"], num_resamples=5)[["low", "high"]].isna().all().all()
    table = shift_table(one, "lalp@4", num_resamples=5)
    assert table[["low", "high"]].isna().all().all() and not table["resolved"].any()


def test_the_seed_decides_the_interval_and_the_order_of_rows_does_not():
    options = {"num_resamples": 30, "seed": 3}
    first = share_table(random_tokens(9), ["galp"], **options)
    shuffled = random_tokens(9).sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(first, share_table(shuffled, ["galp"], **options))
    other = share_table(random_tokens(9), ["galp"], num_resamples=30, seed=4)
    assert not np.allclose(first["low"], other["low"])


FEW = {"num_resamples": 20, "seed": 0}


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("measure", "weight", "there is no measure"),
        ("weighting", "prompt", "there is no weighting"),
        ("reading", "wide", "there is no reading"),
    ],
)
def test_unknown_options_are_refused(option, value, message):
    with pytest.raises(InputError, match=message):
        draw_shares(TOKENS, ["galp"], num_resamples=2, **{option: value})


def test_no_tokens_are_refused():
    with pytest.raises(InputError, match="has no rows"):
        draw_shares(TOKENS[:0], ["galp"])


def random_tokens(seed: int, num_prompts: int = 12, drop: float = 1.0) -> pd.DataFrame:
    """Random tokens; ``drop`` multiplies the local probability of discourse."""
    rng = np.random.default_rng(seed)
    rows = []
    for prompt in range(num_prompts):
        for teacher in "AB":
            for place in range(30):
                category = CATEGORIES[rng.choice(4, p=[0.4, 0.3, 0.15, 0.15])]
                p = rng.uniform(0.2, 0.95)
                local = p * (drop if category == "discourse" else 1)
                rows.append((f"p{prompt}", f"p{prompt}{teacher}", place // 6, category, p, local))
    return make_tokens(rows)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.sampled_from(["mass", "count", "low", "low in pool"]))
def test_shares_sum_to_one_in_every_resample(seed, measure):
    tokens = random_tokens(seed, 3)
    for weighting in ("token", "response", "step"):
        found = draw_shares(
            tokens, ["galp"], measure=measure, weighting=weighting, num_resamples=20, seed=seed
        )
        assert found.shares.sum(axis=-1) == pytest.approx(1)
        whole = found.draws.sum(axis=-1)
        # A resample of prompts without a low token has no shares.
        assert whole[~np.isnan(whole)] == pytest.approx(1)
        assert measure == "low in pool" or not np.isnan(whole).any()


def test_a_sweep_has_every_teacher_and_window():
    tokens = random_tokens(0)
    table = sweep_shares(tokens.assign(**{"lalp@all": tokens["galp"]}), ["all", "4"], **FEW)
    assert len(table) == 3 * 2 * 5
    assert list(table["teacher"].unique()) == ["all", "A", "B"]
    one = table[(table["teacher"] == "A") & (table["window"] == "all")].set_index("category")
    assert one["share"][list(CATEGORIES)].sum() == pytest.approx(100)
    both = one.loc["math", "share"] + one.loc["reasoning", "share"]
    assert one.loc[REASONING_BEARING, "share"] == pytest.approx(both)
    assert one["shift"].to_numpy() == pytest.approx(0, abs=1e-9)
    assert not one["resolved"].any()


def test_agreement_by_hand():
    assert rule_agreement(TOKENS) == (1.0, pytest.approx(1.0))
    # Two of four agree, by chance half would: kappa 0.
    four = TOKENS[:4].assign(kind=["filler", "filler", "number", "number"])
    four["alone"] = ["discourse", "math", "discourse", "math"]
    assert rule_agreement(four) == (0.5, pytest.approx(0.0))


# --- settings and verdicts ----------------------------------------------------------------------

PROFILE = replace(load_profile("smoke"), windows=["4"], main_window="4", num_resamples=200)


def test_settings_are_complete_and_default_comes_first():
    table = compare_settings(random_tokens(0), "lalp@4", num_resamples=50)
    keys = ["tokens", "reading", "weighting"]
    assert len(table.drop_duplicates(keys)) == 2 * 5 * 3
    assert tuple(table.iloc[0][keys]) == ("all", "narrow", "token")
    assert set(table["quantity"]) == set(QUANTITIES)
    mass = shift_table(random_tokens(0), "lalp@4", num_resamples=50).set_index("category")
    first = table.drop_duplicates("quantity").set_index("quantity")
    bearing = mass.loc[REASONING_BEARING, "shift"]
    assert 100 * first.loc["bearing", "value"] == pytest.approx(bearing)


def test_settings_are_counted_against_their_threshold():
    rows = [("q", 0.2, 0.1, 0.3), ("q", 0.1, -0.1, 0.3), ("ratio", 0.9, 0.8, 0.95)]
    table = pd.DataFrame(rows, columns=["quantity", "value", "low", "high"])
    found = summarize_settings(table)
    assert found.loc["q", ["above", "below", "settings"]].tolist() == [1, 0, 2]
    assert found.loc["q", ["value", "smallest", "largest"]].tolist() == [0.2, 0.1, 0.2]
    assert found.loc["ratio", ["above", "below"]].tolist() == [0, 1]
    assert summarize_settings(table, {"q": 0.25}).loc["q", "above"] == 0


def verdicts(tokens: pd.DataFrame) -> dict[str, str]:
    """What the notebook's cells say on made-up tokens."""
    paper = TABLES["4"].frame.set_axis(CATEGORIES)
    moved = paper["LALP"] - paper["GALP"]
    options = {"num_resamples": 200, "seed": 0}
    by_window = {"4": compare_settings(tokens, "lalp@4", **options)}
    given_ = run_verdict_cells(
        "02_token_attribution",
        shares=attribution_shares,
        profile=PROFILE,
        tokens=tokens,
        table=share_table(tokens, ["galp", "lalp@4"], **options),
        mass_sweep=sweep_shares(tokens, ["4"], **options),
        settings=by_window,
        at_main=summarize_settings(by_window["4"]),
        paper=paper,
        moved=moved,
        claimed=moved["math"] + moved["reasoning"],
    )
    assert all(verdict.where in ("Table 4", "Fig. 4") for verdict in given_)
    names = ["lead", "ratio", "fall", "gain", "size", "transitions", "low", "low first"]
    return dict(zip(names, [verdict.verdict for verdict in given_], strict=True))


def test_the_papers_world_gets_the_papers_verdicts():
    # Discourse is frequent and probable under global, and much less so under local.
    tokens = random_tokens(1)
    is_discourse = tokens["category"] == "discourse"
    tokens["galp"] = np.where(is_discourse, np.log(0.95), tokens["galp"])
    tokens["lalp@4"] = np.where(is_discourse, np.log(0.15), tokens["lalp@4"])
    found = verdicts(tokens)
    for name in ("lead", "ratio", "fall", "gain", "size", "transitions"):
        assert found[name] == "holds", name
    assert found["low"] == "does not hold"


def test_a_world_without_any_shift_settles_nothing_but_the_size():
    tokens = random_tokens(2)
    tokens["lalp@4"] = tokens["galp"]
    found = verdicts(tokens)
    assert found["size"] == "does not hold"
    assert {found[name] for name in ("fall", "gain", "transitions", "low")} == {"not resolved"}


def test_one_prompt_settles_nothing():
    tokens = random_tokens(1, num_prompts=1, drop=0.2)
    assert set(verdicts(tokens).values()) == {"not resolved"}


# --- pictures -----------------------------------------------------------------------------------


def test_lines_break_at_white_space():
    assert attribution_plots._wrap("ab cd", 10) == [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4)]
    assert [line for line, _ in attribution_plots._wrap("ab cd ef", 5)] == [0, 0, 0, 0, 0, 0, 1, 1]
    assert [line for line, _ in attribution_plots._wrap("a\nb", 5)] == [0, 0, 1]


def test_pictures_are_drawn():
    tokens = random_tokens(0)
    paper_figures.use_style()
    scores = ["galp", "lalp@4"]
    mass, low = (share_table(tokens, scores, measure=m, **FEW) for m in ("mass", "low"))
    mass["paper"] = 25.0
    sweeps = [sweep_shares(tokens, ["4"], measure=measure, **FEW) for measure in ("mass", "low")]
    boxes = pd.DataFrame({"start": [0, 2], "end": [2, 9], "category": ["discourse", "math"]})
    figures = [
        attribution_plots.plot_category_mass(mass),
        attribution_plots.plot_low_tokens(low, sweeps[1][sweeps[1]["teacher"] == "all"]),
        attribution_plots.plot_category_shifts(*sweeps, "4"),
        attribution_plots.plot_token_categories(TEXT, boxes),
    ]
    for figure in figures:
        assert figure.axes
        attribution_plots.plt.close(figure)


@pytest.mark.slow
def test_the_example_is_cut_by_the_packaged_tokenizer():
    table = labels.token_table("Okay, so x = 3.", load_tokenizer(PROFILE.student))
    assert "".join(table["token"]) == "Okay, so x = 3."
    of = dict(zip(table["token"].str.strip(), table["category"], strict=True))
    assert of["Okay"] == "discourse" and of["x"] == of["="] == of["3"] == "math"
    assert of["."] == "other"
