"""The model of contrasts in a complete design, beside independent oracles."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lalp.paper import contrasts


def gaussian_grid() -> np.ndarray:
    rng, (students, arms, problems) = np.random.default_rng(5), (6, 3, 8)
    parts = (
        rng.normal(size=(students, 1, 1)),
        0.7 * rng.normal(size=(students, arms, 1)),
        0.9 * rng.normal(size=(students, 1, problems)),
        0.5 * rng.normal(size=(students, arms, problems)),
    )
    return (sum(parts) + np.array([0, 0.3, 1])[:, None]).round(2)


def test_the_model_is_that_of_statsmodels():
    """Made once with statsmodels 0.15, ``mixedlm`` by REML, students as groups.

    ``mixedlm("y ~ C(arm)", table, groups="student", re_formula="1", vc_formula={"problem":
    "0 + C(problem)", "arm": "0 + C(arm)"})``; without ``arm`` for the standard error.
    """
    grid = gaussian_grid()
    expected = {"student": 1.21238, "problem": 0.54629, "arm by student": 0.50448,
                "residual": 0.20379}  # fmt: skip
    assert contrasts.variance_components(grid) == pytest.approx(expected, rel=1e-4)
    error = contrasts.intercepts_error(grid, ["x", "y", "z"], {"y": 1, "x": -1})
    assert error == pytest.approx(0.162418, rel=1e-4)
    # With the arm by student: 0.420298. It pools over arms what Student's t has for each contrast.
    total, freedom = contrasts.mean_squares(grid)["arm by student"]
    assert math.sqrt(2 * total / freedom / 48) == pytest.approx(0.420298, rel=1e-4)


sizes = st.tuples(st.integers(2, 4), st.integers(2, 4), st.integers(2, 5))


@given(sizes, st.integers(0, 1000))
def test_sums_of_squares_are_the_whole(size, seed):
    grid = np.random.default_rng(seed).integers(2, size=size).astype(float)
    found = contrasts.mean_squares(grid)
    students, arms, problems = size
    of_arms = students * problems * ((grid.mean(axis=(0, 2)) - grid.mean()) ** 2).sum()
    total = sum(square for square, _ in found.values()) + of_arms
    assert total == pytest.approx(((grid - grid.mean()) ** 2).sum())
    assert sum(freedom for _, freedom in found.values()) + arms - 1 == grid.size - 1


def test_no_spread_of_arms_over_students_gives_no_such_variance():
    grid = np.zeros((3, 2, 4))
    grid[:, 1] = 1
    assert set(contrasts.variance_components(grid).values()) == {0.0}


def test_the_bootstrap_covers_a_mean_of_few_students():
    rng, hits = np.random.default_rng(1), 0
    for number in range(100):
        values = 0.05 * rng.normal(size=(12, 1)) + 0.4 * rng.normal(size=(12, 20))
        found = contrasts.two_level_bootstrap(values, seed=number)
        hits += found.low < 0 < found.high
    assert hits >= 90
    alone = contrasts.two_level_bootstrap(np.ones((1, 5)))
    assert alone.value == 1 and math.isnan(alone.low)
