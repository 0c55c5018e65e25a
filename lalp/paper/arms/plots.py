"""Figures of notebooks 05 and 06."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from lalp.paper.arms.measure import name_windows
from lalp.paper.conditioning.plots import MARKERS
from lalp.paper.figures import FULL_WIDTH, SCORE_COLORS, label_ends
from lalp.paper.show import in_words


def plot_training_loss(log: pd.DataFrame, title: str) -> Figure:
    """Training loss by optimizer step, a line per rule with its name at the end (paper, Fig. 6).

    Thin lines are single seeds, thick ones their mean.
    """
    fig, axis = plt.subplots(figsize=(FULL_WIDTH, 3.9))
    names = list(log["arm"].unique())
    palette = sns.color_palette("colorblind", max(len(names), 1))
    colors = {name: SCORE_COLORS.get(name, c) for name, c in zip(names, palette, strict=False)}
    ends = {}
    for place, (name, rows) in enumerate(log[log["loss"].notna()].groupby("arm", sort=False)):
        by_seed = rows.pivot_table(index="step", columns="seed", values="loss")
        style = {"color": colors[name], "marker": MARKERS[place % len(MARKERS)]}
        axis.plot(by_seed.index, by_seed, color=style["color"], lw=0.7, alpha=0.4)
        mean = by_seed.mean(axis=1)
        axis.plot(by_seed.index, mean, label=name, lw=2, ms=4, **style)
        ends[name] = (by_seed.index[-1], mean.iloc[-1], style["color"])
    axis.set(xlabel="optimizer step", ylabel="training loss\n(nats per response token)")
    fig.suptitle(title, fontsize="small")
    axis.locator_params(axis="x", integer=True)
    label_ends(axis, ends)
    return fig


def plot_arms(table: pd.DataFrame, xlabel: str, title: str, line: float | None = None) -> Figure:
    """One value with its interval per arm, a panel per measure, arms in blocks by comparison.

    Args:
        table: ``group``, ``arm``, ``measure``, ``value``, ``low``, ``high``.
        xlabel: What the values are.
        title: The run that they belong to.
        line: Where to draw a dashed line, for example at no change.
    """
    table, measures = name_windows(table), list(dict.fromkeys(table["measure"]))
    # A line for every comparison's heading, which has no arm, and for each of its arms. The
    # untrained student stands alone, without a heading.
    lines = []
    for group, arms in table.groupby("group", sort=False)["arm"]:
        lines += [(group, None)] * bool(group) + [(group, arm) for arm in arms.unique()]
    size = (FULL_WIDTH, 0.3 * (len(lines) - 1) + 1.7)
    fig, axes = plt.subplots(1, len(measures), figsize=size, sharey=True, squeeze=False)
    groups = table["group"].unique()
    colors = dict(zip(groups, sns.color_palette("colorblind", len(groups)), strict=True))
    for axis, measure in zip(axes[0], measures, strict=True):
        for row in table[table["measure"] == measure].itertuples():
            y, color = lines.index((row.group, row.arm)), colors[row.group]
            axis.hlines(y, row.low, row.high, color=color, lw=2)
            axis.plot(row.value, y, color=color, marker="o", ms=5)
        if line is not None:
            axis.axvline(line, color="0.35", lw=1, ls="--", zorder=0)
        axis.set_title(measure, fontsize="medium")
        axis.grid(axis="y", visible=False)
        axis.locator_params(axis="x", nbins=5)
    first = axes[0, 0]
    ticks = {y: in_words(arm) for y, (_, arm) in enumerate(lines) if arm}
    first.set_yticks(list(ticks), list(ticks.values()), fontsize="small")
    style = {"ha": "right", "va": "center", "fontsize": "small", "weight": "bold"}
    for y, (group, arm) in enumerate(lines):
        if arm is None:
            first.text(-0.02, y, group, transform=first.get_yaxis_transform(), **style)
    first.set_ylim(len(lines) - 0.4, -0.6)
    fig.supxlabel(xlabel, fontsize="medium")
    fig.suptitle(title, fontsize="medium")
    return fig
