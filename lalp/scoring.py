"""Run the plan: token log-probabilities, GALP (Eq. 1-2) and LALP at every window (Eq. 3).

Every number equals that of a separate forward pass per step. The prompt's keys and values are
computed once for all rows of all candidates, and only target positions reach the head.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from lalp.packed import Context, advance, make_room, new_context, read_packed
from lalp.students import Encoded, Student, keep_freed_memory
from lalp.windows import (
    Row,
    TokenSpan,
    Window,
    batch_rows,
    plan_rows,
    spread_rows,
    window_starts,
)

# Tokens fed per forward pass; with more, a CPU gains nothing but needs more memory; with fewer, it
# reads the weights too often, and a GPU idles.
CPU_BATCH_TOKENS = 2048
GPU_BATCH_TOKENS = 16384
# Logits held at once by the head, in numbers (4 bytes each), and how many of them for one target:
# a few weights for many targets at a time, for weights are what must be read from memory.
HEAD_LOGITS = 3 << 20
HEAD_COLUMNS = 3072
# Fewer positions than this in a batch cost more than waiting for another worker.
_SMALLEST_BATCH = 512


@dataclass(frozen=True)
class Task:
    """One response to score: its tokens, the token span of each step, and the positions it has.

    Attributes:
        encoded: Prompt and response tokens.
        step_spans: Token span of each step (empty where no token begins in it).
        limit: Longest sequence, prompt included, that the student can read.
    """

    encoded: Encoded
    step_spans: tuple[TokenSpan, ...]
    limit: int

    @property
    def num_tokens(self) -> int:
        """Response tokens ``T``."""
        return len(self.encoded.response_ids)

    def fits(self, start: int, end: int) -> bool:
        """Whether prompt and response tokens ``[start, end)`` fit the student's positions."""
        return len(self.encoded.prompt_ids) + end - start <= self.limit


@dataclass(frozen=True)
class TokenScores:
    """What one row reads: arrays over response tokens ``[start, end)``, NaN where not read.

    Attributes:
        start: First response token of the row.
        log_probs: Log-probability of each token given prompt and row so far, in nats.
        ranks: 1 for the most likely token; only for the row that begins at token 0.
        entropies: Entropy of the prediction, in nats; only for the row that begins at token 0.
    """

    start: int
    log_probs: Float[np.ndarray, "pos"]
    ranks: Float[np.ndarray, "pos"]
    entropies: Float[np.ndarray, "pos"]

    def read(self, span: TokenSpan) -> Float[np.ndarray, "span"]:
        """Log-probabilities of response tokens ``[span[0], span[1])``."""
        return self.log_probs[span[0] - self.start : span[1] - self.start]


@dataclass(frozen=True)
class ResponseScores:
    """Scores of one response; NaN never stands without a reason.

    Attributes:
        galp: Mean log-probability of the response's tokens (Eq. 1), nats per token.
        lalp: Per window: mean over steps of the step's mean log-probability (Eq. 3).
        mean_rank: Mean rank of the token among the vocabulary (1 = most likely), full prefix.
        mean_rank_100: The same, ranks above 100 counted as 100 (for the rank-surprisal ratio).
        mean_entropy: Mean entropy of the predictions, in nats, full prefix.
        reasons: Why a score is NaN, by the score's name.
        token_log_probs: Per-token log-probabilities by ``galp`` and window name.
    """

    num_tokens: int
    num_steps: int
    galp: float
    lalp: dict[str, float]
    mean_rank: float
    mean_rank_100: float
    mean_entropy: float
    reasons: dict[str, str] = field(default_factory=dict)
    token_log_probs: dict[str, Float[np.ndarray, "pos"]] = field(default_factory=dict)


def average_log_prob(log_probs: Float[np.ndarray, "pos"]) -> float:
    """GALP: ``(1/T) sum_t log p(y_t | x, y_<t)`` (Eq. 1-2), in nats per token."""
    return float(np.mean(log_probs, dtype=np.float64))


def local_average_log_prob(steps: Sequence[Float[np.ndarray, "pos"]]) -> float:
    """LALP: mean over steps of the mean over the step's tokens (Eq. 3), in nats per token.

    Args:
        steps: Each step's token log-probabilities under its own window.
    """
    return float(np.mean([average_log_prob(step) for step in steps]))


