"""The paper's tables beside a run's results, row by row."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from lalp.errors import InputError
from lalp.evaluation.accuracy import paper_table
from lalp.evaluation.evaluate import load_results
from lalp.evaluation.livecodebench import accuracy_by_difficulty
from lalp.paper.scale.plan import SOURCES, Arm, Plan, table_arms
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
    paper: pd.DataFrame  # the paper's numbers, for the rows of the plan
    run: pd.DataFrame  # same rows and columns, means over seeds; NaN if there is none (yet)
    notes: tuple[str, ...]  # notes for reading it

    @property
    def difference(self) -> pd.DataFrame:
        """Run minus paper."""
        return self.run - self.paper

    def as_dict(self) -> dict[str, Any]:
        """Plain values: one record per cell that the paper or the run has."""
        frames = {"paper": self.paper, "run": self.run, "difference": self.difference}
        long = pd.DataFrame({name: f.stack(future_stack=True) for name, f in frames.items()})
        cells = long.dropna(how="all").rename_axis([*self.paper.index.names, "column"])
        # As pandas writes it: JSON has no NaN.
        records = json.loads(cells.reset_index().to_json(orient="records", double_precision=15))
        return {"title": self.title, "notes": list(self.notes), "cells": records}


def collect_tables(plan: Plan, root: str | Path) -> list[TableBeside]:
    """Every table that the plan produces, filled in from its finished stages in ``root``."""
    tables = [_table(plan, str(root), number) for number in plan.tables]
    if all(table.run.isna().all(axis=None) for table in tables):
        raise InputError(f"{root}: holds no results of this plan: run its stages first")
    return tables


def _table(plan: Plan, root: str, number: str) -> TableBeside:
    reference, source, arms = TABLES[number], SOURCES[number], table_arms(plan, number)
    paper = reference.frame[reference.frame.index.isin(plan.students, level=0)]
    found = pd.DataFrame(math.nan, index=paper.index, columns=paper.columns)
    for row, arm in arms.items():
        if source.mix:
            values = _teacher_mix(plan, root, arm) if arm.pool else {}
        else:
            values = _accuracies(plan, root, arm, source.decoding)
        if source.scores and arm.teacher:  # scores before training are in a teacher's row
            values |= _mean_scores(plan, root, arm)
        if number == "1":  # its columns are thirds
            found.loc[row[:2], row[2]] = values.get(AVG, math.nan)
            continue
        for column in found.columns.intersection(list(values)):
            found.loc[row, column] = values[column]
    notes = [
        f"{other} ran in the place of {name}"
        for name, other in plan.replaced.items()
        if any(name in row for row in arms)
    ]
    return TableBeside(number, reference.title, paper, found, (*notes, *reference.notes))


def _seeded(plan: Plan, arm: Arm) -> list[Arm]:
    return [replace(arm, seed=seed) for seed in plan.seeds]


def _accuracies(plan: Plan, root: str, arm: Arm, decoding: str) -> dict[str, float]:
    """Accuracy by benchmark, AVG, and LiveCodeBench by difficulty: means over all and seeds."""
    paths = {Path(root, arm_file("results", each, decoding)) for each in _seeded(plan, arm)}
    results = {str(path): load_results(path) for path in sorted(paths) if path.exists()}
    if not results:
        return {}
    programs = [frame[frame["benchmark"] == "livecodebench"] for frame in results.values()]
    by_difficulty = [accuracy_by_difficulty(rows)["accuracy"] for rows in programs if len(rows)]
    means = paper_table(results).mean().dropna().to_dict()
    return means | pd.DataFrame(by_difficulty).mean().dropna().to_dict()


def _mean_scores(plan: Plan, root: str, arm: Arm) -> dict[str, float]:
    """Mean GALP and LALP of a teacher's responses, over the prompts that all teachers solved."""
    path = Path(root, arm_file("scores", arm))
    if not path.exists():
        return {}
    frame, teacher = load_scores(path), plan.teacher_name(arm.pool, arm.teacher)
    columns = {"GALP": "galp", "LALP": lalp_column(plan.main_window)}
    return {
        title: float(rank_teachers(frame, c).set_index("teacher")["mean"].get(teacher, math.nan))
        for title, c in columns.items()
    }


def _teacher_mix(plan: Plan, root: str, arm: Arm) -> dict[str, float]:
    """Percent of an arm's selection by teacher, under the paper's names; mean over seeds."""
    paths = [Path(root, arm_file("mix", each)) for each in _seeded(plan, arm)]
    mixes = [json.loads(p.read_text("utf-8"))["teacher_mix"] for p in paths if p.exists()]
    shares = {}
    for name in TABLES["8"].frame.columns if mixes else []:
        found = plan.teacher_name(arm.pool, name)
        shares[name] = sum(mix.get(found, {}).get("percent", 0.0) for mix in mixes) / len(mixes)
    return shares


def tables_text(tables: list[TableBeside]) -> str:
    """The tables for readers: paper / run / difference in every cell."""
    texts = []
    for table in tables:
        decimals = TABLES[table.number].decimals
        paper, run, difference = (
            frame.map(f"{{:{sign}.{decimals}f}}".format).where(frame.notna(), "-")
            for frame, sign in ((table.paper, ""), (table.run, ""), (table.difference, "+"))
        )
        cells = paper + " / " + run + " / " + difference
        title = f"Table {table.number}. {table.title}: paper / run / difference"
        texts.append("\n".join([title, cells.to_string(), *(f"  {note}" for note in table.notes)]))
    return "\n\n".join(texts)
