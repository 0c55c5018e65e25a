"""Rank teachers with intervals, and ask how many prompts suffice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy import stats

from lalp.errors import InputError
from lalp.selection.table import TIE_NATS, candidates, id_order, score_values
from lalp.stats import Estimate, bootstrap_means, percentile_interval, subset_means, wilson_interval

# Quantiles of the normal distribution: of a 95 % interval, and of a power of 80 %.
_POWER_Z = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)


def rank_teachers(
    scores: pd.DataFrame,
    column: str,
    *,
    level: float = 0.95,
    num_resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Mean score per teacher over the same prompts, highest first (paper, Fig. 1 and Table 2).

    Only prompts where every teacher has a scored candidate count, and all of them equally: the
    responses of one teacher to one prompt are averaged first. Intervals are percentile bootstraps
    over prompts, too narrow below about 30 of them. Those of two teachers can overlap although
    their order is clear, since hard prompts are hard for both: see `teacher_differences`.

    Returns:
        One row per teacher: ``teacher``, ``mean``, ``low``, ``high`` (nats), ``rank`` (1 = highest;
        equal means share a rank), ``p_top`` (share of resamples in which this teacher is first),
        ``num_responses``. ``attrs`` hold ``num_prompts`` (shared by all), ``prompts_by_teacher``
        and ``left_out`` (counts by reason).

    Example:
        >>> from lalp.selection.table import example_scores
        >>> rank_teachers(example_scores(), "galp")[["teacher", "mean", "rank"]]
          teacher  mean  rank
        0     Bob -0.55     1
        1     Ada -0.70     2
    """
    shared = _shared_means(scores, [column])
    means = shared.values[0].mean(axis=0)
    resampled = bootstrap_means(shared.values, num_resamples, seed)[:, 0]
    low, high = percentile_interval(resampled, shared.num_prompts, level)
    is_top = resampled >= resampled.max(axis=1, keepdims=True) - TIE_NATS
    # Teachers that tie divide a resample.
    top_shares = (is_top / is_top.sum(axis=1, keepdims=True)).mean(axis=0)
    ranking = pd.DataFrame({"teacher": shared.teachers, "mean": means, "low": low, "high": high})
    ranking["rank"] = _ranks(means)
    ranking["p_top"] = top_shares if shared.num_prompts > 1 else np.nan
    ranking["num_responses"] = shared.num_responses
    # Teachers stand by name already, and the sort is stable: equal ranks stay in that order.
    return shared.annotate(ranking.sort_values("rank", kind="stable", ignore_index=True))


