"""Accuracy with intervals, and paired comparisons of two models.

Accuracy is pass@1: with one sample per problem it is the share of correct answers, with k samples
the mean over samples (paper, Table 18). Intervals are 95 %: Wilson's for one sample per problem,
else over problems, because samples of one problem are related: Student's t if a benchmark has fewer
than `FEW_UNITS` problems, else a bootstrap.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

from lalp.errors import InputError
from lalp.evaluation.benchmarks import AVERAGED, BENCHMARKS
from lalp.stats import FEW_UNITS, mean_of_means_interval, units_needed, wilson_interval

AVG = "AVG"
_Scores = Float[np.ndarray, "problems"]  # share of correct samples for each problem
_NUM_RESAMPLES = 2000
_MEANS = ["no_answer", "truncated", "num_tokens"]


def accuracy_table(
    results: pd.DataFrame, seed: int = 0, num_resamples: int = _NUM_RESAMPLES
) -> pd.DataFrame:
    """Accuracy per benchmark with a 95 % interval, and AVG.

    AVG is the unweighted mean over all benchmarks of the table except GPQA and LiveCodeBench, which
    the paper leaves out; it needs at least two. It is the paper's AVG if all of `AVERAGED` are
    there. InputError if problems of a benchmark differ in their number of samples.

    Returns:
        One row per benchmark, in the paper's order: ``benchmark``, ``title``, ``num_problems``,
        ``num_samples`` of each problem (0 if they differ), ``accuracy``, ``low``, ``high``,
        ``interval`` (``wilson``, ``t`` or ``bootstrap``), and as shares of all samples
        ``no_answer`` and ``truncated``, then ``mean_tokens``. If all problems have the same result,
        the others would have no width, so it is ``wilson`` over problems.
    """
    scores = _scores(results)
    no_answer = results["outcome"].isin(["no answer", "no code"])
    samples = dict(list(results.assign(no_answer=no_answer).groupby("benchmark")))
    rows = []
    for name, members in _groups(list(scores)):
        vectors = [scores[member] for member in members]
        counts = {len(samples[member]) // len(scores[member]) for member in members}
        row = _row(name, vectors) | {"num_samples": counts.pop() if len(counts) == 1 else 0}
        row["accuracy"] = float(np.mean([values.mean() for values in vectors]))
        low, high = _interval(vectors, (0.0, 1.0), num_resamples, seed)
        if is_single := len(members) == 1 and row["num_samples"] == 1:
            low, high = wilson_interval(row["accuracy"], len(vectors[0]))
        is_wilson = is_single or not any(np.ptp(values) for values in vectors)
        drawn = "bootstrap" if min(map(len, vectors)) >= FEW_UNITS else "t"
        row |= {"low": low, "high": high, "interval": "wilson" if is_wilson else drawn}
        means = pd.DataFrame([samples[member][_MEANS].mean() for member in members]).mean()
        rows.append(row | means.to_dict())
    return pd.DataFrame(rows).rename(columns={"num_tokens": "mean_tokens"})


def _groups(names: Sequence[str]) -> list[tuple[str, list[str]]]:
    """The rows of a table: each benchmark by itself, and those of AVG if there are at least two.

    AVG covers the paper's seven benchmarks and the user's own.
    """
    averaged = [name for name in names if name in AVERAGED or name not in BENCHMARKS]
    groups = [(name, [name]) for name in names]
    return [*groups, (AVG, averaged)] if len(averaged) > 1 else groups


def _scores(results: pd.DataFrame) -> dict[str, _Scores]:
    """Share of correct samples of each problem, by benchmark in the paper's order."""
    if results.empty:
        raise InputError("the results hold no samples: evaluate a benchmark first")
    names, scores = results["benchmark"].unique(), {}
    where = f"{results.attrs['path']}: " if "path" in results.attrs else ""
    for name in sorted(names, key=lambda name: [*BENCHMARKS, name].index(name)):
        mine = results[results["benchmark"] == name]
        twice = mine.loc[mine.duplicated(["prompt_id", "sample"]), "prompt_id"]
        if len(twice):
            raise InputError(f"{where}{name}: the same sample of {twice.iloc[0]!r} is there twice")
        grouped = mine.groupby("prompt_id", sort=True)["correct"]
        counts = grouped.size()
        if counts.nunique() > 1:
            raise InputError(
                f"{where}{name}: {counts.idxmin()!r} has {counts.min()} samples and "
                f"{counts.idxmax()!r} {counts.max()}: evaluate all problems with the same number"
            )
        scores[name] = grouped.mean().to_numpy(float)
    return scores


def _title(name: str) -> str:
    return BENCHMARKS[name].title if name in BENCHMARKS else name


