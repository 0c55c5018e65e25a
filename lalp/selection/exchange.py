"""Random sets of responses that match a selection's teachers, drawn by exchanging responses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

# In a sweep, a response takes part in about one of three tries, and some tries are refused.
_NUM_SWEEPS = 200


@dataclass(frozen=True)
class Candidates:
    """Rows in a fixed order, with the prompt, teacher and length of each."""

    prompt: Int[np.ndarray, " rows"]
    teacher: Int[np.ndarray, " rows"]
    num_tokens: Int[np.ndarray, " rows"]


def shuffle_chosen(
    rows: Candidates,
    chosen: Bool[np.ndarray, " rows"],
    generator: np.random.Generator,
    *,
    per_prompt: int | None = None,
    max_tokens: int | None = None,
) -> Bool[np.ndarray, " rows"]:
    """A random set of rows with as many from each teacher as ``chosen`` has.

    With ``per_prompt``, the set may cover any prompts, with at most that many rows each; without
    it, each prompt keeps its number of rows. ``max_tokens`` limits the tokens of the rows. The draw
    is a Markov chain (Metropolis) whose stationary distribution is uniform over all such sets.
    """
    state = chosen.copy()
    for _ in range(_NUM_SWEEPS):
        _sweep(rows, state, generator, per_prompt, max_tokens)
    return state


def _sweep(
    rows: Candidates,
    state: Bool[np.ndarray, " rows"],
    generator: np.random.Generator,
    per_prompt: int | None,
    max_tokens: int | None,
) -> None:
    """Try one exchange in each group of prompts; the groups are drawn anew in every sweep.

    Some randomly drawn chosen rows of the group go out. Each is replaced by a row that was not
    chosen, drawn among those of the same teacher in the group. So the group keeps its numbers of
    chosen rows and of rows of each teacher. An exchange is as likely as its reverse, and it is made
    unless it breaks a limit.
    """
    num_prompts, num_teachers = int(rows.prompt.max()) + 1, int(rows.teacher.max()) + 1
    # Some exchanges need several prompts: A for B here, B for C there, C for A in a third.
    size = min(1 + int(generator.geometric(0.5)), num_prompts)
    count = int(generator.integers(1, size + 1))
    group = (generator.permutation(num_prompts) // size)[rows.prompt]
    shuffled = np.lexsort([generator.random(len(state)), group])
    out = _first_of_each(shuffled[state[shuffled]], group, count)
    into, allowed = _partners(out, group * num_teachers + rows.teacher, state, generator)
    if per_prompt is None:
        allowed &= (np.sort(rows.prompt[out]) == np.sort(rows.prompt[into])).all(axis=1)
    else:
        out, into = out[allowed], into[allowed]
        numbers = np.bincount(rows.prompt[state], minlength=num_prompts)
        np.add.at(numbers, rows.prompt[into], 1)
        np.add.at(numbers, rows.prompt[out], -1)
        allowed = (numbers[rows.prompt[into]] <= per_prompt).all(axis=1)
    out, into = out[allowed], into[allowed]
    if max_tokens is not None:
        gain = (rows.num_tokens[into] - rows.num_tokens[out]).sum(axis=1)
        fits = _fits(gain, max_tokens - int(rows.num_tokens[state].sum()))
        out, into = out[fits], into[fits]
    state[out] = False
    state[into] = True


def _partners(
    out: Int[np.ndarray, "groups count"],
    cell: Int[np.ndarray, " rows"],
    state: Bool[np.ndarray, " rows"],
    generator: np.random.Generator,
) -> tuple[Int[np.ndarray, "groups count"], Bool[np.ndarray, " groups"]]:
    """For each chosen row, an unchosen one of the same group and teacher (cell), each used once.

    Also returns whether a group has enough such rows; if not, its rows have no meaning.
    """
    shuffled = np.lexsort([generator.random(len(cell)), cell])
    free = shuffled[~state[shuffled]]
    number = np.bincount(cell[free], minlength=int(cell.max()) + 1)
    cells = cell[out].ravel()
    # The place of each row among those of its cell.
    order = np.argsort(cells, kind="stable")
    ordered = cells[order]
    place = np.empty(len(cells), dtype=np.int64)
    place[order] = np.arange(len(cells)) - np.searchsorted(ordered, ordered)
    enough = (place < number[cells]).reshape(out.shape).all(axis=1)
    start = np.cumsum(number) - number
    # Any row stands in for a missing partner; it is not used.
    padded = np.append(free, 0)
    return padded[np.minimum(start[cells] + place, len(free))].reshape(out.shape), enough


def _first_of_each(
    order: Int[np.ndarray, " rows"], group: Int[np.ndarray, " all"], count: int
) -> Int[np.ndarray, "groups count"]:
    """The first rows of each group that has this many; ``order`` is sorted by group."""
    _, start, size = np.unique(group[order], return_index=True, return_counts=True)
    return order[start[size >= count][:, None] + np.arange(count)]


def _fits(gain: Int[np.ndarray, " tries"], room: int) -> Bool[np.ndarray, " tries"]:
    """Which exchanges, one after the other, stay within the room that is left."""
    fits = gain <= 0
    for i, tokens in enumerate(gain.tolist()):
        fits[i] = tokens <= room
        room -= tokens if fits[i] else 0
    return fits
