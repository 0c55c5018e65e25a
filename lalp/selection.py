"""Choose one response per prompt, rank teachers, and say how sure either is (paper, Sec. 4 and 7).

A scores table has one row per response: ``prompt_id``, ``response_id``, ``teacher``, ``correct``
(true, false, or null where nobody verified it), ``num_tokens``, ``galp``, one ``lalp@WINDOW`` per
window, and ``reason`` (why a score is NaN). Scores are nats per token, higher = more natural.
Responses known to be wrong are never candidates (Sec. 3.1). No choice or number depends on the
order of the rows, and all randomness comes from ``seed``.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal, get_args

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from scipy import stats

from lalp.records import InputError
from lalp.variants import LOWER_IS_BETTER, VARIANTS, add_variants, variant_column
from lalp.windows import Window, parse_window

RULES = ("random", "galp", "galp-middle", "galp-lowest", "lalp", "lalp-lowest", *VARIANTS)
THIRDS = ("highest", "middle", "lowest")
_WINDOW_RULES = frozenset({"lalp", "lalp-lowest", "hybrid", "lalp-tail"})
Tie = Literal["first", "shortest", "random"]

# Sums over prompts in another order differ by about 1e-14 nats: smaller gaps than this are ties.
_TIE_NATS = 1e-12
_CHUNK_NUMBERS = 2**22
# Correlation with the start falls below 0.1 within about 10 moves on a pool of four teachers.
_MOVES_PER_TEACHER = 100


# --- one response per prompt ------------------------------------------------------------------


def score_column(rule: str, window: str | int | Window | None = None) -> str | None:
    """Name of the score that a rule compares; None for ``random``, which needs no score.

    Args:
        rule: One of ``RULES``.
        window: Context window of the rules that have one, such as ``4`` or ``25%``; others
            ignore it.

    Raises:
        InputError: If the rule is unknown, or it needs a window and has none or a malformed one.
    """
    if rule not in RULES:
        raise InputError(f"there is no rule {rule!r}: choose one of {', '.join(RULES)}")
    if rule == "random":
        return None
    if rule in ("galp", "galp-middle", "galp-lowest"):
        return "galp"
    if rule in VARIANTS:
        return variant_column(rule, window)
    if window is None:
        raise InputError(f"rule {rule} needs a window: name one, for example 4")
    return f"lalp@{parse_window(window)}"


def select(
    scores: pd.DataFrame,
    rule: str,
    window: str | int | Window | None = None,
    *,
    seed: int = 0,
    tie: Tie = "first",
    skip_unscored: bool = False,
) -> pd.DataFrame:
    """Choose one response per prompt by a rule (paper, Sec. 7.2, Table 3).

    A random choice (by rule or by tie) depends on the seed, the prompt and its candidates only, so
    adding, removing or reordering other prompts changes nothing.

    Args:
        scores: One row per response.
        rule: One of ``RULES``: a random candidate, or the one of highest, lowest or middle score
            (of an even number, the upper middle). Scores of `lalp.variants` that the table lacks
            are computed; of ``rsr`` the lowest is chosen.
        window: Context window of ``lalp``, ``lalp-lowest``, ``hybrid`` and ``lalp-tail``; may be
            left out if the table holds only one. The other rules ignore it.
        seed: For ``random``, as rule and as tie rule.
        tie: Which of equal scores to take: ``first`` (smallest response id, as text),
            ``shortest`` (fewest tokens, then smallest id) or ``random``.
        skip_unscored: Leave out candidates without a score instead of refusing.

    Returns:
        The chosen rows, one per prompt, prompts in order of first appearance. ``attrs["left_out"]``
        counts the responses and prompts left out, by reason.

    Raises:
        InputError: If rule, tie or column do not exist, a candidate has no score (and
            ``skip_unscored`` is off), or no prompt has a candidate.
    """
    if tie not in get_args(Tie):
        raise InputError(f"there is no tie rule {tie!r}: choose {', '.join(get_args(Tie))}")
    _check_table(scores)
    if window is None and rule in _WINDOW_RULES:
        window = _only_window(scores)
    column = score_column(rule, window)
    if rule in VARIANTS and column not in scores.columns:
        scores = add_variants(scores, [rule], window)
    columns = [] if column is None else [column]
    keep, left_out = _candidates(scores, columns, skip_unscored=skip_unscored)
    if column is None:
        keys = [_draws("rule", seed, scores)]
    else:
        values = _score_values(scores, column)
        lowest = rule.endswith("lowest") or rule in LOWER_IS_BETTER
        keys = [values if lowest else -values, *_tie_keys(scores, tie, seed)]
    chosen = _take(scores, keep, keys, middle=rule.endswith("middle"))
    return _with_left_out(scores, chosen, left_out, "prompts without a candidate")


def of_teacher(scores: pd.DataFrame, teacher: str) -> pd.DataFrame:
    """The rows of one teacher, to select within it (paper, Table 1, 13 and 14).

    Raises:
        InputError: If the table holds no response by that teacher.
    """
    _require_columns(scores, ["teacher"])
    rows = scores[scores["teacher"] == teacher].reset_index(drop=True)
    if rows.empty:
        known = ", ".join(sorted(map(str, scores["teacher"].unique())))
        raise InputError(f"teacher {teacher!r} has no response here: there are {known}")
    return rows


def select_third(scores: pd.DataFrame, third: str, column: str = "galp") -> pd.DataFrame:
    """The responses in one third of a score's order over prompts (paper, Sec. 4, Table 1).

    Thirds differ by one response at most, the higher ones being the larger. Equal scores are put in
    order of response ids.

    Args:
        scores: One row per response, of one teacher as a rule (`of_teacher`).
        third: ``highest``, ``middle`` or ``lowest``.
        column: The score.

    Raises:
        InputError: If a prompt has several candidates, there are fewer than three, or one of them
            lacks a score.
    """
    if third not in THIRDS:
        raise InputError(f"there is no third {third!r}: choose one of {', '.join(THIRDS)}")
    _check_table(scores)
    keep, left_out = _candidates(scores, [column], skip_unscored=False)
    rows = np.flatnonzero(keep)
    if scores.iloc[rows]["prompt_id"].duplicated().any() or len(rows) < len(THIRDS):
        raise InputError(
            f"{len(rows)} candidates cannot be cut into thirds: give one response per prompt, by "
            "one teacher, of at least three prompts"
        )
    order = rows[np.lexsort([_id_order(scores)[rows], -_score_values(scores, column)[rows]])]
    chosen = np.sort(np.array_split(order, len(THIRDS))[THIRDS.index(third)])
    return _with_left_out(
        scores, scores.iloc[chosen].reset_index(drop=True), left_out, "prompts of other thirds"
    )


def within_tokens(selected: pd.DataFrame, max_tokens: int, *, seed: int = 0) -> pd.DataFrame:
    """A part of a selection that fits into a number of response tokens: the control for length.

    Rules differ in the length of what they choose. Prompts are taken in an order drawn by ``seed``,
    the same for every selection, each one that still fits.

    Raises:
        InputError: If not even the shortest response fits.
    """
    _check_selection(selected)
    _require_columns(selected, ["num_tokens"])
    order = sorted(
        range(len(selected)), key=lambda i: _hash("tokens", seed, selected["prompt_id"].iloc[i])
    )
    kept, used = [], 0
    for i in order:
        length = int(selected["num_tokens"].iloc[i])
        if used + length <= max_tokens:
            kept.append(i)
            used += length
    if not kept:
        raise InputError(f"no response of the selection fits into {max_tokens} tokens: give more")
    return selected.iloc[sorted(kept)].reset_index(drop=True)


def select_random_matched(
    scores: pd.DataFrame, like: pd.DataFrame, *, seed: int = 0
) -> pd.DataFrame:
    """Random selection with the teacher mix of another one: the control for composition.

    Covers the prompts of ``like`` and takes exactly as many responses of each teacher. A difference
    between students trained on the two is then due to which responses were chosen, not to how many
    came from which teacher. Teachers are assigned to prompts uniformly among all assignments that
    keep these numbers and give no prompt a teacher without a candidate for it (see
    ``_assign_teachers``); then one candidate of that teacher is drawn.

    Args:
        scores: One row per response: the table that ``like`` was selected from. Filter it first if
            the control should see scored responses only.
        like: A selection: one row per prompt.
        seed: For the assignment and for the draws within a teacher.

    Returns:
        As ``select``.

    Raises:
        InputError: If ``like`` is not a selection from ``scores``.
    """
    _check_table(scores)
    _check_selection(like)
    keep, left_out = _candidates(scores, [], skip_unscored=False)
    prompt_of, prompts = pd.factorize(scores["prompt_id"], sort=True)
    teacher_of, teachers = pd.factorize(scores["teacher"], sort=True)
    available = np.zeros((len(prompts), len(teachers)), dtype=bool)
    available[prompt_of[keep], teacher_of[keep]] = True
    rows, current = prompts.get_indexer(like["prompt_id"]), teachers.get_indexer(like["teacher"])
    _check_available(like, (rows >= 0) & (current >= 0) & available[rows, current])

    rows, current = rows[np.argsort(rows)], current[np.argsort(rows)]
    used, current = np.unique(current, return_inverse=True)
    generator = _generator("assignment", seed)
    assigned = np.full(len(prompts), -1)
    assigned[rows] = used[_assign_teachers(available[np.ix_(rows, used)], current, generator)]
    keep &= assigned[prompt_of] == teacher_of
    chosen = _take(scores, keep, [_draws("matched", seed, scores)])
    return _with_left_out(scores, chosen, left_out, "prompts outside the matched selection")


def teacher_mix(selected: pd.DataFrame) -> pd.DataFrame:
    """Responses per teacher in a selection: ``count`` and ``percent`` (paper, Table 8).

    Teachers stand in order of their names; one that was never chosen has no row.
    """
    _require_columns(selected, ["teacher"])
    count = selected["teacher"].value_counts().sort_index()
    return pd.DataFrame({"count": count, "percent": 100 * count / max(1, count.sum())})


def agreement(selected_a: pd.DataFrame, selected_b: pd.DataFrame) -> float:
    """Share of prompts, among those in both selections, where both choose the same response.

    Raises:
        InputError: If a selection has a prompt twice, or the two share no prompt.
    """
    _check_selection(selected_a)
    _check_selection(selected_b)
    key = ["prompt_id", "response_id"]
    both = selected_a[key].merge(selected_b[key], on="prompt_id")
    if both.empty:
        raise InputError("the two selections share no prompt: compare selections from one pool")
    return float((both["response_id_x"] == both["response_id_y"]).mean())


# --- teachers ---------------------------------------------------------------------------------


def rank_teachers(
    scores: pd.DataFrame,
    column: str,
    *,
    level: float = 0.95,
    num_resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Mean score per teacher over the same prompts, highest first (paper, Fig. 1 and Table 2).

    Only prompts where every teacher has a scored candidate count, each of them equally: several
    responses of one teacher to one prompt are averaged first. Percentile bootstrap over prompts,
    all teachers resampled with the same prompts. The intervals of two teachers can overlap although
    their order is clear, since hard prompts are hard for both: see ``teacher_differences``.

    Args:
        scores: One row per response.
        column: Score column, such as ``galp`` or ``lalp@4``.
        level: Coverage of the interval, which is too narrow with fewer than about 30 prompts and
            NaN with one.
        num_resamples: Bootstrap resamples.
        seed: For the bootstrap.

    Returns:
        One row per teacher: ``teacher``, ``mean``, ``low``, ``high`` (nats), ``rank`` (1 = highest;
        equal means share a rank), ``p_top`` (share of resamples in which this teacher is first) and
        ``num_responses`` (averaged into the mean). ``attrs["num_prompts"]`` is the number of shared
        prompts, ``attrs["prompts_by_teacher"]`` the number each teacher has a scored candidate for,
        ``attrs["left_out"]`` counts responses and prompts left out, by reason.

    Raises:
        InputError: If the column does not exist or no prompt is shared by all teachers.
    """
    shared = _shared_means(scores, [column])
    means = shared.values[0].mean(axis=0)
    resampled = _bootstrap_means(shared.values, num_resamples, seed)[:, 0]
    low, high = _interval(resampled, level, shared.num_prompts)
    ranking = pd.DataFrame(
        {
            "teacher": shared.teachers,
            "mean": means,
            "low": low,
            "high": high,
            "rank": _ranks(means),
            "p_top": _top_shares(resampled) if shared.num_prompts > 1 else np.nan,
            "num_responses": shared.num_responses,
        }
    )
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

    Paired bootstrap: both teachers are resampled with the same prompts, so what makes a prompt easy
    or hard for both cancels. The level holds for each pair, not for all pairs at once.

    Args:
        scores: One row per response.
        column: Score column.
        level: Coverage of each interval; NaN with one prompt.
        num_resamples: Bootstrap resamples.
        seed: For the bootstrap; the resamples are those of ``rank_teachers``.

    Returns:
        One row per pair, in order of rank: ``higher``, ``lower``, ``difference`` (nats, at least
        0), ``low``, ``high``, and ``resolved`` (the interval excludes 0). Empty for one teacher.
        ``attrs`` as for ``rank_teachers``.

    Raises:
        InputError: If the column does not exist or no prompt is shared by all teachers.
    """
    shared = _shared_means(scores, [column])
    means = shared.values[0].mean(axis=0)
    order = np.argsort(_ranks(means), kind="stable")
    higher, lower = (order[side] for side in np.triu_indices(len(order), 1))
    resampled = _bootstrap_means(shared.values, num_resamples, seed)[:, 0]
    low, high = _interval(resampled[:, higher] - resampled[:, lower], level, shared.num_prompts)
    names = np.asarray(shared.teachers, dtype=object)
    differences = pd.DataFrame(
        {
            "higher": names[higher],
            "lower": names[lower],
            # Teachers that tie stand by name, and may differ by a rounding error below 0.
            "difference": np.maximum(means[higher] - means[lower], 0.0),
            "low": low,
            "high": high,
            "resolved": low > _TIE_NATS,
        }
    )
    return shared.annotate(differences)


def compare_rankings(scores: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Kendall tau (b) between the teacher rankings under each pair of score columns (Fig. 3).

    All columns are averaged over the same responses, those scored under every column, so a low
    value is due to the scores and not to what they could be computed on.

    Returns:
        Square table, 1 = same order, -1 = opposite; NaN where all teachers tie. ``attrs`` as for
        ``rank_teachers``.

    Raises:
        InputError: If a column does not exist, no prompt is shared by all teachers, or there is
            only one teacher.
    """
    names = list(dict.fromkeys(columns))
    shared = _shared_means(scores, names).need_two_teachers()
    ranks = [_ranks(values.mean(axis=0)) for values in shared.values]
    taus = [[stats.kendalltau(a, b).statistic for b in ranks] for a in ranks]
    return shared.annotate(pd.DataFrame(taus, index=names, columns=names, dtype=float))


