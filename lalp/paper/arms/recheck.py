"""Check committed fine-tuned students: one arm, drawn by a seed, is trained and asked again.

Everything is as in the committed run: responses, their order, recipe, sampling. Some of its
held-out responses and problems are measured. Results from before the first update of the weights
must agree to `SAME_NATS` on any machine. Each update then passes its rounding on to the next, so a
trained student's losses and scores have a wider bar, `TRAINED_NATS`, and its answers are only
counted. All that was trained in bfloat16 is only counted: its rounding is coarser, and a CPU that
lacks it trains in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from lalp.errors import InputError
from lalp.paper.arms.grid import BEFORE, COMMITTED, ArmResults, run_grid
from lalp.paper.arms.plan import RULES, Grid, arm_table
from lalp.paper.rechecks import SAME_NATS, compare, require_agreement
from lalp.scoring.columns import score_columns
from lalp.training.examples import HeldOut

# How far a loss or a held-out score of a trained student may lie from the committed one, in nats.
TRAINED_NATS = 0.02
_COMMAND = f"make arms PROFILE={COMMITTED}"
_ARM = ["group", "arm", "seed"]
_ANSWER = [*_ARM, "prompt_id", "temperature", "sample"]


def one_arm(
    grid: Grid, seed: int, *, group: str = RULES, num_problems: int = 2, num_held_out: int = 4
) -> Grid:
    """A grid of one arm of a comparison, with training seed 0, and some problems and responses.

    ``num_held_out`` of the held-out responses are scored: scoring takes as long as training.

    Example:
        ``one_arm(grid, seed=0).arms`` has one arm; a different ``seed`` draws a different one.
    """
    arms = [arm for arm in grid.arms if (arm.group, arm.seed) == (group, 0)]
    if not arms:
        raise InputError(f"no arm of comparison {group!r} with seed 0 to draw: name another one")
    rng = np.random.default_rng(seed)
    arm = arms[rng.integers(len(arms))]
    problems = grid.setup.problems
    drawn = sorted(rng.permutation(len(problems))[:num_problems])
    setup = replace(grid.setup, problems=tuple(problems[i] for i in drawn))
    if setup.held_out:
        setup = replace(setup, held_out=_some_held_out(setup.held_out, num_held_out, rng))
    return replace(grid, arms=(arm,), setup=setup)


def _some_held_out(held_out: HeldOut, number: int, rng: np.random.Generator) -> HeldOut:
    """The same measure on some of the responses, drawn by the generator."""
    pool = held_out.pool
    drawn = sorted(rng.permutation(len(pool.responses))[:number])
    responses = tuple(pool.responses[i] for i in drawn)
    prompts = {r.prompt_id: pool.prompts[r.prompt_id] for r in responses}
    return replace(held_out, pool=replace(pool, prompts=prompts, responses=responses))


def check_training(grid: Grid, committed: ArmResults, seed: int) -> pd.DataFrame:
    """Select every arm's responses again, and train one arm again; a row per check (`compare`).

    InputError if the responses differ, or a value differs by more than its bar.
    """
    now = run_grid(one_arm(grid, seed), answers=False)
    # Selections take no training, so all of them are compared.
    now = replace(now, arms=arm_table(grid.arms, grid.scores))
    return require_agreement(training_checks(committed, now), _COMMAND)


def check_answers(grid: Grid, committed: ArmResults, seed: int) -> pd.DataFrame:
    """Have the same arm, and the untrained student, answer again; a row per check (`compare`).

    The arm is trained if its weights are missing. InputError if the untrained student's answers
    differ.
    """
    now = run_grid(one_arm(grid, seed))
    return require_agreement(answer_checks(committed, now.answers), _COMMAND)


def training_checks(committed: ArmResults, now: ArmResults) -> list[dict[str, Any]]:
    """`compare` of selections, losses and held-out scores made now with the committed ones."""
    scores = score_columns(now.arms)
    counts = [name for name in now.arms if name not in {*_ARM, *scores}]
    first, later = (now.log[now.log["step"].eq(1) == early] for early in (True, False))
    before, after = (now.held_out[now.held_out["step"].eq(0) == early] for early in (True, False))
    step, held_out = [*_ARM, "step"], [*_ARM, "step", "response_id"]
    log, nats = committed.log, ["galp", "lalp"]
    exact = committed.provenance["dtype"] == "float32"
    first_bar, trained_bar = (SAME_NATS, TRAINED_NATS) if exact else (np.inf, np.inf)
    return [
        compare("selection: counts", committed.arms, now.arms, _ARM, counts),
        compare("selection: mean scores", committed.arms, now.arms, _ARM, scores, SAME_NATS),
        compare("tokens of each step", log, now.log, step, ["num_tokens"]),
        compare("held out, before", committed.held_out, before, held_out, nats, SAME_NATS),
        compare("loss, first step", log, first, step, ["loss"], first_bar),
        compare("loss, later steps", log, later, step, ["loss"], trained_bar),
        compare("held out, after", committed.held_out, after, held_out, nats, trained_bar),
    ]


def answer_checks(committed: ArmResults, now: pd.DataFrame) -> list[dict[str, Any]]:
    """`compare` of the answers given now: their ends, and the answers read from them.

    The untrained student's must be the same. The trained student's are only counted: with slightly
    different weights, one changed token changes all that follow.
    """
    untrained = now["arm"] == BEFORE
    columns: Sequence[str] = ["num_tokens", "truncated", "extracted", "outcome"]
    parts = {"untrained student": (now[untrained], 0.0), "trained arm": (now[~untrained], np.inf)}
    return [
        compare(f"{who}: {column}", committed.answers, rows, _ANSWER, [column], at_most)
        for who, (rows, at_most) in parts.items()
        for column in columns
    ]
