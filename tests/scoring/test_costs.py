"""The estimate of cost: tokens against what scoring feeds, FLOPs and weights by hand."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from conftest import CONFIGS, build_student

from lalp.scoring import costs
from lalp.scoring.candidates import score_candidates
from lalp.scoring.costs import (
    ModelSize,
    count_weights,
    matmul_rate,
    measure_model,
    plan_flops,
    plan_scoring,
    row_flops,
)
from lalp.scoring.groups import group_responses, make_tasks
from lalp.scoring.windows import parse_window
from tests.scoring.arithmetic import RESPONSES, make_pool, make_task

WINDOWS = ["0", "2", "25%", "8t", "all"]
RATE = 1e9  # FLOP per second
SIZE = ModelSize(body=1000, head=100, total=1200, attention=10, cache=8, hidden=2)


@pytest.fixture
def known_rate(monkeypatch):
    monkeypatch.setattr(costs, "matmul_rate", lambda *args: RATE)


@pytest.fixture
def save(tokenizer, tmp_path):
    """Saves a tiny student of a family; gives its folder."""

    def save_student(family: str, **changes: object) -> str:
        build_student(family, tokenizer, **changes).model.save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        return str(tmp_path)

    return save_student


def test_weights_of_a_tiny_llama_by_hand(llama):
    # Hidden 32, 4 heads of 8, 2 key-value heads, MLP 64, 3 layers, 400 tokens.
    attention = 32 * 32 + 2 * 32 * 16 + 32 * 32
    layer = attention + 3 * 32 * 64 + 2 * 32
    assert count_weights(llama.model) == ModelSize(
        body=3 * layer + 32,
        head=400 * 32,
        total=3 * layer + 32 + 2 * 400 * 32,
        attention=3 * 4 * 8,
        cache=2 * 3 * 2 * 8,
        hidden=32,
    )


@pytest.mark.parametrize("family", CONFIGS)
def test_weights_are_counted_once_and_without_allocating_them(family, tokenizer):
    model = build_student(family, tokenizer).model
    size = measure_model(CONFIGS[family]())
    assert size == count_weights(model)
    assert size.total == model.num_parameters()
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert size.total == size.body + size.head * (1 if tied else 2)
    assert (size.attention == 0) == (family == "mamba")  # a recurrent model has no attention


def test_flops_of_a_row_by_hand():
    # 4 tokens after a prompt of 10: they see 11, 12, 13 and 14 positions.
    attention = 4 * 10 * (11 + 12 + 13 + 14)
    assert row_flops(SIZE, prompt=10, fed=4, targets=3) == 2 * 1000 * 4 + attention + 2 * 100 * 3
    assert row_flops(SIZE, prompt=10, fed=0, targets=1) == 2 * 100


def test_flops_of_a_plan_by_hand():
    # Prompt 6, steps of 3 and 2, window 0: a row of 5 targets for GALP, which step 1 shares, and
    # one of 2 from token 3. The last target is never fed.
    task = make_task([3, 2])
    prompt = 2 * 1000 * 6 + 4 * 10 * (1 + 2 + 3 + 4 + 5 + 6) + 2 * 100
    first = 2 * 1000 * 4 + 4 * 10 * (7 + 8 + 9 + 10) + 2 * 100 * 5
    second = 2 * 1000 * 1 + 4 * 10 * 7 + 2 * 100 * 2
    assert plan_flops(SIZE, [task], [parse_window("0")]) == prompt + first + second
    # A second response shares the prompt.
    assert plan_flops(SIZE, [task, task], [parse_window("0")]) == prompt + 2 * (first + second)


@pytest.mark.parametrize(
    ("steps", "limit", "windows", "lengths"),
    [
        ([3, 2, 1], 512, [], [12]),
        ([3, 2, 1], 512, ["0"], [12, 9, 8, 7]),
        ([3, 2, 1], 512, ["1"], [12, 9, 11, 9]),
        ([3, 2, 1], 512, ["all"], [12, 9, 11, 12]),  # each step anew, though all see from token 0
        ([3, 2, 1], 512, ["0", "all"], [12, 9, 8, 7, 9, 11, 12]),
        # What does not fit is skipped: the whole response, and the empty step.
        ([3, 2, 0, 1], 9, ["0"], [9, 8, 7]),
    ],
)
def test_flops_of_the_loop_by_hand(steps, limit, windows, lengths):
    # One pass for GALP, and one per step and window, behind a prompt of 6, with logits at every
    # position.
    passes = sum(2 * 1000 * n + 4 * 10 * n * (n + 1) / 2 + 2 * 100 * n for n in lengths)
    task = make_task(steps, limit=limit)
    assert costs.loop_flops(SIZE, task, [parse_window(w) for w in windows]) == passes


def test_the_plan_counts_what_scoring_feeds_and_needs(llama, student_folder, pool, known_rate):
    cost = plan_scoring(pool, student_folder, WINDOWS)
    fed, windows = [], [parse_window(window) for window in WINDOWS]
    groups = [make_tasks(g, llama.tokenizer, 512) for g in group_responses(pool, llama.tokenizer)]
    scores = [s for g in groups for s in score_candidates(llama, g, windows, on_tokens=fed.append)]
    assert cost.fed_tokens == sum(fed)
    assert cost.response_tokens == sum(one.num_tokens for one in scores)
    assert cost.num_steps == sum(one.num_steps for one in scores)
    assert (cost.num_responses, cost.too_long) == (len(RESPONSES), 0)
    # Every response token is a target of GALP's row at least.
    assert cost.target_tokens >= cost.response_tokens
    rows = (len(task.encoded.prompt_ids) + task.num_tokens for tasks in groups for task in tasks)
    assert cost.longest_row == max(rows)
    assert cost.flops < cost.flops_per_step_loop
    # Slower than the rate of a bare matrix product, but not by an order of magnitude.
    assert cost.flops / RATE < cost.seconds < 5 * cost.flops / RATE
    assert cost.memory_bytes > sum(p.numel() * p.element_size() for p in llama.model.parameters())
    assert (cost.device, cost.dtype) == ("cuda", "bfloat16") or cost.dtype == "float32"
    assert json.loads(json.dumps(asdict(cost))) == asdict(cost)


def test_what_is_too_long_is_counted_and_not_planned(save, known_rate):
    pool = make_pool([("sum", "Ada", "So the sum is 7. " * 10), ("sum", "Bob", "It is 7.")])
    cost = plan_scoring(pool, save("llama", max_position_embeddings=60), ["0"])
    assert cost.too_long == 1
    assert cost.longest_row <= 60


def test_a_recurrent_model_can_be_planned_and_no_weights_are_read(
    save, pool, known_rate, monkeypatch
):
    folder = Path(save("mamba"))
    (folder / "model.safetensors").unlink()
    # A revision reads every byte of a folder, which takes minutes for a large student.
    monkeypatch.setattr("lalp.students.student.folder_digest", lambda *a: pytest.fail("read"))
    assert plan_scoring(pool, str(folder), ["1"]).flops > 0


def test_the_measured_rate_is_that_of_a_matrix_product():
    rate = matmul_rate("cpu", torch.float32, 64, seconds=0.05)
    assert 1e8 < rate < 1e15
