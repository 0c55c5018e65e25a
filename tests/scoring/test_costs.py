"""What forward passes cost: FLOPs and weights by hand."""

from __future__ import annotations

import pytest
import torch
from conftest import CONFIGS, build_student

from lalp.scoring import costs
from lalp.scoring.costs import (
    ModelSize,
    count_weights,
    matmul_rate,
    measure_model,
    plan_flops,
    row_flops,
)
from lalp.scoring.windows import parse_window
from tests.scoring.arithmetic import make_task

SIZE = ModelSize(body=1000, head=100, total=1200, attention=10, cache=8, hidden=2)


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


def test_the_measured_rate_is_that_of_a_matrix_product():
    rate = matmul_rate("cpu", torch.float32, 64, seconds=0.05)
    assert 1e8 < rate < 1e15
