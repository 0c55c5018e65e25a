"""The paper's tables beside a run's: what a pipeline's results say, row by row."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from lalp.errors import InputError
from lalp.files import atomic_path
from lalp.paper.scale.settings import (
    NOT_PRODUCED,
    SOURCES,
    Arm,
    Pipeline,
    Source,
    model_run,
    stand_ins,
    table_arms,
)
from lalp.paper.scale.stages import mix_file, result_file, score_file
from lalp.paper.tables import TABLES
from lalp.scoring.columns import lalp_column
from lalp.scoring.table import load_scores
from lalp.selection.ranking import rank_teachers

AVG = "AVG"


@dataclass(frozen=True, eq=False)
class TableBeside:
    """One table of the paper with the run's numbers.

    Attributes:
        number: The paper's number.
        title: What it shows.
        paper: The paper's numbers, of the rows that the pipeline has.
        run: The run's, same rows and columns; NaN where there is none (yet). Means over seeds.
        notes: What to know when reading it.
    """

    number: str
    title: str
    paper: pd.DataFrame
    run: pd.DataFrame
    notes: tuple[str, ...]

    @property
    def difference(self) -> pd.DataFrame:
        """Run minus paper."""
        return self.run - self.paper

    def as_dict(self) -> dict[str, Any]:
        """Plain values: one record per cell that the paper or the run has."""
        cells = []
        for row in self.paper.index:
            for column in self.paper.columns:
                paper, run = self.paper.loc[row, column], self.run.loc[row, column]
                if not (math.isnan(paper) and math.isnan(run)):
                    values = {"paper": paper, "run": run, "difference": run - paper}
                    known = {k: None if math.isnan(v) else float(v) for k, v in values.items()}
                    cells.append({"row": list(row), "column": column} | known)
        return {"title": self.title, "notes": list(self.notes), "cells": cells}


def collect_tables(
    pipeline: Pipeline, root: str | Path, data: str | Path | None = None
) -> list[TableBeside]:
    """Every table that the pipeline produces, filled in as far as its stages are done.

    Args:
        pipeline: Settings of the run.
        root: Its folder.
        data: Folder of LiveCodeBench's file, as in `load_benchmark`.

    Raises:
        InputError: If a result is there and cannot be read, or nothing is there.
    """
    run = _Run(pipeline, str(root), data)
    tables = [_table(run, number) for number in pipeline.tables]
    if all(table.run.isna().all(axis=None) for table in tables):
        raise InputError(f"{root}: holds no results of this pipeline: run its stages first")
    return tables


@dataclass(frozen=True)
class _Run:
    """A run's settings and places."""

    pipeline: Pipeline
    root: str
    data: str | Path | None


def _table(run: _Run, number: str) -> TableBeside:
    pipeline = run.pipeline
    reference = TABLES[number]
    frame = reference.frame
    paper = frame.loc[[row[0] in pipeline.students for row in frame.index]]
    found = pd.DataFrame(math.nan, index=paper.index, columns=paper.columns)
    for row, arm in table_arms(pipeline, number).items():
        values = _arm_values(run, arm, SOURCES[number])
        if number == "1":  # its columns are thirds
            found.loc[row[:2], row[2]] = values.get(AVG, math.nan)
            continue
        for column in found.columns.intersection(list(values)):
            found.loc[row, column] = values[column]
    return TableBeside(number, reference.title, paper, found, _notes(pipeline, number))


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

    seeds = run.pipeline.seeds if arm.pool else run.pipeline.seeds[:1]
    paths = [Path(result_file(run.root, arm, seed, decoding)) for seed in seeds]
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
    path = Path(score_file(run.root, arm))
    if not path.exists():
        return {}
    frame = load_scores(path)
    means = {}
    for title, column in {"GALP": "galp", "LALP": lalp_column(run.pipeline.main_window)}.items():
        ranking = rank_teachers(frame, column).set_index("teacher")
        means[title] = float(ranking["mean"].get(_teacher_run(run.pipeline, arm), math.nan))
    return means


def _teacher_mix(run: _Run, arm: Arm) -> dict[str, float]:
    """Percent of an arm's selection by teacher, under the paper's names; mean over seeds."""
    paths = [Path(mix_file(run.root, arm, seed)) for seed in run.pipeline.seeds]
    mixes = [json.loads(p.read_text("utf-8"))["teacher_mix"] for p in paths if p.exists()]
    shares = {}
    for name in TABLES["8"].frame.columns if mixes else []:
        found = _teacher_run(run.pipeline, Arm(arm.student, arm.pool, teacher=name))
        shares[name] = sum(mix.get(found, {}).get("percent", 0.0) for mix in mixes) / len(mixes)
    return shares


def _teacher_run(pipeline: Pipeline, arm: Arm) -> str:
    published = arm.pool == "limo" and arm.teacher in pipeline.published
    return arm.teacher if published else model_run(pipeline, arm.teacher).name


def _notes(pipeline: Pipeline, number: str) -> tuple[str, ...]:
    rows = {name for row in table_arms(pipeline, number) for name in row}
    notes = [f"{o} ran in the place of {n}" for n, o in stand_ins(pipeline).items() if n in rows]
    return (*notes, *TABLES[number].notes)


def write_tables(tables: list[TableBeside], path: str | Path) -> None:
    """Write the tables as JSON, with the reason for every table that is not among them."""
    value = {
        "tables": {table.number: table.as_dict() for table in tables},
        "not_produced": NOT_PRODUCED,
    }
    with atomic_path(path) as temporary:
        text = json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def tables_text(tables: list[TableBeside]) -> str:
    """The tables for people: paper / run / difference in every cell."""
    return "\n\n".join(_text(table) for table in tables)


def _text(table: TableBeside) -> str:
    decimals = TABLES[table.number].decimals
    cells = pd.DataFrame("", index=table.paper.index, columns=table.paper.columns)
    for row in cells.index:
        for column in cells.columns:
            paper, run = table.paper.loc[row, column], table.run.loc[row, column]
            parts = [_number(paper, decimals), _number(run, decimals)]
            parts.append(_number(run - paper, decimals, "+"))
            cells.loc[row, column] = " / ".join(parts)
    lines = [f"Table {table.number}. {table.title}: paper / run / difference", cells.to_string()]
    return "\n".join([*lines, *(f"  {note}" for note in table.notes)])


def _number(value: float, decimals: int, sign: str = "") -> str:
    return "-" if math.isnan(value) else f"{value:{sign}.{decimals}f}"
