"""Which problems of the long traces are scored, their parts, and the rules of their verdicts."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml

from lalp.errors import InputError
from lalp.files import read_data
from lalp.paper import results, scores
from lalp.paper.tables import FIGURES, TABLES
from lalp.paper.traces import load_traces, plan
from lalp.paper.traces.plan import (
    committed_scores,
    count_tokens,
    draw_problems,
    part_pool,
    problem_table,
    traces_profile,
    traces_scores,
)
from lalp.paper.traces.pool import MAIN_TEACHERS, SIMILAR_LENGTH, TEACHERS
from lalp.paper.verdicts import cited_items
from lalp.pools.pool import Message, Pool, Prompt, Response
from lalp.scoring.groups import group_responses, make_tasks
from tests.paper.traces.test_pool import COUNTS, REAL, needs_traces

LIMIT = 400
RULES = read_data("paper/traces/rules.yaml")


def made_pool(num_sums: int = 8, num_proofs: int = 5, long: tuple[str, ...] = ()) -> Pool:
    """Every teacher solves every problem; the traces of some responses do not fit."""
    names = [f"gsm8k/{i}" for i in range(num_sums)] + [f"math/t/{i}" for i in range(num_proofs)]
    prompts = {n: Prompt(n, (Message("user", f"What is {n}?"),), "4") for n in names}
    responses = []
    for name in names:
        for teacher in TEACHERS:
            if teacher == "LIMO-32B" and name.startswith("gsm8k"):
                continue
            text = f"<think>\nWe add {name}.\n</think>\n\nSo {teacher} says 4."
            text += " And so it is." * (200 if f"{name}/{teacher}" in long else 1)
            extra = {"data_set": name.partition("/")[0]}
            responses.append(Response(f"{name}/{teacher}", name, teacher, text, True, extra))
    return Pool(prompts, tuple(responses))


def mark(pool: Pool, name: str, correct: bool | None) -> Pool:
    kept = (replace(r, correct=correct) if r.response_id == name else r for r in pool.responses)
    return replace(pool, responses=tuple(kept))


@pytest.fixture
def profile(tokenizer, monkeypatch, tmp_path):
    """The run's profile with a tokenizer of 400 tokens, few problems, and figures of its own."""
    student = SimpleNamespace(tokenizer=tokenizer, max_positions=LIMIT)
    monkeypatch.setattr(plan, "find_student", lambda name: student)
    monkeypatch.setitem(plan.PLAN, "problems", {"gsm8k": 4, "math": 3})
    monkeypatch.setattr(scores, "root_dir", lambda: tmp_path)
    monkeypatch.setattr(plan, "root_dir", lambda: tmp_path)
    return replace(traces_profile(), sweep_prompts=2)


def test_tokens_are_counted_as_scoring_counts_them(profile, tokenizer):
    pool = made_pool(long=("gsm8k/1/QwQ-32B",))
    counts = count_tokens(profile, pool, pool.responses)
    assert len(counts) == len(pool.responses)
    for group in group_responses(pool, tokenizer):
        tasks = make_tasks(group, tokenizer, LIMIT)
        for response, task in zip(group.responses, tasks, strict=True):
            row = counts.loc[response.response_id]
            assert (row["num_tokens"], row["fits"]) == (
                task.num_tokens,
                task.fits(0, task.num_tokens),
            )
    assert counts.index[~counts["fits"]].tolist() == ["gsm8k/1/QwQ-32B"]


def test_problems_are_drawn_among_those_that_all_solved_and_that_fit(profile):
    long = tuple(f"gsm8k/{i}/s1.1-32B" for i in (0, 3))
    pool = mark(mark(made_pool(long=long), "gsm8k/5/DeepSeek-R1", False), "gsm8k/6/QwQ-32B", None)
    drawn = draw_problems(profile, pool, "gsm8k")
    assert sorted(drawn) == ["gsm8k/1", "gsm8k/2", "gsm8k/4", "gsm8k/7"]
    assert drawn == draw_problems(profile, pool, "gsm8k")
    # A wrong or long control does not matter.
    pool = mark(pool, "gsm8k/1/Qwen2.5-32B-Instruct", False)
    assert drawn == draw_problems(profile, pool, "gsm8k")
    with pytest.raises(InputError, match=r"^3 problems of gsm8k .*, 4 are planned: plan fewer"):
        draw_problems(profile, mark(pool, "gsm8k/1/QwQ-32B", False), "gsm8k")