@dataclass(frozen=True)
class TauInterval:
    """Kendall tau between two teacher rankings, with its bootstrap interval over prompts."""

    tau: float
    low: float
    high: float
    num_prompts: int


def tau_interval(
    scores: pd.DataFrame,
    column_a: str,
    column_b: str,
    *,
    level: float = 0.95,
    num_resamples: int = 2000,
    seed: int = 0,
) -> TauInterval:
    """Kendall tau between the teacher rankings under two columns, with a bootstrap interval.

    Both rankings are resampled with the same prompts. A resample in which all teachers tie under
    one column counts as tau 0. With few teachers tau takes few values, and so do its bounds.

    Raises:
        InputError: As ``compare_rankings``.
    """
    shared = _shared_means(scores, [column_a, column_b]).need_two_teachers()
    means = shared.values.mean(axis=1)
    resampled = _bootstrap_means(shared.values, num_resamples, seed)
    taus = _taus(_pair_signs(resampled[:, 0]), _pair_signs(resampled[:, 1]))
    low, high = _interval(taus, level, shared.num_prompts)
    tau = stats.kendalltau(_ranks(means[0]), _ranks(means[1])).statistic
    return TauInterval(float(tau), float(low), float(high), shared.num_prompts)


def prompts_enough(
    scores: pd.DataFrame,
    column: str,
    sizes: Sequence[int] | None = None,
    *,
    num_draws: int = 500,
    seed: int = 0,
) -> pd.DataFrame:
    """How often fewer prompts give the teacher order of all shared prompts (paper, Sec. 7.1).

    For each size, ``num_draws`` subsets are drawn without replacement; a draw's subset of one size
    lies within its subset of the next. At the full number every share is 1 by construction: this
    tells how many prompts suffice to find this pool's order, not whether that order would hold for
    other prompts (for that, see ``teacher_differences``).

    Args:
        scores: One row per response.
        column: Score column.
        sizes: Numbers of prompts; default 1, 2, 5, 10, 20, 50, ... and all.
        num_draws: Subsets per size.
        seed: For the subsets; what is found at one size does not depend on the others asked for.

    Returns:
        One row per size: ``num_prompts``, ``order_share`` (the full order is found exactly),
        ``top_share`` (the top teacher is), both with a 95 % Wilson interval (``order_low``,
        ``order_high``, ``top_low``, ``top_high``), and ``mean_tau`` (Kendall tau with the full
        order; 0 for a draw in which all teachers tie). ``attrs`` as for ``rank_teachers``.

    Raises:
        InputError: If the column does not exist, a size is not between 1 and the number of shared
            prompts, no prompt is shared by all teachers, or there is only one teacher.
    """
    _check_count("num_draws", num_draws)
    shared = _shared_means(scores, [column]).need_two_teachers()
    sizes = _check_sizes(sizes, shared.num_prompts)
    means = shared.values[0].mean(axis=0)
    full = _pair_signs(means)
    signs = _pair_signs(_subset_means(shared.values[0], sizes, num_draws, seed))
    same = signs == full
    first, second = np.triu_indices(len(means), 1)
    is_top = _ranks(means) == 1
    orders = same.all(axis=-1).sum(axis=1)
    tops = same[..., is_top[first] | is_top[second]].all(axis=-1).sum(axis=1)
    order_low, order_high = _wilson(orders, num_draws)
    top_low, top_high = _wilson(tops, num_draws)
    curve = {
        "num_prompts": sizes,
        "order_share": orders / num_draws,
        "order_low": order_low,
        "order_high": order_high,
        "top_share": tops / num_draws,
        "top_low": top_low,
        "top_high": top_high,
        "mean_tau": _taus(signs, full).mean(axis=1),
    }
    return shared.annotate(pd.DataFrame(curve))


