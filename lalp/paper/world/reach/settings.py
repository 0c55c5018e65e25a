"""The plan set before anything was trained on a selection, and the studies that follow it."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt, model_validator
from pydantic.dataclasses import dataclass

from lalp.errors import InputError
from lalp.files import read_data
from lalp.paper.world.problems import LABELS, Teacher
from lalp.paper.world.reach.problems import REACHES
from lalp.scoring.columns import GALP, lalp_column
from lalp.settings import STRICT

PREREGISTERED: dict[str, Any] = read_data("paper/world/reach/preregistered.yaml")
"""The whole file: predictions, world, arms, analysis, verdicts, pilots, and the values below."""

STUDIES = ("reach", "reach-small")
TEACHERS = tuple(Teacher(name, **knobs) for name, knobs in PREREGISTERED["teachers"].items())

# Arms besides the teachers'. The table has two teacher mixes, each with three choices of samples.
# Those of GALP and LALP are the best of their own mix by their own score.
BEFORE, RANDOM, LALP, LALP_WIDE = "before training", "random", "lalp", "lalp@4"
RANDOM_LIKE_GALP, RANDOM_LIKE_LALP = "random like galp", "random like lalp"
LALP_LIKE_GALP, GALP_LIKE_LALP = "lalp in galp's mix", "galp in lalp's mix"
TABLE = (GALP, RANDOM_LIKE_GALP, LALP_LIKE_GALP, LALP, RANDOM_LIKE_LALP, GALP_LIKE_LALP)
ARMS = (*(teacher.name for teacher in TEACHERS), RANDOM, GALP, LALP, LALP_WIDE, *TABLE[1:3],
        *TABLE[4:])  # fmt: skip
LALP_COLUMN, WIDE_COLUMN = lalp_column("1"), lalp_column("4")

# Contrasts as weights of arms. The contrasts of a family are corrected together, at each reach.
CONTRASTS: dict[str, dict[str, dict[str, float]]] = PREREGISTERED["contrasts"]
PRIMARY = "primary"

UNIT = ["reach", "seed"]


@dataclass(frozen=True, config=STRICT)
class ReachStudy:
    """Values that all units of a study share."""

    reaches: Annotated[list[Literal[REACHES]], Field(min_length=1)]
    copying: Annotated[float, Field(ge=0, lt=1)]  # share of repetitive documents
    students: PositiveInt  # accepted students wanted at each reach
    most_seeds: PositiveInt  # most students tried at each reach
    workers: PositiveInt  # units run at the same time, at most one per core
    pretraining_tokens: PositiveInt  # of every student
    gate_short: NonNegativeFloat  # least share of short problems solved
    gate_whole: NonNegativeFloat  # largest share of whole problems solved
    fewest_moves: Annotated[int, Field(ge=3, le=len(LABELS) - 1)]
    most_moves: Annotated[int, Field(ge=3, le=len(LABELS) - 1)]
    problems: PositiveInt  # prompts whose solutions are selected and trained on
    samples: PositiveInt  # solutions of each problem by every teacher
    held_out: PositiveInt  # problems that the trained students answer
    learning_rate: NonNegativeFloat  # of the fine-tuning, at its highest
    epochs: PositiveInt
    batch: PositiveInt  # solutions per optimizer step

    @model_validator(mode="after")
    def _fits(self) -> ReachStudy:
        if self.fewest_moves > self.most_moves:
            raise ValueError("key 'most_moves' must be at least fewest_moves")
        return self


def load_study(name: str) -> ReachStudy:
    """The preregistered study, or ``reach-small``, which differs only in sizes.

    Raises:
        InputError: If there is no such study.

    Example:
        >>> load_study("reach").students
        12
    """
    if name not in STUDIES:
        raise InputError(f"there is no study {name!r}: choose one of {', '.join(STUDIES)}")
    study = ReachStudy(**PREREGISTERED["values"])
    return study if name == "reach" else replace(study, **PREREGISTERED["small"])