def _row(name: str, vectors: Sequence[_Scores]) -> dict[str, Any]:
    return {"benchmark": name, "title": _title(name), "num_problems": sum(map(len, vectors))}


def _interval(
    vectors: Sequence[_Scores], bounds: tuple[float, float], num_resamples: int, seed: int
) -> tuple[float, float]:
    """Interval of the unweighted mean of means; problems are drawn within each benchmark."""
    if any(np.ptp(values) for values in vectors):
        low, high = mean_of_means_interval(vectors, num_resamples, seed)
        return max(bounds[0], low), min(bounds[1], high)
    # If nothing varies, a resample says nothing. As many problems may differ as Wilson's interval
    # for no success allows; the squares of the benchmarks' half-widths add up.
    centers = np.array([values[0] for values in vectors])
    slack = np.array([wilson_interval(0.0, len(values))[1] for values in vectors])
    ends = np.clip([centers - slack, centers + slack], *bounds)
    below, above = (math.hypot(*side) / len(vectors) for side in ends - centers)
    return float(centers.mean() - below), float(centers.mean() + above)


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
        row = {_title(key): float(values.mean()) for key, values in scores.items()}
        row[AVG] = float(np.mean([row.get(column, math.nan) for column in averaged]))
        means = results.groupby("benchmark")[["truncated", "num_tokens"]].mean().mean()
        rows[name] = row | {"truncated": means["truncated"], "mean_tokens": means["num_tokens"]}
    columns = [*averaged, AVG, BENCHMARKS["gpqa_diamond"].title, "truncated", "mean_tokens"]
    return pd.DataFrame.from_dict(rows, orient="index").reindex(columns=columns).rename_axis("run")


def compare_runs(
    a: pd.DataFrame, b: pd.DataFrame, *, seed: int = 0, num_resamples: int = _NUM_RESAMPLES
) -> pd.DataFrame:
    """The gain in accuracy of run B over run A, paired by problem.

    Their numbers of samples may differ, but not their problems (InputError).

    Returns:
        One row per benchmark and AVG: ``accuracy_a``, ``accuracy_b``, ``difference`` (B - A) with
        its 95 % interval ``low``, ``high``; with one sample per problem, ``only_a`` and ``only_b``,
        the problems that only one run solves, and ``p_value`` of McNemar's exact test; and
        ``problems_needed``, the number of such problems that would show a difference of this size
        at 5 % with a chance of 80 % (`lalp.stats.units_needed`).
    """
    _check_same_problems(a, b)
    scores_a, scores_b = _scores(a), _scores(b)
    rows = []
    for name, members in _groups(list(scores_a)):
        differences = [scores_b[member] - scores_a[member] for member in members]
        mean_a, mean_b = (
            float(np.mean([scores[member].mean() for member in members]))
            for scores in (scores_a, scores_b)
        )
        low, high = _interval(differences, (-1.0, 1.0), num_resamples, seed)
        row = _row(name, differences) | {"accuracy_a": mean_a, "accuracy_b": mean_b}
        row |= {"difference": mean_b - mean_a, "low": low, "high": high}
        row |= dict.fromkeys(("only_a", "only_b", "p_value", "problems_needed"), math.nan)
        if len(members) == 1:
            row["problems_needed"] = units_needed(differences[0])
            # McNemar's test is for single answers: a fair coin for each problem one run solves.
            if not any(frame.loc[frame["benchmark"] == name, "sample"].any() for frame in (a, b)):
                only_a, only_b = (int((sign * differences[0] > 0).sum()) for sign in (-1, 1))
                num_coins = only_a + only_b
                p_value = stats.binomtest(only_b, num_coins).pvalue if num_coins else 1.0
                row |= {"only_a": only_a, "only_b": only_b, "p_value": p_value}
        rows.append(row)
    return pd.DataFrame(rows)


def _check_same_problems(a: pd.DataFrame, b: pd.DataFrame) -> None:
    keys = ["benchmark", "prompt_id", "problem"]
    sides = [set(frame[keys].itertuples(index=False, name=None)) for frame in (a, b)]
    if sides[0] == sides[1]:
        return
    for run, mine, other in (("A", a, b), ("B", b, a)):
        if only := set(mine["benchmark"]) - set(other["benchmark"]):
            advice = "compare runs on the same benchmarks"
            raise InputError(f"only run {run} was evaluated on {min(only)}: {advice}")
    name, prompt_id, _ = min(sides[0] ^ sides[1])
    shared = all((name, prompt_id) in {key[:2] for key in side} for side in sides)
    state = "has another text or answer in the other" if shared else "is in one run only"
    differ = f"the runs differ in their problems: {prompt_id!r} of {name} {state}"
    raise InputError(f"{differ}: evaluate both runs on the same file")
