"""A pool that is larger than memory is read from a file, and everything comes out the same."""

from __future__ import annotations

import tempfile

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from lalp.errors import InputError
from lalp.pools import importing, spool
from lalp.pools.pool import Message, pool_summary
from lalp.pools.reading import load_pool
from lalp.pools.spool import is_spooled, response_facts
from lalp.pools.writing import save_pool
from lalp.scoring.run import score
from lalp.scoring.table import load_scores, write_scores
from lalp.steps.splitters import split_pool, write_steps
from lalp.students.thinking import shape_thinking
from tests.pools.builders import jsonl

RECORDS = [
    {
        "prompt_id": f"p{n % 5}",
        "prompt": f"What is {n % 5} + 3?",
        "teacher": "AB"[n // 10],
        "response": f"<think>\nWe add {n}. Then we check.\n</think>\n\nSo it is {n}. Done.",
        "correct": [True, False, None][n % 3],
        "answer": "7" if n % 5 == 1 else None,
        "note": {"n": n} if n % 2 else [n],
        "source": "mine",
    }
    for n in range(20)
]


@pytest.fixture
def pool_file(tmp_path):
    path = tmp_path / "pool.jsonl"
    path.write_bytes(jsonl(*RECORDS))
    return path


@pytest.fixture
def both(pool_file, monkeypatch):
    """The pool in memory, and the same one in a file."""
    held = load_pool(pool_file)
    monkeypatch.setattr(spool, "LIMIT", 400)  # after some records
    spooled = load_pool(pool_file)
    assert is_spooled(spooled.responses) and not is_spooled(held.responses)
    return held, spooled


def test_what_is_read_is_the_same(both):
    held, spooled = both
    assert tuple(spooled.responses) == held.responses and dict(spooled.prompts) == held.prompts
    assert spooled.responses[-1] == held.responses[-1]
    assert spooled.responses[3:9:2] == list(held.responses[3:9:2])
    assert list(response_facts(spooled.responses)) == list(response_facts(held.responses))
    assert pool_summary(spooled) == pool_summary(held)
    with pytest.raises(IndexError):
        spooled.responses[20]


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_what_is_written_is_the_same(both, tmp_path, suffix):
    paths = [tmp_path / f"{name}.{suffix}" for name in ("held", "spooled")]
    for pool, path in zip(both, paths, strict=True):
        save_pool(pool, path)
    assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize("splitter", ["sentences", "paragraphs", "3t"])
def test_steps_are_the_same(both, tokenizer, tmp_path, splitter):
    written = []
    for pool in both:
        steps = split_pool(pool, splitter, tokenizer=tokenizer)
        counted = write_steps(tmp_path / "steps.jsonl", pool, steps)
        assert counted == sum(map(len, steps.values())) and len(steps) == 20
        written.append((tmp_path / "steps.jsonl").read_bytes())
    assert written[0] == written[1]


@pytest.mark.parametrize("splitter", ["sentences", "given"])
def test_scores_are_the_same(both, llama, tmp_path, splitter):
    tables = []
    for name, pool in zip(("held", "spooled"), both, strict=True):
        shaped = shape_thinking(pool, "drop")
        how = {"store": tmp_path / name, "progress": False, "with_tokens": True}
        given = dict(split_pool(shaped, "sentences")) if splitter == "given" else splitter
        frame = score(shaped, llama, ["1"], splitter=given, **how)
        again = score(shaped, llama, ["1"], splitter=given, **how)  # of the store
        pd.testing.assert_frame_equal(again, frame)
        write_scores(frame, shaped, tmp_path / f"{name}.parquet")
        tables.append(load_scores(tmp_path / f"{name}.parquet"))
    held, spooled = tables
    pd.testing.assert_frame_equal(spooled, held)
    assert held["response"].str.startswith("So it is").all() and np.isfinite(held["galp"]).all()
    assert held.attrs["student"] == "llama"


@pytest.mark.parametrize("limit", ["ROWS_PER_BATCH", "_BATCH_CHARACTERS"])
def test_a_table_is_written_some_rows_at_a_time(both, llama, tmp_path, monkeypatch, limit):
    frame = score(both[1], llama, ["1"], store=tmp_path / "store", progress=False)
    write_scores(frame, both[1], tmp_path / "at_once.parquet")
    # The first rows have no answer, and fields of one kind only.
    monkeypatch.setattr(f"lalp.scoring.table.{limit}", 1)
    write_scores(frame, both[1], tmp_path / "one_by_one.parquet")
    assert pq.ParquetFile(tmp_path / "one_by_one.parquet").num_row_groups == len(frame)
    tables = [load_scores(tmp_path / f"{name}.parquet") for name in ("at_once", "one_by_one")]
    pd.testing.assert_frame_equal(*tables)
    assert tables[0]["answer"].dropna().tolist() == ["7"] * 4


def test_conflicts_are_found_and_thoughts_checked(both, tmp_path):
    path = tmp_path / "twice.jsonl"
    path.write_bytes(jsonl(*RECORDS, RECORDS[0] | {"prompt": "Another?"}))
    with pytest.raises(InputError, match="line 21: the prompt differs from that of line 1"):
        load_pool(path)
    changed = shape_thinking(both[1], "only")
    assert changed.responses[0].text == "<think>\nWe add 0. Then we check.\n</think>"
    with pytest.raises(InputError, match="has no thought"):
        shape_thinking(shape_thinking(both[1], "drop"), "only").responses[0]


def test_prompts_may_be_changed_and_removed(both):
    prompts = both[1].prompts
    prompts["p1"] = prompts["p1"].__class__("p1", (Message("user", "New?"),))
    assert prompts["p1"].messages[0].content == "New?" and len(prompts) == 5
    del prompts["p1"]
    assert "p1" not in prompts and list(prompts) == ["p0", "p2", "p3", "p4"]


def test_the_file_has_no_name(both, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "own"))
    (tmp_path / "own").mkdir()
    pool = load_pool(tmp_path / "pool.jsonl")
    assert is_spooled(pool.responses) and not list((tmp_path / "own").iterdir())


def test_a_small_file_of_endless_texts_is_refused(tmp_path, monkeypatch):
    import gzip

    monkeypatch.setattr(importing, "_LEAST", 10_000)
    path = tmp_path / "bomb.jsonl.gz"
    record = RECORDS[0] | {"response": "We add. " * 500}
    lines = [record | {"response_id": str(n)} for n in range(1000)]
    path.write_bytes(gzip.compress(jsonl(*lines), 9))
    with pytest.raises(InputError, match="holds more than 200 times as much as its own size"):
        load_pool(path)