def score_candidates(
    student: Student,
    tasks: Sequence[Task],
    windows: Sequence[Window],
    *,
    galp: bool = True,
    max_batch_tokens: int | None = None,
    on_tokens: Callable[[int], None] = lambda tokens: None,
) -> list[ResponseScores]:
    """Score the candidate responses of one prompt under GALP and every window.

    Args:
        student: The model before fine-tuning.
        tasks: Responses that share their prompt's tokens.
        windows: Windows for LALP.
        galp: Also score the whole response, with rank and entropy.
        max_batch_tokens: Tokens per forward pass; halved by itself when memory runs out.
        on_tokens: Called with the number of tokens fed, for progress.

    Returns:
        Scores in the order of ``tasks``.
    """
    on_cpu = student.device.type == "cpu"
    if on_cpu:
        keep_freed_memory()
    if max_batch_tokens is None:
        max_batch_tokens = CPU_BATCH_TOKENS if on_cpu else GPU_BATCH_TOKENS
    plans = [plan_response(task, windows, galp=galp) for task in tasks]
    jobs = [
        (task.encoded.response_ids, row)
        for task, rows in zip(tasks, plans, strict=True)
        for row in rows
    ]
    prompt_ids = tasks[0].encoded.prompt_ids
    read = iter(
        run_rows(student, prompt_ids, jobs, max_batch_tokens, statistics=galp, on_tokens=on_tokens)
    )
    results = []
    for task, rows in zip(tasks, plans, strict=True):
        by_start = {row.start: next(read) for row in rows}
        results.append(_assemble(task, windows, by_start, galp=galp))
    return results


@torch.inference_mode()
def score_per_step(student: Student, task: Task, window: Window) -> float:
    """LALP as the paper describes it, one forward pass per step (Sec. 6): slow, for comparison."""
    ids, steps = task.encoded.response_ids, []
    starts = window_starts(window, task.step_spans)
    for start, (begin, end) in zip(starts, task.step_spans, strict=True):
        tokens = torch.tensor([[*task.encoded.prompt_ids, *ids[start:end]]], device=student.device)
        log_probs = student.model(input_ids=tokens).logits[0, :-1].float().log_softmax(-1)
        token_log_probs = log_probs.gather(1, tokens[0, 1:, None])[:, 0]
        steps.append(token_log_probs[begin - end :].cpu().numpy())
    return local_average_log_prob(steps)


def plan_response(task: Task, windows: Sequence[Window], *, galp: bool = True) -> list[Row]:
    """Rows that score one response under GALP and every window; what cannot fit is not planned."""
    contexts = [(0, (0, task.num_tokens))] if galp else []
    for window in windows:
        contexts += zip(window_starts(window, task.step_spans), task.step_spans, strict=True)
    return plan_rows(
        [
            (start, span)
            for start, span in contexts
            if span[0] < span[1] and task.fits(start, span[1])
        ]
    )


def _assemble(
    task: Task, windows: Sequence[Window], by_start: dict[int, TokenScores], *, galp: bool
) -> ResponseScores:
    """Average what the rows read into the scores of one response."""
    reasons = _reasons(task, windows)
    if not galp:
        reasons["galp"] = "not asked for"
    everything = (0, task.num_tokens)
    tokens: dict[str, Float[np.ndarray, "pos"]] = {}
    lalp = {}
    for window in windows:
        starts = window_starts(window, task.step_spans)
        steps = [
            by_start[start].read(span)
            if span[0] < span[1] and task.fits(start, span[1])
            else np.full(span[1] - span[0], np.nan, np.float32)
            for start, span in zip(starts, task.step_spans, strict=True)
        ]
        name = f"lalp@{window}"
        tokens[name] = np.concatenate([*steps, np.empty(0, np.float32)])
        known = name not in reasons
        lalp[name] = _finite(local_average_log_prob(steps), name, reasons) if known else math.nan
    scored = "galp" not in reasons
    whole = by_start[0] if scored else None
    tokens["galp"] = (
        whole.read(everything) if whole else np.full(task.num_tokens, np.nan, np.float32)
    )
    return ResponseScores(
        num_tokens=task.num_tokens,
        num_steps=len(task.step_spans),
        galp=_finite(average_log_prob(tokens["galp"]), "galp", reasons) if scored else math.nan,
        lalp=lalp,
        mean_rank=average_log_prob(whole.ranks) if whole else math.nan,
        mean_rank_100=average_log_prob(whole.ranks.clip(max=100)) if whole else math.nan,
        mean_entropy=average_log_prob(whole.entropies) if whole else math.nan,
        reasons=reasons,
        token_log_probs=tokens,
    )


