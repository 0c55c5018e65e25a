r"""Coverage (paper, Sec. 5): how near the nearest training text is, whole or step by step.

A nearest neighbour is nearer the more candidates there are, and there are many more steps than
responses. So nearness is looked at as a function of the number of candidates. For a random choice
of :math:`m` of :math:`N` candidates, with cosines sorted :math:`s_1 \ge \dots \ge s_N`, the largest
one is on average

.. math:: E_m = \sum_{r=1}^{N} s_r \binom{N-r}{m-1} \Big/ \binom{N}{m}.

This is the mean over all possible draws, so nothing is left to chance. :math:`E_1` is the mean
cosine, :math:`E_N` the nearest neighbour.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from scipy.stats import binomtest

from lalp import stats
from lalp.errors import InputError
from lalp.steps.sentences import Span

ALL = math.inf
"""As a number of candidates: all there are."""

LEAST_PROMPTS = 6
"""With fewer prompts there is no interval: not even equal signs of all would be significant."""

# Texts of a level that are held out at most: all of any pool that a CPU embeds, a sample of large
# ones. Each of them is compared with every training text.
_MAX_QUERIES = 50_000
# Cosines in memory at once: 16 MiB.
_BLOCK_NUMBERS = 2**22
_BLOCK_QUERIES = 1024
# Total weight of the candidates that are left out of a mean.
_NEGLIGIBLE = 1e-10
_INDEXES = ("exact", "faiss")
# Chinese and Japanese are written without spaces: each character counts as a word.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")


@dataclass(frozen=True)
class Level:
    """Texts of one size and their vectors.

    Attributes:
        items: One row per text: ``prompt_id``, ``response_id``, ``teacher``, ``text`` and more.
        vectors: One row per text, of unit length.
    """

    items: pd.DataFrame
    vectors: Float[np.ndarray, "items dim"]

    def __post_init__(self) -> None:
        if len(self.items) != len(self.vectors):
            raise InputError(
                f"{len(self.items)} texts but {len(self.vectors)} vectors: give one vector per text"
            )
        if not np.allclose(np.linalg.norm(self.vectors, axis=1), 1, atol=1e-3):
            raise InputError(
                "some vectors are not of unit length: embed the texts with lalp.students.embedder"
            )


@dataclass(frozen=True)
class Comparison:
    """Rows of a level that are held out, and the rows among which neighbours are sought."""

    queries: Int[np.ndarray, "queries"]
    candidates: Int[np.ndarray, "candidates"]


# --- who is compared with whom --------------------------------------------------------------


def assign_folds(prompt_ids: Iterable[str], num_folds: int, seed: int) -> dict[str, int]:
    """Deal prompts into folds of about equal size, at random; each fold is held out once.

    Args:
        prompt_ids: Repetitions and order do not matter.
        num_folds: As many as prompts at most.
        seed: Of the deal.

    Raises:
        InputError: If there are fewer than two prompts: nothing could be held out.
    """
    prompts = sorted(set(prompt_ids))
    if len(prompts) < 2 or num_folds < 2:
        raise InputError(
            f"{len(prompts)} prompts in {num_folds} folds: holding out needs two of each at least"
        )
    order = np.random.default_rng(seed).permutation(len(prompts))
    return {prompts[row]: place % min(num_folds, len(prompts)) for place, row in enumerate(order)}


def hold_out(items: pd.DataFrame, groups: Mapping[str, object]) -> list[Comparison]:
    """Hold out each group of prompts in turn and seek its neighbours among all other groups.

    Of levels with more than 50,000 texts, an evenly spaced part of each response is held out.

    Args:
        items: A level's items.
        groups: A label by prompt id, for example its fold or its category.

    Raises:
        InputError: If a prompt has no label, or all have the same.
    """
    labels = items["prompt_id"].map(groups)
    if labels.isna().any():
        prompt = items["prompt_id"][labels.isna()].iloc[0]
        raise InputError(f"prompt {prompt!r} is in no group: give every prompt one")
    codes, names = pd.factorize(labels)
    if len(names) < 2:
        raise InputError("all prompts are in one group: there is nothing to compare it with")
    sampled = _evenly_spaced(items["response_id"])
    return [
        Comparison(np.flatnonzero((codes == code) & sampled), np.flatnonzero(codes != code))
        for code in range(len(names))
    ]


def _evenly_spaced(response_ids: pd.Series) -> Bool[np.ndarray, "items"]:
    """Which texts are held out: the same number of every response that has as many."""
    if len(response_ids) <= _MAX_QUERIES:
        return np.ones(len(response_ids), dtype=bool)
    groups = response_ids.groupby(response_ids, sort=False)
    place, size = groups.cumcount().to_numpy(), groups.transform("size").to_numpy()
    kept = np.minimum(size, max(_MAX_QUERIES // groups.ngroups, 1))
    return (place + 1) * kept // size > place * kept // size


def split_by_teacher(
    items: pd.DataFrame, comparisons: Sequence[Comparison]
) -> dict[str, list[Comparison]]:
    """The same held-out texts against candidates by the same teacher, and by the others."""
    teachers = items["teacher"].to_numpy()
    found: dict[str, list[Comparison]] = {"same teacher": [], "other teachers": []}
    for comparison in comparisons:
        by, candidates = teachers[comparison.queries], teachers[comparison.candidates]
        for teacher in pd.unique(by):
            queries, mine = comparison.queries[by == teacher], candidates == teacher
            found["same teacher"].append(Comparison(queries, comparison.candidates[mine]))
            found["other teachers"].append(Comparison(queries, comparison.candidates[~mine]))
    return found


def smallest_choice(comparisons: Iterable[Comparison]) -> int:
    """The number of candidates that every comparison can offer."""
    return min(len(comparison.candidates) for comparison in comparisons)


# --- nearness -------------------------------------------------------------------------------


def nearest_neighbors(
    queries: Float[np.ndarray, "queries dim"],
    candidates: Float[np.ndarray, "candidates dim"],
    *,
    index: str = "exact",
) -> tuple[Float[np.ndarray, "queries"], Int[np.ndarray, "queries"]]:
    """The largest cosine of each query with any candidate, and the candidate that has it.

    Equivalent to ``(queries @ candidates.T).max(1)`` and ``.argmax(1)``, in blocks of bounded
    memory; of equal cosines, the first candidate's.

    Args:
        queries: Unit vectors.
        candidates: Unit vectors.
        index: ``exact``, or ``faiss`` for millions of candidates: it searches only the cells
            around each query, so that a cosine may come out too low, never too high.

    Raises:
        InputError: If there are no candidates, or faiss is asked for and not installed.
    """
    if index not in _INDEXES:
        raise InputError(f"unknown index {index!r}: use one of {', '.join(_INDEXES)}")
    _check_candidates(len(candidates))
    if index == "faiss":
        return _search_faiss(queries, candidates)
    best = np.full(len(queries), -np.inf, dtype=np.float32)
    places = np.zeros(len(queries), dtype=np.int64)
    width = _BLOCK_NUMBERS // _BLOCK_QUERIES
    for top in range(0, len(queries), _BLOCK_QUERIES):
        rows = slice(top, top + _BLOCK_QUERIES)
        for left in range(0, len(candidates), width):
            cosines = queries[rows] @ candidates[left : left + width].T
            found = cosines.argmax(axis=1)
            values = np.take_along_axis(cosines, found[:, None], axis=1)[:, 0]
            nearer = values > best[rows]
            best[rows] = np.where(nearer, values, best[rows])
            places[rows] = np.where(nearer, found + left, places[rows])
    return np.clip(best, -1, 1), places


def _search_faiss(
    queries: Float[np.ndarray, "queries dim"], candidates: Float[np.ndarray, "candidates dim"]
) -> tuple[Float[np.ndarray, "queries"], Int[np.ndarray, "queries"]]:
    try:
        import faiss
    except ImportError as error:
        raise InputError(
            "index 'faiss' needs the package faiss-cpu: install it with pip install faiss-cpu, or "
            "use index 'exact'"
        ) from error
    num_cells = max(round(math.sqrt(len(candidates))), 1)
    # An eighth of the cells is searched: on sentence embeddings little is missed.
    found = faiss.index_factory(
        candidates.shape[1], f"IVF{num_cells},Flat", faiss.METRIC_INNER_PRODUCT
    )
    vectors = np.ascontiguousarray(candidates, dtype=np.float32)
    found.train(vectors)
    found.add(vectors)
    found.nprobe = max(num_cells // 8, min(num_cells, 8))
    cosines, places = found.search(np.ascontiguousarray(queries, dtype=np.float32), 1)
    return np.clip(cosines[:, 0], -1, 1), places[:, 0]


def expected_nearest(
    queries: Float[np.ndarray, "queries dim"],
    candidates: Float[np.ndarray, "candidates dim"],
    counts: Sequence[float],
) -> Float[np.ndarray, "queries counts"]:
    """Nearest-neighbour cosine among that many random candidates, averaged over all draws.

    Args:
        queries: Unit vectors.
        candidates: Unit vectors.
        counts: Numbers of candidates, drawn without replacement; one above their number, or
            ``ALL``, means all.

    Raises:
        InputError: If there are no candidates, or a count is below 1.
    """
    _check_candidates(len(candidates))
    expected = np.empty((len(queries), len(counts)), dtype=np.float64)
    height = max(_BLOCK_NUMBERS // len(candidates), 1)
    for top in range(0, len(queries), height):
        cosines = queries[top : top + height] @ candidates.T
        expected[top : top + height] = expected_largest(cosines, counts)
    return np.clip(expected, -1, 1)


def expected_largest(
    values: Float[np.ndarray, "rows values"], counts: Sequence[float]
) -> Float[np.ndarray, "rows counts"]:
    """The largest of that many values of a row, averaged over all draws without replacement."""
    total = values.shape[1]
    weights = np.stack([_rank_weights(total, count) for count in counts], axis=1)
    # Of many values drawn, the largest is hardly ever a low one: what is below need not be sorted.
    low = int((weights.cumsum(axis=0) < _NEGLIGIBLE).all(axis=1).sum())
    if low:
        values = np.partition(values, low, axis=1)[:, low:]
    return np.sort(values, axis=1) @ weights[low:]


def _rank_weights(total: int, count: float) -> Float[np.ndarray, "total"]:
    """How likely each candidate, by rank upwards, is the nearest one of ``count`` drawn."""
    if count < 1:
        raise InputError(f"{count} candidates cannot be drawn: give 1 or more")
    count = min(count, total)
    ranks = np.arange(total - 1)
    # Each binomial from the one before; past rank N - m none can be the nearest.
    ratios = np.maximum(total - count - ranks, 0) / (total - 1 - ranks)
    return np.cumprod([count / total, *ratios])[::-1]


def _check_candidates(total: int) -> None:
    if not total:
        raise InputError("no training texts to search for neighbours: hold out fewer prompts")


def cosines_by_count(
    level: Level, comparisons: Iterable[Comparison], counts: Sequence[float]
) -> Float[np.ndarray, "items counts"]:
    """`expected_nearest` for every held-out item of a level; NaN for what is never held out."""
    values = np.full((len(level.items), len(counts)), np.nan)
    for comparison in comparisons:
        values[comparison.queries] = expected_nearest(
            level.vectors[comparison.queries], level.vectors[comparison.candidates], counts
        )
    return values


def find_neighbors(
    level: Level, comparisons: Iterable[Comparison], *, index: str = "exact"
) -> pd.DataFrame:
    """Each held-out item with its nearest candidate (paper, Sec. C.8).

    Returns:
        The items that are held out, ``cosine``, and ``nearest``: the row of ``level.items``.
    """
    parts = []
    for comparison in comparisons:
        cosines, places = nearest_neighbors(
            level.vectors[comparison.queries], level.vectors[comparison.candidates], index=index
        )
        nearest = comparison.candidates[places]
        parts.append(level.items.iloc[comparison.queries].assign(cosine=cosines, nearest=nearest))
    return pd.concat(parts).sort_index()


# --- the control with random chunks ---------------------------------------------------------


def permute_lengths(text: str, spans: Sequence[Span], seed: int | Sequence[int]) -> list[Span]:
    """Cut a text into chunks that are as long as its steps, in another order.

    Lengths are counted in words, so no word is cut that the steps leave whole. Of ten random
    orders the one is taken that shares the fewest boundaries with the steps.

    Args:
        text: The response.
        spans: Its steps: character spans that partition it.
        seed: Of the orders.
    """
    starts = [[word.start() for word in _WORD.finditer(text, *span)] for span in spans]
    starts = [inside for inside in starts if inside]
    if not starts:
        return [(0, len(text))] if text else []
    words = [start for inside in starts for start in inside]
    lengths = np.array([len(inside) for inside in starts])
    ends = np.cumsum(lengths)[:-1]
    rng = np.random.default_rng(seed)
    orders = [np.cumsum(rng.permutation(lengths))[:-1] for _ in range(10)]
    chosen = min(orders, key=lambda order: np.isin(order, ends).sum())
    return list(pairwise([0, *(words[place] for place in chosen), len(text)]))


def shared_boundaries(first: Sequence[Span], second: Sequence[Span]) -> tuple[int, int]:
    """Inner boundaries that two partitions of a text share, and those of the first one."""
    inner = [{start for start, _ in spans if start} for spans in (first, second)]
    return len(inner[0] & inner[1]), len(inner[0])


# --- intervals ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Interval:
    """A mean over prompts and its 95 % bootstrap interval; NaN ends where prompts are too few."""

    mean: float
    low: float
    high: float
    num_prompts: int

    def __str__(self) -> str:
        if math.isnan(self.low):
            return f"{self.mean:.3f} ({self.num_prompts} prompts: no interval)"
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def prompt_means(
    items: pd.DataFrame, values: Float[np.ndarray, "items columns"], columns: Sequence
) -> pd.DataFrame:
    """Mean over a response's items, then over a prompt's responses: every prompt counts the same.

    Args:
        items: ``prompt_id`` and ``response_id`` of each row of ``values``.
        values: Rows that are NaN are left out.
        columns: Names of the columns of ``values``.

    Returns:
        One row per prompt.
    """
    frame = pd.DataFrame(values, columns=pd.Index(columns, tupleize_cols=False))
    frame.index = pd.MultiIndex.from_frame(items[["prompt_id", "response_id"]])
    return frame.dropna().groupby(level=[0, 1]).mean().groupby(level=0).mean()


def mean_interval(values: pd.Series, num_resamples: int, seed: int) -> Interval:
    """Mean of one number per prompt, and its percentile interval under a bootstrap of prompts.

    The same seed draws the same prompts, so intervals of several columns go together.
    """
    numbers = values.to_numpy(dtype=float)
    if len(numbers) < LEAST_PROMPTS:
        mean = float(numbers.mean()) if len(numbers) else math.nan
        return Interval(mean, math.nan, math.nan, len(numbers))
    low, high = stats.mean_interval(numbers, num_resamples, seed)
    return Interval(float(numbers.mean()), low, high, len(numbers))


@dataclass(frozen=True)
class Contrast:
    """Two nearness measures on the same prompts.

    Attributes:
        first: Mean of the first.
        second: Mean of the second.
        difference: First minus second, paired by prompt.
        share_above: Share of prompts on which the first is the higher one, and its 95 % Wilson
            interval.
    """

    first: Interval
    second: Interval
    difference: Interval
    share_above: Interval


def contrast(first: pd.Series, second: pd.Series, num_resamples: int, seed: int) -> Contrast:
    """Compare two measures prompt by prompt; prompts that one of them lacks are left out."""
    both = pd.concat([first, second], axis=1, join="inner")
    one, other = both.iloc[:, 0], both.iloc[:, 1]
    difference = one - other
    return Contrast(
        *(mean_interval(values, num_resamples, seed) for values in (one, other, difference)),
        _share_interval(int((difference > 0).sum()), len(difference)),
    )


def _share_interval(count: int, total: int) -> Interval:
    if total < LEAST_PROMPTS:
        return Interval(count / total if total else math.nan, math.nan, math.nan, total)
    ends = binomtest(count, total).proportion_ci(0.95, method="wilson")
    return Interval(count / total, float(ends.low), float(ends.high), total)


def contrast_table(contrasts: Mapping[tuple[str, str | int], Contrast]) -> pd.DataFrame:
    """Contrasts by label and candidates as rows: both means, and their difference."""
    return pd.DataFrame(
        {
            "label": label,
            "candidates": candidates,
            "first": one.first.mean,
            "second": one.second.mean,
            "difference": one.difference.mean,
            "low": one.difference.low,
            "high": one.difference.high,
            "share_above": one.share_above.mean,
            "num_prompts": one.difference.num_prompts,
        }
        for (label, candidates), one in contrasts.items()
    )


# --- what truncation drops ------------------------------------------------------------------


def truncation_table(levels: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """How many texts exceed the embedder's input, and what share of all tokens that drops.

    Args:
        levels: A level's items by name, with ``num_tokens`` (whole text) and ``num_read``.
    """
    return pd.DataFrame(
        {
            "level": name,
            "texts": len(items),
            "tokens_median": float(items["num_tokens"].median()),
            "tokens_longest": int(items["num_tokens"].max()),
            "cut": int((items["num_tokens"] > items["num_read"]).sum()),
            "share_cut": float((items["num_tokens"] > items["num_read"]).mean()),
            "share_tokens_lost": 1 - items["num_read"].sum() / max(items["num_tokens"].sum(), 1),
        }
        for name, items in levels.items()
    )


def excerpt(text: str, max_words: int = 12, max_characters: int = 70) -> str:
    """The text's first words on one line, with a mark where something is left out."""
    whole = " ".join(text.split())
    shown = " ".join(whole.split(" ")[:max_words])[:max_characters].rstrip()
    return shown if shown == whole else f"{shown} ..."


