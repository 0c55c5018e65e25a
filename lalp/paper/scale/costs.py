"""The cost of a plan before anything runs: tokens, GPU hours, memory and disk of every stage.

Facts and assumptions are those of `lalp.paper.models`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from lalp.evaluation.benchmarks import BENCHMARKS
from lalp.paper.models import ASSUMED, Gpu, ModelFacts, find_gpu, model_size, scoring_cost
from lalp.paper.scale.plan import COLUMNS, TEACHERS, Arm, Plan
from lalp.paper.scale.stages import Stages, group_teachers
from lalp.paper.workflow import Stage
from lalp.scoring.costs import row_flops
from lalp.training.recipes import load_recipe


@dataclass(frozen=True)
class Cost:
    """Estimates for one stage."""

    model: str = ""
    node: str = "CPU"  # or the GPUs that it occupies, such as "4x A100-80GB"
    gpus: int = 0
    prompts: int = 0  # prompts, problems or examples
    tokens_in: float = 0.0  # tokens read
    tokens_out: float = 0.0  # tokens written by a model
    gpu_hours: float = 0.0  # hours times GPUs
    gpu_bytes: float = 0.0  # peak on each GPU
    host_bytes: float = 0.0  # memory of the host beyond the needs of any process
    disk_bytes: float = 0.0  # files left behind
    scratch_bytes: float = 0.0  # extra files while it runs
    notes: tuple[str, ...] = ()  # obstacles, and what a reader must know


# --- formulas ------------------------------------------------------------------------------------


def train_flops(model: ModelFacts, tokens: int) -> float:
    """FLOPs of one example: forward, forward again (recomputed activations), back (twice that)."""
    return 4 * row_flops(model_size(model), 0, tokens, tokens)


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


def stage_cost(stages: Stages, kind: str, wildcards: Mapping[str, str]) -> Cost:
    """Costs of one stage: a rule with values for its wildcards."""
    cost = _COSTS[kind](stages, **wildcards) if kind in _COSTS else Cost()
    gpu = stages.plan.gpu
    if kind in ("score", "train") and cost.gpu_bytes > ASSUMED.usable_share * find_gpu(gpu).memory:
        takes = f"{cost.model}: {kind} takes {_size(cost.gpu_bytes)}, too much for one {gpu}"
        advice = "shorter responses (max_length), a smaller student, or more GPUs"
        return replace(cost, notes=(*cost.notes, f"{takes}: {advice}"))
    return cost


def stage_resources(stages: Stages, kind: str, wildcards: Mapping[str, str]) -> dict[str, int]:
    """What a scheduler sets aside for a stage: GPUs, MB of the host's memory, minutes.

    A dry run needs no GPU, and a model that fits nowhere has no estimated time.
    """
    if stages.toys:
        return {"gpu": 0, "mem_mb": 2000, "runtime": 10}
    cost = stage_cost(stages, kind, wildcards)
    hours = ASSUMED.hours_margin * cost.gpu_hours / max(cost.gpus, 1)
    memory = ASSUMED.host_bytes_per_gpu * max(cost.gpus, 1) + cost.host_bytes
    minutes = 60 * ASSUMED.longest_hours if math.isnan(hours) else 60 * (1 + hours)
    return {"gpu": cost.gpus, "mem_mb": math.ceil(memory / 1e6), "runtime": math.ceil(minutes)}


def _sample_cost(stages: Stages, pool: str, teacher: str, preset: str) -> Cost:
    presets, count = stages.presets(pool, teacher), stages.plan.prompts(pool)
    if preset != next(iter(presets)):
        count = max(1, round((1 - ASSUMED.greedy_solved) * count))
    jobs = [(count, ASSUMED.prompt_tokens[pool], ASSUMED.response_tokens[pool][teacher])]
    limit = ASSUMED.answer_limit if pool == "math" else ASSUMED.response_limit
    return _answer_cost(stages.plan, teacher, jobs, presets[preset], limit)


def _eval_cost(stages: Stages, arm: str, decoding: str) -> Cost:
    need = stages.needs[arm]
    names = [COLUMNS[column] for column in need.columns[decoding]]
    lengths, other = ASSUMED.prompt_tokens, ASSUMED.prompt_tokens_other
    answer = _answer_tokens(need.arm)
    jobs = [(BENCHMARKS[name].size, lengths.get(name, other), answer) for name in names]
    samples = 8 if decoding == "sampled" else 1
    return _answer_cost(stages.plan, need.arm.student, jobs, samples, ASSUMED.answer_limit)


def _answer_tokens(arm: Arm) -> int:
    if arm.pool == "math":
        return ASSUMED.response_tokens["math"][arm.teacher]
    brief = not arm.pool and arm.student.endswith(("Instruct", "7B"))
    return ASSUMED.answer_tokens_original if brief else ASSUMED.answer_tokens_long


def _answer_cost(
    plan: Plan, writer: str, jobs: Sequence[tuple[int, int, int]], samples: int, limit: int
) -> Cost:
    """Cost of some answers to each of so many prompts, with tokens of a prompt and of an answer."""
    model = plan.model(writer)
    name, gpus, notes = _node(plan, model, limit)
    gpu, seconds, read, written = find_gpu(name), 0.0, 0.0, 0.0
    for count, prompt, response in jobs:
        number = count * samples
        rate = decode_rate(model, gpu, gpus, prompt, response)
        # Samples of one prompt share its cache.
        reading = count * row_flops(model_size(model), 0, prompt, 1)
        seconds += reading / (ASSUMED.prefill_share * gpus * gpu.flops)
        seconds += number * response / rate if rate else math.nan
        read, written = read + count * prompt, written + number * response
    return Cost(
        *(model.name, f"{gpus}x {name}", gpus),
        prompts=sum(count for count, _, _ in jobs),
        tokens_in=read,
        tokens_out=written,
        gpu_hours=seconds * gpus / 3600,
        gpu_bytes=ASSUMED.memory_share * gpu.memory,
        # Once in the store, once in the pool or the results.
        disk_bytes=2 * ASSUMED.token_bytes * written,
        notes=notes,
    )


def _node(plan: Plan, model: ModelFacts, limit: int) -> tuple[str, int, tuple[str, ...]]:
    """GPU, their number, and notes if the model needs the other node or is too short."""
    nodes, notes = ((plan.gpu, plan.gpus), (plan.big_gpu, plan.big_gpus)), []
    fitting = [node for node in nodes if model.fits(*node)]
    if nodes[0] not in fitting:
        where = f"{plan.big_gpus}x {plan.big_gpu}"
        notes.append(
            f"{model.name}: {_size(model.weights)} of weights do not fit {plan.gpus}x {plan.gpu}: "
            + (f"sample on {where}" if fitting else f"nor do they fit {where}")
            + ", or put responses made elsewhere in their place (--touch)"
        )
    if model.positions < limit:
        notes.append(
            f"{model.name} has {model.positions:,} positions: prompt and response end there, not "
            f"at {limit:,} tokens"
        )
    return *(fitting or nodes)[0], tuple(notes)


def _responses(stages: Stages, group: str) -> tuple[str, float, list[int]]:
    """Pool of a group, responses of each teacher in it, and the tokens of one by each."""
    pool, teachers = group_teachers(group)
    number = stages.plan.prompts(pool) * ASSUMED.kept_samples[pool]
    return pool, number, [ASSUMED.response_tokens[pool][teacher] for teacher in teachers]


def _score_cost(stages: Stages, group: str, student: str) -> Cost:
    plan, (pool, number, responses) = stages.plan, _responses(stages, group)
    model, windows = plan.model(student), stages.windows(group, student)
    prompt = ASSUMED.prompt_tokens[pool]
    cost = scoring_cost(model, plan.gpu, prompt, responses, number, windows)
    return Cost(
        *(model.name, f"1x {plan.gpu}", 1),
        prompts=round(number * len(responses)),
        tokens_in=cost.fed,
        gpu_hours=cost.hours,
        gpu_bytes=cost.memory,
        disk_bytes=ASSUMED.token_bytes * number * sum(responses),
    )


def _segment_cost(stages: Stages, group: str) -> Cost:
    """Sentences cost nothing; a language model reads every response and writes it again."""
    plan, (_, number, responses) = stages.plan, _responses(stages, group)
    if plan.splitter != "llm":
        return Cost(prompts=round(number * len(responses)), tokens_in=number * sum(responses))
    # The paper's splitter stands for any model that the server runs.
    jobs = [(round(number), length, length) for length in responses]
    cost = _answer_cost(plan, "GLM-4.5-Air", jobs, 1, ASSUMED.answer_limit)
    server = f"{plan.llm_model} behind {plan.llm_url}, {cost.node} assumed"
    return replace(cost, notes=(*cost.notes, server))


def _train_cost(stages: Stages, arm: str) -> Cost:
    plan, one = stages.plan, stages.needs[arm].arm
    model, recipe = plan.model(one.student), load_recipe(plan.recipe_of(one))
    longest = min(recipe.max_length, model.positions)
    prompt, responses = ASSUMED.prompt_tokens[one.pool], ASSUMED.response_tokens[one.pool]
    writers = (one.teacher,) if one.teacher else TEACHERS[one.pool]
    lengths = [min(prompt + responses[writer], longest) for writer in writers]
    # One response per prompt by some writer, or one by each writer.
    number = plan.prompts(one.pool) * (1.0 if one.rule == "all" else 1 / len(writers))
    flops = sum(number * recipe.epochs * train_flops(model, length) for length in lengths)
    offload = not model.trains_on(plan.gpu, plan.gpus)
    share = ASSUMED.offload_share if offload else ASSUMED.train_share
    fed = recipe.batch_size * longest
    on_gpu, on_host = train_bytes(model, plan.gpus, fed, offload=offload)
    offloaded = (
        f"{model.name}: {_size(model.states)} of weights, gradients and AdamW states do not fit "
        f"{plan.gpus}x {plan.gpu}: the optimizer's stay on the host (8 GPUs would take "
        f"{_size(train_bytes(model, 8, fed)[0])} each, with {fed:,} tokens)"
    )
    return Cost(
        *(model.name, f"{plan.gpus}x {plan.gpu}", plan.gpus),
        prompts=round(number * len(lengths)),
        tokens_in=sum(number * recipe.epochs * length for length in lengths),
        gpu_hours=flops / (share * find_gpu(plan.gpu).flops) / 3600,
        gpu_bytes=on_gpu,
        host_bytes=on_host,
        disk_bytes=ASSUMED.saved_bytes * model.params,
        # Two checkpoints: the older one is deleted when the newer is complete.
        scratch_bytes=2 * (ASSUMED.weight_bytes + ASSUMED.optimizer_bytes) * model.params,
        notes=(offloaded,) if offload else (),
    )


_COSTS = {
    "prompts": lambda stages, pool: Cost(prompts=stages.plan.prompts(pool)),
    **{"sample": _sample_cost, "segment": _segment_cost, "score": _score_cost},
    **{"train": _train_cost, "eval": _eval_cost},
}


# --- the whole plan ------------------------------------------------------------------------------

# How stages are listed; within a kind by name.
_KINDS = ("prompts", "published", "sample", "unsolved", "merge", "segment", "score", "teachers")
_KINDS += ("select", "put_together", "train", "eval", "tables")


def plan_costs(stages: Stages, listed: Sequence[Stage]) -> pd.DataFrame:
    """A row per stage, by kind: what it is, the paper's tables that need it, and its `Cost`."""
    needed = {path: set(tables) for path, tables in stages.results().items()}
    rows = []
    # From the end: every listed stage follows those whose outputs it reads.
    for stage in reversed(listed):
        tables = set().union(*(needed.get(path, ()) for path in stage.outputs))
        for path in stage.inputs:
            needed.setdefault(path, set()).update(tables)
        cost = stage_cost(stages, stage.kind, stage.wildcards)
        by_number = sorted(tables, key=lambda table: (len(table), table))
        rows.append({**vars(stage), "tables": by_number, **vars(cost)})
    return pd.DataFrame(sorted(rows, key=lambda row: (_KINDS.index(row["kind"]), row["name"])))


