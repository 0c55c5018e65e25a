"""Reading prompts: JSON lines, Parquet, and the prompts of a pool."""

import json
from pathlib import Path

import pandas as pd
import pytest

from lalp.errors import InputError
from lalp.pools.pool import Message, Prompt
from lalp.pools.prompts import load_prompts
from lalp.pools.reading import load_pool
from lalp.pools.writing import save_pool


def write_lines(path: Path, records: list) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


RECORDS = [
    {"prompt_id": "a", "prompt": "3 + 4?", "answer": 7},
    {"prompt_id": "b", "prompt": [{"role": "user", "content": "Why?"}], "level": 3},
]
READ = [Prompt("a", (Message("user", "3 + 4?"),), "7"), Prompt("b", (Message("user", "Why?"),))]


def test_prompts_of_json_lines_and_parquet(tmp_path):
    assert load_prompts(write_lines(tmp_path / "p.jsonl", RECORDS)) == READ
    chats = [dict(r, prompt=[{"role": "user", "content": p.messages[0].content}]) for r, p in
             zip(RECORDS, READ, strict=True)]  # fmt: skip
    pd.DataFrame(chats).to_parquet(tmp_path / "p.parquet")
    assert load_prompts(tmp_path / "p.parquet") == READ


def test_the_prompts_of_a_pool(tmp_path):
    rows = [dict(RECORDS[i], teacher=t, response=f"by {t}") for t in "AB" for i in (0, 1)]
    assert load_prompts(write_lines(tmp_path / "pool.jsonl", rows)) == READ
    pool = load_pool(tmp_path / "pool.jsonl")
    save_pool(pool, tmp_path / "pool.parquet")
    assert load_prompts(tmp_path / "pool.parquet") == READ
    chat = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
    (prompt,) = load_prompts(write_lines(tmp_path / "chat.jsonl", [{"messages": chat}]))
    assert prompt.messages == (Message("user", "Why?"),)


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([RECORDS[0], RECORDS[0]], r"line 2: prompt_id 'a' is already taken by line 1"),
        ([{"prompt": "Why?"}], r"p.jsonl, line 1: field 'prompt_id' is missing"),
        ([{"prompt_id": "a"}], r"line 1: field 'prompt' is missing"),
        ([{"prompt_id": "a", "prompt": " "}], r"field 'prompt' is empty"),
        ([RECORDS[0], [1]], r"line 2: must be an object"),
        ([dict(RECORDS[0], answer=[7])], r"field 'answer' must be text"),
        (
            [dict(RECORDS[0], teacher="A", response="7", answer=n) for n in (7, 8)],
            r"line 2: field 'answer' is '8', but '7' on line 1 for the same prompt_id 'a'",
        ),
        (
            [dict(RECORDS[0], teacher="A", response="7", prompt=p) for p in ("x", "y")],
            r"line 2: the prompt differs from that of line 1",
        ),
        ([], "no prompts"),
    ],
)
def test_prompts_that_cannot_be_used(records, said, tmp_path):
    with pytest.raises(InputError, match=said):
        load_prompts(write_lines(tmp_path / "p.jsonl", records))


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match=r"none\.jsonl: no such file"):
        load_prompts(tmp_path / "none.jsonl")
    (tmp_path / "p.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match="broken or not a Parquet file"):
        load_prompts(tmp_path / "p.parquet")
    (tmp_path / "p.csv").write_text("prompt_id,prompt\n")
    with pytest.raises(InputError, match=r"p\.csv"):
        load_prompts(tmp_path / "p.csv")
