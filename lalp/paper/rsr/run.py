"""Score the sets under each student, correlate, and keep tables, figure and their origin."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd

from lalp.errors import InputError, did_you_mean
from lalp.files import atomic_path, fingerprint, write_json, write_text
from lalp.paper.figures import use_style
from lalp.paper.provenance import commit, describe_run
from lalp.paper.rsr.correlate import correlate
from lalp.paper.rsr.plan import Plan
from lalp.paper.rsr.plots import plot_correlations
from lalp.paper.rsr.published import agreement, published_scores
from lalp.paper.rsr.scores import score_responses, set_scores, teacher_scores
from lalp.paper.rsr.sets import load_sets
from lalp.paper.scale.models import find_model
from lalp.pools.pool import Pool

_PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "scipy")
# The packages of `lalp` whose code decides the numbers.
_CODE = ("pools", "scoring", "steps", "students", "selection", "paper.rsr")


def run_plan(
    plan: Plan,
    out: Path,
    *,
    data: str | Path | None = None,
    students: Sequence[str] = (),
    locate: Callable[[str], str] | None = None,
    say: Callable[[str], object] = print,
) -> pd.DataFrame:
    """Run the plan for some students, or all, and return the correlations of all finished ones.

    ``out`` gets ``sets.csv`` and ``provenance.json`` after each student, and at the end the files
    of `write_results`. Students of earlier runs stay in the tables. A killed run continues where it
    stopped.

    Args:
        plan: What to run.
        out: Folder of the results.
        data: Folder of the sets; as in `load_sets` if not given.
        students: Names in the plan.
        locate: Gives the place of a model's files by its name in the plan; by default its hub id.
        say: Receives progress messages.

    Raises:
        InputError: If a student is not in the plan, or a set or model cannot be had.
    """
    for name in students:
        if name not in plan.students:
            raise InputError(f"no student is called {name!r}: {did_you_mean(name, plan.students)}")
    pool, digests = load_sets(plan, data)
    say(f"{len(pool.responses):,} responses drawn of {plan.num_sets} sets")
    where = locate or (lambda name: find_model(name).hub_id)
    for name in students or plan.students:
        _run_student(plan, out, pool, digests, (name, where(plan.students[name])))
        say(f"{name}: scored")
    return write_results(plan, out)


def _run_student(
    plan: Plan, out: Path, pool: Pool, digests: dict[str, str], student: tuple[str, str]
) -> None:
    """Score all sets under one student, named and located, and put it into the tables."""
    name, model = student
    started, at = time.monotonic(), commit()
    code = {package: fingerprint(package) for package in _CODE}
    responses = score_responses(plan, pool, model)
    sets = set_scores(plan, responses)
    sets.insert(0, "student", name)
    facts = describe_run((time.monotonic() - started) / 3600, _PACKAGES) | {"commit": at}
    made = {"model": model, "scored_with": responses.attrs["scored_with"], "code": code} | facts
    keep_sets(plan, out, sets, {name: made | {"plan": asdict(plan), "files": digests}})


def keep_sets(plan: Plan, out: Path, sets: pd.DataFrame, made: dict[str, Any]) -> None:
    """Add a student's sets to those of students that were scored by the same plan."""
    path, told = out / "sets.csv", out / "provenance.json"
    before = json.loads(told.read_text(encoding="utf-8")) if told.is_file() else {}
    before = {name: facts for name, facts in before.items() if facts["plan"] == asdict(plan)}
    if path.is_file():
        table = pd.read_csv(path)
        kept = [name for name in before if name not in made]
        sets = pd.concat([table[table["student"].isin(kept)], sets])
    order = {name: place for place, name in enumerate(plan.students)}
    sets = sets.sort_values("student", key=lambda column: column.map(order), kind="stable")
    write_text(path, sets.to_csv(index=False, float_format="%.7g"))
    write_json(told, before | made)


def write_results(plan: Plan, out: Path) -> pd.DataFrame:
    """Correlations of all students in ``sets.csv``: tables and the figure; returns the former.

    Writes ``correlations.csv``, ``correlations.png``, ``agreement.csv`` (how far GALP and RSR are
    from the published ones), and ``published.csv`` of `write_published`.
    """
    teachers = teacher_scores(pd.read_csv(out / "sets.csv"))
    found = correlate(teachers, num_resamples=plan.num_resamples, seed=plan.seed)
    write_published(plan, out)
    # For the same students, so that means over students cover the same ones.
    own = published_scores()
    own = own[own["student"].isin(teachers["student"])]
    known = correlate(own, num_resamples=plan.num_resamples, seed=plan.seed)
    write_text(out / "correlations.csv", _csv(found))
    write_text(out / "agreement.csv", _csv(agreement(teachers)))
    use_style()
    figure = plot_correlations(found, known)
    with atomic_path(out / "correlations.png") as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})
    plt.close(figure)
    return found


def write_published(plan: Plan, out: Path) -> pd.DataFrame:
    """Correlations of the paper's own scores, ``published.csv``: needs no student and no hub."""
    known = correlate(published_scores(), num_resamples=plan.num_resamples, seed=plan.seed)
    write_text(out / "published.csv", _csv(known))
    return known


def _csv(table: pd.DataFrame) -> str:
    return table.to_csv(index=False, float_format="%.6g")
