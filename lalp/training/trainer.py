"""Supervised fine-tuning of a student on selected responses (paper, Sec. 7.4, B.4, Fig. 6).

TRL's `SFTTrainer` on accelerate does the work, so one command serves one CPU and a cluster. This
project adds four things. The tokens in the loss are those that LALP scores, plus the end of the
turn. The order of examples is fixed beforehand. The project's own scoring measures held-out
likelihoods. A killed run continues from its last sound checkpoint to the same weights, bit for bit.
"""

from __future__ import annotations

import copy
import inspect
import math
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from datasets import Dataset
from torch import Tensor
from tqdm import tqdm
from transformers import PrinterCallback, Trainer, TrainerCallback, enable_full_determinism
from trl import SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from lalp.errors import InputError
from lalp.files import write_json, writing
from lalp.stats import check_count
from lalp.students.student import load_model, vocabulary_size
from lalp.training.examples import IGNORED, HeldOut, TrainingData, order_examples
from lalp.training.folder import RUN_FILE, open_folder, seal_checkpoint, unfinished, warn
from lalp.training.held_out import score_held_out
from lalp.training.job import Job, plan_job, sequence_processes, trainer_config
from lalp.training.log import load_log, write_tables
from lalp.training.recipes import Recipe

# Each needs a pass over the held-out responses.
_MOST_EVALUATIONS = 10_000
# Without `save_steps`, a checkpoint is written whenever this many seconds of work could be lost.
SECONDS_PER_CHECKPOINT = 600
# Largest change of a logit by another packed example, in standard deviations of the logits.
_SEPARATE = 1e-4


def train(
    data: TrainingData,
    student: str,
    out: str | os.PathLike,
    recipe: Recipe,
    *,
    seed: int = 0,
    held_out: HeldOut | None = None,
    evaluations: int = 4,
    save_steps: int | None = None,
    device: str | None = None,
    trust_remote_code: bool = False,
    progress: bool = True,
) -> pd.DataFrame:
    """Fine-tune a student; a killed run continues, a finished one is read.

    The loss is the mean over the completion tokens of an optimizer step, over all its devices. Work
    in progress is in ``OUT.partial``; ``out`` appears when it is complete, with weights, tokenizer,
    ``training_log.csv``, ``held_out.csv`` and ``run.json``.

    ``data`` is a training file (``messages`` or ``prompt-completion``), or prompts and responses;
    ``student`` and ``trust_remote_code`` are as in `load_student`; ``device`` is cpu or cuda. The
    ``seed`` decides the order of examples, and dropout if the student has it. ``held_out`` is
    scored at as many evenly spaced points as ``evaluations`` says, the first before training and
    the last after it (1: after it only). Checkpoints are ``save_steps`` optimizer steps apart, or
    ten minutes.

    Returns:
        One row per optimizer step, and one for step 0 if something is held out: ``step``,
        ``epoch``, ``loss`` (nats per token), ``learning_rate``, ``grad_norm`` (before clipping),
        ``num_tokens`` (in the loss), ``global_nll`` and ``local_nll`` (-GALP and -LALP, means over
        held-out responses, nats per token; NaN if not measured), ``seconds``.

    Raises:
        InputError: If data, student, recipe or device cannot be used, ``out`` holds something
            else, or the loss is not finite.
    """
    check_count("evaluations", evaluations)
    if evaluations > _MOST_EVALUATIONS:
        raise InputError(f"evaluations is {evaluations}: give at most {_MOST_EVALUATIONS:,}")
    if save_steps is not None:
        check_count("save_steps", save_steps)
    out = Path(out).expanduser().resolve()
    if not out.name:
        raise InputError(f"{out}: cannot be trained into: give a folder of its own")
    config = trainer_config(out, recipe, seed, device)
    job = plan_job(data, student, recipe, config, held_out, evaluations, trust_remote_code)
    with open_folder(out, job.identity()) as (is_done, checkpoint):
        if not is_done:
            if cut := [example for example in job.examples if example.cut]:
                warn(
                    "%d of %d examples are longer than %d tokens and were cut, as LLaMA-Factory "
                    "cuts them",
                    *(len(cut), len(job.examples), len(cut[0].input_ids)),
                )
            course = _Course(job, save_steps, progress)
            _make_trainer(job, course).train(resume_from_checkpoint=checkpoint)
            _write_result(course, out)
    return load_log(out)


