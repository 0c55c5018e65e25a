"""Export to LLaMA-Factory, checked against the files of its package, which are only read."""

from __future__ import annotations

import ast
import copy
import json
import typing
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
import yaml
from pydantic import ConfigDict, create_model
from transformers import HfArgumentParser, Seq2SeqTrainingArguments

from lalp.errors import InputError
from lalp.pools.pool import Message, Pool, Prompt, Response
from lalp.pools.writing import write_training
from lalp.training.llamafactory import FORMATS, export_llamafactory
from lalp.training.recipes import RECIPES
from tests.training.conftest import llamafactory_file, save

CHATML = (
    "{% if messages[0].role != 'system' and DEFAULT %}"
    "<|im_start|>system\n{{ DEFAULT }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)


def pair(name: str, response: str, *turns: tuple[str, str]) -> tuple[Prompt, Response]:
    prompt = Prompt(name, tuple(Message(*turn) for turn in turns))
    return prompt, Response(f"r{name[1:]}", name, "Ada", response)


PAIRS = [
    pair("p0", "We add. So 2.", ("user", "What is 1 + 1?")),
    pair("p1", "4.", ("system", "Be brief."), ("user", "2 + 2?")),
    pair("p2", "10.", ("user", "3 + 3?"), ("assistant", "6"), ("user", "And {} 4?")),
]
POOL = Pool({p.prompt_id: p for p, _ in PAIRS}, tuple(r for _, r in PAIRS))


def chatml(default: str) -> str:
    return CHATML.replace("DEFAULT", f"'{default}'")


@pytest.fixture(scope="module")
def make(llama, tmp_path_factory):
    """A student's folder with a chat template of choice."""

    def saved(template: str | None, name: str = "student", **tokens: str) -> str:
        copied = copy.deepcopy(llama.tokenizer)
        copied.add_special_tokens(tokens)
        copied.chat_template = template
        folder = tmp_path_factory.mktemp("students") / name
        return save(replace(llama, tokenizer=copied), folder)

    return saved


@pytest.fixture(scope="module")
def student(make) -> str:
    return make(chatml("Think."))


def exported(student: str, out: Path, pairs=PAIRS, **options) -> tuple[dict, dict]:
    """What the call returns, and the settings it wrote."""
    result = export_llamafactory(pairs, student, out, RECIPES["paper"], **options)
    return result, yaml.safe_load((out / "train.yaml").read_text())


# --- LLaMA-Factory's own files ----------------------------------------------------------------


def tree_of(name: str) -> ast.Module:
    return ast.parse(llamafactory_file(name).read_text(encoding="utf-8"))


def own_arguments() -> dict[str, str]:
    """Annotations of the argument dataclasses' fields, by name."""
    names = ("data_args", "finetuning_args", "generating_args", "model_args", "training_args")
    return {
        item.target.id: ast.unparse(item.annotation)
        for name in names
        for node in tree_of(f"hparams/{name}.py").body
        if isinstance(node, ast.ClassDef) and node.name != "RayArguments"
        for item in node.body
        if isinstance(item, ast.AnnAssign)
    }


def test_every_setting_is_an_argument_of_its_type(student, tmp_path):
    recipe = replace(RECIPES["paper"], warmup_ratio=0.1)
    export_llamafactory(PAIRS, student, tmp_path, recipe, trust_remote_code=True)
    settings = yaml.safe_load((tmp_path / "train.yaml").read_text())
    types = {key: (own, ...) for key, own in own_arguments().items() if key in settings}
    arguments = create_model("Arguments", __config__=ConfigDict(strict=True), **types)
    arguments.model_rebuild(_types_namespace=vars(typing))
    arguments(**{key: settings[key] for key in types})
    # transformers checks the others itself; DeepSpeed and a GPU are not here.
    rest = {key: v for key, v in settings.items() if key not in {*types, "deepspeed", "bf16"}}
    (parsed,) = HfArgumentParser(Seq2SeqTrainingArguments).parse_dict(rest | {"use_cpu": True})
    assert parsed.learning_rate == 5e-6
    assert parsed.get_warmup_steps(50) == 5


def registered() -> dict[str, dict[str, ast.expr]]:
    """The arguments of each ``register_template`` call, by the template's name."""
    calls = [
        {keyword.arg: keyword.value for keyword in node.value.keywords}
        for node in tree_of("data/template.py").body
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Call)
        and getattr(node.value.func, "id", None) == "register_template"
    ]
    return {ast.literal_eval(call["name"]): call for call in calls}


def slots(call: dict[str, ast.expr], name: str) -> list:
    if name not in call:
        return []
    (keyword,) = call[name].keywords
    return ast.literal_eval(keyword.value)


@pytest.mark.parametrize("name", FORMATS)
def test_formats_are_those_of_its_registry(name):
    call, form = registered()[name], FORMATS[name]
    assert slots(call, "format_user") == [form.user.replace("{}", "{{content}}")]
    assert slots(call, "format_system") == [form.system.replace("{}", "{{content}}")]
    assert slots(call, "format_assistant") == ["{{content}}" + form.end]
    assert slots(call, "format_prefix") == ([{"bos_token"}] if form.begins else [])
    default = ast.literal_eval(call["default_system"]) if "default_system" in call else ""
    assert default == form.default_system
    # Another class, or another place for the end of sequence, would write chats differently.
    assert not {"template_class", "efficient_eos"} & set(call)


