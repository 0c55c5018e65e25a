"""The control of a selection within limits: same numbers per teacher, uniform among all such."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from lalp.errors import InputError
from lalp.selection import exchange
from lalp.selection.exchange import Candidates
from lalp.selection.matched import select_control, select_random_matched
from lalp.selection.rules import select, teacher_mix
from tests.selection.score_tables import chosen_ids, scores_table, steady, tables
from tests.selection.test_limits import BASIC, LIMITS, by_id


@pytest.fixture(autouse=True, scope="module")
def few_sweeps() -> Iterator[None]:
    """What holds after each sweep needs few of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exchange, "_NUM_SWEEPS", 20)
        yield


@settings(steady, max_examples=40)
@given(
    table=tables(),
    rule=st.sampled_from(BASIC[1:]),
    limits=LIMITS,
    seed=st.integers(0, 3),
    order=st.randoms(use_true_random=False),
)
def test_the_control_has_the_same_teachers_and_keeps_every_limit(table, rule, limits, seed, order):
    try:
        like = select(table, rule, seed=seed, **limits)
    except InputError:
        assume(False)
    control = select_control(table, rule, seed=seed, **limits)
    pd.testing.assert_frame_equal(teacher_mix(control), teacher_mix(like))
    assert control.attrs["left_out"] == like.attrs["left_out"]
    assert not any(correct is False for correct in control["correct"])
    assert not control.duplicated(["prompt_id", "response_id"]).any()
    if not {"quota", "top", "max_tokens"} & limits.keys():
        assert list(control["prompt_id"]) == list(like["prompt_id"])
    assert control["prompt_id"].value_counts().max() <= limits["per_prompt"]
    if limits.get("where") == "correct":
        assert control["correct"].tolist() == [True] * len(control)
    if "max_tokens" in limits:
        assert control["num_tokens"].sum() <= limits["max_tokens"]
    if "min_score" in limits:
        column = "galp" if rule.startswith("galp") else "lalp@4"
        assert (control[column] >= limits["min_score"]).all()
    rows = order.sample(range(len(table)), len(table))
    shuffled = select_control(table.iloc[rows], rule, seed=seed, **limits)
    assert by_id(control) == by_id(shuffled)


@settings(steady, max_examples=15)
@given(table=tables(), rule=st.sampled_from(BASIC[1:]), seed=st.integers(0, 3))
def test_without_a_limit_it_is_the_matched_random_selection(table, rule, seed):
    matched = select_random_matched(table, select(table, rule), seed=seed)
    assert chosen_ids(select_control(table, rule, seed=seed)) == chosen_ids(matched)


def test_a_control_of_weighted_responses_weights_them_alike():
    table = scores_table([("p", f"r{i}", "A") for i in range(4)])
    control = select_control(table, "galp", weights=True, per_prompt=2)
    assert control["weight"].tolist() == [1.0, 1.0]


def matching_sets(rows: Candidates, start: np.ndarray, per_prompt, max_tokens) -> set[tuple]:
    """Every set of rows that the chain may reach, by trying all."""

    def counts(chosen: tuple, of: np.ndarray) -> Counter:
        return Counter(of[list(chosen)].tolist())

    first = tuple(np.flatnonzero(start))
    found = set()
    for chosen in itertools.combinations(range(len(start)), len(first)):
        prompts = counts(chosen, rows.prompt)
        fits = max_tokens is None or rows.num_tokens[list(chosen)].sum() <= max_tokens
        same = prompts == counts(first, rows.prompt)
        covered = same if per_prompt is None else max(prompts.values()) <= per_prompt
        if counts(chosen, rows.teacher) == counts(first, rows.teacher) and covered and fits:
            found.add(chosen)
    return found


# Teachers of the candidates of each prompt, and which of all are chosen at first.
POOLS = {
    "two of each": (["ABC", "ABC", "AB"], [0, 1, 4, 5]),
    "a cycle of three": (["AB", "BC", "CA"], [0, 2, 4]),
    "same teacher twice": (["AABB", "AB", "BA"], [0, 1, 5, 6]),
}


@pytest.mark.parametrize(("per_prompt", "max_tokens"), [(None, None), (1, None), (2, None), (2, 9)])
@pytest.mark.parametrize("name", POOLS)
def test_the_chain_visits_every_matching_set_equally_often(name, per_prompt, max_tokens):
    teachers, chosen = POOLS[name]
    flat = "".join(teachers)
    rows = Candidates(
        prompt=np.repeat(np.arange(len(teachers)), [len(some) for some in teachers]),
        teacher=np.array(["ABC".index(teacher) for teacher in flat]),
        num_tokens=1 + np.arange(len(flat)) % 4,
    )
    state = np.isin(np.arange(len(flat)), chosen)
    if per_prompt and np.bincount(rows.prompt[state]).max() > per_prompt:
        pytest.skip("the start holds more per prompt")
    if max_tokens and rows.num_tokens[state].sum() > max_tokens:
        pytest.skip("the start holds more tokens")
    feasible = matching_sets(rows, state, per_prompt, max_tokens)
    generator, visits = np.random.default_rng(1), Counter()
    for step in range(3000):
        exchange._sweep(rows, state, generator, per_prompt, max_tokens)
        if step % 6 == 0:  # apart enough to be nearly independent
            visits[tuple(np.flatnonzero(state).tolist())] += 1
    assert set(visits) <= feasible
    assert len(visits) > 0.9 * len(feasible)
    expected = np.full(len(feasible), 500 / len(feasible))
    observed = [visits[one] for one in sorted(feasible)]
    assert stats.chisquare(observed, expected).pvalue > 1e-3


def test_a_control_forgets_where_it_started(monkeypatch):
    monkeypatch.setattr(exchange, "_NUM_SWEEPS", 200)
    # Four teachers, two of forty prompts' candidates chosen each: one in two by chance.
    table = scores_table(
        [(f"p{i}", f"{t}{i}", t, -j) for i in range(40) for j, t in enumerate("ABCD")],
        "prompt_id response_id teacher galp",
    )
    table["galp"] -= np.arange(len(table)) % 7 / 3
    like = set(by_id(select(table, "galp", per_prompt=2)))
    shared = [
        len(like & set(by_id(select_control(table, "galp", per_prompt=2, seed=seed)))) / len(like)
        for seed in range(3)
    ]
    again = [set(by_id(select_control(table, "galp", per_prompt=2, seed=s))) for s in (1, 2)]
    by_chance = len(again[0] & again[1]) / len(like)
    assert np.mean(shared) == pytest.approx(by_chance, abs=0.12)
