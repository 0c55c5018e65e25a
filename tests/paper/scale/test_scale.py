"""The paper's pipeline: tables to arms to stages, what they cost, how they run."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
import torch
import transformers
import typer
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lalp.cli.app import app
from lalp.cli.options import run
from lalp.errors import InputError
from lalp.paper.scale import models as scale_models
from lalp.paper.scale import sources
from lalp.paper.scale.__main__ import app as scale
from lalp.paper.scale.costs import (
    add_up,
    as_record,
    decode_rate,
    forward_flops,
    plan_costs,
    plan_text,
    score_flops,
    train_bytes,
    train_flops,
)
from lalp.paper.scale.dryrun import call_here, dry_run, models_needed, shrink
from lalp.paper.scale.models import GPUS, MODELS, Gpu, ModelFacts
from lalp.paper.scale.plan import (
    EVALUATED_ONLY,
    NOT_PRODUCED,
    SOURCES,
    TEACHERS,
    Arm,
    Plan,
    arm_of_row,
    load_plan,
    plan_needs,
    table_arms,
)
from lalp.paper.scale.run import adopt_stage, choose_stages, describe_output, is_done, run_stages
from lalp.paper.scale.stages import Place, Stage, make_stages, result_file
from lalp.paper.scale.tables import collect_tables, tables_text, write_tables
from lalp.paper.tables import TABLES
from lalp.pools import merging
from lalp.pools.pool import Message, Pool, Prompt, Response
from lalp.pools.reading import load_pool
from lalp.pools.writing import save_pool
from lalp.sampling.samples import SYSTEM_PROMPT
from lalp.scoring import costs
from lalp.settings import parse_settings

ROOT = Path(__file__).parents[3]
COMMANDS = {
    name: typer.main.get_command(each)
    for name, each in [("lalp", app), ("lalp.paper.scale", scale)]
}
B7, B32, LLAMA, MATH7B = (
    *("Qwen2.5-7B-Instruct", "Qwen2.5-32B-Instruct"),
    *("Llama-3.1-8B-Instruct", "Qwen2.5-Math-7B"),
)


def packaged(name: str) -> dict:
    return yaml.safe_load(files("lalp").joinpath(f"paper/scale/plans/{name}.yaml").read_text())


@pytest.fixture(scope="module")
def paper() -> Plan:
    return load_plan("paper")


@pytest.fixture(scope="module")
def stages(paper) -> tuple[Stage, ...]:
    return make_stages(paper, Place("run"), "paper")


def stage_of(stages, name: str) -> Stage:
    (found,) = [stage for stage in stages if stage.name == name]
    return found


def option(stage: Stage, name: str) -> str:
    words = stage.command[-1]
    return words[words.index(name) + 1]


# --- settings ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "red"}, "unknown key 'colour'"),
        ({"seeds": None}, "key 'seeds' should be a valid list"),
        ({"seeds": []}, "key 'seeds' List should have at least 1 item"),
        ({"seeds": [0, 0]}, "key 'seeds': 0 is given twice"),
        ({"seeds": [True]}, "key 'seeds', item 1, should be a valid integer"),
        ({"gpus": 0}, "key 'gpus' should be greater than 0"),
        ({"gpus": True}, "key 'gpus' should be a valid integer"),
        ({"recipe": ""}, "key 'recipe' String should have at least 1 character"),
        ({"controls": 1}, "key 'controls' should be a valid boolean"),
        ({"tables": ["4"]}, "'4' is not produced: choose from 1, 2, 3, 8"),
        ({"tables": [3]}, "key 'tables', item 1, should be a valid string"),
        ({"students": ["GPT-2"]}, "there are no facts about model 'GPT-2'"),
        ({"stand_ins": [B7]}, f"'{B7}' must be NAME=OTHER"),
        ({"stand_ins": [f"{B7}=GPT-2"]}, "no facts about model 'GPT-2'"),
        ({"published": [B7]}, "is no teacher of the LIMO prompts"),
        ({"window_student": ""}, "'window_student' and 'sweep_windows' go together"),
        ({"window_student": "LIMO-32B"}, "'window_student' must be one of 'students'"),
        ({"main_window": "4x"}, "window '4x' is not understood"),
        ({"splitter": "llm"}, "llm needs 'llm_url' and 'llm_model'"),
        ({"backend": "sglang"}, "key 'backend' should be 'vllm' or 'transformers'"),
        ({"gpu": "TPU"}, "no facts about GPU 'TPU'"),
    ],
)
def test_a_bad_setting_is_one_clear_error(change, message):
    text = yaml.safe_dump(packaged("paper") | change)
    with pytest.raises(InputError, match=r"^here[:,]") as error:
        parse_settings(text, "here", Plan)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["paper", "gpu"])
def test_every_key_is_needed(name):
    values = packaged(name)
    assert set(values) == {item.name for item in dataclasses.fields(Plan)}
    for key in values:
        rest = {other: value for other, value in values.items() if other != key}
        with pytest.raises(InputError, match=f"key '{key}' is missing"):
            parse_settings(yaml.safe_dump(rest), "here", Plan)


@pytest.mark.parametrize(
    ("text", "message"), [("- 1", "expected lines"), ("a: [", "not valid YAML")]
)
def test_a_file_that_is_no_mapping_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        parse_settings(text, "here", Plan)


def test_other_profiles_are_told_where_they_run():
    with pytest.raises(InputError, match="no plan for profile 'cpu': choose gpu or paper"):
        load_plan("cpu")


# --- tables to arms ----------------------------------------------------------------------------


def test_every_table_is_produced_or_has_a_reason():
    numbers = {number for number in TABLES if number.isdigit()}
    assert set(SOURCES) | set(NOT_PRODUCED) == numbers
    assert not set(SOURCES) & set(NOT_PRODUCED)
    assert all(len(reason) > 20 for reason in NOT_PRODUCED.values())


def test_the_paper_profile_produces_all_that_can_be(paper, stages):
    assert set(paper.tables) == set(SOURCES)
    evaluated = {number for stage in stages if stage.kind == "eval" for number in stage.tables}
    assert evaluated >= set(paper.tables) - {"8"}  # Table 8 is about selections
    assert "Fig. 9" in evaluated
    assert {number for stage in stages if stage.kind == "select" for number in stage.tables} >= {
        "8"
    }


@pytest.mark.parametrize(
    ("number", "row", "arm"),
    [
        ("1", (B7, "QwQ-32B", "original"), Arm(B7)),
        ("1", (B7, "QwQ-32B", "lowest"), Arm(B7, "math", "galp-lowest", "QwQ-32B")),
        ("2", (B32, "DeepSeek-R1"), Arm(B32, "limo", "random", "DeepSeek-R1")),
        ("9", (B7, "original"), Arm(B7)),
        ("3", (B7, "random"), Arm(B7, "limo", "random")),
        ("10", (B32, "lalp-lowest"), Arm(B32, "limo", "lalp-lowest")),
        ("13", (MATH7B, "original", "original"), Arm(MATH7B)),
        (
            "13",
            (MATH7B, "Gemma3-27B-IT", "middle"),
            Arm(MATH7B, "math", "galp-middle", "Gemma3-27B-IT"),
        ),
        ("15", (B32, "all teachers"), Arm(B32, "limo", "all")),
        ("16", (B32, "lalp"), Arm(B32, "code", "lalp")),
        ("17", (LLAMA, "galp"), Arm(LLAMA, "limo", "galp")),
        ("19", (B32, "Sky-T1-32B-Preview"), Arm("Sky-T1-32B-Preview")),
    ],
)
def test_rows_become_arms(number, row, arm):
    assert arm_of_row(number, row) == arm


def test_arms_of_the_paper_are_counted_by_hand(paper):
    needs = plan_needs(paper)
    arms = [need.arm for need in needs]
    assert len(arms) == len(set(arms)) == len({arm.name for arm in arms})
    trained = [arm for arm in arms if arm.pool]
    # 7B: 3 teachers, 4 rules, the control, 5 windows, 3 teachers' thirds. 32B: 3 teachers, 4 rules,
    # the control, all teachers, 2 rules on code. Llama: 2 rules, all teachers. Math-7B: 2 x thirds.
    assert {student: sum(a.student == student for a in trained) for student in paper.students} == {
        B7: 3 + 4 + 1 + 5 + 9,
        B32: 3 + 4 + 1 + 1 + 2,
        LLAMA: 3,
        MATH7B: 6,
    }
    assert {arm for arm in arms if not arm.pool} == {
        *(Arm(student) for student in paper.students),
        *(Arm(name) for name in EVALUATED_ONLY),
    }


def test_an_arm_is_evaluated_on_what_its_tables_hold(paper):
    columns = {need.arm: need.columns for need in plan_needs(paper)}
    seven = ("MATH", "AIME25", "AMC", "MINERVA", "KAOYAN", "OLYMPIAD", "CN_MATH24")
    assert columns[Arm(B7, "limo", "lalp")] == {"greedy": seven}
    assert columns[Arm(B32, "limo", "lalp")] == {"greedy": (*seven, "GPQA"), "sampled": seven}
    assert columns[Arm(B32, "limo", "all")] == {"greedy": ("GPQA",), "sampled": seven}
    assert columns[Arm(B32, "code", "galp")] == {"greedy": ("LCB",)}
    assert columns[Arm(B32)]["greedy"] == (*seven, "GPQA", "LCB")
    everything = plan_needs(dataclasses.replace(paper, everything=True))
    for need in everything:
        assert need.columns == dict.fromkeys(("greedy", "sampled"), (*seven, "GPQA", "LCB"))


def test_table_8_alone_trains_nobody(paper):
    alone = dataclasses.replace(
        paper, tables=["8"], controls=False, window_student="", sweep_windows=[]
    )
    kinds = {stage.kind for stage in make_stages(alone, Place("run"), "paper")}
    assert "select" in kinds
    assert not {"train", "eval"} & kinds


# --- stages ------------------------------------------------------------------------------------


def check_order(stages) -> None:
    """Names and outputs are unique, and what a stage reads was written before."""
    names = [stage.name for stage in stages]
    assert len(names) == len(set(names))
    written: set[str] = set()
    for stage in stages:
        assert set(stage.inputs) <= written
        assert not set(stage.outputs) & written
        assert stage.outputs
        assert stage.command
        assert stage.tables
        assert stage.stdout in ("", *stage.outputs)
        assert stage.unless_empty in ("", *stage.inputs)
        written |= set(stage.outputs)
        # A command names the files that it reads and writes, but for what it prints.
        words = {word for line in stage.command for word in line}
        if stage.kind != "tables":
            assert {*stage.inputs, *stage.outputs} - {stage.stdout} <= words


@pytest.mark.parametrize("name", ["paper", "gpu"])
def test_stages_read_what_earlier_ones_wrote(name):
    check_order(make_stages(load_plan(name), Place("run"), name))


@settings(max_examples=40, deadline=None)
@given(
    tables=st.lists(st.sampled_from(sorted(SOURCES)), min_size=1, unique=True),
    students=st.lists(st.sampled_from([B7, B32, LLAMA, MATH7B]), min_size=1, unique=True),
    seeds=st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True),
    published=st.lists(st.sampled_from(TEACHERS["limo"]), unique=True),
    everything=st.booleans(),
)
def test_any_choice_of_tables_is_in_order(paper, tables, students, seeds, published, everything):
    chosen = dataclasses.replace(
        paper,
        tables=tables,
        students=students,
        seeds=seeds,
        published=published,
        everything=everything,
        window_student="",
        sweep_windows=[],
    )
    made = make_stages(chosen, Place("run"), "paper")
    check_order(made)
    rows = {arm for number in tables for arm in table_arms(chosen, number).values() if arm.pool}
    trained = {arm.name for arm in rows if everything or any_columns(chosen, arm)}
    models = {Path(s.outputs[0]).name for s in made if s.kind == "train"}
    assert {f"{name}-s{seed}" for name in trained for seed in seeds} <= models


def any_columns(plan: Plan, arm: Arm) -> bool:
    return any(need.columns for need in plan_needs(plan) if need.arm == arm)


def parse_command(words: tuple[str, ...]) -> None:
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
    for chosen, place in [(plan, Place("run")), shrink(plan, "dry")]:
        for stage in make_stages(chosen, place, name):
            for words in stage.command:
                parse_command(words)
    with_server = dataclasses.replace(
        plan, splitter="llm", llm_url="http://localhost:8000/v1", llm_model="m"
    )
    for stage in make_stages(with_server, Place("run"), name):
        if stage.kind == "segment":
            parse_command(stage.command[0])


def test_sampling_goes_on_until_a_prompt_is_solved(stages):
    greedy, sampled = (
        stage_of(stages, f"sample-limo-QwQ-32B-table5-{name}") for name in ("greedy", "sampled")
    )
    unsolved = stage_of(stages, "unsolved-limo-QwQ-32B")
    assert unsolved.inputs == ("run/prompts/limo.jsonl", *greedy.outputs)
    assert sampled.inputs == unsolved.outputs == (sampled.unless_empty,)
    merge = stage_of(stages, "merge-limo")
    assert {*greedy.outputs, *sampled.outputs} <= set(merge.inputs)
    assert option(merge, "--min-teachers") == "3"
    assert "--only-correct" in merge.command[0]
    assert "--only-correct" not in stage_of(stages, "merge-code").command[0]


def test_the_largest_teacher_takes_another_node(stages):
    assert option(stage_of(stages, "sample-limo-QwQ-32B-table5-greedy"), "--tensor-parallel") == "4"
    r1 = stage_of(stages, "sample-limo-DeepSeek-R1-table5-greedy")
    assert option(r1, "--tensor-parallel") == "8"
    assert option(r1, "--model") == "deepseek-ai/DeepSeek-R1"


def test_programs_are_not_asked_for_in_a_box(stages):
    sample = stage_of(stages, "sample-code-QwQ-32B-table5-greedy")
    assert option(sample, "--system") == ""
    others = [s for s in stages if s.kind == "sample" and "code" not in s.name]
    assert not any("--system" in stage.command[0] for stage in others)


def test_a_published_teacher_is_not_sampled(paper):
    chosen = dataclasses.replace(paper, tables=["2"], published=["DeepSeek-R1"])
    made = make_stages(chosen, Place("run"), "paper")
    assert not [s for s in made if s.kind == "sample" and "DeepSeek" in s.name]
    stage = stage_of(made, "published-limo-DeepSeek-R1")
    assert option(stage, "--responses-by") == "DeepSeek-R1"
    assert stage.outputs[0] in stage_of(made, "merge-limo").inputs


def test_rules_on_the_command_line(stages):
    third = stage_of(stages, f"select-{B7}_math_QwQ-32B_galp-middle")
    assert option(third, "--rule") == "galp-middle"
    assert option(third, "--teacher") == "QwQ-32B"
    assert third.inputs == (f"run/scores/math_QwQ-32B_{B7}.parquet",)
    assert "--window" not in third.command[0]
    control = stage_of(stages, f"select-{B7}_limo_control-s0")
    assert [option(control, o) for o in ("--rule", "--like", "--window")] == ["random", "lalp", "4"]
    window = stage_of(stages, f"select-{B7}_limo_lalp-w10pct")
    assert [option(window, o) for o in ("--rule", "--window")] == ["lalp", "10%"]
    every = stage_of(stages, f"select-{B32}_limo_all-s0")
    assert every.inputs == tuple(
        f"run/selected/{B32}_limo_{teacher}_random-s0.jsonl" for teacher in TEACHERS["limo"]
    )
    score = stage_of(stages, f"score-limo-{B7}")
    windows = [word for option, word in pairwise(score.command[0]) if option == "--window"]
    assert windows == ["4", "0", "2", "8", "5%", "10%"]


def test_recipes_and_launchers(stages):
    small = stage_of(stages, f"train-{B7}_limo_lalp-s0")
    large = stage_of(stages, f"train-{B32}_limo_lalp-s0")
    short = stage_of(stages, f"train-{MATH7B}_math_Gemma3-27B-IT_galp-s0")
    recipes = [option(stage, "--recipe") for stage in (small, large, short)]
    assert recipes == ["paper", "paper-32b", "terciles"]
    assert small.command[0][:2] == ("accelerate", "launch")
    assert option(small, "--config_file").endswith("zero3.yaml")
    assert option(large, "--config_file").endswith("zero3-offload.yaml")
    assert option(small, "--num_processes") == "4"
    for stage in (small, large, short):
        assert Path(ROOT, option(stage, "--config_file")).is_file()


def test_one_gpu_needs_no_launcher_unless_states_go_to_the_host():
    gpu = load_plan("gpu")
    assert stage_of(make_stages(gpu, Place("run"), "gpu"), f"train-{B7}_limo_lalp-s0").command[0][
        0
    ] == ("accelerate")
    roomy = dataclasses.replace(gpu, gpu="A100-80GB")
    words = stage_of(make_stages(roomy, Place("run"), "gpu"), f"train-{B7}_limo_lalp-s0").command[0]
    assert words[:2] == ("lalp", "train")


def test_stand_ins_run_under_the_papers_file_names():
    made = make_stages(load_plan("gpu"), Place("run"), "gpu")
    sample = stage_of(made, "sample-limo-QwQ-32B-table5-greedy")
    assert option(sample, "--model") == "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"
    assert option(sample, "--teacher") == "DeepSeek-R1-Distill-Qwen-7B"
    select = stage_of(made, f"select-{B7}_limo_QwQ-32B_random-s0")
    assert option(select, "--teacher") == "DeepSeek-R1-Distill-Qwen-7B"
    published = stage_of(made, f"select-{B7}_limo_DeepSeek-R1_random-s0")
    assert option(published, "--teacher") == "DeepSeek-R1"
    train = stage_of(made, f"train-{B7}_limo_lalp-s0")
    assert option(train, "--student") == "Qwen/Qwen2.5-1.5B-Instruct"


def test_seeds_share_what_chance_does_not_touch(paper):
    two = dataclasses.replace(paper, tables=["3"], students=[B7], seeds=[0, 1])
    two = dataclasses.replace(two, window_student="", sweep_windows=[], controls=False)
    made = make_stages(two, Place("run"), "paper")
    lalp_trainings = [
        s for s in made if s.kind == "train" and s.name.startswith(f"train-{B7}_limo_lalp-s")
    ]
    assert len(lalp_trainings) == 2
    assert len({stage.inputs for stage in lalp_trainings}) == 1
    random_inputs = {s.inputs for s in made if s.name.startswith(f"train-{B7}_limo_random")}
    assert len(random_inputs) == 2
    assert len([s for s in made if s.name.startswith(f"eval-{B7}_original")]) == 1


# --- costs -------------------------------------------------------------------------------------

# 2 layers, 8 features, 2 heads of 4, one head of keys, vocabulary 10, 1,000 weights.
TINY = ModelFacts("tiny", "x/tiny", "llama", 1000, 2, 8, 2, 1, 4, 10, 100)
SLOW = Gpu(flops=1000.0, bandwidth=100.0, memory=10_000.0)


def test_flops_by_hand_and_as_scoring_counts_them():
    # Body: 1000 - 2 x 80 weights. 3 tokens after 2 others: 3 x (2 + 2) = 12 pairs of 2 x 2 x 4.
    expected = 2 * 840 * 3 + 4 * 16 * 12 + 2 * 80 * 1
    assert forward_flops(TINY, 2, 3, 1) == expected
    size = costs.ModelSize(840, 80, 1000, 16, 16, 10, 8)
    assert forward_flops(TINY, 2, 3, 1) == costs.row_flops(size, 2, 3, 1)
    assert train_flops(TINY, 3) == 4 * (2 * 840 * 3 + 4 * 16 * 6 + 2 * 80 * 3)


def test_scoring_feeds_what_its_plan_feeds():
    # 56 tokens are two steps of 28. GALP's row feeds 55; with window 0 the second step has a row of
    # its own, of 27; with window 1 it begins at the first step, whose row is GALP's.
    assert score_flops(TINY, 5, 56, ("0",))[1] == 55 + 27
    assert score_flops(TINY, 5, 56, ("1",))[1] == 55
    assert score_flops(TINY, 5, 84, ("1",))[1] == 83 + 55


def test_decoding_by_hand():
    # Context 10 + 20 / 2; 2 bytes x (2 layers x keys and values x 4) x 20 = 640 bytes a sequence.
    # Room 0.9 x 10,000 - 2,000 = 7,000: ten sequences. A step reads 2,000 + 6,400 bytes at half of
    # 100 a second: 168 s; it computes 10 x 2,000 FLOP at 0.4 x 1,000: 50 s.
    assert decode_rate(TINY, SLOW, 1, 10, 20) == pytest.approx(10 / 168)
    # Compute bound where reading is fast.
    fast = dataclasses.replace(SLOW, bandwidth=1e9)
    assert decode_rate(TINY, fast, 1, 10, 20) == pytest.approx(10 / 50)
    assert decode_rate(TINY, dataclasses.replace(SLOW, memory=2_800.0), 1, 10, 20) == 0.0


@settings(deadline=None)
@given(gpus=st.integers(1, 8), response=st.integers(1, 20_000), longer=st.integers(0, 20_000))
def test_longer_responses_never_decode_faster(gpus, response, longer):
    model, gpu = MODELS["QwQ-32B"], GPUS["A100-80GB"]
    rates = [decode_rate(model, gpu, gpus, 200, n) for n in (response, response + longer)]
    assert rates[0] >= rates[1] * (1 - 1e-9)
    assert decode_rate(model, gpu, gpus + 1, 200, response) >= rates[0]


def test_memory_of_training_by_hand():
    # Weights and gradients 4 x 1,000 and optimizer 12 x 1,000 over 2 GPUs; 5 tokens keep 2 bytes x
    # 8 features x 2 layers and 34 x 8 of one layer, and 10 bytes x 10 logits; two layers of 1,000
    # bytes are gathered.
    activations = 5 * 8 * (2 * 2 + 34) + 5 * 10 * 10
    assert train_bytes(TINY, 2, 5) == (8_000 + activations + 2_000, 0.0)
    assert train_bytes(TINY, 2, 5, offload=True) == (2_000 + activations + 2_000, 12_000)


def test_known_sizes():
    # 16 bytes per weight: what full fine-tuning with AdamW in mixed precision takes.
    states = 16 * MODELS[B7].params
    assert states == pytest.approx(122e9, rel=0.01)
    assert scale_models.states_fit(MODELS[B7], "A100-80GB", 4)
    assert not scale_models.states_fit(MODELS[B32], "A100-80GB", 4)
    assert not scale_models.states_fit(MODELS["Qwen2.5-1.5B-Instruct"], "RTX4090-24GB", 1)
    assert not scale_models.fits_gpus(MODELS["DeepSeek-R1"], "A100-80GB", 4)
    assert scale_models.fits_gpus(MODELS["DeepSeek-R1"], "H200-141GB", 8)
    # 64 layers x 2 x 8 heads x 128: a quarter of a megabyte per token in bf16.
    assert 2 * MODELS[B32].cache_per_token == 262_144


@pytest.mark.parametrize(
    ("name", "config", "intermediate"),
    [
        (B7, "Qwen2Config", 18_944),
        (B32, "Qwen2Config", 27_648),
        ("Qwen2.5-1.5B-Instruct", "Qwen2Config", 8_960),
        (LLAMA, "LlamaConfig", 14_336),
        ("Qwen3-32B", "Qwen3Config", 25_600),
        ("Qwen3-8B", "Qwen3Config", 12_288),
    ],
)
def test_weights_are_those_of_the_architecture(name, config, intermediate):
    facts = MODELS[name]
    made = getattr(transformers, config)(
        vocab_size=facts.vocab,
        hidden_size=facts.hidden,
        num_hidden_layers=facts.layers,
        num_attention_heads=facts.heads,
        num_key_value_heads=facts.kv_heads,
        head_dim=facts.head_size,
        intermediate_size=intermediate,
        tie_word_embeddings=facts.tied,
    )
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(made)
    size = costs.count_weights(model)
    assert size.total == facts.params
    assert size.body == facts.body
    assert size.cache == facts.cache_per_token


def test_a_plan_says_what_stands_in_the_way(paper, stages):
    plan = plan_costs(paper, stages)
    total = add_up(plan)
    notes = "\n".join(total["notes"])
    assert "DeepSeek-R1: 671.0 GB of weights do not fit 4x A100-80GB" in notes
    assert "OpenAI-compatible" in notes
    assert "published: [DeepSeek-R1]" in notes
    assert "524.2 GB of weights, gradients and AdamW states do not fit 4x A100-80GB" in notes
    # 65.5 GB of states, 13.6 of activations, 1.6 of logits, 2 of gathered layers.
    assert "on 8 GPUs 82.7 GB each with 16,384 tokens: too much for 8 as well" in notes
    assert "Qwen2.5-Math-7B has 4,096 positions" in notes
    assert "QwQ-32B has 40,960 positions: prompt and response end there, not at 42,786" in notes
    assert all(math.isfinite(cost.gpu_hours) for cost in plan)
    assert total["gpu_hours"] == pytest.approx(sum(total["gpu_hours_by_kind"].values()))
    assert total["gpu_hours"] == pytest.approx(sum(total["gpu_hours_by_node"].values()))


def test_costs_of_a_training_stage_by_hand(paper, stages):
    stage = stage_of(stages, f"train-{B7}_limo_lalp-s0")
    (cost,) = plan_costs(paper, [stage])
    # 817 examples of 12,000 + 200 tokens, ten times.
    assert cost.prompts == 817
    assert cost.tokens_in == pytest.approx(817 * 12_200 * 10)
    flops = 817 * 10 * train_flops(MODELS[B7], 12_200)
    assert cost.gpu_hours == pytest.approx(flops / (0.45 * 312e12) / 3600)
    assert cost.node == "4x A100-80GB"
    every = stage_of(stages, f"train-{B32}_limo_all-s0")
    (cost,) = plan_costs(paper, [every])
    assert cost.prompts == 3 * 817
    assert cost.host_bytes == 12 * MODELS[B32].params


def test_each_seed_costs_the_same_again(paper):
    def hours(seeds):
        chosen = dataclasses.replace(paper, seeds=seeds)
        made = make_stages(chosen, Place("run"), "paper")
        return add_up(plan_costs(chosen, made))["gpu_hours_by_kind"]["train"]

    assert hours([0, 1, 2]) == pytest.approx(3 * hours([0]))


def test_the_plan_is_printed_and_is_json(paper, stages):
    plan = plan_costs(paper, stages)
    text = plan_text(stages, plan)
    for stage in stages:
        assert f"\n{stage.name}  [" in f"\n{text}"
    assert text.count("  $ ") == sum(len(stage.command) for stage in stages)
    assert "TOTAL of" in text
    records = [as_record(*pair) for pair in zip(stages, plan, strict=True)]
    assert json.loads(json.dumps(records))[0]["name"] == stages[0].name


def test_a_model_that_fits_nowhere_is_said(paper):
    small = dataclasses.replace(paper, big_gpu="RTX4090-24GB", big_gpus=1, tables=["2"])
    made = make_stages(small, Place("run"), "paper")
    costs_ = plan_costs(small, [s for s in made if s.name.startswith("sample-limo-DeepSeek")])
    assert all(math.isnan(cost.gpu_hours) for cost in costs_)  # null in JSON
    assert "fit neither" in costs_[0].notes[0]


# --- prompts and pools -------------------------------------------------------------------------


def write_lines(path: Path, records: list[dict]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def test_limo_prompts(tmp_path):
    write_lines(
        tmp_path / "limo.jsonl",
        [{"question": f"q{n}", "solution": "s", "answer": n} for n in (1, 2, 2, 3)],
    )
    found = sources.load_source("limo", 10, tmp_path)
    assert [(p.prompt_id, p.answer) for p in found] == [
        ("limo/00001", "1"),
        ("limo/00002", "2"),
        ("limo/00003", "3"),
    ]
    # Students learn and answer behind the same words.
    assert found[0].messages[0] == Message("system", SYSTEM_PROMPT)
    assert [m.role for m in found[0].messages] == ["system", "user"]
    assert len(sources.load_source("limo", 2, tmp_path)) == 2


def test_math_prompts_leave_out_easy_and_tested_problems(tmp_path):
    records = [
        {"problem": f"q{n}", "level": level, "solution": rf"so \boxed{{{n}}}"}
        for n, level in enumerate(["Level 1", "Level 2", "Level 3", "Level ?", "Level 5"])
    ]
    write_lines(tmp_path / "math_train.jsonl", records)
    write_lines(tmp_path / "math500.jsonl", [{"problem": " q4", "answer": "4"}])
    found = sources.load_source("math", 10, tmp_path)
    assert [(p.messages[-1].content, p.answer) for p in found] == [("q2", "2"), ("q3", "3")]


def test_code_prompts_come_from_both_sets_without_answers(tmp_path):
    write_lines(
        tmp_path / "leetcode.jsonl", [{"task_id": f"t{n}", "query": f"l{n}"} for n in range(9)]
    )
    write_lines(
        tmp_path / "opencodereasoning.jsonl",
        [{"id": f"o{n // 2}", "input": f"o{n // 2}"} for n in range(18)],
    )
    found = sources.load_source("code", 6, tmp_path)
    assert [p.messages[0].content for p in found] == ["l0", "l1", "l2", "o0", "o1", "o2"]
    assert all(p.answer is None and len(p.messages) == 1 for p in found)


def test_a_solution_without_a_box_is_left_out_and_said(tmp_path, caplog):
    write_lines(
        tmp_path / "math_train.jsonl",
        [
            {"problem": "q0", "level": "Level 5", "solution": "Nothing is said here"},
            {"problem": "q1", "level": "Level 5", "solution": r"\boxed{0}"},
        ],
    )
    write_lines(tmp_path / "math500.jsonl", [{"problem": "other", "answer": "4"}])
    (found,) = sources.load_source("math", 10, tmp_path)
    assert (found.prompt_id, found.answer) == ("math_train/00002", "0")
    assert "math_train, record 1: left out" in caplog.text


def test_an_answer_of_zero_is_an_answer(tmp_path):
    write_lines(tmp_path / "limo.jsonl", [{"question": "q", "solution": "s", "answer": 0}])
    assert sources.load_source("limo", 1, tmp_path)[0].answer == "0"


def test_prompts_of_the_hub_run_no_code(monkeypatch):
    calls = []

    def load_dataset(name, config, **options):
        calls.append((name, config, options))
        return [{"question": "q", "solution": "s", "answer": "1"}]

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    assert [p.answer for p in sources.load_source("limo", 1)] == ["1"]
    assert calls == [("GAIR/LIMO", None, {"split": "train", "streaming": True})]

    def offline(*arguments, **options):
        raise ConnectionError("no route\nto the hub")

    monkeypatch.setattr("datasets.load_dataset", offline)
    with pytest.raises(InputError, match=r"GAIR/LIMO: cannot be read from the hub \(no route\)"):
        sources.load_source("limo", 1)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "limo.jsonl, line 1: invalid JSON"),
        ("[1]", "line 1: must be an object"),
        ('{"question": " "}', "limo, record 1: field 'question' is missing or empty"),
        ('{"question": "q"}', "field 'answer' holds no answer"),
    ],
)
def test_a_bad_record_is_named(tmp_path, line, message):
    (tmp_path / "limo.jsonl").write_text(line + "\n")
    with pytest.raises(InputError, match=message.replace("[", r"\[")):
        sources.load_source("limo", 5, tmp_path)


def test_unknown_prompts_and_a_missing_folder(tmp_path):
    with pytest.raises(InputError, match="no prompts 'gsm8k': choose limo, math, code"):
        sources.load_source("gsm8k", 1)
    with pytest.raises(InputError, match="cannot be read"):
        sources.load_source("limo", 1, tmp_path)


def pool_of(path: Path, rows: list[tuple], answer: str | None = "7") -> Path:
    """A pool file of (prompt id, teacher, response id, correct)."""
    prompts = {p: Prompt(p, (Message("user", f"question {p}"),), answer) for p, *_ in rows}
    responses = tuple(Response(i, p, t, f"text {i}", c) for p, t, i, c in rows)
    save_pool(Pool(prompts, responses), path)
    return path


def test_merge_keeps_what_is_asked_for(tmp_path):
    a = pool_of(tmp_path / "a.jsonl", [("p", "A", "1", False), ("p", "A", "2", True)])
    b = pool_of(
        tmp_path / "b.jsonl",
        [
            ("p", "A", "3", True),
            ("p", "B", "4", True),
            ("q", "B", "5", True),
            ("q", "B", "6", None),
        ],
    )
    (tmp_path / "c.jsonl").touch()  # nothing was left to sample
    paths = [a, tmp_path / "c.jsonl", b]

    def ids(**options):
        pool = merging.merge_pools(paths, **options)
        return [r.response_id for r in pool.responses], dict(pool.left_out)

    assert ids() == (["1", "2", "3", "4", "5", "6"], {})
    assert ids(only_correct=True) == (
        ["2", "3", "4", "5"],
        {"response is wrong": 1, "response is not verified": 1},
    )
    found, left_out = ids(only_correct=True, per_teacher=1)
    assert found == ["2", "4", "5"]
    assert left_out["more than 1 responses of one teacher to a prompt"] == 1
    found, left_out = ids(only_correct=True, min_teachers=2)
    assert found == ["2", "3", "4"]
    assert left_out["prompt has responses of fewer than 2 teachers"] == 1
    assert "prompt without a kept response" not in left_out
    assert set(merging.merge_pools(paths, min_teachers=2).prompts) == {"p"}
    with pytest.raises(InputError, match="no response is left of"):
        ids(min_teachers=3)


def test_merge_refuses_what_disagrees(tmp_path):
    a = pool_of(tmp_path / "a.jsonl", [("p", "A", "1", True)])
    same = pool_of(tmp_path / "same.jsonl", [("p", "B", "1", True)])
    with pytest.raises(InputError, match=r"response_id '1' is in .*a\.jsonl and in .*same\.jsonl"):
        merging.merge_pools([a, same])
    other = pool_of(tmp_path / "other.jsonl", [("p", "B", "2", True)], answer="8")
    with pytest.raises(InputError, match=r"has the answer '7' in .*, but '8' in"):
        merging.merge_pools([a, other])
    text = a.read_text().replace("question p", "another question").replace('"1"', '"9"')
    (tmp_path / "text.jsonl").write_text(text)
    with pytest.raises(InputError, match="prompt 'p' differs between"):
        merging.merge_pools([a, tmp_path / "text.jsonl"])


def test_a_wrong_first_try_may_share_its_id_with_a_later_one(tmp_path):
    greedy = pool_of(tmp_path / "greedy.jsonl", [("p", "A", "p/A/0", False)])
    sampled = pool_of(tmp_path / "sampled.jsonl", [("p", "A", "p/A/0", True)])
    pool = merging.merge_pools([greedy, sampled], only_correct=True)
    assert [r.correct for r in pool.responses] == [True]


def test_an_answer_known_to_one_file_is_kept(tmp_path):
    a = pool_of(tmp_path / "a.jsonl", [("p", "A", "1", True)], answer=None)
    b = pool_of(tmp_path / "b.jsonl", [("p", "A", "2", True)], answer="7")
    for order in ([a, b], [b, a]):
        assert merging.merge_pools(order).prompts["p"].answer == "7"


ROWS = st.lists(
    st.tuples(st.sampled_from("pqr"), st.sampled_from("ABC"), st.sampled_from([True, False, None])),
    min_size=1,
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(
    rows=ROWS,
    cut=st.integers(0, 12),
    only_correct=st.booleans(),
    per_teacher=st.sampled_from([None, 1, 2]),
    min_teachers=st.integers(1, 3),
)
def test_merge_in_any_two_parts(
    tmp_path_factory, rows, cut, only_correct, per_teacher, min_teachers
):
    folder = tmp_path_factory.mktemp("parts")
    numbered = [(p, t, str(n), c) for n, (p, t, c) in enumerate(rows)]
    parts = [part for part in (numbered[:cut], numbered[cut:]) if part]
    paths = [pool_of(folder / f"{n}.jsonl", part) for n, part in enumerate(parts)]
    expected = set()
    for p in "pqr":
        mine = [r for r in numbered if r[0] == p and (r[3] or not only_correct)]
        kept = [
            r
            for k, r in enumerate(mine)
            if per_teacher is None or sum(s[1] == r[1] for s in mine[:k]) < per_teacher
        ]
        if len({r[1] for r in kept}) >= min_teachers:
            expected |= {r[2] for r in kept}
    options = {
        "only_correct": only_correct,
        "per_teacher": per_teacher,
        "min_teachers": min_teachers,
    }
    if not expected:
        with pytest.raises(InputError, match="no response is left"):
            merging.merge_pools(paths, **options)
        return
    pool = merging.merge_pools(paths, **options)
    assert {r.response_id for r in pool.responses} == expected
    assert len(pool.responses) == len(expected)
    save_pool(pool, folder / "out.jsonl")
    assert load_pool(folder / "out.jsonl").responses == pool.responses
    # Every response is kept or counted; prompts are counted as such.
    dropped = sum(n for why, n in pool.left_out.items() if not why.startswith("prompt"))
    assert dropped + len(expected) <= len(rows)


def test_unsolved_prompts(tmp_path):
    prompts = [Prompt(p, (Message("user", p),), "7") for p in "abc"]
    pool = load_pool(pool_of(tmp_path / "x.jsonl", [("a", "A", "1", True), ("b", "A", "2", False)]))
    assert [p.prompt_id for p in merging.unsolved_prompts(prompts, [pool])] == ["b", "c"]
    merging.write_prompts([], tmp_path / "none.jsonl")
    assert (tmp_path / "none.jsonl").read_bytes() == b""
    merging.write_prompts(prompts[:1], tmp_path / "one.jsonl")
    record = json.loads((tmp_path / "one.jsonl").read_text())
    assert record == {
        "prompt_id": "a",
        "prompt": [{"role": "user", "content": "a"}],
        "answer": "7",
    }


# --- running -----------------------------------------------------------------------------------


def write_stage(name: str, *inputs: str, word: str = "x", **options) -> Stage:
    """A stage that writes its inputs' text and a word."""
    code = (
        "import sys, pathlib\n"
        "out, word, *read = sys.argv[1:]\n"
        "text = ''.join(pathlib.Path(p).read_text() for p in read) + word\n"
        "pathlib.Path(out).write_text(text)\n"
        "pathlib.Path(out + '.runs').open('a').write('.')"
    )
    out = f"{name}.txt"
    command = (sys.executable, "-c", code, out, word, *inputs)
    return Stage(name, "select", ("3",), (command,), inputs, (out,), **options)


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    # The toy stages write text, which no output of the pipeline is.
    monkeypatch.setattr("lalp.paper.scale.run.describe_output", lambda path: Path(path).read_text())
    return tmp_path


