"""Estimate the cost of scoring a pool before it runs: tokens, FLOPs, time range, memory."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from lalp.pools.pool import Pool, Response
from lalp.scoring.candidates import CPU_BATCH_TOKENS, GPU_BATCH_TOKENS, score_candidates
from lalp.scoring.costs import (
    ModelSize,
    loop_flops,
    matmul_rate,
    measure_model,
    plan_flops,
    working_bytes,
)
from lalp.scoring.groups import Task, group_responses, make_tasks
from lalp.scoring.plan import plan_response
from lalp.scoring.windows import Window, parse_windows
from lalp.steps.splitters import Steps, check_splitter, is_steps_file, split_pool
from lalp.students.gguf import ADVICE
from lalp.students.loading import unreadable
from lalp.students.student import FoundStudent, find_student, parse_dtype
from lalp.students.thinking import shape_thinking

# Of a larger pool, only prompts with about this many response characters are planned. This takes
# seconds.
MOST_CHARACTERS = 500_000
# The share of a bare matrix product's rate that forward passes reach, from slow to fast. The values
# for a CPU come from `make bench` and short runs; those for a GPU are a guess.
_CPU_SHARES, _GPU_SHARES = (0.35, 0.95), (0.1, 0.8)
# Seconds per layer and pass that do not depend on the number of tokens, from slow to fast.
_PER_LAYER = (2e-3, 1e-4)
# A measurement ends after this many prompts or this many seconds.
_MEASURED_PROMPTS = 5
_MEASURED_SECONDS = 10.0
# A machine's next hour may differ from its last seconds by at least this share.
_UNSTEADY = 0.1


@dataclass(frozen=True)
class ScoringCost:
    """Cost of scoring a pool under a list of windows; time and memory are estimates.

    Counts are exact if all prompts were planned. Those of a larger pool are scaled up from a random
    part of its prompts, in proportion to characters.
    """

    num_prompts: int
    planned_prompts: int
    num_responses: int
    num_steps: int
    response_tokens: int
    fed_tokens: int  # tokens that pass through the model's body
    target_tokens: int  # tokens that pass through its head
    flops: float  # of the body, attention and head
    flops_per_step_loop: float  # the same for one forward pass per step and window
    seconds_low: float  # on this machine
    seconds_high: float
    basis: str  # what the range of time assumes
    memory_bytes: int  # peak: weights, the longest row's cache, activations and logits
    longest_row: int  # tokens of the longest forward row, prompt included
    too_long: int  # responses that exceed the student's positions as a whole
    device: str
    dtype: str


# The names of the counts for each prompt, in this order.
_COUNTS = (
    *("num_steps", "response_tokens", "fed_tokens", "target_tokens", "too_long"),
    *("flops", "flops_per_step_loop", "passes"),
)


@dataclass(frozen=True)
class _Plan:
    """How some prompts of a pool will be scored."""

    found: FoundStudent
    size: ModelSize
    windows: Sequence[Window]
    tasks: Sequence[Sequence[Task]]  # of each prompt
    counts: Float[np.ndarray, "prompts counts"]
    longest_row: int

    def column(self, name: str) -> Float[np.ndarray, "prompts"]:
        """One count for all prompts."""
        return self.counts[:, _COUNTS.index(name)]


def plan_scoring(
    pool: Pool,
    student: str,
    windows: Sequence[str | int | Window],
    *,
    splitter: str | Steps = "sentences",
    thinking: str = "join",
    dtype: str | None = None,
    trust_remote_code: bool = False,
    measure: bool = False,
) -> ScoringCost:
    """Estimate the cost of `lalp.score` from the tokenizer and the config, without the weights.

    With ``measure``, the weights are read too. The student scores a few prompts for some seconds,
    and the time range follows from their speed.

    Raises:
        InputError: If the student, a window or the splitter is not understood.
    """
    parsed = parse_windows(windows)
    check_splitter(splitter)
    options = {"trust_remote_code": trust_remote_code, "convert": measure}
    found = find_student(student, dtype=parse_dtype(dtype) if dtype else None, **options)
    with unreadable("student", found.name, ADVICE):
        size = measure_model(found.config, trust_remote_code=trust_remote_code)
    pool = shape_thinking(pool, thinking, found.tokenizer)
    part = _choose_part(pool)
    plan = _plan_part(part, found, size, parsed, _steps_of(part, pool, splitter))
    growth = _num_characters(pool.responses) / max(_num_characters(part.responses), 1)
    total = dict(zip(_COUNTS, growth * plan.counts.sum(axis=0), strict=True))
    longest = _longest_row(plan, part, pool)
    low, high, basis = _measured(plan, total) if measure else _modelled(plan, total)
    error = _sampling_error(plan, part, pool)
    flops = {name: float(total.pop(name)) for name in ("flops", "flops_per_step_loop")}
    del total["passes"]
    memory = found.dtype.itemsize * (size.total + size.cache * longest)
    return ScoringCost(
        num_prompts=len(_by_prompt(pool)),
        planned_prompts=len(plan.tasks),
        num_responses=len(pool.responses),
        seconds_low=low * max(1 - error, 0.0),
        seconds_high=high * (1 + error),
        basis=basis,
        memory_bytes=memory + working_bytes(size, found.device.type, found.dtype),
        longest_row=longest,
        device=found.device.type,
        dtype=str(found.dtype).removeprefix("torch."),
        **flops,
        **{name: round(count) for name, count in total.items()},
    )


# --- Counting ----------------------------------------------------------------------------------


def _choose_part(pool: Pool) -> Pool:
    """The pool; of a large pool, as many random prompts as can be planned in seconds."""
    if _num_characters(pool.responses) <= MOST_CHARACTERS:
        return pool
    groups, chosen, left = _by_prompt(pool), [], MOST_CHARACTERS
    for prompt_id in random.Random(0).sample([*groups], len(groups)):
        chosen += groups[prompt_id]
        left -= _num_characters(groups[prompt_id])
        if left <= 0:
            break
    return Pool(pool.prompts, tuple(chosen))


def _by_prompt(pool: Pool) -> dict[str, list[Response]]:
    groups: dict[str, list[Response]] = {}
    for response in pool.responses:
        groups.setdefault(response.prompt_id, []).append(response)
    return groups


def _num_characters(responses: Sequence[Response]) -> int:
    return sum(len(response.text) for response in responses)


def _steps_of(part: Pool, pool: Pool, splitter: str | Steps) -> str | Steps:
    """The splitter for part of a pool; given steps are checked as a whole, then reduced to it."""
    if part is pool or not (isinstance(splitter, Mapping) or is_steps_file(splitter)):
        return splitter
    steps = split_pool(pool, splitter)
    return {response.response_id: steps[response.response_id] for response in part.responses}


def _plan_part(
    part: Pool,
    found: FoundStudent,
    size: ModelSize,
    windows: Sequence[Window],
    splitter: str | Steps,
) -> _Plan:
    batch = CPU_BATCH_TOKENS if found.device.type == "cpu" else GPU_BATCH_TOKENS
    tasks = [
        make_tasks(group, found.tokenizer, found.max_positions)
        for group in group_responses(part, found.tokenizer, splitter)
    ]
    counts, longest = np.zeros((len(tasks), len(_COUNTS))), 0
    for counted, group in zip(counts, tasks, strict=True):
        prompt = len(group[0].encoded.prompt_ids)
        rows = [row for task in group for row in plan_response(task, windows).rows]
        fed = sum(row.num_inputs for row in rows)
        counted[:] = (
            sum(len(task.step_spans) for task in group),
            sum(task.num_tokens for task in group),
            prompt + fed,  # a prompt is fed once, for all of its responses
            sum(row.num_targets for row in rows),
            sum(not task.fits(0, task.num_tokens) for task in group),
            plan_flops(size, group, windows),
            sum(loop_flops(size, task, windows) for task in group),
            1 + -(-fed // batch),
        )
        longest = max([longest, *(prompt + row.end - row.start for row in rows)])
    return _Plan(found, size, windows, tasks, counts, longest)


def _longest_row(plan: _Plan, part: Pool, pool: Pool) -> int:
    """Tokens of the longest row, scaled by characters if the longest response was not planned."""
    planned = max((len(response.text) for response in part.responses), default=1)
    whole = max((len(response.text) for response in pool.responses), default=1)
    return min(round(plan.longest_row * whole / max(planned, 1)), plan.found.max_positions)


def _sampling_error(plan: _Plan, part: Pool, pool: Pool) -> float:
    """Two relative standard errors of the FLOPs per character in a part of a pool."""
    if part is pool:
        return 0.0
    flops = plan.column("flops")
    characters = np.array([_num_characters(group) for group in _by_prompt(part).values()])
    if len(flops) < 2:
        return 1.0
    apart = flops - characters * flops.sum() / characters.sum()
    return float(2 * np.sqrt(len(flops) * apart.var(ddof=1)) / flops.sum())


# --- Time --------------------------------------------------------------------------------------


def _modelled(plan: _Plan, total: Mapping[str, float]) -> tuple[float, float, str]:
    """A range of seconds from a model of the machine, and what the range assumes."""
    found, layers = plan.found, _num_layers(plan.found)
    rate = matmul_rate(found.device.type, found.dtype, plan.size.hidden)
    shares = _CPU_SHARES if found.device.type == "cpu" else _GPU_SHARES
    high, low = (
        total["flops"] / (rate * share) + total["passes"] * layers * seconds
        for share, seconds in zip(shares, _PER_LAYER, strict=True)
    )
    slow, fast = shares
    basis = (
        f"forward passes reach {slow:.0%} to {fast:.0%} of the {rate / 1e9:,.0f} GFLOP/s of a "
        f"matrix product, measured just now; each of about {total['passes']:,.0f} passes takes "
        f"another {_PER_LAYER[1] * 1e3:g} to {_PER_LAYER[0] * 1e3:g} ms in each of {layers} layers"
    )
    return low, high, basis


def _num_layers(found: FoundStudent) -> int:
    return getattr(found.config.get_text_config(), "num_hidden_layers", None) or 0


def _measured(plan: _Plan, total: Mapping[str, float]) -> tuple[float, float, str]:
    """A range of seconds from scoring some prompts, and what the range assumes."""
    student = plan.found.load()
    _, slow, _ = _modelled(plan, total)
    chosen = _choose_measured(plan, slow / max(total["flops"], 1.0))
    # The first run is not timed, because it lays out weights and chooses kernels.
    score_candidates(student, chosen[0], plan.windows)
    began, rates = time.perf_counter(), []
    for tasks in chosen:
        start = time.perf_counter()
        score_candidates(student, tasks, plan.windows)
        flops = plan_flops(plan.size, tasks, plan.windows)
        rates.append((time.perf_counter() - start) / flops)
        if time.perf_counter() - began > _MEASURED_SECONDS:
            break
    low, high = min(rates) * (1 - _UNSTEADY), max(rates) * (1 + _UNSTEADY)
    basis = (
        f"as fast as the fastest and as slow as the slowest of {len(rates)} prompts that the "
        f"student has just scored, and {_UNSTEADY:.0%} beyond"
    )
    return low * total["flops"], high * total["flops"], basis


def _choose_measured(plan: _Plan, slow: float) -> list[Sequence[Task]]:
    """Prompts of different sizes to score; at ``slow`` seconds per FLOP, each is within the limit.

    If no prompt is that small, this is the shortest response of the smallest prompt.
    """
    flops = plan.column("flops")
    order = np.argsort(flops, kind="stable")
    small = order[flops[order] * slow <= _MEASURED_SECONDS]
    if not len(small):
        return [[min(plan.tasks[order[0]], key=lambda task: task.num_tokens)]]
    places = np.linspace(0, len(small) - 1, _MEASURED_PROMPTS).round().astype(int)
    return [plan.tasks[small[place]] for place in dict.fromkeys(places.tolist())]
