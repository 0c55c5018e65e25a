"""The paper's equations; `lalp.scoring.engine` computes them fast.

``x`` is the prompt, ``y_1 .. y_T`` are the response's tokens, ``s_1 .. s_K`` its steps (consecutive
runs of tokens), ``p`` is the student. Logarithms are natural. Every score is in nats per token and
at most 0. The higher it is, the more natural the response is to the student.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import torch
from jaxtyping import Float

from lalp.scoring.groups import Task
from lalp.scoring.windows import TokenSpan, Window
from lalp.students.student import Student


def average_log_prob(log_probs: Float[np.ndarray, "tokens"]) -> float:
    """GALP (Eq. 1): ``(1/T) sum_t log p(y_t | x, y_<t)``, in nats per token.

    Example:
        >>> average_log_prob(np.array([-1.0, -3.0]))
        -2.0
    """
    return float(np.mean(log_probs, dtype=np.float64))


def choose(scores: Float[np.ndarray, "candidates"]) -> int:
    """The chosen candidate (Eq. 2): ``argmax_i score(y^i | x)``, the first of equal ones.

    `lalp.select` does this for each prompt of a table, and lets a user choose how to break ties.

    Raises:
        ValueError: If a score is missing (NaN).

    Example:
        >>> choose(np.array([-0.9, -0.2, -0.2]))
        1
        >>> choose(np.array([-0.9, np.nan]))
        Traceback (most recent call last):
        ValueError: a candidate has no score: leave it out or score it
    """
    if np.isnan(scores).any():
        raise ValueError("a candidate has no score: leave it out or score it")
    return int(np.argmax(scores))


def local_average_log_prob(steps: Sequence[Float[np.ndarray, "tokens"]]) -> float:
    """LALP (Eq. 3): ``(1/K) sum_k (1/|s_k|) sum_j log p(s_kj | x, window of s_k, s_k,<j)``.

    Every step has the same weight, however long it is. The score is in nats per token.

    Args:
        steps: Log-probabilities of each step's tokens, read after the step's own window.

    Example:
        >>> local_average_log_prob([np.array([-1.0]), np.array([-2.0, -4.0])])
        -2.0
    """
    return float(np.mean([average_log_prob(step) for step in steps]))


def window_starts(window: Window, step_spans: Sequence[TokenSpan]) -> list[int]:
    """First response token that each step sees: where ``s_max(1, k-w)`` of Eq. 3 begins.

    Example:
        >>> window_starts(Window("steps", Fraction(1)), [(0, 3), (3, 5), (5, 9)])
        [0, 0, 3]
    """
    if window.kind == "tokens":
        return [max(0, start - int(window.size)) for start, _ in step_spans]
    return [step_spans[k - _steps_before(window, k)][0] for k in range(len(step_spans))]


def _steps_before(window: Window, preceding: int) -> int:
    """Number of earlier steps that a step sees if ``preceding`` steps come before it."""
    if window.kind == "steps":
        return min(int(window.size), preceding)
    # Fractions are exact, so ceil(7 % of 100 steps) is 7 and not 8 as with floats.
    share = Fraction(1) if window.kind == "all" else window.size
    return math.ceil(share * preceding)


def self_conditioning_gap(
    global_log_probs: Float[np.ndarray, "tokens"], local_log_probs: Float[np.ndarray, "tokens"]
) -> Float[np.ndarray, "tokens"]:
    """Gap (Eq. 4): ``log p(y_t | x, y_<t) - log p(y_t | x, window)`` of each token, in nats.

    It is above 0 if text before the window makes the token likelier, and NaN if a log-probability
    is missing.

    Example:
        >>> self_conditioning_gap(np.array([-1.0, -0.5]), np.array([-1.0, -2.0]))
        array([0. , 1.5])
    """
    return global_log_probs - local_log_probs


@torch.inference_mode()
def score_per_step(student: Student, task: Task, window: Window) -> float:
    """LALP (Eq. 3) as in Sec. 6, with one forward pass per step; slow, only for comparison."""
    ids, steps = task.encoded.response_ids, []
    starts = window_starts(window, task.step_spans)
    for start, (begin, end) in zip(starts, task.step_spans, strict=True):
        tokens = torch.tensor([[*task.encoded.prompt_ids, *ids[start:end]]], device=student.device)
        log_probs = student.model(input_ids=tokens).logits[0, :-1].float().log_softmax(-1)
        token_log_probs = log_probs.gather(1, tokens[0, 1:, None])[:, 0]
        steps.append(token_log_probs[begin - end :].cpu().numpy()[task.is_own[begin:end]])
    return local_average_log_prob(steps)