def _finite(score: float, name: str, reasons: dict[str, str]) -> float:
    """The score, or NaN with a reason: never an infinite number."""
    if math.isfinite(score):
        return score
    reasons[name] = "a token has probability 0 under the student"
    return math.nan


def _reasons(task: Task, windows: Sequence[Window]) -> dict[str, str]:
    """Why scores of this response are NaN, by score."""
    prompt = len(task.encoded.prompt_ids)
    if not task.num_tokens:
        names = ["galp", *(f"lalp@{window}" for window in windows)]
        return dict.fromkeys(names, "the response has no tokens")
    reasons = {}
    if not task.fits(0, task.num_tokens):
        reasons["galp"] = (
            f"{prompt + task.num_tokens} tokens exceed the student's {task.limit} positions"
        )
    for window in windows:
        starts = window_starts(window, task.step_spans)
        for k, (start, (begin, end)) in enumerate(zip(starts, task.step_spans, strict=True), 1):
            if begin == end:
                reasons[f"lalp@{window}"] = f"step {k} has no tokens of its own"
            elif not task.fits(start, end):
                reasons[f"lalp@{window}"] = (
                    f"step {k} needs {prompt + end - start} tokens, "
                    f"the student has {task.limit} positions"
                )
            else:
                continue
            break
    return reasons


# --- forward passes -------------------------------------------------------------------------


class _RowLayer(DynamicLayer):
    """One layer's keys and values: the shared prompt, then room for one batch of rows.

    The buffer has its final size from the start: growing by concatenation, as the base class does,
    would hold long responses twice.
    """

    def __init__(self, prompt: DynamicLayer, batch: int, capacity: int) -> None:
        super().__init__()
        self.lazy_initialization(prompt.keys, prompt.values)
        self._length = prompt.keys.shape[-2]
        self._buffers = [
            _with_room(states, batch, capacity) for states in (prompt.keys, prompt.values)
        ]
        self.keys, self.values = (buffer[:, :, : self._length] for buffer in self._buffers)

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        end = self._length + key_states.shape[-2]
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, self._length : end] = states
        self._length = end
        self.keys, self.values = (buffer[:, :, :end] for buffer in self._buffers)
        return self.keys, self.values


def _with_room(
    states: Float[Tensor, "1 heads prompt head_dim"], batch: int, capacity: int
) -> Float[Tensor, "batch heads capacity head_dim"]:
    _, heads, length, head_dim = states.shape
    buffer = states.new_empty(batch, heads, length + capacity, head_dim)
    buffer[:, :, :length] = states
    return buffer


@dataclass(frozen=True)
class _Prefix:
    """The prompt, read once.

    Attributes:
        prompt_ids: The prompt's tokens.
        last: Features of the last prompt token, which predict a row's first token.
        layers: Keys and values per layer, or None where they cannot be shared between rows.
        context: The same for packed rows, where the student has a packed body.
    """

    prompt_ids: tuple[int, ...]
    last: Float[Tensor, "features"]
    layers: list[DynamicLayer] | None = None
    context: Context | None = None


# Places of targets: for each, its row in the batch and its position within the row.
_Places = tuple[Int[np.ndarray, "targets"], Int[np.ndarray, "targets"]]


