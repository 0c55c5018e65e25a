"""Step world's studies: their students, teachers and comparisons, and the number of each."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt, model_validator
from pydantic.dataclasses import dataclass

from lalp.errors import InputError
from lalp.files import PACKAGE
from lalp.paper.world.problems import FAMILIES, LABELS, WORLD, Teacher
from lalp.scoring.windows import parse_windows
from lalp.settings import STRICT, parse_settings

STUDIES = ("smoke", "cpu", "standard", "long", "controls")
# Comparisons of arms: one teacher each (Table 2), thirds of one teacher's traces by GALP (Table 1),
# selection rules (Table 3), windows of LALP on true steps (Fig. 3 and 9).
TEACHERS, THIRDS, RULES, WINDOWS = GROUPS = ("teachers", "thirds", "rules", "windows")

# Names of arms: the student before any fine-tuning, and the random control of a rule, which draws
# as many responses by each teacher as the rule chose.
BEFORE, CONTROL = "before training", "random like "

# Columns that name a kind of student in all tables, and one student with its arms.
KIND = ["pool", "family", "copying"]
UNIT = [*KIND, "seed"]

# Steps, selection rule and window of each rule of a study.
RULES_BY_NAME = {name: tuple(rule) for name, rule in WORLD["rules"].items()}
TEACHERS_BY_NAME = {name: Teacher(name, **knobs) for name, knobs in WORLD["teachers"].items()}

_Rule = Literal[tuple(RULES_BY_NAME)]
_Moves = Annotated[int, Field(ge=3, le=len(LABELS) - 1)]


@dataclass(frozen=True, config=STRICT)
class Study:
    """Values that all units of one study share."""

    families: Annotated[list[Literal[FAMILIES]], Field(min_length=1)]
    # Shares of repetitive documents in the students' pre-training, one student each
    copying: Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=1)]
    seeds: PositiveInt  # Accepted students wanted of each kind
    most_seeds: PositiveInt  # Most students tried of each kind
    workers: PositiveInt  # Units that run at the same time, at most one per core
    pretraining_tokens: PositiveInt  # Of every student
    gate_short: NonNegativeFloat  # Least share solved of problems with one to three moves
    gate_whole: NonNegativeFloat  # Largest share solved of whole problems
    fewest_moves: _Moves
    most_moves: _Moves
    problems: PositiveInt  # Prompts whose solutions are selected and trained on
    samples: PositiveInt  # Solutions of each prompt by every teacher
    held_out: PositiveInt  # Problems that the trained students answer
    # Comparisons among the teachers of `TEACHERS_BY_NAME`; those of the map are rules
    groups: list[Literal[GROUPS]]
    rules: list[_Rule]
    windows: list[str]  # Of LALP on true steps
    controls: list[_Rule]  # Compared with a random choice of the same teacher mix
    # Knobs of the map's second teacher, one cell per pair; empty without a map
    leaps: list[Annotated[float, Field(ge=0, le=1)]]
    scaffoldings: list[Annotated[float, Field(ge=0, le=2)]]
    learning_rate: NonNegativeFloat  # Of the fine-tuning, at its highest
    epochs: PositiveInt
    batch: PositiveInt  # Solutions per optimizer step

    @model_validator(mode="after")
    def _fits(self) -> Study:
        """Refuse settings that would fail only after students have been trained."""
        if self.fewest_moves > self.most_moves:
            raise ValueError("key 'most_moves' must be at least fewest_moves")
        if bool(self.leaps) != bool(self.scaffoldings):
            raise ValueError("a map needs both 'leaps' and 'scaffoldings'")
        parse_windows(self.windows)
        return self


def load_study(name: str) -> Study:
    """Load one of `STUDIES`; `InputError` if there is no such study."""
    if name not in STUDIES:
        raise InputError(f"step world has no study {name!r}: choose one of {', '.join(STUDIES)}")
    path = PACKAGE / f"paper/world/studies/{name}.yaml"
    return parse_settings(path.read_text(encoding="utf-8"), f"study {name!r}", Study)
