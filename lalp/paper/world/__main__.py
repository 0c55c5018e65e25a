"""Run a study of step world and commit its results (`make world`).

``python -m lalp.paper.world --profile standard`` pre-trains students, trains and evaluates every
arm of the study, and writes ``figures/world_standard/*.csv`` and ``provenance.json``. A killed run
goes on where it stopped. `08_step_world` shows these results beside its own small run; the study
``long`` gives the map.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict, replace
from typing import Any

import pandas as pd

from lalp.errors import InputError
from lalp.files import build_dir, fingerprint
from lalp.paper.provenance import commit, describe_run
from lalp.paper.world import study
from lalp.paper.world.settings import RULES_BY_NAME, STUDIES, TEACHERS_BY_NAME, load_study

_PACKAGES = ("torch", "transformers", "tokenizers", "trl", "accelerate", "numpy")
# The packages of `lalp` whose code decides the numbers.
_CODE = ("paper.world", "training", "sampling", "selection", "scoring", "steps", "students")


def main() -> None:
    """Run one study and keep its results."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--profile", default="standard", choices=STUDIES)
    name = parser.parse_args().profile
    folder = build_dir().parent / "figures" / f"world_{name}"
    try:
        started = time.monotonic()
        # Before the run: code that is changed meanwhile did not make it.
        made = {"commit": commit(), "code": {part: fingerprint(part) for part in _CODE}}
        results = study.run_world(load_study(name))
        facts = describe_run((time.monotonic() - started) / 3600, _PACKAGES)
        facts = _provenance(name, results.students) | facts | made
        study.save_results(replace(results, provenance=facts), folder)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"{len(results.arms)} arms of {len(results.students)} students in {folder.name}")


def _provenance(name: str, students: pd.DataFrame) -> dict[str, Any]:
    seeds = []
    for (family, copying), found in students.groupby(["family", "copying"], sort=False):
        accepted = found["accepted"]
        seeds.append({
            "family": family,
            "copying": float(copying),
            "accepted": found.loc[accepted, "seed"].tolist(),
            "rejected": found.loc[~accepted, "seed"].tolist(),
        })  # fmt: skip
    return {
        "profile": name,
        "values": asdict(load_study(name)),
        "teachers": [asdict(teacher) for teacher in TEACHERS_BY_NAME.values()],
        "rules": {name: list(rule) for name, rule in RULES_BY_NAME.items()},
        "seeds": seeds,
    }


if __name__ == "__main__":
    main()
