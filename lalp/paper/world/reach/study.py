"""The study of `registers-reach`: one student, one pool, eleven arms; as many students as planned.

A unit is one student of one reach. It is pre-trained and gated, and scores the teachers' solutions.
It is fine-tuned on every arm's selection by the same code as any other student, and solves held-out
problems. Every stage is kept under a name made from everything that decides it, so a killed run
continues where it stopped. A worker takes one student from the first stage to the last, so a
stopped run has finished whole students.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lalp.files import cache_dir, digest, fingerprint, write_json
from lalp.paper.committed import load_results as load_committed
from lalp.paper.workers import run_side_by_side
from lalp.paper.world import study as base
from lalp.paper.world.problems import WORDINGS
from lalp.paper.world.reach import problems as world
from lalp.paper.world.reach import settings
from lalp.paper.world.reach.problems import ReachProblem
from lalp.paper.world.reach.settings import LALP_COLUMN, TEACHERS, UNIT, WIDE_COLUMN, ReachStudy
from lalp.paper.world.reach.student import ReachSchooling, pretrain
from lalp.paper.world.student import REPORTS, SCHOOLING, SHORT_MOVES
from lalp.pools.pool import Pool
from lalp.scoring.columns import GALP
from lalp.scoring.run import score
from lalp.selection import matched, rules
from lalp.students.student import load_student

# Read once, because another version may be saved during a long run.
_STUDENT_CODE = [
    *(fingerprint(f"paper.world.{part}problems", f"paper.world.{part}student")
      for part in ("", "reach.")),
    WORDINGS,
]  # fmt: skip
STUDENT_CODE = digest(_STUDENT_CODE)
"""What makes problems, solutions and students before fine-tuning: a hash of its code."""
_GATE_CODE = fingerprint("training", "sampling", "scoring", "students")
_SCORES = [GALP, LALP_COLUMN, WIDE_COLUMN]


@dataclass(frozen=True)
class ReachUnit:
    """One student of one reach; ``seed`` decides it, its problems, solutions, and their order."""

    study: ReachStudy
    reach: int
    seed: int

    @property
    def labels(self) -> dict[str, Any]:
        """The columns that name the unit in tables."""
        return dict(zip(UNIT, (self.reach, self.seed), strict=True))

    @property
    def moves(self) -> range:
        """Lengths of whole problems."""
        return range(self.study.fewest_moves, self.study.most_moves + 1)

    @property
    def schooling(self) -> ReachSchooling:
        """How the student is pre-trained. Its drills are those of `registers`."""
        moves, tokens = (self.moves[0], self.moves[-1]), self.study.pretraining_tokens
        return ReachSchooling("registers", self.study.copying, moves, tokens, self.seed, self.reach)

    @property
    def student(self) -> Path:
        """Folder of the student before fine-tuning."""
        return cache_dir() / "worlds" / f"reach-{digest([self.schooling, _STUDENT_CODE])}"

    @cached_property
    def problems(self) -> dict[str, ReachProblem]:
        """Problems whose solutions are scored, selected and trained on."""
        return world.make_problems(self.reach, self.moves, self.study.problems, (self.seed, 1))

    @cached_property
    def held_out(self) -> dict[str, ReachProblem]:
        """Problems that every trained student solves; none of them is trained on."""
        prompts = {problem.prompt for problem in self.problems.values()}
        # Twice as many as wanted, because some may be among the training problems.
        found = world.make_problems(self.reach, self.moves, 2 * self.study.held_out, (self.seed, 2))
        fresh = ((key, p) for key, p in found.items() if p.prompt not in prompts)
        return dict(islice(fresh, self.study.held_out))


def gate(unit: ReachUnit) -> dict[str, Any]:
    """Pre-train a student and measure it before any fine-tuning; kept results are read.

    Returns:
        ``short`` and ``whole``: solved shares of problems of one to three moves and of whole ones;
        ``solved``: a digit for each whole one; and whether the student is ``accepted``.
    """
    prompts = [problem.prompt for problem in unit.held_out.values()]
    path = unit.student / REPORTS / f"gate-{digest([prompts, _GATE_CODE])}.json"
    if not path.is_file():
        pretrain(unit.schooling, unit.student)
        count = unit.study.held_out
        short = world.make_problems(unit.reach, SHORT_MOVES, count, (unit.seed, 3))
        solved = base._solve(unit.held_out, unit.student)
        report = {
            "short": float(np.mean(base._solve(short, unit.student))),
            "whole": float(np.mean(solved)),
            "solved": "".join(map(str, map(int, solved))),
            "seconds": json.loads((unit.student / SCHOOLING).read_text("utf-8"))["seconds"],
        }
        write_json(path, report)
    report = json.loads(path.read_text(encoding="utf-8"))
    passed = report["short"] >= unit.study.gate_short and report["whole"] <= unit.study.gate_whole
    return unit.labels | report | {"accepted": passed}


def unit_scores(unit: ReachUnit) -> tuple[Pool, pd.DataFrame]:
    """Make the pool, and score it on its true steps by GALP and by LALP under both windows."""
    pool, steps = world.make_pool(unit.problems, TEACHERS, unit.study.samples, unit.seed)
    student = load_student(str(unit.student), device="cpu")
    table = score(
        pool, student, ["1", "4"], splitter=steps, store=unit.student / "scores", progress=False
    )
    return pool, table


def plan_selections(table: pd.DataFrame, seed: int) -> dict[str, list[str]]:
    """Response ids of every arm."""
    found = {
        teacher.name: rules.select(rules.of_teacher(table, teacher.name), "random", seed=seed)
        for teacher in TEACHERS
    }
    galp, lalp = rules.select(table, "galp"), rules.select(table, "lalp", "1")
    found |= {
        settings.RANDOM: rules.select(table, "random", seed=seed),
        GALP: galp,
        settings.LALP: lalp,
        settings.LALP_WIDE: rules.select(table, "lalp", "4"),
        settings.RANDOM_LIKE_GALP: matched.select_random_matched(table, galp, seed=seed),
        settings.LALP_LIKE_GALP: matched.select_best_matched(table, galp, LALP_COLUMN),
        settings.RANDOM_LIKE_LALP: matched.select_random_matched(table, lalp, seed=seed),
        settings.GALP_LIKE_LALP: matched.select_best_matched(table, lalp, GALP),
    }
    return {name: sorted(chosen["response_id"]) for name, chosen in found.items()}


def run_unit(unit: ReachUnit) -> dict[str, pd.DataFrame]:
    """Score, select, fine-tune and evaluate an accepted student; finished arms are read.

    Returns:
        ``arms``: one row per arm, the untrained student first: the selection (examples, tokens,
        mean scores, teachers' shares) and the report of `lalp.paper.world.study.run_arm`.
        ``means``: mean scores by teacher.
    """
    pool, table = unit_scores(unit)
    by_id, before = table.set_index("response_id"), gate(unit)
    solved = before["solved"]
    rows = [{"arm": settings.BEFORE, "num_solved": solved.count("1"), "num_problems": len(solved),
             "solved": solved}]  # fmt: skip
    for name, ids in plan_selections(table, unit.seed).items():
        chosen = by_id.loc[ids]
        shares = chosen["teacher"].value_counts(normalize=True)
        rows.append({
            "arm": name,
            "num_examples": len(chosen),
            "num_tokens": int(chosen["num_tokens"].sum()),
            **chosen[_SCORES].mean(),
            **{f"share of {t.name}": float(shares.get(t.name, 0.0)) for t in TEACHERS},
            **base.run_arm(unit, pool, ids),
        })  # fmt: skip
    means = table.groupby("teacher")[[*_SCORES, "num_tokens"]].mean()
    means = means.melt(var_name="score", value_name="mean", ignore_index=False).reset_index()
    tables = {"arms": pd.DataFrame(rows), "means": means}
    return {
        name: pd.concat([pd.DataFrame(unit.labels, rows.index), rows], axis=1)
        for name, rows in tables.items()
    }


def _finish(unit: ReachUnit) -> None:
    """All results of one student, or only its gate if it is rejected."""
    if gate(unit)["accepted"]:
        run_unit(unit)


# --- the whole -------------------------------------------------------------------------------

_EMPTY = {
    "students": [*UNIT, "short", "whole", "accepted"],
    "arms": [*UNIT, "arm", "num_solved", "num_problems", "solved"],
    "means": [*UNIT, "teacher", "score", "mean"],
}
_OF_ACCEPTED = ("arms", "means")
_TEXTS = ("arm", "solved", "teacher", "score")


@dataclass(frozen=True)
class ReachResults:
    """Results of a study: tables with one row per student tried, arm, and mean score.

    ``provenance`` has study, commit, hours and versions of a committed run; empty for a live one.
    """

    students: pd.DataFrame
    arms: pd.DataFrame
    means: pd.DataFrame
    provenance: dict[str, Any]


def run_reach(study: ReachStudy, kept: ReachResults | None = None) -> ReachResults:
    """All results of a study; finished parts are read.

    Seeds are tried in turn, at all reaches, until enough students are accepted or the seeds are
    used up. Students of ``kept``, earlier results of the same study, are not trained again.
    """
    rows = [] if kept is None else kept.students.to_dict("records")
    known = {(row["reach"], row["seed"]): row for row in rows}
    tried: dict[int, list[dict[str, Any]]] = {reach: [] for reach in study.reaches}
    while units := _next_units(study, tried):
        new = [unit for unit in units if (unit.reach, unit.seed) not in known]
        run_side_by_side(_finish, new, study.workers, "students", threads=1)
        for unit in units:
            tried[unit.reach].append(known.get((unit.reach, unit.seed)) or gate(unit))
    reports = [report for reports in tried.values() for report in reports]
    return collect(study, reports, kept)


def _next_units(study: ReachStudy, tried: Mapping[int, list[dict[str, Any]]]) -> list[ReachUnit]:
    """Missing students; both reaches of a seed are neighbours."""
    units = []
    for reach, reports in tried.items():
        lacking = study.students - sum(report["accepted"] for report in reports)
        stop = min(len(reports) + lacking, study.most_seeds)
        units += [ReachUnit(study, reach, seed) for seed in range(len(reports), stop)]
    return sorted(units, key=lambda unit: unit.seed)


def collect(
    study: ReachStudy, reports: list[dict[str, Any]], kept: ReachResults | None = None
) -> ReachResults:
    """The tables of students with the given gates; arms only of the accepted ones."""
    accepted = [(report["reach"], report["seed"]) for report in reports if report["accepted"]]
    known = {name: _by_student(getattr(kept, name)) for name in _OF_ACCEPTED} if kept else {}
    tables = [
        {name: of_student[each] for name, of_student in known.items()}
        if known and each in known["arms"]
        else run_unit(ReachUnit(study, *each))
        for each in accepted
    ]
    tables = tables or [{name: pd.DataFrame(columns=_EMPTY[name]) for name in _OF_ACCEPTED}]
    arms, means = (pd.concat([t[name] for t in tables]) for name in _OF_ACCEPTED)
    students = pd.DataFrame(reports, columns=None if reports else _EMPTY["students"])
    students = students.drop(columns="solved", errors="ignore")
    return ReachResults(students, *(t.reset_index(drop=True) for t in (arms, means)), {})


def _by_student(table: pd.DataFrame) -> dict[tuple[int, int], pd.DataFrame]:
    return {(int(reach), int(seed)): rows for (reach, seed), rows in table.groupby(UNIT)}


def load_results(name: str = "reach") -> ReachResults:
    """The committed results of a study; `InputError` if one of their files is missing."""
    return load_committed(ReachResults, f"world_{name}", f"make world PROFILE={name}", _TEXTS)
