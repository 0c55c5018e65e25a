"""Stages run once, side by side, go on where they stopped, and ask a cluster for what they need."""

from __future__ import annotations

import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lalp.errors import InputError
from lalp.files import locked
from lalp.paper.scale.plan import load_plan
from lalp.paper.scale.stages import open_workflow
from tests.paper.scale.conftest import B7, ROOT, calls, write_plan

ONE = {"tables": ["3"], "controls": False, "published": []}
SELECTED = f"selected/{B7}_limo_lalp.jsonl"
TRAINED = f"models/{B7}_limo_lalp-s0"


@pytest.fixture
def plan(pretended) -> str:
    return write_plan(pretended, load_plan("gpu"), **ONE)


def ran(plan: str, *words: str) -> set[str]:
    """Run stages; the names of those that wrote their logs."""
    before = _logs()
    open_workflow(plan, "run").run(*words)
    return {name for name, time in _logs().items() if time != before.get(name)}


def _logs() -> dict[str, int]:
    return {log.stem: log.stat().st_mtime_ns for log in Path("run/logs").glob("*.log")}


def test_every_stage_runs_once(plan):
    names = ran(plan)
    assert len(calls()) == len(names) == 28
    assert Path("run/tables.json").exists()
    assert ran(plan) == set() and calls() == []


def test_a_changed_setting_runs_again_what_depends_on_it(plan, pretended):
    ran(plan)
    write_plan(pretended, load_plan("gpu"), **ONE, short_recipe="paper")  # nothing here uses it
    assert ran(plan) == set()
    time.sleep(1.1)  # Snakemake compares times of files
    write_plan(pretended, load_plan("gpu"), **ONE, main_window="2")
    again = ran(plan, "--", f"results/{B7}_limo_lalp-s0_greedy.parquet")
    arm = f"{B7}_limo_lalp"
    below = {f"select-{arm}", f"train-{arm}-s0", f"eval-{arm}-s0_greedy"}
    assert again == {f"score-limo-{B7}"} | below
    # Random choices do not change by a window, but read its scores.
    assert not {name for name in ran(plan) if name.split("-")[0] in ("sample", "merge", "segment")}


def test_a_changed_recipe_spares_what_is_before_training(plan, pretended):
    ran(plan)
    time.sleep(1.1)
    write_plan(pretended, load_plan("gpu"), **ONE, recipe="paper-32b")
    again = ran(plan)
    assert {name.split("-")[0] for name in again} == {"train", "eval", "tables"}
    assert f"eval-{B7}_original_greedy" not in again


def test_a_failing_stage_is_told_and_the_run_goes_on_there(plan, monkeypatch, capfd):
    monkeypatch.setenv("FAILS", f"train {SELECTED}")
    with pytest.raises(InputError, match="the same command goes on from there"):
        ran(plan)
    said = capfd.readouterr().err
    for part in ("Error in rule train", f"train-{B7}_limo_lalp-s0.log", "disk on fire", SELECTED):
        assert part in said
    assert not Path("run", TRAINED).exists()
    first = calls()
    monkeypatch.delenv("FAILS")
    assert f"train-{B7}_limo_lalp-s0" in ran(plan)
    assert Path("run/tables.json").exists()
    assert set(calls()) & set(first) == {line for line in first if f"train {SELECTED}" in line}


@pytest.mark.slow
def test_a_killed_run_goes_on_with_what_was_not_finished(plan, monkeypatch):
    monkeypatch.setenv("WAITS", f"train {SELECTED}")
    code = f"from lalp.paper.scale.stages import open_workflow as o; o({plan!r}, 'run').run()"
    child = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    while not Path("run/waiting").exists():
        assert child.poll() is None
        time.sleep(0.1)
    with pytest.raises(InputError, match="another process runs its stages"):
        ran(plan)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    Path("run", TRAINED).mkdir(parents=True)  # half an output
    began = calls()
    monkeypatch.delenv("WAITS")
    ran(plan)
    assert Path("run/tables.json").exists()
    repeated = set(calls()) & set(began)
    assert any(f"train {SELECTED}" in line for line in repeated)
    assert len(repeated) <= len(os.sched_getaffinity(0))  # what ran when it was killed


