"""What tests of the paper's scale share: its plan, its stages, and ways to look at them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from lalp.paper.scale.plan import Plan, load_plan
from lalp.paper.scale.stages import Place, Stage, make_stages
from lalp.paper.tables import STUDENT_7B, STUDENT_32B, STUDENT_LLAMA, STUDENT_MATH
from lalp.pools.pool import Message, Pool, Prompt, Response
from lalp.pools.writing import save_pool

ROOT = Path(__file__).parents[3]
B7, B32, LLAMA, MATH7B = STUDENT_7B, STUDENT_32B, STUDENT_LLAMA, STUDENT_MATH
NO_SWEEP = {"window_student": "", "sweep_windows": []}


@pytest.fixture(scope="module")
def paper() -> Plan:
    return load_plan("paper")


@pytest.fixture(scope="module")
def stages(paper) -> tuple[Stage, ...]:
    return made_of(paper)


def made_of(plan: Plan, name: str = "paper", **changes) -> tuple[Stage, ...]:
    """Stages of a plan with some settings changed."""
    return make_stages(dataclasses.replace(plan, **changes), Place("run"), name)


def stage_of(stages, name: str) -> Stage:
    (found,) = [stage for stage in stages if stage.name == name]
    return found


def option(stage: Stage, name: str) -> str:
    return stage.command[stage.command.index(name) + 1]


def write_lines(path: Path, records: list[dict]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def pool_of(path: Path, rows: list[tuple], answer: str | None = "7") -> Path:
    """A pool file of (prompt id, teacher, response id, correct)."""
    prompts = {p: Prompt(p, (Message("user", f"question {p}"),), answer) for p, *_ in rows}
    responses = tuple(Response(i, p, t, f"text {i}", c) for p, t, i, c in rows)
    save_pool(Pool(prompts, responses), path)
    return path
