"""The figure: the correlation of each score with accuracy, student by student."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from lalp.paper.figures import FULL_WIDTH
from lalp.scoring.columns import column_window, score_label

_NAMES = {"galp": "GALP", "rsr": "RSR", "galp-casl": "GALP, CASL", "lalp-casl": "LALP, CASL"}


def plot_correlations(correlations: pd.DataFrame, published: pd.DataFrame) -> Figure:
    """Spearman's rho of each score with accuracy over teachers, with its interval; one panel each.

    Both tables are from `correlate`. Hollow marks are the published scores' correlations. A mark
    is full black where the correlation differs from 0 after Holm's correction.
    """
    found = correlations.query("measure == 'spearman'")
    students, scores = list(found["student"].unique()), list(found["score"].unique())
    size = {"figsize": (FULL_WIDTH, 0.7 * len(scores) + 1.2), "layout": "constrained"}
    columns = min(3, len(students))
    rows = -(-len(students) // columns)
    fig, axes = plt.subplots(rows, columns, sharex=True, sharey=True, squeeze=False, **size)
    for axis in axes.flat[len(students) :]:
        axis.set_visible(False)
    for axis, student in zip(axes.flat, students, strict=False):
        part = found[found["student"] == student].set_index("score").loc[scores]
        places = range(len(scores))
        colors = ["0.1" if p < 0.05 else "0.55" for p in part["p_holm"]]
        axis.hlines(places, part["low"], part["high"], color=colors, lw=2)
        axis.scatter(part["correlation"], places, color=colors, zorder=3)
        known = published.query("measure == 'spearman' and student == @student")
        known = known[known["score"].isin(scores)]
        marks = {"facecolors": "none", "edgecolors": "C3", "s": 70, "zorder": 4}
        axis.scatter(known["correlation"], [scores.index(s) for s in known["score"]], **marks)
        axis.axvline(0, color="0.5", lw=1, ls="--")
        axis.set_title(student, fontsize="medium")
        axis.set(xlim=(-1.05, 1.05))
    axes[0, 0].set_yticks(range(len(scores)), [_label(name) for name in scores])
    axes[0, 0].invert_yaxis()
    teachers = found["num_teachers"].iloc[0]
    fig.supxlabel(
        f"Spearman's rho with accuracy over {teachers} teachers, 95 % interval; hollow: published\n"
        "black: differs from 0 after Holm's correction",
        fontsize="medium",
    )
    return fig


def _label(column: str) -> str:
    name, _, window = column.partition("@")
    if column_window(column):
        return score_label(column)
    return _NAMES[name] + (f", w = {window}" if window else "")