def _make_trainer(job: Job, course: _Course) -> _Trainer:
    if job.config.device.type != "cpu":
        # Asks for deterministic kernels; an operation without one warns, but is used.
        enable_full_determinism(job.config.seed, warn_only=True)
    student, tokenizer = job.student, job.student.tokenizer
    # In float32 for every recipe, because AdamW's small steps would be lost in bfloat16.
    trusted = {"trust_remote_code": student.trust_remote_code}
    model = load_model(student.name, student.source, torch.float32, **trusted)
    vocabulary = vocabulary_size(model)
    _check_ids(job, vocabulary)
    ids = (tokenizer.pad_token_id, tokenizer.eos_token_id)
    # It is masked, so any id of the model will do.
    pad = next((i for i in ids if i is not None and i < vocabulary), 0)
    # The last one fills up steps; none of its tokens is in the loss.
    filler = {"input_ids": [pad, pad], "labels": [IGNORED, IGNORED]}
    rows = [{"input_ids": list(e.input_ids), "labels": e.labels} for e in job.examples] + [filler]
    order = [len(job.examples) if i is None else i for step in course.steps for i in step]
    course.configs = copy.deepcopy((model.config, model.generation_config))
    trainer = _Trainer(
        model=model,
        args=job.config,
        train_dataset=Dataset.from_list(rows).select(order),
        processing_class=tokenizer,
        data_collator=DataCollatorForLanguageModeling(
            pad,
            padding_free=job.recipe.packing,
            pad_to_multiple_of=sequence_processes(),  # each of them gets an equal part
        ),
        callbacks=[course],
    )
    trainer.remove_callback(PrinterCallback)
    # Otherwise it would write the tokenizer's special tokens into the model's configurations.
    trainer.processing_class = None
    course.trainer = trainer
    return trainer


def _check_ids(job: Job, vocabulary: int) -> None:
    """InputError if an example has token ids that the model does not have."""
    largest = max(max(example.input_ids) for example in job.examples)
    if largest >= vocabulary:
        why = f"its tokenizer gives token id {largest}, its model has {vocabulary} token ids"
        advice = "give it the tokenizer that it was trained with"
        raise InputError(f"student {job.student.name!r} cannot be trained: {why}: {advice}")


class _Trainer(SFTTrainer):
    """TRL's trainer with a cheaper loss on a CPU, and without telemetry and model cards."""

    _is_separating = False  # whether packed examples were seen not to see each other

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """As in transformers; TRL's own writes a model card."""
        with writing(self.args.output_dir):
            Trainer._save_checkpoint(self, model, trial)

    def _send_telemetry(self) -> None:
        """Nothing is sent anywhere."""

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Tensor:
        """Cross-entropy summed over completion tokens, divided by those of the whole step.

        TRL's own loss does the same in tiles. On a CPU, TRL's would compute logits and entropies at
        every position.
        """
        forward = type(self.accelerator.unwrap_model(self.model)).forward
        selects = "logits_to_keep" in inspect.signature(forward).parameters
        if "position_ids" in inputs and not self._is_separating:
            self._check_separation(model, inputs, {"logits_to_keep": 1} if selects else {})
        if self.args.device.type != "cpu" or not selects:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        targets = inputs["labels"][:, 1:]
        places = (targets != IGNORED).any(0).nonzero()[:, 0]
        read = {name: value for name, value in inputs.items() if name != "labels"}
        logits = model(**read, logits_to_keep=places, use_cache=False).logits
        total = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1).float(), targets[:, places].flatten(), reduction="sum"
        )
        # The count is over all processes, whose gradients are averaged.
        return total * self.accelerator.num_processes / num_items_in_batch

    def _check_separation(
        self, model: torch.nn.Module, inputs: dict[str, Any], options: dict[str, int]
    ) -> None:
        """InputError if other tokens in the first packed example change the last one's logits.

        transformers separates packed examples by their positions. Models without such a mask, as
        most recurrent ones, would read them as one text, without an error.
        """
        read = {name: value for name, value in inputs.items() if name != "labels"}
        starts = (inputs["position_ids"][0] == 0).nonzero()[:, 0].tolist()
        if len(starts) < 2:
            return
        others = inputs["input_ids"].clone()
        first = others[:, : starts[1]]
        first.copy_((first + 1) % (first.max() + 1))
        was_training = model.training
        model.eval()
        with torch.no_grad():
            one, other = (
                model(**read | {"input_ids": ids}, use_cache=False, **options).logits[:, -1].float()
                for ids in (inputs["input_ids"], others)
            )
        model.train(was_training)
        if (one - other).abs().max() > _SEPARATE * one.std():
            why = "its packed examples would see each other"
            raise InputError(f"student: {why}: set packing to false in the recipe")
        self._is_separating = True


