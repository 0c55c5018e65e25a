"""Token heat maps: what a reader sees, and that nothing but it gets through."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from hypothesis import given, settings
from hypothesis import strategies as st

from lalp.errors import InputError
from lalp.scoring.heat_map import heat_map_page, token_heat_map

TEXT = "Add 3 < 4.\n So it is 7."
SPANS = [[0, 3], [3, 5], [5, 7], [7, 9], [9, 10], [10, 14], [14, 17], [17, 20], [20, 22], [22, 23]]
GLOBAL = [-1.0, -2.0, -0.5, -1.0, -0.1, -1.0, -1.0, -1.0, -0.25, -0.1]
LOCAL = [-1.0, -2.0, -0.5, -1.0, -0.1, -0.5, -1.0, -1.0, -3.25, -0.1]


def row(**changes: object) -> dict[str, object]:
    ids = {"prompt_id": "p", "response_id": "p/A/0", "teacher": "A", "response": TEXT}
    scores = {"galp": -0.795, "lalp@0": -1.0, "num_tokens": 10, "num_steps": 2}
    tokens = {"token_spans": SPANS, "token_steps": [0] * 5 + [1] * 5}
    return {**ids, **scores, **tokens, "galp:tokens": GLOBAL, "lalp@0:tokens": LOCAL, **changes}


def table(**changes: object) -> pd.DataFrame:
    return pd.DataFrame([row(**changes), row(response_id="p/B/0", teacher="B", **changes)])


class Reader:
    """The response's text, its step numbers, and all text around it."""

    def __init__(self, page: str) -> None:
        soup = BeautifulSoup(page, "html.parser", preserve_whitespace_tags={"div"})
        self.tags = soup.find_all()
        shown = soup.find(style=re.compile("pre-wrap"))
        self.steps = [int(number.extract().text) for number in shown("sup")]
        self.body = shown.extract().text
        self.tokens = [tag for tag in shown("span") if "gap " in tag.get("title", "")]
        self.legend = soup.text


def heat_map(text: str = TEXT, limit: float | None = None, **changes: object) -> Reader:
    return Reader(token_heat_map(text, row(**changes), "0", limit=limit))


def test_the_text_is_whole_the_steps_are_numbered_and_hovering_tells_all():
    page = Reader(token_heat_map(TEXT, table().iloc[0], "0"))  # the row of a table
    assert page.body == TEXT
    assert page.steps == [1, 2]
    titles = [token["title"] for token in page.tokens]
    assert len(titles) == 10
    assert titles[8] == "␣7  |  global -0.25  |  local -3.25  |  gap +3.00 nats  |  step 2"
    assert titles[2].startswith("␣<  |")
    # The line break before a step is shown before its number, but belongs to the token.
    assert titles[5].startswith("⏎␣So  |") and "gap -0.50" in titles[5]


def test_shades_tell_signs_with_and_without_colour():
    styles = [token.get("style", "") for token in heat_map().tokens]
    assert "solid" in styles[8] and "rgba(213,94,0,0.30)" in styles[8]
    assert styles[0] == ""
    strongest = heat_map(limit=0.5).tokens[5]["style"]
    assert "dashed" in strongest and "rgba(0,114,178,0.60)" in strongest


def test_the_legend_is_symmetric_and_its_scale_round_and_never_tiny():
    legend = heat_map().legend
    numbers = [float(n) for n in re.findall(r"[+-][\d.]+", legend)]
    assert numbers == [-n for n in reversed(numbers)] and len(numbers) == 8
    assert "nats per token" in legend and "window 0" in legend
    assert "+5" in legend  # the largest gap is 3
    assert "+0.5" in heat_map(**{"lalp@0:tokens": GLOBAL}).legend
    assert "+2" in heat_map(limit=2).legend


def test_everything_is_escaped():
    text = '<script>alert("1")</script>&amp;\' onmouseover=x'
    tokens = {"galp:tokens": [-1.0], "lalp@0:tokens": [-2.0]}
    page = heat_map(text, token_spans=[[0, len(text)]], token_steps=[0], **tokens)
    assert page.body == text
    assert {tag.name for tag in page.tags} == {"div", "span", "sup", "br"}
    assert {name for tag in page.tags for name in tag.attrs} <= {"style", "title", "class"}


