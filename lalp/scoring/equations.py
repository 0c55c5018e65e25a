"""The paper's scores: GALP (Eq. 1), LALP (Eq. 2 and 3), and the loop over steps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from lalp.scoring.plan import Task
from lalp.scoring.windows import Window, window_starts
from lalp.students.student import Student


def average_log_prob(log_probs: Float[np.ndarray, "pos"]) -> float:
    """GALP: ``(1/T) sum_t log p(y_t | x, y_<t)`` (Eq. 1-2), in nats per token."""
    return float(np.mean(log_probs, dtype=np.float64))


def local_average_log_prob(steps: Sequence[Float[np.ndarray, "pos"]]) -> float:
    """LALP: mean over steps of the mean over the step's tokens (Eq. 3), in nats per token.

    Args:
        steps: Each step's token log-probabilities under its own window.
    """
    return float(np.mean([average_log_prob(step) for step in steps]))


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
