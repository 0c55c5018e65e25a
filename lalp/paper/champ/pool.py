"""A profile's pool, candidates and scores, and the place of its verdicts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import pandas as pd

from lalp.files import cache_dir
from lalp.paper import root_dir
from lalp.paper.champ.champ import champ_pool, pick_candidates, teacher_accuracy
from lalp.paper.profiles import Profile
from lalp.paper.scores import scores_of
from lalp.pools.pool import Pool
from lalp.pools.reading import load_pool
from lalp.scoring.groups import group_responses, make_tasks
from lalp.scoring.run import score
from lalp.students.student import find_student

Part = Literal["pairs", "all"]
Compute = Callable[[Pool], pd.DataFrame]
_EVERY = 10**6  # more than any pool holds


def profile_pool(profile: Profile) -> tuple[Pool, pd.DataFrame | None]:
    """The profile's pool; for CHAMP also every graded attempt."""
    if profile.pool == "champ":
        return champ_pool(cache_dir() / "champ")
    return load_pool(root_dir() / profile.pool), None


def profile_accuracy(graded: pd.DataFrame | None) -> pd.DataFrame:
    """Each teacher's own verified accuracy (CHAMP only; empty for other pools)."""
    return pd.DataFrame() if graded is None else teacher_accuracy(graded)


def profile_scores(
    profile: Profile, pool: Pool, *, sweep: bool = False, seed: int = 0
) -> pd.DataFrame:
    """Scores of the profile's candidates: committed, from the store, or computed.

    The main scores also hold per-token log-probabilities. ``sweep`` takes the windows and prompts
    of Fig. 3 instead; its prompts are the first of the main ones. ``seed`` chooses the prompts.
    """
    num_prompts = profile.sweep_prompts if sweep else profile.num_prompts
    candidates = pick_candidates(pool, num_prompts, profile.responses_per_teacher, seed)
    windows = profile.sweep_windows if sweep else profile.windows
    # Token columns for the main windows: other notebooks look at single tokens.
    how = {"splitter": profile.splitter, "with_tokens": not sweep}
    part = "sweep" if sweep else "scores"
    return scores_of(
        profile, part, candidates, lambda some: score(some, profile.student, windows, **how)
    )


def verified_scores(profile: Profile, pool: Pool, part: Part, seed: int = 0) -> pd.DataFrame:
    """GALP and the main window of more responses than `profile_scores` takes, without tokens.

    ``pairs`` holds one response of every teacher to each of the profile's coverage prompts, ``all``
    every verified response. ``all`` takes the responses that ``pairs`` holds from there.
    """
    limits = {"pairs": (profile.coverage_prompts, 1), "all": (_EVERY, _EVERY)}
    candidates = pick_candidates(pool, *limits[part], seed)
    windows, how = [profile.main_window], {"splitter": profile.splitter}

    def compute(some: Pool) -> pd.DataFrame:
        return score(some, profile.student, windows, **how)

    if part == "all":
        compute = _beside(verified_scores(profile, pool, "pairs", seed), compute)
    return scores_of(profile, part, candidates, compute)


def _beside(known: pd.DataFrame, compute: Compute) -> Compute:
    """Scores of the responses that a table lacks, together with its rows."""

    def complete(some: Pool) -> pd.DataFrame:
        rows = known[known["prompt_id"].isin(some.prompts)]
        left = tuple(r for r in some.responses if r.response_id not in set(rows["response_id"]))
        if not left:
            return rows
        asked = {r.prompt_id: some.prompts[r.prompt_id] for r in left}
        return pd.concat([rows, compute(replace(some, prompts=asked, responses=left))])

    return complete


def measure_lengths(profile: Profile, pool: Pool) -> pd.DataFrame:
    """Tokens and steps of every response, under the profile's tokenizer and splitter."""
    student = find_student(profile.student)
    rows = []
    for group in group_responses(pool, student.tokenizer, profile.splitter):
        tasks = make_tasks(group, student.tokenizer, student.max_positions)
        for response, task in zip(group.responses, tasks, strict=True):
            lengths = (task.num_tokens, len(task.step_spans), len(response.text))
            rows.append((response.prompt_id, response.teacher, *lengths))
    columns = ["prompt_id", "teacher", "num_tokens", "num_steps", "num_characters"]
    return pd.DataFrame(rows, columns=columns)
