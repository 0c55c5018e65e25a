"""The command in this process."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub.constants
import pytest

from lalp.cli import app
from lalp.students import student

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


@pytest.fixture
def lalp(monkeypatch, capsys, tmp_path) -> Callable[..., Outcome]:
    """Run the command in this process, as the console script would."""
    monkeypatch.setattr(logging.getLogger("lalp"), "handlers", [])
    monkeypatch.setattr(student, "default_device", lambda: "cpu")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for name in ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_HUB_VERBOSITY", "TRANSFORMERS_VERBOSITY"):
        monkeypatch.setenv(name, os.environ.get(name, "error"))
    monkeypatch.setenv("LALP_CACHE", str(tmp_path / "build"))

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["lalp", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            app.main()
        out, err = capsys.readouterr()
        return Outcome(int(stop.value.code or 0), out, err)

    return run


@pytest.fixture
def start() -> Callable[..., subprocess.Popen]:
    """Start Python as a process of its own, on one thread."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment.pop("TQDM_DISABLE", None)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}

    def run(*arguments: object) -> subprocess.Popen:
        command = [sys.executable, *map(str, arguments)]
        return subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)

    return run


@pytest.fixture(scope="session")
def model(llama_folder: Path) -> str:
    return str(llama_folder)
