"""Check committed results of step world: problems and traces exactly, one student roughly.

A student is trained from random weights in hundreds of steps, and each passes its rounding on to
the next. So another machine gives a different student with about the same skills. Results that do
not depend on its weights must be the same on any machine: its problems, the teachers' traces, and
the number of tokens in each part of them.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd

from lalp.paper.rechecks import compare, require_agreement
from lalp.paper.world import problems as world
from lalp.paper.world.measure import with_accuracy
from lalp.paper.world.settings import TEACHERS_BY_NAME, UNIT, Study, load_study
from lalp.paper.world.student import make_tokenizer
from lalp.paper.world.study import Unit, WorldResults, load_results, run_seed

# How far a student trained on another machine may be from the committed one: mean scores and losses
# in nats per token, shares of problems, and mean probabilities of copied values.
TRAINED_NATS, TRAINED_SHARE = 0.3, 0.5
_TENTH, _TOKENS = [*UNIT, "teacher", "bin"], ["num_tokens"]


def check_world(results: WorldResults, seed: int) -> pd.DataFrame:
    """Make one student's traces again, and run a small student again; ``seed`` draws both.

    The traces are those of ``results``, the committed study ``standard``. Pre-training one of its
    students takes five minutes, so the student comes from the committed study ``cpu``.

    Returns:
        One row per check (`compare`).

    Raises:
        InputError: If something differs by more than its bar.
    """
    drawn = draw_seed(results, seed)
    traces = trace_tokens(load_study("standard"), drawn)
    checks = [compare(f"seed {drawn}: tokens of traces", results.gaps, traces, _TENTH, _TOKENS)]
    small, study = load_results("cpu"), load_study("cpu")
    again = run_seed(study, draw_seed(small, seed))
    checks += student_checks(small, again)
    return require_agreement(checks, "make world PROFILE=standard and PROFILE=cpu")


def draw_seed(results: WorldResults, seed: int) -> int:
    """The seed of one accepted student of a committed run."""
    accepted = results.students.loc[results.students["accepted"], "seed"]
    return int(accepted.iloc[np.random.default_rng(seed).integers(len(accepted))])


def trace_tokens(study: Study, seed: int) -> pd.DataFrame:
    """Tokens in every tenth of the solutions that the four teachers write for one seed.

    ``num_tokens`` by the columns of `UNIT`, ``teacher`` and ``bin``, as in the table ``gaps`` of a
    run, but made from the problems alone.
    """
    rows, tokenizer = [], make_tokenizer()
    for family, copying in ((f, c) for f in study.families for c in study.copying):
        teachers = tuple(TEACHERS_BY_NAME.values())
        unit = Unit(study, "four teachers", family, copying, seed, teachers, ())
        pool, _ = world.make_pool(unit.problems, teachers, study.samples, seed)
        counts: Counter[tuple[str, int]] = Counter()
        for response in pool.responses:
            size = len(tokenizer(response.text)["input_ids"])
            counts.update((response.teacher, place * 10 // size) for place in range(size))
        rows += [
            unit.labels | {"teacher": teacher, "bin": tenth, "num_tokens": count}
            for (teacher, tenth), count in sorted(counts.items())
        ]
    return pd.DataFrame(rows)


def student_checks(committed: WorldResults, now: WorldResults) -> list[dict[str, Any]]:
    """`compare` of students run now: their skills, scores, losses and accuracy."""
    student, arm = ["family", "copying", "seed"], [*UNIT, "group", "arm"]
    skills = ["short", "whole", "copying_near", "copying_far"]
    means = [*UNIT, "teacher", "split", "score"]
    arms, trained = (with_accuracy(run.arms) for run in (committed, now))
    tuned = trained[trained["last_loss"].notna()]
    losses = ["first_loss", "last_loss"]
    return [
        compare("student: tokens of traces", committed.gaps, now.gaps, _TENTH, _TOKENS),
        compare("student: examples", arms, tuned, arm, ["num_examples", "num_problems"]),
        compare("student: skills", committed.students, now.students, student, skills,
                TRAINED_SHARE),
        compare("student: mean scores", committed.means, now.means, means, ["mean"], TRAINED_NATS),
        compare("student: losses", arms, tuned, arm, losses, TRAINED_NATS),
        compare("student: accuracy", arms, trained, arm, ["accuracy"], TRAINED_SHARE),
    ]  # fmt: skip
