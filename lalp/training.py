"""Supervised fine-tuning of a student on selected responses (paper, Sec. 7.4, B.4, Fig. 6).

TRL's `SFTTrainer` on accelerate does the work, so that one command serves one CPU and a cluster.
What is ours: the tokens in the loss are those that LALP scores, plus the end of the turn; the order
of examples is fixed beforehand; held-out likelihoods are measured by the project's own scoring; and
a killed run goes on from its last sound checkpoint to the same weights, bit for bit.
"""

from __future__ import annotations

import copy
import fcntl
import hashlib
import inspect
import json
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pandas as pd
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from datasets import Dataset
from jaxtyping import Float
from jinja2 import TemplateError
from torch import Tensor
from tqdm import tqdm
from transformers import (
    AutoModelForCausalLM,
    PreTrainedModel,
    PrinterCallback,
    SchedulerType,
    Trainer,
    TrainerCallback,
    enable_full_determinism,
)
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from lalp.assets import code_of
from lalp.profiles import read_keys
from lalp.records import InputError, Pool, Prompt, Response, atomic_path, load_pool
from lalp.scoring import Task, score_candidates
from lalp.steps import check_splitter
from lalp.store import group_responses, make_tasks
from lalp.students import (
    Student,
    encode,
    load_config,
    load_tokenizer,
    locate_student,
    make_student,
    max_positions,
    render_prompt,
    revision,
    take_logits,
    usable_device,
)
from lalp.windows import Window, parse_window

log = logging.getLogger("lalp")

# Without `save_steps`, a checkpoint is written whenever this many seconds of work could be lost.
SECONDS_PER_CHECKPOINT = 600

_SHARDED_BATCH_TOKENS = 2048
_IGNORED = -100  # the label of a token outside the loss
_RUN, _LOG, _HELD_OUT = "run.json", "training_log.csv", "held_out.csv"
_MANIFEST = "manifest.json"
_LOG_COLUMNS = (
    *("step", "epoch", "loss", "learning_rate", "grad_norm", "num_tokens"),
    *("global_nll", "local_nll", "seconds"),
)


# --- recipes --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recipe:
    """Hyperparameters of one fine-tuning run.

    Attributes:
        learning_rate: At its highest.
        epochs: Passes over the data.
        batch_size: Examples per device and forward pass.
        gradient_accumulation: Forward passes per optimizer step.
        schedule: Of the learning rate: ``cosine``, ``linear``, ``constant``, ...
        warmup_ratio: Share of the steps in which the rate rises from 0.
        max_length: Tokens per example; longer ones are cut.
        weight_decay: AdamW's.
        max_grad_norm: Gradients are scaled down to this norm; 0: never.
        bf16: Compute in bfloat16 on a GPU, weights kept in float32. A CPU computes in float32.
        gradient_checkpointing: Compute activations twice to save memory.
    """

    learning_rate: float
    epochs: int
    batch_size: int
    gradient_accumulation: int
    schedule: str
    warmup_ratio: float
    max_length: int
    weight_decay: float
    max_grad_norm: float
    bf16: bool
    gradient_checkpointing: bool


# Table 6 gives batch 1/2, accumulation 8, epochs 10/15, warmup 0 and bfloat16, without saying which
# of two values is which student's, and "/" for the learning rate. Here the 7B and 8B students take
# batch 2 and 10 epochs, the 32B student batch 1 and 15 epochs as LIMO's does. Learning rate, cosine
# schedule and cutoff are LIMO's; weight decay and clipping, which nobody states, LLaMA-Factory's
# defaults. On the paper's four GPUs a step holds 64 (or 32) examples.
_PAPER = Recipe(
    learning_rate=5e-6,
    epochs=10,
    batch_size=2,
    gradient_accumulation=8,
    schedule="cosine",
    warmup_ratio=0.0,
    max_length=16384,
    weight_decay=0.0,
    max_grad_norm=1.0,
    bf16=True,
    gradient_checkpointing=True,
)
RECIPES = {
    "paper": _PAPER,
    "paper-32b": replace(_PAPER, epochs=15, batch_size=1),
    # Sec. C.9 gives epochs and learning rate only.
    "terciles": replace(_PAPER, epochs=5, learning_rate=1e-5),
}


def load_recipe(name: str | Path) -> Recipe:
    """A recipe by its name, or from a YAML file that gives every field of `Recipe`.

    Raises:
        InputError: If there is no such recipe, or the file does not fit `Recipe`.
    """
    if str(name) in RECIPES:
        return RECIPES[str(name)]
    path = Path(name)
    if path.suffix not in {".yaml", ".yml"}:
        raise InputError(
            f"recipe {str(name)!r} is not known: give {', '.join(RECIPES)}, or a .yaml file"
        )
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"recipe {path}: cannot be read: {error}") from error
    return parse_recipe(text, f"recipe {path}")