def test_fewer_problems_are_the_first_of_the_same(profile, monkeypatch):
    pool = made_pool()
    drawn = draw_problems(profile, pool, "gsm8k")
    for number in (1, 2, 3):
        monkeypatch.setitem(plan.PLAN, "problems", {"gsm8k": number, "math": 1})
        assert draw_problems(profile, pool, "gsm8k") == drawn[:number]
    monkeypatch.setitem(plan.PLAN, "seed", 1)
    monkeypatch.setitem(plan.PLAN, "problems", {"gsm8k": 8, "math": 1})
    assert draw_problems(profile, pool, "gsm8k")[:4] != drawn


def test_parts_hold_right_responses_that_fit(profile):
    pool = mark(made_pool(), "math/t/0/LIMO-32B", False)
    sums, proofs, sweep = (part_pool(profile, pool, part) for part in plan.PARTS)
    assert len(sums.prompts) == 4
    assert len(sums.responses) == 4 * 5
    assert len(proofs.prompts) == 3
    assert len(proofs.responses) == 3 * 6 - ("math/t/0" in proofs.prompts)
    assert len(sweep.prompts) == 2
    assert set(sweep.prompts) == set(draw_problems(profile, pool, "gsm8k")[:2])
    assert {r.teacher for r in sweep.responses} == set(MAIN_TEACHERS)


def test_the_table_says_what_was_left_out_and_why(profile):
    pool = mark(made_pool(long=("math/t/1/QwQ-32B",)), "gsm8k/5/DeepSeek-R1", False)
    table = problem_table(profile, pool)
    assert len(table) == 13 * 4
    assert table.set_index("prompt_id").loc["gsm8k/5", "all_solved"].eq(False).all()
    assert table.loc[~table["all_fit"], "prompt_id"].unique().tolist() == ["math/t/1"]
    drawn = table[table["drawn"] > 0]
    assert drawn.groupby("data_set")["prompt_id"].nunique().to_dict() == {"gsm8k": 4, "math": 3}
    assert drawn["all_solved"].all() and drawn["all_fit"].all()


@pytest.fixture
def scored(monkeypatch):
    """What stands for scoring: a table with tokens, and the calls that asked for it."""
    calls = []

    def score(pool, student, windows, **how):
        calls.append((windows, how))
        frame = pd.DataFrame(
            {
                "prompt_id": [r.prompt_id for r in pool.responses],
                "response_id": [r.response_id for r in pool.responses],
                "teacher": [r.teacher for r in pool.responses],
                "galp": np.linspace(-2, -1, len(pool.responses)),
                "lalp@4": -1.5,
            }
        )
        if how["with_tokens"]:
            numbers = [[0.0, 1.0]] * len(frame)
            tokens = ("token_spans", "token_steps", "galp:tokens", "lalp@4:tokens")
            frame = frame.assign(**dict.fromkeys(tokens, pd.Series(numbers)))
        return frame

    monkeypatch.setattr(plan, "score", score)
    return calls


def test_tables_are_committed_without_tokens_and_read_again(profile, scored, tmp_path):
    pool = made_pool()
    with pytest.raises(InputError, match=r"gsm8k\.parquet"):
        committed_scores("gsm8k")
    with scores.keeping("gsm8k"):
        first = traces_scores(profile, pool, "gsm8k")
    assert len(first) == 4 * 5
    assert scored == [(profile.windows, {"splitter": "sentences", "with_tokens": True})]
    path = tmp_path / "figures" / "traces" / "gsm8k.parquet"
    assert pq.read_schema(path).names == ["prompt_id", "response_id", "teacher", "galp", "lalp@4"]
    pd.testing.assert_frame_equal(traces_scores(profile, pool, "gsm8k"), first)
    pd.testing.assert_frame_equal(committed_scores("gsm8k"), first)
    assert len(scored) == 1
    # Other texts are scored, whatever is committed.
    other = made_pool(long=tuple(f"gsm8k/{i}/Qwen2.5-32B-Instruct" for i in range(8)))
    traces_scores(profile, other, "gsm8k")
    traces_scores(profile, pool, "sweep")
    assert [how["with_tokens"] for _, how in scored] == [True, True, False]
    assert scored[-1][0] == profile.sweep_windows