# --- the analysis over levels -----------------------------------------------------------------

RESPONSES, PIECES, STEPS, CHUNKS = "responses", "responses in pieces", "steps", "random chunks"
"""Levels: cut to the embedder's input, as the mean of pieces that hold all, steps, chunks."""

PAPER_PAIRS = (
    (
        "Let me work through this combinatorics problem systematically. We need to count the "
        "number of ways to arrange",
        "I'll solve this number theory problem step by step. First, let's identify the prime "
        "factorization",
        0.72,
    ),
    (
        "This is a geometry problem involving circles and tangent lines. Let me set up coordinates",
        "For this probability question, I need to compute the expected value by considering all "
        "possible outcomes",
        0.68,
    ),
)
"""Table 11: beginnings of responses that share no topic, and the paper's cosine of the wholes."""

# Numbers of candidates of the curves, up to those there are.
_GRID = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10**4, 10**5, 10**6)
EQUAL_NUMBERS, ALL_CANDIDATES = "equal numbers", "all candidates"
_PAIRS = (
    (STEPS, RESPONSES),
    (STEPS, PIECES),
    (CHUNKS, RESPONSES),
    (STEPS, CHUNKS),
    (PIECES, RESPONSES),
)


def nearness_by_prompt(
    levels: Mapping[str, Level], groups: Mapping[str, object]
) -> dict[str, pd.DataFrame]:
    """Mean nearest-neighbour cosine of every prompt's held-out texts, by number of candidates.

    Args:
        levels: By name; ``RESPONSES`` must be among them.
        groups: A label by prompt id; the prompts of each label are held out in turn.

    Returns:
        By level: one row per prompt; columns are numbers of candidates, then ``equal numbers`` (as
        many as there are training responses, the same at every level) and ``all candidates``.
    """
    equal = smallest_choice(hold_out(levels[RESPONSES].items, groups))
    values = {}
    for name, level in levels.items():
        comparisons = hold_out(level.items, groups)
        grid = [count for count in _GRID if count < smallest_choice(comparisons)]
        values[name] = _nearness(level, comparisons, grid, equal)
    return values


