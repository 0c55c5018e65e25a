"""Numbers in README, computed again from the committed tables with plain numpy."""

from __future__ import annotations

import csv
import math
import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
README = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
# Student's t, two-sided 95 %, from a printed table.
T = {5: 2.7764, 20: 2.0930}


def rows(name: str) -> list[dict[str, str]]:
    with (ROOT / "figures" / name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def interval(values: list[float]) -> tuple[float, float, float]:
    """Mean and Student's t interval."""
    array = np.array(values)
    half = T[len(array)] * array.std(ddof=1) / math.sqrt(len(array))
    return array.mean(), array.mean() - half, array.mean() + half


def text(values: list[float], sign: str = "") -> str:
    mean, low, high = (round(value + 1e-9, 2) for value in interval(values))
    return f"{mean:{sign}.2f} [{low:.2f}, {high:.2f}]".replace("-0.00", "0.00")


@pytest.fixture(scope="module")
def world() -> dict[str, np.ndarray]:
    """Shares of problems solved by the students of each arm of step world, one for each seed."""
    solved: dict[str, dict[str, float]] = {}
    for row in rows("world_standard/arms.csv"):
        share = int(row["num_solved"]) / int(row["num_problems"])
        solved.setdefault(f"{row['group']}: {row['arm']}", {})[row["seed"]] = share
    return {arm: np.array([by[seed] for seed in sorted(by)]) for arm, by in solved.items()}


def test_the_table_of_step_world(world):
    found = {
        "rules: lalp": "highest LALP (true steps, window of one step)",
        "rules: random like lalp": "random, with the same number from each teacher as LALP",
        "rules: galp": "highest GALP",
        "rules: random like galp": "random, with the same number from each teacher as GALP",
        "rules: random": "random",
        "rules: lalp-lowest": "lowest LALP",
    }
    for arm, name in found.items():
        mean, low, high = interval(world[arm])
        shown = re.search(rf"\| {re.escape(name)} \| ([\d.]+) \[([\d.]+), ([\d.]+)\] \|", README)
        assert shown, name
        ends = mean, max(0.0, low), min(1.0, high)
        assert [float(x) for x in shown.groups()] == pytest.approx(ends, abs=0.0051), name


def test_composition_and_choice_of_samples(world):
    lalp, galp = world["rules: lalp"], world["rules: galp"]
    of_lalp, of_galp = world["rules: random like lalp"], world["rules: random like galp"]
    assert f"in all five, by {text(lalp - galp)}" in README
    assert f"in GALP's mix by {text(of_lalp - of_galp)}" in README
    assert f"gains {text((galp - of_galp) - (lalp - of_lalp))} less than GALP's does" in README
    assert f"gains nothing ({text(lalp - of_lalp)})" in README


def test_the_window_decides(world):
    galp = world["rules: galp"]
    for window, words in (("0", "w = 0"), ("1", "w = 1"), ("2", "w = 2"), ("4", "w = 4")):
        assert f"{text(world[f'windows: {window}'] - galp, '+')} at {words}" in README
    assert f"{text(world['windows: all'] - galp, '+')} with the full prefix" in README
    assert (
        f"on sentences at w = 4 it is {text(world['rules: lalp sentences'] - galp, '+')}" in README
    )


def test_the_map_over_its_students():
    gains: dict[tuple[str, ...], list[float]] = {}
    for row in rows("world_long/arms.csv"):
        student = row["family"], row["copying"], row["seed"]
        sign = {"lalp": 1, "galp": -1}.get(row["arm"], 0)
        share = int(row["num_solved"]) / int(row["num_problems"])
        gains.setdefault(student, []).append(sign * share)
    # Nine pairs of teachers for each student.
    means = [sum(values) / 9 for values in gains.values()]
    assert f"over the 20 students together it is {text(means)}" in README


def test_what_published_scores_foresee():
    found = {
        row["score"]: row
        for row in rows("rsr/published.csv")
        if row["student"] == "mean over students" and row["measure"] == "spearman"
    }

    def shown(row: dict[str, str], *names: str) -> str:
        value, low, high = (float(row[name]) for name in names)
        return f"{value:.2f} [{low:.2f}, {high:.2f}]"

    ends = "correlation", "low", "high"
    over = "over_galp", "over_galp_low", "over_galp_high"
    assert f"GALP's rank correlation with accuracy is {shown(found['galp'], *ends)} over" in README
    assert (
        f"RSR is {shown(found['rsr'], *ends)}, which is {shown(found['rsr'], *over)} more" in README
    )
