"""Figures of notebook 07."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lalp.paper.figures import FULL_WIDTH, HALF_WIDTH, SCORE_COLORS, legend_above

# Each has its own colour, marker and line style, so colour is not needed to tell them apart.
_ESTIMATES = {
    "direct": ("asked directly", "s", "--"),
    "scaffolded": ("chained, single steps", "o", "-"),
    "widest_hops": ("chained, hops of the window's width", "^", ":"),
}


def _draw_spread(axis: Axes, frame: pd.DataFrame, x: str, y: str, **style: object) -> None:
    """Median over chains as a line, 5 % to 95 % of the chains as a band."""
    spread = frame.groupby(x)[y].quantile([0.05, 0.5, 0.95]).unstack()
    (line,) = axis.plot(spread.index, spread[0.5], **style)
    band = {"color": line.get_color(), "alpha": 0.18, "lw": 0}
    axis.fill_between(spread.index, spread[0.05], spread[0.95], **band)


def plot_learning_curves(curves: dict[str, pd.DataFrame]) -> Figure:
    """Distance of a learner of pairs from the closed form while it is trained (Theorem A.2).

    The panels are `learning_curves` by title.
    """
    fig, axes = plt.subplots(1, len(curves), figsize=(FULL_WIDTH, 3.9), sharey=True, squeeze=False)
    styles = {"adjacent": "-", "never seen": "--"}
    for axis, (title, frame) in zip(axes[0], curves.items(), strict=True):
        lams = sorted(frame["lam"].unique())
        for lam, color, marker in zip(lams, sns.color_palette("colorblind"), "osD^v", strict=False):
            for pairs, line in styles.items():
                part = frame.query("lam == @lam and pairs == @pairs")
                style = {"color": color, "ls": line, "marker": marker, "ms": 4, "markevery": 4}
                style["markerfacecolor"] = color if pairs == "adjacent" else "white"
                label = f"λ = {lam:g}, {pairs}"
                _draw_spread(axis, part, "update", "error", label=label, **style)
        axis.set_xscale("symlog", linthresh=1)
        axis.set(yscale="log", ylim=(1e-4, 1), xlabel="gradient steps")
        axis.set_title(title, fontsize="medium")
    axes[0, 0].set_ylabel("total-variation distance\nto the closed form")
    legend_above(fig, axes[0, 0], 3)
    return fig


def plot_learned_weights(table: pd.DataFrame) -> Figure:
    """The data's share in `learned_weights` against the share that Theorem A.2 gives."""
    fig, axis = plt.subplots(figsize=(HALF_WIDTH, 3.8))
    shown = table.sort_values("ratio")
    axis.plot(shown["ratio"], shown["closed"], color="0.3", lw=1.5, label="μ / (μ + λν)")
    colors = sns.color_palette("colorblind")
    parts = shown.groupby("distance")
    for (distance, part), color, marker in zip(parts, colors, "osD^v*XP", strict=False):
        style = {"marker": marker, "facecolors": "none", "edgecolors": color, "s": 36, "lw": 1.2}
        axis.scatter(part["ratio"], part["learned"], label=f"|j - i| = {distance}", **style)
    axis.set_xscale("log")
    axis.set(xlabel="μ / (λν), data over background", ylabel="learned share of the data")
    axis.legend(fontsize="small")
    return fig


def plot_gap_by_distance(gaps: dict[str, pd.DataFrame]) -> Figure:
    """Errors of direct and scaffolded estimates by distance; only adjacent pairs were seen.

    The panels are the `reasoning_gap` at window 1, by title.
    """
    fig, axes = plt.subplots(1, len(gaps), figsize=(FULL_WIDTH, 3.9), sharey=True, squeeze=False)
    for axis, (title, frame) in zip(axes[0], gaps.items(), strict=True):
        lams = sorted(frame["lam"].unique())
        # From distance 2 on, the direct estimate is u for every lambda.
        unseen = frame.query("distance > 1 and lam == @lams[0]")
        style = {"color": "0.25", "ls": "--", "marker": "s", "ms": 4}
        label = "asked directly (any λ > 0)"
        _draw_spread(axis, unseen, "distance", "direct", label=label, **style)
        for lam, color, marker in zip(lams, sns.color_palette("colorblind"), "oD^v", strict=False):
            style = {"color": color, "marker": marker, "ms": 4, "label": f"chained, λ = {lam:g}"}
            _draw_spread(axis, frame.query("lam == @lam"), "distance", "scaffolded", **style)
        axis.set(xlabel="distance |j - i| (steps)", xticks=sorted(frame["distance"].unique()))
        axis.set_title(title, fontsize="medium")
    # The panels share their limits, so these are set after all is drawn.
    axes[0, 0].set_ylim(bottom=0)
    axes[0, 0].set_ylabel("total-variation distance\nto the true conditional")
    legend_above(fig, axes[0, 0], 4)
    return fig


