"""The pilot of word problems: how hard they may be, before any rule is compared.

``python -m lalp.paper.words.pilot`` (`make words PILOT=1`) trains a student on each teacher alone,
at one level of difficulty after another, until both gates hold: the untrained student solves few
problems, and the best teacher's student solves many. It scores nothing. Its seed is not one of the
study's. It writes ``figures/words_pilot``, which the study reads, and ends with 1 if no level will
do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import pandas as pd
from typer import Exit, Option

from lalp.cli.options import run_main
from lalp.errors import InputError
from lalp.paper.arms.grid import BEFORE
from lalp.paper.committed import load_results as load_committed
from lalp.paper.committed import save_results
from lalp.paper.provenance import describe_run
from lalp.paper.words.plan import Unit, study_key
from lalp.paper.words.settings import GATES, LEVELS, TEACHERS, WordStudy, load_study
from lalp.paper.words.study import collect, run_units

SEED = 100
PACKAGES = ("torch", "transformers", "tokenizers", "trl", "accelerate", "math-verify")
NAME, _COMMAND = "words_pilot", "make words PILOT=1"
_LEVEL = ["fewest", "most"]


@dataclass(frozen=True)
class PilotResults:
    """``pilot``: a row per level (``fewest``, ``most`` operations) and arm, with what it solved."""

    pilot: pd.DataFrame
    provenance: dict[str, Any]


def run_pilot(
    study: WordStudy, levels: Sequence[Sequence[int]], keep: Callable[[pd.DataFrame], None]
) -> pd.DataFrame:
    """Try levels until the gates hold, or cannot; ``keep`` is given the table after each level."""
    tables: list[pd.DataFrame] = []
    for fewest, most in levels:
        level = replace(study, fewest_operations=fewest, most_operations=most)
        units = [Unit(level, SEED, ranked=False)]
        run_units(units)
        found = collect(units)
        arms = found.arms.merge(found.selections[["arm", "num_examples"]], on="arm", how="left")
        arms = arms[["arm", "num_examples", "num_solved", "num_problems", "solved"]]
        tables.append(pd.DataFrame({"fewest": fewest, "most": most}, arms.index).join(arms))
        table = pd.concat(tables, ignore_index=True)
        keep(table)
        words = faults(tables[-1])
        if not words or BEFORE in words:
            break
    return table


def faults(table: pd.DataFrame) -> dict[str, str]:
    """The gates that one level does not pass, in words, by what they are about.

    Example:
        >>> rows = [("before training", 8, 100), ("terse", 20, 100), ("filler", 25, 100)]
        >>> faults(pd.DataFrame(rows, columns=["arm", "num_solved", "num_problems"]))
        {'teachers': 'the best single teacher has 0.25, at least 0.3 is needed'}
    """
    shares = (table["num_solved"] / table["num_problems"]).set_axis(table["arm"])
    best = shares[[t.name for t in TEACHERS if t.name in shares]].max()
    found = {}
    if shares[BEFORE] > GATES["untrained"]:
        most = f"at most {GATES['untrained']:g} is allowed"
        found[BEFORE] = f"the untrained student has {shares[BEFORE]:.2f}, {most}"
    if best < GATES["best_teacher"]:
        least = f"at least {GATES['best_teacher']:g} is needed"
        found["teachers"] = f"the best single teacher has {best:.2f}, {least}"
    return found


def find_level() -> tuple[int, int]:
    """The level that the committed pilot found; InputError if there is none."""
    results = load_committed(PilotResults, NAME, _COMMAND, ("arm", "solved"))
    for level, rows in results.pilot.groupby(_LEVEL, sort=False):
        if not faults(rows):
            return level
    raise InputError(f"no level of difficulty passed the gates: see figures/{NAME}/pilot.csv")


def main(
    workers: Annotated[int, Option(help="Arms at the same time; 0: as set down.")] = 0,
) -> None:
    """Run the pilot and keep its results."""
    study, started = load_study(), time.monotonic()
    study = replace(study, workers=workers or study.workers)

    def keep(table: pd.DataFrame) -> None:
        made = describe_run((time.monotonic() - started) / 3600, PACKAGES)
        made = {"seed": SEED, "gates": GATES, "planned": study_key(study)} | made
        save_results(PilotResults(table, made), NAME)
        print(_last(table).drop(columns="solved").to_string(index=False), flush=True)

    wrong = faults(_last(run_pilot(study, LEVELS, keep)))
    for fault in wrong.values():
        print(f"not as supposed: {fault}")
    if wrong:
        raise Exit(1)


def _last(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the level that was tried last."""
    return [rows for _, rows in table.groupby(_LEVEL, sort=False)][-1]


if __name__ == "__main__":
    run_main(main)
