"""Sound inputs of every command: what the damages start from."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tests.tiny import train_tokenizer, write_gguf

TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
TEXTS = {
    "What is 3 + 4?": ["We add. So the sum is 7.", "It is 8.", "Let us check: 3 + 4 = 7."],
    "What is 2 + 5?": ["First, add. So 7. é 🙂", "It is 7.", "Then x = 7.\n\nYes."],
    "What is 6 + 1?": ["The sum is 7.", "Add 1. Therefore 7.", "x = 7. So it is 7."],
}
RECORDS = [
    {
        "prompt_id": f"p{n}",
        "prompt": asked,
        "teacher": teacher,
        "response": text,
        "response_id": f"p{n}/{teacher}/0",
        "answer": "7",
        "correct": "7" in text,
    }
    for n, (asked, texts) in enumerate(TEXTS.items(), 1)
    for teacher, text in zip(("Ada", "Bob", "Eve"), texts, strict=True)
]
RECIPE = {
    "learning_rate": 1e-3,
    "epochs": 1,
    "batch_size": 2,
    "gradient_accumulation": 1,
    "schedule": "linear",
    "warmup_ratio": 0.1,
    "max_length": 64,
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
    "bf16": False,
    "gradient_checkpointing": False,
}


def write_lines(path: Path, records: list[dict]) -> None:
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    path.write_text(text, encoding="utf-8")


def tiny_student(folder: Path, seed: int = 0) -> None:
    """A Llama of 40,000 random weights and a byte-level tokenizer, in a folder."""
    texts = [text for texts in TEXTS.values() for text in texts]
    tokenizer = train_tokenizer(texts, 300, TEMPLATE)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.3,
        eos_token_id=3,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def tiny_gguf(student: Path, path: Path) -> None:
    """The student of a folder in llama.cpp's file format, unquantized."""
    model = LlamaForCausalLM.from_pretrained(student, dtype=torch.float32)
    write_gguf(model, PreTrainedTokenizerFast.from_pretrained(student), path)


def make_foreign(folder: Path) -> None:
    """The records in layouts that others write."""
    chats = [
        {
            "messages": [
                {"role": "user", "content": record["prompt"]},
                {"role": "assistant", "reasoning_content": "So.", "content": record["response"]},
            ],
            "model": record["teacher"],
            "source": {"name": "mine", "level": 3},
        }
        for record in RECORDS
    ]
    write_lines(folder / "chats.jsonl", chats)
    call = {"id": "c", "type": "function", "function": {"name": "add", "arguments": '{"a": 3}'}}
    traces = [
        {
            "messages": [
                {"role": "user", "content": record["prompt"]},
                {"role": "assistant", "content": "We add.", "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "c", "content": "7"},
                {"role": "assistant", "content": record["response"]},
            ],
            "tools": [{"type": "function", "function": {"name": "add", "parameters": {}}}],
            "teacher": record["teacher"],
        }
        for record in RECORDS
    ]
    write_lines(folder / "traces.jsonl", traces)
    many = [
        {"problem": asked, "generations": texts, "correctness_math_verify": [True, False, True]}
        for asked, texts in TEXTS.items()
    ]
    write_lines(folder / "many.jsonl", many)
    frame = pd.DataFrame(RECORDS)
    frame[["prompt", "response"]].to_csv(folder / "sheet.csv", index=False)
    (folder / "packed.jsonl.gz").write_bytes(gzip.compress((folder / "pool.jsonl").read_bytes()))
    listed = [{"instruction": r["prompt"], "output": r["response"], "input": ""} for r in RECORDS]
    (folder / "list.json").write_text(json.dumps(listed, ensure_ascii=False), encoding="utf-8")
    (folder / "shards").mkdir()
    for number in range(3):
        part = frame[3 * number : 3 * number + 3]
        part.to_parquet(folder / "shards" / f"{number}.parquet", index=False)


def make_good(folder: Path, run: Callable[..., None], *, light: bool = False) -> None:
    """Write every input into ``folder``; ``run`` runs one command line of lalp there.

    ``light`` leaves out what only commands with a student read.
    """
    folder.mkdir(parents=True)
    tiny_student(folder / "student")
    write_lines(folder / "pool.jsonl", RECORDS)
    pd.DataFrame(RECORDS).to_parquet(folder / "pool.parquet", index=False)
    for name in ("more", "held"):
        ids = {"prompt_id": name, "response_id": f"{name}/Zoe/0", "teacher": "Zoe"}
        write_lines(folder / f"{name}.jsonl", [RECORDS[0] | ids | {"prompt": "What is 5 + 2?"}])
    make_foreign(folder)
    prompts = [{k: r[k] for k in ("prompt_id", "prompt", "answer")} for r in RECORDS[::3]]
    write_lines(folder / "prompts.jsonl", prompts)
    pd.DataFrame(prompts).to_parquet(folder / "prompts.parquet", index=False)
    lines = [f"{key}: {json.dumps(value)}\n" for key, value in RECIPE.items()]
    (folder / "recipe.yaml").write_text("".join(lines), encoding="utf-8")
    (folder / "instruction.txt").write_text("Cut {solution} of {problem}.\n", encoding="utf-8")
    (folder / "data").mkdir()
    problems = [{"question": f"What is {n} + 1?", "answer": float(n + 1)} for n in range(4)]
    write_lines(folder / "data" / "amc.jsonl", problems)
    run("segment", "pool.jsonl", "--out", "steps.jsonl")
    how = ("--student", "student", "--window", "2", "--quiet", "--tokens")
    run("score", "pool.jsonl", *how, "--out", "scores.parquet")
    run("select", "scores.parquet", "--rule", "galp", "--out", "lines.jsonl")
    how = ("--max-tokens", "4", "--quiet", "--workers", "1")
    for name, seed in (("a", 0), ("b", 1)):
        own = ("--preset", "table7-sampled", "--num-samples", "2", "--seed", seed)
        bench = ("--benchmark", "prompts.jsonl", "--out", f"{name}.parquet")
        run("eval", "--model", "student", *bench, *own, *how)
    if light:
        return
    run("select", "scores.parquet", "--rule", "galp", "--out", "train.jsonl")
    tiny_gguf(folder / "student", folder / "tiny.gguf")
    # Scores of another student, to be put in the place of ours.
    tiny_student(folder / "other", seed=1)
    how = ("--student", "other", "--window", "2", "--quiet", "--tokens", "--store", "foreign")
    run("score", "pool.jsonl", *how, "--out", "foreign.parquet")
