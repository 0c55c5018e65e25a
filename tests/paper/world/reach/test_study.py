"""The study of `registers-reach`: selections, arms, students in turn, and runs that are killed."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import torch

from lalp.errors import InputError
from lalp.paper.committed import save_results
from lalp.paper.world import student as world_student
from lalp.paper.world import study as first_study
from lalp.paper.world.reach import __main__, settings, study
from lalp.paper.world.reach.recheck import check_reach
from lalp.paper.world.reach.settings import ARMS, CONTRASTS, TABLE, TEACHERS, load_study
from lalp.paper.world.reach.study import ReachUnit
from lalp.selection.rules import teacher_mix
from tests.paper.killing import kill_once_there

SMALL = replace(
    load_study("reach-small"), pretraining_tokens=1000, problems=3, held_out=3, samples=2,
    students=1, most_seeds=1, workers=1,
)  # fmt: skip


def one_after_another(function: Callable, jobs: list, *_: object, **__: object) -> None:
    for job in jobs:
        function(job)


@pytest.fixture(autouse=True)
def here(monkeypatch) -> None:
    """In this process, with few documents."""
    monkeypatch.setattr(study, "run_side_by_side", one_after_another)
    monkeypatch.setattr(world_student, "_BLOCK", 8)


def test_what_was_set_down_is_what_the_issue_asks_for():
    found = load_study("reach")
    assert (found.reaches, found.students, found.problems) == ([1, 4], 12, 250)
    assert (found.samples, found.held_out) == (3, 300)
    assert [teacher.name for teacher in TEACHERS] == ["steady", "half careful", "careful"]
    steady, half, careful = TEACHERS
    assert half.restating == (steady.restating + careful.restating) / 2
    assert half.checking == (steady.checking + careful.checking) / 2
    with pytest.raises(InputError, match="no study 'huge': choose one of reach, reach-small"):
        load_study("huge")


def test_contrasts_are_between_arms_and_add_up():
    for contrasts in CONTRASTS.values():
        for weights in contrasts.values():
            assert set(weights) <= {*ARMS, settings.BEFORE}
            assert sum(weights.values()) == 0
    total, mix, samples = (Counter(weights) for weights in CONTRASTS["primary"].values())
    parts = {arm: mix[arm] + samples[arm] for arm in {*mix, *samples}}
    assert {arm: weight for arm, weight in parts.items() if weight} == dict(total)


def test_units_follow_all_that_makes_them_and_share_prompts_between_reaches():
    one, four = (ReachUnit(SMALL, reach, 0) for reach in (1, 4))
    assert one.student != four.student
    assert one.student != ReachUnit(replace(SMALL, copying=0.1), 1, 0).student
    assert one.student == ReachUnit(replace(SMALL, epochs=9), 1, 0).student
    prompts = [[p.prompt for p in unit.problems.values()] for unit in (one, four)]
    assert prompts[0] == prompts[1]
    for unit in (one, four, ReachUnit(SMALL, 4, 1)):
        held_out = {p.prompt for p in unit.held_out.values()}
        assert len(held_out) == 3 and not held_out & {p.prompt for p in unit.problems.values()}


def made_scores(prompts: int = 5, samples: int = 2) -> pd.DataFrame:
    rng = np.random.default_rng(4)
    rows = [
        (f"p{p}", f"p{p}/{t.name}/{i}", t.name, True, 20)
        for p in range(prompts) for t in TEACHERS for i in range(samples)
    ]  # fmt: skip
    columns = ["prompt_id", "response_id", "teacher", "correct", "num_tokens"]
    table = pd.DataFrame(rows, columns=columns)
    scores = rng.normal(size=(len(table), 3))
    return table.assign(**dict(zip(("galp", "lalp@1", "lalp@4"), scores.T, strict=True)))


def test_the_table_is_what_a_search_over_all_selections_finds():
    table = made_scores()
    found = study.plan_selections(table, 0)
    assert list(found) == list(ARMS)
    by_id = table.set_index("response_id")
    mixes = {name: Counter(by_id.loc[ids]["teacher"]) for name, ids in found.items()}
    for own in (TABLE[:3], TABLE[3:]):
        assert mixes[own[0]] == mixes[own[1]] == mixes[own[2]]
    choices = [group["response_id"].tolist() for _, group in table.groupby("prompt_id")]
    best: dict[tuple[int, str], tuple[float, list[str]]] = {}
    for ids in itertools.product(*choices):
        chosen = by_id.loc[list(ids)]
        for place, like in enumerate(("galp", "lalp")):
            if Counter(chosen["teacher"]) == mixes[like]:
                for column in ("galp", "lalp@1"):
                    score = chosen[column].sum()
                    if score > best.get((place, column), (-np.inf,))[0]:
                        best[place, column] = (score, sorted(ids))
    assert best[0, "galp"][1] == found["galp"]
    assert best[0, "lalp@1"][1] == found["lalp in galp's mix"]
    assert best[1, "lalp@1"][1] == found["lalp"]
    assert best[1, "galp"][1] == found["galp in lalp's mix"]


def test_single_teachers_and_windows():
    table = made_scores()
    found, by_id = study.plan_selections(table, 0), table.set_index("response_id")
    for teacher in TEACHERS:
        chosen = by_id.loc[found[teacher.name]]
        assert set(chosen["teacher"]) == {teacher.name}
        assert chosen["prompt_id"].nunique() == len(chosen) == 5
    rows = table.groupby("prompt_id")["lalp@4"].idxmax()
    assert found["lalp@4"] == sorted(table.loc[rows, "response_id"])
    assert not teacher_mix(by_id.loc[found["random"]].reset_index()).empty


@pytest.mark.parametrize(
    ("accepted", "students", "most", "tried"),
    [([1, 1, 1, 1], 2, 4, 2), ([0, 1, 0, 1], 2, 4, 4), ([0, 0, 0, 0], 2, 3, 3)],
)
def test_seeds_are_tried_in_turn_until_there_are_enough(
    accepted, students, most, tried, monkeypatch
):
    def judge(unit: ReachUnit) -> dict[str, object]:
        good = unit.reach == 1 or bool(accepted[unit.seed])
        return unit.labels | {"short": 1.0, "whole": 0.1, "accepted": good}

    monkeypatch.setattr(study, "gate", judge)
    monkeypatch.setattr(study, "run_unit", Mock(side_effect=lambda unit: {
        "arms": pd.DataFrame([unit.labels | {"arm": "galp"}]),
        "means": pd.DataFrame([unit.labels | {"teacher": "steady"}])}))  # fmt: skip
    results = study.run_reach(replace(SMALL, students=students, most_seeds=most))
    by_reach = results.students.groupby("reach")["seed"].agg(list)
    assert by_reach[1] == list(range(min(students, most)))
    assert by_reach[4] == list(range(tried))
    assert len(results.arms) == results.students["accepted"].sum()


def test_students_of_committed_results_are_not_made_again(monkeypatch):
    made = []

    def run(unit: ReachUnit) -> dict[str, pd.DataFrame]:
        made.append((unit.reach, unit.seed))
        arms = pd.DataFrame([unit.labels | {"arm": "galp", "num_solved": 10 * unit.seed}])
        return {"arms": arms, "means": pd.DataFrame([unit.labels | {"teacher": "steady"}])}

    def judge(unit: ReachUnit) -> dict[str, object]:
        return unit.labels | {"short": 1.0, "whole": 0.1, "accepted": unit.seed != 1}

    monkeypatch.setattr(study, "gate", judge)
    monkeypatch.setattr(study, "run_unit", run)
    values = replace(SMALL, students=2, most_seeds=9)
    first = study.run_reach(values)
    assert set(made) == {(reach, seed) for reach in (1, 4) for seed in (0, 2)}
    made.clear()
    more = study.run_reach(replace(values, students=3), first)
    assert set(made) == {(1, 3), (4, 3)}
    made.clear()
    pd.testing.assert_frame_equal(study.run_reach(replace(values, students=3)).arms, more.arms)
    assert len(made) == 12 and more.students["seed"].tolist() == [0, 1, 2, 3] * 2


def test_the_gate_wants_single_moves_and_few_whole_problems(monkeypatch):
    shares = {"short": 1.0, "whole": 0.0}
    unit = ReachUnit(replace(SMALL, held_out=10, gate_short=0.9, gate_whole=0.3), 4, 0)
    report = world_student.SCHOOLING

    def learn(schooling: object, out: Path) -> None:
        (out / report).parent.mkdir(parents=True, exist_ok=True)
        (out / report).write_text('{"seconds": 2.5}')

    def answer(problems: dict, model: Path) -> list[bool]:
        lengths = {problem.num_moves for problem in problems.values()}
        share = shares["short" if lengths == {1, 2, 3} else "whole"]
        return [i < round(share * len(problems)) for i in range(len(problems))]

    monkeypatch.setattr(study, "pretrain", learn)
    monkeypatch.setattr(first_study, "_solve", answer)
    found = study.gate(unit)
    assert (found["reach"], found["short"], found["whole"]) == (4, 1.0, 0.0)
    assert found["accepted"] and found["solved"] == "0" * 10
    monkeypatch.setattr(study, "pretrain", None)
    stricter = replace(unit, study=replace(unit.study, gate_short=1.1))
    assert not study.gate(stricter)["accepted"]


def test_no_accepted_student_is_said_plainly(monkeypatch):
    monkeypatch.setattr(study, "gate", lambda unit: unit.labels | {"short": 0, "accepted": False})
    results = study.run_reach(SMALL)
    assert len(results.students) == 2 and results.arms.empty


def same_tables(one: study.ReachResults, other: study.ReachResults) -> None:
    for name in ("students", "arms", "means"):
        pair = [getattr(r, name).drop(columns="seconds", errors="ignore") for r in (one, other)]
        pd.testing.assert_frame_equal(*pair, check_exact=True)


def run_small(folder: Path) -> study.ReachResults:
    """Everything in one process of one thread, with few documents."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LALP_CACHE", str(folder))
        patch.setattr(study, "run_side_by_side", one_after_another)
        patch.setattr(world_student, "_BLOCK", 8)
        return study.run_reach(replace(SMALL, reaches=[4]))


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_tables_and_trains_nothing_twice(monkeypatch, tmp_path):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    expected, killed = run_small(tmp_path / "calm"), tmp_path / "killed"
    kill_once_there(killed, "arms/*.json", run_small, killed)
    same_tables(run_small(killed), expected)
    monkeypatch.setattr(first_study, "train", None)
    same_tables(run_small(killed), expected)
    arms = expected.arms
    assert arms["arm"].tolist() == [settings.BEFORE, *ARMS]
    assert (arms["solved"].str.len() == arms["num_problems"]).all()
    shares = arms.filter(like="share of ").dropna()
    assert np.allclose(shares.sum(axis=1), 1)
    settled = replace(SMALL, reaches=[4])
    assert (check_reach(expected, 0, settled)["values"] == [4, 3]).all()
    with pytest.raises(InputError, match="tokens that no score chose: 3 of 4 agree"):
        changed = arms.assign(num_tokens=arms["num_tokens"] + (arms["arm"] == "random"))
        check_reach(replace(expected, arms=changed), 0, settled)


