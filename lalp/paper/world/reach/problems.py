r"""The family `registers-reach`: each operand was set ``reach`` moves back.

A prompt reads like one of `registers`: ``a = 6 ; b +1 ; c *9 ; d +2 :``. With a reach of 1 it means
the same: each operation changes the register before it. With a reach of 4 it changes the one four
before it, or ``a`` if there is none so far back. The answer is the last ``reach`` registers, so
every move counts at every reach.

Only the law differs between reaches: prompts, labels, operations and wordings are the same. No
teacher leaps. If the operand is four moves back, a window of one step does not hold it, unless the
step before or the step itself restates it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from lalp.errors import InputError
from lalp.paper.world import problems as world
from lalp.paper.world.problems import LABELS, Problem, Teacher, Trace, as_prompts, write_list
from lalp.pools.pool import Pool, Response
from lalp.steps.sentences import Span

FAMILY = "registers-reach"
REACHES = (1, 4)
LISTED = 4
"""Registers of a list of values at most: the last ones, as many as any move reads back."""
_BASE = "registers"  # the source of these prompts and wordings
_MOVES, _CHECKS, FILLERS = world.WORDINGS
MOVES, CHECK = _MOVES[_BASE], _CHECKS[_BASE]
_ANSWER = r"the answer is \boxed{{ {value} }}."
# Draws for each wanted problem: short ones repeat.
_ATTEMPTS = 100


@dataclass(frozen=True)
class ReachProblem(Problem):
    """A problem whose moves read the register ``reach`` places before their own."""

    reach: int

    @property
    def answer(self) -> str:
        """The last ``reach`` registers as a list has them: ``c 4 , d 8 , e 8 , f 2`` of reach 4."""
        pairs = zip(LABELS, self.values, strict=False)
        return " , ".join(map(" ".join, list(pairs)[-self.reach :]))

    def operand(self, place: int) -> int:
        """The register that the move to ``place`` reads: the first one if none is so far back.

        Example:
            >>> problem = make_problem(4, 8, np.random.default_rng(0))
            >>> [problem.operand(place) for place in range(1, 9)]
            [0, 0, 0, 0, 1, 2, 3, 4]
        """
        return max(0, place - self.reach)


def make_problem(reach: int, num_moves: int, rng: np.random.Generator) -> ReachProblem:
    """Draw a problem; its prompt is that of `registers` under the same random numbers.

    Raises:
        InputError: If there is no such reach, or no problem of that length.
    """
    if reach not in REACHES:
        raise InputError(f"there is no reach {reach!r}: choose {' or '.join(map(str, REACHES))}")
    drawn = world.make_problem(_BASE, num_moves, rng)
    values = [drawn.values[0]]
    for place, (sign, number) in enumerate(drawn.ops, start=1):
        before, by = int(values[max(0, place - reach)]), int(number)
        values.append(str((before + by if sign == "+" else before * by) % 10))
    return ReachProblem(FAMILY, drawn.prompt, drawn.ops, tuple(values), reach)


def make_problems(
    reach: int, moves: Sequence[int], count: int, seed: Sequence[int]
) -> dict[str, ReachProblem]:
    """Different problems by prompt id, with the numbers of moves in turn.

    Raises:
        InputError: If there are too few.
    """
    rng = np.random.default_rng(seed)
    found: dict[str, ReachProblem] = {}
    for attempt in range(_ATTEMPTS * count):
        problem = make_problem(reach, moves[attempt % len(moves)], rng)
        found.setdefault(problem.prompt, problem)
        if len(found) == count:
            name = "-".join(map(str, seed))
            return {f"reach{reach}-{name}-{i:04d}": p for i, p in enumerate(found.values())}
    raise InputError(f"there are no {count} problems of {list(moves)} moves: take fewer")


# --- solutions -------------------------------------------------------------------------------


def shown_before(start: int) -> list[int]:
    """Registers that a part of a solution from ``start`` on is told, as its own lists have them."""
    return list(range(max(0, start - LISTED + 1), start + 1))


def write_trace(
    problem: ReachProblem, teacher: Teacher, rng: np.random.Generator, start: int = 0
) -> Trace:
    """Solve a problem as a teacher does, from the value after ``start`` moves on.

    A list of values holds the last `LISTED` registers: at reach 4, the first of them is the operand
    of the move that follows. At reach 1 that is the last one.

    Raises:
        InputError: If the teacher leaps: moves of independent registers do not allow it.
    """
    if teacher.leap:
        raise InputError(f"teacher {teacher.name!r} leaps: in {FAMILY} no teacher does")
    steps, known = [], shown_before(start)
    for place in range(start + 1, problem.num_moves + 1):
        move = _fields(problem, place)
        sentences = []
        if place > 1 and rng.random() < teacher.restating:
            sentences.append(write_values(problem, known[-LISTED:]))
        for _ in range(rng.binomial(2, teacher.scaffolding / 2)):
            sentences.append(FILLERS[rng.integers(len(FILLERS))])
        sentences.append(MOVES[rng.integers(teacher.variety)].format(**move))
        if rng.random() < teacher.checking:
            sentences.append(CHECK.format(**move))
        steps.append(" ".join(sentences))
        known.append(place)
    return Trace(tuple(steps), _ANSWER.format(value=problem.answer))


def write_values(problem: ReachProblem, places: Sequence[int]) -> str:
    """The sentence that restates some registers."""
    return write_list((LABELS[i], problem.values[i]) for i in places)


def _fields(problem: ReachProblem, place: int) -> dict[str, str]:
    """Possible sentences about the move to ``place``."""
    label, op = LABELS[place], problem.ops[place - 1]
    return {
        "labels": label,
        "ops": op,
        "moves": f"{label} {op}",
        "before": problem.values[problem.operand(place)],
        "after": problem.values[place],
    }


def read_trace(problem: ReachProblem, text: str) -> None:
    """Read a solution sentence by sentence and check everything.

    Raises:
        InputError: Names the first sentence that has an unknown form or is false.
    """
    known, answered = 0, False
    for sentence in re.findall(r"\S[^.]*\.|\S[^.]*$", text):
        if answered:
            raise InputError(f"{sentence!r} comes after the answer")
        # All correct sentences are listed here, so no wording has to be understood.
        others = [*FILLERS, write_values(problem, shown_before(known))]
        if known:
            others.append(CHECK.format(**_fields(problem, known)))
        ended = known == problem.num_moves
        if ended and sentence == _ANSWER.format(value=problem.answer):
            answered = True
        elif not ended and sentence in _wordings(problem, known + 1):
            known += 1
        elif sentence not in others:
            where = f"not so in {problem.prompt[:60]!r}, or no sentence of this world"
            raise InputError(f"{sentence!r} is {where}")
    if not answered:
        raise InputError(f"no answer to {problem.prompt[:60]!r}")


def _wordings(problem: ReachProblem, place: int) -> list[str]:
    return [wording.format(**_fields(problem, place)) for wording in MOVES]


def make_pool(
    problems: Mapping[str, ReachProblem], teachers: Sequence[Teacher], samples: int, seed: int
) -> tuple[Pool, dict[str, list[Span]]]:
    """Solutions of every problem by every teacher, each read again before it enters.

    Returns:
        The pool, and the true steps by response id.
    """
    responses, steps = [], {}
    rng = np.random.default_rng(seed)
    for (key, problem), teacher, i in product(problems.items(), teachers, range(samples)):
        trace = write_trace(problem, teacher, rng)
        read_trace(problem, trace.text)
        name = f"{key}/{teacher.name}/{i}"
        responses.append(Response(name, key, teacher.name, trace.text, correct=True))
        steps[name] = trace.spans
    return Pool(as_prompts(problems), tuple(responses)), steps