@torch.inference_mode()
def run_rows(
    student: Student,
    prompt_ids: tuple[int, ...],
    jobs: Sequence[tuple[Sequence[int], Row]],
    max_batch_tokens: int,
    *,
    statistics: bool = True,
    on_tokens: Callable[[int], None] = lambda tokens: None,
) -> list[TokenScores]:
    """Token scores of rows that share one prompt, in the order of ``jobs``.

    Args:
        student: The model before fine-tuning.
        prompt_ids: The prompt's tokens, at least one.
        jobs: Pairs of a response's tokens and a row over them.
        max_batch_tokens: Padded tokens per forward pass.
        statistics: Also read rank and entropy in rows that begin at token 0.
        on_tokens: Called with the number of tokens fed.
    """
    if not jobs:
        return []  # the prompt alone may exceed the student's positions
    prefix = _read_prompt(student, prompt_ids)
    on_tokens(len(prompt_ids))
    shared = prefix.layers or prefix.context
    repeated = 0 if shared else len(prompt_ids)
    workers = torch.get_num_threads() if student.device.type == "cpu" else 1
    rows = [row for _, row in jobs]
    long, batches = _plan_batches(prefix, rows, max_batch_tokens, workers)

    @torch.inference_mode()
    def read(batch: list[int]) -> list[TokenScores]:
        members = [jobs[job] for job in batch]
        return _read_batch(student, prefix, members, max_batch_tokens, statistics)

    results: list[TokenScores | None] = [None] * len(jobs)
    # Long rows come first, one after another, for each fills the memory by itself.
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
    """Batches of long rows, one in each, and the others, which can be read side by side."""
    if prefix.context:
        lengths, budget = [row.num_inputs for row in rows], max_batch_tokens
        batches = spread_rows(lengths, budget, workers)
    else:
        # Every row holds the prompt's keys and values as well, so short rows are not free.
        lengths, budget = (
            [len(prefix.prompt_ids) + r.num_inputs for r in rows],
            2 * max_batch_tokens,
        )
        # Four batches per worker at least, or one would wait long for the other at the end.
        fair_share = max(_SMALLEST_BATCH, math.ceil(sum(lengths) / (4 * workers)))
        batches = batch_rows(lengths, min(budget, fair_share))
    is_long = [max(lengths[row] for row in batch) > 2 * max_batch_tokens for batch in batches]
    return (
        [batch for batch, long in zip(batches, is_long, strict=True) if long],
        [batch for batch, long in zip(batches, is_long, strict=True) if not long],
    )


@contextmanager
def _parallel(workers: int) -> Iterator[Callable[..., Iterator[Any]]]:
    """A ``map`` over worker threads that share the cores.

    On a CPU, forward passes side by side are faster than one pass spread over all cores: small
    operations gain little from several threads, and none waits for another. Each result depends on
    its own batch only, whichever thread computes it.
    """
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


def _read_prompt(student: Student, prompt_ids: tuple[int, ...]) -> _Prefix:
    ids = torch.tensor(prompt_ids, device=student.device)
    if student.packed:
        context = new_context(student.packed, len(ids))
        last = read_packed(student.packed, [ids], context, [torch.tensor([len(ids) - 1])])[0]
        context = advance(context, len(ids))
        return _Prefix(prompt_ids, last, context=context)
    features, cache = student.body(input_ids=ids[None], use_cache=True)
    layers = getattr(cache, "layers", None)
    # Only a plain, ever-growing layer can be continued by many rows from the same point: sliding
    # windows drop keys and recurrent states are overwritten.
    shareable = bool(layers) and all(type(layer) is DynamicLayer for layer in layers)
    return _Prefix(prompt_ids, features[0, -1], layers if shareable else None)


def _read_batch(
    student: Student,
    prefix: _Prefix,
    jobs: Sequence[tuple[Sequence[int], Row]],
    max_batch_tokens: int,
    statistics: bool,
) -> list[TokenScores]:
    """Read one batch; when memory runs out, read its halves."""
    try:
        return _collect(student, prefix, jobs, max_batch_tokens, statistics)
    except RuntimeError as error:
        if not _is_out_of_memory(error) or (len(jobs) == 1 and max_batch_tokens < 128):
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