def _nearness(
    level: Level, comparisons: Sequence[Comparison], grid: Sequence[int], equal: int
) -> pd.DataFrame:
    cosines = cosines_by_count(level, comparisons, [*grid, equal, ALL])
    return prompt_means(level.items, cosines, [*grid, EQUAL_NUMBERS, ALL_CANDIDATES])


def nearness_curves(
    values: Mapping[str, pd.DataFrame], num_candidates: Mapping[str, int], **resampling: int
) -> pd.DataFrame:
    """Mean nearest-neighbour cosine against the number of candidates, with intervals.

    Args:
        values: From `nearness_by_prompt`.
        num_candidates: By level: what ``all candidates`` stands for on the axis.
        **resampling: ``num_resamples`` and ``seed``, as in `mean_interval`.

    Returns:
        ``level``, ``candidates``, ``mean``, ``low``, ``high``.
    """
    rows = []
    for name, table in values.items():
        for column in table.columns.drop(EQUAL_NUMBERS):
            count = num_candidates[name] if column == ALL_CANDIDATES else column
            interval = mean_interval(table[column], **resampling)
            rows.append({"level": name, "candidates": count} | _ends(interval))
    return pd.DataFrame(rows)


def contrast_levels(
    values: Mapping[str, pd.DataFrame], **resampling: int
) -> dict[tuple[str, str], Contrast]:
    """Levels against each other, with all candidates and with equal numbers of them.

    Args:
        values: From `nearness_by_prompt`.
        **resampling: ``num_resamples`` and ``seed``, as in `mean_interval`.

    Returns:
        By label and candidates: ``("steps - responses", "all candidates")`` and so on.
    """
    return {
        (f"{first} - {second}", column): contrast(
            values[first][column], values[second][column], **resampling
        )
        for first, second in _PAIRS
        for column in (ALL_CANDIDATES, EQUAL_NUMBERS)
        if first in values and second in values
    }


