"""Conditions on fields: how they are read, and which rows meet them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lalp.errors import InputError
from lalp.selection.where import Condition, holds, parse_where
from tests.selection.score_tables import NAN, steady


def met(frame: pd.DataFrame, text: str) -> list[int]:
    """Places of the rows that meet all conditions of a text."""
    marks = [holds(frame, condition) for condition in parse_where(text)]
    return np.flatnonzero(np.logical_and.reduce(marks)).tolist()


@pytest.fixture
def fields() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "correct": pd.array([True, False, None, True], dtype="boolean"),
            "level": [1, 5, 3, 4],
            "grade": ["1", "10", None, "2"],
            "source": ["aime", "my set", None, "math"],
            "score": [-1.0, NAN, -0.5, -2.0],
            "lalp@25%": [-1.0, -2.0, -3.0, -4.0],
            "old name": [True, True, False, False],
        }
    )


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("correct", [0, 3]),
        ("not correct", [1]),  # nobody verified the third: it is neither
        ("correct == true", [0, 3]),
        ("correct != true", [1]),
        ("level >= 4", [1, 3]),
        ("level>=4 and correct", [3]),
        ("level < 3.5", [0, 2]),
        ("level == 3", [2]),
        ("grade > 1", [1, 3]),  # texts that are numbers have their order
        ("grade == 1", [0]),
        ("source == aime", [0]),
        ("source == 'my set'", [1]),
        ('source != "my set"', [0, 3]),  # a missing value meets nothing
        ("source == true", None),
        ("score > -1.5", [0, 2]),
        ("score <= -1", [0, 3]),
        ("lalp@25% > -2.5", [0, 1]),
        ("'old name'", [0, 1]),
        ("not 'old name' and level == 4", [3]),
    ],
)
def test_rows_that_meet_a_condition(fields, text, rows):
    if rows is None:
        with pytest.raises(InputError, match="does not hold true"):
            met(fields, text)
    else:
        assert met(fields, text) == rows


@pytest.mark.parametrize(
    "correct", [[True, False, None], [1.0, 0.0, NAN], pd.array([True, False, pd.NA])]
)
def test_truths_are_read_in_every_form_a_file_gives(correct):
    frame = pd.DataFrame({"correct": correct})
    assert (met(frame, "correct"), met(frame, "not correct")) == ([0], [1])


NO_CONDITIONS = """
and
correct and
level >=
level = 4
>= 4
not
a b
level >= 4 5
'open
(level >= 4)(
level >= 4 or correct
level >= __import__('os')"""


@pytest.mark.parametrize("text", NO_CONDITIONS.split("\n"))
def test_what_is_no_condition_is_refused(fields, text):
    with pytest.raises(InputError, match="condition"):
        met(fields, text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("levle >= 4", "no field 'levle': did you mean 'level'"),
        ("level", "does not hold true, false or nothing"),
        ("level >= four", "'four' is none"),
        ("source > aime", "does not hold numbers: compare it by == or !="),
        ("correct > true", "have no order"),
        ("correct == yes", "holds true or false: write correct"),
        ("spans == 1", "other things than numbers, or than texts"),
    ],
)
def test_what_cannot_be_compared_is_refused(fields, text, message):
    with pytest.raises(InputError, match=message):
        met(fields.assign(spans=[[1], [2], [3], [4]]), text)


@steady
@given(st.text(max_size=20))
def test_any_text_is_read_or_refused(text):
    try:
        conditions = parse_where(text)
    except InputError:
        return
    assert conditions and all(isinstance(one, Condition) for one in conditions)


def test_a_nul_at_the_end_of_a_text_counts():
    frame = pd.DataFrame({"source": ["mine\0", "mine"]})
    assert met(frame, "source == 'mine\0'") == [0] and met(frame, "source != 'mine'") == [0]


WORD = st.text(st.characters(exclude_characters="\"'"), min_size=1, max_size=8)


@steady
@given(field=WORD, value=WORD, sign=st.sampled_from(["==", "!="]))
def test_quoted_names_and_values_may_hold_anything_but_quotes(field, value, sign):
    (condition,) = parse_where(f"'{field}' {sign} \"{value}\"")
    assert condition == Condition(field, sign, value)
    frame = pd.DataFrame({field: [value, value + "x"]})
    assert met(frame, f"'{field}' {sign} '{value}'") == ([0] if sign == "==" else [1])
