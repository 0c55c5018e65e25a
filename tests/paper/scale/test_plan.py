"""Settings of a plan, and the arms that its tables need."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest
import yaml

from lalp.errors import InputError
from lalp.paper.scale.costs import plan_costs
from lalp.paper.scale.plan import (
    EVALUATED_ONLY,
    NOT_PRODUCED,
    SOURCES,
    Arm,
    Plan,
    arm_of_row,
    load_plan,
    plan_needs,
)
from lalp.paper.scale.stages import Stages
from lalp.paper.tables import GEMMA, TABLES
from lalp.settings import parse_settings
from tests.paper.scale.conftest import B7, B32, LLAMA, MATH7B, NO_SWEEP, made_of


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "red"}, "unknown key 'colour'"),
        ({"seeds": [0, 0]}, "key 'seeds': 0 is given twice"),
        ({"tables": ["4"]}, "key 'tables', item 1, should be '1', '2', '3', '8'"),
        ({"students": ["GPT-2"]}, "not 'GPT-2'"),
        ({"stand_ins": [B7]}, f"'{B7}' must be NAME=OTHER"),
        ({"stand_ins": [f"{B7}=GPT-2"]}, "no facts about model 'GPT-2'"),
        ({"published": [B7]}, "key 'published', item 1, should be 'DeepSeek-R1', 'QwQ-32B'"),
        ({"window_student": ""}, "'window_student' and 'sweep_windows' go together"),
        ({"window_student": "LIMO-32B"}, "'window_student' must be one of 'students'"),
        ({"main_window": "4x"}, "window '4x' is not understood"),
        ({"splitter": "llm"}, "llm needs 'llm_url' and 'llm_model'"),
        ({"backend": "sglang"}, "key 'backend' should be 'vllm' or 'transformers'"),
        ({"gpu": "TPU"}, "key 'gpu' should be 'A100-80GB'"),
    ],
)
def test_a_bad_setting_is_one_clear_error(paper, change, message):
    text = yaml.safe_dump(dataclasses.asdict(paper) | change)
    with pytest.raises(InputError, match=r"^here[:,]") as error:
        parse_settings(text, "here", Plan)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_other_profiles_are_told_where_they_run():
    with pytest.raises(InputError, match="no plan for profile 'cpu': choose gpu or paper"):
        load_plan("cpu")


def test_a_plan_of_ones_own_gives_what_differs_from_the_papers(tmp_path, paper):
    path = tmp_path / "mine.yaml"
    path.write_text("gpus: 8\nseeds: [0, 1]\n")
    assert load_plan(str(path)) == dataclasses.replace(paper, gpus=8, seeds=[0, 1])


def test_every_table_is_produced_or_has_a_reason():
    assert set(SOURCES) | set(NOT_PRODUCED) == set(TABLES)
    assert not set(SOURCES) & set(NOT_PRODUCED)
    assert all(len(reason) > 20 for reason in NOT_PRODUCED.values())


def test_the_paper_profile_produces_all_that_can_be(paper, stages):
    assert set(paper.tables) == set(SOURCES)
    costs = plan_costs(Stages(paper), stages)
    tables = {kind: {*part.explode()} for kind, part in costs.groupby("kind")["tables"]}
    evaluated = tables["eval"]
    assert evaluated >= set(paper.tables) - {"8"}  # Table 8 is about selections
    assert "Fig. 9" in evaluated
    assert "8" in tables["select"]


@pytest.mark.parametrize(
    ("number", "row", "arm"),
    [
        ("1", (B7, "QwQ-32B", "original"), Arm(B7)),
        ("1", (B7, "QwQ-32B", "lowest"), Arm(B7, "math", "galp-lowest", "QwQ-32B")),
        ("2", (B32, "DeepSeek-R1"), Arm(B32, "limo", "random", "DeepSeek-R1")),
        ("9", (B7, "original"), Arm(B7)),
        ("3", (B7, "random"), Arm(B7, "limo", "random")),
        ("10", (B32, "lalp-lowest"), Arm(B32, "limo", "lalp-lowest")),
        ("13", (MATH7B, "original", "original"), Arm(MATH7B)),
        ("13", (MATH7B, GEMMA, "middle"), Arm(MATH7B, "math", "galp-middle", GEMMA)),
        ("15", (B32, "all teachers"), Arm(B32, "limo", "all")),
        ("16", (B32, "lalp"), Arm(B32, "code", "lalp")),
        ("17", (LLAMA, "galp"), Arm(LLAMA, "limo", "galp")),
        ("19", (B32, "Sky-T1-32B-Preview"), Arm("Sky-T1-32B-Preview")),
    ],
)
def test_rows_become_arms(number, row, arm):
    assert arm_of_row(number, row) == arm


def test_arms_of_the_paper_are_counted_by_hand(paper):
    needs = plan_needs(paper)
    arms = [need.arm for need in needs]
    assert len(arms) == len(set(arms)) == len({arm.name for arm in arms})
    # 7B: 3 teachers, 4 rules, the control, 5 windows, 3 teachers' thirds. 32B: 3 teachers, 4 rules,
    # the control, all teachers, 2 rules on code. Llama: 2 rules, all teachers. Math-7B: 2 x thirds.
    expected = {B7: 3 + 4 + 1 + 5 + 9, B32: 3 + 4 + 1 + 1 + 2, LLAMA: 3, MATH7B: 6}
    assert Counter(arm.student for arm in arms if arm.pool) == expected
    originals = {arm for arm in arms if not arm.pool}
    assert originals == {Arm(name) for name in (*paper.students, *EVALUATED_ONLY)}


def test_an_arm_is_evaluated_on_what_its_tables_hold(paper):
    columns = {need.arm: need.columns for need in plan_needs(paper)}
    seven = ("MATH", "AIME25", "AMC", "MINERVA", "KAOYAN", "OLYMPIAD", "CN_MATH24")
    assert columns[Arm(B7, "limo", "lalp")] == {"greedy": seven}
    assert columns[Arm(B32, "limo", "lalp")] == {"greedy": (*seven, "GPQA"), "sampled": seven}
    assert columns[Arm(B32, "limo", "all")] == {"greedy": ("GPQA",), "sampled": seven}
    assert columns[Arm(B32, "code", "galp")] == {"greedy": ("LCB",)}
    assert columns[Arm(B32)]["greedy"] == (*seven, "GPQA", "LCB")
    everything = plan_needs(dataclasses.replace(paper, everything=True))
    for need in everything:
        assert need.columns == dict.fromkeys(("greedy", "sampled"), (*seven, "GPQA", "LCB"))


def test_table_8_alone_trains_nobody(paper):
    made = made_of(paper, tables=["8"], controls=False, **NO_SWEEP)
    assert {"select", "train", "eval"} & {stage.kind for stage in made} == {"select"}
