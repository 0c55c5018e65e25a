"""The paper's tables beside a run's."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pandas as pd
import pytest

from lalp.errors import InputError
from lalp.evaluation.evaluate import COLUMNS, write_results
from lalp.paper.scale.plan import TEACHERS, Arm
from lalp.paper.scale.stages import arm_file
from lalp.paper.scale.tables import collect_tables, tables_text
from lalp.pools.reading import load_pool
from lalp.scoring.table import write_scores
from tests.paper.scale.conftest import B7, B32, pool_of


def write_result(root, arm: Arm, decoding: str, benchmarks: dict[str, list[bool]], **more) -> None:
    rows = [
        (name, f"{name}/{n:04d}", right, "correct" if right else "wrong")
        for name, marks in benchmarks.items()
        for n, right in enumerate(marks)
    ]
    frame = pd.DataFrame(rows, columns=["benchmark", "prompt_id", "correct", "outcome"])
    frame = frame.assign(sample=0, problem="h", truncated=False, num_tokens=5, **more)
    path = Path(root, arm_file("results", arm, decoding))
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = frame.assign(answer="1", extracted="1").reindex(columns=list(COLUMNS))
    write_results(frame, path)


SEVEN = ("math500", "aime25", "amc23", "minerva", "kaoyan", "olympiadbench", "cn_math_2024")


def test_tables_lay_paper_and_run_side_by_side(paper, tmp_path):
    some = dataclasses.replace(paper, tables=["3", "18"])
    half = {name: [True, False] for name in SEVEN}
    write_result(tmp_path, Arm(B7, "limo", "lalp"), "greedy", half | {"olympiadbench": [True] * 4})
    write_result(tmp_path, Arm(B32, "limo", "galp"), "sampled", half)
    third, eighteenth = collect_tables(some, tmp_path)
    assert third.run.loc[(B7, "lalp"), "OLYMPIAD"] == 1.0
    assert third.run.loc[(B7, "lalp"), "AVG"] == pytest.approx((6 * 0.5 + 1) / 7)
    assert third.difference.loc[(B7, "lalp"), "AVG"] == pytest.approx(4 / 7 - 0.440)
    assert third.run.loc[(B32, "galp")].isna().all()  # that was sampled, not greedy
    assert eighteenth.run.loc[(B32, "galp"), "MATH"] == 0.5
    text = tables_text([third])
    assert "0.440 / 0.571 / +0.131" in text
    assert "0.632 / - / -" in text
    cells = {(c["student"], c["rule"], c["column"]): c for c in third.as_dict()["cells"]}
    assert cells[B7, "lalp", "AVG"]["paper"] == 0.44
    assert cells[B32, "galp", "AVG"]["run"] is None


def test_table_1_has_thirds_as_columns_and_seeds_are_averaged(paper, tmp_path):
    two = dataclasses.replace(paper, tables=["1"], seeds=[0, 1])
    for seed, marks in enumerate(([True, True], [True, False])):
        arm = Arm(B7, "math", "galp", "QwQ-32B", seed=seed)
        write_result(tmp_path, arm, "greedy", dict.fromkeys(SEVEN, marks))
    (first,) = collect_tables(two, tmp_path)
    assert first.run.loc[(B7, "QwQ-32B"), "highest"] == pytest.approx(0.75)
    assert math.isnan(first.run.loc[(B7, "QwQ-32B"), "lowest"])
    assert list(first.run.columns) == ["original", "lowest", "middle", "highest"]


def test_programs_are_laid_out_by_difficulty(paper, tmp_path):
    marks, difficulty = {"livecodebench": [True, False, True]}, ["easy", "easy", "hard"]
    write_result(tmp_path, Arm(B32, "code", "lalp"), "greedy", marks, difficulty=difficulty)
    (table,) = collect_tables(dataclasses.replace(paper, tables=["16"]), tmp_path)
    assert table.run.loc[(B32, "lalp"), ["easy", "hard"]].tolist() == [0.5, 1.0]
    assert math.isnan(table.run.loc[(B32, "lalp"), "medium"])


def test_an_empty_run_is_refused(paper, tmp_path):
    with pytest.raises(InputError, match="holds no results of this plan"):
        collect_tables(paper, tmp_path)


def test_scores_and_mixes_stand_under_the_papers_names(paper, tmp_path):
    arm, teachers = Arm(B7, "limo", "lalp"), TEACHERS["limo"]
    pool_of(tmp_path / "pool.jsonl", [("p", t, t, True) for t in teachers])
    pool = load_pool(tmp_path / "pool.jsonl")
    scores = pd.DataFrame({"prompt_id": "p", "response_id": teachers, "teacher": teachers})
    scores = scores.assign(correct=True, num_tokens=3, num_steps=1, reason=None)
    scores = scores.assign(galp=[-1.0, -2.0, -3.0], **{"lalp@4": [-3.0, -2.0, -1.0]})
    scored, mixed = (tmp_path / arm_file(name, arm) for name in ("scores", "mix"))
    for path in (scored, mixed):
        path.parent.mkdir(parents=True)
    write_scores(scores, pool, scored)
    mix = {"teacher_mix": {teachers[0]: {"percent": 75.0}, teachers[1]: {"percent": 25.0}}}
    mixed.write_text(json.dumps(mix))
    second, eighth = collect_tables(dataclasses.replace(paper, tables=["2", "8"]), tmp_path)
    assert second.run.loc[(B7, teachers[0]), ["GALP", "LALP"]].tolist() == [-1, -3]
    assert eighth.run.loc[(B7, "lalp"), list(teachers)].tolist() == [75, 25, 0]
