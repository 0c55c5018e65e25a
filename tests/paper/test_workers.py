"""Jobs side by side: they see this process's environment, and end with it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from lalp.paper.workers import run_side_by_side

PARENT = """
import sys
from lalp.paper.workers import run_side_by_side
from tests.paper.test_workers import note_and_wait
run_side_by_side(note_and_wait, [sys.argv[1]], 1, "jobs")
"""


def note(job: tuple[str, str]) -> None:
    """Write what a worker finds in a variable to a file."""
    path, variable = job
    Path(path).write_text(os.environ.get(variable, "none"), encoding="utf-8")


def note_and_wait(path: str) -> None:
    new = Path(f"{path}.new")
    new.write_text(str(os.getpid()), encoding="utf-8")
    new.rename(path)
    time.sleep(600)


def fail(_: object) -> None:
    raise ValueError("this job fails")


@pytest.mark.slow
def test_workers_see_the_environment_of_their_call_and_errors_come_back(tmp_path, monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    found = []
    for value in ("one", None, "two"):
        monkeypatch.delenv("LALP_TEST", raising=False)
        if value:
            monkeypatch.setenv("LALP_TEST", value)
        path = tmp_path / "found"
        run_side_by_side(note, [(str(path), "LALP_TEST")], 1, "jobs")
        found.append(path.read_text())
    assert found == ["one", "none", "two"]
    with pytest.raises(ValueError, match="this job fails"):
        run_side_by_side(fail, [0], 1, "jobs")


@pytest.mark.slow
def test_workers_end_with_a_killed_parent(tmp_path):
    path = tmp_path / "pid"
    process = subprocess.Popen([sys.executable, "-c", PARENT, str(path)])
    while not path.is_file():
        assert process.poll() is None
        time.sleep(0.05)
    family = [psutil.Process(int(path.read_text()))]
    family += psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(family, timeout=60)
    assert not alive
