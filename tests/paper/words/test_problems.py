"""Worded problems: numbers, references to far values, and wording, checked by other means."""

from __future__ import annotations

import re
from string import Formatter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lalp.errors import InputError
from lalp.paper.words import problems as world
from lalp.paper.words.problems import STORIES, Problem, Step, make_problems
from lalp.steps.sentences import split_sentences

HAND = Problem(
    "friends",
    ("Ann has 5 pens.", "Bob has 3 more than Ann.", "Cy has twice as many as Bob.",
     "Di has as many as Cy has more than Ann.", "How many?"),
    (0, 1, 2, 3),
    5,
    (Step("add", 3), Step("times", 2), Step("subtract", 5, far=0)),
    tuple(f"{name} has {{value}} pens" for name in ("Ann", "Bob", "Cy", "Di")),
)  # fmt: skip
some_problems = st.builds(
    lambda seed, operations: make_problems(operations, 6, seed),
    st.integers(0, 10_000),
    st.sampled_from([[3, 4, 5], [3], [2, 3], [2]]),
)


def test_values_by_hand():
    assert HAND.values == (5, 8, 16, 11) and HAND.answer == "11" and HAND.is_far
    assert HAND.state(2) == "Cy has 16 pens" and HAND.state(2, 17) == "Cy has 17 pens"
    assert HAND.read_later(0, 2) and not HAND.read_later(1, 1)
    for kind, value, number in (("divide", 5, 2), ("power", 5, 2)):
        with pytest.raises(InputError, match="no whole number, or is no operation"):
            world.apply(kind, value, number)


@settings(max_examples=30, deadline=None)
@given(some_problems)
def test_numbers_are_told_once_and_stay_in_range(found):
    for problem in found.values():
        told = [problem.start]
        told += [s.number for s in problem.steps if s.kind in ("add", "subtract") and s.far is None]
        assert [int(n) for n in re.findall(r"\d+", problem.prompt)] == told
        value = problem.start
        for step, after in zip(problem.steps, problem.values[1:], strict=True):
            if step.far is not None:
                assert step.number == problem.values[step.far]
            signs = {"add": "+", "subtract": "-", "times": "*", "divide": "/"}
            value = eval(f"{value} {signs[step.kind]} {step.number}")
            assert value == after and 2 <= after <= 60


@settings(max_examples=30, deadline=None)
@given(some_problems)
def test_a_far_value_is_three_sentences_back_by_the_splitter(found):
    for place, problem in enumerate(found.values()):
        cut = [problem.prompt[a:b].strip() for a, b in split_sentences(problem.prompt)]
        assert cut == list(problem.sentences)
        far = [(k, step) for k, step in enumerate(problem.steps, 1) if step.far is not None]
        assert len(far) == place % 2 == problem.is_far
        for number, step in far:
            # The sentences are found by the number that they tell, or by what they call the value.
            reads, tells = problem.told[number], problem.told[step.far]
            assert reads - tells >= 3
            name = _place_of(problem, step.far)
            assert name in cut[reads].lower() and name in cut[tells].lower()


def _place_of(problem: Problem, place: int) -> str:
    """What a story calls the place of a value: that which sets its clause apart from others."""
    kind = STORIES["stories"][problem.story]["places"]
    known = STORIES["ordered"] | STORIES["unordered"]
    clause = problem.clauses[place]
    return max((name for name in known[kind] if name in clause), key=len).lower()


def test_the_same_seed_gives_the_same_problems_and_none_twice():
    found = make_problems([3, 4, 5], 60, 3)
    assert found == make_problems([3, 4, 5], 60, 3)
    assert found != make_problems([3, 4, 5], 60, 4)
    assert len({(p.start, p.steps) for p in found.values()}) == 60
    assert sum(p.is_far for p in found.values()) == 30
    assert [len(p.steps) for p in found.values()][:6] == [3, 3, 4, 4, 5, 5]
    assert len({p.story for p in found.values()}) == len(STORIES["stories"]) == 12


def test_problems_that_do_not_exist_are_refused():
    with pytest.raises(InputError, match="2 to 6 operations, not 7"):
        make_problems([7], 2, 0)
    with pytest.raises(InputError, match="no 9000 problems"):
        world._ATTEMPTS, before = 0, world._ATTEMPTS
        try:
            make_problems([2], 9000, 0)
        finally:
            world._ATTEMPTS = before


@pytest.mark.parametrize("name", STORIES["stories"])
def test_every_sentence_tells_what_its_operation_needs(name):
    needed = {"start": {"n"}, "add": {"n"}, "subtract": {"n"}, "times": {"fold"},
              "divide": {"share"}, "far_add": {"far"}, "far_subtract": {"far"}}  # fmt: skip
    known = {"here", "Here", "before", "far", "n", "fold", "share", "name", "thing"}
    story = STORIES["stories"][name]
    for kind, texts in story.items():
        if kind in ("places", "things"):
            continue
        for text in [texts] if kind == "state" else texts:
            fields = {field for _, field, _, _ in Formatter().parse(text) if field}
            assert needed.get(kind, set()) <= fields <= known | {"value"}
            assert not re.search(r"\d", text)
            assert text.endswith("?" if kind == "ask" else "}" if kind == "state" else ".") or (
                kind == "state"
            )
    assert not any(re.search(r"\d", detail) for detail in STORIES["details"])


def test_prompts_carry_the_answer_and_the_papers_system_prompt():
    prompt = world.as_prompts({"k": HAND})["k"]
    assert prompt.answer == "11" and prompt.messages[1].content == HAND.prompt
    assert "\\boxed" in prompt.messages[0].content