def _is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _collect(
    student: Student,
    prefix: _Prefix,
    jobs: Sequence[tuple[Sequence[int], Row]],
    max_batch_tokens: int,
    statistics: bool,
) -> list[TokenScores]:
    """Feed a batch of rows and gather its targets."""
    scores = [_empty_scores(row) for _, row in jobs]
    feed = (
        _feed_packed(student, prefix, jobs)
        if prefix.context
        else _feed_padded(student, prefix, jobs, max_batch_tokens)
    )
    for (rows, columns), features in feed:
        if not len(rows):
            continue
        ids = [jobs[i][0][jobs[i][1].start + t] for i, t in zip(rows, columns, strict=True)]
        whole = [statistics and jobs[i][1].start == 0 for i in rows]
        values = read_targets(
            student.head,
            features,
            torch.tensor(ids, device=student.device),
            torch.tensor(whole, device=student.device),
        )
        for i in np.unique(rows):
            for array, column in zip(
                (scores[i].log_probs, scores[i].ranks, scores[i].entropies), values, strict=True
            ):
                array[columns[rows == i]] = column[rows == i]
    return scores


def _empty_scores(row: Row) -> TokenScores:
    arrays = [np.full(row.end - row.start, np.nan, np.float32) for _ in range(3)]
    return TokenScores(row.start, *arrays)


def _target_places(jobs: Sequence[tuple[Sequence[int], Row]]) -> _Places:
    """Every target of a batch, row by row."""
    columns = [
        np.concatenate(
            [np.arange(start - row.start, end - row.start) for start, end in row.targets]
        )
        for _, row in jobs
    ]
    sizes = [len(places) for places in columns]
    return np.repeat(np.arange(len(jobs)), sizes), np.concatenate(columns)


def _feed_packed(
    student: Student, prefix: _Prefix, jobs: Sequence[tuple[Sequence[int], Row]]
) -> Iterator[tuple[_Places, Float[Tensor, "targets features"]]]:
    """Targets and the features that predict them, of rows fed end to end."""
    rows, columns = _target_places(jobs)
    context = make_room(prefix.context, max(row.num_inputs for _, row in jobs))
    ids = [torch.tensor(tokens[row.start : row.end - 1], dtype=torch.long) for tokens, row in jobs]
    # Token t of a row is predicted at its input t - 1, token 0 at the prompt's last token.
    within = columns > 0
    wanted = [torch.from_numpy(columns[within & (rows == i)] - 1) for i in range(len(jobs))]
    features = prefix.last.repeat(len(rows), 1)
    features[torch.from_numpy(within)] = read_packed(student.packed, ids, context, wanted)
    yield (rows, columns), features


