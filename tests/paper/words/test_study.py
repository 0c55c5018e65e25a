"""The study in small: one run with a tiny student, and one that is stopped again and again."""

from __future__ import annotations

import itertools
import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from lalp.errors import InputError
from lalp.paper.arms.grid import Run
from lalp.paper.words import __main__, plan, study
from lalp.paper.words.plan import Unit
from lalp.paper.words.settings import ARMS, OWN
from lalp.stats import stable_hash
from tests.paper.words.test_plan import made_scores


@pytest.mark.slow
def test_a_tiny_student_goes_through_the_whole_study(small, monkeypatch):
    select = plan.select_arms

    def some(*given: object) -> dict[str, list[str]]:
        return {arm: ids for arm, ids in select(*given).items() if arm == "galp"}

    monkeypatch.setattr(plan, "select_arms", some)
    __main__.run_study(small)
    results = study.load_results()
    assert results.arms["arm"].tolist() == ["before training", "galp"]
    assert results.arms["solved"].str.len().tolist() == [4, 4]
    assert results.seeds["far"].tolist() == ["0101"]
    row = results.selections.set_index("arm").loc["galp"]
    taught = results.means.query("score == 'galp'")["mean"].max()
    assert row["num_examples"] == 4 and row["galp"] >= taught
    curve = results.curves.query("arm == 'galp'").set_index("tenth")
    # Before training every arm is the same student; training lowers its loss on held-out steps.
    assert curve.loc[0, "local_nll"] > curve["local_nll"].iloc[-1]
    assert pd.isna(curve.loc[0, "loss"]) and curve["loss"].iloc[-1] > 0
    made = results.provenance
    assert made["preregistered"]["predictions"] and made["values"]["problems"] == 4
    assert not list(Path("build").rglob("model.safetensors"))
    # What is finished is not done again.
    monkeypatch.setattr(study, "graded_answers", None)
    monkeypatch.setattr(plan, "score_pool", None)
    __main__.run_study(small)
    pd.testing.assert_frame_equal(study.load_results().arms, results.arms)
    assert len(study.load_results().provenance["runs"]) == 2
    with pytest.raises(InputError, match="figures/words was made by other values, texts or code"):
        __main__.run_study(replace(small, epochs=3))


# --- stopped runs ----------------------------------------------------------------------------


class KilledError(BaseException):
    """As if the process had been killed."""


def answer(run: Run) -> pd.DataFrame:
    """Answers in place of a trained student's: the same for the same examples."""
    rows = []
    by_prompt = {response.prompt_id: response.text for _, response in run.examples}
    for problem in run.setup.problems:
        for sample in range(run.setup.samplings[0].num_samples):
            marks = (problem.prompt_id, sample, *sorted(by_prompt.values()))
            text = f"Number {sample}. The answer is \\boxed{{{problem.answer}}}."
            rows.append(
                {
                    "prompt_id": problem.prompt_id,
                    "text": text,
                    "num_tokens": 9,
                    "truncated": False,
                    "correct": stable_hash("a", 0, *marks) % 3 > 0,
                }
            )
    return pd.DataFrame(rows).astype({"correct": "boolean"})  # fmt: skip


@pytest.fixture
def made_up(monkeypatch) -> dict[str, float]:
    """No student: made-up answers, losses and scores, which another machine shifts."""
    machine = {"shift": 0.0}
    log = pd.DataFrame({"step": [0, 1, 2], "loss": [None, 2.5, 1.0 / 3],
                        "global_nll": [3.0, None, 2.0], "local_nll": [4.0, None, 3.0]})  # fmt: skip

    def score(pool: object, values: object) -> pd.DataFrame:
        ids = {response.response_id for response in pool.responses}
        key = next(iter(pool.prompts)).split("-")[0]
        table = made_scores(Unit(values, int(key.removeprefix("words"))), shift=machine["shift"])
        # Other scores elsewhere, so a plan made anew would show.
        table["galp"] *= (-1) ** round(machine["shift"])
        return table[table["response_id"].isin(ids)].reset_index(drop=True)

    for module in (plan, study):
        monkeypatch.setattr(module, "graded_answers", answer)
    monkeypatch.setattr(study, "load_log", lambda folder: log)
    monkeypatch.setattr(plan, "score_pool", score)
    return machine


