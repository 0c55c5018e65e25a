"""Figures of notebook 03."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lalp.paper.figures import FULL_WIDTH, SCORE_COLORS, errors, legend_above, teacher_colors

PALETTE = sns.color_palette("colorblind")
LINES = ("-", "--", "-.", ":")
MARKERS = "os^Dv*P"


def plot_conditioning(curves: pd.DataFrame) -> Figure:
    """The gap, and the two log-probabilities behind it, against position (paper, Fig. 5).

    ``curves`` are `position_curves` by teacher. On the right, the thick lines are all teachers
    together and the thin ones single teachers.
    """
    teachers = [name for name in curves["teacher"].unique() if name != "all"]
    colors = teacher_colors(teachers)
    fig, (left, right) = plt.subplots(1, 2, figsize=(FULL_WIDTH, 4.2))
    for place, teacher in enumerate(teachers):
        own = curves[(curves["teacher"] == teacher) & (curves["quantity"] == "gap")]
        style = {"color": colors[teacher], "marker": MARKERS[place % len(MARKERS)], "ms": 5}
        _draw_curve(left, own, label=teacher, **style)
    for quantity, score, line in (("global", "galp", "--"), ("local", "lalp", "-")):
        color = SCORE_COLORS[score]
        of_kind = curves[curves["quantity"] == quantity]
        for teacher in teachers:
            own = of_kind[of_kind["teacher"] == teacher]
            right.plot(100 * own["position"], own["mean"], color=color, ls=line, lw=1, alpha=0.3)
        together = of_kind[of_kind["teacher"] == "all"]
        _draw_curve(right, together, color=color, ls=line)
        end = together.dropna(subset="mean").tail(1)
        for x, y in zip(100 * end["position"], end["mean"], strict=True):
            right.annotate(quantity, (x, y), (8, -4), textcoords="offset points", color=color)
    left.axhline(0, color="0.5", lw=1)
    left.set(ylabel="gap: global - local (nats per token)", title="(a) gap", xlim=(0, 100))
    right.set(ylabel="log-probability (nats per token)", title="(b) global and local")
    right.set(xlim=(0, 118), xticks=range(0, 101, 20))
    for axis in (left, right):
        axis.set_xlabel("relative position in the response (%)")
    legend_above(fig, left, 4)
    return fig


def _draw_curve(axis: Axes, curve: pd.DataFrame, **style: Any) -> None:
    x = 100 * curve["position"]
    axis.plot(x, curve["mean"], lw=1.8, **style)
    axis.fill_between(x, curve["low"], curve["high"], color=style["color"], alpha=0.15, lw=0)


def plot_conditioning_controls(seen: pd.DataFrame, order: pd.DataFrame) -> Figure:
    """The gap by earlier occurrence, the share of text in each case, and the gap of shuffled steps.

    ``seen`` are `position_curves` by ``pair_seen``, over tokens whose window drops something;
    ``order`` are those by ``order``.
    """
    fig, axes = plt.subplots(1, 3, figsize=(FULL_WIDTH, 4.0))
    gaps = seen[seen["quantity"] == "gap"]
    totals = gaps[gaps["pair_seen"] == "all"].set_index("position")["num_tokens"]
    labels = [name for name in gaps["pair_seen"].unique() if name != "all"]
    for place, label in enumerate(labels):
        own = gaps[(gaps["pair_seen"] == label) & (gaps["num_tokens"] > 0)]
        style = {"color": PALETTE[place], "marker": MARKERS[place], "ms": 5, "ls": LINES[place]}
        _draw_curve(axes[0], own, label=label, **style)
        share = 100 * own["num_tokens"] / totals.loc[own["position"]].to_numpy()
        axes[1].plot(100 * own["position"], share, lw=1.8, **style)
    for place, label in enumerate(name for name in order["order"].unique() if name != "all"):
        own = order[(order["order"] == label) & (order["quantity"] == "gap")]
        style = {"color": PALETTE[4 + 3 * place], "marker": MARKERS[3 + place], "ms": 5}
        _draw_curve(axes[2], own, label=label, ls=LINES[place], **style)
    axes[0].set(ylabel="gap (nats per token)", title="(a) gap by where the\nword pair stood before")
    axes[1].set(ylabel="share of tokens (%)", title="(b) share of these tokens", ylim=(0, None))
    axes[2].set(ylabel="gap (nats per token)", title="(c) steps as written\nand shuffled")
    for axis in axes:
        axis.set(xlim=(0, 100))
        axis.title.set_size("medium")
    axes[2].legend(fontsize="small")
    fig.supxlabel("relative position in the response (%)", fontsize="medium")
    legend_above(fig, axes[0], 3)
    return fig


def plot_occurrences(table: pd.DataFrame) -> Figure:
    """Log-probability of repeated numbers and phrases at each occurrence (paper, Sec. C.3).

    ``table`` is `occurrence_series`: each series is a line.
    """
    kinds = list(dict.fromkeys(table["kind"]))
    fig, axes = plt.subplots(1, len(kinds), figsize=(FULL_WIDTH, 3.8), sharey=True, squeeze=False)
    for axis, kind in zip(axes[0], kinds, strict=True):
        of_kind = table[table["kind"] == kind]
        labels = sorted(of_kind["occurrence"].unique())
        for place, (name, own) in enumerate(of_kind.groupby("series", sort=False)):
            x = [labels.index(label) + 0.06 * (place - 1.5) for label in own["occurrence"]]
            # Items of one prompt have no interval, but are still drawn with caps.
            bars = [error.fillna(0) for error in errors(own, "mean")]
            style = {"color": PALETTE[place], "marker": MARKERS[place], "ls": LINES[place]}
            axis.errorbar(x, own["mean"], yerr=bars, capsize=2, label=name, **style)
        axis.set(title=f"{kind}s", xlabel="occurrence in the response")
        axis.set_xticks(range(len(labels)), labels)
    axes[0][0].set_ylabel("log-probability (nats per token)")
    legend_above(fig, axes[0][0], 2)
    return fig
