"""Arms: what each rule chooses to train one student on (paper, Table 1, Table 3, Fig. 6, Fig. 9).

An arm is a set of responses and a seed. `lalp.paper.arms.grid` trains and evaluates their students.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from lalp.errors import InputError
from lalp.files import cache_dir
from lalp.paper.champ.champ import pick_candidates, reference_expressions
from lalp.paper.champ.pool import profile_pool, profile_scores
from lalp.paper.profiles import SFT_GROUPS, Profile
from lalp.pools.pool import Pool, Prompt
from lalp.sampling.settings import Sampling
from lalp.scoring.columns import score_columns
from lalp.selection import matched
from lalp.selection import rules as selection_rules
from lalp.training.examples import HeldOut
from lalp.training.recipes import RECIPES, Recipe

RULES, EQUAL_TOKENS, THIRDS, WINDOWS, TEACHERS = SFT_GROUPS
_LIKE = "random like "
# Samples besides the greedy answer: the evaluation's temperature and top-p (Table 7).
_TEMPERATURE, _TOP_P = 0.6, 0.95


@dataclass(frozen=True)
class Arm:
    """What one student is trained on."""

    group: str  # The comparison, one of `SFT_GROUPS`; for thirds with the teacher's name
    name: str  # What it is compared as, for example ``lalp`` or ``highest``
    seed: int  # Decides the choice (if it is random) and the order of examples, and nothing else
    response_ids: tuple[str, ...]


@dataclass(frozen=True)
class Setup:
    """What all arms of one grid share."""

    student: str
    recipe: Recipe
    held_out: HeldOut | None  # Responses that NLL is measured on, if any
    folder: Path  # Of the runs, which have one folder each
    workers: int  # Students trained at the same time, at most one per core
    problems: tuple[Prompt, ...]  # Held out too, with reference answers
    samplings: tuple[Sampling, ...]  # Every problem is answered once with each of them
    rows: int | None = None  # Answers drawn at once; None: as in `lalp.sampling.samples.generate`
    evaluations: int = 1  # Times that NLL is measured in training; 1: after it


@dataclass(frozen=True)
class Grid:
    """Arms, and all that is needed to train and evaluate their students."""

    arms: tuple[Arm, ...]
    pool: Pool
    scores: pd.DataFrame  # Scores of the candidates in ``pool`` that the arms choose among
    setup: Setup


# --- which responses ---------------------------------------------------------------------------


def plan_arms(scores: pd.DataFrame, profile: Profile) -> list[Arm]:
    """Arms of the profile's comparisons, each with every seed.

    ``scores`` holds the candidates, one row per response. A rule is one of `lalp.select`, or
    ``random like RULE``: the control matched on that rule's teacher mix. In "equal tokens" each
    selection is cut to as many response tokens as the shortest one has.
    """
    return [
        Arm(group, name, seed, tuple(sorted(table["response_id"])))
        for seed in range(profile.sft_seeds)
        for group, tables in _selections(scores, profile, seed).items()
        for name, table in tables.items()
    ]


def _selections(
    scores: pd.DataFrame, profile: Profile, seed: int
) -> dict[str, dict[str, pd.DataFrame]]:
    """The responses of every arm of one seed, by comparison and name."""
    select, of_teacher = selection_rules.select, selection_rules.of_teacher
    groups = set(profile.sft_groups)
    found: dict[str, dict[str, pd.DataFrame]] = {}
    if {RULES, EQUAL_TOKENS} & groups:
        by_rule = {}
        for rule in profile.sft_rules:
            plain = rule.removeprefix(_LIKE)
            by_rule[rule] = select(scores, plain, profile.main_window, seed=seed)
            if rule.startswith(_LIKE):
                by_rule[rule] = matched.select_random_matched(scores, by_rule[rule], seed=seed)
        if RULES in groups:
            found[RULES] = by_rule
        if EQUAL_TOKENS in groups:
            limit = min(int(table["num_tokens"].sum()) for table in by_rule.values())
            found[EQUAL_TOKENS] = {
                rule: selection_rules.within_tokens(table, limit, seed=seed)
                for rule, table in by_rule.items()
            }
    for teacher in profile.sft_teachers if THIRDS in groups else ():
        rows = of_teacher(scores, teacher)
        found[f"{THIRDS}: {teacher}"] = {
            third: selection_rules.select_third(rows, third) for third in selection_rules.THIRDS
        }
    if WINDOWS in groups:
        found[WINDOWS] = {w: select(scores, "lalp", w) for w in profile.sft_windows}
    if TEACHERS in groups:  # of several responses to a prompt, a random one (Table 2)
        names = sorted(set(scores["teacher"]))
        found[TEACHERS] = {t: select(of_teacher(scores, t), "random") for t in names}
    return found


def arm_table(arms: Sequence[Arm], scores: pd.DataFrame) -> pd.DataFrame:
    """Examples, response tokens, mean scores and teachers in the training set of each arm."""
    by_id = scores.set_index("response_id")
    columns = score_columns(scores)
    teachers = sorted(scores["teacher"].unique())
    rows = []
    for arm in arms:
        chosen = by_id.loc[list(arm.response_ids)]
        counts = {"num_examples": len(chosen), "num_tokens": int(chosen["num_tokens"].sum())}
        by_teacher = chosen["teacher"].value_counts().reindex(teachers, fill_value=0)
        key = {"group": arm.group, "arm": arm.name, "seed": arm.seed}
        rows.append(key | counts | dict(chosen[columns].mean()) | dict(by_teacher))
    return pd.DataFrame(rows)


# --- a profile's grid --------------------------------------------------------------------------


def plan_grid(
    profile: Profile, seed: int, scores: pd.DataFrame | None = None, *, bf16: bool = True
) -> Grid:
    """The profile's arms: trained on the first of its scored prompts, measured on others.

    ``seed`` chooses the prompts; arms take the seeds from 0 on. ``scores`` must cover these prompts
    and may cover others; by default they are the profile's own. Without ``bf16``, training is
    computed in float32 everywhere. InputError if scores lack a candidate.
    """
    pool, _ = profile_pool(profile)
    if scores is None:
        scores = profile_scores(profile, pool, seed=seed)
    train = pick_candidates(pool, profile.sft_prompts, profile.responses_per_teacher, seed)
    candidates = [response.response_id for response in train.responses]
    if lacking := set(candidates) - set(scores["response_id"]):
        raise InputError(f"no score of candidate {min(lacking)!r}: give scores of all candidates")
    scores = scores[scores["response_id"].isin(candidates)].reset_index(drop=True)
    used = pick_candidates(pool, profile.num_prompts, 1, seed).prompts
    rest = replace(
        pool,
        prompts={key: p for key, p in pool.prompts.items() if key not in used},
        responses=tuple(r for r in pool.responses if r.prompt_id not in used),
    )
    held_out = _pick_held_out(rest, profile.held_out_prompts, profile.held_out_teachers, seed)
    limit = profile.eval_max_tokens
    setup = Setup(
        profile.student,
        replace(profile_recipe(profile), bf16=bf16),
        HeldOut(held_out, profile.splitter, profile.main_window),
        cache_dir() / "arms",
        profile.sft_workers,
        _pick_problems(rest, profile, seed),
        samplings=(
            Sampling(1, max_tokens=limit, seed=seed),
            Sampling(profile.eval_samples, _TEMPERATURE, _TOP_P, max_tokens=limit, seed=seed),
        ),
    )
    return Grid(tuple(plan_arms(scores, profile)), pool, scores, setup)


def profile_recipe(profile: Profile) -> Recipe:
    """The paper's recipe with the profile's rate and size."""
    return replace(
        RECIPES["paper"],
        learning_rate=profile.sft_learning_rate,
        epochs=profile.sft_epochs,
        batch_size=profile.sft_batch,
        gradient_accumulation=1,
        max_length=4096,
        gradient_checkpointing=False,
    )


def _pick_held_out(pool: Pool, num_prompts: int, num_teachers: int, seed: int) -> Pool:
    """Some teachers' responses to some prompts; the next prompt begins with the next teacher."""
    picked = pick_candidates(pool, num_prompts, 1, seed)
    kept = []
    for place, prompt_id in enumerate(picked.prompts):
        mine = [r for r in picked.responses if r.prompt_id == prompt_id]
        mine.sort(key=lambda response: response.teacher)
        # In turn, so that all teachers are measured about equally often.
        start = place % len(mine)
        kept += (mine[start:] + mine[:start])[:num_teachers]
    return replace(picked, responses=tuple(kept))


def _pick_problems(pool: Pool, profile: Profile, seed: int) -> tuple[Prompt, ...]:
    """Held-out problems that most teachers solve: the easier ones."""
    prompts = pick_candidates(pool, profile.eval_prompts, 1, seed).prompts.values()
    if profile.pool == "champ":  # their references are prose with alternatives
        return tuple(replace(p, answer=reference_expressions(p.answer)[0]) for p in prompts)
    return tuple(prompts)
