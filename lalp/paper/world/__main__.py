"""Run a study of step world and commit its results (`make world`).

``python -m lalp.paper.world --profile standard`` pre-trains students, trains and evaluates every
arm of the study, and writes ``figures/world_standard/*.csv`` and ``provenance.json``. A killed run
continues where it stopped. `08_step_world` shows the results of ``standard`` and the map of
``long``, and runs one student of the small study ``cpu`` again.
"""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Annotated, Any

import pandas as pd
from typer import Option

from lalp.cli.options import run_main
from lalp.files import fingerprint
from lalp.paper.committed import save_results
from lalp.paper.provenance import commit, describe_run
from lalp.paper.world import study
from lalp.paper.world.settings import RULES_BY_NAME, STUDIES, TEACHERS_BY_NAME, Study, load_study

_PACKAGES = ("torch", "transformers", "tokenizers", "trl", "accelerate", "numpy")
# The packages of `lalp` whose code decides the numbers.
_CODE = ("paper.world", "training", "sampling", "selection", "scoring", "steps", "students")


def main(
    profile: Annotated[str, Option(help=f"One of {', '.join(STUDIES)}.")] = "standard",
) -> None:
    """Run one study of step world and keep its results."""
    started = time.monotonic()
    # Before the run: later changes of the code did not make it.
    made = {"commit": commit(), "code": {part: fingerprint(part) for part in _CODE}}
    values = load_study(profile)
    results = study.run_world(values)
    facts = describe_run((time.monotonic() - started) / 3600, _PACKAGES)
    facts = {"date": datetime.now(UTC).date().isoformat()} | facts
    facts = {"profile": profile} | _what_was_run(values, results.students) | facts | made
    save_results(replace(results, provenance=facts), f"world_{profile}")
    print(f"{len(results.arms)} arms of {len(results.students)} students in world_{profile}")


def _what_was_run(values: Study, students: pd.DataFrame) -> dict[str, Any]:
    seeds = [
        {
            "family": family,
            "copying": float(copying),
            "accepted": found.query("accepted")["seed"].tolist(),
            "rejected": found.query("not accepted")["seed"].tolist(),
        }
        for (family, copying), found in students.groupby(["family", "copying"], sort=False)
    ]
    return {
        "values": asdict(values),
        "teachers": [asdict(teacher) for teacher in TEACHERS_BY_NAME.values()],
        "rules": {name: list(rule) for name, rule in RULES_BY_NAME.items()},
        "seeds": seeds,
    }


if __name__ == "__main__":
    run_main(main)
