"""Controls that match a selection in its teachers, and in its limits, and the best such choice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int
from scipy.optimize import linear_sum_assignment

from lalp.errors import InputError
from lalp.scoring.windows import Window
from lalp.selection.exchange import Candidates, shuffle_chosen
from lalp.selection.limits import Limits
from lalp.selection.rules import Field, Tie, enter, select
from lalp.selection.table import (
    candidates,
    check_selection,
    draws,
    num_tokens,
    score_values,
    take,
    with_left_out,
)
from lalp.stats import seeded_generator

# Correlation with the start falls below 0.1 within about 10 moves on a pool of four teachers.
_MOVES_PER_TEACHER = 100


def select_control(
    scores: pd.DataFrame,
    rule: str,
    window: str | int | Window | None = None,
    *,
    seed: int = 0,
    tie: Tie = "first",
    skip_unscored: bool = False,
    weights: bool = False,
    **limits: Any,
) -> pd.DataFrame:
    """The random control for the choice of `select` with the same arguments.

    It takes exactly as many responses of each teacher, among those that the rule may choose from,
    and within the same limits. It covers the same prompts with as many responses each. But
    ``quota``, ``top`` and ``max_tokens`` choose among prompts, so with them it covers any. Without
    limits it is `select_random_matched`. With a limit that allows several responses per prompt, or
    chooses among prompts, all such sets of responses are equally likely. Weights are all 1.

    Example:
        >>> from lalp.selection.rules import teacher_mix
        >>> from lalp.selection.table import example_scores
        >>> teacher_mix(select_control(example_scores(), "lalp", per_prompt=2))["count"].tolist()
        [2, 2]
    """
    asked = Limits(**limits)
    settings = {"seed": seed, "tie": tie, "skip_unscored": skip_unscored}
    like = select(scores, rule, window, **settings, **limits)
    field = enter(scores, rule, window, limits=asked, **settings)
    if asked.per_prompt == 1 and not asked.choose_prompts:
        among = field.scores if asked.min_score is None else field.scores[field.keep]
        control = select_random_matched(among, like, seed=seed)
        # Rows below the least score are gone, so prompts may begin in another order.
        places = {prompt_id: place for place, prompt_id in enumerate(like["prompt_id"])}
        order = control["prompt_id"].map(places).argsort(kind="stable")
        control = control.iloc[order].reset_index(drop=True)
    else:
        control = _exchange(field, like, asked, seed)
    control.attrs["left_out"] = like.attrs["left_out"]
    return control.assign(weight=1.0) if weights else control


def _exchange(field: Field, like: pd.DataFrame, limits: Limits, seed: int) -> pd.DataFrame:
    """A random set of the field's candidates that matches a selection from it."""
    candidate_places = np.flatnonzero(field.keep)
    among = field.scores.iloc[candidate_places].reset_index(drop=True)
    taken = set(zip(like["prompt_id"], like["response_id"], strict=True))
    # In order of ids, so the draw does not depend on the order of the rows.
    ids = among[["prompt_id", "response_id"]].astype(str)
    rows = among.iloc[np.lexsort([ids["response_id"], ids["prompt_id"]])]
    chosen = [pair in taken for pair in zip(rows["prompt_id"], rows["response_id"], strict=True)]
    lengths = np.zeros(len(rows), dtype=np.int64)
    if limits.max_tokens is not None:
        lengths = num_tokens(rows)
    prompts, teachers = (pd.factorize(rows[name])[0] for name in ("prompt_id", "teacher"))
    drawn = shuffle_chosen(
        Candidates(prompts, teachers, lengths),
        np.array(chosen),
        seeded_generator("exchange", seed),
        per_prompt=limits.per_prompt if limits.choose_prompts else None,
        max_tokens=limits.max_tokens,
    )
    keep = np.zeros(len(field.scores), dtype=bool)
    keep[candidate_places[rows.index[drawn]]] = True
    # For the whole table: prompts are in the order of the selection.
    places = take(field.scores, keep, [], count=limits.per_prompt)
    return field.scores.iloc[places].reset_index(drop=True)