def parse_recipe(text: str, where: str) -> Recipe:
    """Read a recipe from YAML text.

    Raises:
        InputError: If a key is unknown, missing or of the wrong type, or a value makes no sense;
            ``where`` begins the message.
    """
    values = read_keys(text, where, Recipe)
    known = get_type_hints(Recipe)
    typed = {key: _typed(where, key, value, known[key]) for key, value in values.items()}
    return check_recipe(Recipe(**typed), where)


def _typed(where: str, key: str, value: Any, expected: type) -> Any:
    """The value as its field's type; YAML reads ``5e-6`` as a text and ``1`` as no float."""
    if expected is float and type(value) in (int, float, str):
        try:
            return float(value)
        except ValueError:
            pass
    elif type(value) is expected:
        return value
    wanted = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    raise InputError(f"{where}: key {key!r} must be {wanted[expected]}, not {value!r}")


def check_recipe(recipe: Recipe, where: str = "recipe") -> Recipe:
    """The recipe itself, if its values make sense.

    Raises:
        InputError: Naming the first value that does not; ``where`` begins the message.
    """
    schedules = [kind.value for kind in SchedulerType]
    bounds = {
        "learning_rate": (recipe.learning_rate > 0, "above 0"),
        "epochs": (recipe.epochs >= 1, "at least 1"),
        "batch_size": (recipe.batch_size >= 1, "at least 1"),
        "gradient_accumulation": (recipe.gradient_accumulation >= 1, "at least 1"),
        "schedule": (recipe.schedule in schedules, f"one of {', '.join(schedules)}"),
        "warmup_ratio": (0 <= recipe.warmup_ratio < 1, "at least 0 and below 1"),
        "max_length": (recipe.max_length >= 2, "at least 2"),
        "weight_decay": (recipe.weight_decay >= 0, "at least 0"),
        "max_grad_norm": (recipe.max_grad_norm >= 0, "at least 0"),
    }
    for key, (fits, wanted) in bounds.items():
        value = getattr(recipe, key)
        if not fits or (isinstance(value, float) and not math.isfinite(value)):
            raise InputError(f"{where}: key {key!r} must be {wanted}, not {value!r}")
    return recipe


# --- data -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class HeldOut:
    """Responses that are never trained on, and how their likelihood is measured.

    Attributes:
        pool: The responses; those of one prompt are scored together.
        splitter: How they are cut into steps: as in `lalp.store.score`.
        window: Of the local likelihood (Eq. 3), for example ``4``.
    """

    pool: Pool
    splitter: str
    window: str


@dataclass(frozen=True)
class Example:
    """One sequence to train on.

    Attributes:
        input_ids: Prompt, response and end of turn, cut to the recipe's length.
        num_prompt: How many of them are the prompt's; the others are in the loss.
        cut: Whether tokens were left out.
    """

    input_ids: tuple[int, ...]
    num_prompt: int
    cut: bool

    @property
    def num_tokens(self) -> int:
        """Tokens in the loss: one without a token before it cannot be predicted."""
        return len(self.input_ids) - max(1, self.num_prompt)

    @property
    def labels(self) -> list[int]:
        """The ids in the loss, -100 before them."""
        return [_IGNORED] * self.num_prompt + list(self.input_ids[self.num_prompt :])


def load_examples(path: str | os.PathLike) -> list[tuple[Prompt, Response]]:
    """Read a training file in the format ``messages`` or ``prompt-completion``, or a pool.

    Raises:
        InputError: At the first record that cannot be used.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give the .jsonl file that lalp select wrote")
    records = _completion_records(path) if path.suffix == ".jsonl" and path.is_file() else []
    try:
        pool = load_pool(records or path)
    except InputError as error:
        # Records are counted, blank lines are not.
        raise InputError(f"{path}: {error}" if records else str(error)) from error
    return [(pool.prompts[response.prompt_id], response) for response in pool.responses]


def _completion_records(path: Path) -> list[dict[str, Any]]:
    """Prompt-completion records as ``messages`` records; none if the file is of another format."""
    records = []
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                record = json.loads(line)
                if not isinstance(record, dict) or (not records and "completion" not in record):
                    return []
                records.append(_join_completion(record, f"{path}, line {number}"))
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        return []  # `load_pool` says what is wrong, with the line
    return records


def _join_completion(record: dict[str, Any], where: str) -> dict[str, Any]:
    prompt, completion = record.get("prompt"), record.get("completion")
    if not (isinstance(prompt, list) and isinstance(completion, list)):
        raise InputError(f"{where}: 'prompt' and 'completion' must be lists of messages")
    kept = {name: value for name, value in record.items() if name not in {"prompt", "completion"}}
    return kept | {"messages": [*prompt, *completion]}


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The tokens that the chat template puts after an assistant's message.

    A tokenizer without a template, or whose template puts nothing there, ends with its
    end-of-sequence token.

    Raises:
        InputError: If there is none either.
    """
    suffix = _text_after_turn(tokenizer) if tokenizer.chat_template else ""
    if suffix.strip():
        return tuple(tokenizer(suffix, add_special_tokens=False)["input_ids"])
    if tokenizer.eos_token_id is None:
        raise InputError(
            "the student's tokenizer has neither a chat template nor an end-of-sequence token: "
            "it could not learn to stop; take another student"
        )
    return (tokenizer.eos_token_id,)


