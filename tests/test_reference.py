"""The paper's tables: consistent where the paper is, and noted where it is not."""

from __future__ import annotations

import dataclasses

import pandas as pd
import pytest
from scipy import stats

from lalp.records import InputError
from lalp.reference import (
    BENCHMARKS,
    DEEPSEEK,
    QWEN3,
    QWQ,
    STUDENT_7B,
    STUDENT_32B,
    TABLES,
    VERDICTS,
    Verdict,
    paper_teacher_order,
    verdict_table,
)
from lalp.selection import RULES

BREAKDOWNS = ("C.4-teachers", "C.4-selection")
BOTH = (STUDENT_7B, STUDENT_32B)


def average_gaps(number: str) -> dict[tuple[str, str], float]:
    """Rows whose printed AVG is not the mean of the benchmarks, with the mean."""
    table = TABLES[number]
    means = table.frame[list(BENCHMARKS)].mean(axis=1)
    # Both the mean of rounded numbers and AVG itself can be off by half a unit.
    apart = (table.frame["AVG"] - means).abs() > 2 * table.tolerance + 1e-9
    return means[apart].round(3).to_dict()


def test_the_tables_that_the_paper_rests_on_are_there():
    assert list(TABLES) == ["1", "2", "3", "8", *BREAKDOWNS]
    for number, table in TABLES.items():
        assert table.number == number
        assert table.title
        assert not table.frame.index.has_duplicates
        assert table.frame.index.names[0] == "student"
        printed = table.frame.round(table.decimals)
        pd.testing.assert_frame_equal(table.frame, printed, check_exact=True)
    assert TABLES["3"].tolerance == pytest.approx(0.0005)
    assert TABLES["8"].tolerance == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        ("C.4-teachers", {(STUDENT_32B, "original"): 0.440}),
        (
            "C.4-selection",
            {(STUDENT_32B, "original"): 0.440, (STUDENT_32B, "lalp-lowest"): 0.628},
        ),
    ],
)
def test_avg_is_the_mean_of_the_benchmarks_but_for_the_rows_the_notes_name(number, expected):
    assert average_gaps(number) == expected
    notes = " ".join(TABLES[number].notes)
    for (_, row), mean in expected.items():
        assert row in notes
        assert f"{mean:.3f}" in notes


def test_table_2_and_3_repeat_the_breakdowns():
    for number, breakdown in zip(("2", "3"), BREAKDOWNS, strict=True):
        short, long = TABLES[number].frame, TABLES[breakdown].frame
        pd.testing.assert_frame_equal(short, long.loc[list(short.index), list(short.columns)])


def test_breakdowns_share_the_original_model_but_for_one_number():
    first, second = (TABLES[n].frame.xs("original", level=1) for n in BREAKDOWNS)
    columns = [*BENCHMARKS, "AVG"]
    apart = first[columns].compare(second[columns])
    assert apart.to_dict("index") == {
        STUDENT_32B: {("MATH", "self"): 0.822, ("MATH", "other"): 0.824}
    }
    assert set(TABLES["1"].frame["original"]) == {first.loc[STUDENT_7B, "AVG"]}


def test_shares_of_teachers_add_up_to_hundred():
    assert TABLES["8"].frame.sum(axis=1).tolist() == pytest.approx([100.0] * 8)


def test_accuracies_and_scores_lie_in_their_ranges():
    for number in ("1", "3", *BREAKDOWNS):
        accuracies = TABLES[number].frame.drop(columns=["GALP", "LALP"], errors="ignore")
        assert accuracies.stack().between(0, 1).all()
        assert len(accuracies.stack()) == accuracies.size
    scores = TABLES["2"].frame[["GALP", "LALP"]]
    assert (scores < 0).all(axis=None)
    assert (scores["LALP"] > scores["GALP"]).all()  # against Eq. 3, as the notes say


def test_rows_are_named_like_the_rules():
    for number in ("3", "8", "C.4-selection"):
        rules = set(TABLES[number].frame.index.get_level_values("rule"))
        assert rules - {"original"} == set(RULES) - {"galp-lowest"}


@pytest.mark.parametrize("student", BOTH)
def test_teacher_orders(student):
    assert paper_teacher_order(student, "AVG") == [QWQ, DEEPSEEK, QWEN3]
    assert paper_teacher_order(student, "LALP") == [QWQ, DEEPSEEK, QWEN3]
    assert paper_teacher_order(student, "GALP") == [QWEN3, QWQ, DEEPSEEK]


@pytest.mark.parametrize("student", BOTH)
def test_galp_is_not_quite_the_opposite_order(student):
    frame = TABLES["2"].frame.loc[student]
    assert stats.kendalltau(frame["GALP"], frame["AVG"]).statistic == pytest.approx(-1 / 3)
    assert stats.kendalltau(frame["LALP"], frame["AVG"]).statistic == pytest.approx(1)
    assert any("-1/3" in note for note in TABLES["2"].notes)


def test_the_headline_numbers():
    rules = TABLES["3"].frame["AVG"]
    assert rules[STUDENT_32B, "lalp"] - rules[STUDENT_32B, "galp"] == pytest.approx(0.094)
    assert rules[STUDENT_32B, "galp"] < rules[STUDENT_32B, "random"]
    assert rules[STUDENT_7B, "galp"] > rules[STUDENT_7B, "random"]
    single = TABLES["2"].frame.loc[(STUDENT_32B, QWQ), "AVG"]
    assert rules[STUDENT_32B, "lalp"] - single == pytest.approx(0.007)
    thirds = TABLES["1"].frame[["lowest", "middle", "highest"]]
    assert (thirds.diff(axis=1).iloc[:, 1:] > 0).all(axis=None)


def test_an_unknown_student_or_score_is_refused():
    with pytest.raises(InputError, match=r"Qwen2\.5-7B-Instruct or Qwen2\.5-32B-Instruct"):
        paper_teacher_order("SmolLM2-135M-Instruct", "GALP")
    with pytest.raises(InputError, match="AVG or GALP or LALP"):
        paper_teacher_order(STUDENT_7B, "galp")


def test_tables_cannot_be_replaced():
    with pytest.raises(TypeError):
        TABLES["2"] = TABLES["3"]  # type: ignore[index]
    with pytest.raises(dataclasses.FrozenInstanceError):
        TABLES["2"].decimals = 1  # type: ignore[misc]


def test_verdicts_are_of_five_kinds():
    kinds = [Verdict("claim", "paper", "run", kind, "why").verdict for kind in VERDICTS]
    assert kinds == [
        "holds",
        "does not hold",
        "not resolved",
        "not testable at this scale",
        "not run",
    ]
    with pytest.raises(InputError, match=r"'maybe'.*'LALP ranks'.*not resolved"):
        Verdict("LALP ranks", "yes", "yes", "maybe", "")


def test_verdicts_become_a_table():
    one = Verdict("a", "b", "c", "holds", "d")
    two = Verdict("e", "f", "g", "not run", "h")
    table = verdict_table([two, one])
    assert list(table.columns) == ["claim", "paper", "run", "verdict", "why"]
    assert table.to_numpy().tolist() == [
        ["e", "f", "g", "not run", "h"],
        ["a", "b", "c", "holds", "d"],
    ]
    assert list(verdict_table([]).columns) == list(table.columns)
