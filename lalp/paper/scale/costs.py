"""The cost of a plan before anything runs: tokens, GPU hours, memory and disk of every stage.

The formulas are here; facts and assumptions are beside `lalp.paper.scale.models`.
"""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

from lalp.evaluation.benchmarks import BENCHMARKS
from lalp.paper.scale.models import ASSUMED, STATE_BYTES, Gpu, ModelFacts, find_gpu, find_model
from lalp.paper.scale.plan import Plan
from lalp.paper.scale.stages import Stage
from lalp.scoring.costs import ModelSize, row_flops
from lalp.scoring.engine.rows import plan_rows
from lalp.scoring.equations import window_starts
from lalp.scoring.windows import parse_windows
from lalp.training.recipes import load_recipe


@dataclass(frozen=True)
class StageCost:
    """Estimates for one stage."""

    stage: Stage
    model: str = ""
    node: str = "CPU"  # or the GPUs that it occupies, such as "4x A100-80GB"
    gpus: int = 0
    prompts: int = 0  # prompts, problems or examples
    tokens_in: float = 0.0  # tokens read
    tokens_out: float = 0.0  # tokens written by a model
    flops: float = 0.0
    gpu_hours: float = 0.0  # hours times GPUs
    gpu_bytes: float = 0.0  # peak on each GPU
    host_bytes: float = 0.0  # memory of the host beyond the needs of any process
    disk_bytes: float = 0.0  # files left behind
    scratch_bytes: float = 0.0  # extra files while it runs
    notes: tuple[str, ...] = ()  # obstacles, and what a reader must know


# --- formulas ------------------------------------------------------------------------------------


def model_size(model: ModelFacts) -> ModelSize:
    """The cost of a forward pass, from the facts."""
    head = model.vocab * model.hidden
    return ModelSize(
        body=model.weights_per_token - (1 if model.tied else 2) * head,
        head=head,
        total=model.params,
        attention=model.layers * model.heads * model.head_size,
        cache=model.cache_per_token,
        hidden=model.hidden,
    )


def train_flops(model: ModelFacts, tokens: int) -> float:
    """FLOPs of one example: forward, forward again (recomputed activations), back (twice that)."""
    return 4 * row_flops(model_size(model), 0, tokens, tokens)


@lru_cache
def score_flops(
    model: ModelFacts, prompt: int, response: int, windows: tuple[str, ...]
) -> tuple[float, int]:
    """FLOPs and fed tokens of scoring one response by GALP and LALP at every window.

    Each of its steps has ``step_tokens`` tokens; the rows are those of the scoring plan itself.
    """
    spans = list(pairwise([*range(0, response, ASSUMED.step_tokens), response]))
    contexts = [(0, (0, response))]
    for window in parse_windows(windows):
        contexts += zip(window_starts(window, spans), spans, strict=True)
    rows = plan_rows(contexts)
    size = model_size(model)
    flops = sum(row_flops(size, prompt, row.num_inputs, row.num_targets) for row in rows)
    return flops, sum(row.num_inputs for row in rows)


def decode_rate(model: ModelFacts, gpu: Gpu, gpus: int, prompt: float, response: float) -> float:
    """Tokens per second of all sequences together; the GPUs share one copy of the model.

    Every step reads the weights once and the cache of every running sequence. As many run as the
    cache can hold, with half their response on average. 0 if the weights do not fit.
    """
    cache = 2 * model.cache_per_token * (prompt + response / 2)
    room = ASSUMED.memory_share * gpus * gpu.memory - model.weights
    sequences = min(ASSUMED.max_sequences, int(room / cache))
    if sequences < 1:
        return 0.0
    reading = (model.weights + sequences * cache) / (gpus * gpu.bandwidth)
    computing = sequences * 2 * model.weights_per_token / (gpus * gpu.flops)
    return sequences / max(
        reading / ASSUMED.decode_bandwidth_share, computing / ASSUMED.decode_flops_share
    )


def train_bytes(
    model: ModelFacts, gpus: int, tokens: int, *, offload: bool = False
) -> tuple[float, float]:
    """Peak bytes on each GPU and on the host under ZeRO-3.

    Weights, gradients and optimizer states are cut into one share per GPU; with ``offload`` the
    optimizer states are on the host. The activations of one forward pass of ``tokens`` tokens on
    one GPU are the input of every layer, one whole layer, and a tile of logits.
    """
    states = ASSUMED.weight_bytes + ASSUMED.gradient_bytes
    optimizer = ASSUMED.optimizer_bytes * model.params
    layer = model.hidden * (ASSUMED.checkpoint_bytes * model.layers + ASSUMED.layer_bytes)
    logits = ASSUMED.logit_bytes * model.vocab * min(tokens, ASSUMED.logit_tokens)
    activations = tokens * layer + logits
    # The weights of two layers are gathered at a time.
    gathered = 2 * ASSUMED.weight_bytes * model.params / model.layers
    on_gpu = (states * model.params + (0 if offload else optimizer)) / gpus
    return on_gpu + activations + gathered, optimizer if offload else 0.0


