"""The paper's numbers for its teachers and students, and how far the scores here are from them."""

from __future__ import annotations

import pandas as pd

from lalp.files import read_data
from lalp.paper.rsr.plan import PLAN
from lalp.scoring.columns import GALP

RSR = "rsr"
_PUBLISHED = read_data("paper/rsr/published.yaml")


def published() -> pd.DataFrame:
    """The paper's numbers: a row for each student and teacher, with means over its three sets.

    ``accuracy`` is in percent, after fine-tuning. ``surprisal`` is in nats per token, ``rank`` is
    the mean of ranks of at most 100, ``rsr`` the rank-surprisal ratio of all traces, ``rsr_200``
    that of 200 traces, and ``tokens`` the mean length.

    Example:
        >>> table = published().set_index(["student", "teacher"])
        >>> table.loc[("Qwen-3-14B", "QwQ-32B"), ["accuracy", "rsr"]].tolist()
        [77.4, 2.673]
    """
    parts = []
    for student, values in _PUBLISHED["students"].items():
        columns = {name: row for name, row in values.items() if name != "spearman"}
        columns |= {"tokens": _PUBLISHED["tokens"]}
        parts.append(pd.DataFrame({"student": student, "teacher": list(PLAN.teachers), **columns}))
    return pd.concat(parts, ignore_index=True)


def published_correlations() -> pd.DataFrame:
    """The paper's own Spearman correlations with accuracy (Tables 4 and 13), as absolute values.

    A row for each student, columns ``surprisal`` and ``rsr``.
    """
    rows = {name: values["spearman"] for name, values in _PUBLISHED["students"].items()}
    return pd.DataFrame.from_dict(rows, orient="index")


def published_scores() -> pd.DataFrame:
    """The paper's own scores of the teachers, in the form of `teacher_scores`.

    ``galp`` is minus its average surprisal, ``rsr`` is over all traces, ``rsr (200)`` over 200.
    """
    table = published()
    parts = [
        table[["student", "teacher"]].assign(score=name, value=-table[column])
        for name, column in ((GALP, "surprisal"), (RSR, "rsr"), ("rsr (200)", "rsr_200"))
    ]
    return pd.concat(parts, ignore_index=True)


def agreement(teachers: pd.DataFrame) -> pd.DataFrame:
    """How far scores computed here are from the published ones of the same teachers.

    The drawn traces are not the paper's, and bfloat16 is not the same bit for bit. But GALP and RSR
    have the same definition, so a larger difference means another student or prompt.

    Returns:
        A row per student and score: ``largest_difference``, in the score's unit, the teacher that
        has it, and ``spearman`` of both over teachers.
    """
    pairs = teachers.merge(published_scores(), on=["student", "score", "teacher"])
    rows = []
    for (student, name), group in pairs.groupby(["student", "score"], sort=False):
        gap = (group["value_x"] - group["value_y"]).abs()
        same = group["value_x"].corr(group["value_y"], method="spearman")
        most = gap.idxmax() if gap.notna().any() else gap.index[0]
        rows.append((student, name, gap.max(), group.loc[most, "teacher"], same))
    names = ["student", "score", "largest_difference", "of_teacher", "spearman"]
    return pd.DataFrame(rows, columns=names)
