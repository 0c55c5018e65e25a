"""One figure style, and saving a figure together with the numbers it shows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import seaborn as sns

from lalp.assets import build_dir
from lalp.records import atomic_path

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Widths of a README column and of half of it, in inches.
FULL_WIDTH, HALF_WIDTH = 9.0, 5.5


def use_style() -> None:
    """Set the project's figure style: legible at README width, safe for colour-blind readers."""
    sns.set_theme(context="notebook", style="whitegrid", palette="colorblind")
    plt.rcParams.update(
        {"figure.dpi": 110, "savefig.dpi": 160, "figure.constrained_layout.use": True}
    )


def figures_dir(profile: str) -> Path:
    """Where a profile's figures go: the default one's are committed, others stay in ``build``."""
    return build_dir().parent / "figures" if profile == "cpu" else build_dir() / profile / "figures"


def save_figure(fig: Figure, name: str, data: pd.DataFrame, profile: str) -> Path:
    """Save ``name.png`` and the numbers it shows as ``name.csv``; returns the picture's path."""
    folder = figures_dir(profile)
    with atomic_path(folder / f"{name}.png") as temporary:
        fig.savefig(temporary, format="png", metadata={"Software": None})
    with atomic_path(folder / f"{name}.csv") as temporary:
        data.to_csv(temporary, index=False, float_format="%.6g")
    return folder / f"{name}.png"


def teacher_colors(teachers: Sequence[str]) -> dict[str, tuple[float, float, float]]:
    """One colour per teacher, the same in every figure: by order of name."""
    names = sorted(teachers)
    return dict(zip(names, sns.color_palette("colorblind", len(names)), strict=True))


def plot_pool(frame: pd.DataFrame) -> Figure:
    """Responses, lengths and step counts per teacher.

    Args:
        frame: One row per response: ``teacher``, ``num_tokens``, ``num_steps``.
    """
    order = sorted(frame["teacher"].unique())
    colors = teacher_colors(order)
    fig, axes = plt.subplots(1, 3, figsize=(FULL_WIDTH, 3.4))
    counts = frame["teacher"].value_counts().reindex(order)
    axes[0].barh(order, counts, color=[colors[t] for t in order])
    axes[0].bar_label(axes[0].containers[0], padding=3)
    axes[0].set(xlabel="correct responses", xlim=(0, counts.max() * 1.3))
    for axis, column, label in (
        (axes[1], "num_tokens", "tokens per response"),
        (axes[2], "num_steps", "steps per response"),
    ):
        sns.boxplot(
            frame,
            x=column,
            y="teacher",
            order=order,
            hue="teacher",
            palette=colors,
            legend=False,
            ax=axis,
            fliersize=2,
        )
        axis.set(xlabel=label, ylabel="")
        axis.tick_params(labelleft=False)
    for axis in axes:
        axis.invert_yaxis() if axis is axes[0] else None
    return fig


def plot_scores(frame: pd.DataFrame, column: str) -> Figure:
    """GALP against LALP per response, coloured by teacher."""
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
    """Mean score and interval per teacher, a panel per score (paper, Fig. 1 and Table 2)."""
    teachers = sorted(next(iter(rankings.values()))["teacher"])
    colors = teacher_colors(teachers)
    fig, axes = plt.subplots(
        1, len(rankings), figsize=(FULL_WIDTH, 3.2), sharey=True, squeeze=False
    )
    for axis, (column, table) in zip(axes[0], rankings.items(), strict=True):
        table = table.set_index("teacher").loc[teachers]
        for place, (teacher, row) in enumerate(table.iterrows()):
            _draw_interval(axis, row, place, colors[teacher])
        axis.set_title(_score_label(column), fontsize="medium")
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


def _score_label(column: str) -> str:
    return "GALP" if column == "galp" else f"LALP, w = {column[5:]}"


def plot_window_sweep(means: pd.DataFrame) -> Figure:
    """Teacher means as the window grows from a few steps to the full prefix (paper, Fig. 3).

    Args:
        means: ``window`` (label, in order), ``teacher``, ``mean``, ``low``, ``high``, ``rank``.
    """
    colors = teacher_colors(means["teacher"].unique())
    labels = list(dict.fromkeys(means["window"]))
    fig, (left, right) = plt.subplots(1, 2, figsize=(FULL_WIDTH, 3.8))
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
        axis.set_xlabel("window (share of the preceding steps)")
    fig.legend(
        *right.get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize="small"
    )
    return fig


def plot_prompts_enough(curves: dict[str, pd.DataFrame]) -> Figure:
    """Share of prompt subsets that give the full set's teacher order (paper, Sec. 7.1)."""
    fig, axis = plt.subplots(figsize=(HALF_WIDTH, 3.6))
    for (column, curve), marker in zip(curves.items(), "os^Dv", strict=False):
        (line,) = axis.plot(
            curve["num_prompts"], curve["order_share"], marker=marker, label=_score_label(column)
        )
        axis.fill_between(
            curve["num_prompts"],
            curve["order_low"],
            curve["order_high"],
            color=line.get_color(),
            alpha=0.2,
        )
    axis.axhline(0.95, color="0.5", lw=1, ls="--")
    axis.set(xlabel="prompts", ylabel="share of draws with the full order", ylim=(0, 1.03))
    axis.legend(fontsize="small")
    return fig


def plot_mixes(mixes: pd.DataFrame) -> Figure:
    """Composition of each selection by teacher (paper, Table 8).

    Args:
        mixes: Percent, one row per selection rule, one column per teacher.
    """
    colors = teacher_colors(mixes.columns)
    fig, axis = plt.subplots(figsize=(FULL_WIDTH, 0.5 * len(mixes) + 1.2))
    left = [0.0] * len(mixes)
    for teacher in mixes.columns:
        bars = axis.barh(
            mixes.index, mixes[teacher], left=left, color=colors[teacher], label=teacher
        )
        axis.bar_label(
            bars,
            [f"{v:.0f}" if v >= 4 else "" for v in mixes[teacher]],
            label_type="center",
            color="white",
            fontsize="small",
        )
        left = [a + b for a, b in zip(left, mixes[teacher], strict=True)]
    axis.invert_yaxis()
    axis.set(xlabel="responses chosen per teacher (%)", xlim=(0, 100))
    axis.grid(axis="y", visible=False)
    fig.legend(loc="outside upper center", ncols=4, fontsize="small")
    return fig
