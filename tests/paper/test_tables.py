"""The paper's tables: consistent where the paper is, and noted where it is not."""

from __future__ import annotations

import pandas as pd
import pytest

from lalp.errors import InputError
from lalp.paper.tables import (
    BENCHMARKS,
    DEEPSEEK,
    FIGURES,
    GEMMA,
    QWEN3,
    QWEN72B,
    QWQ,
    STUDENT_7B,
    STUDENT_32B,
    STUDENT_MATH,
    TABLES,
    paper_teacher_order,
)
from lalp.selection.rules import RULES

BREAKDOWNS = ("9", "10")  # of Tables 2 and 3
WITH_BENCHMARKS = ("9", "10", "13", "14", "18", "19")
ACCURACIES = ("1", "3", *WITH_BENCHMARKS, "15", "16", "17")


def test_every_table_of_the_paper_is_there_with_the_digits_printed():
    assert list(TABLES) == [str(number) for number in range(1, 20)]
    for table in TABLES.values():
        assert table.frame.size and not table.frame.index.has_duplicates
        printed = table.frame.round(table.decimals)
        pd.testing.assert_frame_equal(table.frame, printed, check_exact=True)
    assert (TABLES["3"].decimals, TABLES["8"].decimals) == (3, 1)


def test_settings_are_text_as_printed():
    for number in ("5", "6", "7"):
        values = TABLES[number].frame["value"].dropna()
        assert values.map(type).eq(str).all()
    assert TABLES["6"].frame["value"].isna().sum() == 1  # the learning rate, lost in the text
    assert "learning rate" in TABLES["6"].notes[0]
    assert TABLES["7"].frame.loc["temperature", "value"] == "0.0/0.6"


def test_every_table_and_figure_says_how_it_is_treated():
    assert list(FIGURES) == [str(number) for number in range(1, 11)]
    for item in (*TABLES.values(), *FIGURES.values()):
        assert item.title
        assert item.notebook or item.not_run
        assert not item.notebook or item.notebook[:2].isdigit()


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        ("9", {(STUDENT_32B, "original"): 0.440}),
        ("10", {(STUDENT_32B, "original"): 0.440, (STUDENT_32B, "lalp-lowest"): 0.628}),
        ("13", {}),
        ("14", {}),
        ("18", {}),
        ("19", {(STUDENT_32B, "original"): 0.440}),
    ],
)
def test_avg_is_the_mean_of_the_benchmarks_but_for_the_rows_the_notes_name(number, expected):
    table = TABLES[number]
    means = table.frame[list(BENCHMARKS)].mean(axis=1)
    # Both the mean of rounded numbers and AVG itself can be off by half a unit.
    apart = (table.frame["AVG"] - means).abs() > 10**-table.decimals + 1e-9
    assert means[apart].round(3).to_dict() == expected
    notes = " ".join(table.notes)
    for (_, row), mean in expected.items():
        assert row in notes
        assert f"{mean:.3f}" in notes


def test_higher_thirds_are_better_within_every_teacher_and_some_are_worse_than_no_training():
    averages = TABLES["13"].frame["AVG"].unstack("third")
    trained = averages.drop(columns="original").dropna()
    assert (trained["lowest"] < trained["middle"]).all()
    assert (trained["middle"] < trained["highest"]).all()
    before = averages["original"].dropna().droplevel("teacher")
    worse = trained.loc[STUDENT_7B] < before[STUDENT_7B]
    assert worse.loc[GEMMA].all()
    assert worse.loc[QWEN72B, ["lowest", "middle", "highest"]].tolist() == [True, True, False]
    assert not (trained.loc[STUDENT_MATH] < before[STUDENT_MATH]).any(axis=None)


def test_table_19_repeats_tables_10_and_15_but_for_one_number():
    long, short = TABLES["19"].frame.loc[STUDENT_32B], TABLES["10"].frame.loc[STUDENT_32B]
    shared = ["original", "galp", "lalp"]
    columns = [*BENCHMARKS, "AVG"]
    pd.testing.assert_frame_equal(
        long.loc[shared, columns], short.loc[shared, columns], check_names=False
    )
    gpqa = TABLES["15"].frame.loc[STUDENT_32B, "GPQA"]
    apart = long["GPQA"] - gpqa.reindex(long.index)
    assert apart[apart.abs() > 1e-9].round(3).to_dict() == {"lalp": -0.008}
    for number in ("3", "15", "19"):
        assert any("0.702" in note and "0.694" in note for note in TABLES[number].notes)


