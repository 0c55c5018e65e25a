"""The cost of a plan before anything runs: tokens, GPU hours, memory and disk of every stage.

Facts, assumptions and formulas are those of `lalp.paper.models`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lalp.evaluation.benchmarks import BENCHMARKS
from lalp.paper.models import (
    ASSUMED,
    STATE_BYTES,
    ModelFacts,
    decode_rate,
    find_gpu,
    find_model,
    model_size,
    score_flops,
    train_bytes,
    train_flops,
)
from lalp.paper.scale.plan import COLUMNS, TEACHERS, Arm, Plan
from lalp.paper.scale.stages import ORDER, Stages, group_teachers
from lalp.scoring.costs import row_flops
from lalp.training.recipes import load_recipe

if TYPE_CHECKING:
    from lalp.paper.scale.workflow import Stage


@dataclass(frozen=True)
class StageCost:
    """Estimates for one stage."""

    stage: Stage | None = None  # as Snakemake lists it
    tables: tuple[str, ...] = ()  # the paper's that need it; "control" is this project's own
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


# --- stages --------------------------------------------------------------------------------------


def stage_cost(stages: Stages, kind: str, wildcards: Mapping[str, str]) -> StageCost:
    """Costs of one stage: a rule with values for its wildcards."""
    find_cost = _COSTS.get(kind, lambda stages, **wildcards: {})
    return StageCost(**find_cost(stages, **wildcards))


def plan_costs(stages: Stages, listed: Sequence[Stage]) -> list[StageCost]:
    """Costs of listed stages, by kind, and those that the first tables need first."""
    found = []
    for stage in listed:
        needs = stages.needs_of(stage.wildcards)
        tables = tuple(dict.fromkeys(table for need in needs for table in need.tables))
        cost = stage_cost(stages, stage.kind, stage.wildcards)
        found.append(replace(cost, stage=stage, tables=tables))
    order = {kind: place for place, kinds in enumerate(ORDER) for kind in kinds.split()}
    # A stable order: what is sampled in turns stays behind what it reads.
    return sorted(found, key=lambda c: (order[c.stage.kind], stages.place(c.stage.wildcards)))


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


def _on(model: ModelFacts, gpu: str, gpus: int, hours: float, **numbers: Any) -> dict[str, Any]:
    """Costs of a stage on so many GPUs; ``hours`` are hours times GPUs."""
    where = {"model": model.name, "node": f"{gpus}x {gpu}", "gpus": gpus, "gpu_hours": hours}
    return where | numbers


def _sample_cost(stages: Stages, pool: str, teacher: str, preset: str) -> dict[str, Any]:
    presets, count = stages.presets(pool, teacher), stages.plan.prompts(pool)
    if preset != next(iter(presets)):
        count = max(1, round((1 - ASSUMED.greedy_solved) * count))
    jobs = [(count, ASSUMED.prompt_tokens[pool], ASSUMED.response_tokens[pool][teacher])]
    limit = ASSUMED.answer_limit if pool == "math" else ASSUMED.response_limit
    return _answer_cost(stages.plan, teacher, jobs, presets[preset], limit)


def _eval_cost(stages: Stages, arm: str, decoding: str) -> dict[str, Any]:
    one, _ = stages.arms[arm]
    names = [COLUMNS[column] for column in stages.columns[one][decoding]]
    lengths, other = ASSUMED.prompt_tokens, ASSUMED.prompt_tokens_other
    answer = _answer_tokens(one)
    jobs = [(BENCHMARKS[name].size, lengths.get(name, other), answer) for name in names]
    samples = 8 if decoding == "sampled" else 1
    return _answer_cost(stages.plan, one.student, jobs, samples, ASSUMED.answer_limit)


def _answer_tokens(arm: Arm) -> int:
    if arm.pool == "math":
        return ASSUMED.response_tokens["math"][arm.teacher]
    brief = not arm.pool and arm.student.endswith(("Instruct", "7B"))
    return ASSUMED.answer_tokens_original if brief else ASSUMED.answer_tokens_long


def _answer_cost(
    plan: Plan, writer: str, jobs: list[tuple[int, int, int]], samples: int, limit: int
) -> dict[str, Any]:
    """Cost of some answers to each of so many prompts, with tokens of a prompt and of an answer."""
    model = plan.model(writer)
    name, gpus, notes = _node(plan, model, limit)
    gpu, size = find_gpu(name), model_size(model)
    seconds = flops = read = written = 0.0
    for count, prompt, response in jobs:
        number = count * samples
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
                "(then: --touch), or take the LIMO data set's own (published: [DeepSeek-R1])"
            )
    if model.positions < limit:
        notes.append(
            f"{model.name} has {model.positions:,} positions: prompt and response end there, not "
            f"at {limit:,} tokens"
        )
    return *(here if fits else there), tuple(notes)


def _responses(stages: Stages, group: str) -> tuple[float, list[int]]:
    """Responses of each teacher of a group, and the tokens of one by each."""
    pool, teachers = group_teachers(group)
    number = stages.plan.prompts(pool) * ASSUMED.kept_samples[pool]
    return number, [ASSUMED.response_tokens[pool][teacher] for teacher in teachers]


def _score_cost(stages: Stages, group: str, student: str) -> dict[str, Any]:
    plan, (number, responses) = stages.plan, _responses(stages, group)
    model, gpu = plan.model(student), find_gpu(plan.gpu)
    prompt, windows = (
        ASSUMED.prompt_tokens[group_teachers(group)[0]],
        stages.windows(group, student),
    )
    each = [score_flops(model, prompt, response, windows) for response in responses]
    flops = sum(number * flops for flops, _ in each)
    longest = prompt + ASSUMED.longest * max(responses)
    memory = model.weights + 2 * model.cache_per_token * longest
    notes = ()
    if memory > ASSUMED.usable_share * gpu.memory:
        notes = (f"{model.name}: scoring takes {_size(memory)}, too much for one {plan.gpu}",)
    return _on(
        *(model, plan.gpu, 1, flops / (ASSUMED.score_share * gpu.flops) / 3600),
        prompts=round(number * len(responses)),
        tokens_in=sum(number * fed for _, fed in each),
        flops=flops,
        gpu_bytes=memory,
        disk_bytes=ASSUMED.token_bytes * sum(number * response for response in responses),
        notes=notes,
    )


def _segment_cost(stages: Stages, group: str) -> dict[str, Any]:
    """Sentences cost nothing; a language model reads every response and writes it again."""
    plan, (number, responses) = stages.plan, _responses(stages, group)
    tokens = number * sum(responses)
    if plan.splitter != "llm":
        return {"prompts": plan.prompts(group_teachers(group)[0]), "tokens_in": tokens}
    # The paper's splitter stands for whatever model the server runs.
    model, gpu = find_model("GLM-4.5-Air"), find_gpu(plan.big_gpu)
    mean = tokens / (number * len(responses))
    rate = decode_rate(model, gpu, plan.big_gpus, mean, mean)
    hours = tokens / rate * plan.big_gpus / 3600 if rate else math.nan
    assumed = f"{plan.big_gpus}x {plan.big_gpu} assumed"
    return _on(
        *(model, plan.big_gpu, plan.big_gpus, hours),
        prompts=round(number * len(responses)),
        tokens_in=tokens,
        tokens_out=tokens,
        gpu_bytes=ASSUMED.memory_share * gpu.memory,
        notes=(f"{plan.llm_model} behind {plan.llm_url}, {assumed}",),
    )


def _train_cost(stages: Stages, arm: str) -> dict[str, Any]:
    plan, (one, _) = stages.plan, stages.arms[arm]
    model, gpu, recipe = (
        plan.model(one.student),
        find_gpu(plan.gpu),
        load_recipe(plan.recipe_of(one)),
    )
    longest = min(recipe.max_length, model.positions)
    prompt, responses = ASSUMED.prompt_tokens[one.pool], ASSUMED.response_tokens[one.pool]
    writers = (one.teacher,) if one.teacher else TEACHERS[one.pool]
    lengths = [min(prompt + responses[writer], longest) for writer in writers]
    # One response per prompt by some writer, or one by each.
    number = plan.prompts(one.pool) * (1.0 if one.rule == "all" else 1 / len(writers))
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
    "prompts": lambda stages, pool: {"prompts": stages.plan.prompts(pool)},
    **{"sample": _sample_cost, "segment": _segment_cost, "score": _score_cost},
    **{"train": _train_cost, "eval": _eval_cost},
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
    stage = cost.stage
    record = {"name": stage.name, "kind": stage.kind, **vars(cost)} | {"stage": None}
    return record | {"inputs": stage.inputs, "outputs": stage.outputs, "command": stage.command}


def plan_text(costs: Sequence[StageCost]) -> str:
    """The plan for readers: every stage with its command lines, then totals and notes."""
    blocks = [_stage_text(cost) for cost in costs]
    total = add_up(costs)
    by_kind = ", ".join(f"{k} {h:,.0f}" for k, h in total["gpu_hours_by_kind"].items())
    by_node = ", ".join(f"{n}: {h:,.0f}" for n, h in total["gpu_hours_by_node"].items())
    lines = [
        f"TOTAL of {total['stages']} stages",
        f"  GPU hours {total['gpu_hours']:,.0f} ({by_kind}); by node {by_node}",
        f"  {total['hours'] / 24:,.1f} days if stages follow each other; what does not read each "
        "other's outputs runs side by side where there are GPUs",
        f"  tokens read {_count(total['tokens_in'])}, written {_count(total['tokens_out'])}, "
        f"{total['flops']:.1e} FLOP",
        f"  disk {_size(total['disk_bytes'])}, at most {_size(total['scratch_bytes'])} more while "
        "a student trains; largest memory of the host "
        f"{_size(total['largest_host_bytes'])} beside the usual",
        "Estimates: nothing of this was measured here. Assumptions: lalp/paper/assumptions.yaml.",
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
    head = f"{stage.name}  [{', '.join(cost.tables)}]  {cost.node}"
    return f"{head}\n  {said or 'no GPU, little of anything'}\n  $ {stage.command}\n"


def _count(number: float) -> str:
    units = {"G": 1e9, "M": 1e6, "k": 1e3}
    fits = (f"{number / size:,.1f}{unit}" for unit, size in units.items() if number >= size)
    return next(fits, f"{number:,.0f}")


def _size(number: float) -> str:
    if number < 1e9:
        return f"{number / 1e6:,.0f} MB"
    return f"{number / 1e9:,.1f} GB" if number < 1e12 else f"{number / 1e12:,.1f} TB"