def _text_after_turn(tokenizer: PreTrainedTokenizerBase) -> str:
    mark = "end-of-turn-is-next"
    chat = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": mark}]
    try:
        text = tokenizer.apply_chat_template(chat, tokenize=False)
    except (TemplateError, ValueError) as error:
        raise InputError(
            f"the student's chat template refuses an assistant's message ({error}): "
            "take another student"
        ) from error
    return text.rpartition(mark)[2] if mark in text else ""


def cut_lengths(prompt: int, completion: int, limit: int) -> tuple[int, int]:
    """How many tokens of prompt and completion stay: LLaMA-Factory's rule, the paper's trainer's.

    A part that is shorter than half the limit stays whole and the other gets the rest; two long
    parts share the limit in proportion. Both lose their ends.
    """
    if prompt + completion <= limit:
        return prompt, completion
    if 2 * completion < limit:
        kept = completion
    elif 2 * prompt < limit:
        kept = limit - prompt
    else:
        # In floating point, as there: an exact quotient may differ by one token.
        kept = int(limit * (completion / (prompt + completion)))
    return min(prompt, limit - kept), kept


def make_example(
    tokenizer: PreTrainedTokenizerBase,
    prompt: Prompt,
    response: Response,
    limit: int,
    end: tuple[int, ...],
) -> Example:
    """Tokenize one response as LALP's scores do, and end it.

    Args:
        tokenizer: The student's.
        prompt: Rendered by the chat template.
        response: All of its tokens are in the loss.
        limit: Longest sequence.
        end: From `end_of_turn`.

    Raises:
        InputError: If cutting leaves no token in the loss.
    """
    encoded = encode(tokenizer, render_prompt(tokenizer, prompt), response.text)
    completion = (*encoded.response_ids, *end)
    kept_prompt, kept = cut_lengths(len(encoded.prompt_ids), len(completion), limit)
    example = Example(
        (*encoded.prompt_ids[:kept_prompt], *completion[:kept]),
        kept_prompt,
        kept_prompt + kept < len(encoded.prompt_ids) + len(completion),
    )
    if kept < 1 or example.num_tokens < 1:
        raise InputError(
            f"response {response.response_id!r}: its prompt has {len(encoded.prompt_ids)} tokens, "
            f"so that nothing of the response is left within {limit}: raise max_length or leave "
            "the response out"
        )
    return example


def order_examples(
    lengths: Sequence[int], epochs: int, per_step: int, seed: int
) -> list[list[int | None]]:
    """Which examples each optimizer step takes, drawn beforehand.

    Every epoch is a new permutation. Within a step, long examples come first, so that forward
    passes hold examples of like length: that changes no step's loss or gradient. An epoch's last
    step is filled up with None, so that all processes have equally many batches.

    Args:
        lengths: Tokens of each example.
        epochs: Passes over the data.
        per_step: Examples per optimizer step.
        seed: Of the permutations.
    """
    rng = np.random.default_rng(seed)
    steps = []
    for _ in range(epochs):
        order = rng.permutation(len(lengths)).tolist()
        for start in range(0, len(order), per_step):
            step = sorted(order[start : start + per_step], key=lambda i: -lengths[i])
            steps.append(step + [None] * (per_step - len(step)))
    return steps


# --- one run --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Job:
    """All that is decided before any weights are loaded.

    Attributes:
        student: As the user named it.
        source: Folder or hub id that its files are read from.
        revision: Of its files.
        data: Name of the training file, if there is one.
        tasks: Held-out responses: prompt id and what to score, by response id.
        window: Of their local likelihood.
    """

    student: str
    source: str
    revision: str
    tokenizer: PreTrainedTokenizerBase
    trust_remote_code: bool
    recipe: Recipe
    config: SFTConfig
    data: str | None
    examples: list[Example]
    tasks: dict[str, tuple[str, Task]]
    window: Window | None
    evaluations: int

    def identity(self) -> dict[str, Any]:
        """What decides the result: runs that agree in it are the same run."""
        return {
            "data": _digest([[e.input_ids, e.num_prompt] for e in self.examples]),
            "student": self.revision,
            "recipe": asdict(self.recipe),
            "seed": self.config.seed,
            "held_out": _digest([self.tasks, str(self.window)]) if self.tasks else None,
            "evaluations": self.evaluations if self.tasks else None,
            "processes": self.config.world_size,
            "device": self.config.device.type,
            "code": _CODE,
        }

    def provenance(self) -> dict[str, Any]:
        """What a reader wants to know beyond the identity; no times, so that reruns are equal."""
        return {
            "student": self.student,
            "data": self.data,
            "num_examples": len(self.examples),
            "num_cut": sum(example.cut for example in self.examples),
            "num_held_out": len(self.tasks),
            "window": self.window and str(self.window),
            "dtype": "bfloat16" if self.config.bf16 else "float32",
            "versions": {name: version(name) for name in ("lalp", "torch", "transformers", "trl")},
        }


