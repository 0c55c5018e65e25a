"""The paper's tables beside a run's: what a run's results say, row by row."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from lalp.errors import InputError
from lalp.files import write_json
from lalp.paper.scale.plan import NOT_PRODUCED, SOURCES, Arm, Plan, Source, table_arms
from lalp.paper.scale.stages import arm_file
from lalp.paper.tables import TABLES
from lalp.scoring.columns import lalp_column
from lalp.scoring.table import load_scores
from lalp.selection.ranking import rank_teachers

AVG = "AVG"


@dataclass(frozen=True, eq=False)
class TableBeside:
    """One table of the paper with the run's numbers."""

    number: str  # the paper's
    title: str
    paper: pd.DataFrame  # the paper's numbers, of the rows that the plan has
    run: pd.DataFrame  # same rows and columns, means over seeds; NaN where there is none (yet)
    notes: tuple[str, ...]  # what to know when reading it

    @property
    def difference(self) -> pd.DataFrame:
        """Run minus paper."""
        return self.run - self.paper

    def as_dict(self) -> dict[str, Any]:
        """Plain values: one record per cell that the paper or the run has."""
        cells = []
        for row, column in product(self.paper.index, self.paper.columns):
            paper, run = self.paper.loc[row, column], self.run.loc[row, column]
            if not (math.isnan(paper) and math.isnan(run)):
                values = {"paper": paper, "run": run, "difference": run - paper}
                known = {k: None if math.isnan(v) else float(v) for k, v in values.items()}
                cells.append({"row": list(row), "column": column} | known)
        return {"title": self.title, "notes": list(self.notes), "cells": cells}


def collect_tables(
    plan: Plan, root: str | Path, data: str | Path | None = None
) -> list[TableBeside]:
    """Every table that the plan produces, filled in as far as its stages in ``root`` are done.

    ``data`` is the folder of LiveCodeBench's file, as in `load_benchmark`.

    Raises:
        InputError: If a result is there and cannot be read, or nothing is there.
    """
    run = _Run(plan, str(root), data)
    tables = [_table(run, number) for number in plan.tables]
    if all(table.run.isna().all(axis=None) for table in tables):
        raise InputError(f"{root}: holds no results of this plan: run its stages first")
    return tables


@dataclass(frozen=True)
class _Run:
    """A run's plan and places."""

    plan: Plan
    root: str
    data: str | Path | None


def _table(run: _Run, number: str) -> TableBeside:
    reference, arms = TABLES[number], table_arms(run.plan, number)
    frame = reference.frame
    paper = frame.loc[[row[0] in run.plan.students for row in frame.index]]
    found = pd.DataFrame(math.nan, index=paper.index, columns=paper.columns)
    for row, arm in arms.items():
        values = _arm_values(run, arm, SOURCES[number])
        if number == "1":  # its columns are thirds
            found.loc[row[:2], row[2]] = values.get(AVG, math.nan)
            continue
        for column in found.columns.intersection(list(values)):
            found.loc[row, column] = values[column]
    notes = [
        f"{other} ran in the place of {name}"
        for name, other in run.plan.replaced.items()
        if any(name in row for row in arms)
    ]
    return TableBeside(number, reference.title, paper, found, (*notes, *reference.notes))


def _arm_values(run: _Run, arm: Arm, source: Source) -> dict[str, float]:
    """The numbers of an arm that are there, by the paper's column."""
    if source.mix:
        return _teacher_mix(run, arm) if arm.pool else {}
    values = _accuracies(run, arm, source.decoding)
    # Scores before training stand in a teacher's row.
    return values | _mean_scores(run, arm) if source.scores and arm.teacher else values


def _accuracies(run: _Run, arm: Arm, decoding: str) -> dict[str, float]:
    """Accuracy by benchmark, and AVG: means over samples, problems and seeds."""
    from lalp.evaluation.accuracy import paper_table
    from lalp.evaluation.evaluate import load_results

    seeds = run.plan.seeds if arm.pool else run.plan.seeds[:1]
    paths = [Path(arm_file(run.root, "results", arm, seed, decoding)) for seed in seeds]
    results = {str(path): load_results(path) for path in paths if path.exists()}
    if not results:
        return {}
    means = paper_table(results).mean().dropna().to_dict()
    by_difficulty = pd.DataFrame([_by_difficulty(run, frame) for frame in results.values()])
    return means | by_difficulty.mean().to_dict()


def _by_difficulty(run: _Run, results: pd.DataFrame) -> dict[str, float]:
    """LiveCodeBench's accuracy on easy, medium and hard problems."""
    from lalp.evaluation.benchmarks import find_benchmark, find_file
    from lalp.evaluation.livecodebench import accuracy_by_difficulty, load_problems

    mine = results[results["benchmark"] == "livecodebench"]
    if mine.empty:
        return {}
    path = find_file(find_benchmark("livecodebench"), run.data) if run.data else None
    return accuracy_by_difficulty(mine, load_problems(path))["accuracy"].dropna().to_dict()


def _mean_scores(run: _Run, arm: Arm) -> dict[str, float]:
    """Mean GALP and LALP of a teacher's responses, over the prompts that all teachers solved."""
    path = Path(arm_file(run.root, "scores", arm))
    if not path.exists():
        return {}
    frame, teacher = load_scores(path), run.plan.teacher_name(arm.pool, arm.teacher)
    columns = {"GALP": "galp", "LALP": lalp_column(run.plan.main_window)}
    return {
        title: float(rank_teachers(frame, c).set_index("teacher")["mean"].get(teacher, math.nan))
        for title, c in columns.items()
    }


def _teacher_mix(run: _Run, arm: Arm) -> dict[str, float]:
    """Percent of an arm's selection by teacher, under the paper's names; mean over seeds."""
    paths = [Path(arm_file(run.root, "mix", arm, seed)) for seed in run.plan.seeds]
    mixes = [json.loads(p.read_text("utf-8"))["teacher_mix"] for p in paths if p.exists()]
    shares = {}
    for name in TABLES["8"].frame.columns if mixes else []:
        found = run.plan.teacher_name(arm.pool, name)
        shares[name] = sum(mix.get(found, {}).get("percent", 0.0) for mix in mixes) / len(mixes)
    return shares


def write_tables(tables: list[TableBeside], path: str | Path) -> None:
    """Write the tables as JSON, with the reason for every table that is not among them."""
    by_number = {table.number: table.as_dict() for table in tables}
    write_json(path, {"tables": by_number, "not_produced": NOT_PRODUCED})


def tables_text(tables: list[TableBeside]) -> str:
    """The tables for people: paper / run / difference in every cell."""
    texts = []
    for table in tables:
        decimals = TABLES[table.number].decimals
        paper, run, difference = (
            frame.map(_number, decimals=decimals, sign=sign)
            for frame, sign in ((table.paper, ""), (table.run, ""), (table.difference, "+"))
        )
        cells = paper + " / " + run + " / " + difference
        title = f"Table {table.number}. {table.title}: paper / run / difference"
        texts.append("\n".join([title, cells.to_string(), *(f"  {note}" for note in table.notes)]))
    return "\n\n".join(texts)


def _number(value: float, decimals: int, sign: str) -> str:
    return "-" if math.isnan(value) else f"{value:{sign}.{decimals}f}"
