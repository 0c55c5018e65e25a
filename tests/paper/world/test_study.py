"""Step world's runs: gates, selections, arms, what is measured, and runs that are killed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import torch

from lalp.paper.workers import run_side_by_side
from lalp.paper.world import student as world_student
from lalp.paper.world import study
from lalp.paper.world.measure import with_accuracy
from lalp.paper.world.problems import Teacher, make_problems
from lalp.paper.world.settings import RULES_BY_NAME, TEACHERS_BY_NAME, Study, load_study
from lalp.paper.world.student import SCHOOLING
from lalp.paper.world.study import Unit
from lalp.pools.pool import Pool, Response
from lalp.sampling.samples import Completion
from lalp.selection.rules import teacher_mix
from tests.paper.killing import kill_once_there

ALL_TEACHERS = tuple(TEACHERS_BY_NAME.values())
SMALL = replace(
    load_study("smoke"),
    pretraining_tokens=1000,
    problems=3,
    held_out=3,
    rules=["galp", "lalp"],
    controls=["lalp"],
    windows=["1"],
    groups=["rules"],
    workers=1,
)


def make_unit(settings: Study = SMALL, **changes: object) -> Unit:
    options = {"name": "four teachers", "family": "registers", "copying": 0.1, "seed": 0,
               "teachers": ALL_TEACHERS, "groups": tuple(settings.groups)}  # fmt: skip
    return Unit(settings, **(options | changes))


def one_after_another(function: Callable, jobs: list, *_: object, **__: object) -> None:
    for job in jobs:
        function(job)


@pytest.fixture(autouse=True)
def here(monkeypatch) -> None:
    """In this process, with few documents."""
    monkeypatch.setattr(study, "run_side_by_side", one_after_another)
    monkeypatch.setattr(world_student, "_BLOCK", 8)


def test_held_out_problems_are_other_problems_even_where_there_are_few(monkeypatch):
    # There are 640 of two moves, which are fewer than a study may have.
    monkeypatch.setattr(Unit, "moves", range(2, 3))
    unit = make_unit(replace(SMALL, problems=200, held_out=150))
    trained, held_out = (
        {p.prompt for p in found.values()} for found in (unit.problems, unit.held_out)
    )
    assert (len(trained), len(held_out), trained & held_out) == (200, 150, set())
    assert not set(unit.problems) & set(unit.held_out)


def test_problems_and_students_follow_all_that_makes_them():
    one, other = make_unit(), make_unit(seed=1)
    assert one.problems == make_unit().problems != other.problems
    assert one.held_out == make_unit().held_out != other.held_out
    assert [p.num_moves for p in one.problems.values()] == [3, 4, 3]
    others = [make_unit(copying=0.2), make_unit(family="paths"),
              make_unit(replace(SMALL, pretraining_tokens=999)),
              make_unit(replace(SMALL, most_moves=5))]  # fmt: skip
    assert len({unit.student for unit in (one, other, *others)}) == 6
    assert make_unit(name="other", teachers=(), groups=()).student == one.student


@pytest.fixture
def solved(monkeypatch) -> dict[str, float]:
    """A student that solves given shares of short and of whole problems."""
    shares = {"short": 0.0, "whole": 0.0}

    def learn(schooling, out):
        (out / SCHOOLING).parent.mkdir(parents=True)
        (out / SCHOOLING).write_text(json.dumps({"seconds": 2.5}))

    def answer(problems, model):
        lengths = {problem.num_moves for problem in problems.values()}
        share = shares["short" if lengths == {1, 2, 3} else "whole"]
        return [i < round(share * len(problems)) for i in range(len(problems))]

    monkeypatch.setattr(study, "pretrain", learn)
    monkeypatch.setattr(study, "_solve", answer)
    monkeypatch.setattr(study, "copying", lambda unit: {"copying_near": 0.5, "copying_far": 0.25})
    return shares


@pytest.mark.parametrize(
    ("short", "whole", "accepted"),
    [(0.9, 0.3, True), (1.0, 0.0, True), (0.8, 0.0, False), (1.0, 0.4, False), (0.0, 1.0, False)],
)
def test_the_gate_wants_single_moves_and_few_whole_problems(
    short, whole, accepted, solved, monkeypatch
):
    settings = replace(
        SMALL, held_out=10, gate_short=0.9, gate_whole=0.3, fewest_moves=4, most_moves=6
    )
    solved.update(short=short, whole=whole)
    assert study.gate(make_unit(settings)) == {
        "family": "registers", "copying": 0.1, "seed": 0, "short": short, "whole": whole,
        "copying_near": 0.5, "copying_far": 0.25, "seconds": 2.5, "accepted": accepted,
    }  # fmt: skip
    # Other limits need no new student.
    monkeypatch.setattr(study, "pretrain", None)
    assert study.gate(make_unit(replace(settings, gate_short=0.0, gate_whole=1.0)))["accepted"]


def test_an_answer_that_does_not_end_or_is_another_is_wrong(monkeypatch):
    problems = make_problems("registers", [2], 4, (0,))
    texts = [rf"the answer is \boxed{{ {p.answer} }}." for p in problems.values()]
    texts[1] = r"the answer is \boxed{ 12 }."
    texts[3] = "so far a 6."
    drawn = [Completion(prompt_id, 0, text, 9, truncated=i == 2)
             for i, (prompt_id, text) in enumerate(zip(problems, texts, strict=True))]  # fmt: skip
    generate = Mock(return_value=drawn)
    monkeypatch.setattr(study, "generate", generate)
    assert study._solve(problems, Path("model")) == [True, False, False, False]
    sampling = generate.call_args.args[2]
    assert (sampling.temperature, sampling.max_tokens) == (0, 100)


@pytest.mark.parametrize(
    ("accepted", "seeds", "most", "tried"),
    [([1, 1, 1, 1], 2, 4, 2), ([0, 1, 0, 1], 2, 4, 4), ([1, 0, 1, 1], 2, 4, 3),  # enough
     ([0, 0, 0, 0], 2, 3, 3), ([0, 0, 1, 1], 2, 3, 3), ([1, 1, 1, 1], 3, 2, 2)],  # used up
)  # fmt: skip
def test_seeds_are_tried_in_turn_until_there_are_enough(accepted, seeds, most, tried, monkeypatch):
    def judge(unit: Unit) -> dict[str, object]:
        # Paths need no second try; registers as given.
        good = unit.family == "paths" or bool(accepted[unit.seed])
        return unit.labels | {"accepted": good}

    monkeypatch.setattr(study, "gate", judge)
    settings = replace(SMALL, families=["registers", "paths"], seeds=seeds, most_seeds=most)
    table = study.find_students(settings)
    by_family = table.groupby("family")[["seed", "accepted"]].agg(list)
    assert by_family.loc["registers"].tolist() == [list(range(tried)), accepted[:tried]]
    assert by_family.at["paths", "seed"] == list(range(min(seeds, most)))


def test_a_map_has_a_unit_for_every_cell_and_accepted_student():
    settings = replace(SMALL, leaps=[0.1, 0.6], scaffoldings=[0.0, 1.0], groups=["windows"])
    gates = pd.DataFrame({"family": ["registers", "paths", "paths"], "copying": [0.0, 0.3, 0.3],
                          "seed": [0, 0, 1], "accepted": [True, False, True]})  # fmt: skip
    fluent = Teacher("fluent", leap=0.6, scaffolding=1.0, restating=0.5, checking=0.1)
    assert study.map_teachers(0.6, 1.0) == (TEACHERS_BY_NAME["steady"], fluent)
    units = study.plan_units(settings, gates)
    assert [(u.name, u.family, u.copying, u.seed, u.teachers, u.groups) for u in units] == [
        (f"leap {leap}, scaffolding {share}", *kind, study.map_teachers(leap, share), ("rules",))
        for leap in (0.1, 0.6)
        for share in (0.0, 1.0)
        for kind in (("registers", 0.0, 0), ("paths", 0.3, 1))
    ]
    units = study.plan_units(SMALL, gates)
    assert [(u.name, u.family, u.seed) for u in units] == [
        ("four teachers", "registers", 0), ("four teachers", "paths", 1)
    ]  # fmt: skip


EVERYTHING = replace(
    SMALL,
    problems=8,
    samples=3,
    groups=["teachers", "thirds", "rules", "windows"],
    rules=list(RULES_BY_NAME),
    controls=[name for name in RULES_BY_NAME if name != "random"],
    windows=["0", "1", "all"],
)


@pytest.fixture(scope="module")
def scored(tmp_path_factory, model) -> Iterator[tuple[Unit, object, dict[str, pd.DataFrame]]]:
    """A unit with everything, and its scores."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LALP_CACHE", str(tmp_path_factory.mktemp("build")))
        unit = make_unit(EVERYTHING)
        model.save_pretrained(unit.student)
        world_student.make_tokenizer().save_pretrained(unit.student)
        yield unit, *study.unit_scores(unit)