def group_table(
    values: Mapping[str, pd.DataFrame],
    groups: Mapping[str, object],
    whole: str = RESPONSES,
    **resampling: int,
) -> pd.DataFrame:
    """Steps against responses in each held-out group (paper, Fig. 7 and 8: further test sets).

    Args:
        values: From `nearness_by_prompt`, with the same groups.
        groups: The label of each prompt, for example its category.
        whole: The level of responses.
        **resampling: ``num_resamples`` and ``seed``, as in `mean_interval`.

    Returns:
        As `contrast_table` returns them, a row per group and candidates.
    """
    labels = values[whole].index.map(groups)
    contrasts = {}
    for column in (ALL_CANDIDATES, EQUAL_NUMBERS):
        steps, responses = values[STEPS][column], values[whole][column]
        for label in sorted(set(labels)):
            mine = labels == label
            contrasts[label, column] = contrast(steps[mine], responses[mine], **resampling)
    return contrast_table(contrasts)


def similarity_sweep(
    levels: Mapping[str, Level],
    groups: Mapping[str, object],
    similarity: pd.DataFrame,
    limits: Sequence[float],
    **resampling: int,
) -> pd.DataFrame:
    """Levels against each other while training prompts like the held-out one are left out.

    ``equal numbers`` are the same at every limit: as many candidates as there are training
    responses at the lowest one. Limits that leave some prompt without candidates are left out.

    Args:
        levels: By name; ``RESPONSES`` must be among them.
        groups: A label by prompt id; the prompts of each label are held out in turn.
        similarity: Cosine of any two prompts, by their ids.
        limits: Largest cosines with the held-out prompt; ``ALL`` leaves nothing out.
        **resampling: ``num_resamples`` and ``seed``, as in `mean_interval`.

    Returns:
        As `contrast_table` returns it, with ``limit``.
    """
    folds = {name: hold_out(level.items, groups) for name, level in levels.items()}
    offered = {
        limit: min(
            int((likeness <= limit).sum())
            for _, likeness in _prompt_by_prompt(
                levels[RESPONSES].items, folds[RESPONSES], similarity
            )
        )
        for limit in limits
    }
    usable = [limit for limit, count in offered.items() if count]
    counts = [min(offered[limit] for limit in usable), ALL]
    cosines = {
        name: _cosines_by_limit(level, folds[name], similarity, usable, counts)
        for name, level in levels.items()
    }
    tables = []
    for place, limit in enumerate(usable):
        values = {
            name: prompt_means(level.items, cosines[name][place], [EQUAL_NUMBERS, ALL_CANDIDATES])
            for name, level in levels.items()
        }
        tables.append(contrast_table(contrast_levels(values, **resampling)).assign(limit=limit))
    return pd.concat(tables, ignore_index=True)