def tables() -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(Path("figures/words").glob("*.csv"))}


def stop_at(call: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop at some writing of a file, before it or, every second time, after it."""
    calls = itertools.count(1)

    def stopping(function: Callable) -> Callable:
        def write(*given: object) -> None:
            number = next(calls)
            if number == call and call % 2:
                raise KilledError
            function(*given)
            if number == call:
                raise KilledError

        return write

    for module, name in ((plan, "write_json"), (study, "write_json"), (__main__, "save_results")):
        monkeypatch.setattr(module, name, stopping(getattr(module, name)))


def test_a_run_that_is_stopped_again_and_again_gives_the_same_tables(small, made_up, monkeypatch):
    select, some = plan.select_arms, ("galp", "lalp", "random like galp", "random", "terse", OWN)
    monkeypatch.setattr(plan, "select_arms", lambda *given: {
        arm: ids for arm, ids in select(*given).items() if arm in some})  # fmt: skip
    values = replace(small, seeds=2, seeds_on_gpu=2, workers=2)
    __main__.run_study(values)
    expected = tables()
    assert len(study.load_results().arms) == 2 * (1 + len(some))
    assert len(study.load_results().own) > 0
    for folder in ("figures", "build"):
        shutil.rmtree(folder)
    trained: list[Run] = []
    monkeypatch.setattr(study, "graded_answers", lambda run: trained.append(run) or answer(run))
    for attempt in itertools.count(1):
        try:
            with pytest.MonkeyPatch.context() as patch:
                stop_at(2 + 3 * attempt, patch)
                __main__.run_study(values)
            break
        except KilledError:
            # Every second time the tables alone go on to another machine, once there are some.
            if attempt % 2 and Path("figures/words/arms.csv").is_file():
                shutil.rmtree("build")
                made_up["shift"] += 1
    assert made_up["shift"] > 1 and attempt > 3 and tables() == expected
    # At most the cell at work is lost each time.
    assert len(trained) <= 2 * (1 + len(some)) + attempt


def test_cells_are_in_order_of_seeds_and_equal_choices_share_one(small, made_up):
    units = [Unit(small, seed) for seed in (0, 1)]
    for unit in units:
        plan.plan_seed(unit)
    cells = study.missing_cells(units[0])
    named = [arm for cell in cells for arm, _ in cell.arms]
    assert sorted(named) == sorted(ARMS) and len(cells) < len(ARMS)
    firsts = [ARMS.index(cell.arms[0][0]) for cell in cells]
    assert firsts == sorted(firsts) and firsts[0] == 0
    # Workers are other processes.
    assert pickle.loads(pickle.dumps((units, cells))) == (units, cells)
    study.run_cell(cells[0])
    assert len(study.missing_cells(units[0])) == len(cells) - 1
    found = json.loads(units[0].cell("before training").read_text())
    assert found["curves"] == [] and found["arms"][0]["num_problems"] == 4


def test_a_curve_by_hand():
    log = pd.DataFrame({
        "step": range(21),
        "loss": [None, *(float(i) for i in range(20))],
        "global_nll": [5.0, *[None] * 9, 4.0, *[None] * 9, 3.0],
        "local_nll": [6.0, *[None] * 9, 5.0, *[None] * 9, 4.0],
    })  # fmt: skip
    points = study.curve_points(log).set_index("tenth")
    assert points.index.tolist() == list(range(11))
    assert points["loss"].tolist()[1:3] == [0.5, 2.5] and pd.isna(points.loc[0, "loss"])
    assert points["global_nll"].dropna().to_dict() == {0: 5.0, 5: 4.0, 10: 3.0}
    assert points["local_nll"].dropna().to_dict() == {0: 6.0, 5: 5.0, 10: 4.0}


def test_make_and_the_docs_say_how_it_is_run_and_that_it_was_not():
    root = Path(__file__).parents[3]
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    assert "-m lalp.paper.words$(if $(PILOT),.pilot)" in makefile
    if not (root / "figures" / "words").is_dir():
        assert "**Not run yet" in (root / "docs" / "results.md").read_text(encoding="utf-8")
