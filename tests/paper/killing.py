"""Kill a run at work, as a crash would."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path


def kill_once_there(folder: Path, pattern: str, function: Callable, *arguments: object) -> None:
    """Run a function in a process of its own; kill it and its workers once a file is there."""
    process = multiprocessing.get_context("spawn").Process(target=_run, args=(function, arguments))
    process.start()
    deadline = time.monotonic() + 120
    while not any(folder.rglob(pattern)):
        assert process.is_alive() and time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL


def _run(function: Callable, arguments: tuple) -> None:
    os.setpgid(0, 0)
    function(*arguments)
