"""The pool that ships with the project: its answers are right, its verdicts too."""

from __future__ import annotations

import tomllib
from collections import Counter
from fractions import Fraction
from itertools import combinations, product
from math import factorial
from pathlib import Path

import pytest

from lalp.grading.answers import extract_answer
from lalp.pools.reading import load_pool
from lalp.report.page import EXAMPLE_POOL
from lalp.steps.sentences import split_steps

ROOT = Path(__file__).parents[2]
PAIRS = list(product(range(1, 7), repeat=2))


def sides() -> tuple[int, int]:
    return next((a, b) for a, b in combinations(range(1, 17), 2) if a + b == 17 and a * b == 70)


def island() -> set[int]:
    """How many knights there are in each case in which knights, and they alone, tell the truth."""
    cases = product([True, False], repeat=2)
    return {ana + ben for ana, ben in cases if ana == (not ben) and ben == (ana == ben)}


def lamps() -> int:
    return sum(sum(n % k == 0 for k in range(1, 21)) % 2 for n in range(1, 21))


def clock() -> Fraction:
    apart = abs(Fraction(40 * 360, 60) - Fraction((3 * 60 + 40) * 360, 720))
    return min(apart, 360 - apart)


def paths() -> int:
    """Seven steps, three of them up; after three steps exactly one has gone up."""
    return sum(sum(step < 3 for step in ups) == 1 for ups in combinations(range(7), 3))


# Every answer anew, by counting or by trying where that can be done.
ANSWERS = {
    "coins": lambda: next(t for t in range(18) if 5 * (17 - t) + 10 * t == 125),
    "digits": lambda: sum(len(str(page)) for page in range(1, 251)),
    "power": lambda: 7**100 % 5,
    "handshakes": lambda: sum(pair != (0, 1) for pair in combinations(range(9), 2)),
    "lake": lambda: 60 / (Fraction(30, 15) + Fraction(30, 10)),
    "island": lambda: island().pop() if len(island()) == 1 else None,
    "rectangle": lambda: max(sides()),
    "dice": lambda: Fraction(sum(a + b >= 10 for a, b in PAIRS), len(PAIRS)),
    "multiples": lambda: sum(range(3, 100, 3)),
    "father": lambda: next(s for s in range(100) if 4 * s + 12 == 2 * (s + 12)),
    "zeros": lambda: len(str(factorial(60))) - len(str(factorial(60)).rstrip("0")),
    "lamps": lamps,
    "syrup": lambda: next(w for w in range(100) if Fraction(24, 10) / (6 + w) == Fraction(15, 100)),
    "clock": clock,
    "team": lambda: sum(any(p > 4 for p in team) for team in combinations(range(9), 3)),
    "lastdigit": lambda: 3**2026 % 10,
    "tank": lambda: 1 / (Fraction(1, 6) + Fraction(1, 3) - Fraction(1, 4)),
    "even": lambda: next(n for n in range(0, 126, 2) if n + (n - 2) + (n - 4) == 126),
    "paths": paths,
    "coat": lambda: 81 / (Fraction(120, 100) * Fraction(75, 100)),
}


@pytest.fixture(scope="module")
def pool():
    return load_pool(EXAMPLE_POOL)


def test_every_reference_answer_follows_from_computation(pool):
    assert {name: str(compute()) for name, compute in ANSWERS.items()} == {
        name: prompt.answer for name, prompt in pool.prompts.items()
    }


def test_verdicts_are_those_of_the_stated_answers(pool):
    stated = {r.response_id: str(extract_answer(r.text)) for r in pool.responses}
    assert {r.response_id: r.correct for r in pool.responses} == {
        r.response_id: stated[r.response_id] == pool.prompts[r.prompt_id].answer
        for r in pool.responses
    }


def test_three_teachers_answer_each_prompt_in_three_to_ten_steps_and_a_tenth_are_wrong(pool):
    assert Counter(r.teacher for r in pool.responses) == dict.fromkeys(
        ("chatty", "stepwise", "terse"), 20
    )
    assert len({(r.prompt_id, r.teacher) for r in pool.responses}) == 60
    assert {r.teacher for r in pool.responses if not r.correct} == {"chatty", "stepwise", "terse"}
    assert sum(not r.correct for r in pool.responses) == 6
    assert all(3 <= len(split_steps(r.text)) <= 10 for r in pool.responses)


def test_what_the_report_reads_is_declared_as_package_data():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = settings["tool"]["setuptools"]["package-data"]["lalp.report"]
    files = [path for path in EXAMPLE_POOL.parent.iterdir() if path.is_file()]
    lost = [p.name for p in files if p.suffix != ".py" and not any(map(p.match, patterns))]
    assert lost == []
