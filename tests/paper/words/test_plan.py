"""A seed's plan: what was set down, what each arm takes, and how choices are kept."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from lalp.errors import InputError
from lalp.paper.arms.grid import BEFORE
from lalp.paper.words import plan, settings
from lalp.paper.words.plan import Unit, decode, encode
from lalp.paper.words.runs import keep_right
from lalp.paper.words.settings import ARMS, CONTRASTS, FAMILIES, OWN, load_study
from tests.paper.words.conftest import SMALL


def made_scores(unit: Unit, own: bool = True, shift: float = 0.0) -> pd.DataFrame:
    """Random scores of every solution; the own family solved every second problem."""
    rng = np.random.default_rng(4)
    rows = [
        (key, f"{key}/{teacher}/{i}", teacher, True, 20 + int(rng.integers(9)), 4)
        for place, key in enumerate(unit.problems)
        for teacher in FAMILIES
        for i in range(unit.study.samples)
        if teacher != OWN or (own and place % 2 == 0)
    ]
    columns = ["prompt_id", "response_id", "teacher", "correct", "num_tokens", "num_steps"]
    table = pd.DataFrame(rows, columns=columns)
    names = ["galp", *(f"lalp@{window}" for window in settings.WINDOWS)]
    scores = -1 - rng.random((len(table), len(names))) + shift
    return table.assign(**dict(zip(names, scores.T, strict=True)), mean_rank_100=5.0, reason=None)


@pytest.fixture(scope="module")
def unit() -> Unit:
    return Unit(replace(SMALL, problems=8, samples=3), 0)


def test_what_was_set_down_is_what_the_issue_asks_for():
    study = load_study()
    sizes = (study.problems, study.samples, study.epochs, study.held_out, study.seeds)
    assert sizes == (200, 4, 2, 300, 4) and study.operations == range(3, 6)
    assert study.student == "smollm2-135m" and settings.WINDOW == "4"
    assert settings.GATES == {"untrained": 0.10, "best_teacher": 0.30}
    assert settings.PREREGISTERED["changes"] == []
    assert settings.LEVELS[0] == (3, 5) and list(settings.LEVELS[-1]) == [2, 2]
    with pytest.raises(ValidationError, match="most_operations"):
        replace(study, fewest_operations=6)
    with pytest.raises(ValidationError, match="measured"):
        replace(study, measured=301)
    with pytest.raises(ValidationError, match="multiple of 2"):
        replace(study, problems=201)


def test_contrasts_are_between_arms_and_add_up():
    for contrasts in CONTRASTS.values():
        for weights in contrasts.values():
            assert set(weights) <= set(ARMS) and sum(weights.values()) == 0
    total, mix, samples = (Counter(weights) for weights in CONTRASTS["primary"].values())
    parts = {arm: mix[arm] + samples[arm] for arm in {*mix, *samples}}
    assert {arm: weight for arm, weight in parts.items() if weight} == dict(total)
    assert settings.PREDICTIONS == {
        "LALP minus GALP": "above", "composition": "above", "sample choice": "at most"}  # fmt: skip


def test_problems_of_a_seed_do_not_overlap(unit):
    parts = [unit.problems, unit.held_out, unit.others]
    assert [len(part) for part in parts] == [8, 4, 2]
    numbers = {(p.start, p.steps) for part in parts for p in part.values()}
    assert len(numbers) == 14
    assert sum(p.is_far for p in unit.held_out.values()) == 2
    measured = unit.setup.held_out.pool
    assert set(measured.prompts) <= set(unit.held_out) and len(measured.responses) == 2
    assert unit.folder == Unit(replace(unit.study, workers=9, seeds=7), 0).folder
    assert unit.folder != Unit(replace(unit.study, epochs=9), 0).folder


def test_every_arm_takes_what_its_name_says(unit):
    table = made_scores(unit)
    found, by_id = plan.select_arms(table, 0), table.set_index("response_id")
    assert list(found) == [arm for arm in ARMS if arm != BEFORE]
    mixes = {arm: Counter(by_id.loc[ids]["teacher"]) for arm, ids in found.items()}
    for rule, other in (("galp", "lalp"), ("lalp", "galp")):
        like = (f"random like {rule}", f"{other} in {rule}'s mix")
        assert all(mixes[arm] == mixes[rule] for arm in like)
    groups = table.groupby("prompt_id")
    for arm, column in (("galp", "galp"), ("lalp", "lalp@4"), ("lalp@0", "lalp@0"),
                        ("lalp@all", "lalp@all")):  # fmt: skip
        assert sorted(found[arm]) == sorted(by_id.loc[groups[column].idxmax() .map(
            table["response_id"])].index)  # fmt: skip
    assert mixes["terse"] == {"terse": 8} and mixes[OWN] == {OWN: 4}
    thirds = [by_id.loc[found[f"terse, {third}"]]["galp"].to_numpy()
              for third in ("lowest", "middle", "highest")]  # fmt: skip
    assert (np.diff(thirds, axis=0) > 0).all()
    tokens = {arm: by_id.loc[ids]["num_tokens"].sum() for arm, ids in found.items()}
    shorter, longer = sorted(["galp", "lalp"], key=tokens.get)
    assert found[f"{shorter}, equal tokens"] == found[shorter]
    assert tokens[f"{longer}, equal tokens"] <= tokens[shorter]


def test_without_own_solutions_or_without_ranks_there_are_fewer_arms(unit):
    table = made_scores(unit, own=False)
    assert set(ARMS) - set(plan.select_arms(table, 0)) == {BEFORE, OWN}
    assert list(plan.select_arms(made_scores(unit), 0, ranked=False)) == list(FAMILIES)


def test_choices_are_kept_as_a_character_each(unit):
    keys = list(unit.problems)
    ids = [f"{keys[0]}/terse/0", f"{keys[2]}/terse/2", f"{keys[7]}/{OWN}/1"]
    assert encode(ids, unit) == "a-c----q"  # five teachers of three: the own family begins at p
    assert decode("a-c----q", unit) == ids
    for chosen in plan.select_arms(made_scores(unit), 1).values():
        assert sorted(decode(encode(chosen, unit), unit)) == sorted(chosen)
    with pytest.raises(InputError, match="seed 0: 'abc' is no selection"):
        decode("abc", unit)


def test_only_right_and_different_own_solutions_in_the_common_form_are_kept(unit):
    key, problem = next(iter(unit.problems.items()))
    good = f"So. The answer is \\boxed{{{problem.answer}}}."
    texts = [
        f"Cut off. {good}",
        good,
        f"{good}\n",
        "Wrong.",
        f"Or {good}",
        f"\\boxed{{{problem.answer}}}",
        f"An{good}",
    ]
    graded = pd.DataFrame({"prompt_id": key, "text": texts, "correct": True})
    graded["correct"] = (~graded["text"].str.match("Wrong|Cut off")).astype("boolean")
    kept = keep_right(graded, unit.problems, 2)
    assert [(r.response_id, r.text) for r in kept] == [
        (f"{key}/{OWN}/0", good), (f"{key}/{OWN}/1", f"Or {good}")]  # fmt: skip
