"""Held-out responses, scored while a student trains."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from trl import SFTTrainer

from lalp.scoring.candidates import score_candidates
from lalp.scoring.columns import lalp_column
from lalp.scoring.groups import Task
from lalp.scoring.windows import Window
from lalp.students.heads import take_logits
from lalp.students.student import Student, make_student
from lalp.training.folder import is_main_process
from lalp.training.job import Job

log = logging.getLogger("lalp")


# Tokens of a forward pass over a sharded model, whose logits are those of whole rows.
_SHARDED_BATCH_TOKENS = 2048


def score_held_out(trainer: SFTTrainer, job: Job) -> list[list[Any]]:
    """GALP, LALP and the reason why one is missing, of each held-out response, in order."""
    by_prompt = groupby(job.tasks.values(), key=lambda item: item[1].encoded.prompt_ids)
    groups = [[task for _, task in members] for _, members in by_prompt]
    accelerator, was_training = trainer.accelerator, trainer.model_wrapped.training
    # Processes that each hold the whole model share the work; shards must all run together.
    sharded = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
    first, every = (0, 1) if sharded else (accelerator.process_index, accelerator.num_processes)
    # No process may run out of memory alone, so none finds its own batch size.
    budget = _SHARDED_BATCH_TOKENS if sharded else None
    with _current_student(trainer, job.tokenizer, sharded) as student:
        rows = [
            (first + every * n, _score_group(student, group, job.window, budget))
            for n, group in enumerate(groups[first::every])
        ]
    trainer.model_wrapped.train(was_training)
    if every > 1:
        rows = sorted(gather_object(rows))
    return [row for _, group in rows for row in group]


def _score_group(
    student: Student, tasks: Sequence[Task], window: Window, max_batch_tokens: int | None
) -> list[list[Any]]:
    return [
        [
            scores.galp,
            scores.lalp[lalp_column(window)],
            "; ".join(f"{name}: {why}" for name, why in scores.reasons.items()),
        ]
        for scores in score_candidates(student, tasks, [window], max_batch_tokens=max_batch_tokens)
    ]


def say_unscored(scores: Sequence[Sequence[Any]]) -> None:
    """Warn of responses without a score; ``scores`` are `score_held_out`'s."""
    reasons = [reason for _, _, reason in scores if reason]
    if reasons and is_main_process():
        log.warning(
            "%d of %d held-out responses lack a score and are left out of its mean: %s",
            *(len(reasons), len(scores), reasons[0]),
        )


@contextmanager
def _current_student(
    trainer: SFTTrainer, tokenizer: PreTrainedTokenizerBase, sharded: bool
) -> Iterator[Student]:
    """The model as it is now, as a student to score, in float32 unless it is sharded."""
    names = {"name": "in training", "revision": str(trainer.state.global_step)}
    if sharded:
        model = trainer.model_wrapped.eval()
        whole = {"body": _whole(model), "head": take_logits}
        yield Student(**names, model=model, tokenizer=tokenizer, **whole)
        return
    model = trainer.accelerator.unwrap_model(trainer.model)
    # TRL and accelerate replace `forward`, by one that may compute in half precision.
    patched = vars(model).pop("forward", None)
    try:
        # On a CPU, scoring lays the weights out anew: those in training stay as they are.
        twin = copy.deepcopy(model) if model.device.type == "cpu" else model
        yield make_student(twin, tokenizer, **names)
    finally:
        if patched is not None:
            model.forward = patched


def _whole(model: torch.nn.Module) -> Callable[..., tuple[Tensor, Any]]:
    """The whole model as a student's body: the parts of a sharded one cannot be called alone.

    There is no cache, which would hold inference tensors. Shards are gathered outside inference
    mode, because training reads the same buffers again.
    """

    def logits(input_ids: Tensor, use_cache: bool) -> tuple[Tensor, None]:
        with torch.inference_mode(False), torch.no_grad():
            return model(input_ids=input_ids, use_cache=False).logits, None

    return logits
