"""The study of word problems: a grid of seeds and arms that can be stopped at any moment.

A seed is planned first (`lalp.paper.words.plan`). Then each of its arms is a cell: a student is
trained and answers. Plans and cells are files, written whole. From them come the tables in
``figures/words``, again after each cell. The tables hold all that is needed to go on: plans and
cells are read back from them on another machine.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pandas as pd

from lalp.files import write_json
from lalp.paper.arms.grid import Run, plan_runs, untrained_run
from lalp.paper.arms.plan import Arm, Grid
from lalp.paper.committed import load_results as load_committed
from lalp.paper.words.plan import Rows, Unit, decode, machine_facts, plain_rows, plan_seed
from lalp.paper.words.runs import graded_answers, own_responses
from lalp.paper.words.settings import ARMS
from lalp.paper.workers import run_side_by_side
from lalp.training.log import load_log

_TENTHS = 10  # points of a curve


@dataclass(frozen=True)
class WordResults:
    """The tables of a study.

    ``seeds``: a row per seed, with a digit for each held-out problem: 1 if it is ``far``.
    ``selections``: a row per arm: examples, tokens, mean scores, teachers' counts, and what was
    ``chosen`` for each problem. ``means``: mean scores by teacher. ``own``: chosen solutions by
    the own family. ``arms``: a row per finished cell, with a digit for each held-out problem, 1 if
    it is ``solved``. ``curves``: loss and held-out NLL by tenths of training, nats per token.
    ``provenance`` is empty for a live run.
    """

    # In the order in which they are written: after a kill, what a row refers to is there.
    selections: pd.DataFrame
    means: pd.DataFrame
    own: pd.DataFrame
    seeds: pd.DataFrame
    curves: pd.DataFrame
    arms: pd.DataFrame
    provenance: dict[str, Any]


# The first columns of each table; those of a seed's plan, then those of a cell.
_PLAN = {
    "seeds": ["seed", "far"],
    "selections": ["seed", "arm", "chosen"],
    "means": ["seed", "teacher", "score", "mean"],
    "own": ["seed", "response_id", "text"],
}
_CELL = {
    "arms": ["seed", "arm", "num_solved", "num_problems", "solved"],
    "curves": ["seed", "arm", "tenth", "loss", "global_nll", "local_nll"],
}
_TEXTS = ("far", "arm", "chosen", "teacher", "score", "response_id", "text", "solved")


# --- cells -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """A run, the arms that share it, and the files of their results."""

    run: Run
    arms: tuple[tuple[str, Path], ...]
    seed: int


def missing_cells(unit: Unit) -> list[Cell]:
    """The cells of a planned seed that are not finished, in order; equal choices share one."""
    rows = json.loads(unit.plan.read_text(encoding="utf-8"))
    own = own_responses((row["response_id"], row["text"]) for row in rows["own"])
    pool = replace(unit.written, responses=(*unit.written.responses, *own))
    arms = tuple(
        Arm("", row["arm"], unit.seed, tuple(sorted(decode(row["chosen"], unit))))
        for row in rows["selections"]
    )
    setup = unit.setup
    runs = untrained_run(setup) | plan_runs(Grid(arms, pool, pd.DataFrame(), setup))
    shared: dict[Path, list[tuple[Arm, Run]]] = {}
    for arm, run in runs.items():
        if not unit.cell(arm.name).is_file():
            shared.setdefault(run.folder, []).append((arm, run))
    return [
        Cell(pairs[0][1], tuple((arm.name, unit.cell(arm.name)) for arm, _ in pairs), unit.seed)
        for pairs in shared.values()
    ]


def run_cell(cell: Cell) -> None:
    """Train and evaluate a student, and write the results of each arm that it stands for."""
    graded = graded_answers(cell.run)
    solved = graded["correct"].astype(int)
    found = {
        "num_solved": int(solved.sum()),
        "num_problems": len(solved),
        "solved": "".join(map(str, solved)),
        "truncated": int(graded["truncated"].sum()),
        "mean_tokens": float(graded["num_tokens"].mean()),
        **machine_facts(cell.run.setup.recipe),
    }
    curve = plain_rows(curve_points(load_log(cell.run.model))) if cell.run.examples else []
    for arm, path in cell.arms:
        labels = {"seed": cell.seed, "arm": arm}
        write_json(path, {"arms": [labels | found], "curves": [labels | row for row in curve]})


def curve_points(log: pd.DataFrame) -> pd.DataFrame:
    """Training by tenths of its steps: mean ``loss``, and the NLL of held-out solutions.

    ``log`` is that of `lalp.training.trainer.train`; ``tenth`` is 0 before training. NaN where
    nothing was measured.
    """
    tenths = -(-_TENTHS * log["step"] // log["step"].max())
    groups = log.assign(tenth=tenths.astype(int)).groupby("tenth")
    measured = groups[["global_nll", "local_nll"]].last()
    return groups[["loss"]].mean().join(measured).reset_index()


# --- the whole -------------------------------------------------------------------------------


def run_units(units: Sequence[Unit], keep: Callable[[], None] = lambda: None) -> None:
    """Plan seeds and run their cells, in order; what is finished is left as it is.

    As many seeds as workers are planned at the same time, since most of that is not parallel.
    ``keep`` is called after each cell.
    """
    workers = units[0].study.workers if units else 1
    for first in range(0, len(units), workers):
        some = units[first : first + workers]
        unplanned = [unit for unit in some if not unit.plan.is_file()]
        run_side_by_side(plan_seed, unplanned, workers, "seeds")
        cells = [cell for unit in some for cell in missing_cells(unit)]
        run_side_by_side(run_cell, cells, workers, "arms", after=keep)


def collect(units: Sequence[Unit]) -> WordResults:
    """The tables of all that is finished, in order of seeds and arms."""
    found: Rows = {name: [] for name in (*_PLAN, *_CELL)}
    for unit in units:
        for path in (unit.plan, *map(unit.cell, ARMS)):
            if path.is_file():
                for name, rows in json.loads(path.read_text(encoding="utf-8")).items():
                    found[name] += rows
    tables = {}
    for name, columns in (_PLAN | _CELL).items():
        table = pd.DataFrame(found[name], columns=None if found[name] else columns)
        tables[name] = table[[*columns, *table.columns.difference(columns, sort=False)]]
    return WordResults(**tables, provenance={})


def restore(units: Sequence[Unit], results: WordResults) -> None:
    """Make the files of plans and cells from tables that were kept, where they are missing."""
    for unit in units:
        own = {
            field.name: table[table["seed"] == unit.seed]
            for field in fields(results)
            if isinstance(table := getattr(results, field.name), pd.DataFrame)
        }
        if own["seeds"].empty:
            continue
        if not unit.plan.is_file():
            write_json(unit.plan, {name: plain_rows(own[name]) for name in _PLAN})
        for arm in own["arms"]["arm"]:
            rows = {name: plain_rows(own[name][own[name]["arm"] == arm]) for name in _CELL}
            if not unit.cell(arm).is_file():
                write_json(unit.cell(arm), rows)


def load_results(name: str = "words") -> WordResults:
    """The committed results; `InputError` if there are none."""
    return load_committed(WordResults, name, "make words", _TEXTS)
