"""The paper's tables as data, for comparison with this project's numbers.

Paper: "The Signal is in the Steps: Local Scoring for Reasoning Data Selection", arXiv 2510.03988v2.
``reference.yaml`` holds the numbers and the paper's contradictions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from lalp.errors import InputError
from lalp.files import read_data

STUDENT_7B = "Qwen2.5-7B-Instruct"
STUDENT_32B = "Qwen2.5-32B-Instruct"
STUDENT_MATH = "Qwen2.5-Math-7B"
STUDENT_LLAMA = "Llama-3.1-8B-Instruct"
DEEPSEEK, QWQ, QWEN3 = "DeepSeek-R1", "QwQ-32B", "Qwen3-32B"
QWEN72B, GEMMA = "Qwen2.5-72B-Instruct", "Gemma3-27B-IT"
BENCHMARKS = ("MATH", "AIME25", "AMC", "MINERVA", "KAOYAN", "OLYMPIAD", "CN_MATH24")


@dataclass(frozen=True)
class ReferenceFigure:
    """One figure of the paper."""

    title: str  # what it shows, in this project's words
    notes: tuple[str, ...] = ()  # where the paper is silent or contradicts itself
    notebook: str = ""  # this project's notebook on it, if there is one
    not_run: str = ""  # why its numbers, or part of them, are not computed again at this scale


@dataclass(frozen=True, eq=False, kw_only=True)
class ReferenceTable(ReferenceFigure):
    """One table of the paper: the fields of a figure, and its numbers.

    ``frame`` has one row per student and teacher or rule, columns as printed. Accuracies are shares
    (AVG = mean over ``BENCHMARKS``), scores are nats per token, Tables 4 and 8 are in percent.
    Tables 5-7 hold settings as printed, as text.
    """

    frame: pd.DataFrame
    decimals: int  # digits after the point, as printed; fewer where the paper drops final zeros


def _read_item(values: dict[str, Any]) -> ReferenceFigure:
    """One table of the file, or one figure (which has no rows)."""
    values["notes"] = tuple(values.get("notes", ()))
    if "rows" not in values:
        return ReferenceFigure(**values)
    index = values.pop("index")
    frame = pd.DataFrame(values.pop("rows"), columns=[*index, *values.pop("columns")])
    return ReferenceTable(frame=frame.set_index(index), **values)


_ITEMS = {
    kind: {number: _read_item(values) for number, values in items.items()}
    for kind, items in read_data("paper/reference.yaml").items()
    if kind != "shared"
}
FIGURES: dict[str, ReferenceFigure] = _ITEMS["figures"]
TABLES: dict[str, ReferenceTable] = _ITEMS["tables"]


def paper_teacher_order(student: str, score: str) -> list[str]:
    """The paper's teachers from highest to lowest ``GALP``, ``LALP`` or ``AVG`` (Table 2).

    Example:
        >>> paper_teacher_order(STUDENT_32B, "LALP")
        ['QwQ-32B', 'DeepSeek-R1', 'Qwen3-32B']
    """
    frame = TABLES["2"].frame
    students = list(frame.index.unique("student"))
    if student not in students:
        raise InputError(f"Table 2 has no student {student!r}: choose {' or '.join(students)}")
    if score not in frame.columns:
        raise InputError(f"Table 2 has no score {score!r}: choose {' or '.join(frame.columns)}")
    return list(frame.loc[student, score].sort_values(ascending=False).index)
