"""The plan that was set down before anything was trained, and the study that follows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from pydantic.dataclasses import dataclass

from lalp.files import read_data
from lalp.paper.words.teachers import STYLES, Teacher
from lalp.settings import STRICT
from lalp.training.recipes import RECIPES, Recipe

PREREGISTERED: dict[str, Any] = read_data("paper/words/preregistered.yaml")
"""The whole file: predictions, world, arms, analysis, gates, verdicts, and the values below."""

TEACHERS = tuple(Teacher(name, **knobs) for name, knobs in PREREGISTERED["teachers"].items())
OWN = "own family"
FAMILIES = (*(teacher.name for teacher in TEACHERS), OWN)
"""Everyone who has solutions: the written teachers, then the student itself."""

ARMS = tuple(PREREGISTERED["arms"])
"""Every configuration, in the order in which a seed's are run."""
# The primary window; all windows that are scored, on sentences; the teacher within whom GALP's
# order is tried.
WINDOW, WINDOWS, SPLITTER, WITHIN = "4", ("0", "1", "2", "4", "all"), "sentences", "terse"

CONTRASTS: dict[str, dict[str, dict[str, float]]] = PREREGISTERED["contrasts"]
PRIMARY = "primary"
# A prediction for each primary contrast: `above` 0, or `at most` 0.
PREDICTIONS = {name: PREREGISTERED["predictions"][name] for name in CONTRASTS[PRIMARY]}
GATES: dict[str, float] = PREREGISTERED["gates"]
LEVELS = tuple(map(tuple, PREREGISTERED["levels"]))
"""Fewest and most operations of a problem, from hard to easy."""

# Half of the problems refer to a far value, so their number is even.
_Even = Annotated[int, Field(ge=2, multiple_of=2)]
_Operations = Annotated[int, Field(ge=2, le=6)]


@dataclass(frozen=True, config=STRICT)
class WordStudy:
    """Values that all seeds of a study share."""

    student: str  # as in `lalp.students.student.load_student`
    fewest_operations: _Operations
    most_operations: _Operations
    seeds: PositiveInt  # on a CPU
    seeds_on_gpu: PositiveInt
    workers: PositiveInt  # arms at the same time, at most one per core
    problems: _Even  # prompts whose solutions are selected and trained on
    samples: Annotated[int, Field(ge=1, le=len(STYLES))]  # solutions of each by everyone, at most
    held_out: _Even  # problems that every student answers
    measured: PositiveInt  # of these, those whose written solutions are scored during training
    own_problems: (
        _Even  # others, which the student is trained on before it writes its own solutions
    )
    own_samples: PositiveInt  # that it draws for each problem
    learning_rate: PositiveFloat  # at its highest
    epochs: PositiveInt
    batch: PositiveInt  # solutions per optimizer step
    max_tokens: PositiveInt  # of an answer

    @model_validator(mode="after")
    def _fits(self) -> WordStudy:
        if self.fewest_operations > self.most_operations:
            raise ValueError("key 'most_operations' must be at least fewest_operations")
        if self.measured > self.held_out:
            raise ValueError("key 'measured' must be at most held_out")
        return self

    @property
    def operations(self) -> range:
        """Numbers of operations of a problem."""
        return range(self.fewest_operations, self.most_operations + 1)

    def recipe(self, epochs: int | None = None) -> Recipe:
        """Hyperparameters of every training, for as many epochs as planned or given."""
        return replace(
            RECIPES["paper"],
            learning_rate=self.learning_rate,
            epochs=epochs or self.epochs,
            batch_size=self.batch,
            gradient_accumulation=1,
            max_length=1024,
            gradient_checkpointing=False,
        )


def load_study(level: Sequence[int] = LEVELS[0]) -> WordStudy:
    """The preregistered study at a level of difficulty; the pilot finds the one to run.

    Example:
        >>> load_study((2, 3)).operations
        range(2, 4)
    """
    study = WordStudy(**PREREGISTERED["values"])
    return replace(study, fewest_operations=level[0], most_operations=level[1])
