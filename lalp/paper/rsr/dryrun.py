"""A small version of the plan: made-up sets in the same layout, tiny students with random weights.

The code is that of a real run, from the files to the figure. Its numbers mean nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from lalp.files import read_data, write_json
from lalp.paper.rsr.plan import Plan
from lalp.paper.rsr.run import run_plan

_WORDS = read_data("paper/rsr/made_up.yaml")


def dry_run(
    plan: Plan,
    root: Path,
    *,
    students: Sequence[str] = (),
    say: Callable[[str], object] = print,
) -> pd.DataFrame:
    """Run a small version of a plan inside the folder ``root``; returns the correlations.

    The tables and the figure are in ``root/results``, as in a real run.
    """
    small = shrink(plan)
    write_sets(small, root / "sets")
    make_students(small, root / "students", students or list(plan.students))
    return run_plan(
        small,
        root / "results",
        data=root / "sets",
        students=students,
        locate=lambda name: str(root / "students" / name),
        say=say,
    )


def shrink(plan: Plan) -> Plan:
    """The same plan with few traces and draws."""
    sizes = ("set_size", "num_responses", "num_resamples")
    return replace(plan, **{name: _WORDS[name] for name in sizes})


def write_sets(plan: Plan, folder: Path) -> None:
    """Write made-up sets in the form of the data set, with the same problems in every set."""
    for place, pattern in enumerate(plan.teachers.values()):
        for number, generation in enumerate(plan.generations):
            rows = [_row(place, number, problem) for problem in range(plan.set_size)]
            path = folder / pattern.replace("*", "-32b") / plan.set_file.format(generation)
            write_json(path, rows)


def _row(teacher: int, generation: int, problem: int) -> dict[str, list[dict[str, str]]]:
    """One trace; its length and words differ by teacher and generation."""
    first, second = problem + 2, 3 * problem + 1
    openings = _WORDS["openings"]
    count = 4 + (teacher + generation) % 3
    said = [
        _WORDS["sentence"].format(
            openings[(teacher + n * generation) % len(openings)], first, second
        )
        for n in range(count)
    ]
    thought, answer = "\n".join(said), _WORDS["answer"].format(first + second)
    turns = {
        "system": _WORDS["system"].format(),
        "user": _WORDS["problem"].format(first, second),
        "assistant": f"<think>\n{thought}\n</think>\n\n{answer}",
    }
    return {"messages": [{"role": role, "content": text} for role, text in turns.items()]}


def make_students(plan: Plan, folder: Path, students: Sequence[str]) -> None:
    """Tiny students with random weights, of the families of the real ones."""
    from lalp.paper.scale.dryrun import make_model, make_tokenizer  # waits for torch

    for place, student in enumerate(students):
        name = plan.students[student]
        for part in (make_model(name, place, 32), make_tokenizer()):
            part.save_pretrained(folder / name)
