"""A student's answers: those of an arm, and those that become the student's own family.

The own family is the adversarial case for likelihood: a student finds its own text natural,
whatever it is worth to learn from.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from lalp.paper.arms.grid import WEIGHTS, Run
from lalp.paper.traces.arms import finish_run
from lalp.paper.words.problems import Problem
from lalp.paper.words.settings import OWN
from lalp.paper.words.teachers import ends_as_asked
from lalp.pools.pool import Response
from lalp.sampling.pool import grade_completions
from lalp.sampling.samples import Completion


def graded_answers(run: Run) -> pd.DataFrame:
    """Train a run's student, have it answer, delete its weights, and grade; answers are kept.

    Returns:
        As `lalp.sampling.pool.grade_completions`: one row per problem and sample.
    """
    if not run.answers.is_file():
        finish_run(run, math.inf)
    if run.examples:  # a kill may have left them
        (run.model / WEIGHTS).unlink(missing_ok=True)
    drawn = pd.read_parquet(run.answers).drop(columns="temperature")
    completions = [Completion(**row) for row in drawn.to_dict("records")]
    return grade_completions(run.setup.problems, completions, num_workers=1)


def keep_right(
    graded: pd.DataFrame, problems: Mapping[str, Problem], most: int
) -> tuple[Response, ...]:
    """The first different right solutions of each problem, at most ``most``, as the own family's.

    ``graded`` are `graded_answers`. Only solutions that end in the form of all teachers are kept.
    """
    kept: dict[str, dict[str, None]] = {key: {} for key in problems}
    for row in graded[graded["correct"]].itertuples():
        own, text = kept[row.prompt_id], row.text.strip()
        if ends_as_asked(text, problems[row.prompt_id].answer) and len(own) < most:
            own[text] = None
    return own_responses(
        (f"{key}/{OWN}/{number}", text)
        for key, texts in kept.items()
        for number, text in enumerate(texts)
    )


def own_responses(texts: Iterable[Sequence[str]]) -> tuple[Response, ...]:
    """Responses of the own family from their ids and texts."""
    return tuple(
        Response(name, name.split("/")[0], OWN, text, correct=True) for name, text in texts
    )
