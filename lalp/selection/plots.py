"""Figures of one's own scores: how teachers rank, and how that depends on the window."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Widths of a README column and of half of it, in inches.
FULL_WIDTH, HALF_WIDTH = 9.0, 5.5


def teacher_colors(teachers: Iterable[str]) -> dict[str, tuple[float, float, float]]:
    """One colour per teacher, the same in every figure: by order of name."""
    names = sorted(teachers)
    return dict(zip(names, sns.color_palette("colorblind", len(names)), strict=True))


def score_label(column: str) -> str:
    """A score column as a figure names it.

    Example:
        >>> score_label("lalp@4")
        'LALP, w = 4'
    """
    return "GALP" if column == "galp" else f"LALP, w = {column[5:]}"


def means_by_window(rankings: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One table of several rankings, for `plot_window_sweep`.

    Args:
        rankings: What `rank_teachers` returns, by score column, from the smallest window up.

    Returns:
        The rankings' rows below each other, and in ``window`` what the score sees: ``4``, ``25%``,
        ..., or ``GALP``.

    Example:
        >>> means_by_window({"lalp@4": pd.DataFrame({"teacher": ["Ada"]})})["window"].tolist()
        ['4']
    """
    tables = [
        table.assign(window="GALP" if column == "galp" else column.removeprefix("lalp@"))
        for column, table in rankings.items()
    ]
    return pd.concat(tables, ignore_index=True)


def plot_scores(frame: pd.DataFrame, column: str) -> Figure:
    """GALP against LALP per response, coloured by teacher.

    Args:
        frame: A score table.
        column: Its LALP column, such as ``lalp@4``.
    """
    colors = teacher_colors(frame["teacher"].unique())
    # JointGrid lays itself out, and says so if another layout is set.
    with plt.rc_context({"figure.constrained_layout.use": False}):
        grid = sns.JointGrid(frame, x="galp", y=column, hue="teacher", palette=colors, height=5.5)
    grid.plot_joint(sns.scatterplot, s=22, alpha=0.8)
    grid.plot_marginals(sns.kdeplot, fill=True, alpha=0.15, common_norm=False)
    low = min(frame["galp"].min(), frame[column].min()) - 0.1
    high = max(frame["galp"].max(), frame[column].max()) + 0.1
    grid.ax_joint.plot([low, high], [low, high], color="0.5", lw=1, ls="--", zorder=0)
    grid.ax_joint.set(xlim=(low, high), ylim=(low, high))
    grid.ax_joint.locator_params(nbins=5)
    grid.set_axis_labels("GALP (nats per token)", f"LALP, window {column[5:]} (nats per token)")
    grid.ax_joint.legend(title="", fontsize="small")
    grid.figure.tight_layout()
    return grid.figure


def plot_teacher_means(rankings: dict[str, pd.DataFrame]) -> Figure:
    """Mean score and interval per teacher, a panel per score (paper, Fig. 1 and Table 2).

    Args:
        rankings: What `rank_teachers` returns, by score column.

    Example:
        >>> means = {"teacher": ["Bob", "Ada"], "mean": [-1.0, -2.0], "rank": [1, 2]}
        >>> ranking = pd.DataFrame(means | {"low": [-1.5, -2.5], "high": [-0.5, -1.5]})
        >>> figure = plot_teacher_means({"galp": ranking})
        >>> [text.get_text() for text in figure.axes[0].get_yticklabels()]
        ['Ada', 'Bob']
    """
    teachers = sorted(next(iter(rankings.values()))["teacher"])
    colors = teacher_colors(teachers)
    fig, axes = plt.subplots(
        1,
        len(rankings),
        figsize=(FULL_WIDTH, 3.2),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axis, (column, table) in zip(axes[0], rankings.items(), strict=True):
        table = table.set_index("teacher").loc[teachers]
        for place, (teacher, row) in enumerate(table.iterrows()):
            _draw_interval(axis, row, place, colors[teacher])
        axis.set_title(score_label(column), fontsize="medium")
        axis.set_yticks(range(len(teachers)), teachers)
        axis.margins(y=0.2)
        low, high = axis.get_xlim()
        axis.set_xticks(sorted({round(low + share * (high - low), 1) for share in (0.25, 0.75)}))
    fig.supxlabel(
        "mean score (nats per token), 95 % interval over prompts; 1 = highest", fontsize="medium"
    )
    return fig


def _draw_interval(axis: Axes, row: pd.Series, place: int, color: tuple) -> None:
    axis.plot([row["low"], row["high"]], [place, place], color=color, lw=2)
    axis.plot(row["mean"], place, "o", color=color)
    axis.annotate(
        f"{row['rank']:.0f}",
        (row["mean"], place),
        xytext=(0, 7),
        textcoords="offset points",
        ha="center",
        fontsize="small",
    )


def plot_window_sweep(means: pd.DataFrame) -> Figure:
    """Teacher means as the window grows from a few steps to the full prefix (paper, Fig. 3).

    Args:
        means: From `means_by_window`: ``window`` (label, in order), ``teacher``, ``mean``, ``low``,
            ``high``, ``rank``.
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
        left.errorbar(
            moved, table["mean"], yerr=errors, color=colors[teacher], marker="o", ms=4, capsize=2
        )
        right.plot(places, table["rank"], color=colors[teacher], marker="o", label=teacher, lw=2)
    left.set(ylabel="mean score (nats per token)")
    right.set(ylabel="rank (1 = highest)", yticks=sorted(means["rank"].unique().astype(int)))
    right.invert_yaxis()
    for axis in (left, right):
        axis.set_xticks(range(len(labels)), labels, rotation=35, ha="right")
        axis.set_xlabel(title)
    fig.legend(
        *right.get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize="small"
    )
    return fig