def train(
    data: str | os.PathLike | Sequence[tuple[Prompt, Response]],
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
    """Fine-tune a student; a killed run goes on, a finished one is read.

    The loss is the mean over the completion tokens of an optimizer step, over all its devices. Work
    in progress lies in ``OUT.partial``; ``out`` appears when it is complete.

    Args:
        data: A training file (``messages`` or ``prompt-completion``), or prompts and responses.
        student: As in `load_student`.
        out: Folder for weights, tokenizer, ``training_log.csv``, ``held_out.csv`` and ``run.json``.
        recipe: Hyperparameters.
        seed: For the order of examples, and dropout where the student has it.
        held_out: Responses to measure; none if not given.
        evaluations: At how many evenly spaced points, the first before training and the last after
            it; 1: after it only.
        save_steps: Optimizer steps between checkpoints; if not given, one every ten minutes.
        device: ``cpu`` or ``cuda``.
        trust_remote_code: As in `load_student`.
        progress: Show steps and loss.

    Returns:
        One row per optimizer step, and one for step 0 if something is held out: ``step``,
        ``epoch``, ``loss`` (nats per token), ``learning_rate``, ``grad_norm`` (before clipping),
        ``num_tokens`` (in the loss), ``global_nll`` and ``local_nll`` (-GALP and -LALP, means over
        held-out responses, nats per token; NaN where not measured), ``seconds``.

    Raises:
        InputError: If data, student, recipe or device cannot be used, ``out`` holds something
            else, or the loss is not finite.
    """
    check_recipe(recipe)
    _check_counts(evaluations, save_steps)
    out = Path(out).expanduser().resolve()
    config = _trainer_config(out, recipe, seed, device)
    job = _plan_job(data, student, recipe, config, held_out, evaluations, trust_remote_code)
    with _open_folder(out, job.identity()) as (is_done, checkpoint):
        if not is_done:
            _say_cut(job)
            course = _Course(job, save_steps, progress)
            trainer = _make_trainer(job, course)
            trainer.train(resume_from_checkpoint=checkpoint)
            _write_result(trainer, job, out)
    return load_log(out)


def load_log(folder: str | os.PathLike) -> pd.DataFrame:
    """The log of a finished run: what `train` returned."""
    return pd.read_csv(Path(folder) / _LOG, float_precision="round_trip")


def log_summary(table: pd.DataFrame) -> dict[str, Any]:
    """Steps, tokens in the loss, and first and last value of each measure (NaN: not measured)."""

    def ends(name: str) -> list[float]:
        known = table[name].dropna()
        return [known.iloc[0], known.iloc[-1]] if len(known) else [math.nan, math.nan]

    return {
        "num_steps": int(table["step"].max()),
        "num_tokens": int(table["num_tokens"].sum()),
        **{name: ends(name) for name in ("loss", "global_nll", "local_nll")},
    }


def load_held_out(folder: str | os.PathLike) -> pd.DataFrame:
    """The held-out scores of a finished run, response by response.

    Returns:
        ``step``, ``prompt_id``, ``response_id``, ``galp`` and ``lalp`` (nats per token), and
        ``reason``, which says why one is NaN.
    """
    # Ids may look like numbers, or like a missing value.
    return pd.read_csv(
        Path(folder) / _HELD_OUT,
        float_precision="round_trip",
        dtype={"prompt_id": str, "response_id": str, "reason": str},
        keep_default_na=False,
        na_values={"galp": [""], "lalp": [""], "reason": [""]},
    )


def _check_counts(evaluations: int, save_steps: int | None) -> None:
    if evaluations < 1:
        raise InputError(f"evaluations must be at least 1, not {evaluations}")
    if save_steps is not None and save_steps < 1:
        raise InputError(f"save_steps must be at least 1, not {save_steps}")


def _plan_job(
    data: str | os.PathLike | Sequence[tuple[Prompt, Response]],
    student: str,
    recipe: Recipe,
    config: SFTConfig,
    held_out: HeldOut | None,
    evaluations: int,
    trust_remote_code: bool,
) -> _Job:
    """Read and tokenize everything."""
    from_file = isinstance(data, str | os.PathLike)
    pairs = load_examples(data) if from_file else list(data)
    source = locate_student(student)
    model_config = load_config(student, trust_remote_code=trust_remote_code)
    tokenizer = load_tokenizer(student, source, trust_remote_code=trust_remote_code)
    positions = max_positions(model_config)
    return _Job(
        student=student,
        source=source,
        revision=revision(source, model_config),
        tokenizer=tokenizer,
        trust_remote_code=trust_remote_code,
        recipe=recipe,
        config=config,
        data=Path(data).name if from_file else None,
        examples=_make_examples(tokenizer, pairs, min(recipe.max_length, positions)),
        tasks=_held_out_tasks(held_out, tokenizer, positions, pairs) if held_out else {},
        window=parse_window(held_out.window) if held_out else None,
        evaluations=evaluations,
    )


def _make_examples(
    tokenizer: PreTrainedTokenizerBase, pairs: Sequence[tuple[Prompt, Response]], limit: int
) -> list[Example]:
    if not pairs:
        raise InputError("no responses to train on")
    end = end_of_turn(tokenizer)
    return [make_example(tokenizer, prompt, response, limit, end) for prompt, response in pairs]


def _held_out_tasks(
    held_out: HeldOut,
    tokenizer: PreTrainedTokenizerBase,
    limit: int,
    pairs: Sequence[tuple[Prompt, Response]],
) -> dict[str, tuple[str, Task]]:
    """By response id, its prompt's id and what to score; prompt by prompt."""
    check_splitter(held_out.splitter)
    tasks = {}
    for group in group_responses(held_out.pool, tokenizer, held_out.splitter):
        made = make_tasks(group, tokenizer, held_out.splitter, limit)
        for response, task in zip(group.responses, made, strict=True):
            tasks[response.response_id] = (response.prompt_id, task)
    trained = {prompt.messages for prompt, _ in pairs}
    leaked = sum(prompt.messages in trained for prompt in held_out.pool.prompts.values())
    if leaked and _speaks():
        log.warning("%d held-out prompts are also trained on", leaked)
    return tasks


def _say_cut(job: _Job) -> None:
    cut = [example for example in job.examples if example.cut]
    if cut and _speaks():
        log.warning(
            "%d of %d examples are longer than %d tokens and were cut, as LLaMA-Factory cuts them",
            *(len(cut), len(job.examples), len(cut[0].input_ids)),
        )


def _speaks() -> bool:
    """Whether this is the process that writes files and messages."""
    return PartialState().is_main_process


def _digest(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, default=asdict)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:20]


