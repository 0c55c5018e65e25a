"""Rank teachers with intervals, and find how many prompts are enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy import linalg, stats

from lalp.errors import InputError
from lalp.selection.table import TIE_NATS, candidates, id_order, score_values
from lalp.stats import (
    Estimate,
    bootstrap_means,
    holm,
    hotelling_test,
    means_interval,
    needed_text,
    percentile_interval,
    seeded_generator,
    subset_means,
    t_interval,
    units_needed,
    wilson_interval,
)


def rank_teachers(
    scores: pd.DataFrame,
    column: str,
    *,
    level: float = 0.95,
    num_resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Mean score per teacher over the same prompts, highest first (paper, Fig. 1 and Table 2).

    Only prompts where every teacher has a scored candidate count, and all count equally: the
    responses of one teacher to one prompt are averaged first. Intervals are those of
    `lalp.stats.means_interval`: Student's t below 50 prompts, else a bootstrap over prompts. The
    intervals of two teachers can overlap although their order is clear, because hard prompts are
    hard for both: see `teacher_differences`.

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
    low, high = means_interval(shared.values[0], resampled, level)
    is_top = resampled >= resampled.max(axis=1, keepdims=True) - TIE_NATS
    # Teachers that tie divide a resample.
    top_shares = (is_top / is_top.sum(axis=1, keepdims=True)).mean(axis=0)
    ranking = pd.DataFrame({"teacher": shared.teachers, "mean": means, "low": low, "high": high})
    ranking["rank"] = _ranks(means)
    ranking["p_top"] = top_shares if shared.num_prompts > 1 else np.nan
    ranking["num_responses"] = shared.num_responses
    # Teachers are sorted by name already, and the sort is stable: equal ranks stay in that order.
    return shared.annotate(ranking.sort_values("rank", kind="stable", ignore_index=True))


def teacher_differences(
    scores: pd.DataFrame,
    column: str,
    *,
    level: float = 0.95,
    num_resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Difference of means for each pair of teachers: the resolved part of a ranking.

    Differences are paired, so the common difficulty of a prompt cancels. Intervals hold for each
    pair by itself. ``p_holm`` and ``resolved`` hold for all pairs together: the chance that any
    pair of teachers without a difference is called resolved is at most 5 % (1 - ``level``).

    Returns:
        One row per pair, in order of rank: ``higher``, ``lower``, ``difference`` (nats, at least
        0), ``low``, ``high`` (as in `rank_teachers`), ``p`` (of a paired t test, two-sided),
        ``p_holm`` (with Holm's correction for the number of pairs) and ``resolved`` (``p_holm`` is
        below 1 - ``level``). The table is empty for one teacher. ``attrs`` as for `rank_teachers`.

    Example:
        >>> from lalp.selection.table import example_scores
        >>> pairs = teacher_differences(example_scores(), "galp")
        >>> pairs[["higher", "lower", "difference", "p_holm", "resolved"]].round(2)
          higher lower  difference  p_holm  resolved
        0    Bob   Ada        0.15     0.2     False
    """
    shared = _shared_means(scores, [column])
    values = shared.values[0]
    means = values.mean(axis=0)
    order = np.argsort(_ranks(means), kind="stable")
    higher, lower = (order[side] for side in np.triu_indices(len(order), 1))
    gaps = values[:, higher] - values[:, lower]
    resampled = bootstrap_means(shared.values, num_resamples, seed)[:, 0]
    ends = means_interval(gaps, resampled[:, higher] - resampled[:, lower], level)
    names = np.asarray(shared.teachers, dtype=object)
    pairs = pd.DataFrame({"higher": names[higher], "lower": names[lower]})
    # Teachers that tie are sorted by name, and may differ by a rounding error below 0.
    pairs["difference"] = np.maximum(means[higher] - means[lower], 0.0)
    # One teacher has no pairs; numpy then gives only one axis.
    pairs["low"], pairs["high"] = ends.reshape(2, -1)
    pairs["p"] = 2 * _t_tail(np.abs(_effects(gaps)), shared.num_prompts)
    pairs["p_holm"] = holm(pairs["p"].to_numpy())
    return shared.annotate(pairs.assign(resolved=pairs["p_holm"] < 1 - level))