def plot_gap_by_window(gaps: dict[str, pd.DataFrame]) -> Figure:
    """Errors of direct and scaffolded estimates by the window of training, three panels a row.

    The panels are the `reasoning_gap` at one lambda, by title.
    """
    rows = -(-len(gaps) // 3)
    style = {"figsize": (FULL_WIDTH, 0.9 + 2.5 * rows), "sharex": True, "sharey": "row"}
    fig, axes = plt.subplots(rows, 3, squeeze=False, **style)
    for axis, (title, frame) in zip(axes.flat, gaps.items(), strict=False):
        means = frame.groupby(["chain", "window"], as_index=False)[list(_ESTIMATES)].mean()
        colors = ("0.25", *sns.color_palette("colorblind", 2))
        for (name, (label, marker, line)), color in zip(_ESTIMATES.items(), colors, strict=True):
            style = {"color": color, "marker": marker, "ls": line, "ms": 4, "label": label}
            _draw_spread(axis, means, "window", name, **style)
        axis.set_title(title, fontsize="medium")
        axis.set_xticks(sorted(means["window"].unique()))
    for axis in axes[:, 0]:
        axis.set_ylim(bottom=0)
    fig.supxlabel("window of the pairs seen in training (steps)", fontsize="medium")
    fig.supylabel("total-variation distance to the truth, all pairs", fontsize="medium")
    legend_above(fig, axes[0, 0], 3)
    return fig


def plot_fluency_trap(instances: pd.DataFrame) -> Figure:
    """Where GALP prefers the wrong response, and A.3's boundary ``|L|/T = eps / (eps + Delta)``.

    The points are the pairs of `check_fluency_trap`.
    """
    titles = {"equality": "premises met with equality", "slack": "premises met with slack"}
    fig, axes = plt.subplots(1, 2, figsize=(FULL_WIDTH, 4.1), sharey=True)
    colors = sns.color_palette("colorblind")
    kinds = {True: ("x", colors[1], "wrong"), False: ("o", colors[0], "right")}
    ratios = np.geomspace(0.01, 100, 200)
    for axis, (premise, title) in zip(axes, titles.items(), strict=True):
        part = instances[instances["premise"] == premise]
        for wrong, (marker, color, which) in kinds.items():
            chosen = part[(part["margin"] > 0) == wrong]
            x, y = chosen["num_logic"] / chosen["num_tokens"], chosen["delta"] / chosen["eps"]
            label = f"GALP prefers the {which} response"
            axis.scatter(x, y, marker=marker, s=16, lw=1, color=color, label=label)
        axis.plot(1 / (1 + ratios), ratios, color="black", lw=2.5, label="|L|/T = ε / (ε + Δ)")
        axis.set(yscale="log", ylim=(0.01, 100), xlabel="share of logic tokens |L|/T")
        axis.set_title(title, fontsize="medium")
    axes[0].set_ylabel("Δ / ε")
    legend_above(fig, axes[0], 3, markerscale=1.5)
    return fig


def plot_fatal_step(boundaries: pd.DataFrame, dilution: pd.DataFrame) -> Figure:
    """GALP and LALP under one premise: where each is right, and which margin is larger.

    The panels show `margin_boundaries` and `sample_dilution`.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(FULL_WIDTH, 4.1))
    _draw_regions(left, boundaries)
    bins, colors = np.geomspace(0.05, 50, 60), sns.color_palette("colorblind")
    labels = {"any_token": "at any token", "any_step": "in any step"}
    for (column, label), color, line in zip(labels.items(), colors, ("-", "--"), strict=False):
        values = dilution[column]
        right.hist(values, bins=bins, histtype="step", lw=2, color=color, ls=line)
        label = f"one slip {label}: mean {values.mean():.2f}"
        right.axvline(values.mean(), ymax=0.7, color=color, ls=line, lw=1.5, label=label)
    expected = (dilution["num_tokens"] / dilution["num_steps"]).median()
    label = f"tokens per step, T / K: median {expected:.0f}"
    right.axvline(expected, ymax=0.7, color="0.25", ls=":", lw=2, label=label)
    right.set(xscale="log", xlabel="margin of LALP / margin of GALP", ylabel="responses")
    right.set_ylim(top=right.get_ylim()[1] * 1.4)
    right.legend(fontsize="small", loc="upper left")
    return fig


def _draw_regions(axis: Axes, boundaries: pd.DataFrame) -> None:
    x, galp, lalp = (boundaries[name] for name in ("relative_length", "galp", "lalp"))
    level = lalp.iloc[0]
    for low, high, winner in ((lalp, galp, "lalp"), (galp, lalp, "galp")):
        style = {"color": SCORE_COLORS[winner], "alpha": 0.4, "lw": 0}
        axis.fill_between(x, low, high, where=high > low, **style)
    axis.fill_between(x, level / 12, np.minimum(galp, lalp), color="0.8", lw=0)
    axis.plot(x, galp, color=SCORE_COLORS["galp"], lw=2, ls="--", label="GALP is right above")
    axis.plot(x, lalp, color=SCORE_COLORS["lalp"], lw=2, label="LALP is right above")
    center = {"ha": "center", "va": "center", "fontsize": "small"}
    axis.text(0.22, 2 * level, "only LALP\nright", **center)
    axis.text(4.5, level / 2, "only GALP\nright", **center)
    axis.text(3, 4 * level, "both right", **center)
    axis.text(0.5, level / 4, "both wrong", **center)
    axis.set(xscale="log", yscale="log", ylabel="Δ / ε", xlim=(x.min(), x.max()))
    axis.set(ylim=(level / 12, level * 12), xlabel="length of the fatal step / mean step length")
    axis.grid(visible=False)
    axis.legend(fontsize="small", loc="upper right")