# --- stages --------------------------------------------------------------------------------------


def plan_costs(plan: Plan, stages: Sequence[Stage]) -> list[StageCost]:
    """Costs of all stages, in order."""
    found = []
    for stage in stages:
        find_cost = _COSTS.get(stage.kind, lambda plan, stage: {})
        known = {"prompts": stage.work.prompts} | find_cost(plan, stage)
        found.append(StageCost(stage, **known))
    return found


def _on(model: ModelFacts, gpu: str, gpus: int, hours: float, **numbers: Any) -> dict[str, Any]:
    """Costs of a stage on ``gpus`` GPUs; ``hours`` are hours times GPUs."""
    where = {"model": model.name, "node": f"{gpus}x {gpu}", "gpus": gpus, "gpu_hours": hours}
    return where | numbers


def _answer_cost(plan: Plan, stage: Stage) -> dict[str, Any]:
    """Cost of sampling from a teacher, or of a student's answers to benchmarks."""
    work, model, limit = stage.work, plan.model(stage.work.model), ASSUMED.answer_limit
    lengths, other = ASSUMED.prompt_tokens, ASSUMED.prompt_tokens_other
    jobs = [
        (BENCHMARKS[name].size, lengths.get(name, other), work.answer_tokens)
        for name in work.benchmarks
    ]
    if stage.kind == "sample":
        response = ASSUMED.response_tokens[work.data][work.model]
        jobs = [(work.prompts, lengths[work.data], response)]
        limit = limit if work.data == "math" else ASSUMED.response_limit
    name, gpus, notes = _node(plan, model, limit)
    gpu, size = find_gpu(name), model_size(model)
    seconds = flops = read = written = 0.0
    for count, prompt, response in jobs:
        number = count * work.samples
        rate = decode_rate(model, gpu, gpus, prompt, response)
        # Samples of one prompt share its cache.
        reading = count * row_flops(size, 0, prompt, 1)
        seconds += reading / (ASSUMED.prefill_share * gpus * gpu.flops)
        seconds += number * response / rate if rate else math.nan
        flops += reading + number * row_flops(size, prompt, response, response)
        read, written = read + count * prompt, written + number * response
    return _on(
        *(model, name, gpus, seconds * gpus / 3600),
        prompts=sum(count for count, _, _ in jobs),
        tokens_in=read,
        tokens_out=written,
        flops=flops,
        gpu_bytes=ASSUMED.memory_share * gpu.memory,
        # Once in the store, once in the pool or the results.
        disk_bytes=2 * ASSUMED.token_bytes * written,
        notes=notes,
    )


def _node(plan: Plan, model: ModelFacts, limit: int) -> tuple[str, int, tuple[str, ...]]:
    """GPU, their number, and notes if the model needs the other node or is too short."""
    here, there = (plan.gpu, plan.gpus), (plan.big_gpu, plan.big_gpus)
    names = [f"{gpus}x {gpu}" for gpu, gpus in (here, there)]
    weights, notes = f"{model.name}: {_size(model.weights)} of weights", []
    fits = model.fits(*here)
    if not fits and not model.fits(*there):
        notes = [f"{weights} fit neither {names[0]} nor {names[1]}"]
    elif not fits:
        notes = [f"{weights} do not fit {names[0]}: sample on {names[1]}"]
        if model.name == "DeepSeek-R1":
            notes[0] += (
                ", or ask an OpenAI-compatible server and put its responses there as a pool "
                "(then: --adopt), or take the LIMO data set's own (published: [DeepSeek-R1])"
            )
    if model.positions < limit:
        notes.append(
            f"{model.name} has {model.positions:,} positions: prompt and response end there, not "
            f"at {limit:,} tokens"
        )
    return *(here if fits else there), tuple(notes)