def test_scores_are_on_steps_sentences_and_paragraphs(scored):
    _, pool, tables = scored
    assert set(tables) == {"true", "sentences", "paragraphs"}
    assert {f"lalp@{w}" for w in ("0", "1", "all")} <= set(tables["true"])
    texts = [response.text for response in pool.responses]
    assert tables["sentences"]["num_steps"].tolist() == [text.count(".") for text in texts]
    paragraphs = [text.count("\n\n") + 1 for text in texts]
    assert tables["paragraphs"]["num_steps"].tolist() == paragraphs
    assert np.allclose(tables["true"]["galp"], tables["sentences"]["galp"], atol=1e-4)


def test_every_comparison_has_its_arms(scored):
    unit, _, tables = scored
    found = study.plan_selections(unit, tables)
    names = [teacher.name for teacher in unit.teachers]
    controls = [f"random like {name}" for name in EVERYTHING.controls]
    expected = {"teachers": names, "rules": [*EVERYTHING.rules, *controls],
                "windows": EVERYTHING.windows}  # fmt: skip
    expected |= {f"thirds: {name}": list(study._THIRD_RULES) for name in names}
    assert set(found) == {(group, arm) for group, arms in expected.items() for arm in arms}
    table = tables["true"].set_index("response_id")
    same = []
    for (group, name), ids in found.items():
        chosen = table.loc[ids]
        assert sorted(chosen["prompt_id"]) == sorted(unit.problems)  # one for every problem
        if group == "teachers" or group.startswith("thirds"):
            assert set(chosen["teacher"]) == {name if group == "teachers" else group[8:]}
        if name.startswith("random like "):
            rule = found[group, name.removeprefix("random like ")]
            assert teacher_mix(chosen).equals(teacher_mix(table.loc[rule]))
            same.append(ids == rule)
    assert sum(same) < len(same) / 3  # drawn anew
    only = study.plan_selections(replace(unit, groups=("windows",)), tables)
    assert {group for group, _ in only} == {"windows"}


