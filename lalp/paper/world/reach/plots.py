"""The figure of `registers-reach`: contrasts and accuracies by reach."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lalp.paper.figures import FULL_WIDTH, legend_above
from lalp.paper.world.reach.settings import BEFORE, LALP, LALP_WIDE, RANDOM, TEACHERS
from lalp.scoring.columns import GALP

_SHOWN = ("careful minus steady", "LALP minus GALP", "composition", "sample choice",
          "LALP@4 minus GALP")  # fmt: skip
_ARMS = (BEFORE, *(teacher.name for teacher in TEACHERS), RANDOM, GALP, LALP, LALP_WIDE)


def plot_reach(contrasts: pd.DataFrame, accuracy: pd.DataFrame, run: str) -> Figure:
    """`contrast_table` and `accuracy_by_arm`, a color and a marker for each reach.

    Thick lines are Student's t intervals over students; thin ones are two-level bootstraps.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(FULL_WIDTH, 4.2))
    contrasts = contrasts.assign(row=contrasts["contrast"])
    _draw(left, contrasts, _SHOWN, "difference")
    left.axvline(0, color="0.35", lw=1.2, ls="--", zorder=1.5)
    left.set_xlabel("difference of accuracy")
    _draw(right, accuracy.assign(row=accuracy["arm"]), _ARMS, "accuracy")
    right.set(xlabel="accuracy", xlim=(0, 1))
    legend_above(fig, left, 2, title=run, title_fontsize="small")
    return fig


def _draw(axis: Axes, table: pd.DataFrame, names: Sequence[str], column: str) -> None:
    """A row for each name from top to bottom, with a point for each reach."""
    colors = sns.color_palette("colorblind")
    reaches = sorted(table["reach"].unique())
    for place, reach in enumerate(reaches):
        own = table[(table["reach"] == reach) & table["row"].isin(names)]
        shift = 0.28 * (place - (len(reaches) - 1) / 2)
        y = [names.index(name) + shift for name in own["row"]]
        axis.hlines(y, own["low"], own["high"], color=colors[place], lw=2.5)
        if "bootstrap_low" in own:
            thin = {"color": "0.2", "lw": 0.8, "zorder": 2.5}
            axis.hlines(y, own["bootstrap_low"], own["bootstrap_high"], **thin)
        axis.plot(own[column], y, "os"[place % 2], color=colors[place], ms=6, zorder=3,
                  label=f"reach {reach}")  # fmt: skip
    axis.set_yticks(range(len(names)), names, fontsize="small")
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.grid(axis="y", visible=False)
