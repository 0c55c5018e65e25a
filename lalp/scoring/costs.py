"""What scoring a pool will cost, before anything runs: tokens, FLOPs, time and memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.benchmark import Timer
from transformers import AutoModelForCausalLM, PreTrainedModel

from lalp.pools.pool import Pool
from lalp.scoring.candidates import CPU_BATCH_TOKENS, GPU_BATCH_TOKENS
from lalp.scoring.engine.vocabulary import HEAD_LOGITS
from lalp.scoring.groups import Task, group_responses, make_tasks
from lalp.scoring.plan import plan_response
from lalp.scoring.windows import Window, parse_windows
from lalp.steps.splitters import Steps, check_splitter
from lalp.students.gguf import ADVICE
from lalp.students.heads import project
from lalp.students.loading import unreadable
from lalp.students.student import find_student

# Share of the matrix-multiply rate that whole forward passes reach (`make bench` measures it).
# Beyond this width the rate stays, and the matrices would fill the memory.
_WIDEST = 8192
_EXPECTED_SHARE = 0.75


@dataclass(frozen=True)
class ModelSize:
    """What a forward pass costs."""

    body: int  # weights that every token passes through once: no embeddings and no head
    head: int  # weights that target tokens alone pass through
    total: int  # all weights, tied ones once
    attention: int  # numbers multiplied per pair of positions: layers x heads x head size
    cache: int  # numbers kept per token: keys and values of all layers
    hidden: int


@dataclass(frozen=True)
class ScoringCost:
    """Cost of scoring a pool under a list of windows; time and memory are estimates."""

    num_responses: int
    num_steps: int
    response_tokens: int
    fed_tokens: int  # that pass through the model's body
    target_tokens: int  # that pass through its head
    flops: float  # of the body, attention and head
    flops_per_step_loop: float  # the same for one forward pass per step and window
    seconds: float  # on this machine
    memory_bytes: int  # peak: weights, the longest row's cache, activations and logits
    longest_row: int  # tokens of the longest forward row, prompt included
    too_long: int  # responses that do not fit the student's positions as a whole
    device: str
    dtype: str


def plan_scoring(
    pool: Pool,
    student: str,
    windows: Sequence[str | int | Window],
    *,
    splitter: str | Steps = "sentences",
    thinking: str = "join",
    trust_remote_code: bool = False,
) -> ScoringCost:
    """Estimate what `lalp.score` will cost; reads the tokenizer and the config, no weights.

    Raises:
        InputError: If the student, a window or the splitter is not understood.
    """
    parsed = parse_windows(windows)
    check_splitter(splitter)
    found = find_student(student, trust_remote_code=trust_remote_code)
    with unreadable("student", found.name, ADVICE):
        size = measure_model(found.config, trust_remote_code=trust_remote_code)
    groups = [
        make_tasks(group, found.tokenizer, found.max_positions)
        for group in group_responses(pool, found.tokenizer, splitter, thinking)
    ]
    tasks = [task for group in groups for task in group]
    rows = [(task, row) for task in tasks for row in plan_response(task, parsed).rows]
    device, dtype = found.device.type, found.dtype
    flops = sum(plan_flops(size, group, parsed) for group in groups)
    lengths = (len(task.encoded.prompt_ids) + row.end - row.start for task, row in rows)
    longest = max(lengths, default=0)
    weights_and_cache = dtype.itemsize * (size.total + size.cache * longest)
    return ScoringCost(
        num_responses=len(tasks),
        num_steps=sum(len(task.step_spans) for task in tasks),
        response_tokens=sum(task.num_tokens for task in tasks),
        # Each prompt is fed once, for all of its responses.
        fed_tokens=sum(len(group[0].encoded.prompt_ids) for group in groups)
        + sum(row.num_inputs for _, row in rows),
        target_tokens=sum(row.num_targets for _, row in rows),
        flops=flops,
        flops_per_step_loop=sum(loop_flops(size, task, parsed) for task in tasks),
        seconds=flops / (matmul_rate(device, dtype, size.hidden) * _EXPECTED_SHARE),
        memory_bytes=weights_and_cache + _working_bytes(size, device, dtype),
        longest_row=longest,
        too_long=sum(not task.fits(0, task.num_tokens) for task in tasks),
        device=device,
        dtype=str(dtype).removeprefix("torch."),
    )


def measure_model(config: Any, *, trust_remote_code: bool = False) -> ModelSize:
    """Count a model's weights from its config, without allocating them."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    return count_weights(model)


