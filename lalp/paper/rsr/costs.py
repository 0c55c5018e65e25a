"""Cost of scoring the sets, before anything runs: tokens, GPU hours and memory."""

from __future__ import annotations

from math import ceil

import pandas as pd

from lalp.paper.models import ASSUMED, find_model, scoring_cost
from lalp.paper.rsr.plan import Plan
from lalp.paper.rsr.published import published


def plan_costs(plan: Plan) -> pd.DataFrame:
    """A row per student: its model, its input and computation, hours and memory of one GPU.

    Each trace has its teacher's mean length, as published. ``tokens`` counts the traces' tokens,
    ``fed`` those of all forward rows. ``gigabytes`` covers the weights and the cache of a trace of
    `ASSUMED.longest` times the mean length; ``hours`` are right within a factor of two.
    """
    lengths = published().groupby("teacher")["tokens"].first()[list(plan.teachers)]
    number, rows = plan.num_responses * len(plan.generations), []
    for student, name in plan.students.items():
        model, traces = find_model(name), [round(length) for length in lengths]
        cost = scoring_cost(
            *(model, plan.gpu, ASSUMED.prompt_tokens_other, traces, number, plan.windows)
        )
        counts = {"responses": number * len(lengths), "tokens": number * lengths.sum()}
        needs = {"fed": cost.fed, "flops": cost.flops, "hours": cost.hours}
        rows.append({"student": student, "model": model.hub_id, **counts, **needs})
        rows[-1]["gigabytes"] = cost.memory / 1e9
    return pd.DataFrame(rows)


def student_resources(plan: Plan, student: str, toys: bool) -> dict[str, int]:
    """What a scheduler sets aside for scoring under a student: GPUs, MB of memory, minutes."""
    if toys:
        return {"gpu": 0, "mem_mb": 2000, "runtime": 10}
    hours = plan_costs(plan).set_index("student")["hours"][student]
    minutes = 60 * (1 + ASSUMED.hours_margin * hours)
    return {"gpu": 1, "mem_mb": int(ASSUMED.host_bytes_per_gpu / 1e6), "runtime": ceil(minutes)}


def plan_text(plan: Plan) -> str:
    """The plan for readers: the inputs, and a line for each student."""
    costs = plan_costs(plan)
    read = plan.num_sets * plan.set_size * costs["tokens"][0] / costs["responses"][0]
    size = f"about {read * ASSUMED.token_bytes / 1e9:.0f} GB of text"
    lines = [
        f"{plan.repository} at {plan.revision[:12]}: {plan.num_sets} sets of {plan.set_size:,} "
        f"traces by {len(plan.teachers)} teachers, {size}, from the hub or from the folder RSR",
        f"{plan.num_responses} traces of each are scored: {costs['responses'][0]:,}, "
        f"{costs['tokens'][0] / 1e6:.0f}M tokens; windows {', '.join(plan.windows)}, "
        f"steps: {plan.splitter}",
        "",
        f"{'student':<14} {'model':<26} {'tokens fed':>10} {'FLOP':>8} {'GPU h':>6} {'GB':>6}",
    ]
    for row in costs.itertuples():
        numbers = (
            f"{row.fed / 1e6:>9.0f}M {row.flops:>8.1e} {row.hours:>6.1f} {row.gigabytes:>6.1f}"
        )
        lines.append(f"{row.student:<14} {row.model:<26} {numbers}")
    total = f"{costs['hours'].sum():.1f} h of one {plan.gpu}"
    return "\n".join([*lines, "", f"{total} in all. Estimates: nothing of this was measured here."])
