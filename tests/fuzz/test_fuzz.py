"""A small part of `make fuzz`, and that its judge sees what it should."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from tests.fuzz.cases import COMMANDS, draw_case
from tests.fuzz.damage import DAMAGES
from tests.fuzz.harness import Outcome, faults
from tests.fuzz.work import line_case


def test_forty_bad_inputs_are_refused_in_a_line_or_read_rightly(tmp_path):
    # In a process of its own: it forks, which one with threads must not do.
    options = ["--seed", "7", "--n", "40", "--jobs", "1", "--light", "--folder", str(tmp_path)]
    command = [sys.executable, "-m", "tests.fuzz", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert "40 of 40 as they should" in done.stdout and done.returncode == 0, done.stdout
    counts = [line.split()[-3:] for line in done.stdout.splitlines() if line.endswith(" -")]
    refused, read = (sum(int(row[i].replace("-", "0")) for row in counts) for i in (0, 1))
    assert refused > 15 and read >= 5


def test_cases_are_drawn_from_the_seed_alone_and_meet_every_command_and_kind():
    cases = [draw_case(7, number) for number in range(1000)]
    assert cases == [draw_case(7, number) for number in range(1000)]
    commands = {line.split()[0] for line, *_ in COMMANDS}
    assert {case.command for case in cases} == commands
    assert {case.kind for case in cases} == {*DAMAGES, "command line"}
    assert len({(case.kind, case.damage) for case in cases}) > 250


REFUSED = Outcome(2, "", "lalp: pool.jsonl, line 2: field 'x' is missing\n", 0.1)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({}, None),
        ({"code": 1}, "exit code 1"),
        ({"code": -9}, "exit code -9"),
        ({"seconds": 21.0}, "no end within"),
        ({"err": "Traceback (most recent call last):\nKeyError: 3"}, "KeyError"),
        ({"err": "lalp: it is wrong\n"}, "names no file"),
        ({"err": "lalp: pool.jsonl: \x1b[31m\n"}, "no terminal can show"),
        ({"err": "lalp: pool.jsonl" + "x" * 2000}, "an error of"),
        ({"err": "UserWarning: so\nlalp: pool.jsonl: no\n"}, "said in between"),
        ({"out": "half a result"}, "refused, and printed"),
        ({"made": {"pool.jsonl": "another digest"}}, "touched pool.jsonl"),
        ({"made": {"out.jsonl": "half"}}, "refused, and wrote out.jsonl"),
        ({"made": {"tmp/x": ""}}, "left tmp/x"),
        ({"made": {"build/out.jsonl.1-2.tmp": ""}}, "left build/out.jsonl.1-2.tmp"),
        ({"lost": ("pool.jsonl",)}, "removed pool.jsonl"),
        ({"code": 0}, "read what is not sound"),
    ],
)
def test_the_judge_sees(changes, fault):
    line = "merge pool.jsonl more.jsonl --out out.jsonl"
    case = replace(line_case(line), file="pool.jsonl", kind="pool", expected="refused")
    found = faults(case, replace(REFUSED, **changes), None)
    assert (fault is None and not found) or any(fault in each for each in found)


def test_the_judge_compares_what_is_sound_with_the_undamaged_result():
    case = replace(line_case("check pool.jsonl --json"), file="pool.jsonl", expected="same")
    good = Outcome(0, "", "", 0.1, results="7")
    assert faults(case, good, good) == []
    assert "another result" in faults(case, replace(good, results="8"), good)[0]
    assert "refused what is sound" in faults(case, REFUSED, good)[0]