def test_selections_are_what_a_plain_search_finds(scored):
    unit, _, tables = scored
    found = study.plan_selections(unit, tables)
    table = tables["true"]
    for group, name, split, column, which in [
        ("rules", "galp", "true", "galp", "idxmax"),
        ("rules", "galp-lowest", "true", "galp", "idxmin"),
        ("rules", "lalp", "true", "lalp@1", "idxmax"),
        ("rules", "lalp-lowest", "true", "lalp@1", "idxmin"),
        ("rules", "lalp full prefix", "true", "lalp@all", "idxmax"),
        ("rules", "lalp sentences", "sentences", "lalp@4", "idxmax"),
        ("rules", "lalp paragraphs", "paragraphs", "lalp@1", "idxmax"),
        ("windows", "0", "true", "lalp@0", "idxmax"),
    ]:
        rows = tables[split].groupby("prompt_id")[column].agg(which)
        assert found[group, name] == sorted(tables[split].loc[rows, "response_id"])
    for teacher in unit.teachers:
        rows = table[table["teacher"] == teacher.name].sort_values("galp", ascending=False)
        ranked = rows.groupby("prompt_id")["response_id"].agg(list)
        for place, third in enumerate(("highest", "middle", "lowest")):
            expected = sorted(ids[place] for ids in ranked)
            assert found[f"thirds: {teacher.name}", third] == expected


def test_gaps_are_what_a_naive_count_gives(scored):
    _, _, tables = scored
    table = tables["true"]
    found = study._gaps(table).set_index(["teacher", "bin"])
    pairs: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for row in table.to_dict("records"):
        tokens = list(zip(row["galp:tokens"], row["lalp@1:tokens"], strict=True))
        for i, pair in enumerate(tokens):
            pairs.setdefault((row["teacher"], int(10 * i / len(tokens))), []).append(pair)
    assert set(found.index) == set(pairs)
    for key, both in pairs.items():
        everything, local = np.mean(np.array(both, float), axis=0)
        row = found.loc[key]
        assert row["num_tokens"] == len(both)
        expected = (everything, local, everything - local)
        assert (row["global"], row["local"], row["gap"]) == pytest.approx(expected, abs=1e-6)
    first = found.xs(0, level="bin")
    assert first["gap"].abs().max() < found["gap"].abs().max()  # nothing stands before the window


def test_teachers_means_are_of_every_split(scored):
    _, _, tables = scored
    found = study._teacher_means(tables).set_index(["split", "score", "teacher"])["mean"]
    assert {split for split, score, _ in found.index if score == "galp"} == {"true"}
    assert {split for split, _, _ in found.index} == set(tables)
    for (split, score, teacher), value in found.items():
        rows = tables[split][tables[split]["teacher"] == teacher]
        assert value == pytest.approx(rows[score].mean())


def test_copying_reads_the_values_in_lists(monkeypatch):
    """Every word's probability is its place in the text over a thousand."""
    text = "so far a 6 , b 7. let us go on. so far a 6 , b 7 , c 3 , d 4 , e 5 , f 9."
    pool = Pool({}, (Response("r", "p", "restater", text, correct=True),))
    starts = [match.start() for match in re.finditer(r"[^\s.]+|\.", text)]
    row = {"token_spans": [(start, start + 1) for start in starts],
           "galp:tokens": np.log(np.array(starts) / 1000 + 1e-9)}  # fmt: skip
    monkeypatch.setattr(study.world, "make_pool", lambda *_: (pool, {}))
    monkeypatch.setattr(study, "score", Mock(return_value=pd.DataFrame([row])))
    # The last of each list is new; of the others only c has three after it.
    near = (text.index("7.") + text.index("9.")) / 2000
    expected = {"copying_near": near, "copying_far": text.index("3 ,") / 1000}
    assert study.copying(make_unit()) == pytest.approx(expected, abs=1e-6)


