"""Score responses; those that follow the same prompt tokens are scored together."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from lalp.scoring.columns import GALP
from lalp.scoring.engine.forward import run_jobs
from lalp.scoring.engine.packing import Job
from lalp.scoring.engine.rows import TokenScores
from lalp.scoring.engine.sequences import find_packing
from lalp.scoring.equations import local_average_log_prob
from lalp.scoring.groups import Task
from lalp.scoring.plan import ResponsePlan, plan_response
from lalp.scoring.windows import Window
from lalp.students.rotary import Frequencies
from lalp.students.student import Student, keep_freed_memory

# Tokens fed per forward pass. With more, a CPU gains nothing and needs more memory. With fewer, a
# CPU reads the weights too often, and a GPU idles.
CPU_BATCH_TOKENS = 2048
GPU_BATCH_TOKENS = 16384

# Why a score is NaN though all its tokens were read.
_NOT_FINITE = "the student's predictions are not finite (NaN or infinite logits)"
_IMPOSSIBLE = "a token has probability 0 under the student"

# The key of a row: its first response token, and the rotary frequencies for its length.
_RowName = tuple[int, tuple[int, ...]]


@dataclass(frozen=True)
class ResponseScores:
    """Scores of one response in nats per token, by column; every NaN has a reason."""

    num_tokens: int
    num_steps: int
    galp: float  # Eq. 1
    lalp: dict[str, float]  # Eq. 3
    mean_rank: float  # of the tokens among the vocabulary (1 = most likely), full prefix
    mean_rank_100: float  # ranks above 100 counted as 100 (for the rank-surprisal ratio)
    mean_entropy: float  # of the predictions, in nats, full prefix
    reasons: dict[str, str] = field(default_factory=dict)  # why a score is NaN
    token_log_probs: dict[str, Float[np.ndarray, "tokens"]] = field(default_factory=dict)


def score_candidates(
    student: Student,
    tasks: Sequence[Task],
    windows: Sequence[Window],
    *,
    galp: bool = True,
    max_batch_tokens: int | None = None,
    on_tokens: Callable[[int], object] = lambda tokens: None,
) -> list[ResponseScores]:
    """Score responses under GALP and every window; a shared prompt is read once.

    Args:
        student: The model before fine-tuning.
        tasks: The responses; the scores have the same order.
        windows: Windows for LALP.
        galp: Also score the whole response, with rank and entropy.
        max_batch_tokens: Tokens per forward pass; halved automatically when memory runs out.
        on_tokens: Called with the number of tokens fed, for progress.
    """
    if student.device.type == "cpu":
        keep_freed_memory()
    frequencies = student.frequencies
    limits = {"frequencies": frequencies, "vocabulary": student.vocabulary}
    plans = [plan_response(task, windows, galp=galp, **limits) for task in tasks]
    # A prompt's tokens may differ: a tokenizer can merge its end with the start of a response.
    prompts: dict[tuple[int, ...], int] = {}
    numbers = [prompts.setdefault(task.encoded.prompt_ids, len(prompts)) for task in tasks]
    jobs = [
        Job(number, task.encoded.response_ids, row)
        for number, task, plan in zip(numbers, tasks, plans, strict=True)
        for row in plan.rows
    ]
    size = max_batch_tokens or batch_tokens(student)
    read = iter(run_jobs(student, list(prompts), jobs, size, statistics=galp, on_tokens=on_tokens))
    results = []
    for task, plan in zip(tasks, plans, strict=True):
        before = len(task.encoded.prompt_ids)
        rows = {
            (row.start, frequencies.of(before + row.num_tokens)): next(read) for row in plan.rows
        }
        results.append(_assemble(task, plan, rows, frequencies))
    return results


def batch_tokens(student: Student) -> int:
    """The default number of tokens fed per forward pass."""
    if student.device.type == "cpu":
        return CPU_BATCH_TOKENS
    packing = find_packing(student)
    return packing.max_tokens if packing else GPU_BATCH_TOKENS


def _assemble(
    task: Task, plan: ResponsePlan, rows: dict[_RowName, TokenScores], frequencies: Frequencies
) -> ResponseScores:
    """Average the values that the rows read into the scores of one response."""

    def read(start: int, end: int) -> TokenScores:
        return rows[start, frequencies.of(len(task.encoded.prompt_ids) + end - start)]

    reasons = dict(plan.reasons)
    scores, tokens = {GALP: math.nan}, {}
    for column, contexts in plan.contexts.items():
        steps = [
            read(start, end)[0, begin - start : end - start][task.is_own[begin:end]]
            if plan.rows and task.is_readable(start, (begin, end))
            else np.full(task.is_own[begin:end].sum(), np.nan, np.float32)
            for start, (begin, end) in contexts
        ]
        tokens[column] = np.concatenate([*steps, np.empty(0, np.float32)])
        scores[column] = math.nan if column in reasons else local_average_log_prob(steps)
        if column not in reasons and not math.isfinite(scores[column]):
            reasons[column] = _NOT_FINITE if math.isnan(scores[column]) else _IMPOSSIBLE
            scores[column] = math.nan
    if GALP not in plan.contexts:
        reasons[GALP] = "not asked for"
    statistics = [math.nan] * 3
    if GALP in plan.contexts and GALP not in plan.reasons:
        begin, end = plan.contexts[GALP][0][1]
        _, ranks, entropies = read(0, end)[:, begin:end][:, task.is_own[begin:end]]
        values = (ranks, ranks.clip(max=100), entropies)
        statistics = [float(np.mean(array, dtype=np.float64)) for array in values]
    counts = task.num_scored, len(task.step_spans)
    return ResponseScores(*counts, scores.pop(GALP), scores, *statistics, reasons, tokens)
