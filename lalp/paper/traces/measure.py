"""The statistics that `rules.yaml` asks for, from the scores of the long traces.

All functions take score tables of the teachers that are compared; a unit is a problem.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from jaxtyping import Float

from lalp.paper.estimates import bootstrap
from lalp.paper.profiles import Profile
from lalp.paper.selection.measure import changed_teachers, moved_interval
from lalp.paper.selection.splitters import splitter_column
from lalp.paper.show import in_words
from lalp.paper.traces.plan import CONTROLS, committed_scores
from lalp.paper.traces.pool import DATA_SETS, MAIN_TEACHERS, SIMILAR_LENGTH
from lalp.scoring.columns import GALP, lalp_column
from lalp.selection.ranking import teacher_differences, teacher_interaction
from lalp.selection.rules import select
from lalp.stats import Estimate, holm, mean_interval, what_resolves

QWEN_BASED = list(MAIN_TEACHERS[1:])
QUARTER = 200 / 817
"""The paper's share of prompts that gave the order of all (Sec. 7.1)."""


def main_rows(scores: pd.DataFrame) -> pd.DataFrame:
    """The main teachers' rows of a score table."""
    return scores[scores["teacher"].isin(MAIN_TEACHERS)].reset_index(drop=True)


def by_data(scores: Mapping[str, pd.DataFrame]) -> Iterator[tuple[str, pd.DataFrame]]:
    """The main teachers' scores of each data set, and of both together."""
    frames = {name: main_rows(scores[name]) for name in DATA_SETS if name in scores}
    yield from frames.items()
    if len(frames) > 1:
        yield "pooled", pd.concat(frames.values(), ignore_index=True)


def length_cases() -> dict[str, dict[str, pd.DataFrame]]:
    """The committed scores of each data set under every length control of `rules.yaml`."""
    plain = dict(by_data({name: committed_scores(name) for name in DATA_SETS}))
    cases = {"all four": plain, "similar length": {n: similar_length(s) for n, s in plain.items()}}
    for control in CONTROLS:
        tables = {name: committed_scores(f"{name}_{control}") for name in DATA_SETS}
        cases[control] = dict(by_data(tables))
    return cases


@dataclass(frozen=True)
class Turns:
    """How two scores order pairs of teachers, each pair tested in the family of all.

    ``turned`` are the pairs that both scores resolve, in opposite directions: "A over B" under the
    first. ``kept`` is the number that both resolve in one direction, of ``num_pairs``.
    """

    turned: tuple[str, ...]
    kept: int
    num_pairs: int

    @property
    def all_resolved(self) -> bool:
        """Whether both scores resolve every pair."""
        return self.kept + len(self.turned) == self.num_pairs

    def __str__(self) -> str:
        said = f"{len(self.turned)} of {self.num_pairs} pairs turn, {self.kept} stay"
        return f"{said} ({'; '.join(self.turned)})" if self.turned else said


def compare_pairs(
    scores: pd.DataFrame, first: str, second: str, other: pd.DataFrame | None = None
) -> Turns:
    """Which pairs of teachers two scores resolve, and which of them turn.

    ``second`` is a column of ``other`` if that is given: the same problems, scored differently.

    Example:
        >>> from lalp.selection.table import example_scores
        >>> print(compare_pairs(example_scores(), "galp", "lalp@4"))
        0 of 1 pairs turn, 0 stay
    """
    tables = (scores, scores if other is None else other)
    found = [
        # Its intervals are not used, so they need no resamples.
        teacher_differences(table, column, num_resamples=1)
        for table, column in zip(tables, (first, second), strict=True)
    ]
    sure = [
        {*zip(pairs["higher"], pairs["lower"], strict=True)}
        for pairs in (table[table["resolved"]] for table in found)
    ]
    turned = sorted(f"{a} over {b}" for a, b in sure[0] if (b, a) in sure[1])
    return Turns(tuple(turned), len(sure[0] & sure[1]), len(found[0]))


def order_table(frames: Mapping[str, pd.DataFrame], column: str) -> pd.DataFrame:
    """Claim `order`: the interaction of teacher and score, and the pairs that turn, for each frame.

    A row per frame: ``num_problems``, ``F``, ``p``, ``p_holm`` (in the family of all frames),
    ``turns``, ``galp`` and ``lalp`` (the orders), and ``verdict``.
    """
    rows = []
    for name, scores in frames.items():
        test = teacher_interaction(scores, column, GALP)
        turns = compare_pairs(scores, GALP, column)
        orders = {key: mean_order(scores, one) for key, one in (("galp", GALP), ("lalp", column))}
        about = {"data": name, "num_problems": test.num_prompts, "F": test.statistic, "p": test.p}
        rows.append(about | {"turns": turns} | orders)
    table = pd.DataFrame(rows)
    table.insert(4, "p_holm", holm(table["p"].to_numpy()))
    table["verdict"] = [
        _said(
            holds=row.p_holm < 0.05 and len(row.turns.turned) > 0,
            fails=row.turns.all_resolved and not row.turns.turned,
        )
        for row in table.itertuples()
    ]
    return table


