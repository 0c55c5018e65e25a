"""Pools that do not fit into memory, as real processes with little of it."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parents[2]
MEMORY = 3 << 29  # 1.5 GiB of address space


def test_a_line_that_would_fill_the_memory_is_no_record(tmp_path):
    with (tmp_path / "large.jsonl").open("wb") as file:
        file.write(b'{"response": "')
        file.truncate(4 << 30)  # a hole: it takes no place on the disk
    said = "large.jsonl, line 1: is longer than 256 MiB, which no record is"
    assert said in refusal("check", tmp_path / "large.jsonl")


@pytest.mark.parametrize("command", ["check", "unsolved"])
def test_a_small_table_that_fills_the_memory_is_named(command, tmp_path):
    """100 kB, for its rows share a text of a megabyte; each row is a text of its own when read."""
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 3000), pa.array(["x" * 1_000_000]))
    columns = {"prompt_id": pa.array(map(str, range(3000))), "prompt": texts}
    columns |= {"teacher": pa.array(["Ada"] * 3000), "response": texts}
    path = tmp_path / "bomb.parquet"
    pq.write_table(pa.table(columns), path)
    more = [path, "--out", tmp_path / "out.jsonl"] if command == "unsolved" else []
    # Whichever comes first: a thousand rows are read at once.
    said = "bomb.parquet: (holds more than 200 times as much as its own|not enough memory to read)"
    assert re.search(said, refusal(command, path, *more))


def refusal(*words: str | Path) -> str:
    """What a process with little memory says when it ends."""
    done = subprocess.run(
        [sys.executable, "-m", "lalp.cli", *map(str, words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY)),
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    return done.stderr
