"""Figures of notebooks 00, 04 and 10."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from lalp.paper.conditioning.plots import MARKERS
from lalp.paper.figures import FULL_WIDTH, HALF_WIDTH, SCORE_COLORS, label_ends, score_label
from lalp.paper.show import in_words
from lalp.selection.plots import plot_scores as plot_scores
from lalp.selection.plots import plot_teacher_means as plot_teacher_means
from lalp.selection.plots import plot_window_sweep as plot_window_sweep
from lalp.selection.plots import teacher_colors


def plot_pool(frame: pd.DataFrame) -> Figure:
    """Responses, lengths and step counts per teacher.

    ``frame`` has one row per response.
    """
    order = sorted(frame["teacher"].unique())
    colors = teacher_colors(order)
    fig, axes = plt.subplots(1, 3, figsize=(FULL_WIDTH, 3.4))
    counts = frame["teacher"].value_counts().reindex(order)
    axes[0].barh(order, counts, color=[colors[t] for t in order])
    axes[0].bar_label(axes[0].containers[0], padding=3)
    axes[0].set(xlabel="correct responses", xlim=(0, counts.max() * 1.3))
    axes[0].invert_yaxis()
    look = {"order": order, "hue": "teacher", "palette": colors, "legend": False, "fliersize": 2}
    for axis, what in zip(axes[1:], ("tokens", "steps"), strict=True):
        sns.boxplot(frame, x=f"num_{what}", y="teacher", ax=axis, **look)
        axis.set(xlabel=f"{what} per response", ylabel="")
        axis.tick_params(labelleft=False)
    return fig


def plot_prompts_enough(curves: dict[str, pd.DataFrame]) -> Figure:
    """Share of prompt subsets that give the full set's teacher order (paper, Sec. 7.1).

    The dashed line is the share of draws of new prompts that name the same first teacher. The
    subsets leave out the full set, whose share is 1 by construction.
    """
    fig, axis = plt.subplots(figsize=(HALF_WIDTH, 3.6))
    for (column, curve), marker in zip(curves.items(), "os^Dv", strict=False):
        x, label = curve["num_prompts"], score_label(column)
        part = curve[x < x.max()]
        own = (part["num_prompts"], part["order_share"])
        color = SCORE_COLORS[column.partition("@")[0]]
        axis.plot(*own, marker=marker, color=color, label=f"{label}: order, subsets")
        new = {"color": color, "ls": "--", "marker": marker, "mfc": "white"}
        axis.plot(x, curve["new_top_share"], label=f"{label}: first, new prompts", **new)
        band = {"color": color, "alpha": 0.2}
        axis.fill_between(part["num_prompts"], part["order_low"], part["order_high"], **band)
    axis.axhline(0.95, color="0.5", lw=1, ls="--")
    axis.set(xlabel="prompts", ylabel="share of draws that agree", ylim=(0, 1.03))
    axis.legend(fontsize="small")
    return fig


def plot_mixes(mixes: pd.DataFrame) -> Figure:
    """Composition of each selection by teacher (paper, Table 8): percent, from `mix_table`."""
    colors = teacher_colors(mixes.columns)
    fig, axis = plt.subplots(figsize=(FULL_WIDTH, 0.5 * len(mixes) + 1.2))
    left, places = mixes.cumsum(axis=1) - mixes, range(len(mixes))
    inside = {"label_type": "center", "color": "white", "fontsize": "small"}
    for teacher, shares in mixes.items():
        style = {"left": left[teacher], "color": colors[teacher], "label": teacher}
        bars = axis.barh(places, shares, **style)
        # A narrower bar has no room for a number.
        axis.bar_label(bars, [f"{v:.0f}" if v >= 4 else "" for v in shares], **inside)
    axis.set_yticks(places, [in_words(name) for name in mixes.index])
    axis.invert_yaxis()
    axis.set(xlabel="responses chosen per teacher (%)", xlim=(0, 100))
    axis.grid(axis="y", visible=False)
    fig.legend(loc="outside upper center", ncols=4, fontsize="small")
    return fig


def plot_pairs(pairs: pd.DataFrame) -> Figure:
    """Differences of every two teachers under each score, from `pair_table`.

    A full mark is a difference that is resolved over all pairs.
    """
    names = pairs["first"] + " minus " + pairs["second"]
    labels = list(dict.fromkeys(names))
    fig, axis = plt.subplots(figsize=(FULL_WIDTH, 0.55 * len(labels) + 1.5))
    for place, (column, rows) in enumerate(pairs.groupby("score", sort=False)):
        y = [labels.index(name) + 0.16 * (2 * place - 1) for name in names[rows.index]]
        color = SCORE_COLORS[column.partition("@")[0]]
        axis.hlines(y, rows["low"], rows["high"], color=color, lw=2)
        fills = [color if resolved else "white" for resolved in rows["resolved"]]
        style = {"marker": MARKERS[place], "edgecolors": color, "s": 42}
        axis.scatter(rows["difference"], y, c=fills, zorder=3, **style)
        axis.scatter([], [], color=color, label=score_label(column), **style)  # for the legend
    axis.axvline(0, color="0.35", lw=1, ls="--")
    counts = pairs.groupby(names, sort=False)["num_prompts"].first()
    axis.set_yticks(range(len(labels)), [f"{name} ({counts[name]})" for name in labels])
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    axis.set_xlabel("difference of mean scores (nats per token)")
    fig.legend(loc="outside upper center", ncols=2, fontsize="small")
    return fig


def plot_correlations(pairs: pd.DataFrame, shares: pd.DataFrame) -> Figure:
    """Rank correlations between scores, and how often they choose the same response.

    ``pairs`` come from `lalp.selection.variants.within_prompt_correlations`; ``shares`` is the
    square `agreement_table`.
    """
    taus = shares * float("nan")
    for row in pairs.itertuples():
        taus.loc[row.score, row.other] = taus.loc[row.other, row.score] = row.tau
    fig, axes = plt.subplots(1, 2, figsize=(FULL_WIDTH, 4.4))
    options = {"annot": True, "cbar": False, "linewidths": 0.5, "annot_kws": {"size": "small"}}
    sns.heatmap(taus, ax=axes[0], fmt=".2f", cmap="vlag", vmin=-1, vmax=1, **options)
    axes[0].set_title("Kendall tau within prompts", fontsize="medium")
    unlike = shares.mask(taus.isna() & (shares == 1))
    sns.heatmap(100 * unlike, ax=axes[1], fmt=".0f", cmap="Blues", vmin=0, vmax=100, **options)
    axes[1].set_title("same response chosen (% of prompts)", fontsize="medium")
    labels = [_short_label(name) for name in shares.columns]
    for axis in axes:
        axis.set_xticklabels(labels, rotation=40, ha="right")
        axis.grid(visible=False)
    axes[0].set_yticklabels(labels, rotation=0)
    axes[1].set_yticklabels([])
    return fig


def plot_step_length(pairs: pd.DataFrame) -> Figure:
    """Correlation of each score with the length of steps among the candidates of a prompt."""
    fig, axis = plt.subplots(figsize=(HALF_WIDTH, 0.45 * len(pairs) + 1.1))
    places = range(len(pairs))
    axis.hlines(places, pairs["low"], pairs["high"], color="0.35", lw=2)
    axis.plot(pairs["tau"], places, "o", color="0.1")
    axis.axvline(0, color="0.5", lw=1, ls="--")
    axis.set_yticks(places, [_short_label(name) for name in pairs["score"]])
    axis.invert_yaxis()
    reach = 1.15 * max(pairs["low"].abs().max(), pairs["high"].abs().max())
    axis.set(xlabel="Kendall tau with tokens per step", xlim=(-reach, reach))
    return fig


def _short_label(column: str) -> str:
    # The higher, the better, like the other scores.
    return "RSR (negated)" if column == "rsr" else in_words(column)


def plot_splitter_sensitivity(means: pd.DataFrame) -> Figure:
    """Teachers around their common mean under each step splitter, a panel per window (Sec. B.1).

    Where the lines of two teachers cross, their order changes. ``means`` come from
    `lalp.paper.selection.splitters.centered_means`.
    """
    windows, splitters = (list(dict.fromkeys(means[name])) for name in ("window", "splitter"))
    colors = teacher_colors(means["teacher"].unique())
    fig, axes = plt.subplots(1, len(windows), figsize=(FULL_WIDTH, 3.6), squeeze=False, sharey=True)
    ends = {}
    for axis, window in zip(axes[0], windows, strict=True):
        for place, (teacher, color) in enumerate(colors.items()):
            rows = means.query("window == @window and teacher == @teacher")
            rows = rows.set_index("splitter").loc[splitters]
            x = np.arange(len(splitters)) + 0.07 * (place - (len(colors) - 1) / 2)
            axis.vlines(x, rows["low"], rows["high"], color=color, lw=1.5, alpha=0.45)
            axis.plot(
                x, rows["mean"], marker=MARKERS[place % len(MARKERS)], ms=5, color=color, lw=1.5
            )
            ends[teacher] = (x[-1], rows["mean"].iloc[-1], color)  # keep those of the last panel
        axis.axhline(0, color="0.35", lw=1, ls="--")
        labels = [in_words(name).replace(" of ", "\nof ") for name in splitters]
        axis.set_xticks(range(len(splitters)), labels, rotation=35, ha="right", fontsize="small")
        axis.grid(axis="x", visible=False)
        num_prompts = means.query("window == @window")["prompts"].min()
        name = "full prefix" if window == "all" else f"w = {window}"
        axis.set_title(f"{name}; {num_prompts} prompts", fontsize="medium")
    label_ends(axes[0, -1], ends)
    axes[0, 0].set_ylabel("mean score minus that of all\nteachers (nats per token)")
    return fig
