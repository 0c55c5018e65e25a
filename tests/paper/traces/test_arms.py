"""Students fine-tuned on long traces: what is drawn, how time is kept, and the whole in small."""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from conftest import CHAT_TEMPLATE, build_student
from scipy import stats

from lalp.errors import InputError
from lalp.paper.arms.grid import BEFORE
from lalp.paper.arms.plan import Arm
from lalp.paper.committed import load_results
from lalp.paper.traces import arms, plan
from lalp.paper.traces.arm_tables import TraceArms, graded_answers, solved_table
from lalp.paper.traces.arms import SCALES, arms_profile, draw_problems, finish_run
from lalp.paper.traces.files import FACTS, Records, read_files
from lalp.paper.traces.pool import MAIN_TEACHERS, build_pool
from lalp.pools.pool import Message, Pool, Prompt
from tests.paper.traces.test_plan import made_pool, mark
from tests.paper.traces.test_pool import REAL
from tests.tiny import train_tokenizer
from tests.training.conftest import save

NAMES = ["random", "lalp", "galp", "random like lalp", BEFORE, *sorted(MAIN_TEACHERS)]


# --- plans -------------------------------------------------------------------------------------


def test_the_run_is_planned_for_twelve_minutes_and_its_arms_begin_with_the_rules():
    profile = arms_profile("full")
    assert (profile.sft_prompts, profile.eval_prompts) == (300, 200)
    assert profile.student == "Qwen/Qwen2.5-0.5B-Instruct"
    assert arms_profile("full", "./mine").student == "./mine"
    assert profile.sft_rules == NAMES[:4]
    # What is learned can be written again, and the steps' two halves are equal.
    assert SCALES["full"]["trace_tokens"] <= profile.eval_max_tokens
    assert profile.sft_batch % 2 == 0
    for scale in SCALES.values():
        assert list(scale["minutes"]) == ["pool", "scores", "arms"]
        assert sum(scale["minutes"].values()) <= 12


@pytest.fixture
def profile(tokenizer, monkeypatch):
    """Two problems to train on and three to solve, with a tokenizer of 400 tokens."""
    student = SimpleNamespace(tokenizer=tokenizer, max_positions=4096)
    monkeypatch.setattr(plan, "find_student", lambda name: student)
    return replace(arms_profile("small"), sft_prompts=2, eval_prompts=3)


def test_problems_are_solved_by_all_and_short_and_others_are_held_out(profile):
    long = tuple(f"gsm8k/{i}/QwQ-32B" for i in (0, 3))
    pool = mark(made_pool(long=long), "gsm8k/5/s1.1-32B", False)
    trained, held_out = draw_problems(replace(profile, sft_prompts=5), pool, 400)
    assert sorted(trained) == [f"gsm8k/{i}" for i in (1, 2, 4, 6, 7)]
    # What is too long, or not solved by all, can be solved by a student.
    assert sorted(held_out) == [f"gsm8k/{i}" for i in (0, 3, 5)]
    assert draw_problems(profile, pool, 400) == draw_problems(profile, pool, 400)
    with pytest.raises(InputError, match="5 problems to train on, 6 are planned: plan fewer"):
        draw_problems(replace(profile, sft_prompts=6), pool, 400)
    with pytest.raises(InputError, match="6 problems to solve, 7 are planned"):
        draw_problems(replace(profile, eval_prompts=7), pool, 400)


def test_without_a_gpu_the_run_is_refused(monkeypatch):
    monkeypatch.setattr(arms, "default_device", lambda: "cpu")
    with pytest.raises(InputError, match=r"no GPU is at hand.*--small"):
        arms.main()
    arms.check_device(is_small=True)
    monkeypatch.setattr(arms, "default_device", lambda: "cuda")
    arms.check_device(is_small=False)


def test_a_worker_takes_its_share_of_the_card_and_leaves_attention_to_no_cudnn(monkeypatch):
    shares, was = [], torch.backends.cuda.cudnn_sdp_enabled()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", shares.append)
    try:
        arms.share_card(5)
        assert not torch.backends.cuda.cudnn_sdp_enabled()
    finally:
        torch.backends.cuda.enable_cudnn_sdp(was)
    assert shares == [pytest.approx(0.19)]


