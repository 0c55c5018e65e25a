"""Export to LLaMA-Factory, the paper's trainer: the data, its settings, and DeepSpeed's.

LLaMA-Factory does not use the student's chat template, but its own named formats. A comparison of
texts finds the one that fits, because training texts should be the texts that LALP scores.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from lalp.errors import InputError
from lalp.files import PACKAGE, read_data, write_text
from lalp.pools.pool import Message, Pool, Prompt, Response
from lalp.pools.writing import write_training
from lalp.students.encoding import end_of_turn, opened_thought, own_span, render_prompt
from lalp.students.student import find_student
from lalp.students.thinking import join_as_student
from lalp.training.examples import TrainingData, load_examples
from lalp.training.recipes import Recipe


@dataclass(frozen=True)
class Format:
    """How LLaMA-Factory writes a chat; ``llamafactory.yaml`` explains each field."""

    begins: bool
    system: str
    user: str
    end: str
    default_system: str


_DATA = read_data("training/llamafactory.yaml")
FORMATS = {name: Format(**form) for name, form in _DATA["formats"].items()}


def export_llamafactory(
    data: TrainingData,
    student: str,
    out: str | os.PathLike,
    recipe: Recipe,
    *,
    template: str | None = None,
    seed: int = 0,
    trust_remote_code: bool = False,
) -> dict[str, Any]:
    """Write a folder to train in: ``FORCE_TORCHRUN=1 llamafactory-cli train train.yaml``.

    It holds ``train.json``, ``dataset_info.json``, ``train.yaml`` and ``zero3.json``. ``template``
    is LLaMA-Factory's name of the chat format, found if not given; the other arguments are those of
    `lalp.training.trainer.train`. InputError if no format fits the student.

    Returns:
        ``template``, ``num_examples``, and ``num_different``: how many of their prompts
        LLaMA-Factory writes differently from the student's chat template (None: unknown).
    """
    found = find_student(student, trust_remote_code=trust_remote_code)
    tokenizer = found.tokenizer
    pairs = [
        (prompt, _as_written(tokenizer, prompt, response))
        for prompt, response in load_examples(data)
    ]
    name, default_system = _find_template(tokenizer, student, template)
    form, different = FORMATS.get(name), None
    if form is not None:
        different = sum(
            _chat_text(form, default_system, tokenizer, prompt)
            != _before_response(render_prompt(tokenizer, prompt))
            for prompt, _ in pairs
        )
    # Cut as in `lalp train`.
    recipe = replace(recipe, max_length=min(recipe.max_length, found.max_positions))
    source = found.source
    settings = _DATA["settings"] | {
        "model_name_or_path": str(Path(source).resolve()) if Path(source).is_dir() else source,
        "num_train_epochs": float(recipe.epochs),
        "disable_gradient_checkpointing": not recipe.gradient_checkpointing,
        **{its_name: getattr(recipe, field) for its_name, field in _DATA["recipe"].items()},
        "warmup_steps": recipe.warmup_ratio or None,  # below 1: a share of all steps
        "template": name,
        "seed": seed,
        "default_system": default_system,
        "trust_remote_code": trust_remote_code or None,
    }
    settings = {key: value for key, value in settings.items() if value is not None}
    out = Path(out)
    pool = Pool({prompt.prompt_id: prompt for prompt, _ in pairs}, tuple(r for _, r in pairs))
    write_training(pool, [response.response_id for _, response in pairs], out, "llamafactory")
    write_text(out / "train.yaml", yaml.safe_dump(settings, sort_keys=False))
    deepspeed = (PACKAGE / "training/accelerate/zero3.json").read_text("utf-8")
    write_text(out / "zero3.json", deepspeed)
    return {"template": name, "num_examples": len(pairs), "num_different": different}


def _find_template(
    tokenizer: PreTrainedTokenizerBase, student: str, given: str | None
) -> tuple[str, str | None]:
    """The format's name, and the default system message if the student's differs."""
    names = [name for name in FORMATS if given in (None, name)]
    found = {name: _default_system(tokenizer, FORMATS[name]) for name in names}
    fitting = {name: system for name, system in found.items() if system is not None}
    if given is not None and not fitting:  # trust the user
        return given, None
    if not fitting:
        known, advice = ", ".join(FORMATS), "give --template with LLaMA-Factory's name of it"
        raise InputError(f"student {student!r}: its chat template is none of {known}: {advice}")
    # Several names stand for one format: take one with the right default, else the student's.
    is_own = {name: fitting[name] == FORMATS[name].default_system for name in fitting}
    name = max(fitting, key=lambda name: (is_own[name], name in student.lower()))
    return name, None if is_own[name] else fitting[name]


def _default_system(tokenizer: PreTrainedTokenizerBase, form: Format) -> str | None:
    """The system message that the student's chat template adds itself; None: another format."""
    if not tokenizer.chat_template:
        return None
    prompt = Prompt("probe", (Message("user", "What is 1 + 1?"),))
    begin = re.escape((tokenizer.bos_token or "") if form.begins else "")
    opening, closing = map(re.escape, form.system.split("{}"))
    question = re.escape(form.user.format(prompt.messages[0].content))
    pattern = f"(?:{begin})?(?:{opening}(.*){closing})?{question}"
    text = _before_response(render_prompt(tokenizer, prompt))
    found = re.fullmatch(pattern, text, re.DOTALL)
    ends = tokenizer(form.end, add_special_tokens=False)["input_ids"]
    if found is None or end_of_turn(tokenizer) != tuple(ends):
        return None
    return found[1] or ""


def _as_written(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, response: Response) -> Response:
    """The response text that must be there: with the tag that opens its thought, without an end.

    LLaMA-Factory's formats do not open a thought as a student's template may, and they all write
    the end of the turn.
    """
    prompt_text = render_prompt(tokenizer, prompt)
    text = join_as_student(tokenizer, response.text)
    begin, end = own_span(tokenizer, prompt_text, text)
    return replace(response, text=opened_thought(prompt_text) + text[begin:end])


def _before_response(prompt_text: str) -> str:
    """A prompt's text without the tag that `_as_written` gives to the response."""
    return prompt_text.removesuffix(opened_thought(prompt_text))


def _chat_text(
    form: Format, default_system: str | None, tokenizer: PreTrainedTokenizerBase, prompt: Prompt
) -> str:
    """What LLaMA-Factory writes before the response."""
    default = form.default_system if default_system is None else default_system
    first = prompt.messages[0]
    system = (first.content if first.role == "system" else "") or default
    parts = [tokenizer.bos_token or ""] if form.begins else []
    parts += [form.system.replace("{}", system)] if system else []
    slots = {"user": form.user, "assistant": "{}" + form.end}
    parts += [slots[m.role].replace("{}", m.content) for m in prompt.messages if m.role in slots]
    return "".join(parts)
