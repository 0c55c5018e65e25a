"""Controls that match a selection in its teachers."""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int

from lalp.errors import InputError
from lalp.selection.table import candidates, check_selection, draws, take, with_left_out
from lalp.stats import seeded_generator

# Correlation with the start falls below 0.1 within about 10 moves on a pool of four teachers.
_MOVES_PER_TEACHER = 100


def select_random_matched(
    scores: pd.DataFrame, like: pd.DataFrame, *, seed: int = 0
) -> pd.DataFrame:
    """Random selection with the teacher mix of another one: the control for composition.

    Covers the prompts of ``like`` and takes exactly as many responses of each teacher. A difference
    between students trained on the two is then due to which responses were chosen, not to how many
    came from which teacher. The assignment of teachers to prompts is uniform among all that keep
    these numbers and have a candidate everywhere, and so is the draw of one candidate. Filter
    ``scores`` first if the control should see scored responses only.

    Example:
        >>> from lalp.selection.rules import select, teacher_mix
        >>> from lalp.selection.table import example_scores
        >>> best = select(example_scores(), "lalp")
        >>> control = select_random_matched(example_scores(), best)
        >>> teacher_mix(control).equals(teacher_mix(best))
        True
    """
    keep, left_out = candidates(scores, [], skip_unscored=False)
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
    rows, current = rows[np.argsort(rows)], current[np.argsort(rows)]
    used, current = np.unique(current, return_inverse=True)
    generator = seeded_generator("assignment", seed)
    assigned = np.full(len(prompts), -1)
    assigned[rows] = used[_assign_teachers(available[np.ix_(rows, used)], current, generator)]
    keep &= assigned[prompt_of] == teacher_of
    chosen = take(scores, keep, [draws("matched", seed, scores)])
    return with_left_out(scores, chosen, left_out, "prompts outside the matched selection")


def _assign_teachers(
    available: Bool[np.ndarray, "prompts teachers"],
    teacher_of: Int[np.ndarray, " prompts"],
    generator: np.random.Generator,
) -> Int[np.ndarray, " prompts"]:
    """Random assignment of teachers to prompts, same number per teacher, available ones only.

    Counting such assignments is as hard as a permanent, so this is a Markov chain whose stationary
    distribution is uniform. (An optimal assignment under random costs would not be uniform.)
    """
    teacher_of = teacher_of.copy()
    # The result is exactly uniform among prompts with the same teachers, whatever the chain does.
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