# --- time --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("left", "is_begun"), [(100, True), (50, False), (-1, False)])
def test_an_arm_is_begun_if_one_as_long_as_the_longest_would_end_in_time(
    left, is_begun, tmp_path, monkeypatch
):
    for name, seconds in (("one", 20.0), ("other", 60.0)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "seconds.json").write_text(json.dumps(seconds))
    done = []
    monkeypatch.setattr(arms, "train_run", lambda run: done.append("trained"))
    monkeypatch.setattr(arms, "answer_run", lambda run: done.append("answered"))
    own = tmp_path / "own"
    (own / "model").mkdir(parents=True)
    setup = SimpleNamespace(folder=tmp_path, workers=1)
    run = SimpleNamespace(folder=own, model=own / "model", examples=("one",), setup=setup)
    finish_run(run, time.monotonic() + left)
    assert done == (["trained", "answered"] if is_begun else [])
    assert (own / "seconds.json").is_file() == is_begun
    if is_begun:  # killed before it had answered, it is not trained again
        (own / "model" / "model.safetensors").write_text("weights")
        finish_run(run, time.monotonic() + left)
        assert done[2:] == ["answered"]
        assert not list(own.rglob("*.safetensors"))


# --- tables ------------------------------------------------------------------------------------


def answers_of(correct: dict[tuple[str, int], str]) -> pd.DataFrame:
    """Answers: for every arm and seed a text with a + for each problem that is solved."""
    return pd.DataFrame([
        {"arm": arm, "seed": seed, "prompt_id": f"p{i}", "correct": sign == "+",
         "truncated": sign == "0", "num_tokens": 10 + i}
        for (arm, seed), signs in correct.items()
        for i, sign in enumerate(signs)
    ])  # fmt: skip


def test_shares_and_paired_differences_by_hand():
    runs = {("random", 0): "++-0", ("lalp", 0): "+-++", ("random", 1): "++++", ("lalp", 1): "----"}
    table = solved_table(answers_of(runs | {(BEFORE, -1): "----"}))
    found = {(row["arm"], row["seed"]): row for row in table.to_dict("records")}
    wilson = stats.binomtest(3, 4).proportion_ci(method="wilson")
    lalp = found["lalp", 0]
    assert (lalp["solved"], lalp["n"], lalp["accuracy"]) == (3, 4, 0.75)
    assert (lalp["low"], lalp["high"]) == pytest.approx(tuple(wilson))
    # 0, -1, 1, 1: a mean of a quarter. Newcombe's interval takes Wilson's of both, and their
    # correlation: of four problems one is solved by both, two by the first, one by the second,
    # and half a problem more in each corner of that table.
    assert (lalp["difference"], lalp["num_differ"]) == (0.25, 3)
    other = stats.binomtest(2, 4).proportion_ci(method="wilson")
    phi = (1.5 * 0.5 - 2.5 * 1.5) / math.sqrt(4 * 2 * 3 * 3)
    for end, one, two in (
        ("low", 0.75 - wilson.low, other.high - 0.5),
        ("high", wilson.high - 0.75, 0.5 - other.low),
    ):
        half = math.sqrt(one**2 - 2 * phi * one * two + two**2)
        assert abs(lalp[f"difference_{end}"] - 0.25) == pytest.approx(min(half, 1.25))
    assert math.isnan(found["random", 0]["difference"])
    assert found["random", 0]["truncated"] == 0.25
    assert found["lalp", 1]["difference"] == -1
    assert found[BEFORE, -1]["difference"] == -0.5
    assert found["lalp", 0]["answer_tokens"] == 11.5


def test_answers_are_graded_as_traces_are_and_wrong_if_cut_off(tmp_path, monkeypatch):
    monkeypatch.setenv("LALP_CACHE", str(tmp_path))
    texts = {
        "So it is \\boxed{1250}.": True,
        "<think>\nIs it 7?\n</think>\n\nThat makes 1,250 dollars.": True,
        "<think>\nIt is 1250.": False,  # a thought without an answer
        "It is 1251.": False,
        "It is 1,250.": False,  # and then it was cut off
    }
    problems = [Prompt(f"p{i}", (Message("user", "How many?"),), "1,250") for i in range(5)]
    columns = {"prompt_id": [p.prompt_id for p in problems], "text": list(texts), "num_tokens": 9}
    run = SimpleNamespace(answers=tmp_path / "answers.parquet")
    pd.DataFrame(columns).assign(truncated=[False] * 4 + [True]).to_parquet(run.answers)
    grid = SimpleNamespace(setup=SimpleNamespace(problems=problems))
    found = graded_answers(grid, {Arm("rules", "lalp", 0, ()): run})
    assert found["correct"].tolist() == list(texts.values())
    assert "text" not in found and set(found["arm"]) == {"lalp"}
    assert graded_answers(grid, {}).empty


def test_before_the_random_arm_is_done_there_are_no_differences():
    table = solved_table(answers_of({("lalp", 0): "+-"}))
    assert table["solved"].tolist() == [1] and "difference" not in table


