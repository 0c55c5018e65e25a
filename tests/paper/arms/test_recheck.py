"""One arm of a grid, drawn by a seed, beside its committed tables; with a tiny student."""

from __future__ import annotations

from dataclasses import asdict, replace

import pandas as pd
import pytest

from lalp.errors import InputError
from lalp.paper.arms import grid as arms_grid
from lalp.paper.arms import recheck
from lalp.paper.arms.grid import Grid, load_results, profile_results, run_grid
from lalp.paper.committed import save_results
from lalp.paper.profiles import load_profile
from tests.paper.arms.test_grid import grid as grid
from tests.paper.arms.test_grid import tiny as tiny

SEEDS = range(20)


@pytest.fixture
def committed(grid, tmp_path, monkeypatch) -> arms_grid.ArmResults:
    """All arms' results, written to files and read again."""
    monkeypatch.chdir(tmp_path)
    save_results(replace(run_grid(grid), provenance={"dtype": "float32"}), "arms_standard")
    return load_results("standard")


def test_a_seed_draws_one_arm_of_the_comparison_and_some_problems(grid):
    drawn = [recheck.one_arm(grid, seed, num_problems=1) for seed in SEEDS]
    assert {one.arms for one in drawn} == {(arm,) for arm in grid.arms if arm.group == "rules"}
    assert {one.setup.problems for one in drawn} == {(p,) for p in grid.setup.problems}
    assert recheck.one_arm(grid, 3, num_problems=1) == drawn[3]
    few = [recheck.one_arm(grid, seed, num_held_out=1).setup.held_out.pool for seed in SEEDS]
    ids = {response.response_id for response in grid.setup.held_out.pool.responses}
    assert {response.response_id for pool in few for response in pool.responses} == ids
    assert all(list(pool.prompts) == [r.prompt_id for r in pool.responses] for pool in few)
    whole = recheck.one_arm(grid, 0)
    assert whole.setup.problems == grid.setup.problems and whole.pool is grid.pool
    with pytest.raises(InputError, match="no arm of comparison 'thirds'"):
        recheck.one_arm(grid, 0, group="thirds")


@pytest.mark.slow
def test_the_same_run_agrees_and_another_one_stops(grid, committed):
    table = recheck.check_training(grid, committed, 0)
    assert (table["agree"] == table["values"]).all()
    assert (table["values"] > 0).all()
    answers = recheck.check_answers(grid, committed, 0)
    assert answers["largest"].max() == 0
    assert set(answers["values"]) == {len(grid.setup.problems)}
    (arm,) = recheck.one_arm(grid, 0).arms
    for name, changed, what in damaged(committed, arm.name):
        other = replace(committed, **{name: changed})
        with pytest.raises(InputError, match=f"{what}.*run make arms PROFILE=standard"):
            recheck.check_training(grid, other, 0)
        # Trained in bfloat16, losses and what comes after them are counted alone.
        half = replace(other, provenance={"dtype": "bfloat16"})
        if what.startswith("loss") or what.endswith("after"):
            found = recheck.check_training(grid, half, 0).set_index("what").loc[what]
            assert found["agree"] == 0 and found["largest"] > 0
    other = replace(committed, answers=committed.answers.assign(num_tokens=99))
    with pytest.raises(InputError, match="untrained student: num_tokens"):
        recheck.check_answers(grid, other, 0)


def damaged(committed: arms_grid.ArmResults, arm: str) -> list[tuple[str, pd.DataFrame, str]]:
    """A committed table with another number in it, and the check that finds it."""
    log, held_out, arms = committed.log, committed.held_out, committed.arms
    first, before = log["step"].eq(1), held_out["step"].eq(0)
    shift = 2 * recheck.TRAINED_NATS
    return [
        ("arms", arms.assign(num_tokens=1 + arms["num_tokens"]), "selection: counts"),
        ("arms", arms.assign(galp=arms["galp"] + 2e-4), "selection: mean scores"),
        ("log", log.assign(loss=log["loss"] + 2e-4 * first), "loss, first step"),
        ("log", log.assign(loss=log["loss"] + shift * ~first), "loss, later steps"),
        ("held_out", held_out.assign(galp=held_out["galp"] + 2e-4 * before), "held out, before"),
        ("held_out", held_out.assign(lalp=held_out["lalp"] + shift * ~before), "held out, after"),
    ]


def test_trained_answers_are_counted_and_untrained_ones_demanded():
    rows = [
        {"group": group, "arm": arm, "seed": seed, "prompt_id": "p", "temperature": 0.0,
         "sample": 0, "num_tokens": 5, "truncated": False, "extracted": "7", "outcome": "wrong"}
        for group, arm, seed in (("", arms_grid.BEFORE, -1), ("rules", "galp", 0))
    ]  # fmt: skip
    committed = arms_grid.ArmResults(*[pd.DataFrame()] * 3, answers=pd.DataFrame(rows))
    now = committed.answers.assign(extracted="8")
    found = {row["what"]: row for row in recheck.answer_checks(committed, now)}
    own, other = (found[f"{who}: extracted"] for who in ("untrained student", "trained arm"))
    assert own["agree"] == other["agree"] == 0
    assert own["largest"] > own["at most"] and not other["largest"] > other["at most"]


def test_a_profile_without_committed_results_runs_its_own_arms(monkeypatch):
    plans = []

    def plan(profile, seed, *scores, **how):
        plans.append((profile, seed, *scores, *how.values()))
        return Grid((), None, None, None)

    monkeypatch.setattr(arms_grid, "plan_grid", plan)
    monkeypatch.setattr(arms_grid, "run_grid", lambda grid, *, answers: f"run, {answers}")
    smoke = load_profile("smoke")
    assert profile_results(smoke, 7, answers=False)[1] == "run, False"
    assert plans == [(smoke, 7)]
    # Committed ones: the longer run's plan, with the profile's scores.
    made = {"seed": 3, "dtype": "float32"}
    shown = arms_grid.ArmResults(*[pd.DataFrame()] * 4, provenance=made)
    monkeypatch.setattr(arms_grid, "load_results", lambda name: shown)
    monkeypatch.setattr(arms_grid, "profile_pool", lambda profile: ("pool", None))
    monkeypatch.setattr(arms_grid, "profile_scores", lambda *args, seed: ("scores", seed))
    assert profile_results(load_profile("cpu"), 7)[1] is shown
    assert plans[1:] == [(load_profile("standard"), 3, ("scores", 3), False)]


def test_the_default_profile_tells_what_its_committed_arms_were_trained_with():
    cpu, made = (asdict(load_profile(name)) for name in ("cpu", arms_grid.COMMITTED))
    names = [name for name in cpu if name.startswith(("sft_", "held_out_", "eval_"))]
    assert {name: cpu[name] for name in names} == {name: made[name] for name in names}
