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
IS_ROOT = os.geteuid() == 0
# A disk of its own, seen by nobody else; users that are not root are root in their own namespace.
UNSHARE = ["unshare", "--mount", *([] if IS_ROOT else ["--map-root-user"]), "sh", "-c"]
MOUNT = 'mount -t tmpfs -o size=16m none "$0" && exec "$@"'
# Another user, who may read all: Python may lie below root's home.
_READS = "=-all,+dac_read_search"
USER = ["setpriv", "--reuid=23456", "--regid=23456", "--clear-groups", f"--inh-caps{_READS}"]
USER += [f"--ambient-caps{_READS}", f"--bounding-set{_READS}", "--"]


def run_worker(what: str, folder: Path, *before: str) -> dict[str, Any]:
    command = [*before, sys.executable, "-m", "tests.faults.worker", what, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
def report(folder) -> dict[str, Any]:
    """All but read-only folders, in one process that imports everything once."""
    disk = folder / "full"
    disk.mkdir()
    try:
        can_mount = not subprocess.run(
            [*UNSHARE, MOUNT, disk, "true"], capture_output=True
        ).returncode
    except FileNotFoundError:
        can_mount = False
    return run_worker("all", folder, *([*UNSHARE, MOUNT, str(disk)] if can_mount else []))


def check_refusal(run: dict[str, Any], why: str) -> None:
    """One line that names a file, exit code 2, and nothing torn or left."""
    assert run["code"] == 2, run["said"]
    assert why in run["said"] and run["said"].startswith("lalp: "), run["said"]
    assert run["said"].count("\n") == 1, run["said"]
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


@pytest.fixture(scope="module")
def refused(report, folder) -> dict[str, Any]:
    for parent in (folder, folder.parent):  # the folder itself, in which the user's files lie
        parent.chmod(parent.stat().st_mode | 0o111)
    return run_worker("read-only", folder, *(USER if IS_ROOT else []))


@pytest.mark.parametrize("name", [line.name for line in READ_ONLY])
def test_read_only_folders_are_refused_to_a_user_that_is_not_root(name, refused):
    assert refused["user"] != 0
    check_refusal(refused["lines"][name], "cannot be written: Permission denied")