# --- the whole in small ------------------------------------------------------------------------


def few_problems(files: dict[str, Records]) -> dict[str, Records]:
    """The first problems of GSM8K alone: grading all of the pool takes longer than this test."""
    asked = {record["question"] for record in files["data/gsm8k.json"][:24]}
    return {
        name: [r for r in records if r.get("question") in asked] if "gsm8k" in name else []
        for name, records in files.items()
    }


@pytest.fixture(scope="module")
def pool() -> Pool:
    """Real traces where the files are at hand, else made-up ones."""
    return build_pool(few_problems(read_files(REAL))) if REAL.is_dir() else made_pool(num_sums=12)


@pytest.fixture(scope="module")
def tiny(pool, tmp_path_factory) -> str:
    """A random student of two layers whose tokenizer knows the words of these traces."""
    texts = [response.text for response in pool.responses]
    tokenizer = train_tokenizer(texts, 2000, CHAT_TEMPLATE)
    shape = {"vocab_size": 2000, "num_hidden_layers": 2, "max_position_embeddings": 16384}
    student = build_student("llama", tokenizer, initializer_range=0.02, **shape)
    return save(student, tmp_path_factory.mktemp("students") / "tiny")


@pytest.mark.slow
def test_the_whole_run_in_small(pool, tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LALP_CACHE", str(tmp_path / "build"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(arms, "load_traces", lambda: pool)
    arms.main(student=tiny, small=True, minutes=60)
    said = capsys.readouterr().out
    assert all(f"{stage}: " in said for stage in SCALES["small"]["minutes"])
    assert "no time was left" not in said
    folder = tmp_path / "build" / "traces_arms" / "small"
    found = load_results(TraceArms, folder / "figures", "make traces-arms SMALL=1")
    assert not (tmp_path / "figures").exists()
    check_tables(found, pool)
    assert not list(folder.rglob("*.safetensors"))
    # What is done is not done again.
    finished = {path: path.stat().st_mtime_ns for path in folder.rglob("answers-*.parquet")}
    monkeypatch.setattr(arms, "run_side_by_side", lambda job, jobs, *rest, **how: check(not jobs))
    arms.main(student=tiny, small=True, minutes=60)
    assert finished == {path: path.stat().st_mtime_ns for path in finished}
    again = load_results(TraceArms, folder / "figures", "make traces-arms SMALL=1")
    pd.testing.assert_frame_equal(again.arms, found.arms)


def check(is_true: bool) -> None:
    assert is_true


def check_tables(found: TraceArms, pool: Pool) -> None:
    table = found.arms.set_index("arm")
    assert table.index.tolist() == NAMES
    assert set(table["n"]) == {4}
    trained = table.drop(index=BEFORE)
    assert set(trained["num_examples"]) == {4}
    assert (trained[list(MAIN_TEACHERS)].sum(axis=1) == 4).all()
    assert all(trained.loc[teacher, teacher] == 4 for teacher in MAIN_TEACHERS)
    # One epoch: every token of each trace, and the end of its turn.
    assert (trained["trained_tokens"] > trained["num_tokens"]).all()
    uniform = math.log(2000)
    assert ((trained["loss"] - uniform).abs() < 0.5).all()
    assert table.loc[BEFORE, ["num_examples", "loss"]].isna().all()
    assert table["difference"].drop("random").notna().all()
    galp = trained["galp"]
    assert galp["galp"] == galp.max() and trained.loc["lalp", "lalp@4"] == trained["lalp@4"].max()
    steps = found.log.groupby("arm")["num_tokens"].agg(lambda tokens: (tokens > 0).sum())
    assert set(steps) == {2}
    made = found.provenance
    assert made["card"] == "cpu" and made["scale"] == "small" and made["dtype"] == "float32"
    assert {"torch", "trl"} <= made["packages"].keys() and "pool" in made[
        "minutes_since_last_start"
    ]
    # Problems that were solved were not trained on, and no text of anybody's is kept.
    assert found.answers.columns.tolist() == [
        *("arm", "seed", "prompt_id", "correct", "truncated", "num_tokens")
    ]
    assert set(found.answers["prompt_id"]) <= set(pool.prompts)
    assert found.answers.groupby("arm").size().eq(4).all()


def test_the_commands_and_files_are_those_that_are_described():
    root = Path(arms.__file__).parents[3]
    assert "traces-arms:" in (root / "Makefile").read_text(encoding="utf-8")
    assert "make traces-arms" in (root / "README.md").read_text(encoding="utf-8")
    assert set(MAIN_TEACHERS) <= set(FACTS["teachers"])
