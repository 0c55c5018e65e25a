"""The cost of forward passes: a model's size, the FLOPs of a plan, the rate of this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.benchmark import Timer
from transformers import AutoModelForCausalLM, PreTrainedModel

from lalp.scoring.candidates import CPU_BATCH_TOKENS, GPU_BATCH_TOKENS
from lalp.scoring.engine.vocabulary import GPU_LOGITS, HEAD_LOGITS
from lalp.scoring.groups import Task
from lalp.scoring.plan import plan_response
from lalp.scoring.windows import Window
from lalp.students.heads import project

# The rate is the same for wider matrices, and these would fill the memory.
_WIDEST = 8192
_PRODUCT = 10**10  # FLOPs of one timed matrix product on a CPU


@dataclass(frozen=True)
class ModelSize:
    """The sizes of a model that decide the cost of a forward pass."""

    body: int  # weights that every token passes through once: all but embeddings and head
    head: int  # weights that only target tokens pass through
    total: int  # all weights; tied ones count once
    attention: int  # numbers multiplied per pair of positions: layers x heads x head size
    cache: int  # numbers kept per token: keys and values of all layers
    hidden: int


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
    """Measure the FLOP/s of a product of the student's width with the faster of two kernels."""
    hidden = min(hidden, _WIDEST)
    columns = min(4 * hidden, _WIDEST)
    # A GPU needs many rows to reach its rate. On a CPU, many wide rows would take a minute.
    most = _PRODUCT // (2 * hidden * columns)
    rows = _WIDEST if device.startswith("cuda") else max(64, min(1024, most))
    a = torch.randn(rows, hidden, device=device, dtype=dtype)
    b = torch.randn(columns, hidden, device=device, dtype=dtype)
    times = []
    for product in (torch.nn.functional.linear, project):
        names = {"product": product, "a": a, "b": b}
        # By default, a timer uses one thread.
        timer = Timer("product(a, b)", globals=names, num_threads=torch.get_num_threads())
        times.append(timer.blocked_autorange(min_run_time=seconds / 2).median)
    return 2 * rows * hidden * columns / min(times)


def row_flops(size: ModelSize, prompt: int, fed: int, targets: int) -> float:
    """FLOPs of one row of ``fed`` tokens after a prompt of ``prompt`` tokens.

    A weight costs two for each token that passes through it. A pair of positions costs four per
    head dimension (scores and values). Half of the pairs within the row are masked.
    """
    pairs = fed * (prompt + (fed + 1) / 2)
    return 2.0 * size.body * fed + 4.0 * size.attention * pairs + 2.0 * size.head * targets


def plan_flops(size: ModelSize, tasks: Sequence[Task], windows: Sequence[Window]) -> float:
    """FLOPs of scoring one prompt's responses with the planned rows."""
    prompt = len(tasks[0].encoded.prompt_ids)
    return row_flops(size, 0, prompt, 1) + sum(
        row_flops(size, prompt, row.num_inputs, row.num_targets)
        for task in tasks
        for row in plan_response(task, windows).rows
    )


def loop_flops(size: ModelSize, task: Task, windows: Sequence[Window]) -> float:
    """FLOPs of one forward pass per step and window and one for GALP, with logits everywhere."""
    prompt, flops = len(task.encoded.prompt_ids), 0.0
    for contexts in plan_response(task, windows).contexts.values():
        for start, span in contexts:
            if task.is_readable(start, span):
                length = prompt + span[1] - start
                flops += row_flops(size, 0, length, length)
    return flops


def working_bytes(size: ModelSize, device: str, dtype: torch.dtype) -> int:
    """Bytes for one batch of each worker: a layer's results, and logits with two copies."""
    on_cpu = torch.device(device).type == "cpu"
    workers = torch.get_num_threads() if on_cpu else 1
    tokens = CPU_BATCH_TOKENS if on_cpu else GPU_BATCH_TOKENS
    # A layer has as many results as weights per input feature; unknown for recurrent layers.
    features = size.body // size.attention if size.attention else 0
    logits = HEAD_LOGITS if on_cpu else GPU_LOGITS
    return workers * (dtype.itemsize * tokens * features + 3 * 4 * logits)
