"""Worded arithmetic problems: a story that tells one value after another, and asks for the last.

Each sentence of a story changes the value before it by a number, or, in half of the problems, once
by an earlier value (``as many as on Monday``). Such a far value was told at least three sentences
back, so whoever solves the problem has to fetch it. All values are whole numbers from 2 to 60.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from lalp.errors import InputError
from lalp.files import read_data
from lalp.pools.pool import Message, Prompt
from lalp.sampling.settings import SYSTEM_PROMPT

STORIES = read_data("paper/words/stories.yaml")
FAR = 3
"""A far value was told at least this many sentences before the sentence that refers to it."""
KINDS = ("add", "subtract", "times", "divide")
_NUMBERS = STORIES["numbers"]
_LEAST, _MOST = 2, _NUMBERS["most"]
_DETAILS = 2  # sentences of a problem that change no value
_ATTEMPTS = 100  # draws for each wanted problem: some have no fitting numbers, some repeat


@dataclass(frozen=True)
class Step:
    """One operation on the value before it."""

    kind: str  # one of `KINDS`
    number: int  # what is added, taken away, multiplied or divided by
    far: int | None = None  # the place of the value that the number is, if it is told as such


@dataclass(frozen=True)
class Problem:
    """A problem; its values are counted from 0, the one that the story begins with."""

    story: str
    sentences: tuple[str, ...]  # the question is the last
    told: tuple[int, ...]  # the sentence that tells each value
    start: int
    steps: tuple[Step, ...]
    clauses: tuple[str, ...]  # says each value: ``on Monday Mia has {value} coins``

    @property
    def prompt(self) -> str:
        """The text of the problem."""
        return " ".join(self.sentences)

    @property
    def values(self) -> tuple[int, ...]:
        """All values, first to last.

        Example:
            >>> steps = (Step("add", 3), Step("times", 2), Step("subtract", 5, far=0))
            >>> Problem("", (), (), 5, steps, ()).values
            (5, 8, 16, 11)
        """
        found = [self.start]
        for step in self.steps:
            found.append(apply(step.kind, found[-1], step.number))
        return tuple(found)

    @property
    def answer(self) -> str:
        """The last value."""
        return str(self.values[-1])

    @property
    def is_far(self) -> bool:
        """Whether an operation refers to a value far back."""
        return any(step.far is not None for step in self.steps)

    def read_later(self, place: int, after: int) -> bool:
        """Whether an operation after that to value ``after`` refers to the value ``place``."""
        return any(step.far == place for step in self.steps[after:])

    def state(self, place: int, value: int | None = None) -> str:
        """A value in words; another number may stand in its place."""
        return self.clauses[place].format(value=self.values[place] if value is None else value)


def apply(kind: str, value: int, number: int) -> int:
    """The result of an operation; InputError if it is not whole or there is no such kind.

    Example:
        >>> apply("divide", 12, 4)
        3
    """
    if kind == "divide" and value % number == 0:
        return value // number
    results = {"add": value + number, "subtract": value - number, "times": value * number}
    if kind not in results:
        raise InputError(f"{kind} {value} by {number} gives no whole number, or is no operation")
    return results[kind]


def make_problems(
    operations: Sequence[int], count: int, seed: int, name: str = "words"
) -> dict[str, Problem]:
    """Different problems by prompt id; every second one refers to a far value.

    No two have the same numbers and operations, whatever their stories. Numbers of operations are
    taken in turn.

    Raises:
        InputError: If there are too few.
    """
    rng = np.random.default_rng([seed, len(operations), *operations])
    found: dict[object, Problem] = {}
    for _ in range(_ATTEMPTS * count):
        place = len(found)
        if place == count:
            return {f"{name}-{i:04d}": p for i, p in enumerate(found.values())}
        number = operations[place // 2 % len(operations)]
        if problem := make_problem(number, place % 2 == 1, rng):
            found.setdefault((problem.start, problem.steps), problem)
    raise InputError(f"there are no {count} problems of {list(operations)} operations: take fewer")


def make_problem(operations: int, is_far: bool, rng: np.random.Generator) -> Problem | None:
    """Draw a problem; None if the numbers drawn on the way fit no operation.

    Raises:
        InputError: If there is no problem with so many operations.
    """
    if not 2 <= operations <= 6:
        raise InputError(f"a problem has 2 to 6 operations, not {operations}")
    # A detail stands after one of the values, but not before the question.
    gaps = np.sort(rng.integers(operations, size=_DETAILS))
    told = tuple(place + int((gaps < place).sum()) for place in range(operations + 1))
    pair = _draw_far(told, rng) if is_far else None
    if is_far and pair is None:
        return None
    low, high = _NUMBERS["start"]
    start = int(rng.integers(low, high + 1))
    steps = _draw_steps(start, operations, pair, rng)
    return None if steps is None else _tell(start, steps, told, rng)


def _draw_far(told: Sequence[int], rng: np.random.Generator) -> tuple[int, int] | None:
    """The place of an operation and that of the far value it refers to; None if there is none."""
    places = range(len(told))
    pairs = [(k, j) for k, j in product(places, places) if j <= k - 2 and told[k] - told[j] >= FAR]
    # Values that have to be computed first, if there are any: the first one is in the prompt.
    pairs = [pair for pair in pairs if pair[1]] or pairs
    return pairs[rng.integers(len(pairs))] if pairs else None


def _draw_steps(
    start: int, operations: int, pair: tuple[int, int] | None, rng: np.random.Generator
) -> tuple[Step, ...] | None:
    values, steps = [start], []
    for place in range(1, operations + 1):
        far = pair[1] if pair and pair[0] == place else None
        step = _draw_step(values, far, rng)
        if step is None:
            return None
        steps.append(step)
        values.append(apply(step.kind, values[-1], step.number))
    return tuple(steps)


def _draw_step(values: Sequence[int], far: int | None, rng: np.random.Generator) -> Step | None:
    """An operation whose result is in range: first its kind, then its number."""
    low, high = _NUMBERS["step"]
    numbers = dict.fromkeys(KINDS[:2], range(low, high + 1))
    numbers |= dict.fromkeys(KINDS[2:], _NUMBERS["factors"])
    if far is not None:
        numbers = {kind: [values[far]] for kind in KINDS[:2]}
    fitting = {}
    for kind, own in numbers.items():
        own = [n for n in own if kind != "divide" or values[-1] % n == 0]
        if own := [n for n in own if _LEAST <= apply(kind, values[-1], n) <= _MOST]:
            fitting[kind] = own
    if not fitting:
        return None
    kind = list(fitting)[rng.integers(len(fitting))]
    return Step(kind, int(fitting[kind][rng.integers(len(fitting[kind]))]), far)


def _tell(
    start: int, steps: Sequence[Step], told: Sequence[int], rng: np.random.Generator
) -> Problem:
    """Put a problem into words."""

    def one(texts: Sequence[str]) -> str:
        return texts[rng.integers(len(texts))]

    name = one(list(STORIES["stories"]))
    story = STORIES["stories"][name]
    fixed = {"name": one(STORIES["names"]), "thing": one(story["things"])}
    places = _draw_places(story["places"], len(told), rng)
    details = rng.permutation(STORIES["details"]).tolist()
    # Those that tell no value stay details.
    sentences = [*details[: told[-1] + 1], one(story["ask"]).format(here=places[-1], **fixed)]
    for place, position in enumerate(told):
        fields = fixed | {"here": places[place], "n": start}
        kind = "start"
        if place:
            step = steps[place - 1]
            kind = step.kind if step.far is None else f"far_{step.kind}"
            fields |= {"before": places[place - 1], "n": step.number}
            fields |= {"fold": STORIES["fold"].get(step.number)}
            fields |= {"share": STORIES["share"].get(step.number)}
            fields |= {"far": None if step.far is None else places[step.far]}
        fields["Here"] = fields["here"][0].upper() + fields["here"][1:]
        sentences[position] = one(story[kind]).format(**fields)
    clauses = [story["state"].format(here=here, value="{value}", **fixed) for here in places]
    return Problem(name, tuple(sentences), tuple(told), start, tuple(steps), tuple(clauses))


def _draw_places(kind: str, count: int, rng: np.random.Generator) -> list[str]:
    if kind in STORIES["ordered"]:
        known = STORIES["ordered"][kind]
        first = int(rng.integers(len(known) - count + 1))
        return known[first : first + count]
    return rng.permutation(STORIES["unordered"][kind])[:count].tolist()


def as_prompts(problems: Mapping[str, Problem]) -> dict[str, Prompt]:
    """Problems as prompts with the paper's system prompt and the reference answer."""
    system = Message("system", SYSTEM_PROMPT)
    return {
        key: Prompt(key, (system, Message("user", problem.prompt)), problem.answer)
        for key, problem in problems.items()
    }