def _score_cost(plan: Plan, stage: Stage) -> dict[str, Any]:
    work, model, gpu = stage.work, plan.model(stage.work.model), find_gpu(plan.gpu)
    prompt = ASSUMED.prompt_tokens[work.data]
    number = work.prompts * work.samples
    responses = [ASSUMED.response_tokens[work.data][writer] for writer in work.writers]
    each = [score_flops(model, prompt, response, work.windows) for response in responses]
    flops = sum(number * flops for flops, _ in each)
    longest = prompt + ASSUMED.longest * max(responses)
    memory = model.weights + 2 * model.cache_per_token * longest
    notes = ()
    if memory > ASSUMED.usable_share * gpu.memory:
        notes = (f"{model.name}: scoring takes {_size(memory)}, too much for one {plan.gpu}",)
    return _on(
        *(model, plan.gpu, 1, flops / (ASSUMED.score_share * gpu.flops) / 3600),
        prompts=round(number * len(work.writers)),
        tokens_in=sum(number * fed for _, fed in each),
        flops=flops,
        gpu_bytes=memory,
        disk_bytes=ASSUMED.token_bytes * sum(number * response for response in responses),
        notes=notes,
    )


def _segment_cost(plan: Plan, stage: Stage) -> dict[str, Any]:
    """Sentences cost nothing; a language model reads every response and writes it again."""
    work = stage.work
    number = work.prompts * work.samples
    tokens = sum(number * ASSUMED.response_tokens[work.data][writer] for writer in work.writers)
    if plan.splitter != "llm":
        return {"tokens_in": tokens}
    # The paper's splitter stands for any model that the server runs.
    model, gpu = find_model("GLM-4.5-Air"), find_gpu(plan.big_gpu)
    mean = tokens / (number * len(work.writers))
    rate = decode_rate(model, gpu, plan.big_gpus, mean, mean)
    hours = tokens / rate * plan.big_gpus / 3600 if rate else math.nan
    assumed = f"{plan.big_gpus}x {plan.big_gpu} assumed"
    return _on(
        *(model, plan.big_gpu, plan.big_gpus, hours),
        prompts=round(number * len(work.writers)),
        tokens_in=tokens,
        tokens_out=tokens,
        gpu_bytes=ASSUMED.memory_share * gpu.memory,
        notes=(f"{plan.llm_model} behind {plan.llm_url}, {assumed}",),
    )


def _train_cost(plan: Plan, stage: Stage) -> dict[str, Any]:
    work, model, gpu = stage.work, plan.model(stage.work.model), find_gpu(plan.gpu)
    recipe = load_recipe(work.recipe)
    longest = min(recipe.max_length, model.positions)
    prompt, responses = ASSUMED.prompt_tokens[work.data], ASSUMED.response_tokens[work.data]
    lengths = [min(prompt + responses[writer], longest) for writer in work.writers]
    number = work.prompts * work.samples
    flops = sum(number * recipe.epochs * train_flops(model, length) for length in lengths)
    offload = not model.trains_on(plan.gpu, plan.gpus)
    share = ASSUMED.offload_share if offload else ASSUMED.train_share
    fed = recipe.batch_size * longest
    on_gpu, on_host = train_bytes(model, plan.gpus, fed, offload=offload)
    return _on(
        *(model, plan.gpu, plan.gpus, flops / (share * gpu.flops) / 3600),
        prompts=round(sum(number for _ in lengths)),
        tokens_in=sum(number * recipe.epochs * length for length in lengths),
        flops=flops,
        gpu_bytes=on_gpu,
        host_bytes=on_host,
        disk_bytes=ASSUMED.saved_bytes * model.params,
        # Two checkpoints: the older one is deleted when the newer is complete.
        scratch_bytes=2 * (ASSUMED.weight_bytes + ASSUMED.optimizer_bytes) * model.params,
        notes=_train_notes(plan, model, fed, on_gpu, offload),
    )


def _train_notes(
    plan: Plan, model: ModelFacts, tokens: int, on_gpu: float, offload: bool
) -> tuple[str, ...]:
    usable = ASSUMED.usable_share * find_gpu(plan.gpu).memory
    notes = []
    if offload:
        alone = train_bytes(model, 8, tokens)[0]
        verdict = "too much for 8 as well" if alone > usable else "8 would do without"
        notes.append(
            f"{model.name}: {_size(STATE_BYTES * model.params)} of weights, gradients and AdamW "
            f"states do not fit {plan.gpus}x {plan.gpu}: the optimizer's stay on the host (on 8 "
            f"GPUs {_size(alone)} each with {tokens:,} tokens: {verdict})"
        )
    if on_gpu > usable:
        notes.append(
            f"{model.name}: training takes {_size(on_gpu)}, too much for one {plan.gpu}: "
            "shorter examples (max_length), a smaller student, or more GPUs"
        )
    return tuple(notes)


_COSTS = {
    **dict.fromkeys(("sample", "eval"), _answer_cost),
    **{"segment": _segment_cost, "score": _score_cost, "train": _train_cost},
}


