"""Pack rows of many prompts, candidates and windows end to end into few sequences.

A sequence holds each of its prompts once, followed by the prompt's rows. A token sees only its own
prompt and its own row up to itself. So one forward pass over the sequence reads every row as a pass
of its own would. This is exact because a row's keys never see the steps that its window drops. One
long sequence with a sliding mask would give a different, wrong number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from lalp.scoring.engine.rows import Row

# Tokens on a side of the attention kernel's blocks. Sequences are padded to whole blocks.
BLOCK = 128
# Sequences that stay open for more rows during planning. More of them would gain little room.
_OPEN = 16


class Job(NamedTuple):
    """A row to read, the prompt that it follows, and its response's tokens."""

    prompt: int
    response_ids: Sequence[int]
    row: Row


@dataclass(frozen=True)
class PackedSequence:
    """Tokens of prompts and rows end to end, what each token sees, and where targets are read.

    A token sees the tokens from ``begin`` up to itself, and those of its prompt, from
    ``prompt_begin`` up to but excluding ``prompt_end``. For a prompt's own tokens the second range
    is empty.
    """

    ids: Int[np.ndarray, " pos"]
    positions: Int[np.ndarray, " pos"]  # as in a pass over prompt and row alone
    begin: Int[np.ndarray, " pos"]
    prompt_begin: Int[np.ndarray, " pos"]
    prompt_end: Int[np.ndarray, " pos"]
    # For each target, job by job: the job, the token's place in its row, the token, and the place
    # in the sequence where it is predicted.
    jobs: Int[np.ndarray, " targets"]
    columns: Int[np.ndarray, " targets"]
    targets: Int[np.ndarray, " targets"]
    places: Int[np.ndarray, " targets"]

    def seen_blocks(
        self,
    ) -> tuple[Bool[np.ndarray, "blocks blocks"], Bool[np.ndarray, "blocks blocks"]]:
        """For each block of queries, the blocks of keys that it sees in part and in full."""
        size = len(self.ids) // BLOCK
        some, whole = np.zeros((2, size, size), dtype=bool)
        parts = (self.begin, self.prompt_begin, self.prompt_end)
        for query, facts in enumerate(zip(*(p.reshape(size, BLOCK) for p in parts), strict=True)):
            begins, firsts, ends = (each.tolist() for each in facts)
            some[query, begins[0] // BLOCK : query + 1] = True
            for first, end in set(zip(firsts, ends, strict=True)):
                some[query, first // BLOCK : -(-end // BLOCK)] = first < end
            if begins[0] == begins[-1]:  # all queries are of one row
                whole[query, -(-begins[0] // BLOCK) : query] = True
                whole[query, -(-firsts[0] // BLOCK) : ends[0] // BLOCK] = True
        return some & ~whole, whole


def plan_sequences(
    prompt_lengths: Sequence[int], jobs: Sequence[Job], max_tokens: int
) -> list[list[int]]:
    """Group job indices into sequences of at most ``max_tokens`` tokens, prompts included.

    Jobs are placed prompt by prompt, the longest rows first, each into the first open sequence with
    room. A job that needs more tokens by itself has a sequence of its own. The plan depends only on
    the arguments.

    Example:
        >>> rows = [Row(0, 7, ((0, 7),)), Row(0, 4, ((0, 4),)), Row(2, 5, ((2, 5),))]
        >>> plan_sequences([5], [Job(0, range(7), row) for row in rows], max_tokens=13)
        [[0, 2], [1]]
    """
    order = sorted(range(len(jobs)), key=lambda i: (jobs[i].prompt, -jobs[i].row.num_inputs, i))
    plan: list[list[int]] = []
    rooms: list[int] = []  # tokens left in each sequence
    held: list[set[int]] = []  # prompts of each sequence
    for i in order:
        prompt, length = jobs[i].prompt, jobs[i].row.num_inputs
        for place in range(max(0, len(plan) - _OPEN), len(plan)):
            needed = length + (0 if prompt in held[place] else prompt_lengths[prompt])
            if needed <= rooms[place]:
                break
        else:
            place, needed = len(plan), length + prompt_lengths[prompt]
            plan.append([])
            rooms.append(max_tokens)
            held.append(set())
        plan[place].append(i)
        rooms[place] -= needed
        held[place].add(prompt)
    return plan


def num_packed(prompt_ids: Sequence[Sequence[int]], jobs: Sequence[Job]) -> int:
    """The number of tokens in a sequence of these jobs, before padding."""
    prompts = {job.prompt for job in jobs}
    return sum(len(prompt_ids[p]) for p in prompts) + sum(job.row.num_inputs for job in jobs)


def pack_sequence(
    prompt_ids: Sequence[Sequence[int]], jobs: Sequence[Job], length: int
) -> PackedSequence:
    """Lay out one sequence, padded to ``length`` with tokens that see only themselves."""
    ids = np.zeros(length, dtype=np.int64)
    positions = np.zeros(length, dtype=np.int64)
    begin = np.arange(length)
    prompt_begin, prompt_end = np.zeros((2, length), dtype=np.int64)
    reads: list[tuple[np.ndarray, ...]] = []
    end = 0
    by_prompt: dict[int, list[int]] = {}
    for number, job in enumerate(jobs):
        by_prompt.setdefault(job.prompt, []).append(number)
    for prompt, numbers in by_prompt.items():
        first, end = end, end + len(prompt_ids[prompt])
        last = end
        ids[first:last] = prompt_ids[prompt]
        positions[first:last] = np.arange(last - first)
        begin[first:last] = first
        for number in numbers:
            _, response_ids, row = jobs[number]
            here, end = slice(end, end + row.num_inputs), end + row.num_inputs
            ids[here] = response_ids[row.start : row.end - 1]
            positions[here] = np.arange(row.num_inputs) + last - first
            begin[here], prompt_begin[here], prompt_end[here] = here.start, first, last
            columns = np.concatenate([np.arange(*span) for span in row.targets]) - row.start
            targets = np.asarray(response_ids[row.start : row.end])[columns]
            # Token t of a row is predicted at its input t - 1, token 0 at the prompt's last token.
            places = np.where(columns > 0, here.start + columns - 1, last - 1)
            reads.append((np.full(len(columns), number), columns, targets, places))
    told = [np.concatenate(parts) for parts in zip(*reads, strict=True)]
    return PackedSequence(ids, positions, begin, prompt_begin, prompt_end, *told)
