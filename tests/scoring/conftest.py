from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from lalp.pools.pool import Pool
from lalp.scoring import run as scoring_run
from lalp.scoring.run import score
from lalp.students import student as students_student
from tests.scoring.arithmetic import WINDOWS, make_pool


@pytest.fixture(scope="session")
def pool() -> Pool:
    return make_pool()


@pytest.fixture(scope="session")
def done(llama, pool, tmp_path_factory) -> tuple[pd.DataFrame, Path]:
    """A finished run with tokens, and its store."""
    folder = tmp_path_factory.mktemp("scores")
    return score(pool, llama, WINDOWS, with_tokens=True, store=folder, progress=False), folder


@pytest.fixture
def run_again(llama, pool, done, tmp_path):
    """Scores a pool as `done` did, in a copy of its store."""
    shutil.copytree(done[1], tmp_path, dirs_exist_ok=True)
    options = {"with_tokens": True, "store": tmp_path, "progress": False}
    return lambda pool=pool: score(pool, llama, WINDOWS, **options)


@pytest.fixture
def computed(monkeypatch) -> list[int]:
    """How many responses each call of the model scored."""
    calls, real = [], scoring_run.score_candidates

    def count(student, tasks, *args, **kwargs):
        calls.append(len(tasks))
        return real(student, tasks, *args, **kwargs)

    monkeypatch.setattr(scoring_run, "score_candidates", count)
    return calls


@pytest.fixture
def on_the_cpu(monkeypatch):
    monkeypatch.setattr(students_student, "default_device", lambda: "cpu")
