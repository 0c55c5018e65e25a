r"""Step world: problems, and procedural teachers whose traces are all correct.

There are two families of problems. Each problem is a chain of moves from one value to the next:

- ``registers``: arithmetic modulo 10. ``a = 6 ; b +1 ; c *9 :`` asks for c, which is 3. Each
  operation changes the register before it. A move needs its operation (in the prompt) and a fact
  such as ``7 *9 = 3``, which the student must know.
- ``paths``: following arrows. ``ant fox ; ... ; a is ant ; find b c :`` asks where two moves from
  ant lead. A move needs only the arrow that leaves the present place.

Teachers write such a chain as text. They differ in step size (leaps take two moves at once),
scaffolding (sentences without content), restating (a list of all values so far), re-checking, and
variety of wording. `read_trace` reads a trace sentence by sentence and refuses anything wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np

from lalp.errors import InputError
from lalp.files import read_data
from lalp.pools.pool import Message, Pool, Prompt, Response
from lalp.steps.sentences import Span

FAMILIES = ("registers", "paths")

LABELS = tuple("abcdefghijklm")
DIGITS = tuple("0123456789")
OPERATIONS = ("+1", "+2", "+3", "+4", "+5", "*3", "*7", "*9")
_PLACES = "ant bee cat cow dog elk fox gnu hen jay owl pig yak"
PLACES = tuple(_PLACES.split(" "))

# The teachers' texts, the teachers, and the rules of the studies.
WORLD = read_data("paper/world/world.yaml")
WORDINGS = _MOVES, _CHECKS, _FILLERS = [WORLD[name] for name in ("moves", "checks", "fillers")]
NUM_WORDINGS = len(_MOVES["registers"])
_LEDGER = "so far {pairs}."
_ANSWER = r"the answer is \boxed{{ {value} }}."
_LEAP = 2  # moves in one leap
STEPS_PER_PARAGRAPH = 3
# Draws for each wanted problem. There are few short problems, so many draws repeat.
_ATTEMPTS = 100


# --- problems --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Problem:
    """A chain of moves: ``ops`` has an empty text for each move of paths.

    ``values`` holds the value before the first move and after each one.
    """

    family: str
    prompt: str
    ops: tuple[str, ...]
    values: tuple[str, ...]

    @property
    def num_moves(self) -> int:
        """Moves from the first value to the answer."""
        return len(self.ops)

    @property
    def answer(self) -> str:
        """The value after the last move."""
        return self.values[-1]


def make_problem(family: str, num_moves: int, rng: np.random.Generator) -> Problem:
    """Draw a problem.

    Raises:
        InputError: If there is no such family, or it has no problem of that length.
    """
    if family not in FAMILIES:
        raise InputError(f"there is no family {family!r}: choose {' or '.join(FAMILIES)}")
    longest = min(len(LABELS), len(PLACES)) - 1
    if not 1 <= num_moves <= longest:
        raise InputError(f"a problem of {num_moves} moves: give 1 to {longest}")
    if family == "registers":
        ops = tuple(OPERATIONS[i] for i in rng.integers(len(OPERATIONS), size=num_moves))
        values = [DIGITS[rng.integers(len(DIGITS))]]
        for sign, number in ops:
            before, by = int(values[-1]), int(number)
            values.append(str((before + by if sign == "+" else before * by) % 10))
        lines = [f"{LABELS[0]} = {values[0]}"]
        lines += [f"{label} {op}" for label, op in zip(LABELS[1:], ops, strict=False)]
    else:
        ops = ("",) * num_moves
        circle = rng.permutation(PLACES).tolist()
        values = circle[: num_moves + 1]
        pairs = list(pairwise([*circle, circle[0]]))
        lines = [" ".join(pairs[i]) for i in rng.permutation(len(pairs))]
        lines.append(f"{LABELS[0]} is {circle[0]}")
        lines.append(f"find {' '.join(LABELS[1 : num_moves + 1])}")
    return Problem(family, " ; ".join(lines) + " :", ops, tuple(values))


# --- teachers --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Teacher:
    """How a teacher writes; its text is always correct."""

    name: str  # Its name in the pool
    leap: float = 0.0  # Probability that a step takes two moves and leaves out the value between
    scaffolding: float = 0.0  # Mean number of sentences without content before a step, at most 2
    restating: float = 0.0  # Probability that a step begins with a list of all values so far
    checking: float = 0.0  # Probability that a step repeats its move at the end
    variety: int = NUM_WORDINGS  # Number of wordings in use

    def __post_init__(self) -> None:
        limits = dict.fromkeys(("leap", "restating", "checking"), (0, 1))
        limits |= {"scaffolding": (0, 2), "variety": (1, NUM_WORDINGS)}
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not low <= value <= high:  # also refuses NaN
                raise InputError(f"teacher {self.name!r}: {name} is {value}: give {low} to {high}")


@dataclass(frozen=True)
class Trace:
    """A solution: its true steps, and the sentence with the answer."""

    steps: tuple[str, ...]
    answer: str

    @property
    def text(self) -> str:
        """Steps in paragraphs of three, the answer after the last one."""
        size = STEPS_PER_PARAGRAPH
        parts = [self.steps[i : i + size] for i in range(0, len(self.steps), size)]
        return "\n\n".join(map(" ".join, parts)) + f" {self.answer}"

    @property
    def spans(self) -> list[Span]:
        """Character spans of the true steps; the answer's sentence belongs to the last one.

        As a separate step it would weigh as much as a move, but it copies one token.
        """
        text, starts = self.text, [0]
        for before, step in pairwise(self.steps):
            starts.append(text.index(step, starts[-1] + len(before)))
        return list(pairwise([*starts, len(text)]))


def write_trace(
    problem: Problem, teacher: Teacher, rng: np.random.Generator, start: int = 0
) -> Trace:
    """Solve a problem as a teacher does, from the value after ``start`` moves on.

    Lists hold only values that the trace itself has reached, so a part of a solution restates only
    what it shows.
    """
    steps, known = [], [start]
    while known[-1] < problem.num_moves:
        place = known[-1]
        # The last move cannot leap and draws no number.
        leaps = place + 1 < problem.num_moves and rng.random() < teacher.leap
        end = place + (_LEAP if leaps else 1)
        move = _fields(problem, place, end)
        sentences = []
        if len(known) > 1 and rng.random() < teacher.restating:
            sentences.append(write_list((LABELS[i], problem.values[i]) for i in known))
        for _ in range(rng.binomial(2, teacher.scaffolding / 2)):
            sentences.append(_FILLERS[rng.integers(len(_FILLERS))])
        sentences.append(_MOVES[problem.family][rng.integers(teacher.variety)].format(**move))
        if rng.random() < teacher.checking:
            sentences.append(_CHECKS[problem.family].format(**move))
        steps.append(" ".join(sentences))
        known.append(end)
    return Trace(tuple(steps), _ANSWER.format(value=problem.answer))


def write_list(pairs: Iterable[Sequence[str]]) -> str:
    """The sentence that restates labels with their values: ``so far a 6 , b 7.``."""
    return _LEDGER.format(pairs=" , ".join(map(" ".join, pairs)))


def _fields(problem: Problem, begin: int, end: int) -> dict[str, str]:
    """Possible sentences about the moves from ``begin`` to ``end``."""
    labels, ops = LABELS[begin + 1 : end + 1], problem.ops[begin:end]
    return {
        "labels": " ".join(labels),
        "ops": " ".join(ops),
        "moves": " ".join(map(" ".join, zip(labels, ops, strict=True))),
        "before": problem.values[begin],
        "after": problem.values[end],
    }


def write_alone(family: str, place: int, rng: np.random.Generator) -> tuple[str, str]:
    """A sentence about a move of a problem that is not shown, and the value that it reaches.

    ``place`` is the place of the move's label in `LABELS`.
    """
    problem = make_problem(family, place, rng)
    wording = _MOVES[family][rng.integers(NUM_WORDINGS)]
    return wording.format(**_fields(problem, place - 1, place)), problem.answer


def words() -> list[str]:
    """All words of this world, in a fixed order: the student's vocabulary."""
    texts = [*_FILLERS, _LEDGER, _ANSWER.replace("{{", "{").replace("}}", "}"), "find : ; = is"]
    texts += [text for family in FAMILIES for text in (*_MOVES[family], _CHECKS[family])]
    spaced = " ".join(texts).replace(".", " .").split()
    found = dict.fromkeys(word for word in spaced if not re.match(r"\{\w", word))
    return list(dict.fromkeys([*found, *LABELS, *DIGITS, *OPERATIONS, *PLACES]))