def test_a_second_student_scores_the_first_of_the_same_problems(
    profile, scored, monkeypatch, tmp_path
):
    wanted = plan.PLAN["second"] | {"problems": {"gsm8k": 2, "math": 1}}
    monkeypatch.setitem(plan.PLAN, "second", wanted)
    own, pool = plan.second_profile(), made_pool()
    assert (own.student, own.num_prompts, own.results) == (wanted["student"], 3, "traces")
    monkeypatch.setattr(
        plan,
        "score",
        lambda some, student, windows, **how: pd.DataFrame(
            {
                "prompt_id": [r.prompt_id for r in some.responses],
                "response_id": [r.response_id for r in some.responses],
                "teacher": [r.teacher for r in some.responses],
                "galp": -1.0,
                "by": student,
                "windows": ",".join(windows),
                "dtype": how["dtype"],
            }
        ),
    )
    with scores.keeping("second", student="a/folder"):
        found = plan.second_scores(own, pool)
    drawn = [n for d, k in wanted["problems"].items() for n in draw_problems(profile, pool, d)[:k]]
    assert found["prompt_id"].unique().tolist() == [n for n in pool.prompts if n in drawn]
    assert set(found["teacher"]) == set(MAIN_TEACHERS)
    assert found[["by", "windows", "dtype"]].drop_duplicates().values.tolist() == [
        ["a/folder", "4", "bfloat16"]
    ]
    # It belongs to the student by its name, wherever that was.
    pd.testing.assert_frame_equal(plan.second_scores(own, pool), found)


def test_the_run_is_part_of_the_results():
    whole = {"problems", *plan.PARTS, "tokens", "coverage", "splitter"}
    assert set(results.PARTS["traces"]) == whole
    profile = results.PROFILES["traces"]()
    assert (profile.pool, profile.results) == ("traces", "traces")
    assert (profile.windows, profile.main_window) == (["0", "1", "2", "4", "all"], "4")
    assert profile.num_prompts == 130
    assert profile.sweep_prompts == 20
    assert results.PROFILES.keys() == results.PARTS.keys()


# --- the rules of the verdicts -----------------------------------------------------------------


def test_rules_speak_of_what_is_scored_and_of_what_the_paper_has():
    profile = traces_profile()
    assert RULES["main_window"] == profile.main_window
    assert RULES["scores"] == ["galp", *(f"lalp@{window}" for window in profile.windows)]
    assert RULES["primary"]["teachers"] == list(MAIN_TEACHERS)
    assert RULES["primary"]["data"] == ["gsm8k", "math", "pooled"]
    assert all(teacher in RULES["length_controls"]["similar length"] for teacher in SIMILAR_LENGTH)
    known = {f"Table {n}" for n in TABLES} | {f"Fig. {n}" for n in FIGURES}
    for name, rule in RULES["claims"].items():
        assert {"claim", "where", "notebook", "statistic", "holds", "fails"} <= rule.keys(), name
        assert set(cited_items(rule["where"])) <= known


def test_every_claim_can_come_out_either_way():
    for name, rule in RULES["claims"].items():
        assert rule["holds"].strip() and rule["fails"].strip(), name
        assert rule["holds"] != rule["fails"], name


def test_rules_say_that_they_are_older_than_the_scores():
    path = Path(plan.__file__).with_name("rules.yaml")
    text = " ".join(path.read_text(encoding="utf-8").replace("#", " ").split())
    assert "committed before any score of these traces existed" in text
    assert yaml.safe_load(path.read_text(encoding="utf-8")) == RULES


# --- the real files ----------------------------------------------------------------------------


@needs_traces
@pytest.mark.slow
def test_the_planned_problems_are_there_and_fit_the_packaged_student():
    profile, pool = traces_profile(), load_traces(REAL)
    table = problem_table(profile, pool)
    solved = table[table["all_solved"]]
    by_set = solved[solved["all_fit"]].groupby("data_set")["prompt_id"].nunique()
    assert by_set.to_dict() == COUNTS["fit"]
    drawn = table[table["drawn"] > 0].groupby("data_set")["prompt_id"].nunique().to_dict()
    assert drawn == {"gsm8k": 100, "math": 30}
    # With its thought joined, each is within the positions, prompt included.
    assert table.loc[table["drawn"] > 0, "num_tokens"].max() < 8192
