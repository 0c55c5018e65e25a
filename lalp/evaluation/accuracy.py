"""Accuracy with intervals, and paired comparisons of two models."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

from lalp.errors import InputError
from lalp.evaluation.benchmarks import AVERAGED, BENCHMARKS
from lalp.stats import mean_interval, wilson_interval

AVG = "AVG"
_Scores = Float[np.ndarray, "problems"]  # share of correct samples of each problem
_NUM_RESAMPLES = 2000
# Quantiles of the normal distribution: of 95 % intervals, and of a power of 80 %.
_Z, _POWER_Z = stats.norm.ppf(0.975), stats.norm.ppf(0.975) + stats.norm.ppf(0.8)


def accuracy_table(
    results: pd.DataFrame, seed: int = 0, num_resamples: int = _NUM_RESAMPLES
) -> pd.DataFrame:
    """Accuracy per benchmark with a 95 % interval, and AVG.

    AVG is the unweighted mean over all benchmarks of the table but GPQA and LiveCodeBench, which
    the paper leaves out of it; there is none with fewer than two. It is the paper's AVG if all of
    `AVERAGED` are there. Every problem of a benchmark needs the same number of samples.

    Returns:
        One row per benchmark, in the paper's order: ``benchmark``, ``title``, ``num_problems``,
        ``num_samples`` of each problem (0 where they differ), ``accuracy``, ``low``, ``high``,
        ``interval`` (``wilson`` or ``bootstrap``), and as shares of all samples ``no_answer`` and
        ``truncated``, then ``mean_tokens``. Where a bootstrap would have no width, because all
        problems have the same result, it is ``wilson`` over problems instead.

    Raises:
        InputError: If the table is empty or problems have different numbers of samples.
    """
    scores = _scores(results)
    rows = []
    for name, values in scores.items():
        mine = results[results["benchmark"] == name]
        num_samples = len(mine) // len(values)
        interval, kind = wilson_interval(float(values.mean()), len(values)), "wilson"
        if num_samples > 1 and np.ptp(values) == 0:
            interval = _same_everywhere(values, (0.0, 1.0))
        elif num_samples > 1:
            # Samples of one problem go together, so problems are drawn.
            interval, kind = mean_interval(values, num_resamples, seed), "bootstrap"
        row = _row(name, len(values)) | {"num_samples": num_samples, "accuracy": values.mean()}
        row |= {"low": interval[0], "high": interval[1], "interval": kind}
        row["no_answer"] = mine["outcome"].isin(["no answer", "no code"]).mean()
        rows.append(row | mine[["truncated", "num_tokens"]].mean().to_dict())
    table = pd.DataFrame(rows).rename(columns={"num_tokens": "mean_tokens"})
    vectors = _averaged(scores)
    if len(vectors) < 2:
        return table
    chosen = table[table["benchmark"].isin(vectors)]
    samples = chosen["num_samples"].unique()
    low, high = _average_interval(vectors, (0.0, 1.0), num_resamples, seed)
    row = _row(AVG, int(chosen["num_problems"].sum()))
    row |= {"num_samples": int(samples[0]) if len(samples) == 1 else 0, "interval": "bootstrap"}
    row |= {"low": low, "high": high}
    row |= chosen[["accuracy", "no_answer", "truncated", "mean_tokens"]].mean().to_dict()
    return pd.concat([table, pd.DataFrame([row])], ignore_index=True)


def _scores(results: pd.DataFrame) -> dict[str, _Scores]:
    """Share of correct samples of each problem, by benchmark in the paper's order."""
    if results.empty:
        raise InputError("the results hold no samples: evaluate a benchmark first")
    order = {name: place for place, name in enumerate(BENCHMARKS)}
    scores = {}
    for name in sorted(results["benchmark"].unique(), key=lambda name: order.get(name, len(order))):
        mine = results[results["benchmark"] == name]
        twice = mine.loc[mine.duplicated(["prompt_id", "sample"]), "prompt_id"]
        if len(twice):
            raise InputError(f"{name}: the same sample of {twice.iloc[0]!r} is there twice")
        grouped = mine.groupby("prompt_id", sort=True)["correct"]
        counts = grouped.size()
        if counts.nunique() > 1:
            raise InputError(
                f"{name}: {counts.idxmin()!r} has {counts.min()} samples and {counts.idxmax()!r} "
                f"{counts.max()}: evaluate all problems with the same number"
            )
        scores[name] = grouped.mean().to_numpy(float)
    return scores