class _Course(TrainerCallback):
    """What happens between optimizer steps: held-out measures, checkpoints, the progress bar."""

    def __init__(self, job: Job, save_steps: int | None, progress: bool) -> None:
        lengths = [len(example.input_ids) for example in job.examples]
        how = job.recipe.epochs, job.examples_per_step, job.config.seed
        self.job = job
        # Which examples each optimizer step takes.
        self.steps = order_examples(lengths, *how)
        first = 0 if job.evaluations > 1 else len(self.steps)
        points = np.linspace(first, len(self.steps), job.evaluations).round().astype(int)
        # The steps after which held-out responses are scored.
        self.measured = frozenset(points.tolist()) if job.tasks else frozenset()
        self.configs: tuple[Any, Any] = (None, None)  # the student's, as the trainer found them
        self.trainer: _Trainer | None = None  # set as soon as it exists
        self._save_steps, self._progress = save_steps, progress

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # If not silenced here, tqdm still obeys TQDM_DISABLE.
        options = {} if self._progress and PartialState().is_main_process else {"disable": True}
        done = state.global_step
        self._bar = tqdm(total=len(self.steps), initial=done, unit="step", **options)
        self._saved = time.monotonic()
        self._measure(state)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._began = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._seconds = time.monotonic() - self._began  # without the work between steps
        self._bar.update()
        self._measure(state)
        if self._save_steps is None:
            # The main process decides: clocks differ, and all processes write checkpoints together.
            due = broadcast_object_list([time.monotonic() - self._saved >= SECONDS_PER_CHECKPOINT])
        else:
            due = [state.global_step % self._save_steps == 0]
        control.should_save = due[0] and state.global_step < len(self.steps)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._saved = time.monotonic()
        PartialState().wait_for_everyone()  # each process writes a part of the checkpoint
        if PartialState().is_main_process:
            seal_checkpoint(Path(args.output_dir) / f"checkpoint-{state.global_step}")

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if "loss" not in logs:  # the summary after the last step
            return
        if not math.isfinite(logs["loss"]):
            found = f"the training loss is {logs['loss']} at step {state.global_step}"
            advice = "lower the learning rate, or look at the student's weights"
            raise InputError(f"student {self.job.student.name!r}: {found}: {advice}")
        self._bar.set_postfix(loss=f"{logs['loss']:.4f}", refresh=False)
        taken = [i for i in self.steps[state.global_step - 1] if i is not None]
        num_tokens = sum(self.job.examples[i].num_tokens for i in taken)
        # The trainer has just written the entry, without the course's own values.
        state.log_history[-1] |= {"seconds": self._seconds, "num_tokens": num_tokens}

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._bar.close()

    def _measure(self, state: Any) -> None:
        """Score held-out responses, unless the checkpoint that the run resumed from has them."""
        step = state.global_step
        done = {entry["step"] for entry in state.log_history if "held_out" in entry}
        if step not in self.measured or step in done:
            return
        scores = score_held_out(self.trainer, self.job)
        lacking = [reason for _, _, reason in scores if reason]
        if lacking and not done:
            warn(
                "%d of %d held-out responses lack a score and are left out of its mean: %s",
                *(len(lacking), len(scores), lacking[0]),
            )
        # The trainer keeps its history in checkpoints.
        state.log_history.append({"step": step, "held_out": scores})


def _write_result(course: _Course, out: Path) -> None:
    """Write the finished run beside its checkpoints, then give it its name and remove them."""
    job, trainer = course.job, course.trainer
    weights = trainer.accelerator.get_state_dict(trainer.model_wrapped)  # gathers what is sharded
    if not PartialState().is_main_process:
        return
    folder = unfinished(out) / "result"
    shutil.rmtree(folder, ignore_errors=True)
    model = trainer.accelerator.unwrap_model(trainer.model)
    model.config, model.generation_config = course.configs
    history, steps_per_epoch = trainer.state.log_history, len(course.steps) / job.recipe.epochs
    with writing(out):
        folder.mkdir()
        model.save_pretrained(folder, state_dict=weights)
        job.student.tokenizer.save_pretrained(folder)
        write_tables(folder, history, steps_per_epoch, job.tasks)
        write_json(folder / RUN_FILE, {"run": job.identity()} | job.provenance())
        folder.rename(out)
    shutil.rmtree(unfinished(out), ignore_errors=True)
