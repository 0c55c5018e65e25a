"""A pilot of `registers-reach`: what each teacher teaches one student, before rules are compared.

``python -m lalp.paper.world.reach.pilot`` trains one student of each reach on every teacher alone.
Its seed is not used in the study. It scores and selects nothing, so it can run, and set the world's
difficulty, before the predictions are tested. It ends with 1 if the world does not meet the
predictions' assumptions; ``preregistered.yaml`` lists the runs under `pilots`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from typer import Exit, Option

from lalp.cli.options import run_main
from lalp.files import cache_dir, write_json
from lalp.paper.world import study as base
from lalp.paper.world.reach import problems as world
from lalp.paper.world.reach.recheck import solution_table
from lalp.paper.world.reach.settings import TEACHERS, load_study
from lalp.paper.world.reach.study import ReachUnit, gate
from lalp.selection import rules

SEED = 100
"""Seed of the pilot's students; the study's seeds start at 0."""


def run_pilot(unit: ReachUnit) -> dict[str, Any]:
    """The student's gate, and the accuracy of the student trained on each teacher alone."""
    found = {name: gate(unit)[name] for name in ("reach", "seed", "short", "whole", "accepted")}
    pool, _ = world.make_pool(unit.problems, TEACHERS, unit.study.samples, unit.seed)
    table = solution_table(pool)
    for teacher in TEACHERS:
        own = rules.of_teacher(table, teacher.name)
        chosen = rules.select(own, "random", seed=unit.seed)["response_id"]
        report = base.run_arm(unit, pool, sorted(chosen))
        found[teacher.name] = report["num_solved"] / report["num_problems"]
    return found


def faults(pilots: Sequence[Mapping[str, Any]]) -> list[str]:
    """Failed assumptions of the predictions about the world, in words; empty if there are none.

    Example:
        >>> steady = {"accepted": True, "whole": 0.1, "steady": 0.5, "half careful": 0.5}
        >>> faults([steady | {"reach": 4, "careful": 0.6}, steady | {"reach": 1, "careful": 0.6}])
        ['reach 1: careful minus steady is +0.10']
    """
    found = []
    for pilot in pilots:
        where = f"reach {pilot['reach']}"
        if not pilot["accepted"]:
            found.append(f"{where}: the student does not pass its gate")
        found += [
            f"{where}: {teacher.name} teaches nothing"
            for teacher in TEACHERS
            if pilot[teacher.name] <= pilot["whole"]
        ]
        gap = pilot["careful"] - pilot["steady"]
        if (gap >= 0) if pilot["reach"] == 1 else (gap <= 0):
            found.append(f"{where}: careful minus steady is {gap:+.2f}")
    return found


def main(
    reach: Annotated[int, Option(help="One reach alone; 0: all.")] = 0,
    seed: Annotated[int, Option(help="Of the students; the study's are counted from 0.")] = SEED,
) -> None:
    """Run the pilot and print its results."""
    study, pilots = load_study("reach"), []
    for one in sorted([reach] if reach else study.reaches, reverse=True):
        pilots.append(run_pilot(ReachUnit(study, one, seed)))
        write_json(cache_dir() / "worlds" / f"pilot-reach{one}-{seed}.json", pilots[-1])
        print(json.dumps(pilots[-1]), flush=True)
    for fault in faults(pilots):
        print(f"not as supposed: {fault}")
    if faults(pilots):
        raise Exit(1)


if __name__ == "__main__":
    run_main(main)