def _row(name: str, num_problems: int) -> dict[str, Any]:
    title = BENCHMARKS[name].title if name in BENCHMARKS else name
    return {"benchmark": name, "title": title, "num_problems": num_problems}


def _averaged(scores: Mapping[str, _Scores]) -> dict[str, _Scores]:
    """The benchmarks of AVG: the paper's seven, and those of the user's own."""
    return {k: v for k, v in scores.items() if k in AVERAGED or k not in BENCHMARKS}


def _same_everywhere(values: _Scores, bounds: tuple[float, float]) -> tuple[float, float]:
    """Interval of a mean where all problems have the same value, so a bootstrap has no width.

    Wilson's bound on the share of problems that may be otherwise, ``z^2 / (n + z^2)``: of 0 correct
    answers to n problems it is Wilson's interval itself.
    """
    slack = _Z**2 / (len(values) + _Z**2)
    return max(bounds[0], values[0] - slack), min(bounds[1], values[0] + slack)


def _average_interval(
    scores: Mapping[str, _Scores], bounds: tuple[float, float], num_resamples: int, seed: int
) -> tuple[float, float]:
    """Interval of the unweighted mean of means; problems are drawn within each benchmark."""
    vectors = list(scores.values())
    if all(np.ptp(values) == 0 for values in vectors):
        # Where no benchmark's bootstrap has a width: the squares of their half-widths add up.
        centers = np.array([values[0] for values in vectors])
        ends = np.array([_same_everywhere(values, bounds) for values in vectors])
        below, above = (math.hypot(*side) / len(vectors) for side in (ends - centers[:, None]).T)
        return float(centers.mean() - below), float(centers.mean() + above)
    if any(len(values) < 2 for values in vectors):
        return math.nan, math.nan
    interval = stats.bootstrap(
        tuple(vectors),
        lambda *samples, axis: np.mean([sample.mean(axis=axis) for sample in samples], axis=0),
        vectorized=True,
        n_resamples=num_resamples,
        batch=max(1, 2**22 // max(map(len, vectors))),
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def paper_table(runs: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Results by the run's name, in the layout of the paper's Tables 9, 10 and 19.

    Returns:
        One row per run: MATH, AIME25, AMC, MINERVA, KAOYAN, OLYMPIAD, CN_MATH24, AVG (of these
        seven, missing if one of them is) and GPQA, as shares, and beside them ``truncated`` (share
        of samples) and ``mean_tokens``, both as unweighted means over the run's benchmarks.
    """
    averaged = [BENCHMARKS[name].title for name in AVERAGED]
    rows = {}
    for name, results in runs.items():
        scores = _scores(results)
        row = {_row(key, 0)["title"]: float(values.mean()) for key, values in scores.items()}
        row[AVG] = float(np.mean([row.get(column, math.nan) for column in averaged]))
        means = results.groupby("benchmark")[["truncated", "num_tokens"]].mean().mean()
        rows[name] = row | {"truncated": means["truncated"], "mean_tokens": means["num_tokens"]}
    columns = [*averaged, AVG, BENCHMARKS["gpqa_diamond"].title, "truncated", "mean_tokens"]
    return pd.DataFrame.from_dict(rows, orient="index").reindex(columns=columns).rename_axis("run")


def compare_runs(
    a: pd.DataFrame, b: pd.DataFrame, *, seed: int = 0, num_resamples: int = _NUM_RESAMPLES
) -> pd.DataFrame:
    """How much more accurate run B is than run A, paired by problem.

    Their numbers of samples may differ. The bootstrap draws problems, for AVG within each
    benchmark.

    Returns:
        One row per benchmark and AVG: ``accuracy_a``, ``accuracy_b``, ``difference`` (B - A) with
        its 95 % interval ``low``, ``high``; with one sample a problem ``only_a`` and ``only_b``,
        the problems that one run alone solves, and ``p_value`` of McNemar's exact test; and
        ``problems_needed``: how many such problems would show a difference of this size at 5 %
        with a chance of 80 %.

    Raises:
        InputError: If the runs were not evaluated on the same problems.
    """
    _check_same_problems(a, b)
    scores_a, scores_b = _scores(a), _scores(b)
    rows = []
    for name in scores_a:
        single = all(
            (frame.loc[frame["benchmark"] == name, "sample"] == 0).all() for frame in (a, b)
        )
        rows.append(_comparison(name, scores_a[name], scores_b[name], single, num_resamples, seed))
    vectors = _averaged({name: scores_b[name] - scores_a[name] for name in scores_a})
    if len(vectors) > 1:
        means = [np.mean([s[name].mean() for name in vectors]) for s in (scores_a, scores_b)]
        low, high = _average_interval(vectors, (-1.0, 1.0), num_resamples, seed)
        row = _difference_row(AVG, sum(map(len, vectors.values())), *map(float, means))
        rows.append(row | {"low": low, "high": high})
    return pd.DataFrame(rows)


def _check_same_problems(a: pd.DataFrame, b: pd.DataFrame) -> None:
    keys = ["benchmark", "prompt_id", "problem"]
    sides = [set(frame[keys].itertuples(index=False, name=None)) for frame in (a, b)]
    if sides[0] == sides[1]:
        return
    for run, mine, other in (("A", a, b), ("B", b, a)):
        only = set(mine["benchmark"]) - set(other["benchmark"])
        if only:
            raise InputError(
                f"only run {run} was evaluated on {min(only)}: compare runs on the same benchmarks"
            )
    name, prompt_id, _ = min(sides[0] ^ sides[1])
    shared = all((name, prompt_id) in {key[:2] for key in side} for side in sides)
    state = "has another text or answer in the other" if shared else "is in one run only"
    raise InputError(
        f"the runs differ in their problems: {prompt_id!r} of {name} {state}: evaluate both runs "
        "on the same file"
    )


def _difference_row(name: str, count: int, mean_a: float, mean_b: float) -> dict[str, Any]:
    unknown = ("low", "high", "only_a", "only_b", "p_value", "problems_needed")
    means = {"accuracy_a": mean_a, "accuracy_b": mean_b, "difference": mean_b - mean_a}
    return _row(name, count) | means | dict.fromkeys(unknown, math.nan)


def _comparison(
    name: str, scores_a: _Scores, scores_b: _Scores, single: bool, num_resamples: int, seed: int
) -> dict[str, Any]:
    difference = scores_b - scores_a
    row = _difference_row(name, len(difference), float(scores_a.mean()), float(scores_b.mean()))
    if np.ptp(difference) > 0:
        row["low"], row["high"] = mean_interval(difference, num_resamples, seed)
    else:
        row["low"], row["high"] = _same_everywhere(difference, (-1.0, 1.0))
    row["problems_needed"] = problems_needed(difference)
    if single:
        only_a, only_b = int((difference < 0).sum()), int((difference > 0).sum())
        row |= {"only_a": only_a, "only_b": only_b, "p_value": mcnemar(only_a, only_b)}
    return row


def mcnemar(only_a: int, only_b: int) -> float:
    """Two-sided p-value of McNemar's exact test: a fair coin for each problem that one run solves.

    Example:
        >>> mcnemar(0, 5)
        0.0625
    """
    discordant = only_a + only_b
    return float(stats.binomtest(only_b, discordant).pvalue) if discordant else 1.0


def problems_needed(difference: _Scores) -> float:
    """Problems like these that show their mean difference at 5 %, two-sided, with 80 % power.

    ``(1.96 + 0.84)^2 var / mean^2``; NaN if the mean is 0 or nothing varies.

    Example:
        >>> problems_needed(np.array([1.0, 0.0, 0.0, 0.0]))
        32.0
    """
    mean = float(difference.mean())
    if mean == 0 or np.ptp(difference) == 0:
        return math.nan
    return float(math.ceil(_POWER_Z**2 * difference.var(ddof=1) / mean**2))
