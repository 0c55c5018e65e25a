"""All responses to a prompt next to each other: what a reader sees, and what is refused."""

from __future__ import annotations

import re

import pandas as pd
import pytest
from bs4 import BeautifulSoup, Tag

from lalp.errors import InputError
from lalp.report.side_by_side import prompt_to_draw, side_by_side
from tests.scoring.test_heat_map import GLOBAL, LOCAL, TEXT, row
from tests.selection.score_tables import NAN, scores_table

COLUMNS = "prompt_id response_id teacher correct num_tokens galp lalp@2"


def responses(**changes: object) -> pd.DataFrame:
    """Two responses; GALP takes Ada's at every window, LALP takes Bob's at window 0."""
    ada = {"response_id": "p/Ada/0", "teacher": "Ada", "galp": -0.5, "lalp@0": -1.0, "lalp@all": -1}
    bob = {"response_id": "p/Bob/0", "teacher": "Bob", "galp": -0.6, "lalp@0": -0.9, "lalp@all": -2}
    whole = {"correct": True, "lalp@all:tokens": GLOBAL}
    return pd.DataFrame([row(**(own | whole | changes)) for own in (bob, ada)])


def windows(page: str) -> list[Tag]:
    soup = BeautifulSoup(page, "html.parser", preserve_whitespace_tags={"div"})
    return soup.find_all("details")


def test_every_window_shows_all_responses_and_who_is_taken():
    short, whole = windows(side_by_side(responses()))
    said = [part.summary.text for part in (short, whole)]
    assert said == [
        "LALP, w = 0 takes Bob; GALP takes Ada",
        "LALP, full prefix takes Ada; GALP takes Ada",
    ]
    assert short.has_attr("open") and not whole.has_attr("open")
    assert "every gap is 0" in whole.text and "every gap is 0" not in short.text
    for part in (short, whole):
        texts = part.find_all(style=re.compile("pre-wrap"))
        numbers = [[int(n.extract().text) for n in text("sup")] for text in texts]
        assert numbers == [[1, 2], [1, 2]]  # step borders
        assert [text.text for text in texts] == [TEXT, TEXT]
    heads = [head.parent.text for head in short.find_all("b") if head.parent.name == "div"]
    assert "GALP -0.500, LALP -1.000" in heads[0] and "GALP's choice" in heads[0]
    assert "GALP -0.600, LALP -0.900" in heads[1] and "LALP's choice" in heads[1]


def test_windows_come_in_the_order_that_was_asked_for():
    parts = windows(side_by_side(responses(), ["all", "0"]))
    assert ["full prefix" in part.summary.text for part in parts] == [True, False]
    assert parts[0].has_attr("open")
    with pytest.raises(InputError, match="window 4 is not in it"):
        side_by_side(responses(), ["4"])


def test_shaded_tokens_stand_alone_and_tell_their_values_and_all_share_one_scale():
    louder = responses()
    louder.at[0, "lalp@0:tokens"] = [-9.0, *LOCAL[1:]]  # Bob's first token gains 8 nats
    (part,) = windows(side_by_side(louder, ["0"]))
    titles = [span["title"] for span in part.find_all("span", title=True)]
    assert len(titles) == 3  # twice the token of +3 nats, and Bob's of +8; -0.5 gets no shade
    assert "gap +8.00 nats" in titles[1]
    assert "gap +3.00 nats" in titles[0] and "gap +3.00 nats" in titles[2]
    styles = {span["style"] for span in part.find_all("span", title=re.compile("3.00"))}
    assert len(styles) == 1 and "0.15" in styles.pop()  # 3 of 10 nats: the lowest of 4 shades


def test_a_wrong_response_is_marked_and_never_taken_and_one_without_a_score_neither():
    table = responses()
    table["correct"] = [False, True]
    (part,) = windows(side_by_side(table, ["0"]))
    assert part.summary.text == "LALP, w = 0 takes Ada; GALP takes Ada"
    assert part.text.count("(wrong)") == 1
    none = responses(galp=NAN, **{"galp:tokens": [NAN] * 10, "lalp@0": NAN})
    none["correct"] = pd.array([None, None], dtype="boolean")
    (part,) = windows(side_by_side(none, ["0"]))
    assert part.summary.text == "LALP, w = 0"
    assert "GALP not scored" in part.text


def test_everything_is_escaped():
    text = '<script>alert("1")</script>'
    tokens = {"token_spans": [[0, len(text)]], "token_steps": [0], "galp:tokens": [-1.0]}
    tokens |= {"lalp@0:tokens": [-9.0], "lalp@all:tokens": [-1.0]}
    page = side_by_side(responses(response=text, **tokens).assign(teacher="<b>x"))
    assert "<script" not in page and "<b>x" not in page
    assert not re.search(r"https?:|src=|@import|url\(", page)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="response"), "no texts in it"),
        (lambda t: t.filter(regex="^(?!.*:tokens)"), "no token columns in it"),
        (lambda t: t.assign(prompt_id=["p", "q"]), "holds 2 prompts"),
        (lambda t: t.assign(response=[TEXT, 7]), "p/Ada/0: the response is no text, but 7"),
        (lambda t: t.drop(columns="galp:tokens"), "no column 'galp:tokens'"),
    ],
)
def test_what_cannot_be_drawn_is_refused(change, message):
    with pytest.raises(InputError, match=re.escape(message)):
        side_by_side(change(responses()))


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([("p", "a", "A", True, 9, -1.0, -3.0), ("p", "b", "B", True, 9, -2.0, -1.0)], "p"),
        ([("p", "a", "A", True, 9, -1.0, -1.0), ("p", "b", "B", True, 9, -2.0, -2.0)], None),
        (
            [
                ("p", "a", "A", True, 99, -1.0, -3.0),
                ("p", "b", "B", True, 9, -2.0, -1.0),
                ("q", "c", "A", True, 9, -1.0, -3.0),
                ("q", "d", "B", True, 9, -2.0, -1.0),
                ("r", "e", "A", True, 1, -1.0, -3.0),
                ("r", "f", "A", True, 1, -2.0, -1.0),
            ],
            "q",
        ),
    ],
)
def test_the_shortest_prompt_that_all_answered_and_the_scores_disagree_on(rows, expected):
    assert prompt_to_draw(scores_table(rows, COLUMNS), "2") == expected
