"""Arms: which responses each is trained on; training and answers with a tiny student."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
from conftest import build_student

from lalp.errors import InputError
from lalp.paper.arms.grid import evaluate_arms, run_in_turns, train_arms
from lalp.paper.arms.plan import Arm, Grid, Setup, arm_table, plan_arms
from lalp.paper.profiles import SFT_GROUPS, load_profile
from lalp.pools.pool import Message, Pool, Prompt
from lalp.pools.reading import load_pool
from lalp.sampling.settings import Sampling
from lalp.selection import rules
from lalp.training.examples import HeldOut
from lalp.training.recipes import RECIPES
from tests.paper.killing import kill_once_there
from tests.training.conftest import save

WORDS = ["add", "four", "and", "three", "then", "check", "the", "sum", "again", "so", "seven"]


def make_pool(num_prompts: int, teachers: str = "AB", first: int = 0) -> Pool:
    """Prompts with one response by each teacher, of different lengths."""
    return load_pool(
        [
            {
                "prompt_id": f"p{i}",
                "prompt": f"What is {i} plus 3?",
                "teacher": teacher,
                "response": " ".join(WORDS[: 3 + (3 * i + 5 * place) % 9]) + ".",
                "response_id": f"p{i}/{teacher}",
            }
            for i in range(first, first + num_prompts)
            for place, teacher in enumerate(teachers)
        ]
    )


def make_scores(pool: Pool) -> pd.DataFrame:
    """Scores in which A is better by GALP and B by LALP at every window."""
    names = ["prompt_id", "response_id", "teacher"]
    table = pd.DataFrame([vars(response) for response in pool.responses])
    is_a, place = table["teacher"] == "A", table.index / 100
    return table[names].assign(
        **{"correct": True, "num_tokens": table["text"].str.len(), "galp": -2.0 + is_a - place},
        **{"lalp@0": -1.0 - is_a - place, "lalp@4": -1.0 - is_a - 2 * place, "reason": None},
    )


RECIPE = replace(
    RECIPES["paper"],
    learning_rate=1e-2,
    epochs=2,
    gradient_accumulation=1,
    max_length=256,
    bf16=False,
    gradient_checkpointing=False,
)


# --- which responses ---------------------------------------------------------------------------


NAMES = {
    "rules": ["random", "galp", "lalp", "random like lalp"],
    "equal tokens": ["random", "galp", "lalp", "random like lalp"],
    "thirds: A": ["highest", "middle", "lowest"],
    "windows": ["0", "4"],
    "teachers": ["A", "B"],
}


def plan(scores: pd.DataFrame, *groups: str) -> dict[tuple[str, str, int], Arm]:
    """Arms with two seeds, of all comparisons if none is named."""
    profile = replace(
        load_profile("smoke"),
        windows=["4"],
        main_window="4",
        sft_seeds=2,
        sft_groups=list(groups or SFT_GROUPS),
        sft_rules=NAMES["rules"],
        sft_windows=NAMES["windows"],
        sft_teachers=["A"],
    )
    return {(arm.group, arm.name, arm.seed): arm for arm in plan_arms(scores, profile)}


def test_every_comparison_has_its_arms_for_every_seed():
    arms = plan(make_scores(make_pool(6)))
    assert set(arms) == {(g, name, seed) for g in NAMES for name in NAMES[g] for seed in (0, 1)}
    by_a, by_b = (tuple(f"p{i}/{teacher}" for i in range(6)) for teacher in "AB")
    for seed in (0, 1):
        assert arms["rules", "galp", seed].response_ids == by_a
        assert arms["rules", "lalp", seed].response_ids == by_b
        assert arms["rules", "random like lalp", seed].response_ids == by_b
        assert arms["teachers", "B", seed].response_ids == by_b
    assert arms["rules", "random", 0].response_ids != arms["rules", "random", 1].response_ids
    thirds = [arms["thirds: A", third, 0].response_ids for third in rules.THIRDS]
    assert thirds == [by_a[:2], by_a[2:4], by_a[4:]]  # GALP falls from prompt to prompt


def test_only_the_comparisons_asked_for():
    for group in ("windows", "equal tokens"):  # two prompts are too few for thirds
        assert {arm.group for arm in plan(make_scores(make_pool(2)), group).values()} == {group}


def test_equal_tokens_stay_within_the_shortest_selection():
    scores = make_scores(make_pool(8))
    table = arm_table(list(plan(scores).values()), scores)
    totals = table.groupby(["seed", "group"])["num_tokens"].agg(["min", "max"]).unstack("group")
    shortest = totals["min", "rules"]
    assert (totals["max", "equal tokens"] == shortest).all()
    assert (totals["min", "equal tokens"] > shortest - scores["num_tokens"].max()).all()


def test_the_table_of_arms_counts_and_averages():
    scores = make_scores(make_pool(3))
    arms = [Arm("rules", "x", 0, ids) for ids in (("p0/A", "p2/B"), ("p0/A",))]
    table = arm_table(arms, scores)
    chosen = scores.set_index("response_id").loc[["p0/A", "p2/B"]]
    expected = [2, chosen["num_tokens"].sum(), chosen["galp"].mean()]
    found = table.loc[0, ["num_examples", "num_tokens", "galp"]]
    assert found.tolist() == pytest.approx(expected)
    assert table[["A", "B"]].values.tolist() == [[1, 1], [1, 0]]


# --- training and answers ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, tokenizer) -> str:
    student = build_student("llama", tokenizer, initializer_range=0.02)
    return save(student, tmp_path_factory.mktemp("students") / "tiny")


ARMS = (
    Arm("rules", "galp", 0, ("p0/A", "p1/A", "p2/A")),
    Arm("rules", "lalp", 0, ("p0/B", "p1/B", "p2/B")),
    Arm("windows", "4", 0, ("p0/B", "p1/B", "p2/B")),
)
GREEDY = Sampling(max_tokens=6)
SAMPLES = Sampling(2, temperature=1.0, max_tokens=6)
PROBLEMS = (
    Prompt("q0", (Message("user", "What is 4 plus 4?"),), "8"),
    Prompt("q1", (Message("user", "What is 4 plus 5?"),), "9"),
)


@pytest.fixture
def grid(tiny, tmp_path, monkeypatch) -> Grid:
    monkeypatch.setenv("LALP_CACHE", str(tmp_path / "build"))
    held_out = HeldOut(make_pool(2, "A", first=20), "sentences", "4")
    setup = Setup(tiny, RECIPE, held_out, tmp_path / "arms", 2, PROBLEMS, (GREEDY,))
    pool = make_pool(3)
    return Grid(ARMS, pool, make_scores(pool), setup)


def change(grid: Grid, **changes: object) -> Grid:
    """The grid with a setup of other values."""
    return replace(grid, setup=replace(grid.setup, **changes))


def model_folders(grid: Grid) -> list:
    return sorted(path.parent for path in grid.setup.folder.glob("*/model/run.json"))


@pytest.mark.slow
def test_arms_are_trained_once_measured_and_answer(grid):
    grid = change(grid, samplings=(GREEDY, SAMPLES))
    found = train_arms(grid)
    assert len(model_folders(grid)) == 2  # two arms chose the same responses
    log, held_out = found["log"], found["held_out"]
    assert log.groupby(["group", "arm"]).size().tolist() == [4, 4, 4]
    by_step = held_out.groupby(["arm", "step"])["galp"].mean().unstack()
    assert by_step[0].nunique() == 1
    assert (by_step[4] > by_step[0]).all()  # the words repeat: it learns
    assert set(held_out["prompt_id"]) == {"p20", "p21"}

    before = {path: path.stat().st_mtime_ns for path in model_folders(grid)}
    again = train_arms(grid)
    assert before == {path: path.stat().st_mtime_ns for path in model_folders(grid)}
    pd.testing.assert_frame_equal(again["log"], log)

    answers = evaluate_arms(grid)
    assert len(answers) == 4 * 2 * 3  # the student before training answers too
    assert set(answers["arm"]) == {"before training", "galp", "lalp", "4"}
    assert set(answers["temperature"]) == {0.0, 1.0}
    lalp, window = (answers[answers["arm"] == n].reset_index(drop=True) for n in ("lalp", "4"))
    columns = ["prompt_id", "sample", "num_tokens", "correct"]
    pd.testing.assert_frame_equal(lalp[columns], window[columns])
    assert not answers.loc[answers["truncated"], "correct"].any()


@pytest.mark.slow
def test_a_grid_killed_at_work_goes_on_to_the_same_tables_and_leaves_no_weights(grid):
    folder, grid = grid.setup.folder, replace(grid, arms=ARMS[:2])
    quiet, killed = (change(grid, folder=folder / name) for name in ("undisturbed", "killed"))
    expected = run_in_turns(quiet)
    kill_once_there(killed.setup.folder, "model/run.json", run_in_turns, killed)
    found = run_in_turns(killed)
    for name in ("arms", "log", "held_out", "answers"):
        tables = [getattr(t, name).drop(columns="seconds", errors="ignore")
                  for t in (found, expected)]  # fmt: skip
        pd.testing.assert_frame_equal(*tables)
    assert not list(folder.rglob("model.safetensors"))


def test_deleted_weights_are_made_again_on_request(grid):
    grid = replace(grid, arms=ARMS[:1])
    log = train_arms(grid)["log"]
    (weights,) = grid.setup.folder.rglob("model.safetensors")
    weights.unlink()
    pd.testing.assert_frame_equal(train_arms(grid, with_weights=False)["log"], log)
    with pytest.raises(InputError, match="holds no trained student"):
        evaluate_arms(grid)
    train_arms(grid)
    assert weights.is_file()


def test_arms_that_cannot_be_run_are_refused(grid):
    with pytest.raises(InputError, match="response 'p9/A', which the pool does not hold"):
        train_arms(replace(grid, arms=(Arm("rules", "galp", 0, ("p9/A",)),)))
    for changes, message in (
        ({"prompt_id": "p0"}, "problem 'p0' is trained on"),
        ({"answer": None}, "problem 'q0' has no reference answer"),
    ):
        with pytest.raises(InputError, match=message):
            evaluate_arms(change(grid, problems=(replace(PROBLEMS[0], **changes),)))