# --- reading the table ------------------------------------------------------------------------


def _require_columns(frame: pd.DataFrame, names: Sequence[str]) -> None:
    missing = [name for name in names if name not in frame.columns]
    if missing:
        raise InputError(
            f"the table has no column {missing[0]!r}: it has {', '.join(map(str, frame.columns))}"
        )


def _check_table(scores: pd.DataFrame) -> None:
    """Refuse a table without rows, without a needed column, or with missing or repeated ids."""
    names = ["prompt_id", "response_id", "teacher"]
    _require_columns(scores, [*names, "correct"])
    if scores.empty:
        raise InputError("the scores table has no rows: score a pool first")
    for name in names:
        missing = int(scores[name].isna().sum())
        if missing:
            raise InputError(f"{missing} of {len(scores)} rows have no {name}: fill it in")
    repeated = scores.duplicated(names[:2])
    if repeated.any():
        row = scores[repeated].iloc[0]
        raise InputError(
            f"response {row['response_id']!r} of prompt {row['prompt_id']!r} stands in the table "
            "more than once: keep one row per response"
        )


def _check_selection(selected: pd.DataFrame) -> None:
    _require_columns(selected, ["prompt_id", "response_id", "teacher"])
    if selected.empty:
        raise InputError("the selection has no rows")
    repeated = selected["prompt_id"].duplicated()
    if repeated.any():
        raise InputError(
            f"prompt {selected.loc[repeated, 'prompt_id'].iloc[0]!r} stands in the selection more "
            "than once: give one row per prompt, as select() does"
        )


