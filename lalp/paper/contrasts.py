"""Contrasts of arms in a complete design: every arm of a student answers the same problems.

A student may be one seed of a study. The two studies with a plan of their own use these.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from jaxtyping import Float

from lalp.stats import Estimate, bootstrap_interval, detectable, power_of, seeded_generator

_LEVEL, _RESAMPLES = 0.05, 2000


def contrast_values(
    grid: Float[np.ndarray, "students arms problems"], arms: list[str], weights: Mapping[str, float]
) -> Float[np.ndarray, "students problems"]:
    """A contrast of every student's problem."""
    vector = np.array([weights.get(arm, 0.0) for arm in arms])
    return np.einsum("sap,a->sp", grid, vector)


def mean_squares(grid: Float[np.ndarray, "students arms problems"]) -> dict[str, tuple[float, int]]:
    """Sums of squares with their degrees of freedom, in a complete design.

    ``student``, ``problem`` (within students), ``arm by student``, and the ``residual``, which is
    the arm by problem within students.

    Example:
        >>> grid = np.array([[[1.0, 0.0], [1.0, 1.0]], [[0.0, 0.0], [1.0, 0.0]]])
        >>> mean_squares(grid)["arm by student"]
        (0.0, 1)
    """
    students, arms, problems = grid.shape
    by_arm, by_problem = grid.mean(axis=2), grid.mean(axis=1)
    by_student, of_arms = grid.mean(axis=(1, 2)), grid.mean(axis=(0, 2))
    joint = by_arm - by_student[:, None] - of_arms + grid.mean()
    rest = grid - by_arm[:, :, None] - by_problem[:, None] + by_student[:, None, None]
    sums = {
        "student": (by_student - grid.mean(), arms * problems, students - 1),
        "problem": (by_problem - by_student[:, None], arms, students * (problems - 1)),
        "arm by student": (joint, problems, (students - 1) * (arms - 1)),
        "residual": (rest, 1, students * (arms - 1) * (problems - 1)),
    }
    return {name: (float(n * (x**2).sum()), freedom) for name, (x, n, freedom) in sums.items()}


def variance_components(grid: Float[np.ndarray, "students arms problems"]) -> dict[str, float]:
    """Variances of the random effects, from the mean squares: REML's if none is below 0."""
    _, arms, problems = grid.shape
    squares = {name: total / freedom for name, (total, freedom) in mean_squares(grid).items()}
    rest, joint, own = (squares[name] for name in ("residual", "arm by student", "problem"))
    found = {
        "student": (squares["student"] - joint - own + rest) / (arms * problems),
        "problem": (own - rest) / arms,
        "arm by student": (joint - rest) / problems,
        "residual": rest,
    }
    return {name: max(0.0, value) for name, value in found.items()}


def intercepts_error(
    grid: Float[np.ndarray, "students arms problems"], arms: list[str], weights: Mapping[str, float]
) -> float:
    """Standard error of a contrast in the model that lacks the arm by student."""
    squares = mean_squares(grid)
    parts = [squares["arm by student"], squares["residual"]]
    variance = sum(total for total, _ in parts) / sum(freedom for _, freedom in parts)
    size = sum(weights.get(arm, 0.0) ** 2 for arm in arms)
    return float(np.sqrt(variance * size / (grid.shape[0] * grid.shape[2])))


def two_level_bootstrap(values: Float[np.ndarray, "students problems"], seed: int = 0) -> Estimate:
    """Mean of a contrast with its interval over resampled students, and problems within them."""
    students, problems = values.shape
    if students < 2:
        return Estimate(float(values.mean()), np.nan, np.nan, students)
    rng = seeded_generator("two levels", seed)
    drawn = rng.integers(students, size=(_RESAMPLES, students))
    means = np.empty(_RESAMPLES)
    for i, chosen in enumerate(drawn):
        places = rng.integers(problems, size=(students, problems))
        means[i] = np.take_along_axis(values[chosen], places, axis=1).mean()
    own = values.mean(axis=1)
    without = (own.sum() - own) / (students - 1)
    low, high = bootstrap_interval(np.array(own.mean()), means, without)
    return Estimate(float(own.mean()), float(low), float(high), students)


def spread_columns(
    values: Float[np.ndarray, "students problems"], planned: float, level: float
) -> dict[str, float]:
    """What is told beside a contrast, from `contrast_values`.

    ``num_above``, how many students are above 0; ``spread``, the standard deviation over students;
    ``power`` to find the ``planned`` difference at a level, and the one ``detectable`` with 80 %;
    the ends of the two-level bootstrap.
    """
    own, resampled = values.mean(axis=1), two_level_bootstrap(values)
    spread = float(own.std(ddof=1)) if len(own) > 1 else np.nan
    return {
        "num_above": int((own > 0).sum()),
        "spread": spread,
        "power": power_of(planned, spread, len(own), level),
        "detectable": detectable(spread, len(own), level=level),
        "bootstrap_low": resampled.low,
        "bootstrap_high": resampled.high,
    }


def outcome(predicted: str, row: pd.Series) -> str:
    """By the rule for ``above`` or ``at most``, from ``low``, ``high`` and ``p_holm``.

    Example:
        >>> row = pd.Series({"low": -0.2, "high": -0.1, "p_holm": 0.01})
        >>> outcome("above", row), outcome("at most", row)
        ('contradicted', 'borne out')
    """
    sure = row["p_holm"] < _LEVEL
    above, below = row["low"] > 0 and sure, row["high"] < 0 and sure
    if predicted == "above":
        return "borne out" if above else "contradicted" if below else "undecided"
    return "contradicted" if above else "borne out" if row["high"] <= 0 else "undecided"