def runs_of(name: str) -> int:
    return len(Path(f"{name}.txt.runs").read_text())


def test_stages_run_once_and_go_on(here):
    chain = [write_stage("a"), write_stage("b", "a.txt"), write_stage("c", "b.txt")]
    reports = run_stages(chain, "root")
    assert [r.state for r in reports] == ["done now"] * 3
    assert Path("c.txt").read_text() == "xxx"
    assert all(is_done(stage, "root") for stage in chain)
    again = run_stages(chain, "root")
    assert [r.state for r in again] == ["done before"] * 3
    assert [r.seconds for r in again] == [r.seconds for r in reports]
    assert [runs_of(name) for name in "abc"] == [1, 1, 1]


def test_another_command_runs_again_and_keeps_the_old_output(here):
    chain = [write_stage("a"), write_stage("b", "a.txt")]
    run_stages(chain, "root")
    changed = [write_stage("a", word="y"), chain[1]]
    assert not is_done(changed[0], "root")
    assert [r.state for r in run_stages(changed, "root")] == ["done now"] * 2
    assert Path("b.txt").read_text() == "yx"
    (kept,) = Path("root/stale").glob("a-*/a.txt")
    assert kept.read_text() == "x"


def test_equal_content_is_not_run_again_whatever_its_time(here):
    chain = [write_stage("a"), write_stage("b", "a.txt")]
    run_stages(chain, "root")
    os.utime("a.txt", (1, 1))  # as a copy from another machine
    assert is_done(chain[1], "root")
    Path("a.txt").write_text("z")  # but another content is
    assert not is_done(chain[1], "root")


