"""Fine-tuned students of `05_sft` and `06_eval`: the grid of arms, and the verdicts on it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from lalp.files import build_dir
from lalp.paper.arms.grid import Arm, Setup, arm_table, evaluate_arms, plan_arms, train_arms
from lalp.paper.champ.champ import pick_candidates, reference_expressions
from lalp.paper.champ.pool import profile_pool, profile_scores
from lalp.paper.committed import load_tables, save_tables
from lalp.paper.profiles import Profile
from lalp.pools.pool import Pool, Prompt
from lalp.sampling.settings import Sampling
from lalp.training.examples import HeldOut
from lalp.training.recipes import RECIPES, Recipe

# Samples beside the greedy answer: the evaluation's temperature and top-p (Table 7).
_TEMPERATURE, _TOP_P = 0.6, 0.95


@dataclass(frozen=True)
class Grid:
    """A profile's arms and what they share.

    Attributes:
        arms: What students are trained on.
        pool: Holds the arms' responses.
        scores: Of the candidates that the arms choose among.
        setup: Student, recipe, held-out responses, folder.
        problems: Held-out problems to answer.
        samplings: Greedy, and samples.
    """

    arms: tuple[Arm, ...]
    pool: Pool
    scores: pd.DataFrame
    setup: Setup
    problems: tuple[Prompt, ...]
    samplings: tuple[Sampling, ...]


@dataclass(frozen=True)
class ArmResults:
    """What came out of a grid of arms.

    Attributes:
        arms: From `lalp.paper.arms.grid.arm_table`.
        log: Training loss by step.
        held_out: GALP and LALP of the held-out responses by step.
        answers: Graded answers to held-out problems.
        provenance: Profile, commit, hours, versions of a committed run; empty for this one.
    """

    arms: pd.DataFrame
    log: pd.DataFrame
    held_out: pd.DataFrame
    answers: pd.DataFrame
    provenance: dict[str, Any]


def sft_recipe(profile: Profile) -> Recipe:
    """The profile's fine-tuning: the paper's recipe, but its own rate and size, in float32."""
    return replace(
        RECIPES["paper"],
        learning_rate=profile.sft_learning_rate,
        epochs=profile.sft_epochs,
        batch_size=profile.sft_batch,
        gradient_accumulation=1,
        max_length=4096,
        bf16=False,
        gradient_checkpointing=False,
    )


def sft_grid(profile: Profile, seed: int) -> Grid:
    """The profile's arms: trained on the first of its scored prompts, measured on other ones.

    Args:
        profile: The run's profile.
        seed: For the choice of prompts; arms take the seeds from 0 on.
    """
    pool, _ = profile_pool(profile)
    scores = profile_scores(profile, pool, seed=seed)
    train = pick_candidates(pool, profile.sft_prompts, profile.responses_per_teacher, seed)
    scores = scores[scores["prompt_id"].isin(train.prompts)].reset_index(drop=True)
    used = set(pick_candidates(pool, profile.num_prompts, 1, seed).prompts)
    rest = _without(pool, used)
    held_out = _held_out(rest, profile.held_out_prompts, profile.held_out_teachers, seed)
    arms = plan_arms(
        scores,
        rules=profile.sft_rules,
        window=profile.main_window,
        seeds=range(profile.sft_seeds),
        groups=profile.sft_groups,
        windows=profile.sft_windows,
        teachers=profile.sft_teachers,
    )
    setup = Setup(
        profile.student,
        sft_recipe(profile),
        HeldOut(held_out, profile.splitter, profile.main_window),
        build_dir() / "arms",
        profile.sft_workers,
    )
    return Grid(
        tuple(arms), pool, scores, setup, _problems(rest, profile, seed), _samplings(profile, seed)
    )


def _without(pool: Pool, prompt_ids: set[str]) -> Pool:
    return replace(
        pool,
        prompts={key: p for key, p in pool.prompts.items() if key not in prompt_ids},
        responses=tuple(r for r in pool.responses if r.prompt_id not in prompt_ids),
    )


def _held_out(pool: Pool, num_prompts: int, num_teachers: int, seed: int) -> Pool:
    """Some teachers' responses to some prompts; the next prompt begins with the next teacher."""
    picked = pick_candidates(pool, num_prompts, 1, seed)
    kept = []
    for place, prompt_id in enumerate(picked.prompts):
        mine = sorted(
            (r for r in picked.responses if r.prompt_id == prompt_id), key=lambda r: r.teacher
        )
        start = place % len(mine)
        kept += (mine[start:] + mine[:start])[:num_teachers]
    return replace(picked, responses=tuple(kept))


def _problems(pool: Pool, profile: Profile, seed: int) -> tuple[Prompt, ...]:
    """Held-out problems that most teachers solve: the easier ones."""
    prompts = pick_candidates(pool, profile.eval_prompts, 1, seed).prompts.values()
    if profile.pool == "champ":  # whose references are prose with alternatives
        return tuple(replace(p, answer=reference_expressions(p.answer)[0]) for p in prompts)
    return tuple(prompts)


def _samplings(profile: Profile, seed: int) -> tuple[Sampling, ...]:
    limit = profile.eval_max_tokens
    return (
        Sampling(1, max_tokens=limit, seed=seed),
        Sampling(profile.eval_samples, _TEMPERATURE, _TOP_P, max_tokens=limit, seed=seed),
    )


# --- results -----------------------------------------------------------------------------------


def sft_results(grid: Grid) -> ArmResults:
    """Train the students of a grid; what is there already is read."""
    found = train_arms(grid.arms, grid.pool, grid.setup)
    table = arm_table(grid.arms, grid.scores)
    return ArmResults(table, found["log"], found["held_out"], pd.DataFrame(), {})


def eval_results(grid: Grid) -> ArmResults:
    """Train the students of a grid and let them answer; what is there already is read."""
    trained = sft_results(grid)
    answers = evaluate_arms(grid.arms, grid.pool, grid.setup, grid.problems, grid.samplings)
    return replace(trained, answers=answers)


_TABLES = ("arms", "log", "held_out", "answers")


def save_arm_results(results: ArmResults, folder: Path) -> None:
    """Write results as CSV files with their provenance, to be committed."""
    save_tables({t: getattr(results, t) for t in _TABLES}, results.provenance, folder)


def load_arm_results(name: str) -> ArmResults:
    """The committed results of a longer run, by its profile's name.

    Raises:
        InputError: If there are none, or a file of them is missing.
    """
    tables, provenance = load_tables(f"arms_{name}", _TABLES, f"make arms PROFILE={name}")
    return ArmResults(**tables, provenance=provenance)
