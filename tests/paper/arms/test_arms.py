"""What is read from fine-tuned students: losses, held-out NLL, accuracy; by hand-made tables."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lalp.errors import InputError
from lalp.paper.arms import measure
from lalp.paper.arms.grid import ArmResults, load_results
from lalp.paper.committed import save_results
from lalp.paper.profiles import load_profile
from lalp.paper.verdicts import cited_items
from lalp.stats import paired_shares_interval, wilson_interval
from tests.paper.verdict_cells import verdict_cells_table

DRAWS = {"num_resamples": 400, "seed": 0}


def log_of(losses: dict[str, list[float]], *, steps_per_epoch: int, seed: int = 0) -> pd.DataFrame:
    """A training log with the step 0 that has no loss."""
    return pd.DataFrame([
        {"group": "rules", "arm": arm, "seed": seed, "step": step, "epoch": step / steps_per_epoch,
         "loss": loss}
        for arm, values in losses.items()
        for step, loss in enumerate([math.nan, *values])
    ])  # fmt: skip


def held_out_of(measures: dict[tuple[str, int], list[tuple[float, float]]]) -> pd.DataFrame:
    """Held-out scores: for every arm and seed the (GALP, LALP) of prompts p0, p1, ... at step 3.

    Before training, GALP is -2 and LALP is -3 everywhere.
    """
    return pd.DataFrame([
        {"group": "rules", "arm": arm, "seed": seed, "step": step, "prompt_id": f"p{i}",
         "response_id": f"r{i}", "galp": galp, "lalp": lalp}
        for (arm, seed), values in measures.items()
        for i, after in enumerate(values)
        for step, (galp, lalp) in ((0, (-2.0, -3.0)), (3, after))
    ])  # fmt: skip


def answers_of(correct: dict[str, list[list[bool]]], temperature: float = 0.6) -> pd.DataFrame:
    """Answers: for every arm, a list of samples for each problem."""
    return pd.DataFrame([
        {"group": "rules", "arm": arm, "seed": 0, "prompt_id": f"p{i}", "temperature": temperature,
         "sample": k, "correct": right, "truncated": False, "num_tokens": 10}
        for arm, problems in correct.items()
        for i, samples in enumerate(problems)
        for k, right in enumerate(samples)
    ])  # fmt: skip


def test_losses_of_the_first_and_the_last_epoch_of_every_seed():
    log = log_of({"galp": [3.0, 1.0, 2.0, 0.0], "lalp": [4.0, 4.0, 3.0, 3.0]}, steps_per_epoch=2)
    once = log_of({"galp": [3.0, 1.0]}, steps_per_epoch=2, seed=1)
    table = measure.loss_table(pd.concat([log, once])).loc["rules"]
    assert table.loc[("galp", 0)].to_list() == [2, 1, 1]
    assert table.loc[("lalp", 0)].to_list() == [4, 3, 1]
    assert table.loc[("galp", 1)].to_list() == pytest.approx([2, 2, math.nan], nan_ok=True)


def test_loss_differences_pair_the_steps_of_the_first_epoch():
    log = log_of({"galp": [1.0, 5.0, 9.0, 9.0], "random": [2.0, 6.0, 0.0, 0.0]}, steps_per_epoch=2)
    found = measure.loss_differences(log, "rules", "random", **DRAWS)
    assert found.to_dict("records") == [
        {"arm": "galp", "seed": 0, "difference": -1, "low": -1, "high": -1, "num_steps": 2}
    ]


def test_held_out_nll_is_minus_the_score_at_the_last_step_averaged_over_seeds():
    table = held_out_of({("lalp", 0): [(-1.0, -2.0)], ("lalp", 1): [(-1.5, -2.5)]})
    (row,) = measure.held_out_nll(table).to_dict("records")
    assert (row["global NLL"], row["local NLL"]) == (1.25, 2.25)
    assert (row["global NLL before"], row["local NLL before"]) == (2, 3)


def test_held_out_changes_and_differences_by_hand():
    nll = measure.held_out_nll(
        held_out_of({("galp", 0): [(-1.0, -3.0), (-1.0, -1.0)], ("lalp", 0): [(-2.0, -1.0)] * 2})
    )
    changes = measure.held_out_changes(nll, **DRAWS).set_index(["arm", "measure"])
    assert changes.loc[("galp", "global NLL"), "change"] == -1
    assert changes.loc[("galp", "local NLL"), "change"] == -1
    # Changes of 0 and -2: Student's t with one degree of freedom, the standard error is 1.
    reach = stats.t.ppf(0.975, 1)
    ends = [-1 - reach, -1 + reach]
    assert changes.loc[("galp", "local NLL"), ["low", "high"]].tolist() == pytest.approx(ends)
    assert changes.loc[("lalp", "global NLL"), ["low", "high"]].tolist() == [0, 0]
    found = measure.held_out_differences(nll, "rules", "galp", **DRAWS).set_index("measure")
    assert found.loc["global NLL", "difference"] == 1
    assert found.loc["local NLL", "difference"] == -1
    assert found.loc["local NLL", ["low", "high"]].tolist() == pytest.approx(ends)


def test_several_responses_of_a_prompt_count_as_one_unit():
    table = held_out_of({("lalp", 0): [(-1.0, -1.0), (-2.0, -2.0), (-6.0, -6.0)]})
    table.loc[table["prompt_id"] == "p1", "prompt_id"] = "p0"
    changes = measure.held_out_changes(measure.held_out_nll(table), **DRAWS)
    assert set(changes["num_prompts"]) == {2}
    assert changes.set_index("measure").loc["global NLL", "after"] == (1.5 + 6) / 2


@pytest.mark.parametrize(
    ("samples", "solved"),
    [([[False, False]] * 6, 0), ([[True]] * 4, 4), ([[True], [False], [False]], 1)],
)
def test_shares_of_whole_problems_have_wilsons_interval(samples, solved):
    (row,) = measure.accuracy_by_arm(answers_of({"lalp": samples})).to_dict("records")
    expected = stats.binomtest(solved, len(samples)).proportion_ci(method="wilson")
    assert (row["low"], row["high"]) == pytest.approx(tuple(expected))
    assert row["accuracy"] == pytest.approx(solved / len(samples))
    assert (row["num_problems"], row["num_answers"]) == (len(samples), sum(map(len, samples)))


def test_greedy_and_sampled_answers_stand_apart():
    greedy, sampled = answers_of({"lalp": [[True]]}, 0.0), answers_of({"lalp": [[False, True]]})
    found = measure.accuracy_by_arm(pd.concat([greedy, sampled]))
    assert found.set_index("answers")["accuracy"].to_dict() == {"greedy": 1, "sampled": 0.5}


def test_accuracy_differences_are_paired_by_problem():
    answers = answers_of(
        {"lalp": [[True, True], [False, True], [False, False]], "galp": [[False, True]] * 3}
    )
    (row,) = measure.accuracy_differences(answers, "rules", "galp").to_dict("records")
    assert row["difference"] == pytest.approx(0)
    assert (row["num_differ"], row["num_problems"]) == (2, 3)
    expected = paired_shares_interval(np.array([1, 0.5, 0]), np.full(3, 0.5))
    assert (row["low"], row["high"]) == pytest.approx(expected)


def test_all_arms_have_one_kind_of_interval_also_those_that_solve_nothing():
    samples = {"lalp": [[True, False], *[[False, False]] * 7], "galp": [[False, False]] * 8}
    found = measure.accuracy_by_arm(answers_of(samples)).set_index("arm")
    assert found.loc["lalp", ["low", "high"]].tolist() == list(wilson_interval(1 / 16, 8))
    assert found.loc["galp", ["low", "high"]].tolist() == list(wilson_interval(0.0, 8))
    # Who solves more has no narrower interval.
    assert found.loc["lalp", "high"] > found.loc["galp", "high"]


def test_students_that_never_differ_may_differ_on_problems_not_asked():
    answers = answers_of({"lalp": [[False]] * 8, "galp": [[False]] * 8})
    (row,) = measure.accuracy_differences(answers, "rules", "galp").to_dict("records")
    z = stats.norm.ppf(0.975)
    assert row["difference"] == 0
    assert (row["low"], row["high"]) == pytest.approx((-(z**2) / (8 + z**2), z**2 / (8 + z**2)))


# --- verdicts ----------------------------------------------------------------------------------

NAMES = {
    "rules": ["random", "galp", "lalp"],
    "equal tokens": ["random", "galp", "lalp"],
    "thirds: A": ["highest", "middle", "lowest"],
    "windows": ["0", "4", "all"],
    "teachers": ["A", "B"],
}


MADE = {"profile": "standard", "date": "2026-11-29", "cores": 2, "machine": "x86_64"}
MADE |= {"hours_since_last_start": 1.5}


def results_of(
    loss: dict[str, tuple[float, float]],
    local: dict[str, float],
    solved: dict[str, int],
    num_prompts: int = 12,
) -> ArmResults:
    """Results in which arms differ as told: losses of two epochs, local NLL, problems solved."""
    arms_, log, held_out, answers = [], [], [], []
    runs = [(g, name, seed) for g, names in NAMES.items() for name in names for seed in (0, 1)]
    for group, name, seed in runs:
        key = {"group": group, "arm": name, "seed": seed}
        arms_.append(key | {"num_examples": 12, "galp": -1.0, "lalp@4": -1.0 - len(name)})
        first, last = loss.get(name, (2.0, 2.0))
        for step in range(8):
            value = (first if step < 4 else last) + step % 4 / 50
            log.append(key | {"step": step + 1, "epoch": (step + 1) / 4, "loss": value})
        for i in range(num_prompts):
            row = key | {"prompt_id": f"p{i}", "response_id": f"r{i}"}
            nats = local.get(name, 2.5) + i / 10 + i % 3 / 1000
            held_out.append(row | {"step": 0, "galp": -2.0, "lalp": -3.0})
            held_out.append(row | {"step": 8, "galp": -1.5, "lalp": -nats})
            answer = {"temperature": 0.0, "truncated": False, "num_tokens": 5}
            answers.append(row | answer | {"correct": i < solved.get(name, 0)})
    tables = [pd.DataFrame(rows) for rows in (arms_, log, held_out, answers)]
    return ArmResults(*tables, provenance=MADE)


AS_PAPER = results_of(
    {"galp": (1.0, 0.2), "lalp": (1.5, 1.0), "random": (1.6, 1.1)},
    {"lalp": 2.0, "galp": 2.4, "highest": 2.0, "4": 2.0},
    {"lalp": 12, "galp": 4, "highest": 11, "lowest": 3, "4": 12, "all": 4},
)
OPPOSITE = results_of(
    {"galp": (2.0, 2.0), "lalp": (1.5, 0.5), "random": (1.6, 0.6)},
    {"lalp": 2.6, "galp": 2.4},
    {"lalp": 4, "galp": 12, "highest": 3, "lowest": 11, "4": 4, "all": 12},
)
ALIKE = results_of({}, {}, {name: 6 for names in NAMES.values() for name in names})


@pytest.mark.parametrize("measured", ["accuracy", "local NLL"])
@pytest.mark.parametrize(("arm", "against"), [("best", "galp"), ("galp", "best")])
def test_an_arm_that_is_not_there_is_named(measured, arm, against):
    with pytest.raises(InputError, match="comparison 'rules' has no arm 'best'"):
        measure.arm_gap(ALIKE, measured, "rules", arm, against, **DRAWS)


def said(notebook: str, results: ArmResults) -> list[str]:
    options = {"num_resamples": 200, "seed": 0}
    found = verdict_cells_table(
        notebook,
        results=results,
        run=measure.describe_scale(results),
        profile=load_profile("smoke"),
        options=options,
        accuracy=measure.accuracy_by_arm(results.answers),
    )
    assert all(cited_items(where) for where in found["where"])
    return found["verdict"].tolist()


@pytest.mark.parametrize(
    ("results", "verdict"),
    [(AS_PAPER, "holds"), (OPPOSITE, "does not hold"), (ALIKE, "not resolved")],
)
def test_verdicts_follow_the_numbers(results, verdict):
    assert said("05_sft", results) == [verdict] * 2
    assert said("06_eval", results) == [verdict] * 3


def test_students_that_solve_nothing_test_nothing():
    nothing = results_of({}, {"lalp": 2.0, "galp": 2.4}, {"lalp": 2})
    assert said("06_eval", nothing) == ["not testable at this scale"] * 3


def test_what_each_comparison_is_measured_against():
    against = {"rules": "random", "equal tokens": "random", "thirds: A": "lowest"}
    assert measure.baselines(AS_PAPER.arms) == against | {"windows": "all", "teachers": "A"}


def test_results_are_read_back_as_they_were_saved(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LALP_CACHE", str(tmp_path / "build"))
    with pytest.raises(InputError, match="run make arms PROFILE=standard"):
        load_results("standard")
    before = ALIKE.answers.assign(group="", arm="before training", seed=-1)
    results = replace(ALIKE, answers=pd.concat([before, ALIKE.answers], ignore_index=True))
    save_results(results, "arms_standard")
    found = load_results("standard")
    for name in ("arms", "log", "held_out", "answers"):
        pd.testing.assert_frame_equal(
            getattr(found, name), getattr(results, name), check_dtype=False
        )
    assert found.provenance == results.provenance
