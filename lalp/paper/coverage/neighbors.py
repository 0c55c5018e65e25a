r"""Coverage (paper, Sec. 5): how near the nearest training text is, whole or step by step.

A nearest neighbour is nearer the more candidates there are, and there are many more steps than
responses. So nearness is measured as a function of the number of candidates. For a random choice of
:math:`m` of :math:`N` candidates, with cosines sorted :math:`s_1 \ge \dots \ge s_N`, the largest
one is on average

.. math:: E_m = \sum_{r=1}^{N} s_r \binom{N-r}{m-1} \Big/ \binom{N}{m}.

This is the mean over all possible draws, so nothing is left to chance. :math:`E_1` is the mean
cosine, :math:`E_N` the nearest neighbour.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from lalp.errors import InputError
from lalp.files import cache_dir, write_text
from lalp.paper.coverage.texts import Level, excerpt
from lalp.stats import chunks

Vectors = Float[np.ndarray, "rows dim"]
ALL = math.inf
"""Stands for all candidates, where a number of candidates is asked for."""

# The most texts of a level to hold out: all of any pool that a CPU embeds, a sample of larger ones.
# Each is compared with every training text.
_MAX_QUERIES = 50_000
# Total weight of the candidates that are left out of a mean.
_NEGLIGIBLE = 1e-10
_INDEXES = ("exact", "faiss")
_NOTHING = "no training texts to search for neighbours: hold out fewer prompts"


@dataclass(frozen=True)
class Comparison:
    """Held-out rows of a level, and the rows to search for neighbours."""

    queries: Int[np.ndarray, "queries"]
    candidates: Int[np.ndarray, "candidates"]


def assign_folds(prompt_ids: Iterable[str], num_folds: int, seed: int) -> dict[str, int]:
    """Deal two prompts or more into folds of about equal size, at random, whatever their order."""
    prompts = sorted(set(prompt_ids))
    if len(prompts) < 2 or num_folds < 2:
        raise InputError(
            f"{len(prompts)} prompts in {num_folds} folds: holding out needs two of each at least"
        )
    # Dealt in turn, so that sizes differ by one at most.
    order = np.random.default_rng(seed).permutation(len(prompts))
    return {prompts[row]: place % min(num_folds, len(prompts)) for place, row in enumerate(order)}


def hold_out(items: pd.DataFrame, groups: Mapping[str, object]) -> list[Comparison]:
    """Hold out each group of prompts in turn and find its neighbours in all other groups.

    If a level has more than 50,000 texts, an evenly spaced part of each response is held out.
    InputError if a prompt has no label, or all have the same label.
    """
    labels = items["prompt_id"].map(groups)
    if labels.isna().any():
        prompt = items["prompt_id"][labels.isna()].iloc[0]
        raise InputError(f"prompt {prompt!r} is in no group: give every prompt one")
    codes, names = pd.factorize(labels)
    if len(names) < 2:
        raise InputError("all prompts are in one group: there is nothing to compare it with")
    sampled = np.ones(len(items), dtype=bool)
    if len(items) > _MAX_QUERIES:
        # The same number from every response that has as many.
        responses = items.groupby("response_id", sort=False)["response_id"]
        place, size = responses.cumcount().to_numpy(), responses.transform("size").to_numpy()
        kept = np.minimum(size, max(_MAX_QUERIES // responses.ngroups, 1))
        sampled = (place + 1) * kept // size > place * kept // size
    return [
        Comparison(np.flatnonzero((codes == code) & sampled), np.flatnonzero(codes != code))
        for code in range(len(names))
    ]


def split_by_teacher(
    items: pd.DataFrame, comparisons: Sequence[Comparison]
) -> dict[str, list[Comparison]]:
    """The same held-out texts against candidates by the same teacher and by the others."""
    teachers = items["teacher"].to_numpy()
    found: dict[str, list[Comparison]] = {"same teacher": [], "other teachers": []}
    for part in comparisons:
        by, candidates = teachers[part.queries], teachers[part.candidates]
        for teacher in pd.unique(by):
            queries, mine = part.queries[by == teacher], candidates == teacher
            found["same teacher"].append(Comparison(queries, part.candidates[mine]))
            found["other teachers"].append(Comparison(queries, part.candidates[~mine]))
    return found


def smallest_choice(comparisons: Iterable[Comparison]) -> int:
    """The largest number of candidates that every comparison has."""
    return min(len(comparison.candidates) for comparison in comparisons)


def nearest_neighbors(
    queries: Vectors, candidates: Vectors, *, index: str = "exact"
) -> tuple[Float[np.ndarray, "queries"], Int[np.ndarray, "queries"]]:
    """The largest cosine of each query with any candidate, and the first candidate that has it.

    All rows are unit vectors. ``index`` is ``exact``, or ``faiss`` for millions of candidates: it
    searches only the cells around each query, so a cosine may come out too low, never too high.
    InputError if there are no candidates, or faiss is asked for and not installed.
    """
    if index not in _INDEXES:
        raise InputError(f"unknown index {index!r}: use one of {', '.join(_INDEXES)}")
    if not len(candidates):
        raise InputError(_NOTHING)
    if index == "faiss":
        return _search_faiss(queries, candidates)
    best = np.empty(len(queries), dtype=np.float32)
    places = np.empty(len(queries), dtype=np.int64)
    for rows in chunks(len(queries), len(candidates)):
        cosines = queries[rows] @ candidates.T
        best[rows], places[rows] = cosines.max(axis=1), cosines.argmax(axis=1)
    return np.clip(best, -1, 1), places


def _search_faiss(
    queries: Vectors, candidates: Vectors
) -> tuple[Float[np.ndarray, "queries"], Int[np.ndarray, "queries"]]:
    try:
        import faiss
    except ImportError as error:
        raise InputError(
            "index 'faiss' needs the package faiss-cpu: install it with pip install faiss-cpu, or "
            "use index 'exact'"
        ) from error
    vectors = np.ascontiguousarray(candidates, dtype=np.float32)
    num_cells = max(round(math.sqrt(len(vectors))), 1)
    kind = f"IVF{num_cells},Flat"
    found = faiss.index_factory(vectors.shape[1], kind, faiss.METRIC_INNER_PRODUCT)
    found.train(vectors)
    found.add(vectors)
    # An eighth of the cells is searched; on sentence embeddings, this misses little.
    found.nprobe = max(num_cells // 8, min(num_cells, 8))
    cosines, places = found.search(np.ascontiguousarray(queries, dtype=np.float32), 1)
    return np.clip(cosines[:, 0], -1, 1), places[:, 0]


def expected_nearest(
    queries: Vectors, candidates: Vectors, counts: Sequence[float]
) -> Float[np.ndarray, "queries counts"]:
    """Nearest-neighbour cosine among that many random candidates, averaged over all draws.

    All rows are unit vectors. A count above the number of candidates, or ``ALL``, means all.
    InputError if there are no candidates, or a count is below 1.
    """
    if not len(candidates):
        raise InputError(_NOTHING)
    expected = np.empty((len(queries), len(counts)), dtype=np.float64)
    for rows in chunks(len(queries), len(candidates)):
        expected[rows] = expected_largest(queries[rows] @ candidates.T, counts)
    return np.clip(expected, -1, 1)


def expected_largest(
    values: Float[np.ndarray, "rows values"], counts: Sequence[float]
) -> Float[np.ndarray, "rows counts"]:
    """The largest of ``counts`` values of a row, averaged over all draws without replacement."""
    total = values.shape[1]
    weights = np.stack([_rank_weights(total, count) for count in counts], axis=1)
    # The largest of many drawn values is hardly ever a low one, so low values need no sorting.
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
    # Each binomial follows from the one before; past rank N - m none can be the nearest.
    ratios = np.maximum(total - count - ranks, 0) / (total - 1 - ranks)
    return np.cumprod([count / total, *ratios])[::-1]


def cosines_by_count(
    level: Level, comparisons: Iterable[Comparison], counts: Sequence[float]
) -> Float[np.ndarray, "items counts"]:
    """`expected_nearest` for every held-out item of a level; NaN for items never held out."""
    values = np.full((len(level.items), len(counts)), np.nan)
    for part in comparisons:
        vectors = level.vectors[part.queries], level.vectors[part.candidates]
        values[part.queries] = expected_nearest(*vectors, counts)
    return values


def find_neighbors(
    level: Level, comparisons: Iterable[Comparison], *, index: str = "exact"
) -> pd.DataFrame:
    """Each held-out item with ``cosine`` and its ``nearest`` candidate (paper, Sec. C.8).

    ``nearest`` is a row of ``level.items``.
    """
    found = []
    for part in comparisons:
        vectors = level.vectors[part.queries], level.vectors[part.candidates]
        cosines, places = nearest_neighbors(*vectors, index=index)
        nearest = part.candidates[places]
        found.append(level.items.iloc[part.queries].assign(cosine=cosines, nearest=nearest))
    return pd.concat(found).sort_index()


def save_neighbors(
    items: Mapping[str, pd.DataFrame], neighbors: Mapping[str, pd.DataFrame], profile: str
) -> Path:
    """Write every held-out text with its nearest training text, a pair a line (Sec. C.8).

    ``items`` are all texts of each level, ``neighbors`` come from `find_neighbors`.
    """
    path = cache_dir() / profile / "coverage_neighbours.jsonl"
    fields = ["prompt_id", "response_id", "teacher", "place", "text"]
    lines = []
    for name, found in neighbors.items():
        nearest = items[name].iloc[found["nearest"]][fields].to_dict("records")
        held_out = found[fields].to_dict("records")
        for cosine, one, other in zip(found["cosine"], held_out, nearest, strict=True):
            pair = {"level": name, "cosine": float(cosine), "held_out": one, "nearest": other}
            lines.append(json.dumps(pair, ensure_ascii=False) + "\n")
    write_text(path, "".join(lines))
    return path


def neighbor_examples(neighbors: pd.DataFrame, texts: pd.Series, num_examples: int) -> pd.DataFrame:
    """Pairs spread evenly from the farthest to the nearest, as short excerpts (Tables 11, 12).

    Pairs are chosen by rank alone, not by content. ``neighbors`` come from `find_neighbors`;
    ``texts`` are those of all items of the level.
    """
    ordered = neighbors.sort_values("cosine", kind="stable")
    ranks = np.linspace(0, len(ordered) - 1, 2 * num_examples + 1).round().astype(int)[1::2]
    shown = ordered.iloc[ranks]
    columns = {
        "nearer than": [f"{(rank + 0.5) / len(ordered):.0%}" for rank in ranks],
        "cosine": shown["cosine"].round(2).to_numpy(),
        "held out": shown["text"].map(excerpt).to_numpy(),
        "nearest in training": texts.iloc[shown["nearest"]].map(excerpt).to_numpy(),
    }
    return pd.DataFrame(columns)
