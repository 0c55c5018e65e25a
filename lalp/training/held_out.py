"""Held-out responses, scored while a student trains."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import groupby
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from jaxtyping import Int
from torch import Tensor
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from trl import SFTTrainer

from lalp.scoring.candidates import score_candidates
from lalp.scoring.columns import lalp_column
from lalp.students.heads import take_logits
from lalp.students.student import Student, make_student
from lalp.training.job import Job

# Tokens of a forward pass over a sharded model, which computes logits of whole rows.
_SHARDED_BATCH_TOKENS = 2048


def score_held_out(trainer: SFTTrainer, job: Job) -> list[list[Any]]:
    """GALP, LALP and the reason for a missing one, for each held-out response, in order."""
    by_prompt = groupby(job.tasks.values(), key=lambda item: item[1].encoded.prompt_ids)
    groups = [[task for _, task in members] for _, members in by_prompt]
    was_training = trainer.model_wrapped.training
    # Processes with the whole model share the work; shards must all run together.
    sharded = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
    share = nullcontext(groups) if sharded else PartialState().split_between_processes(groups)
    # No process may run out of memory alone, so none searches for its own batch size.
    budget = _SHARDED_BATCH_TOKENS if sharded else None
    rows = []
    with _current_student(trainer, job.student.tokenizer, sharded) as student, share as own_groups:
        for tasks in own_groups:
            for scores in score_candidates(student, tasks, [job.window], max_batch_tokens=budget):
                reasons = "; ".join(f"{name}: {why}" for name, why in scores.reasons.items())
                rows.append([scores.galp, scores.lalp[lalp_column(job.window)], reasons])
    trainer.model_wrapped.train(was_training)
    return rows if sharded else gather_object(rows)


@contextmanager
def _current_student(
    trainer: SFTTrainer, tokenizer: PreTrainedTokenizerBase, sharded: bool
) -> Iterator[Student]:
    """The current model as a student for scoring, in float32 unless it is sharded."""
    names = {"name": "in training", "revision": str(trainer.state.global_step)}
    if sharded:
        model = trainer.model_wrapped.eval()

        def body(input_ids: Int[Tensor, "batch pos"], use_cache: bool) -> tuple[Tensor, None]:
            # The whole model, because parts of a sharded one cannot be called alone; no cache,
            # because it would hold inference tensors. Shards are gathered outside inference mode,
            # because training reads the same buffers again.
            with torch.inference_mode(False), torch.no_grad():
                return model(input_ids=input_ids, use_cache=False).logits, None

        yield Student(**names, model=model, tokenizer=tokenizer, body=body, head=take_logits)
        return
    model = trainer.accelerator.unwrap_model(trainer.model)
    # TRL and accelerate replace `forward` by one that may compute in half precision.
    patched = vars(model).pop("forward", None)
    try:
        # On a CPU, scoring rearranges weights; those in training stay as they are.
        twin = copy.deepcopy(model) if model.device.type == "cpu" else model
        yield make_student(twin, tokenizer, **names)
    finally:
        if patched is not None:
            model.forward = patched