def test_nothing_is_sampled_where_all_is_solved(plan, pretended):
    for line in pretended.glob("programs/lalp"):
        empty = 'case "$name" in *unsolved*) : > "$2";; esac; '
        line.write_text(line.read_text().replace("  shift\n", f"  {empty}shift\n"))
    ran(plan)
    assert not [line for line in calls() if "table5-sampled" in line and " sample " in f" {line}"]
    assert Path("run/samples/limo_QwQ-32B_table5-sampled.jsonl").stat().st_size == 0


def test_outputs_made_elsewhere_are_taken(plan):
    sampled = Path("run/samples/limo_DeepSeek-R1_table5-greedy.jsonl")
    sampled.parent.mkdir(parents=True)
    sampled.write_text("from a server\n")
    ran(plan, "--", "prompts/limo.jsonl")
    ran(plan, "--touch", "--", "samples/limo_DeepSeek-R1_table5-greedy.jsonl")
    ran(plan)
    assert sampled.read_text() == "from a server\n"
    assert not [line for line in calls() if str(sampled.name) in line and "--preset" in line]


def test_a_run_that_was_moved_has_nothing_to_do(plan):
    ran(plan)
    Path("run").rename("moved")
    calls()
    open_workflow(plan, "moved").run()
    assert calls() == []


def test_a_folder_is_run_by_one_process_at_a_time(plan):
    with (
        locked("run/lock", "busy"),
        pytest.raises(InputError, match="another process runs its stages"),
    ):
        ran(plan)


# --- clusters --------------------------------------------------------------------------------

# As Slurm's own, but a job runs at once, here; what it asks for is kept.
_SLURM = {
    "sbatch": """#!/bin/sh
echo "$@" >> "$CALLS.sbatch"
for last; do :; done
while [ $# -gt 0 ]; do
  case "$1" in --job-name) name=$2;; --wrap=*) job=${1#--wrap=};; -D) cd "$2";; esac
  shift
done
[ -n "$job" ] || job=$(cat)
number=$(wc -l < "$CALLS.sbatch")
sh -c "$job" > "$CALLS.job$number" 2>&1 && state=COMPLETED || state=FAILED
echo "$number|$state|$name" >> "$CALLS.states"
echo "$number"
""",
    "sacct": """#!/bin/sh
case "$*" in *Account*) echo none;; *) cut -d'|' -f1,2 "$CALLS.states";; esac
""",
    "sinfo": "#!/bin/sh\necho 'main*'\n",
    "scontrol": "#!/bin/sh\necho 'MinJobAge = 300 sec'\n",
    "sacctmgr": "#!/bin/sh\necho none\n",
    "squeue": "#!/bin/sh\n",
    "scancel": "#!/bin/sh\n",
    "srun": """#!/bin/sh
while [ $# -gt 0 ]; do case "$1" in -*) shift;; *) break;; esac; done
exec "$@"
""",
}


@pytest.mark.slow
def test_slurm_is_asked_for_the_plans_resources(plan, pretended):
    for name, text in _SLURM.items():
        path = pretended / "programs" / name
        path.write_text(text)
        path.chmod(0o755)
    ran(plan, "--", "steps/limo.jsonl")
    profile = str(ROOT / "lalp/paper/slurm")
    soon = ("--latency-wait", "5", "--slurm-init-seconds-before-status-checks", "1")
    ran(plan, "--profile", profile, *soon, "--", TRAINED)
    asked = Path(f"{os.environ['CALLS']}.sbatch").read_text().splitlines()
    score, train = sorted(asked, key=lambda line: "rule_train" in line)
    assert len(asked) == 2 and "rule_score" in score  # all others are short, and run here
    # Training 1.5 billion weights keeps 12 bytes of each on the host.
    memory = math.ceil(32_000 + 12 * 1_543.714304)
    assert "--gpus=1" in train and f"--mem {memory} " in train
    assert "--gpus=1" in score and "--mem 32000" in score and "--cpus-per-gpu=8" in score
    hours = {
        name: int(re.search(r" -t (\d+)", line)[1]) for name, line in [("t", train), ("s", score)]
    }
    assert hours["t"] > hours["s"] > 60
    assert Path("run", TRAINED).is_dir()
