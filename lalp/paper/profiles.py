"""Run profiles: how much of which pool is scored by which student."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import get_type_hints

from lalp.errors import InputError
from lalp.settings import check_type, read_keys

PROFILES = ("smoke", "cpu", "standard", "gpu", "paper")
# Comparisons of fine-tuned students: selection rules, the same on equal numbers of tokens, thirds
# of one teacher's responses (Table 1), LALP's windows (Fig. 9), one teacher each (Table 2).
SFT_GROUPS = ("rules", "equal tokens", "thirds", "windows", "teachers")


@dataclass(frozen=True)
class Profile:
    """Values that every notebook of one run shares.

    Attributes:
        student: As in `lalp.load_student`.
        pool: ``champ`` (packaged) or a pool file, relative to the project's root.
        splitter: How responses are cut into steps.
        windows: Windows scored on every candidate.
        main_window: The one among them that stands for LALP where one is needed.
        num_prompts: Prompts scored at most.
        responses_per_teacher: Candidates per prompt and teacher at most.
        sweep_windows: Windows of the paper's Fig. 3.
        sweep_prompts: Prompts scored at most in that sweep.
        splitters: Further splitters whose teacher ranking is laid beside the main one's.
        splitter_prompts: Prompts scored at most under each of them.
        embedder: ``all-minilm-l6-v2`` (packaged), a folder, or a sentence-transformers hub id.
        coverage_prompts: Prompts embedded at most for the coverage analysis.
        num_resamples: Bootstrap resamples.
        sft_prompts: Prompts whose selected responses students are fine-tuned on, at most.
        sft_rules: Rules that select them (`lalp.paper.arms.grid.plan_arms`).
        sft_groups: Comparisons run: rules, equal tokens, thirds, windows, teachers.
        sft_windows: Windows whose LALP selections are compared (Fig. 9).
        sft_teachers: Teachers whose responses are cut into thirds by GALP (Table 1).
        sft_seeds: Runs of every arm.
        sft_epochs: Passes over the selected responses.
        sft_batch: Responses per optimizer step.
        sft_learning_rate: At its highest.
        sft_workers: Students trained at the same time, at most one per core.
        held_out_prompts: Prompts never trained on, to measure NLL on.
        held_out_teachers: Teachers per held-out prompt.
        eval_prompts: Held-out problems to answer.
        eval_samples: Samples per problem, beside the greedy answer.
        eval_max_tokens: An answer's tokens at most.
    """

    student: str
    pool: str
    splitter: str
    windows: list[str]
    main_window: str
    num_prompts: int
    responses_per_teacher: int
    sweep_windows: list[str]
    sweep_prompts: int
    splitters: list[str]
    splitter_prompts: int
    embedder: str
    coverage_prompts: int
    num_resamples: int
    sft_prompts: int
    sft_rules: list[str]
    sft_groups: list[str]
    sft_windows: list[str]
    sft_teachers: list[str]
    sft_seeds: int
    sft_epochs: int
    sft_batch: int
    sft_learning_rate: float
    sft_workers: int
    held_out_prompts: int
    held_out_teachers: int
    eval_prompts: int
    eval_samples: int
    eval_max_tokens: int


def load_profile(name: str) -> Profile:
    """Load one of the profiles that come with the project.

    Raises:
        InputError: If there is no such profile, or its file does not fit `Profile`.
    """
    if name not in PROFILES:
        raise InputError(f"profile {name!r} does not exist: choose one of {', '.join(PROFILES)}")
    text = files("lalp").joinpath("paper", "profiles", f"{name}.yaml").read_text(encoding="utf-8")
    return parse_profile(text, f"profile {name!r}")


def parse_profile(text: str, where: str) -> Profile:
    """Read a profile from YAML text.

    Raises:
        InputError: If a key is unknown, missing or of the wrong type; ``where`` begins the message.
    """
    values = read_keys(text, where, Profile)
    known = get_type_hints(Profile)
    for key, value in values.items():
        check_type(where, key, value, known[key])
    if values["main_window"] not in values["windows"]:
        raise InputError(f"{where}: key 'main_window' must be one of 'windows'")
    for group in values["sft_groups"]:
        if group not in SFT_GROUPS:
            raise InputError(
                f"{where}: key 'sft_groups': there is no comparison {group!r}: choose among "
                f"{', '.join(SFT_GROUPS)}"
            )
    return Profile(**values)