def test_shares_add_up_and_token_shares_give_the_text_s_sums():
    shares = TABLES["4"].frame
    assert shares.sum().tolist() == pytest.approx([100, 100])
    reasoning = shares.loc[["math/symbols", "reasoning transitions"]].sum()
    assert reasoning.tolist() == pytest.approx([44, 71])
    assert TABLES["8"].frame.sum(axis=1).tolist() == pytest.approx([100.0] * 8)


@pytest.mark.parametrize(
    ("number", "column", "better", "worse", "gain"),
    [
        ("3", "AVG", "lalp", "galp", 0.094),
        ("3", "AVG", "random", "galp", 0.019),
        ("15", "GPQA", "lalp", "galp", 0.091),
        ("16", "hard", "lalp", "galp", 0.029),
        ("18", "AVG", "lalp", "galp", 0.080),
        ("18", "AVG", "galp", "all teachers", 0.050),
        ("19", "AVG", "lalp", "OpenThinker2-32B", 0.035),
    ],
)
def test_gains_named_in_the_paper_s_text(number, column, better, worse, gain):
    scores = TABLES[number].frame.loc[STUDENT_32B, column]
    assert scores[better] - scores[worse] == pytest.approx(gain)


def test_the_best_single_teacher_comes_close_and_cosines_are_as_said():
    single = TABLES["2"].frame.loc[(STUDENT_32B, QWQ), "AVG"]
    assert TABLES["3"].frame.loc[(STUDENT_32B, "lalp"), "AVG"] - single == pytest.approx(0.007)
    assert TABLES["12"].frame["cosine"].mean() == pytest.approx(0.9625)
    assert TABLES["11"].frame["cosine"].max() < 0.760


def test_tables_1_to_3_repeat_their_breakdowns():
    thirds = TABLES["14"].frame["AVG"].drop(index="original", level="teacher").unstack("third")
    teachers, rules = (TABLES[name].frame for name in BREAKDOWNS)
    long_tables = {"1": thirds, "2": teachers, "3": rules}
    for number, long in long_tables.items():
        short = TABLES[number].frame.drop(columns="original", errors="ignore")
        repeated = long.loc[list(short.index), list(short.columns)]
        pd.testing.assert_frame_equal(short, repeated, check_names=False)
    shared = [TABLES[number].frame.loc[STUDENT_7B].loc[[QWEN72B]] for number in ("13", "14")]
    pd.testing.assert_frame_equal(*shared)


def test_breakdowns_share_the_original_model_but_for_one_number():
    first, second = (TABLES[n].frame.xs("original", level=1) for n in BREAKDOWNS)
    columns = [*BENCHMARKS, "AVG"]
    apart = first[columns].compare(second[columns])
    assert apart.to_dict("index") == {
        STUDENT_32B: {("MATH", "self"): 0.822, ("MATH", "other"): 0.824}
    }
    assert set(TABLES["1"].frame["original"]) == {first.loc[STUDENT_7B, "AVG"]}


def test_accuracies_and_scores_lie_in_their_ranges():
    for number in ACCURACIES:
        accuracies = TABLES[number].frame.drop(columns=["GALP", "LALP"], errors="ignore")
        assert accuracies.stack().between(0, 1).all()
        assert len(accuracies.stack()) == accuracies.size
    scores = TABLES["2"].frame[["GALP", "LALP"]]
    assert (scores < 0).all(axis=None)
    assert (scores["LALP"] > scores["GALP"]).all()  # against Eq. 3, as the notes say


def test_rows_are_named_like_the_rules():
    for number in ("3", "8", "10"):
        rules = set(TABLES[number].frame.index.get_level_values("rule"))
        assert rules - {"original"} == {"random", "galp", "lalp-lowest", "lalp"}
        assert rules - {"original"} <= set(RULES)
    for number in ("15", "16", "17", "18", "19"):
        data = set(TABLES[number].frame.index.get_level_values("data"))
        assert {"original", "galp", "lalp"} <= data


@pytest.mark.parametrize("student", [STUDENT_7B, STUDENT_32B])
def test_teacher_orders(student):
    assert paper_teacher_order(student, "AVG") == [QWQ, DEEPSEEK, QWEN3]
    assert paper_teacher_order(student, "LALP") == [QWQ, DEEPSEEK, QWEN3]
    # Not quite the opposite order: one pair of three agrees.
    assert paper_teacher_order(student, "GALP") == [QWEN3, QWQ, DEEPSEEK]
    assert any("-1/3" in note for note in TABLES["2"].notes)


def test_an_unknown_student_or_score_is_refused():
    with pytest.raises(InputError, match=r"Qwen2\.5-7B-Instruct or Qwen2\.5-32B-Instruct"):
        paper_teacher_order("SmolLM2-135M-Instruct", "GALP")
    with pytest.raises(InputError, match="AVG or GALP or LALP"):
        paper_teacher_order(STUDENT_7B, "galp")