def _prompt_by_prompt(
    items: pd.DataFrame, comparisons: Iterable[Comparison], similarity: pd.DataFrame
) -> Iterator[tuple[Comparison, Float[np.ndarray, "candidates"]]]:
    """Each held-out prompt's comparison, and how similar its candidates' prompts are to it."""
    codes = similarity.index.get_indexer(items["prompt_id"])
    cosines = similarity.loc[:, similarity.index].to_numpy()
    for comparison in comparisons:
        held_out, offered = codes[comparison.queries], codes[comparison.candidates]
        for code in pd.unique(held_out):
            queries = comparison.queries[held_out == code]
            yield Comparison(queries, comparison.candidates), cosines[code, offered]


def _cosines_by_limit(
    level: Level,
    comparisons: Sequence[Comparison],
    similarity: pd.DataFrame,
    limits: Sequence[float],
    counts: Sequence[float],
) -> Float[np.ndarray, "limits items counts"]:
    """`expected_nearest` of every item among candidates whose prompts are not too similar."""
    found = np.full((len(limits), len(level.items), len(counts)), np.nan)
    last, candidates = None, np.empty(0)
    for comparison, likeness in _prompt_by_prompt(level.items, comparisons, similarity):
        if comparison.candidates is not last:
            last = comparison.candidates
            candidates = level.vectors[last].T
        cosines = level.vectors[comparison.queries] @ candidates
        for place, limit in enumerate(limits):
            kept = cosines[:, likeness <= limit]
            found[place, comparison.queries] = expected_largest(kept, counts)
    return found


