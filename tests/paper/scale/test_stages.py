"""Stages: what they read, write and run."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st

from lalp.cli.app import app
from lalp.paper.scale.__main__ import app as scale
from lalp.paper.scale.plan import SOURCES, TEACHERS, load_plan, plan_needs, table_arms
from lalp.paper.scale.stages import shrink
from tests.paper.scale.conftest import (
    B7,
    B32,
    LLAMA,
    MATH7B,
    NO_SWEEP,
    ROOT,
    made_of,
    option,
    stage_of,
    words_of,
)

QWQ, R1, DISTILLED = "QwQ-32B", "DeepSeek-R1", "DeepSeek-R1-Distill-Qwen-7B"
RANDOM = [f"selected/{B32}_limo_{teacher}_random-s0.jsonl" for teacher in TEACHERS["limo"]]
WINDOWS = "--window 4 --window 0 --window 2 --window 8 --window 5% --window 10%"
APPS = {"lalp": app, "lalp.paper.scale": scale}
COMMANDS = {name: typer.main.get_command(each) for name, each in APPS.items()}


def check_order(stages) -> None:
    """Names and outputs are unique, and what a stage reads was written before."""
    names = [stage.name for stage in stages]
    assert len(names) == len(set(names))
    written: set[str] = set()
    for stage in stages:
        assert set(stage.inputs) <= written
        assert not set(stage.outputs) & written
        written |= set(stage.outputs)


@settings(max_examples=8, deadline=None)
@given(
    tables=st.lists(st.sampled_from(sorted(SOURCES)), min_size=1, unique=True),
    students=st.lists(st.sampled_from([B7, B32, LLAMA, MATH7B]), min_size=1, unique=True),
    seeds=st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True),
    published=st.lists(st.sampled_from(TEACHERS["limo"]), unique=True),
    everything=st.booleans(),
)
def test_any_choice_of_tables_is_in_order(paper, tables, students, seeds, published, everything):
    changes = {"students": students, "seeds": seeds, "published": published, **NO_SWEEP}
    chosen = dataclasses.replace(paper, tables=tables, everything=everything, **changes)
    made = made_of(chosen)
    check_order(made)
    sampled = {s.wildcards["teacher"] for s in made if s.name.startswith("sample-limo")}
    assert not sampled & set(published)
    rows = {arm for number in tables for arm in table_arms(chosen, number).values() if arm.pool}
    evaluated = {dataclasses.replace(n.arm, seed=0) for n in plan_needs(chosen) if n.columns}
    trained = [arm for arm in rows if everything or arm in evaluated]
    models = {Path(s.outputs[0]).name for s in made if s.kind == "train"}
    assert {dataclasses.replace(arm, seed=n).name for arm in trained for n in seeds} <= models


def parse_command(words: list[str]) -> None:
    """Let the real command line interface read the words, without running them."""
    if "-m" in words:
        words = words[words.index("-m") + 1 :]
    command, arguments = COMMANDS[words[0].removesuffix(".cli")], list(words[1:])
    while hasattr(command, "commands"):
        command = command.commands[arguments.pop(0)]
    command.make_context(command.name, arguments)


@pytest.mark.parametrize("name", ["paper", "gpu"])
def test_every_command_line_is_one_that_lalp_reads(name):
    plan = load_plan(name)
    for made in (made_of(plan), made_of(shrink(plan), toys="toys")):
        check_order(made)
        for stage in made:
            parse_command(words_of(stage))
    server = {"splitter": "llm", "llm_url": "http://localhost:8000/v1", "llm_model": "m"}
    for stage in made_of(plan, **server):
        if stage.kind == "segment":
            parse_command(words_of(stage))


def test_values_of_a_plan_are_words_not_shell(paper):
    odd = "a b; touch $HOME/'x'.yaml"
    made = made_of(paper, tables=["3"], students=[B7], controls=False, accelerate=odd, **NO_SWEEP)
    assert option(stage_of(made, f"train-{B7}_limo_lalp-s0"), "--config_file") == odd


def test_sampling_goes_on_until_a_prompt_is_solved(stages):
    names = (f"sample-limo-{QWQ}-table5-greedy", f"sample-limo-{QWQ}-table5-sampled")
    greedy, sampled = (stage_of(stages, name) for name in names)
    unsolved = stage_of(stages, f"unsolved-limo-{QWQ}")
    assert unsolved.inputs == ("prompts/limo.jsonl", *greedy.outputs)
    assert sampled.inputs == unsolved.outputs
    merge = stage_of(stages, "merge-limo")
    assert {*greedy.outputs, *sampled.outputs} <= set(merge.inputs)


@pytest.mark.parametrize(
    ("profile", "name", "options"),
    [
        # The largest teacher takes another node.
        ("paper", f"sample-limo-{QWQ}-table5-greedy", "--tensor-parallel 4, no --system"),
        ("paper", f"sample-limo-{R1}-table5-greedy", f"--tensor-parallel 8, deepseek-ai/{R1}"),
        # Programs are not asked for in a box.
        ("paper", f"sample-code-{QWQ}-table5-greedy", "--system="),
        ("paper", f"sample-math-{QWQ}-c9-sampled", "no --system"),
        ("paper", "merge-limo", "--only-correct, --min-teachers 3"),
        ("paper", "merge-code", "no --only-correct"),
        ("paper", f"score-limo-{B7}", WINDOWS),
        ("paper", f"select-{B7}_math_{QWQ}_galp-middle", f"scores/math_{QWQ}_{B7}.parquet"),
        ("paper", f"select-{B32}_limo_all-s0", "merge " + " ".join(RANDOM)),
        ("paper", f"select-{B7}_math_{QWQ}_galp-middle", f"--teacher {QWQ}, no --window"),
        ("paper", f"select-{B7}_math_{QWQ}_galp-middle", "--rule galp-middle"),
        ("paper", f"select-{B7}_limo_control-s0", "--rule random --like lalp --window 4"),
        ("paper", f"select-{B7}_limo_lalp-w10pct", "--rule lalp --window 10%"),
        ("paper", f"train-{B7}_limo_lalp-s0", "--recipe paper, --num_processes 4"),
        ("paper", f"train-{B32}_limo_lalp-s0", "--recipe paper-32b"),
        ("paper", f"train-{MATH7B}_math_Gemma3-27B-IT_galp-s0", "--recipe terciles"),
        # Stand-ins run under the paper's file names; a published teacher needs none.
        ("gpu", f"sample-limo-{QWQ}-table5-greedy", f"--model deepseek-ai/{DISTILLED}"),
        ("gpu", f"sample-limo-{QWQ}-table5-greedy", f"--teacher {DISTILLED}"),
        ("gpu", f"select-{B7}_limo_{QWQ}_random-s0", f"--teacher {DISTILLED}"),
        ("gpu", f"select-{B7}_limo_{R1}_random-s0", f"--teacher {R1}"),
        ("gpu", f"published-limo-{R1}", f"--responses-by {R1}"),
        ("gpu", "merge-limo", f"samples/limo_{R1}_published.jsonl"),
        ("gpu", f"train-{B7}_limo_lalp-s0", "--student Qwen/Qwen2.5-1.5B-Instruct"),
    ],
)
def test_options_of_a_stage(profile, name, options):
    line = shlex.join(words_of(stage_of(made_of(load_plan(profile)), name))) + " "
    for part in options.split(", "):
        assert (f" {part.removeprefix('no ')} " in line) != part.startswith("no ")


def test_launchers(stages):
    for student, config in ((B7, "zero3.yaml"), (B32, "zero3-offload.yaml")):
        stage = stage_of(stages, f"train-{student}_limo_lalp-s0")
        assert words_of(stage)[:2] == ["accelerate", "launch"]
        assert Path(option(stage, "--config_file")).name == config
        assert (ROOT / "lalp/training/accelerate" / config).is_file()
    # One GPU needs no launcher, unless states go to the host.
    gpu, name = load_plan("gpu"), f"train-{B7}_limo_lalp-s0"
    assert words_of(stage_of(made_of(gpu), name))[0] == "accelerate"
    assert words_of(stage_of(made_of(gpu, gpu="A100-80GB"), name))[:2] == ["lalp", "train"]


def test_seeds_share_what_chance_does_not_touch(paper):
    made = made_of(paper, tables=["3"], students=[B7], seeds=[0, 1], controls=False, **NO_SWEEP)
    for rule, files_ in (("lalp", 1), ("random", 2)):
        trained = [stage_of(made, f"train-{B7}_limo_{rule}-s{seed}").inputs for seed in (0, 1)]
        assert len(set(trained)) == files_
    assert len([s for s in made if s.name.startswith(f"eval-{B7}_original")]) == 1
    # One more seed does not change what the first one chose.
    assert option(stage_of(made, f"select-{B7}_limo_lalp"), "--seed") == "0"
