"""A small version of the plan: made-up sets in the same layout, tiny students with random weights.

The code is that of a real run, from the files to the figure. Its numbers mean nothing.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from lalp.files import digest, fingerprint, read_data, write_json, write_text
from lalp.paper.rsr.plan import Plan, find_plan
from lalp.paper.rsr.run import open_workflow

_WORDS = read_data("paper/rsr/made_up.yaml")


def dry_run(root: Path, students: Sequence[str] = ()) -> Path:
    """Run a small version of the plan inside the folder ``root``; returns the results' folder.

    The tables and the figure are as in a real run. A second run continues where one stopped, and
    starts over if the code has changed.
    """
    plan, toys = find_plan("toys"), root / "toys"
    made, made_by = toys / "made", digest([fingerprint("."), asdict(plan)])
    if not (made.is_file() and made.read_text() == made_by):
        shutil.rmtree(root, ignore_errors=True)
        write_sets(plan, toys / "sets")
        make_students(plan, toys / "students")
        write_text(made, made_by)
    open_workflow(root, root / "results", students, "toys").run()
    return root / "results"


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


def make_students(plan: Plan, folder: Path) -> None:
    """Tiny students with random weights, of the families of the real ones."""
    from lalp.paper.tiny import make_model, make_tokenizer  # waits for torch

    texts = [_WORDS[name] for name in ("system", "problem", "sentence", "answer")]
    tokenizer = make_tokenizer([*texts, *_WORDS["openings"]])
    for place, name in enumerate(plan.students.values()):
        for part in (make_model(name, place, 32), tokenizer):
            part.save_pretrained(folder / name)
