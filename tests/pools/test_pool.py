"""How a pool shows itself."""

from __future__ import annotations

import pandas as pd
import pytest

from lalp.pools.pool import Message, Pool, Prompt, Response, teacher_counts


def pool_of(*marks: tuple[str, bool | None]) -> Pool:
    """A response of ``10 n`` characters for each teacher and verdict, to one prompt."""
    responses = [
        Response(f"r{n}", "p", teacher, "x" * 10 * n, correct)
        for n, (teacher, correct) in enumerate(marks, 1)
    ]
    return Pool({"p": Prompt("p", (Message("user", "2 + 2?"),))}, tuple(responses))


@pytest.mark.parametrize(
    ("pool", "line"),
    [
        (Pool({}, ()), "<Pool: 0 prompts, 0 responses, 0 teachers>"),
        (pool_of(("B", None), ("A", True)), "<Pool: 1 prompt, 2 responses, 2 teachers: A, B>"),
        (
            pool_of(*((f"t{n}", True) for n in range(10))),
            "<Pool: 1 prompt, 10 responses, 10 teachers: t0, t1, t2, t3, t4, t5, t6, t7, ...>",
        ),
        (pool_of(*[("A", True)] * 12_345), "<Pool: 1 prompt, 12,345 responses, 1 teacher: A>"),
    ],
)
def test_a_line_however_much_it_holds(pool, line):
    assert repr(pool) == line


def test_a_row_for_each_teacher_in_a_notebook():
    pool = pool_of(("A", True), ("<b>", False), ("A", None), ("A", True))
    rows = {
        "<b>": {"responses": 1, "correct": 0, "incorrect": 1, "unverified": 0},
        "A": {"responses": 3, "correct": 2, "incorrect": 0, "unverified": 1},
    }
    table = teacher_counts(pool)
    assert table.drop(columns=["prompts", "mean characters"]).to_dict("index") == rows
    assert table["mean characters"].tolist() == pytest.approx([20, 80 / 3])
    shown = pool._repr_html_()
    assert "<th>&lt;b&gt;</th>" in shown and "teachers: &lt;b&gt;, A</p>" in shown
    assert "<td>27</td>" in shown


@pytest.mark.parametrize("correct", [True, False, None])
def test_verdicts_all_alike_are_counted(correct):
    table = teacher_counts(pool_of(("A", correct), ("A", correct)))
    counts = table.loc["A", ["correct", "incorrect", "unverified"]]
    assert pd.Series(counts).tolist() == [2 * (correct is each) for each in (True, False, None)]


def test_an_empty_pool_shows_an_empty_table():
    assert "<td>" not in Pool({}, ())._repr_html_()