def select_random_matched(
    scores: pd.DataFrame, like: pd.DataFrame, *, seed: int = 0
) -> pd.DataFrame:
    """Random selection with the teacher mix of another one: the control for composition.

    It covers the prompts of ``like`` and takes exactly as many responses of each teacher. So a
    difference between students trained on the two is due to the choice of responses, not to the
    number from each teacher. The assignment of teachers to prompts is uniform among all that keep
    these numbers and have a candidate everywhere; the draw of one candidate is uniform too. Filter
    ``scores`` first if the control should see only scored responses.

    Example:
        >>> from lalp.selection.rules import select, teacher_mix
        >>> from lalp.selection.table import example_scores
        >>> best = select(example_scores(), "lalp")
        >>> control = select_random_matched(example_scores(), best)
        >>> teacher_mix(control).equals(teacher_mix(best))
        True
    """
    keep, left_out = candidates(scores, [], skip_unscored=False)
    grid = _read_grid(scores, keep, like)
    used, current = np.unique(grid.current, return_inverse=True)
    generator = seeded_generator("assignment", seed)
    available = grid.available[np.ix_(grid.rows, used)]
    assigned = used[_assign_teachers(available, current, generator)]
    keep &= grid.holds(assigned)
    places = take(scores, keep, [draws("matched", seed, scores)])
    chosen = scores.iloc[places].reset_index(drop=True)
    return with_left_out(scores, chosen, left_out, "prompts outside the matched selection")


def select_best_matched(scores: pd.DataFrame, like: pd.DataFrame, column: str) -> pd.DataFrame:
    """The selection with the teacher mix of another one that has the highest mean of a score.

    It covers the prompts of ``like`` and takes exactly as many responses of each teacher. Prompts
    go to teachers by the assignment with the highest sum, found exactly. For a selection's own
    score this is the selection itself, the best of all mixes. For another rule's score it separates
    the choice of samples from the mix of teachers. If several assignments have the highest sum, it
    is one of them, for any order of the rows.

    Example:
        >>> from lalp.selection.rules import select
        >>> from lalp.selection.table import example_scores
        >>> random = select(example_scores(), "random", seed=1)
        >>> list(random["teacher"]), list(select(example_scores(), "galp")["teacher"])
        (['Ada', 'Bob'], ['Bob', 'Bob'])
        >>> list(select_best_matched(example_scores(), random, "galp")["teacher"])
        ['Ada', 'Bob']
    """
    keep, left_out = candidates(scores, [column], skip_unscored=False)
    grid = _read_grid(scores, keep, like)
    values = np.where(keep, score_values(scores, column), -np.inf)
    best = np.full(grid.available.shape, -np.inf)
    np.maximum.at(best, (grid.prompt_of, grid.teacher_of), values)
    places_of = np.sort(grid.current)  # a place for each response that a teacher has to give
    gains = best[grid.rows][:, places_of]
    # A missing candidate costs more than could be gained elsewhere.
    known = gains[np.isfinite(gains)]
    lacking = known.min() - len(gains) * (np.ptp(known) + 1)
    order, columns = linear_sum_assignment(np.where(np.isfinite(gains), gains, lacking), True)
    assigned = np.empty(len(gains), dtype=int)
    assigned[order] = places_of[columns]
    keep &= grid.holds(assigned)
    chosen = scores.iloc[take(scores, keep, [-values])].reset_index(drop=True)
    return with_left_out(scores, chosen, left_out, "prompts outside the matched selection")


