"""Five written teachers: their solutions are always right, in the manner of reasoning models.

A teacher has one habit: leaps (two operations in a sentence), restated values, sentences without
content, or a wrong step and then its correction; the terse one has none. Each writes in four
styles: in one set wording or in varied ones, with chatter or without. So wording and chatter, which
make text likely, are crossed with the habits, which may make it useful or not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass as plain_dataclass
from itertools import product
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from lalp.errors import InputError
from lalp.files import read_data
from lalp.grading.answers import extract_answer
from lalp.paper.words.problems import Problem, as_prompts
from lalp.pools.pool import Pool, Response
from lalp.settings import STRICT

WORDINGS = read_data("paper/words/wordings.yaml")
_SIGNS = {"add": "+", "subtract": "-", "times": "*", "divide": "/"}
_SLIPS = (-10, -2, -1, 1, 2, 10)  # how far a wrong result is off
_Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, config=STRICT)
class Teacher:
    """A teacher's habits."""

    name: str
    leaping: _Share = 0.0  # of moves that take two operations at once, where that is possible
    restating: _Share = 0.0  # of moves before which the operands are restated
    filler: _Share = 0.0  # mean sentences without content per move
    backtracking: _Share = 0.0  # of moves that are wrong at first


@plain_dataclass(frozen=True)
class Style:
    """How one solution is worded."""

    is_set: bool  # all moves in the same wording
    chatter: float  # mean sentences without content per move, besides the teacher's own


# A solution's number decides its style, so four solutions hold every combination.
STYLES = tuple(Style(*style) for style in product((True, False), (0.0, 0.8)))


def write_solution(
    problem: Problem, teacher: Teacher, style: Style, rng: np.random.Generator
) -> str:
    """Solve a problem in words, sentence by sentence, and state the answer in a box."""
    sentences, place = [], 1
    while place <= len(problem.steps):
        leaps = _may_leap(problem, place) and rng.random() < teacher.leaping
        last = place + leaps
        if rng.random() < teacher.restating:
            sentences.append(_recall(problem, place, last))
        for _ in range(rng.binomial(2, (teacher.filler + style.chatter) / 2)):
            sentences.append(_one(WORDINGS["filler"], rng))
        moves = WORDINGS["moves"][:1] if style.is_set else WORDINGS["moves"]
        if rng.random() < teacher.backtracking:
            slips = [n for n in _SLIPS if problem.values[last] + n > 0]
            sentences.append(_move(problem, place, last, _one(moves, rng), _one(slips, rng)))
            sentences.append(_one(WORDINGS["wait"], rng))
        sentences.append(_move(problem, place, last, _one(moves, rng)))
        place = last + 1
    return " ".join([*sentences, WORDINGS["answer"].format(answer=problem.answer)])


def _one(items: Sequence[Any], rng: np.random.Generator) -> Any:
    return items[rng.integers(len(items))]


def _may_leap(problem: Problem, place: int) -> bool:
    """Whether the move to ``place`` may go on to the next: its value is not needed later."""
    return place < len(problem.steps) and not problem.read_later(place, place + 1)


def _recall(problem: Problem, place: int, last: int) -> str:
    """Restate the value before a move, and the far one that it reads, or else the one before."""
    far = [step.far for step in problem.steps[place - 1 : last] if step.far is not None]
    other = far[0] if far else place - 2
    if other < 0 or other == place - 1:
        return WORDINGS["recall"]["one"].format(state=problem.state(place - 1))
    states = {"state": problem.state(place - 1), "other": problem.state(other)}
    return WORDINGS["recall"]["two"].format(**states)


def _move(problem: Problem, place: int, last: int, wording: str, slip: int = 0) -> str:
    """The sentence that computes the values from ``place`` to ``last``, off by a slip."""
    steps = problem.steps[place - 1 : last]
    total = str(problem.values[place - 1])
    for number, step in enumerate(steps):
        total = f"({total})" if number else total
        total = f"{total} {_SIGNS[step.kind]} {step.number}"
    result = problem.values[last] + slip
    return wording.format(sum=f"{total} = {result}", state=problem.state(last, result))


def ends_as_asked(text: str, answer: str) -> bool:
    r"""Whether a solution ends in the answer in the form that all teachers use.

    Example:
        >>> ends_as_asked(r"So it is 7. The answer is \boxed{7}.", "7")
        True
    """
    return text.rstrip().endswith(WORDINGS["answer"].format(answer=answer))


def check_solution(problem: Problem, text: str) -> None:
    """InputError unless a solution ends in the answer as asked, and grading reads it there."""
    found = extract_answer(text)
    if found != problem.answer or not ends_as_asked(text, problem.answer):
        wanted = f"its answer reads {found!r}, not {problem.answer!r} as asked"
        raise InputError(f"{text[-60:]!r} is no solution of {problem.prompt[:60]!r}: {wanted}")


def written_solution(problem: Problem, key: str, teacher: Teacher, number: int, seed: int) -> str:
    """A teacher's solution of that number to the problem of prompt ``key``, checked."""
    # By place and name, so that no solution depends on how many others are written.
    marks = [seed, number, *teacher.name.encode(), *key.encode()]
    style = STYLES[number % len(STYLES)]
    text = write_solution(problem, teacher, style, np.random.default_rng(marks))
    check_solution(problem, text)
    return text


def written_pool(
    problems: Mapping[str, Problem], teachers: Sequence[Teacher], samples: int, seed: int
) -> Pool:
    """Solutions of every problem by every teacher, ``samples`` each, the styles in turn."""
    responses = [
        Response(
            f"{key}/{teacher.name}/{number}",
            key,
            teacher.name,
            written_solution(problem, key, teacher, number, seed),
            correct=True,
        )
        for (key, problem), teacher, number in product(problems.items(), teachers, range(samples))
    ]
    return Pool(as_prompts(problems), tuple(responses))


def one_each(problems: Mapping[str, Problem], teachers: Sequence[Teacher], seed: int) -> Pool:
    """One solution of every problem, teachers in turn, and each teacher's styles in turn."""
    responses = []
    for place, (key, problem) in enumerate(problems.items()):
        number, who = divmod(place, len(teachers))
        teacher, number = teachers[who], number % len(STYLES)
        text = written_solution(problem, key, teacher, number, seed)
        name = f"{key}/{teacher.name}/{number}"
        responses.append(Response(name, key, teacher.name, text, correct=True))
    return Pool(as_prompts(problems), tuple(responses))