def test_results_come_back_from_files():
    students = pd.DataFrame({"reach": [4], "seed": [0], "short": [0.9], "whole": [0.1],
                             "accepted": [True]})  # fmt: skip
    arms = pd.DataFrame({"reach": [4], "seed": [0], "arm": ["galp"], "num_solved": [2],
                         "num_problems": [3], "solved": ["011"]})  # fmt: skip
    means = pd.DataFrame({"reach": [4], "seed": [0], "teacher": ["steady"], "score": ["galp"],
                          "mean": [-0.5]})  # fmt: skip
    made = study.ReachResults(students, arms, means, {"profile": "reach"})
    save_results(made, "world_reach")
    again = study.load_results()
    same_tables(made, again)
    assert again.provenance == made.provenance
    with pytest.raises(InputError, match="run make world PROFILE=reach-small"):
        study.load_results("reach-small")


def test_make_world_writes_results_with_what_was_set_down(monkeypatch, capsys):
    students = pd.DataFrame({"reach": [1, 4], "seed": [0, 0], "short": [0.9, 0.5],
                             "accepted": [True, False]})  # fmt: skip
    arms = pd.DataFrame({"reach": [1], "seed": [0], "arm": ["galp"], "num_solved": [2],
                         "num_problems": [3], "solved": ["011"]})  # fmt: skip
    means = pd.DataFrame({"reach": [1], "seed": [0], "teacher": ["steady"]})
    found = study.ReachResults(students, arms, means, {})
    asked = []
    monkeypatch.setattr(__main__, "run_reach", lambda *given: asked.append(given) or found)
    __main__.main("reach", workers=1)
    assert "1 arms of 2 students in world_reach" in capsys.readouterr().out
    assert asked == [(replace(load_study("reach"), workers=1), None)]
    made = study.load_results().provenance
    # The number of workers changes no number, so what was set down stands there.
    assert made["values"] == asdict(load_study("reach"))
    assert made["preregistered"]["predictions"] == settings.PREREGISTERED["predictions"]
    assert made["seeds"] == [{"reach": 1, "accepted": [0], "rejected": []},
                             {"reach": 4, "accepted": [], "rejected": [0]}]  # fmt: skip
    assert {"date", "commit", "hours_since_last_start", "packages", "code"} <= set(made)
    __main__.main("reach", students=5)
    __main__.main("reach", students=6)
    (values, kept), (_, last) = asked[1:]
    assert values.students == 5
    pd.testing.assert_frame_equal(kept.arms, arms)
    origins = study.load_results().provenance["added_to"]
    assert [origin["students"] for origin in origins] == [12, 5]
    assert last.provenance["students"] == 5 and "preregistered" not in origins[0]
    monkeypatch.setattr(__main__, "STUDENT_CODE", "another")
    __main__.main("reach", students=6)
    assert asked[-1][1] is None and "added_to" not in study.load_results().provenance
