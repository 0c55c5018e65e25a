"""A run that is killed at random moments ends with the same table, bit for bit."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import build_student

from lalp.scoring.table import load_scores
from tests.scoring.arithmetic import shards

NUM_PROMPTS, NUM_KILLS = 40, 10


@pytest.fixture
def start(tokenizer, tmp_path):
    """Starts `lalp score` of a pool that takes some seconds; the table and store get a name."""
    size = {"hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 4}
    build_student("llama", tokenizer, **size).model.save_pretrained(tmp_path / "student")
    tokenizer.save_pretrained(tmp_path / "student")
    lines = []
    for i, (k, teacher) in itertools.product(range(NUM_PROMPTS), enumerate(("A", "B", "C"), 1)):
        steps = [f"We add {i} and {j * k}. Then x = {i + j * k}." for j in range(1, 7)]
        record = {"prompt_id": f"p{i}", "prompt": f"Add to {i}.", "teacher": teacher}
        lines.append(json.dumps(record | {"response": " ".join(steps)}) + "\n")
    (tmp_path / "pool.jsonl").write_text("".join(lines), encoding="utf-8")
    command = [sys.executable, "-m", "lalp.cli", "score", "pool.jsonl", "--student", "./student"]
    command += ["--window", "1", "--window", "50%", "--tokens", "--quiet"]
    root = str(Path(__file__).parents[2])
    quiet = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": root}

    def start_run(name: str) -> subprocess.Popen:
        return subprocess.Popen(
            [*command, "--out", f"{name}.parquet", "--store", name],
            cwd=tmp_path,
            env=os.environ | quiet,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start_run


def finish(process: subprocess.Popen) -> str:
    _, messages = process.communicate(timeout=120)
    assert process.returncode == 0, messages
    return messages


def kill_at_random(process: subprocess.Popen, folder: Path, per_shard: float, seed: int) -> bool:
    """SIGKILL at a random moment after one or two new shards; False if it ended before."""
    generator = random.Random(seed)
    wanted = len(shards(folder)) + generator.choice([1, 1, 2])
    while len(shards(folder)) < wanted and process.poll() is None:
        time.sleep(0.002)
    time.sleep(generator.uniform(0, 1.2 * per_shard))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return process.returncode == -signal.SIGKILL


@pytest.mark.slow
def test_killed_at_random_it_ends_with_the_same_table_bit_for_bit(start, tmp_path):
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    finish(start("calm"))
    times = sorted(path.stat().st_mtime for path in shards(calm))
    assert len(times) == NUM_PROMPTS
    per_shard = (times[-1] - times[0]) / (NUM_PROMPTS - 1)

    partial = []
    for seed in range(NUM_KILLS):
        was_killed = kill_at_random(start("killed"), killed, per_shard, seed)
        for path in shards(killed):
            assert pq.read_table(path).num_rows == 3  # never half a shard
        if was_killed and len(shards(killed)) < NUM_PROMPTS:
            assert not (tmp_path / "killed.parquet").exists()
            partial.append(len(shards(killed)))
    assert len(partial) >= 7, partial
    assert partial == sorted(set(partial))  # each run went on where the one before was killed

    before = {path: path.stat().st_mtime_ns for path in shards(killed)}
    # What a kill in the middle of writing leaves behind.
    for path in before:
        path.with_name(f"{path.name}.1-00.tmp").write_bytes(path.read_bytes()[:500])
    assert "scoring again" not in finish(start("killed"))
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert load_scores(tmp_path / "killed.parquet")["galp"].notna().all()
    files = [[tmp_path / f"{path.name}.parquet", *shards(path)] for path in (calm, killed)]
    assert len(files[0]) == 1 + NUM_PROMPTS
    for ours, theirs in zip(*files, strict=True):
        assert ours.read_bytes() == theirs.read_bytes()