def test_a_run_goes_on_from_another_folder(here, monkeypatch):
    def stages_in(root: Path | str) -> list[Stage]:
        code = "import sys, pathlib; pathlib.Path(sys.argv[1]).write_text('x')"
        paths = [str(Path(root) / name) for name in ("a", "b")]
        commands = [(sys.executable, "-c", code, path, *paths[:n]) for n, path in enumerate(paths)]
        return [
            Stage(name, "select", ("3",), (words,), tuple(paths[:n]), (path,))
            for n, (name, words, path) in enumerate(zip("ab", commands, paths, strict=True))
        ]

    run_stages(stages_in("root"), "root")
    Path("elsewhere").mkdir()
    root = Path("root").resolve()
    monkeypatch.chdir("elsewhere")
    for name in (root, Path("../root")):
        assert [r.state for r in run_stages(stages_in(name), name)] == ["done before"] * 2
    root.rename(root.with_name("moved"))
    moved = root.with_name("moved")
    assert [r.state for r in run_stages(stages_in(moved), moved)] == ["done before"] * 2


def test_a_lost_output_is_made_again(here):
    stage = write_stage("a")
    run_stages([stage], "root")
    Path("a.txt").unlink()
    assert not is_done(stage, "root")
    run_stages([stage], "root")
    assert Path("a.txt").read_text() == "x"


