"""`lalp show`, on a table written by `lalp score`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import build_student

from lalp.pools.reading import load_pool
from lalp.scoring.run import score
from lalp.scoring.table import write_scores

TEXTS = {"Ada": "We add. So the sum is 7. 🙂", "Bob": "Add 3 & 4. Then x = 7."}
RECORDS = [
    {"prompt_id": "p1", "prompt": "What is 3 + 4?", "teacher": teacher, "response": text}
    for teacher, text in TEXTS.items()
]


@pytest.fixture(scope="module")
def tables(tokenizer, tmp_path_factory) -> dict[str, Path]:
    """Score tables of a tiny student: with tokens at one and two windows, and without tokens."""
    folder = tmp_path_factory.mktemp("show")
    student, pool = build_student("llama", tokenizer), load_pool(RECORDS)
    kinds = {"one": (["0"], True), "two": (["0", "1"], True), "bare": (["0"], False)}
    options = {"store": folder / "shards", "progress": False}
    for name, (windows, with_tokens) in kinds.items():
        frame = score(pool, student, windows, with_tokens=with_tokens, **options)
        write_scores(frame, pool, folder / f"{name}.parquet")
    return {name: folder / f"{name}.parquet" for name in kinds}


def test_a_page_is_written(lalp, tables, tmp_path):
    out = tmp_path / "new" / "page.html"
    options = ["--response-id", "p1/Bob/0", "--out", out]
    done = lalp("show", tables["one"], *options)
    assert (done.code, done.err) == (0, f"lalp: heat map of p1/Bob/0: {out}\n")
    page = out.read_text(encoding="utf-8")
    assert "p1/Bob/0" in page and "(window 0)" in page and "&amp;" in page
    lalp("show", tables["two"], *options, "--window", "1")
    assert "(window 1)" in out.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("one", ["--response-id", "p1/Bo/0"], "did you mean 'p1/Bob/0'"),
        ("one", ["--response-id", "p1/Bob/0", "--window", "4"], "window 4 is not in it, but 0"),
        ("two", ["--response-id", "p1/Bob/0"], "windows 0, 1: name one with --window"),
        ("bare", ["--response-id", "p1/Bob/0"], "no token columns"),
    ],
)
def test_what_cannot_be_shown_is_refused(refused, tables, tmp_path, name, arguments, message):
    refused(message, "show", tables[name], *arguments, "--out", tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_page_or_no_table_is_refused(refused, tables, tmp_path):
    command = ["show", tables["one"], "--response-id", "p1/Bob/0", "--out"]
    refused("give a name in .html", *command, tables["two"])
    command[1] = tmp_path / "pool.jsonl"
    command[1].write_text(json.dumps(RECORDS[0]))
    refused(f"{command[1]}: not a readable score table", *command, tmp_path / "page.html")