# --- folders --------------------------------------------------------------------------------


def _partial(out: Path) -> Path:
    return out.with_name(f"{out.name}.partial")


@contextmanager
def _open_folder(out: Path, identity: dict[str, Any]) -> Iterator[tuple[bool, str | None]]:
    """Whether the run is finished, and the checkpoint to go on from; the same in all processes.

    The main process alone looks and writes; a lock keeps a second run out.
    """
    found: list[Any] = [None, None]
    lock = None
    try:
        if _speaks():
            try:
                found, lock = _look(out, identity)
            except InputError as error:
                found = [None, str(error)]
        if PartialState().num_processes > 1:
            broadcast_object_list(found)
        if found[0] is None:
            raise InputError(found[1])
        yield tuple(found)
        PartialState().wait_for_everyone()
    finally:
        if lock is not None:
            os.close(lock)


def _look(out: Path, identity: dict[str, Any]) -> tuple[list[Any], int | None]:
    """What `_open_folder` yields, and the lock."""
    if _holds_run(out, identity):
        shutil.rmtree(_partial(out), ignore_errors=True)  # of a run killed while it cleaned up
        return [True, None], None
    lock = _lock(_partial(out))
    try:
        if _holds_run(out, identity):  # finished by another process in between
            shutil.rmtree(_partial(out), ignore_errors=True)
            return [True, None], lock
        return [False, _find_checkpoint(_partial(out), identity)], lock
    except BaseException:
        os.close(lock)
        raise


def _holds_run(out: Path, identity: dict[str, Any]) -> bool:
    """Whether the folder holds this run, finished; anything else in it is refused."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    _check_identity(out, identity, "another run")
    return True


def _check_identity(folder: Path, identity: dict[str, Any], what: str) -> None:
    try:
        found = dict(json.loads((folder / _RUN).read_text(encoding="utf-8"))["run"])
    except (OSError, ValueError, LookupError, TypeError):
        raise InputError(
            f"{folder}: exists and is no folder of lalp train: give another folder"
        ) from None
    differs = [key for key, value in identity.items() if found.get(key) != value]
    if differs:
        raise InputError(
            f"{folder}: holds {what} (another {', '.join(differs)}): delete it, or give another "
            "folder"
        )


def _lock(folder: Path) -> int:
    """Make the folder and keep other runs out of it; the lock ends with the process."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_CREAT | os.O_RDWR, 0o644)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise InputError(
            f"{folder}: another process is training into it: wait for it, or give another folder"
        ) from None
    return lock