def test_a_failing_stage_stops_the_run_with_its_command(here):
    words = (sys.executable, "-c", "import sys; print('so far'); sys.exit('disk on fire')")
    broken = Stage("broken", "train", ("3",), (words,), (), ("never.txt",))
    with pytest.raises(InputError) as error:
        run_stages([write_stage("a"), broken, write_stage("b")], "root")
    message = str(error.value)
    assert "stage broken failed with exit code 1" in message
    assert "disk on fire" in message
    assert "$ " in message
    assert "sys.exit" in message
    assert Path("a.txt").exists()
    assert not Path("b.txt").exists()
    assert not is_done(broken, "root")


def test_a_stage_must_write_what_it_promises(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    silent = Stage("s", "train", ("3",), ((sys.executable, "-c", ""),), (), ("out.jsonl",))
    with pytest.raises(InputError, match=r"stage s: out\.jsonl was not written"):
        run_stages([silent], "root")


def test_a_missing_input_names_the_way(here):
    with pytest.raises(InputError, match=r"stage b reads a\.txt, which is not there"):
        run_stages([write_stage("b", "a.txt")], "root")


def test_nothing_left_to_do(here):
    Path("rest.txt").touch()
    stage = write_stage("a", "rest.txt", unless_empty="rest.txt")
    (report,) = run_stages([stage], "root")
    assert report.state == "nothing to do"
    assert Path("a.txt").read_bytes() == b""
    assert not Path("a.txt.runs").exists()
    Path("rest.txt").write_text("more")
    (report,) = run_stages([stage], "root")
    assert report.state == "done now"
    assert Path("a.txt").read_text() == "morex"


def test_standard_output_becomes_a_file_only_when_whole(here):
    words = (sys.executable, "-c", "import sys; print('{}'); print('log', file=sys.stderr)")
    stage = Stage("s", "teachers", ("2",), (words,), (), ("s.json",), stdout="s.json")
    run_stages([stage], "root")
    assert Path("s.json").read_text() == "{}\n"
    assert Path("root/logs/s.log").read_text().endswith("log\n")
    half = (sys.executable, "-c", "import sys; print('{'); sys.exit(3)")
    with pytest.raises(InputError, match="exit code 3"):
        run_stages([dataclasses.replace(stage, command=(half,))], "root")
    assert not Path("s.json").exists()  # the older one was set aside, no half one took its place


def test_a_stage_runs_in_one_process_at_a_time(here):
    nested = []

    def call(words, stdout, log):
        with pytest.raises(InputError, match="another process is running it"):
            run_stages([stage], "root")
        nested.append(words)
        Path("a.txt").write_text("x")
        return 0

    stage = write_stage("a")
    run_stages([stage], "root", call=call)
    assert len(nested) == 1


def test_outputs_made_elsewhere_are_adopted(here):
    Path("prompts.txt").write_text("p")
    stage = write_stage("a", "prompts.txt")
    with pytest.raises(FileNotFoundError):
        adopt_stage(stage, "root")
    Path("a.txt").write_text("from a server")
    adopt_stage(stage, "root")
    assert [r.state for r in run_stages([stage], "root")] == ["done before"]


def test_stages_are_chosen_by_name_pattern_or_kind(stages):
    assert [s.name for s in choose_stages(stages, ["merge-limo"])] == ["merge-limo"]
    assert {s.kind for s in choose_stages(stages, ["eval"])} == {"eval"}
    some = choose_stages(stages, ["train-*_math_*", "merge-limo"])
    assert some[0].name == "merge-limo"
    assert len(some) == 1 + 15
    assert choose_stages(stages, []) == list(stages)
    with pytest.raises(InputError, match="no stage is called 'trian-x'"):
        choose_stages(stages, ["trian-x"])


def test_outputs_are_read_before_they_count(tmp_path):
    good = write_lines(tmp_path / "a.jsonl", [{}, {}])
    assert describe_output(good) == "a.jsonl: 2 records"
    (tmp_path / "b.jsonl").write_text('{"half": ')
    with pytest.raises(InputError, match=r"b\.jsonl is damaged"):
        describe_output(tmp_path / "b.jsonl")
    (tmp_path / "c.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(InputError, match=r"c\.parquet is damaged"):
        describe_output(tmp_path / "c.parquet")
    with pytest.raises(InputError, match="was not written"):
        describe_output(tmp_path / "d.json")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    with pytest.raises(InputError, match=r"lacks tokenizer_config\.json"):
        describe_output(folder)
    (folder / "tokenizer_config.json").write_text("{}")
    with pytest.raises(InputError, match=r"lacks \*\.safetensors"):
        describe_output(folder)
    (folder / "model.safetensors").write_bytes(b"12")
    assert describe_output(folder).startswith("model: model")


_CHAIN = """
import sys, time
from pathlib import Path
from lalp.paper.scale import run as scale_run
from lalp.paper.scale.stages import Stage
scale_run.describe_output = lambda path: Path(path).read_text()
def call(words, stdout, log):
    out, *read = words[1:]
    time.sleep(0.03)
    text = "".join(Path(p).read_text() for p in read) + "x"
    Path(out).write_text(text[:1])      # a stage that dies leaves half an output
    time.sleep(0.03)
    Path(out).write_text(text)
    Path(out + ".runs").open("a").write(".")
    return 0
stages = [Stage(str(n), "select", ("3",), (("toy", f"{n}.txt", *([f"{n-1}.txt"] if n else [])),),
          (f"{n-1}.txt",) if n else (), (f"{n}.txt",)) for n in range(6)]
print("ready", flush=True)
scale_run.run_stages(stages, "root", call=call)
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_at_the_stage_it_stopped_in(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    generator = random.Random(0)
    for attempt in range(30):
        process = subprocess.Popen(
            [sys.executable, "-c", _CHAIN],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
        )
        assert process.stdout.readline() == b"ready\n"
        if attempt < 5:
            time.sleep(generator.uniform(0.02, 0.25))
            process.send_signal(signal.SIGKILL)
        process.stdout.close()
        if process.wait() == 0:
            break
    assert process.returncode == 0
    assert [(tmp_path / f"{n}.txt").read_text() for n in range(6)] == ["x" * n for n in range(1, 7)]
    # A stage that had finished was not run again: only the one that was cut off.
    runs = sum(len((tmp_path / f"{n}.txt.runs").read_text()) for n in range(6))
    assert runs <= 6 + attempt


# --- the paper's tables beside the run's -------------------------------------------------------


def results_frame(benchmarks: dict[str, list[bool]]) -> pd.DataFrame:
    from lalp.evaluation.evaluate import COLUMNS

    rows = [
        {
            "benchmark": name,
            "prompt_id": f"{name}/{n:04d}",
            "sample": 0,
            "problem": "h",
            "outcome": "correct" if right else "wrong",
            "correct": right,
            "truncated": False,
            "num_tokens": 5,
            "answer": "1",
            "extracted": "1",
        }
        for name, marks in benchmarks.items()
        for n, right in enumerate(marks)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def write_result(root, arm: Arm, decoding: str, benchmarks: dict[str, list[bool]], seed=0) -> None:
    from lalp.evaluation.evaluate import write_results

    path = Path(result_file(str(root), arm, seed, decoding))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_results(results_frame(benchmarks), path)


SEVEN = ("math500", "aime25", "amc23", "minerva", "kaoyan", "olympiadbench", "cn_math_2024")


def test_tables_lay_paper_and_run_side_by_side(paper, tmp_path):
    some = dataclasses.replace(paper, tables=["3", "18"])
    half = {name: [True, False] for name in SEVEN}
    write_result(tmp_path, Arm(B7, "limo", "lalp"), "greedy", half | {"olympiadbench": [True] * 4})
    write_result(tmp_path, Arm(B32, "limo", "galp"), "sampled", half)
    third, eighteenth = collect_tables(some, tmp_path)
    assert third.run.loc[(B7, "lalp"), "OLYMPIAD"] == 1.0
    assert third.run.loc[(B7, "lalp"), "AVG"] == pytest.approx((6 * 0.5 + 1) / 7)
    assert third.difference.loc[(B7, "lalp"), "AVG"] == pytest.approx(4 / 7 - 0.440)
    assert third.run.loc[(B32, "galp")].isna().all()  # that was sampled, not greedy
    assert eighteenth.run.loc[(B32, "galp"), "MATH"] == 0.5
    text = tables_text([third])
    assert "0.440 / 0.571 / +0.131" in text
    assert "0.632 / - / -" in text
    write_tables([third, eighteenth], tmp_path / "tables.json")
    written = json.loads((tmp_path / "tables.json").read_text())
    assert set(written["not_produced"]) == set(NOT_PRODUCED)
    cells = {(*c["row"], c["column"]): c for c in written["tables"]["3"]["cells"]}
    assert cells[B7, "lalp", "AVG"]["paper"] == 0.44
    assert cells[B32, "galp", "AVG"]["run"] is None


def test_table_1_has_thirds_as_columns_and_seeds_are_averaged(paper, tmp_path):
    two = dataclasses.replace(paper, tables=["1"], seeds=[0, 1])
    arm = Arm(B7, "math", "galp", "QwQ-32B")
    for seed, marks in enumerate(([True, True], [True, False])):
        write_result(tmp_path, arm, "greedy", dict.fromkeys(SEVEN, marks), seed)
    (first,) = collect_tables(two, tmp_path)
    assert first.run.loc[(B7, "QwQ-32B"), "highest"] == pytest.approx(0.75)
    assert math.isnan(first.run.loc[(B7, "QwQ-32B"), "lowest"])
    assert list(first.run.columns) == ["original", "lowest", "middle", "highest"]


def test_an_empty_run_is_refused(paper, tmp_path):
    with pytest.raises(InputError, match="holds no results of this plan"):
        collect_tables(paper, tmp_path)


def run_lalp(monkeypatch, capsys, command: str) -> tuple[int, str, str]:
    words = command.split()
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as stop:
        run(scale if words[0] == "lalp.paper.scale" else app)
    out, err = capsys.readouterr()
    return int(stop.value.code or 0), out, err


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("lalp.paper.scale plan --profile cpu", "no plan for profile 'cpu'"),
        ("lalp.paper.scale plan --stage nothing", "no stage is called 'nothing'"),
        ("lalp.paper.scale run --adopt", "--adopt takes the outputs of named stages"),
        ("lalp.paper.scale run --stage merge-limo", "stage merge-limo reads"),
        ("lalp.paper.scale tables --root nowhere", "nowhere: holds no results"),
        (
            "lalp.paper.scale prompts math --responses-by A --out x.jsonl",
            "--responses-by goes with limo",
        ),
        ("lalp merge none.jsonl --out x.jsonl", "none.jsonl: no such file"),
        ("lalp merge a.jsonl --out x.jsonl --format csv", "unknown training format 'csv'"),
        ("lalp unsolved none.jsonl a.jsonl --out x.jsonl", "none.jsonl: no such file"),
    ],
)
def test_bad_input_is_one_line_and_code_2(monkeypatch, capsys, tmp_path, command, message):
    monkeypatch.chdir(tmp_path)
    pool_of(Path("a.jsonl"), [("p", "A", "1", True)])
    code, out, err = run_lalp(monkeypatch, capsys, command)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert out == ""
    assert not Path("x.jsonl").exists()


def test_the_commands_of_pools(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    pool_of(Path("a.jsonl"), [("p", "A", "1", True), ("q", "A", "2", False)])
    code, out, _ = run_lalp(
        monkeypatch, capsys, "lalp merge a.jsonl --only-correct --out m.jsonl --json"
    )
    assert code == 0
    assert json.loads(out)["left_out"] == {
        "response is wrong": 1,
        "prompt without a kept response": 1,
    }
    code, _, err = run_lalp(monkeypatch, capsys, "lalp unsolved a.jsonl m.jsonl --out u.jsonl")
    assert code == 0
    assert "1 of 2 prompts are not solved" in err
    assert json.loads(Path("u.jsonl").read_text())["prompt_id"] == "q"
    code, out, _ = run_lalp(
        monkeypatch, capsys, "lalp merge a.jsonl --format messages --out t.jsonl"
    )
    lines = Path("t.jsonl").read_text().splitlines()
    assert [json.loads(line)["response_id"] for line in lines] == ["1", "2"]


def test_the_plan_on_the_command_line(monkeypatch, capsys):
    code, out, err = run_lalp(
        monkeypatch, capsys, "lalp.paper.scale plan --profile gpu --stage train --json"
    )
    assert (code, err) == (0, "")
    plan = json.loads(out)
    assert {stage["kind"] for stage in plan["stages"]} == {"train"}
    assert plan["totals"]["stages"] == len(plan["stages"]) == 14


# --- the dry run -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["paper", "gpu"])
def test_a_dry_run_has_the_same_stages(name):
    plan = load_plan(name)
    small, place = shrink(plan, "dry")
    real, toy = make_stages(plan, Place("run"), name), make_stages(small, place, name)
    assert [stage.name for stage in real] == [stage.name for stage in toy]
    for one, other in zip(real, toy, strict=True):
        assert one.kind == other.kind
        assert [path.replace("run/", "dry/", 1) for path in one.outputs] == list(other.outputs)
        for words, toy_words in zip(one.command, other.command, strict=True):
            if one.kind != "train":
                assert toy_words[:2] == words[:2]
            options = {word for word in words if word.startswith("--")}
            assert options - {"--tensor-parallel"} <= set(toy_words)
    teachers, students = models_needed(toy)
    assert not set(teachers) & set(students)
    assert {f"dry/toys/models/{name}" for name in (*teachers, *students)} >= {
        option(stage, "--student") for stage in toy if stage.kind in ("score", "train")
    }


def test_a_command_in_this_process_is_as_one_of_its_own(tmp_path):
    a = pool_of(tmp_path / "a.jsonl", [("p", "A", "1", True)])
    log = tmp_path / "log"
    log.touch()
    words = ("lalp", "merge", str(a), "--out", str(tmp_path / "out.jsonl"), "--json")
    assert call_here(words, tmp_path / "stdout", log) == 0
    assert json.loads((tmp_path / "stdout").read_text())["num_responses"] == 1
    assert "1 responses written" in log.read_text()
    assert call_here(("lalp", "merge", "none.jsonl", "--out", "x.jsonl"), None, log) == 2
    assert "lalp: none.jsonl: no such file" in log.read_text()


@pytest.mark.slow
def test_a_dry_run_of_one_table_in_small(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("LALP_BUILD", str(tmp_path / "build"))
    some = dataclasses.replace(load_plan("gpu"), tables=["3", "8"], controls=False)
    options = {"plan": some, "processes": ("train",)}
    fresh = []
    reports = dry_run(
        "gpu", "dry", **options, on_report=lambda r, new: fresh.append(r.stage.kind if new else "")
    )
    assert {report.stage.kind for report in reports} == {
        *("prompts", "sample", "unsolved", "merge", "segment", "score", "teachers", "select"),
        *("train", "eval", "tables"),
    }
    assert fresh.count("train") == 1
    assert "nothing to do" in {report.state for report in reports}
    # One teacher was not taught one of the six LIMO prompts: five are left, three responses each.
    pool = load_pool("dry/pools/limo.jsonl")
    assert len(pool.prompts) == 5
    assert len(pool.responses) == 15
    assert all(response.correct for response in pool.responses)
    log = pd.read_csv(f"dry/models/{B7}_limo_lalp-s0/training_log.csv")
    assert len(log) >= 2
    written = json.loads(Path("dry/tables.json").read_text())
    cells = {(*c["row"], c["column"]): c["run"] for c in written["tables"]["3"]["cells"]}
    assert all(cells[B7, rule, "AVG"] is not None for rule in ("original", "random", "lalp"))
    mix = [c["run"] for c in written["tables"]["8"]["cells"] if c["row"] == [B7, "random"]]
    assert sum(mix) == pytest.approx(100)
    again = dry_run("gpu", "dry", **options)
    assert {report.state for report in again} == {"done before"}
