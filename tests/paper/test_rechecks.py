"""Committed results laid beside ones made now: how far they lie apart, and what is too far."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from lalp.errors import InputError
from lalp.paper.rechecks import compare, describe_made, require_agreement

COMMITTED = pd.DataFrame({
    "arm": ["a", "a", "b"],
    "step": [1, 2, 1],
    "loss": [2.0, 1.0, 3.0],
    "nll": [math.nan, 0.5, math.nan],
    "extracted": ["7", None, "8"],
})  # fmt: skip


def compared(changes: dict, columns: list[str], at_most: float = 0.0) -> dict:
    """The first arm's rows with other values, beside the committed ones."""
    now = COMMITTED[COMMITTED["arm"] == "a"].assign(**changes)
    return compare("it", COMMITTED, now, ["arm", "step"], columns, at_most)


def test_the_largest_difference_and_how_many_lie_within_the_bar():
    found = compared({"loss": [2.25, 0.0]}, ["loss"], 0.5)
    assert found == {"what": "it", "values": 2, "agree": 1, "largest": 1.0, "at most": 0.5}
    assert compared({}, ["loss", "nll", "extracted"])["agree"] == 6


def test_rows_are_found_by_their_keys_and_not_by_their_place():
    now = COMMITTED[::-1].reset_index(drop=True)
    assert compare("it", COMMITTED, now, ["arm", "step"], ["loss"])["largest"] == 0


@pytest.mark.parametrize(
    ("column", "values"),
    [("nll", [0.1, 0.5]), ("nll", [math.nan] * 2), ("extracted", ["6", None]),
     ("extracted", ["7", "7"])],
)  # fmt: skip
def test_another_text_or_a_missing_value_is_infinitely_far(column, values):
    found = compared({column: values}, [column], 1e9)
    assert (found["agree"], found["largest"]) == (1, math.inf)


@pytest.mark.parametrize("step", [[1, 3], [2, 9]])
def test_a_row_that_is_not_committed_is_refused(step):
    with pytest.raises(InputError, match="it: committed results lack a row"):
        compared({"step": step}, ["loss"])


def test_rows_committed_twice_are_refused():
    twice = pd.concat([COMMITTED, COMMITTED])
    with pytest.raises(InputError, match="or have it twice"):
        compare("it", twice, COMMITTED, ["arm", "step"], ["loss"])


def test_a_difference_beyond_its_bar_names_the_check_and_the_command():
    near, far = compared({"loss": [2.25, 1]}, ["loss"], 0.5), compared({"loss": [4, 1]}, ["loss"])
    table = require_agreement([near], "make arms")
    assert table["largest"].tolist() == [0.25]
    with pytest.raises(
        InputError, match="it: 1 of 2 agree, the largest difference is 2, at most 0"
    ):
        require_agreement([near, far], "make arms")
    with pytest.raises(InputError, match="run make arms"):
        require_agreement([far], "make arms")


def test_a_run_is_told_with_its_day_hours_and_machine():
    made = {"date": "2026-11-29", "profile": "standard", "hours_since_last_start": 1.45}
    made |= {"cores": 2, "machine": "x86_64"}
    assert describe_made(made) == (
        "committed run of 2026-11-29 (standard profile, 1.45 hours on 2 cores of x86_64)"
    )
    assert describe_made({}) == "live run"