def teacher_table(
    levels: Mapping[str, Level], groups: Mapping[str, object], **resampling: int
) -> pd.DataFrame:
    """Neighbours among the same teacher's texts against neighbours among the others'.

    Both are sought among equal numbers of candidates, at each level as many as the teacher with
    the fewest has.

    Args:
        levels: By name.
        groups: A label by prompt id; the prompts of each label are held out in turn.
        **resampling: ``num_resamples`` and ``seed``, as in `mean_interval`.

    Returns:
        As `contrast_table` returns them; empty where there is only one teacher.
    """
    contrasts = {}
    for name, level in levels.items():
        parts = split_by_teacher(level.items, hold_out(level.items, groups))
        parts = {whose: [c for c in found if len(c.candidates)] for whose, found in parts.items()}
        if not all(parts.values()):
            continue
        count = min(smallest_choice(found) for found in parts.values())
        same, other = (
            prompt_means(level.items, cosines_by_count(level, found, [count]), [whose])[whose]
            for whose, found in parts.items()
        )
        contrasts[f"{name}: same teacher - other teachers", count] = contrast(
            same, other, **resampling
        )
    return contrast_table(contrasts)


def nearer_steps(responses: pd.DataFrame, steps: pd.DataFrame) -> pd.Series:
    """Share of each prompt's steps whose neighbour is nearer than that of the whole response.

    Args:
        responses: From `find_neighbors`.
        steps: From `find_neighbors`, of the same responses.
    """
    whole = steps["response_id"].map(responses.set_index("response_id")["cosine"])
    nearer = (steps["cosine"] > whole).to_numpy(dtype=float)[:, None]
    return prompt_means(steps, nearer, ["share"])["share"]


def _ends(interval: Interval) -> dict[str, float]:
    return {"mean": interval.mean, "low": interval.low, "high": interval.high}