@dataclass(frozen=True)
class _Grid:
    """Candidates by prompt and teacher, and the teachers of the selection to match."""

    prompt_of: Int[np.ndarray, " candidates"]
    teacher_of: Int[np.ndarray, " candidates"]
    available: Bool[np.ndarray, "prompts teachers"]
    rows: Int[np.ndarray, " chosen"]  # the prompts to cover, in order
    current: Int[np.ndarray, " chosen"]  # the teacher of each prompt there

    def holds(self, assigned: Int[np.ndarray, " chosen"]) -> Bool[np.ndarray, " candidates"]:
        """Which responses are by the teacher assigned to their prompt."""
        teachers = np.full(len(self.available), -1)
        teachers[self.rows] = assigned
        return teachers[self.prompt_of] == self.teacher_of


def _read_grid(
    scores: pd.DataFrame, keep: Bool[np.ndarray, " candidates"], like: pd.DataFrame
) -> _Grid:
    """Refuse a selection that was not made from these candidates."""
    check_selection(like)
    prompt_of, prompts = pd.factorize(scores["prompt_id"], sort=True)
    teacher_of, teachers = pd.factorize(scores["teacher"], sort=True)
    available = np.zeros((len(prompts), len(teachers)), dtype=bool)
    available[prompt_of[keep], teacher_of[keep]] = True
    rows, current = prompts.get_indexer(like["prompt_id"]), teachers.get_indexer(like["teacher"])
    lost = like[(rows < 0) | (current < 0) | ~available[rows, current]]
    if len(lost):
        which = f"{lost['teacher'].iloc[0]!r} for prompt {lost['prompt_id'].iloc[0]!r}"
        found = f"the scores hold no candidate of {which}, which the selection to match has"
        raise InputError(f"{found}: give the table that it was selected from")
    order = np.argsort(rows)
    return _Grid(prompt_of, teacher_of, available, rows[order], current[order])


def _assign_teachers(
    available: Bool[np.ndarray, "prompts teachers"],
    teacher_of: Int[np.ndarray, " prompts"],
    generator: np.random.Generator,
) -> Int[np.ndarray, " prompts"]:
    """Random assignment of teachers to prompts, same number per teacher, available ones only.

    Counting such assignments is as hard as a permanent, so this is a Markov chain with a uniform
    stationary distribution. (An optimal assignment under random costs would not be uniform.)
    """
    teacher_of = teacher_of.copy()
    # Among prompts with the same teachers, the result is exactly uniform for any chain.
    _, alike = np.unique(available, axis=0, return_inverse=True)
    for group in range(alike.max() + 1):
        members = np.flatnonzero(alike.ravel() == group)
        teacher_of[members] = generator.permutation(teacher_of[members])
    for _ in range(_MOVES_PER_TEACHER * available.shape[1]):
        _move(available, teacher_of, generator)
    return teacher_of


def _move(
    available: Bool[np.ndarray, "prompts teachers"],
    teacher_of: Int[np.ndarray, " prompts"],
    generator: np.random.Generator,
) -> None:
    """Shuffle two teachers (a Gibbs step), then rotate three or more (a Metropolis step).

    Two assignments with equal counts differ by cycles of teachers: prompt 1 goes from A to B,
    prompt 2 from B to C, prompt 3 from C to A. Exchanges between two teachers cannot always break
    up such a cycle; both kinds of move together reach every assignment.
    """
    num_teachers = available.shape[1]
    if num_teachers < 2:
        return
    pair = generator.permutation(num_teachers)[:2]
    free = np.flatnonzero(np.isin(teacher_of, pair) & available[:, pair].all(axis=1))
    teacher_of[free] = generator.permutation(teacher_of[free])
    if num_teachers < 3:
        return
    # Long cycles are rarely possible, but every length must have a chance: geometric.
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
    # Undoing the move draws from other numbers of prompts: accept by the ratio of these.
    ways_back = ((teacher_of[:, None] == target) & available[:, source]).sum(axis=0)
    if generator.random() * np.prod(ways_back / ways) >= 1:
        teacher_of[prompts] = source