def _effects(gaps: Float[np.ndarray, "prompts pairs"]) -> Float[np.ndarray, " pairs"]:
    """Means in standard deviations.

    Infinite if all prompts agree, 0 for a tie, NaN for one prompt.
    """
    mean = gaps.mean(axis=0)
    mean = np.where(np.abs(mean) > TIE_NATS, mean, 0.0)
    spread = gaps.std(axis=0, ddof=1) if len(gaps) > 1 else np.full(len(mean), np.nan)
    spread = np.where(spread < TIE_NATS, 0.0, spread)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(mean != 0, mean / spread, 0.0 * spread)


def _t_tail(effects: Float[np.ndarray, " pairs"], num_prompts: int) -> Float[np.ndarray, " pairs"]:
    """The probability of a mean this high above 0 if the true one is 0 (Student's t)."""
    return stats.t.sf(effects * np.sqrt(num_prompts), max(1, num_prompts - 1))


@dataclass(frozen=True)
class FirstPlace:
    """The first teacher, and how sure that is.

    ``probability`` is a lower bound for being first on other prompts like these, from Student's t
    of its paired differences. ``rival`` is the teacher that is hardest to tell from it.
    ``prompts_needed`` is how many prompts would show that ``gap`` (nats) at 5 % with 80 % power
    (`lalp.stats.units_needed`), if it and its spread stay; NaN for one prompt or a tie.
    ``is_settled`` is true if the 95 % interval of every difference is above 0. That needs no
    correction for the number of rivals, because each must be beaten.
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
        number, _, alike = needed_text(self.prompts_needed).partition(": ")
        gap = f"if the gap to {self.rival} stays {self.gap:.4f}"
        return f"{first}: about {number} would settle it, {gap}" + (f": {alike}" if alike else "")


def first_place(scores: pd.DataFrame, column: str) -> FirstPlace:
    """How sure the first place of a ranking is, and how many prompts would settle it.

    Example:
        >>> from lalp.selection.table import example_scores
        >>> place = first_place(example_scores(), "galp")
        >>> place.teacher, round(place.probability, 2), place.is_settled, place.prompts_needed
        ('Bob', 0.9, False, 5.0)
    """
    shared = _shared_means(scores, [column], least_teachers=2)
    values, number = shared.values[0], shared.num_prompts
    first = int(np.argmin(_ranks(values.mean(axis=0))))
    gaps = np.delete(values[:, [first]] - values, first, axis=1)
    rivals = [teacher for teacher in shared.teachers if teacher != shared.teachers[first]]
    mean, effects = np.maximum(gaps.mean(axis=0), 0.0), _effects(gaps)
    errors = _t_tail(effects, number)
    hardest = int(np.argmin(np.where(np.isnan(effects), mean, effects)))
    probability = float(max(0.0, 1 - errors.sum()))
    return FirstPlace(
        teacher=str(shared.teachers[first]),
        probability=probability if number > 1 else float("nan"),
        rival=str(rivals[hardest]),
        gap=float(mean[hardest]),
        is_settled=bool((errors < 0.025).all()),
        prompts_needed=units_needed(float(effects[hardest])),
        num_prompts=number,
    )


def compare_rankings(scores: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Kendall tau (b) between the teacher rankings under each pair of score columns (Fig. 3).

    All columns are averaged over the responses scored under every column. So a low value is due to
    the scores, not to missing responses.

    Returns:
        Square table, 1 = same order, -1 = opposite; NaN if all teachers tie. ``attrs`` as for
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

    This is a description, not a test: with a few teachers tau has only a few values, and it counts
    swaps of nearly equal teachers as much as others. `teacher_interaction` tests whether two scores
    space teachers differently. The interval is the percentile bootstrap for any number of prompts.

    Both rankings are resampled with the same prompts. A resample in which all teachers tie under
    one column counts as tau 0.

    Example:
        >>> from lalp.selection.table import example_scores
        >>> print(tau_interval(example_scores(), "galp", "lalp@4"))
        -1.00 [-1.00, -1.00]
    """
    shared = _shared_means(scores, [column_a, column_b], least_teachers=2)
    means = shared.values.mean(axis=1)
    resampled = bootstrap_means(shared.values, num_resamples, seed)
    taus = _taus(_pair_signs(resampled[:, 0]), _pair_signs(resampled[:, 1]))
    low, high = percentile_interval(taus, shared.num_prompts, level)
    tau = stats.kendalltau(_ranks(means[0]), _ranks(means[1])).statistic
    return Estimate(float(tau), float(low), float(high), shared.num_prompts)