def add_up(costs: pd.DataFrame) -> dict[str, float]:
    """Totals of a plan by what they count; all stages keep their disk, one needs its scratch."""
    on_gpus = costs[costs["gpus"] > 0]
    hours = on_gpus["gpu_hours"]
    return {
        "stages": len(costs),
        "GPU hours": hours.sum(skipna=False),
        **{
            f"GPU hours of {name}": part.sum(skipna=False)
            for key in ("kind", "node")
            for name, part in hours.groupby(on_gpus[key], sort=False)
        },
        "days if stages follow each other": (hours / on_gpus["gpus"]).sum(skipna=False) / 24,
        "million tokens read": costs["tokens_in"].sum() / 1e6,
        "million tokens written": costs["tokens_out"].sum() / 1e6,
        "GB of disk": costs["disk_bytes"].sum() / 1e9,
        "GB of disk more while a student is trained": costs["scratch_bytes"].max() / 1e9,
    }


def plan_text(costs: pd.DataFrame) -> str:
    """The plan for readers: a line for every stage, then totals and notes."""
    millions, gigabytes = (
        lambda number, unit=unit: f"{number / unit:,.1f}" if number else "" for unit in (1e6, 1e9)
    )
    shown = {
        "node": ("node", str),
        "prompts": ("prompts", "{:,}".format),
        "tokens_in": ("M tokens in", millions),
        "tokens_out": ("M out", millions),
        "gpu_hours": ("GPU h", lambda hours: f"{hours:,.1f}" if hours else ""),
        "gpu_bytes": ("GB each GPU", gigabytes),
        "host_bytes": ("GB host", gigabytes),
        "disk_bytes": ("GB disk", gigabytes),
        "tables": ("for", ", ".join),
    }
    table = pd.DataFrame({title: costs[name].map(how) for name, (title, how) in shown.items()})
    totals = [f"{round(number, 1):>12,} {name}" for name, number in add_up(costs).items()]
    notes = dict.fromkeys(note for notes in costs["notes"] for note in notes)
    estimates = "Estimates: nothing of this was measured here. See lalp/paper/assumptions.yaml."
    lines = [table.set_axis(costs["name"].array).to_string(), *totals, estimates]
    return "\n".join([*lines, *(f"NOTE {note}" for note in notes)])


def _size(number: float) -> str:
    return f"{number / 1e9:,.1f} GB"