def _check_available(like: pd.DataFrame, found: Bool[np.ndarray, " prompts"]) -> None:
    if not found.all():
        row = like[~found].iloc[0]
        raise InputError(
            f"the scores hold no candidate of {row['teacher']!r} for prompt {row['prompt_id']!r}, "
            "which the selection to match has: give the table that it was selected from"
        )


def _check_count(name: str, count: int) -> None:
    if count < 1:
        raise InputError(f"{name} is {count}: give at least 1")


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


def _score_columns(scores: pd.DataFrame) -> list[str]:
    """GALP and LALP, without their single tokens."""
    names = [name for name in map(str, scores.columns) if not name.endswith(":tokens")]
    return [name for name in names if name == "galp" or name.startswith("lalp@")]


def _only_window(scores: pd.DataFrame) -> str:
    """The window of the table's only LALP column."""
    windows = [name.removeprefix("lalp@") for name in _score_columns(scores) if name != "galp"]
    if len(windows) == 1:
        return windows[0]
    found = f"the scores hold {', '.join(windows)}: name one" if windows else "the scores hold none"
    raise InputError(f"a LALP rule needs a window; {found}")


def _score_values(scores: pd.DataFrame, column: str) -> Float[np.ndarray, " rows"]:
    """A score column as floats; whatever is not a finite number counts as unscored (NaN)."""
    if column not in scores.columns:
        raise InputError(
            f"the scores have no column {column!r}: "
            f"there are {', '.join(_score_columns(scores)) or 'no score columns'}"
        )
    try:
        values = pd.to_numeric(scores[column]).to_numpy(dtype=float, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise InputError(f"column {column!r} holds something else than numbers: {error}") from error
    return np.where(np.isfinite(values), values, np.nan)


def _incorrect(scores: pd.DataFrame) -> Bool[np.ndarray, " rows"]:
    """Rows known to be wrong; unverified ones are not."""
    try:
        correct = scores["correct"].astype("boolean")
    except (TypeError, ValueError) as error:
        raise InputError(
            f"column 'correct' must hold true, false or null, nothing else: {error}"
        ) from error
    return correct.eq(False).fillna(False).to_numpy(dtype=bool)


def _candidates(
    scores: pd.DataFrame, columns: Sequence[str], *, skip_unscored: bool
) -> tuple[Bool[np.ndarray, " rows"], dict[str, int]]:
    """Rows that may be chosen, and how many were left out: wrong ones, and ones without a score."""
    wrong = _incorrect(scores)
    unscored = np.zeros(len(scores), dtype=bool)
    for column in columns:
        missing = ~wrong & np.isnan(_score_values(scores, column))
        if missing.any() and not skip_unscored:
            raise InputError(_unscored_message(scores, column, missing, int((~wrong).sum())))
        unscored |= missing
    counts = {"incorrect responses": int(wrong.sum()), "unscored responses": int(unscored.sum())}
    return ~wrong & ~unscored, {reason: count for reason, count in counts.items() if count}


def _unscored_message(
    scores: pd.DataFrame, column: str, missing: Bool[np.ndarray, " rows"], num_candidates: int
) -> str:
    row = scores[missing].iloc[0]
    reason = row.get("reason")
    reason = "no reason recorded" if reason is None or pd.isna(reason) else reason
    return (
        f"{missing.sum()} of {num_candidates} candidate responses have no score {column}, for "
        f"example {row['response_id']!r} of prompt {row['prompt_id']!r} ({reason}): leave them out "
        "with skip_unscored=True (--skip-unscored), or choose another window"
    )


# --- choosing ---------------------------------------------------------------------------------


def _hash(label: str, seed: int, *ids: object) -> int:
    """64 stable bits; the label keeps draws for different purposes independent."""
    text = json.dumps([label, operator.index(seed), *map(str, ids)])
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


def _generator(label: str, seed: int) -> np.random.Generator:
    return np.random.default_rng(_hash(label, seed))


def _draws(label: str, seed: int, scores: pd.DataFrame) -> np.ndarray:
    """A uniform 64-bit number per response: the smallest of a prompt is a uniform choice.

    Hashing instead of a generator makes a choice independent of row order and of other prompts.
    """
    ids = zip(scores["prompt_id"], scores["response_id"], strict=True)
    return np.array([_hash(label, seed, *pair) for pair in ids], dtype=np.uint64)


def _tie_keys(scores: pd.DataFrame, tie: Tie, seed: int) -> list[np.ndarray]:
    """What to sort equal scores by, before the response id."""
    if tie == "random":
        return [_draws("tie", seed, scores)]
    if tie == "shortest":
        _require_columns(scores, ["num_tokens"])
        return [_score_values(scores, "num_tokens")]
    return []


def _id_order(scores: pd.DataFrame) -> Int[np.ndarray, " rows"]:
    """Place of each row's response id among all, as text."""
    return pd.factorize(scores["response_id"].astype(str), sort=True)[0]


def _take(
    scores: pd.DataFrame,
    keep: Bool[np.ndarray, " rows"],
    keys: Sequence[np.ndarray],
    *,
    middle: bool = False,
) -> pd.DataFrame:
    """Per prompt, the kept row that is first, or in the middle, by ``keys``, then by id."""
    prompts = pd.factorize(scores["prompt_id"])[0]
    order = np.lexsort([_id_order(scores), *reversed(keys), prompts])
    order = order[keep[order]]
    _, place, counts = np.unique(prompts[order], return_index=True, return_counts=True)
    if middle:
        place = place + (counts - 1) // 2
    return scores.iloc[order[place]].reset_index(drop=True)


def _with_left_out(
    scores: pd.DataFrame, chosen: pd.DataFrame, left_out: dict[str, int], reason: str
) -> pd.DataFrame:
    """Attach the counts, ``reason`` being that of the prompts without a chosen response."""
    prompts_left = int(scores["prompt_id"].nunique()) - len(chosen)
    counts = left_out | ({reason: prompts_left} if prompts_left else {})
    if chosen.empty:
        listed = ", ".join(f"{count} {name}" for name, count in counts.items())
        raise InputError(f"no candidate is left to select from: {listed}")
    chosen.attrs["left_out"] = counts
    return chosen


def _assign_teachers(
    available: Bool[np.ndarray, "prompts teachers"],
    teacher_of: Int[np.ndarray, " prompts"],
    generator: np.random.Generator,
) -> Int[np.ndarray, " prompts"]:
    """Random assignment of teachers to prompts, same number per teacher, available ones only.

    Counting such assignments is as hard as a permanent, so this is a Markov chain whose stationary
    distribution is uniform. Two assignments with equal counts differ by cycles of teachers (prompt
    1 goes from A to B, prompt 2 from B to C, prompt 3 from C to A), and exchanges between two
    teachers cannot always break up a longer cycle; moves of both kinds reach everything. (Optimal
    assignment under random costs would be feasible too, but is not uniform.) Shuffling among
    prompts with the same available teachers comes first: it makes the result exactly uniform where
    every teacher has a candidate for every prompt, and always among such prompts.
    """
    teacher_of = teacher_of.copy()
    _, alike = np.unique(available, axis=0, return_inverse=True)
    for group in range(alike.max() + 1):
        members = np.flatnonzero(alike.ravel() == group)
        teacher_of[members] = generator.permutation(teacher_of[members])
    for _ in range(_MOVES_PER_TEACHER * available.shape[1]):
        _exchange_pair(available, teacher_of, generator)
        _rotate_cycle(available, teacher_of, generator)
    return teacher_of


def _exchange_pair(
    available: Bool[np.ndarray, "prompts teachers"],
    teacher_of: Int[np.ndarray, " prompts"],
    generator: np.random.Generator,
) -> None:
    """Shuffle two random teachers among their prompts that can have either (a Gibbs step)."""
    if available.shape[1] < 2:
        return
    pair = generator.permutation(available.shape[1])[:2]
    free = np.flatnonzero(np.isin(teacher_of, pair) & available[:, pair].all(axis=1))
    teacher_of[free] = generator.permutation(teacher_of[free])


def _rotate_cycle(
    available: Bool[np.ndarray, "prompts teachers"],
    teacher_of: Int[np.ndarray, " prompts"],
    generator: np.random.Generator,
) -> None:
    """Move one prompt each along a random cycle of three or more teachers (a Metropolis step)."""
    num_teachers = available.shape[1]
    if num_teachers < 3:
        return
    # Long cycles are rarely possible, but every length must be: geometric.
    length = min(2 + int(generator.geometric(0.5)), num_teachers)
    source = generator.permutation(num_teachers)[:length]
    target = np.roll(source, -1)
    movable = (teacher_of[:, None] == source) & available[:, target]
    ways = movable.sum(axis=0)
    if not ways.all():
        return
    picks = generator.integers(ways)
    prompts = [np.flatnonzero(column)[i] for column, i in zip(movable.T, picks, strict=True)]
    teacher_of[prompts] = target
    # Undoing the move draws from other numbers of prompts: accept by their ratio.
    ways_back = ((teacher_of[:, None] == target) & available[:, source]).sum(axis=0)
    if generator.random() * np.prod(ways_back / ways) >= 1:
        teacher_of[prompts] = source


# --- means, resamples, orders -----------------------------------------------------------------


@dataclass(frozen=True)
class _SharedMeans:
    """Mean score of each teacher on each prompt that all teachers share.

    Attributes:
        values: Nats, (column, prompt, teacher); prompts and teachers in order of their names.
        teachers: Every teacher of the table.
        num_responses: Responses averaged, by teacher.
        prompts_by_teacher: Prompts with a scored candidate of that teacher, shared or not.
        left_out: Responses and prompts left out, by reason.
    """

    values: Float[np.ndarray, "columns prompts teachers"]
    teachers: tuple[str, ...]
    num_responses: Int[np.ndarray, " teachers"]
    prompts_by_teacher: dict[str, int]
    left_out: dict[str, int]

    @property
    def num_prompts(self) -> int:
        return self.values.shape[1]

    def annotate(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Attach what the result rests on."""
        frame.attrs = {
            "num_prompts": self.num_prompts,
            "prompts_by_teacher": dict(self.prompts_by_teacher),
            "left_out": dict(self.left_out),
        }
        return frame

    def need_two_teachers(self) -> _SharedMeans:
        if len(self.teachers) < 2:
            raise InputError(
                f"the scores hold one teacher, {self.teachers[0]!r}: an order needs at least two"
            )
        return self


def _shared_means(scores: pd.DataFrame, columns: Sequence[str]) -> _SharedMeans:
    """Average each teacher's candidates per prompt, on prompts where every teacher has one."""
    _check_table(scores)
    if not columns:
        raise InputError("no score column is given: name at least one, for example galp")
    keep, left_out = _candidates(scores, columns, skip_unscored=True)
    prompt_of, prompts = pd.factorize(scores["prompt_id"], sort=True)
    teacher_of, teachers = pd.factorize(scores["teacher"], sort=True)
    # Sums in order of ids, so that not even their last bits depend on the order of the table.
    rows = np.argsort(_id_order(scores), kind="stable")
    rows = rows[keep[rows]]
    cell = prompt_of[rows] * len(teachers) + teacher_of[rows]
    shape = (len(prompts), len(teachers))
    counts = np.bincount(cell, minlength=len(prompts) * len(teachers)).reshape(shape)
    sums = [
        np.bincount(cell, _score_values(scores, column)[rows], counts.size).reshape(shape)
        for column in columns
    ]
    shared = counts.all(axis=1)
    covered = dict(zip(map(str, teachers), (counts > 0).sum(axis=0).tolist(), strict=True))
    if not shared.any():
        raise InputError(_no_shared_message(columns, covered, len(prompts)))
    if not shared.all():
        left_out["prompts without a scored candidate of every teacher"] = int((~shared).sum())
    return _SharedMeans(
        values=np.stack(sums)[:, shared] / counts[shared],
        teachers=tuple(teachers),
        num_responses=counts[shared].sum(axis=0),
        prompts_by_teacher=covered,
        left_out=left_out,
    )


def _no_shared_message(columns: Sequence[str], covered: dict[str, int], num_prompts: int) -> str:
    fewest_first = sorted(covered.items(), key=lambda item: item[1])
    listed = ", ".join(f"{teacher} for {count}" for teacher, count in fewest_first)
    return (
        f"no prompt has a scored candidate of every teacher under {', '.join(columns)}; of "
        f"{num_prompts} prompts there is one by {listed}: leave out the teachers with the fewest"
    )


def _chunks(total: int, numbers_each: int) -> Iterator[slice]:
    """Slices of ``range(total)`` that keep the arrays behind them within a bounded size."""
    step = max(1, _CHUNK_NUMBERS // max(1, numbers_each))
    return (slice(start, min(start + step, total)) for start in range(0, total, step))


def _bootstrap_means(
    values: Float[np.ndarray, "columns prompts teachers"], num_resamples: int, seed: int
) -> Float[np.ndarray, "resamples columns teachers"]:
    """Teacher means over prompts drawn with replacement, the same for all teachers and columns."""
    _check_count("num_resamples", num_resamples)
    num_columns, num_prompts, num_teachers = values.shape
    generator = _generator("bootstrap", seed)
    means = np.empty((num_resamples, num_columns, num_teachers))
    for part in _chunks(num_resamples, num_prompts):
        size = part.stop - part.start
        drawn = generator.integers(num_prompts, size=(size, num_prompts))
        drawn += num_prompts * np.arange(size)[:, None]
        times = np.bincount(drawn.ravel(), minlength=size * num_prompts)
        times = times.reshape(size, num_prompts).astype(float)
        means[part] = np.moveaxis(times @ values, 0, 1) / num_prompts
    return means


def _subset_means(
    values: Float[np.ndarray, "prompts teachers"],
    sizes: Int[np.ndarray, " sizes"],
    num_draws: int,
    seed: int,
) -> Float[np.ndarray, "sizes draws teachers"]:
    """Teacher means over the first prompts of random orders, for each number of prompts."""
    generator = _generator("subsets", seed)
    means = np.empty((len(sizes), num_draws, values.shape[1]))
    for part in _chunks(num_draws, values.size):
        order = np.tile(np.arange(len(values)), (part.stop - part.start, 1))
        sums = values[generator.permuted(order, axis=1)].cumsum(axis=1)[:, sizes - 1]
        means[:, part] = (sums / sizes[:, None]).swapaxes(0, 1)
    return means


def _interval(
    resampled: Float[np.ndarray, "resamples ..."], level: float, num_prompts: int
) -> Float[np.ndarray, "2 ..."]:
    """Percentile interval over the first axis; NaN where one prompt leaves nothing to resample."""
    if not 0 < level < 1:
        raise InputError(f"level is {level}: give a share between 0 and 1, such as 0.95")
    if num_prompts < 2:
        return np.full((2, *resampled.shape[1:]), np.nan)
    return np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2], axis=0)


def _wilson(
    successes: Int[np.ndarray, " sizes"], trials: int
) -> tuple[Float[np.ndarray, " sizes"], Float[np.ndarray, " sizes"]]:
    """95 % Wilson score interval of a share."""
    bounds = [
        stats.binomtest(int(k), trials).proportion_ci(0.95, method="wilson") for k in successes
    ]
    return np.array([b.low for b in bounds]), np.array([b.high for b in bounds])


def _ranks(means: Float[np.ndarray, " teachers"]) -> Int[np.ndarray, " teachers"]:
    """1 = highest; teachers that tie share the better rank."""
    return 1 + (means[None, :] > means[:, None] + _TIE_NATS).sum(axis=1)


def _top_shares(
    resampled: Float[np.ndarray, "resamples teachers"],
) -> Float[np.ndarray, " teachers"]:
    """Share of resamples in which each teacher is first; teachers that tie divide it."""
    is_top = resampled >= resampled.max(axis=1, keepdims=True) - _TIE_NATS
    return (is_top / is_top.sum(axis=1, keepdims=True)).mean(axis=0)


def _pair_signs(means: Float[np.ndarray, "... teachers"]) -> Int[np.ndarray, "... pairs"]:
    """For each pair of teachers: 1 if the former is higher, -1 if lower, 0 if they tie."""
    first, second = np.triu_indices(means.shape[-1], 1)
    gap = means[..., first] - means[..., second]
    return np.where(np.abs(gap) > _TIE_NATS, np.sign(gap), 0).astype(np.int64)


def _taus(
    signs_a: Int[np.ndarray, "... pairs"], signs_b: Int[np.ndarray, "... pairs"]
) -> Float[np.ndarray, " ..."]:
    """Kendall tau-b from the signs of pairs; 0 where one side is all ties."""
    untied = np.sqrt((signs_a != 0).sum(axis=-1) * (signs_b != 0).sum(axis=-1))
    return (signs_a * signs_b).sum(axis=-1) / np.maximum(untied, 1)
