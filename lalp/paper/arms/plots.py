"""Figures of notebooks 05 and 06."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import seaborn as sns

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from matplotlib.figure import Figure
from lalp.paper.conditioning.plots import MARKERS
from lalp.paper.figures import FULL_WIDTH


def plot_training_loss(logs: dict[str, pd.DataFrame]) -> Figure:
    """Training loss by optimizer step, a panel per run, a line per rule (paper, Fig. 6).

    Args:
        logs: Title of each panel, and ``arm``, ``seed``, ``step``, ``loss``. Thin lines are single
            seeds, thick ones their mean.
    """
    fig, axes = plt.subplots(1, len(logs), figsize=(FULL_WIDTH, 3.7), squeeze=False)
    names = list(dict.fromkeys(name for log in logs.values() for name in log["arm"]))
    styles = _arm_styles(names)
    for axis, (title, log) in zip(axes[0], logs.items(), strict=True):
        for name, rows in log[log["loss"].notna()].groupby("arm", sort=False):
            by_seed = rows.pivot_table(index="step", columns="seed", values="loss")
            color = styles[name]["color"]
            axis.plot(by_seed.index, by_seed, color=color, lw=0.7, alpha=0.4)
            axis.plot(by_seed.index, by_seed.mean(axis=1), label=name, lw=2, ms=4, **styles[name])
        axis.set(xlabel="optimizer step", ylabel="")
        axis.set_title(title, fontsize="medium")
        axis.locator_params(axis="x", integer=True)
    axes[0, 0].set_ylabel("training loss\n(nats per response token)")
    handles = axes[0, -1].get_legend_handles_labels()
    fig.legend(*handles, loc="outside upper center", ncols=len(names), fontsize="small")
    return fig


def _arm_styles(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour and marker of each arm, by its place."""
    palette = sns.color_palette("colorblind", max(len(names), 1))
    return {
        name: {"color": palette[i], "marker": MARKERS[i % len(MARKERS)]}
        for i, name in enumerate(names)
    }


def plot_arms(table: pd.DataFrame, xlabel: str, line: float | None = None) -> Figure:
    """One value with its interval per arm, a panel per measure, arms in blocks by comparison.

    Args:
        table: ``group``, ``arm``, ``measure``, ``value``, ``low``, ``high``.
        xlabel: What the values are.
        line: Where to draw a dashed line, for example at no change.
    """
    measures = list(dict.fromkeys(table["measure"]))
    places, labels, marks = _arm_rows(table)
    fig, axes = plt.subplots(
        1, len(measures), figsize=(FULL_WIDTH, 0.3 * max(places.values()) + 1.7), sharey=True,
        squeeze=False,
    )  # fmt: skip
    colors = dict(zip(labels, sns.color_palette("colorblind", len(labels)), strict=False))
    for axis, measure in zip(axes[0], measures, strict=True):
        for row in table[table["measure"] == measure].itertuples():
            y, color = places[row.group, row.arm], colors[row.group]
            axis.hlines(y, row.low, row.high, color=color, lw=2)
            axis.plot(row.value, y, color=color, marker="o", ms=5)
        if line is not None:
            axis.axvline(line, color="0.35", lw=1, ls="--", zorder=0)
        axis.set_title(measure, fontsize="medium")
        axis.grid(axis="y", visible=False)
        axis.locator_params(axis="x", nbins=5)
    axes[0, 0].set_yticks(list(places.values()), [arm for _, arm in places], fontsize="small")
    for group, y in labels.items():
        axes[0, 0].text(
            -0.02, y, group, transform=axes[0, 0].get_yaxis_transform(), ha="right", va="center",
            fontsize="small", weight="bold",
        )  # fmt: skip
    axes[0, 0].set_ylim(marks + 0.6, -0.6)
    fig.supxlabel(xlabel, fontsize="medium")
    return fig


def _arm_rows(
    table: pd.DataFrame,
) -> tuple[dict[tuple[str, str], int], dict[str, int], int]:
    """The row of every arm, that of every comparison's heading, and the last row."""
    places: dict[tuple[str, str], int] = {}
    labels: dict[str, int] = {}
    row = -1
    for group, arms in table.groupby("group", sort=False)["arm"]:
        if group:
            labels[group] = row = row + 1
        else:
            labels[group] = row + 1
        for arm in dict.fromkeys(arms):
            places[group, arm] = row = row + 1
    return places, labels, row
