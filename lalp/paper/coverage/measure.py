"""Coverage (paper, Sec. 5): levels of text compared, problem by problem.

In all functions ``resampling`` stands for the ``num_resamples`` and ``seed`` of `mean_interval`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from lalp import stats
from lalp.paper.coverage import neighbors
from lalp.paper.coverage.neighbors import ALL, Comparison, cosines_by_count, expected_largest
from lalp.paper.coverage.texts import CHUNKS, PIECES, RESPONSES, STEPS, Level
from lalp.stats import Estimate, wilson_interval

Levels = Mapping[str, Level]  # level of text, by name
Values = Mapping[str, pd.DataFrame]  # result of `nearness_by_prompt`
Groups = Mapping[str, object]  # labels of prompts, by id: each label is held out in turn

LEAST_PROMPTS = 6
"""With fewer prompts there is no interval: not even equal signs of all would be significant."""

EQUAL_NUMBERS, ALL_CANDIDATES = "equal numbers", "all candidates"
# Numbers of candidates of the curves, up to the number available.
_GRID = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10**4, 10**5, 10**6)
_PAIRS = (
    *((STEPS, RESPONSES), (STEPS, PIECES), (CHUNKS, RESPONSES), (STEPS, CHUNKS)),
    (PIECES, RESPONSES),
)


def prompt_means(
    items: pd.DataFrame, values: Float[np.ndarray, "items columns"], columns: Sequence
) -> pd.DataFrame:
    """Mean over a response's items, then over a prompt's responses: every prompt counts the same.

    ``items`` belong to the rows of ``values``; rows with a NaN are left out.
    """
    frame = pd.DataFrame(values, columns=pd.Index(columns, tupleize_cols=False))
    frame.index = pd.MultiIndex.from_frame(items[["prompt_id", "response_id"]])
    return frame.dropna().groupby(level=[0, 1]).mean().groupby(level=0).mean()


def mean_interval(values: pd.Series, num_resamples: int, seed: int) -> Estimate:
    """Mean of one number per prompt, and the interval of `lalp.stats.mean_interval` over prompts.

    Below 50 prompts that is Student's t, else a bootstrap. The same seed draws the same prompts, so
    the intervals of several columns belong together.

    Example:
        >>> print(mean_interval(pd.Series([0.1, 0.2, 0.3, 0.2, 0.1, 0.3]), 100, 0))
        0.20 [0.11, 0.29]
    """
    ends = (math.nan, math.nan)
    if len(values) >= LEAST_PROMPTS:
        ends = stats.mean_interval(values.to_numpy(dtype=float), num_resamples, seed)
    return Estimate(float(values.mean()), *ends, len(values))


@dataclass(frozen=True)
class Contrast:
    """Two nearness measures on the same prompts."""

    first: Estimate
    second: Estimate
    difference: Estimate  # first minus second, paired by prompt
    share_above: Estimate  # share of prompts where the first is higher; 95 % Wilson interval

    def __str__(self) -> str:
        means = f"{self.first.value:.3f} against {self.second.value:.3f}"
        return f"{means}; difference {self.difference:.3f}"


def contrast(first: pd.Series, second: pd.Series, num_resamples: int, seed: int) -> Contrast:
    """Compare two measures prompt by prompt; prompts that lack one of them are left out."""
    one, other = first.align(second, join="inner")
    share, total = float((one > other).mean()), len(one)
    ends = wilson_interval(share, total) if total >= LEAST_PROMPTS else (math.nan, math.nan)
    means = (mean_interval(values, num_resamples, seed) for values in (one, other, one - other))
    return Contrast(*means, Estimate(share, *ends, total))


def contrast_table(contrasts: Mapping[tuple[str, str | int], Contrast]) -> pd.DataFrame:
    """Contrasts by label and candidates as rows: both means, and their difference."""
    rows = []
    for key, one in contrasts.items():
        gap, means = one.difference, (one.first.value, one.second.value)
        numbers = (gap.value, gap.low, gap.high, one.share_above.value, gap.num_units)
        rows.append((*key, *means, *numbers))
    names = "label candidates first second difference low high share_above num_prompts"
    return pd.DataFrame(rows, columns=names.split())


def nearness_by_prompt(levels: Levels, groups: Groups) -> dict[str, pd.DataFrame]:
    """Mean nearest-neighbour cosine of every prompt's held-out texts, by number of candidates.

    By level: one row per prompt. Columns are numbers of candidates, then ``equal numbers`` (as many
    as there are training responses, the same at every level) and ``all candidates``.
    """
    folds = {name: neighbors.hold_out(level.items, groups) for name, level in levels.items()}
    equal = neighbors.smallest_choice(folds[RESPONSES])
    values = {}
    for name, level in levels.items():
        grid = [count for count in _GRID if count < neighbors.smallest_choice(folds[name])]
        cosines = cosines_by_count(level, folds[name], [*grid, equal, ALL])
        values[name] = prompt_means(level.items, cosines, [*grid, EQUAL_NUMBERS, ALL_CANDIDATES])
    return values


def nearness_curves(
    values: Values, num_candidates: Mapping[str, int], **resampling: int
) -> pd.DataFrame:
    """Mean nearest-neighbour cosine against the number of candidates, with intervals.

    ``num_candidates`` gives the place of ``all candidates`` on the axis, by level.
    """
    rows = []
    for name, table in values.items():
        for column in table.columns.drop(EQUAL_NUMBERS):
            count = num_candidates[name] if column == ALL_CANDIDATES else column
            found = mean_interval(table[column], **resampling)
            rows.append((name, count, found.value, found.low, found.high))
    return pd.DataFrame(rows, columns=["level", "candidates", "mean", "low", "high"])


def contrast_levels(values: Values, **resampling: int) -> dict[tuple[str, str], Contrast]:
    """Levels against each other, by label and candidates: ``("steps - responses", ...)``."""
    contrasts = {}
    for (first, second), column in itertools.product(_PAIRS, (ALL_CANDIDATES, EQUAL_NUMBERS)):
        if first in values and second in values:
            pair = (values[first][column], values[second][column])
            contrasts[f"{first} - {second}", column] = contrast(*pair, **resampling)
    return contrasts


def group_table(
    values: Values, groups: Groups, whole: str = RESPONSES, **resampling: int
) -> pd.DataFrame:
    """Steps against ``whole`` responses in each held-out group (paper, Fig. 7 and 8: test sets)."""
    labels = values[whole].index.map(groups)
    contrasts = {}
    for column in (ALL_CANDIDATES, EQUAL_NUMBERS):
        steps, responses = values[STEPS][column], values[whole][column]
        for label in sorted(set(labels)):
            mine = labels == label
            contrasts[label, column] = contrast(steps[mine], responses[mine], **resampling)
    return contrast_table(contrasts)


def similarity_sweep(
    levels: Levels,
    groups: Groups,
    similarity: pd.DataFrame,
    limits: Sequence[float],
    **resampling: int,
) -> pd.DataFrame:
    """Levels against each other, without the training prompts that resemble the held-out one.

    ``equal numbers`` are the same at every limit: as many candidates as the lowest limit leaves
    training responses. A limit is dropped if it leaves some prompt without candidates. ``limits``
    are the largest cosines with the held-out prompt (``similarity``, of any two ids); ``ALL``
    leaves nothing out. The result is a `contrast_table` with ``limit``.
    """
    whole = levels[RESPONSES].items
    likenesses = [
        likeness
        for comparison in neighbors.hold_out(whole, groups)
        for _, likeness in _by_prompt(whole, comparison, similarity)
    ]
    offered = {limit: min(int((one <= limit).sum()) for one in likenesses) for limit in limits}
    usable = [limit for limit, count in offered.items() if count]
    counts = [min(offered[limit] for limit in usable), ALL]
    values: list[dict[str, pd.DataFrame]] = [{} for _ in usable]
    for name, level in levels.items():
        cosines = np.full((len(usable), len(level.items), len(counts)), np.nan)
        for comparison in neighbors.hold_out(level.items, groups):
            # All prompts of a fold share their candidates: so their vectors are gathered once.
            candidates = level.vectors[comparison.candidates].T
            for queries, likeness in _by_prompt(level.items, comparison, similarity):
                found = level.vectors[queries] @ candidates
                for place, limit in enumerate(usable):
                    cosines[place, queries] = expected_largest(found[:, likeness <= limit], counts)
        for means, one in zip(values, cosines, strict=True):
            means[name] = prompt_means(level.items, one, [EQUAL_NUMBERS, ALL_CANDIDATES])
    tables = [contrast_table(contrast_levels(means, **resampling)) for means in values]
    tables = [table.assign(limit=limit) for table, limit in zip(tables, usable, strict=True)]
    return pd.concat(tables, ignore_index=True)


def _by_prompt(
    items: pd.DataFrame, comparison: Comparison, similarity: pd.DataFrame
) -> Iterator[tuple[Int[np.ndarray, "queries"], Float[np.ndarray, "candidates"]]]:
    """Each held-out prompt's rows, and how similar its candidates' prompts are to it."""
    prompts = items["prompt_id"].to_numpy()
    held_out, offered = prompts[comparison.queries], prompts[comparison.candidates]
    for prompt in pd.unique(held_out):
        yield comparison.queries[held_out == prompt], similarity.loc[prompt, offered].to_numpy()


def teacher_table(levels: Levels, groups: Groups, **resampling: int) -> pd.DataFrame:
    """Neighbours among the same teacher's texts against neighbours among the others'.

    Both searches use equal numbers of candidates: at each level, as many as the teacher with the
    fewest has. The table is empty if there is only one teacher.
    """
    contrasts = {}
    for name, level in levels.items():
        parts = neighbors.split_by_teacher(level.items, neighbors.hold_out(level.items, groups))
        parts = {whose: [c for c in found if len(c.candidates)] for whose, found in parts.items()}
        if not all(parts.values()):
            continue  # one teacher: there is no other to compare with
        # With more candidates, the others' texts would be nearer by chance alone.
        count = min(neighbors.smallest_choice(found) for found in parts.values())
        same, other = (
            prompt_means(level.items, cosines_by_count(level, found, [count]), [whose])[whose]
            for whose, found in parts.items()
        )
        label = f"{name}: same teacher - other teachers"
        contrasts[label, count] = contrast(same, other, **resampling)
    return contrast_table(contrasts)


def nearer_steps(responses: pd.DataFrame, steps: pd.DataFrame) -> pd.Series:
    """Share of each prompt's steps whose neighbour is nearer than that of the whole response.

    Both tables come from `find_neighbors` on the same responses.
    """
    whole = steps["response_id"].map(responses.set_index("response_id")["cosine"])
    nearer = (steps["cosine"] > whole).to_numpy(dtype=float)[:, None]
    return prompt_means(steps, nearer, ["share"])["share"]


TOGETHER = {"together": RESPONSES, f"together, {PIECES}": PIECES}
"""Rows of `category_table` over all prompts, and the level of responses that they compare."""


def category_table(levels: Levels, categories: Groups, **resampling: int) -> pd.DataFrame:
    """`group_table` of categories, then the rows of `TOGETHER`; empty without categories."""
    if not categories:
        return contrast_table({})
    compared = {name: levels[name] for name in (RESPONSES, PIECES, STEPS)}
    values = nearness_by_prompt(compared, categories)
    together = [
        group_table(values, dict.fromkeys(categories, label), whole, **resampling)
        for label, whole in TOGETHER.items()
    ]
    return pd.concat([group_table(values, categories, **resampling), *together], ignore_index=True)


def together(table: pd.DataFrame, candidates: str) -> list[Estimate]:
    """The differences over all prompts in a `category_table`: cut responses, then their pieces."""
    rows = table[table["candidates"] == candidates].set_index("label").loc[list(TOGETHER)]
    return [Estimate(row.difference, row.low, row.high) for row in rows.itertuples()]


def nearness_table(values: Values, **resampling: int) -> pd.DataFrame:
    """Mean nearest-neighbour cosine of each level, with its interval over prompts, as text."""
    columns = [ALL_CANDIDATES, EQUAL_NUMBERS]
    shown = {
        level: table[columns].apply(lambda one: f"{mean_interval(one, **resampling):.3f}")
        for level, table in values.items()
    }
    return pd.DataFrame.from_dict(shown, orient="index")
