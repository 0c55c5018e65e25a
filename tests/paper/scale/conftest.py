"""What tests of the paper's scale share: its plan, its stages, and programs that only pretend."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import sys
import tempfile
from pathlib import Path

import pytest
import yaml

from lalp.paper.scale.plan import Plan, load_plan
from lalp.paper.scale.stages import open_workflow
from lalp.paper.tables import STUDENT_7B, STUDENT_32B, STUDENT_LLAMA, STUDENT_MATH
from lalp.paper.workflow import Stage
from lalp.pools.pool import Message, Pool, Prompt, Response
from lalp.pools.writing import save_pool

ROOT = Path(__file__).parents[3]
B7, B32, LLAMA, MATH7B = STUDENT_7B, STUDENT_32B, STUDENT_LLAMA, STUDENT_MATH
NO_SWEEP = {"window_student": "", "sweep_windows": []}

# Says that it was called, and writes what --out names: nothing is computed.
_PRETEND = """#!/bin/sh
name="$(basename "$0") $*"
echo "$name" >> "$CALLS"
case "$name" in *${FAILS:-@}*) echo 'disk on fire' >&2; exit 3;; esac
case "$name" in *${WAITS:-@}*) touch waiting; sleep 60;; esac
case "$name" in *--json*) echo '{}';; esac
while [ $# -gt 1 ]; do
  if [ "$1" = --out ]; then case "$name" in *' train '*) mkdir -p "$2";; *) echo x > "$2";; esac; fi
  shift
done
"""


@pytest.fixture(scope="session")
def paper() -> Plan:
    return load_plan("paper")


@pytest.fixture(scope="session")
def stages(paper) -> list[Stage]:
    return made_of(paper)


@pytest.fixture
def pretended(tmp_path, monkeypatch) -> Path:
    """An empty folder of a run whose commands do nothing; ``CALLS`` names them."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("lalp", "accelerate", "python"):
        (programs / name).write_text(_PRETEND)
        (programs / name).chmod(0o755)
    own = Path(sys.executable).parent
    monkeypatch.setenv("PATH", f"{programs}:{own}:{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def calls() -> list[str]:
    """What was called since the last question."""
    path = Path(os.environ["CALLS"])
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return lines


def write_plan(folder: Path, plan: Plan, **changes) -> str:
    """The file of a plan with some settings changed."""
    path = folder / "plan.yaml"
    path.write_text(yaml.safe_dump(dataclasses.asdict(dataclasses.replace(plan, **changes))))
    return str(path)


def made_of(plan: Plan, toys: str = "", **changes) -> list[Stage]:
    """Stages of a plan with some settings changed."""
    with tempfile.TemporaryDirectory() as folder:
        profile = write_plan(Path(folder), plan, **changes)
        return open_workflow(profile, folder, toys).list_stages()


def stage_of(stages, name: str) -> Stage:
    (found,) = [stage for stage in stages if stage.name == name]
    return found


def words_of(stage: Stage) -> list[str]:
    """The words of a stage's program, without what the shell does around it."""
    program = r"(?:^|; |\$gpu )((?:lalp|python|accelerate) .*?)(?: > \S+)? (?:2|&)> "
    (line,) = re.findall(program, stage.command)
    return shlex.split(line)


def option(stage: Stage, name: str) -> str:
    words = words_of(stage)
    return words[words.index(name) + 1]


def write_lines(path: Path, records: list[dict]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def pool_of(path: Path, rows: list[tuple], answer: str | None = "7") -> Path:
    """A pool file of (prompt id, teacher, response id, correct)."""
    prompts = {p: Prompt(p, (Message("user", f"question {p}"),), answer) for p, *_ in rows}
    responses = tuple(Response(i, p, t, f"text {i}", c) for p, t, i, c in rows)
    save_pool(Pool(prompts, responses), path)
    return path
