"""The task of a training run, checked before anything is loaded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from trl import SFTConfig

from lalp.errors import InputError
from lalp.files import digest, fingerprint
from lalp.pools.pool import Prompt, Response
from lalp.scoring.groups import Task, group_responses, make_tasks
from lalp.scoring.windows import Window, parse_window
from lalp.steps.splitters import check_splitter
from lalp.students.encoding import control_token_note, end_of_turn
from lalp.students.student import FoundStudent, find_student, usable_device
from lalp.training.examples import Example, HeldOut, TrainingData, load_examples, make_example
from lalp.training.folder import unfinished, warn
from lalp.training.recipes import Recipe


@dataclass(frozen=True)
class Job:
    """All decisions made before any weights are loaded."""

    student: FoundStudent
    recipe: Recipe
    config: SFTConfig
    data: str | None  # name of the training file, if there is one
    examples: list[Example]
    tasks: dict[str, tuple[str, Task]]  # held-out: prompt id and what to score, by response id
    window: Window | None  # for their local likelihood
    evaluations: int

    def identity(self) -> dict[str, Any]:
        """What decides the result: runs with the same identity are the same run."""
        return {
            "data": digest([[e.input_ids, e.num_prompt, *e.given] for e in self.examples]),
            "student": self.student.revision,
            "recipe": asdict(self.recipe),
            "seed": self.config.seed,
            "held_out": digest([self.tasks, str(self.window)]) if self.tasks else None,
            "evaluations": self.evaluations if self.tasks else None,
            "processes": self.config.world_size,
            "examples_per_step": self.examples_per_step,
            "device": self.config.device.type,
            "dtype": "bfloat16" if self.config.bf16 else "float32",
            "code": _CODE,
        }

    @property
    def examples_per_step(self) -> int:
        """Examples of an optimizer step, over all processes."""
        groups = self.config.world_size // sequence_processes()
        return self.recipe.batch_size * self.recipe.gradient_accumulation * groups

    def provenance(self) -> dict[str, Any]:
        """Facts for readers beyond the identity; without times, so reruns are equal."""
        return {
            "student": self.student.name,
            "data": self.data,
            "num_examples": len(self.examples),
            "num_cut": sum(example.cut for example in self.examples),
            "num_held_out": len(self.tasks),
            "window": self.window and str(self.window),
            "versions": {name: version(name) for name in ("lalp", "torch", "transformers", "trl")},
        }


def plan_job(
    data: TrainingData,
    student: str,
    recipe: Recipe,
    config: SFTConfig,
    held_out: HeldOut | None,
    evaluations: int,
    trust_remote_code: bool,
) -> Job:
    """Read and tokenize everything; arguments as in `lalp.training.trainer.train`."""
    if recipe.packing and sequence_processes() > 1:
        raise InputError("recipe: packing is for whole examples: no process may have only a part")
    pairs = load_examples(data)
    found = find_student(student, trust_remote_code=trust_remote_code)
    if not pairs:
        raise InputError("no responses to train on")
    limit = min(recipe.max_length, found.max_positions)
    end = end_of_turn(found.tokenizer)
    if note := control_token_note(found.tokenizer, [response for _, response in pairs]):
        warn("%s", note)
    return Job(
        student=found,
        recipe=recipe,
        config=config,
        data=Path(data).name if isinstance(data, str | os.PathLike) else None,
        examples=[make_example(found.tokenizer, *pair, limit, end) for pair in pairs],
        tasks=_held_out_tasks(held_out, found, pairs) if held_out else {},
        window=parse_window(held_out.window) if held_out else None,
        evaluations=evaluations,
    )


def _held_out_tasks(
    held_out: HeldOut, student: FoundStudent, pairs: Sequence[tuple[Prompt, Response]]
) -> dict[str, tuple[str, Task]]:
    """By response id: its prompt's id and its text to score; prompt by prompt."""
    check_splitter(held_out.splitter)
    tokenizer, limit = student.tokenizer, student.max_positions
    tasks = {
        response.response_id: (response.prompt_id, task)
        for group in group_responses(held_out.pool, tokenizer, held_out.splitter)
        for response, task in zip(group.responses, make_tasks(group, tokenizer, limit), strict=True)
    }
    trained = {prompt.messages for prompt, _ in pairs}
    leaked = sum(prompt.messages in trained for prompt in held_out.pool.prompts.values())
    if leaked:
        warn("%d held-out prompts are also trained on", leaked)
    return tasks


def trainer_config(out: Path, recipe: Recipe, seed: int, device: str | None) -> SFTConfig:
    """The trainer's arguments; making them also joins the processes that accelerate launched."""
    on_cpu = _is_cpu(device)
    bf16 = training_dtype(recipe, device) == "bfloat16"
    sharded = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    config = SFTConfig(
        output_dir=str(unfinished(out)),
        use_cpu=on_cpu,
        bf16=bf16,
        seed=seed,
        learning_rate=recipe.learning_rate,
        per_device_train_batch_size=recipe.batch_size,
        gradient_accumulation_steps=recipe.gradient_accumulation,
        lr_scheduler_type=recipe.schedule,
        warmup_steps=recipe.warmup_ratio,
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_grad_norm,
        # FSDP checkpoints activations itself, by its configuration file.
        activation_checkpointing=recipe.gradient_checkpointing and not sharded,
        # All epochs form one, because the order is in the data.
        num_train_epochs=1,
        train_sampling_strategy="sequential",
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        save_total_limit=2,  # the last one may be damaged
        disable_tqdm=True,
        report_to="none",
        dataloader_pin_memory=not on_cpu,
        ddp_find_unused_parameters=False,
        ddp_timeout=7200,
    )
    # The recipe decides, not accelerate's configuration file.
    config.mixed_precision = "bf16" if config.bf16 else "no"
    return config


def sequence_processes() -> int:
    """Processes that share each example (sequence parallelism), as accelerate's settings say."""
    return int(os.environ.get("PARALLELISM_CONFIG_SP_SIZE", "1"))


def training_dtype(recipe: Recipe, device: str | None = None) -> str:
    """The precision of a recipe: ``bfloat16`` if it asks for it and the device is made for it.

    On a CPU without matrix units for bfloat16 it is ``float32``. Weights are float32 either way.
    """
    is_made_for_it = not _is_cpu(device) or has_bfloat16_units()
    return "bfloat16" if recipe.bf16 and is_made_for_it else "float32"


def has_bfloat16_units() -> bool:
    """Whether this CPU multiplies matrices in bfloat16 (AMX), several times faster than float32.

    Instructions for bfloat16 vectors do not count. If an older torch does not tell, it has none.
    """
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("amx_bf16"))


def _is_cpu(device: str | None) -> bool:
    if device is None and os.environ.get("ACCELERATE_USE_CPU", "false").lower() == "true":
        return True
    name = usable_device(device)
    if name not in {"cpu", "cuda"}:
        advice = "give cpu or cuda, and choose among GPUs with CUDA_VISIBLE_DEVICES"
        raise InputError(f"device {name!r} cannot be trained on: {advice}")
    if name == "cuda" and torch.cuda.device_count() > 1 and "WORLD_SIZE" not in os.environ:
        raise InputError(
            "several GPUs are visible: run under accelerate launch to use them all, or show one "
            "with CUDA_VISIBLE_DEVICES"
        )
    return name == "cpu"


# Read on import, because a later edit on disk does not change this process. The code of `steps`
# need not count: the identity contains the steps of held-out responses.
_CODE = fingerprint("training", "scoring", "students")
