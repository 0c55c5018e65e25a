"""Run profiles: how much of which pool is scored by which student."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, PositiveInt, model_validator
from pydantic.dataclasses import dataclass

from lalp.errors import InputError
from lalp.files import PACKAGE
from lalp.settings import STRICT, parse_settings

PROFILES = ("smoke", "cpu", "full", "standard", "gpu", "paper")
# Comparisons of fine-tuned students: selection rules, these rules on equal numbers of tokens,
# thirds of one teacher's responses (Table 1), LALP's windows (Fig. 9), one teacher each (Table 2).
SftGroup = Literal["rules", "equal tokens", "thirds", "windows", "teachers"]
SFT_GROUPS = get_args(SftGroup)
Texts = Annotated[list[str], Field(min_length=1)]


@dataclass(frozen=True, config=STRICT)
class Profile:
    """Values that every notebook of one run shares; numbers of prompts are upper limits."""

    student: str
    pool: str  # ``champ`` (packaged) or a pool file, relative to the project's root
    results: str  # Folder of ``figures/`` with committed scores; empty: score everything
    splitter: str
    windows: Texts
    main_window: str  # The main one of ``windows``: it stands for LALP where one window is needed
    num_prompts: PositiveInt
    responses_per_teacher: PositiveInt  # At most this many candidates per prompt and teacher
    sweep_windows: Texts  # Windows of the paper's Fig. 3; ``sweep_prompts`` are scored
    sweep_prompts: PositiveInt
    splitters: Texts  # Further splitters whose teacher ranking is compared with the main one's
    splitter_prompts: PositiveInt
    embedder: str  # ``all-minilm-l6-v2`` (packaged), a folder, or a sentence-transformers hub id
    coverage_prompts: PositiveInt
    num_resamples: PositiveInt
    sft_prompts: PositiveInt
    sft_rules: Texts  # Rules that select training data (`lalp.paper.arms.plan.plan_arms`)
    sft_groups: Annotated[list[SftGroup], Field(min_length=1)]
    sft_windows: Texts  # Windows whose LALP selections are compared (Fig. 9)
    sft_teachers: Texts  # Teachers whose responses are cut into thirds by GALP (Table 1)
    sft_seeds: PositiveInt  # Runs of every arm
    sft_epochs: PositiveInt
    sft_batch: PositiveInt  # Responses per optimizer step
    # Not strict: YAML reads `1e-5` as text.
    sft_learning_rate: Annotated[float, Field(strict=False, gt=0)]
    sft_workers: PositiveInt  # Students trained at the same time, at most one per core
    # Prompts never trained on, to measure NLL on, with ``held_out_teachers`` responses each
    held_out_prompts: PositiveInt
    held_out_teachers: PositiveInt
    eval_prompts: PositiveInt
    eval_samples: PositiveInt  # Samples per held-out problem, besides the greedy answer
    eval_max_tokens: PositiveInt

    @model_validator(mode="after")
    def _main_window_is_scored(self) -> Profile:
        if self.main_window not in self.windows:
            raise ValueError("key 'main_window' must be one of 'windows'")
        return self


def load_profile(name: str) -> Profile:
    """Load one of the profiles that come with the project; InputError if there is none.

    Example:
        >>> load_profile("cpu").main_window
        '4'
    """
    if name not in PROFILES:
        raise InputError(f"profile {name!r} does not exist: choose one of {', '.join(PROFILES)}")
    text = (PACKAGE / f"paper/profiles/{name}.yaml").read_text("utf-8")
    return parse_settings(text, f"profile {name!r}", Profile)
