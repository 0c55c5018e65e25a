"""Figures of notebook 12."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lalp.paper.conditioning.plots import MARKERS, PALETTE
from lalp.paper.figures import (
    FULL_WIDTH,
    SCORE_COLORS,
    errors,
    legend_above,
    score_label,
    teacher_colors,
)
from lalp.paper.tables import STUDENT_7B, TABLES
from lalp.paper.traces.pool import MAIN_TEACHERS
from lalp.paper.traces.tokens import WORDS
from lalp.scoring.columns import GALP

DATA_LABELS = {"champ": "CHAMP", "gsm8k": "GSM8K", "math": "MATH", "pooled": "GSM8K + MATH"}


def plot_lengths(problems: pd.DataFrame, limit: int) -> Figure:
    """Tokens of the main teachers' traces to problems that all solved; scored and unscored ones.

    ``problems`` is `problem_table`, ``limit`` the student's positions.
    """
    sets = list(dict.fromkeys(problems["data_set"]))
    fig, axes = plt.subplots(1, len(sets), figsize=(FULL_WIDTH, 3.4), sharey=True, squeeze=False)
    solved = problems[problems["all_solved"]]
    scored = np.where(solved["drawn"] > 0, "scored", "not scored")
    solved = solved.assign(problem=scored)
    look = {"order": MAIN_TEACHERS, "hue_order": ["scored", "not scored"], "size": 2.5}
    for axis, data_set in zip(axes[0], sets, strict=True):
        own = solved[solved["data_set"] == data_set]
        colors = {"scored": PALETTE[0], "not scored": "0.75"}
        sns.stripplot(
            own, x="num_tokens", y="teacher", hue="problem", palette=colors, ax=axis, **look
        )
        axis.axvline(limit, color="0.3", lw=1, ls="--", label="positions of the student")
        number = own.loc[own["drawn"] > 0, "prompt_id"].nunique()
        of_all = own["prompt_id"].nunique()
        axis.set(xscale="log", xlabel="tokens", ylabel="")
        axis.set_xticks([300, 1000, 3000, 10_000], ["300", "1,000", "3,000", "10,000"])
        axis.xaxis.minorticks_off()
        axis.set_title(f"{DATA_LABELS[data_set]}: {number} of {of_all} problems", fontsize="medium")
        axis.get_legend().remove()
    legend_above(fig, axes[0][0], 3)
    return fig


def plot_orders(means: pd.DataFrame) -> Figure:
    """Each teacher's mean under every score, relative to that of all teachers (paper, Table 2).

    ``means`` has a row per ``data``, ``score`` and teacher, centered, in nats. Crossing lines are
    teachers whose order changes. Hollow marks are the paper's, for the shared teachers.
    """
    sets = list(dict.fromkeys(means["data"]))
    fig, axes = plt.subplots(1, len(sets), figsize=(FULL_WIDTH, 4.4), sharey=True, squeeze=False)
    colors = teacher_colors(MAIN_TEACHERS)
    scores = list(dict.fromkeys(means["score"]))
    for axis, data in zip(axes[0], sets, strict=True):
        for place, teacher in enumerate(MAIN_TEACHERS):
            own = means[(means["data"] == data) & (means["teacher"] == teacher)]
            own = own.set_index("score").loc[scores]
            x = np.arange(len(scores)) + 0.06 * (place - 1.5)
            style = {"color": colors[teacher], "marker": MARKERS[place], "ms": 5, "capsize": 2}
            axis.errorbar(x, own["mean"], yerr=errors(own, "mean"), label=teacher, **style)
        axis.axhline(0, color="0.5", lw=1)
        axis.set_xticks(range(len(scores)), [_short(score) for score in scores])
        axis.set_title(DATA_LABELS[data], fontsize="medium")
    _mark_paper(axes[0][0], scores, colors)
    axes[0][0].set_ylabel("mean minus that of the four\n(nats per token)")
    fig.supxlabel("score: GALP, then LALP with ever shorter windows", fontsize="medium")
    legend_above(fig, axes[0][0], 4)
    return fig


def _mark_paper(axis: Axes, scores: Sequence[str], colors: Mapping[str, tuple]) -> None:
    """The paper's GALP and LALP of its 7B student, relative to the mean of its three teachers."""
    table = TABLES["2"].frame.loc[STUDENT_7B]
    for column, score in (("GALP", GALP), ("LALP", "lalp@4")):
        for teacher, value in (table[column] - table[column].mean()).items():
            if teacher in colors:
                place = MARKERS[MAIN_TEACHERS.index(str(teacher))]
                style = {"mfc": "none", "mec": colors[str(teacher)], "mew": 1.5, "ms": 9, "ls": ""}
                axis.plot(scores.index(score), value, place, **style)
    axis.plot([], [], "o", mfc="none", mec="0.3", ms=9, label="paper (hollow)")


def _short(column: str) -> str:
    window = column.partition("@")[2] or "GALP"
    return "full\nprefix" if window == "all" else window


def plot_words(words: pd.DataFrame) -> Figure:
    """Words that thoughts begin with: their share of tokens, and how probable they are (Fig. 4).

    ``words`` covers all teachers together, with a row per word and score.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(FULL_WIDTH, 3.8), sharey=True)
    places = np.arange(len(WORDS))
    for shift, (score, own) in zip((-0.15, 0.15), words.groupby("score", sort=False), strict=True):
        rows = own.set_index("word").loc[list(WORDS)]
        color, marker = SCORE_COLORS[score.partition("@")[0]], "o" if shift < 0 else "s"
        style = {"color": color, "fmt": marker, "ms": 5, "capsize": 2}
        if shift < 0:
            left.barh(places, rows["tokens"], height=0.7, color="0.85", label="share of tokens")
        for axis, column in ((left, "mass"), (right, "ratio")):
            ends = errors(rows, column, f"{column}_")
            axis.errorbar(
                rows[column], places + shift, xerr=ends, label=score_label(score), **style
            )
    left.set_yticks(places, [word.capitalize() for word in WORDS])
    left.invert_yaxis()
    left.set(xlabel="share of tokens and of probability mass (%)")
    right.axvline(1, color="0.5", lw=1, ls="--")
    right.set(xlabel="mean probability / that of all tokens")
    legend_above(fig, left, 3)
    return fig


def plot_gap_sizes(gaps: pd.DataFrame) -> Figure:
    """The gap in the last tenth of every response, against the response's length (Fig. 5).

    ``gaps`` has a row per response: ``data``, ``num_tokens``, ``last`` (nats). The band is the
    paper's result for traces of 12,000 tokens.
    """
    fig, axis = plt.subplots(figsize=(FULL_WIDTH, 3.8))
    for place, (data, own) in enumerate(gaps.groupby("data", sort=False)):
        style = {"color": PALETTE[place], "marker": MARKERS[place], "ls": "", "ms": 4, "alpha": 0.5}
        axis.plot(own["num_tokens"], own["last"], label=DATA_LABELS[data], **style)
    axis.axhspan(0.8, 1.1, color="0.85", label="paper, last tenth", zorder=0)
    axis.plot([12_000], [0.95], "o", mfc="none", mec="0.3", ms=10, label="paper's length")
    axis.axhline(0, color="0.5", lw=1)
    axis.set(
        xscale="log", xlabel="tokens of the response", ylabel="gap, last tenth (nats per token)"
    )
    axis.legend(fontsize="small")
    return fig