def _chunk_size(length: int, max_batch_tokens: int) -> int:
    """Tokens of one row to feed at once: its mask is chunk x context, so long rows are cut up."""
    return length if length <= max_batch_tokens else max(1, max_batch_tokens // 4)


def _feed_padded(
    student: Student,
    prefix: _Prefix,
    jobs: Sequence[tuple[Sequence[int], Row]],
    max_batch_tokens: int,
) -> Iterator[tuple[_Places, Float[Tensor, "targets features"]]]:
    """Targets and the features that predict them, of rows side by side.

    Rows are padded on the right: a causal model never looks there, so no mask is needed.
    """
    rows, columns = _target_places(jobs)
    for first, features in _read_padded(student, prefix, jobs, max_batch_tokens):
        # Position i of the features predicts token i of the row.
        here = (columns >= first) & (columns < first + features.shape[1])
        places = torch.from_numpy(rows[here]), torch.from_numpy(columns[here] - first)
        yield (rows[here], columns[here]), features[places]


def _read_padded(
    student: Student,
    prefix: _Prefix,
    jobs: Sequence[tuple[Sequence[int], Row]],
    max_batch_tokens: int,
) -> Iterator[tuple[int, Float[Tensor, "batch pos features"]]]:
    """Features that predict the rows' tokens, in chunks of (first token, features)."""
    length = max(row.num_inputs for _, row in jobs)
    ids = torch.zeros(len(jobs), length, dtype=torch.long)
    for i, (tokens, row) in enumerate(jobs):
        ids[i, : row.num_inputs] = torch.tensor(tokens[row.start : row.end - 1])
    ids = ids.to(student.device)
    prompt = len(prefix.prompt_ids)
    yield 0, prefix.last.expand(len(jobs), 1, -1)
    if not length:
        return
    if prefix.layers is None:
        prompt_ids = torch.tensor([prefix.prompt_ids], device=student.device)
        whole = torch.cat([prompt_ids.expand(len(jobs), -1), ids], dim=1)
        yield 1, student.body(input_ids=whole, use_cache=False)[0][:, prompt:]
        return
    cache = Cache(layers=[_RowLayer(layer, len(jobs), length) for layer in prefix.layers])
    chunk = _chunk_size(length, max_batch_tokens)
    for first in range(0, length, chunk):
        part = ids[:, first : first + chunk]
        positions = torch.arange(first, first + part.shape[1], device=student.device) + prompt
        features, _ = student.body(
            input_ids=part, position_ids=positions[None], past_key_values=cache, use_cache=True
        )
        yield 1 + first, features


def read_targets(
    head: Callable[..., Tensor],
    features: Float[Tensor, "targets features"],
    token_ids: Int[Tensor, "targets"],
    with_statistics: Bool[Tensor, "targets"],
) -> tuple[
    Float[np.ndarray, "targets"], Float[np.ndarray, "targets"], Float[np.ndarray, "targets"]
]:
    """Log-probability, rank and entropy of target tokens, from bounded parts of their logits.

    Args:
        head: Features and columns of the vocabulary to logits (`Student.head`).
        features: Features at the position before each target.
        token_ids: The targets.
        with_statistics: Where rank and entropy are wanted (NaN elsewhere).

    Returns:
        Log-probabilities (nats), ranks (from 1) and entropies (nats).
    """
    vocab = head(features[:1]).shape[-1]
    size = max(1, HEAD_LOGITS // min(vocab, HEAD_COLUMNS))
    out = torch.full((3, len(token_ids)), math.nan, device=features.device)
    for statistics in with_statistics.unique().tolist():
        for part in (with_statistics == statistics).nonzero()[:, 0].split(size):
            values = _read_vocabulary(head, vocab, features[part], token_ids[part], statistics)
            out[: len(values), part] = torch.stack(values)
    return tuple(out.cpu().numpy())


def _read_vocabulary(
    head: Callable[..., Tensor],
    vocab: int,
    features: Float[Tensor, "targets features"],
    token_ids: Int[Tensor, "targets"],
    statistics: bool,
) -> list[Float[Tensor, "targets"]]:
    """Log-probabilities, and ranks and entropies if asked for, from a few columns at a time."""
    columns, places = token_ids.unique(return_inverse=True)
    chosen = head(features, columns).gather(1, places[:, None])
    firsts = range(0, vocab, HEAD_COLUMNS)
    # All at once: small tensors would take the places of freed logits, which then fit no more.
    sums = chosen.new_empty(len(firsts), 4 if statistics else 2, len(chosen))
    for first, block in zip(firsts, sums, strict=True):
        logits = head(features, slice(first, first + HEAD_COLUMNS))
        # The same number as in ``chosen``, which another product may round otherwise.
        here = ((token_ids >= first) & (token_ids < first + HEAD_COLUMNS)).nonzero()[:, 0]
        logits[here, token_ids[here] - first] = chosen[here, 0]
        _read_block(logits, chosen, block)
    peaks, norms, *more = sums.unbind(1)
    log_norm = (peaks + norms.log()).logsumexp(0)
    log_probs = chosen[:, 0] - log_norm
    if not statistics:
        return [log_probs]
    above, moments = more
    shifts = peaks - log_norm
    return [log_probs, 1 + above.sum(0), -(shifts.exp() * (moments + shifts * norms)).sum(0)]


def _read_block(
    logits: Float[Tensor, "targets columns"],
    chosen: Float[Tensor, "targets 1"],
    out: Float[Tensor, "sums targets"],
) -> None:
    """Write each target's peak and its sum of ``w = exp(logit - peak)``; overwrites the logits.

    With room for four also the number of logits above the chosen one, and the sum of ``w log w``.
    """
    peaks, norms, *more = out
    # An impossible token (-inf) adds 0 to the entropy, and so does a block of such.
    torch.amax(logits, 1, out=peaks).clamp_(min=-1e30)
    if not more:
        torch.sum(logits.sub_(peaks[:, None]).exp_(), 1, out=norms)
        return
    above, moments = more
    above.copy_((logits > chosen).sum(1))
    weights = logits.sub_(peaks[:, None]).exp()
    torch.sum(weights, 1, out=norms)
    torch.sum(weights.mul_(logits.clamp_(min=-1e30)), 1, out=moments)
