"""Cost of scoring the sets, before anything runs: tokens, GPU hours and memory."""

from __future__ import annotations

import pandas as pd

from lalp.paper.rsr.plan import Plan
from lalp.paper.rsr.published import published
from lalp.paper.scale.costs import score_flops
from lalp.paper.scale.models import ASSUMED, find_gpu, find_model


def plan_costs(plan: Plan) -> pd.DataFrame:
    """A row per student: its model, its input and computation, hours and memory of one GPU.

    Each trace has its teacher's mean length, as published. ``tokens`` counts the traces' tokens,
    ``fed`` those of all forward rows. ``gigabytes`` covers the weights and the cache of a trace of
    `ASSUMED.longest` times the mean length; ``hours`` are right within a factor of two.
    """
    lengths = published().groupby("teacher")["tokens"].first()[list(plan.teachers)]
    number, gpu, rows = plan.num_responses * len(plan.generations), find_gpu(plan.gpu), []
    for student, name in plan.students.items():
        model = find_model(name)
        costs = [
            score_flops(model, ASSUMED.prompt_tokens_other, round(length), tuple(plan.windows))
            for length in lengths
        ]
        flops, fed = (number * sum(part) for part in zip(*costs, strict=True))
        longest = min(ASSUMED.longest * lengths.max(), model.positions)
        rows.append(
            {
                "student": student,
                "model": model.hub_id,
                "responses": number * len(lengths),
                "tokens": number * lengths.sum(),
                "fed": fed,
                "flops": flops,
                "hours": flops / (ASSUMED.score_share * gpu.flops) / 3600,
                "gigabytes": (model.weights + 2 * model.cache_per_token * longest) / 1e9,
            }
        )
    return pd.DataFrame(rows)


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