# --- reading a trace again -------------------------------------------------------------------


def read_trace(problem: Problem, text: str) -> None:
    """Read a solution sentence by sentence and check everything.

    Raises:
        InputError: Names the first sentence that has an unknown form or is false.
    """
    known, answered = [0], False
    for sentence in re.findall(r"\S[^.]*\.|\S[^.]*$", text):
        if answered:
            raise InputError(f"{sentence!r} comes after the answer")
        place = known[-1]
        # All correct sentences are listed here, so no wording has to be understood.
        moves = {
            wording.format(**_fields(problem, place, end)): end
            for end in range(place + 1, min(place + _LEAP, problem.num_moves) + 1)
            for wording in _MOVES[problem.family]
        }
        others = [
            _CHECKS[problem.family].format(**_fields(problem, begin, place))
            for begin in range(max(0, place - _LEAP), place)
        ]
        others += [*_FILLERS, write_list((LABELS[i], problem.values[i]) for i in known)]
        if place == problem.num_moves and sentence == _ANSWER.format(value=problem.answer):
            answered = True
        elif sentence in moves:
            known.append(moves[sentence])
        elif sentence not in others:
            where = f"not so in {problem.prompt[:60]!r}, or no sentence of this world"
            raise InputError(f"{sentence!r} is {where}")
    if not answered:
        raise InputError(f"no answer to {problem.prompt[:60]!r}")


def find_answer(text: str) -> str | None:
    """The value in the last answer of a response; None if there is none."""
    found = re.findall(r"\\boxed\{ ([^{}]+?) \}", text)
    return found[-1] if found else None


# --- pools -----------------------------------------------------------------------------------


def make_problems(
    family: str, moves: Sequence[int], count: int, seed: Sequence[int]
) -> dict[str, Problem]:
    """Different problems by prompt id, with the numbers of moves in turn.

    Raises:
        InputError: If there are too few.
    """
    rng = np.random.default_rng(seed)
    found: dict[str, Problem] = {}
    for attempt in range(_ATTEMPTS * count):
        problem = make_problem(family, moves[attempt % len(moves)], rng)
        found.setdefault(problem.prompt, problem)
        if len(found) == count:
            break
    else:
        lengths = list(moves)
        raise InputError(f"{family}: there are no {count} problems of {lengths} moves: take fewer")
    name = "-".join(map(str, seed))
    return {f"{family}-{name}-{i:04d}": p for i, p in enumerate(found.values())}


def as_prompts(problems: Mapping[str, Problem]) -> dict[str, Prompt]:
    """Problems as the project's prompts, with their reference answers."""
    return {
        key: Prompt(key, (Message("user", problem.prompt),), problem.answer)
        for key, problem in problems.items()
    }


def make_pool(
    problems: Mapping[str, Problem], teachers: Sequence[Teacher], samples: int, seed: int
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
