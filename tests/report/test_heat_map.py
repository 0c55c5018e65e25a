"""Which response is drawn."""

from __future__ import annotations

import pytest

from lalp.report.heat_map import response_to_draw
from tests.selection.score_tables import NAN, scores_table

COLUMNS = "prompt_id response_id teacher num_tokens galp lalp@2"


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([("p", "a", "A", 10, -1.0, -3.0), ("p", "b", "B", 100, -1.0, -2.0)], "b"),  # 20, 100 nats
        ([("p", "a", "A", 10, -1.0, -3.0), ("p", "b", "B", 2000, -1.0, -2.0)], "a"),
        ([("p", "a", "A", 3000, -1.0, -3.0), ("p", "b", "B", 2000, -1.0, -2.0)], "b"),
        ([("p", "a", "A", 10, NAN, -3.0), ("p", "b", "B", 10, -2.0, -1.0)], "b"),
        ([("p", "a", "A", 10, NAN, -3.0), ("p", "b", "B", 10, -2.0, NAN)], None),
    ],
)
def test_the_largest_gain_of_those_that_a_page_can_hold(rows, expected):
    assert response_to_draw(scores_table(rows, COLUMNS), "2") == expected
