"""Kills, full disks, read-only folders, eight processes at once: nothing is torn, all goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.faults.worker import CROWDED, FULL, READ_ONLY

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
# A disk of its own, seen by nobody else; users that are not root are root in their own namespace.
UNSHARE = ["unshare", "--mount", *(["--map-root-user"] if os.geteuid() else []), "sh", "-c"]
MOUNT = 'mount -t tmpfs -o size=16m none "$0" && exec "$@"'


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> dict[str, Any]:
    """All of it, in one process that imports everything once."""
    folder = tmp_path_factory.mktemp("faults")
    disk = folder / "full"
    disk.mkdir()
    mount = [*UNSHARE, MOUNT, str(disk)]
    try:
        can_mount = not subprocess.run([*mount, "true"], capture_output=True).returncode
    except FileNotFoundError:
        can_mount = False
    command = [sys.executable, "-m", "tests.faults.worker", str(folder)]
    command = [*mount, *command] if can_mount else command
    options = {
        "env": os.environ | {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"},
        "cwd": ROOT,
        "timeout": 500,
    }
    done = subprocess.run(command, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def check_refusal(run: dict[str, Any], why: str) -> None:
    """One line that names a file, exit code 2, and nothing torn or left."""
    *before, last = run["said"].splitlines()
    assert run["code"] == 2 and last.startswith("lalp: ") and why in last, run["said"]
    # The run before may have left half a checkpoint.
    assert all("cannot be used (manifest.json: No such file" in line for line in before)
    assert run["wrong"] == []


def test_kills_at_random_moments_leave_no_trace(report):
    print(f"seed {report['seed']}")
    assert [chain["faults"] for chain in report["kills"] if chain["faults"]] == []
    assert sum(len(chain["kills"]) for chain in report["kills"]) == 5


@pytest.mark.parametrize("name", FULL)
def test_a_full_disk_is_said_in_one_line_and_the_run_goes_on_when_there_is_space(name, report):
    if not report["full"]:
        pytest.skip("no disk can be mounted here, not even in a namespace of one's own")
    for run in report["full"][name]["runs"]:
        check_refusal(run, "cannot be written: ")
    end = report["full"][name]["end"]
    assert (end["code"], end["wrong"]) == (0, []), end["said"]


@pytest.mark.parametrize("name", [line.name for line in CROWDED])
def test_eight_processes_on_one_store_end_with_the_same_table(name, report):
    found = report["crowded"][name]
    assert found["codes"] == [0] * 8, found["said"]
    assert found["tables"] == [True] * 4
    assert found["wrong"] == []
    assert not any("again" in said for said in found["said"])  # nobody read half a file


@pytest.mark.parametrize("name", [line.name for line in READ_ONLY])
def test_read_only_folders_are_refused_to_a_user_that_is_not_root(name, report):
    run = report["read only"][name]
    assert not run["may_write"]
    check_refusal(run, ": Permission denied")
