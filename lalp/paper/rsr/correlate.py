"""Do scores predict accuracies? Rank correlations over teachers, intervals and tests.

A teacher is the unit: accuracies are published for teachers, and a teacher's three sets are not
three observations. All draws take the same teachers for all students and scores, so a mean over
students and a difference between scores have correct joint intervals.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from lalp.errors import InputError
from lalp.paper.rsr.published import published
from lalp.scoring.columns import GALP
from lalp.stats import chunks, holm, percentile_interval, seeded_generator

MEASURES = ("spearman", "kendall")
ALL_STUDENTS = "mean over students"
_LEAST_TEACHERS = 4


def rank_correlations(
    one: Float[np.ndarray, "*#shape teachers"], other: Float[np.ndarray, "*#shape teachers"]
) -> Float[np.ndarray, "*shape measures"]:
    """Spearman's rho and Kendall's tau-b over the last axis; NaN if one side is all ties.

    Equivalent to ``scipy.stats.spearmanr`` and ``kendalltau``, for many columns at once.

    Example:
        >>> rank_correlations(np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0])).round(3)
        array([0.5  , 0.333])
    """
    signs = [_signs(values) for values in (one, other)]
    # A rank, from the middle one, is half the sum of its row. So Spearman's rho is a cosine of
    # ranks, as tau is one of pairs.
    ranks = _cosines(*(each.sum(axis=-1) for each in signs))
    pairs = _cosines(*(each.reshape(*each.shape[:-2], -1) for each in signs))
    return np.stack([ranks, pairs], axis=-1)


def _signs(values: Float[np.ndarray, "*shape n"]) -> Float[np.ndarray, "*shape n n"]:
    """1 if the first of two is higher, -1 if lower, 0 if they tie: sums are exact."""
    return np.sign(values[..., :, None] - values[..., None, :]).astype(np.float32)


def _cosines(
    one: Float[np.ndarray, "*#shape n"], other: Float[np.ndarray, "*#shape n"]
) -> Float[np.ndarray, "*shape"]:
    products = [
        np.einsum("...i,...i->...", *pair) for pair in ((one, other), (one, one), (other, other))
    ]
    both, own, its = (each.astype(float) for each in products)
    sizes = np.sqrt(own * its)
    return both / np.where(sizes > 0, sizes, np.nan)


def correlate(
    teachers: pd.DataFrame, *, num_resamples: int = 10_000, seed: int = 0
) -> pd.DataFrame:
    """Correlate teachers' scores with the published accuracies of the students they taught.

    - Intervals (95 %) are percentiles of a bootstrap over teachers. For rank correlations of 11
      teachers, they cover the truth at least as often as stated (a test measures it).
    - ``p`` is two-sided. The test permutes accuracies among teachers, in the same way for all
      students. So the mean over students is tested without treating students as independent.
    - ``p_holm`` is Holm's correction over the scores of one student and measure.
    - ``over_galp`` is how much more a score correlates than GALP, with its bootstrap interval.

    Args:
        teachers: From `teacher_scores` or `published_scores`: higher is better for every score.
        num_resamples: Draws of the bootstrap, and permutations.
        seed: For both.

    Returns:
        A row per score, student (and `ALL_STUDENTS`) and measure, with the ``window`` of LALP
        scores, ``correlation``, ``low``, ``high``, ``p``, ``p_holm``, ``over_galp``,
        ``over_galp_low``, ``over_galp_high`` and ``num_teachers``.

    Raises:
        InputError: If a teacher's score is missing, or its accuracy is not published.
    """
    scores, students, x, y = _arrays(teachers)
    size = y.shape[-1]
    value = _with_mean(rank_correlations(x, y))
    again = seeded_generator("rsr bootstrap", seed).integers(size, size=(num_resamples, size))
    orders = np.tile(np.arange(size), (num_resamples, 1))
    orders = seeded_generator("rsr permutations", seed).permuted(orders, axis=1)
    resampled = _draws(again, x, lambda part: (x[..., part], y[..., part]))
    permuted = _draws(orders, x, lambda part: (x[..., None, :], y[..., part]))
    extreme = np.abs(permuted) >= np.abs(value) - 1e-12  # a rounding error is no difference
    p = np.where(np.isnan(value), np.nan, (1 + extreme.sum(axis=0)) / (1 + num_resamples))
    base = scores.index(GALP)
    over = value - value[base]
    over[base] = np.nan
    found = {
        "correlation": (value, resampled),
        "over_galp": (over, resampled - resampled[:, base : base + 1]),
    }
    columns = {"p": p, "p_holm": np.apply_along_axis(holm, 0, p)}
    for name, (number, drawn) in found.items():
        low, high = np.where(np.isnan(number), np.nan, percentile_interval(drawn, size))
        prefix = "" if name == "correlation" else f"{name}_"
        columns |= {name: number, f"{prefix}low": low, f"{prefix}high": high}
    return _table(scores, [*students, ALL_STUDENTS], columns, size)


def _arrays(
    teachers: pd.DataFrame,
) -> tuple[list[str], list[str], Float[np.ndarray, "scores students n"], np.ndarray]:
    """Names of scores and students, the scores, and the accuracies ``[students, n]``."""
    scores, students = (list(dict.fromkeys(teachers[name])) for name in ("score", "student"))
    names = list(dict.fromkeys(teachers["teacher"]))
    table = published().pivot(index="student", columns="teacher", values="accuracy")
    for kind, wanted, known in (("student", students, table.index), ("teacher", names, table)):
        if unknown := [name for name in wanted if name not in known]:
            raise InputError(f"no accuracy is published of the {kind} {unknown[0]}: leave it out")
    if len(names) < _LEAST_TEACHERS:
        raise InputError(f"{len(names)} teachers are too few to correlate: score all sets")
    wide = teachers.pivot(index=["score", "student"], columns="teacher", values="value")
    x = np.stack([wide.loc[name].reindex(students)[names].to_numpy(float) for name in scores])
    if len(missing := np.argwhere(~np.isfinite(x))):
        score, student, teacher = missing[0]
        which = f"{scores[score]} of {names[teacher]} under {students[student]}"
        raise InputError(f"there is no {which}: score the set again, or take another student")
    return scores, students, x, table.loc[students, names].to_numpy(float)


def _with_mean(values: Float[np.ndarray, "... students measures"]) -> np.ndarray:
    """The values of all students, then their mean."""
    return np.concatenate([values, values.mean(axis=-2, keepdims=True)], axis=-2)


def _draws(
    places: Int[np.ndarray, "draws n"],
    x: Float[np.ndarray, "scores students n"],
    pairs: Callable[[Int[np.ndarray, "part n"]], tuple[np.ndarray, np.ndarray]],
) -> Float[np.ndarray, "draws scores students measures"]:
    """The correlations of every draw of teachers, a few draws at a time."""
    parts = []
    for part in chunks(len(places), x.size * x.shape[-1]):
        drawn = rank_correlations(*pairs(places[part]))
        parts.append(_with_mean(np.moveaxis(drawn, 2, 0)))
    return np.concatenate(parts)


def _table(
    scores: list[str], students: list[str], columns: dict[str, np.ndarray], num_teachers: int
) -> pd.DataFrame:
    rows = [
        {"score": name, "window": name.partition("@")[2], "student": student, "measure": measure}
        | {column: float(values[i, j, k]) for column, values in columns.items()}
        | {"num_teachers": num_teachers}
        for i, name in enumerate(scores)
        for j, student in enumerate(students)
        for k, measure in enumerate(MEASURES)
    ]
    order = ["correlation", "low", "high", "p", "p_holm"]
    order += ["over_galp", "over_galp_low", "over_galp_high", "num_teachers"]
    return pd.DataFrame(rows)[["score", "window", "student", "measure", *order]]
