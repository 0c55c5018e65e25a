"""Run the study of `registers-reach` and commit its results (`make world PROFILE=reach`).

``python -m lalp.paper.world.reach`` pre-trains students, trains and evaluates every arm, and writes
``figures/world_reach/*.csv`` and ``provenance.json``. A killed run continues where it stopped.
``preregistered.yaml`` holds the preregistered plan and becomes part of the provenance as a whole.
"""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Annotated, Any

import pandas as pd
from typer import Option

from lalp.cli.options import run_main
from lalp.files import fingerprint
from lalp.paper import root_dir
from lalp.paper.committed import save_results
from lalp.paper.provenance import commit, describe_run
from lalp.paper.world.reach.settings import PREREGISTERED, STUDIES, ReachStudy, load_study
from lalp.paper.world.reach.study import STUDENT_CODE, ReachResults, load_results, run_reach

log = logging.getLogger("lalp")
PACKAGES = ("torch", "transformers", "tokenizers", "trl", "accelerate", "numpy", "scipy")
# The packages of `lalp` whose code decides the numbers.
CODE = ("paper.world", "training", "sampling", "selection", "scoring", "steps", "students")
_PLAN = ("preregistered", "values", "seeds")


def main(
    profile: Annotated[str, Option(help=f"One of {', '.join(STUDIES)}.")] = "reach",
    workers: Annotated[int, Option(help="Students at the same time; 0: as set down.")] = 0,
    students: Annotated[int, Option(help="Students at each reach; 0: as set down.")] = 0,
) -> None:
    """Run the study and keep its results. The number of workers does not change the results.

    Students whose results are committed are not trained again, so a study of some ``students`` can
    be committed, and gone on with on another machine.
    """
    started = time.monotonic()
    # Before the run: later changes of the code did not make it.
    made = {"commit": commit(), "code": {part: fingerprint(part) for part in CODE}}
    study = load_study(profile)
    kept = _committed(profile, study)
    asked = replace(study, workers=workers or study.workers, students=students or study.students)
    results = run_reach(asked, kept)
    facts = describe_run((time.monotonic() - started) / 3600, PACKAGES)
    facts = {"date": datetime.now(UTC).date().isoformat()} | facts
    told = {"profile": profile, "values": asdict(study), "preregistered": PREREGISTERED}
    told |= {"students": asked.students, "student_code": STUDENT_CODE}
    facts = told | {"seeds": _seeds(results.students)} | facts | made
    facts |= {"added_to": _origins(kept)} if kept else {}
    save_results(replace(results, provenance=facts), f"world_{profile}")
    print(f"{len(results.arms)} arms of {len(results.students)} students in world_{profile}")


def _committed(profile: str, study: ReachStudy) -> ReachResults | None:
    """Committed results of the same study, with students that the same code made."""
    if not (root_dir() / "figures" / f"world_{profile}" / "provenance.json").is_file():
        return None
    kept = load_results(profile)
    same = (asdict(study), STUDENT_CODE)
    if (kept.provenance.get("values"), kept.provenance.get("student_code")) == same:
        return kept
    log.warning("world_%s holds students of other values or code: all are made anew", profile)
    return None


def _origins(kept: ReachResults) -> list[dict[str, Any]]:
    """Where committed results come from, the first run first; each without its plan."""
    own = {key: value for key, value in kept.provenance.items() if key not in _PLAN}
    return [*own.pop("added_to", []), own]


def _seeds(students: pd.DataFrame) -> list[dict[str, Any]]:
    """Which seeds were accepted and rejected, by reach."""
    return [
        {
            "reach": int(reach),
            "accepted": found.query("accepted")["seed"].tolist(),
            "rejected": found.query("not accepted")["seed"].tolist(),
        }
        for reach, found in students.groupby("reach", sort=False)
    ]


if __name__ == "__main__":
    run_main(main)