# --- totals --------------------------------------------------------------------------------------


def add_up(costs: Sequence[StageCost]) -> dict[str, Any]:
    """Totals of a plan, as plain values.

    ``hours`` are those of all stages one after another. All stages keep ``disk_bytes``; one running
    stage needs ``scratch_bytes`` more. Every note appears once.
    """
    by_kind, by_node = Counter(), Counter()
    for cost in costs:
        by_kind[cost.stage.kind] += cost.gpu_hours
        by_node[cost.node] += cost.gpu_hours
    totals = ("tokens_in", "tokens_out", "flops", "gpu_hours", "disk_bytes")
    return {
        "stages": len(costs),
        **{name: sum(getattr(cost, name) for cost in costs) for name in totals},
        "hours": sum(cost.gpu_hours / max(cost.gpus, 1) for cost in costs),
        "gpu_hours_by_kind": {kind: hours for kind, hours in by_kind.items() if hours},
        "gpu_hours_by_node": {node: hours for node, hours in by_node.items() if hours},
        "scratch_bytes": max((cost.scratch_bytes for cost in costs), default=0.0),
        "largest_gpu_bytes": max((cost.gpu_bytes for cost in costs), default=0.0),
        "largest_host_bytes": max((cost.host_bytes for cost in costs), default=0.0),
        "notes": list(dict.fromkeys(note for cost in costs for note in cost.notes)),
    }


def as_record(cost: StageCost) -> dict[str, Any]:
    """One stage of the plan as plain values."""
    stage, numbers = cost.stage, {**vars(cost)}
    del numbers["stage"]
    record = {"name": stage.name, "tables": stage.tables, "kind": stage.kind, **numbers}
    return record | {"inputs": stage.inputs, "outputs": stage.outputs, "command": [stage.command]}


def plan_text(costs: Sequence[StageCost]) -> str:
    """The plan for readers: every stage with its command lines, then totals and notes."""
    blocks = [_stage_text(cost) for cost in costs]
    total = add_up(costs)
    by_kind = ", ".join(f"{k} {h:,.0f}" for k, h in total["gpu_hours_by_kind"].items())
    by_node = ", ".join(f"{n}: {h:,.0f}" for n, h in total["gpu_hours_by_node"].items())
    lines = [
        f"TOTAL of {total['stages']} stages",
        f"  GPU hours {total['gpu_hours']:,.0f} ({by_kind}); by node {by_node}",
        f"  {total['hours'] / 24:,.1f} days if stages follow each other; those on one GPU can run "
        "side by side (--stage)",
        f"  tokens read {_count(total['tokens_in'])}, written {_count(total['tokens_out'])}, "
        f"{total['flops']:.1e} FLOP",
        f"  disk {_size(total['disk_bytes'])}, at most {_size(total['scratch_bytes'])} more while "
        "a student trains; largest memory of the host "
        f"{_size(total['largest_host_bytes'])} beside the usual",
        "Estimates: nothing of this was measured here. Assumptions: "
        "lalp/paper/scale/assumptions.yaml.",
    ]
    return "\n".join([*blocks, *lines, *(f"NOTE {note}" for note in total["notes"])])


def _stage_text(cost: StageCost) -> str:
    stage = cost.stage
    parts = [
        (cost.prompts, f"{cost.prompts:,} prompts"),
        (cost.tokens_in, f"{_count(cost.tokens_in)} tokens in"),
        (cost.tokens_out, f"{_count(cost.tokens_out)} out"),
        (cost.gpus, f"{cost.gpu_hours:,.1f} GPU h, {_size(cost.gpu_bytes)} per GPU"),
        (cost.host_bytes, f"{_size(cost.host_bytes)} on the host"),
        (cost.disk_bytes, f"{_size(cost.disk_bytes)} of disk"),
    ]
    said = ", ".join(text for number, text in parts if number)
    head = f"{stage.name}  [{', '.join(stage.tables)}]  {cost.node}"
    command = shlex.join(stage.command) + (f" > {stage.stdout}" if stage.stdout else "")
    return f"{head}\n  {said or 'no GPU, little of anything'}\n  $ {command}\n"


def _count(number: float) -> str:
    units = {"G": 1e9, "M": 1e6, "k": 1e3}
    fits = (f"{number / size:,.1f}{unit}" for unit, size in units.items() if number >= size)
    return next(fits, f"{number:,.0f}")


def _size(number: float) -> str:
    if number < 1e9:
        return f"{number / 1e6:,.0f} MB"
    return f"{number / 1e9:,.1f} GB" if number < 1e12 else f"{number / 1e12:,.1f} TB"
