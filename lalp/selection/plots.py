"""Figures of your own scores: the teachers' ranking, and its dependence on the window."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from lalp.scoring.columns import column_window, score_label

# Widths of a README column and of half of it, in inches.
FULL_WIDTH, HALF_WIDTH = 9.0, 5.5


def use_style() -> None:
    """Set the project's figure style: legible at README width and safe for colour-blind readers."""
    sns.set_theme(context="notebook", style="whitegrid", palette="colorblind")
    plt.rcParams.update(
        {"figure.dpi": 110, "savefig.dpi": 220, "figure.constrained_layout.use": True}
    )
    # In a notebook: twice the pixels at the same size.
    if "ipykernel" in sys.modules:
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("retina")
    # A backend starts with the first figure. If that is drawn within `plt.rc_context`, leaving it
    # would undo the settings of the start, and notebooks would show no later figures.
    plt.switch_backend(plt.get_backend())


def teacher_colors(teachers: Iterable[str]) -> dict[str, tuple[float, float, float]]:
    """One colour per teacher by order of name, the same in every figure."""
    names = sorted(teachers)
    return dict(zip(names, sns.color_palette("colorblind", len(names)), strict=True))


def means_by_window(rankings: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One table of the results of `rank_teachers` by score column, for `plot_window_sweep`.

    ``window`` is the window of a row's score: ``4``, ``25%``, ..., or ``GALP``.

    Example:
        >>> means_by_window({"lalp@4": pd.DataFrame({"teacher": ["Ada"]})})["window"].tolist()
        ['4']
    """
    parts = [part.assign(window=column_window(c) or "GALP") for c, part in rankings.items()]
    return pd.concat(parts, ignore_index=True)


def plot_scores(frame: pd.DataFrame, column: str) -> Figure:
    """GALP against a LALP column of a score table, a point per response, coloured by teacher.

    Example:
        >>> from lalp.selection.table import example_scores
        >>> figure = plot_scores(example_scores(), "lalp@4")
        >>> figure.axes[0].get_ylabel()
        'LALP, window 4 (nats per token)'
    """
    colors = teacher_colors(frame["teacher"].unique())
    # JointGrid lays itself out, and warns if another layout is set.
    with plt.rc_context({"figure.constrained_layout.use": False}):
        grid = sns.JointGrid(frame, x="galp", y=column, hue="teacher", palette=colors, height=5.5)
    grid.plot_joint(sns.scatterplot, s=22, alpha=0.8)
    # A teacher with one response has no density; the figure shows that.
    shape = {"common_norm": False, "warn_singular": False}
    grid.plot_marginals(sns.kdeplot, fill=True, alpha=0.15, **shape)
    low = min(frame["galp"].min(), frame[column].min()) - 0.1
    high = max(frame["galp"].max(), frame[column].max()) + 0.1
    grid.ax_joint.plot([low, high], [low, high], color="0.5", lw=1, ls="--", zorder=0)
    grid.ax_joint.set(xlim=(low, high), ylim=(low, high))
    grid.ax_joint.locator_params(nbins=5)
    local = f"LALP, window {column_window(column)} (nats per token)"
    grid.set_axis_labels("GALP (nats per token)", local)
    grid.ax_joint.legend(title="", fontsize="small")
    grid.figure.tight_layout()
    return grid.figure


def plot_teacher_means(rankings: dict[str, pd.DataFrame]) -> Figure:
    """Mean score and interval per teacher, a panel per score (paper, Fig. 1 and Table 2).

    ``rankings`` holds the results of `rank_teachers` by score column.

    Example:
        >>> means = {"teacher": ["Bob", "Ada"], "mean": [-1.0, -2.0], "rank": [1, 2]}
        >>> ranking = pd.DataFrame(means | {"low": [-1.5, -2.5], "high": [-0.5, -1.5]})
        >>> figure = plot_teacher_means({"galp": ranking})
        >>> [text.get_text() for text in figure.axes[0].get_yticklabels()]
        ['Ada', 'Bob']
    """
    teachers = sorted(next(iter(rankings.values()))["teacher"])
    colors = teacher_colors(teachers)
    size = {"figsize": (FULL_WIDTH, 3.2), "layout": "constrained"}
    fig, axes = plt.subplots(1, len(rankings), sharey=True, squeeze=False, **size)
    for axis, (column, table) in zip(axes[0], rankings.items(), strict=True):
        for row in table.itertuples():
            place, color = teachers.index(row.teacher), colors[row.teacher]
            axis.plot([row.low, row.high], [place, place], color=color, lw=2)
            axis.plot(row.mean, place, "o", color=color)
            above = {"xytext": (0, 7), "textcoords": "offset points", "ha": "center"}
            axis.annotate(f"{row.rank:.0f}", (row.mean, place), fontsize="small", **above)
        axis.set_title(score_label(column), fontsize="medium")
        axis.set_yticks(range(len(teachers)), teachers)
        axis.margins(y=0.2)
        low, high = axis.get_xlim()
        axis.set_xticks(sorted({round(low + share * (high - low), 1) for share in (0.25, 0.75)}))
    title = "mean score (nats per token), 95 % interval over prompts; 1 = highest"
    fig.supxlabel(title, fontsize="medium")
    return fig


def plot_window_sweep(means: pd.DataFrame) -> Figure:
    """Teacher means as the window grows from a few steps to the full prefix (paper, Fig. 3).

    ``means`` is from `means_by_window`; its windows are drawn in the order of the table.

    Example:
        >>> ranking = {"teacher": ["Ada"], "mean": [-1.0], "low": [-2.0], "high": [-0.5]}
        >>> rankings = {name: pd.DataFrame(ranking).assign(rank=1) for name in ("lalp@4", "galp")}
        >>> figure = plot_window_sweep(means_by_window(rankings))
        >>> [text.get_text() for text in figure.axes[0].get_xticklabels()]
        ['4', 'GALP']
    """
    colors = teacher_colors(means["teacher"].unique())
    labels = list(dict.fromkeys(means["window"]))
    of_shares = all(label.endswith("%") for label in labels if label != "GALP")
    title = "window (share of the preceding steps)" if of_shares else "window"
    fig, (left, right) = plt.subplots(1, 2, figsize=(FULL_WIDTH, 3.8), layout="constrained")
    for shift, (teacher, table) in enumerate(means.groupby("teacher", sort=True)):
        places = [labels.index(window) for window in table["window"]]
        moved = [place + 0.06 * (shift - 1.5) for place in places]
        errors = [table["mean"] - table["low"], table["high"] - table["mean"]]
        style = {"color": colors[teacher], "marker": "o"}
        left.errorbar(moved, table["mean"], yerr=errors, ms=4, capsize=2, **style)
        right.plot(places, table["rank"], label=teacher, lw=2, **style)
    left.set(ylabel="mean score (nats per token)")
    right.set(ylabel="rank (1 = highest)", yticks=sorted(means["rank"].unique().astype(int)))
    right.invert_yaxis()
    for axis in (left, right):
        axis.set_xticks(range(len(labels)), labels, rotation=35, ha="right")
        axis.set_xlabel(title)
    handles = right.get_legend_handles_labels()
    fig.legend(*handles, loc="outside upper center", ncols=4, fontsize="small")
    return fig