@dataclass(frozen=True)
class Interaction:
    """Whether two scores space the teachers differently, from `teacher_interaction`.

    ``statistic`` is F, with `degrees` of freedom. The largest contrast is the pair whose gap
    differs most between the scores: ``higher`` is ahead of ``lower`` by ``contrast`` more under
    ``score_a`` than under ``score_b``, in nats or in standard deviations. Its interval is Student's
    t, at 95 % for all pairs of teachers together (Bonferroni).
    """

    score_a: str
    score_b: str
    is_standardized: bool
    num_teachers: int
    num_prompts: int
    statistic: float
    p: float
    higher: str
    lower: str
    contrast: Estimate

    @property
    def degrees(self) -> tuple[int, int]:
        """Degrees of freedom of F."""
        return self.num_teachers - 1, self.num_prompts - self.num_teachers + 1

    def __str__(self) -> str:
        pair = f"{self.score_a} and {self.score_b}"
        if np.isnan(self.p):
            fewest = f"{self.num_teachers} teachers take at least {self.num_teachers}"
            return f"{pair}: {self.num_prompts} prompts are too few to compare spacings, {fewest}"
        found = "space" if self.p < 0.05 else "are not shown to space"
        said = f"{pair} {found} {self.num_teachers} teachers differently"
        sure = "p < 0.001" if self.p < 0.001 else f"p = {self.p:.3f}"
        test = f"F({self.degrees[0]}, {self.degrees[1]}) = {self.statistic:.2f}, {sure}"
        unit = "standard deviations" if self.is_standardized else "nats"
        most = f"{self.higher} over {self.lower} by {self.contrast:.3f} {unit} more"
        return f"{said}: {test}, {self.num_prompts} prompts; most: {most} under {self.score_a}"


def teacher_interaction(
    scores: pd.DataFrame, column_a: str, column_b: str, *, standardized: bool = False
) -> Interaction:
    """Test whether two scores space the teachers differently: a teacher-by-score interaction.

    For each prompt that all teachers share, the test takes the difference of the two scores by
    teacher and subtracts its mean over teachers. Hotelling's T-squared tests whether these have
    mean 0 for every teacher, so whether all gaps between teachers are the same under both scores.

    - In nats (the default): are the gaps equal in size? A score that stretches the other's gaps and
      keeps their order counts as different.
    - ``standardized``: each score is first divided by its pooled within-prompt standard deviation
      over teachers. Are the gaps equal up to a common factor? This is the question for scores with
      different scales. The test accounts for the estimation of the two factors, to first order.

    Neither test says that the orders differ. They differ if some pair of teachers also has opposite
    orders under the two scores: see `teacher_differences` for both. If lower is better under only
    one score, change its sign first.

    Returns:
        The test (NaN if there are fewer prompts than teachers) and the largest contrast.

    Example:
        >>> from lalp.selection.table import example_scores
        >>> print(teacher_interaction(example_scores(), "lalp@4", "galp"))
        lalp@4 and galp space 2 teachers differently: F(1, 1) = inf, p < 0.001, 2 prompts; most:
        Ada over Bob by 0.300 [0.300, 0.300] nats more under lalp@4
    """
    shared = _shared_means(scores, [column_a, column_b], least_teachers=2)
    centered = shared.values - shared.values.mean(axis=-1, keepdims=True)
    if standardized:
        centered = np.stack([_standardize(values) for values in centered])
    shifts = centered[0] - centered[1]
    number, size = shifts.shape
    # Contrasts of length 1, at right angles to each other and to the mean over teachers.
    statistic, p = hotelling_test(_without_rounding(shifts @ linalg.helmert(size).T))
    first, second = np.triu_indices(size, 1)
    means = shifts.mean(axis=0)
    most = int(np.argmax(np.abs(means[first] - means[second])))
    higher, lower = first[most], second[most]
    if means[higher] < means[lower]:
        higher, lower = lower, higher
    gap = _without_rounding(shifts[:, higher] - shifts[:, lower])
    names = map(str, (shared.teachers[higher], shared.teachers[lower]))
    contrast = t_interval(gap, 1 - 0.05 / len(first))
    about = (column_a, column_b, standardized, size, number)
    return Interaction(*about, statistic, p, *names, contrast)


