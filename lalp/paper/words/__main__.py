"""Run the study of word problems and keep its results (`make words`, after `make words PILOT=1`).

``python -m lalp.paper.words`` writes ``figures/words/*.csv`` and ``provenance.json`` after each
finished arm. It goes on with what is there, also on another machine. ``preregistered.yaml`` becomes
part of the provenance as a whole.
"""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Annotated, Any

from typer import Option

from lalp.cli.options import run_main
from lalp.errors import InputError
from lalp.files import digest
from lalp.paper import root_dir
from lalp.paper.committed import save_results
from lalp.paper.provenance import describe_run
from lalp.paper.words.pilot import PACKAGES, find_level
from lalp.paper.words.plan import Unit, study_key
from lalp.paper.words.settings import PREREGISTERED, WordStudy, load_study
from lalp.paper.words.study import collect, load_results, restore, run_units
from lalp.students.student import default_device

NAME = "words"


def run_study(study: WordStudy) -> None:
    """Run what is missing, and write the tables after each finished arm.

    Raises:
        InputError: If ``figures/words`` was made by other values, texts or code.
    """
    started, key = time.monotonic(), digest(study_key(study))
    begun = _begun(study, key)
    seeds = study.seeds_on_gpu if default_device() == "cuda" else study.seeds
    # The machine that begins decides, so that no look at results can.
    seeds = begun.get("num_seeds", seeds)
    units = [Unit(study, seed) for seed in range(seeds)]
    if begun:
        restore(units, load_results(NAME))
    # Before the run: later changes of the code did not make it.
    made = {"date": datetime.now(UTC).date().isoformat(), "device": default_device()}
    made |= describe_run(0.0, PACKAGES)

    def keep() -> None:
        made["hours_since_last_start"] = round((time.monotonic() - started) / 3600, 2)
        # A study may have been run in parts, on several machines.
        runs = [*begun.get("runs", []), made]
        facts = {"num_seeds": seeds, "values": asdict(study), "key": key, "runs": runs}
        results = replace(collect(units), provenance=facts | {"preregistered": PREREGISTERED})
        save_results(results, NAME)

    run_units(units, keep)
    keep()
    done = collect(units)
    print(f"{len(done.arms)} arms of {len(done.seeds)} seeds in figures/{NAME}")


def _begun(study: WordStudy, key: str) -> dict[str, Any]:
    """The provenance of what is there to go on with; empty if nothing is."""
    if not (root_dir() / "figures" / NAME / "provenance.json").is_file():
        return {}
    found = load_results(NAME).provenance
    if found["key"] != key:
        made = found["runs"][-1]["commit"]
        advice = f"go on from its commit ({made}), or move figures/{NAME} away to begin anew"
        raise InputError(f"figures/{NAME} was made by other values, texts or code: {advice}")
    return found


def main(
    workers: Annotated[int, Option(help="Arms at the same time; 0: as set down.")] = 0,
) -> None:
    """Run the study and keep its results. The number of workers does not change the results."""
    study = load_study(find_level())
    run_study(replace(study, workers=workers or study.workers))


if __name__ == "__main__":
    run_main(main)
