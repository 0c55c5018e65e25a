"""The origin of a committed run: commit, hours, cores, package versions."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any


def describe_run(hours: float, packages: Sequence[str]) -> dict[str, Any]:
    """The origin of a run that took ``hours`` since its last start; versions of ``packages``."""
    return {
        "commit": commit(),
        "hours_since_last_start": round(hours, 2),
        "cores": len(os.sched_getaffinity(0)),
        "machine": platform.machine(),
        "packages": {name: version(name) for name in packages},
    }


def commit() -> str:
    """The checkout's commit, with a mark if the code has changed since."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except FileNotFoundError:  # git is not installed
        return "unknown"
    return found.stdout.strip() or "unknown"
