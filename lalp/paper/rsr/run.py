"""Score the sets under each student, correlate, and keep tables, figure and their origin."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd

from lalp.errors import InputError, did_you_mean
from lalp.files import atomic_path, fingerprint, write_json, write_text
from lalp.paper.figures import use_style
from lalp.paper.models import find_model
from lalp.paper.provenance import commit, describe_run
from lalp.paper.rsr.correlate import correlate
from lalp.paper.rsr.plan import PLAN, Plan, find_plan
from lalp.paper.rsr.plots import plot_correlations
from lalp.paper.rsr.published import agreement, published_scores
from lalp.paper.rsr.scores import score_responses, set_scores, teacher_scores
from lalp.paper.rsr.sets import load_sets
from lalp.paper.workflow import Workflow
from lalp.pools.reading import load_pool
from lalp.pools.writing import save_pool

_PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "scipy")
# The packages of `lalp` whose code decides the numbers.
_CODE = ("pools", "scoring", "steps", "students", "selection", "paper.rsr")


def open_workflow(root: Path, out: Path, students: Sequence[str] = (), toys: str = "") -> Workflow:
    """The workflow that scores the sets under some students, or all, into tables in ``out``.

    Each student is one stage; the files of unfinished work are in ``root``. Students of earlier
    runs stay in the tables. ``toys`` is the folder of a dry run's sets and models.

    Raises:
        InputError: If a student is not in the plan.
    """
    for name in students:
        if name not in PLAN.students:
            raise InputError(f"no student is called {name!r}: {did_you_mean(name, PLAN.students)}")
    names = ",".join(students or PLAN.students)
    config = {"students": names, "out": str(out.absolute()), "toys": toys}
    return Workflow("rsr/Snakefile", root, config, gpus=1)


# --- stages: each runs in the workflow's folder ---------------------------------------------------


def draw(toys: str) -> None:
    """Draw the responses that all students score: a pool, and digests of the files it is from."""
    pool, digests = load_sets(find_plan(toys), f"{toys}/sets" if toys else None)
    save_pool(pool, "drawn/pool.jsonl")
    write_json("drawn/files.json", digests)


def score_student(name: str, toys: str) -> None:
    """Score the drawn responses under one student; a killed run continues where it stopped."""
    plan, started, at = find_plan(toys), time.monotonic(), commit()
    model = find_model(plan.students[name])
    place = f"{toys}/students/{model.name}" if toys else model.hub_id
    code = {package: fingerprint(package) for package in _CODE}
    responses = score_responses(plan, load_pool("drawn/pool.jsonl"), place)
    sets = set_scores(plan, responses)
    sets.insert(0, "student", name)
    facts = describe_run((time.monotonic() - started) / 3600, _PACKAGES) | {"commit": at}
    made = {"model": place, "scored_with": responses.attrs["scored_with"], "code": code} | facts
    made |= {"plan": asdict(plan), "files": json.loads(Path("drawn/files.json").read_text("utf-8"))}
    keep_sets(plan, Path("scored", name), sets, {name: made})


def collect(scored: Sequence[Path], out: Path, toys: str) -> None:
    """Put scored students into the tables of ``out``, and correlate all that are there."""
    plan = find_plan(toys)
    for folder in scored:
        made = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
        keep_sets(plan, out, pd.read_csv(folder / "sets.csv"), made)
    write_results(plan, out)


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
