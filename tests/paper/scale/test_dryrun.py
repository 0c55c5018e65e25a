"""The whole plan in small."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest

from lalp.paper.scale.dryrun import dry_run, models_needed
from lalp.paper.scale.plan import load_plan
from lalp.paper.scale.stages import Stages, shrink
from lalp.pools.reading import load_pool
from tests.paper.scale.conftest import B7, ROOT, made_of, option, words_of, write_plan


@pytest.mark.parametrize("name", ["paper", "gpu"])
def test_a_dry_run_has_the_same_stages(name):
    plan = load_plan(name)
    small = shrink(plan)
    real, toy = made_of(plan), made_of(small, toys="toys")
    assert {stage.name for stage in real} == {stage.name for stage in toy}
    others = {stage.name: stage for stage in toy}
    for one in real:
        other = others[one.name]
        assert (one.kind, one.outputs) == (other.kind, other.outputs)
        if one.kind != "train":
            assert words_of(other)[:2] == words_of(one)[:2]
        options = {word for word in words_of(one) if word.startswith("--")}
        assert options - {"--tensor-parallel"} <= set(words_of(other))
    teachers, students = models_needed(Stages(small))
    assert not set(teachers) & set(students)
    assert {f"toys/models/{name}" for name in (*teachers, *students)} >= {
        option(stage, "--student") for stage in toy if stage.kind in ("score", "train")
    }


@pytest.mark.slow
def test_a_killed_dry_run_of_one_table_goes_on_to_its_end(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("LALP_CACHE", str(tmp_path))
    settings = {"tables": ["3", "8"], "controls": False}
    profile, dry = write_plan(tmp_path, load_plan("gpu"), **settings), tmp_path / "dryrun/plan"
    kill_when(dry / "steps/limo.jsonl", "dryrun", "--profile", profile)
    finished = [dry / "pools/limo.jsonl", *dry.glob("samples/limo*.jsonl")]
    before = {path: path.stat().st_mtime_ns for path in finished}
    assert len(before) >= 4
    dry_run(profile, dry)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    outputs = {path for stage in made_of(load_plan("gpu"), **settings) for path in stage.outputs}
    assert all((dry / path).exists() for path in outputs)
    # Whoever was not taught one of the six LIMO prompts leaves five, three responses each.
    pool = load_pool(dry / "pools/limo.jsonl")
    assert len(pool.prompts) == 5
    assert [response.correct for response in pool.responses] == [True] * 15
    assert len(pd.read_csv(dry / f"models/{B7}_limo_lalp-s0/training_log.csv")) >= 2
    written = json.loads(Path(dry, "tables.json").read_text())
    third, eighth = (written["tables"][number]["cells"] for number in ("3", "8"))
    means = {cell["rule"]: cell["run"] for cell in third if cell["column"] == "AVG"}
    assert all(means[rule] is not None for rule in ("original", "random", "lalp"))
    mix = [cell["run"] for cell in eighth if cell["rule"] == "random"]
    assert sum(mix) == pytest.approx(100)
    dry_run(profile, dry)
    assert "Nothing to be done" in capfd.readouterr().err


def kill_when(made: Path, *words: str) -> None:
    """Start a command of the package, and kill it when a file is there; nothing of it stays."""
    command = [sys.executable, "-m", "lalp.paper.scale", *words]
    child = psutil.Process(subprocess.Popen(command, start_new_session=True).pid)
    while not made.exists():
        assert child.status() != psutil.STATUS_ZOMBIE
        time.sleep(0.1)
    family = [child, *child.children(recursive=True)]
    os.killpg(child.pid, signal.SIGKILL)
    _, alive = psutil.wait_procs(family, timeout=60)
    assert not alive
