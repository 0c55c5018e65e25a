"""Score the responses to one prompt."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from lalp.scoring.engine.forward import TokenScores, run_rows
from lalp.scoring.equations import average_log_prob, local_average_log_prob
from lalp.scoring.plan import Task, plan_response
from lalp.scoring.windows import Window, window_starts
from lalp.students.student import Student, keep_freed_memory

# Tokens fed per forward pass; with more, a CPU gains nothing but needs more memory; with fewer, it
# reads the weights too often, and a GPU idles.
CPU_BATCH_TOKENS = 2048
GPU_BATCH_TOKENS = 16384


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
