"""Pools that do not fit into memory, as real processes with little of it."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MEMORY = 3 << 29  # 1.5 GiB of address space


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (4 << 30, "large.jsonl: has 4.0 GiB, more than the memory of 1.5 GiB: cut it into several"),
        (5 << 28, "not enough memory: give a smaller file"),  # one line of 1.25 GiB
    ],
)
def test_a_pool_larger_than_memory_ends_in_a_line(size, said, tmp_path):
    with (tmp_path / "large.jsonl").open("wb") as file:
        file.write(b'{"response": "')
        file.truncate(size)  # a hole: it takes no place on the disk
    done = subprocess.run(
        [sys.executable, "-m", "lalp.cli", "check", str(tmp_path / "large.jsonl")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY)),
    )
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