# --- what is written --------------------------------------------------------------------------


def test_the_papers_settings(student, tmp_path):
    recipe = replace(RECIPES["paper-32b"], max_length=400)
    export_llamafactory(PAIRS, student, tmp_path, recipe, seed=7)
    settings = yaml.safe_load((tmp_path / "train.yaml").read_text())
    common = yaml.safe_load(files("lalp.training").joinpath("llamafactory.yaml").read_text())
    assert settings == common["settings"] | {
        **{"model_name_or_path": student, "template": "qwen", "default_system": "Think."},
        **{"cutoff_len": 400, "num_train_epochs": 15.0, "seed": 7, "bf16": True},
        **{"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8},
        **{"learning_rate": 5e-6, "lr_scheduler_type": "cosine"},
        **{"weight_decay": 0.0, "max_grad_norm": 1.0, "disable_gradient_checkpointing": False},
    }
    # Longer than the student's positions is cut there.
    assert exported(student, tmp_path)[1]["cutoff_len"] == 512


def test_data_and_deepspeed_files(student, tmp_path):
    exported(student, tmp_path / "new/out")
    write_training(POOL, ["r0", "r1", "r2"], tmp_path / "plain", "llamafactory")
    for name in ("train.json", "dataset_info.json"):
        written, plain = (tmp_path / folder / name for folder in ("new/out", "plain"))
        assert written.read_bytes() == plain.read_bytes()
    config = json.loads((tmp_path / "new/out/zero3.json").read_text())
    assert config["zero_optimization"]["stage"] == 3


# --- the chat format --------------------------------------------------------------------------

QWEN = FORMATS["qwen"].default_system


@pytest.mark.parametrize(
    ("template", "folder", "found", "default"),
    [
        (chatml(QWEN), "x", "qwen", None),
        (chatml("Think."), "x", "qwen", "Think."),
        (chatml("Think."), "smollm2-mine", "smollm2", "Think."),
        (chatml(""), "x", "qwen", ""),
        (LLAMA3, "x", "llama3", None),
    ],
)
def test_the_format_is_found(template, folder, found, default, make, tmp_path):
    student = make(template, folder, bos_token="<|user|>")
    result, settings = exported(student, tmp_path)
    assert settings["template"] == result["template"] == found
    assert settings.get("default_system") == default
    assert ("default_system" in settings) == (default is not None)
    # So LLaMA-Factory writes what LALP scores, with system messages and earlier turns.
    assert result["num_different"] == 0


def test_prompts_that_would_be_written_differently_are_counted(make, tmp_path):
    day = "{% if m.role == 'system' %}Day 1. {% endif %}{{ m.content }}"
    dated = LLAMA3.replace("{{ m.content }}", day)
    student = make(dated, bos_token="<|user|>")
    assert exported(student, tmp_path)[0]["num_different"] == 1  # the one with a system message


def test_a_thought_is_opened_once_and_a_turn_ended_once(make, tmp_path):
    template = chatml("Think.").replace("assistant\n{% endif", "assistant\n<think>\n{% endif")
    texts = ["<think>\nWe add.</think>2.", "We add.</think>2.", "<think>\nWe add.</think>2.<|end|>"]
    pairs = [pair(f"p{i}", text, ("user", "1 + 1?")) for i, text in enumerate(texts)]
    result, settings = exported(make(template), tmp_path, pairs)
    assert (settings["template"], result["num_different"]) == ("qwen", 0)
    records = json.loads((tmp_path / "train.json").read_text())
    assert {record["messages"][-1]["content"] for record in records} == {texts[0]}


@pytest.mark.parametrize("template", [None, "own"])
def test_a_student_of_another_format(template, make, llama, tmp_path):
    student = make(template and llama.tokenizer.chat_template)
    with pytest.raises(InputError, match=r"chat template is none of qwen, .*: give --template"):
        exported(student, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    # A name is taken at the user's word, and what differs is counted where the format is known.
    for name, different in (("gemma", None), ("qwen", 3)):
        result, settings = exported(student, tmp_path / "out", template=name)
        assert (settings["template"], result["num_different"]) == (name, different)


def test_data_that_llamafactory_would_skip(student, tmp_path):
    prompt = Prompt("p", (Message("user", "1?"), Message("user", "2?")))
    with pytest.raises(InputError, match="needs user and assistant in turn"):
        exported(student, tmp_path, [(prompt, Response("r", "p", "Ada", "3"))])


# --- the command ------------------------------------------------------------------------------


def test_the_command(student, tmp_path, lalp):
    write_training(POOL, ["r2", "r0"], tmp_path / "train.jsonl", "messages")
    options = ("--student", student, "--recipe", "terciles", "--out", tmp_path / "out")
    said = lalp("export", "llamafactory", tmp_path / "train.jsonl", *options)
    assert said.code == 0
    assert "lalp: 2 examples, template qwen" in said.err
    assert "FORCE_TORCHRUN=1 llamafactory-cli train train.yaml" in said.err
    assert "written in another way" not in said.err
    records = json.loads((tmp_path / "out/train.json").read_text())
    assert [record["response_id"] for record in records] == ["r2", "r0"]
    assert yaml.safe_load((tmp_path / "out/train.yaml").read_text())["num_train_epochs"] == 5