def teacher_differences(
    scores: pd.DataFrame,
    column: str,
    *,
    level: float = 0.95,
    num_resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Difference of means for each pair of teachers: which part of a ranking is resolved.

    The bootstrap is paired, so what makes a prompt easy or hard for both teachers cancels. The
    level holds for each pair, not for all pairs at once.

    Returns:
        One row per pair, in order of rank: ``higher``, ``lower``, ``difference`` (nats, at least
        0), ``low``, ``high``, and ``resolved`` (the interval excludes 0). Empty for one teacher.
        ``attrs`` as for `rank_teachers`.

    Example:
        >>> from lalp.selection.table import example_scores
        >>> pairs = teacher_differences(example_scores(), "galp")
        >>> pairs[["higher", "lower", "difference", "resolved"]].round(2)
          higher lower  difference  resolved
        0    Bob   Ada        0.15      True
    """
    shared = _shared_means(scores, [column])
    means = shared.values[0].mean(axis=0)
    order = np.argsort(_ranks(means), kind="stable")
    higher, lower = (order[side] for side in np.triu_indices(len(order), 1))
    resampled = bootstrap_means(shared.values, num_resamples, seed)[:, 0]
    gaps = resampled[:, higher] - resampled[:, lower]
    ends = percentile_interval(gaps, shared.num_prompts, level)
    names = np.asarray(shared.teachers, dtype=object)
    pairs = pd.DataFrame({"higher": names[higher], "lower": names[lower]})
    # Teachers that tie stand by name, and may differ by a rounding error below 0.
    pairs["difference"] = np.maximum(means[higher] - means[lower], 0.0)
    # One teacher has no pairs, and numpy then gives one axis only.
    pairs["low"], pairs["high"] = ends.reshape(2, -1)
    return shared.annotate(pairs.assign(resolved=pairs["low"] > TIE_NATS))


@dataclass(frozen=True)
class FirstPlace:
    """Which teacher is first, and how sure that is.

    ``probability`` is that it is first on other prompts like these, at least so much, from
    Student's t of its paired differences. ``rival`` is the teacher that is hardest to tell from it,
    and ``prompts_needed`` how many prompts would show that ``gap`` (nats) at 5 % with 80 % power,
    if it and its spread stay; NaN where one prompt or a tie says nothing. ``is_settled`` if the
    95 % interval of every difference is above 0.
    """

    teacher: str
    probability: float
    rival: str
    gap: float
    is_settled: bool
    prompts_needed: float
    num_prompts: int

    def __str__(self) -> str:
        if self.num_prompts < 2:
            return f"{self.teacher} is first here: too few prompts to say how sure that is"
        # Never printed as certain.
        sure = "over 0.999" if self.probability > 0.999 else f"{self.probability:.3f}"
        first = f"{self.teacher} is first with a probability of {sure}"
        if self.is_settled:
            return f"{first}: settled"
        if np.isnan(self.prompts_needed):
            return f"{first}: it ties with {self.rival}"
        needed = f"about {self.prompts_needed:,.0f} prompts would settle it"
        return f"{first}: {needed}, if the gap to {self.rival} stays {self.gap:.4f}"


def first_place(scores: pd.DataFrame, column: str) -> FirstPlace:
    """How sure the first place of a ranking is, and how many prompts would settle it.

    Example:
        >>> from lalp.selection.table import example_scores
        >>> place = first_place(example_scores(), "galp")
        >>> place.teacher, round(place.probability, 2), place.is_settled, place.prompts_needed
        ('Bob', 0.9, False, 2.0)
    """
    shared = _shared_means(scores, [column], least_teachers=2)
    values, number = shared.values[0], shared.num_prompts
    first = int(np.argmin(_ranks(values.mean(axis=0))))
    gaps = np.delete(values[:, [first]] - values, first, axis=1)
    rivals = [teacher for teacher in shared.teachers if teacher != shared.teachers[first]]
    mean = gaps.mean(axis=0)
    mean = np.where(mean > TIE_NATS, mean, 0.0)
    spread = gaps.std(axis=0, ddof=1) if number > 1 else np.full(len(rivals), np.nan)
    spread = np.where(spread < TIE_NATS, 0.0, spread)
    # In standard deviations: infinite where every prompt says the same, NaN where it is unknown.
    with np.errstate(divide="ignore", invalid="ignore"):
        effect = np.where(mean > 0, mean / spread, 0.0 * spread)
        needed = np.maximum(2.0, np.ceil((_POWER_Z / effect) ** 2))
    errors = stats.t.sf(effect * np.sqrt(number), max(1, number - 1))
    hardest = int(np.argmin(np.where(np.isnan(effect), mean, effect)))
    probability = float(max(0.0, 1 - errors.sum()))
    return FirstPlace(
        teacher=str(shared.teachers[first]),
        probability=probability if number > 1 else float("nan"),
        rival=str(rivals[hardest]),
        gap=float(mean[hardest]),
        is_settled=bool((errors < 0.025).all()),
        prompts_needed=float(needed[hardest]) if np.isfinite(needed[hardest]) else float("nan"),
        num_prompts=number,
    )


def compare_rankings(scores: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Kendall tau (b) between the teacher rankings under each pair of score columns (Fig. 3).

    All columns are averaged over the responses scored under every column, so a low value is due to
    the scores and not to what they could be computed on.

    Returns:
        Square table, 1 = same order, -1 = opposite; NaN where all teachers tie. ``attrs`` as for
        `rank_teachers`.

    Example:
        >>> from lalp.selection.table import example_scores
        >>> compare_rankings(example_scores(), ["galp", "lalp@4"]).round(1)
                galp  lalp@4
        galp     1.0    -1.0
        lalp@4  -1.0     1.0
    """
    names = list(dict.fromkeys(columns))
    shared = _shared_means(scores, names, least_teachers=2)
    ranks = [_ranks(values.mean(axis=0)) for values in shared.values]
    taus = [[stats.kendalltau(a, b).statistic for b in ranks] for a in ranks]
    return shared.annotate(pd.DataFrame(taus, index=names, columns=names, dtype=float))


def tau_interval(
    scores: pd.DataFrame,
    column_a: str,
    column_b: str,
    *,
    level: float = 0.95,
    num_resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Kendall tau between the teacher rankings under two columns, with a bootstrap interval.

    Both rankings are resampled with the same prompts. A resample in which all teachers tie under
    one column counts as tau 0. With few teachers tau takes few values, and so do its bounds.
    """
    shared = _shared_means(scores, [column_a, column_b], least_teachers=2)
    means = shared.values.mean(axis=1)
    resampled = bootstrap_means(shared.values, num_resamples, seed)
    taus = _taus(_pair_signs(resampled[:, 0]), _pair_signs(resampled[:, 1]))
    low, high = percentile_interval(taus, shared.num_prompts, level)
    tau = stats.kendalltau(_ranks(means[0]), _ranks(means[1])).statistic
    return Estimate(float(tau), float(low), float(high), shared.num_prompts)


def prompts_enough(
    scores: pd.DataFrame,
    column: str,
    sizes: Sequence[int] | None = None,
    *,
    num_draws: int = 500,
    seed: int = 0,
) -> pd.DataFrame:
    """How often fewer prompts give the teacher order of all shared prompts (paper, Sec. 7.1).

    At the full number every share is 1 by construction: this tells how many prompts suffice to find
    this pool's order. Whether it would hold for other prompts, `teacher_differences` tells.
    ``num_draws`` random subsets are drawn of each size, whatever the other ``sizes`` are; without
    any these are 1, 2, 5, 10, 20, 50, ... and all prompts.

    Returns:
        One row per size: ``num_prompts``, ``order_share`` (the full order is found exactly),
        ``top_share`` (the top teacher is), both with a 95 % Wilson interval (``order_low``,
        ``order_high``, ``top_low``, ``top_high``), and ``mean_tau`` (Kendall tau with the full
        order; 0 for a draw in which all teachers tie). ``attrs`` as for `rank_teachers`.

    Example:
        >>> from lalp.selection.table import example_scores
        >>> prompts_enough(example_scores(), "galp")[["num_prompts", "order_share", "mean_tau"]]
           num_prompts  order_share  mean_tau
        0            1          1.0       1.0
        1            2          1.0       1.0
    """
    shared = _shared_means(scores, [column], least_teachers=2)
    sizes = _check_sizes(sizes, shared.num_prompts)
    means = shared.values[0].mean(axis=0)
    full = _pair_signs(means)
    signs = _pair_signs(subset_means(shared.values[0], sizes, num_draws, seed))
    same = signs == full
    # A draw finds the top teacher if the pairs that the top is part of stand as in the full order.
    first, second = np.triu_indices(len(means), 1)
    is_top = _ranks(means) == 1
    found = {"order": same, "top": same[..., is_top[first] | is_top[second]]}
    curve = pd.DataFrame({"num_prompts": sizes})
    for name, pairs in found.items():
        shares = pairs.all(axis=-1).sum(axis=1) / num_draws
        curve[f"{name}_share"] = shares
        ends = [wilson_interval(share, num_draws) for share in shares]
        curve[[f"{name}_low", f"{name}_high"]] = ends
    return shared.annotate(curve.assign(mean_tau=_taus(signs, full).mean(axis=1)))


def _check_sizes(sizes: Sequence[int] | None, num_prompts: int) -> Int[np.ndarray, " sizes"]:
    """Sizes in increasing order, each once."""
    if sizes is None:
        steps = [digit * 10**power for power in range(10) for digit in (1, 2, 5)]
        sizes = [*(size for size in steps if size < num_prompts), num_prompts]
    wrong = [size for size in sizes if size != int(size) or not 1 <= size <= num_prompts]
    if wrong or not len(sizes):
        found = f"size {wrong[0]} is not possible" if wrong else "no size is given"
        raise InputError(f"{found}: give whole numbers from 1 to {num_prompts}, the shared prompts")
    return np.unique(np.asarray(sizes, dtype=np.int64))


@dataclass(frozen=True)
class _SharedMeans:
    """Mean score in nats of each teacher on each prompt that all share, both in order of name."""

    values: Float[np.ndarray, "columns prompts teachers"]
    teachers: tuple[str, ...]
    num_responses: Int[np.ndarray, " teachers"]
    num_prompts: int
    attrs: dict[str, Any]  # what tables made of it say about prompts and what was left out

    def annotate(self, frame: pd.DataFrame) -> pd.DataFrame:
        frame.attrs = dict(self.attrs)
        return frame


def _shared_means(
    scores: pd.DataFrame, columns: Sequence[str], *, least_teachers: int = 1
) -> _SharedMeans:
    """Average each teacher's candidates per prompt, on prompts where every teacher has one."""
    if not columns:
        raise InputError("no score column is given: name at least one, for example galp")
    keep, left_out = candidates(scores, columns, skip_unscored=True)
    prompt_of, prompts = pd.factorize(scores["prompt_id"], sort=True)
    teacher_of, teachers = pd.factorize(scores["teacher"], sort=True)
    # Sums in order of ids, so that not even their last bits depend on the order of the table.
    rows = np.argsort(id_order(scores), kind="stable")
    rows = rows[keep[rows]]
    cell = prompt_of[rows] * len(teachers) + teacher_of[rows]
    shape = (len(prompts), len(teachers))
    counts = np.bincount(cell, minlength=len(prompts) * len(teachers)).reshape(shape)
    # No groupby: its compensated sums would end in other bits.
    sums = [
        np.bincount(cell, score_values(scores, column)[rows], counts.size).reshape(shape)
        for column in columns
    ]
    shared = counts.all(axis=1)
    covered = dict(zip(map(str, teachers), (counts > 0).sum(axis=0).tolist(), strict=True))
    if not shared.any():
        fewest_first = sorted(covered.items(), key=lambda item: item[1])
        listed = ", ".join(f"{teacher} for {count}" for teacher, count in fewest_first)
        none = f"no prompt has a scored candidate of every teacher under {', '.join(columns)}"
        some = f"of {len(prompts)} prompts there is one by {listed}"
        raise InputError(f"{none}; {some}: leave out the teachers with the fewest")
    if not shared.all():
        left_out["prompts without a scored candidate of every teacher"] = int((~shared).sum())
    if len(teachers) < least_teachers:
        only = f"the scores hold one teacher, {teachers[0]!r}"
        raise InputError(f"{only}: an order needs at least two")
    values = np.stack(sums)[:, shared] / counts[shared]
    num_prompts = values.shape[1]
    attrs = {"num_prompts": num_prompts, "prompts_by_teacher": covered, "left_out": left_out}
    return _SharedMeans(values, tuple(teachers), counts[shared].sum(axis=0), num_prompts, attrs)


def _ranks(means: Float[np.ndarray, " teachers"]) -> Int[np.ndarray, " teachers"]:
    """1 = highest; teachers that tie share the better rank."""
    return 1 + (means[None, :] > means[:, None] + TIE_NATS).sum(axis=1)


def _pair_signs(means: Float[np.ndarray, "... teachers"]) -> Int[np.ndarray, "... pairs"]:
    """For each pair of teachers: 1 if the former is higher, -1 if lower, 0 if they tie."""
    first, second = np.triu_indices(means.shape[-1], 1)
    gap = means[..., first] - means[..., second]
    return np.where(np.abs(gap) > TIE_NATS, np.sign(gap), 0).astype(np.int64)


def _taus(
    signs_a: Int[np.ndarray, "... pairs"], signs_b: Int[np.ndarray, "... pairs"]
) -> Float[np.ndarray, " ..."]:
    """Kendall tau-b from the signs of pairs; 0 where one side is all ties."""
    # scipy's kendalltau takes one pair of rankings a call: too slow for thousands of resamples.
    untied = np.sqrt((signs_a != 0).sum(axis=-1) * (signs_b != 0).sum(axis=-1))
    return (signs_a * signs_b).sum(axis=-1) / np.maximum(untied, 1)