def mean_order(scores: pd.DataFrame, column: str) -> str:
    """Teachers from the highest mean to the lowest, on problems that all of them have."""
    grid = problem_means(scores, column)
    return " > ".join(grid.mean().sort_values(ascending=False, kind="stable").index)


def problem_means(scores: pd.DataFrame, column: str) -> pd.DataFrame:
    """Mean score of each problem (row) and teacher (column), of problems that all teachers have."""
    return scores.pivot_table(column, "prompt_id", "teacher", "mean").dropna()


def around_problems(scores: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """The scores minus the mean of their problem's teachers: this removes its difficulty."""
    centered = scores.copy()
    for column in columns:
        centered[column] -= scores["prompt_id"].map(problem_means(scores, column).mean(axis=1))
    return centered


def _said(*, holds: bool, fails: bool) -> str:
    return "holds" if holds else "does not hold" if fails else "not resolved"


def level_interval(scores: pd.DataFrame, column: str, num_resamples: int, seed: int) -> Estimate:
    """Claim `level`: a score minus GALP, mean over a problem's responses, then over problems."""
    gaps = (problem_means(scores, column) - problem_means(scores, GALP)).mean(axis=1).to_numpy()
    ends = mean_interval(gaps, num_resamples, seed)
    return Estimate(float(gaps.mean()), *ends, len(gaps))


def spacing_distances(
    sweep: pd.DataFrame, columns: Sequence[str], **resampling: int
) -> tuple[list[Estimate], Estimate]:
    """Claim `growing`: how far each score's spacing of the teachers is from GALP's, in nats.

    The distance is the root mean square over teachers of the mean over problems of score minus
    GALP, less its mean over the problem's teachers. Returns the distances, and the first one minus
    the one before the last (window 75 %).
    """
    shifts = [_centered(sweep, column) - _centered(sweep, GALP) for column in columns]
    size = shifts[0].shape[1]
    sums = np.hstack([*shifts, np.ones((len(shifts[0]), 1))])

    def distances(total: Float[np.ndarray, "... sums"]) -> Float[np.ndarray, "... distances"]:
        means = total[..., :-1] / total[..., -1:]
        found = np.sqrt((means.reshape(*means.shape[:-1], -1, size) ** 2).mean(axis=-1))
        shrunk = found[..., :1] - found[..., len(columns) - 2 : len(columns) - 1]
        return np.concatenate([found, shrunk], axis=-1)

    *each, shrinks = bootstrap(sums, distances, **resampling)
    return each, shrinks


def _centered(scores: pd.DataFrame, column: str) -> Float[np.ndarray, "problems teachers"]:
    grid = problem_means(scores, column)
    return grid.sub(grid.mean(axis=1), axis=0).to_numpy()


def first_is_resolved(scores: pd.DataFrame, column: str) -> bool:
    """Whether the first teacher is resolved from every other one, in the family of all pairs."""
    pairs = teacher_differences(scores, column, num_resamples=1)
    return bool(pairs.loc[pairs["higher"] == pairs["higher"].iloc[0], "resolved"].all())


def student_table(
    first: pd.DataFrame, second: pd.DataFrame, columns: Sequence[str], **resampling: int
) -> pd.DataFrame:
    """The teachers' orders under two students, on the problems that both scored.

    A row per score: both orders, the pairs that ``turn`` between the students, and the ``family``
    gap under each: the mean of the three teachers based on Qwen2.5 minus DeepSeek-R1's, in nats,
    and the second student's minus the first's, paired by problem.
    """
    both = first[first["prompt_id"].isin(second["prompt_id"])]
    rows = []
    for column in columns:
        row: dict[str, object] = {"score": column}
        gaps = {}
        for name, scores in (("first", both), ("second", second)):
            grid = problem_means(scores, column)
            gaps[name] = grid[QWEN_BASED].mean(axis=1) - grid[MAIN_TEACHERS[0]]
            row[f"{name}: order"] = mean_order(scores, column)
        gaps["second minus first"] = gaps["second"] - gaps["first"]  # by problem
        for name, own in gaps.items():
            ends = mean_interval(own.to_numpy(), **resampling)
            row[f"{name}: family gap"] = Estimate(float(own.mean()), *ends, len(own))
        rows.append(row | {"turns": compare_pairs(both, column, column, second)})
    return pd.DataFrame(rows)


def closest_pair(scores: pd.DataFrame, column: str) -> str:
    """Number of problems that would resolve the pair of teachers that is hardest to tell apart."""
    grid = problem_means(scores, column)
    gaps = {(a, b): (grid[a] - grid[b]).to_numpy() for a, b in combinations(grid, 2)}
    a, b = min(gaps, key=lambda pair: abs(gaps[pair].mean()) / gaps[pair].std(ddof=1))
    return f"{what_resolves(gaps[a, b].tolist(), 'problems')}, for {a} and {b}"


def quarter_of(num_problems: int) -> int:
    """A quarter of some problems, as the paper took 200 of 817, rounded up.

    Example:
        >>> quarter_of(817), quarter_of(130)
        (200, 32)
    """
    return math.ceil(num_problems * QUARTER - 1e-9)


def moved_table(
    frames: Mapping[str, pd.DataFrame], column: str, num_resamples: int, seed: int
) -> pd.DataFrame:
    """Claim `other`: `moved_interval` of each frame, with ``p_holm`` and ``verdict``.

    ``changed`` is `changed_teachers`, which enters no verdict: the paper prints shares alone.
    """
    window = column.partition("@")[2]
    rows = []
    for name, scores in frames.items():
        galp, lalp = select(scores, "galp"), select(scores, "lalp", window)
        shift = moved_interval(galp, lalp, num_resamples, seed)
        changed = changed_teachers(galp, lalp)
        rows.append((name, changed.num_units, shift.number, changed, shift.chance))
    table = pd.DataFrame(rows, columns=["data", "num_problems", "moved", "changed", "p"])
    table["p_holm"] = holm(table["p"].to_numpy())
    table["verdict"] = [
        _said(holds=row.p_holm < 0.05, fails=row.p_holm >= 0.05 and row.moved.high < 10)
        for row in table.itertuples()
    ]
    return table


def with_main_window(resplit: pd.DataFrame, profile: Profile) -> pd.DataFrame:
    """Scores under other steps, beside those under the main window, if there are any.

    The columns are those of `lalp.paper.selection.splitters.splitter_scores`.
    """
    window = profile.main_window
    parts = {name: committed_scores(f"splitter_{name}") for name in profile.splitters}
    few = set(next(iter(parts.values()))["response_id"])
    main = committed_scores(DATA_SETS[0])
    parts[profile.splitter] = main[main["response_id"].isin(few)]
    return resplit.assign(
        **{
            splitter_column(name, window): resplit["response_id"].map(
                part.set_index("response_id")[lalp_column(window)]
            )
            for name, part in parts.items()
        }
    )


def splitter_turns(frame: pd.DataFrame, names: Sequence[str], window: str) -> dict[str, Turns]:
    """Claims `main_steps` and `all_steps`: the first splitter's pairs against each other one's.

    ``frame`` has the columns of `lalp.paper.selection.splitters.splitter_scores`.
    """
    first, *others = (splitter_column(name, window) for name in names)
    kept = frame.dropna(subset=[first, *others])
    # A ranking knows score columns by name, so each takes the place of GALP's.
    renamed = {name: kept.assign(galp=kept[name]) for name in (first, *others)}
    return {
        splitter: compare_pairs(renamed[first], GALP, GALP, renamed[name])
        for splitter, name in zip(names[1:], others, strict=True)
    }


def steps_verdict(turns: Mapping[str, Turns]) -> str:
    """Verdict on one data set: no pair turns and all are resolved, or some pair turns."""
    return _said(
        holds=all(one.all_resolved and not one.turned for one in turns.values()),
        fails=any(one.turned for one in turns.values()),
    )


def slopes_verdict(slopes: Sequence[Estimate]) -> str:
    """Claim `grows_beyond`: every teacher's slope above 0, or one below, at their common level."""
    signs = [slope.sign for slope in slopes]
    return _said(holds=min(signs, default=0) == 1, fails=-1 in signs)


# --- which verdict counts -------------------------------------------------------------------------


def of_claim(by_data: Mapping[str, str]) -> str:
    """The claim's verdict: the pooled one, unless the data sets apart contradict each other.

    Example:
        >>> of_claim({"gsm8k": "holds", "math": "does not hold", "pooled": "holds"})
        'not resolved'
    """
    apart = {verdict for name, verdict in by_data.items() if name != "pooled"}
    return "not resolved" if {"holds", "does not hold"} <= apart else by_data["pooled"]


def with_controls(verdict: str, controls: Mapping[str, str]) -> tuple[str, str]:
    """A claim's verdict after the length controls, and the text on them.

    Example:
        >>> with_controls("holds", {"similar length": "not resolved", "cut": "holds"})
        ('holds', 'not shown beyond length (similar length)')
        >>> with_controls("does not hold", {"similar length": "not resolved"})
        ('does not hold', 'under similar length: not resolved')
    """
    if verdict != "holds":
        other = [
            f"under {in_words(name)}: {said}" for name, said in controls.items() if said != verdict
        ]
        return verdict, "; ".join(other)
    ruling = {name: controls[name] for name in ("similar length", "cut") if name in controls}
    against = [name for name, said in ruling.items() if said == "does not hold"]
    if against:
        return "not resolved", f"may be due to length ({', '.join(map(in_words, against))})"
    unsure = [name for name, said in ruling.items() if said == "not resolved"]
    return (
        verdict,
        f"not shown beyond length ({', '.join(map(in_words, unsure))})" if unsure else "",
    )


def similar_length(scores: pd.DataFrame) -> pd.DataFrame:
    """The rows of the three teachers whose traces are of similar length."""
    return scores[scores["teacher"].isin(SIMILAR_LENGTH)].reset_index(drop=True)