def test_unscored_tokens_are_marked():
    page = heat_map(**{"lalp@0:tokens": [*LOCAL[:9], float("nan")]})
    (last,) = [tag for tag in page.tags if "not scored" in tag.get("title", "")]
    assert "dotted" in last["style"]
    assert page.body == TEXT


def test_tokens_that_share_a_character_are_one():
    tokens = {"galp:tokens": [-1, -2, -3, -1], "lalp@0:tokens": [-2, -2, -4, -1]}
    spans = [[0, 1], [0, 1], [0, 1], [1, 2]]
    page = heat_map("🙂!", token_spans=spans, token_steps=[0] * 4, **tokens)
    assert page.body == "🙂!"
    first = page.tokens[0]["title"]
    assert "gap +2.00" in first and "3 tokens" in first and "global -6.00" in first


CUTS = st.lists(st.integers(0, 30), max_size=12)


@given(st.text(max_size=30), CUTS, CUTS)
@settings(max_examples=200, deadline=None)
def test_any_text_survives(text, cuts, borders):
    text = text.replace("\r", "").replace("\x00", "")
    cuts = sorted({min(cut, len(text)) for cut in cuts})
    spans = [list(pair) for pair in itertools.pairwise(cuts)]
    steps = np.searchsorted(sorted(borders), [start for start, _ in spans], "right").tolist()
    values = np.linspace(-3, 0, len(spans))
    tokens = {"galp:tokens": values, "lalp@0:tokens": values[::-1]}
    page = heat_map(text, token_spans=spans, token_steps=steps, **tokens)
    assert page.body == text
    assert page.steps == sorted(page.steps)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"galp:tokens": None}, "galp:tokens"),
        ({"token_steps": float("nan")}, "token_steps"),
        ({"lalp@0:tokens": None}, "window 0"),
        ({"galp:tokens": [-1.0]}, "length"),
        ({"token_spans": [[0, 99]] * 10}, "exceed the text"),
        *(({"limit": limit}, "limit") for limit in (0, -1, float("nan"), float("inf"))),
    ],
)
def test_bad_rows_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        heat_map(**changes)


def test_a_page_stands_alone_and_holds_all_numbers_as_a_table():
    page = heat_map_page(table(), "p/B/0")
    read = Reader(page)
    assert read.body == TEXT
    assert not {"script", "link", "img"} & {tag.name for tag in read.tags}
    assert not re.search(r"https?:|src=|@import|url\(", page)
    assert "color-scheme" in page and "teacher B" in page and "GALP -0.795" in page
    cells = [tag.text for tag in read.tags if tag.name == "td"]
    assert len(cells) == 10 * 6
    assert cells[8 * 6 : 9 * 6] == ["9", "2", "␣7", "-0.250", "-3.250", "+3.000"]


def test_a_page_of_an_unscored_response_says_so():
    frame = table(**{"galp": float("nan"), "galp:tokens": [float("nan")] * 10})
    page = heat_map_page(frame, "p/A/0")
    assert "GALP not scored" in page and Reader(page).body == TEXT


@pytest.mark.parametrize(
    ("frame", "response_id", "window", "message"),
    [
        (table(), "p/C/0", None, r"scores: no response 'p/C/0': did you mean 'p/[AB]/0'"),
        (table(), "p/A/0", "four", r"window 'four' is not understood"),
        (table().drop(columns="response"), "p/A/0", None, r"scores: no texts"),
        (table().drop(columns="galp:tokens"), "p/A/0", None, r"galp:tokens"),
        (table().iloc[:0], "p/A/0", None, r"another table"),
    ],
)
def test_pages_that_cannot_be_are_refused(frame, response_id, window, message):
    with pytest.raises(InputError, match=message):
        heat_map_page(frame, response_id, window, where="scores")