def count_weights(model: PreTrainedModel) -> ModelSize:
    """Count a model's weights."""
    text = model.config.get_text_config()
    heads = getattr(text, "num_attention_heads", 0)  # recurrent models have none
    head_size = getattr(text, "head_dim", None) or text.hidden_size // max(heads, 1)
    kv_heads = getattr(text, "num_key_value_heads", None) or heads
    total = sum(weight.numel() for weight in model.parameters())  # lists tied weights once
    embedding = model.get_input_embeddings().weight
    head = model.get_output_embeddings().weight
    outside = embedding.numel() + (0 if head is embedding else head.numel())
    return ModelSize(
        body=total - outside,
        head=head.numel(),
        total=total,
        attention=text.num_hidden_layers * heads * head_size,
        cache=2 * text.num_hidden_layers * kv_heads * head_size,
        hidden=text.hidden_size,
    )


def matmul_rate(device: str, dtype: torch.dtype, hidden: int, seconds: float = 0.5) -> float:
    """FLOP per second of a matrix product of the student's width, by the faster of two kernels."""
    hidden = min(hidden, _WIDEST)
    rows, columns = 1024, 4 * hidden
    a = torch.randn(rows, hidden, device=device, dtype=dtype)
    b = torch.randn(columns, hidden, device=device, dtype=dtype)
    times = []
    for product in (torch.nn.functional.linear, project):
        names = {"product": product, "a": a, "b": b}
        # A timer uses one thread unless told otherwise.
        timer = Timer("product(a, b)", globals=names, num_threads=torch.get_num_threads())
        times.append(timer.blocked_autorange(min_run_time=seconds / 2).median)
    return 2 * rows * hidden * columns / min(times)


def row_flops(size: ModelSize, prompt: int, fed: int, targets: int) -> float:
    """FLOPs of one row of ``fed`` tokens after a prompt of ``prompt`` tokens.

    Two per weight and token, four per pair of positions and head dimension (scores and values),
    half the pairs within the row being masked.
    """
    pairs = fed * (prompt + (fed + 1) / 2)
    return 2.0 * size.body * fed + 4.0 * size.attention * pairs + 2.0 * size.head * targets


def plan_flops(size: ModelSize, tasks: Sequence[Task], windows: Sequence[Window]) -> float:
    """FLOPs of scoring one prompt's responses by the plan."""
    prompt = len(tasks[0].encoded.prompt_ids)
    return row_flops(size, 0, prompt, 1) + sum(
        row_flops(size, prompt, row.num_inputs, row.num_targets)
        for task in tasks
        for row in plan_response(task, windows).rows
    )


def loop_flops(size: ModelSize, task: Task, windows: Sequence[Window]) -> float:
    """FLOPs of one forward pass per step and window, and one for GALP, logits everywhere."""
    prompt, flops = len(task.encoded.prompt_ids), 0.0
    for contexts in plan_response(task, windows).contexts.values():
        for start, span in contexts:
            if task.is_readable(start, span):
                length = prompt + span[1] - start
                flops += row_flops(size, 0, length, length)
    return flops


def _working_bytes(size: ModelSize, device: str, dtype: torch.dtype) -> int:
    """Memory for one batch of each worker: what a layer computes, and logits with two copies."""
    on_cpu = torch.device(device).type == "cpu"
    workers = torch.get_num_threads() if on_cpu else 1
    tokens = CPU_BATCH_TOKENS if on_cpu else GPU_BATCH_TOKENS
    # Weights per layer and input feature, which are a layer's results; recurrent ones are unknown.
    features = size.body // size.attention if size.attention else 0
    return workers * (dtype.itemsize * tokens * features + 3 * 4 * HEAD_LOGITS)
