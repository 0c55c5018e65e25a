"""Run the plan: read the log-probabilities of tokens from rows that share their prompt.

Every number equals that of a separate forward pass per step. The prompt's keys and values are
computed once for all rows of all candidates, and only target positions reach the head.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from lalp.scoring.engine.packed import Context, make_room, pack_body, read_packed, read_prompt
from lalp.scoring.engine.packing import Job
from lalp.scoring.engine.rows import Row, TokenScores, batch_rows, spread_rows
from lalp.scoring.engine.sequences import find_packing, run_packed
from lalp.scoring.engine.vocabulary import read_targets
from lalp.students.heads import take_logits
from lalp.students.student import Student

# A batch of fewer positions costs more than waiting for another worker.
_SMALLEST_BATCH = 512


class _RowLayer(DynamicLayer):
    """One layer's keys and values: the shared prompt, then room for one batch of rows.

    The buffer has its final size from the start. Growth by concatenation, as in the base class,
    would hold long responses twice.
    """

    def __init__(self, prompt: DynamicLayer, batch: int, capacity: int) -> None:
        super().__init__()
        self.lazy_initialization(prompt.keys, prompt.values)
        self._length, room = 0, prompt.keys.shape[-2] + capacity
        self._buffers = [
            states.new_empty(batch, states.shape[1], room, states.shape[3])
            for states in (prompt.keys, prompt.values)
        ]
        self.update(prompt.keys, prompt.values)

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        end = self._length + key_states.shape[-2]
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, self._length : end] = states
        self._length = end
        self.keys, self.values = (buffer[:, :, :end] for buffer in self._buffers)
        return self.keys, self.values


@dataclass(frozen=True)
class _Prefix:
    """The prompt, read once."""

    prompt_ids: tuple[int, ...]
    last: Float[Tensor, "features"]  # of the last prompt token; they predict a row's first token
    layers: list[DynamicLayer] | None = None  # keys and values, if rows can share them
    context: Context | None = None  # the same for packed rows


# A response's tokens and a row over them.
_Job = tuple[Sequence[int], Row]
# Places of targets: for each, its row in the batch and its position within the row.
_Places = tuple[Int[np.ndarray, "targets"], Int[np.ndarray, "targets"]]


@torch.inference_mode()
def run_jobs(
    student: Student,
    prompt_ids: Sequence[tuple[int, ...]],
    jobs: Sequence[Job],
    max_batch_tokens: int,
    *,
    statistics: bool = True,
    on_tokens: Callable[[int], object] = lambda tokens: None,
) -> list[TokenScores]:
    """Read the token scores of rows, in the order of ``jobs``; every prompt has at least one token.

    On a GPU many prompts are read together, in packed sequences of ``max_batch_tokens``. Rows are
    read prompt by prompt if they are too long for a sequence or for the memory, or if the student
    does not read packed sequences.
    """
    options = {"statistics": statistics, "on_tokens": on_tokens}
    results: list[TokenScores | None] = [None] * len(jobs)
    alone: dict[int, list[int]] = {}
    together = []
    packing = find_packing(student)
    for place, job in enumerate(jobs):
        if packing and len(prompt_ids[job.prompt]) + job.row.num_inputs <= max_batch_tokens:
            together.append(place)
        else:
            alone.setdefault(job.prompt, []).append(place)
    if together:
        members = [jobs[place] for place in together]
        read = run_packed(student, packing, prompt_ids, members, max_batch_tokens, **options)
        for place, scores in zip(together, read, strict=True):
            results[place] = scores
            if scores is None:
                alone.setdefault(jobs[place].prompt, []).append(place)
    for prompt, places in alone.items():
        members = [(jobs[place].response_ids, jobs[place].row) for place in places]
        read = run_rows(student, prompt_ids[prompt], members, max_batch_tokens, **options)
        for place, scores in zip(places, read, strict=True):
            results[place] = scores
    return results


@torch.inference_mode()
def run_rows(
    student: Student,
    prompt_ids: tuple[int, ...],
    jobs: Sequence[_Job],
    max_batch_tokens: int,
    *,
    statistics: bool = True,
    on_tokens: Callable[[int], None] = lambda tokens: None,
) -> list[TokenScores]:
    """Read the token scores of rows that share one prompt, in the order of ``jobs``.

    The prompt has at least one token. Each row is read as it would be alone: if a student's rotary
    frequencies depend on the length of a pass, rows with different frequencies share neither a
    batch nor the prompt's keys.

    ``max_batch_tokens`` is the number of padded tokens per forward pass. Without ``statistics``,
    ranks and entropies are not read. ``on_tokens`` is called with the number of tokens fed.
    """
    by_frequencies: dict[tuple[int, ...], list[int]] = {}
    for job, (_, row) in enumerate(jobs):
        length = row.num_tokens + len(prompt_ids)
        by_frequencies.setdefault(student.frequencies.of(length), []).append(job)
    results: list[TokenScores | None] = [None] * len(jobs)
    for members in by_frequencies.values():
        group = [jobs[job] for job in members]
        with student.at_length(group[0][1].num_tokens + len(prompt_ids)):
            read = _run_alike(student, prompt_ids, group, max_batch_tokens, statistics, on_tokens)
        for job, scores in zip(members, read, strict=True):
            results[job] = scores
    return results


def _run_alike(
    student: Student,
    prompt_ids: tuple[int, ...],
    jobs: Sequence[_Job],
    max_batch_tokens: int,
    statistics: bool,
    on_tokens: Callable[[int], None],
) -> list[TokenScores]:
    """Read the token scores of rows that have the same rotary frequencies."""
    prefix = _read_prompt(student, prompt_ids)
    on_tokens(len(prompt_ids))
    repeated = 0 if prefix.layers or prefix.context else len(prompt_ids)
    # In a model that keeps state in itself, passes in threads would overwrite each other's state.
    alone = student.device.type != "cpu" or (not prefix.context and student.keeps_state)
    workers = 1 if alone else torch.get_num_threads()
    rows = [row for _, row in jobs]
    long, batches = _plan_batches(prefix, rows, max_batch_tokens, workers)

    @torch.inference_mode()
    def read(batch: list[int]) -> list[TokenScores]:
        members = [jobs[job] for job in batch]
        return _read_batch(student, prefix, members, max_batch_tokens, statistics)

    results: list[TokenScores | None] = [None] * len(jobs)
    # Long rows come first, one after another, because each fills the memory by itself.
    for part, at_once in ((long, 1), (batches, workers)):
        with _parallel(min(at_once, len(part))) as run:
            for batch, scores in zip(part, run(read, part), strict=True):
                for job, score in zip(batch, scores, strict=True):
                    results[job] = score
                    on_tokens(jobs[job][1].num_inputs + repeated)
    return results


def _plan_batches(
    prefix: _Prefix, rows: Sequence[Row], max_batch_tokens: int, workers: int
) -> tuple[list[list[int]], list[list[int]]]:
    """Batches of one long row each, and the other batches, which can be read in parallel."""
    budget = 2 * max_batch_tokens
    if prefix.context:
        lengths = [row.num_inputs for row in rows]
        batches = spread_rows(lengths, max_batch_tokens, workers)
    else:
        # Every row also holds the prompt's keys and values, so short rows are not free.
        lengths = [len(prefix.prompt_ids) + row.num_inputs for row in rows]
        # At least four batches per worker: with fewer, one worker waits for another at the end.
        fair_share = max(_SMALLEST_BATCH, math.ceil(sum(lengths) / (4 * workers)))
        batches = batch_rows(lengths, min(budget, fair_share))
    long = [batch for batch in batches if max(lengths[row] for row in batch) > budget]
    return long, [batch for batch in batches if batch not in long]


@contextmanager
def _parallel(workers: int) -> Iterator[Callable[..., Iterator[Any]]]:
    """Yield a ``map`` over worker threads that share the cores."""
    # On a CPU, parallel passes are faster than one pass spread over all cores: small operations
    # gain little from several threads, and no pass waits for another. A result depends only on its
    # own batch, whichever thread computes it.
    if workers <= 1:
        yield map
        return
    threads = torch.get_num_threads()
    each = max(1, threads // workers)
    try:
        with ThreadPoolExecutor(workers, "lalp", torch.set_num_threads, (each,)) as pool:
            yield pool.map
    finally:
        # The setting is partly global: give the caller its threads back.
        torch.set_num_threads(threads)


def packed_body(student: Student) -> PreTrainedModel | None:
    """The body for packed rows; None if the model has another form or is not on a CPU.

    It is made when rows are first read, because this rearranges the model's weights in memory.
    """
    if "packed" not in student.laid_out:
        body = None if student.head is take_logits else pack_body(student.model)
        student.laid_out["packed"] = body
    return student.laid_out["packed"]


def _read_prompt(student: Student, prompt_ids: tuple[int, ...]) -> _Prefix:
    ids = torch.tensor(prompt_ids, device=student.device)
    if body := packed_body(student):
        context, last = read_prompt(body, ids)
        return _Prefix(prompt_ids, last, context=context)
    if student.keeps_state:
        features, _ = student.body(input_ids=ids[None], use_cache=False)
        return _Prefix(prompt_ids, features[0, -1])
    features, cache = student.body(input_ids=ids[None], use_cache=True)
    return _Prefix(prompt_ids, features[0, -1], _shareable_layers(cache, len(prompt_ids)))


def _shareable_layers(cache: Any, length: int) -> list[DynamicLayer] | None:
    """The layers of a cache, if many rows can continue them from the same point; else None.

    All layers must be plain, growing ones that hold all ``length`` tokens. Sliding windows drop
    keys, and recurrent states are overwritten. A cache of another class may hold more than layers.
    """
    layers = getattr(cache, "layers", None)
    if type(cache) is not DynamicCache or not layers:
        return None
    plain = all(
        type(layer) is DynamicLayer and layer.is_initialized and layer.keys.shape[-2] == length
        for layer in layers
    )
    return layers if plain else None


def _read_batch(
    student: Student, prefix: _Prefix, jobs: Sequence[_Job], max_batch_tokens: int, statistics: bool
) -> list[TokenScores]:
    """Read one batch; when memory runs out, read its halves."""
    try:
        return _collect(student, prefix, jobs, max_batch_tokens, statistics)
    except RuntimeError as error:
        # On a CPU, torch has no error class for this.
        full = isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
        if not full or (len(jobs) == 1 and max_batch_tokens < 128):
            raise
    # Outside the handler, so that the failed batch's tensors are gone.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    half = (len(jobs) + 1) // 2
    parts = [jobs[:half], jobs[half:]] if len(jobs) > 1 else [jobs]
    return [
        score
        for part in parts
        for score in _read_batch(student, prefix, part, max_batch_tokens // 2, statistics)
    ]


def _collect(
    student: Student, prefix: _Prefix, jobs: Sequence[_Job], max_batch_tokens: int, statistics: bool
) -> list[TokenScores]:
    """Feed a batch of rows and gather its targets."""
    scores = [np.full((3, row.end - row.start), np.nan, np.float32) for _, row in jobs]
    feed = (
        _feed_packed(student, prefix, jobs)
        if prefix.context
        else _feed_padded(student, prefix, jobs, max_batch_tokens)
    )
    for (rows, columns), features in feed:
        if not len(rows):
            continue
        targets = [jobs[i][0][jobs[i][1].start + t] for i, t in zip(rows, columns, strict=True)]
        whole = [statistics and jobs[i][1].start == 0 for i in rows]
        values = read_targets(
            student.head,
            features.to(student.head_device),
            torch.tensor(targets, device=student.head_device),
            torch.tensor(whole, device=student.head_device),
        )
        for i in np.unique(rows):
            scores[i][:, columns[rows == i]] = values[:, rows == i]
    return scores


def _target_places(jobs: Sequence[_Job]) -> _Places:
    """The place of every target of a batch, row by row."""
    columns = [
        np.concatenate([np.arange(*span) for span in row.targets]) - row.start for _, row in jobs
    ]
    sizes = [len(places) for places in columns]
    return np.repeat(np.arange(len(jobs)), sizes), np.concatenate(columns)


def _row_inputs(jobs: Sequence[_Job]) -> list[Int[Tensor, "pos"]]:
    """The tokens that are fed for each row: all but the last, which is only predicted."""
    return [torch.tensor(tokens[row.start : row.end - 1], dtype=torch.long) for tokens, row in jobs]


def _feed_packed(
    student: Student, prefix: _Prefix, jobs: Sequence[_Job]
) -> Iterator[tuple[_Places, Float[Tensor, "targets features"]]]:
    """Feed rows end to end; yield their targets and the features that predict these."""
    rows, columns = _target_places(jobs)
    ids = _row_inputs(jobs)
    context = make_room(prefix.context, max(map(len, ids)))
    # Token t of a row is predicted at its input t - 1, token 0 at the prompt's last token.
    within = columns > 0
    wanted = [torch.from_numpy(columns[within & (rows == i)] - 1) for i in range(len(ids))]
    features = prefix.last.repeat(len(rows), 1)
    features[torch.from_numpy(within)] = read_packed(packed_body(student), ids, context, wanted)
    yield (rows, columns), features


def _feed_padded(
    student: Student, prefix: _Prefix, jobs: Sequence[_Job], max_batch_tokens: int
) -> Iterator[tuple[_Places, Float[Tensor, "targets features"]]]:
    """Feed rows side by side; yield their targets and the features that predict these.

    Rows are padded on the right: a causal model never looks there, so no mask is needed.
    """
    rows, columns = _target_places(jobs)
    ids = pad_sequence(_row_inputs(jobs), batch_first=True).to(student.device)
    for first, features in _read_padded(student, prefix, ids, max_batch_tokens):
        # Position i of the features predicts token i of the row.
        here = (columns >= first) & (columns < first + features.shape[1])
        read = torch.from_numpy(rows[here]), torch.from_numpy(columns[here] - first)
        yield (rows[here], columns[here]), features[read]


def _read_padded(
    student: Student, prefix: _Prefix, ids: Int[Tensor, "batch pos"], max_batch_tokens: int
) -> Iterator[tuple[int, Float[Tensor, "batch pos features"]]]:
    """Yield the features that predict the rows' tokens, in chunks of (first token, features)."""
    (batch, length), prompt = ids.shape, len(prefix.prompt_ids)
    yield 0, prefix.last.expand(batch, 1, -1)
    if not length:
        return
    if prefix.layers is None:
        prompt_ids = torch.tensor([prefix.prompt_ids], device=student.device)
        whole = torch.cat([prompt_ids.expand(batch, -1), ids], dim=1)
        yield 1, student.body(input_ids=whole, use_cache=False)[0][:, prompt:]
        return
    cache = Cache(layers=[_RowLayer(layer, batch, length) for layer in prefix.layers])
    # Long rows are cut, because a mask has the size chunk x context.
    chunk = length if length <= max_batch_tokens else max(1, max_batch_tokens // 4)
    for first in range(0, length, chunk):
        part = ids[:, first : first + chunk]
        positions = torch.arange(first, first + part.shape[1], device=student.device) + prompt
        features, _ = student.body(
            input_ids=part, position_ids=positions[None], past_key_values=cache, use_cache=True
        )
        yield 1 + first, features