@pytest.fixture
def train(monkeypatch) -> Mock:
    """Fine-tuning, which counts its calls."""
    monkeypatch.setattr(study, "train", Mock(wraps=study.train))
    return study.train


def test_a_unit_trains_each_selection_once_and_on_no_held_out_problem(train):
    unit = make_unit(teachers=ALL_TEACHERS[:2])
    study.gate(unit)
    tables = study.run_unit(unit)
    held_out = {problem.prompt for problem in unit.held_out.values()}
    trained = [{p.messages[0].content for p, _ in c.args[0]} for c in train.call_args_list]
    assert trained and not set.union(*trained) & held_out
    arms = tables["arms"].set_index(["group", "arm"])
    names = ["galp", "lalp", "random like lalp"]
    assert arms.index.tolist() == [("", "before training"), *(("rules", name) for name in names)]
    rows = arms.loc["rules"]
    assert (rows[["num_examples", "num_problems"]] == 3).all(axis=None)
    assert [row.count("1") for row in rows["solved"]] == rows["num_solved"].tolist()
    shares = rows[[column for column in rows if column.startswith("share of ")]]
    assert shares.sum(axis=1).to_numpy() == pytest.approx(1)
    assert not list(unit.student.joinpath("arms").rglob("*.safetensors"))  # nobody needs them

    _, scores = study.unit_scores(unit)
    assert len(trained) == len(set(map(tuple, study.plan_selections(unit, scores).values())))
    again = study.run_unit(unit)
    assert train.call_count == len(trained)
    for name, table in tables.items():
        pd.testing.assert_frame_equal(again[name], table, check_exact=True)


def test_another_seed_or_recipe_is_another_arm(train):
    unit = make_unit(teachers=ALL_TEACHERS[:1])
    study.pretrain(unit.schooling, unit.student)
    pool, _ = study.unit_scores(unit)
    ids = [response.response_id for response in pool.responses[::2]]
    first = study.run_arm(unit, pool, ids)
    assert study.run_arm(unit, pool, ids) == first
    assert train.call_count == 1
    study.run_arm(make_unit(replace(SMALL, learning_rate=1e-2), teachers=unit.teachers), pool, ids)
    assert train.call_count == 2
    study.run_arm(replace(unit, groups=()), pool, ids)
    assert train.call_count == 2


def test_no_accepted_student_is_said_plainly(solved):
    settings = replace(SMALL, held_out=10, gate_short=0.9, fewest_moves=4)
    results = study.run_world(settings)
    assert not results.students["accepted"].any()
    assert results.arms.empty and "accuracy" in with_accuracy(results.arms)


TABLES = ("students", "arms", "means", "gaps")


def same_tables(one: study.WorldResults, other: study.WorldResults) -> None:
    for name in TABLES:
        tables = (getattr(one, name), getattr(other, name))
        pair = [table.drop(columns="seconds", errors="ignore") for table in tables]
        pd.testing.assert_frame_equal(*pair, check_exact=True)


def units_side_by_side(function: Callable, jobs: list, workers: int, label: str, **options) -> None:
    """Students still in this process, where documents are few."""
    if label == "students":
        one_after_another(function, jobs)
    else:
        run_side_by_side(function, jobs, workers, label, **options)


MAP = replace(SMALL, rules=["galp"], leaps=[0.1, 0.6], scaffoldings=[1.0], workers=2)


def run_map(folder: Path) -> study.WorldResults:
    """Everything in one process of one thread, with few documents."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LALP_CACHE", str(folder))
        patch.setattr(study, "run_side_by_side", one_after_another)
        patch.setattr(world_student, "_BLOCK", 8)
        return study.run_world(MAP)


@pytest.mark.slow
def test_a_killed_run_goes_on_in_workers_to_the_tables_of_one_process(monkeypatch, tmp_path):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    expected, killed = run_map(tmp_path / "calm"), tmp_path / "killed"
    # At work on its arms; tests/faults and `make kills` kill a study at random moments.
    kill_once_there(killed, "arms/*.json", run_map, killed)
    monkeypatch.setenv("LALP_CACHE", str(killed))
    with monkeypatch.context() as patch:
        patch.setattr(study, "run_side_by_side", units_side_by_side)
        same_tables(study.run_world(MAP), expected)
    monkeypatch.setattr(study, "train", None)
    same_tables(study.run_world(MAP), expected)
