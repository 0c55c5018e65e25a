"""Controls that match a selection in its teachers."""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int

from lalp.errors import InputError
from lalp.selection.table import (
    candidates,
    check_selection,
    check_table,
    draws,
    take,
    with_left_out,
)
from lalp.stats import seeded_generator

# Correlation with the start falls below 0.1 within about 10 moves on a pool of four teachers.
_MOVES_PER_TEACHER = 100


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
        scores: The table that ``like`` was selected from. Filter it first if the control should
            see scored responses only.
        like: A selection: one row per prompt.
        seed: For the assignment and for the draws within a teacher.

    Returns:
        As ``select``.

    Raises:
        InputError: If ``like`` is not a selection from ``scores``.

    Example:
        >>> from lalp.selection.rules import select, teacher_mix
        >>> from lalp.selection.table import example_scores
        >>> best = select(example_scores(), "lalp")
        >>> control = select_random_matched(example_scores(), best)
        >>> teacher_mix(control).equals(teacher_mix(best))
        True
    """
    check_table(scores)
    check_selection(like)
    keep, left_out = candidates(scores, [], skip_unscored=False)
    prompt_of, prompts = pd.factorize(scores["prompt_id"], sort=True)
    teacher_of, teachers = pd.factorize(scores["teacher"], sort=True)
    available = np.zeros((len(prompts), len(teachers)), dtype=bool)
    available[prompt_of[keep], teacher_of[keep]] = True
    rows, current = prompts.get_indexer(like["prompt_id"]), teachers.get_indexer(like["teacher"])
    lost = like[(rows < 0) | (current < 0) | ~available[rows, current]]
    if len(lost):
        raise InputError(
            f"the scores hold no candidate of {lost['teacher'].iloc[0]!r} for prompt "
            f"{lost['prompt_id'].iloc[0]!r}, which the selection to match has: give the table "
            "that it was selected from"
        )
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