def _find_checkpoint(folder: Path, identity: dict[str, Any]) -> str | None:
    """The newest sound checkpoint of this run; damaged ones are reported and removed."""
    if not (folder / _RUN).exists():
        if any(path.name != "lock" and path.suffix != ".tmp" for path in folder.iterdir()):
            raise InputError(f"{folder}: is no folder of lalp train: delete it or rename it")
        _write_json(folder / _RUN, {"run": identity})
        return None
    _check_identity(folder, identity, "another run, unfinished")
    for path in _checkpoints(folder):
        problem = _damage(path)
        if problem is None:
            return str(path)
        log.warning("%s cannot be used (%s): going on from before it", path.name, problem)
        shutil.rmtree(path)
    return None


def _checkpoints(folder: Path) -> list[Path]:
    """Folders of checkpoints, the newest first."""
    numbered = [path for path in folder.glob("checkpoint-*") if path.name[11:].isdigit()]
    return sorted(numbered, key=lambda path: int(path.name[11:]), reverse=True)


def _damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, if anything."""
    try:
        digests = json.loads((checkpoint / _MANIFEST).read_text(encoding="utf-8"))
        for name, digest in digests.items():
            if _file_digest(checkpoint / name) != digest:
                return f"{name} is damaged"
    except OSError as error:
        return f"{Path(error.filename).name}: {error.strerror}"
    except (ValueError, AttributeError):
        return f"{_MANIFEST} is damaged"
    return None


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_json(path: Path, value: Any) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


# --- the trainer ----------------------------------------------------------------------------


def _trainer_config(out: Path, recipe: Recipe, seed: int, device: str | None) -> SFTConfig:
    """What the trainer is told; making it also joins the processes that accelerate launched."""
    on_cpu = _is_cpu(device)
    sharded = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    config = SFTConfig(
        output_dir=str(_partial(out)),
        use_cpu=on_cpu,
        bf16=recipe.bf16 and not on_cpu,
        seed=seed,
        learning_rate=recipe.learning_rate,
        per_device_train_batch_size=recipe.batch_size,
        gradient_accumulation_steps=recipe.gradient_accumulation,
        lr_scheduler_type=recipe.schedule,
        warmup_steps=recipe.warmup_ratio,
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_grad_norm,
        # FSDP checkpoints activations itself, as its configuration file says.
        activation_checkpointing=recipe.gradient_checkpointing and not sharded,
        # All epochs are one: the order is in the data.
        num_train_epochs=1,
        train_sampling_strategy="sequential",
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        disable_tqdm=True,
        report_to="none",
        dataloader_pin_memory=not on_cpu,
        ddp_find_unused_parameters=False,
        ddp_timeout=7200,
    )
    # The recipe's word counts, not that of accelerate's configuration file.
    config.mixed_precision = "bf16" if config.bf16 else "no"
    return config


def _is_cpu(device: str | None) -> bool:
    if device is None and os.environ.get("ACCELERATE_USE_CPU", "false").lower() == "true":
        return True
    name = usable_device(device)
    if name not in {"cpu", "cuda"}:
        raise InputError(
            f"device {name!r} cannot be trained on: give cpu or cuda, and choose among GPUs with "
            "CUDA_VISIBLE_DEVICES"
        )
    if name == "cuda" and torch.cuda.device_count() > 1 and "WORLD_SIZE" not in os.environ:
        raise InputError(
            "several GPUs are visible: run under accelerate launch to use them all, or show one "
            "with CUDA_VISIBLE_DEVICES"
        )
    return name == "cpu"


def _load_model(job: _Job) -> PreTrainedModel:
    """The student's weights in float32, in a layout that no scoring has touched."""
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            job.source,
            dtype=torch.float32,
            output_loading_info=True,
            trust_remote_code=job.trust_remote_code,
        )
    except Exception as error:  # damaged files raise anything
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"student {job.student!r} cannot be loaded: {reason}") from error
    if info["missing_keys"]:
        # transformers would only warn, and train random weights.
        raise InputError(
            f"student {job.student!r} cannot be loaded: its files lack the weights "
            f"{min(info['missing_keys'])}: give the files of a causal language model"
        )
    return model


def _make_trainer(job: _Job, course: _Course) -> _Trainer:
    if job.config.device.type != "cpu":
        # Asks for deterministic kernels; an operation that has none warns, and is used.
        enable_full_determinism(job.config.seed, warn_only=True)
    ids = (job.tokenizer.pad_token_id, job.tokenizer.eos_token_id)
    pad = next((i for i in ids if i is not None), 0)  # whichever: it is never seen
    data = Dataset.from_dict(
        {
            "input_ids": [*(list(e.input_ids) for e in job.examples), [pad, pad]],
            "labels": [*(e.labels for e in job.examples), [_IGNORED, _IGNORED]],
        }
    )
    # The last one fills up steps: no token of it is in the loss.
    order = [len(job.examples) if i is None else i for step in course.steps for i in step]
    model = _load_model(job)
    course.configs = copy.deepcopy((model.config, model.generation_config))
    trainer = _Trainer(
        model=model,
        args=job.config,
        train_dataset=data.select(order),
        processing_class=job.tokenizer,
        data_collator=DataCollatorForLanguageModeling(pad_token_id=pad),
        callbacks=[course],
    )
    trainer.remove_callback(PrinterCallback)
    # Or it would write the tokenizer's special tokens into the model's configurations.
    trainer.processing_class = None
    trainer.course, course.trainer = course, trainer
    return trainer