def _standardize(
    centered: Float[np.ndarray, "prompts teachers"],
) -> Float[np.ndarray, "prompts teachers"]:
    """Deviations from a prompt's mean in pooled standard deviations, including the latter's error.

    A prompt that raises the standard deviation lowers all standardized means a little. Its share of
    that is added to its values. So these have the means of the plain values, and vary like the
    means from sample to sample.
    """
    variances = (centered**2).sum(axis=1) / (centered.shape[1] - 1)
    pooled = variances.mean()
    if pooled < TIE_NATS**2:
        return np.zeros_like(centered)
    lowered = (variances[:, None] / pooled - 1) / 2 * centered.mean(axis=0)
    return (centered - lowered) / np.sqrt(pooled)


def _without_rounding(values: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Values that differ by less than a tie become equal: their last bits are no spread."""
    return np.round(values, 12)


def prompts_enough(
    scores: pd.DataFrame,
    column: str,
    sizes: Sequence[int] | None = None,
    *,
    num_draws: int = 500,
    seed: int = 0,
) -> pd.DataFrame:
    """How often fewer prompts name the first teacher, and give the whole order (paper, Sec. 7.1).

    It answers two questions, with two kinds of draws of each size:

    - ``new_top_share``: how often do n new prompts name the pool's first teacher? A user who scores
      n prompts to choose a teacher asks this. Prompts are drawn with replacement, as if the pool
      were all prompts, and may be more than it has. The pool's first teacher counts as the true
      one, which is too optimistic until `first_place` is settled.
    - ``order_share``, ``top_share`` and ``mean_tau``: how often does a subset of these prompts
      agree with all of them? Subsets are parts of the set they are compared with. A larger subset
      agrees more for this reason, and the full set agrees by construction (1). Subsets show when
      more prompts of this pool stop changing its result; they say nothing about other prompts.

    ``num_draws`` samples are drawn for each size, independently of other ``sizes``; the default
    sizes are 1, 2, 5, 10, 20, 50, ... and all prompts. Intervals cover the error of the share of
    these draws, not the effect of other prompts.

    Returns:
        One row per size: ``num_prompts``, ``order_share`` (the full order is found exactly),
        ``top_share`` (the top teacher is), both with a 95 % Wilson interval (``order_low``,
        ``order_high``, ``top_low``, ``top_high``), ``mean_tau`` (Kendall tau with the full
        order; 0 for a draw in which all teachers tie), and ``new_top_share`` with ``new_top_low``
        and ``new_top_high``. ``attrs`` as for `rank_teachers`. `fewest_prompts` reads the table.

    Example:
        >>> from lalp.selection.table import example_scores
        >>> curve = prompts_enough(example_scores(), "galp")
        >>> curve[["num_prompts", "order_share", "mean_tau", "new_top_share"]]
           num_prompts  order_share  mean_tau  new_top_share
        0            1          1.0       1.0            1.0
        1            2          1.0       1.0            1.0
    """
    shared = _shared_means(scores, [column], least_teachers=2)
    sizes = _check_sizes(sizes, shared.num_prompts)
    means = shared.values[0].mean(axis=0)
    full = _pair_signs(means)
    signs = _pair_signs(subset_means(shared.values[0], sizes, num_draws, seed))
    same = signs == full
    new = _pair_signs(_means_of_new(shared.values[0], sizes, num_draws, seed)) == full
    # A draw finds the top teacher if the top's pairs are ordered as in the full order.
    first, second = np.triu_indices(len(means), 1)
    is_top = _ranks(means) == 1
    of_top = is_top[first] | is_top[second]
    found = {"order": same, "top": same[..., of_top], "new_top": new[..., of_top]}
    curve = pd.DataFrame({"num_prompts": sizes})
    for name, pairs in found.items():
        shares = pairs.all(axis=-1).sum(axis=1) / num_draws
        curve[f"{name}_share"] = shares
        ends = [wilson_interval(share, num_draws) for share in shares]
        curve[[f"{name}_low", f"{name}_high"]] = ends
    return shared.annotate(curve.assign(mean_tau=_taus(signs, full).mean(axis=1)))


def _means_of_new(
    values: Float[np.ndarray, "prompts teachers"],
    sizes: Int[np.ndarray, " sizes"],
    num_draws: int,
    seed: int,
) -> Float[np.ndarray, "sizes draws teachers"]:
    """Teacher means over prompts drawn with replacement, for each size."""
    shares = np.full(len(values), 1 / len(values))
    # Each size has its own generator, so none depends on the other sizes.
    times = (
        seeded_generator(f"new prompts {size}", seed).multinomial(size, shares, num_draws)
        for size in sizes.tolist()
    )
    return np.stack([drawn @ values / drawn[:1].sum() for drawn in times])


def fewest_prompts(
    curve: pd.DataFrame, column: str = "new_top_share", share: float = 0.95
) -> float:
    """The fewest prompts in a table of `prompts_enough` from which on a share is reached.

    NaN if no size reaches it. The full pool does not count for shares of subsets, which are then 1
    by construction.

    Example:
        >>> curve = pd.DataFrame({"num_prompts": [5, 10, 20], "order_share": [0.5, 0.9, 1.0]})
        >>> fewest_prompts(curve, "order_share", 0.9)
        10.0
        >>> fewest_prompts(curve, "order_share")
        nan
    """
    if not column.startswith("new"):
        all_of_them = curve.attrs.get("num_prompts", curve["num_prompts"].max())
        curve = curve[curve["num_prompts"] < all_of_them]
    lacking = curve.loc[curve[column] < share, "num_prompts"].max()
    sizes = curve["num_prompts"]
    return float((sizes if np.isnan(lacking) else sizes[sizes > lacking]).min())


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
    attrs: dict[str, Any]  # notes for its tables on prompts and left-out responses

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
    # Sums are in order of ids, so even their last bits do not depend on the table's order.
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
    """For each pair of teachers: 1 if the first is higher, -1 if lower, 0 if they tie."""
    first, second = np.triu_indices(means.shape[-1], 1)
    gap = means[..., first] - means[..., second]
    return np.where(np.abs(gap) > TIE_NATS, np.sign(gap), 0).astype(np.int64)


def _taus(
    signs_a: Int[np.ndarray, "... pairs"], signs_b: Int[np.ndarray, "... pairs"]
) -> Float[np.ndarray, " ..."]:
    """Kendall tau-b from the signs of pairs; 0 if one side is all ties."""
    # scipy's kendalltau takes one pair of rankings per call: too slow for thousands of resamples.
    untied = np.sqrt((signs_a != 0).sum(axis=-1) * (signs_b != 0).sum(axis=-1))
    return (signs_a * signs_b).sum(axis=-1) / np.maximum(untied, 1)
