"""Written teachers: every solution is right, and their knobs are crossed."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from lalp.errors import InputError
from lalp.grading.answers import extract_answer
from lalp.paper.words import teachers
from lalp.paper.words.problems import Problem, make_problems
from lalp.paper.words.settings import TEACHERS
from lalp.paper.words.teachers import STYLES, WORDINGS, Style, Teacher, write_solution
from lalp.steps.sentences import split_sentences
from tests.paper.words.test_problems import HAND

SET, FILLER = Style(True, 0.0), set(WORDINGS["filler"])
BY_NAME = {teacher.name: teacher for teacher in TEACHERS}
ANSWER = r"The answer is \boxed{11}."


def solve(problem: Problem, style: Style = SET, seed: int = 0, **habits: float) -> str:
    return write_solution(problem, Teacher("any", **habits), style, np.random.default_rng(seed))


def sentences(text: str) -> list[str]:
    return [text[a:b].strip() for a, b in split_sentences(text)]


def test_solutions_by_hand():
    one, two, three = ("We have 5 + 3 = 8, so Bob has 8 pens.",
                       "We have 8 * 2 = 16, so Cy has 16 pens.",
                       "We have 16 - 5 = 11, so Di has 11 pens.")  # fmt: skip
    assert solve(HAND) == f"{one} {two} {three} {ANSWER}"
    leap = "We have (5 + 3) * 2 = 16, so Cy has 16 pens."
    assert solve(HAND, leaping=1.0) == f"{leap} {three} {ANSWER}"
    recalls = ("Recall that Ann has 5 pens.",
               "Recall that Bob has 8 pens, and that Ann has 5 pens.",
               "Recall that Cy has 16 pens, and that Ann has 5 pens.")  # fmt: skip
    pairs = zip(recalls, (one, two, three), strict=True)
    assert solve(HAND, restating=1.0) == " ".join([*(" ".join(pair) for pair in pairs), ANSWER])
    wrong = sentences(solve(HAND, backtracking=1.0))
    assert wrong[2::3] == [one, two, three] and wrong[-1] == ANSWER
    assert all(text in WORDINGS["wait"] for text in wrong[1:9:3])
    assert not {one, two, three} & set(wrong[0:9:3])


def test_a_leap_never_hides_a_value_that_is_needed_later():
    steps = (*HAND.steps[:2], HAND.steps[2].__class__("subtract", 8, far=1))
    problem = Problem(HAND.story, HAND.sentences, HAND.told, 5, steps, HAND.clauses)
    texts = sentences(solve(problem, leaping=1.0))
    assert "Bob has 8 pens" in texts[0] and "(8 * 2) - 8 = 8" in texts[1]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(TEACHERS), st.integers(0, 3))
def test_every_sum_is_right_or_taken_back_and_grading_reads_the_answer(seed, teacher, number):
    for key, problem in make_problems([3, 4, 5], 4, seed).items():
        text = teachers.written_solution(problem, key, teacher, number, seed)
        assert text == teachers.written_solution(problem, key, teacher, number, seed)
        assert extract_answer(text) == problem.answer
        found = sentences(text)
        known = [problem.values[0]]
        for sentence, after in pairwise(found):
            if equation := re.search(r"([(\d][\d+*/() -]*) = (\d+)", sentence):
                is_right = eval(equation[1]) == int(equation[2])
                assert is_right != (after in WORDINGS["wait"])
                if is_right:
                    known.append(int(equation[2]))
                    assert known[-1] in problem.values
        assert known[-1] == int(problem.answer)
        # One sentence for each move, filler, recall or wait: the steps that LALP sees.
        assert len(found) == len(re.findall(r"[.?](?: |$)", text))


@pytest.fixture(scope="module")
def written() -> dict[tuple[str, int], list[list[str]]]:
    """Sentences of many solutions, by teacher and number."""
    problems = make_problems([3, 4, 5], 60, 1)
    return {
        (teacher.name, number): [
            sentences(teachers.written_solution(problem, key, teacher, number, 1))
            for key, problem in problems.items()
        ]
        for teacher in TEACHERS
        for number in range(4)
    }


def test_wording_and_chatter_are_crossed_with_every_habit(written):
    assert {(style.is_set, style.chatter > 0) for style in STYLES} == {
        (False, False), (False, True), (True, False), (True, True)}  # fmt: skip
    marks = {
        "leaping": lambda s: "(" in s,
        "restating": lambda s: s.startswith("Recall"),
        "backtracking": lambda s: s in WORDINGS["wait"],
    }
    for (name, number), solutions in written.items():
        style, flat = STYLES[number], [s for solution in solutions for s in solution]
        moves = [s for s in flat if re.search(r" = \d", s)]
        assert style.is_set == all(s.startswith("We have") for s in moves)
        rate = sum(s in FILLER for s in flat) / len(moves)
        expected = BY_NAME[name].filler + style.chatter
        # A wrong move is a move too, but gets no filler of its own.
        assert rate == pytest.approx(expected, abs=0.35) and (rate == 0) == (expected == 0)
        for habit, mark in marks.items():
            assert any(map(mark, flat)) == (habit == name)
    # A habit is as frequent in every style.
    for habit, mark in marks.items():
        shares = [np.mean([any(map(mark, solution)) for solution in written[habit, number]])
                  for number in range(4)]  # fmt: skip
        assert np.ptp(shares) < 0.3 and min(shares) > 0.5


def test_pools_hold_everyone_and_one_each_takes_turns():
    problems = make_problems([2, 3], 12, 0)
    pool = teachers.written_pool(problems, TEACHERS, 2, 0)
    assert len(pool.responses) == 12 * 5 * 2 and all(r.correct for r in pool.responses)
    assert set(pool.prompts) == set(problems)
    texts = {r.response_id: r.text for r in pool.responses}
    fewer = teachers.written_pool(problems, TEACHERS[3:], 1, 0)
    assert all(texts[r.response_id] == r.text for r in fewer.responses)
    turns = [r.teacher for r in teachers.one_each(problems, TEACHERS, 0).responses]
    assert turns == [TEACHERS[i % 5].name for i in range(12)]


def test_what_is_no_solution_is_refused():
    for text in ("So it is 12. The answer is \\boxed{12}.", "It is \\boxed{11}.", "Nothing."):
        with pytest.raises(InputError, match="is no solution of 'Ann has 5 pens"):
            teachers.check_solution(HAND, text)
    with pytest.raises(ValidationError):
        Teacher("any", leaping=1.5)