class _Trainer(SFTTrainer):
    """TRL's trainer with a cheaper loss on a CPU, and checkpoints whose damage shows.

    Attributes:
        course: What happens between steps.
    """

    course: _Course

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

        TRL's own loss does the same in tiles. On a CPU, it would compute logits and entropies at
        every position.
        """
        if self.args.device.type != "cpu" or not self._keeps_logits():
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        targets = inputs["labels"][:, 1:]
        places = (targets != _IGNORED).any(0).nonzero()[:, 0]
        logits = model(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            logits_to_keep=places,
            use_cache=False,
        ).logits
        total = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1).float(), targets[:, places].flatten(), reduction="sum"
        )
        # The count is over all processes, whose gradients are averaged.
        return total * self.accelerator.num_processes / num_items_in_batch

    def _keeps_logits(self) -> bool:
        forward = type(self.accelerator.unwrap_model(self.model)).forward
        return "logits_to_keep" in inspect.signature(forward).parameters

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs["seconds"] = self.course.seconds_of_step
            if not math.isfinite(logs["loss"]):
                raise InputError(
                    f"the training loss is {logs['loss']} at step {self.state.global_step}: lower "
                    "the learning rate"
                )
        Trainer.log(self, logs, start_time)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """Write a checkpoint, then what its files must hold; keep the one before, no older one."""
        Trainer._save_checkpoint(self, model, trial)
        self.accelerator.wait_for_everyone()
        if not self.accelerator.is_main_process:
            return
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        (folder / "training_args.bin").unlink(missing_ok=True)  # a pickle that nothing reads
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        digests = {str(path.relative_to(folder)): _file_digest(path) for path in files}
        _write_json(folder / _MANIFEST, digests)
        for old in _checkpoints(folder.parent)[2:]:
            shutil.rmtree(old)


class _Course(TrainerCallback):
    """What happens between optimizer steps: held-out measures, checkpoints, the progress bar.

    Attributes:
        steps: Which examples each optimizer step takes.
        measured: The steps after which held-out responses are scored.
        seconds_of_step: Of the last one, without what happens between steps.
        configs: The student's configurations, as the trainer found them.
        trainer: Set as soon as it exists.
    """

    def __init__(self, job: _Job, save_steps: int | None, progress: bool) -> None:
        config, lengths = job.config, [len(example.input_ids) for example in job.examples]
        per_device = config.per_device_train_batch_size * config.gradient_accumulation_steps
        self.job = job
        self.steps = order_examples(
            lengths, job.recipe.epochs, per_device * config.world_size, config.seed
        )
        first = 0 if job.evaluations > 1 else len(self.steps)
        points = np.linspace(first, len(self.steps), job.evaluations).round().astype(int)
        self.measured = frozenset(points.tolist()) if job.tasks else frozenset()
        self.seconds_of_step = 0.0
        self.configs: tuple[Any, Any] = (None, None)
        self.trainer: _Trainer | None = None
        self._save_steps, self._progress = save_steps, progress

    def num_tokens(self, step: int) -> int:
        """Tokens in the loss of an optimizer step, counted from 1."""
        members = self.steps[step - 1]
        return sum(self.job.examples[i].num_tokens for i in members if i is not None)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # Where not silenced here, tqdm still heeds TQDM_DISABLE.
        options = {} if self._progress and _speaks() else {"disable": True}
        done = state.global_step
        self._bar = tqdm(total=len(self.steps), initial=done, unit="step", **options)
        self._saved = time.monotonic()
        self._measure(state)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._began = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.seconds_of_step = time.monotonic() - self._began
        self._bar.update()
        self._measure(state)
        control.should_save = state.global_step < len(self.steps) and self._is_save_due(state)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if "loss" in logs:
            self._bar.set_postfix(loss=f"{logs['loss']:.4f}", refresh=False)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._bar.close()

    def _is_save_due(self, state: Any) -> bool:
        if self._save_steps is not None:
            return state.global_step % self._save_steps == 0
        # The main process decides: clocks differ, and all processes write a checkpoint together.
        due = [time.monotonic() - self._saved >= SECONDS_PER_CHECKPOINT]
        if self.job.config.world_size > 1:
            broadcast_object_list(due)
        if due[0]:
            self._saved = time.monotonic()
        return due[0]

    def _measure(self, state: Any) -> None:
        """Score held-out responses, unless the checkpoint that the run went on from has them."""
        step, done = state.global_step, {e["step"] for e in _measurements(state.log_history)}
        if step not in self.measured or step in done:
            return
        scores = _score_held_out(self.trainer, self.job)
        if not done:
            _say_unscored(scores)
        # The trainer keeps its history in checkpoints.
        state.log_history.append({"step": step, "held_out": scores})


def _measurements(history: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [entry for entry in history if "held_out" in entry]


# --- held-out likelihoods -------------------------------------------------------------------


def _score_held_out(trainer: _Trainer, job: _Job) -> list[list[Any]]:
    """GALP, LALP and the reason why one is missing, of each held-out response, in order."""
    by_prompt = groupby(job.tasks.values(), key=lambda item: item[1].encoded.prompt_ids)
    groups = [[task for _, task in members] for _, members in by_prompt]
    accelerator, was_training = trainer.accelerator, trainer.model_wrapped.training
    # Processes that each hold the whole model share the work; shards must all run together.
    sharded = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
    first, every = (0, 1) if sharded else (accelerator.process_index, accelerator.num_processes)
    # Logits of whole rows are large, and no process may run out of memory alone.
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
            scores.lalp[f"lalp@{window}"],
            "; ".join(f"{name}: {why}" for name, why in scores.reasons.items()),
        ]
        for scores in score_candidates(student, tasks, [window], max_batch_tokens=max_batch_tokens)
    ]


def _say_unscored(scores: Sequence[Sequence[Any]]) -> None:
    reasons = [reason for _, _, reason in scores if reason]
    if reasons and _speaks():
        log.warning(
            "%d of %d held-out responses lack a score and are left out of its mean: %s",
            *(len(reasons), len(scores), reasons[0]),
        )


@contextmanager
def _current_student(
    trainer: _Trainer, tokenizer: PreTrainedTokenizerBase, sharded: bool
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

    Without a cache, which would hold inference tensors: shards are gathered outside inference mode,
    for training reads the same buffers again.
    """

    def logits(input_ids: Tensor, use_cache: bool) -> tuple[Tensor, None]:
        with torch.inference_mode(False), torch.no_grad():
            return model(input_ids=input_ids, use_cache=False).logits, None

    return logits


