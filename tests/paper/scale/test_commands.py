"""The commands of the paper's scale, and the tool's commands that its stages call."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from lalp.cli.app import app
from lalp.cli.options import run
from lalp.paper.scale.__main__ import app as scale
from lalp.paper.scale.plan import NOT_PRODUCED, Arm
from lalp.paper.scale.stages import arm_file
from tests.paper.scale.conftest import B7, pool_of, write_lines


@pytest.fixture
def lalp(monkeypatch, capsys, tmp_path):
    """Runs a command line in an empty folder: exit code, standard output, errors."""

    def run_lalp(command: str) -> tuple[int, str, str]:
        words = command.split()
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as stop:
            run(scale if words[0] == "lalp.paper.scale" else app)
        return int(stop.value.code or 0), *capsys.readouterr()

    monkeypatch.chdir(tmp_path)
    return run_lalp


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("lalp.paper.scale plan --profile cpu", "no plan for profile 'cpu'"),
        ("lalp.paper.scale plan -- nothing.jsonl", "nothing.jsonl"),
        ("lalp.paper.scale plan --profile none.yaml", "no plan for profile 'none.yaml'"),
        ("lalp.paper.scale tables --root nowhere", "nowhere: holds no results"),
        ("lalp.paper.scale prompts math --responses-by A --out x.jsonl", "goes with limo"),
        ("lalp merge none.jsonl --out x.jsonl", "none.jsonl: no such file"),
        ("lalp merge a.jsonl --out x.jsonl --format csv", "unknown training format 'csv'"),
        ("lalp unsolved none.jsonl a.jsonl --out x.jsonl", "none.jsonl: no such file"),
    ],
)
def test_bad_input_is_one_line_and_code_2(lalp, command, message):
    pool_of(Path("a.jsonl"), [("p", "A", "1", True)])
    code, out, err = lalp(command)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert not Path("x.jsonl").exists()


def read_lines(path: str) -> list[dict]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_the_commands_of_pools(lalp):
    pool_of(Path("a.jsonl"), [("p", "A", "1", True), ("q", "A", "2", False)])
    code, out, _ = lalp("lalp merge a.jsonl --only-correct --out m.jsonl --json")
    left_out = {"response is wrong": 1, "prompt without a kept response": 1}
    assert (code, json.loads(out)["left_out"]) == (0, left_out)
    code, _, err = lalp("lalp unsolved a.jsonl m.jsonl --out u.jsonl")
    assert code == 0
    assert "1 of 2 prompts are not solved" in err
    assert [prompt["prompt_id"] for prompt in read_lines("u.jsonl")] == ["q"]
    lalp("lalp merge a.jsonl --format messages --out t.jsonl")
    assert [record["response_id"] for record in read_lines("t.jsonl")] == ["1", "2"]


def test_plan_and_tables_are_printed_for_people_and_for_programs(lalp):
    code, out, _ = lalp("lalp.paper.scale plan -- pools/limo.jsonl")
    assert code == 0 and "merge-limo" in out and "segment-limo" not in out
    code, out, err = lalp("lalp.paper.scale plan --profile gpu --json -- --until train")
    plan = json.loads(out)
    kinds = [stage["kind"] for stage in plan["stages"]]
    assert (code, err, "eval" in kinds, kinds.count("train")) == (0, "", False, 14)
    assert plan["totals"]["stages"] == len(kinds)
    mix = Path("run", arm_file("mix", Arm(B7, "limo", "lalp")))
    mix.parent.mkdir(parents=True)
    mix.write_text(json.dumps({"teacher_mix": {"QwQ-32B": {"percent": 75.0}}}))
    code, out, _ = lalp("lalp.paper.scale tables --root run")
    assert code == 0 and " / 75.0 / " in out
    code, out, _ = lalp("lalp.paper.scale tables --root run --json")
    found = json.loads(out)
    cells = {(c["student"], c["rule"], c["column"]): c for c in found["tables"]["8"]["cells"]}
    assert cells[B7, "lalp", "QwQ-32B"]["run"] == 75
    assert set(found["not_produced"]) == set(NOT_PRODUCED)


def test_prompts_are_written_for_sampling(lalp):
    records = [{"question": f"{n} + 1?", "solution": "s", "answer": n + 1} for n in range(3)]
    write_lines(Path("limo.jsonl"), records)
    code, _, err = lalp("lalp.paper.scale prompts limo --limit 2 --data . --out p.jsonl")
    assert code == 0
    assert "2 prompts: p.jsonl" in err
    assert [prompt["answer"] for prompt in read_lines("p.jsonl")] == ["1", "2"]