# --- results --------------------------------------------------------------------------------


def _write_result(trainer: _Trainer, job: _Job, out: Path) -> None:
    """Write the finished run beside its checkpoints, then give it its name and remove them."""
    weights = trainer.accelerator.get_state_dict(trainer.model_wrapped)  # gathers what is sharded
    if not _speaks():
        return
    folder = _partial(out) / "result"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    model = trainer.accelerator.unwrap_model(trainer.model)
    model.config, model.generation_config = trainer.course.configs
    model.save_pretrained(folder, state_dict=weights)
    job.tokenizer.save_pretrained(folder)
    history = trainer.state.log_history
    _log_table(history, trainer.course).to_csv(folder / _LOG, index=False)
    if job.tasks:
        _held_out_table(history, job.tasks).to_csv(folder / _HELD_OUT, index=False)
    _write_json(folder / _RUN, {"run": job.identity()} | job.provenance())
    folder.rename(out)
    shutil.rmtree(_partial(out), ignore_errors=True)


def _log_table(history: Sequence[dict[str, Any]], course: _Course) -> pd.DataFrame:
    rows: dict[int, dict[str, Any]] = {}
    for entry in history:
        row = rows.setdefault(entry["step"], {"step": entry["step"], "num_tokens": 0})
        if "loss" in entry:
            row |= {key: entry[key] for key in ("loss", "learning_rate", "grad_norm", "seconds")}
            row["num_tokens"] = course.num_tokens(entry["step"])
        elif "held_out" in entry:
            scores = np.array([[galp, lalp] for galp, lalp, _ in entry["held_out"]], float)
            row["global_nll"], row["local_nll"] = -_mean_known(scores)
    table = pd.DataFrame([rows[step] for step in sorted(rows)]).reindex(columns=_LOG_COLUMNS)
    table["epoch"] = table["step"] * course.job.recipe.epochs / len(course.steps)
    return table


def _mean_known(scores: Float[np.ndarray, "responses 2"]) -> Float[np.ndarray, "2"]:
    """Column means over the responses that have a score; NaN where none has."""
    return pd.DataFrame(scores).mean().to_numpy()


def _held_out_table(
    history: Sequence[dict[str, Any]], tasks: Mapping[str, tuple[str, Task]]
) -> pd.DataFrame:
    rows = [
        (entry["step"], prompt_id, response_id, *scores)
        for entry in _measurements(history)
        for (response_id, (prompt_id, _)), scores in zip(
            tasks.items(), entry["held_out"], strict=True
        )
    ]
    columns = ["step", "prompt_id", "response_id", "galp", "lalp", "reason"]
    return pd.DataFrame(rows, columns=columns)


# Read on import: an edit on disk changes nothing of what this process runs.
_CODE = hashlib.sha256(code_of("training").encode()).hexdigest()[:20]
